//! The driver of a mitigation: asks `decide` for the next effect, carries it out, asks again, and writes the
//! status once nothing is left to do.

use super::{
    BY_TARGET, Context, Error, Key,
    events::Note,
    kind_of, moment,
    status::{self, FIELD_MANAGER},
    targets::{LOOK_AGAIN, NotDone, index_text},
};
use crate::{
    api::{Condition, ConditionStatus, FINALIZER, Mitigation, MitigationPhase as Phase, MitigationStatus},
    decide::{
        conditions::{clip, find},
        incident::{recorded_end, releases},
        mitigation::{Effect, Incident, Observed, Refused, Target, Write, decide},
    },
    mitigation::{TargetKind, record::Record},
};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::time::Instant;
use tracing::{debug, info};

/// Effects in one visit; more means that somebody changes the target as fast as we do.
const MAX_EFFECTS: usize = 12;
/// After this long the object may go although its incident has not recorded the end.
const RECORD_DEADLINE_SECONDS: i64 = 30;

/// Most characters of a reason in an Event, so that what follows it has room.
const MAX_REASON: usize = 512;

/// What the target was when it was read ahead.
pub type ReadAhead = Result<Option<DynamicObject>, Error>;

/// One visit. Answers when to come again.
pub async fn reconcile(
    ctx: &Arc<Context>,
    key: &Key,
    ahead: Option<ReadAhead>,
) -> Result<Option<Instant>, Error> {
    let Some(known) = ctx.mitigations.get(key) else { return Ok(None) };
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
    kind: Option<TargetKind>,
    target: Read,
    refused: Option<Refused>,
    dry_run_passed: bool,
    /// uids in records on the target whose mitigations are gone.
    leftovers: HashSet<String>,
}

/// What was read of the target.
enum Read {
    NotYet,
    Missing,
    Found(Arc<DynamicObject>),
}

impl<'a> Visit<'a> {
    fn new(
        ctx: &'a Arc<Context>,
        key: &'a Key,
        known: Arc<Mitigation>,
        ahead: Option<ReadAhead>,
    ) -> Result<Self, Error> {
        let kind = kind_of(&known);
        let target_key = target_key(&known);
        let target = match ahead {
            Some(read) => found(read?),
            None => {
                kind.and_then(|kind| ctx.targets.known(kind, &target_key)).map_or(Read::NotYet, Read::Found)
            }
        };
        Ok(Visit {
            ctx,
            key,
            api: Api::namespaced(ctx.client.clone(), &key.namespace),
            mitigation: known.as_ref().clone(),
            stored: known,
            kind,
            target,
            refused: None,
            dry_run_passed: false,
            leftovers: HashSet::new(),
        })
    }

    async fn run(mut self) -> Result<Option<Instant>, Error> {
        for _ in 0..MAX_EFFECTS {
            let holders = self.holders().await?;
            let plan = decide(
                &Observed {
                    mitigation: &self.mitigation,
                    target: match &self.target {
                        Read::NotYet => Target::Unread,
                        Read::Missing => Target::Missing,
                        Read::Found(object) => Target::Found(object),
                    },
                    incident: self.incident(),
                    refused: self.refused.as_ref(),
                    dry_run_passed: self.dry_run_passed,
                    holders: &holders,
                },
                Timestamp::now(),
            );
            self.mitigation.status = Some(plan.status);
            match plan.effect {
                Some(Effect::ReadTarget) => self.read().await?,
                Some(Effect::AddFinalizer) => self.add_finalizer().await?,
                Some(Effect::RemoveFinalizer) => return self.remove_finalizer().await,
                Some(Effect::Write { what, patch }) => self.write(what, &patch).await?,
                None => {
                    self.write_status().await?;
                    let awaits = plan.await_target.then(|| self.await_target()).flatten();
                    return Ok(plan.wake.map(moment).into_iter().chain(awaits).min());
                }
            }
        }
        Err(Error::Restless(format!("the target of mitigation {}", self.key)))
    }

