//! The texts to paste: the playbook's two templates, filled from facts.
//!
//! They change with facts and never with the clock, so "in 15m" stands beside the time that it means. What the public
//! reads is only ever what a Public StatusUpdate said, and in which state the incident is.

use super::{Decision, deliveries::PUBLIC_END};
use crate::api::{ClockName, ComponentState, DataRisk, Impact, Stage};
use crate::decide::conditions::{clip, one_line};
use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use std::time::Duration;

/// Longest text; the schema's maximum.
const MAX_TEXT: usize = 8192;

impl Decision<'_> {
    /// Renders the texts of all audiences.
    pub(super) fn texts(&mut self) {
        let internal = clip(&self.internal_text(), MAX_TEXT);
        self.clock_mut(ClockName::Internal).text = Some(internal);
        let public = self.public_text().map(|text| clip(&text, MAX_TEXT));
        if public.is_some() || self.clock(ClockName::Public).is_some() {
            self.clock_mut(ClockName::Public).text = public;
        }
    }

    fn internal_text(&self) -> String {
        let spec = &self.seen.incident.spec;
        let severity = spec.severity.map(|s| format!("{s} ")).unwrap_or_default();
        let drill = if spec.drill == Some(true) { "DRILL: " } else { "" };
        let started = self.status.milestones.started_time.as_ref().map_or(self.created(), |t| t.0);
        let owner = self.leader().map_or("nobody yet".to_owned(), |who| format!("@{who}"));
        format!(
            "{drill}{severity}Incident: {}\nImpact: {}\nStart: {}\nOwner: {owner}\nNext update: {}",
            one_line(&spec.title, 256),
            spec.impact.as_ref().and_then(impact).unwrap_or_else(|| "not known yet".to_owned()),
            time(started),
            self.next_internal(),
        )
    }

    fn next_internal(&self) -> String {
        let milestones = &self.status.milestones;
        match self.status.stage {
            Some(Stage::Cancelled) => return "none, the incident is cancelled".to_owned(),
            Some(Stage::Postmortem | Stage::Closed) => {
                let at = milestones.resolved_time.as_ref().map(|t| format!(" at {}", time(t.0)));
                return format!("none, resolved{}", at.unwrap_or_default());
            }
            Some(Stage::Detect | Stage::Triage | Stage::Mitigate | Stage::Resolve) | None => {}
        }
        let clock = self.clock(ClockName::Internal);
        match clock.and_then(|c| Some((c.interval.as_ref()?, c.next_due_time.as_ref()?, &c.missed_time))) {
            Some((_, due, Some(_))) => format!("overdue since {}", time(due.0)),
            Some((interval, due, None)) => format!("in {interval} ({})", time(due.0)),
            None => "when there is news".to_owned(),
        }
    }

    fn public_text(&self) -> Option<String> {
        let clock = self.clock(ClockName::Public).filter(|_| self.is_public())?;
        let message = visible(clock.message.as_deref()?);
        let status = state(self.status.stage?);
        let next = match (&clock.next_due_time, &clock.missed_time) {
            _ if self.is_over() => None,
            (Some(due), None) => Some(format!("by {}", time(due.0))),
            _ => Some("as soon as there is news".to_owned()),
        };
        let next = next.map(|next| format!("\nNext update: {next}")).unwrap_or_default();
        // The last update may say that people are still looking into it.
        let end = if self.is_over() { format!("\n\n{PUBLIC_END}") } else { String::new() };
        Some(format!("{}{end}\n\nStatus: {status}{next}", message.trim()))
    }
}

/// The state of an incident in the words of status pages.
pub fn state(stage: Stage) -> &'static str {
    match stage {
        Stage::Detect | Stage::Triage => "Investigating",
        Stage::Mitigate => "Identified",
        Stage::Resolve => "Monitoring",
        Stage::Postmortem | Stage::Closed | Stage::Cancelled => "Resolved",
    }
}

/// Who and what is affected, in one line; `None` when nothing is stated.
pub fn impact(impact: &Impact) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(impact.summary.as_deref().map(|s| one_line(s, 1024)));
    parts.extend(
        impact.affected_tenants.map(|n| format!("{n} {}", if n == 1 { "tenant" } else { "tenants" })),
    );
    if !impact.affected_features.is_empty() {
        parts.push(clip(&one_line(&impact.affected_features.join(", "), 512), 512));
    }
    if !impact.components.is_empty() {
        let components = impact.components.iter();
        let all: Vec<_> =
            components.map(|c| format!("{} {}", one_line(&c.name, 64), condition(c.state))).collect();
        parts.push(clip(&all.join(", "), 512));
    }
    match impact.data_at_risk {
        Some(DataRisk::Suspected) => parts.push("data may be at risk".to_owned()),
        Some(DataRisk::Confirmed) => parts.push("data is lost or damaged".to_owned()),
        Some(DataRisk::None) | None => {}
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn condition(state: ComponentState) -> &'static str {
    match state {
        ComponentState::Operational => "works",
        ComponentState::DegradedPerformance => "is degraded",
        ComponentState::PartialOutage => "works in part",
        ComponentState::MajorOutage => "is down",
        ComponentState::UnderMaintenance => "is under maintenance",
    }
}

/// A time for people, to the minute; always with its date, because incidents outlast midnight.
pub(super) fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// A length of time as people write it: 15m, 1h30m, 4h.
pub(super) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Text of several lines that cannot drive a terminal, with nothing taken away: what controls it is shown as the
/// picture of itself.
pub(super) fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' | '\t' => c,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('�'),
        '\u{7f}' => '␡',
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '�',
        c => c,
    };
    text.replace("\r\n", "\n").chars().map(picture).collect()
}
