//! Status writes: only what differs, only on the revision it was worked out from.

use super::{Error, error::Error as E};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
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
    S: Serialize,
{
    let value =
        |status: Option<&S>| status.map(serde_json::to_value).transpose().map(Option::unwrap_or_default);
    let what = || format!("writing the status of {}", before.name_any());
    let (old, new) = match (value(old), value(Some(new))) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(e), _) | (_, Err(e)) => return Err(E::api(what())(kube::Error::SerdeError(e))),
    };
    let Some(difference) = merge_difference(&old, &new) else { return Ok(None) };
    let patch = json!({
        "metadata": {"resourceVersion": before.meta().resource_version, "uid": before.meta().uid},
        "status": difference,
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(&before.name_any(), &params, &Patch::Merge(patch))
        .await
        .map(Some)
        .map_err(E::api(what()))
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
                json_patch::merge(&mut patched, &patch);
            }
            prop_assert_eq!(patched, new);
        }
    }
}
