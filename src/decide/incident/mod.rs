//! What happens next to an incident.
//!
//! [`decide`] reads as a list: facts, milestones, roles, mitigations, stage, timeline, clocks, checklist, texts. Facts
//! may come in any order, and a mitigation never waits for a stage.

mod briefing;
mod checklist;
mod clocks;
mod deliveries;
mod gates;
mod lifecycle;
mod linter;
mod mitigations;
mod record;
mod roles;
mod severity;
mod standing;
mod steps;
mod summaries;
mod texts;
mod warnings;
mod way_back;

use super::{conditions::Conditions, outbox::Outcome};
use crate::api::{Incident, IncidentStatus, Mitigation, Postmortem, TimelineEntry, TimelineRecord};
use crate::config::{ChannelAudience, Settings};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

pub use checklist::WAY_BACK;
pub use linter::lint;
pub use mitigations::{CANCELLED, releases};
pub use record::{INLINE_ENTRIES, drop_archived, without_archive};
pub use summaries::{is_withdrawn, recorded_end};
pub use texts::{impact as impact_in_words, state as public_state};
pub use way_back::{WayBack, flags, is_on_record, labelled, revisions};

/// What was seen.
pub struct Observed<'a> {
    /// The incident.
    pub incident: &'a Incident,
    /// Mitigations that the incident owns or that name it.
    pub mitigations: &'a [Arc<Mitigation>],
    /// Who controls the Mitigations of these names now, whoever that is (uid of the controller).
    pub taken_names: &'a HashMap<String, Option<String>>,
    /// Timeline entries that name it.
    pub entries: &'a [Arc<TimelineEntry>],
    /// The postmortem that is about it.
    pub postmortem: Option<&'a Postmortem>,
    /// The postmortem that the incident's status names, whatever that is about now.
    pub known_postmortem: Option<&'a Postmortem>,
    /// The incident of which this is a duplicate; `None` when it names none.
    pub original: Option<Original>,
    /// What was found by looking for a way back; `None` while nobody has looked.
    pub way_back: Option<&'a WayBack>,
    /// Names of its mitigations that are there and cannot be read, as one that a newer version wrote.
    pub unreadable: &'a [String],
    /// Whether the API server vouches for the authors of requests.
    pub signed: bool,
    /// What became of messages to channels since the status was written, by audience.
    pub outcomes: &'a [(ChannelAudience, Outcome)],
    /// The configuration.
    pub settings: &'a Settings,
}

impl Observed<'_> {
    fn outcomes_of(&self, audience: ChannelAudience) -> Vec<Outcome> {
        let of = self.outcomes.iter().filter(|(whose, _)| *whose == audience);
        of.map(|(_, outcome)| outcome.clone()).collect()
    }
}

/// The incident of which another is a duplicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Original {
    /// It is there.
    Found,
    /// There is none of that name in the namespace.
    Missing,
    /// It is a duplicate of this one in turn, by way of these.
    Circle(Vec<String>),
}

/// What to do.
#[derive(Debug)]
pub struct Plan {
    /// The status as it should be.
    pub status: IncidentStatus,
    /// What was added to the timeline.
    pub added: Vec<TimelineRecord>,
    /// To do beside the status write, in any order; all of it can be done twice.
    pub effects: Vec<Effect>,
    /// Older entries to move out of the status first.
    pub archive: Option<Archive>,
    /// Timeline entries to delete once the status is written.
    pub folded: Vec<Arc<TimelineEntry>>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// The same, if the archive is refused: what waits for the room that it would make has none.
    pub wake_unarchived: Option<Timestamp>,
}

/// One write that the plan needs.
#[derive(Debug)]
pub enum Effect {
    /// Make a Mitigation of an entry of spec.mitigations.
    CreateMitigation(Box<Mitigation>),
    /// Carry an edit of an entry over to its Mitigation.
    UpdateMitigation {
        /// The Mitigation as it is.
        object: Arc<Mitigation>,
        /// The spec as it should be.
        spec: Box<crate::api::MitigationSpec>,
        /// Who changed the incident's spec last, for the object to say so, too: annotations.
        signatures: BTreeMap<String, String>,
    },
    /// Delete the Mitigation of an entry that was taken out.
    DeleteMitigation(Arc<Mitigation>),
    /// Draft the postmortem.
    CreatePostmortem(Box<Postmortem>),
}

/// Entries to move to an immutable ConfigMap. All of them are in the status as it was read, so that what is
/// written twice is the same. If the ConfigMap is there already, what is in it is what has moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    /// Name of the ConfigMap.
    pub name: String,
    /// Its name when that one is somebody else's, such as an earlier incident's of the same name.
    pub other_name: String,
    /// The entries.
    pub records: Vec<TimelineRecord>,
}

/// Decides the next steps.
pub fn decide(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut d = Decision {
        seen,
        now,
        status: seen.incident.status.clone().unwrap_or_default(),
        added: Vec::new(),
        effects: Vec::new(),
        wake: None,
        waits: false,
        confirming: Vec::new(),
    };
    // What was missed until now was missed under the rules and the stage that held until now.
    d.clocks();
    d.wake = None;
    d.status.observed_generation = seen.incident.metadata.generation;
    d.declare();
    d.roles();
    d.severity();
    let mitigations = d.mitigations();
    d.steps();
    d.lifecycle(&mitigations);
    d.configured();
    d.edited();
    d.goes_on();
    let folded = d.fold();
    d.explain();
    d.clocks();
    d.checklist();
    d.texts();
    d.deliveries();
    d.warnings();
    d.brief();
    let archive = d.archive();
    let wake_unarchived = d.look_for_room(&folded, archive.as_ref());
    let Decision { status, added, effects, wake, .. } = d;
    Plan { status, added, effects, archive, folded, wake, wake_unarchived }
}

struct Decision<'a> {
    seen: &'a Observed<'a>,
    now: Timestamp,
    status: IncidentStatus,
    added: Vec<TimelineRecord>,
    effects: Vec<Effect>,
    wake: Option<Timestamp>,
    /// Something waits for room in the timeline.
    waits: bool,
    /// uids of the acknowledgements that confirm a role.
    confirming: Vec<String>,
}

impl Decision<'_> {
    fn conditions(&mut self) -> Conditions<'_> {
        Conditions::new(&mut self.status.conditions, self.seen.incident.metadata.generation, self.now)
    }

    fn name(&self) -> &str {
        self.seen.incident.metadata.name.as_deref().unwrap_or_default()
    }

    fn created(&self) -> Timestamp {
        self.seen.incident.metadata.creation_timestamp.as_ref().map_or(self.now, |t| t.0)
    }

    /// Since when the spec says what it says: what was declared and never changed holds since it was declared,
    /// also when it is looked at an hour later; a change is dated when it is seen.
    fn since(&self) -> Timestamp {
        let unchanged = self.seen.incident.metadata.generation == Some(1);
        if self.visited().is_none() && unchanged { self.created() } else { self.now }
    }

    /// The generation that was looked at last. What nobody has looked at has one by default, which never was.
    fn visited(&self) -> Option<i64> {
        self.seen.incident.status.as_ref()?.observed_generation.filter(|generation| *generation > 0)
    }
}

#[cfg(test)]
mod tests;
