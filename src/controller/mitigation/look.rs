//! What a visit learns before it decides: the objects that are touched, who else holds them, what the incident says, who
//! approved, and who may do what.

use super::{
    super::{
        Error, Key, access,
        cache::version,
        indexes::{BY_MITIGATION, BY_OBJECT},
        targets::index_text,
        watch::start_targets,
    },
    RECORD_DEADLINE_SECONDS, Visit,
};
use crate::{
    api::{DesiredState, Mitigation, MitigationPhase as Phase, TimelineEntry},
    decide::{
        access::{Question, Subject, foreseen},
        incident::{CANCELLED, is_withdrawn, recorded_end, releases},
        mitigation::{Deletion, Incident, Objects, Refused, Why},
        policy::InForce,
    },
    mitigation::{Found, Look, ObjectId, SECRET, TargetKind, record::Record},
};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::time::Instant;

impl Visit<'_> {
    /// uids of the other mitigations of these objects that have not ended.
    ///
    /// Worked out after the objects were read: whoever holds one by then is known. A leftover is thrown away with
    /// the prior value in it, so a record counts as one only when the API server says that its mitigation is gone.
    pub(super) async fn holders(&mut self) -> Result<HashSet<String>, Error> {
        let ended = |m: &Mitigation| m.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_ended);
        let mut others = HashMap::new();
        for id in self.objects.keys() {
            let text = index_text(&self.key.namespace, id.kind.kind, &id.name);
            for other in self.ctx.mitigations.group(BY_OBJECT, &text) {
                others.insert(other.uid().unwrap_or_default(), !ended(&other));
            }
        }
        others.remove(self.uid());
        for uid in &self.leftovers {
            others.entry(uid.clone()).or_insert(false);
        }
        for record in unknown(&self.objects, self.uid(), &others) {
            let what = format!("looking for mitigation {}/{}", self.key.namespace, record.mitigation);
            let there = self.api.get_opt(&record.mitigation).await.map_err(Error::api(what))?;
            let holds = there.is_some_and(|m| m.metadata.uid.as_ref() == Some(&record.uid) && !ended(&m));
            if !holds {
                self.leftovers.insert(record.uid.clone());
            }
            others.insert(record.uid, holds);
        }
        Ok(others.into_iter().filter(|(_, holds)| *holds).map(|(uid, _)| uid).collect())
    }

    /// What the incident says, as far as it concerns this mitigation.
    pub(super) fn incident(&self) -> Incident {
        let Some(named) = &self.mitigation.spec.incident_ref else {
            return Incident { recorded_end: true, ..Incident::default() };
        };
        let key = Key::new(&self.key.namespace, &named.name);
        if self.ctx.incidents.is_unreadable(&key) {
            // It is there, and what it says will be known.
            return Incident { name: Some(named.name.clone()), recorded_end: false, ..Incident::default() };
        }
        let incident = self.ctx.incidents.get(&key);
        // Another incident of the same name, made after ours went, is none of our business.
        let owner = self.mitigation.owner_references().iter().find(|o| o.controller == Some(true));
        let incident =
            incident.filter(|i| owner.is_none_or(|owner| i.metadata.uid.as_ref() == Some(&owner.uid)));
        let Some(incident) = incident else {
            let deletion = if owner.is_some() { Deletion::WithIncident } else { Deletion::ByHand };
            let name = Some(named.name.clone());
            return Incident { name, recorded_end: true, deletion, ..Incident::default() };
        };
        let recorded = recorded_end(&incident, &self.mitigation);
        let overdue = self
            .mitigation
            .metadata
            .deletion_timestamp
            .as_ref()
            .is_some_and(|t| Timestamp::now().as_second() - t.0.as_second() > RECORD_DEADLINE_SECONDS);
        Incident {
            name: Some(named.name.clone()),
            commander: incident.spec.roles.as_ref().and_then(|roles| roles.incident_commander.clone()),
            severity: incident.spec.severity,
            releases: releases(&incident),
            canceller: Subject::mitigator(incident.metadata.annotations.as_ref()),
            recorded_end: recorded || overdue,
            deletion: match (owner, &incident.metadata.deletion_timestamp) {
                (Some(_), _) if is_withdrawn(&incident, &self.mitigation) => Deletion::Withdrawn,
                (Some(_), Some(_)) => Deletion::WithIncident,
                (_, _) => Deletion::ByHand,
            },
        }
    }

    /// The policies that hold, as far as they matter: nothing is made without them, and a release waits for them only
    /// when it is to be made by the use of one.
    pub(super) async fn policies(&self) -> Result<InForce, Error> {
        let (m, status) = (&self.mitigation, self.mitigation.status.as_ref());
        let template = &m.spec.template;
        let phase = status.and_then(|s| s.phase);
        let releases = template.desired_state == Some(DesiredState::Released)
            || self.incident().releases == Some(CANCELLED);
        if m.metadata.deletion_timestamp.is_some() || phase.is_some_and(Phase::is_ended) {
            return Ok(InForce::Known(Vec::new()));
        }
        if releases && template.policy_ref.is_some() && phase != Some(Phase::Releasing) {
            let policies = self.ctx.policies_in(&self.key.namespace).await;
            return Ok(policies.unwrap_or_else(|error| InForce::Unknown(error.to_string())));
        }
        match releases || status.is_some_and(|s| s.applied_time.is_some()) {
            true => Ok(InForce::Known(Vec::new())),
            false => self.ctx.policies_in(&self.key.namespace).await,
        }
    }

    /// From now on, what happens to objects of this kind that are held is told.
    pub(super) fn watch(&self, id: &ObjectId) {
        if self.ctx.targets.begin_watch(id.kind) {
            start_targets(self.ctx, id.kind, self.ctx.namespace.as_deref());
        }
    }

    pub(super) async fn read(&mut self, id: &ObjectId) -> Result<(), Error> {
        self.watch(id);
        let object = self.ctx.targets.read(&self.key.namespace, id).await?;
        self.have_read(id, object);
        Ok(())
    }

    fn have_read(&mut self, id: &ObjectId, object: Option<DynamicObject>) {
        if object.is_none() && self.ctx.targets.lacks(id.kind) {
            self.hidden.insert(id.kind);
        }
        self.objects.insert(id.clone(), object.map(Arc::new));
    }

    /// Reads an object, and asks side by side with it what will be asked next anyway.
    pub(super) async fn read_and_ask(&mut self, id: &ObjectId) -> Result<(), Error> {
        if !self.ctx.signed || !self.answers.is_empty() {
            return self.read(id).await;
        }
        let questions = foreseen(&self.mitigation);
        let asking = access::ask(&self.ctx.client, &self.key.namespace, questions);
        let (answers, read) = tokio::join!(asking, self.ctx.targets.read(&self.key.namespace, id));
        self.watch(id);
        self.have_read(id, read?);
        // What could not be asked now is asked for by itself.
        self.answers = answers.unwrap_or_default();
        self.asked = Instant::now();
        Ok(())
    }

    pub(super) async fn ask(&mut self, questions: Vec<Question>) -> Result<(), Error> {
        let first = self.answers.is_empty();
        match access::ask(&self.ctx.client, &self.key.namespace, questions).await {
            Ok(answers) => self.answers.extend(answers),
            Err(Error::Api { source: kube::Error::Api(said), .. }) if said.code == 403 => {
                let words = said.message.clone();
                self.refused = Some(Refused { releasing: false, why: Why::Forbidden, words });
            }
            Err(error) => return Err(error),
        }
        if first {
            self.asked = Instant::now();
        }
        Ok(())
    }

    /// Entries that approve or reject this mitigation, in the record of its own incident.
    pub(super) fn approvals(&self) -> Vec<Arc<TimelineEntry>> {
        let mut entries = self.ctx.entries.group(BY_MITIGATION, &self.key.to_string());
        let incident = self.mitigation.spec.incident_ref.as_ref();
        entries.retain(|e| incident.is_none_or(|incident| incident.name == e.spec.incident_ref.name));
        entries.sort_by_cached_key(|e| {
            (e.metadata.creation_timestamp.as_ref().map(|t| t.0), e.metadata.name.clone())
        });
        entries
    }

    pub(super) async fn look(&mut self, look: Look) -> Result<(), Error> {
        let namespace = &self.key.namespace;
        let found = match &look {
            Look::List { kind, labels } => {
                match self.ctx.lookouts.list(*kind, namespace, labels.as_deref()).await {
                    // Who looks after one namespace need not have rights beyond it.
                    Err(Error::MayNotLook(_)) if !kind.is_namespaced() => self.may_not_look(*kind),
                    seen => seen?,
                }
            }
            Look::One(id) if id.kind == SECRET => match self.ctx.targets.exists(namespace, id).await {
                // The right may be missing in this namespace, or be one on other names.
                Err(Error::Api { source: kube::Error::Api(said), .. }) if said.code == 403 => {
                    let mut unknown = DynamicObject::new("", &SECRET.resource());
                    unknown.metadata.name = None;
                    vec![Arc::new(unknown)]
                }
                seen => seen?.into_iter().collect(),
            },
            Look::One(id) => {
                // What was read or is held is known already.
                let object = match self.objects.get(id) {
                    Some(known) => Ok(known.clone()),
                    None => self.ctx.targets.read(namespace, id).await.map(|read| read.map(Arc::new)),
                };
                match object {
                    Err(Error::Api { source: kube::Error::Api(said), .. })
                        if said.code == 403 && !id.kind.is_namespaced() =>
                    {
                        self.may_not_look(id.kind)
                    }
                    object => object?.into_iter().collect(),
                }
            }
        };
        if let Look::List { kind, labels: None } = &look {
            // Who looks at one of these looks at most of them: told together they cost one decision, not one each.
            for (kind, found) in self.ctx.lookouts.kept_with(*kind, namespace) {
                self.found.entry(Look::List { kind, labels: None }).or_insert(found);
            }
        }
        self.found.insert(look, found);
        overlay(&mut self.found, &self.objects);
        Ok(())
    }
}

