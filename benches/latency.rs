//! How long it takes from `apply` until a mitigation is visible on its target, beside the raw API loop.
//!
//! The floor (F1) is the same client doing the least that any operator must: create an object, see it on a
//! watch, write its status, patch the target, see that on a watch. Both are measured in the same run, in turn,
//! because absolute times of a shared machine mean nothing. Needs KUBECONFIG of a cluster with the operator
//! running; `RUNS` sets how often each is done.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

type Seen = Arc<(Mutex<HashMap<String, (Instant, Value)>>, Notify)>;

fn observe(api: Api<DynamicObject>) -> Seen {
    let seen: Seen = Arc::default();
    let out = seen.clone();
    tokio::spawn(async move {
        let mut events = watcher(api, watcher::Config::default()).applied_objects().boxed();
        while let Ok(Some(object)) = events.try_next().await {
            let now = Instant::now();
            out.0.lock().unwrap().insert(object.name_any(), (now, serde_json::to_value(&object).unwrap()));
            out.1.notify_waiters();
        }
    });
    seen
}

async fn when(seen: &Seen, name: &str, wanted: impl Fn(&Value) -> bool) -> Instant {
    let wait = async {
        loop {
            let notified = seen.1.notified();
            if let Some((at, object)) = seen.0.lock().unwrap().get(name)
                && wanted(object)
            {
                return *at;
            }
            notified.await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{name} never came"))
}

fn api(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    ns: &str,
) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(group, version, kind);
    Api::namespaced_with(client.clone(), ns, &ApiResource::from_gvk_with_plural(&gvk, plural))
}

fn percentile(times: &mut [Duration], p: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * p / 100].as_secs_f64() * 1e3
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let runs: usize = std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(100);
    let mut config = kube::Config::infer().await?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let ns = "bench";
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), ns);
    let targets = api(&client, "apps", "v1", "Deployment", "deployments", ns);
    let g = "incident-operator.dev";
    let incidents = api(&client, g, "v1alpha1", "Incident", "incidents", ns);
    let mitigations = api(&client, g, "v1alpha1", "Mitigation", "mitigations", ns);
    // Nobody but the operator writes the status of its kinds, so the floor uses another one.
    let raw = api(&client, "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", ns);
    let (seen_target, seen_incident, seen_mitigation, seen_raw) = (
        observe(targets.clone()),
        observe(incidents.clone()),
        observe(mitigations.clone()),
        observe(raw.clone()),
    );
    let pp = PostParams::default();
    let manager = PatchParams { field_manager: Some("bench".into()), ..PatchParams::default() };
    let mut results: HashMap<&str, (Vec<Duration>, Vec<Duration>)> = HashMap::new();
    for run in 0..runs {
        for what in ["floor", "mitigation", "incident"] {
            let name = format!("{what}-{run}");
            let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": name},
                "spec": {"replicas": 1, "paused": true, "selector": {"matchLabels": {"a": name}},
                "template": {"metadata": {"labels": {"a": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))?;
            deployments.create(&pp, &deployment).await?;
            when(&seen_target, &name, |o| o["status"]["observedGeneration"] == o["metadata"]["generation"])
                .await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            let zero = |o: &Value| o["spec"]["replicas"] == 0;
            let spec = json!({"reason": "bench", "targetRef": {"kind": "Deployment", "name": name}, "scale": {"replicas": 0}, "evidence": "None"});
            let start = Instant::now();
            let done = match what {
                "floor" => {
                    let object: DynamicObject = serde_json::from_value(
                        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                        "metadata": {"name": name}, "spec": {"maxUnavailable": 1,
                            "selector": {"matchLabels": {"nobody": "has-it"}}}}),
                    )?;
                    raw.create(&pp, &object).await?;
                    when(&seen_raw, &name, |_| true).await;
                    let status = json!({"status": {"desiredHealthy": 1}});
                    raw.patch_status(&name, &manager, &Patch::Merge(status)).await?;
                    let patch = json!([{"op": "test", "path": "/spec/replicas", "value": 1},
                        {"op": "add", "path": "/metadata/annotations/bench", "value": "1"}, {"op": "replace", "path": "/spec/replicas", "value": 0}]);
                    let patch: json_patch::Patch = serde_json::from_value(patch)?;
                    targets.patch(&name, &manager, &Patch::Json::<()>(patch)).await?;
                    None
                }
                "mitigation" => {
                    let object: DynamicObject = serde_json::from_value(
                        json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Mitigation",
                        "metadata": {"name": name}, "spec": spec}),
                    )?;
                    mitigations.create(&pp, &object).await?;
                    Some((&seen_mitigation, name.clone()))
                }
                _ => {
                    let mut inline = spec.clone();
                    inline["name"] = json!("m");
                    let object: DynamicObject = serde_json::from_value(
                        json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
                        "metadata": {"name": name}, "spec": {"title": "bench", "mitigations": [inline]}}),
                    )?;
                    incidents.create(&pp, &object).await?;
                    Some((&seen_mitigation, format!("{name}-m")))
                }
            };
            let visible = when(&seen_target, &name, zero).await - start;
            let entry = results.entry(what).or_default();
            entry.0.push(visible);
            if let Some((seen, object)) = done {
                let effective = |o: &Value| {
                    o["status"]["conditions"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .any(|c| c["type"] == "Applied" && c["status"] == "True")
                };
                entry.1.push(when(seen, &object, effective).await - start);
            }
            let _ = &seen_incident;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    println!("{:<12} {:>8} {:>8} {:>8} {:>8}   applied in status: p50", "", "p50 ms", "p95", "p99", "max");
    for what in ["floor", "mitigation", "incident"] {
        let (visible, status) = results.get_mut(what).unwrap();
        let row: Vec<f64> = [50, 95, 99, 100].iter().map(|p| percentile(visible, *p)).collect();
        let status = if status.is_empty() { String::new() } else { format!("{:.2}", percentile(status, 50)) };
        println!("{what:<12} {:>8.2} {:>8.2} {:>8.2} {:>8.2}   {status}", row[0], row[1], row[2], row[3]);
    }
    for api in [&incidents, &mitigations, &raw] {
        api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    }
    deployments.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    Ok(())
}
