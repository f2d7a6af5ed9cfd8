//! Level Quota: no more objects of some kinds. A new quota beside those that are there, since the API server asks all.

use super::{BlockWrites, Effect, ObjectId, Part, RESOURCE_QUOTA, Refusal, Scene, Stop};
use crate::mitigation::field;
use serde_json::{Map, Value, json};

/// Batch work, which writes by itself. Never pods: one that is evicted could not come back.
const DEFAULT: &[&str] = &["jobs.batch", "cronjobs.batch"];
/// What keeps running things running.
const VITAL: &[&str] = &["pods", "replicasets.apps", "controllerrevisions.apps"];

/// The resources of which no more are made.
pub fn resources(block: &BlockWrites) -> Vec<&str> {
    match &block.resources {
        Some(resources) if !resources.is_empty() => {
            resources.iter().map(|name| name.strip_prefix("count/").unwrap_or(name)).collect()
        }
        _ => DEFAULT.to_vec(),
    }
}

fn hard(block: &BlockWrites) -> Map<String, Value> {
    resources(block).into_iter().map(|name| (format!("count/{name}"), json!("0"))).collect()
}

/// The quota.
pub fn parts(block: &BlockWrites, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
    if scene.id.name != scene.namespace {
        return Err(Stop::refuse(
            "OtherNamespace",
            format!(
                "a quota works on the namespace that the mitigation lies in ({}), not on {}: make it there",
                scene.namespace, scene.id.name
            ),
        ));
    }
    let odd = resources(block).into_iter().find(|name| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        !name.chars().all(plain)
    });
    if let Some(odd) = odd {
        let message = format!("{odd:?} is no resource: write its plural and group, such as jobs.batch");
        return Err(Refusal::new("NotAResource", message).into());
    }
    let id = ObjectId::new(RESOURCE_QUOTA, scene.made_name());
    Ok(vec![Part::create(id, json!({"hard": hard(block)}))])
}

/// The API server enforces what the quota controller has filled into the status, and nothing before.
pub fn effect(block: &BlockWrites, scene: &Scene<'_>) -> Result<Effect, Stop> {
    let id = ObjectId::new(RESOURCE_QUOTA, scene.made_name());
    let what = "waiting until the quota controller has taken the quota in".to_owned();
    let Some(quota) = scene.one(&id)? else {
        return Ok(Effect::Awaited { what, seen: format!("{id} is not there") });
    };
    let status = |part: &str| field(quota, &format!("/status/{part}")).unwrap_or_default();
    let (limits, used) = (status("hard"), status("used"));
    let wanted = hard(block);
    let lacking: Vec<&str> =
        wanted.keys().filter(|key| limits.get(*key).is_none()).map(String::as_str).collect();
    if !lacking.is_empty() {
        let seen = format!("status.hard of {id} lacks {}", lacking.join(", "));
        return Ok(Effect::Awaited { what, seen });
    }
    // It counts only what it knows, and takes any name for a limit.
    let unknown: Vec<&str> =
        wanted.keys().filter(|key| used.get(*key).is_none()).map(String::as_str).collect();
    if !unknown.is_empty() {
        let seen = format!(
            "the quota controller does not count {}: correct spec.blockWrites.resources in a new mitigation (plural and group, such as jobs.batch)",
            unknown.join(", ")
        );
        return Ok(Effect::Awaited { what, seen });
    }
    Ok(Effect::Seen(format!("the API server refuses new {}", resources(block).join(", "))))
}

/// Who suffers.
pub fn warnings(block: &BlockWrites) -> Vec<String> {
    let resources = resources(block);
    let mut warnings = vec![format!(
        "writes: new {} are refused, whoever makes them; what exists goes on, and writes to the data store itself are not stopped. Reads: none",
        resources.join(", ")
    )];
    if resources.contains(&"jobs.batch") {
        warnings.push("CronJobs go on trying; runs that are missed meanwhile are not made up for".to_owned());
    }
    for vital in VITAL.iter().filter(|vital| resources.contains(vital)) {
        warnings.push(format!(
            "without new {vital}, nothing that is evicted, crashes with its node or rolls out comes back: reads suffer too"
        ));
    }
    if resources.contains(&"configmaps") {
        warnings.push(
            "long timelines and postmortems are kept in ConfigMaps, and are refused as well".to_owned(),
        );
    }
    warnings
}
