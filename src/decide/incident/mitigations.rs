//! Mitigations of an incident as objects: entries become objects, edits and removals follow.

use super::{Decision, Effect, record::labels, summaries::is_withdrawn};
use crate::api::{
    ACTOR_ANNOTATION, ACTOR_GROUPS_ANNOTATION, Action, CriterionState, DesiredState, ENTRY_LABEL,
    ENTRY_STAMP_PREFIX, FINALIZER, Incident, InlineMitigation, LocalRef, MITIGATOR_ANNOTATION,
    MITIGATOR_GROUPS_ANNOTATION, Mitigation, MitigationPhase as Phase, MitigationSpec, MitigationTemplate,
    Outcome, REQUESTER_ANNOTATION, Resolution, Stage, names,
};
use crate::decide::stamp::Stamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use std::{collections::BTreeMap, sync::Arc};

/// Why an incident lets go of its mitigations: it is a false alarm, or a duplicate.
pub const CANCELLED: &str = "IncidentCancelled";

/// Whether the incident lets go of its mitigations now, and why: it is cancelled, or its resolution is declared
/// and the exit criteria are done.
pub fn releases(incident: &Incident) -> Option<&'static str> {
    let stage = incident.status.as_ref().and_then(|s| s.stage);
    match incident.spec.outcome.unwrap_or_default() {
        Outcome::FalseAlarm => return Some(CANCELLED),
        // Not before it is known that the original is there.
        Outcome::Duplicate if stage == Some(Stage::Cancelled) => return Some(CANCELLED),
        Outcome::Duplicate | Outcome::Genuine => {}
    }
    let done = incident.spec.exit_criteria.iter().all(|c| c.state == CriterionState::Done);
    (declared_resolution(incident).is_some() && done).then_some("IncidentResolved")
}

/// The resolution, once it says what resolved the incident. Waivers alone, written ahead, declare nothing.
pub(super) fn declared_resolution(incident: &Incident) -> Option<&Resolution> {
    incident.spec.resolution.as_ref().filter(|r| !r.summary.trim().is_empty())
}

