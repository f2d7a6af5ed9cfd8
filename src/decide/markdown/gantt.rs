//! The stages of an incident as a mermaid gantt chart: how long each took, and when mitigations were in force.
//!
//! Times are UTC and written without a zone, so that every reader sees the same hours. The only text of people in it
//! are actions and targets, reduced to letters and digits.

use super::{Known, Page, escape, time};
use crate::api::{IncidentSnapshot, Time};
use k8s_openapi::jiff::Timestamp;

/// The chart in its fence; `None` when fewer than two moments are known.
pub(super) fn chart(page: &Page, known: &Known<'_>) -> Option<String> {
    let incident = known.record?;
    let start = known.span.start?;
    let at = |t: &Option<Time>| t.as_ref().map(|t| t.0);
    let stages = [
        ("Detect", at(&incident.acknowledged_time)),
        ("Triage", at(&incident.triaged_time)),
        ("Mitigate", at(&incident.mitigated_time)),
        ("Resolve", at(&incident.resolved_time)),
    ];
    let last = stages.iter().filter_map(|(_, end)| *end).max()?;
    let axis = if last.as_second() - start.as_second() > 86_400 { "%m-%d %H:%M" } else { "%H:%M" };
    let mut lines = vec![
        "```mermaid".to_owned(),
        "gantt".to_owned(),
        "    dateFormat YYYY-MM-DD HH:mm:ss".to_owned(),
        format!("    axisFormat {axis}"),
    ];
    if let Some(end) = known.span.end {
        lines.push("    section Impact".to_owned());
        lines.push(bar("Impact", "crit, ", start, end));
    }
    lines.push("    section Stages".to_owned());
    if let Some(detected) = at(&incident.detected_time) {
        lines.push(bar("Detected", "", detected, detected));
    }
    // Facts come in any order: a stage whose end was reached before that of an earlier one took no time.
    let mut from = start;
    for (name, end) in stages.iter().filter_map(|(name, end)| Some((name, (*end)?))) {
        lines.push(bar(name, "", from.min(end), end));
        from = from.max(end);
    }
    lines.extend(mitigations(page, incident, last));
    lines.push("```".to_owned());
    Some(lines.join("\n"))
}

fn mitigations(page: &Page, incident: &IncidentSnapshot, last: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, mitigation) in incident.mitigations.iter().enumerate().take(page.limits.rows) {
        let Some(from) = mitigation.applied_time.as_ref().or(mitigation.effective_time.as_ref()) else {
            continue;
        };
        let words = |text: &Option<String>| text.as_deref().map(escape::mermaid).unwrap_or_default();
        let name = format!("M{} {} {}", index + 1, words(&mitigation.action), words(&mitigation.target));
        let (tag, to) = match &mitigation.released_time {
            Some(released) => ("done, ", released.0),
            None => ("active, ", last),
        };
        lines.push(bar(name.trim_end(), tag, from.0, to.max(from.0)));
    }
    if !lines.is_empty() {
        lines.insert(0, "    section Mitigations".to_owned());
    }
    lines
}

/// One bar, or a milestone where there is no time between.
fn bar(name: &str, tag: &str, from: Timestamp, to: Timestamp) -> String {
    if from.as_second() == to.as_second() {
        return format!("    {name} :milestone, {}, 0s", time(from));
    }
    format!("    {name} :{tag}{}, {}", time(from), time(to))
}
