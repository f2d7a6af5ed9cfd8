//! `isolate`: pods out of service, kept for inspection.

use super::mitigation::*;
use super::support::{audit, workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};

fn isolate(name: &str, kind: &str, target: &str, block: Value) -> Value {
    mitigation_of(name, kind, target, json!({"isolate": block}))
}

async fn pods(namespace: &TestNamespace, labels: &str) -> Vec<Pod> {
    let list = namespace.api::<Pod>().list(&ListParams::default().labels(labels)).await;
    let pods = list.expect("pods can be listed").items;
    pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

async fn service(namespace: &TestNamespace) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    namespace.create(service).await;
}

/// Names of the pods that the Service sends requests to.
async fn endpoints(namespace: &TestNamespace) -> Vec<String> {
    let slices =
        namespace.api::<EndpointSlice>().list(&ListParams::default()).await.expect("they can be listed");
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    endpoints.filter_map(|endpoint| endpoint.target_ref?.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_pod_is_replaced_kept_out_of_service_and_deleted_on_release() {
    let namespace = TestNamespace::new("isolate").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    service(&namespace).await;
    let suspect = pods(&namespace, "app=web").await[0].name_any();
    namespace.create(isolate("hold", "Pod", &suspect, json!({}))).await;
    let held = effective(&namespace, "hold").await;
    let kinds: Vec<&str> = held.status.iter().flat_map(|s| &s.objects).map(|o| o.kind.as_str()).collect();
    assert_eq!(kinds, ["NetworkPolicy", "Pod"]);
    wait_for(PATIENCE, "a new pod in its place, and the Service without the old one", async || {
        let others = pods(&namespace, "app=web").await;
        let served = endpoints(&namespace).await;
        (others.len() == 2 && served.len() == 2 && !served.contains(&suspect)).then_some(())
    })
    .await;
    let kept = namespace.api::<Pod>().get(&suspect).await.expect("it is kept");
    assert!(kept.owner_references().is_empty(), "its ReplicaSet has let go of it");
    let policies =
        namespace.api::<NetworkPolicy>().list(&ListParams::default()).await.expect("they can be listed");
    assert_eq!(policies.items.len(), 1);
    operator.restart().await;
    delete(&namespace, "hold").await;
    wait_gone(&namespace.api::<Pod>(), &suspect).await;
    let policies =
        namespace.api::<NetworkPolicy>().list(&ListParams::default()).await.expect("they can be listed");
    assert!(policies.items.is_empty());
    assert_eq!(pods(&namespace, "app=web").await.len(), 2, "and nobody else suffers");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_their_labels_back_when_that_is_asked_for() {
    let namespace = TestNamespace::new("relabel").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let lone = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone", "labels": {"app": "web", "team": "a"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/main:1"}]}});
    namespace.create(lone.clone()).await;
    service(&namespace).await;
    namespace.create(isolate("hold", "Pod", "lone", json!({"releasePods": "Relabel"}))).await;
    effective(&namespace, "hold").await;
    let held = present(&namespace, &lone).await;
    let labels = held.metadata.labels.clone().unwrap_or_default();
    assert!(!labels.contains_key("app") && labels["team"] == "a", "{labels:?}");
    delete(&namespace, "hold").await;
    let after = present(&namespace, &lone).await;
    assert_eq!(json!(after.metadata.labels), json!({"app": "web", "team": "a"}));
    assert!(marks(&after).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_chosen_pods_of_a_workload_are_isolated_although_the_operator_dies_in_between() {
    let namespace = TestNamespace::new("isolateall").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 3)).await;
    namespace.create(isolate("hold", "Deployment", "web", json!({"maxPods": 3}))).await;
    until(&namespace, "hold", "announcement", |m| m.status.as_ref().is_some_and(|s| s.objects.len() == 4))
        .await;
    operator.kill();
    operator.restart().await;
    effective(&namespace, "hold").await;
    assert_eq!(pods(&namespace, "incident-operator.dev/isolated").await.len(), 3);
    wait_for(PATIENCE, "the workload to replace them", async || {
        let count = pods(&namespace, "app=web").await.len();
        if count == 3 { Ok(()) } else { Err(format!("{count} pods")) }
    })
    .await;
    delete(&namespace, "hold").await;
    assert!(pods(&namespace, "incident-operator.dev/isolated").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_would_do_nothing_is_refused() {
    let namespace = TestNamespace::new("denypolicy").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let allow = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "allow"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [{}]}});
    namespace.create(allow.clone()).await;
    namespace.create(isolate("no", "Deployment", "web", json!({"method": "DenyPolicy"}))).await;
    let refused = reaches(&namespace, "no", Phase::Refused).await;
    assert!(message(&refused, "Stalled").contains("NetworkPolicy allow"), "{}", message(&refused, "Stalled"));
    namespace.kubectl(&["delete", "networkpolicy", "allow"]).success();
    // Of these no label can be taken away: they select every pod, or those that lack one.
    for (name, selector) in [
        ("all", json!({})),
        ("lacking", json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})),
    ] {
        let mut open = allow.clone();
        open["spec"]["podSelector"] = selector;
        namespace.create(open).await;
        namespace.create(isolate(name, "Deployment", "web", json!({}))).await;
        let refused = reaches(&namespace, name, Phase::Refused).await;
        assert_eq!(condition(&refused, "Stalled").map(|c| c.reason.as_str()), Some("AnotherPolicyAllows"));
        assert!(pods(&namespace, "app=web").await.iter().all(|pod| marks(pod).is_empty()));
        namespace.kubectl(&["delete", "networkpolicy", "allow"]).success();
    }
    let deny = isolate("yes", "Deployment", "web", json!({"method": "DenyPolicy"}));
    namespace.create(with(deny, json!({"verification": {"timeout": "1s"}}))).await;
    let told = says(&namespace, "yes", "Effective", "NotReported").await;
    assert!(is(&told, "Effective", ConditionStatus::Unknown), "no plugin tells whether it enforces policies");
    // One that comes later is told, and when it goes, too.
    namespace.create(allow).await;
    let void = says(&namespace, "yes", "Effective", "NotEffective").await;
    assert!(message(&void, "Effective").contains("NetworkPolicy allow"), "{}", message(&void, "Effective"));
    namespace.kubectl(&["delete", "networkpolicy", "allow"]).success();
    says(&namespace, "yes", "Effective", "NotReported").await;
    // Whoever takes the policy away ends the mitigation.
    namespace.kubectl(&["delete", "networkpolicy", "--all"]).success();
    reaches(&namespace, "yes", Phase::Superseded).await;
}

