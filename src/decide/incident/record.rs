//! The timeline: what is added to it, what people add, and what moves out when it grows long.
//!
//! Entries of the operator are added in the same status write as the change they tell of, so each is there
//! exactly once. Entries of people are folded by the uid of their object, which is deleted afterwards.

use super::{Archive, Decision, texts::visible};
use crate::api::{
    ACTOR_ANNOTATION,
    ConditionStatus::{False, True},
    IMPACT_STAMP, INCIDENT_LABEL, Incident, IncidentStatus, MITIGATOR_ANNOTATION, REQUESTER_ANNOTATION,
    SEVERITY_STAMP, TimelineEntry, TimelineEntryType, TimelineRecord, names,
};
use crate::decide::{
    archive::config_map_names,
    conditions::{Conditions, clip, find, one_line, whole_seconds},
    stamp::Stamp,
};
use crate::mutants::{Mutant, seeded};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::{collections::HashSet, sync::Arc};

/// Entries that the status of the incident has at most before older ones move out. The API server decodes, validates,
/// stores and sends the whole status for each entry that is added, so this is what an entry costs in a long timeline.
pub const INLINE_ENTRIES: usize = 100;
/// Entries that stay when older ones move out.
const KEPT_ENTRIES: usize = 50;
/// Entries of people are folded up to here, and no further before older ones have moved out.
const MAX_FOLDED: usize = 225;
/// What the operator itself has to tell waits from here on; the schema's maximum is 256.
const CROWDED: usize = 230;
/// Fewer do not move out while others can soon go with them; and no more are given up at once where they cannot.
const WORTH_AN_OBJECT: usize = INLINE_ENTRIES - KEPT_ENTRIES;
/// How long people's entries wait, as objects, for room that only the archive can make. Then the oldest make it.
const ARCHIVE_PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// Tells whether older entries can move out; there once they could not.
const ARCHIVED: &str = "TimelineArchived";
/// Size of the entries that stay, and of those that move out at once. An object in etcd may have 1.5 MiB, a
/// ConfigMap 1 MiB.
const MAX_BYTES: usize = 512 * 1024;
/// When room in the timeline is looked for again, unless something happens before.
pub const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// How long an acknowledgement that confirms nothing waits: what gives its author the role may be seen after it.
const ROLE_PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// Longest message of an entry that the operator writes.
const MAX_MESSAGE: usize = 1024;
/// How far ahead of the clock an entry may be dated before it is dated now.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

