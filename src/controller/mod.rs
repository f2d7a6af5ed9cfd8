//! Carries out what `decide` plans: the only module that talks to the API server for reconciles.
//!
//! One short driver a kind (`incident`, `mitigation`, `postmortem`), and what they share: caches fed by watches
//! and by the answers to our own writes, queues, status writes, Events.

mod access;
pub mod cache;
pub mod client;
mod error;
mod events;
mod evidence;
pub mod guard;
mod incident;
mod invalid;
pub mod key;
mod lookout;
mod mitigation;
mod news;
mod notify;
mod orphans;
mod policies;
mod postmortem;
mod queue;
mod run;
mod settings;
mod status;
mod supervise;
mod takes;
mod targets;
mod watch;
mod way_back;

pub use error::Error;
pub use run::{Options, run};

use crate::{
    api::{
        Incident, Mitigation, MitigationPhase as Phase, MitigationPolicy, Postmortem, PostmortemStatus,
        Stage, TimelineEntry, TimelineEntryType,
    },
    decide::{conditions::status as status_of, mitigation::objects, postmortem::is_open},
    metrics::Metrics,
};
use cache::{Cache, Index, News};
use events::Events;
use evidence::Evidence;
use key::Key;
use kube::Client;
use lookout::Lookouts;
use policies::Namespaces;
use queue::Queue;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use takes::Takes;
use targets::{Targets, index_text};
use tokio::time::Instant;
use way_back::WaysBack;

/// Everything the drivers share.
pub struct Context {
    /// For requests.
    client: Client,
    incidents: Cache<Incident>,
    mitigations: Cache<Mitigation>,
    entries: Cache<TimelineEntry>,
    postmortems: Cache<Postmortem>,
    policies: Cache<MitigationPolicy>,
    namespaces: Namespaces,
    takes: Takes,
    targets: Arc<Targets>,
    lookouts: Arc<Lookouts>,
    evidence: Evidence,
    way_back: WaysBack,
    queues: Queues,
    /// uids of timeline entries that are removed, until the watch says so: one request is enough for each.
    removed: Mutex<HashSet<String>>,
    events: Events,
    metrics: Arc<Metrics>,
    /// Held while gauges are worked out and read.
    measuring: Mutex<()>,
    live: settings::Live,
    notifier: notify::Notifier,
    /// Whether the API server vouches for the authors of requests.
    signed: bool,
    /// Whether MitigationPolicies can be read.
    reads_policies: bool,
    /// The one namespace that is looked after, when it is not all of them.
    namespace: Option<String>,
}

/// One queue a kind that is reconciled.
#[derive(Default)]
struct Queues {
    incidents: Arc<Queue>,
    mitigations: Arc<Queue>,
    policies: Arc<Queue>,
    postmortems: Arc<Queue>,
}

/// Mitigations by the incident they name.
const BY_INCIDENT: usize = 0;
/// Mitigations by the objects that they touch.
const BY_OBJECT: usize = 1;
/// Mitigations that are active, or are being made, by namespace.
const ACTIVE_IN: usize = 2;
/// Mitigations that are not made yet, all under one text.
const WAITING: usize = 3;

const MITIGATION_INDEXES: &[Index<Mitigation>] = &[
    |m| {
        m.spec
            .incident_ref
            .iter()
            .map(|incident| text(m.metadata.namespace.as_ref(), &incident.name))
            .collect()
    },
    |m| {
        let namespace = m.metadata.namespace.as_deref().unwrap_or_default();
        let target = &m.spec.template.target_ref;
        let mut texts = vec![index_text(namespace, &target.kind, &target.name)];
        texts.extend(objects(m).iter().map(|id| index_text(namespace, id.kind.kind, &id.name)));
        texts.dedup();
        texts
    },
    |m| {
        // Nothing is changed by a dry run, nor by the operator where a person acts.
        let counts = m.spec.template.dry_run != Some(true)
            && !matches!(m.spec.template.action, crate::api::Action::Manual(_));
        let phase = m.status.as_ref().and_then(|s| s.phase);
        let active = matches!(phase, Some(Phase::Applying | Phase::Active | Phase::Releasing));
        m.metadata.namespace.iter().filter(|_| counts && active).cloned().collect()
    },
    |m| is_waiting(m).then(String::new).into_iter().collect(),
];

