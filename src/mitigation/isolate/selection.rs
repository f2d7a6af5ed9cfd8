//! Which pods are meant, and what selects them.

use super::{
    DAEMON_SET, ISOLATED, JOB, NETWORK_POLICY, ObjectId, POD, REPLICA_SET, SERVICE, STATEFUL_SET, Scene,
    Stop, field,
};
use crate::{
    api::{Isolate, IsolateMethod},
    mitigation::selector::{Labels, selects},
};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The pods that are meant. Once they were announced they stay the same: no new one joins.
pub fn pods<'a>(isolate: &Isolate, scene: &Scene<'a>) -> Result<Vec<&'a DynamicObject>, Stop> {
    let stripping = isolate.method() == IsolateMethod::StripLabels;
    let mut meant: Vec<&'a DynamicObject> = if scene.id.kind == POD {
        vec![scene.target]
    } else {
        let all = scene.list(POD, None)?.iter().map(AsRef::as_ref);
        let announced = |pod: &&DynamicObject| scene.touched.contains(&ObjectId::of(POD, pod));
        if stripping && scene.touched.iter().any(|id| id.kind == POD) {
            all.filter(announced).collect()
        } else {
            let selector = selector_of(scene)?;
            all.filter(|pod| is_meant(isolate, &selector, pod)).collect()
        }
    };
    for pod in &meant {
        if stripping {
            refuse_ordinals(pod)?;
        }
    }
    meant.sort_by_key(|pod| pod.metadata.name.clone());
    Ok(meant)
}

fn is_meant(isolate: &Isolate, selector: &Value, pod: &DynamicObject) -> bool {
    let phase = field(pod, "/status/phase");
    let asked = isolate.pod_labels.iter().flatten();
    pod.metadata.deletion_timestamp.is_none()
        && !matches!(phase.as_ref().and_then(Value::as_str), Some("Succeeded" | "Failed"))
        && matches(selector, pod)
        && asked.into_iter().all(|(key, value)| label(pod, key) == Some(&value.0))
        // A policy that leaves the labels selects it all the same.
        && (isolate.method() == IsolateMethod::DenyPolicy || label(pod, ISOLATED).is_none())
}

/// A StatefulSet makes a pod of the same name only once the old one is deleted, so it would run with one less.
fn refuse_ordinals(pod: &DynamicObject) -> Result<(), Stop> {
    let set = pod.metadata.owner_references.iter().flatten().find(|o| o.kind == STATEFUL_SET.kind);
    match set {
        Some(set) if set.controller == Some(true) => Err(Stop::refuse(
            "StatefulPod",
            format!(
                "pod {} belongs to StatefulSet {}, which does not replace a pod that still exists: scale it, or use method DenyPolicy",
                pod.metadata.name.as_deref().unwrap_or_default(),
                set.name
            ),
        )),
        _ => Ok(()),
    }
}

/// How many ready pods the workload has besides those that were isolated.
pub fn replacements(scene: &Scene<'_>) -> Result<i64, Stop> {
    let selector = selector_of(scene)?;
    let ready = |pod: &DynamicObject| {
        let conditions = field(pod, "/status/conditions");
        let conditions = conditions.as_ref().and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let pods = scene.list(POD, None)?.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && !scene.touched.contains(&ObjectId::of(POD, pod))
            && matches(&selector, pod)
            && ready(pod)
    });
    Ok(i64::try_from(pods.count()).unwrap_or(i64::MAX))
}

fn label<'a>(object: &'a DynamicObject, key: &str) -> Option<&'a str> {
    object.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The selector of a workload, both parts of it: by one of them alone, pods of others would be taken for its own.
fn selector_of(scene: &Scene<'_>) -> Result<Value, Stop> {
    let selector = field(scene.target, "/spec/selector").unwrap_or_default();
    let pairs = selector.get("matchLabels").and_then(Value::as_object).is_some_and(|pairs| !pairs.is_empty());
    let terms = selector.get("matchExpressions").and_then(Value::as_array);
    // An empty one would select every pod.
    if pairs || terms.is_some_and(|terms| !terms.is_empty()) {
        return Ok(selector);
    }
    Err(Stop::refuse("NoSelector", format!("{} selects no pods", scene.id)))
}

/// What selects the pods of a workload, for a policy that leaves their labels.
pub fn selector(isolate: &Isolate, scene: &Scene<'_>) -> Result<Value, Stop> {
    let mut selector = selector_of(scene)?;
    for (key, value) in isolate.pod_labels.iter().flatten() {
        selector["matchLabels"][key] = json!(value.0);
    }
    Ok(selector)
}

