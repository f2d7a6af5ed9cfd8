//! Where the mitigations of an incident stand, boiled down to what its lifecycle asks.

use super::Decision;
use super::mitigations::CANCELLED;
use crate::api::{
    ConditionStatus, DesiredState, Mitigation, MitigationPhase as Phase, MitigationSummary,
    MitigationTemplate, ReleaseOn,
};
use crate::decide::conditions::find;
use k8s_openapi::jiff::Timestamp;

/// The mitigations of an incident, summed up.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// How many were asked for.
    pub wanted: usize,
    /// In force and effective, or ended after having worked.
    pub working: usize,
    /// What the others lack, in words.
    pub lacking: Vec<String>,
    /// Entries whose mitigation somebody else ended, or its target did.
    pub overtaken: Vec<String>,
    /// The same of Mitigations that stand alone.
    pub overtaken_alone: Vec<String>,
    /// In force, or on the way to or from it: name of the object, if it is made, and of the entry.
    pub active: Vec<(String, Option<String>)>,
    /// What is not as requested yet, in words; `Ready` waits for it.
    pub unsettled: Vec<String>,
    /// What will not be as requested, in words, and somebody can help.
    pub failed: Vec<String>,
    /// What ended otherwise than requested, in words.
    pub ended: Vec<String>,
    /// When the last of the working ones took effect.
    pub latest_effect: Option<Timestamp>,
}

impl Standing {
    /// What helps where a mitigation has ended otherwise than asked, which nothing will change any more: to be added
    /// to what is lacking.
    pub(super) fn way_on(&self) -> String {
        let mut ways = Vec::new();
        if !self.overtaken.is_empty() {
            ways.push(format!(
                "take {} out of spec.mitigations (what has worked counts), or ask for it there again under another name",
                self.overtaken.join(", ")
            ));
        }
        if !self.overtaken_alone.is_empty() {
            let names = self.overtaken_alone.join(", ");
            ways.push(format!("delete Mitigation {names} (what has worked counts)"));
        }
        if ways.is_empty() { String::new() } else { format!("; to go on, {}", ways.join("; and ")) }
    }
}

impl Decision<'_> {
    /// Brings objects in line with entries, records what changed, and sums up.
    pub(super) fn mitigations(&mut self) -> Standing {
        self.expand();
        self.retract();
        let unrecorded = self.summarise();
        let mut sum = Standing::default();
        let mut in_force = 0;
        let mut replaced: Vec<String> = Vec::new();
        for entry in self.being_made() {
            replaced.push(entry.name.clone());
            let message = format!("{} is being made", entry.name);
            sum.active.push((String::new(), Some(entry.name.clone())));
            if !self.asks_for_end(&entry.template) {
                sum.wanted += 1;
                sum.lacking.push(message.clone());
            }
            sum.unsettled.push(message);
        }
        let is_latest = |s: &&MitigationSummary| !unrecorded.iter().any(|new| new.uid == s.uid);
        for summary in self.status.mitigations.iter().filter(is_latest).chain(&unrecorded) {
            in_force += i32::from(matches!(summary.phase, Phase::Active | Phase::Releasing));
            let is_replaced = summary.entry.as_ref().is_some_and(|entry| replaced.contains(entry));
            self.count(&mut sum, summary, is_replaced);
        }
        self.status.active_mitigations = Some(in_force);
        sum
    }

    /// One that is replaced, because its entry was put back, counts for nothing any more: what is made in its place does.
    fn count(&self, sum: &mut Standing, s: &MitigationSummary, is_replaced: bool) {
        let object = self.seen.mitigations.iter().find(|m| m.metadata.uid == s.uid);
        if object.is_some_and(|m| m.spec.template.dry_run == Some(true)) {
            return;
        }
        let label = s.entry.as_deref().unwrap_or(&s.name);
        let says = s.message.as_deref().unwrap_or("not seen yet");
        let leaving = object.is_none_or(|m| self.is_to_end(m, s));
        if object.is_some_and(|m| self.is_behind(m)) {
            sum.unsettled.push(format!("{label}: the edit of its entry is being carried over"));
        } else if object.is_some_and(|m| is_stale(m)) {
            sum.unsettled.push(format!("{label} has not seen its latest edit yet"));
        }
        match s.phase {
            Phase::Pending | Phase::AwaitingApproval | Phase::Applying | Phase::Active if !leaving => {
                sum.wanted += 1;
                sum.active.push((s.name.clone(), s.entry.clone()));
                if s.phase == Phase::Active && s.effective.as_deref() == Some("True") {
                    sum.working += 1;
                    sum.latest_effect = sum.latest_effect.max(s.effective_time.as_ref().map(|t| t.0));
                } else {
                    let lack =
                        if s.phase == Phase::Active { "not effective".into() } else { s.phase.to_string() };
                    sum.lacking.push(format!("{label} is {lack}: {says}"));
                    // One that waits for somebody's help is nothing to wait for.
                    let list = match object.is_some_and(|m| is_stuck(m) && !self.is_behind(m)) {
                        true => &mut sum.failed,
                        false => &mut sum.unsettled,
                    };
                    list.push(format!("{label}: {says}"));
                }
            }
            Phase::Superseded | Phase::Abandoned | Phase::Refused | Phase::Failed if !leaving => {
                sum.wanted += 1;
                sum.lacking.push(format!("{label} is {}: {says}", s.phase));
                match matches!(s.phase, Phase::Refused | Phase::Failed) {
                    true => sum.failed.push(format!("{label}: {says}")),
                    false => {
                        sum.ended.push(format!("{label} is {}: {says}", s.phase));
                        match s.entry {
                            Some(_) => sum.overtaken.push(label.to_owned()),
                            None => sum.overtaken_alone.push(label.to_owned()),
                        }
                    }
                }
            }
            // Ended on purpose, or about to: it counts if it worked, and does not stand in the way if it did not.
            phase => {
                if !phase.is_ended() {
                    sum.active.push((s.name.clone(), s.entry.clone()));
                    sum.unsettled.push(format!("{label} is being released"));
                }
                if s.effective_time.is_some() && phase != Phase::Failed && !is_replaced {
                    sum.wanted += 1;
                    sum.working += 1;
                }
            }
        }
    }

    /// Whether somebody asked for the end of a mitigation: of its object, of its entry, or of what it is for.
    pub(super) fn is_to_end(&self, m: &Mitigation, s: &MitigationSummary) -> bool {
        m.metadata.deletion_timestamp.is_some()
            || s.removed == Some(true)
            || self.asks_for_end(&m.spec.template)
    }

    fn asks_for_end(&self, template: &MitigationTemplate) -> bool {
        let by_incident = match self.releases() {
            Some(CANCELLED) => true,
            Some(_) => template.release_on == Some(ReleaseOn::Resolve),
            None => false,
        };
        by_incident || template.desired_state == Some(DesiredState::Released)
    }
}

/// Whether a mitigation says of its latest edit that it will not be in place without help.
fn is_stuck(m: &Mitigation) -> bool {
    let stalled = m.status.as_ref().and_then(|s| find(&s.conditions, "Stalled"));
    stalled.is_some_and(|c| c.status == ConditionStatus::True) && !is_stale(m)
}

/// Whether the status of a mitigation is about an earlier edit.
fn is_stale(m: &Mitigation) -> bool {
    m.status.as_ref().is_some_and(|s| s.observed_generation != m.metadata.generation)
}