/// The pod that is suspected must not have its network back while it still runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_stays_until_the_isolated_pods_are_gone() {
    let namespace = TestNamespace::new("isolateorder").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    namespace.create(isolate("hold", "Deployment", "web", json!({"maxPods": 2}))).await;
    effective(&namespace, "hold").await;
    let isolated = pods(&namespace, "incident-operator.dev/isolated").await;
    let stays = isolated[0].name_any();
    let patch = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}}).to_string();
    let hold = patch(json!(["example.dev/hold"]));
    namespace.kubectl(&["patch", "pod", &stays, "--type=merge", "-p", &hold]).success();
    let mark = audit::mark();
    release(&namespace, "hold");
    until(&namespace, "hold", "waiting for the pod", |m| message(m, "Ready").contains("waiting until Pod/"))
        .await;
    wait_gone(&namespace.api::<Pod>(), &isolated[1].name_any()).await;
    let policies = async || {
        let list = namespace.api::<NetworkPolicy>().list(&ListParams::default()).await;
        list.expect("they can be listed").items.len()
    };
    assert_eq!(policies().await, 1, "one pod is there still");
    namespace.kubectl(&["patch", "pod", &stays, "--type=merge", "-p", &patch(Value::Null)]).success();
    reaches(&namespace, "hold", Phase::Released).await;
    assert_eq!(policies().await, 0);
    let requests = operator.requests_once_quiet(mark, std::time::Duration::from_millis(300)).await;
    let deleted: Vec<&str> =
        requests.iter().filter(|r| r.verb == "delete").map(|r| r.resource.as_str()).collect();
    assert_eq!(deleted, ["pods", "pods", "networkpolicies"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_nobody_would_replace_is_not_isolated_to_be_deleted() {
    let namespace = TestNamespace::new("isolatelone").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let lone = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/main:1"}]}});
    namespace.create(lone.clone()).await;
    service(&namespace).await;
    namespace.create(isolate("hold", "Pod", "lone", json!({}))).await;
    let refused = reaches(&namespace, "hold", Phase::Refused).await;
    assert!(
        message(&refused, "Stalled").contains("releasePods: Relabel"),
        "{}",
        message(&refused, "Stalled")
    );
    assert!(marks(&present(&namespace, &lone).await).is_empty());
}

/// Its siblings have the same labels and go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_for_one_pod_cuts_off_that_pod_alone() {
    let namespace = TestNamespace::new("denypod").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 3)).await;
    let all = pods(&namespace, "app=web").await;
    let (suspect, before) = (all[0].name_any(), all[0].labels().clone());
    namespace.create(isolate("hold", "Pod", &suspect, json!({"method": "DenyPolicy"}))).await;
    operator.restart().await;
    says(&namespace, "hold", "Effective", "NotReported").await;
    let policies =
        namespace.api::<NetworkPolicy>().list(&ListParams::default()).await.expect("they can be listed");
    let spec = policies.items[0].spec.clone().expect("a spec");
    let chosen = spec.pod_selector.and_then(|s| s.match_labels).unwrap_or_default();
    let chosen: Vec<String> = chosen.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert!(!chosen.is_empty(), "an empty selector selects every pod");
    let names: Vec<String> =
        pods(&namespace, &chosen.join(",")).await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, std::slice::from_ref(&suspect));
    assert_eq!(pods(&namespace, "app=web").await.len(), 3, "no label is taken away");
    delete(&namespace, "hold").await;
    let after = namespace.api::<Pod>().get(&suspect).await.expect("it is kept");
    assert_eq!(*after.labels(), before);
    assert!(
        namespace
            .api::<NetworkPolicy>()
            .list(&ListParams::default())
            .await
            .expect("they can be listed")
            .items
            .is_empty()
    );
}

