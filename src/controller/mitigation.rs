//! The driver of a mitigation: asks `decide` for the next effect, carries it out, asks again, and writes the
//! status once nothing is left to do.

mod effects;

use super::{
    BY_MITIGATION, BY_OBJECT, Context, Error, Key, access,
    evidence::{Progress, Request},
    moment, news,
    status::{self, FIELD_MANAGER},
    targets::{LOOK_AGAIN, index_text},
    watch::start_targets,
};
use crate::{
    api::{DesiredState, FINALIZER, Mitigation, MitigationPhase as Phase, MitigationStatus, TimelineEntry},
    decide::{
        access::{Answers, Question, foreseen},
        incident::{recorded_end, releases},
        mitigation::{
            Effect, Evidence, Incident, Objects, Observed, Plan, Refused, Reservation, Why, decide, target_id,
        },
    },
    mitigation::{Found, Look, ObjectId, record::Record},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Effects in one visit for each object that is touched; more means that somebody changes it as fast as we do.
const MAX_EFFECTS: usize = 12;
/// After this long the object may go although its incident has not recorded the end.
const RECORD_DEADLINE_SECONDS: i64 = 30;

/// What was asked ahead, while the object itself was being written.
#[derive(Default)]
pub struct Ahead {
    /// What the target was.
    pub target: Option<(ObjectId, Result<Option<DynamicObject>, Error>)>,
    /// Who may do what.
    pub answers: Answers,
}

/// Answers about rights that are older are asked for again.
const FRESH: Duration = Duration::from_secs(3);

/// One visit. Answers when to come again.
pub async fn reconcile(ctx: &Arc<Context>, key: &Key, ahead: Ahead) -> Result<Option<Instant>, Error> {
    let Some(known) = ctx.mitigations.get(key) else {
        ctx.lookouts.follow(key, None);
        return Ok(None);
    };
    Visit::new(ctx, key, known, ahead)?.run().await
}

struct Visit<'a> {
    ctx: &'a Arc<Context>,
    key: &'a Key,
    api: Api<Mitigation>,
    /// As stored.
    stored: Arc<Mitigation>,
    /// With the status as worked out so far.
    mitigation: Mitigation,
    objects: Objects,
    found: Found,
    refused: Option<Refused>,
    dry_run_passed: HashSet<ObjectId>,
    /// uids in records on objects whose mitigations are gone.
    leftovers: HashSet<String>,
    /// What the API server said about rights, and when.
    answers: Answers,
    asked: Instant,
    /// What came of the wish to be counted.
    reservation: Option<Reservation>,
}

impl<'a> Visit<'a> {
    fn new(ctx: &'a Arc<Context>, key: &'a Key, known: Arc<Mitigation>, ahead: Ahead) -> Result<Self, Error> {
        let mut objects = Objects::new();
        if let Some((id, read)) = ahead.target {
            objects.insert(id, read?.map(Arc::new));
        }
        let ids = crate::decide::mitigation::objects(&known);
        let target = target_id(&known);
        let status = known.status.as_ref();
        let holds = status.is_some_and(|status| !status.objects.is_empty())
            && status.and_then(|status| status.phase) != Some(Phase::Releasing)
            && known.metadata.deletion_timestamp.is_none()
            && known.spec.template.desired_state != Some(DesiredState::Released);
        // What is followed may be another by now.
        let is_news = |id: &ObjectId| ctx.lookouts.is_following(key, id.kind);
        if let Some(id) = target.as_ref().filter(|id| holds && !ids.contains(id) && !is_news(id))
            && let Some(object) = ctx.targets.recent(&key.namespace, id)
        {
            // Only other objects are held; of the target nothing but its effect is read.
            objects.entry(id.clone()).or_insert(Some(object));
        }
        for id in target.into_iter().chain(ids) {
            if !objects.contains_key(&id)
                && let Some(object) = ctx.targets.known(&key.namespace, &id)
            {
                objects.insert(id, Some(object));
            }
        }
        Ok(Visit {
            ctx,
            key,
            api: Api::namespaced(ctx.client.clone(), &key.namespace),
            mitigation: known.as_ref().clone(),
            stored: known,
            objects,
            found: Found::new(),
            refused: None,
            dry_run_passed: HashSet::new(),
            leftovers: HashSet::new(),
            answers: ahead.answers,
            asked: Instant::now(),
            reservation: None,
        })
    }

