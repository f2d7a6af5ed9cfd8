//! What happens next to a mitigation.
//!
//! The protocol: finalizer → checks → take → verify → hold → release. [`decide`] looks at what is there (the
//! Mitigation, the target with its capture record, the incident) and names at most one effect; after the
//! effect it is asked again with what is there then. So a crash between any two effects changes nothing: the
//! next process sees the same facts and names the same next effect.

use super::conditions::{Conditions, clip, find, whole_seconds};
use crate::api::{
    ConditionStatus::{False, True, Unknown},
    DesiredState, EvidencePolicy, FINALIZER, MITIGATED_LABEL, Mitigation, MitigationPhase as Phase,
    MitigationPlan, MitigationStatus, OnExpire, OnRelease, PlannedChange, PriorValue, ReleaseOn,
};
use crate::mitigation::{
    self, Change, Effect as Seen, Engine, Refusal, field, on_release,
    ownership::{Writer, writer},
    patch,
    record::{HeldField, Record, overlaps},
};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;
use std::{collections::HashSet, time::Duration};

/// How long a change may take to show its effect, when the mitigation does not say.
pub const DEFAULT_VERIFICATION: Duration = Duration::from_secs(120);
/// How often a machine's change is taken back before the field counts as contested.
pub const MAX_REASSERTS: u8 = 3;
/// Wait before a machine's change is taken back, doubled each time.
const REASSERT_BACKOFF: Duration = Duration::from_secs(1);

/// What was seen.
pub struct Observed<'a> {
    /// The mitigation, with the status as far as it is worked out.
    pub mitigation: &'a Mitigation,
    /// The target.
    pub target: Target<'a>,
    /// The incident it belongs to.
    pub incident: Incident,
    /// What the API server said to the last effect, when it refused.
    pub refused: Option<&'a Refused>,
    /// The answer of the API server to a dry run of the take.
    pub dry_run_passed: bool,
    /// uids of the mitigations that may hold the target. A record of any other is a leftover: the deployment
    /// controller copies annotations to ReplicaSets, and `kubectl rollout undo` copies them back.
    pub holders: &'a HashSet<String>,
}

/// What is known of the target.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// It was not read yet.
    Unread,
    /// There is none.
    Missing,
    /// This is it.
    Found(&'a DynamicObject),
}

/// What is known of the incident.
#[derive(Clone, Debug, Default)]
pub struct Incident {
    /// Name, when the mitigation names one.
    pub name: Option<String>,
    /// The resolution is declared and the exit criteria are done, or the incident is cancelled.
    pub releases: Option<&'static str>,
    /// The incident has recorded how this mitigation ended, or will never.
    pub recorded_end: bool,
}

/// Why the API server refused an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The operator lacks the right; somebody can grant it.
    Forbidden(String),
    /// Admission or validation said no; trying again will not help.
    Denied(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The status as it should be once the effect is done.
    pub status: MitigationStatus,
    /// The one thing to do now.
    pub effect: Option<Effect>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// Look again as soon as the target appears.
    pub await_target: bool,
}

/// One write, or read, that the plan needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read the target.
    ReadTarget,
    /// Add our finalizer.
    AddFinalizer,
    /// Remove our finalizer.
    RemoveFinalizer,
    /// Write to the target.
    Write {
        /// What the write is for.
        what: Write,
        /// The JSON Patch.
        patch: Value,
    },
}

/// What a write to the target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Capture and change.
    Take,
    /// The same, only asked.
    DryRun,
    /// Take back a machine's change.
    Reassert,
    /// Put record and label back.
    Recapture,
    /// Restore the prior value.
    Restore,
    /// End the hold: remove the record and every other trace.
    LetGo,
    /// Remove what the API server noted of our writes.
    Disown,
}