impl Decision<'_> {
    /// Adds an entry of the operator: of what this author did, or itself.
    pub(super) fn tell(&mut self, time: Timestamp, reason: &str, author: Option<&str>, message: &str) {
        let authenticated = author.map(|_| self.seen.signed);
        self.tell_by(time, reason, author, authenticated, message);
    }

    /// The same of what somebody did, whether it is known who or not.
    pub(super) fn tell_of_somebody(
        &mut self,
        time: Timestamp,
        reason: &str,
        who: Option<&str>,
        message: &str,
    ) {
        self.tell_by(time, reason, who, Some(who.is_some() && self.seen.signed), message);
    }

    fn tell_by(
        &mut self,
        time: Timestamp,
        reason: &str,
        author: Option<&str>,
        authenticated: Option<bool>,
        message: &str,
    ) {
        let record = TimelineRecord {
            time: whole_seconds(time),
            stated_time: None,
            recorded_time: whole_seconds(self.now),
            reason: reason.to_owned(),
            message: one_line(message, MAX_MESSAGE),
            author: author.map(|a| clip(a, 253)),
            authenticated,
            audience: None,
            link: None,
            entry_uid: None,
        };
        self.push(record);
    }

    fn push(&mut self, record: TimelineRecord) {
        self.added.push(record.clone());
        // By time of occurrence; entries of the same second stay in the order in which they were recorded.
        let at = self.status.timeline.partition_point(|r| r.time.0 <= record.time.0);
        self.status.timeline.insert(at, record);
    }

    /// When to look again, if something waits for room in the timeline: at once when this plan makes some. Answers
    /// when that is if the archive is refused.
    pub(super) fn look_for_room(
        &mut self,
        folded: &[Arc<TimelineEntry>],
        archive: Option<&Archive>,
    ) -> Option<Timestamp> {
        let unarchived = self.wake.into_iter().chain(self.now.checked_add(LOOK_AGAIN).ok()).min();
        if !self.waits {
            return unarchived;
        }
        let makes_room = archive.is_some() || folded.iter().any(|e| e.metadata.deletion_timestamp.is_none());
        let again = if makes_room { Some(self.now) } else { self.now.checked_add(LOOK_AGAIN).ok() };
        self.wake = self.wake.into_iter().chain(again).min();
        unarchived
    }

    /// Whether the timeline has no room for a burst of entries before older ones have moved out.
    pub(super) fn is_crowded(&self) -> bool {
        self.status.timeline.len() >= CROWDED
    }

    /// Who created the incident, as far as anybody vouches for it.
    pub(super) fn requester(&self) -> Option<&str> {
        annotation(self.seen.incident, REQUESTER_ANNOTATION)
    }

    /// Who changed its spec last.
    pub(super) fn actor(&self) -> Option<&str> {
        annotation(self.seen.incident, ACTOR_ANNOTATION).or(self.requester())
    }

    /// Who changed its mitigations or its outcome last.
    pub(super) fn mitigator(&self) -> Option<&str> {
        annotation(self.seen.incident, MITIGATOR_ANNOTATION).or(self.actor())
    }

    /// Who made it complete what is known of severity and impact. Who corrects one of them before anybody looked is
    /// known from who stated both with the declaration.
    pub(super) fn triager(&self) -> Option<String> {
        let stamp = |key| Stamp::of(self.seen.incident.metadata.annotations.as_ref(), key);
        let (severity, impact) = match (stamp(SEVERITY_STAMP), stamp(IMPACT_STAMP)) {
            (Some(severity), Some(impact)) => (severity, impact),
            // Stated before this part had a stamp.
            (Some(one), None) | (None, Some(one)) => return one.user().map(str::to_owned),
            (None, None) => return self.actor().map(str::to_owned),
        };
        let before = self.seen.incident.status.as_ref();
        let looked = before.is_some_and(|s| find(&s.conditions, "Triaged").is_some());
        let later = match before.and_then(|s| s.severity) {
            Some(_) if looked => impact,
            None if looked => severity,
            _ if severity.user() == self.requester() => impact,
            _ => severity,
        };
        later.user().map(str::to_owned)
    }

    /// Who changed the part of its spec last that this stamp is of.
    pub(super) fn actor_of(&self, stamp: &str) -> Option<String> {
        match Stamp::of(self.seen.incident.metadata.annotations.as_ref(), stamp) {
            Some(stamp) => stamp.user().map(str::to_owned),
            None => self.actor().map(str::to_owned),
        }
    }

    /// The first entry, and the clocks that start with it.
    pub(super) fn declare(&mut self) {
        let spec = &self.seen.incident.spec;
        let detected = spec.detection.as_ref().and_then(|d| d.time.as_ref()).map_or(self.created(), |t| t.0);
        // Who declares it has found it, and what was found has begun: a slip in a date must not silence the clocks until
        // then. `FactsConsistent` says what is stated.
        let detected = detected.min(self.created());
        let started = spec.start_time.as_ref().map_or(detected, |t| t.0).min(detected);
        let milestones = &mut self.status.milestones;
        let first = milestones.detected_time.is_none();
        // People correct these two as they learn more; they are what is asserted, not what was first seen.
        milestones.detected_time = Some(whole_seconds(detected));
        milestones.started_time = Some(whole_seconds(started));
        if first {
            let author = self.requester().map(str::to_owned);
            let severity = spec.severity.map(|s| format!("{s} ")).unwrap_or_default();
            let message = format!("{severity}incident declared: {}", spec.title);
            self.tell(self.created(), "Declared", author.as_deref(), &message);
        }
    }

    /// Folds people's entries; answers which objects may be deleted once the status is written.
    pub(super) fn fold(&mut self) -> Vec<Arc<TimelineEntry>> {
        let mut entries: Vec<_> = self.seen.entries.to_vec();
        entries.sort_by_cached_key(|e| {
            (e.metadata.creation_timestamp.as_ref().map(|t| t.0), e.metadata.name.clone())
        });
        let mut size: usize = self.status.timeline.iter().map(bytes).sum();
        let known: HashSet<_> = self.status.timeline.iter().filter_map(|r| r.entry_uid.clone()).collect();
        let mut folded = Vec::new();
        for entry in entries {
            let is_known = entry.metadata.uid.as_ref().is_some_and(|uid| known.contains(uid));
            if !is_known && let Some(until) = self.held_until(&entry) {
                self.wake = self.wake.into_iter().chain([until]).min();
                continue;
            }
            if !is_known || seeded(Mutant::DoubleFold) {
                if self.status.timeline.len() >= MAX_FOLDED || size >= MAX_BYTES {
                    // It waits, as an object, until older entries have moved out.
                    self.waits = true;
                    continue;
                }
                let record = self.record_of(&entry);
                self.note_update(&record, entry.spec.type_ == TimelineEntryType::StatusUpdate);
                size += bytes(&record);
                self.push(record);
                self.answer(&entry);
            }
            folded.push(entry);
        }
        folded
    }

    pub(super) fn is_folded(&self, entry: &TimelineEntry) -> bool {
        let uid = entry.metadata.uid.as_deref();
        uid.is_some() && self.status.timeline.iter().any(|r| r.entry_uid.as_deref() == uid)
    }

    fn record_of(&self, entry: &TimelineEntry) -> TimelineRecord {
        let created = entry.metadata.creation_timestamp.as_ref().map_or(self.now, |t| t.0);
        let occurred = entry.spec.occurred_time.as_ref().map_or(created, |t| t.0);
        // What is dated in the future happened when it was written down.
        let is_future = occurred > created + CLOCK_SKEW;
        let time = if is_future { created } else { occurred };
        let author = entry.metadata.annotations.as_ref().and_then(|a| a.get(REQUESTER_ANNOTATION));
        TimelineRecord {
            time: whole_seconds(time),
            stated_time: is_future.then(|| whole_seconds(occurred)),
            recorded_time: whole_seconds(self.now),
            reason: reason_of(entry.spec.type_).to_owned(),
            // It is shown in terminals: what would drive them is shown as a picture of itself.
            message: visible(&entry.spec.message),
            author: author.map(|a| clip(a, 253)),
            authenticated: author.map(|_| self.seen.signed),
            audience: Some(entry.spec.audience.unwrap_or_default()),
            link: entry.spec.link.clone(),
            entry_uid: entry.metadata.uid.clone(),
        }
    }

    /// Until when an acknowledgement that confirms nothing is not looked at; `None` when there is nothing to wait for.
    fn held_until(&self, entry: &TimelineEntry) -> Option<Timestamp> {
        let confirms = entry.metadata.uid.as_ref().is_some_and(|uid| self.confirming.contains(uid));
        if entry.spec.type_ != TimelineEntryType::Acknowledgement || confirms {
            return None;
        }
        let created = entry.metadata.creation_timestamp.as_ref()?.0;
        // Where the clocks differ by more than that nobody knows how old it is.
        let until = created + ROLE_PATIENCE;
        (created <= self.now + CLOCK_SKEW && self.now < until).then_some(until)
    }

    /// Says so when an acknowledgement confirms nothing: who wrote it thinks otherwise.
    fn answer(&mut self, entry: &TimelineEntry) {
        let author = entry.metadata.annotations.as_ref().and_then(|a| a.get(REQUESTER_ANNOTATION));
        let Some(author) = author.filter(|_| entry.spec.type_ == TimelineEntryType::Acknowledgement) else {
            return;
        };
        if !self.status.roles.iter().any(|r| r.until_time.is_none() && r.holder == *author) {
            let message = format!(
                "{} holds no role of this incident: the acknowledgement confirms nothing; spec.roles says who holds which",
                one_line(author, 253)
            );
            self.tell(self.now, "NothingToAcknowledge", None, &message);
        }
    }

    /// Chooses the entries to move out when there are too many. An entry whose object is still there stays, so
    /// that it is not folded again; one that was added just now stays, because it may be dated otherwise when
    /// this is decided again.
    pub(super) fn archive(&mut self) -> Option<Archive> {
        let timeline = &self.status.timeline;
        if timeline.len() <= INLINE_ENTRIES && timeline.iter().map(bytes).sum::<usize>() < MAX_BYTES {
            return None;
        }
        let there: HashSet<_> = self.seen.entries.iter().filter_map(|e| e.metadata.uid.as_deref()).collect();
        let is_there = |r: &TimelineRecord| r.entry_uid.as_deref().is_some_and(|uid| there.contains(uid));
        let mut size = 0;
        let written = self.seen.incident.status.iter().flat_map(|s| &s.timeline);
        let records: Vec<_> = written
            .filter(|r| !is_there(r))
            .take(timeline.len().saturating_sub(KEPT_ENTRIES).max(WORTH_AN_OBJECT))
            .take_while(|r| {
                size += bytes(r);
                size <= MAX_BYTES
            })
            .cloned()
            .collect();
        // A few are not worth an object while others, whose objects are being removed, can soon go with them.
        let waits = timeline.iter().any(is_there);
        let enough = records.len() >= WORTH_AN_OBJECT || size >= MAX_BYTES / 2 || self.is_crowded();
        if records.is_empty() || (waits && !enough) {
            return None;
        }
        let number = self.status.timeline_archive.as_ref().map_or(0, |a| a.config_maps);
        let uid = self.seen.incident.metadata.uid.as_deref().unwrap_or_default();
        let [name, other_name] = config_map_names(self.name(), uid, number);
        Some(Archive { name, other_name, records })
    }
}

