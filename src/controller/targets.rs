//! The objects that mitigations change: read when needed, watched while they are held.
//!
//! One watch a kind selects the label that a take sets, so holding costs no request and memory only for what is
//! held. A target that does not exist yet is watched by name until it appears.

use super::{
    cache::{Cache, Index, News},
    client::watch_config,
    error::{Error, code},
    key::Key,
};
use crate::api::MITIGATED_LABEL;
use crate::mitigation::TargetKind;
use futures::StreamExt;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Targets that are waited for at the same time; more are looked at now and then instead.
const MAX_AWAITED: usize = 256;

const NO_INDEX: &[Index<DynamicObject>] = &[];

/// The targets of all kinds.
pub struct Targets {
    requests: Client,
    watches: Client,
    kinds: HashMap<TargetKind, Cache<DynamicObject>>,
    awaited: Mutex<HashSet<(TargetKind, Key)>>,
}

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
    pub fn new(requests: Client, watches: Client, kinds: &[TargetKind]) -> Targets {
        Targets {
            requests,
            watches,
            kinds: kinds.iter().map(|kind| (*kind, Cache::new(NO_INDEX))).collect(),
            awaited: Mutex::default(),
        }
    }

    /// What is known of the held objects of a kind.
    pub fn cache(&self, kind: TargetKind) -> Option<&Cache<DynamicObject>> {
        self.kinds.get(&kind)
    }

    /// The watch of the held objects of a kind.
    pub fn watch(
        &self,
        kind: TargetKind,
        namespace: Option<&str>,
    ) -> impl futures::Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + Send + use<> {
        let api = api_in(&self.watches, kind, namespace);
        watcher(api, watch_config().labels(&format!("{MITIGATED_LABEL}=true"))).default_backoff()
    }

    /// The object, when it is held by somebody and so known.
    pub fn known(&self, kind: TargetKind, key: &Key) -> Option<Arc<DynamicObject>> {
        self.kinds.get(&kind)?.get(key)
    }

    /// Reads the object.
    pub async fn read(&self, kind: TargetKind, key: &Key) -> Result<Option<DynamicObject>, Error> {
        let api = api_in(&self.requests, kind, Some(&key.namespace));
        api.get_opt(&key.name).await.map_err(Error::api(format!("reading {} {key}", kind.kind)))
    }

    /// Writes to the object.
    pub async fn write(
        &self,
        kind: TargetKind,
        key: &Key,
        manager: &str,
        patch: &serde_json::Value,
        dry_run: bool,
    ) -> Result<DynamicObject, NotDone> {
        let what = format!("writing {} {key}", kind.kind);
        let operations: json_patch::Patch = serde_json::from_value(patch.clone())
            .map_err(|e| NotDone::Failed(Error::api(what.clone())(kube::Error::SerdeError(e))))?;
        let params =
            PatchParams { field_manager: Some(manager.to_owned()), dry_run, ..PatchParams::default() };
        let api = api_in(&self.requests, kind, Some(&key.namespace));
        let answer = api.patch(&key.name, &params, &Patch::Json::<()>(operations)).await;
        match answer {
            Ok(object) => {
                if !dry_run {
                    self.saw(kind, &object);
                }
                Ok(object)
            }
            Err(error) => Err(self.not_done(kind, key, what, error)),
        }
    }

    fn not_done(&self, kind: TargetKind, key: &Key, what: String, error: kube::Error) -> NotDone {
        let kube::Error::Api(status) = &error else {
            // It may have been done: what is known counts for nothing until it is read again.
            self.forget(kind, key);
            return NotDone::Failed(Error::api(what)(error));
        };
        let words = status.message.clone();
        match code(&error) {
            Some(404 | 409) => {
                self.forget(kind, key);
                NotDone::Changed
            }
            // Both are 422 with the reason Invalid. A refusal by validation says which field of which object, a
            // failed test of a JSON Patch says nothing.
            Some(422) if says_nothing(status) => {
                self.forget(kind, key);
                NotDone::Changed
            }
            Some(403) if words.contains("cannot patch resource") => NotDone::Forbidden(words),
            Some(400 | 403 | 405 | 422) => NotDone::Denied(words),
            _ => {
                self.forget(kind, key);
                NotDone::Failed(Error::api(what)(error))
            }
        }
    }

    fn saw(&self, kind: TargetKind, object: &DynamicObject) {
        let Some(cache) = self.kinds.get(&kind) else { return };
        let held = object.metadata.labels.as_ref().is_some_and(|l| l.contains_key(MITIGATED_LABEL));
        if held {
            cache.saw(object.clone());
        } else {
            cache.saw_gone(object);
        }
    }

    fn forget(&self, kind: TargetKind, key: &Key) {
        if let Some(cache) = self.kinds.get(&kind) {
            cache.forget(key);
        }
    }

    /// Calls `appeared` as soon as the object is there, or once nobody wants it any more. `false`: too many are
    /// awaited, look again later.
    pub fn await_target(
        self: &Arc<Self>,
        kind: TargetKind,
        key: &Key,
        wanted: impl Fn() -> bool + Send + 'static,
        appeared: impl FnOnce() + Send + 'static,
    ) -> bool {
        let slot = (kind, key.clone());
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
        let api = api_in(&self.watches, kind, Some(&key.namespace));
        let config = watch_config().fields(&format!("metadata.name={}", key.name));
        tokio::spawn(async move {
            // A target that never appears costs one renewed watch while somebody wants it.
            let mut events = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
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

/// True when an answer names neither an object nor a field.
fn says_nothing(status: &kube::core::Status) -> bool {
    status.details.as_ref().is_none_or(|details| details.kind.is_empty() && details.causes.is_empty())
}

fn api_in(client: &Client, kind: TargetKind, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = kind.resource();
    match namespace {
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
    index_text(&key.namespace, kind.kind, &key.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Answers of a Kubernetes 1.36 API server.
    #[test]
    fn a_failed_test_of_a_patch_is_told_from_a_refusal_by_validation() {
        let answer = |more: serde_json::Value| -> kube::core::Status {
            let mut status = json!({"status": "Failure", "reason": "Invalid", "code": 422});
            json_patch::merge(&mut status, &more);
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
