//! The briefing: what somebody who was just woken must know, at the top of `kubectl describe`.
//!
//! What happened, who leads, what was done and whether it works, what is due next, what is missing. It is put together
//! from what the rest of the status says, and changes when that does.

use super::{
    Decision, clocks, gates::gate, mitigations::declared_resolution, roles::title, texts, warnings::WARNINGS,
};
use crate::api::{
    ActionName, ChecklistState, ClockName,
    ConditionStatus::{False, True},
    MitigationPhase as Phase, MitigationSummary, Role, Stage,
};
use crate::decide::conditions::{find, one_line};

/// Most mitigations that get a line.
const MAX_MITIGATIONS: usize = 8;

impl Decision<'_> {
    /// Writes it.
    pub(super) fn brief(&mut self) {
        let mut lines = vec![self.what()];
        lines.extend(self.ended());
        lines.push(self.who());
        lines.extend(self.done());
        lines.extend(self.said());
        lines.extend(self.missing());
        lines.extend(self.unresolved());
        lines.extend(self.late());
        lines.extend(self.next());
        lines.extend(self.better());
        self.status.briefing = lines.iter().map(|line| one_line(line, 2048)).collect();
    }

    fn what(&self) -> String {
        let spec = &self.seen.incident.spec;
        let severity = spec.severity.map_or("Severity not stated".to_owned(), |s| s.to_string());
        let drill = if spec.drill == Some(true) { "Drill. " } else { "" };
        let stage = self.status.stage.map_or(String::new(), |s| format!(", stage {s}"));
        let since = self.status.milestones.started_time.as_ref().map_or(self.created(), |t| t.0);
        let impact = spec.impact.as_ref().and_then(texts::impact);
        let impact = impact.unwrap_or_else(|| "not stated".to_owned());
        // When it ended nobody states; that it is over is in the next line.
        let word = if self.is_over() { "began" } else { "since" };
        format!(
            "{drill}{severity}{stage}: {}. Impact {word} {}: {impact}",
            one_line(&spec.title, 256),
            texts::time(since)
        )
    }

    /// When and by what it came to its end.
    fn ended(&self) -> Option<String> {
        let milestones = &self.status.milestones;
        match self.status.stage? {
            Stage::Cancelled => {
                let at = milestones.closed_time.as_ref()?;
                Some(format!("Cancelled at {}: {}", texts::time(at.0), self.why_cancelled()))
            }
            Stage::Postmortem | Stage::Closed => {
                let at = milestones.resolved_time.as_ref()?;
                let by = find(&self.status.conditions, "Resolved")?;
                Some(format!("Resolved at {}: {}", texts::time(at.0), by.message))
            }
            Stage::Detect | Stage::Triage | Stage::Mitigate | Stage::Resolve => None,
        }
    }

    fn who(&self) -> String {
        let open =
            |role: Role| self.status.roles.iter().find(move |r| r.role == role && r.until_time.is_none());
        let rule = find(&self.status.conditions, "Acknowledged");
        let command = match rule {
            // Nothing is to be done about it any more.
            Some(c) if c.status != True && self.is_over() => self.leader(),
            rule => rule.map(|c| c.message.clone()),
        };
        let mut parts = vec![command.unwrap_or_else(|| "nobody has command".to_owned())];
        for role in [Role::OperationsLead, Role::CommunicationsLead, Role::Deputy, Role::Scribe] {
            if let Some(record) = open(role) {
                let sure = if record.acknowledged_time.is_some() { "" } else { " (not confirmed)" };
                parts.push(format!("{} {}{sure}", title(role), one_line(&record.holder, 253)));
            }
        }
        format!("Lead: {}", parts.join("; "))
    }

    fn done(&self) -> Vec<String> {
        // What only says what it would do is not done.
        let all: Vec<_> = self.status.mitigations.iter().filter(|m| m.dry_run != Some(true)).collect();
        let mut lines: Vec<_> = all.iter().take(MAX_MITIGATIONS).map(|m| line(m)).collect();
        if all.len() > MAX_MITIGATIONS {
            lines.push(format!(
                "Done: {} more mitigations in status.mitigations",
                all.len() - MAX_MITIGATIONS
            ));
        }
        if lines.is_empty() {
            let why = &self.seen.incident.spec.no_mitigation_needed;
            let none = why.as_ref().map(|why| format!("nothing, because none is needed: {why}"));
            lines.push(format!("Done: {}", none.unwrap_or_else(|| "nothing yet".to_owned())));
        }
        lines
    }

    fn said(&self) -> Option<String> {
        let clock = self.clock(ClockName::Internal)?;
        let (at, message) = (clock.last_update_time.as_ref()?, clock.message.as_ref()?);
        Some(format!("Last update at {}: {}", texts::time(at.0), one_line(message, 512)))
    }

    /// What the stage waits for.
    fn missing(&self) -> Option<String> {
        let says = find(&self.status.conditions, gate(self.status.stage?)?)?;
        (says.status != True).then(|| format!("To go on: {}", says.message))
    }

    /// What a resolution that is declared waits for, in a stage that waits for something else: it passes all that comes
    /// before.
    fn unresolved(&self) -> Option<String> {
        declared_resolution(self.seen.incident)?;
        let gate = gate(self.status.stage?)?;
        let says = find(&self.status.conditions, "Resolved").filter(|c| c.status != True)?;
        (gate != "Resolved").then(|| format!("The declared resolution waits: {}", says.message))
    }

    fn late(&self) -> Option<String> {
        let late: Vec<_> = self.overdue_clocks().into_iter().chain(self.overdue_items()).collect();
        (!late.is_empty()).then(|| format!("Overdue: {}", late.join("; ")))
    }

    fn next(&self) -> Option<String> {
        if self.is_over() {
            return None;
        }
        let mut due: Vec<_> = self
            .status
            .communication
            .iter()
            .filter(|c| c.missed_time.is_none())
            .filter_map(|c| Some((c.next_due_time.as_ref()?.0, clocks::title(c.audience).to_owned())))
            .collect();
        let open = self.status.checklist.iter();
        due.extend(
            open.filter(|i| i.state == ChecklistState::Todo && i.overdue_time.is_none())
                .filter_map(|i| Some((i.due_time.as_ref()?.0, i.name.clone()))),
        );
        due.sort();
        let all: Vec<_> = due.iter().map(|(at, what)| format!("{what} by {}", texts::time(*at))).collect();
        (!all.is_empty()).then(|| format!("Due next: {}", all.join("; ")))
    }

    /// Warnings that are not about time, which has its own line, nor about mitigations, which have theirs.
    fn better(&self) -> Vec<String> {
        let has = |type_: &str, status| find(&self.status.conditions, type_).filter(|c| c.status == status);
        let stalled = has("Stalled", True).filter(|c| c.reason != "MitigationRefused");
        let timed = ["ChecklistOnTime", "UpdatesOnTime"];
        let about = WARNINGS.into_iter().filter(|type_| !timed.contains(type_));
        let about = about.chain(["Notified", "Configured"]).filter_map(|type_| has(type_, False));
        stalled.into_iter().chain(about).map(|c| format!("Warning: {}", c.message)).collect()
    }
}

