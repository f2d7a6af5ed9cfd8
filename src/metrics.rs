//! Metrics, under the names that dashboards for controllers know, and the domain's own. [`docs`] lists them all.

pub mod docs;
mod open;
mod record;

pub use open::OpenIncidents;

use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use record::Record;
use std::{fmt, time::Duration};

/// Labels of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reconcile {
    controller: &'static str,
    result: &'static str,
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Controller {
    controller: &'static str,
}

/// A reconcile that failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failure {
    controller: &'static str,
    category: &'static str,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiRequest {
    method: String,
    code: u16,
}

/// A write to a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Operation {
    action: &'static str,
    operation: &'static str,
    result: &'static str,
}

/// Incidents.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IncidentLabels {
    /// Severity, or "unstated".
    pub severity: String,
    /// Stage.
    pub stage: String,
    /// Whether it is a drill.
    pub drill: String,
}

/// Mitigations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MitigationLabels {
    /// Action.
    pub action: &'static str,
    /// Phase.
    pub phase: String,
}

/// Postmortems.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PostmortemLabels {
    /// Namespace.
    pub namespace: String,
    /// What its spec says.
    pub state: String,
    /// Whether it is complete and reviewed.
    pub reviewed: String,
    /// Whether its review is late.
    pub overdue: String,
    /// Whether it is about a drill.
    pub drill: String,
}

/// Open action items of postmortems.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ActionItemLabels {
    /// Namespace.
    pub namespace: String,
    /// Priority, or "unstated".
    pub priority: String,
    /// Whether its due date has passed.
    pub overdue: String,
    /// Whether it came of a drill.
    pub drill: String,
}

/// An attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabels {
    channel: String,
    result: &'static str,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChannelLabels {
    channel: String,
}

/// A reading of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConfigRead {
    result: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    failures: Family<Failure, Counter>,
    panics: Family<Controller, Counter>,
    times: Family<Controller, Histogram, fn() -> Histogram>,
    requests: Family<ApiRequest, Counter>,
    operations: Family<Operation, Counter>,
    events_dropped: Counter,
    takes_not_kept: Counter,
    config_reads: Family<ConfigRead, Counter>,
    deliveries: Family<DeliveryLabels, Counter>,
    channel_failing: Family<ChannelLabels, Gauge>,
    waiting: Family<ChannelLabels, Gauge>,
    /// How long incidents took.
    pub record: Record,
    config_valid: Gauge,
    leader: Gauge,
    depth: Family<Controller, Gauge>,
    /// Incidents that are not closed, by severity and stage; set when metrics are read.
    pub incidents: Family<IncidentLabels, Gauge>,
    /// Mitigations by action and phase; set when metrics are read.
    pub mitigations: Family<MitigationLabels, Gauge>,
    /// Postmortems by state, and whether they are reviewed or overdue; set when metrics are read.
    pub postmortems: Family<PostmortemLabels, Gauge>,
    /// Open action items by priority, and whether they are overdue; set when metrics are read.
    pub action_items: Family<ActionItemLabels, Gauge>,
}

/// Bounds of the time of a reconcile, those of controller-runtime.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let new_times: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Metrics {
            reconciles: Family::default(),
            failures: Family::default(),
            panics: Family::default(),
            times: Family::new_with_constructor(new_times),
            requests: Family::default(),
            operations: Family::default(),
            events_dropped: Counter::default(),
            takes_not_kept: Counter::default(),
            config_reads: Family::default(),
            deliveries: Family::default(),
            channel_failing: Family::default(),
            waiting: Family::default(),
            record: Record::default(),
            config_valid: Gauge::default(),
            leader: Gauge::default(),
            depth: Family::default(),
            incidents: Family::default(),
            mitigations: Family::default(),
            postmortems: Family::default(),
            action_items: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "controller_runtime_reconcile",
            docs::help("controller_runtime_reconcile"),
            metrics.reconciles.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            docs::help("controller_runtime_reconcile_errors"),
            metrics.failures.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_panics",
            docs::help("controller_runtime_reconcile_panics"),
            metrics.panics.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            docs::help("controller_runtime_reconcile_time_seconds"),
            metrics.times.clone(),
        );
        registry.register(
            "rest_client_requests",
            docs::help("rest_client_requests"),
            metrics.requests.clone(),
        );
        registry.register(
            "incident_operator_mitigation_operations",
            docs::help("incident_operator_mitigation_operations"),
            metrics.operations.clone(),
        );
        registry.register(
            "incident_operator_events_dropped",
            docs::help("incident_operator_events_dropped"),
            metrics.events_dropped.clone(),
        );
        registry.register(
            "incident_operator_takes_not_kept",
            docs::help("incident_operator_takes_not_kept"),
            metrics.takes_not_kept.clone(),
        );
        registry.register(
            "incident_operator_config_reads",
            docs::help("incident_operator_config_reads"),
            metrics.config_reads.clone(),
        );
        registry.register(
            "incident_operator_config_valid",
            docs::help("incident_operator_config_valid"),
            metrics.config_valid.clone(),
        );
        registry.register(
            "incident_operator_deliveries",
            docs::help("incident_operator_deliveries"),
            metrics.deliveries.clone(),
        );
        registry.register(
            "incident_operator_channel_failing",
            docs::help("incident_operator_channel_failing"),
            metrics.channel_failing.clone(),
        );
        registry.register(
            "incident_operator_deliveries_waiting",
            docs::help("incident_operator_deliveries_waiting"),
            metrics.waiting.clone(),
        );
        registry.register("workqueue_depth", docs::help("workqueue_depth"), metrics.depth.clone());
        registry.register(
            "leader_election_master_status",
            docs::help("leader_election_master_status"),
            metrics.leader.clone(),
        );
        registry.register(
            "incident_operator_incidents",
            docs::help("incident_operator_incidents"),
            metrics.incidents.clone(),
        );
        registry.register(
            "incident_operator_mitigations",
            docs::help("incident_operator_mitigations"),
            metrics.mitigations.clone(),
        );
        registry.register(
            "incident_operator_postmortems",
            docs::help("incident_operator_postmortems"),
            metrics.postmortems.clone(),
        );
        registry.register(
            "incident_operator_action_items",
            docs::help("incident_operator_action_items"),
            metrics.action_items.clone(),
        );
        let record = &metrics.record;
        for (name, family) in [
            ("incident_operator_time_to_detect_seconds", &record.detect),
            ("incident_operator_time_to_acknowledge_seconds", &record.acknowledge),
            ("incident_operator_time_to_mitigate_seconds", &record.mitigate),
            ("incident_operator_time_to_resolve_seconds", &record.resolve),
        ] {
            registry.register(name, docs::help(name), family.clone());
        }
        let build: Family<Build, Gauge> = Family::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("incident_operator_build_info", docs::help("incident_operator_build_info"), build);
        Metrics { registry, ..metrics }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

