//! Who reads a ConfigMap: told from the pods of the namespace.

use crate::mitigation::{
    DAEMON_SET, DEPLOYMENT, ObjectId, POD, REPLICA_SET, STATEFUL_SET, Scene, Stop, field,
};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;

/// Annotation of pods that were restarted for a mitigation, which its uid tells. Each has its own: several flags may have
/// the same reader.
pub fn restarted_for(uid: &str) -> String {
    format!("{RESTARTED_FOR}{uid}")
}

const RESTARTED_FOR: &str = "restarted-for.incident-operator.dev/";
/// Label of pods that a Deployment's ReplicaSet made.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod that reads the ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Kind and name of what made the pod, or the pod itself.
    pub owner: (String, String),
    /// The Deployment behind a ReplicaSet, where the names tell it.
    pub deployment: Option<String>,
    /// It sees a change without a restart: through a volume that is not mounted by subPath.
    pub live: bool,
    /// When the first of its containers that read it started; `None` before that.
    pub started: Option<Timestamp>,
    /// The mitigations for which its workload was restarted.
    pub restarted_for: Vec<String>,
}

impl Consumer {
    /// Kind and name of the workload, as far as the pod tells: a Deployment names its ReplicaSets after itself and the
    /// hash that is on their pods.
    fn workload(&self) -> (&str, &str) {
        let (kind, name) = (self.owner.0.as_str(), self.owner.1.as_str());
        match &self.deployment {
            Some(deployment) => (DEPLOYMENT.kind, deployment),
            None => (kind, name),
        }
    }

    /// Whether its kind of workload is one that is restarted when that is asked for.
    pub fn may_be_restarted(&self) -> bool {
        let kinds = [REPLICA_SET.kind, STATEFUL_SET.kind, DAEMON_SET.kind];
        kinds.contains(&self.owner.0.as_str())
    }
}

/// The pods that read the key.
pub fn of(scene: &Scene<'_>, key: &str) -> Result<Vec<Consumer>, Stop> {
    let pods = scene.list(POD, None)?;
    Ok(pods.iter().filter_map(|pod| consumer(pod, &scene.id.name, key)).collect())
}

