//! What is not scaled down: what would come back by itself, what would lose data, and what the API server needs.

use super::{
    API_SERVICE, CUSTOM_RESOURCE_DEFINITION, MUTATING_WEBHOOKS, ObjectId, SERVICE, Scene, Stop,
    VALIDATING_WEBHOOKS, field,
    paths::{self, Paths},
    replicas,
};
use kube::core::DynamicObject;
use serde_json::Value;

/// Refuses what must not be done.
pub fn check(to: i32, paths: &Paths, scene: &Scene<'_>) -> Result<(), Stop> {
    let target = scene.target;
    paths::refuse_deaf(scene)?;
    let owner = target.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    if let Some(owner) = owner {
        return Err(Stop::refuse(
            "TargetControlled",
            format!(
                "its replicas are set by {} {}, which would put them back: mitigate that object instead",
                owner.kind, owner.name
            ),
        ));
    }
    let present = replicas(target, paths);
    let when_scaled = field(target, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled");
    // Who scales up scales down with the release.
    if i64::from(to) != present && when_scaled.as_ref().and_then(Value::as_str) == Some("Delete") {
        let when = if i64::from(to) > present { "the release scales down, which" } else { "scaling down" };
        return Err(Stop::refuse(
            "WouldDeleteVolumes",
            format!(
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled is Delete: {when} deletes the data of the removed pods; set it to Retain first"
            ),
        ));
    }
    if i64::from(to) >= present {
        return Ok(());
    }
    if scene.namespace == "kube-system" {
        return Err(Stop::refuse(
            "ProtectedNamespace",
            "what runs in kube-system keeps the cluster alive: it is not scaled down",
        ));
    }
    let label = |key: &str| target.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    if label("app.kubernetes.io/name").is_some_and(|name| name == "incident-operator") {
        return Err(Stop::refuse("Self", "this is the operator itself: nobody would put it back"));
    }
    if to == 0 { api_backend(paths, scene) } else { Ok(()) }
}

/// Refuses a workload that the API server calls for requests to go through.
fn api_backend(paths: &Paths, scene: &Scene<'_>) -> Result<(), Stop> {
    let mut needed: Vec<(String, String)> = Vec::new();
    for kind in [VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS] {
        for object in scene.everywhere(kind)? {
            let webhooks = object.data.get("webhooks").and_then(Value::as_array);
            for webhook in webhooks.into_iter().flatten() {
                let fails = webhook.get("failurePolicy").and_then(Value::as_str) != Some("Ignore");
                let service = webhook.pointer("/clientConfig/service");
                if fails && let Some(name) = here(service, scene) {
                    needed.push((name, format!("the fail-closed webhook {}", name_of(object))));
                }
            }
        }
    }
    for object in scene.everywhere(API_SERVICE)? {
        if let Some(name) = here(object.data.pointer("/spec/service"), scene) {
            needed.push((name, format!("APIService {}", name_of(object))));
        }
    }
    for object in scene.everywhere(CUSTOM_RESOURCE_DEFINITION)? {
        if let Some(name) = here(object.data.pointer("/spec/conversion/webhook/clientConfig/service"), scene)
        {
            needed.push((name, format!("the conversion of {}", name_of(object))));
        }
    }
    let pods = pod_labels(paths, scene);
    for (name, what) in needed {
        let Some(service) = scene.one(&ObjectId::new(SERVICE, &name))? else { continue };
        let selector = field(service, "/spec/selector");
        let selector = selector.as_ref().and_then(Value::as_object).filter(|s| !s.is_empty());
        let selects =
            selector.is_some_and(|selector| selector.iter().all(|(key, value)| pods.get(key) == Some(value)));
        if selects {
            return Err(Stop::refuse(
                "ServesTheApi",
                format!(
                    "it serves {what} through Service {name}: without it the API server refuses requests, this operator's too"
                ),
            ));
        }
    }
    Ok(())
}

/// The labels of the target's pods, as far as it tells them.
fn pod_labels(paths: &Paths, scene: &Scene<'_>) -> Value {
    if let Some(labels) = field(scene.target, "/spec/template/metadata/labels") {
        return labels;
    }
    let selector = paths::selector(scene.target, paths).unwrap_or_default();
    let terms = selector.split(',').filter_map(|term| term.split_once('='));
    terms
        .map(|(key, value)| (key.trim().to_owned(), Value::from(value.trim_start_matches('=').trim())))
        .collect()
}

fn here(service: Option<&Value>, scene: &Scene<'_>) -> Option<String> {
    let service = service?;
    let text = |key: &str| service.get(key).and_then(Value::as_str);
    (text("namespace") == Some(scene.namespace)).then(|| text("name").map(str::to_owned))?
}

fn name_of(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}
