//! The postmortem: what is known when it is drafted, what it still lacks, when it is due.

use super::conditions::{Conditions, clip, whole_seconds};
use crate::api::{
    ActionItem, ActionItemState,
    ConditionStatus::{False, True},
    Durations, INCIDENT_LABEL, Incident, IncidentRef, IncidentSnapshot, IncidentStatus, Milestones,
    Mitigation, MitigationSummary, Postmortem, PostmortemSpec, PostmortemState, PostmortemStatus, Time,
    names,
};
use crate::config::{PostmortemDeadline, Settings};
use k8s_openapi::jiff::{Timestamp, ToSpan, civil::Weekday, tz::TimeZone};
use kube::core::ObjectMeta;
use std::sync::Arc;

/// The draft for an incident that was resolved, with everything that is known.
pub fn draft(incident: &Incident, status: &IncidentStatus, _mitigations: &[Arc<Mitigation>]) -> Postmortem {
    let name = incident.metadata.name.clone().unwrap_or_default();
    let spec = &incident.spec;
    let impact = spec.impact.as_ref().and_then(|i| i.summary.clone());
    let detection = spec.detection.as_ref().map(|d| {
        let source = d.source.map_or("unknown".to_owned(), |s| format!("{s:?}").to_lowercase());
        let link = d.reference.as_ref().map(|r| format!(", {r}")).unwrap_or_default();
        format!("Found by: {source}{link}.")
    });
    let mut draft = Postmortem::new(
        &name,
        PostmortemSpec {
            incident_ref: Some(IncidentRef { name: name.clone(), uid: incident.metadata.uid.clone() }),
            title: Some(spec.title.clone()),
            state: Some(PostmortemState::Draft),
            owner: spec.roles.as_ref().and_then(|r| r.incident_commander.clone()),
            impact,
            detection,
            resolution: spec.resolution.as_ref().map(|r| r.summary.clone()).filter(|s| !s.is_empty()),
            links: spec.detection.iter().filter_map(|d| d.reference.clone()).collect(),
            ..PostmortemSpec::default()
        },
    );
    // Not owned by the incident: deleting the incident must not take the postmortem with it.
    draft.metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: incident.metadata.namespace.clone(),
        labels: Some(
            [
                ("app.kubernetes.io/managed-by".to_owned(), "incident-operator".to_owned()),
                (INCIDENT_LABEL.to_owned(), names::label_value(&name)),
            ]
            .into(),
        ),
        ..ObjectMeta::default()
    };
    // The record travels with the draft, so that nothing is lost if the incident is deleted right away.
    draft.status = Some(PostmortemStatus {
        incident: Some(snapshot(incident, status)),
        timeline: status.timeline.clone(),
        durations: Some(durations(&status.milestones)),
        ..PostmortemStatus::default()
    });
    draft
}

/// The incident in a few lines.
pub fn snapshot(incident: &Incident, status: &IncidentStatus) -> IncidentSnapshot {
    IncidentSnapshot {
        name: incident.metadata.name.clone().unwrap_or_default(),
        uid: incident.metadata.uid.clone(),
        title: incident.spec.title.clone(),
        severity: incident.spec.severity,
        service: incident.spec.service.clone(),
        commander: incident.spec.roles.as_ref().and_then(|r| r.incident_commander.clone()),
        started_time: status.milestones.started_time.clone(),
        detected_time: status.milestones.detected_time.clone(),
        resolved_time: status.milestones.resolved_time.clone(),
        mitigations: status.mitigations.iter().map(mitigation_line).collect(),
    }
}

fn mitigation_line(m: &MitigationSummary) -> String {
    let label = m.entry.as_deref().unwrap_or(&m.name);
    let worked = if m.effective_time.is_some() { "worked" } else { "did not work" };
    let text = format!(
        "{label}: {} {}, {}, {worked}",
        m.action.as_deref().unwrap_or("?"),
        m.target.as_deref().unwrap_or("?"),
        m.phase
    );
    clip(&text, 1024)
}

/// How long things took. Times to detect, mitigate and resolve count from the start of the impact, the time to
/// acknowledge from detection.
pub fn durations(m: &Milestones) -> Durations {
    let between = |from: &Option<Time>, to: &Option<Time>| {
        let (from, to) = (from.as_ref()?, to.as_ref()?);
        Some((to.0.as_second() - from.0.as_second()).max(0))
    };
    Durations {
        detect_seconds: between(&m.started_time, &m.detected_time),
        acknowledge_seconds: between(&m.detected_time, &m.acknowledged_time),
        mitigate_seconds: between(&m.started_time, &m.mitigated_time),
        resolve_seconds: between(&m.started_time, &m.resolved_time),
    }
}

/// What is seen of a postmortem.
pub struct Observed<'a> {
    /// The postmortem.
    pub postmortem: &'a Postmortem,
    /// Its incident, while that exists.
    pub incident: Option<&'a Incident>,
    /// The configuration.
    pub settings: &'a Settings,
}

