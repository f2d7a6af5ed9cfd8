//! What each stage waits for: one rule a stage.
//!
//! Each rule answers (status, reason, message); the message says what is missing in words that can be acted on.

use super::{Decision, Effect, mitigations::declared_resolution, standing::Standing};
use crate::api::{
    ConditionStatus::{self, False, True, Unknown},
    CriterionState, Impact, LocalRef, Stage,
};
use crate::decide::{
    conditions::{find, one_line, status as condition},
    postmortem,
};

pub(super) type Rule = (ConditionStatus, &'static str, String);

/// Reason of `Mitigated` where the incident was resolved and no mitigation was asked for.
const WITHOUT: &str = "ResolvedWithout";
/// Reason of `Mitigated` where the incident was resolved although mitigations were lacking.
const ANYWAY: &str = "ResolvedAnyway";

/// Whether `Mitigated` holds for its own sake, and not only because the incident is resolved.
pub(super) fn is_mitigated(status: ConditionStatus, reason: &str) -> bool {
    status == True && ![WITHOUT, ANYWAY].contains(&reason)
}

impl Decision<'_> {
    pub(super) fn acknowledged(&self) -> Rule {
        let Some((who, confirmed)) = self.commander() else {
            return (
                False,
                "NoCommander",
                "name an incident commander in spec.roles.incidentCommander".into(),
            );
        };
        let who = one_line(who, 253);
        let confirm = format!("{who} is to confirm command: create a TimelineEntry of type Acknowledgement");
        match self.in_command() {
            Some(_) if confirmed.is_some() => (True, "Commanded", format!("{who} has command")),
            // Command is never in the air: until the successor confirms, who had it has it.
            Some(still) => {
                let message = format!(
                    "{} has command until {who} confirms it: create a TimelineEntry of type Acknowledgement",
                    one_line(still, 253)
                );
                (True, "HandingOver", message)
            }
            None => (False, "NotConfirmed", confirm),
        }
    }

    pub(super) fn triaged(&self) -> Rule {
        let spec = &self.seen.incident.spec;
        let mut missing = Vec::new();
        if spec.severity.is_none() {
            missing.push("spec.severity");
        }
        if !spec.impact.as_ref().is_some_and(is_stated) {
            missing.push("spec.impact (summary, affectedTenants, affectedFeatures or components)");
        }
        if missing.is_empty() {
            (True, "Stated", "severity and impact are stated".into())
        } else {
            (False, "NotStated", format!("state {}", missing.join(" and ")))
        }
    }

    pub(super) fn mitigated(&self, m: &Standing, resolved: bool) -> Rule {
        let spec = &self.seen.incident.spec;
        if !m.lacking.is_empty() && resolved {
            return (True, ANYWAY, format!("the incident was resolved while {}", m.lacking.join("; ")));
        }
        if !m.lacking.is_empty() {
            return (False, "NotEffective", format!("{}{}", m.lacking.join("; "), m.way_on()));
        }
        if m.working > 0 {
            return (
                True,
                "Effective",
                format!("{} of {} mitigations work or have worked", m.working, m.wanted),
            );
        }
        if let Some(why) = &spec.no_mitigation_needed {
            return (True, "NoneNeeded", format!("no mitigation is needed: {why}"));
        }
        if resolved {
            return (True, WITHOUT, "the incident was resolved without a mitigation".into());
        }
        (
            False,
            "NothingDone",
            "no mitigation is asked for: add one to spec.mitigations, or say why none is needed in spec.noMitigationNeeded".into(),
        )
    }

    pub(super) fn resolved(&self, m: &Standing) -> Rule {
        let spec = &self.seen.incident.spec;
        let Some(resolution) = declared_resolution(self.seen.incident) else {
            if self.cancelled() {
                return (False, "Cancelled", "the incident is cancelled: there is nothing to resolve".into());
            }
            let message = match &spec.resolution {
                Some(_) => {
                    "spec.resolution declares nothing yet: state what resolved it in spec.resolution.summary"
                }
                None => "declare the resolution in spec.resolution.summary",
            };
            return (False, "NotDeclared", message.into());
        };
        let mut missing = Vec::new();
        let open: Vec<_> = spec
            .exit_criteria
            .iter()
            .filter(|c| c.state != CriterionState::Done)
            .map(|c| format!("\"{}\"", one_line(&c.description, 128)))
            .collect();
        if !open.is_empty() {
            missing.push(format!("exit criteria are not done: {}", open.join(", ")));
        }
        let unwaived: Vec<_> = m
            .active
            .iter()
            .filter(|(name, entry)| {
                !resolution
                    .waivers
                    .iter()
                    .any(|w| w.mitigation == *name || Some(&w.mitigation) == entry.as_ref())
            })
            .map(|(name, entry)| entry.clone().unwrap_or_else(|| name.clone()))
            .collect();
        if !unwaived.is_empty() {
            missing.push(format!(
                "mitigations are still active: {}; release them, or waive each in spec.resolution.waivers",
                unwaived.join(", ")
            ));
        }
        if missing.is_empty() {
            let summary = one_line(&resolution.summary, 1024);
            (True, "Resolved", format!("{summary}{}", self.stays(m)))
        } else {
            (False, "NotDone", missing.join("; "))
        }
    }

    /// Whether the postmortem is done; drafts it when it is due.
    pub(super) fn learned(&mut self, resolved: bool) -> Rule {
        let uid = self.seen.incident.metadata.uid.as_ref();
        let began = postmortem::began(self.seen.incident);
        let found = self.seen.postmortem.filter(|p| postmortem::is_about(p, self.name(), uid, began));
        if let Some(name) = found.and_then(|p| p.metadata.name.clone()) {
            self.status.postmortem_ref = Some(LocalRef { name });
        }
        if self.seen.settings.severity(self.seen.incident.spec.severity).postmortem.is_none() {
            return (True, "NotRequired", "no postmortem is required for this severity".into());
        }
        if self.cancelled() {
            return (True, "NotRequired", "no postmortem is required for a false alarm or duplicate".into());
        }
        if let Some(found) = found {
            let name = found.metadata.name.as_deref().unwrap_or_default();
            let conditions = found.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            // One that was reviewed before this was resolved says so at its next visit.
            let review = found.status.as_ref().and_then(|s| s.review.as_ref());
            let resolved = self.status.milestones.resolved_time.as_ref();
            let is_earlier = review.zip(resolved).is_some_and(|(review, at)| review.time.0 < at.0);
            let is_reviewed = condition(conditions, "Reviewed") == True;
            if is_reviewed && !is_earlier {
                return (True, "Reviewed", format!("postmortem {name} is reviewed"));
            }
            let says = find(conditions, "Reviewed").filter(|_| !is_reviewed);
            let says = says.map(|c| format!(": {}", c.message)).unwrap_or_default();
            return (False, "NotReviewed", format!("postmortem {name} is not reviewed yet{says}"));
        }
        if let (Some(known), Some(_)) = (&self.status.postmortem_ref, self.seen.known_postmortem) {
            let message = format!(
                "postmortem {} is not about this incident any more: name it in spec.incidentRef of that or of \
                 another postmortem",
                known.name
            );
            return (False, "PostmortemElsewhere", message);
        }
        if let Some(gone) = &self.status.postmortem_ref {
            return (
                False,
                "PostmortemGone",
                format!("postmortem {} was deleted: create it again", gone.name),
            );
        }
        if resolved && self.seen.incident.metadata.deletion_timestamp.is_none() {
            let draft = postmortem::draft(self.seen.incident, &self.status);
            self.effects.push(Effect::CreatePostmortem(Box::new(draft)));
            return (False, "Drafting", "the postmortem is being drafted".into());
        }
        (Unknown, "NotResolved", "the postmortem is drafted when the incident is resolved".into())
    }
}

/// The condition that a stage waits for.
pub(super) fn gate(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Detect => Some("Acknowledged"),
        Stage::Triage => Some("Triaged"),
        Stage::Mitigate => Some("Mitigated"),
        Stage::Resolve => Some("Resolved"),
        Stage::Postmortem => Some("PostmortemComplete"),
        Stage::Closed | Stage::Cancelled => None,
    }
}

fn is_stated(impact: &Impact) -> bool {
    impact.summary.is_some()
        || impact.affected_tenants.is_some()
        || !impact.affected_features.is_empty()
        || !impact.components.is_empty()
}
