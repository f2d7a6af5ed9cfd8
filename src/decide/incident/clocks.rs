//! The clocks: when each audience is to be told next, and which deadlines were missed.
//!
//! A deadline is worked out from recorded facts: when the incident was found or declared, when the audience was first
//! and last told, and the interval. Never from the present, which only says which deadlines have passed. So a replica
//! that comes back after an hour finds the same deadlines, and counts the missed ones once.

use super::{Decision, deliveries::is_over, texts};
use crate::api::{Audience, AudienceStatus, ClockName, Time, TimelineRecord, Visibility};
use crate::decide::conditions::{clip, whole_seconds};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// All clocks, in the order in which they are shown.
pub(super) const CLOCKS: [ClockName; 4] =
    [ClockName::Internal, ClockName::Public, ClockName::Executives, ClockName::Document];
/// Misses in a row that are each woken for; after that, only when their number has doubled. An incident that was
/// forgotten must not write for ever.
const WATCHED_MISSES: i64 = 4;

/// The deadline of a clock, and how much later the next one is once it was missed.
struct Deadline {
    due: Timestamp,
    then: Duration,
}

impl Decision<'_> {
    /// The rules of the clocks, one a line.
    fn deadline(&self, name: ClockName) -> Option<Deadline> {
        // Nobody waits for an update once it is resolved or cancelled.
        if self.is_over() || self.status.milestones.detected_time.is_none() {
            return None;
        }
        let spec = &self.seen.incident.spec;
        let rules = self.seen.settings.severity(self.status.severity);
        let own = spec.communication.as_ref().and_then(|c| c.update_interval.as_ref()).and_then(|d| d.get());
        // The schema refuses a shorter one; a stored object may still hold it.
        let own = own.filter(|every| *every >= Duration::from_secs(1));
        let clock = self.clock(name);
        let told = clock.and_then(|c| c.last_update_time.as_ref()).map(|t| t.0);
        let first = clock.and_then(|c| c.first_update_time.as_ref()).map(|t| t.0);
        let detected = self.detected();
        // What is dated before that told nobody of it.
        let since = |begin: Timestamp| told.map_or(begin, |told| told.max(begin));
        let (from, within, then) = match name {
            // The company and those who lead it: at every interval since it was found.
            ClockName::Internal => {
                let every = own.or(rules.internal_update)?;
                (since(detected), every, every)
            }
            ClockName::Executives => {
                let every = rules.executives_update?;
                (since(detected), every, every)
            }
            // The document is made by the declaration.
            ClockName::Document => {
                let every = rules.document_refresh?;
                (since(self.created()), every, every)
            }
            // The public hears of what is public, and counts from the declaration: nobody could post before.
            ClockName::Public if !self.is_public() => return None,
            ClockName::Public => {
                let every = rules.public_update.or(rules.public_first_post)?;
                let soon = rules.public_first_post.unwrap_or(every);
                let reopened = clock.and_then(|c| c.reopened_time.as_ref()).map(|t| t.0);
                // What is dated before the declaration was no post about this incident.
                let declared = whole_seconds(self.created()).0;
                let told = told.filter(|told| *told >= declared);
                let first = first.map(|first| first.max(declared));
                match (reopened, told, first, clock.and_then(|c| c.updates).unwrap_or(0)) {
                    // Who was told that it is over hears as soon that it is not.
                    (Some(reopened), ..) => (reopened, soon, every),
                    // First that it is known, at once.
                    (_, None, ..) | (_, _, None, _) => (self.created(), rules.public_first_post?, every),
                    // Then who and what is affected, soon after.
                    (None, Some(_), Some(_), ..=1) => {
                        (since(self.created()), rules.public_scope.unwrap_or(every), every)
                    }
                    // Then at every interval for some time, and after that as often as the document is refreshed.
                    (None, Some(told), Some(first), _) => {
                        let long = rules
                            .public_update_for
                            .is_some_and(|long| told.duration_since(first) >= signed(long));
                        let every = if long { rules.document_refresh.unwrap_or(every) } else { every };
                        (since(self.created()), every, every)
                    }
                }
            }
        };
        Some(Deadline { due: whole_seconds(from.checked_add(within).ok()?).0, then })
    }

    /// Brings all clocks up to date. Before anything else is looked at, so that what was missed is counted; and after
    /// everything else, for what is due next.
    pub(super) fn clocks(&mut self) {
        for name in CLOCKS {
            self.tick(name);
        }
        let told = |c: &&AudienceStatus| c.audience != ClockName::Document;
        let next = self.status.communication.iter().filter(told).filter_map(|c| c.next_due_time.as_ref());
        self.status.next_update_time = next.map(|t| t.0).min().map(|t| t.to_string());
    }

    fn tick(&mut self, name: ClockName) {
        let deadline = self.deadline(name).filter(|d| d.then >= Duration::from_secs(1));
        let Some(Deadline { due, then }) = deadline else {
            let over = self.is_over();
            if let Some(clock) = self.known_clock(name) {
                clock.interval = None;
                clock.since_time = None;
                clock.next_due_time = None;
                let counted = counted(clock);
                clock.missed_time = None;
                clock.missed_in_a_row = None;
                // After an end it begins anew; else what is counted stays so when the clock goes on.
                clock.counted_time = counted.filter(|_| !over);
            }
            return;
        };
        let (now, since) = (self.now, self.since());
        let clock = self.clock_mut(name);
        let interval = Some(texts::duration(then));
        if clock.interval != interval {
            clock.interval = interval;
            clock.since_time = Some(whole_seconds(since));
        }
        if clock.next_due_time.as_ref().is_none_or(|t| t.0 != due) {
            clock.next_due_time = Some(whole_seconds(due));
            // A deadline that moved ahead was not missed; those before it are counted already.
            if clock.missed_time.as_ref().is_some_and(|missed| missed.0 < due) {
                clock.counted_time = counted(clock);
                clock.missed_time = None;
                clock.missed_in_a_row = None;
            }
        }
        let in_force = clock.since_time.as_ref().map_or(since, |t| t.0);
        let before = counted(clock).map(|t| t.0);
        let run = Run::new(due, then, in_force, before, clock.missed_in_a_row, now);
        if let Some(last) = run.last {
            clock.missed_time = Some(whole_seconds(last));
            clock.missed_in_a_row = Some(i32::try_from(run.length).unwrap_or(i32::MAX));
            let count = i64::from(clock.overdue_count.unwrap_or(0)) + run.new;
            clock.overdue_count = Some(i32::try_from(count).unwrap_or(i32::MAX));
        }
        if let Some(first) = run.tell {
            let message = format!(
                "{} is overdue since {}{}",
                title(name),
                texts::time(due),
                if run.length > 1 {
                    format!(", missed {} times in a row", run.length)
                } else {
                    String::new()
                }
            );
            self.tell(first, "UpdateOverdue", None, &message);
        }
        self.wake = self.wake.into_iter().chain(run.wake).min();
    }

    /// A person told an audience something, or refreshed the document by adding to it.
    pub(super) fn note_update(&mut self, record: &TimelineRecord, is_update: bool) {
        self.refreshed(ClockName::Document, record.time.0, None);
        let name = match record.audience.unwrap_or_default() {
            _ if !is_update => return,
            // Those who work on it are told by the timeline itself.
            Audience::Responders => return,
            Audience::Internal => ClockName::Internal,
            Audience::Executives => ClockName::Executives,
            // Nobody outside reads it, now or later.
            Audience::Public if !self.is_public() => {
                self.clock_mut(ClockName::Public).withheld_time = Some(record.time.clone());
                return;
            }
            Audience::Public => ClockName::Public,
        };
        self.refreshed(name, record.time.0, Some(&record.message));
    }

    /// An incident that was over and goes on: who was told of the end outside is to be told.
    pub(super) fn goes_on(&mut self) {
        let was_over = self.seen.incident.status.as_ref().is_some_and(|s| is_over(s.stage));
        if self.is_over() {
            if let Some(clock) = self.known_clock(ClockName::Public) {
                clock.reopened_time = None;
            }
        } else if was_over && self.is_public() {
            let now = whole_seconds(self.now);
            let told = self.known_clock(ClockName::Public).filter(|c| c.first_update_time.is_some());
            if let Some(clock) = told {
                clock.reopened_time = Some(now);
            }
        }
    }

    /// An edit of the incident refreshes the document.
    pub(super) fn edited(&mut self) {
        let before = self.visited();
        if before.is_some() && before < self.seen.incident.metadata.generation {
            self.refreshed(ClockName::Document, self.now, None);
        }
    }

    fn detected(&self) -> Timestamp {
        self.status.milestones.detected_time.as_ref().map_or(self.created(), |t| t.0)
    }

    fn refreshed(&mut self, name: ClockName, at: Timestamp, message: Option<&str>) {
        let declared = whole_seconds(self.created()).0;
        let begins = match name {
            ClockName::Internal | ClockName::Executives => self.detected(),
            ClockName::Public | ClockName::Document => declared,
        };
        let clock = self.clock_mut(name);
        clock.withheld_time = None;
        if clock.reopened_time.as_ref().is_some_and(|reopened| reopened.0 <= at) {
            clock.reopened_time = None;
        }
        // What was said earlier and written down later does not set the clock back.
        let news = clock.last_update_time.as_ref().is_none_or(|last| last.0 <= at);
        if news {
            clock.last_update_time = Some(whole_seconds(at));
            clock.message = message.map(|m| clip(m, 4096));
        }
        // What is dated before the clock began moves no deadline.
        if news && at >= begins {
            // What was counted after it, before it was written down, stays counted; and with that all that had passed
            // before the interval was in force, which counts as one.
            let later = counted(clock).filter(|counted| counted.0 > at);
            let later = later
                .and_then(|counted| clock.since_time.iter().cloned().chain([counted]).max_by_key(|t| t.0));
            clock.missed_time = None;
            clock.missed_in_a_row = later.is_some().then_some(0);
            clock.counted_time = later;
        }
        if name == ClockName::Public && at < declared {
            return;
        }
        if clock.first_update_time.as_ref().is_none_or(|first| first.0 > at) {
            clock.first_update_time = Some(whole_seconds(at));
        }
        clock.updates = Some(clock.updates.unwrap_or(0).saturating_add(1));
    }

    pub(super) fn clock(&self, name: ClockName) -> Option<&AudienceStatus> {
        self.status.communication.iter().find(|c| c.audience == name)
    }

    fn known_clock(&mut self, name: ClockName) -> Option<&mut AudienceStatus> {
        self.status.communication.iter_mut().find(|c| c.audience == name)
    }

    pub(super) fn clock_mut(&mut self, name: ClockName) -> &mut AudienceStatus {
        let clocks = &mut self.status.communication;
        let place = |name: ClockName| CLOCKS.iter().position(|n| *n == name);
        let at = clocks.iter().position(|c| c.audience == name).unwrap_or_else(|| {
            let at = clocks.partition_point(|c| place(c.audience) < place(name));
            clocks.insert(at, AudienceStatus::of(name));
            at
        });
        &mut clocks[at]
    }

    pub(super) fn is_over(&self) -> bool {
        is_over(self.status.stage)
    }

    pub(super) fn is_public(&self) -> bool {
        let said = self.seen.incident.spec.communication.as_ref().and_then(|c| c.visibility);
        said.unwrap_or_default() == Visibility::Public
    }
}

