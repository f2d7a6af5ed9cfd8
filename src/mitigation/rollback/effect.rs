//! Whether the earlier version runs.

use super::{DAEMON_SET, Effect, ObjectId, POD, STATEFUL_SET, Scene, Stop, workload};
use crate::mitigation::revisions;
use kube::core::DynamicObject;

/// Label of a pod that names its revision: for a StatefulSet by the whole name, for a DaemonSet by its end.
const REVISION_HASH: &str = "controller-revision-hash";

/// What is seen of the earlier version.
pub fn seen(scene: &Scene<'_>, may_delete: bool) -> Result<Effect, Stop> {
    let target = scene.target;
    let number = |path: &str| workload::number(target, path);
    let daemons = scene.id.kind == DAEMON_SET;
    let (wanted, updated, available, all) = if daemons {
        (
            number("/status/desiredNumberScheduled"),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
            number("/status/currentNumberScheduled"),
        )
    } else {
        let wanted = crate::mitigation::field(target, "/spec/replicas").and_then(|n| n.as_i64()).unwrap_or(1);
        (
            wanted,
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
            number("/status/replicas"),
        )
    };
    // A StatefulSet leaves the pods below its partition alone.
    let spared = number("/spec/updateStrategy/rollingUpdate/partition").clamp(0, wanted);
    let due = if scene.id.kind == STATEFUL_SET { wanted - spared } else { wanted };
    let awaited = |seen: String| {
        Ok(Effect::Awaited { what: format!("waiting until {due} pods run the earlier version"), seen })
    };
    if workload::is_unseen(target) {
        let what = format!("waiting until {due} pods run the earlier version");
        return Ok(Effect::Unseen { what, seen: workload::UNSEEN.to_owned() });
    }
    let old = if scene.id.kind == STATEFUL_SET || daemons { 0 } else { all - updated };
    if updated >= due && available >= wanted && old <= 0 {
        let spared =
            if due < wanted { format!("; {spared} are spared by the partition") } else { String::new() };
        return Ok(Effect::Seen(format!(
            "{due} of {wanted} pods run the earlier version and are available{spared}"
        )));
    }
    if scene.id.kind == STATEFUL_SET
        && let Some(effect) = in_the_way(scene, may_delete)?
    {
        return Ok(effect);
    }
    if let Some(message) = held_up(scene) {
        return Ok(Effect::Unclear { reason: "NeedsPodDeletion", message });
    }
    let left = if old > 0 { format!(", {old} pods of the bad version are left") } else { String::new() };
    awaited(format!(
        "{updated} of {due} pods run the earlier version, {available} of {wanted} are available{left}"
    ))
}

/// A workload whose pods change only when somebody deletes them.
pub fn held_up(scene: &Scene<'_>) -> Option<String> {
    let strategy = workload::text(scene.target, "/spec/updateStrategy/type");
    (strategy.as_deref() == Some("OnDelete")).then(|| {
        "spec.updateStrategy.type is OnDelete: a pod runs the earlier version only after somebody deleted it, so delete the pods of the bad version".to_owned()
    })
}

/// A StatefulSet that goes pod by pod waits for a pod of the bad version that will never be ready, and so never comes
/// to replacing it.
fn in_the_way(scene: &Scene<'_>, may_delete: bool) -> Result<Option<Effect>, Stop> {
    let policy = workload::text(scene.target, "/spec/podManagementPolicy");
    if policy.as_deref().unwrap_or("OrderedReady") != "OrderedReady" {
        return Ok(None);
    }
    let present = revisions::present(scene.target);
    let good: Vec<String> = revisions::all(scene)?
        .into_iter()
        .filter(|revision| revision.template == present)
        .map(|revision| revision.mark.name)
        .collect();
    if good.is_empty() {
        return Ok(None);
    }
    let stuck = |pod: &&DynamicObject| {
        workload::label(pod, REVISION_HASH).is_some_and(|hash| !good.contains(&hash))
            && !workload::has_condition(pod, "Ready")
    };
    let pods = workload::pods(scene)?;
    let partition = workload::number(scene.target, "/spec/updateStrategy/rollingUpdate/partition");
    let mut stuck: Vec<&DynamicObject> = pods.into_iter().filter(stuck).collect();
    stuck.retain(|pod| ordinal(pod).is_some_and(|ordinal| ordinal >= partition));
    // One at a time: while one goes, the next waits.
    if stuck.iter().any(|pod| pod.metadata.deletion_timestamp.is_some()) {
        return Ok(None);
    }
    let Some(pod) = stuck.into_iter().max_by_key(|pod| ordinal(pod)) else { return Ok(None) };
    let id = ObjectId::of(POD, pod);
    if may_delete {
        return Ok(Some(Effect::Delete { id, uid: pod.metadata.uid.clone().unwrap_or_default() }));
    }
    Ok(Some(Effect::Unclear {
        reason: "PodInTheWay",
        message: format!(
            "{id} is of the bad version and not ready, and the StatefulSet controller waits for it before it goes on: delete it (kubectl delete pod {}), or use allowPodDeletion: true",
            id.name
        ),
    }))
}

fn ordinal(pod: &DynamicObject) -> Option<i64> {
    pod.metadata.name.as_deref()?.rsplit_once('-')?.1.parse().ok()
}
