//! Where a workload keeps its numbers: of a listed kind, its CustomResourceDefinition tells.
//!
//! The number and the note of what it was before go into one patch, and a patch through `/scale` can carry no note. So
//! the object itself is patched, at the path that the scale subresource reads and writes.

use super::{CUSTOM_RESOURCE_DEFINITION, DEPLOYMENT, REPLICAS, STATEFUL_SET, Scene, Stop, field};
use crate::mitigation::{
    scalable::{self, Scalable, to_pointer},
    workload::text,
};
use kube::core::DynamicObject;
use serde_json::Value;

/// JSON Pointers of a workload's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The wanted number.
    pub wanted: String,
    /// The number of pods that are there.
    pub there: String,
    /// The number of pods that are ready, where the kind tells it.
    pub ready: Option<String>,
    /// The label selector of the pods as text, where the kind tells it.
    pub selector: Option<String>,
}

/// Where the target keeps its numbers.
pub fn paths(scene: &Scene<'_>) -> Result<Paths, Stop> {
    let kind = scene.id.kind;
    let listed = scalable::allowed().into_iter().find(|listed| listed.kind == kind);
    let Some(listed) = listed else { return Ok(built_in()) };
    // Kinds of Kubernetes itself keep them all at the same place.
    if !kind.group.contains('.') {
        return stated(listed, REPLICAS, built_in());
    }
    let name = format!("{}.{}", kind.plural, kind.group);
    let mut definitions = scene.everywhere(CUSTOM_RESOURCE_DEFINITION)?;
    let Some(definition) = definitions.find(|d| d.metadata.name.as_ref() == Some(&name)) else {
        return Err(not_scalable(format!(
            "no CustomResourceDefinition {name} is to be seen, which says where its number is"
        )));
    };
    if text(definition, "/spec/scope").as_deref() == Some("Cluster") {
        return Err(not_scalable(format!("{} does not lie in namespaces", kind.kind)));
    }
    let versions = definition.data.pointer("/spec/versions").and_then(Value::as_array);
    let version = versions.into_iter().flatten().find(|version| version["name"] == kind.version);
    let Some(version) = version.filter(|version| version["served"] == true) else {
        return Err(not_scalable(format!("{name} is not served as {}", kind.version)));
    };
    let scale = &version["subresources"]["scale"];
    let at = |key: &str| scale[key].as_str().map(to_pointer);
    let (Some(wanted), Some(there)) = (at("specReplicasPath"), at("statusReplicasPath")) else {
        return Err(not_scalable(format!("{name} has no scale subresource in {}", kind.version)));
    };
    let paths = Paths { there, ready: None, selector: at("labelSelectorPath"), wanted: wanted.clone() };
    stated(listed, &wanted, paths)
}

fn built_in() -> Paths {
    Paths {
        wanted: REPLICAS.to_owned(),
        there: "/status/replicas".to_owned(),
        ready: Some("/status/readyReplicas".to_owned()),
        selector: None,
    }
}

/// Admission lets the operator write the path of the list, so another one is told before the API server refuses it.
fn stated(listed: Scalable, found: &str, paths: Paths) -> Result<Paths, Stop> {
    if to_pointer(listed.replicas_path) == found {
        return Ok(paths);
    }
    let found = found.replace('/', ".");
    Err(not_scalable(format!(
        "its number is at {found}: set replicasPath to {found} for {} in the configuration's scalableKinds",
        listed.kind.kind
    )))
}

fn not_scalable(message: String) -> Stop {
    Stop::refuse("NotScalable", message)
}

/// A workload whose controller leaves the number alone for the present.
pub fn refuse_deaf(scene: &Scene<'_>) -> Result<(), Stop> {
    let rollout = scene.id.kind.group == "argoproj.io" && scene.id.kind.kind == "Rollout";
    if rollout && field(scene.target, "/spec/paused") == Some(Value::Bool(true)) {
        return Err(Stop::refuse(
            "Paused",
            "a Rollout with spec.paused does not act on its number of replicas: resume it first",
        ));
    }
    Ok(())
}

/// The label selector of the target's pods, where its scale subresource tells one.
pub fn selector(target: &DynamicObject, paths: &Paths) -> Option<String> {
    paths.selector.as_ref().and_then(|path| text(target, path)).filter(|text| !text.is_empty())
}

/// True when the kind is one of the code's own.
pub fn is_built_in(scene: &Scene<'_>) -> bool {
    [DEPLOYMENT, STATEFUL_SET].contains(&scene.id.kind)
}
