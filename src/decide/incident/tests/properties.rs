//! Random lives: whatever happens in whatever order, with writes lost in between.

use super::{world::scale, *};
use crate::api::{
    ConditionStatus::{self, False, True, Unknown},
    ENTRY_LABEL, Milestones, MitigationPhase as Phase, Stage,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const ENTRIES: [&str; 3] = ["a", "b", "c"];
const SEVERITIES: [Option<&str>; 6] =
    [None, Some("SEV1"), Some("SEV2"), Some("SEV3"), Some("SEV4"), Some("SEV5")];

#[derive(Clone, Debug)]
enum Event {
    Severity(usize),
    Commander(Option<usize>),
    Deputy(Option<usize>),
    Acknowledge,
    Impact(bool),
    /// An entry is put in or taken out.
    Entry(usize),
    /// A Mitigation moves on as it legally may; the incident does not look at once.
    Move(usize, usize),
    /// Somebody deletes a Mitigation.
    Delete(usize),
    /// Somebody makes a Mitigation that names the incident.
    Alone,
    NoneNeeded(bool),
    Resolution(bool),
    Waivers(bool),
    Criterion(Option<bool>),
    Outcome(bool),
    Note(i64),
    Review,
}

fn events() -> impl Strategy<Value = (Event, usize, u8)> {
    let event = prop_oneof![
        2 => (0..SEVERITIES.len()).prop_map(Event::Severity),
        2 => prop::option::weighted(0.8, 0..PEOPLE.len()).prop_map(Event::Commander),
        1 => prop::option::weighted(0.8, 0..PEOPLE.len()).prop_map(Event::Deputy),
        3 => Just(Event::Acknowledge),
        2 => any::<bool>().prop_map(Event::Impact),
        4 => (0..ENTRIES.len()).prop_map(Event::Entry),
        12 => (any::<usize>(), any::<usize>()).prop_map(|(which, how)| Event::Move(which, how)),
        1 => any::<usize>().prop_map(Event::Delete),
        1 => Just(Event::Alone),
        1 => any::<bool>().prop_map(Event::NoneNeeded),
        3 => any::<bool>().prop_map(Event::Resolution),
        1 => any::<bool>().prop_map(Event::Waivers),
        1 => prop::option::of(any::<bool>()).prop_map(Event::Criterion),
        1 => prop::bool::weighted(0.3).prop_map(Event::Outcome),
        2 => (-600i64..600).prop_map(Event::Note),
        2 => Just(Event::Review),
    ];
    // What happens, who does it, and what is lost of the first looks at it.
    (event, 0..PEOPLE.len(), 0u8..16)
}

/// What is known without looking at the status of the incident.
#[derive(Default)]
pub struct Known {
    /// Who confirmed command last, while it was handed on without a gap.
    pub leader: Option<String>,
    /// Whether the Mitigation that had this name last has ever worked.
    pub worked: BTreeMap<String, bool>,
    pub applied: BTreeSet<String>,
    pub ended: BTreeMap<String, Phase>,
    /// How often each word must be on record.
    pub told: BTreeMap<&'static str, usize>,
    pub notes: usize,
    pub milestones: Milestones,
    pub before: Option<(Stage, [bool; 5])>,
    pub deputy: Option<usize>,
    /// Mitigations whose entry was taken out.
    pub taken_out: BTreeSet<String>,
}

/// A life, and what is known of it.
pub struct Life {
    pub w: World,
    pub known: Known,
}

impl Life {
    fn new() -> Life {
        let mut w = World::declared(json!({"mitigations": [Life::entry("a")]}));
        w.run();
        let mut life = Life { w, known: Known::default() };
        life.settled();
        life
    }

    fn entry(name: &str) -> Value {
        let mut entry = scale(name);
        if name == "c" {
            entry["releaseOn"] = json!("Resolve");
        }
        entry
    }

    fn commander(&self) -> Option<String> {
        self.w.incident.spec.roles.as_ref().and_then(|r| r.incident_commander.clone())
    }

    pub fn tell(&mut self, reason: &'static str) {
        *self.known.told.entry(reason).or_default() += 1;
    }

    fn happens(&mut self, event: &Event, by: usize, lost: u8) {
        let by = PEOPLE[by];
        self.w.wait(61);
        match event {
            Event::Severity(i) => {
                let stated = self.w.incident.spec.severity;
                self.w.change(by, json!({"severity": SEVERITIES[*i], "severityReason": "because"}));
                if self.w.incident.spec.severity != stated {
                    self.tell("SeverityChanged");
                }
            }
            Event::Commander(who) => self.name_commander(by, who.map(|i| PEOPLE[i])),
            Event::Deputy(who) => {
                self.w.change(by, json!({"roles": {"deputy": who.map(|i| PEOPLE[i])}}));
                if *who != self.known.deputy {
                    self.tell(if who.is_some() { "RoleAssigned" } else { "RoleLeft" });
                }
                self.known.deputy = *who;
            }
            Event::Acknowledge => {
                self.w.entry(by, json!({"type": "Acknowledgement"}));
                self.known.notes += 1;
                if self.commander().as_deref() == Some(by) {
                    self.known.leader = Some(by.to_owned());
                }
            }
            Event::Impact(stated) => {
                self.w.change(by, json!({"impact": stated.then(|| json!({"summary": "x"}))}));
            }
            Event::Entry(i) => self.put_in_or_take_out(by, ENTRIES[*i]),
            Event::Move(which, how) => return self.moves(*which, *how),
            Event::Delete(which) => {
                if let Some(name) = self.pick(*which) {
                    self.w.delete(&name);
                }
            }
            Event::Alone => {
                if !self.w.mitigations.iter().any(|m| m.metadata.name.as_deref() == Some("alone")) {
                    self.w.alone(by, "alone");
                }
            }
            Event::NoneNeeded(said) => {
                self.w.change(by, json!({"noMitigationNeeded": said.then_some("it heals")}));
            }
            Event::Resolution(set) => {
                let summary = set.then_some("fixed");
                self.w.change(by, json!({"resolution": {"summary": summary}}));
            }
            Event::Waivers(set) => {
                let waived =
                    json!([{"mitigation": "a", "reason": "x"}, {"mitigation": "alone", "reason": "x"}]);
                self.w.change(by, json!({"resolution": {"waivers": if *set { waived } else { json!([]) }}}));
            }
            Event::Criterion(done) => {
                let criterion =
                    done.map(|done| json!({"description": "x", "state": if done { "Done" } else { "Todo" }}));
                self.w.change(by, json!({"exitCriteria": criterion.into_iter().collect::<Vec<_>>()}));
            }
            Event::Outcome(cancelled) => {
                self.w.change(by, json!({"outcome": cancelled.then_some("FalseAlarm")}));
            }
            Event::Note(seconds) => {
                let occurred = self.w.now + k8s_openapi::jiff::SignedDuration::from_secs(*seconds);
                self.w.entry(by, json!({"occurredTime": occurred}));
                self.known.notes += 1;
            }
            Event::Review => {
                if self.w.postmortem.is_some() {
                    self.w.reviewed();
                }
            }
        }
        let parts: Vec<Part> =
            ALL.into_iter().enumerate().filter(|(i, _)| lost >> i & 1 == 0).map(|(_, part)| part).collect();
        self.w.step(&parts);
        self.w.step(&parts);
        self.w.run();
        if !self.w.entries.is_empty() {
            // An acknowledgement that confirms nothing waits a moment.
            self.w.wait(5).run();
        }
        self.settled();
    }

    fn name_commander(&mut self, by: &str, who: Option<&str>) {
        let before = self.commander();
        self.w.change(by, json!({"roles": {"incidentCommander": who}}));
        if before.as_deref() == who {
            return;
        }
        self.tell(if who.is_some() { "RoleAssigned" } else { "RoleLeft" });
        if who == Some(by) {
            self.known.leader = who.map(str::to_owned);
        } else if who.is_none() || before.is_none() {
            self.known.leader = None;
        }
    }

    fn put_in_or_take_out(&mut self, by: &str, name: &str) {
        let mut names: Vec<_> =
            self.w.incident.spec.mitigations.iter().map(|e| e.name.clone()).filter(|n| n != name).collect();
        if names.len() == self.w.incident.spec.mitigations.len() {
            names.push(name.to_owned());
        } else {
            let of_entry = |m: &&Mitigation| {
                m.metadata.labels.as_ref().is_some_and(|l| l.get(ENTRY_LABEL).is_some_and(|n| n == name))
            };
            self.known
                .taken_out
                .extend(self.w.mitigations.iter().filter(of_entry).filter_map(|m| m.metadata.uid.clone()));
        }
        let entries: Vec<_> = names.iter().map(|n| Life::entry(n)).collect();
        self.w.change(by, json!({"mitigations": entries}));
    }

    fn pick(&self, which: usize) -> Option<String> {
        let count = self.w.mitigations.len();
        (count > 0).then(|| self.w.mitigations[which % count].metadata.name.clone().unwrap())
    }

    fn moves(&mut self, which: usize, how: usize) {
        let Some(name) = self.pick(which) else { return };
        let phase = self.w.object(&name).status.as_ref().and_then(|s| s.phase).unwrap_or_default();
        let options: &[(Phase, ConditionStatus)] = match phase {
            Phase::Pending | Phase::AwaitingApproval | Phase::Applying => &[
                (Phase::Pending, Unknown),
                (Phase::AwaitingApproval, Unknown),
                (Phase::Applying, Unknown),
                (Phase::Active, Unknown),
                (Phase::Active, True),
                (Phase::Refused, Unknown),
                (Phase::Released, Unknown),
            ],
            Phase::Active => &[
                (Phase::Active, True),
                (Phase::Active, True),
                (Phase::Active, False),
                (Phase::Releasing, Unknown),
                (Phase::Superseded, Unknown),
                (Phase::Abandoned, Unknown),
                (Phase::Failed, Unknown),
            ],
            Phase::Releasing => {
                &[(Phase::Released, Unknown), (Phase::Kept, Unknown), (Phase::Superseded, Unknown)]
            }
            _ => return,
        };
        let (phase, effective) = options[how % options.len()];
        self.w.gets_to(&name, phase, effective);
        let m = self.w.object(&name).clone();
        let (uid, status) = (m.metadata.uid.unwrap(), m.status.unwrap());
        if status.applied_time.is_some() {
            self.known.applied.insert(uid.clone());
        }
        let worked = status.effective_time.is_some() && phase != Phase::Failed;
        self.known.worked.insert(name, worked);
        if phase.is_ended() {
            self.known.ended.insert(uid, phase);
        }
    }
}

proptest! {
    #[test]
    fn in_any_life_the_stage_follows_the_table_and_the_record_holds_every_fact_once(
        events in prop::collection::vec(events(), 1..40)
    ) {
        let mut life = Life::new();
        for (event, by, lost) in &events {
            life.happens(event, *by, *lost);
        }
    }
}
