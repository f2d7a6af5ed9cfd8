//! What should be better: conditions that warn and stand in the way of nothing.
//!
//! Each rule answers (status, reason, message), as those of the lifecycle do. The message says what to do.

use super::{Decision, clocks, linter::lint, roles::title, texts};
use crate::api::{
    ChecklistState, ClockName,
    ConditionStatus::{self, False, True, Unknown},
    Role, Severity,
};
use crate::decide::conditions::one_line;
use k8s_openapi::jiff::SignedDuration;

type Rule = (ConditionStatus, &'static str, String);

/// How far the clocks of two machines may be apart.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// All conditions of this kind.
pub(super) const WARNINGS: [&str; 9] = [
    "RolesFilled",
    "DutiesSeparated",
    "SeverityExplained",
    "ChecklistOnTime",
    "UpdatesOnTime",
    "PublicInformed",
    "PublicTextClean",
    "FactsConsistent",
    "AuthorsVerified",
];

impl Decision<'_> {
    /// States all of them, and how much is overdue.
    pub(super) fn warnings(&mut self) {
        let over = |d: &Self, rule: Rule| match d.is_over() {
            true => (True, "Over", "the incident is over".to_owned()),
            false => rule,
        };
        let rules = [
            over(self, self.roles_filled()),
            over(self, self.duties_separated()),
            self.severity_explained(),
            over(self, self.checklist_on_time()),
            over(self, self.updates_on_time()),
            over(self, self.public_informed()),
            self.public_text_clean(),
            self.facts_consistent(),
            self.authors_verified(),
        ];
        for (type_, (status, reason, message)) in WARNINGS.into_iter().zip(rules) {
            self.conditions().set(type_, status, reason, message);
        }
        let count = self.overdue_items().len() + self.overdue_clocks().len();
        self.status.overdue = i32::try_from(count).ok();
    }

    /// Whether the API server vouches for the names in the record.
    fn authors_verified(&self) -> Rule {
        if self.seen.signed {
            return (True, "Signed", "the API server vouches for the authors in this record".to_owned());
        }
        (
            False,
            "NotSigned",
            "this API server signs no requests (MutatingAdmissionPolicy v1, from Kubernetes 1.36 on), or the chart \
             was installed without: names in this record are as they were stated, and nobody can approve"
                .to_owned(),
        )
    }

    /// Somebody holds every role that this severity asks for.
    fn roles_filled(&self) -> Rule {
        let wanted = &self.seen.settings.severity(self.seen.incident.spec.severity).required_roles;
        let held = |role: Role| self.status.roles.iter().any(|r| r.role == role && r.until_time.is_none());
        let missing: Vec<_> = wanted
            .iter()
            .filter(|role| !held(**role))
            .map(|role| format!("{} (spec.roles.{})", title(*role), field(*role)))
            .collect();
        let asks = match self.seen.incident.spec.severity {
            Some(_) => "this severity asks for more roles",
            None => "more roles are asked for, as for SEV3 until a severity is stated",
        };
        if missing.is_empty() {
            (True, "Filled", "every role that this severity asks for is held".to_owned())
        } else {
            (False, "RolesMissing", format!("{asks}: name the {}", missing.join(", the ")))
        }
    }

    /// Who leads does not repair: on SEV1 and SEV2 nobody can do both and see the whole.
    fn duties_separated(&self) -> Rule {
        let holder = |role: Role| {
            let mut open = self.status.roles.iter().filter(|r| r.until_time.is_none());
            open.find(|r| r.role == role).map(|r| r.holder.as_str())
        };
        let serious = matches!(self.seen.incident.spec.severity, Some(Severity::SEV1 | Severity::SEV2));
        match (holder(Role::IncidentCommander), holder(Role::OperationsLead)) {
            (Some(leads), Some(repairs)) if leads == repairs && serious => (
                False,
                "OneForTwo",
                format!(
                    "{} leads and repairs: name somebody else in spec.roles.operationsLead",
                    one_line(leads, 253)
                ),
            ),
            _ => (True, "Separated", "who leads does not repair".to_owned()),
        }
    }

    /// Who lowers the severity says why.
    fn severity_explained(&self) -> Rule {
        let Some(change) = &self.status.severity_change else {
            return (True, "Unchanged", "the severity was not changed".to_owned());
        };
        if !change.lowered {
            return (True, "Raised", "raising the severity needs no reason".to_owned());
        }
        if let Some(reason) = &change.reason {
            return (True, "Explained", one_line(reason, 1024));
        }
        let word = |s: Option<Severity>| s.map_or("not stated".to_owned(), |s| s.to_string());
        let by = change.author.as_ref().map(|a| format!(" by {}", one_line(a, 253))).unwrap_or_default();
        let message = format!(
            "the severity was lowered from {} to {}{by} at {} without a reason: say why in spec.severityReason",
            word(change.from),
            word(change.to),
            texts::time(change.time.0)
        );
        (False, "ReasonWanted", message)
    }

    /// No item of the checklist is late.
    fn checklist_on_time(&self) -> Rule {
        let late = self.overdue_items();
        if !late.is_empty() {
            let message = format!("{}; tick what is done in spec.checklist", late.join("; "));
            return (False, "Overdue", message);
        }
        let open = self.status.checklist.iter().filter(|i| i.state == ChecklistState::Todo).count();
        match open {
            0 => (True, "Done", "every item is done".to_owned()),
            n => (
                True,
                "OnTime",
                format!("{n} of {} items are open, none is late", self.status.checklist.len()),
            ),
        }
    }

    /// Everybody who is to be told was told in time.
    fn updates_on_time(&self) -> Rule {
        let late = self.overdue_clocks();
        if !late.is_empty() {
            let is_late = |name: &ClockName| self.clock(*name).is_some_and(|c| c.missed_time.is_some());
            let whom = [ClockName::Internal, ClockName::Public, ClockName::Executives].into_iter();
            let whom: Vec<_> = whom.filter(is_late).map(|name| format!("{name:?}")).collect();
            let mut how = Vec::new();
            if !whom.is_empty() {
                let each = if whom.len() > 1 { " (one each)" } else { "" };
                let whom = whom.join(", ");
                how.push(format!("create a TimelineEntry of type StatusUpdate with audience {whom}{each}"));
            }
            if is_late(&ClockName::Document) {
                how.push("any entry or edit refreshes the document".to_owned());
            }
            return (False, "Overdue", late.into_iter().chain(how).collect::<Vec<_>>().join("; "));
        }
        let next: Vec<_> = self
            .status
            .communication
            .iter()
            .filter_map(|c| {
                Some(format!("{} by {}", clocks::title(c.audience), texts::time(c.next_due_time.as_ref()?.0)))
            })
            .collect();
        match next.is_empty() {
            true => (True, "NothingDue", "no update is due".to_owned()),
            false => (True, "OnTime", next.join("; ")),
        }
    }

    /// What is meant for the public reaches it, and what it was told last is true.
    fn public_informed(&self) -> Rule {
        let clock = self.clock(ClockName::Public);
        let public = self.is_public();
        if public && let Some(since) = clock.and_then(|c| c.reopened_time.as_ref()) {
            let message = format!(
                "the public was told that it is over, and it goes on since {}: create a TimelineEntry of type \
                 StatusUpdate with audience Public",
                texts::time(since.0)
            );
            return (False, "ToldOver", message);
        }
        if let Some(at) = clock.and_then(|c| c.withheld_time.as_ref()) {
            let first = if public { "" } else { "set spec.communication.visibility to Public and " };
            let message = format!(
                "the public was not told the update of {}, because the visibility was Internal: {first}write it again",
                texts::time(at.0)
            );
            return (False, "Withheld", message);
        }
        match public {
            true => (True, "Informed", "nothing that is meant for the public was kept from it".to_owned()),
            false => (True, "NotPublic", "the public is told nothing of this incident".to_owned()),
        }
    }

    /// The public text promises nothing and names nothing from inside.
    fn public_text_clean(&self) -> Rule {
        let message = self.clock(ClockName::Public).and_then(|c| c.message.as_deref());
        let Some(message) = message else {
            return (Unknown, "NoPublicText", "the public was not told anything yet".to_owned());
        };
        let found = lint(message, self.seen.incident.spec.impact.as_ref());
        match found.is_empty() {
            true => (True, "Clean", "nothing was found in the last public text".to_owned()),
            false => (False, "Suspicious", format!("the last public text: {}", found.join("; "))),
        }
    }

    /// What is stated can be true: an incident begins before it is found, and is found before it is declared; what is
    /// waived is there.
    fn facts_consistent(&self) -> Rule {
        let spec = &self.seen.incident.spec;
        let milestones = &self.status.milestones;
        let mut wrong = Vec::new();
        if let (Some(started), Some(detected)) = (&spec.start_time, &milestones.detected_time)
            && started.0 > detected.0
        {
            wrong.push(format!(
                "spec.startTime ({}) is after the detection ({}): an incident begins before it is found; correct one of them",
                started.0, detected.0
            ));
        }
        let stated = spec.detection.as_ref().and_then(|d| d.time.as_ref());
        if let Some(detected) = stated
            && detected.0 > self.created() + CLOCK_SKEW
        {
            wrong.push(format!(
                "spec.detection.time ({}) is after the incident was declared ({}): correct it",
                detected.0,
                self.created()
            ));
        }
        let there = |name: &str| {
            let recorded = self.status.mitigations.iter();
            spec.mitigations.iter().any(|entry| entry.name == name)
                || recorded.into_iter().any(|s| s.name == name || s.entry.as_deref() == Some(name))
        };
        let waivers = spec.resolution.iter().flat_map(|resolution| &resolution.waivers);
        let unknown = waivers.filter(|waiver| !there(&waiver.mitigation));
        wrong.extend(unknown.map(|waiver| {
            format!(
                "spec.resolution.waivers names {}, which is no mitigation of this incident: correct the name",
                one_line(&waiver.mitigation, 253)
            )
        }));
        match wrong.is_empty() {
            true => (True, "Consistent", "what is stated can be true".to_owned()),
            false => (False, "Contradiction", wrong.join("; ")),
        }
    }

    /// Items that are late, in words.
    pub(super) fn overdue_items(&self) -> Vec<String> {
        if self.is_over() {
            return Vec::new();
        }
        let late = self
            .status
            .checklist
            .iter()
            .filter(|i| i.state == ChecklistState::Todo && i.overdue_time.is_some());
        late.map(|i| {
            let owner = i.owner.map(|role| format!(" ({})", title(role))).unwrap_or_default();
            let since =
                i.due_time.as_ref().map(|t| format!(" since {}", texts::time(t.0))).unwrap_or_default();
            format!("{} is overdue{since}{owner}", i.name)
        })
        .collect()
    }

    /// Clocks that are late, in words.
    pub(super) fn overdue_clocks(&self) -> Vec<String> {
        let late = self.status.communication.iter().filter(|c| c.missed_time.is_some());
        late.filter_map(|c| {
            let due = texts::time(c.next_due_time.as_ref()?.0);
            Some(format!("{} is overdue since {due}", clocks::title(c.audience)))
        })
        .collect()
    }
}

fn field(role: Role) -> &'static str {
    match role {
        Role::IncidentCommander => "incidentCommander",
        Role::CommunicationsLead => "communicationsLead",
        Role::OperationsLead => "operationsLead",
        Role::Deputy => "deputy",
        Role::Scribe => "scribe",
    }
}
