//! Evidence before destruction: `Required` is complete before the change, `BestEffort` delays it by half a second at
//! most and goes on beside it.

use super::{Decision, Effect, Evidence, Refusal};
use crate::api::{
    ConditionStatus::{False, True, Unknown},
    EvidencePolicy,
};
use std::time::Duration;

/// Longest delay of a change for evidence that is not required.
const BEST_EFFORT_DELAY: Duration = Duration::from_millis(500);
/// Longest wait for evidence that is required.
const REQUIRED_DEADLINE: Duration = Duration::from_secs(30);

impl Decision<'_> {
    /// What is asked for.
    pub(super) fn evidence_policy(&self) -> EvidencePolicy {
        super::evidence_policy(&self.m.spec.template)
    }

    /// True when the change may be made now; otherwise the plan says what comes first.
    pub(super) fn evidence_allows(&mut self) -> bool {
        let policy = self.evidence_policy();
        if policy == EvidencePolicy::None || self.plan.status.evidence.is_some() {
            return true;
        }
        let Some(progress) = self.seen.evidence.clone() else {
            self.gather_evidence();
            return false;
        };
        self.note_evidence();
        match (progress, policy) {
            (Evidence::Running(since), EvidencePolicy::Required) => {
                let deadline = since.checked_add(REQUIRED_DEADLINE).unwrap_or(since);
                if deadline <= self.now {
                    self.no_evidence("it took longer than 30 s");
                } else {
                    self.wait("CapturingEvidence", "evidence is kept before the change is made".to_owned());
                    self.plan.wake = Some(deadline);
                }
                false
            }
            (Evidence::Running(since), _) => {
                let until = since.checked_add(BEST_EFFORT_DELAY).unwrap_or(since);
                if until > self.now {
                    self.plan.effect = Some(Effect::AwaitEvidence(until));
                    return false;
                }
                true
            }
            (Evidence::Failed(words), EvidencePolicy::Required) => {
                self.no_evidence(&words);
                false
            }
            (Evidence::Failed(_) | Evidence::Kept(_), _) => true,
        }
    }

    fn no_evidence(&mut self, words: &str) {
        let message = format!(
            "evidence is required and could not be kept: {words}; nothing was changed: make a new mitigation with \
             evidence BestEffort, or mend that"
        );
        self.refuse(&Refusal::new("EvidenceFailed", message));
    }

    /// What became of the evidence, in status. After a change that a process before this one made, it is gathered
    /// from what is still there.
    pub(super) fn note_evidence(&mut self) {
        if self.evidence_policy() == EvidencePolicy::None || self.plan.status.evidence.is_some() {
            return;
        }
        match self.seen.evidence.clone() {
            None => self.gather_evidence(),
            Some(Evidence::Running(_)) => {
                let message = "manifests, Events and logs are being kept";
                self.conditions().set("EvidenceCaptured", Unknown, "Capturing", message);
            }
            Some(Evidence::Failed(words)) => {
                let message = format!("nothing could be kept: {words}");
                self.conditions().set("EvidenceCaptured", False, "Failed", message);
            }
            Some(Evidence::Kept(kept)) => {
                let what = format!("{} items are in ConfigMap {}", kept.items, kept.config_map);
                let (reason, message) = match kept.missing.as_slice() {
                    [] => ("Captured", what),
                    missing => ("CapturedInPart", format!("{what}; missing: {}", missing.join(", "))),
                };
                self.conditions().set("EvidenceCaptured", True, reason, super::clip(&message, 4096));
                self.plan.status.evidence = Some(kept);
            }
        }
    }
}