    /// uids of the other mitigations of this target that have not ended.
    ///
    /// Worked out after the target was read: whoever holds it by then is known. A leftover is thrown away with
    /// the prior value in it, so a record counts as one only when the API server says that its mitigation is gone.
    async fn holders(&mut self) -> Result<HashSet<String>, Error> {
        let ended = |m: &Mitigation| m.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_ended);
        let target = &self.mitigation.spec.template.target_ref;
        let text = index_text(&self.key.namespace, &target.kind, &target.name);
        let mut others = HashMap::new();
        for other in self.ctx.mitigations.group(BY_TARGET, &text) {
            others.insert(other.uid().unwrap_or_default(), !ended(&other));
        }
        others.remove(self.mitigation.metadata.uid.as_deref().unwrap_or_default());
        if let Read::Found(object) = &self.target {
            for record in Record::all(object) {
                let own = self.mitigation.metadata.uid.as_ref() == Some(&record.uid);
                if own || others.contains_key(&record.uid) || self.leftovers.contains(&record.uid) {
                    continue;
                }
                let what = format!("looking for mitigation {}/{}", self.key.namespace, record.mitigation);
                let there = self.api.get_opt(&record.mitigation).await.map_err(Error::api(what))?;
                let holds = there.is_some_and(|m| m.metadata.uid.as_ref() == Some(&record.uid) && !ended(&m));
                if !holds {
                    self.leftovers.insert(record.uid.clone());
                }
                others.insert(record.uid, holds);
            }
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
            return Incident { name: Some(named.name.clone()), releases: None, recorded_end: true };
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
            releases: releases(&incident),
            recorded_end: recorded || overdue,
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        let Some(kind) = self.kind else {
            self.target = Read::Missing;
            return Ok(());
        };
        self.target = found(self.ctx.targets.read(kind, &target_key(&self.mitigation)).await?);
        Ok(())
    }