impl Decision<'_> {
    /// As [`releases`], with what this decision knows of the original.
    pub(super) fn releases(&self) -> Option<&'static str> {
        if self.cancelled() { Some(CANCELLED) } else { releases(self.seen.incident) }
    }

    fn owned(&self, m: &Mitigation) -> bool {
        let uid = self.seen.incident.metadata.uid.as_ref();
        m.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|o| o.controller == Some(true) && Some(&o.uid) == uid)
    }

    /// The entry that an object was made of.
    pub(super) fn entry_of<'m>(&self, m: &'m Mitigation) -> Option<&'m str> {
        self.owned(m).then(|| m.metadata.labels.as_ref()?.get(ENTRY_LABEL).map(String::as_str)).flatten()
    }

    fn object_of(&self, entry: &str) -> Option<&Arc<Mitigation>> {
        self.seen.mitigations.iter().find(|m| self.entry_of(m) == Some(entry))
    }

    /// Whether the entry of an object is still asked for.
    pub(super) fn is_stated(&self, entry: &str, object: &Mitigation) -> bool {
        let stated = self.seen.incident.spec.mitigations.iter().find(|e| e.name == entry);
        stated.is_some_and(|e| continues(&e.template, &object.spec.template))
    }

    fn had_one(&self, entry: &str) -> bool {
        self.status.mitigations.iter().any(|s| s.entry.as_deref() == Some(entry) && s.removed != Some(true))
    }

    /// Whether entries become objects at all.
    fn expands(&self) -> bool {
        let going = self.seen.incident.metadata.deletion_timestamp.is_some();
        !going && !self.cancelled()
    }

    /// Entries that are to become objects, at once or when the object of an earlier entry of that name is gone.
    pub(super) fn being_made(&self) -> Vec<&InlineMitigation> {
        if !self.expands() {
            return Vec::new();
        }
        let is_going = |m: &Mitigation, entry: &str| {
            m.metadata.deletion_timestamp.is_some() || !self.is_stated(entry, m)
        };
        let entries = self.seen.incident.spec.mitigations.iter();
        entries
            .filter(|e| !self.had_one(&e.name))
            .filter(|e| self.object_of(&e.name).is_none_or(|m| is_going(m, &e.name)))
            .collect()
    }

    /// Entries become objects; an entry that has had one is not made anew.
    pub(super) fn expand(&mut self) {
        let made = self.being_made().into_iter().filter(|e| self.object_of(&e.name).is_none());
        let children: Vec<_> = made.map(|entry| self.child(entry)).collect();
        self.effects.extend(children.into_iter().map(|c| Effect::CreateMitigation(Box::new(c))));
        for entry in &self.seen.incident.spec.mitigations {
            let Some(object) = self.object_of(&entry.name).cloned() else { continue };
            if self.is_behind(&object) {
                let spec = MitigationSpec {
                    template: entry.template.clone(),
                    incident_ref: object.spec.incident_ref.clone(),
                };
                let signatures = self.signatures(&entry.name, &[ACTOR_ANNOTATION]);
                self.effects.push(Effect::UpdateMitigation { object, spec: Box::new(spec), signatures });
            }
        }
    }

    /// Whether an edit of the entry is still to be carried over to its object.
    pub(super) fn is_behind(&self, object: &Mitigation) -> bool {
        let ended = object.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_ended);
        if ended || object.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let Some(name) = self.entry_of(object) else { return false };
        let entry = self.seen.incident.spec.mitigations.iter().find(|e| e.name == name);
        // What was released stays released.
        let released = object.spec.template.desired_state == Some(DesiredState::Released);
        entry.is_some_and(|e| {
            e.template != object.spec.template
                && continues(&e.template, &object.spec.template)
                && (!released || e.template.desired_state == Some(DesiredState::Released))
        })
    }

    /// Objects whose entry was taken out are deleted, which releases them; all of them when the incident itself
    /// is being deleted, which may take long if somebody else's finalizer holds it.
    ///
    /// That the entry was taken out goes on record first: were it put back in between, the deletion would look
    /// like somebody else's, after which nothing is made anew.
    pub(super) fn retract(&mut self) {
        let going = self.seen.incident.metadata.deletion_timestamp.is_some();
        for object in self.seen.mitigations {
            let Some(entry) = self.entry_of(object) else { continue };
            let withdrawn = !self.is_stated(entry, object);
            if !(withdrawn || going) || object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if going || self.is_marked(object) {
                self.effects.push(Effect::DeleteMitigation(object.clone()));
            } else {
                self.wake = Some(self.now);
            }
        }
    }

    /// Whether it is on record that the entry of an object was taken out.
    fn is_marked(&self, m: &Mitigation) -> bool {
        is_withdrawn(self.seen.incident, m)
    }

    /// Who asked for an entry, under these keys, with the groups of the actor. An incident that was written before
    /// entries were stamped names its author, for each of them the same.
    fn signatures(&self, entry: &str, keys: &[&str]) -> BTreeMap<String, String> {
        let stamp = format!("{ENTRY_STAMP_PREFIX}{entry}");
        if let Some(stamp) = Stamp::of(self.seen.incident.metadata.annotations.as_ref(), &stamp) {
            let Some(user) = stamp.user() else { return BTreeMap::new() };
            let mut signatures: BTreeMap<_, _> =
                keys.iter().map(|key| ((*key).to_owned(), user.to_owned())).collect();
            let groups = serde_json::json!(stamp.groups).to_string();
            signatures.insert(ACTOR_GROUPS_ANNOTATION.to_owned(), groups);
            return signatures;
        }
        let all = self.seen.incident.metadata.annotations.iter().flatten();
        let mut signatures: BTreeMap<String, String> = all
            .filter(|(key, _)| keys.iter().any(|wanted| key.starts_with(wanted)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        // Who edits the title asks for no mitigation.
        let of = |key: &str| self.seen.incident.metadata.annotations.as_ref()?.get(key).cloned();
        if let Some(mitigator) = of(MITIGATOR_ANNOTATION).filter(|_| keys.contains(&ACTOR_ANNOTATION)) {
            let groups = of(MITIGATOR_GROUPS_ANNOTATION).unwrap_or_else(|| "[]".to_owned());
            signatures.insert(ACTOR_ANNOTATION.to_owned(), mitigator);
            signatures.insert(ACTOR_GROUPS_ANNOTATION.to_owned(), groups);
        }
        signatures
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
        let signatures = self.signatures(&entry.name, &[REQUESTER_ANNOTATION, ACTOR_ANNOTATION]);
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
}

/// Whether an entry is still the one that an object was made of. Target and action cannot be changed, and what was asked
/// for becomes no dry run: an entry that differs in these was taken out, and another put in its place.
fn continues(entry: &MitigationTemplate, object: &MitigationTemplate) -> bool {
    let same_action = match (&entry.action, &object.action) {
        // The result of a step by hand is told later.
        (Action::Manual(a), Action::Manual(b)) => a.instructions == b.instructions,
        (a, b) => a == b,
    };
    let is_dry = |template: &MitigationTemplate| template.dry_run == Some(true);
    same_action && entry.target_ref == object.target_ref && (is_dry(object) || !is_dry(entry))
}
