//! What the chart's admission policies add to a POST: the same request, in the same run, in a namespace where they
//! hold and in one where they do not.
//!
//! Needs KUBECONFIG of a cluster with the chart, as its admin and without an operator running. It tells every
//! binding of the chart to leave one namespace out, and takes that back at the end. `RUNS` sets how often each
//! request is made, `POLICY` is a part of the names of those policies that are to be looked at alone.

use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const WITH: &str = "bench-with";
const WITHOUT: &str = "bench-without";

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

async fn client(user: Option<&str>) -> anyhow::Result<Client> {
    let mut kubeconfig = Kubeconfig::read()?;
    for named in &mut kubeconfig.auth_infos {
        if let (Some(info), Some(user)) = (&mut named.auth_info, user) {
            info.impersonate = Some(user.to_owned());
            info.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);
        }
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Every binding of the chart leaves the namespace out, or does so no longer.
async fn leave_out(admin: &Client, out: bool) -> anyhow::Result<()> {
    let matches = out.then(|| {
        json!({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [WITHOUT]},
        ]}})
    });
    for name in ["ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicyBinding"] {
        let api: Api<DynamicObject> =
            Api::all_with(admin.clone(), &kind("admissionregistration.k8s.io", "v1", name));
        let ours = ListParams::default().labels("app.kubernetes.io/part-of=incident-operator");
        let part = std::env::var("POLICY").unwrap_or_default();
        let all = api.list(&ours).await?.items.into_iter();
        for binding in all.filter(|b| b.metadata.name.as_ref().is_some_and(|name| name.contains(&part))) {
            let change = Patch::Merge(json!({"spec": {"matchResources": matches}}));
            api.patch(&binding.metadata.name.unwrap_or_default(), &PatchParams::default(), &change).await?;
        }
    }
    Ok(())
}

async fn prepare(admin: &Client, namespace: &str) -> anyhow::Result<()> {
    let rbac = |name: &str| kind("rbac.authorization.k8s.io", "v1", name);
    let create = PostParams::default();
    let object = |value: Value| serde_json::from_value::<DynamicObject>(value);
    let namespaces: Api<DynamicObject> = Api::all_with(admin.clone(), &kind("", "v1", "Namespace"));
    namespaces.create(&create, &object(json!({"metadata": {"name": namespace}}))?).await?;
    let roles: Api<DynamicObject> = Api::namespaced_with(admin.clone(), namespace, &rbac("Role"));
    let rules = json!([
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]},
        {"apiGroups": ["incident-operator.dev"], "resources": ["incidents", "mitigations"], "verbs": ["create"]},
    ]);
    roles.create(&create, &object(json!({"metadata": {"name": "bench"}, "rules": rules}))?).await?;
    let bindings: Api<DynamicObject> = Api::namespaced_with(admin.clone(), namespace, &rbac("RoleBinding"));
    let binding = json!({"metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "bench"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bench"}]});
    bindings.create(&create, &object(binding)?).await?;
    Ok(())
}

/// An Incident with so many mitigations.
fn incident(name: &str, mitigations: usize) -> Value {
    let entry = |i: usize| {
        json!({"name": format!("m{i}"), "reason": "bench", "targetRef": {"kind": "Deployment", "name": format!("w{i}")},
            "scale": {"replicas": 0}})
    };
    json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident", "metadata": {"name": name}, "spec": {"title": "bench", "mitigations": (0..mitigations).map(entry).collect::<Vec<_>>()}})
}

fn percentile(times: &mut [Duration], p: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * p / 100].as_secs_f64() * 1e3
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let admin = client(None).await?;
    let measured = measure(&admin).await;
    // Whatever happened: the policies hold everywhere again.
    leave_out(&admin, false).await?;
    let namespaces: Api<DynamicObject> = Api::all_with(admin.clone(), &kind("", "v1", "Namespace"));
    for namespace in [WITH, WITHOUT] {
        namespaces.delete(namespace, &DeleteParams::default()).await?;
    }
    measured
}

async fn measure(admin: &Client) -> anyhow::Result<()> {
    let runs: usize = std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(300);
    let person = client(Some("bench")).await?;
    for namespace in [WITH, WITHOUT] {
        prepare(admin, namespace).await?;
    }
    leave_out(admin, true).await?;
    // New policies and roles are in force within a second or so.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let resource = kind("incident-operator.dev", "v1alpha1", "Incident");
    let api =
        |namespace| -> Api<DynamicObject> { Api::namespaced_with(person.clone(), namespace, &resource) };
    let create = PostParams::default();
    println!("{:<24} {:>10} {:>10} {:>10}", "POST of an Incident with", "without", "with", "added");
    for count in [0, 1, 8] {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for run in 0..runs + 20 {
            // In turn, so that whatever else goes on meets both alike.
            for (which, namespace) in [WITHOUT, WITH].into_iter().enumerate() {
                let object: DynamicObject =
                    serde_json::from_value(incident(&format!("i{count}-{run}"), count))?;
                let start = Instant::now();
                let made = api(namespace).create(&create, &object).await?;
                // The first ones warm up.
                if run >= 20 {
                    times[which].push(start.elapsed());
                }
                let signed =
                    made.metadata.annotations.is_some_and(|a| a.contains_key("incident-operator.dev/actor"));
                let alone = std::env::var_os("POLICY").is_some();
                anyhow::ensure!(
                    alone || signed == (namespace == WITH),
                    "the policies hold where they should not, or do not where they should"
                );
            }
        }
        for p in [50, 99] {
            let [without, with] = [percentile(&mut times[0], p), percentile(&mut times[1], p)];
            println!(
                "{:<24} {without:>7.2} ms {with:>7.2} ms {:>7.2} ms",
                format!("{count} mitigations, p{p}"),
                with - without
            );
        }
    }
    Ok(())
}
