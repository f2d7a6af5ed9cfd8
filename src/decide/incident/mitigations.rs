//! Mitigations of an incident: entries become objects, edits and removals follow, phases are recorded.

use super::{Decision, Effect, record::labels};
use crate::api::{
    ACTOR_ANNOTATION, ConditionStatus, CriterionState, ENTRY_LABEL, FINALIZER, Incident, InlineMitigation,
    LocalRef, Mitigation, MitigationPhase as Phase, MitigationSpec, MitigationSummary, Outcome,
    REQUESTER_ANNOTATION, names,
};
use crate::decide::conditions::{clip, find, status as condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use std::sync::Arc;

/// Most mitigations that are kept in the status of an incident.
const MAX_SUMMARIES: usize = 64;

/// Whether the incident lets go of its mitigations now, and why: it is cancelled, or its resolution is declared
/// and the exit criteria are done.
pub fn releases(incident: &Incident) -> Option<&'static str> {
    match incident.spec.outcome.unwrap_or_default() {
        Outcome::FalseAlarm | Outcome::Duplicate => return Some("IncidentCancelled"),
        Outcome::Genuine => {}
    }
    let done = incident.spec.exit_criteria.iter().all(|c| c.state == CriterionState::Done);
    (incident.spec.resolution.is_some() && done).then_some("IncidentResolved")
}

/// The mitigations of an incident, boiled down to what its lifecycle asks.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// How many were asked for.
    pub wanted: usize,
    /// In force and effective, or ended after having worked.
    pub working: usize,
    /// What the others lack, in words.
    pub lacking: Vec<String>,
    /// In force, or on the way to or from it: name of the object and of the entry.
    pub active: Vec<(String, Option<String>)>,
    /// What is not as requested yet, in words; `Ready` waits for it.
    pub unsettled: Vec<String>,
    /// What will not be as requested, in words.
    pub failed: Vec<String>,
    /// When the last of the working ones took effect.
    pub latest_effect: Option<Timestamp>,
}

