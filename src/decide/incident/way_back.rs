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
/// Said where nothing is stated that could be looked for.
pub const NOTHING_STATED: &str =
    "state spec.service, so that earlier revisions and flags of its workloads can be looked for";

/// Where was looked, in words.
pub fn labelled(selector: &str) -> String {
    format!("what is labelled {selector}")
}

/// Whether a note on record is what a look with these labels left there, so that a process that comes later need not look
/// again.
pub fn is_on_record<'a>(note: &str, mut selectors: impl Iterator<Item = &'a str>) -> bool {
    let first = selectors.next();
    match first {
        None => note == NOTHING_STATED,
        Some(first) => std::iter::once(first).chain(selectors).all(|s| note.contains(&labelled(s))),
    }
}

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
    fn a_note_tells_of_the_labels_that_it_was_made_with_and_of_no_others() {
        let labels = ["app.kubernetes.io/name=web", "app=web"];
        let note = format!("found no earlier revision and no flag among {}", labels.map(labelled).join(", "));
        assert!(is_on_record(&note, labels.into_iter()));
        assert!(!is_on_record(&note, ["app=web", "app=db"].into_iter()));
        assert!(!is_on_record(&note, std::iter::empty()), "spec.service was taken out");
        assert!(is_on_record(NOTHING_STATED, std::iter::empty()));
        assert!(!is_on_record(NOTHING_STATED, labels.into_iter()));
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
