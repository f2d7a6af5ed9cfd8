//! The checklist of the first fifteen minutes: what is to be done, by whom, until when.
//!
//! The items are data. The operator ticks an item from what it sees; people tick any of them in `spec.checklist`, and
//! add their own there. What was done stays done; what people state wins.

use super::{Decision, WayBack, texts, way_back::NOTHING_STATED};
use crate::api::{
    CHECKLIST_STAMP, ChecklistEntry, ChecklistItem, ChecklistState as State, ClockName,
    ConditionStatus::True, IMPACT_STAMP, Role, Time,
};
use crate::decide::conditions::{clip, one_line, status as condition, whole_seconds};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// What an item of the playbook is.
struct Item {
    name: &'static str,
    description: &'static str,
    owner: Role,
    within: SignedDuration,
    /// By what the operator recognises that it is done.
    sign: Sign,
}

/// What the operator looks for.
#[derive(Clone, Copy)]
enum Sign {
    /// Command is confirmed.
    Command,
    /// Tenants, features or components are stated.
    Scope,
    /// There is an earlier revision or a flag.
    WayBack,
    /// The internal text has no blank.
    InternalDraft,
    /// The public was told, or need not be.
    PublicDraft,
    /// A person wrote an entry.
    Timeline,
}

/// The name of the item that the controller looks for.
pub const WAY_BACK: &str = "rollback-or-flag";

const fn item(name: &'static str, description: &'static str, owner: Role, minutes: i64, sign: Sign) -> Item {
    Item { name, description, owner, within: SignedDuration::from_secs(minutes * 60), sign }
}

/// The playbook's checklist.
const FIRST_FIFTEEN_MINUTES: [Item; 6] = [
    item(
        "commander-named",
        "An incident commander is named and has taken command",
        Role::IncidentCommander,
        5,
        Sign::Command,
    ),
    item(
        "impact-scope-known",
        "Affected tenants, features or components are stated in spec.impact",
        Role::OperationsLead,
        10,
        Sign::Scope,
    ),
    item(
        WAY_BACK,
        "It is known whether a rollback or a flag can stop it",
        Role::OperationsLead,
        15,
        Sign::WayBack,
    ),
    item(
        "internal-draft-ready",
        "The internal text is complete: severity, impact and owner",
        Role::CommunicationsLead,
        15,
        Sign::InternalDraft,
    ),
    item(
        "public-draft-ready",
        "The public was told since the declaration, by a StatusUpdate with audience Public",
        Role::CommunicationsLead,
        15,
        Sign::PublicDraft,
    ),
    item(
        "timeline-started",
        "The first entry of a person is in the timeline",
        Role::Scribe,
        15,
        Sign::Timeline,
    ),
];

/// How long an item may take of which that is not said.
const DEFAULT: SignedDuration = SignedDuration::from_secs(15 * 60);

