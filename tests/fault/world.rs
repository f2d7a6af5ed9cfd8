//! What a scenario has: a namespace, an operator behind a proxy, and the hands of a person.
//!
//! What a person does goes to the API server directly; what is waited for is looked up in the record of revisions and
//! costs no request.

use super::proxy::Proxy;
use super::recorder::Recorder;
use super::support::{Cluster, Operator, TestNamespace};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long anything may take, with a fault in between and on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Who else than the admin asks: a client each, for all runs.
#[derive(Default)]
pub struct People(tokio::sync::Mutex<HashMap<String, Cluster>>);

impl People {
    async fn named(&self, user: &str) -> Cluster {
        let mut known = self.0.lock().await;
        if !known.contains_key(user) {
            let cluster = match user {
                OPERATOR => Cluster::as_the_operator().await,
                user => Cluster::impersonating(user, &[]).await,
            };
            known.insert(user.to_owned(), cluster);
        }
        known[user].clone()
    }
}

/// The operator's own name, among people.
const OPERATOR: &str = "";

/// See the module.
pub struct World {
    /// The namespace.
    pub namespace: TestNamespace,
    /// All revisions.
    pub recorder: Arc<Recorder>,
    /// Between operator and API server.
    pub proxy: Proxy,
    /// How long nothing moves before nothing is expected any more.
    pub stuck: Duration,
    /// Whether the namespace is removed in the end.
    pub(super) tidy: bool,
    pub(super) people: Arc<People>,
    pub(super) operator: tokio::sync::Mutex<Operator>,
    /// Whether the scenario itself has stopped the operator.
    pub(super) down: Mutex<bool>,
    pub(super) entries: Mutex<Vec<String>>,
}

impl World {
    /// Creates an object as a person; its `apiVersion` and `kind` say of which kind.
    #[track_caller]
    pub fn create(&self, object: Value) -> impl Future<Output = Value> {
        let caller = Location::caller();
        async move {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let made = self.namespace.try_create(object.clone()).await;
            let made = made.unwrap_or_else(|error| panic!("{caller}: cannot create {object}: {error}"));
            let made = serde_json::to_value(made).expect("an object is JSON");
            if kind == "TimelineEntry" {
                let uid = made["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(uid);
            }
            made
        }
    }

    /// A workload, once all its pods are ready.
    pub async fn workload(&self, object: Value) {
        let (kind, name) = (word(&object, "/kind"), word(&object, "/metadata/name"));
        let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
        self.create(object).await;
        self.until(&kind, &name, "readiness", |o| {
            o["status"]["readyReplicas"].as_i64().unwrap_or(0) == wanted
        })
        .await;
    }

    /// Changes an object as a person does, with a merge patch.
    #[track_caller]
    pub fn edit(&self, kind: &str, name: &str, patch: Value) -> impl Future<Output = Value> {
        let (caller, kind, name) = (Location::caller(), kind.to_owned(), name.to_owned());
        async move {
            let params = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..Default::default() };
            let changed = self.api(&kind).patch(&name, &params, &Patch::Merge(patch)).await;
            let changed =
                changed.unwrap_or_else(|error| panic!("{caller}: cannot change {kind} {name}: {error}"));
            serde_json::to_value(changed).expect("an object is JSON")
        }
    }

    /// Deletes an object.
    #[track_caller]
    pub fn delete(&self, kind: &str, name: &str) -> impl Future<Output = ()> {
        let (caller, kind, name) = (Location::caller(), kind.to_owned(), name.to_owned());
        async move {
            if let Err(error) = self.api(&kind).delete(&name, &DeleteParams::background()).await {
                panic!("{caller}: cannot delete {kind} {name}: {error}");
            }
        }
    }