/// Why a mitigation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Deleted,
    Asked,
    Expired,
    Incident(&'static str),
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            End::Deleted => "Deleted",
            End::Asked => "Asked",
            End::Expired => "Expired",
            End::Incident(reason) => reason,
        }
    }

    fn because(self) -> &'static str {
        match self {
            End::Deleted => "the mitigation was deleted",
            End::Asked => "its release was asked for",
            End::Expired => "its time was over",
            End::Incident("IncidentCancelled") => "the incident was cancelled",
            End::Incident(_) => "the incident is being resolved",
        }
    }
}

/// Decides the next step. See the module for the protocol.
pub fn decide(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut d = Decision::new(seen, now);
    d.decide();
    d.plan
}

struct Decision<'a> {
    seen: &'a Observed<'a>,
    m: &'a Mitigation,
    now: Timestamp,
    plan: Plan,
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
        let mut d =
            Decision { seen, m, now, plan: Plan { status, effect: None, wake: None, await_target: false } };
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
        let evidence = match self.m.spec.template.evidence {
            Some(EvidencePolicy::None) => ("NotRequested", "no evidence was asked for"),
            Some(EvidencePolicy::BestEffort | EvidencePolicy::Required) | None => {
                ("NotImplemented", "this version captures no evidence")
            }
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
        let message = "the requester's rights are not checked by this version";
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

    fn was_applied(&self) -> bool {
        self.plan.status.applied_time.is_some()
    }

    fn decide(&mut self) {
        if self.phase().is_ended() {
            return self.ended();
        }
        if self.deleted() && !self.has_finalizer() {
            // Somebody took the finalizer away: the object is going, and with it the right to act for it.
            return;
        }
        if let Some(end) = self.end() {
            // What was changed is undone from its record, whatever this version can do.
            return self.release(end);
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
        mitigation::target_kind(engine, &template.target_ref)?;
        if template.evidence == Some(EvidencePolicy::Required) {
            return missing("evidence: Required", "use None, and keep what you need before");
        }
        if template.service_account_name.is_some() {
            return missing("serviceAccountName", "leave it out");
        }
        if template.policy_ref.is_some() {
            return missing("policyRef", "leave it out");
        }
        Ok(engine)
    }

    /// Whether it is to end, and why.
    fn end(&self) -> Option<End> {
        let template = &self.m.spec.template;
        if self.deleted() {
            return Some(End::Deleted);
        }
        if template.desired_state == Some(DesiredState::Released) {
            return Some(End::Asked);
        }
        if template.on_expire == Some(OnExpire::Release) && self.expired() {
            return Some(End::Expired);
        }
        match self.seen.incident.releases {
            Some("IncidentCancelled") => Some(End::Incident("IncidentCancelled")),
            Some(reason) if template.release_on == Some(ReleaseOn::Resolve) => Some(End::Incident(reason)),
            _ => None,
        }
    }

    fn expired(&self) -> bool {
        self.plan.status.expiry_time.as_ref().is_some_and(|t| t.0 <= self.now)
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
        c.set("Stalled", False, "Ended", "nothing is in the way");
        c.set("Ready", True, reason, message);
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
        self.plan.status.phase = Some(Phase::Pending);
        let mut c = self.conditions();
        c.set("Applied", False, reason, message.clone());
        c.set("Effective", Unknown, "NotApplied", "nothing is changed yet");
        c.set("Stalled", False, "Progressing", "nothing is in the way");
        c.set("Ready", False, reason, message);
    }

    // ---- the target ----------------------------------------------------------------------------------------

    /// The target, when it can be worked with. `None`: the plan says what happens instead.
    fn target(&mut self) -> Option<&'a DynamicObject> {
        match self.seen.target {
            Target::Unread => {
                self.plan.effect = Some(Effect::ReadTarget);
                None
            }
            Target::Missing => None,
            Target::Found(target) => Some(target),
        }
    }

    /// True when the target is not the object that was changed.
    fn is_another(&self, target: &DynamicObject) -> bool {
        self.was_applied() && self.plan.status.target_uid != target.metadata.uid
    }

    fn abandon(&mut self) {
        let target = self.plan.status.target.clone().unwrap_or_default();
        self.finish(
            Phase::Abandoned,
            "TargetGone",
            format!("{target} is gone; an object made anew under its name is left alone"),
        );
    }

    fn uid(&self) -> &'a str {
        self.m.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The capture record on the target, or the one that can be told from status when it was removed.
    fn record(&self, target: &DynamicObject) -> Option<Record> {
        Record::find(target, self.uid())
    }

    fn record_from_status(&self, target: &DynamicObject) -> Option<Record> {
        let parse = |text: &String| serde_json::from_str::<Value>(text).ok();
        let fields = self
            .plan
            .status
            .prior
            .iter()
            .map(|p| {
                Some(HeldField {
                    path: p.path.clone(),
                    prior: match &p.value {
                        Some(text) => Some(parse(text)?),
                        None => None,
                    },
                    applied: parse(p.applied.as_ref()?)?,
                    owners: Vec::new(),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        // When it was changed and how often does not begin anew with the record.
        let at = self.plan.status.applied_time.as_ref().map_or(self.now, |time| time.0);
        let attempts = self.plan.status.attempts.unwrap_or(1);
        let reasserts = u8::try_from(attempts.saturating_sub(1)).unwrap_or(MAX_REASSERTS);
        (!fields.is_empty()).then(|| Record { at, reasserts, ..self.new_record(target, fields) })
    }

    fn new_record(&self, target: &DynamicObject, fields: Vec<HeldField>) -> Record {
        Record {
            v: 1,
            uid: self.uid().to_owned(),
            mitigation: self.m.metadata.name.clone().unwrap_or_default(),
            incident: self.seen.incident.name.clone(),
            action: self.m.spec.template.action.name().as_str().to_owned(),
            target: target.metadata.uid.clone().unwrap_or_default(),
            fields,
            at: whole_seconds(self.now).0,
            reasserts: 0,
            reasserted: None,
            restored: false,
        }
    }

    // ---- in force ------------------------------------------------------------------------------------------

    fn keep(&mut self, engine: &'a dyn Engine) {
        if self.dry_run_answered() {
            return;
        }
        if !self.has_finalizer() {
            self.plan.effect = Some(Effect::AddFinalizer);
            return;
        }
        let Some(target) = self.target() else {
            if matches!(self.seen.target, Target::Missing) {
                self.target_missing();
            }
            return;
        };
        if self.is_another(target) {
            return self.abandon();
        }
        match self.record(target) {
            // A release that was under way is finished, whatever was asked for it since.
            Some(record) if record.restored => self.undo(target, &record, End::Asked),
            Some(record) => self.hold(engine, target, record),
            None if self.phase() == Phase::Releasing && self.plan.status.undone_by.is_none() => {
                self.released(target, End::Asked, false);
            }
            None if self.was_applied() => self.capture_removed(target),
            None => self.take(engine, target),
        }
    }

    fn target_missing(&mut self) {
        if self.was_applied() {
            return self.abandon();
        }
        let target = self.plan.status.target.clone().unwrap_or_default();
        self.wait(
            "TargetNotFound",
            format!("there is no {target} in this namespace; the change is made as soon as it appears"),
        );
        self.plan.await_target = true;
    }

    fn take(&mut self, engine: &'a dyn Engine, target: &DynamicObject) {
        if target.metadata.deletion_timestamp.is_some() {
            let name = self.plan.status.target.clone().unwrap_or_default();
            self.wait(
                "TargetTerminating",
                format!("{name} is being deleted; the change waits for a new one"),
            );
            self.plan.await_target = true;
            return;
        }
        let changes = match engine.changes(target) {
            Ok(changes) => changes,
            Err(refusal) => return self.refuse(&refusal),
        };
        if let Some(holder) = busy(target, &changes, self.seen.holders) {
            let message = format!(
                "{} is held by mitigation {}{}; this one acts when that one is released",
                changes.iter().map(|c| c.path.as_str()).collect::<Vec<_>>().join(", "),
                holder.mitigation,
                holder.incident.map(|i| format!(" of incident {i}")).unwrap_or_default(),
            );
            return self.wait("FieldBusy", message);
        }
        match self.seen.refused {
            Some(Refused::Denied(words)) => {
                return self
                    .refuse(&Refusal::new("Denied", format!("the API server refused the change: {words}")));
            }
            Some(Refused::Forbidden(words)) => return self.forbidden(words),
            None => {}
        }
        if self.m.spec.template.dry_run == Some(true) {
            return self.dry_run(engine, target, &changes);
        }
        let fields = changes.into_iter().map(|change| HeldField::capture(target, change)).collect();
        let record = self.new_record(target, fields);
        self.plan.status.phase = Some(Phase::Applying);
        self.plan.effect =
            Some(Effect::Write { what: Write::Take, patch: patch::take(target, &record, self.seen.holders) });
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
        self.plan.wake = self.now.checked_add(Duration::from_secs(15)).ok();
    }

    /// One answer for each generation of the spec is enough.
    fn dry_run_answered(&self) -> bool {
        let before = self.m.status.as_ref();
        self.m.spec.template.dry_run == Some(true)
            && before.is_some_and(|s| s.plan.is_some() && s.observed_generation == self.m.metadata.generation)
    }

    fn dry_run(&mut self, engine: &'a dyn Engine, target: &DynamicObject, changes: &[Change]) {
        if !self.seen.dry_run_passed {
            let fields = changes.iter().cloned().map(|change| HeldField::capture(target, change)).collect();
            let record = self.new_record(target, fields);
            self.plan.effect = Some(Effect::Write {
                what: Write::DryRun,
                patch: patch::take(target, &record, self.seen.holders),
            });
            return;
        }
        let template = &self.m.spec.template;
        let summary = engine.summary(&template.target_ref, changes);
        self.plan.status.plan = Some(MitigationPlan {
            summary: clip(&format!("would {summary}"), 1024),
            changes: changes
                .iter()
                .map(|c| PlannedChange {
                    path: c.path.clone(),
                    from: clip(&c.from.as_ref().map_or("absent".to_owned(), Value::to_string), 4096),
                    to: clip(&c.to.to_string(), 4096),
                    written_by: writer(target, &c.path).map(|w| clip(&w.manager, 256)),
                })
                .collect(),
            release: Some(match on_release(template) {
                OnRelease::Restore => "puts the value back, unless somebody changed it meanwhile".to_owned(),
                OnRelease::Keep => "leaves the value".to_owned(),
            }),
            warnings: engine.warnings(target).iter().map(|w| clip(w, 1024)).collect(),
        });
        let message = format!("dry run: would {summary}; the API server accepts it");
        self.wait("DryRun", clip(&message, 1024));
        self.conditions().set("Ready", True, "DryRun", "the plan is in status.plan; nothing was changed");
    }

    fn hold(&mut self, engine: &'a dyn Engine, target: &'a DynamicObject, record: Record) {
        self.note_applied(target, &record);
        let drifted: Vec<&HeldField> =
            record.fields.iter().filter(|f| field(target, &f.path) != Some(&f.applied)).collect();
        if let Some(first) = drifted.first() {
            let by = writer(target, &first.path);
            return self.drifted(target, &record, by);
        }
        self.conditions().set("Contested", False, "Held", "the field has the mitigation's value");
        let labelled = target
            .metadata
            .labels
            .as_ref()
            .is_some_and(|l| l.get(MITIGATED_LABEL).is_some_and(|v| v == "true"));
        if !labelled {
            let patch = patch::recapture(target, &record);
            self.plan.effect = Some(Effect::Write { what: Write::Recapture, patch });
            return;
        }
        self.verify(engine, target, &record);
        self.expire();
    }

    fn note_applied(&mut self, target: &DynamicObject, record: &Record) {
        let applied = whole_seconds(record.at);
        let expires = self.m.spec.template.expires_after.as_ref().and_then(|d| d.get());
        let status = &mut self.plan.status;
        status.phase = Some(Phase::Active);
        status.target_uid.clone_from(&target.metadata.uid);
        status.expiry_time = expires.and_then(|d| record.at.checked_add(d).ok()).map(whole_seconds);
        status.applied_time = Some(applied);
        status.attempts = Some(1 + i32::from(record.reasserts));
        status.prior = record
            .fields
            .iter()
            .map(|f| PriorValue {
                path: f.path.clone(),
                value: f.prior.as_ref().map(Value::to_string),
                applied: Some(f.applied.to_string()),
            })
            .collect();
        let unchanged = record.fields.iter().all(|f| f.prior.as_ref() == Some(&f.applied));
        let changed = record.fields.iter().map(describe_change).collect::<Vec<_>>().join("; ");
        let mut c = self.conditions();
        match unchanged {
            true => c.set("Applied", True, "AlreadyAtValue", format!("{changed} (it had this value before)")),
            false => c.set("Applied", True, "Changed", changed),
        }
        c.set("Stalled", False, "Progressing", "nothing is in the way");
        if find(&self.plan.status.conditions, "Authorized").is_some_and(|c| c.reason == "OperatorForbidden") {
            self.authorization_unknown();
        }
    }

    fn verify(&mut self, engine: &'a dyn Engine, target: &DynamicObject, record: &Record) {
        match engine.effect(target) {
            Seen::Seen(message) => {
                self.plan.status.effective_time.get_or_insert(whole_seconds(self.now));
                let mut c = self.conditions();
                c.set("Effective", True, "Verified", message.clone());
                c.set("Ready", True, "Effective", message);
            }
            Seen::Awaited { what, seen } => {
                let timeout = self.m.spec.template.verification.as_ref().and_then(|v| v.timeout.as_ref());
                let timeout = timeout.and_then(|t| t.get()).unwrap_or(DEFAULT_VERIFICATION);
                let deadline = record.at.checked_add(timeout).unwrap_or(Timestamp::MAX);
                if self.now < deadline {
                    self.wake_at(deadline);
                    let mut c = self.conditions();
                    c.set("Effective", Unknown, "Verifying", what.clone());
                    c.set("Ready", False, "Verifying", what);
                } else {
                    let message = format!("no effect within {} s: {seen}", timeout.as_secs());
                    let mut c = self.conditions();
                    c.set("Effective", False, "NotEffective", message.clone());
                    c.set("Ready", False, "NotEffective", message);
                }
            }
        }
    }

    fn expire(&mut self) {
        let Some(expiry) = self.plan.status.expiry_time.clone() else { return };
        if self.expired() {
            self.plan.status.expired_time.get_or_insert(whole_seconds(self.now));
        } else {
            // It may have been given more time after it was told.
            self.plan.status.expired_time = None;
            self.wake_at(expiry.0);
        }
    }

    fn wake_at(&mut self, time: Timestamp) {
        self.plan.wake = Some(self.plan.wake.map_or(time, |w| w.min(time)));
    }

    /// Somebody changed a field that we hold.
    fn drifted(&mut self, target: &DynamicObject, record: &Record, by: Option<Writer>) {
        let machine = by.as_ref().is_some_and(|w| w.kind.is_machine());
        let name = by.map_or("somebody unknown".to_owned(), |w| w.manager);
        if !machine {
            self.plan.status.undone_by = Some(clip(&name, 256));
            self.plan.status.phase = Some(Phase::Releasing);
            self.plan.effect = Some(Effect::Write {
                what: Write::LetGo,
                patch: patch::let_go(target, record, self.seen.holders, false),
            });
            return;
        }
        let values = record
            .fields
            .iter()
            .map(|f| {
                let has = field(target, &f.path).map_or("absent".to_owned(), Value::to_string);
                format!("{} is {} instead of {}", f.path, clip(&has, 128), clip(&f.applied.to_string(), 128))
            })
            .collect::<Vec<_>>()
            .join("; ");
        if record.reasserts >= MAX_REASSERTS {
            let message = format!(
                "{name} keeps changing the field ({values}); {MAX_REASSERTS} times it was taken back: change it \
                 at its source, or pause {name} for this object"
            );
            let mut c = self.conditions();
            c.set("Contested", True, "ContestedBy", message.clone());
            c.set("Effective", False, "Contested", message.clone());
            c.set("Ready", False, "Contested", message);
            return self.expire();
        }
        let message = format!("{name} changed the field: {values}");
        {
            let mut c = self.conditions();
            c.set("Contested", True, "TakingBack", message.clone());
            c.set("Effective", False, "Contested", message.clone());
            c.set("Ready", False, "Contested", message);
        }
        let due = record
            .reasserted
            .and_then(|last| last.checked_add(REASSERT_BACKOFF * (1 << record.reasserts)).ok())
            .unwrap_or(self.now);
        if due > self.now {
            return self.wake_at(due);
        }
        let again = Record {
            reasserts: record.reasserts + 1,
            reasserted: Some(whole_seconds(self.now).0),
            ..record.clone()
        };
        let patch = patch::reassert(target, &again);
        self.plan.effect = Some(Effect::Write { what: Write::Reassert, patch });
    }

    /// The record is gone from a target that we changed.
    fn capture_removed(&mut self, target: &DynamicObject) {
        let Some(record) = self.record_from_status(target) else {
            return self.finish(
                Phase::Superseded,
                "CaptureRemoved",
                "the annotation with the prior value was removed from the target; its value stands"
                    .to_owned(),
            );
        };
        if record.fields.iter().all(|f| field(target, &f.path) == Some(&f.applied)) {
            let patch = patch::recapture(target, &record);
            self.plan.effect = Some(Effect::Write { what: Write::Recapture, patch });
            return;
        }
        let by = record.fields.first().and_then(|f| writer(target, &f.path));
        let name = self.plan.status.undone_by.clone().or(by.map(|w| clip(&w.manager, 256)));
        self.superseded(target, name);
    }

    fn superseded(&mut self, target: &DynamicObject, by: Option<String>) {
        if self.disown(target) {
            return;
        }
        let who = by.clone().unwrap_or_else(|| "somebody".to_owned());
        self.plan.status.undone_by = by;
        self.finish(
            Phase::Superseded,
            "ChangedBySomebodyElse",
            format!("{who} changed the field; that value stands"),
        );
    }

    // ---- release -------------------------------------------------------------------------------------------

    fn release(&mut self, end: End) {
        let Some(target) = self.target() else {
            if matches!(self.seen.target, Target::Missing) {
                if self.was_applied() {
                    self.abandon();
                } else {
                    self.nothing_to_undo(end);
                }
            }
            return;
        };
        if self.is_another(target) {
            return self.abandon();
        }
        let Some(record) = self.record(target) else {
            return self.released(target, end, self.keeps());
        };
        self.undo(target, &record, end);
    }

    /// Whether a release leaves the value.
    fn keeps(&self) -> bool {
        on_release(&self.m.spec.template) == OnRelease::Keep
    }

    /// Undoes the change in two writes: the prior values first, then the end of the hold.
    fn undo(&mut self, target: &DynamicObject, record: &Record, end: End) {
        self.note_applied(target, record);
        self.plan.status.phase = Some(Phase::Releasing);
        self.conditions().set(
            "Ready",
            False,
            "Releasing",
            format!("the change is being undone: {}", end.because()),
        );
        if let Some(refused) = self.seen.refused {
            return self.release_refused(refused);
        }
        let intact = record.fields.iter().all(|f| field(target, &f.path) == Some(&f.applied));
        let keep = self.keeps();
        if !record.restored && !keep && !intact {
            let by = record.fields.first().and_then(|f| writer(target, &f.path));
            self.plan.status.undone_by =
                Some(by.map_or("somebody unknown".to_owned(), |w| clip(&w.manager, 256)));
        }
        let undone = record.restored || record.fields.iter().all(HeldField::is_unchanged);
        self.plan.effect = Some(if undone || keep || !intact {
            let patch = patch::let_go(target, record, self.seen.holders, undone);
            Effect::Write { what: Write::LetGo, patch }
        } else {
            Effect::Write { what: Write::Restore, patch: patch::restore(target, record) }
        });
    }

    fn release_refused(&mut self, refused: &Refused) {
        let words = match refused {
            Refused::Forbidden(words) | Refused::Denied(words) => words,
        };
        let message = format!("the change cannot be undone, the API server refuses it: {words}");
        self.plan.wake = self.now.checked_add(Duration::from_secs(15)).ok();
        let mut c = self.conditions();
        c.set("Stalled", True, "ReleaseRefused", message.clone());
        c.set("Ready", False, "ReleaseRefused", message);
    }

    fn nothing_to_undo(&mut self, end: End) {
        self.finish(
            Phase::Released,
            end.reason(),
            format!("nothing had been changed when {}", end.because()),
        );
    }

    /// There is no record on the target: it was never changed, or the release is done but not recorded yet.
    fn released(&mut self, target: &'a DynamicObject, end: End, keep: bool) {
        if self.was_applied()
            && self.phase() != Phase::Releasing
            && !keep
            && let Some(record) = self.record_from_status(target)
            && record.fields.iter().all(|f| field(target, &f.path) == Some(&f.applied) && !f.is_unchanged())
        {
            // Our value is still there, so it was not our release that removed the record.
            self.plan.status.phase = Some(Phase::Releasing);
            let patch = patch::restore(target, &record);
            self.plan.effect = Some(Effect::Write { what: Write::Restore, patch });
            return;
        }
        if self.plan.status.undone_by.is_some() {
            return self.superseded(target, self.plan.status.undone_by.clone());
        }
        if self.disown(target) {
            return;
        }
        if !self.was_applied() {
            return self.nothing_to_undo(end);
        }
        let because = end.because();
        if keep {
            return self.finish(Phase::Kept, end.reason(), format!("the value stays, as asked; {because}"));
        }
        let restored = self
            .record_from_status(target)
            .is_none_or(|record| record.fields.iter().all(|f| field(target, &f.path) == f.prior.as_ref()));
        if restored {
            self.finish(Phase::Released, end.reason(), format!("the prior value is back; {because}"));
        } else {
            self.finish(
                Phase::Superseded,
                "ChangedBySomebodyElse",
                "somebody changed the field; that value stands".to_owned(),
            );
        }
    }

    /// Plans the removal of our entry in managedFields, when it is there and no other mitigation of this action
    /// needs it. True when it is planned.
    fn disown(&mut self, target: &DynamicObject) -> bool {
        let action = self.m.spec.template.action.name();
        let holds = |r: &Record| r.uid != self.uid() && self.seen.holders.contains(&r.uid);
        if Record::all(target).any(|r| r.action == action.as_str() && holds(&r)) {
            return false;
        }
        let Some(patch) = patch::disown(target, &action.field_manager()) else { return false };
        self.plan.effect = Some(Effect::Write { what: Write::Disown, patch });
        true
    }
}

/// The record of another mitigation that holds one of the fields.
fn busy(target: &DynamicObject, changes: &[Change], holders: &HashSet<String>) -> Option<Record> {
    Record::all(target).filter(|record| holders.contains(&record.uid)).find(|record| {
        record.fields.iter().any(|held| changes.iter().any(|change| overlaps(&held.path, &change.path)))
    })
}

fn describe_change(held: &HeldField) -> String {
    let prior = held.prior.as_ref().map_or("absent".to_owned(), Value::to_string);
    format!("{} from {} to {}", held.path, clip(&prior, 256), clip(&held.applied.to_string(), 256))
}

#[cfg(test)]
mod tests;