/// A mitigation in one line: what it changes, and whether it works.
fn line(m: &MitigationSummary) -> String {
    let what =
        format!("{} {}", m.action.as_deref().unwrap_or_default(), m.target.as_deref().unwrap_or(&m.name));
    let change = m.change.as_ref().map(|c| format!(": {c}")).unwrap_or_default();
    let says = m.message.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
    // What a person does is done when somebody says so, and not when it was asked for.
    let undone = m.effective_time.is_none() && m.action.as_deref() == Some(ActionName::Manual.as_str());
    let (word, stands) = match m.phase {
        Phase::Active if undone && m.effective.as_deref() == Some("False") => {
            ("Not done", m.message.clone().unwrap_or_else(|| "it failed".to_owned()))
        }
        Phase::Active if undone => ("Asked", format!("no answer yet{says}")),
        Phase::Releasing | Phase::Released | Phase::Kept if undone && m.applied_time.is_some() => {
            ("Not done", "ended, and nobody said that it was done".to_owned())
        }
        Phase::Pending | Phase::AwaitingApproval | Phase::Applying => {
            ("Under way", format!("{}{says}", m.phase))
        }
        Phase::Active => match (m.effective.as_deref(), &m.effective_time) {
            (Some("True"), Some(time)) => ("Done", format!("it works since {}", texts::time(time.0))),
            (Some("True"), None) => ("Done", "it works".to_owned()),
            (Some("False"), _) => ("Done", format!("it does NOT work{says}")),
            _ => ("Done", format!("not known yet whether it works{says}")),
        },
        Phase::Releasing => ("Done", "it is being released".to_owned()),
        Phase::Released if m.applied_time.is_none() => {
            ("Not done", "withdrawn before anything was changed".to_owned())
        }
        Phase::Released => {
            let at = m.released_time.as_ref().map(|t| format!(" at {}", texts::time(t.0)));
            ("Done", format!("released{}", at.unwrap_or_default()))
        }
        Phase::Kept => ("Done", "ended, and what it changed was kept".to_owned()),
        Phase::Superseded | Phase::Abandoned | Phase::Refused | Phase::Failed => {
            ("Not in force", format!("{}{says}", m.phase))
        }
    };
    format!("{word}: {what}{change}; {stands}")
}
