//! `scale` of kinds that the configuration lists: whatever has a scale subresource. The chart is installed with the same
//! list (`values.yaml`), which gives the operator its rights and asks requesters for theirs.

use super::mitigation::*;
use super::support::{crds, own_cluster, workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

/// The operator with the configuration that the chart was given.
async fn operator(namespace: &TestNamespace) -> Operator {
    crds::install_all(&["shop"]);
    let values = own_cluster::root().join("tests/e2e/values.yaml");
    let values = std::fs::read_to_string(values).expect("it is readable");
    let values: Value = serde_saphyr::from_str(&values).expect("it is YAML");
    let file = Cluster::dir().join(format!("{}.yaml", namespace.name));
    std::fs::write(&file, values["config"].to_string()).expect("E2E_DIR is writable");
    let args = vec!["--config".to_owned(), file.display().to_string()];
    Operator::start(namespace, Options { args, ..Options::default() }).await
}

fn worker(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "shop.example/v1", "kind": "Worker", "metadata": {"name": name},
        "spec": {"replicas": replicas, "queue": "orders"}})
}

fn replica_set(name: &str) -> Value {
    let mut object = workload::deployment(name, 2);
    object["kind"] = "ReplicaSet".into();
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_is_stopped_verified_by_its_pods_and_comes_back_as_it_was() {
    let namespace = TestNamespace::new("worker").await;
    let mut operator = operator(&namespace).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w-0", "labels": {"worker": "crunch"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/main:1"}]}});
    namespace.create(pod).await;
    for name in ["crunch", "control"] {
        namespace.create(worker(name, 3)).await;
        let status = json!({"replicas": 1, "selector": format!("worker={name}")});
        crds::set_status(&namespace, &worker(name, 3), status).await;
    }
    namespace.create(with(scale("what-if", "Worker", "crunch", 0), json!({"dryRun": true}))).await;
    let planned = says(&namespace, "what-if", "Ready", "DryRun").await.status.and_then(|s| s.plan);
    assert_eq!(planned.expect("a plan").summary, "would scale Worker/crunch from 3 to 0");

    namespace.create(scale("stop", "Worker", "crunch", 0)).await;
    let held = says(&namespace, "stop", "Effective", "Verifying").await;
    assert!(is(&held, "Applied", ConditionStatus::True));
    // Its controller says that it is done; the pod tells otherwise.
    crds::set_status(&namespace, &worker("crunch", 0), json!({"replicas": 0})).await;
    holds_for(std::time::Duration::from_secs(2), "it is not called effective", async || {
        let told = until(&namespace, "stop", "it", |_| true).await;
        is(&told, "Effective", ConditionStatus::Unknown).then_some(()).ok_or_else(|| "it is".to_owned())
    })
    .await;
    let pods = namespace.api::<Pod>();
    pods.delete("w-0", &DeleteParams::default()).await.expect("it can be deleted");
    effective(&namespace, "stop").await;

    operator.kill();
    for name in ["crunch", "control"] {
        edit(&namespace, &worker(name, 0), "somebody", json!({"spec": {"queue": "returns"}})).await;
        crds::set_status(&namespace, &worker(name, 0), json!({"replicas": 0})).await;
    }
    operator.restart().await;
    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Released).await;
    let after = present(&namespace, &worker("crunch", 0)).await;
    assert_eq!(after.data["spec"]["replicas"], json!(3));
    assert_same(&after, &present(&namespace, &worker("control", 0)).await);

    // The scale subresource of people is another writer of the same field.
    namespace.create(scale("again", "Worker", "crunch", 1)).await;
    until(&namespace, "again", "take", |m| is(m, "Applied", ConditionStatus::True)).await;
    namespace.kubectl(&["scale", "worker/crunch", "--replicas=7"]).success();
    reaches(&namespace, "again", Phase::Superseded).await;
    let after = present(&namespace, &worker("crunch", 0)).await;
    assert_eq!((after.data["spec"]["replicas"].clone(), marks(&after)), (json!(7), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_may_lie_anywhere_in_the_spec_and_what_is_missing_around_it_goes_again() {
    let namespace = TestNamespace::new("pool").await;
    let _operator = operator(&namespace).await;
    let pool = |name: &str, spec: Value| json!({"apiVersion": "shop.example/v1", "kind": "Pool", "metadata": {"name": name}, "spec": spec});
    for (short, spec) in [("full", json!({"workers": {"count": 4}})), ("empty", json!({}))] {
        let (target, control) = (pool(short, spec.clone()), pool(&format!("{short}-control"), spec));
        namespace.create(target.clone()).await;
        namespace.create(control.clone()).await;
        let name = format!("stop-{short}");
        namespace.create(scale(&name, "Pool", short, 0)).await;
        // Nothing tells how many there are.
        says(&namespace, &name, "Effective", "NotReported").await;
        let held = present(&namespace, &target).await;
        assert_eq!(held.data["spec"]["workers"]["count"], json!(0));
        crds::set_status(&namespace, &target, json!({"count": 0})).await;
        effective(&namespace, &name).await;
        delete(&namespace, &name).await;
        crds::set_status(&namespace, &control, json!({"count": 0})).await;
        let (after, control) = (present(&namespace, &target).await, present(&namespace, &control).await);
        assert_eq!(essence(&after), essence(&control).replace("NAME-control", "NAME"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_replica_set_is_scaled_and_one_of_a_deployment_is_not() {
    let namespace = TestNamespace::new("replicaset").await;
    let _operator = operator(&namespace).await;
    for name in ["bare", "control"] {
        namespace.create_ready(replica_set(name)).await;
    }
    namespace.create(scale("stop", "ReplicaSet", "bare", 0)).await;
    effective(&namespace, "stop").await;
    let pods = namespace.api::<Pod>().list(&ListParams::default().labels("app=bare")).await;
    assert_eq!(pods.expect("they can be listed").items.len(), 0);
    delete(&namespace, "stop").await;
    let after = present(&namespace, &replica_set("bare")).await;
    assert_same(&after, &present(&namespace, &replica_set("control")).await);

    namespace.create_ready(workload::deployment("web", 1)).await;
    let owned = namespace.kubectl(&["get", "replicaset", "-l", "app=web", "-o", "name"]).success();
    let owned = owned.trim().rsplit('/').next().expect("a name").to_owned();
    namespace.create(scale("no", "ReplicaSet", &owned, 0)).await;
    let refused = reaches(&namespace, "no", Phase::Refused).await;
    assert_eq!(condition(&refused, "Stalled").map(|c| c.reason.as_str()), Some("TargetControlled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listed_is_refused_and_rights_are_those_on_the_kind() {
    let namespace = TestNamespace::new("listed").await;
    let _operator = operator(&namespace).await;
    namespace.create(worker("crunch", 3)).await;
    let may = namespace.person("may", &["patch workers.shop.example/scale"]).await;
    let stranger = namespace.person("stranger", &["patch deployments.apps/scale"]).await;
    let stop = scale("stop", "Worker", "crunch", 1);
    let words = stranger.create(&stop).await.expect_err("it has no right on workers");
    assert!(words.contains("it needs patch workers.shop.example/scale \"crunch\""), "{words}");
    may.create(&stop).await.expect("it has the right");
    until(&namespace, "stop", "take", |m| is(m, "Applied", ConditionStatus::True)).await;
    let unlisted = scale("unlisted", "Cog", "crunch", 1);
    let words = may.create(&unlisted).await.expect_err("nobody listed it");
    assert!(words.contains("Worker (shop.example/v1)"), "{words}");
    // The operator's own token may write the number of a Worker, and nothing else of it.
    let thief = namespace.operator_by_token().await.manager("incident-operator-scale");
    let words = thief.merge(&worker("crunch", 1), json!({"spec": {"queue": "mine"}})).await;
    let words = words.expect_err("the fence names the number alone");
    assert!(words.contains("spec.replicas of workers.shop.example"), "{words}");
}
