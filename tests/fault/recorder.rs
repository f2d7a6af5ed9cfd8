//! Every revision of every object that counts, from watches of our own that the operator and its proxy have no part
//! in. Nothing is left out: a watch begins at a known resourceVersion and goes on from the last one that it told.

use super::support::cluster::resource_of;
use futures::StreamExt;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The kinds that are recorded. Whoever adds a scenario with another kind adds it here.
pub const KINDS: &[(&str, &str)] = &[
    ("incident-operator.dev/v1alpha1", "Incident"),
    ("incident-operator.dev/v1alpha1", "Mitigation"),
    ("incident-operator.dev/v1alpha1", "TimelineEntry"),
    ("incident-operator.dev/v1alpha1", "Postmortem"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("v1", "ConfigMap"),
    ("v1", "Namespace"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
];

/// One revision, or the deletion with the last state.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its resourceVersion; all objects of a control plane share one count, so it is the order of all writes.
    pub version: u64,
    /// The object's kind.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// The object.
    pub object: Arc<Value>,
    /// Whether it is gone now.
    pub deleted: bool,
}

impl Revision {
    /// uid of the object.
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }
}

/// What is known of a namespace.
#[derive(Default)]
struct Told {
    revisions: Vec<Revision>,
    changed: watch::Sender<usize>,
    /// When something was told last.
    last: Option<Instant>,
    /// Nobody asks any more.
    forgotten: bool,
}

/// Records a whole control plane, for as long as it lives.
pub struct Recorder {
    /// By namespace.
    told: Mutex<HashMap<String, Told>>,
    broken: Mutex<Option<String>>,
}

impl Recorder {
    /// Begins to record.
    pub async fn start(client: &Client) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder { told: Mutex::default(), broken: Mutex::default() });
        for (api_version, kind) in KINDS {
            let resource = resource_of(&json!({"apiVersion": api_version, "kind": kind}));
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let present = api.list(&ListParams::default().limit(1)).await.expect("objects can be listed");
            let start = present.metadata.resource_version.expect("lists have one");
            tokio::spawn(record(recorder.clone(), api, kind, start));
        }
        recorder
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All revisions in a namespace, in the order of the writes.
    pub fn all(&self, namespace: &str) -> Vec<Revision> {
        let mut all = self.lock().get(namespace).map(|told| told.revisions.clone()).unwrap_or_default();
        all.sort_by_key(|revision| revision.version);
        all
    }

    /// The objects that are there, by kind and name.
    pub fn present(&self, namespace: &str) -> Vec<Revision> {
        let all = self.lock();
        let mut last: BTreeMap<(&str, &str), &Revision> = BTreeMap::new();
        for revision in all.get(namespace).into_iter().flat_map(|told| &told.revisions) {
            let known = last.entry((&revision.kind, &revision.name)).or_insert(revision);
            if known.version < revision.version {
                *known = revision;
            }
        }
        last.into_values().filter(|revision| !revision.deleted).cloned().collect()
    }

    /// The object as it was told last.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Option<Arc<Value>> {
        let all = self.lock();
        let of = all.get(namespace)?.revisions.iter().filter(|r| r.kind == kind && r.name == name);
        of.max_by_key(|r| r.version).filter(|r| !r.deleted).map(|r| r.object.clone())
    }

    /// The newest revision that has been told of each object, by kind and name.
    pub fn newest(&self, namespace: &str) -> HashMap<(String, String), u64> {
        let all = self.lock();
        let mut newest = HashMap::new();
        for revision in all.get(namespace).into_iter().flat_map(|told| &told.revisions) {
            let of = newest.entry((revision.kind.clone(), revision.name.clone())).or_insert(0);
            *of = revision.version.max(*of);
        }
        newest
    }

    /// How much has been told, and how long nothing new has been.
    pub fn progress(&self, namespace: &str) -> (usize, Duration) {
        let all = self.lock();
        let told = all.get(namespace);
        let idle = told.and_then(|told| told.last).map_or(Duration::MAX, |last| last.elapsed());
        (told.map_or(0, |told| told.revisions.len()), idle)
    }

    /// Forgets what was told of a namespace so far.
    pub fn clear(&self, namespace: &str) {
        if let Some(told) = self.lock().get_mut(namespace) {
            told.revisions.clear();
        }
    }

    /// Forgets a namespace for good: its end takes a while and is told, too.
    pub fn forget(&self, namespace: &str) {
        self.lock().insert(namespace.to_owned(), Told { forgotten: true, ..Told::default() });
    }

    /// Tells when something new was recorded of a namespace.
    pub fn changes(&self, namespace: &str) -> watch::Receiver<usize> {
        self.lock().entry(namespace.to_owned()).or_default().changed.subscribe()
    }

    /// Why the record is incomplete, if it is: then no run can be judged.
    pub fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, kind: &str, object: DynamicObject, deleted: bool) -> Option<String> {
        let version = object.metadata.resource_version.clone()?;
        // A Namespace is counted to itself.
        let namespace = object.metadata.namespace.clone().or(object.metadata.name.clone())?;
        let revision = Revision {
            version: version.parse().ok()?,
            kind: kind.to_owned(),
            name: object.metadata.name.clone().unwrap_or_default(),
            object: Arc::new(serde_json::to_value(&object).unwrap_or_default()),
            deleted,
        };
        let mut all = self.lock();
        let told = all.entry(namespace).or_default();
        if !told.forgotten {
            told.revisions.push(revision);
            told.last = Some(Instant::now());
            told.changed.send_modify(|count| *count += 1);
        }
        Some(version)
    }
}

async fn record(recorder: Arc<Recorder>, api: Api<DynamicObject>, kind: &'static str, start: String) {
    let mut version = start;
    let params = WatchParams::default().timeout(290);
    loop {
        let Ok(events) = api.watch(&params, &version).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut events = events.boxed();
        while let Some(Ok(event)) = events.next().await {
            let told = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => recorder.put(kind, object, false),
                WatchEvent::Deleted(object) => recorder.put(kind, object, true),
                WatchEvent::Bookmark(mark) => Some(mark.metadata.resource_version),
                WatchEvent::Error(status) => {
                    let mut broken = recorder.broken.lock().unwrap_or_else(PoisonError::into_inner);
                    *broken = Some(format!("the watch of {kind} has a gap: {}", status.message));
                    return;
                }
            };
            version = told.unwrap_or(version);
        }
    }
}
