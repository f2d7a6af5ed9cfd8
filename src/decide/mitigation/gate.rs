//! What must be so before a change: the policies allow it, who asked may do it now, and no limit is reached. And before a
//! release that somebody asked for: that they may.

use super::{
    Decision, Effect, End, Engine, Holding, Phase, Refusal, ReleaseOn, Reservation, clip, whole_seconds,
};
use crate::{
    api::{
        ConditionStatus::{False, True, Unknown},
        DesiredState, EvidencePolicy, MitigationTemplate,
    },
    decide::{
        access::{self, Need, Subject, Verdict},
        conditions::find,
        incident::CANCELLED,
        policy::{self, Asked, InForce, limits::Limits},
    },
    mitigation::{self, Part},
};
use kube::core::DynamicObject;
use std::time::Duration;

/// After this long it is asked again whether who asked for a release may do it by now.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// After this long it is looked again whether the policies can be told, if nothing is heard of them before.
const POLICIES_AGAIN: Duration = Duration::from_secs(15);
/// Why `Authorized` is not True where it could not be asked.
const NOT_SIGNED: &str = "rights were checked when it was asked for, and are not checked again: this API server \
                          does not sign requests";

/// What evidence a mitigation keeps. By default it is kept where something goes that cannot be looked at afterwards.
pub fn evidence_policy(template: &MitigationTemplate) -> EvidencePolicy {
    let destroys = mitigation::engine(&template.action).is_some_and(Engine::destroys);
    let default = if destroys { EvidencePolicy::BestEffort } else { EvidencePolicy::None };
    template.evidence.unwrap_or(default)
}

impl<'a> Decision<'a> {
    /// Whether all policies allow it. Without a target, as far as that can be told.
    pub(super) fn policies_allow(&mut self, target: Option<&DynamicObject>) -> bool {
        let in_force = self.seen.policies;
        if let InForce::Unknown(why) = in_force {
            self.wait("PolicyUnknown", why.clone());
            self.plan.wake = self.now.checked_add(POLICIES_AGAIN).ok();
            return false;
        }
        let none = std::collections::BTreeMap::new();
        let labels = target.map(|target| target.metadata.labels.as_ref().unwrap_or(&none));
        let template = &self.m.spec.template;
        let asked = Asked { template, labels, evidence: evidence_policy(template) };
        match policy::refusal(in_force, &asked) {
            None => true,
            Some(refusal) => {
                self.refuse(&refusal);
                false
            }
        }
    }