    async fn run(mut self) -> Result<Option<Instant>, Error> {
        let mut effects = 0;
        loop {
            let holders = self.holders().await?;
            let policies = self.ctx.policies_in(&self.key.namespace).await?;
            let approvals = self.approvals();
            if self.asked.elapsed() > FRESH {
                self.answers.clear();
            }
            let plan = decide(
                &Observed {
                    mitigation: &self.mitigation,
                    objects: &self.objects,
                    found: &self.found,
                    incident: self.incident(),
                    refused: self.refused.as_ref(),
                    dry_run_passed: &self.dry_run_passed,
                    evidence: self.evidence(),
                    policies: &policies,
                    signed: self.ctx.signed,
                    answers: &self.answers,
                    approvals: &approvals,
                    reservation: self.reservation.as_ref(),
                    holders: &holders,
                },
                Timestamp::now(),
            );
            self.mitigation.status = Some(plan.status.clone());
            match plan.effect.clone() {
                Some(Effect::RemoveFinalizer) => return self.remove_finalizer().await,
                // Each is looked at once, so this ends by itself.
                Some(Effect::Look(look)) if !self.found.contains_key(&look) => {
                    self.look(look).await?;
                    continue;
                }
                Some(effect) => self.carry_out(effect).await?,
                None => return self.rest(&plan).await,
            }
            effects += 1;
            let touched = self.mitigation.status.as_ref().map_or(0, |status| status.objects.len());
            if effects > MAX_EFFECTS * (1 + touched) {
                return Err(Error::Restless(format!("the target of mitigation {}", self.key)));
            }
        }
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::Read(id) => self.read_and_ask(&id).await,
            Effect::Ask(questions) => self.ask(questions).await,
            Effect::Reserve(limits) => {
                self.reservation = Some(self.ctx.takes.reserve(self.ctx, &self.mitigation, &limits).await?);
                Ok(())
            }
            Effect::Look(look) => self.look(look).await,
            Effect::AddFinalizer => self.add_finalizer().await,
            Effect::RemoveFinalizer => Ok(()),
            Effect::GatherEvidence { logs } => {
                self.gather_evidence(logs);
                Ok(())
            }
            Effect::AwaitEvidence(until) => {
                self.ctx.evidence.wait(self.uid(), moment(until)).await;
                Ok(())
            }
            Effect::Announce => self.write_status().await,
            Effect::Write { object, what, patch } => self.write(object, what, &patch).await,
            Effect::Create { object, manifest, dry_run } => self.create(object, &manifest, dry_run).await,
            Effect::Delete { object, uid, releasing } => self.delete(object, &uid, releasing).await,
        }
    }

    /// Nothing is left to do for now.
    async fn rest(mut self, plan: &Plan) -> Result<Option<Instant>, Error> {
        self.ctx.lookouts.follow(self.key, plan.follow.as_ref());
        self.write_status().await?;
        if matches!(plan.status.phase, Some(Phase::Pending | Phase::AwaitingApproval)) {
            self.ctx.takes.give_back(self.uid());
        }
        let awaits = plan.await_target.then(|| self.await_target()).flatten();
        Ok(plan.wake.map(moment).into_iter().chain(awaits).chain(self.record_deadline()).min())
    }

    /// When it may go although its incident has not recorded the end, once nothing else keeps it.
    fn record_deadline(&self) -> Option<Instant> {
        let ended = self.mitigation.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_ended);
        let deleted = self.mitigation.metadata.deletion_timestamp.as_ref().filter(|_| ended)?;
        deleted.0.checked_add(SignedDuration::from_secs(RECORD_DEADLINE_SECONDS + 1)).ok().map(moment)
    }

    /// uids of the other mitigations of these objects that have not ended.
    ///
    /// Worked out after the objects were read: whoever holds one by then is known. A leftover is thrown away with
    /// the prior value in it, so a record counts as one only when the API server says that its mitigation is gone.
    async fn holders(&mut self) -> Result<HashSet<String>, Error> {
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
    fn incident(&self) -> Incident {
        let Some(named) = &self.mitigation.spec.incident_ref else {
            return Incident { recorded_end: true, ..Incident::default() };
        };
        let incident = self.ctx.incidents.get(&Key::new(&self.key.namespace, &named.name));
        // Another incident of the same name, made after ours went, is none of our business.
        let owner = self.mitigation.owner_references().iter().find(|o| o.controller == Some(true));
        let incident =
            incident.filter(|i| owner.is_none_or(|owner| i.metadata.uid.as_ref() == Some(&owner.uid)));
        let Some(incident) = incident else {
            return Incident { name: Some(named.name.clone()), recorded_end: true, ..Incident::default() };
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
            recorded_end: recorded || overdue,
        }
    }

    /// From now on, what happens to objects of this kind that are held is told.
    fn watch(&self, id: &ObjectId) {
        if self.ctx.targets.begin_watch(id.kind) {
            start_targets(self.ctx, id.kind, self.ctx.namespace.as_deref());
        }
    }

    async fn read(&mut self, id: &ObjectId) -> Result<(), Error> {
        self.watch(id);
        let object = self.ctx.targets.read(&self.key.namespace, id).await?;
        self.objects.insert(id.clone(), object.map(Arc::new));
        Ok(())
    }

    /// Reads an object, and asks side by side with it what will be asked next anyway.
    async fn read_and_ask(&mut self, id: &ObjectId) -> Result<(), Error> {
        if !self.ctx.signed || !self.answers.is_empty() {
            return self.read(id).await;
        }
        let questions = foreseen(&self.mitigation);
        let asking = access::ask(&self.ctx.client, &self.key.namespace, questions);
        let (answers, read) = tokio::join!(asking, self.ctx.targets.read(&self.key.namespace, id));
        self.watch(id);
        self.objects.insert(id.clone(), read?.map(Arc::new));
        // What could not be asked now is asked for by itself.
        self.answers = answers.unwrap_or_default();
        self.asked = Instant::now();
        Ok(())
    }

    async fn ask(&mut self, questions: Vec<Question>) -> Result<(), Error> {
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
    fn approvals(&self) -> Vec<Arc<TimelineEntry>> {
        let mut entries = self.ctx.entries.group(BY_MITIGATION, &self.key.to_string());
        let incident = self.mitigation.spec.incident_ref.as_ref();
        entries.retain(|e| incident.is_none_or(|incident| incident.name == e.spec.incident_ref.name));
        entries.sort_by_cached_key(|e| {
            (e.metadata.creation_timestamp.as_ref().map(|t| t.0), e.metadata.name.clone())
        });
        entries
    }

    async fn look(&mut self, look: Look) -> Result<(), Error> {
        let namespace = &self.key.namespace;
        let found = match &look {
            Look::List { kind, labels } => {
                self.ctx.lookouts.list(*kind, namespace, labels.as_deref()).await?
            }
            Look::One(id) => {
                // What was read or is held is known already.
                let object = match self.objects.get(id) {
                    Some(known) => known.clone(),
                    None => self.ctx.targets.read(namespace, id).await?.map(Arc::new),
                };
                object.into_iter().collect()
            }
        };
        self.found.insert(look, found);
        Ok(())
    }

    fn uid(&self) -> &str {
        self.mitigation.metadata.uid.as_deref().unwrap_or_default()
    }

    fn evidence(&self) -> Option<Evidence> {
        Some(match self.ctx.evidence.progress(self.uid())? {
            Progress::Running(since) => Evidence::Running(since),
            Progress::Kept(kept) => Evidence::Kept(kept),
            Progress::Failed(words) => Evidence::Failed(words),
        })
    }

    fn gather_evidence(&self, logs: bool) {
        let Some(id) = target_id(&self.mitigation) else { return };
        let Some(target) = self.objects.get(&id).cloned().flatten() else { return };
        self.ctx.evidence.start(Request {
            mitigation: self.key.clone(),
            uid: self.uid().to_owned(),
            incident: self.mitigation.spec.incident_ref.as_ref().map(|incident| incident.name.clone()),
            id,
            target,
            logs,
        });
    }

    async fn add_finalizer(&mut self) -> Result<(), Error> {
        let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": self.stored.metadata.resource_version});
        let add = if self.stored.metadata.finalizers.is_some() {
            json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})
        } else {
            json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})
        };
        let object = self.patch(json!([version, add]), "adding the finalizer to").await?;
        let Some(object) = object else {
            return Err(Error::Restless(format!("mitigation {}", self.key)));
        };
        let status = self.mitigation.status.take();
        self.mitigation = Mitigation { status, ..object.clone() };
        self.stored = Arc::new(object);
        Ok(())
    }

    async fn remove_finalizer(self) -> Result<Option<Instant>, Error> {
        self.ctx.lookouts.follow(self.key, None);
        // The object is gone next, and its end with it. An incident that is there has recorded it from the status by
        // now, and nobody else is left to read one: telling is enough.
        self.tell(self.stored.status.as_ref());
        let index = self.stored.finalizers().iter().position(|f| f == FINALIZER);
        let Some(index) = index else { return Ok(None) };
        let path = format!("/metadata/finalizers/{index}");
        let patch = json!([
            {"op": "test", "path": path, "value": FINALIZER},
            {"op": "remove", "path": path},
        ]);
        self.patch(patch, "removing the finalizer from").await?;
        Ok(None)
    }

    /// Patches the object's metadata; `None` when it is gone or another by now.
    async fn patch(&self, patch: Value, what: &str) -> Result<Option<Mitigation>, Error> {
        let what = format!("{what} mitigation {}", self.key);
        let patch: json_patch::Patch = serde_json::from_value(patch)
            .map_err(|e| Error::api(what.clone())(kube::Error::SerdeError(e)))?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.api.patch(&self.key.name, &params, &Patch::Json::<()>(patch)).await {
            Ok(object) => {
                if object.metadata.deletion_timestamp.is_some() && object.finalizers().is_empty() {
                    // The last finalizer is off: it is gone before the watch tells.
                    if let Some(news) = self.ctx.mitigations.saw_gone(&object) {
                        self.ctx.heard_of_mitigation(&news, true);
                    }
                } else {
                    self.saw(object.clone());
                }
                Ok(Some(object))
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 422 => Ok(None),
            Err(error) => Err(Error::api(what)(error)),
        }
    }

    async fn write_status(&mut self) -> Result<(), Error> {
        let Some(new) = self.mitigation.status.clone() else { return Ok(()) };
        let old = self.stored.status.clone();
        let written = status::write(&self.api, self.stored.as_ref(), old.as_ref(), &new).await;
        let written = match written {
            Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => return Ok(()),
            other => other?,
        };
        if let Some(object) = written {
            self.tell(old.as_ref());
            self.stored = Arc::new(object.clone());
            self.saw(object);
        }
        Ok(())
    }

    fn tell(&self, old: Option<&MitigationStatus>) {
        let target = target_id(&self.mitigation).and_then(|id| self.objects.get(&id).cloned().flatten());
        news::tell(self.ctx, self.key, &self.mitigation, old, target.as_deref());
    }

    fn saw(&self, object: Mitigation) {
        if let Some(news) = self.ctx.mitigations.saw(object) {
            self.ctx.heard_of_mitigation(&news, true);
        }
    }

    fn await_target(&self) -> Option<Instant> {
        let id = target_id(&self.mitigation)?;
        let text = index_text(&self.key.namespace, id.kind.kind, &id.name);
        let wanted = {
            let (ctx, text) = (self.ctx.clone(), text.clone());
            move || ctx.has_waiting(&text)
        };
        let ctx = self.ctx.clone();
        let appeared = move || ctx.wake_mitigations_of(&text, None);
        let awaited = self.ctx.targets.await_target(&self.key.namespace, &id, wanted, appeared);
        (!awaited).then(|| Instant::now() + LOOK_AGAIN)
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
    use crate::mitigation::{CONFIG_MAP, record::key};

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
