//! What is known of the incident: the draft, the record that outlives the incident, and how long things took.

use super::bounds;
use crate::api::{
    Detection, DetectionSource, Durations, INCIDENT_LABEL, Impact, Incident, IncidentRef, IncidentSnapshot,
    IncidentStatus, Milestones, MitigationRecord, MitigationSummary, Postmortem, PostmortemSpec,
    PostmortemState, PostmortemStatus, Time, names,
};
use crate::decide::conditions::clip;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::ObjectMeta;
use std::borrow::Cow;

/// The draft for an incident that was resolved, with everything that is known.
///
/// Sections that only people can write are left out, so that they are reported as missing.
pub fn draft(incident: &Incident, status: &IncidentStatus) -> Postmortem {
    let name = incident.metadata.name.clone().unwrap_or_default();
    let spec = &incident.spec;
    let took = durations(&status.milestones);
    let detection = spec.detection.as_ref().map(|d| clip(&detection_text(d, &took), bounds::SECTION));
    let resolution = spec.resolution.as_ref().map(|r| r.summary.as_str()).filter(|s| !s.is_empty());
    let mut draft = Postmortem::new(
        &name,
        PostmortemSpec {
            incident_ref: Some(IncidentRef { name: name.clone(), uid: incident.metadata.uid.clone() }),
            title: Some(clip(&spec.title, bounds::TITLE)).filter(|title| !title.is_empty()),
            state: Some(PostmortemState::Draft),
            owner: commander(incident).filter(|owner| !owner.is_empty()),
            impact: spec.impact.as_ref().and_then(impact_text).map(|text| clip(&text, bounds::SECTION)),
            detection,
            resolution: resolution.map(|text| clip(text, bounds::SECTION)),
            links: links(incident),
            ..PostmortemSpec::default()
        },
    );
    // Not owned by the incident: deleting the incident must not take the postmortem with it.
    draft.metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: incident.metadata.namespace.clone(),
        labels: Some(
            [
                (crate::api::MANAGED_BY_LABEL.to_owned(), crate::api::MANAGED_BY.to_owned()),
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
        durations: Some(took),
        ..PostmortemStatus::default()
    });
    draft
}

/// Whether a postmortem is about the incident of this name and uid, which began then, and not about an earlier one of
/// the same name. One from git may name no uid: it is about the first of that name whose record it took over, unless it
/// was finished before that began.
pub fn is_about(postmortem: &Postmortem, name: &str, uid: Option<&String>, began: Option<Timestamp>) -> bool {
    is_about_with(&postmortem.spec, postmortem.status.as_ref(), name, uid, began)
}

/// The same, with another status than the one that the postmortem has.
pub(super) fn is_about_with(
    spec: &PostmortemSpec,
    status: Option<&PostmortemStatus>,
    name: &str,
    uid: Option<&String>,
    began: Option<Timestamp>,
) -> bool {
    spec.incident_ref.as_ref().is_some_and(|named| named.name == name)
        && match expected_uid_with(spec, status) {
            Some(expected) => Some(expected) == uid,
            None => !was_finished_before(spec, status, began),
        }
}

/// The uid of the incident that a postmortem is about, as far as that is known: the one that it names, or that of the
/// record that it took over under this name.
pub fn expected_uid(postmortem: &Postmortem) -> Option<&String> {
    expected_uid_with(&postmortem.spec, postmortem.status.as_ref())
}

fn expected_uid_with<'a>(
    spec: &'a PostmortemSpec,
    status: Option<&'a PostmortemStatus>,
) -> Option<&'a String> {
    let named = spec.incident_ref.as_ref()?;
    let recorded = status.and_then(|s| s.incident.as_ref());
    named.uid.as_ref().or_else(|| recorded.filter(|r| r.name == named.name)?.uid.as_ref())
}

