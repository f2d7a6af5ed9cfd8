//! What happens next to a mitigation.
//!
//! The protocol: finalizer → checks → take → verify → hold → release. [`decide`] looks at what is there (the
//! Mitigation, the objects that it changes with their capture records, the incident) and names at most one effect;
//! after the effect it is asked again with what is there then. So a crash between any two effects changes nothing:
//! the next process sees the same facts and names the same next effect.
//!
//! Most mitigations change one object, their target. Those that change others too, or make some, write down which
//! (`status.objects`) before the first of them is touched; each object carries its own record.

mod approval;
mod busy;
mod by_hand;
mod dry_run;
mod evidence;
mod expiry;
mod gate;
mod hold;
mod holdings;
mod leave;
mod plan;
mod release;
mod superseded;
mod take;
mod told;
mod verify;

use super::{
    conditions::{Conditions, clip, whole_seconds},
    incident::CANCELLED,
};
use crate::api::{
    ACTOR_ANNOTATION,
    ConditionStatus::{False, True, Unknown},
    DesiredState, EvidencePolicy, FINALIZER, MITIGATED_LABEL, Mitigation, MitigationPhase as Phase,
    MitigationStatus, OnExpire, OnRelease, REQUESTER_ANNOTATION, ReleaseOn,
};
use crate::mitigation::{
    self, Effect as Seen, Engine, ObjectId, Refusal, Scene, Stop, TargetKind, on_release,
    ownership::{Writer, writer},
    patch,
    record::{HeldField, Record},
};
use crate::mutants::{Mutant, seeded};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;
use std::time::Duration;

pub use gate::evidence_policy;
pub use hold::TAKEN_BACK;
use holdings::Holding;
pub use holdings::{objects, target_id};
pub use plan::*;

/// How long a change may take to show its effect, when the mitigation does not say.
pub const DEFAULT_VERIFICATION: Duration = Duration::from_secs(120);
/// How often a machine's change is taken back before the field counts as contested.
pub const MAX_REASSERTS: u8 = 3;
/// Wait before a machine's change is taken back, doubled each time.
const REASSERT_BACKOFF: Duration = Duration::from_secs(1);
/// Most values that are shown in status.
const MAX_PRIOR: usize = 64;
/// Longest text about the owners of a field in status.
const MAX_OWNERS: usize = 8192;

/// Why a mitigation is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Deleted(Deletion),
    Asked,
    Expired,
    Incident(&'static str),
    /// The target is gone, or another object by now.
    TargetGone,
    /// Somebody else changed what it holds.
    Undone,
    /// It could not be made in full.
    Refused(Refusal),
}

impl End {
    fn reason(&self) -> &'static str {
        match self {
            End::Deleted(Deletion::ByHand | Deletion::WithIncident) => "Deleted",
            End::Deleted(Deletion::Withdrawn) => "Withdrawn",
            End::Asked => "Asked",
            End::Expired => "Expired",
            End::Incident(reason) => reason,
            End::TargetGone => "TargetGone",
            End::Undone => "ChangedBySomebodyElse",
            End::Refused(refusal) => refusal.reason,
        }
    }

    fn because(&self) -> &'static str {
        match self {
            End::Deleted(Deletion::ByHand) => {
                "the mitigation was deleted, by somebody whom the API server does not name"
            }
            End::Deleted(Deletion::Withdrawn) => "its entry was taken out of the incident",
            End::Deleted(Deletion::WithIncident) => "the incident was deleted",
            End::Asked => "its release was asked for",
            End::Expired => "its time was over",
            End::Incident(CANCELLED) => "the incident was cancelled",
            End::Incident(_) => "the incident is being resolved",
            End::TargetGone => "the target is gone",
            End::Undone => "somebody else changed what it holds",
            End::Refused(_) => "it could not be made in full",
        }
    }
}

/// Decides the next step. See the module for the protocol.
pub fn decide(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut d = Decision::new(seen, now);
    d.decide();
    d.plan
}