    /// Why it may not be made, when it would touch something that a policy protects. What it has changed already was
    /// judged before.
    pub(super) fn touches_protected(&self, parts: &[Part], holdings: &[Holding<'a>]) -> Option<Refusal> {
        let held = |part: &Part| holdings.iter().any(|h| h.record.is_some() && h.id == part.id);
        parts.iter().filter(|part| !held(part)).find_map(|part| {
            let kind = part.id.kind.kind;
            let refusal = policy::protection(self.seen.policies, kind, &part.id.name)?;
            let message =
                format!("{}, and this would change {}; nothing was changed", refusal.message, part.id);
            Some(Refusal::new(refusal.reason, message))
        })
    }

    /// Whether who asked may do it now, on everything that is touched.
    pub(super) fn requester_may(&mut self, parts: &[Part]) -> bool {
        let mut needs = access::needs(self.m);
        let others = parts.iter().filter(|part| Some(&part.id) != self.id.as_ref());
        access::extend(
            &mut needs,
            others.map(|part| Need::on(&part.id, matches!(part.asked, mitigation::Asked::Create(_)))),
        );
        // That the operator may not make the change stays told until it could.
        let forbidden = self.was_forbidden();
        if !self.seen.signed {
            if !forbidden {
                self.conditions().set("Authorized", Unknown, "NotSigned", NOT_SIGNED);
            }
            return true;
        }
        match access::judge(self.m, &needs, self.seen.answers, "make", true) {
            Verdict::Allowed(said) => {
                if !forbidden {
                    self.conditions().set("Authorized", True, "Allowed", clip(&said, 1024));
                }
                true
            }
            Verdict::Ask(questions) => {
                self.plan.effect = Some(Effect::Ask(questions));
                false
            }
            Verdict::Denied(refusal) => {
                let message = format!("{}; nothing was changed", refusal.message);
                self.conditions().set("Authorized", False, refusal.reason, message.clone());
                self.refuse(&Refusal::new(refusal.reason, message));
                false
            }
        }
    }

    /// What is changed was allowed: nothing is changed before that is known. Says by whose right, also when the operator
    /// was interrupted between the change and the status that tells of it. False: that is asked first.
    pub(super) fn note_allowed(&mut self, holdings: &[Holding<'a>]) -> bool {
        let told = find(&self.plan.status.conditions, "Authorized");
        let untold = told.is_some_and(|told| told.reason == "NotChecked");
        let forbidden = self.was_forbidden();
        if !self.seen.signed && forbidden {
            self.conditions().set("Authorized", Unknown, "NotSigned", NOT_SIGNED);
        }
        if !self.seen.signed || !untold && !forbidden {
            return true;
        }
        let mut needs = access::needs(self.m);
        let others = holdings.iter().filter(|h| Some(&h.id) != self.id.as_ref());
        access::extend(&mut needs, others.filter_map(|h| Some(Need::on(&h.id, h.record.as_ref()?.made))));
        let said = match access::judge(self.m, &needs, self.seen.answers, "make", true) {
            Verdict::Allowed(said) => clip(&said, 1024),
            Verdict::Ask(questions) if self.seen.refused.is_none() => {
                self.plan.effect = Some(Effect::Ask(questions));
                return false;
            }
            // By now it may not be, or nobody answers: what was decided before the change stands.
            Verdict::Ask(_) | Verdict::Denied(_) => "it was allowed right before the change".to_owned(),
        };
        self.conditions().set("Authorized", True, "Allowed", said);
        true
    }

    /// Whether who asked for the release may do it now, also by cancelling the incident. What ends by itself, as whoever
    /// asked for the mitigation had it, asks for nobody's right; a deletion was judged by admission.
    pub(super) fn releaser_may(&mut self, holdings: &[Holding<'a>], end: &End) -> bool {
        let template = &self.m.spec.template;
        // A mitigation may come to an incident that is cancelled later, by somebody whom admission could not ask.
        let cancelled =
            *end == End::Incident(CANCELLED) && template.release_on.unwrap_or_default() != ReleaseOn::Resolve;
        let asked = cancelled || template.desired_state == Some(DesiredState::Released);
        let begun = self.m.status.as_ref().and_then(|s| s.phase) == Some(Phase::Releasing);
        let holds = holdings.iter().any(|h| h.record.is_some());
        if !asked || self.deleted() || begun || !holds || !self.seen.signed {
            return true;
        }
        if let Some(refused) = self.seen.refused {
            let words = refused.words.clone();
            self.cannot_release(&format!("the API server refuses to say who may: {words}"));
            return false;
        }
        let mut needs = crate::authority::wanted(&self.m.spec.template, false);
        let others = holdings.iter().filter(|h| Some(&h.id) != self.id.as_ref());
        access::extend(&mut needs, others.filter_map(|h| Some(Need::on(&h.id, h.record.as_ref()?.made))));
        let target = self.id.as_ref().and_then(|id| self.seen.objects.get(id)).and_then(Option::as_ref);
        let none = std::collections::BTreeMap::new();
        let labels = target.map(|target| target.metadata.labels.as_ref().unwrap_or(&none));
        let by_policy = policy::covers_release(self.seen.policies, &self.m.spec.template, labels);
        let subject = match cancelled {
            true => self.seen.incident.canceller.clone(),
            false => Subject::stamped(self.m.metadata.annotations.as_ref()),
        };
        let answers = self.seen.answers;
        match access::judge_of(subject, self.m, &needs, answers, "release", by_policy) {
            Verdict::Allowed(_) => true,
            Verdict::Ask(questions) => {
                self.plan.effect = Some(Effect::Ask(questions));
                false
            }
            Verdict::Denied(refusal) => {
                let cancelled = if cancelled { "the incident was cancelled, but " } else { "" };
                let message = format!(
                    "{cancelled}{}; it stays in force: whoever holds that right can delete the mitigation, which \
                     releases it",
                    refusal.message
                );
                let unknown = matches!(self.seen.policies, policy::InForce::Unknown(_));
                self.plan.wake = self.now.checked_add(if unknown { POLICIES_AGAIN } else { ASK_AGAIN }).ok();
                let mut c = self.conditions();
                c.set("Stalled", True, refusal.reason, message.clone());
                c.set("Ready", False, refusal.reason, message);
                false
            }
        }
    }

    /// Whether the last attempt ended by the operator lacking a right.
    pub(super) fn was_forbidden(&self) -> bool {
        find(&self.plan.status.conditions, "Authorized").is_some_and(|c| c.reason == "OperatorForbidden")
    }

    /// Whether no limit is reached. What is to be made is on record before it is made, so that whoever counts next,
    /// in this process or in another, counts it.
    pub(super) fn within_limits(&mut self, parts: &[Part]) -> bool {
        let limits = Limits::of(self.seen.policies.policies());
        if limits.is_none() {
            return true;
        }
        match self.seen.reservation {
            None => {
                self.plan.effect = Some(Effect::Reserve(limits));
                false
            }
            Some(Reservation::Wait(wait)) => {
                self.wait(wait.reason, wait.message.clone());
                if let Some(until) = wait.until {
                    self.wake_at(until);
                }
                false
            }
            Some(Reservation::Granted) => {
                let on_record = self.m.status.as_ref().and_then(|s| s.phase) == Some(Phase::Applying);
                // What was forbidden before is tried first: to announce it each time would tell of nothing.
                if !on_record
                    && self.was_forbidden()
                    && let Some(Ok(effect)) = self.untried(parts)
                {
                    self.plan.effect = Some(effect);
                    return false;
                }
                self.plan.status.phase = Some(Phase::Applying);
                if !on_record {
                    self.plan.effect = Some(Effect::Announce);
                }
                on_record
            }
        }
    }

    /// The latest end that the policies allow, from when the change is made on.
    pub(super) fn note_latest_end(&mut self) {
        let longest = policy::longest(self.seen.policies.policies());
        if self.was_applied() || self.plan.status.latest_end_time.is_some() {
            return;
        }
        let latest = longest.and_then(|longest| self.now.checked_add(longest).ok());
        self.plan.status.latest_end_time = latest.map(whole_seconds);
    }

    /// Evidence is gathered, without logs for somebody who may not read them.
    pub(super) fn gather_evidence(&mut self) {
        let may_read = match self.seen.signed {
            true => access::may_read_logs(self.m, self.seen.answers),
            false => Ok(true),
        };
        self.plan.effect = Some(match may_read {
            Ok(logs) => Effect::GatherEvidence { logs },
            Err(questions) => Effect::Ask(questions),
        });
    }
}
