//! Is there a way back: an earlier revision of the service's workloads, or a flag?

use kube::core::DynamicObject;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// What was found by looking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WayBack {
    /// Each thing that was found, in words.
    pub found: Vec<String>,
    /// Where was looked, in words; empty when nothing is stated that could be looked for.
    pub looked: Vec<String>,
}

/// Most workloads and flags that are named.
const MAX_NAMED: usize = 8;

/// Workloads that have an earlier revision, by their ReplicaSets and ControllerRevisions.
pub fn revisions(objects: &[Arc<DynamicObject>]) -> Vec<String> {
    let mut by_owner: BTreeMap<(String, String), Vec<(i64, &DynamicObject)>> = BTreeMap::new();
    for object in objects.iter().map(Arc::as_ref) {
        let mut owners = object.metadata.owner_references.iter().flatten();
        let Some(owner) = owners.find(|o| o.controller == Some(true)) else { continue };
        let annotation = "deployment.kubernetes.io/revision";
        let number = match object.data.get("revision").and_then(Value::as_i64) {
            Some(number) => Some(number),
            None => object.metadata.annotations.as_ref().and_then(|a| a.get(annotation)?.parse().ok()),
        };
        let Some(number) = number else { continue };
        by_owner.entry((owner.kind.clone(), owner.name.clone())).or_default().push((number, object));
    }
    let mut named = Vec::new();
    for ((kind, name), mut revisions) in by_owner {
        revisions.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        revisions.dedup_by_key(|(_, object)| object.metadata.uid.clone());
        if let Some((number, earlier)) = revisions.get(1) {
            let images = images(earlier);
            let images = if images.is_empty() { String::new() } else { format!(", {}", images.join(", ")) };
            named.push(format!("{kind}/{name} can be rolled back to revision {number}{images}"));
        }
    }
    named.truncate(MAX_NAMED);
    named
}

/// ConfigMaps that hold flags, by their names or the names of what is in them.
pub fn flags(objects: &[Arc<DynamicObject>]) -> Vec<String> {
    let is_flag = |text: &str| {
        let text = text.to_lowercase();
        ["flag", "feature", "toggle"].iter().any(|word| text.contains(word))
    };
    let mut named: Vec<String> = Vec::new();
    for object in objects {
        let Some(name) = object.metadata.name.as_ref() else { continue };
        let data = object.data.get("data").and_then(Value::as_object);
        let keys: Vec<&str> = data.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let flags: Vec<&str> = match is_flag(name) {
            true => keys,
            false => keys.into_iter().filter(|key| is_flag(key)).collect(),
        };
        if !flags.is_empty() {
            let more = if flags.len() > 5 { ", …" } else { "" };
            let keys = flags.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            named.push(format!("ConfigMap/{name} holds flags: {keys}{more}"));
        }
    }
    named.sort();
    named.dedup();
    named.truncate(MAX_NAMED);
    named
}

fn images(object: &DynamicObject) -> Vec<&str> {
    let template = object.data.pointer("/data/spec/template").or(object.data.pointer("/spec/template"));
    let containers = template.and_then(|t| t.pointer("/spec/containers")).and_then(Value::as_array);
    containers.into_iter().flatten().filter_map(|c| c.get("image")?.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Arc<DynamicObject> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn replica_set(owner: &str, number: u32, image: &str) -> Arc<DynamicObject> {
        object(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {
            "name": format!("{owner}-{number}"), "uid": format!("{owner}-{number}"),
            "annotations": {"deployment.kubernetes.io/revision": number.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": owner, "controller": true}]},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}))
    }

    #[test]
    fn the_revision_before_the_newest_is_named_with_its_image_and_a_first_revision_is_no_way_back() {
        let sets = [
            replica_set("web", 9, "web:9"),
            replica_set("web", 10, "web:10"),
            replica_set("web", 8, "web:8"),
            replica_set("new", 1, "new:1"),
        ];
        assert_eq!(revisions(&sets), ["Deployment/web can be rolled back to revision 9, web:9"]);
        let revision = |number: i64| {
            object(
                json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": format!("db-{number}"),
                "uid": format!("db-{number}"), "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db", "controller": true}]},
                "revision": number, "data": {"spec": {"template": {"spec": {"containers": [{"image": format!("db:{number}")}]}}}}}),
            )
        };
        assert_eq!(
            revisions(&[revision(1), revision(2)]),
            ["StatefulSet/db can be rolled back to revision 1, db:1"]
        );
        assert!(revisions(&[revision(1), revision(1)]).is_empty(), "the same one twice");
    }

    #[test]
    fn flags_are_known_by_their_names_and_an_empty_config_map_holds_none() {
        let map = |name: &str, data: Value| {
            object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
        };
        let maps = [
            map("checkout-flags", json!({"new-pricing": "on", "x": "off"})),
            map("checkout", json!({"feature.cart": "on", "url": "x"})),
            map("nginx", json!({"nginx.conf": "x"})),
            map("flags-empty", json!(null)),
        ];
        assert_eq!(
            flags(&maps),
            [
                "ConfigMap/checkout holds flags: feature.cart",
                "ConfigMap/checkout-flags holds flags: new-pricing, x"
            ]
        );
    }
}
