//! The objects: workloads, what is measured, and a kind of the bench's own for the floors.
//!
//! The floors cannot use our kinds, because nobody but the operator may write their status. A built-in kind would be
//! no fair floor: the API server stores and serves custom resources in another way. So the bench makes a group of its
//! own with our own definitions in it, schema and rules included; only our admission policies do not hold there.

use super::{NAMESPACE, Rig};
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};

/// Group of our kinds.
pub const OURS: &str = "incident-operator.dev";
/// Group of the same definitions without our policies.
pub const RAW: &str = "bench.example.com";

/// A kind, in the bench's namespace.
pub fn api(client: &Client, group: &str, kind: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(group, "v1alpha1", kind);
    let plural = match kind {
        "TimelineEntry" => "timelineentries".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk_with_plural(&gvk, &plural))
}

/// Deployments as plain objects.
pub fn deployments(client: &Client) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("apps", "v1", "Deployment");
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&gvk))
}

/// Makes the bench's own group.
pub async fn make_raw_kinds(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in incident_operator::crds::all() {
        if !["Incident", "Mitigation"].contains(&crd.spec.names.kind.as_str()) {
            continue;
        }
        let mut raw = CustomResourceDefinition { spec: crd.spec, ..CustomResourceDefinition::default() };
        raw.spec.group = RAW.to_owned();
        raw.spec.names.short_names = None;
        raw.spec.names.categories = None;
        let name = format!("{}.{RAW}", raw.spec.names.plural);
        let served = self::api(client, RAW, &raw.spec.names.kind);
        raw.metadata.name = Some(name.clone());
        let params = PatchParams::apply("bench").force();
        let mut value = serde_json::to_value(&raw)?;
        value["apiVersion"] = "apiextensions.k8s.io/v1".into();
        value["kind"] = "CustomResourceDefinition".into();
        api.patch(&name, &params, &Patch::Apply(value)).await?;
        await_condition(api.clone(), &name, conditions::is_crd_established()).await?;
        // It is answered for a moment later.
        let mut left = 50;
        while let Err(error) = served.list_metadata(&kube::api::ListParams::default().limit(1)).await {
            left -= 1;
            anyhow::ensure!(left > 0, "{name} is not served: {error}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// The object of a value.
pub fn object(value: Value) -> anyhow::Result<DynamicObject> {
    Ok(serde_json::from_value(value)?)
}

/// A mitigation that scales a Deployment to zero.
pub fn mitigation(group: &str, name: &str, target: &str, evidence: Option<&str>) -> Value {
    let mut spec = json!({"reason": "bench", "targetRef": {"kind": "Deployment", "name": target}, "scale": {"replicas": 0}});
    if let Some(evidence) = evidence {
        spec["evidence"] = evidence.into();
    }
    json!({"apiVersion": format!("{group}/v1alpha1"), "kind": "Mitigation", "metadata": {"name": name}, "spec": spec})
}

/// An incident that scales these Deployments to zero.
pub fn incident(group: &str, name: &str, targets: &[String]) -> Value {
    let entry = |(i, target): (usize, &String)| {
        json!({"name": format!("m{i}"), "reason": "bench", "targetRef": {"kind": "Deployment", "name": target},
            "scale": {"replicas": 0}, "evidence": "None"})
    };
    let entries: Vec<_> = targets.iter().enumerate().map(entry).collect();
    json!({"apiVersion": format!("{group}/v1alpha1"), "kind": "Incident", "metadata": {"name": name},
        "spec": {"title": "bench", "mitigations": entries}})
}

/// The patch that the floors take with: what the operator's own patch does, in as many operations.
pub fn take(uid: &str) -> anyhow::Result<Patch<()>> {
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "add", "path": "/metadata/labels/bench", "value": "true"},
        {"op": "add", "path": "/metadata/annotations/bench", "value": "x".repeat(300)},
        {"op": "replace", "path": "/spec/replicas", "value": 0},
    ]);
    Ok(Patch::Json(serde_json::from_value(patch)?))
}

/// The patch that undoes it.
pub fn restore() -> anyhow::Result<Patch<()>> {
    let patch = json!([{"op": "test", "path": "/spec/replicas", "value": 0}, {"op": "replace", "path": "/spec/replicas", "value": 1}]);
    Ok(Patch::Json(serde_json::from_value(patch)?))
}

/// Whether a Deployment is scaled to zero.
pub fn is_zero(deployment: &Value) -> bool {
    deployment["spec"]["replicas"] == 0
}

/// Whether a Deployment is as it was made, and its controller has seen that.
pub fn is_whole(deployment: &Value) -> bool {
    deployment["spec"]["replicas"] == 1
        && deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
        && deployment["metadata"]["annotations"]
            .as_object()
            .is_none_or(|all| all.keys().all(|key| !key.contains("/mit-")))
}

/// Whether a condition of an object is True.
pub fn says(object: &Value, type_: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == type_ && c["status"] == "True")
}

/// Makes Deployments without pods (paused from the beginning), so that neither scheduler nor kubelets are measured.
/// Those that are there already stay.
pub async fn make_deployments(rig: &Rig, names: &[String]) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(rig.admin.clone(), NAMESPACE);
    futures::stream::iter(names.iter().map(anyhow::Ok))
        .try_for_each_concurrent(8, |name| {
            let api = api.clone();
            async move {
                let deployment = json!({"metadata": {"name": name, "labels": {"app": name}, "annotations": {"note": "x"}},
                    "spec": {"replicas": 1, "paused": true, "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}},
                        "spec": {"containers": [{"name": "c", "image": "registry.example.com/app:1.0.0"}]}}}});
                let made = api.create(&PostParams::default(), &serde_json::from_value(deployment)?).await;
                match made {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error).with_context(|| format!("making deployment {name}")),
                }
                let seen = |d: Option<&Deployment>| {
                    d.is_some_and(|d| {
                        d.status.as_ref().and_then(|s| s.observed_generation) == d.metadata.generation
                    })
                };
                let mut wait = 0;
                while !seen(api.get_opt(name).await?.as_ref()) {
                    anyhow::ensure!(wait < 3000, "nobody looks after deployment {name}");
                    wait += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                Ok(())
            }
        })
        .await
}

/// Removes all of a kind, many at a time, and waits until they are gone.
pub async fn remove_all(api: &Api<DynamicObject>) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    loop {
        anyhow::ensure!(std::time::Instant::now() < deadline, "{} cannot be removed", api.resource_url());
        let there = api.list_metadata(&kube::api::ListParams::default().limit(2000)).await?;
        if there.items.is_empty() {
            return Ok(());
        }
        futures::stream::iter(there.items)
            .for_each_concurrent(16, |object| async move {
                // Gone, or seen again in the next round.
                let _ = api.delete(&object.metadata.name.unwrap_or_default(), &Default::default()).await;
            })
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Removes what earlier measurements left.
pub async fn clean(rig: &Rig) -> anyhow::Result<()> {
    for kind in ["Incident", "Mitigation", "TimelineEntry"] {
        remove_all(&api(&rig.admin, OURS, kind)).await?;
    }
    for kind in ["Incident", "Mitigation"] {
        remove_all(&api(&rig.admin, RAW, kind)).await?;
    }
    remove_all(&deployments(&rig.admin)).await?;
    let maps: Api<ConfigMap> = Api::namespaced(rig.admin.clone(), NAMESPACE);
    let ours = kube::api::ListParams::default().labels("app.kubernetes.io/managed-by=incident-operator");
    maps.delete_collection(&Default::default(), &ours).await?;
    Ok(())
}