/// Keys of the pod's labels by which a Service, its workload or a NetworkPolicy selects it.
pub fn selected_labels(scene: &Scene<'_>, pod: &DynamicObject) -> Result<Vec<String>, Stop> {
    let mut keys = BTreeSet::new();
    for service in scene.list(SERVICE, None)? {
        let selector = field(service, "/spec/selector");
        add(&mut keys, pod, selector.as_ref().map(|s| json!({"matchLabels": s})).as_ref());
    }
    for policy in scene.list(NETWORK_POLICY, None)? {
        if policy.metadata.name.as_deref() != Some(scene.made_name().as_str()) {
            add(&mut keys, pod, field(policy, "/spec/podSelector").as_ref());
        }
    }
    let owner = pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    if let Some(owner) = owner {
        let known = [REPLICA_SET, DAEMON_SET, JOB].into_iter().find(|kind| kind.kind == owner.kind);
        if let Some(kind) = known {
            let maker = scene.one(&ObjectId::new(kind, &owner.name))?;
            let selector = maker.and_then(|maker| field(maker, "/spec/selector"));
            add(&mut keys, pod, selector.as_ref());
        }
    }
    Ok(keys.into_iter().filter(|key| key != ISOLATED).collect())
}

/// Adds the keys of a selector that matches the pod.
fn add(keys: &mut BTreeSet<String>, pod: &DynamicObject, selector: Option<&Value>) {
    let Some(selector) = selector.filter(|selector| matches(selector, pod)) else { return };
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let terms = selector.get("matchExpressions").and_then(Value::as_array);
    let named = terms.into_iter().flatten().filter_map(|term| term.get("key")?.as_str().map(str::to_owned));
    let found = labels.into_iter().flatten().map(|(key, _)| key.clone()).chain(named);
    keys.extend(found.filter(|key| label(pod, key).is_some()));
}

/// Whether a label selector matches the pod. An empty one matches all, and no label can be taken away from it.
fn matches(selector: &Value, pod: &DynamicObject) -> bool {
    match &pod.metadata.labels {
        Some(labels) => selects(selector, labels),
        None => selects(selector, &Labels::new()),
    }
}

/// The pod as it is without these labels, and with ours.
pub fn stripped(scene: &Scene<'_>, pod: &DynamicObject, keys: &[String]) -> DynamicObject {
    let mut pod = pod.clone();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.retain(|key, _| !keys.contains(key));
    labels.insert(ISOLATED.to_owned(), scene.short_uid().to_owned());
    pod
}

/// Whether the pod has the label of this mitigation.
pub fn is_isolated(scene: &Scene<'_>, pod: &DynamicObject) -> bool {
    label(pod, ISOLATED) == Some(scene.short_uid())
}

/// The pods that are isolated by now. By a policy that leaves the labels, new ones are as well.
pub fn isolated<'a>(isolate: &Isolate, scene: &Scene<'a>) -> Result<Vec<&'a DynamicObject>, Stop> {
    if isolate.method() == IsolateMethod::DenyPolicy {
        return pods(isolate, scene);
    }
    if scene.id.kind == POD {
        return Ok(vec![scene.target]);
    }
    let all = scene.list(POD, None)?.iter().map(AsRef::as_ref);
    Ok(all.filter(|pod| is_isolated(scene, pod)).collect())
}

/// The policy of somebody else that lets traffic to one of the pods, in words.
pub fn let_through(scene: &Scene<'_>, pods: &[&DynamicObject]) -> Result<Option<String>, Stop> {
    for policy in scene.list(NETWORK_POLICY, None)? {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        if name != scene.made_name()
            && let Some(pod) = pods.iter().find(|pod| allows(policy, pod))
        {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            return Ok(Some(format!("NetworkPolicy {name} allows traffic of pod {pod}")));
        }
    }
    Ok(None)
}

/// Whether a NetworkPolicy selects the pod and lets something pass.
fn allows(policy: &DynamicObject, pod: &DynamicObject) -> bool {
    let selected = field(policy, "/spec/podSelector").is_none_or(|selector| matches(&selector, pod));
    let has = |path: &str| field(policy, path).and_then(|v| v.as_array().map(|rules| !rules.is_empty()));
    selected && (has("/spec/ingress") == Some(true) || has("/spec/egress") == Some(true))
}
