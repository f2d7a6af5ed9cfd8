//! MitigationPolicies: which of them hold in a namespace, and what their own status says.
//!
//! The labels of namespaces are watched, as metadata alone, from when the first policy selects by them.

use super::{
    Context, Error, Key,
    cache::{Cache, Index, News},
    client::watch_config,
    indexes::WAITING,
    renew::Renewal,
    status, supervise,
};
use crate::{
    api::{Mitigation, MitigationPolicy},
    decide::policy::{self, InForce},
};
use futures::StreamExt;
use k8s_openapi::{api::core::v1::Namespace, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// Longest wait for the labels of namespaces when they are first needed.
const PATIENCE: Duration = Duration::from_secs(10);

const NO_INDEX: &[Index<PartialObjectMeta<Namespace>>] = &[];

/// The labels of namespaces.
pub struct Namespaces {
    watches: Client,
    cache: Cache<PartialObjectMeta<Namespace>>,
    begun: AtomicBool,
}

impl Namespaces {
    /// Nothing is known yet.
    pub fn new(watches: Client) -> Namespaces {
        Namespaces { watches, cache: Cache::new(NO_INDEX), begun: AtomicBool::new(false) }
    }
}

impl Context {
    /// The policies that hold in a namespace.
    pub(super) async fn policies_in(self: &Arc<Self>, namespace: &str) -> Result<InForce, Error> {
        if !self.reads_policies {
            return Ok(InForce::NotRead);
        }
        if let Some(name) = self.policies.any_unreadable() {
            let why = format!("this version cannot read MitigationPolicy {}: see its conditions", name.name);
            return Ok(InForce::Unknown(why));
        }
        let all = self.policies.all();
        let labels = match all.iter().any(|policy| policy::needs_labels(&policy.spec)) {
            true => self.labels_of(namespace).await?,
            false => Some(BTreeMap::new()),
        };
        Ok(match labels {
            Some(labels) => InForce::Known(policy::in_force(all, &labels)),
            None => InForce::Unknown("the labels of the namespace are not known yet".to_owned()),
        })
    }

    async fn labels_of(self: &Arc<Self>, namespace: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        self.watch_namespaces();
        let cache = &self.namespaces.cache;
        if timeout(PATIENCE, cache.wait_synced()).await.is_err() {
            return Ok(None);
        }
        if let Some(known) = cache.get(&Key::new("", namespace)) {
            return Ok(Some(known.metadata.labels.clone().unwrap_or_default()));
        }
        // One that was made just now.
        let api: Api<Namespace> = Api::all(self.client.clone());
        let read = api.get_metadata(namespace).await;
        read.map(|object| Some(object.metadata.labels.unwrap_or_default()))
            .map_err(Error::api(format!("reading the labels of namespace {namespace}")))
    }

    /// Begins to watch the labels of namespaces, the first time.
    fn watch_namespaces(self: &Arc<Self>) {
        if self.namespaces.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(self.namespaces.watches.clone());
        let config = match &self.namespace {
            Some(namespace) => watch_config().fields(&format!("metadata.name={namespace}")),
            None => watch_config(),
        };
        let ctx = self.clone();
        supervise::spawn("watch of namespaces", move || {
            let (ctx, api, config) = (ctx.clone(), api.clone(), config.clone());
            async move {
                let mut events = std::pin::pin!(watcher(api, config).backoff(Renewal::default()));
                while let Some(event) = events.next().await {
                    let event = match event {
                        Ok(event) => event.modify(slim),
                        Err(error) => {
                            warn!(%error, "watch of namespaces interrupted; it is renewed");
                            continue;
                        }
                    };
                    for news in ctx.namespaces.cache.take_in(event) {
                        let (News::Changed(namespace) | News::Gone(namespace)) = news;
                        let name = namespace.metadata.name.clone().unwrap_or_default();
                        ctx.wake_waiting(&name);
                    }
                }
            }
        });
    }

    pub(super) fn heard_of_policy(self: &Arc<Self>, news: &News<MitigationPolicy>) {
        let (News::Changed(policy) | News::Gone(policy)) = news;
        let (name, generation) = (policy.name_any(), policy.metadata.generation);
        if let News::Changed(_) = news
            && policy.status.as_ref().and_then(|s| s.observed_generation) != generation
        {
            // From here on and not before: what is asked for in the same moment may be decided without it.
            info!(policy = name, generation, "policy is in force");
        }
        if policy::needs_labels(&policy.spec) {
            self.watch_namespaces();
        }
        // Several operators, each of one namespace, share the policies: none of them speaks for all.
        if self.namespace.is_none() {
            self.queues.policies.add(Key::of(policy.as_ref()));
        }
        for mitigation in self.mitigations.group(WAITING, "") {
            let key = Key::of(mitigation.as_ref());
            if waits_for_policies(&mitigation) || self.may_hold(policy, &key.namespace) {
                self.queues.mitigations.add(key);
            }
        }
    }

    /// The longest interval that policies want between two takes of one target in a namespace, as far as its labels are
    /// known.
    pub(super) fn interval_in(&self, namespace: &str) -> Option<Duration> {
        let all = self.policies.all().into_iter();
        let wants = all.filter_map(|policy| Some((policy.spec.min_interval.as_ref()?.get()?, policy)));
        wants.filter(|(_, policy)| self.may_hold(policy, namespace)).map(|(interval, _)| interval).max()
    }

    /// Whether a policy holds in a namespace, as far as its labels are known.
    fn may_hold(&self, policy: &Arc<MitigationPolicy>, namespace: &str) -> bool {
        let known = self.namespaces.cache.get(&Key::new("", namespace));
        known.is_none_or(|known| {
            let labels = known.metadata.labels.clone().unwrap_or_default();
            !policy::in_force(vec![policy.clone()], &labels).is_empty()
        })
    }

    /// Looks at the mitigations of a namespace that are not made yet.
    pub(super) fn wake_waiting(&self, namespace: &str) {
        for mitigation in self.mitigations.group(WAITING, "") {
            let key = Key::of(mitigation.as_ref());
            if &*key.namespace == namespace {
                self.queues.mitigations.add(key);
            }
        }
    }
}

/// Whether a change of policies may let it be made.
fn waits_for_policies(mitigation: &Mitigation) -> bool {
    let conditions = mitigation.status.iter().flat_map(|status| &status.conditions);
    let mut reasons = conditions.filter(|c| c.type_ == "Ready").map(|c| c.reason.as_str());
    reasons.any(|reason| ["AwaitingApproval", "PolicyUnknown", "TooManyActive", "TooSoon"].contains(&reason))
}

/// Labels are all that is needed.
fn slim(object: &mut PartialObjectMeta<Namespace>) {
    object.metadata.managed_fields = None;
    object.metadata.annotations = None;
}

/// One visit of a policy: its status.
pub async fn reconcile(ctx: &Arc<Context>, key: &Key) -> Result<Option<Instant>, Error> {
    let Some(policy) = ctx.policies.get(key) else { return Ok(None) };
    let new = policy::status(&policy, Timestamp::now());
    let api: Api<MitigationPolicy> = Api::all(ctx.client.clone());
    match status::write(&api, policy.as_ref(), policy.status.as_ref(), &new).await {
        Ok(written) => {
            if let Some(object) = written {
                ctx.policies.saw(object);
            }
            Ok(None)
        }
        Err(Error::Api { source: kube::Error::Api(said), .. }) if said.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}
