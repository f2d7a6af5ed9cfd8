//! Take: what is to change is worked out, announced when it is more than the target, and changed, one object after
//! the other. Each object gets its capture record in the same write.

use super::{
    Decision, DynamicObject, Effect, End, Holding, ObjectId, Phase, Refusal, Refused, Why, Write, busy::busy,
    dry_run::plan_summary,
};
use crate::api::{ConditionStatus::False, TouchedObject};
use crate::decide::{conditions::find, policy::InForce};
use crate::mitigation::{
    Asked, Engine, Part, Stop,
    field::{Change, How},
    gitops, patch,
    record::{HeldField, Record},
};
use crate::mutants::{Mutant, seeded};
use serde_json::{Value, json};
use std::time::Duration;

/// After this long a change that the operator may not make is tried again; at most four times that.
const FORBIDDEN_AGAIN: Duration = Duration::from_secs(15);

impl<'a> Decision<'a> {
    /// What is asked for is to be in force.
    pub(super) fn keep(&mut self, engine: &'a dyn Engine) {
        if self.dry_run_answered() {
            return;
        }
        if !self.has_finalizer() && (self.was_applied() || !seeded(Mutant::FinalizerTooLate)) {
            self.plan.effect = Some(Effect::AddFinalizer);
            return;
        }
        if self.is_by_hand() {
            return self.by_hand();
        }
        if self.still_unknown() {
            return;
        }
        let Some(target) = self.target() else { return };
        let Some(target) = target else {
            if self.was_applied() || self.policies_allow(None) {
                self.target_missing();
            }
            return;
        };
        let Some(holdings) = self.holdings() else { return };
        let recorded = |h: &Holding<'_>| h.record.is_some();
        if self.plan.status.undone_by.is_some() && self.was_applied() {
            return self.release(&End::Undone);
        }
        if holdings.iter().any(|h| h.record.as_ref().is_some_and(|record| record.restored)) {
            // A release that was under way is finished, whatever was asked for it since.
            return self.release(&End::Asked);
        }
        if self.phase() == Phase::Releasing && self.was_applied() {
            return self.release(&End::Asked);
        }
        // What was there and is gone needs no change; what is to be made is not there yet.
        let complete =
            holdings.iter().all(|h| recorded(h) || h.object.is_none() && !self.is_to_be_made(&h.id));
        if self.was_applied() || complete && holdings.iter().any(recorded) {
            return self.hold(engine, target, &holdings);
        }
        self.take(engine, target, &holdings);
    }

    fn is_to_be_made(&self, id: &ObjectId) -> bool {
        let mut announced = self.plan.status.objects.iter();
        announced.any(|o| o.uid.is_none() && o.name == id.name && o.kind == id.kind.kind)
    }

    fn target_missing(&mut self) {
        if self.was_applied() {
            return self.release(&End::TargetGone);
        }
        let target = self.plan.status.target.clone().unwrap_or_default();
        let unknown = self.id.as_ref().map(|id| id.kind).filter(|kind| self.seen.hidden.contains(kind));
        let there_is_no = match unknown {
            Some(kind) => format!("there is no {target}: this cluster has no {}", kind.qualified()),
            None => format!("there is no {target} in this namespace"),
        };
        self.wait("TargetNotFound", format!("{there_is_no}; the change is made as soon as it appears"));
        self.plan.await_target = true;
    }