/// What is to be told when `writes` of one visit each found another object than they were decided on. Nothing is given up:
/// it is tried again, a little later each time.
pub fn restless(status: &mut MitigationStatus, generation: Option<i64>, writes: usize, now: Timestamp) {
    let message = format!(
        "{writes} times in a row the object was not as it had been read when it was to be written: somebody keeps changing \
         it; it is tried again"
    );
    let releasing = status.phase == Some(Phase::Releasing);
    let reason = if releasing { "ReleaseRefused" } else { "TargetRestless" };
    let mut c = Conditions::new(&mut status.conditions, generation, now);
    c.set("Stalled", True, reason, message.clone());
    c.set("Ready", False, reason, message);
}

struct Decision<'a> {
    seen: &'a Observed<'a>,
    m: &'a Mitigation,
    now: Timestamp,
    plan: Plan,
    /// The target, if its kind is known.
    id: Option<ObjectId>,
    /// What was announced to be touched.
    touched: Vec<ObjectId>,
}

impl<'a> Decision<'a> {
    fn new(seen: &'a Observed<'a>, now: Timestamp) -> Self {
        let m = seen.mitigation;
        let mut status = m.status.clone().unwrap_or_default();
        let fresh = status.conditions.is_empty();
        status.observed_generation = m.metadata.generation;
        status.action = Some(m.spec.template.action.name().as_str().to_owned());
        let target = &m.spec.template.target_ref;
        status.target = Some(format!("{}/{}", target.kind, target.name));
        status.phase.get_or_insert(Phase::Pending);
        let plan = Plan { status, effect: None, wake: None, await_target: false, follow: None };
        let touched = holdings::announced(m);
        let mut d = Decision { seen, m, now, plan, id: target_id(m), touched };
        if fresh {
            d.first_visit();
        } else {
            for condition in &mut d.plan.status.conditions {
                condition.observed_generation = m.metadata.generation;
            }
        }
        d
    }

    /// Every known condition is there from the first visit.
    fn first_visit(&mut self) {
        let evidence = match self.evidence_policy() {
            EvidencePolicy::None => ("NotRequested", "no evidence was asked for"),
            EvidencePolicy::BestEffort | EvidencePolicy::Required => ("Pending", "nothing is changed yet"),
        };
        self.authorization_unknown();
        let mut c = self.conditions();
        c.set("Approved", True, "NotRequired", "no approval is needed");
        c.set("EvidenceCaptured", False, evidence.0, evidence.1);
        c.set("Applied", False, "Pending", "nothing is changed yet");
        c.set("Effective", Unknown, "NotApplied", "nothing is changed yet");
        c.set("Contested", False, "NotApplied", "nobody contests the field");
        c.set("Stalled", False, "Progressing", "nothing is in the way");
        c.set("Ready", False, "Pending", "nothing is changed yet");
    }

    fn authorization_unknown(&mut self) {
        let message = "rights are checked right before the change";
        self.conditions().set("Authorized", Unknown, "NotChecked", message);
    }

