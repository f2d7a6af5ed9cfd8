//! What scales a workload by itself, and how it is held off.

use super::{Change, HORIZONTAL_POD_AUTOSCALER, ObjectId, Part, SCALED_OBJECT, Scene, Stop, field};
use kube::core::DynamicObject;
use serde_json::json;

const PAUSED: &str = "/metadata/annotations/autoscaling.keda.sh~1paused";
const PAUSED_REPLICAS: &str = "/metadata/annotations/autoscaling.keda.sh~1paused-replicas";

/// The ScaledObject of KEDA that scales the target.
pub fn scaled_object<'a>(scene: &Scene<'a>) -> Result<Option<&'a DynamicObject>, Stop> {
    Ok(scaling(scene, scene.list(SCALED_OBJECT, None)?, "Deployment"))
}

/// The HorizontalPodAutoscaler that scales the target. One that KEDA made follows its ScaledObject.
pub fn horizontal<'a>(scene: &Scene<'a>) -> Result<Option<&'a DynamicObject>, Stop> {
    Ok(scaling(scene, scene.list(HORIZONTAL_POD_AUTOSCALER, None)?, ""))
}

fn scaling<'a>(
    scene: &Scene<'a>,
    all: &'a [std::sync::Arc<DynamicObject>],
    default_kind: &str,
) -> Option<&'a DynamicObject> {
    let text =
        |object: &DynamicObject, path: &str| field(object, path).and_then(|v| v.as_str().map(str::to_owned));
    all.iter().map(AsRef::as_ref).find(|object| {
        let kind = text(object, "/spec/scaleTargetRef/kind").unwrap_or_else(|| default_kind.to_owned());
        let version = text(object, "/spec/scaleTargetRef/apiVersion");
        let group = version.as_deref().map(|version| version.rsplit_once('/').map_or("", |(group, _)| group));
        kind == scene.id.kind.kind
            && group.is_none_or(|group| group == scene.id.kind.group)
            && text(object, "/spec/scaleTargetRef/name").as_deref() == Some(scene.id.name.as_str())
    })
}

/// KEDA sets the number itself and deletes its HorizontalPodAutoscaler. Both annotations, because which of them wins
/// depends on its version.
pub fn pause(scaled: &DynamicObject, replicas: i32) -> Part {
    let changes = vec![
        Change::set(scaled, PAUSED, json!("true")),
        Change::set(scaled, PAUSED_REPLICAS, json!(replicas.to_string())),
    ];
    Part::change(&ObjectId::of(SCALED_OBJECT, scaled), changes)
}

fn bound(autoscaler: &DynamicObject, which: &str) -> Option<i64> {
    field(autoscaler, &format!("/spec/{which}")).and_then(|v| v.as_i64())
}

fn min(autoscaler: &DynamicObject) -> i64 {
    bound(autoscaler, "minReplicas").unwrap_or(1)
}

/// What an autoscaler must be told so that it leaves the number alone.
pub fn hold_off(autoscaler: &DynamicObject, replicas: i32) -> Option<Part> {
    let wanted = i64::from(replicas);
    let (least, most) = (min(autoscaler), bound(autoscaler, "maxReplicas").unwrap_or(i64::MAX));
    let mut changes = Vec::new();
    if wanted == 0 {
        // With at least one replica asked for, it does nothing while the number is 0. One that may itself scale to
        // zero would scale up again.
        if least == 0 {
            changes.push(Change::set_deep(
                autoscaler,
                "/spec/behavior/scaleUp/selectPolicy",
                json!("Disabled"),
            ));
        }
    } else {
        // Both, whatever it wants at present: the load changes while the number is held.
        if most != wanted {
            changes.push(Change::set(autoscaler, "/spec/maxReplicas", json!(wanted)));
        }
        if least != wanted {
            changes.push(Change::set(autoscaler, "/spec/minReplicas", json!(wanted)));
        }
    }
    (!changes.is_empty()).then(|| Part::change(&ObjectId::of(HORIZONTAL_POD_AUTOSCALER, autoscaler), changes))
}

/// What happens to an autoscaler, in words.
pub fn note(autoscaler: &DynamicObject, replicas: i32) -> String {
    let id = ObjectId::of(HORIZONTAL_POD_AUTOSCALER, autoscaler);
    match (replicas, min(autoscaler)) {
        (0, 0) => format!("{id} may scale to zero itself: its scaling up is disabled meanwhile"),
        (0, _) => format!("{id} does nothing while the number is 0, and goes on after release"),
        _ => format!("the bounds of {id} are moved so that it leaves {replicas} alone"),
    }
}

/// The number to go back to: within the bounds of an autoscaler, which does not leave 0 by itself.
pub fn clamp(prior: i64, scene: &Scene<'_>) -> Result<i64, Stop> {
    let Some(autoscaler) = horizontal(scene)? else { return Ok(prior) };
    let (least, most) = (min(autoscaler), bound(autoscaler, "maxReplicas").unwrap_or(i64::MAX));
    Ok(if prior == 0 || least > most { prior } else { prior.clamp(least, most) })
}
