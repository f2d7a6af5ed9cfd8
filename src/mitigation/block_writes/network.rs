//! Level Network: no connection to the pods of the data store, except to its read replicas and among its own pods.
//!
//! Network policies add up: what one of them allows is allowed. So where another policy lets traffic to the pods, this
//! level does nothing and is refused.

use super::{BlockWrites, DynamicObject, Effect, NETWORK_POLICY, ObjectId, POD, Part, Scene, Stop};
use crate::mitigation::{
    field,
    selector::{Labels, labels, selects},
};
use serde_json::{Value, json};

/// The policies. Several read replica labels need one each: a selector can leave out what has one label, not what
/// has all of several.
pub fn parts(block: &BlockWrites, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
    let selector = selector_of(scene)?;
    if field(scene.target, "/spec/template/spec/hostNetwork").and_then(|v| v.as_bool()) == Some(true) {
        return Err(Stop::refuse(
            "HostNetwork",
            "the pods use the network of their nodes, where no NetworkPolicy holds: block at another level",
        ));
    }
    let template = template_labels(scene.target);
    if is_replica(block, &template) {
        return Err(Stop::refuse(
            "NothingToBlock",
            "every pod of the target has the labels of a read replica: correct readReplicaLabels",
        ));
    }
    if let Some(words) = let_through(block, scene)? {
        return Err(Stop::refuse("AllowedByAnother", words));
    }
    // Replication and elections among the store's own pods go on: without them it might fail over, or stop.
    let alone = field(scene.target, "/spec/replicas").and_then(|v| v.as_i64()).unwrap_or(1) <= 1;
    let ingress = (!alone || block.read_replica_labels.is_some())
        .then(|| json!([{"from": [{"podSelector": selector}]}]));
    let policy = |without: Option<(&String, &str)>| {
        let mut chosen = selector.clone();
        if let Some((key, value)) = without {
            let term = json!({"key": key, "operator": "NotIn", "values": [value]});
            match chosen.get_mut("matchExpressions").and_then(Value::as_array_mut) {
                Some(terms) => terms.push(term),
                None => chosen["matchExpressions"] = json!([term]),
            }
        }
        let mut spec = json!({"podSelector": chosen, "policyTypes": ["Ingress"]});
        if let Some(ingress) = &ingress {
            spec["ingress"] = ingress.clone();
        }
        spec
    };
    let replicas: Vec<_> = block.read_replica_labels.iter().flatten().collect();
    if replicas.is_empty() {
        return Ok(vec![Part::create(ObjectId::new(NETWORK_POLICY, scene.made_name()), policy(None))]);
    }
    let made = replicas.into_iter().enumerate().map(|(index, (key, value))| {
        let name = match index {
            0 => scene.made_name(),
            _ => format!("{}-{}", scene.made_name(), index + 1),
        };
        Part::create(ObjectId::new(NETWORK_POLICY, name), policy(Some((key, &value.0))))
    });
    Ok(made.collect())
}

fn selector_of(scene: &Scene<'_>) -> Result<Value, Stop> {
    let selector =
        field(scene.target, "/spec/selector").filter(|s| s.as_object().is_some_and(|s| !s.is_empty()));
    selector.ok_or_else(|| Stop::refuse("NoSelector", format!("{} selects no pods", scene.id)))
}

fn template_labels(target: &DynamicObject) -> Labels {
    labels(field(target, "/spec/template/metadata/labels").as_ref())
}

fn is_replica(block: &BlockWrites, pod: &Labels) -> bool {
    block.read_replica_labels.as_ref().is_some_and(|wanted| {
        !wanted.is_empty() && wanted.iter().all(|(key, value)| pod.get(key) == Some(&value.0))
    })
}

/// The pods of the store, read replicas included.
fn pods<'a>(scene: &Scene<'a>) -> Result<Vec<&'a DynamicObject>, Stop> {
    let selector = selector_of(scene)?;
    let pairs = labels(selector.get("matchLabels"));
    let pairs = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let found = scene.list(POD, Some(pairs.as_str()).filter(|pairs| !pairs.is_empty()))?;
    let ours = found
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod: &&DynamicObject| selects(&selector, &pod.metadata.labels.clone().unwrap_or_default()));
    Ok(ours.collect())
}

/// The policy of somebody else that lets traffic to the pods, in words.
fn let_through(block: &BlockWrites, scene: &Scene<'_>) -> Result<Option<String>, Stop> {
    let mut blocked: Vec<Labels> =
        pods(scene)?.iter().map(|pod| pod.metadata.labels.clone().unwrap_or_default()).collect();
    blocked.retain(|pod| !is_replica(block, pod));
    blocked.push(template_labels(scene.target));
    for policy in scene.list(NETWORK_POLICY, None)? {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let spec = policy.data.get("spec").cloned().unwrap_or_default();
        let types = spec.get("policyTypes").and_then(Value::as_array);
        let ingress = types.is_none_or(|types| types.iter().any(|t| t == "Ingress"));
        let allows = spec.get("ingress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
        if name.starts_with(&scene.made_name()) || !ingress || !allows {
            continue;
        }
        let selector = spec.get("podSelector").cloned().unwrap_or_default();
        if blocked.iter().any(|pod| selects(&selector, pod)) {
            return Ok(Some(format!(
                "NetworkPolicy/{name} allows traffic to pods of {}, and network policies add up, so closing the way would do nothing: take its rules away first, or block at another level",
                scene.id
            )));
        }
    }
    Ok(None)
}

/// Nothing reports whether a network policy is enforced.
pub fn effect(block: &BlockWrites, scene: &Scene<'_>) -> Result<Effect, Stop> {
    let what = "waiting until nothing lets traffic to the pods".to_owned();
    if let Some(seen) = let_through(block, scene)? {
        return Ok(Effect::Awaited { what, seen });
    }
    let pods = pods(scene)?;
    let closed =
        pods.iter().filter(|pod| !is_replica(block, &pod.metadata.labels.clone().unwrap_or_default()));
    Ok(Effect::Unclear {
        reason: "NotReported",
        message: format!(
            "the policy selects {} of {} pods and no other policy allows traffic to them; whether the cluster's network enforces policies, and ends connections that are open already, is reported by nobody: try a write",
            closed.count(),
            pods.len()
        ),
    })
}

/// Who suffers.
pub fn warnings(block: &BlockWrites, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
    let all = pods(scene)?;
    let replica = |pod: &&&DynamicObject| is_replica(block, &pod.metadata.labels.clone().unwrap_or_default());
    let replicas = all.iter().filter(replica).count();
    let reads = match (&block.read_replica_labels, replicas) {
        (None, _) => {
            "reads: all of them, too, since no read replicas are named (readReplicaLabels)".to_owned()
        }
        (Some(_), 0) => "reads: all of them, too, since no pod has readReplicaLabels at present".to_owned(),
        (Some(_), n) => format!("reads: those that do not go to the {n} read replicas"),
    };
    Ok(vec![
        format!(
            "writes: every new connection to {} of {} pods of {}. {reads}",
            all.len() - replicas,
            all.len(),
            scene.id
        ),
        "connections that are open already may live on: that is up to the cluster's network".to_owned(),
        "pods on the network of their node, and the node itself (probes), still reach the store".to_owned(),
        "backups and metrics of the store are cut off as well".to_owned(),
    ])
}