impl Visit<'_> {
    fn may_not_look(&mut self, kind: TargetKind) -> Vec<Arc<DynamicObject>> {
        self.hidden.insert(kind);
        Vec::new()
    }
}

/// A watch may lag behind the answers to our own writes: what was read or written is put in the place of what is older.
pub(super) fn overlay(found: &mut Found, objects: &Objects) {
    for (look, seen) in found {
        for (id, known) in objects {
            let Some(known) = known else { continue };
            let kind = match look {
                Look::List { kind, .. } => kind,
                Look::One(one) => &one.kind,
            };
            if *kind != id.kind {
                continue;
            }
            let named = |old: &&mut Arc<DynamicObject>| old.metadata.name.as_ref() == Some(&id.name);
            let labelled = matches!(look, Look::List { labels: Some(_), .. });
            if let Some(old) = seen.iter_mut().find(named)
                && version(known.as_ref()) > version(old.as_ref())
                // Which labels were asked for, the watch knows.
                && (!labelled || known.metadata.labels == old.metadata.labels)
            {
                *old = known.clone();
            }
        }
    }
}

/// The records on objects, each once, of which it is not known whether their mitigation holds anything.
fn unknown(objects: &Objects, own: &str, known: &HashMap<String, bool>) -> Vec<Record> {
    let mut unknown: Vec<Record> = Vec::new();
    for record in objects.values().flatten().flat_map(|object| Record::all(object)) {
        let told = record.uid == own || known.contains_key(&record.uid);
        if !told && !unknown.iter().any(|other| other.uid == record.uid) {
            unknown.push(record);
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::{CONFIG_MAP, HORIZONTAL_POD_AUTOSCALER, record::key};
    use serde_json::json;

    fn held_by(uids: &[&str]) -> Option<Arc<DynamicObject>> {
        let annotations: HashMap<String, String> = uids
            .iter()
            .map(|uid| {
                let record = json!({"v": 1, "uid": uid, "mitigation": "m", "action": "featureFlag",
                    "target": "t", "fields": [], "at": "2026-11-23T10:00:00Z"});
                (key(uid), record.to_string())
            })
            .collect();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "flags", "uid": "t", "annotations": annotations}});
        Some(Arc::new(serde_json::from_value(object).unwrap()))
    }

    #[test]
    fn what_was_written_a_moment_ago_stands_in_for_what_the_watch_has_not_told_yet() {
        let autoscaler = |version: &str, most: i64| {
            let object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "web", "resourceVersion": version}, "spec": {"maxReplicas": most}});
            Arc::new(serde_json::from_value::<DynamicObject>(object).unwrap())
        };
        let look = Look::List { kind: HORIZONTAL_POD_AUTOSCALER, labels: None };
        let id = ObjectId::new(HORIZONTAL_POD_AUTOSCALER, "web");
        let seen = |listed: &str, known: Option<&str>| {
            let mut found = Found::from([(look.clone(), vec![autoscaler(listed, 5)])]);
            let objects = Objects::from([(id.clone(), known.map(|version| autoscaler(version, 10)))]);
            overlay(&mut found, &objects);
            found[&look][0].data["spec"]["maxReplicas"].as_i64()
        };
        assert_eq!(seen("99", Some("100")), Some(10));
        assert_eq!(seen("100", Some("99")), Some(5), "the watch was faster");
        assert_eq!(seen("99", None), Some(5));
    }

    /// Who is not among the holders loses its record, so each reading of an object is asked about anew.
    #[test]
    fn a_record_that_comes_to_light_with_a_later_reading_is_asked_about() {
        let uids = |objects: &Objects, known: &HashMap<String, bool>| {
            let mut found: Vec<String> =
                unknown(objects, "aaaaaaaa-own", known).into_iter().map(|record| record.uid).collect();
            found.sort();
            found
        };
        let id = ObjectId::new(CONFIG_MAP, "flags");
        let mut known = HashMap::from([("bbbbbbbb-cached".to_owned(), true)]);
        let mut objects = Objects::from([(id.clone(), held_by(&["aaaaaaaa-own", "bbbbbbbb-cached"]))]);
        assert_eq!(uids(&objects, &known), Vec::<String>::new());
        // Somebody took the object before us: its record is there when it is read again.
        objects.insert(id, held_by(&["bbbbbbbb-cached", "cccccccc-new"]));
        objects.insert(ObjectId::new(CONFIG_MAP, "more"), held_by(&["cccccccc-new", "dddddddd-new"]));
        objects.insert(ObjectId::new(CONFIG_MAP, "gone"), None);
        assert_eq!(uids(&objects, &known), ["cccccccc-new", "dddddddd-new"]);
        known.insert("cccccccc-new".to_owned(), false);
        assert_eq!(uids(&objects, &known), ["dddddddd-new"]);
    }
}