impl Decision<'_> {
    /// Brings objects in line with entries, records what changed, and sums up.
    pub(super) fn mitigations(&mut self) -> Standing {
        self.expand();
        self.retract();
        for mitigation in self.seen.mitigations {
            self.summarise(mitigation);
        }
        self.count_the_gone();
        self.forget_the_oldest();
        self.standing()
    }

    fn owned(&self, m: &Mitigation) -> bool {
        let uid = self.seen.incident.metadata.uid.as_ref();
        m.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|o| o.controller == Some(true) && Some(&o.uid) == uid)
    }

    fn entry_of<'m>(&self, m: &'m Mitigation) -> Option<&'m str> {
        self.owned(m).then(|| m.metadata.labels.as_ref()?.get(ENTRY_LABEL).map(String::as_str)).flatten()
    }

    fn object_of(&self, entry: &str) -> Option<&Arc<Mitigation>> {
        self.seen.mitigations.iter().find(|m| self.entry_of(m) == Some(entry))
    }

    /// Entries become objects; an entry that has had one is not made anew.
    fn expand(&mut self) {
        let incident = self.seen.incident;
        let going = incident.metadata.deletion_timestamp.is_some();
        let cancelled = releases(incident) == Some("IncidentCancelled");
        for entry in &incident.spec.mitigations {
            if let Some(object) = self.object_of(&entry.name).cloned() {
                self.carry_over(entry, object);
                continue;
            }
            let had_one = self
                .status
                .mitigations
                .iter()
                .any(|s| s.entry.as_deref() == Some(&entry.name) && s.removed != Some(true));
            if !had_one && !going && !cancelled {
                let child = self.child(entry);
                self.effects.push(Effect::CreateMitigation(Box::new(child)));
            }
        }
    }

    fn carry_over(&mut self, entry: &InlineMitigation, object: Arc<Mitigation>) {
        let ended = object.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_ended);
        let going = object.metadata.deletion_timestamp.is_some();
        if object.spec.template != entry.template && !ended && !going {
            let spec = MitigationSpec {
                template: entry.template.clone(),
                incident_ref: object.spec.incident_ref.clone(),
            };
            self.effects.push(Effect::UpdateMitigation { object, spec: Box::new(spec) });
        }
    }

    fn child(&self, entry: &InlineMitigation) -> Mitigation {
        let incident = self.seen.incident;
        let uid = incident.metadata.uid.clone().unwrap_or_default();
        let natural = names::joined(self.name(), &entry.name);
        let taken = self.seen.taken_names.get(&natural).is_some_and(|owner| owner.as_ref() != Some(&uid));
        let name = if taken {
            names::hashed(self.name(), &entry.name, &format!("{uid}/{}", entry.name))
        } else {
            natural
        };
        let mut labels = labels(self.name());
        labels.insert(ENTRY_LABEL.to_owned(), entry.name.clone());
        // Who asked for the entry asked for the object.
        let signatures: std::collections::BTreeMap<_, _> = incident
            .metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(key, _)| key.starts_with(REQUESTER_ANNOTATION) || key.starts_with(ACTOR_ANNOTATION))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let mut child = Mitigation::new(
            &name,
            MitigationSpec {
                incident_ref: Some(LocalRef { name: self.name().to_owned() }),
                template: entry.template.clone(),
            },
        );
        child.metadata = ObjectMeta {
            name: Some(name),
            namespace: incident.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!signatures.is_empty()).then_some(signatures),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: Some(vec![OwnerReference {
                api_version: Incident::api_version(&()).into_owned(),
                kind: Incident::kind(&()).into_owned(),
                name: self.name().to_owned(),
                uid,
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        };
        child
    }

    /// Objects whose entry was taken out are deleted, which releases them.
    fn retract(&mut self) {
        for object in self.seen.mitigations {
            let Some(entry) = self.entry_of(object) else { continue };
            let stated = self.seen.incident.spec.mitigations.iter().any(|e| e.name == entry);
            if stated || object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            self.effects.push(Effect::DeleteMitigation(object.clone()));
        }
    }

    fn summarise(&mut self, m: &Mitigation) {
        let Some(name) = m.metadata.name.clone() else { return };
        let status = m.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let entry = self.entry_of(m).map(str::to_owned);
        let removed = entry
            .as_ref()
            .map(|entry| !self.seen.incident.spec.mitigations.iter().any(|e| e.name == *entry))
            .filter(|removed| *removed);
        let effective = condition(&status.conditions, "Effective");
        let message = find(&status.conditions, "Ready").map(|c| clip(&c.message, 1024));
        let target = &m.spec.template.target_ref;
        let new = MitigationSummary {
            name,
            entry,
            uid: m.metadata.uid.clone(),
            action: Some(m.spec.template.action.name().as_str().to_owned()),
            target: Some(format!("{}/{}", target.kind, target.name)),
            phase,
            effective: Some(effective.to_string()),
            message,
            removed,
            effective_time: status.effective_time,
            expired_time: status.expired_time,
        };
        let index = self.status.mitigations.iter().position(|s| s.uid == new.uid);
        let old = index.map(|i| self.status.mitigations[i].clone());
        self.tell_of(m, old.as_ref(), &new);
        match index {
            Some(i) => self.status.mitigations[i] = new,
            None => {
                // An entry that was taken out and put back, or a name that was used again.
                self.status.mitigations.retain(|s| s.name != new.name);
                self.status.mitigations.push(new);
            }
        }
    }

    /// What changed about a mitigation goes on record, with the time it happened.
    fn tell_of(&mut self, m: &Mitigation, old: Option<&MitigationSummary>, new: &MitigationSummary) {
        let status = m.status.clone().unwrap_or_default();
        let time = |t: &Option<crate::api::Time>| t.as_ref().map_or(self.now, |t| t.0);
        let what = format!(
            "{} {}",
            new.action.as_deref().unwrap_or_default(),
            new.target.as_deref().unwrap_or_default()
        );
        let says = new.message.clone().unwrap_or_default();
        let before = old.map(|o| o.phase);
        let was_applied = before.is_some_and(|p| p != Phase::Pending && p != Phase::AwaitingApproval);
        let mut entries: Vec<(Timestamp, &str, String)> = Vec::new();
        if status.applied_time.is_some() && !was_applied {
            let why = &m.spec.template.reason;
            let applied = find(&status.conditions, "Applied").filter(|c| c.status == ConditionStatus::True);
            let detail = applied.map(|c| format!(": {}", c.message)).unwrap_or_default();
            entries.push((
                time(&status.applied_time),
                "MitigationApplied",
                format!("{what}{detail} ({why})"),
            ));
        }
        let effective = |s: Option<&MitigationSummary>| s.and_then(|s| s.effective.clone());
        if effective(old) != effective(Some(new)) && !new.phase.is_ended() {
            match new.effective.as_deref() {
                Some("True") => {
                    entries.push((
                        time(&new.effective_time),
                        "MitigationEffective",
                        format!("{what}: {says}"),
                    ));
                }
                Some("False") if new.phase == Phase::Active => {
                    entries.push((self.now, "MitigationNotEffective", format!("{what}: {says}")));
                }
                _ => {}
            }
        }
        if before != Some(new.phase) {
            let reason = match new.phase {
                Phase::Released => Some("MitigationReleased"),
                Phase::Kept => Some("MitigationKept"),
                Phase::Superseded => Some("MitigationSuperseded"),
                Phase::Abandoned => Some("MitigationAbandoned"),
                Phase::Refused => Some("MitigationRefused"),
                Phase::Failed => Some("MitigationFailed"),
                Phase::Pending
                | Phase::AwaitingApproval
                | Phase::Applying
                | Phase::Active
                | Phase::Releasing => None,
            };
            if let Some(reason) = reason {
                entries.push((time(&status.released_time), reason, format!("{what}: {says}")));
            }
        }
        if new.expired_time.is_some() && old.is_none_or(|o| o.expired_time.is_none()) && !new.phase.is_ended()
        {
            let message =
                format!("{what}: its time is over and it is still in force; release it or give it more time");
            entries.push((time(&new.expired_time), "MitigationExpired", message));
        }
        let author =
            (self.entry_of(m).is_none()).then(|| requester(m)).flatten().or(self.actor().map(str::to_owned));
        for (at, reason, message) in entries {
            let by = matches!(reason, "MitigationApplied").then_some(author.as_deref()).flatten();
            self.tell(at, reason, by, &message);
        }
    }

    /// Objects that are gone: their end was recorded before they went, or they were made to go by force.
    fn count_the_gone(&mut self) {
        let there: Vec<_> = self.seen.mitigations.iter().map(|m| m.metadata.uid.clone()).collect();
        let stated: Vec<&str> = self.seen.incident.spec.mitigations.iter().map(|e| e.name.as_str()).collect();
        let mut lost = Vec::new();
        for summary in &mut self.status.mitigations {
            if there.contains(&summary.uid) {
                continue;
            }
            if let Some(entry) = &summary.entry
                && !stated.contains(&entry.as_str())
            {
                summary.removed = Some(true);
            }
            if !summary.phase.is_ended() {
                summary.phase = Phase::Abandoned;
                summary.effective = Some("Unknown".to_owned());
                summary.message =
                    Some("the Mitigation object is gone without having been released".to_owned());
                lost.push(summary.name.clone());
            }
        }
        for name in lost {
            let message =
                format!("Mitigation {name} is gone without having been released: look at its target");
            self.tell(self.now, "MitigationAbandoned", None, &message);
        }
    }

    fn forget_the_oldest(&mut self) {
        while self.status.mitigations.len() > MAX_SUMMARIES {
            let there: Vec<_> = self.seen.mitigations.iter().map(|m| m.metadata.uid.clone()).collect();
            let forgettable = |s: &MitigationSummary| {
                !there.contains(&s.uid) && (s.removed == Some(true) || s.entry.is_none())
            };
            let index = self.status.mitigations.iter().position(forgettable).unwrap_or(0);
            self.status.mitigations.remove(index);
        }
    }

    fn standing(&mut self) -> Standing {
        let mut sum = Standing::default();
        for entry in &self.seen.incident.spec.mitigations {
            let known = self
                .status
                .mitigations
                .iter()
                .any(|s| s.entry.as_deref() == Some(&entry.name) && s.removed != Some(true));
            if !known && self.object_of(&entry.name).is_none() {
                sum.wanted += 1;
                sum.lacking.push(format!("{} is being made", entry.name));
                sum.unsettled.push(format!("{} is being made", entry.name));
            }
        }
        let mut in_force = 0;
        for s in &self.status.mitigations {
            let object = self.seen.mitigations.iter().find(|m| m.metadata.uid == s.uid);
            if object.is_some_and(|m| m.spec.template.dry_run == Some(true)) {
                continue;
            }
            let label = s.entry.as_deref().unwrap_or(&s.name);
            let says = s.message.as_deref().unwrap_or("not seen yet");
            match s.phase {
                Phase::Active => {
                    in_force += 1;
                    sum.wanted += 1;
                    sum.active.push((s.name.clone(), s.entry.clone()));
                    if s.effective.as_deref() == Some("True") {
                        sum.working += 1;
                        sum.latest_effect = sum.latest_effect.max(s.effective_time.as_ref().map(|t| t.0));
                    } else {
                        sum.lacking.push(format!("{label} is not effective: {says}"));
                        sum.unsettled.push(format!("{label}: {says}"));
                    }
                }
                Phase::Pending | Phase::AwaitingApproval | Phase::Applying => {
                    sum.wanted += 1;
                    sum.active.push((s.name.clone(), s.entry.clone()));
                    sum.lacking.push(format!("{label} is {}: {says}", s.phase));
                    sum.unsettled.push(format!("{label}: {says}"));
                }
                Phase::Releasing => {
                    in_force += 1;
                    sum.active.push((s.name.clone(), s.entry.clone()));
                    sum.unsettled.push(format!("{label} is being released"));
                }
                // Ended on purpose: it counts if it worked, and does not stand in the way if it did not.
                Phase::Released | Phase::Kept => {
                    if s.effective_time.is_some() {
                        sum.wanted += 1;
                        sum.working += 1;
                    }
                }
                Phase::Superseded | Phase::Abandoned | Phase::Refused | Phase::Failed => {
                    if s.removed != Some(true) {
                        sum.wanted += 1;
                        sum.lacking.push(format!("{label} is {}: {says}", s.phase));
                        if matches!(s.phase, Phase::Refused | Phase::Failed) {
                            sum.failed.push(format!("{label}: {says}"));
                        }
                    }
                }
            }
        }
        self.status.active_mitigations = Some(in_force);
        sum
    }
}

fn requester(m: &Mitigation) -> Option<String> {
    m.metadata.annotations.as_ref()?.get(REQUESTER_ANNOTATION).cloned()
}
