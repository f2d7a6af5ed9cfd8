//! Every revision of every object that counts, from watches of our own that the operator and its proxy have no part
//! in. Nothing is left out: a watch begins at a known resourceVersion and goes on from the last one that it told.

use super::support::cluster::resource_of;
use futures::StreamExt;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
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

/// Records a whole control plane, for as long as it lives.
pub struct Recorder {
    /// By namespace.
    revisions: Mutex<HashMap<String, Vec<Revision>>>,
    changed: watch::Sender<u64>,
    broken: Mutex<Option<String>>,
}

impl Recorder {
    /// Begins to record.
    pub async fn start(client: &Client) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder {
            revisions: Mutex::default(),
            changed: watch::Sender::new(0),
            broken: Mutex::default(),
        });
        for (api_version, kind) in KINDS {
            let resource = resource_of(&json!({"apiVersion": api_version, "kind": kind}));
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let present = api.list(&ListParams::default().limit(1)).await.expect("objects can be listed");
            let start = present.metadata.resource_version.expect("lists have one");
            tokio::spawn(record(recorder.clone(), api, kind, start));
        }
        recorder
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Revision>>> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All revisions in a namespace, in the order of the writes.
    pub fn all(&self, namespace: &str) -> Vec<Revision> {
        let mut all = self.lock().get(namespace).cloned().unwrap_or_default();
        all.sort_by_key(|revision| revision.version);
        all
    }

    /// The objects that are there, by kind and name.
    pub fn present(&self, namespace: &str) -> Vec<Revision> {
        let mut last: Vec<Revision> = Vec::new();
        for revision in self.all(namespace) {
            last.retain(|known| (&known.kind, &known.name) != (&revision.kind, &revision.name));
            last.push(revision);
        }
        last.retain(|revision| !revision.deleted);
        last.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
        last
    }

    /// The object as it was told last.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Option<Arc<Value>> {
        let all = self.lock();
        let of = all.get(namespace)?.iter().filter(|r| r.kind == kind && r.name == name);
        of.max_by_key(|r| r.version).filter(|r| !r.deleted).map(|r| r.object.clone())
    }

    /// Whether this revision of an object, or a later one of it, has been told.
    pub fn has(&self, namespace: &str, kind: &str, name: &str, version: u64) -> bool {
        let all = self.lock();
        let mut of = all.get(namespace).into_iter().flatten();
        of.any(|r| r.kind == kind && r.name == name && r.version >= version)
    }

    /// Forgets a namespace.
    pub fn forget(&self, namespace: &str) {
        self.lock().remove(namespace);
    }

    /// Tells when something new was recorded.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
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
        self.lock().entry(namespace).or_default().push(revision);
        self.changed.send_modify(|count| *count += 1);
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
