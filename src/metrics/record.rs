//! What is measured of each open incident, and how long incidents took.

use crate::{
    api::{ChecklistState, Incident, Milestones, Stage},
    decide::postmortem::durations,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
};

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Subject {
    namespace: String,
    name: String,
    severity: String,
    drill: String,
}

/// A milestone of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MilestoneLabels {
    namespace: String,
    name: String,
    severity: String,
    drill: String,
    milestone: &'static str,
}

/// An audience of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Audience {
    namespace: String,
    name: String,
    severity: String,
    drill: String,
    audience: String,
}

/// How long something took.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Took {
    severity: String,
    drill: String,
}

type Times = Family<Took, Histogram, fn() -> Histogram>;

/// Of open incidents, set when metrics are read; and how long incidents took, since the process began.
pub struct Record {
    pub(super) milestones: Family<MilestoneLabels, Gauge>,
    pub(super) next_due: Family<Audience, Gauge>,
    pub(super) missed: Family<Audience, Gauge>,
    pub(super) checklist_overdue: Family<Subject, Gauge>,
    pub(super) detect: Times,
    pub(super) acknowledge: Times,
    pub(super) mitigate: Times,
    pub(super) resolve: Times,
}

/// From a minute to three days.
const BUCKETS: [f64; 12] =
    [60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0, 259_200.0];

impl Default for Record {
    fn default() -> Self {
        let new: fn() -> Histogram = || Histogram::new(BUCKETS);
        let times = || Times::new_with_constructor(new);
        Record {
            milestones: Family::default(),
            next_due: Family::default(),
            missed: Family::default(),
            checklist_overdue: Family::default(),
            detect: times(),
            acknowledge: times(),
            mitigate: times(),
            resolve: times(),
        }
    }
}

fn severity(incident: &Incident) -> String {
    incident.spec.severity.map_or("unstated".to_owned(), |s| s.to_string())
}

fn drill(incident: &Incident) -> String {
    (incident.spec.drill == Some(true)).to_string()
}

impl Record {
    /// Forgets what was set.
    pub fn clear(&self) {
        self.milestones.clear();
        self.next_due.clear();
        self.missed.clear();
        self.checklist_overdue.clear();
    }

    /// Sets what is known of an incident, unless it is over: series of closed ones would never end.
    pub fn set(&self, incident: &Incident, now: Timestamp) {
        let Some(status) = &incident.status else { return };
        if matches!(status.stage, None | Some(Stage::Closed | Stage::Cancelled)) {
            return;
        }
        let (namespace, name) = (incident.namespace().unwrap_or_default(), incident.name_any());
        let (severity, drill) = (severity(incident), drill(incident));
        let m = &status.milestones;
        for (milestone, time) in [
            ("started", &m.started_time),
            ("detected", &m.detected_time),
            ("acknowledged", &m.acknowledged_time),
            ("triaged", &m.triaged_time),
            ("mitigated", &m.mitigated_time),
            ("resolved", &m.resolved_time),
        ] {
            if let Some(time) = time {
                let labels = MilestoneLabels {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    severity: severity.clone(),
                    drill: drill.clone(),
                    milestone,
                };
                self.milestones.get_or_create(&labels).set(time.0.as_second());
            }
        }
        for clock in &status.communication {
            let labels = Audience {
                namespace: namespace.clone(),
                name: name.clone(),
                severity: severity.clone(),
                drill: drill.clone(),
                audience: format!("{:?}", clock.audience),
            };
            if let Some(due) = &clock.next_due_time {
                self.next_due.get_or_create(&labels).set(due.0.as_second());
            }
            self.missed.get_or_create(&labels).set(i64::from(clock.overdue_count.unwrap_or_default()));
        }
        // What is still open once it is resolved, nobody has to do any more.
        let open = status.checklist.iter().filter(|i| i.state == ChecklistState::Todo);
        let open = open.filter(|_| status.stage != Some(Stage::Postmortem));
        let overdue = open.filter(|i| i.due_time.as_ref().is_some_and(|due| due.0 <= now)).count();
        let labels = Subject { namespace, name, severity, drill };
        self.checklist_overdue.get_or_create(&labels).set(i64::try_from(overdue).unwrap_or(i64::MAX));
    }

