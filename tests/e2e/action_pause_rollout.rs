//! `pauseRollout` on real workloads and their real controllers.

use super::action_rollback::{BAD, GOOD, rolled_out, set_image, workload_of};
use super::mitigation::*;
use super::support::*;
use incident_operator::api::MitigationPhase as Phase;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

async fn pods(namespace: &TestNamespace, app: &str) -> Vec<(String, String)> {
    let found = namespace.api::<Pod>().list(&ListParams::default().labels(&format!("app={app}"))).await;
    let mut pods: Vec<_> = found
        .expect("pods can be listed")
        .items
        .into_iter()
        .map(|pod| {
            let image =
                pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default();
            (pod.uid().unwrap_or_default(), image)
        })
        .collect();
    pods.sort();
    pods
}

async fn stands_and_goes_on(kind: &str, field: &str, held: Value) {
    let namespace = TestNamespace::new("pause").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["web", "control"] {
        namespace.create(workload_of(kind, name)).await;
        rolled_out(&namespace, kind, name);
    }
    let web = workload_of(kind, "web");
    let before = pods(&namespace, "web").await;
    namespace.create(mitigation_of("stand", kind, "web", json!({"pauseRollout": {}}))).await;
    effective(&namespace, "stand").await;
    assert_eq!(present(&namespace, &web).await.data.pointer(field), Some(&held));
    for name in ["web", "control"] {
        set_image(&namespace, kind, name, BAD);
    }
    // The other one is through, so this one would have begun.
    rolled_out(&namespace, kind, "control");
    let api = namespace.cluster.api_of(&web, &namespace.name);
    wait_status(&api, "web", "that its controller saw the new version", |object| {
        object.data["status"]["observedGeneration"].as_i64() == object.metadata.generation
    })
    .await;
    assert_eq!(pods(&namespace, "web").await, before, "the same pods with {GOOD}");

    release(&namespace, "stand");
    reaches(&namespace, "stand", Phase::Released).await;
    rolled_out(&namespace, kind, "web");
    assert!(pods(&namespace, "web").await.iter().all(|(_, image)| image == BAD));
    let (after, control) =
        (present(&namespace, &web).await, present(&namespace, &workload_of(kind, "control")).await);
    assert_eq!(marks(&after), Vec::<String>::new());
    assert_same(&after, &control);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rollout_of_a_deployment_stands_and_goes_on_after_the_release() {
    stands_and_goes_on("Deployment", "/spec/paused", json!(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rollout_of_a_statefulset_stands_and_goes_on_after_the_release() {
    let field = "/spec/updateStrategy/rollingUpdate/partition";
    stands_and_goes_on("StatefulSet", field, json!(2_147_483_647)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rollout_of_a_daemonset_stands_and_goes_on_after_the_release() {
    stands_and_goes_on("DaemonSet", "/spec/updateStrategy/type", json!("OnDelete")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_paused_stays_paused_and_what_somebody_resumes_stays_resumed() {
    let namespace = TestNamespace::new("paused").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["before", "meanwhile"] {
        namespace.create(workload_of("Deployment", name)).await;
        rolled_out(&namespace, "Deployment", name);
    }
    namespace.kubectl(&["rollout", "pause", "deployment/before"]).success();
    let before = present(&namespace, &workload_of("Deployment", "before")).await;
    for name in ["before", "meanwhile"] {
        namespace.create(mitigation_of(name, "Deployment", name, json!({"pauseRollout": {}}))).await;
        effective(&namespace, name).await;
    }
    says(&namespace, "before", "Applied", "AlreadyPaused").await;
    release(&namespace, "before");
    reaches(&namespace, "before", Phase::Released).await;
    let after = present(&namespace, &workload_of("Deployment", "before")).await;
    assert_eq!(after.data["spec"]["paused"], true);
    assert_same(&after, &before);

    namespace.kubectl(&["rollout", "resume", "deployment/meanwhile"]).success();
    // The field is gone then, and nothing says who removed it.
    let ended = reaches(&namespace, "meanwhile", Phase::Superseded).await;
    let told = message(&ended, "Ready");
    assert_eq!(told, "somebody removed spec.paused, and nothing notes who did; it stays removed");
    let after = present(&namespace, &workload_of("Deployment", "meanwhile")).await;
    assert_eq!((after.data["spec"].get("paused"), marks(&after)), (None, vec![]));
}

/// Nothing is to be changed then, and nothing may be: not even again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_statefulset_with_ondelete_stands_already_and_is_left_as_it_is() {
    let namespace = TestNamespace::new("ondelete").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let set = |name: &str| {
        let mut set = workload_of("StatefulSet", name);
        set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        set
    };
    for name in ["web", "control"] {
        namespace.create_ready(set(name)).await;
    }
    namespace.create(mitigation_of("stand", "StatefulSet", "web", json!({"pauseRollout": {}}))).await;
    effective(&namespace, "stand").await;
    says(&namespace, "stand", "Applied", "AlreadyPaused").await;
    let held = present(&namespace, &set("web")).await;
    holds_for(std::time::Duration::from_secs(2), "it is not written to", async || {
        let now = present(&namespace, &set("web")).await;
        (now.metadata.resource_version == held.metadata.resource_version)
            .then_some(())
            .ok_or_else(|| "it was written to".to_owned())
    })
    .await;
    delete(&namespace, "stand").await;
    assert_same(&present(&namespace, &set("web")).await, &present(&namespace, &set("control")).await);
}