/// The selector of a workload may be made of expressions alone; pods of others must not be taken for its own.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_another_workload_are_left_alone_whatever_the_selector_is_made_of() {
    let namespace = TestNamespace::new("isolateexpr").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut target = workload::deployment("expr", 2);
    let selector = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["expr"]}]});
    target["spec"]["selector"] = selector.clone();
    namespace.create_ready(target).await;
    namespace.create_ready(workload::deployment("innocent", 2)).await;
    let uids = async || {
        let all = pods(&namespace, "app=innocent").await;
        all.iter().filter_map(ResourceExt::uid).collect::<std::collections::BTreeSet<_>>()
    };
    let before = uids().await;
    for method in ["StripLabels", "DenyPolicy"] {
        let block = json!({"method": method, "maxPods": 2});
        namespace.create(isolate("hold", "Deployment", "expr", block)).await;
        match method {
            "StripLabels" => {
                effective(&namespace, "hold").await;
                assert_eq!(pods(&namespace, "incident-operator.dev/isolated").await.len(), 2);
            }
            _ => {
                says(&namespace, "hold", "Effective", "NotReported").await;
                let policies = namespace.api::<NetworkPolicy>().list(&ListParams::default()).await;
                let policies = policies.expect("they can be listed").items;
                assert_eq!(json!(policies[0].spec.as_ref().map(|s| &s.pod_selector)), selector);
            }
        }
        delete(&namespace, "hold").await;
        assert_eq!(uids().await, before, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_undoes_of_an_isolation_deletes_no_pod_and_says_which_are_left() {
    let namespace = TestNamespace::new("isolateedit").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let names: Vec<String> = pods(&namespace, "app=web").await.iter().map(ResourceExt::name_any).collect();
    // Who takes the policy away may have no right to delete pods.
    let (first, second) = (&names[0], &names[1]);
    namespace.create(isolate("reach", "Pod", first, json!({}))).await;
    effective(&namespace, "reach").await;
    namespace.kubectl(&["delete", "networkpolicy", "--all"]).success();
    let over = reaches(&namespace, "reach", Phase::Superseded).await;
    assert!(message(&over, "Ready").contains(&format!("Pod/{first}")), "{}", message(&over, "Ready"));
    // Who gives one of several back.
    namespace.create(isolate("both", "Deployment", "web", json!({"maxPods": 2}))).await;
    let both = effective(&namespace, "both").await;
    let held: Vec<&str> = both
        .status
        .iter()
        .flat_map(|s| &s.objects)
        .filter(|o| o.kind == "Pod")
        .map(|o| o.name.as_str())
        .collect();
    assert_eq!(held.len(), 2, "{held:?}");
    namespace.kubectl(&["label", "pod", held[0], "app=mine"]).success();
    let over = reaches(&namespace, "both", Phase::Superseded).await;
    assert!(message(&over, "Ready").contains(&format!("Pod/{}", held[1])), "{}", message(&over, "Ready"));
    for name in [first.as_str(), second.as_str()].into_iter().chain(held) {
        let pod = namespace.api::<Pod>().get(name).await.expect("nobody asked for its deletion");
        assert!(pod.metadata.deletion_timestamp.is_none(), "{name}");
        let held = pod.annotations().keys().any(|key| key.starts_with(CAPTURE));
        assert!(!held, "{name} is held by nobody any more: {:?}", pod.annotations());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_another_mitigation_isolates_is_waited_for() {
    let namespace = TestNamespace::new("isolatetwice").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let suspect = pods(&namespace, "app=web").await[0].name_any();
    namespace.create(isolate("first", "Pod", &suspect, json!({}))).await;
    effective(&namespace, "first").await;
    namespace.create(isolate("second", "Pod", &suspect, json!({}))).await;
    let waits = says(&namespace, "second", "Applied", "FieldBusy").await;
    assert!(message(&waits, "Applied").contains("mitigation first"), "{}", message(&waits, "Applied"));
    delete(&namespace, "first").await;
}
