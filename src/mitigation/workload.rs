//! What is common to workloads: who controls them, which pods and revisions are theirs.

use super::{POD, Scene, Stop, field, patch::pointer};
use kube::core::DynamicObject;
use serde_json::Value;
use std::sync::Arc;

/// What is said while status is older than the spec.
pub const UNSEEN: &str = "the workload's controller has not seen the last change yet";

/// Whether status is older than the spec.
pub fn is_unseen(object: &DynamicObject) -> bool {
    number(object, "/status/observedGeneration") < object.metadata.generation.unwrap_or(0)
}

/// A text of an object.
pub fn text(object: &DynamicObject, path: &str) -> Option<String> {
    field(object, path).and_then(|value| value.as_str().map(str::to_owned))
}

/// A number of an object; 0 when there is none.
pub fn number(object: &DynamicObject, path: &str) -> i64 {
    field(object, path).and_then(|value| value.as_i64()).unwrap_or(0)
}

/// A label of an object.
pub fn label(object: &DynamicObject, key: &str) -> Option<String> {
    text(object, &pointer(&["metadata", "labels", key]))
}

/// An annotation of an object.
pub fn annotation(object: &DynamicObject, key: &str) -> Option<String> {
    text(object, &pointer(&["metadata", "annotations", key]))
}

/// Refuses a target that a controller keeps as it wants it. `but` is a kind of controller that does not.
pub fn refuse_controlled(target: &DynamicObject, what: &str, but: Option<&str>) -> Result<(), Stop> {
    let mut owners = target.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true) && Some(owner.kind.as_str()) != but);
    match owner {
        None => Ok(()),
        Some(owner) => Err(Stop::refuse(
            "TargetControlled",
            format!(
                "{what} is set by {} {}, which would put it back: mitigate that object instead",
                owner.kind, owner.name
            ),
        )),
    }
}

/// True when the object is controlled by the one with this uid.
pub fn is_controlled_by(object: &DynamicObject, uid: Option<&str>) -> bool {
    let mut owners = object.metadata.owner_references.iter().flatten();
    uid.is_some() && owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

/// The label selector of a workload as text.
pub fn selector(target: &DynamicObject) -> String {
    let mut terms = Vec::new();
    let labels = field(target, "/spec/selector/matchLabels");
    for (key, value) in labels.as_ref().and_then(Value::as_object).into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    let expressions = field(target, "/spec/selector/matchExpressions");
    for term in expressions.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| term.get(name).and_then(Value::as_str).unwrap_or_default();
        let values = term.get("values").and_then(Value::as_array);
        let values: Vec<&str> = values.into_iter().flatten().filter_map(Value::as_str).collect();
        let (key, values) = (part("key"), values.join(","));
        match part("operator") {
            "In" => terms.push(format!("{key} in ({values})")),
            "NotIn" => terms.push(format!("{key} notin ({values})")),
            "Exists" => terms.push(key.to_owned()),
            "DoesNotExist" => terms.push(format!("!{key}")),
            _ => {}
        }
    }
    terms.join(",")
}

/// The pods of a workload that controls them itself.
pub fn pods<'a>(scene: &Scene<'a>) -> Result<Vec<&'a DynamicObject>, Stop> {
    let uid = scene.target.metadata.uid.as_deref();
    let all = scene.list(POD, Some(&selector(scene.target)))?;
    Ok(all.iter().map(Arc::as_ref).filter(|pod| is_controlled_by(pod, uid)).collect())
}

/// Whether a condition of an object is true.
pub fn has_condition(object: &DynamicObject, type_: &str) -> bool {
    let conditions = field(object, "/status/conditions");
    let mut all = conditions.as_ref().and_then(Value::as_array).into_iter().flatten();
    let is = |condition: &Value, key: &str, wanted: &str| {
        condition.get(key).and_then(Value::as_str).is_some_and(|value| value == wanted)
    };
    all.any(|condition| is(condition, "type", type_) && is(condition, "status", "True"))
}

/// A few names in words.
pub fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 5;
    let all: Vec<&str> = names.collect();
    let shown = all.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::patch::tests::object;
    use serde_json::json;

    #[test]
    fn a_selector_is_written_as_the_api_server_reads_it() {
        let target =
            object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web", "b": "c"}, "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "tier", "operator": "NotIn", "values": ["z"]},
                {"key": "present", "operator": "Exists"},
                {"key": "absent", "operator": "DoesNotExist"}]}}}));
        assert_eq!(selector(&target), "app=web,b=c,tier in (x,y),tier notin (z),present,!absent");
    }

    #[test]
    fn of_many_names_the_first_are_told_and_the_rest_counted() {
        assert_eq!(names(["a", "b"].into_iter()), "a, b");
        assert_eq!(names(["a", "b", "c", "d", "e", "f", "g"].into_iter()), "a, b, c, d, e and 2 more");
    }
}
