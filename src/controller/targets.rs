//! The objects that mitigations change: read when needed, watched while they are held.
//!
//! One watch a kind selects the label that a take sets, so holding costs no request and memory only for what is
//! held. A target that does not exist yet is watched by name until it appears.

use super::{
    cache::{Cache, Index, News},
    client::watch_config,
    error::{Error, code},
    json_patch::{self, Part},
    key::Key,
    renew::Renewal,
};
use crate::{
    api::MITIGATED_LABEL,
    mitigation::{JOB, ObjectId, TargetKind},
};
use futures::StreamExt;
use kube::{
    Api, Client,
    api::{DeleteParams, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a target that is only looked at, and so not watched, counts as known once it was read.
const RECENT: Duration = Duration::from_secs(30);
/// Targets that are waited for at the same time; more are looked at now and then instead.
const MAX_AWAITED: usize = 256;

const NO_INDEX: &[Index<DynamicObject>] = &[];

/// The targets of all kinds.
pub struct Targets {
    requests: Client,
    watches: Client,
    kinds: Mutex<HashMap<TargetKind, Arc<Cache<DynamicObject>>>>,
    recent: Mutex<HashMap<(TargetKind, Key), Read>>,
    awaited: Mutex<HashSet<(TargetKind, Key)>>,
    /// Kinds that are watched because somebody touched one.
    begun: Mutex<HashSet<TargetKind>>,
    /// Kinds that the cluster did not have when one was read last.
    missing: Mutex<HashSet<TargetKind>>,
}

/// What was read, and when.
type Read = (Instant, Arc<DynamicObject>);

/// Why a write to a target was not done.
pub enum NotDone {
    /// The target is not as it was when the write was decided, or is gone: read it again.
    Changed,
    /// The operator lacks the right.
    Forbidden(String),
    /// Admission or validation said no.
    Denied(String),
    /// The request failed; it may have been done all the same.
    Failed(Error),
}

impl Targets {
    /// No target is known yet.
    pub fn new(requests: Client, watches: Client) -> Targets {
        Targets {
            requests,
            watches,
            kinds: Mutex::default(),
            recent: Mutex::default(),
            awaited: Mutex::default(),
            begun: Mutex::default(),
            missing: Mutex::default(),
        }
    }

    /// What is known of the held objects of a kind.
    pub fn cache(&self, kind: TargetKind) -> Arc<Cache<DynamicObject>> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.entry(kind).or_insert_with(|| Arc::new(Cache::new(NO_INDEX))).clone()
    }

    /// The watch of the held objects of a kind.
    pub fn watch(
        &self,
        kind: TargetKind,
        namespace: Option<&str>,
    ) -> impl futures::Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + Send + use<> {
        let mut config = watch_config().labels(&format!("{MITIGATED_LABEL}=true"));
        if let (false, Some(namespace)) = (kind.is_namespaced(), namespace) {
            config = config.fields(&format!("metadata.name={namespace}"));
        }
        watcher(api_in(&self.watches, kind, namespace), config).backoff(Renewal::default())
    }

    /// True the first time: objects of this kind are to be watched from now on.
    pub fn begin_watch(&self, kind: TargetKind) -> bool {
        !kind.is_always_watched() && self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(kind)
    }

    /// The object, when it is held by somebody and so known.
    pub fn known(&self, namespace: &str, id: &ObjectId) -> Option<Arc<DynamicObject>> {
        self.cache(id.kind).get(&key_of(namespace, id))
    }

    /// Reads the object. Where the cluster has no such kind, there is none either; see [`Targets::lacks`].
    pub async fn read(&self, namespace: &str, id: &ObjectId) -> Result<Option<DynamicObject>, Error> {
        let api = api_in(&self.requests, id.kind, Some(namespace));
        let (lacks, read) = match api.get_opt(&id.name).await {
            // Of a kind that it knows, the API server says in a Status that there is none of that name.
            Err(kube::Error::Api(status)) if status.code == 404 => (true, None),
            read => (false, read.map_err(Error::api(format!("reading {id} in {namespace}")))?),
        };
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        match lacks {
            true => missing.insert(id.kind),
            false => missing.remove(&id.kind),
        };
        drop(missing);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, (since, _)| since.elapsed() < RECENT);
        if let Some(object) = read.as_ref().filter(|object| !is_held(object)) {
            let known = (Instant::now(), Arc::new(object.clone()));
            recent.insert((id.kind, key_of(namespace, id)), known);
        }
        drop(recent);
        if let Some(object) = read.as_ref().filter(|object| is_held(object)) {
            // Forgotten after an answer that never came, it would be read again at every visit.
            self.cache(id.kind).was_read(object.clone());
        }
        Ok(read)
    }

    /// Whether the object exists. The API server is asked for its metadata alone, so what it contains never gets here;
    /// the answer has nothing but a name.
    pub async fn exists(&self, namespace: &str, id: &ObjectId) -> Result<Option<Arc<DynamicObject>>, Error> {
        let api = api_in(&self.requests, id.kind, Some(namespace));
        let what = format!("asking whether {id} exists in {namespace}");
        let there = api.get_metadata_opt(&id.name).await.map_err(Error::api(what))?;
        Ok(there.map(|_| Arc::new(DynamicObject::new(&id.name, &id.kind.resource()))))
    }

    /// Whether the cluster had no such kind when an object of it was read last.
    pub fn lacks(&self, kind: TargetKind) -> bool {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).contains(&kind)
    }

    /// What was read a moment ago of a target that nothing is held of.
    pub fn recent(&self, namespace: &str, id: &ObjectId) -> Option<Arc<DynamicObject>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, object) = recent.get(&(id.kind, key_of(namespace, id)))?;
        (since.elapsed() < RECENT).then(|| object.clone())
    }

    /// Writes to the object, or to its status.
    pub async fn write(
        &self,
        namespace: &str,
        id: &ObjectId,
        manager: &str,
        patch: &serde_json::Value,
        how: How,
    ) -> Result<DynamicObject, NotDone> {
        let what = format!("writing {id} in {namespace}");
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            dry_run: how == How::Asked,
            ..PatchParams::default()
        };
        let api = api_in(&self.requests, id.kind, Some(namespace));
        let part = match how {
            How::Done | How::Asked => Part::Object,
            How::Status => Part::Status,
        };
        let answer = json_patch::send(&api, part, &id.name, &params, patch).await;
        match answer {
            Ok(object) => {
                if how != How::Asked {
                    self.saw(id.kind, &object);
                }
                Ok(object)
            }
            Err(error) => Err(self.not_done(namespace, id, what, error)),
        }
    }

    /// Makes an object. `Err(Changed)`: one of this name is there by now.
    pub async fn create(
        &self,
        namespace: &str,
        id: &ObjectId,
        manager: &str,
        manifest: &serde_json::Value,
        dry_run: bool,
    ) -> Result<DynamicObject, NotDone> {
        let what = format!("making {id} in {namespace}");
        let object: DynamicObject = serde_json::from_value(manifest.clone())
            .map_err(|e| NotDone::Failed(Error::api(what.clone())(kube::Error::SerdeError(e))))?;
        let params = PostParams { field_manager: Some(manager.to_owned()), dry_run };
        let api = api_in(&self.requests, id.kind, Some(namespace));
        match api.create(&params, &object).await {
            Ok(object) => {
                if !dry_run {
                    self.saw(id.kind, &object);
                }
                Ok(object)
            }
            // A kind that the cluster does not have will not come by asking again.
            Err(kube::Error::Api(status)) if status.code == 404 => Err(NotDone::Denied(format!(
                "the cluster has no {} ({})",
                id.kind.plural,
                id.kind.api_version()
            ))),
            Err(error) => Err(self.not_done(namespace, id, what, error)),
        }
    }

    /// Deletes the object with this uid. One that is gone already is no error; one that takes its time to go is
    /// answered.
    pub async fn delete(
        &self,
        namespace: &str,
        id: &ObjectId,
        uid: &str,
    ) -> Result<Option<DynamicObject>, NotDone> {
        let api = api_in(&self.requests, id.kind, Some(namespace));
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            // Of a Job it counts when its pods are gone.
            propagation_policy: Some(match id.kind {
                JOB => PropagationPolicy::Foreground,
                _ => PropagationPolicy::Background,
            }),
            ..DeleteParams::default()
        };
        let answer = api.delete(&id.name, &params).await;
        self.forget(namespace, id);
        match answer {
            Ok(answer) => {
                let left = answer.left().filter(|object| object.metadata.deletion_timestamp.is_some());
                if let Some(object) = &left {
                    self.saw(id.kind, object);
                }
                Ok(left)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.not_done(namespace, id, format!("deleting {id} in {namespace}"), error)),
        }
    }

    fn not_done(&self, namespace: &str, id: &ObjectId, what: String, error: kube::Error) -> NotDone {
        let kube::Error::Api(status) = &error else {
            // It may have been done: what is known counts for nothing until it is read again.
            self.forget(namespace, id);
            return NotDone::Failed(Error::api(what)(error));
        };
        let words = status.message.clone();
        match code(&error) {
            Some(404 | 409) => {
                self.forget(namespace, id);
                NotDone::Changed
            }
            // Both are 422 with the reason Invalid. A refusal by validation says which field of which object, a
            // failed test of a JSON Patch says nothing.
            Some(422) if says_nothing(status) => {
                self.forget(namespace, id);
                NotDone::Changed
            }
            Some(403) if is_rbac(&words) => NotDone::Forbidden(words),
            Some(400 | 403 | 405 | 422) => NotDone::Denied(words),
            _ => {
                self.forget(namespace, id);
                NotDone::Failed(Error::api(what)(error))
            }
        }
    }

    fn saw(&self, kind: TargetKind, object: &DynamicObject) {
        let cache = self.cache(kind);
        let key = Key::of(object);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, key));
        if is_held(object) {
            cache.saw(object.clone());
        } else {
            cache.saw_gone(object);
        }
    }

    fn forget(&self, namespace: &str, id: &ObjectId) {
        let slot = (id.kind, key_of(namespace, id));
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
        self.cache(id.kind).forget(&key_of(namespace, id));
    }

    /// Calls `appeared` as soon as the object is there, or once nobody wants it any more. `false`: too many are
    /// awaited, look again later.
    pub fn await_target(
        self: &Arc<Self>,
        namespace: &str,
        id: &ObjectId,
        wanted: impl Fn() -> bool + Send + 'static,
        appeared: impl FnOnce() + Send + 'static,
    ) -> bool {
        let slot = (id.kind, key_of(namespace, id));
        {
            let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
            if awaited.contains(&slot) {
                return true;
            }
            if awaited.len() >= MAX_AWAITED {
                return false;
            }
            awaited.insert(slot.clone());
        }
        let this = self.clone();
        let api = api_in(&self.watches, id.kind, Some(namespace));
        let config = watch_config().fields(&format!("metadata.name={}", id.name));
        tokio::spawn(async move {
            // A target that never appears costs one renewed watch while somebody wants it.
            let mut events =
                std::pin::pin!(watcher(api, config).backoff(Renewal::default()).applied_objects());
            let mut look = tokio::time::interval(LOOK_AGAIN);
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(object)) if object.metadata.deletion_timestamp.is_none() => break,
                        Some(_) => {}
                        None => break,
                    },
                    _ = look.tick() => if !wanted() { break },
                }
            }
            this.awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
            appeared();
        });
        true
    }
}