/// Takes entries out of a status that are in the archive now.
pub fn drop_archived(status: &mut IncidentStatus, archived: &[TimelineRecord], now: Timestamp) {
    take_out(status, archived);
    let archive = status.timeline_archive.get_or_insert_default();
    archive.config_maps += 1;
    archive.entries += i64::try_from(archived.len()).unwrap_or(i64::MAX);
    if find(&status.conditions, ARCHIVED).is_some() {
        let generation = status.observed_generation;
        let message = "older entries of the timeline are in config maps";
        Conditions::new(&mut status.conditions, generation, now).set(ARCHIVED, True, "Archived", message);
    }
}

/// What becomes of a timeline whose older entries are refused a place, which the incident says. What the operator has
/// to tell cannot wait, or nothing about the incident could change any more: for that the oldest make room, a few at a
/// time. People's entries wait as objects; but not for ever, because among them are updates that somebody waits for.
/// Answers how many are lost by it.
pub fn without_archive(status: &mut IncidentStatus, archive: &Archive, words: &str, now: Timestamp) -> usize {
    let refused = find(&status.conditions, ARCHIVED).filter(|c| c.status == False);
    let since = refused.map_or(now, |c| c.last_transition_time.0);
    let count = status.timeline.len();
    let full = count >= MAX_FOLDED || status.timeline.iter().map(bytes).sum::<usize>() >= MAX_BYTES;
    let excess = match full {
        true if now.duration_since(since) >= ARCHIVE_PATIENCE => archive.records.len().min(WORTH_AN_OBJECT),
        _ if count >= CROWDED => (count - MAX_FOLDED).min(archive.records.len()),
        _ => 0,
    };
    let lost = take_out(status, &archive.records[..excess]);
    let mut all = status.timeline_archive.as_ref().and_then(|a| a.lost).unwrap_or_default();
    if lost > 0 {
        all += i64::try_from(lost).unwrap_or(i64::MAX);
        status.timeline_archive.get_or_insert_default().lost = Some(all);
    }
    let so_far = match all {
        0 => "none is lost so far, people's entries wait".to_owned(),
        all => format!("the {all} oldest are lost"),
    };
    let message = format!("older entries of the timeline cannot be moved to a config map: {words}; {so_far}");
    let generation = status.observed_generation;
    Conditions::new(&mut status.conditions, generation, now).set(ARCHIVED, False, "Refused", message);
    lost
}