/// When the impact of an incident began, as far as anybody knows.
pub fn began(incident: &Incident) -> Option<Timestamp> {
    let milestones = incident.status.as_ref().map(|s| &s.milestones);
    let started = milestones.and_then(|m| m.started_time.as_ref().or(m.detected_time.as_ref()));
    let stated = started.or(incident.spec.start_time.as_ref()).map(|t| t.0);
    stated.or(incident.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

/// Whether it was reviewed before then, or the last that its own timeline tells was over for a day: what sets off an
/// incident may well come before the incident.
fn was_finished_before(
    spec: &PostmortemSpec,
    status: Option<&PostmortemStatus>,
    began: Option<Timestamp>,
) -> bool {
    let Some(began) = began else { return false };
    let last = spec.timeline.iter().map(|entry| entry.time.0).max();
    let reviewed = status.and_then(|s| s.review.as_ref()).map(|r| r.time.0);
    last.is_some_and(|last| began.duration_since(last) > SignedDuration::from_hours(24))
        || reviewed.is_some_and(|reviewed| reviewed < began)
}

/// Whether a record is that of another incident than the one that the spec names.
pub(super) fn is_of_another(recorded: &IncidentSnapshot, spec: &PostmortemSpec) -> bool {
    let Some(named) = &spec.incident_ref else { return true };
    let other_uid =
        named.uid.as_ref().zip(recorded.uid.as_ref()).is_some_and(|(named, known)| named != known);
    named.name != recorded.name || other_uid
}

/// Who leads it.
fn commander(incident: &Incident) -> Option<String> {
    let named = incident.spec.roles.as_ref().and_then(|r| r.incident_commander.as_ref());
    named.map(|name| clip(name, bounds::NAME))
}

/// What found it. An address that has no room is none any more when it is cut; the section on detection has it.
fn links(incident: &Incident) -> Vec<String> {
    let found = incident.spec.detection.iter().filter_map(|d| d.reference.clone());
    found.filter(|link| !link.is_empty() && clip(link, bounds::LINK) == *link).collect()
}

/// How it was found, as far as that was stated.
fn detection_text(detection: &Detection, took: &Durations) -> String {
    let by = match detection.source {
        Some(DetectionSource::Alert) => " by an alert",
        Some(DetectionSource::Monitor) => " by somebody who looked at monitoring",
        Some(DetectionSource::Customer) => " by a customer",
        Some(DetectionSource::Employee) => " by an employee",
        Some(DetectionSource::Other) | None => "",
    };
    let after = took.detect_seconds.filter(|s| *s > 0).map(in_words);
    let after = after.map(|t| format!(" {t} after the impact began")).unwrap_or_default();
    // An address ends the line, so that no full stop becomes part of it.
    let end = detection.reference.as_ref().map_or(".".to_owned(), |r| format!(": {r}"));
    format!("Found{by}{after}{end}")
}

/// The impact as it was stated, in words.
fn impact_text(impact: &Impact) -> Option<String> {
    let mut facts = Vec::new();
    if let Some(tenants) = impact.affected_tenants {
        facts.push(format!("- Affected tenants: {tenants}"));
    }
    if !impact.affected_features.is_empty() {
        facts.push(format!("- Affected features: {}", impact.affected_features.join(", ")));
    }
    if !impact.components.is_empty() {
        let states = impact.components.iter().map(|c| format!("{} ({})", c.name, prose(c.state)));
        facts.push(format!("- Components: {}", states.collect::<Vec<_>>().join(", ")));
    }
    if let Some(risk) = impact.data_at_risk {
        facts.push(format!("- Data at risk: {}", prose(risk)));
    }
    let parts: Vec<String> =
        impact.summary.iter().cloned().chain((!facts.is_empty()).then(|| facts.join("\n"))).collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

/// A value of the API in words.
fn prose(value: impl std::fmt::Debug) -> String {
    in_prose(&format!("{value:?}")).to_lowercase()
}

/// The incident as its spec and status tell it.
pub fn snapshot(incident: &Incident, status: &IncidentStatus) -> IncidentSnapshot {
    let spec = &incident.spec;
    let milestones = status.milestones.clone();
    IncidentSnapshot {
        name: incident.metadata.name.clone().unwrap_or_default(),
        uid: incident.metadata.uid.clone(),
        title: clip(&spec.title, bounds::TITLE),
        severity: spec.severity,
        service: spec.service.as_ref().map(|service| clip(service, bounds::NAME)),
        drill: spec.drill.filter(|drill| *drill),
        commander: commander(incident),
        roles: status.roles.clone(),
        impact: spec.impact.as_ref().map(bounds::impact),
        started_time: milestones.started_time,
        detected_time: milestones.detected_time,
        acknowledged_time: milestones.acknowledged_time,
        triaged_time: milestones.triaged_time,
        mitigated_time: milestones.mitigated_time,
        resolved_time: milestones.resolved_time,
        mitigations: status.mitigations.iter().filter_map(|m| mitigation(incident, m)).collect(),
        timeline_archive: status.timeline_archive.clone(),
    }
}

/// A rehearsal is none.
fn mitigation(incident: &Incident, summary: &MitigationSummary) -> Option<MitigationRecord> {
    if summary.dry_run == Some(true) {
        return None;
    }
    let name = summary.entry.clone().unwrap_or_else(|| summary.name.clone());
    let waivers = incident.spec.resolution.iter().flat_map(|r| &r.waivers);
    let waiver = waivers.into_iter().find(|w| w.mitigation == name || w.mitigation == summary.name);
    Some(MitigationRecord {
        name,
        uid: summary.uid.clone(),
        action: summary.action.clone(),
        target: summary.target.clone(),
        reason: summary.reason.clone(),
        change: summary.change.clone(),
        phase: summary.phase,
        applied_time: summary.applied_time.clone(),
        effective_time: summary.effective_time.clone(),
        released_time: summary.released_time.clone(),
        undone_by: summary.undone_by.clone(),
        waiver: waiver.map(|w| clip(&w.reason, bounds::SENTENCE)),
    })
}

/// How long things took; all of them count from the start of the impact.
pub fn durations(m: &Milestones) -> Durations {
    let between = |from: &Option<Time>, to: &Option<Time>| {
        let (from, to) = (from.as_ref()?, to.as_ref()?);
        Some((to.0.as_second() - from.0.as_second()).max(0))
    };
    Durations {
        detect_seconds: between(&m.started_time, &m.detected_time),
        acknowledge_seconds: between(&m.started_time, &m.acknowledged_time),
        mitigate_seconds: between(&m.started_time, &m.mitigated_time),
        resolve_seconds: between(&m.started_time, &m.resolved_time),
    }
}

/// When the impact began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub end: Option<Timestamp>,
    /// True when there is no record of an incident and the first and last entry that people wrote stand in.
    pub from_timeline: bool,
}

/// Beginning and end: from the record of the incident, and from the curated timeline where there is no record,
/// as for an outage before the operator existed.
pub fn span(postmortem: &Postmortem) -> Span {
    span_of(&postmortem.spec, postmortem.status.as_ref())
}

/// The same, with another status than the one that the postmortem has.
pub(super) fn span_of(spec: &PostmortemSpec, status: Option<&PostmortemStatus>) -> Span {
    if let Some(known) = status.and_then(|s| s.incident.as_ref()) {
        let start = known.started_time.as_ref().or(known.detected_time.as_ref()).map(|t| t.0);
        return Span { start, end: known.resolved_time.as_ref().map(|t| t.0), from_timeline: false };
    }
    let times = || spec.timeline.iter().map(|e| e.time.0);
    let (start, end) = (times().min(), times().max());
    Span { start, end: end.filter(|end| Some(*end) != start), from_timeline: start.is_some() }
}

/// The durations that are recorded, or the one that the curated timeline gives where nothing is recorded.
pub fn known_durations(postmortem: &Postmortem) -> Durations {
    let status = postmortem.status.as_ref();
    if status.is_some_and(|s| s.incident.is_some()) {
        return status.and_then(|s| s.durations.clone()).unwrap_or_default();
    }
    let Span { start, end, .. } = span(postmortem);
    let resolve_seconds = start.zip(end).map(|(start, end)| end.as_second() - start.as_second());
    Durations { resolve_seconds, ..Durations::default() }
}

/// A length of time as people say it: `38m`, `1h 6m`, `2d 3h`.
pub fn in_words(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let said: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    if said.is_empty() { "0s".to_owned() } else { said.join(" ") }
}

/// A name of the API in words: `MitigationApplied` is "Mitigation applied". What is no such name stays as it is.
pub fn in_prose(name: &str) -> Cow<'_, str> {
    let is_name =
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphabetic());
    if !is_name || name.chars().skip(1).all(|c| !c.is_ascii_lowercase()) {
        return Cow::Borrowed(name);
    }
    let mut words = String::with_capacity(name.len() + 4);
    for (index, c) in name.char_indices() {
        if index > 0 && c.is_ascii_uppercase() {
            words.push(' ');
            words.push(c.to_ascii_lowercase());
        } else {
            words.push(c);
        }
    }
    Cow::Owned(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{MitigationPhase, TimelineArchive};
    use serde_json::json;

    fn incident() -> Incident {
        serde_json::from_value(json!({
            "apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
            "metadata": {"name": "checkout-errors", "namespace": "shop", "uid": "u1"},
            "spec": {
                "title": "Checkout returns 500", "severity": "SEV1", "service": "checkout", "drill": false,
                "roles": {"incidentCommander": "alice"},
                "detection": {"source": "Alert", "reference": "https://alerts.example.com/1"},
                "impact": {"summary": "40 % of checkouts fail", "affectedTenants": 120,
                    "components": [{"name": "checkout", "state": "PartialOutage"}]},
                "mitigations": [
                    {"name": "stop", "reason": "it floods the database", "scale": {"replicas": 0},
                        "targetRef": {"kind": "Deployment", "name": "importer"}},
                    {"name": "rehearsal", "reason": "see what would change", "dryRun": true,
                        "scale": {"replicas": 0}, "targetRef": {"kind": "Deployment", "name": "importer"}}],
                "resolution": {"summary": "limited the importer",
                    "waivers": [{"mitigation": "stop", "reason": "the import runs next week"}]},
            },
            "status": {
                "milestones": {"startedTime": "2026-11-23T10:00:00Z", "detectedTime": "2026-11-23T10:06:00Z",
                    "acknowledgedTime": "2026-11-23T10:08:00Z", "mitigatedTime": "2026-11-23T10:20:00Z",
                    "resolvedTime": "2026-11-23T11:06:00Z"},
                "roles": [{"role": "IncidentCommander", "holder": "alice", "fromTime": "2026-11-23T10:07:00Z"}],
                "mitigations": [
                    {"name": "checkout-errors-stop", "entry": "stop", "uid": "m1", "action": "scale",
                        "target": "Deployment/importer", "reason": "it floods the database",
                        "change": "spec.replicas from 3 to 0", "phase": "Active",
                        "appliedTime": "2026-11-23T10:19:00Z", "effectiveTime": "2026-11-23T10:20:00Z"},
                    {"name": "checkout-errors-rehearsal", "entry": "rehearsal", "uid": "m2", "action": "scale",
                        "target": "Deployment/importer", "phase": "Pending", "dryRun": true}],
                "timelineArchive": {"configMaps": 2, "entries": 200},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_draft_holds_what_is_known_and_leaves_what_people_must_write_missing() {
        let incident = incident();
        let draft = draft(&incident, incident.status.as_ref().unwrap());
        assert_eq!(draft.metadata.owner_references, None);
        assert_eq!(draft.spec.owner.as_deref(), Some("alice"));
        let impact = draft.spec.impact.unwrap();
        assert!(impact.starts_with("40 % of checkouts fail\n\n- Affected tenants: 120\n"), "{impact}");
        assert_eq!(
            draft.spec.detection.as_deref(),
            Some("Found by an alert 6m after the impact began: https://alerts.example.com/1")
        );
        assert_eq!((draft.spec.summary, draft.spec.root_causes, draft.spec.went_well), (None, None, None));
        let took = draft.status.unwrap().durations.unwrap();
        let expected = Durations {
            detect_seconds: Some(360),
            acknowledge_seconds: Some(480),
            mitigate_seconds: Some(1200),
            resolve_seconds: Some(3960),
        };
        assert_eq!(took, expected);
    }

    #[test]
    fn a_postmortem_without_a_uid_is_about_the_first_incident_of_its_name_and_no_later_one() {
        let about = |named: Option<&str>, recorded: Option<&str>, uid: &str| {
            let mut p = Postmortem::new("p", PostmortemSpec::default());
            let named = named.map(str::to_owned);
            p.spec.incident_ref = Some(IncidentRef { name: "checkout-errors".into(), uid: named });
            let (name, recorded) = ("checkout-errors".to_owned(), recorded.map(str::to_owned));
            let incident =
                recorded.map(|uid| IncidentSnapshot { name, uid: Some(uid), ..Default::default() });
            p.status = Some(PostmortemStatus { incident, ..PostmortemStatus::default() });
            assert!(!is_about(&p, "another", Some(&uid.to_owned()), None));
            is_about(&p, "checkout-errors", Some(&uid.to_owned()), None)
        };
        assert!(about(None, None, "u1") && about(None, Some("u1"), "u1") && about(Some("u1"), None, "u1"));
        assert!(!about(None, Some("u1"), "u2") && !about(Some("u1"), None, "u2"));
        assert!(about(Some("u2"), Some("u1"), "u2"), "what the spec says counts");
    }

    #[test]
    fn the_uid_of_another_incidents_record_tells_nothing_about_the_one_that_is_named_now() {
        let mut p = Postmortem::new("p", PostmortemSpec::default());
        p.spec.incident_ref = Some(IncidentRef { name: "checkout-errors".into(), uid: None });
        let incident = IncidentSnapshot { name: "d2".into(), uid: Some("u2".into()), ..Default::default() };
        p.status = Some(PostmortemStatus { incident: Some(incident), ..PostmortemStatus::default() });
        assert!(is_about(&p, "checkout-errors", Some(&"u1".to_owned()), None));
        assert!(!is_about(&p, "d2", Some(&"u2".to_owned()), None));
    }

    #[test]
    fn what_was_finished_before_an_incident_began_is_about_an_earlier_one_unless_it_names_the_uid() {
        let began: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let about = |uid: Option<&str>, last: &str, reviewed: Option<&str>| {
            let spec = json!({"incidentRef": {"name": "checkout", "uid": uid},
                "timeline": [{"time": "2020-01-01T00:00:00Z", "message": "a"}, {"time": last, "message": "b"}]});
            let mut p = Postmortem::new("p", serde_json::from_value(spec).unwrap());
            let review = reviewed.map(|time| json!({"by": "bob", "authenticated": true, "time": time}));
            p.status = serde_json::from_value(json!({"review": review})).unwrap();
            is_about(&p, "checkout", Some(&"u1".to_owned()), Some(began))
        };
        assert!(!about(None, "2024-03-01T10:00:00Z", None), "it is over for years");
        assert!(about(None, "2026-11-22T10:00:00Z", None), "what set it off");
        assert!(about(None, "2026-11-23T11:00:00Z", None));
        assert!(!about(None, "2026-11-23T11:00:00Z", Some("2026-11-23T09:59:59Z")));
        assert!(about(None, "2026-11-23T11:00:00Z", Some("2026-11-23T12:00:00Z")));
        assert!(about(Some("u1"), "2024-03-01T10:00:00Z", Some("2024-03-05T10:00:00Z")), "somebody says so");
    }

    #[test]
    fn the_record_tells_what_each_mitigation_changed_why_and_whether_it_worked_and_dry_runs_are_none() {
        let incident = incident();
        let known = snapshot(&incident, incident.status.as_ref().unwrap());
        assert_eq!(known.drill, None);
        assert_eq!(
            known.timeline_archive,
            Some(TimelineArchive { config_maps: 2, entries: 200, lost: None })
        );
        let [stop] = known.mitigations.as_slice() else { panic!("{:?}", known.mitigations) };
        assert_eq!((stop.name.as_str(), stop.phase), ("stop", MitigationPhase::Active));
        assert_eq!(stop.change.as_deref(), Some("spec.replicas from 3 to 0"));
        assert_eq!(stop.reason.as_deref(), Some("it floods the database"));
        assert_eq!(stop.waiver.as_deref(), Some("the import runs next week"));
        assert!(stop.applied_time.is_some() && stop.effective_time.is_some());
    }

    #[test]
    fn without_an_incident_the_curated_timeline_gives_beginning_end_and_duration() {
        let spec = json!({"timeline": [
            {"time": "2018-10-21T23:03:00Z", "message": "green"},
            {"time": "2018-10-21T22:52:00Z", "message": "partition"}]});
        let old = Postmortem::new("github", serde_json::from_value(spec).unwrap());
        assert_eq!(known_durations(&old).resolve_seconds, Some(660));
        assert!(span(&old).from_timeline);
        let empty = Postmortem::new("empty", PostmortemSpec::default());
        assert_eq!(span(&empty), Span { start: None, end: None, from_timeline: false });
    }

    #[test]
    fn lengths_of_time_are_said_as_people_say_them() {
        let said = [0, 45, 390, 2280, 3960, 86_400, 97_260, -5].map(in_words);
        assert_eq!(said, ["0s", "45s", "6m 30s", "38m", "1h 6m", "1d", "1d 3h", "0s"]);
    }
}
