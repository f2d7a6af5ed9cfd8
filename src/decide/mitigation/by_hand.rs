//! A step that a person does: nothing is written to the cluster, the rest is as for the others.

use super::{Decision, End, OnRelease, Phase, on_release, whole_seconds};
use crate::api::ConditionStatus::{False, True, Unknown};
use crate::decide::conditions::find;
use crate::{
    api::{Action, EvidencePolicy, ManualState},
    mitigation::{Engine, UNDOES_NOTHING},
};

impl Decision<'_> {
    /// True for an action that a person does.
    pub(super) fn is_by_hand(&self) -> bool {
        matches!(self.m.spec.template.action, Action::Manual(_))
    }

    /// In force from when it was asked for; effective once somebody says so.
    pub(super) fn by_hand(&mut self) {
        let Action::Manual(step) = &self.m.spec.template.action else { return };
        if !self.was_applied() {
            if !self.policies_allow(None) {
                return;
            }
            let template = &self.m.spec.template;
            if template.dry_run == Some(true) {
                let (summary, note) = (step.summary(&template.target_ref, &[]), UNDOES_NOTHING.to_owned());
                return self.tell_plan(&summary, false, Vec::new(), &step.release(), &[note]);
            }
            if !self.approved(None) {
                return;
            }
        }
        self.note_latest_end();
        let asks = self.asks().map(str::to_owned);
        self.note_asked_by(asks.as_deref());
        let asked = self.m.metadata.creation_timestamp.as_ref().map_or(self.now, |t| t.0);
        let status = &mut self.plan.status;
        status.phase = Some(Phase::Active);
        status.applied_time.get_or_insert(whole_seconds(asked));
        self.expires_from(asked);
        let who = step.assignee.as_deref().unwrap_or("somebody");
        let keeps_evidence = self.evidence_policy() != EvidencePolicy::None;
        let mut c = self.conditions();
        c.set(
            "Authorized",
            True,
            "NotRequired",
            "the operator changes nothing, so nobody's right is asked for",
        );
        if keeps_evidence {
            let words = "of what a person does the operator keeps no evidence: keep it by hand, and note it in the timeline";
            c.set("EvidenceCaptured", False, "ByHand", words);
        }
        c.set("Applied", True, "Asked", format!("{who} was asked: {}", super::clip(&step.instructions, 512)));
        match &step.result {
            None => {
                let message = format!(
                    "{who} has not said yet what came of it: set spec.manual.result (of a step of an incident: manual.result of its entry in spec.mitigations there) to Done or Failed with a note"
                );
                c.set("Effective", Unknown, "WaitingForPerson", message.clone());
                c.set("Stalled", False, "Progressing", "nothing is in the way");
                c.set("Ready", False, "WaitingForPerson", message);
            }
            Some(result) => {
                let note =
                    result.note.as_deref().map(|n| format!(": {}", super::clip(n, 512))).unwrap_or_default();
                match result.state {
                    ManualState::Done => {
                        let message = self.said("Done", "it is", "done", "it is said to be", &note);
                        let mut c = self.conditions();
                        c.set("Effective", True, "Done", message.clone());
                        c.set("Stalled", False, "Progressing", "nothing is in the way");
                        c.set("Ready", True, "Done", message);
                    }
                    // Nothing of it will be in place until somebody does it after all, or asks for something else.
                    ManualState::Failed => {
                        let message = self.said("Failed", "it", "failed", "it is said to have", &note);
                        let mut c = self.conditions();
                        c.set("Effective", False, "Failed", message.clone());
                        c.set("Stalled", True, "Failed", message.clone());
                        c.set("Ready", False, "Failed", message);
                    }
                }
                if result.state == ManualState::Done {
                    let now = whole_seconds(self.now);
                    self.plan.status.effective_time.get_or_insert(now);
                }
            }
        }
        self.expire();
    }

    /// Who says what came of it: whoever stated the result, as admission stamped it, and not who was asked to do it. As
    /// long as the result is the same it stays in the words that were found first, whoever edits something else.
    fn said(&self, reason: &str, it: &str, what: &str, nobody: &str, note: &str) -> String {
        let end = format!(" {what}{note}");
        let known = find(&self.plan.status.conditions, "Effective");
        if let Some(known) = known.filter(|c| c.reason == reason && c.message.ends_with(&end)) {
            return known.message.clone();
        }
        match self.asks() {
            Some(who) => format!("{} says that {it}{end}", super::clip(who, 253)),
            None => format!("{nobody}{end}"),
        }
    }

    /// What a person did, the operator cannot undo.
    pub(super) fn release_by_hand(&mut self, end: &End) {
        let because = end.because();
        let failed = match &self.m.spec.template.action {
            Action::Manual(step) => step.result.as_ref().filter(|r| r.state == ManualState::Failed),
            _ => None,
        };
        if let Some(result) = failed {
            let note =
                result.note.as_deref().map(|n| format!(": {}", super::clip(n, 512))).unwrap_or_default();
            let message = format!("the step failed{note}; undo by hand what was begun; {because}");
            return self.finish(Phase::Failed, "Failed", message);
        }
        if on_release(&self.m.spec.template) == OnRelease::Keep {
            return self.finish(
                Phase::Kept,
                end.reason(),
                format!("what was done stays, as asked; {because}"),
            );
        }
        let message = format!("the step is over, undo by hand what has to be undone; {because}");
        self.finish(Phase::Released, end.reason(), message);
    }
}