fn take_out(status: &mut IncidentStatus, records: &[TimelineRecord]) -> usize {
    let before = status.timeline.len();
    for record in records {
        if let Some(i) = status.timeline.iter().position(|r| r == record) {
            status.timeline.remove(i);
        }
    }
    before - status.timeline.len()
}

/// The most that an entry takes in storage: the API server writes JSON in which these characters are escaped.
fn bytes(record: &TimelineRecord) -> usize {
    let text = |text: &str| -> usize {
        text.chars()
            .map(|c| match c {
                '"' | '\\' => 2,
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
                c if c.is_control() => 6,
                c => c.len_utf8(),
            })
            .sum()
    };
    let optional = |t: &Option<String>| t.as_deref().map_or(0, text);
    512 + text(&record.message) + optional(&record.author) + optional(&record.link)
}

fn annotation<'a>(incident: &'a Incident, key: &str) -> Option<&'a str> {
    incident.metadata.annotations.as_ref()?.get(key).map(String::as_str).filter(|v| !v.is_empty())
}

/// The word under which an entry of this type is recorded.
pub(super) fn reason_of(type_: TimelineEntryType) -> &'static str {
    match type_ {
        TimelineEntryType::Note => "Note",
        TimelineEntryType::Decision => "Decision",
        TimelineEntryType::StatusUpdate => "StatusUpdate",
        TimelineEntryType::Acknowledgement => "Acknowledgement",
        TimelineEntryType::Approval => "Approval",
        TimelineEntryType::Rejection => "Rejection",
        TimelineEntryType::Hypothesis => "Hypothesis",
        TimelineEntryType::Evidence => "Evidence",
    }
}

/// Labels of what the operator makes for an incident.
pub(super) fn labels(incident: &str) -> std::collections::BTreeMap<String, String> {
    [
        (crate::api::MANAGED_BY_LABEL.to_owned(), crate::api::MANAGED_BY.to_owned()),
        (INCIDENT_LABEL.to_owned(), names::label_value(incident)),
    ]
    .into()
}