    /// Counts what a write of the status made known: the milestones that are reached with it.
    pub fn reached(&self, before: &Incident, after: &Incident) {
        let Some(new) = after.status.as_ref() else { return };
        let none = Milestones::default();
        let old = before.status.as_ref().map_or(&none, |s| &s.milestones);
        let labels = Took { severity: severity(after), drill: drill(after) };
        let took = durations(&new.milestones);
        let count = |times: &Times, seconds: Option<i64>| {
            if let Some(seconds) = seconds {
                // Whole seconds, well within what a float holds exactly.
                times.get_or_create(&labels).observe(seconds.max(0) as f64);
            }
        };
        if old.acknowledged_time.is_none() && new.milestones.acknowledged_time.is_some() {
            count(&self.acknowledge, took.acknowledge_seconds);
            count(&self.detect, took.detect_seconds);
        }
        if old.mitigated_time.is_none() && new.milestones.mitigated_time.is_some() {
            count(&self.mitigate, took.mitigate_seconds);
        }
        // A mitigation that was undone is told as a reopening, too: only an earlier resolution was counted.
        let resolutions = new.timeline.iter().filter(|r| r.reason == "Resolved").count();
        if old.resolved_time.is_none() && new.milestones.resolved_time.is_some() && resolutions < 2 {
            count(&self.resolve, took.resolve_seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn incident(status: Value) -> Incident {
        serde_json::from_value(json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
            "metadata": {"name": "a", "namespace": "shop"}, "spec": {"title": "t", "severity": "SEV1"}, "status": status}))
        .unwrap()
    }

    fn text(record: &Record) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("milestone", "", record.milestones.clone());
        registry.register("due", "", record.next_due.clone());
        registry.register("overdue", "", record.checklist_overdue.clone());
        registry.register("resolve", "", record.resolve.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn open_incidents_have_series_and_closed_ones_have_none() {
        let record = Record::default();
        let now: Timestamp = "2026-11-23T10:30:00Z".parse().unwrap();
        let mut status = json!({"stage": "Triage", "milestones": {"detectedTime": "2026-11-23T10:00:00Z"},
            "communication": [{"audience": "Internal", "nextDueTime": "2026-11-23T10:15:00Z", "overdueCount": 1}],
            "checklist": [{"name": "a", "description": "d", "dueTime": "2026-11-23T10:15:00Z"},
                {"name": "b", "description": "d", "dueTime": "2026-11-23T10:45:00Z"},
                {"name": "c", "description": "d", "dueTime": "2026-11-23T10:15:00Z", "state": "Done"},
                {"name": "d", "description": "d", "dueTime": "2026-11-23T10:15:00Z", "state": "NotNeeded"}]});
        record.set(&incident(status.clone()), now);
        let labels = r#"namespace="shop",name="a",severity="SEV1",drill="false""#;
        for line in [
            format!("milestone{{{labels},milestone=\"detected\"}} 1795428000"),
            format!("due{{{labels},audience=\"Internal\"}} 1795428900"),
            format!("overdue{{{labels}}} 1"),
        ] {
            assert!(text(&record).contains(&line), "{line}\n{}", text(&record));
        }
        record.clear();
        status["stage"] = json!("Postmortem");
        record.set(&incident(status.clone()), now);
        assert!(text(&record).contains(&format!("overdue{{{labels}}} 0")), "{}", text(&record));
        record.clear();
        status["stage"] = json!("Closed");
        record.set(&incident(status), now);
        assert!(!text(&record).contains("shop"));
    }

    #[test]
    fn a_resolution_counts_once_and_not_again_after_a_reopening() {
        let status = |reasons: &[&str]| {
            let entry = |reason| {
                json!({"time": "2026-11-23T10:05:00Z", "recordedTime": "2026-11-23T10:05:00Z",
                "reason": reason, "message": "m"})
            };
            json!({"milestones": {"startedTime": "2026-11-23T10:00:00Z", "resolvedTime": "2026-11-23T10:10:00Z"},
                "timeline": reasons.iter().map(entry).collect::<Vec<_>>()})
        };
        let open = incident(json!({"milestones": {"startedTime": "2026-11-23T10:00:00Z"}}));
        // What is on record once it is resolved, and whether that is counted.
        for (reasons, counts) in [
            (&["Declared", "Mitigated", "Resolved"][..], true),
            // Somebody undid the mitigation, or it was cancelled for a while; it was not resolved before.
            (&["Mitigated", "Reopened", "Resolved"], true),
            (&["Resolved", "Reopened", "Resolved"], false),
            (&["Mitigated", "Reopened", "Mitigated", "Resolved", "Reopened", "Resolved"], false),
        ] {
            let record = Record::default();
            let resolved = incident(status(reasons));
            record.reached(&open, &resolved);
            record.reached(&resolved, &resolved);
            let text = text(&record);
            let line = "resolve_count{severity=\"SEV1\",drill=\"false\"} 1";
            assert_eq!(text.contains(line), counts, "{reasons:?}: {text}");
            let sum = "resolve_sum{severity=\"SEV1\",drill=\"false\"} 600";
            assert_eq!(text.contains(sum), counts, "{reasons:?}: {text}");
        }
    }
}