/// What is overdue, in words.
pub(super) fn title(name: ClockName) -> &'static str {
    match name {
        ClockName::Internal => "internal update",
        ClockName::Public => "public update",
        ClockName::Executives => "update for executives",
        ClockName::Document => "refresh of the incident document",
    }
}

/// The last deadline that was counted as missed since the audience was told.
fn counted(clock: &AudienceStatus) -> Option<Time> {
    let both = clock.missed_time.iter().chain(&clock.counted_time);
    both.max_by_key(|t| t.0).cloned()
}

/// Deadlines that were missed in a row.
struct Run {
    /// How many are new.
    new: i64,
    /// How many there are, since the audience was told last.
    length: i64,
    /// The last deadline that passed.
    last: Option<Timestamp>,
    /// When the first of the new ones passed, if it is to be told.
    tell: Option<Timestamp>,
    /// When to look again.
    wake: Option<Timestamp>,
}

impl Run {
    /// The deadlines are `due`, `due + then`, `due + 2 then`, …; those up to `counted` are counted already, `in_a_row` of
    /// them in this run. The ones that had passed before the interval was in force count as one, because nobody could
    /// have met them, and as none if one of them is counted.
    fn new(
        due: Timestamp,
        then: Duration,
        in_force: Timestamp,
        counted: Option<Timestamp>,
        in_a_row: Option<i32>,
        now: Timestamp,
    ) -> Run {
        let step = i64::try_from(then.as_secs()).unwrap_or(i64::MAX).max(1);
        // How many deadlines had passed at a time.
        let passed = |at: Timestamp| {
            let late = at.as_second() - due.as_second();
            if late < 0 { 0 } else { late / step + 1 }
        };
        let deadline = |n: i64| {
            let second = due.as_second().saturating_add(step.saturating_mul(n - 1));
            Timestamp::from_second(second).ok()
        };
        let (before, all) = (counted.map_or(0, passed), passed(now));
        let impossible = passed(in_force).min(all);
        let new = match impossible > before {
            true => i64::from(before == 0) + all - impossible,
            false => (all - before).max(0),
        };
        let known = in_a_row.map_or(before, i64::from);
        let length = known + new;
        let doubled = |n: i64| n.max(0).checked_ilog2();
        let more = if all == 0 || length < WATCHED_MISSES { 1 } else { (1 << (length.ilog2() + 1)) - length };
        Run {
            new,
            length,
            last: if all > 0 { deadline(all) } else { None },
            tell: (doubled(length) > doubled(known))
                .then(|| deadline(before + 1).map(|first| first.max(in_force)))
                .flatten(),
            wake: deadline(all.saturating_add(more)),
        }
    }
}

fn signed(duration: Duration) -> k8s_openapi::jiff::SignedDuration {
    k8s_openapi::jiff::SignedDuration::try_from(duration).unwrap_or(k8s_openapi::jiff::SignedDuration::MAX)
}