    fn take(&mut self, engine: &'a dyn Engine, target: &'a DynamicObject, holdings: &[Holding<'a>]) {
        // What was begun is finished: half a change is worse than none.
        let begun = holdings.iter().any(|h| h.record.is_some());
        if !begun && !self.policies_allow(Some(target)) {
            return;
        }
        if target.metadata.deletion_timestamp.is_some() {
            let name = self.plan.status.target.clone().unwrap_or_default();
            self.wait(
                "TargetTerminating",
                format!("{name} is being deleted; the change waits for a new one"),
            );
            self.plan.await_target = true;
            return;
        }
        let Some(id) = self.id.clone() else { return };
        let mut parts = match self.parts(engine, &self.scene(&id, target)) {
            Ok(parts) => parts,
            Err(Stop::Refused(refusal)) if !begun => {
                return match self.refused_for_now(engine, &id, target) {
                    Ok(None) => self.cannot_take(Stop::Refused(refusal), holdings),
                    Ok(Some((at, holder))) if self.is_dry_run() => {
                        self.nothing_planned(&at, &holder, &refusal);
                    }
                    Ok(Some((at, holder))) => {
                        let paths = holder.fields.iter().map(|held| held.path.as_str());
                        self.field_busy(&at, &holder, paths, Some(&refusal));
                    }
                    Err(stop) => self.cannot_take(stop, holdings),
                };
            }
            Err(stop) => return self.cannot_take(stop, holdings),
        };
        let mut held = Vec::new();
        for part in &parts {
            let Some(object) = self.read(&part.id) else { return };
            if let Some(object) = object
                && let Some(holder) = busy(object, part.changes(), self.seen.holders)
            {
                let is_held = |change: &&Change| holder.fields.iter().any(|held| held.overlaps(change));
                let paths = part.changes().iter().filter(is_held).map(|change| change.path.as_str());
                if !self.is_dry_run() {
                    return self.field_busy(&part.id, &holder, paths, None);
                }
                // What it would change can be said all the same.
                let told = self.held_by(&part.id, &holder, paths);
                held.push(format!("{told}; it would wait until that one is released"));
            }
        }
        for other in parts.iter().map(|part| part.id.clone()).filter(|other| *other != id).collect::<Vec<_>>()
        {
            let Some(object) = self.seen.objects.get(&other).cloned().flatten() else { continue };
            let policy = self.m.spec.template.gitops;
            if let Err(stop) = gitops::prepare(policy, &other, false, &object, &mut parts) {
                return self.cannot_take(stop, holdings);
            }
        }
        match self.seen.refused {
            Some(Refused { why: Why::Denied, words, .. }) => {
                let refusal = Refusal::new("Denied", format!("the API server refused the change: {words}"));
                return self.cannot_take(Stop::Refused(refusal), holdings);
            }
            Some(Refused { why: Why::Forbidden, words, .. }) => return self.forbidden(words),
            None => {}
        }
        if let Some(refusal) = self.touches_protected(&parts, holdings) {
            return self.cannot_take(Stop::Refused(refusal), holdings);
        }
        if !begun && !self.requester_may(&parts) {
            return;
        }
        if self.is_dry_run() {
            return self.dry_run(engine, target, &parts, held);
        }
        if !begun && let Some(refusal) = self.differs_from_plan(engine, &parts) {
            return self.cannot_take(Stop::Refused(refusal), holdings);
        }
        if !begun && !self.approved(target.metadata.uid.as_deref()) {
            return;
        }
        if !self.evidence_allows() {
            return;
        }
        if !begun && !self.within_limits(&parts) {
            return;
        }
        self.plan.status.phase = Some(Phase::Applying);
        // That of a dry run before: what is done now may be something else.
        self.plan.status.plan = None;
        // What was announced before may have become less.
        let only_the_target = self.plan.status.objects.is_empty()
            && matches!(parts.as_slice(), [part] if part.id == id && !part.changes().is_empty());
        if !only_the_target && self.announce(&parts, holdings) {
            return;
        }
        for part in &parts {
            if let Some(effect) = self.next(part) {
                match effect {
                    Ok(effect) => self.plan.effect = Some(effect),
                    Err(refusal) => self.cannot_take(Stop::Refused(refusal), holdings),
                }
                return;
            }
        }
        // Everything is there: what is held is seen with the next look.
        let Some(holdings) = self.holdings() else { return };
        self.hold(engine, target, &holdings);
    }

    /// Who takes `dryRun` out wants what the plan said. Where a rollback goes to is told by what runs, and that may be
    /// something else by now.
    fn differs_from_plan(&self, engine: &dyn Engine, parts: &[Part]) -> Option<Refusal> {
        let planned = self.plan.status.plan.as_ref()?;
        let moves = |change: &Change| matches!(change.how, How::Revision(_));
        if !parts.iter().flat_map(Part::changes).any(moves) {
            return None;
        }
        let now = plan_summary(&engine.summary(&self.m.spec.template.target_ref, parts));
        (now != planned.summary).then(|| {
            let words = format!(
                "somebody changed the workload since the plan, which was: {}; now it {now}: make a new dry run, and take that",
                planned.summary
            );
            Refusal::new("PlanOutdated", words)
        })
    }

    /// Writes down what is about to be touched. False when that is done already.
    fn announce(&mut self, parts: &[Part], holdings: &[Holding<'a>]) -> bool {
        let objects: Vec<TouchedObject> = parts
            .iter()
            .map(|part| TouchedObject {
                api_version: part.id.kind.api_version(),
                kind: part.id.kind.kind.to_owned(),
                name: part.id.name.clone(),
                uid: match part.asked {
                    Asked::Change(_) => {
                        let object = self.seen.objects.get(&part.id).and_then(Option::as_ref);
                        object.and_then(|object| object.metadata.uid.clone())
                    }
                    Asked::Create(_) => None,
                },
            })
            .collect();
        // What is touched already stays written down.
        let touched = |o: &TouchedObject| {
            holdings.iter().any(|h| h.record.is_some() && h.id.name == o.name && h.id.kind.kind == o.kind)
        };
        let planned = |o: &TouchedObject| objects.iter().any(|p| p.kind == o.kind && p.name == o.name);
        let kept = self.plan.status.objects.iter().filter(|o| touched(o) && !planned(o)).cloned();
        let all: Vec<TouchedObject> = kept.chain(objects.iter().cloned()).collect();
        if self.plan.status.objects == all {
            return false;
        }
        self.plan.status.objects = all;
        self.plan.effect = Some(Effect::Announce);
        true
    }

    /// The write that a part still needs.
    pub(super) fn next(&self, part: &Part) -> Option<Result<Effect, Refusal>> {
        let object = self.seen.objects.get(&part.id).and_then(Option::as_ref);
        match (&part.asked, object) {
            (Asked::Change(changes), Some(object)) => {
                if Record::find(object, self.uid()).is_some() && !seeded(Mutant::CaptureTwice) {
                    return None;
                }
                let fields = changes.iter().map(|change| HeldField::capture(object, change)).collect();
                let record = self.new_record(Some(object), fields);
                if let Err((needed, free)) = record.fits(object) {
                    return Some(Err(Refusal::new(
                        "NoRoomForPrior",
                        format!(
                            "the prior value is kept among the annotations of {}, and they have no room for it: it needs {needed} \
                             bytes and {free} of 262144 are free; take out an annotation that is not needed, such as \
                             kubectl.kubernetes.io/last-applied-configuration",
                            part.id
                        ),
                    )));
                }
                let patch = patch::take(object, &record, changes, self.seen.holders);
                Some(match patch {
                    Ok(patch) => Ok(Effect::Write { object: part.id.clone(), what: Write::Take, patch }),
                    Err(words) => Err(Refusal::new("CannotEdit", words)),
                })
            }
            // What is gone by now needs no change.
            (Asked::Change(_), None) => None,
            (Asked::Create(_), Some(object)) => (Record::find(object, self.uid()).is_none()).then(|| {
                Err(Refusal::new("NameTaken", format!("{} exists and is not of this mitigation", part.id)))
            }),
            (Asked::Create(spec), None) => Some(Ok(Effect::Create {
                object: part.id.clone(),
                manifest: self.manifest(part, spec),
                dry_run: false,
            })),
        }
    }

    fn manifest(&self, part: &Part, spec: &Value) -> Value {
        let held = HeldField {
            path: "/spec".to_owned(),
            how: How::Subset,
            prior: None,
            applied: Some(spec.clone()),
            owners: Vec::new(),
        };
        let record = self.new_record(None, vec![held]);
        let owner = json!({"apiVersion": crate::api::API_VERSION, "kind": "Mitigation",
            "name": self.m.metadata.name, "uid": self.m.metadata.uid});
        let namespace = self.m.metadata.namespace.as_deref().unwrap_or_default();
        patch::made(&part.id, namespace, &record, spec, &owner)
    }

    /// The change cannot be made, or not in full; what is made of it already is undone.
    fn cannot_take(&mut self, stop: Stop, holdings: &[Holding<'a>]) {
        let again = match &stop {
            Stop::NotYet(_, again) if !self.was_applied() => Some(*again),
            Stop::NotYet(..) | Stop::Look(_) | Stop::Refused(_) => None,
        };
        let Some(refusal) = self.stopped(stop) else { return };
        if let Some(again) = again {
            self.wait(refusal.reason, refusal.message);
            self.plan.wake = self.now.checked_add(again).ok();
            return;
        }
        if holdings.iter().any(|h| h.record.is_some()) {
            return self.release(&End::Refused(refusal));
        }
        self.refuse(&refusal);
    }

    fn forbidden(&mut self, words: &str) {
        let role = self.m.spec.template.action.name().cluster_role();
        let namespace = self.m.metadata.namespace.clone().unwrap_or_default();
        let message = format!(
            "the operator may not make this change in namespace {namespace}: add it to the chart's value \
             `namespaces`, or bind ClusterRole {role} to its ServiceAccount there; the API server said: {words}"
        );
        self.conditions().set("Authorized", False, "OperatorForbidden", message.clone());
        self.wait("OperatorForbidden", message);
        // Asked less often the longer it lasts.
        let since = find(&self.plan.status.conditions, "Authorized").map(|c| c.last_transition_time.0);
        let lasts = since.map_or(Duration::ZERO, |since| self.now.duration_since(since).unsigned_abs());
        self.plan.wake = self.now.checked_add(lasts.clamp(FORBIDDEN_AGAIN, FORBIDDEN_AGAIN * 4)).ok();
    }

    /// It is told already that the policies cannot be told, so nothing was begun: until they can, nothing is read.
    fn still_unknown(&mut self) -> bool {
        let told = find(&self.plan.status.conditions, "Ready").is_some_and(|c| c.reason == "PolicyUnknown");
        let known = self.id.as_ref().is_some_and(|id| self.seen.objects.contains_key(id));
        let unknown = matches!(self.seen.policies, InForce::Unknown(_));
        unknown && told && !known && !self.was_applied() && !self.policies_allow(None)
    }
}
