//! What objects of the Gateway API and of Envoy Gateway tell about themselves.

use super::{Effect, ObjectId, Refusal, field};
use kube::core::DynamicObject;
use serde_json::Value;

/// Beginning of the names under which Envoy Gateway writes status.
const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io/";

/// Refuses what another gateway serves, as far as its status tells: what is asked for is known to Envoy Gateway only.
/// `instead`: what to do then.
pub fn is_envoy(target: &DynamicObject, id: &ObjectId, instead: &str) -> Result<(), Refusal> {
    let parents = field(target, "/status/parents").unwrap_or_default();
    let controllers: Vec<&str> = parents
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parent| parent.get("controllerName")?.as_str())
        .collect();
    if let (Some(other), false) =
        (controllers.first(), controllers.iter().any(|name| name.starts_with(ENVOY_GATEWAY)))
    {
        return Err(Refusal::new(
            "OtherGateway",
            format!("{id} is served by {other}, and this needs Envoy Gateway: {instead}"),
        ));
    }
    Ok(())
}

/// What is still missing for an entry of a status to say that a condition is true for the object as it is now.
pub fn lacks(object: &DynamicObject, entry: &Value, type_: &str, what: &str) -> Option<Effect> {
    let awaited = |seen: String| Some(Effect::Awaited { what: what.to_owned(), seen });
    let by = entry.get("controllerName").and_then(Value::as_str).unwrap_or("the gateway");
    let conditions = entry.get("conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    let Some(condition) = found else { return awaited(format!("{by} has not said {type_} yet")) };
    let generation = condition.get("observedGeneration").and_then(Value::as_i64);
    if generation.is_some_and(|seen| seen < object.metadata.generation.unwrap_or(0)) {
        let seen = format!("{by} has not seen the last change yet");
        return Some(Effect::Unseen { what: what.to_owned(), seen });
    }
    if condition["status"] == "True" {
        return None;
    }
    let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
    awaited(format!("{by} says {type_}={}, {}: {}", text("status"), text("reason"), text("message")))
}
