//! What is told of each open incident. It is worked out while it is read and nothing of it is kept: several series for each
//! of thousands would take more memory than the incidents themselves.

use crate::{
    api::{ChecklistState, Incident, IncidentStatus, Stage},
    metrics::docs,
};
use k8s_openapi::jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder},
    metrics::MetricType,
};
use std::{fmt, sync::Arc};

/// The incidents as they were when the reading began.
#[derive(Debug)]
pub struct OpenIncidents {
    incidents: Vec<Arc<Incident>>,
    now: Timestamp,
}

/// Severity as a label.
pub(super) fn severity(incident: &Incident) -> String {
    incident.spec.severity.map_or("unstated".to_owned(), |s| s.to_string())
}

/// Whether it is a drill, as a label.
pub(super) fn drill(incident: &Incident) -> &'static str {
    if incident.spec.drill == Some(true) { "true" } else { "false" }
}

type Label<'a> = (&'static str, &'a str);

/// The labels of every series of an incident.
struct Subject<'a> {
    namespace: &'a str,
    name: &'a str,
    severity: String,
    drill: &'static str,
}

impl Subject<'_> {
    fn labels(&self) -> [Label<'_>; 4] {
        [
            ("namespace", self.namespace),
            ("name", self.name),
            ("severity", &self.severity),
            ("drill", self.drill),
        ]
    }

    fn and<'a>(&'a self, key: &'static str, value: &'a str) -> [Label<'a>; 5] {
        let [namespace, name, severity, drill] = self.labels();
        [namespace, name, severity, drill, (key, value)]
    }
}

fn set(series: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: i64) -> fmt::Result {
    series.encode_family(labels)?.encode_gauge(&value)
}

impl OpenIncidents {
    /// Of these, those that are over are left out: series of closed ones would never end.
    pub fn new(incidents: Vec<Arc<Incident>>, now: Timestamp) -> Self {
        OpenIncidents { incidents, now }
    }

    /// Writes one metric: the series of one incident after the other.
    fn each(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        metric: &'static str,
        tell: impl Fn(&mut MetricEncoder<'_>, &Subject<'_>, &IncidentStatus) -> fmt::Result,
    ) -> fmt::Result {
        // Those that are registered get a full stop from the library.
        let help = format!("{}.", docs::help(metric));
        let mut series = encoder.encode_descriptor(metric, &help, None, MetricType::Gauge)?;
        for incident in &self.incidents {
            let Some(status) = &incident.status else { continue };
            if matches!(status.stage, None | Some(Stage::Closed | Stage::Cancelled)) {
                continue;
            }
            let meta = &incident.metadata;
            let subject = Subject {
                namespace: meta.namespace.as_deref().unwrap_or_default(),
                name: meta.name.as_deref().unwrap_or_default(),
                severity: severity(incident),
                drill: drill(incident),
            };
            tell(&mut series, &subject, status)?;
        }
        Ok(())
    }
}

impl Collector for OpenIncidents {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let milestones = "incident_operator_incident_milestone_timestamp_seconds";
        self.each(&mut encoder, milestones, |series, subject, status| {
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
                    set(series, &subject.and("milestone", milestone), time.0.as_second())?;
                }
            }
            Ok(())
        })?;
        let next_due = "incident_operator_incident_next_due_timestamp_seconds";
        self.each(&mut encoder, next_due, |series, subject, status| {
            for clock in &status.communication {
                if let Some(due) = &clock.next_due_time {
                    let audience = format!("{:?}", clock.audience);
                    set(series, &subject.and("audience", &audience), due.0.as_second())?;
                }
            }
            Ok(())
        })?;
        let missed = "incident_operator_incident_updates_missed";
        self.each(&mut encoder, missed, |series, subject, status| {
            for clock in &status.communication {
                let audience = format!("{:?}", clock.audience);
                let missed = i64::from(clock.overdue_count.unwrap_or_default());
                set(series, &subject.and("audience", &audience), missed)?;
            }
            Ok(())
        })?;
        self.each(&mut encoder, "incident_operator_checklist_overdue", |series, subject, status| {
            // What is still open once it is resolved, nobody has to do any more.
            let open = status.checklist.iter().filter(|i| i.state == ChecklistState::Todo);
            let open = open.filter(|_| status.stage != Some(Stage::Postmortem));
            let overdue = open.filter(|i| i.due_time.as_ref().is_some_and(|due| due.0 <= self.now)).count();
            set(series, &subject.labels(), i64::try_from(overdue).unwrap_or(i64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn text(status: Value) -> String {
        let incident = json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
            "metadata": {"name": "a", "namespace": "shop"}, "spec": {"title": "t", "severity": "SEV1"}, "status": status});
        let incident = Arc::new(serde_json::from_value(incident).unwrap());
        let now: Timestamp = "2026-11-23T10:30:00Z".parse().unwrap();
        let mut text = String::new();
        super::super::render(&mut text, "counted 1\n", OpenIncidents::new(vec![incident], now)).unwrap();
        text
    }

    #[test]
    fn open_incidents_have_series_and_closed_ones_have_none() {
        let mut status = json!({"stage": "Triage", "milestones": {"detectedTime": "2026-11-23T10:00:00Z"},
            "communication": [{"audience": "Internal", "nextDueTime": "2026-11-23T10:15:00Z", "overdueCount": 1}],
            "checklist": [{"name": "a", "description": "d", "dueTime": "2026-11-23T10:15:00Z"},
                {"name": "b", "description": "d", "dueTime": "2026-11-23T10:45:00Z"},
                {"name": "c", "description": "d", "dueTime": "2026-11-23T10:15:00Z", "state": "Done"},
                {"name": "d", "description": "d", "dueTime": "2026-11-23T10:15:00Z", "state": "NotNeeded"}]});
        let labels = r#"namespace="shop",name="a",severity="SEV1",drill="false""#;
        let open = text(status.clone());
        assert!(open.starts_with("counted 1\n# HELP ") && open.ends_with("\n# EOF\n"), "{open}");
        for line in [
            format!(
                "incident_operator_incident_milestone_timestamp_seconds{{{labels},milestone=\"detected\"}} 1795428000\n"
            ),
            format!(
                "incident_operator_incident_next_due_timestamp_seconds{{{labels},audience=\"Internal\"}} 1795428900\n"
            ),
            format!("incident_operator_incident_updates_missed{{{labels},audience=\"Internal\"}} 1\n"),
            format!("incident_operator_checklist_overdue{{{labels}}} 1\n"),
        ] {
            assert!(open.contains(&line), "{line}\n{open}");
        }
        status["stage"] = json!("Postmortem");
        let resolved = text(status.clone());
        assert!(resolved.contains(&format!("checklist_overdue{{{labels}}} 0\n")), "{resolved}");
        status["stage"] = json!("Closed");
        let closed = text(status);
        assert!(!closed.contains("shop"), "{closed}");
    }
}
