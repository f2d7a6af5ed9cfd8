//! The earlier templates of a workload: ReplicaSets of a Deployment, ControllerRevisions of a StatefulSet or DaemonSet.

mod differences;

use super::{CONTROLLER_REVISION, DEPLOYMENT, REPLICA_SET, STATEFUL_SET, Scene, Stop, field, workload};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};

pub use differences::{Difference, between};

/// Where the number of a ReplicaSet's revision stands.
const NUMBER: &str = "deployment.kubernetes.io/revision";
/// Label that the deployment controller adds to the template of a ReplicaSet.
const HASH: &str = "pod-template-hash";
/// What templates of workloads are called in their objects.
pub const TEMPLATE: &str = "/spec/template";

/// One revision as it is remembered: by what cannot become another one. Numbers move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// uid of the ReplicaSet or ControllerRevision.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its number at that time.
    pub number: i64,
}

/// From which revision a template came, and to which it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The one before; unknown when its controller had not made it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Mark>,
    /// The one after.
    pub to: Mark,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} ({})", self.number, self.name)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "from {from} to {}", self.to),
            None => write!(f, "to {}", self.to),
        }
    }
}

/// One revision of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// What it is remembered by.
    pub mark: Mark,
    /// When it was made.
    pub made: Option<Timestamp>,
    /// The template, as it stands in the workload.
    pub template: Value,
}

impl Revision {
    /// The revision that a ReplicaSet or ControllerRevision is.
    fn of(object: &DynamicObject) -> Option<Revision> {
        let (template, number) = match object.data.pointer("/data/spec/template") {
            Some(template) => (template.clone(), workload::number(object, "/revision")),
            None => {
                let number = workload::annotation(object, NUMBER).and_then(|text| text.parse().ok());
                (object.data.pointer(TEMPLATE)?.clone(), number.unwrap_or(0))
            }
        };
        Some(Revision {
            mark: Mark { uid: object.metadata.uid.clone()?, name: object.metadata.name.clone()?, number },
            made: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            template: plain(template),
        })
    }

    /// The images that it runs.
    pub fn images(&self) -> Vec<&str> {
        images(&self.template)
    }
}

/// The images of a template.
pub fn images(template: &Value) -> Vec<&str> {
    let lists = ["/spec/containers", "/spec/initContainers"].map(|path| template.pointer(path));
    let containers = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
    containers.filter_map(|container| container.get("image")?.as_str()).collect()
}

/// A template without what controllers add to it in a revision, and without empty entries that the API server
/// would drop.
fn plain(mut template: Value) -> Value {
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    drop_nulls(&mut template);
    template
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The revisions of the target, newest first.
pub fn all(scene: &Scene<'_>) -> Result<Vec<Revision>, Stop> {
    let kind = if scene.id.kind == DEPLOYMENT { REPLICA_SET } else { CONTROLLER_REVISION };
    let uid = scene.target.metadata.uid.as_deref();
    let objects = scene.list(kind, Some(&workload::selector(scene.target)))?;
    let ours = objects.iter().map(Arc::as_ref).filter(|object| {
        workload::is_controlled_by(object, uid) && object.metadata.deletion_timestamp.is_none()
    });
    let mut revisions: Vec<Revision> = ours.filter_map(Revision::of).collect();
    revisions.sort_by(|a, b| b.mark.number.cmp(&a.mark.number).then_with(|| a.mark.name.cmp(&b.mark.name)));
    Ok(revisions)
}

/// Whether the present template may have a revision that is not among those that were told: they come from a watch,
/// and that may be behind the target. A workload that its controller left alone, such as one that is paused, has none.
pub fn may_lack_the_present(scene: &Scene<'_>, told: &[Revision]) -> bool {
    let target = scene.target;
    if workload::is_unseen(target) {
        return true;
    }
    // The controllers make a revision before they name it in the workload.
    match scene.id.kind {
        DEPLOYMENT => workload::annotation(target, NUMBER)
            .is_some_and(|number| !told.iter().any(|r| r.mark.number.to_string() == number)),
        STATEFUL_SET => workload::text(target, "/status/updateRevision")
            .is_some_and(|name| !told.iter().any(|r| r.mark.name == name)),
        // A DaemonSet does not say which one is its own.
        _ => true,
    }
}

/// The template of the target as it is, comparable with those of revisions.
pub fn present(target: &DynamicObject) -> Value {
    plain(field(target, TEMPLATE).unwrap_or_else(|| json!({})))
}
