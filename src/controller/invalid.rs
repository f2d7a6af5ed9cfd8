//! Objects that cannot be read, because a newer version or an administrator wrote what this one does not know.
//! They are reported on themselves and stop nothing else.

use super::{
    Context, Key,
    client::is_held_back,
    error::{Retry, backoff, code},
    events::Note,
    status::FIELD_MANAGER,
};
use crate::{
    api::{Condition, ConditionStatus},
    decide::conditions::Conditions,
};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api,
    api::{ApiResource, Patch, PatchParams},
    core::{DynamicObject, ObjectMeta, Resource},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tokio::{sync::Semaphore, time::sleep};
use tracing::warn;

/// Objects that are marked at the same time.
const MARKERS: usize = 8;

/// What is wrong with which object in which generation. One that is edited is told again, which generation was looked at.
#[derive(Clone, PartialEq)]
struct Reported {
    uid: Option<String>,
    generation: Option<i64>,
    error: String,
}

/// Remembers what was reported, so that each error is reported once.
pub struct Reports {
    known: Mutex<HashMap<(String, Key), Reported>>,
    markers: Semaphore,
}

impl Default for Reports {
    fn default() -> Reports {
        Reports { known: Mutex::default(), markers: Semaphore::new(MARKERS) }
    }
}

impl Reports {
    /// Reports an object that cannot be read, unless that was done for this very error of this
    /// very generation.
    pub async fn report<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &self,
        ctx: &Context,
        metadata: &ObjectMeta,
        error_text: &str,
    ) {
        let kind = K::kind(&()).into_owned();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let name = metadata.name.clone().unwrap_or_default();
        let key = Key::new(&namespace, &name);
        let reported = Reported {
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            error: error_text.to_owned(),
        };
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.insert((kind.clone(), key.clone()), reported.clone());
            if before.as_ref() == Some(&reported) {
                return;
            }
        }
        warn!(kind, object = %key, error = error_text, "object cannot be read");
        let mut message = in_words(error_text);
        // Also a standby comes here, whose writes are held back until it leads.
        for attempt in 0.. {
            let marked = {
                // Never closed.
                let _marker = self.markers.acquire().await;
                condition::<K>(ctx, &key, metadata, error_text).await
            };
            let error = match marked {
                Ok(told) => {
                    message = told.unwrap_or(message);
                    break;
                }
                Err(error) => error,
            };
            if !is_held_back(&error) {
                warn!(kind, object = %key, %error, "the object that cannot be read could not be marked");
            }
            if matches!(code(&error), Some(400..=408 | 410..=428)) {
                break;
            }
            sleep(backoff(Retry::Backoff, attempt)).await;
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.get(&(kind.clone(), key.clone())) != Some(&reported) {
                return;
            }
        }
        ctx.events.tell(Note {
            regarding: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(kind),
                name: Some(name),
                namespace: Some(namespace),
                uid: metadata.uid.clone(),
                ..ObjectReference::default()
            },
            source: None,
            related: None,
            reason: "InvalidObject".to_owned(),
            message,
            warning: true,
            time: Timestamp::now(),
        });
    }

    /// The object can be read again, or is gone.
    pub fn forget<K: Resource<DynamicType = ()>>(&self, key: &Key) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.is_empty() {
            known.remove(&(K::kind(&()).into_owned(), key.clone()));
        }
    }
}

/// What is told of an object that cannot be read.
fn in_words(error: &str) -> String {
    format!(
        "this version of the operator cannot read the object: {error}; correct it, or run the version that wrote it"
    )
}

/// What is wrong with an object and in which field, as far as that is known: inside of what may be one of several
/// things, such as an action, the field around it is named. `None` when nothing is wrong.
fn wrong_field<K: DeserializeOwned>(object: Value) -> Option<String> {
    let error = serde_path_to_error::deserialize::<_, K>(object).err()?;
    let path = error.path().to_string();
    Some(match path.as_str() {
        "." | "?" => error.into_inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    })
}

/// Sets `Ready` and `Stalled` on an object whose content is unknown to us, and nothing else. Answers what it says there,
/// unless the object is gone or is another's to tell of.
async fn condition<K: Resource<DynamicType = ()> + DeserializeOwned>(
    ctx: &Context,
    key: &Key,
    metadata: &ObjectMeta,
    error_text: &str,
) -> Result<Option<String>, kube::Error> {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = match &*key.namespace {
        // Several operators, each of one namespace, share what lies in none: none of them speaks for all.
        "" if ctx.namespace.is_some() => return Ok(None),
        "" => Api::all_with(ctx.client.clone(), &resource),
        namespace => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
    };
    let Some(object) = api.get_opt(&key.name).await? else { return Ok(None) };
    let whole = serde_json::to_value(&object).map_err(kube::Error::SerdeError)?;
    let message = in_words(wrong_field::<K>(whole).as_deref().unwrap_or(error_text));
    let present = object.data.pointer("/status/conditions").cloned().unwrap_or_else(|| json!([]));
    let mut conditions: Vec<Condition> = serde_json::from_value(present.clone()).unwrap_or_default();
    let mut c = Conditions::new(&mut conditions, metadata.generation, Timestamp::now());
    c.set("Ready", ConditionStatus::False, "InvalidObject", &message);
    c.set("Stalled", ConditionStatus::True, "InvalidObject", &message);
    let wanted: Value = serde_json::to_value(&conditions).map_err(kube::Error::SerdeError)?;
    if wanted == present {
        return Ok(Some(message));
    }
    let patch = json!({
        "metadata": {"resourceVersion": object.metadata.resource_version, "uid": object.metadata.uid},
        "status": {"observedGeneration": metadata.generation, "conditions": wanted},
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(&key.name, &params, &Patch::Merge(patch)).await.map(|_| Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Incident;

    #[test]
    fn the_field_that_cannot_be_read_is_named() {
        let wrong = |spec: Value| {
            let object = json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
                "metadata": {"name": "a"}, "spec": spec});
            wrong_field::<Incident>(object)
        };
        assert_eq!(wrong(json!({"title": "t"})), None);
        let late = wrong(json!({"title": "t", "detection": {"time": "9999-12-31T23:59:59Z"}})).unwrap();
        assert!(late.starts_with("spec.detection.time: "), "{late}");
        let mitigation = json!({"name": "a", "reason": "r", "targetRef": {"kind": "Deployment", "name": "d"}, "teleport": {}});
        let newer = wrong(json!({"title": "t", "mitigations": [mitigation]})).unwrap();
        assert!(newer.starts_with("spec.mitigations[0]"), "{newer}");
        let lacking = wrong(json!({})).unwrap();
        assert!(lacking.contains("missing field `title`"), "{lacking}");
    }
}