impl Metrics {
    /// A request was answered; code 0 stands for no answer.
    pub fn request(&self, method: &str, code: u16) {
        self.requests.get_or_create(&ApiRequest { method: method.to_owned(), code }).inc();
    }

    /// A reconcile ended well.
    pub fn reconciled(&self, controller: &'static str, took: Duration, later: bool) {
        let result = if later { "requeue_after" } else { "success" };
        self.reconciles.get_or_create(&Reconcile { controller, result }).inc();
        self.times.get_or_create(&Controller { controller }).observe(took.as_secs_f64());
    }

    /// A reconcile failed.
    pub fn failed(&self, controller: &'static str, took: Duration, category: &'static str) {
        self.reconciles.get_or_create(&Reconcile { controller, result: "error" }).inc();
        self.failures.get_or_create(&Failure { controller, category }).inc();
        if category == "panic" {
            self.panics.get_or_create(&Controller { controller }).inc();
        }
        self.times.get_or_create(&Controller { controller }).observe(took.as_secs_f64());
    }

    /// A target was written, or not.
    pub fn operation(&self, action: &'static str, operation: &'static str, result: &'static str) {
        self.operations.get_or_create(&Operation { action, operation, result }).inc();
    }

    /// An Event was not sent.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// When a mitigation that is gone took its target could not be kept.
    pub fn take_not_kept(&self) {
        self.takes_not_kept.inc();
    }

    /// How many objects wait.
    pub fn set_depth(&self, controller: &'static str, depth: usize) {
        self.depth.get_or_create(&Controller { controller }).set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// A message was delivered, or not.
    pub fn delivery(&self, channel: &str, result: &'static str) {
        self.deliveries.get_or_create(&DeliveryLabels { channel: channel.to_owned(), result }).inc();
    }

    /// The channels that there are: how many objects wait for each, and whether it fails.
    pub fn set_channels(&self, channels: &[(&str, usize, bool)]) {
        self.waiting.clear();
        self.channel_failing.clear();
        for &(channel, waiting, fails) in channels {
            let labels = ChannelLabels { channel: channel.to_owned() };
            self.waiting.get_or_create(&labels).set(i64::try_from(waiting).unwrap_or(i64::MAX));
            self.channel_failing.get_or_create(&labels).set(i64::from(fails));
        }
    }

    /// The configuration was read.
    pub fn config_read(&self, valid: bool) {
        let result = if valid { "success" } else { "refused" };
        self.config_reads.get_or_create(&ConfigRead { result }).inc();
        self.config_valid.set(i64::from(valid));
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// What is counted, as a scraper reads it, without what [`render`] adds of each open incident.
    pub fn counted(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode_registry(&mut text, &self.registry);
        text
    }
}

/// Writes the text that a scraper reads: what was counted, and what is told of each open incident.
///
/// # Errors
/// That of the writer.
pub fn render(mut out: &mut dyn fmt::Write, counted: &str, open: OpenIncidents) -> fmt::Result {
    out.write_str(counted)?;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(open));
    encode_registry(&mut out, &registry)?;
    encode_eof(&mut out)
}

#[cfg(test)]
mod tests;