impl Decision<'_> {
    /// Keeps the items: adds what is new, ticks what is done, tells what is overdue.
    pub(super) fn checklist(&mut self) {
        let since = self.since();
        // Those of the playbook are there from the declaration on, whatever was edited before anybody looked.
        let begin = if self.visited().is_none() { self.created() } else { since };
        let mut ticked = Vec::new();
        for item in &FIRST_FIFTEEN_MINUTES {
            let says = self.stated(item.name);
            let seen = self.seen_of(item.sign);
            let stated = says.as_ref();
            let word = self.keep(Wanted {
                name: item.name,
                description: stated.and_then(|e| e.description.as_deref()).unwrap_or(item.description),
                owner: stated.and_then(|e| e.owner).or(Some(item.owner)),
                begin,
                within: within(stated).unwrap_or(item.within),
                says: stated,
                seen,
            });
            ticked.extend(word.map(|word| (item.name.to_owned(), word)));
        }
        for entry in &self.seen.incident.spec.checklist {
            if FIRST_FIFTEEN_MINUTES.iter().all(|item| item.name != entry.name) {
                let word = self.keep(Wanted {
                    name: &entry.name,
                    description: entry.description.as_deref().unwrap_or(&entry.name),
                    owner: entry.owner,
                    begin: since,
                    within: within(Some(entry)).unwrap_or(DEFAULT),
                    says: Some(entry),
                    seen: Seen::default(),
                });
                ticked.extend(word.map(|word| (entry.name.clone(), word)));
            }
        }
        // What people added and took out again goes, unless it was done.
        let spec = &self.seen.incident.spec;
        let wanted = |i: &ChecklistItem| {
            i.state == State::Done
                || FIRST_FIFTEEN_MINUTES.iter().any(|item| item.name == i.name)
                || spec.checklist.iter().any(|e| e.name == i.name)
        };
        self.status.checklist.retain(wanted);
        self.tell_ticked(&ticked);
        self.tell_overdue();
    }

    fn stated(&self, name: &str) -> Option<ChecklistEntry> {
        self.seen.incident.spec.checklist.iter().find(|e| e.name == name).cloned()
    }

    /// Answers the word for what people made of it, if they did.
    fn keep(&mut self, wanted: Wanted<'_>) -> Option<&'static str> {
        let Wanted { name, description, owner, begin, within, says, seen } = wanted;
        let (now, created) = (self.now, self.created());
        let author = self.actor_of(CHECKLIST_STAMP);
        let at = self.status.checklist.iter().position(|i| i.name == name).unwrap_or_else(|| {
            self.status.checklist.push(ChecklistItem {
                name: name.to_owned(),
                description: String::new(),
                state: State::Todo,
                owner: None,
                since_time: (begin != created).then(|| whole_seconds(begin)),
                due_time: None,
                overdue_time: None,
                done_time: None,
                done_by: None,
                note: None,
            });
            self.status.checklist.len() - 1
        });
        let item = &mut self.status.checklist[at];
        description.clone_into(&mut item.description);
        item.owner = owner;
        let since = item.since_time.as_ref().map_or(created, |t| t.0);
        item.due_time = since.checked_add(within).ok().map(whole_seconds);
        // More time than before: what is not over yet is not overdue.
        item.overdue_time.take_if(|_| item.due_time.as_ref().is_none_or(|due| due.0 > now));
        let note = says.and_then(|e| e.note.clone());
        if let Some(state) = says.and_then(|e| e.state) {
            if state == item.state {
                item.note = note.or(item.note.take());
                return None;
            }
            item.state = state;
            item.done_time = (state != State::Todo).then(|| whole_seconds(now));
            item.done_by = author.filter(|_| state != State::Todo).map(|a| clip(&a, 253));
            item.note = note;
            return Some(match state {
                State::Todo => "open again",
                State::Done => "done",
                State::NotNeeded => "not needed",
            });
        }
        let mut word = None;
        if item.state == State::NotNeeded && !seen.not_needed {
            // Nobody says that it is not needed any more.
            word = item.done_by.take().map(|_| "open again");
            item.state = State::Todo;
            item.done_time = None;
        }
        if item.state != State::Todo {
            return word;
        }
        if seen.not_needed {
            item.state = State::NotNeeded;
            item.note = seen.note;
        } else if seen.done {
            item.state = State::Done;
            item.done_time = Some(seen.time.unwrap_or_else(|| whole_seconds(now)));
            item.done_by = seen.by.map(|a| clip(&a, 253));
            item.note = seen.note.map(|n| one_line(&n, 1024));
        } else {
            item.note = note.or(seen.note).map(|n| one_line(&n, 1024));
        }
        word
    }

    /// One entry for all that people ticked, whichever way; what the operator ticks is on record by what it saw.
    fn tell_ticked(&mut self, ticked: &[(String, &'static str)]) {
        let all = |word: &str| {
            let names = ticked.iter().filter(|(_, w)| *w == word).map(|(name, _)| name.as_str());
            let names: Vec<_> = names.collect();
            (!names.is_empty()).then(|| format!("{} {word}", names.join(", ")))
        };
        let parts: Vec<_> = ["done", "not needed", "open again"].into_iter().filter_map(all).collect();
        if parts.is_empty() {
            return;
        }
        let author = self.actor_of(CHECKLIST_STAMP);
        let message = format!("checklist: {}", parts.join("; "));
        self.tell(self.now, "ChecklistTicked", author.as_deref(), &message);
    }

    /// The rules by which the operator ticks, one a sign.
    fn seen_of(&self, sign: Sign) -> Seen {
        let spec = &self.seen.incident.spec;
        let done = |done: bool, by: Option<&str>, note: Option<String>| Seen {
            done,
            by: by.map(str::to_owned),
            note,
            ..Seen::default()
        };
        match sign {
            Sign::Command => {
                let mut seen =
                    done(condition(&self.status.conditions, "Acknowledged") == True, self.in_command(), None);
                seen.time = self.status.milestones.acknowledged_time.clone();
                seen
            }
            // A summary says what happens; how many and which features is what is asked for.
            Sign::Scope => {
                let impact = spec.impact.as_ref();
                let known = impact.is_some_and(|i| {
                    i.affected_tenants.is_some()
                        || !i.affected_features.is_empty()
                        || !i.components.is_empty()
                });
                done(
                    known,
                    self.actor_of(IMPACT_STAMP).as_deref(),
                    impact.filter(|_| known).and_then(texts::impact),
                )
            }
            Sign::WayBack => self.way_back(),
            Sign::InternalDraft => {
                let complete = spec.severity.is_some()
                    && spec.impact.as_ref().and_then(texts::impact).is_some()
                    && self.commander().is_some();
                done(
                    complete,
                    None,
                    complete.then(|| "status.communication has the text to paste".to_owned()),
                )
            }
            Sign::PublicDraft if !self.is_public() => Seen {
                not_needed: true,
                note: Some("spec.communication.visibility is Internal".to_owned()),
                ..Seen::default()
            },
            Sign::PublicDraft => {
                let told = self.clock(ClockName::Public).and_then(|c| c.first_update_time.clone());
                let mut seen = done(told.is_some(), None, None);
                seen.time = told;
                seen
            }
            Sign::Timeline => {
                let first = self.status.timeline.iter().find(|r| r.entry_uid.is_some());
                let mut seen = done(first.is_some(), first.and_then(|r| r.author.as_deref()), None);
                seen.time = first.map(|r| r.recorded_time.clone());
                seen
            }
        }
    }

    /// A rollback or a flag is possible: one is in use already, or one was found.
    fn way_back(&self) -> Seen {
        let used = self.status.mitigations.iter().find(|m| {
            m.applied_time.is_some() && matches!(m.action.as_deref(), Some("rollback" | "featureFlag"))
        });
        if let Some(used) = used {
            let what = format!(
                "in use: {} {}",
                used.action.as_deref().unwrap_or_default(),
                used.target.as_deref().unwrap_or_default()
            );
            return Seen { done: true, note: Some(what), ..Seen::default() };
        }
        match self.seen.way_back {
            // This process has not looked: what is on record stands.
            None => {
                let known = self.status.checklist.iter().find(|item| item.name == WAY_BACK);
                Seen { note: known.and_then(|item| item.note.clone()), ..Seen::default() }
            }
            Some(WayBack { found, .. }) if !found.is_empty() => {
                Seen { done: true, note: Some(found.join("; ")), ..Seen::default() }
            }
            Some(WayBack { looked, .. }) if looked.is_empty() => {
                Seen { note: Some(NOTHING_STATED.to_owned()), ..Seen::default() }
            }
            Some(WayBack { looked, .. }) => Seen {
                note: Some(format!("found no earlier revision and no flag among {}", looked.join(", "))),
                ..Seen::default()
            },
        }
    }

    /// Tells once of each item whose time is over, all in one entry.
    fn tell_overdue(&mut self) {
        if self.is_over() {
            return;
        }
        let now = self.now;
        let mut late: Vec<String> = Vec::new();
        let mut first: Option<Timestamp> = None;
        for item in self.status.checklist.iter_mut().filter(|i| i.state == State::Todo) {
            let Some(due) = item.due_time.as_ref().map(|t| t.0) else { continue };
            if item.overdue_time.is_some() {
                continue;
            }
            if due > now {
                self.wake = self.wake.into_iter().chain([due]).min();
                continue;
            }
            item.overdue_time = Some(whole_seconds(now));
            first = Some(first.map_or(due, |f| f.min(due)));
            late.push(item.name.clone());
        }
        if let Some(first) = first {
            self.tell(first, "ChecklistOverdue", None, &format!("checklist is overdue: {}", late.join(", ")));
        }
    }
}

/// An item as it should be.
struct Wanted<'a> {
    name: &'a str,
    description: &'a str,
    owner: Option<Role>,
    /// From when its time counts, if it is new.
    begin: Timestamp,
    /// How long it may take.
    within: SignedDuration,
    /// What people say of it.
    says: Option<&'a ChecklistEntry>,
    /// What the operator sees of it.
    seen: Seen,
}

/// What the operator sees of an item.
#[derive(Default)]
struct Seen {
    done: bool,
    not_needed: bool,
    /// Since when, if that is on record.
    time: Option<Time>,
    /// Who did it.
    by: Option<String>,
    note: Option<String>,
}

fn within(entry: Option<&ChecklistEntry>) -> Option<SignedDuration> {
    let stated = entry?.within.as_ref()?.get()?;
    SignedDuration::try_from(stated).ok()
}