/// Whether it has not been made yet, and may still be.
fn is_waiting(m: &Mitigation) -> bool {
    let status = m.status.as_ref();
    let ended = status.and_then(|s| s.phase).is_some_and(Phase::is_ended);
    !ended && status.is_none_or(|s| s.applied_time.is_none())
}

/// Entries by the mitigation that they approve or reject.
const BY_MITIGATION: usize = 1;
const ENTRY_INDEXES: &[Index<TimelineEntry>] = &[
    |e| vec![text(e.metadata.namespace.as_ref(), &e.spec.incident_ref.name)],
    |e| {
        let judges = matches!(e.spec.type_, TimelineEntryType::Approval | TimelineEntryType::Rejection);
        let named = e.spec.mitigation_ref.iter().filter(|_| judges);
        named.map(|m| text(e.metadata.namespace.as_ref(), &m.name)).collect()
    },
];
const POSTMORTEM_INDEXES: &[Index<Postmortem>] =
    &[|p| p.spec.incident_ref.iter().map(|i| text(p.metadata.namespace.as_ref(), &i.name)).collect()];
/// Incidents by the one of which they are a duplicate.
const BY_ORIGINAL: usize = 0;
/// Incidents by what is counted of them, as words in a row.
const BY_LABELS: usize = 1;

const INCIDENT_INDEXES: &[Index<Incident>] = &[
    |i| i.spec.duplicate_of.iter().map(|d| text(i.metadata.namespace.as_ref(), &d.name)).collect(),
    |i| {
        let stage = i.status.as_ref().and_then(|s| s.stage);
        let stage = stage.map_or("New".to_owned(), |s| s.to_string());
        let severity = i.spec.severity.map_or("unstated".to_owned(), |s| s.to_string());
        vec![format!("{severity} {stage} {}", i.spec.drill == Some(true))]
    },
];

/// Nothing happens to an incident that is over, unless somebody writes to it.
fn is_over(incident: &Incident) -> bool {
    matches!(incident.status.as_ref().and_then(|s| s.stage), Some(Stage::Closed | Stage::Cancelled))
}

fn text(namespace: Option<&String>, name: &str) -> String {
    format!("{}/{name}", namespace.map_or("", String::as_str))
}

impl Context {
    fn new(
        client: Client,
        watches: Client,
        events: Events,
        metrics: Arc<Metrics>,
        notifier: notify::Notifier,
        options: &Options,
    ) -> Arc<Context> {
        let queues = Queues::default();
        Arc::new(Context {
            targets: Arc::new(Targets::new(client.clone(), watches.clone())),
            evidence: Evidence::new(client.clone(), queues.mitigations.clone()),
            way_back: WaysBack::default(),
            lookouts: Arc::new(Lookouts::new(watches.clone(), queues.mitigations.clone())),
            namespaces: Namespaces::new(watches),
            takes: Takes::default(),
            policies: Cache::new(&[]),
            client,
            incidents: Cache::of_ours(INCIDENT_INDEXES, is_over),
            mitigations: Cache::of_ours(MITIGATION_INDEXES, |_| false),
            entries: Cache::of_ours(ENTRY_INDEXES, |_| false),
            postmortems: Cache::of_ours(POSTMORTEM_INDEXES, |_| false),
            queues,
            removed: Mutex::default(),
            events,
            metrics,
            measuring: Mutex::default(),
            live: settings::Live::new(options.config.clone()),
            notifier,
            signed: options.signed,
            reads_policies: options.policies,
            namespace: options.namespace.clone(),
        })
    }

    // What each piece of news makes worth looking at. `own` is true for the answer to a write of the object's
    // own driver, which goes on by itself.

