//! When a workload is not rolled back, and what the earlier template needs to run.

use super::{
    CONFIG_MAP, DEPLOYMENT, ObjectId, PERSISTENT_VOLUME_CLAIM, Revision, SECRET, SERVICE_ACCOUNT,
    STATEFUL_SET, Scene, Stop, TargetKind, workload,
};
use crate::mitigation::{field, record::Record};
use serde_json::Value;

/// Annotation of a workload that must not be rolled back, for example because the data was migrated.
const ROLLBACK: &str = "incident-operator.dev/rollback";

/// Refuses what must not be rolled back, or would not be.
pub fn check(scene: &Scene<'_>) -> Result<(), Stop> {
    let target = scene.target;
    workload::refuse_controlled(target, "its template", None)?;
    if workload::annotation(target, ROLLBACK).is_some_and(|value| value == "forbidden") {
        return Err(Stop::refuse(
            "RollbackForbidden",
            format!("its annotation {ROLLBACK} says forbidden: ask its owners, and deploy a fix instead"),
        ));
    }
    if let Some(how) = stands(scene) {
        let by = Record::all(target).find(|record| record.action == "pauseRollout");
        let fix = match by {
            Some(record) => format!("release mitigation {} first", record.mitigation),
            None => "undo that first".to_owned(),
        };
        return Err(Stop::refuse(
            "Paused",
            format!("its rollouts stand still ({how}), so no pod would change: {fix}"),
        ));
    }
    Ok(())
}

/// There is no other revision, and why. One that still serves is kept whatever the limit of the history is.
pub fn no_other(target: &kube::core::DynamicObject) -> Stop {
    match field(target, "/spec/revisionHistoryLimit").and_then(|limit| limit.as_i64()) {
        Some(0) => Stop::refuse(
            "NoHistory",
            "spec.revisionHistoryLimit is 0, so no earlier revision is kept: deploy a good version instead",
        ),
        _ => Stop::refuse(
            "NoOtherRevision",
            "it has no other revision to go back to: deploy a good version instead",
        ),
    }
}

/// Why a new template would reach no pod.
fn stands(scene: &Scene<'_>) -> Option<&'static str> {
    let target = scene.target;
    if scene.id.kind == DEPLOYMENT {
        let paused = field(target, "/spec/paused").and_then(|paused| paused.as_bool());
        return (paused == Some(true)).then_some("spec.paused is true");
    }
    let replicas = field(target, "/spec/replicas").and_then(|n| n.as_i64()).unwrap_or(1);
    let partition = workload::number(target, "/spec/updateStrategy/rollingUpdate/partition");
    let all = scene.id.kind == STATEFUL_SET && replicas > 0 && partition >= replicas;
    all.then_some("spec.updateStrategy.rollingUpdate.partition spares every pod")
}

/// Refuses a template that names what is gone. Of Secrets it must be allowed to ask.
pub fn needs(scene: &Scene<'_>, to: &Revision) -> Result<(), Stop> {
    let secrets = secrets(&to.template).into_iter().map(|name| (SECRET, name));
    for (kind, name) in named(&to.template).into_iter().chain(secrets) {
        let id = ObjectId::new(kind, name);
        let gone = match kind == SECRET {
            true => scene.exists(&id)? == Some(false),
            false => scene.one(&id)?.is_none(),
        };
        if gone {
            return Err(Stop::refuse(
                "ReferenceGone",
                format!(
                    "{} names {id}, which does not exist any more: make it again first, or name another revision",
                    to.mark
                ),
            ));
        }
    }
    Ok(())
}

/// What a template cannot run without.
fn named(template: &Value) -> Vec<(TargetKind, String)> {
    let mut found = Vec::new();
    let mut add = |kind: TargetKind, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str)
            && !found.contains(&(kind, name.to_owned()))
        {
            found.push((kind, name.to_owned()));
        }
    };
    for source in sources(template, "configMap", "configMapKeyRef", "configMapRef") {
        add(CONFIG_MAP, source.get("name"));
    }
    for volume in list(template, "/spec/volumes") {
        add(PERSISTENT_VOLUME_CLAIM, volume.pointer("/persistentVolumeClaim/claimName"));
    }
    // Every namespace has the default one.
    let account = template.pointer("/spec/serviceAccountName").filter(|name| *name != "default");
    add(SERVICE_ACCOUNT, account);
    found
}

/// The Secrets with which images are pulled.
pub fn pull_secrets(template: &Value) -> Vec<String> {
    let names = list(template, "/spec/imagePullSecrets").filter_map(|secret| secret.get("name")?.as_str());
    names.map(str::to_owned).collect()
}

/// The Secrets that a template cannot run without.
pub fn secrets(template: &Value) -> Vec<String> {
    let volumes = list(template, "/spec/volumes");
    let published = volumes.filter_map(|volume| volume.pointer("/csi/nodePublishSecretRef/name")?.as_str());
    let mut names: Vec<String> = published.map(str::to_owned).collect();
    for source in sources(template, "secret", "secretKeyRef", "secretRef") {
        let name = source.get("secretName").or_else(|| source.get("name")).and_then(Value::as_str);
        names.extend(name.map(str::to_owned));
    }
    names.sort();
    names.dedup();
    names
}

/// Where a template takes something from a ConfigMap or Secret, unless it can do without.
fn sources<'t>(template: &'t Value, volume: &str, key: &str, all: &str) -> Vec<&'t Value> {
    let mut found = Vec::new();
    for entry in list(template, "/spec/volumes") {
        found.extend(entry.get(volume));
        found.extend(list(entry, "/projected/sources").filter_map(|source| source.get(volume)));
    }
    let containers = list(template, "/spec/containers").chain(list(template, "/spec/initContainers"));
    for container in containers {
        found.extend(list(container, "/env").filter_map(|env| env.get("valueFrom")?.get(key)));
        found.extend(list(container, "/envFrom").filter_map(|env| env.get(all)));
    }
    found.retain(|source| source.get("optional") != Some(&Value::Bool(true)));
    found
}

fn list<'t>(value: &'t Value, path: &str) -> impl Iterator<Item = &'t Value> + use<'t> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_a_template_cannot_run_without_is_found_and_what_is_optional_is_not() {
        let template = json!({"spec": {
            "serviceAccountName": "runner",
            "volumes": [
                {"configMap": {"name": "files"}}, {"secret": {"secretName": "tls"}},
                {"csi": {"driver": "d", "nodePublishSecretRef": {"name": "mount"}}},
                {"configMap": {"name": "maybe", "optional": true}},
                {"persistentVolumeClaim": {"claimName": "data"}},
                {"projected": {"sources": [{"configMap": {"name": "projected"}}, {"secret": {"name": "token"}}]}}],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "init"}}]}],
            "containers": [{
                "env": [{"valueFrom": {"configMapKeyRef": {"name": "files", "key": "a"}}},
                    {"valueFrom": {"secretKeyRef": {"name": "password", "key": "a"}}}],
                "envFrom": [{"secretRef": {"name": "all"}}]}]}});
        let mut names: Vec<String> =
            named(&template).into_iter().map(|(kind, name)| format!("{}/{name}", kind.kind)).collect();
        names.sort();
        let wanted = [
            "ConfigMap/files",
            "ConfigMap/init",
            "ConfigMap/projected",
            "PersistentVolumeClaim/data",
            "ServiceAccount/runner",
        ];
        assert_eq!(names, wanted);
        assert_eq!(secrets(&template), ["all", "mount", "password", "tls", "token"]);
    }
}