    fn conditions(&mut self) -> Conditions<'_> {
        Conditions::new(&mut self.plan.status.conditions, self.m.metadata.generation, self.now)
    }

    fn phase(&self) -> Phase {
        self.plan.status.phase.unwrap_or_default()
    }

    fn deleted(&self) -> bool {
        self.m.metadata.deletion_timestamp.is_some()
    }

    fn has_finalizer(&self) -> bool {
        self.m.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
    }

    /// Who asks for it as it is now.
    fn asks(&self) -> Option<&str> {
        let names = [ACTOR_ANNOTATION, REQUESTER_ANNOTATION];
        names.into_iter().find_map(|key| self.name_in(key))
    }

    /// A name that admission stamped.
    fn name_in(&self, key: &str) -> Option<&str> {
        let name = self.m.metadata.annotations.as_ref()?.get(key)?;
        Some(name.as_str()).filter(|name| !name.is_empty())
    }

    /// Keeps who had asked for the change when it was made. The record on the object, which is written with the change,
    /// is believed as far as it chooses among those who signed: anybody may have written to the object since.
    fn note_asked_by(&mut self, record: Option<&str>) {
        if self.was_applied() || self.plan.status.asked_by.is_some() {
            return;
        }
        let requester = self.name_in(REQUESTER_ANNOTATION);
        let noted = [self.asks(), requester].into_iter().flatten().find(|name| Some(*name) == record);
        self.plan.status.asked_by = noted.or(requester).map(|name| clip(name, 253));
    }

    fn was_applied(&self) -> bool {
        self.plan.status.applied_time.is_some()
    }

    fn decide(&mut self) {
        if self.phase().is_ended() {
            if !self.is_recorded() {
                return self.ended();
            }
            // The record on an object goes before the end is told, so somebody wrote what is not true into status,
            // or it came from a backup. What is still held is held, and undone when that is asked for.
            let status = &mut self.plan.status;
            status.phase = Some(Phase::Active);
            (status.released_time, status.undone_by, status.left) = (None, None, None);
        }
        if self.deleted() && !self.has_finalizer() {
            // Somebody took the finalizer away: the object is going, and with it the right to act for it.
            return;
        }
        if self.deleted() && seeded(Mutant::FinalizerRemovedFirst) {
            self.plan.effect = Some(Effect::RemoveFinalizer);
            return;
        }
        self.renew_expiry();
        if let Some(end) = self.end() {
            // What was changed is undone from its record, whatever this version can do.
            return self.release(&end);
        }
        match self.checks() {
            Ok(engine) => self.keep(engine),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// What can be refused without looking at the target.
    fn checks(&self) -> Result<&'a dyn Engine, Refusal> {
        let template = &self.m.spec.template;
        let name = template.action.name().as_str();
        let missing = |what: &str, fix: &str| {
            Err(Refusal::new("NotImplemented", format!("{what} is not available in this version: {fix}")))
        };
        let Some(engine) = mitigation::engine(&template.action) else {
            return missing(&format!("the action {name}"), "do it by hand and record it as a timeline entry");
        };
        if !engine.kinds().is_empty() {
            mitigation::target_kind(engine, &template.target_ref)?;
        }
        Ok(engine)
    }

    /// Whether it is to end, and why.
    fn end(&self) -> Option<End> {
        let template = &self.m.spec.template;
        if self.deleted() {
            return Some(End::Deleted(self.seen.incident.deletion));
        }
        if template.desired_state == Some(DesiredState::Released) {
            return Some(End::Asked);
        }
        let latest = self.plan.status.latest_end_time.as_ref().filter(|_| self.was_applied());
        if template.on_expire == Some(OnExpire::Release) && self.expired()
            || latest.is_some_and(|latest| latest.0 <= self.now)
        {
            return Some(End::Expired);
        }
        match self.seen.incident.releases {
            Some(CANCELLED) => Some(End::Incident(CANCELLED)),
            Some(reason) if template.release_on == Some(ReleaseOn::Resolve) => Some(End::Incident(reason)),
            _ => None,
        }
    }

    /// Whether an object that is known carries our record. A namespace that is being deleted does not count: what is on
    /// it goes with it, and it may be that nobody can take it off any more.
    fn is_recorded(&self) -> bool {
        let goes = |id: &ObjectId, object: &DynamicObject| {
            id.kind == mitigation::NAMESPACE && object.metadata.deletion_timestamp.is_some()
        };
        let known = self.seen.objects.iter().filter_map(|(id, object)| Some((id, object.as_ref()?)));
        known.filter(|(id, o)| !goes(id, o)).any(|(_, object)| Record::find(object, self.uid()).is_some())
    }

    // ---- ends ----------------------------------------------------------------------------------------------

    fn ended(&mut self) {
        if self.deleted() && self.has_finalizer() && self.seen.incident.recorded_end {
            self.plan.effect = Some(Effect::RemoveFinalizer);
        }
    }

    fn finish(&mut self, phase: Phase, reason: &str, message: String) {
        self.plan.status.phase = Some(phase);
        if self.was_applied() {
            self.plan.status.released_time.get_or_insert(whole_seconds(self.now));
        }
        self.plan.effect = None;
        self.plan.wake = None;
        let mut c = self.conditions();
        c.set("Applied", False, reason, message.clone());
        c.set("Effective", False, "Ended", "the mitigation has ended");
        c.set("Contested", False, "Ended", "the mitigation has ended");
        if phase == Phase::Failed {
            // What was asked for never came to be.
            c.set("Stalled", True, reason, message.clone());
            c.set("Ready", False, reason, message);
        } else {
            c.set("Stalled", False, "Ended", "nothing is in the way");
            c.set("Ready", True, reason, message);
        }
        self.ended();
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.plan.effect = None;
        if self.was_applied() {
            // Another version changed the target: it stays as it is, and can be released.
            let mut c = self.conditions();
            c.set("Stalled", True, refusal.reason, refusal.message.clone());
            c.set("Ready", False, refusal.reason, refusal.message.clone());
            return;
        }
        self.plan.status.phase = Some(Phase::Refused);
        let mut c = self.conditions();
        c.set("Applied", False, refusal.reason, refusal.message.clone());
        c.set("Effective", False, "NotApplied", "nothing is changed");
        c.set("Stalled", True, refusal.reason, refusal.message.clone());
        c.set("Ready", False, refusal.reason, refusal.message.clone());
        self.ended();
    }

    fn wait(&mut self, reason: &str, message: String) {
        let ours = |object: &DynamicObject| Record::find(object, self.uid()).is_some();
        let seen = self.seen.objects.iter();
        let mut changed: Vec<String> = seen
            .filter(|(_, object)| object.as_deref().is_some_and(ours))
            .map(|(id, _)| id.to_string())
            .collect();
        changed.sort_unstable();
        let (phase, message, so_far) = match changed.is_empty() {
            true => (Phase::Pending, message, "nothing is changed yet".to_owned()),
            false => {
                let so_far = format!("changed so far: {}", clip(&changed.join(", "), 1024));
                (Phase::Applying, format!("{message}; {so_far}"), so_far)
            }
        };
        self.plan.status.phase = Some(phase);
        let mut c = self.conditions();
        c.set("Applied", False, reason, message.clone());
        c.set("Effective", Unknown, "NotApplied", so_far);
        c.set("Stalled", False, "Progressing", "nothing is in the way");
        c.set("Ready", False, reason, message);
    }

    /// What the action sees. `None` without a target.
    fn scene<'s>(&'s self, id: &'s ObjectId, target: &'s DynamicObject) -> Scene<'s>
    where
        'a: 's,
    {
        Scene {
            uid: self.uid(),
            namespace: self.m.metadata.namespace.as_deref().unwrap_or_default(),
            name: self.m.metadata.name.as_deref().unwrap_or_default(),
            incident: self.m.spec.incident_ref.as_ref().map(|i| i.name.as_str()),
            commander: self.seen.incident.commander.as_deref(),
            id,
            target,
            touched: &self.touched,
            applied: self.plan.status.applied_time.as_ref().map(|t| t.0),
            now: self.now,
            found: self.seen.found,
            holders: self.seen.holders,
            hidden: self.seen.hidden,
        }
    }

    /// Looks at something, or refuses.
    fn stopped(&mut self, stop: Stop) -> Option<Refusal> {
        match stop {
            Stop::Look(look) => {
                self.plan.effect = Some(Effect::Look(look));
                None
            }
            Stop::NotYet(refusal, _) | Stop::Refused(refusal) => Some(refusal),
        }
    }

    fn wake_at(&mut self, time: Timestamp) {
        self.plan.wake = Some(self.plan.wake.map_or(time, |w| w.min(time)));
    }
}

#[cfg(test)]
mod tests;