    fn heard_of_incident(&self, news: &News<Incident>, own: bool) {
        let (News::Changed(incident) | News::Gone(incident)) = news;
        let key = Key::of(incident.as_ref());
        if let News::Gone(_) = news {
            self.way_back.forget(incident.metadata.uid.as_ref());
        }
        if !own {
            self.queues.incidents.add(key.clone());
        }
        for duplicate in self.incidents.group(BY_ORIGINAL, &key.to_string()) {
            self.queues.incidents.add(Key::of(duplicate.as_ref()));
        }
        let releases = crate::decide::incident::releases(incident).is_some();
        // Whether somebody must approve follows from the severity.
        let asks = self.policies.all().iter().any(|policy| !policy.spec.approval.is_empty());
        for mitigation in self.mitigations.group(BY_INCIDENT, &key.to_string()) {
            let awaits = asks && is_waiting(&mitigation);
            if releases || awaits || mitigation.metadata.deletion_timestamp.is_some() {
                self.queues.mitigations.add(Key::of(mitigation.as_ref()));
            }
        }
        // Also when the resolution was taken back.
        for postmortem in self.postmortems.group(0, &key.to_string()) {
            self.queues.postmortems.add(Key::of(postmortem.as_ref()));
        }
    }

    fn heard_of_mitigation(&self, news: &News<Mitigation>, own: bool) {
        let (News::Changed(mitigation) | News::Gone(mitigation)) = news;
        let key = Key::of(mitigation.as_ref());
        if !own {
            self.queues.mitigations.add(key.clone());
        }
        if let Some(incident) = &mitigation.spec.incident_ref {
            self.queues.incidents.add(Key::new(&key.namespace, &incident.name));
        }
        let ended = mitigation.status.as_ref().and_then(|s| s.phase).is_some_and(|p| p.is_ended());
        if matches!(news, News::Gone(_)) {
            self.takes.remember(mitigation);
        }
        if ended || matches!(news, News::Gone(_)) {
            self.one_counts_no_more(&key.namespace);
            // Others may wait for the field.
            for id in objects(mitigation) {
                self.wake_mitigations_of(&index_text(&key.namespace, id.kind.kind, &id.name), Some(&key));
            }
        }
    }

    /// One mitigation of the namespace does not count among the active ones any more: others may wait for that. One that
    /// found no room a moment ago has not said so yet, so all are looked at that are not made.
    fn one_counts_no_more(&self, namespace: &str) {
        if self.policies.all().iter().any(|policy| policy.spec.max_active.is_some()) {
            self.wake_waiting(namespace);
        }
    }