fn is_held(object: &DynamicObject) -> bool {
    object.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MITIGATED_LABEL))
}

/// True when an answer names neither an object nor a field.
fn says_nothing(status: &kube::core::Status) -> bool {
    status.details.as_ref().is_none_or(|details| details.kind.is_empty() && details.causes.is_empty())
}

/// What kind of write it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// To the object.
    Done,
    /// To the object, but only asked whether it would be done.
    Asked,
    /// To the object's status.
    Status,
}

/// True for the words in which the API server refuses for want of a right.
fn is_rbac(words: &str) -> bool {
    ["cannot patch resource", "cannot create resource", "cannot delete resource"]
        .iter()
        .any(|said| words.contains(said))
}

fn key_of(namespace: &str, id: &ObjectId) -> Key {
    Key::new(if id.kind.is_namespaced() { namespace } else { "" }, &id.name)
}

/// The API of a kind, in one namespace or in all.
pub fn api_in(client: &Client, kind: TargetKind, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = kind.resource();
    match namespace.filter(|_| kind.is_namespaced()) {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Name of the index text for mitigations of a target.
pub fn index_text(namespace: &str, kind: &str, name: &str) -> String {
    format!("{namespace}/{kind}/{name}")
}

/// Longest wait for a target that cannot be awaited by a watch.
pub const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Turns news of a target into the index text of its mitigations.
pub fn news_text(kind: TargetKind, news: &News<DynamicObject>) -> String {
    let object = match news {
        News::Changed(object) | News::Gone(object) => object,
    };
    let key = Key::of(object.as_ref());
    // A mitigation of a Namespace lies in that namespace.
    let namespace = if kind.is_namespaced() { &key.namespace } else { &key.name };
    index_text(namespace, kind.kind, &key.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::SECRET;
    use kube::client::Body;
    use serde_json::json;

    #[tokio::test]
    async fn of_a_secret_nothing_but_its_metadata_is_asked_for() {
        let answer = |request: http::Request<Body>| async move {
            let accept = request.headers()["accept"].to_str().expect("text").to_owned();
            assert_eq!(accept, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
            assert_eq!(request.uri().path(), "/api/v1/namespaces/shop/secrets/tls");
            let body = r#"{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "tls", "annotations": {"note": "private"}}}"#;
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(body.as_bytes().to_vec())))
        };
        let client = Client::new(tower::service_fn(answer), "shop");
        let targets = Targets::new(client.clone(), client);
        let seen = targets.exists("shop", &ObjectId::new(SECRET, "tls")).await;
        let seen = seen.expect("it was asked").expect("it is there");
        assert_eq!(seen.metadata.name.as_deref(), Some("tls"));
        assert_eq!(seen.metadata.annotations, None);
    }

    /// Answers of a Kubernetes 1.36 API server.
    #[test]
    fn a_failed_test_of_a_patch_is_told_from_a_refusal_by_validation() {
        let answer = |more: serde_json::Value| -> kube::core::Status {
            let mut status = json!({"status": "Failure", "reason": "Invalid", "code": 422});
            ::json_patch::merge(&mut status, &more);
            serde_json::from_value(status).unwrap()
        };
        let words = "the server rejected our request due to an error in our request";
        assert!(says_nothing(&answer(json!({"message": words, "details": {}}))));
        assert!(says_nothing(&answer(json!({"message": words}))));
        assert!(!says_nothing(&answer(
            json!({"message": "ConfigMap \"c\" is invalid", "details": {"name": "c",
            "kind": "ConfigMap", "causes": [{"reason": "FieldValueInvalid", "message": "x", "field": "data[a b]"}]}})
        )));
    }
}