/// The status as it should be. The place of the Markdown is added by who writes it.
pub fn decide(seen: &Observed<'_>, now: Timestamp) -> PostmortemStatus {
    let spec = &seen.postmortem.spec;
    let mut status = seen.postmortem.status.clone().unwrap_or_default();
    status.observed_generation = seen.postmortem.metadata.generation;
    // While the incident exists and is resolved its record is taken over; afterwards the last one stays.
    if let Some((incident, record)) = seen.incident.and_then(|i| i.status.as_ref().map(|s| (i, s)))
        && record.milestones.resolved_time.is_some()
    {
        status.incident = Some(snapshot(incident, record));
        status.timeline.clone_from(&record.timeline);
        status.durations = Some(durations(&record.milestones));
    }
    status.missing_sections = missing(spec, &status);
    status.missing_count = i32::try_from(status.missing_sections.len()).ok();
    let open: Vec<_> = spec.action_items.iter().filter(|i| is_open(i)).collect();
    status.open_action_items = i32::try_from(open.len()).ok();
    let today = now.to_zoned(TimeZone::UTC).date().to_string();
    status.overdue_action_items = open
        .iter()
        .filter(|i| i.due_date.as_ref().is_some_and(|due| *due < today))
        .map(|i| i.id.clone())
        .collect();
    let known = status.incident.as_ref();
    let deadline = seen.settings.severity(known.and_then(|i| i.severity)).postmortem;
    let resolved = known.and_then(|i| i.resolved_time.as_ref());
    status.due_time = deadline.zip(resolved).and_then(|(d, from)| due(d, from.0)).map(whole_seconds);
    conditions(spec, &mut status, seen.postmortem.metadata.generation, open.len(), now);
    status
}

fn is_open(item: &ActionItem) -> bool {
    match item.state {
        ActionItemState::Open | ActionItemState::InProgress => true,
        ActionItemState::Done | ActionItemState::WontFix => false,
    }
}

fn conditions(
    spec: &PostmortemSpec,
    status: &mut PostmortemStatus,
    generation: Option<i64>,
    open: usize,
    now: Timestamp,
) {
    let missing = status.missing_sections.join("; ");
    let complete = status.missing_sections.is_empty();
    let stated = spec.state.unwrap_or_default() == PostmortemState::Reviewed;
    let reviewed = complete && stated;
    let overdue = !reviewed && status.due_time.as_ref().is_some_and(|due| due.0 <= now);
    let due = status.due_time.as_ref().map(|t| t.0.to_string());
    let late = status.overdue_action_items.join(", ");
    let mut c = Conditions::new(&mut status.conditions, generation, now);
    match complete {
        true => c.set("Complete", True, "Complete", "every required section is there"),
        false => c.set("Complete", False, "SectionsMissing", format!("missing: {missing}")),
    }
    match (reviewed, stated) {
        (true, _) => c.set("Reviewed", True, "Reviewed", "it is complete and its state is Reviewed"),
        (false, true) => {
            c.set("Reviewed", False, "Incomplete", format!("its state is Reviewed, but it lacks: {missing}"))
        }
        (false, false) => {
            c.set("Reviewed", False, "NotReviewed", "set spec.state to Reviewed when it is reviewed")
        }
    }
    match open {
        0 => c.set("ActionItemsDone", True, "NoneOpen", "no action item is open"),
        n => {
            let late = if late.is_empty() { String::new() } else { format!("; overdue: {late}") };
            c.set("ActionItemsDone", False, "Open", format!("{n} action items are open{late}"));
        }
    }
    match (overdue, due) {
        (true, Some(due)) => c.set("Overdue", True, "Overdue", format!("the review was due at {due}")),
        (false, Some(due)) => c.set("Overdue", False, "InTime", format!("the review is due at {due}")),
        (_, None) => c.set("Overdue", False, "NoDeadline", "there is no deadline"),
    }
    c.set("Stalled", False, "Settled", "nothing is in the way");
    c.set("Ready", True, "Settled", "this generation is observed");
}

/// The required sections that are missing, in words.
fn missing(spec: &PostmortemSpec, status: &PostmortemStatus) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, text) in [
        ("Summary (spec.summary)", &spec.summary),
        ("Impact (spec.impact)", &spec.impact),
        ("Root cause (spec.rootCauses)", &spec.root_causes),
        ("Detection (spec.detection)", &spec.detection),
        ("What went well (spec.wentWell)", &spec.went_well),
        ("What went poorly (spec.wentPoorly)", &spec.went_poorly),
    ] {
        if text.as_ref().is_none_or(|t| is_placeholder(t)) {
            missing.push(name.to_owned());
        }
    }
    if spec.timeline.is_empty() && status.timeline.is_empty() {
        missing.push("Timeline (spec.timeline)".to_owned());
    }
    if spec.action_items.is_empty() {
        missing.push("Action items (spec.actionItems)".to_owned());
    }
    for item in &spec.action_items {
        let mut lacks = Vec::new();
        if item.owner.is_none() {
            lacks.push("owner");
        }
        if item.due_date.is_none() {
            lacks.push("dueDate");
        }
        if !lacks.is_empty() && missing.len() < 32 {
            missing.push(format!("{} of action item {}", lacks.join(" and "), item.id));
        }
    }
    missing.truncate(32);
    missing
}

