//! How long incidents took.

use super::open::{drill, severity};
use crate::{
    api::{Incident, Milestones},
    decide::postmortem::durations,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
};

/// How long something took.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Took {
    severity: String,
    drill: String,
}

type Times = Family<Took, Histogram, fn() -> Histogram>;

/// How long incidents took, since the process began.
pub struct Record {
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
        Record { detect: times(), acknowledge: times(), mitigate: times(), resolve: times() }
    }
}

impl Record {
    /// Counts what a write of the status made known: the milestones that are reached with it.
    pub fn reached(&self, before: &Incident, after: &Incident) {
        let Some(new) = after.status.as_ref() else { return };
        let none = Milestones::default();
        let old = before.status.as_ref().map_or(&none, |s| &s.milestones);
        let labels = Took { severity: severity(after), drill: drill(after).to_owned() };
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
        registry.register("resolve", "", record.resolve.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
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