    fn removed(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set is whole after each of its operations.
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard_of_entry(&self, news: &News<TimelineEntry>) {
        let (News::Changed(entry) | News::Gone(entry)) = news;
        let key = Key::of(entry.as_ref());
        if let (News::Gone(_), Some(uid)) = (news, &entry.metadata.uid) {
            self.removed().remove(uid);
        }
        self.queues.incidents.add(Key::new(&key.namespace, &entry.spec.incident_ref.name));
        if let Some(mitigation) = &entry.spec.mitigation_ref {
            self.queues.mitigations.add(Key::new(&key.namespace, &mitigation.name));
        }
    }

    fn heard_of_postmortem(&self, news: &News<Postmortem>, own: bool) {
        let (News::Changed(postmortem) | News::Gone(postmortem)) = news;
        let key = Key::of(postmortem.as_ref());
        if let Some(incident) = &postmortem.spec.incident_ref {
            let incident = Key::new(&key.namespace, &incident.name);
            self.queues.incidents.add(incident.clone());
            let seen = postmortem.status.as_ref().and_then(|s| s.observed_generation);
            if matches!(news, News::Gone(_)) || seen != postmortem.metadata.generation {
                // Each of those that are about one incident says which one counts.
                for other in self.postmortems.group(0, &incident.to_string()) {
                    self.queues.postmortems.add(Key::of(other.as_ref()));
                }
            }
        }
        if !own {
            self.queues.postmortems.add(key);
        }
    }

    /// Looks at the mitigations of a target that have not ended.
    fn wake_mitigations_of(&self, target: &str, except: Option<&Key>) {
        for mitigation in self.mitigations.group(BY_OBJECT, target) {
            let ended = mitigation.status.as_ref().and_then(|s| s.phase).is_some_and(|p| p.is_ended());
            let key = Key::of(mitigation.as_ref());
            if !ended && Some(&key) != except {
                self.queues.mitigations.add(key);
            }
        }
    }

    /// True when a mitigation of the target has not been taken yet.
    fn has_waiting(&self, target: &str) -> bool {
        self.mitigations.group(BY_OBJECT, target).iter().any(|m| {
            let status = m.status.as_ref();
            m.metadata.deletion_timestamp.is_none()
                && status.and_then(|s| s.phase).is_none_or(|p| !p.is_ended())
                && status.is_none_or(|s| s.applied_time.is_none())
        })
    }

    /// The text that a scraper reads. One at a time: the gauges are worked out anew for each.
    fn metrics_text(&self) -> String {
        // The gauges are set anew whatever was left of them.
        let _alone = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        self.measure();
        self.metrics.render()
    }

    /// Sets the gauges that are worked out when metrics are read.
    fn measure(&self) {
        let queues = &self.queues;
        self.metrics.set_depth("incident", queues.incidents.depth());
        self.metrics.set_depth("mitigation", queues.mitigations.depth());
        self.metrics.set_depth("policy", queues.policies.depth());
        self.metrics.set_depth("postmortem", queues.postmortems.depth());
        self.metrics.set_channels(&self.notifier.channels(&self.settings().channels));
        self.metrics.incidents.clear();
        for (words, count) in self.incidents.sizes(BY_LABELS) {
            let mut words = words.split(' ').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            let labels = crate::metrics::IncidentLabels { severity: next(), stage: next(), drill: next() };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.incidents.get_or_create(&labels).set(count);
        }
        self.metrics.record.clear();
        let now = k8s_openapi::jiff::Timestamp::now();
        for key in self.incidents.not_at_rest() {
            if let Some(incident) = self.incidents.get(&key) {
                self.metrics.record.set(&incident, now);
            }
        }
        self.metrics.mitigations.clear();
        for mitigation in self.mitigations.all() {
            let labels = crate::metrics::MitigationLabels {
                action: mitigation.spec.template.action.name().as_str(),
                phase: mitigation.status.as_ref().and_then(|s| s.phase).unwrap_or_default().to_string(),
            };
            self.metrics.mitigations.get_or_create(&labels).inc();
        }
        self.metrics.postmortems.clear();
        self.metrics.action_items.clear();
        for postmortem in self.postmortems.all() {
            self.measure_postmortem(&postmortem);
        }
    }
}

impl Context {
    fn measure_postmortem(&self, postmortem: &Postmortem) {
        let namespace = postmortem.metadata.namespace.clone().unwrap_or_default();
        let none = PostmortemStatus::default();
        let status = postmortem.status.as_ref().unwrap_or(&none);
        let drill = status.incident.as_ref().is_some_and(|i| i.drill == Some(true)).to_string();
        let is = |type_| status_of(&status.conditions, type_) == crate::api::ConditionStatus::True;
        let labels = crate::metrics::PostmortemLabels {
            namespace: namespace.clone(),
            state: format!("{:?}", postmortem.spec.state.unwrap_or_default()),
            reviewed: is("Reviewed").to_string(),
            overdue: is("Overdue").to_string(),
            drill: drill.clone(),
        };
        self.metrics.postmortems.get_or_create(&labels).inc();
        for item in postmortem.spec.action_items.iter().filter(|item| is_open(item)) {
            let labels = crate::metrics::ActionItemLabels {
                namespace: namespace.clone(),
                priority: item.priority.map_or("unstated".to_owned(), |p| format!("{p:?}")),
                overdue: status.overdue_action_items.contains(&item.id).to_string(),
                drill: drill.clone(),
            };
            self.metrics.action_items.get_or_create(&labels).inc();
        }
    }
}

/// The moment of a time of day; far ahead it is looked at again in between, since wall clocks may be set.
fn moment(time: k8s_openapi::jiff::Timestamp) -> Instant {
    let now = k8s_openapi::jiff::Timestamp::now();
    let wait = std::time::Duration::try_from(time.duration_since(now)).unwrap_or_default();
    // Times of conditions are whole seconds; a little later is never too early.
    Instant::now() + wait.min(std::time::Duration::from_secs(3600)) + std::time::Duration::from_millis(5)
}
