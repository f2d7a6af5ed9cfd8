//! Every metric, once: its name as a scraper sees it, what it is, its labels and what it tells. Registration takes its
//! help from here, and `docs/metrics.md` is made of it.

/// A metric.
pub struct Doc {
    /// Its name, without the suffix that counters and histograms get.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// A value of now.
    Gauge,
    /// Its names end in `_bucket`, `_sum` and `_count`.
    Histogram,
}

const fn doc(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Doc {
    Doc { name, kind, labels, help }
}

use Kind::{Counter, Gauge, Histogram};

/// All of them.
pub const DOCS: &[Doc] = &[
    doc(
        "incident_operator_incidents",
        Gauge,
        &["severity", "stage", "drill"],
        "Incidents by severity and stage",
    ),
    doc(
        "incident_operator_incident_milestone_timestamp_seconds",
        Gauge,
        &["namespace", "name", "severity", "drill", "milestone"],
        "When an open incident reached a milestone: started, detected, acknowledged, triaged, mitigated, resolved",
    ),
    doc(
        "incident_operator_incident_next_due_timestamp_seconds",
        Gauge,
        &["namespace", "name", "severity", "drill", "audience"],
        "When an audience of an open incident is to be told next",
    ),
    doc(
        "incident_operator_incident_updates_missed",
        Gauge,
        &["namespace", "name", "severity", "drill", "audience"],
        "How often an audience of an open incident was not told in time",
    ),
    doc(
        "incident_operator_checklist_overdue",
        Gauge,
        &["namespace", "name", "severity", "drill"],
        "Items of the checklist of an open incident whose time is over",
    ),
    doc(
        "incident_operator_time_to_detect_seconds",
        Histogram,
        &["severity", "drill"],
        "From the start of the impact to detection, when command was taken",
    ),
    doc(
        "incident_operator_time_to_acknowledge_seconds",
        Histogram,
        &["severity", "drill"],
        "From the start of the impact to the commander's acknowledgement",
    ),
    doc(
        "incident_operator_time_to_mitigate_seconds",
        Histogram,
        &["severity", "drill"],
        "From the start of the impact until it was first mitigated",
    ),
    doc(
        "incident_operator_time_to_resolve_seconds",
        Histogram,
        &["severity", "drill"],
        "From the start of the impact to the resolution; one that is resolved again after a reopening counts once, unless the entry of the earlier resolution has moved to the archive",
    ),
    doc("incident_operator_mitigations", Gauge, &["action", "phase"], "Mitigations by action and phase"),
    doc(
        "incident_operator_mitigation_operations",
        Counter,
        &["action", "operation", "result"],
        "Writes to targets by action, operation and result",
    ),
    doc(
        "incident_operator_postmortems",
        Gauge,
        &["namespace", "state", "reviewed", "overdue", "drill"],
        "Postmortems by state, and whether they are reviewed and whether their review is overdue",
    ),
    doc(
        "incident_operator_action_items",
        Gauge,
        &["namespace", "priority", "overdue", "drill"],
        "Open action items of postmortems by priority, and whether they are overdue",
    ),
    doc(
        "incident_operator_deliveries",
        Counter,
        &["channel", "result"],
        "Attempts to deliver a message: delivered, given_up, or why not (setup, refused, no_answer, throttled, redirect, rejected, error)",
    ),
    doc(
        "incident_operator_deliveries_waiting",
        Gauge,
        &["channel"],
        "Incidents and postmortems with messages that wait for the channel",
    ),
    doc(
        "incident_operator_channel_failing",
        Gauge,
        &["channel"],
        "1 while the last attempt to deliver a message to the channel failed",
    ),
    doc(
        "incident_operator_config_reads",
        Counter,
        &["result"],
        "Readings of the configuration file by result",
    ),
    doc(
        "incident_operator_config_valid",
        Gauge,
        &[],
        "1 while the configuration file is in force as it is, 0 while it is refused and an earlier one is",
    ),
    doc(
        "incident_operator_events_dropped",
        Counter,
        &[],
        "Kubernetes Events that were not sent; the timeline is complete without them",
    ),
    doc(
        "incident_operator_takes_not_kept",
        Counter,
        &[],
        "Mitigations that are gone of which it was not kept when they took their targets; minInterval forgets them at a restart",
    ),
    doc("incident_operator_build_info", Gauge, &["version"], "The version that runs"),
    doc("controller_runtime_reconcile", Counter, &["controller", "result"], "Reconciles by result"),
    doc(
        "controller_runtime_reconcile_errors",
        Counter,
        &["controller", "category"],
        "Reconciles that failed, by category",
    ),
    doc("controller_runtime_reconcile_panics", Counter, &["controller"], "Reconciles that panicked"),
    doc("controller_runtime_reconcile_time_seconds", Histogram, &["controller"], "Time of a reconcile"),
    doc(
        "rest_client_requests",
        Counter,
        &["method", "code"],
        "Requests to the API server; code 0 is no answer",
    ),
    doc("workqueue_depth", Gauge, &["controller"], "Objects that wait to be looked at"),
    doc("leader_election_master_status", Gauge, &[], "1 while this process leads"),
];

/// What a metric tells; the empty text for one that is not in the list, which a test forbids.
pub fn help(name: &str) -> &'static str {
    DOCS.iter().find(|doc| doc.name == name).map_or("", |doc| doc.help)
}

/// The names under which a metric is scraped.
pub fn scraped(doc: &Doc) -> Vec<String> {
    let suffixes: &[&str] = match doc.kind {
        Kind::Counter => &["_total"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["_bucket", "_sum", "_count"],
    };
    suffixes.iter().map(|suffix| format!("{}{suffix}", doc.name)).collect()
}
