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
mod freshness;
pub mod guard;
mod heard;
mod incident;
mod indexes;
mod invalid;
mod json_patch;
pub mod key;
mod lookout;
mod measure;
mod mitigation;
mod news;
mod notify;
mod orphans;
mod policies;
mod postmortem;
mod queue;
mod renew;
mod run;
mod settings;
mod status;
mod supervise;
mod takes;
mod targets;
mod throttle;
mod transport;
mod watch;
mod way_back;

pub use error::Error;
pub use run::{Options, run};

use crate::{
    api::{Incident, Mitigation, MitigationPolicy, Postmortem, TimelineEntry},
    metrics::Metrics,
};
use cache::Cache;
use events::Events;
use evidence::Evidence;
use indexes::{ENTRY_INDEXES, INCIDENT_INDEXES, MITIGATION_INDEXES, POSTMORTEM_INDEXES, fit, is_over};
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
use targets::Targets;
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
    exports: postmortem::Exports,
    freshness: freshness::Freshness,
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
    /// Whether it may be asked if a Secret exists.
    secret_names: bool,
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
            exports: postmortem::Exports::default(),
            freshness: freshness::Freshness::default(),
            lookouts: Arc::new(Lookouts::new(watches.clone(), queues.mitigations.clone())),
            namespaces: Namespaces::new(watches),
            takes: Takes::default(),
            policies: Cache::new(&[]),
            client,
            incidents: Cache::of_ours(INCIDENT_INDEXES, is_over).fitting(fit),
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
            secret_names: options.secret_names,
            namespace: options.namespace.clone(),
        })
    }

    fn removed(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set is whole after each of its operations.
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment of a time of day; far ahead it is looked at again in between, since wall clocks may be set.
fn moment(time: k8s_openapi::jiff::Timestamp) -> Instant {
    let now = k8s_openapi::jiff::Timestamp::now();
    let wait = std::time::Duration::try_from(time.duration_since(now)).unwrap_or_default();
    // Times of conditions are whole seconds; a little later is never too early.
    Instant::now() + wait.min(std::time::Duration::from_secs(3600)) + std::time::Duration::from_millis(5)
}