/// Those that read the old value until they are restarted. Pods that were restarted for this mitigation are new.
pub fn not_restarted(consumers: &[Consumer], applied: Option<Timestamp>, uid: &str) -> Vec<Consumer> {
    // Times of containers are whole seconds: one that started in the same second may have read either.
    let before = |c: &Consumer| match (c.started, applied) {
        (Some(started), Some(applied)) => started <= applied,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let for_this = |c: &Consumer| c.restarted_for.iter().any(|known| known == uid);
    consumers.iter().filter(|c| !c.live && !for_this(c) && before(c)).cloned().collect()
}

/// The workloads behind some pods, in words.
pub fn names(consumers: &[Consumer]) -> String {
    let mut names: Vec<String> = consumers
        .iter()
        .map(|c| {
            let (kind, name) = c.workload();
            format!("{kind}/{name}")
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(8);
    names.truncate(8);
    let end = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{end}", names.join(", "))
}

/// The workloads whose pods read the key only when they start.
pub fn workloads<'a>(scene: &Scene<'a>, key: &str) -> Result<Vec<(ObjectId, &'a DynamicObject)>, Stop> {
    let mut owners: Vec<(String, String)> =
        of(scene, key)?.into_iter().filter(|c| !c.live).map(|c| c.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut ids = Vec::new();
    for owner in &owners {
        ids.extend(restartable(scene, owner)?.filter(|id| !ids.contains(id)));
    }
    let mut workloads = Vec::new();
    for id in ids {
        if let Some(object) = scene.one(&id)? {
            workloads.push((id, object));
        }
    }
    Ok(workloads)
}

/// The workload that makes the pods of an owner anew when its template changes.
fn restartable(scene: &Scene<'_>, (kind, name): &(String, String)) -> Result<Option<ObjectId>, Stop> {
    Ok(match kind.as_str() {
        "ReplicaSet" => {
            let set = scene.one(&ObjectId::new(REPLICA_SET, name))?;
            let owner = set.and_then(controller).filter(|(kind, _)| kind == DEPLOYMENT.kind);
            owner.map(|(_, name)| ObjectId::new(DEPLOYMENT, name))
        }
        "StatefulSet" => Some(ObjectId::new(STATEFUL_SET, name)),
        "DaemonSet" => Some(ObjectId::new(DAEMON_SET, name)),
        _ => None,
    })
}

/// Those whose workload is none of these.
pub fn not_among(
    scene: &Scene<'_>,
    consumers: &[Consumer],
    workloads: &[ObjectId],
) -> Result<Vec<Consumer>, Stop> {
    let mut left = Vec::new();
    for consumer in consumers {
        // Its name tells mostly, and to look costs a request.
        let by_name = workloads.iter().any(|id| (id.kind.kind, &*id.name) == consumer.workload());
        if !by_name && restartable(scene, &consumer.owner)?.is_none_or(|id| !workloads.contains(&id)) {
            left.push(consumer.clone());
        }
    }
    Ok(left)
}

/// Those of the workloads that make their pods anew only when a person does something, in words with what that is.
pub fn held_up(scene: &Scene<'_>, workloads: &[ObjectId]) -> Result<Vec<String>, Stop> {
    let mut held = Vec::new();
    for id in workloads {
        let is = |object: &DynamicObject, path: &str, value: Value| field(object, path) == Some(value);
        let (path, value, words) = match id.kind {
            DEPLOYMENT => ("/spec/paused", true.into(), "its rollout is paused: resume it"),
            STATEFUL_SET | DAEMON_SET => {
                ("/spec/updateStrategy/type", "OnDelete".into(), "it has OnDelete: delete its pods")
            }
            _ => continue,
        };
        if scene.one(id)?.is_some_and(|object| is(object, path, value)) {
            held.push(format!("{id} gets no new pods by itself, {words}"));
        }
    }
    Ok(held)
}

/// What is to be known of those that no restart of workloads reaches.
pub fn not_restartable(scene: &Scene<'_>, key: &str, consumers: &[Consumer]) -> Result<Vec<String>, Stop> {
    let restarted: Vec<ObjectId> = workloads(scene, key)?.into_iter().map(|(id, _)| id).collect();
    let left = not_among(scene, consumers, &restarted)?;
    let (bare, others): (Vec<Consumer>, Vec<Consumer>) =
        left.into_iter().partition(|c| c.owner.0 == POD.kind);
    let are = |left: &[Consumer], why: &str| {
        let (names, many) = (names(left), left.iter().any(|c| c.workload() != left[0].workload()));
        let verb = if many { "are" } else { "is" };
        (!left.is_empty()).then(|| format!("{names} {verb} not restarted: {why}"))
    };
    let bare = are(&bare, "nothing would make a pod without a controller anew");
    let others = are(&others, "restartConsumers restarts Deployments, StatefulSets and DaemonSets");
    Ok(bare.into_iter().chain(others).collect())
}

fn controller(object: &DynamicObject) -> Option<(String, String)> {
    let owner = object.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    Some((owner.kind.clone(), owner.name.clone()))
}

fn consumer(pod: &DynamicObject, config_map: &str, key: &str) -> Option<Consumer> {
    let phase = field(pod, "/status/phase");
    if pod.metadata.deletion_timestamp.is_some()
        || matches!(phase.as_ref().and_then(Value::as_str), Some("Succeeded" | "Failed"))
    {
        return None;
    }
    let spec = field(pod, "/spec")?;
    let list =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let volumes: Vec<(String, Vec<String>)> = list(&spec, "volumes")
        .iter()
        .filter_map(|volume| Some((volume.get("name")?.as_str()?.to_owned(), files(volume, config_map, key))))
        .collect();
    let (mut reads, mut live) = (Vec::new(), true);
    let early = list(&spec, "initContainers");
    for (index, container) in early.iter().chain(&list(&spec, "containers")).enumerate() {
        let named = |value: &Value| value.get("name").and_then(Value::as_str) == Some(config_map);
        let by_env =
            list(container, "envFrom").iter().any(|from| from.get("configMapRef").is_some_and(named))
                || list(container, "env").iter().any(|env| {
                    env.pointer("/valueFrom/configMapKeyRef")
                        .is_some_and(|r| named(r) && r.get("key").and_then(Value::as_str) == Some(key))
                });
        let mounts: Vec<Value> = list(container, "volumeMounts")
            .into_iter()
            .filter(|mount| {
                let name = mount.get("name").and_then(Value::as_str);
                let files = volumes.iter().find(|(volume, _)| Some(volume.as_str()) == name);
                files.is_some_and(|(_, files)| files.iter().any(|file| is_mounted(mount, file)))
            })
            .collect();
        if !by_env && mounts.is_empty() {
            continue;
        }
        let by_sub_path =
            mounts.iter().any(|mount| mount.get("subPath").is_some() || mount.get("subPathExpr").is_some());
        // One that runs before the others, unless it stays beside them, reads it once.
        let once = index < early.len() && container.get("restartPolicy") != Some(&Value::from("Always"));
        live &= !by_env && !by_sub_path && !once;
        reads.push(container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    if reads.is_empty() {
        return None;
    }
    let status = field(pod, "/status").unwrap_or_default();
    let statuses = [list(&status, "initContainerStatuses"), list(&status, "containerStatuses")].concat();
    let started = statuses.iter().filter(|status| {
        status.get("name").and_then(Value::as_str).is_some_and(|name| reads.iter().any(|r| r == name))
    });
    let started = started
        .filter_map(|status| {
            let at = |state: &str| status.pointer(&format!("/state/{state}/startedAt"));
            at("running").or_else(|| at("terminated"))?.as_str()?.parse::<Timestamp>().ok()
        })
        .min();
    let this = || ("Pod".to_owned(), pod.metadata.name.clone().unwrap_or_default());
    let annotations = pod.metadata.annotations.iter().flatten();
    let restarted_for =
        annotations.filter_map(|(key, _)| key.strip_prefix(RESTARTED_FOR).map(str::to_owned)).collect();
    let owner = controller(pod).unwrap_or_else(this);
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    let deployment = hash.filter(|_| owner.0 == REPLICA_SET.kind).and_then(|hash| {
        let name = owner.1.strip_suffix(hash.as_str())?.strip_suffix('-')?;
        Some(name.to_owned())
    });
    Some(Consumer { owner, deployment, live, started, restarted_for })
}

/// The files of a volume that show the key of the ConfigMap, by itself or projected with others.
fn files(volume: &Value, config_map: &str, key: &str) -> Vec<String> {
    let projected = volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten();
    let sources = std::iter::once(volume).chain(projected).filter_map(|source| source.get("configMap"));
    let ours = sources.filter(|source| source.get("name").and_then(Value::as_str) == Some(config_map));
    let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
    ours.flat_map(|source| match source.get("items").and_then(Value::as_array) {
        // Only these keys are there.
        Some(items) => {
            let of_key = items.iter().filter(|item| text(item, "key").as_deref() == Some(key));
            of_key.filter_map(|item| text(item, "path")).collect()
        }
        None => vec![key.to_owned()],
    })
    .collect()
}

/// Whether a file of a volume is in what a container mounts of it. What a variable of the container decides may be any.
fn is_mounted(mount: &Value, file: &str) -> bool {
    let Some(part) = mount.get("subPath").and_then(Value::as_str).filter(|part| !part.is_empty()) else {
        return true;
    };
    let part = part.trim_end_matches('/');
    file == part || file.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'))
}