fn is_placeholder(text: &str) -> bool {
    let text = text.trim().trim_end_matches(['.', ':', '…']).to_lowercase();
    text.is_empty() || ["todo", "tbd", "tba", "n/a", "-", "?", "lorem ipsum"].contains(&text.as_str())
}

/// When a review is due that is counted from `from`.
fn due(deadline: PostmortemDeadline, from: Timestamp) -> Option<Timestamp> {
    let mut at = from.to_zoned(TimeZone::UTC);
    match deadline {
        PostmortemDeadline::CalendarDays(days) => at = at.checked_add(i64::from(days).days()).ok()?,
        PostmortemDeadline::BusinessDays(days) => {
            let mut left = days;
            while left > 0 {
                at = at.checked_add(1.day()).ok()?;
                if !matches!(at.weekday(), Weekday::Saturday | Weekday::Sunday) {
                    left -= 1;
                }
            }
        }
    }
    Some(at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn decide_at(spec: serde_json::Value, now: &str) -> PostmortemStatus {
        let mut postmortem = Postmortem::new("pm", serde_json::from_value(spec).unwrap());
        postmortem.status = Some(PostmortemStatus {
            incident: Some(IncidentSnapshot {
                severity: Some(crate::api::Severity::SEV1),
                resolved_time: Some(Time(at("2026-11-20T12:00:00Z"))),
                ..IncidentSnapshot::default()
            }),
            ..PostmortemStatus::default()
        });
        decide(&Observed { postmortem: &postmortem, incident: None, settings: &Settings::default() }, at(now))
    }

    fn complete() -> serde_json::Value {
        json!({"state": "Reviewed", "summary": "s", "impact": "i", "rootCauses": "r", "detection": "d",
            "wentWell": "w", "wentPoorly": "p", "timeline": [{"time": "2026-11-20T10:00:00Z", "message": "m"}],
            "actionItems": [{"id": "a", "title": "t", "owner": "o", "dueDate": "2026-11-21", "state": "Done"}]})
    }

    #[test]
    fn sev1_is_due_in_three_calendar_days_and_sev2_in_five_business_days() {
        let friday = at("2026-11-20T12:00:00Z");
        assert_eq!(due(PostmortemDeadline::CalendarDays(3), friday), Some(at("2026-11-23T12:00:00Z")));
        assert_eq!(due(PostmortemDeadline::BusinessDays(5), friday), Some(at("2026-11-27T12:00:00Z")));
    }

    #[test]
    fn a_draft_lists_what_is_missing_and_placeholders_count_as_missing() {
        let status =
            decide_at(json!({"summary": "TODO", "impact": "40 % of checkouts"}), "2026-11-21T00:00:00Z");
        assert!(status.missing_sections.iter().any(|s| s.starts_with("Summary")));
        assert!(!status.missing_sections.iter().any(|s| s.starts_with("Impact")));
        assert_eq!(super::super::conditions::status(&status.conditions, "Reviewed"), False);
    }

    #[test]
    fn reviewed_needs_every_section_and_action_items_need_owner_and_date() {
        let status = decide_at(complete(), "2026-11-21T00:00:00Z");
        assert_eq!(status.missing_sections, Vec::<String>::new());
        assert_eq!(super::super::conditions::status(&status.conditions, "Reviewed"), True);
        let mut lacking = complete();
        lacking["actionItems"][0].as_object_mut().unwrap().remove("owner");
        let status = decide_at(lacking, "2026-11-21T00:00:00Z");
        assert_eq!(status.missing_sections, ["owner of action item a"]);
        assert_eq!(super::super::conditions::status(&status.conditions, "Reviewed"), False);
    }

    #[test]
    fn open_action_items_are_counted_and_the_late_ones_named() {
        let mut spec = complete();
        spec["actionItems"][0]["state"] = json!("InProgress");
        let status = decide_at(spec, "2026-11-22T00:00:00Z");
        assert_eq!((status.open_action_items, status.overdue_action_items), (Some(1), vec!["a".to_owned()]));
    }

    #[test]
    fn a_review_that_is_late_is_overdue() {
        let status = decide_at(json!({}), "2026-11-23T12:00:00Z");
        assert_eq!(super::super::conditions::status(&status.conditions, "Overdue"), True);
    }
}
