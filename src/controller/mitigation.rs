//! The driver of a mitigation: asks `decide` for the next effect, carries it out, asks again, and writes the
//! status once nothing is left to do.

mod effects;
mod look;
mod own;

use super::{
    Context, Error, Key,
    evidence::{Progress, Request},
    moment,
    targets::{LOOK_AGAIN, index_text},
};
use crate::{
    api::{DesiredState, Mitigation, MitigationPhase as Phase},
    decide::{
        access::Answers,
        mitigation::{
            Effect, Evidence, Objects, Observed, Plan, Refused, Reservation, decide, restless, target_id,
        },
    },
    mitigation::{Engine, Found, ObjectId, SECRET, TargetKind, engine},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, core::DynamicObject};
use serde_json::Value;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{task::block_in_place, time::Instant};

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

/// Bytes of documents that are not read on the thread that does everything else.
const LONG: usize = 64 * 1024;

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
    /// Kinds that the cluster does not have, or that the operator may not look at.
    hidden: HashSet<TargetKind>,
    refused: Option<Refused>,
    dry_run_passed: HashSet<ObjectId>,
    /// uids in records on objects whose mitigations are gone.
    leftovers: HashSet<String>,
    /// What the API server said about rights, and when.
    answers: Answers,
    asked: Instant,
    /// What came of the wish to be counted.
    reservation: Option<Reservation>,
    /// The API server said that the mitigation is not there any more.
    gone: bool,
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
        // What is followed may be another by now, as the watch tells. Until it is complete, what was read stands: then
        // it is looked at again.
        let latest = |id: &ObjectId| match ctx.lookouts.is_complete(key, id.kind) {
            true => ctx.lookouts.followed(key, id),
            false => ctx.targets.recent(&key.namespace, id),
        };
        if let Some(id) = target.as_ref().filter(|id| holds && !ids.contains(id))
            && let Some(object) = latest(id)
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
        let absent = objects.iter().filter(|(_, object)| object.is_none()).map(|(id, _)| id.kind);
        let secrets = (!ctx.secret_names).then_some(SECRET);
        let hidden = absent.filter(|kind| ctx.targets.lacks(*kind)).chain(secrets).collect();
        Ok(Visit {
            ctx,
            key,
            api: Api::namespaced(ctx.client.clone(), &key.namespace),
            mitigation: known.as_ref().clone(),
            stored: known,
            objects,
            found: Found::new(),
            hidden,
            refused: None,
            dry_run_passed: HashSet::new(),
            leftovers: HashSet::new(),
            answers: ahead.answers,
            asked: Instant::now(),
            reservation: None,
            gone: false,
        })
    }

    async fn run(mut self) -> Result<Option<Instant>, Error> {
        let mut effects = 0;
        let policies = self.policies().await?;
        loop {
            let holders = self.holders().await?;
            let approvals = self.approvals();
            if self.asked.elapsed() > FRESH {
                self.answers.clear();
            }
            let decide = || {
                let observed = Observed {
                    mitigation: &self.mitigation,
                    objects: &self.objects,
                    found: &self.found,
                    hidden: &self.hidden,
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
                };
                decide(&observed, Timestamp::now())
            };
            let plan = if self.is_long() { block_in_place(decide) } else { decide() };
            if self.acts(&plan) && self.refresh().await? {
                if self.gone {
                    self.ctx.takes.give_back(self.uid());
                    return Ok(None);
                }
                continue;
            }
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
            if self.gone {
                // Nobody is left for whom anything could be changed, or who would undo it.
                self.ctx.takes.give_back(self.uid());
                return Ok(None);
            }
            effects += 1;
            let touched = self.mitigation.status.as_ref().map_or(0, |status| status.objects.len());
            if effects > MAX_EFFECTS * (1 + touched) {
                let mut status = plan.status;
                restless(&mut status, self.mitigation.metadata.generation, effects, Timestamp::now());
                self.mitigation.status = Some(status);
                self.write_status().await?;
                return Err(Error::Restless(format!("the target of mitigation {}", self.key)));
            }
        }
    }

    /// Whether a document is so long that to read it takes a while, in which nothing else would be done: a lease is renewed
    /// on the same thread.
    fn is_long(&self) -> bool {
        let texts = self.objects.values().flatten().filter_map(|object| object.data.get("data")?.as_object());
        texts.flat_map(|data| data.values()).filter_map(Value::as_str).map(str::len).sum::<usize>() > LONG
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
        // Who is not told of news looks again now and then.
        let follows = self.ctx.lookouts.follow(self.key, plan.follow.as_ref());
        let again = (!follows).then(|| Instant::now() + LOOK_AGAIN);
        let counted = matches!(
            self.stored.status.as_ref().and_then(|s| s.phase),
            Some(Phase::Applying | Phase::Active | Phase::Releasing)
        );
        self.write_status().await?;
        if matches!(plan.status.phase, Some(Phase::Pending | Phase::AwaitingApproval))
            && (self.ctx.takes.give_back(self.uid()) || counted)
        {
            self.ctx.one_counts_no_more(&self.key.namespace);
        }
        let awaits = plan.await_target.then(|| self.await_target()).flatten();
        Ok(plan.wake.map(moment).into_iter().chain(awaits).chain(again).chain(self.record_deadline()).min())
    }

    /// When it may go although its incident has not recorded the end, once nothing else keeps it.
    fn record_deadline(&self) -> Option<Instant> {
        let ended = self.mitigation.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_ended);
        let deleted = self.mitigation.metadata.deletion_timestamp.as_ref().filter(|_| ended)?;
        deleted.0.checked_add(SignedDuration::from_secs(RECORD_DEADLINE_SECONDS + 1)).ok().map(moment)
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
        let touched = self.objects.iter().filter(|(other, _)| **other != id);
        let touched = touched.filter_map(|(id, object)| Some((id.clone(), object.clone()?))).collect();
        self.ctx.evidence.start(Request {
            mitigation: self.key.clone(),
            uid: self.uid().to_owned(),
            incident: self.mitigation.spec.incident_ref.as_ref().map(|incident| incident.name.clone()),
            id,
            target,
            touched,
            destroys: engine(&self.mitigation.spec.template.action).is_some_and(Engine::destroys),
            logs,
        });
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