    async fn write(&mut self, what: Write, patch: &serde_json::Value) -> Result<(), Error> {
        let Some(kind) = self.kind else { return Err(Error::Restless(self.key.to_string())) };
        let action = self.mitigation.spec.template.action.name();
        let key = target_key(&self.mitigation);
        let dry_run = what == Write::DryRun;
        let answer = self.ctx.targets.write(kind, &key, &action.field_manager(), patch, dry_run).await;
        let result = match &answer {
            Ok(_) => "success",
            Err(NotDone::Changed) => "changed",
            Err(NotDone::Forbidden(_)) => "forbidden",
            Err(NotDone::Denied(_)) => "denied",
            Err(NotDone::Failed(_)) => "error",
        };
        self.ctx.metrics.operation(action.as_str(), operation(what), result);
        match answer {
            Ok(_) if dry_run => self.dry_run_passed = true,
            Ok(object) => {
                info!(mitigation = %self.key, target = %key, operation = operation(what), "target written");
                self.target = Read::Found(Arc::new(object));
            }
            Err(NotDone::Changed) => {
                debug!(mitigation = %self.key, target = %key, "target changed meanwhile; reading it again");
                self.read().await?;
            }
            Err(NotDone::Forbidden(words)) => self.refused = Some(Refused::Forbidden(words)),
            Err(NotDone::Denied(words)) => self.refused = Some(Refused::Denied(words)),
            Err(NotDone::Failed(error)) => return Err(error),
        }
        Ok(())
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

    async fn remove_finalizer(mut self) -> Result<Option<Instant>, Error> {
        // An object that stands alone is gone next, and its end with it: telling is enough.
        let old = self.stored.status.clone();
        if self.mitigation.spec.incident_ref.is_some() {
            self.write_status().await?;
        } else {
            self.tell(old.as_ref());
        }
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
    async fn patch(&self, patch: serde_json::Value, what: &str) -> Result<Option<Mitigation>, Error> {
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

    fn saw(&self, object: Mitigation) {
        if let Some(news) = self.ctx.mitigations.saw(object) {
            self.ctx.heard_of_mitigation(&news, true);
        }
    }

    fn await_target(&self) -> Option<Instant> {
        let kind = self.kind?;
        let target = &self.mitigation.spec.template.target_ref;
        let text = index_text(&self.key.namespace, &target.kind, &target.name);
        let wanted = {
            let (ctx, text) = (self.ctx.clone(), text.clone());
            move || ctx.has_waiting(&text)
        };
        let ctx = self.ctx.clone();
        let appeared = move || ctx.wake_mitigations_of(&text, None);
        let awaited = self.ctx.targets.await_target(kind, &target_key(&self.mitigation), wanted, appeared);
        (!awaited).then(|| Instant::now() + LOOK_AGAIN)
    }

    /// Tells what changed, on the mitigation and on the target. Only after it is so.
    fn tell(&self, old: Option<&MitigationStatus>) {
        let Some(new) = &self.mitigation.status else { return };
        let told = |status: Option<&MitigationStatus>| {
            status.map(|s| (s.phase, effective(s), find_true(s, "Contested"), s.expired_time.is_some()))
        };
        if told(old) == told(Some(new)) {
            return;
        }
        let Some((reason, warning)) = news(old, new) else { return };
        let says = find(&new.conditions, "Ready").map(|c| c.message.clone()).unwrap_or_default();
        let applied = find(&new.conditions, "Applied").map(|c| c.message.clone()).unwrap_or_default();
        let message = match reason {
            "MitigationApplied" => {
                format!("{applied}: {}", clip(&self.mitigation.spec.template.reason, MAX_REASON))
            }
            "MitigationExpired" => "its time is over and it is still in force: release it, or give it more \
                                    time with spec.expiresAfter"
                .to_owned(),
            _ => says,
        };
        let time = Timestamp::now();
        let mitigation = reference(&self.mitigation);
        let target = match &self.target {
            Read::Found(object) => Some(target_reference(object)),
            Read::NotYet | Read::Missing => None,
        };
        if let Some(target) = &target {
            let by = match &self.mitigation.spec.incident_ref {
                Some(incident) => format!(" (mitigation {}, incident {})", self.key.name, incident.name),
                None => format!(" (mitigation {})", self.key.name),
            };
            self.ctx.events.tell(Note {
                regarding: target.clone(),
                related: Some(mitigation.clone()),
                reason: reason.to_owned(),
                message: format!("{message}{by}"),
                warning,
                time,
            });
        }
        self.ctx.events.tell(Note {
            regarding: mitigation,
            related: target,
            reason: reason.to_owned(),
            message,
            warning,
            time,
        });
    }
}

/// What a change of status is called, and whether somebody should look.
fn news(old: Option<&MitigationStatus>, new: &MitigationStatus) -> Option<(&'static str, bool)> {
    let before = old.and_then(|s| s.phase);
    let phase = new.phase?;
    if before != Some(phase) {
        let word = match phase {
            Phase::Pending => return pending(new),
            Phase::AwaitingApproval => ("MitigationAwaitingApproval", false),
            Phase::Active => ("MitigationApplied", false),
            Phase::Applying | Phase::Releasing => return None,
            Phase::Released => ("MitigationReleased", false),
            Phase::Kept => ("MitigationKept", false),
            Phase::Superseded => ("MitigationSuperseded", true),
            Phase::Abandoned => ("MitigationAbandoned", true),
            Phase::Refused => ("MitigationRefused", true),
            Phase::Failed => ("MitigationFailed", true),
        };
        return Some(word);
    }
    if phase != Phase::Active {
        return None;
    }
    if new.expired_time.is_some() && old.is_none_or(|s| s.expired_time.is_none()) {
        return Some(("MitigationExpired", true));
    }
    if find_true(new, "Contested") {
        return Some(("MitigationContested", true));
    }
    match effective(new) {
        Some(ConditionStatus::True) => Some(("MitigationEffective", false)),
        Some(ConditionStatus::False) => Some(("MitigationNotEffective", true)),
        Some(ConditionStatus::Unknown) | None => None,
    }
}

/// A mitigation that waits says for what.
fn pending(new: &MitigationStatus) -> Option<(&'static str, bool)> {
    match find(&new.conditions, "Ready")?.reason.as_str() {
        "TargetNotFound" => Some(("TargetNotFound", true)),
        "FieldBusy" => Some(("FieldBusy", true)),
        "OperatorForbidden" => Some(("OperatorForbidden", true)),
        "DryRun" => Some(("DryRun", false)),
        _ => None,
    }
}

fn effective(status: &MitigationStatus) -> Option<ConditionStatus> {
    find(&status.conditions, "Effective").map(|c: &Condition| c.status)
}

fn find_true(status: &MitigationStatus, type_: &str) -> bool {
    find(&status.conditions, type_).is_some_and(|c| c.status == ConditionStatus::True)
}

fn operation(what: Write) -> &'static str {
    match what {
        Write::Take => "take",
        Write::DryRun => "dry_run",
        Write::Reassert => "reassert",
        Write::Recapture => "recapture",
        Write::Restore => "restore",
        Write::LetGo => "let_go",
        Write::Disown => "disown",
    }
}

fn found(object: Option<DynamicObject>) -> Read {
    object.map_or(Read::Missing, |object| Read::Found(Arc::new(object)))
}

/// Key of the target of a mitigation.
pub fn target_key(mitigation: &Mitigation) -> Key {
    Key::new(
        mitigation.metadata.namespace.as_deref().unwrap_or_default(),
        &mitigation.spec.template.target_ref.name,
    )
}

/// Refers to an object of ours, as Events do.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        ..ObjectReference::default()
    }
}

fn target_reference(object: &DynamicObject) -> ObjectReference {
    ObjectReference {
        api_version: object.types.as_ref().map(|t| t.api_version.clone()),
        kind: object.types.as_ref().map(|t| t.kind.clone()),
        name: object.metadata.name.clone(),
        namespace: object.metadata.namespace.clone(),
        uid: object.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
