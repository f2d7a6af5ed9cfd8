//! Objects that tests act on. Their pods become ready on the nodes of the test's control plane.

use serde_json::{Value, json};

/// A Deployment with pods labelled `app: <name>`.
pub fn deployment(name: &str, replicas: i32) -> Value {
    workload("Deployment", name, replicas)
}

/// A StatefulSet with pods labelled `app: <name>`, without storage.
pub fn statefulset(name: &str, replicas: i32) -> Value {
    let mut object = workload("StatefulSet", name, replicas);
    object["spec"]["serviceName"] = name.into();
    // One after the other would only cost the tests time.
    object["spec"]["podManagementPolicy"] = "Parallel".into();
    object
}

/// A ConfigMap with the given data.
pub fn configmap(name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// An Incident: `spec` is what is asserted.
pub fn incident(name: &str, spec: Value) -> Value {
    ours("Incident", name, spec)
}

/// A Mitigation.
pub fn mitigation(name: &str, spec: Value) -> Value {
    ours("Mitigation", name, spec)
}

/// A TimelineEntry about an incident.
pub fn entry(incident: &str, type_: &str, message: &str) -> Value {
    let spec = json!({"incidentRef": {"name": incident}, "type": type_, "message": message});
    let mut object = ours("TimelineEntry", "", spec);
    object["metadata"] = json!({"generateName": format!("{incident}-")});
    object
}

/// An object of this project's group.
pub fn ours(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "incident-operator.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

fn workload(kind: &str, name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "registry.example/main:1"}]},
            },
        },
    })
}
