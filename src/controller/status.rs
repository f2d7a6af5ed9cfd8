//! Status writes: only what differs, only on the revision it was worked out from. What a timeline got in addition is
//! appended, so that a request does not grow with what is on record.

use super::{
    Error,
    error::Error as E,
    json_patch::{self, Part},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::fmt::Debug;

/// Field manager of what the operator writes to its own kinds.
pub const FIELD_MANAGER: &str = "incident-operator";

/// Writes a status as a merge patch of what differs from `before`. `None`: nothing differs, nothing was sent.
///
/// The patch carries the resourceVersion of `before`: if somebody wrote meanwhile, the answer is a conflict and
/// the status is worked out again.
pub async fn write<K, S>(api: &Api<K>, before: &K, old: Option<&S>, new: &S) -> Result<Option<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    S: Serialize + PartialEq,
{
    // Most visits change nothing, and a status may be long.
    if old == Some(new) {
        return Ok(None);
    }
    let value =
        |status: Option<&S>| status.map(serde_json::to_value).transpose().map(Option::unwrap_or_default);
    let what = || format!("writing the status of {}", before.name_any());
    let (old, new) = match (value(old), value(Some(new))) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(e), _) | (_, Err(e)) => return Err(E::api(what())(kube::Error::SerdeError(e))),
    };
    let Some(difference) = merge_difference(&old, &new) else { return Ok(None) };
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let (name, meta) = (before.name_any(), before.meta());
    if let Some(patch) = appending(meta, &old, &new, &difference) {
        match json_patch::send(api, Part::Status, &name, &params, &patch).await {
            // The object is no longer what it was: the other patch is told so in a way that says what to do.
            Err(kube::Error::Api(status)) if status.code == 422 => {}
            written => return written.map(Some).map_err(E::api(what())),
        }
    }
    let patch = json!({
        "metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid},
        "status": difference,
    });
    api.patch_status(&name, &params, &Patch::Merge(patch)).await.map(Some).map_err(E::api(what()))
}

/// The JSON Patch (RFC 6902) that appends to a timeline and sets the other fields that differ; `None` when the timeline
/// changed in another way. A resourceVersion that is replaced by another than the object's is a conflict.
fn appending(meta: &ObjectMeta, old: &Value, new: &Value, difference: &Value) -> Option<Value> {
    const LIST: &str = "timeline";
    let (before, after) = (old.get(LIST)?.as_array()?, new.get(LIST)?.as_array()?);
    let added =
        after.strip_prefix(before.as_slice()).filter(|added| !added.is_empty() && !before.is_empty())?;
    let operation = |op: &str, path: String, value: &Value| json!({"op": op, "path": path, "value": value});
    let mut all = vec![
        operation("replace", "/metadata/resourceVersion".to_owned(), &json!(meta.resource_version.as_ref()?)),
        operation("replace", "/metadata/uid".to_owned(), &json!(meta.uid.as_ref()?)),
    ];
    for key in difference.as_object()?.keys().filter(|key| *key != LIST) {
        let path = format!("/status/{key}");
        all.push(match new.get(key) {
            Some(value) => operation("add", path, value),
            None => json!({"op": "remove", "path": path}),
        });
    }
    all.extend(added.iter().map(|record| operation("add", format!("/status/{LIST}/-"), record)));
    Some(Value::Array(all))
}

/// The JSON merge patch (RFC 7386) that turns `old` into `new`; `None` when they are equal.
pub fn merge_difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for (key, value) in new {
        if let Some(difference) = merge_difference(old.get(key).unwrap_or(&Value::Null), value) {
            patch.insert(key.clone(), difference);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_differs_is_sent_and_what_went_is_removed() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1]});
        let new = json!({"a": 1, "b": {"c": 4}, "e": [1, 2]});
        assert_eq!(merge_difference(&old, &new), Some(json!({"b": {"c": 4, "d": null}, "e": [1, 2]})));
        assert_eq!(merge_difference(&new, &new), None);
    }

    #[test]
    fn what_a_timeline_got_in_addition_is_appended_and_the_rest_of_it_is_not_sent() {
        let meta =
            ObjectMeta { resource_version: Some("7".into()), uid: Some("u".into()), ..ObjectMeta::default() };
        let patch = |old: &Value, new: &Value| appending(&meta, old, new, &merge_difference(old, new)?);
        let old = json!({"timeline": ["long, long ago"], "phase": "a", "gone": 1, "same": {"x": 1}});
        let new = json!({"timeline": ["long, long ago", "now", "and now"], "phase": "b", "same": {"x": 1}});
        let mut object = json!({"metadata": {"resourceVersion": "7", "uid": "u"}, "status": old});
        let sent = patch(&old, &new).expect("it was appended to");
        assert!(!sent.to_string().contains("long ago"), "{sent}");
        let sent: ::json_patch::Patch = serde_json::from_value(sent).expect("it is a patch");
        ::json_patch::patch(&mut object, &sent).expect("it applies");
        assert_eq!(object["status"], new);
        // A first entry, one that was changed, one that made room: nothing to append to.
        assert!(patch(&json!({}), &new).is_none());
        assert!(patch(&json!({"timeline": []}), &new).is_none());
        assert!(patch(&json!({"timeline": ["b"]}), &json!({"timeline": ["c", "d"]})).is_none());
        assert!(patch(&json!({"timeline": ["a", "b"]}), &json!({"timeline": ["b", "c", "d"]})).is_none());
        assert!(patch(&json!({"timeline": ["a"]}), &json!({"timeline": ["a"], "phase": "b"})).is_none());
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_patch_turns_the_one_into_the_other(old in documents(), new in documents()) {
            let (old, new) = (json!({"s": old}), json!({"s": new}));
            let mut patched = old.clone();
            if let Some(patch) = merge_difference(&old, &new) {
                ::json_patch::merge(&mut patched, &patch);
            }
            prop_assert_eq!(patched, new);
        }
    }
}