    /// Waits until an object is as wanted, and returns it.
    #[track_caller]
    pub fn until<'a, F: Fn(&Value) -> bool>(
        &'a self,
        kind: &str,
        name: &str,
        what: &str,
        holds: F,
    ) -> impl Future<Output = Arc<Value>> + use<'a, F> {
        let found = move |object: Option<Arc<Value>>| object.filter(|object| holds(object));
        self.wait(Location::caller(), kind, name, what, found)
    }

    /// Waits until an object is gone.
    #[track_caller]
    pub fn gone<'a>(&'a self, kind: &str, name: &str) -> impl Future<Output = ()> + use<'a> {
        self.wait(Location::caller(), kind, name, "end", |left| left.is_none().then_some(()))
    }

    /// Waits until a Mitigation shows its effect.
    #[track_caller]
    pub fn effective<'a>(&'a self, name: &str) -> impl Future<Output = Arc<Value>> + use<'a> {
        self.until("Mitigation", name, "effect", |m| m["status"]["phase"] == "Active" && is(m, "Effective"))
    }

    /// Waits until a Mitigation is in a phase.
    #[track_caller]
    pub fn reaches<'a>(&'a self, name: &str, phase: &str) -> impl Future<Output = Arc<Value>> + use<'a> {
        let (what, phase) = (format!("phase {phase}"), phase.to_owned());
        self.until("Mitigation", name, &what, move |m| m["status"]["phase"] == phase.as_str())
    }

    /// Waits until an Incident is in a stage.
    #[track_caller]
    pub fn stage<'a>(&'a self, name: &str, stage: &str) -> impl Future<Output = Arc<Value>> + use<'a> {
        let (what, stage) = (format!("stage {stage}"), stage.to_owned());
        self.until("Incident", name, &what, move |i| i["status"]["stage"] == stage.as_str())
    }

    /// uids of the entries that people have made.
    pub fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until an entry is in the timeline of an incident.
    #[track_caller]
    pub fn folded<'a>(&'a self, incident: &str, uid: &str) -> impl Future<Output = Arc<Value>> + use<'a> {
        let uid = uid.to_owned();
        self.until("Incident", incident, "folded entry", move |i| {
            i["status"]["timeline"].as_array().into_iter().flatten().any(|r| r["entryUid"] == uid.as_str())
        })
    }

    /// Asks for the release of a Mitigation.
    pub async fn release(&self, name: &str) {
        self.edit("Mitigation", name, json!({"spec": {"desiredState": "Released"}})).await;
    }

    /// Stops the operator, as when its pod is evicted; `start_operator` brings it back.
    pub async fn stop_operator(&self) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.operator.lock().await.kill();
    }

    /// Starts the operator again.
    pub async fn start_operator(&self) {
        let mut operator = self.operator.lock().await;
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.proxy.end_replay();
        self.relaunch(&mut operator);
    }

    /// Starts a new process behind the proxy, without waiting for it: it may be killed before it is ready.
    pub(super) fn relaunch(&self, operator: &mut Operator) {
        if *self.down.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        self.proxy.open();
        operator.respawn();
        self.proxy.protects(operator.pid());
    }

    /// Ends it all.
    pub(super) async fn remove(self) {
        let World { namespace, recorder, proxy, operator, tidy, people, .. } = self;
        drop((operator, proxy));
        recorder.forget(&namespace.name);
        match tidy {
            true => namespace.remove_as(&people.named(OPERATOR).await).await,
            false => namespace.leave(),
        }
    }

    fn api(&self, kind: &str) -> kube::Api<DynamicObject> {
        let known = super::recorder::KINDS.iter().find(|(_, known)| *known == kind);
        let (api_version, _) =
            known.unwrap_or_else(|| panic!("{kind} is not among the kinds that are recorded"));
        let of = json!({"apiVersion": api_version, "kind": kind});
        match kind {
            "Namespace" => kube::Api::all_with(
                self.namespace.cluster.client.clone(),
                &super::support::cluster::resource_of(&of),
            ),
            _ => self.namespace.cluster.api_of(&of, &self.namespace.name),
        }
    }

    /// The operator's own name: for what only it may do.
    pub async fn as_the_operator(&self, kind: &str, name: &str, patch: Value) {
        let own = self.people.named(OPERATOR).await;
        let (api_version, _) =
            super::recorder::KINDS.iter().find(|(_, k)| *k == kind).expect("a recorded kind");
        let api = own.api_of(&json!({"apiVersion": api_version, "kind": kind}), &self.namespace.name);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("the operator may do that");
    }

    /// Creates an object as somebody else than the admin, who is given all rights in the namespace.
    pub async fn create_as(&self, user: &str, object: Value) -> Value {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("all-{user}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        let _ = self.namespace.try_create(binding).await;
        let cluster = self.people.named(user).await;
        let api = cluster.api_of(&object, &self.namespace.name);
        let typed: DynamicObject = serde_json::from_value(object.clone()).expect("the object has metadata");
        // The API server learns of a new binding a moment later.
        let end = tokio::time::Instant::now() + PATIENCE;
        let made = loop {
            match api.create(&PostParams::default(), &typed).await {
                Ok(made) => break made,
                Err(error) if tokio::time::Instant::now() > end => {
                    panic!("{user} cannot create {object}: {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        };
        let made = serde_json::to_value(made).expect("an object is JSON");
        if object["kind"] == "TimelineEntry" {
            let uid = word(&made, "/metadata/uid");
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(uid);
        }
        made
    }

    /// Makes a policy that pauses what is new in the namespace; `resume` deletes it. It is the cluster's, and not recorded.
    pub async fn pause(&self) {
        let name = &self.namespace.name;
        let policy = json!({
            "apiVersion": "incident-operator.dev/v1alpha1", "kind": "MitigationPolicy", "metadata": {"name": name},
            "spec": {
                "paused": true,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            },
        });
        let typed: DynamicObject = serde_json::from_value(policy.clone()).expect("it has metadata");
        self.policies(&policy).create(&PostParams::default(), &typed).await.expect("a policy can be made");
    }

    /// Deletes it.
    pub async fn resume(&self) {
        let policies = self.policies(&json!({
            "apiVersion": "incident-operator.dev/v1alpha1", "kind": "MitigationPolicy",
        }));
        policies.delete(&self.namespace.name, &DeleteParams::default()).await.expect("there is a policy");
    }

    fn policies(&self, policy: &Value) -> kube::Api<DynamicObject> {
        let resource = super::support::cluster::resource_of(policy);
        kube::Api::all_with(self.namespace.cluster.client.clone(), &resource)
    }

    /// Holds the operator's writes to a resource, by its plural, until they are let go.
    pub fn hold(&self, resource: &str) {
        self.proxy.hold(Some(resource));
    }

    /// Waits until a write is held.
    #[track_caller]
    pub fn held(&self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let mut waiting = self.proxy.at_gate();
        async move {
            let held = tokio::time::timeout(PATIENCE, waiting.wait_for(|count| *count > 0)).await;
            assert!(held.is_ok_and(|held| held.is_ok()), "{caller}: no write to be held within {PATIENCE:?}");
        }
    }

    /// Lets them go.
    pub fn let_go(&self) {
        self.proxy.hold(None);
    }

    /// How long neither the operator nor anything in the namespace has moved.
    pub fn idle(&self) -> Duration {
        self.proxy.idle().min(self.recorder.progress(&self.namespace.name).1)
    }

    fn wait<'a, T, L: Fn(Option<Arc<Value>>) -> Option<T>>(
        &'a self,
        caller: &'static Location<'static>,
        kind: &str,
        name: &str,
        what: &str,
        look: L,
    ) -> impl Future<Output = T> + use<'a, T, L> {
        let (kind, name, what) = (kind.to_owned(), name.to_owned(), what.to_owned());
        async move {
            let mut changes = self.recorder.changes(&self.namespace.name);
            let begun = tokio::time::Instant::now();
            let end = begun + PATIENCE;
            loop {
                changes.mark_unchanged();
                let object = self.recorder.get(&self.namespace.name, &kind, &name);
                if let Some(found) = look(object.clone()) {
                    return found;
                }
                if let Some(broken) = self.recorder.broken() {
                    panic!("{broken}");
                }
                // What stood still before counts for nothing: the operator that stays waits for others between its stories.
                let idle = self.idle().min(begun.elapsed());
                if tokio::time::Instant::now() >= end || idle >= self.stuck {
                    let seen = object.map_or("it does not exist".to_owned(), |object| brief(&object));
                    let idle = if idle > PATIENCE { PATIENCE } else { idle };
                    panic!(
                        "{caller}: no {what} of {kind} {name}, and for {idle:.0?} nothing moved; seen last: {seen}"
                    );
                }
                // Looked at again when something was told, and now and then for the time.
                let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            }
        }
    }
}

/// Whether a condition is True.
pub fn is(object: &Value, type_: &str) -> bool {
    says(object, type_).0 == "True"
}

/// Status and reason of a condition.
pub fn says<'a>(object: &'a Value, type_: &str) -> (&'a str, &'a str) {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == type_);
    let of = |key: &str| found.and_then(|c| c[key].as_str()).unwrap_or_default();
    (of("status"), of("reason"))
}

fn word(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn brief(object: &Value) -> String {
    json!({"spec": object["spec"], "status": object["status"], "data": object["data"],
        "annotations": object["metadata"]["annotations"], "deletion": object["metadata"]["deletionTimestamp"]})
    .to_string()
}
