//! Tests of what the other tests stand on.

use super::support::{audit, *};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_brings_every_kind_and_all_are_established() {
    let cluster = Cluster::get().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let chosen = ListParams::default().labels("app.kubernetes.io/part-of=incident-operator");
    let found = definitions.list(&chosen).await.expect("definitions can be listed").items;
    let mut kinds: Vec<_> = found.iter().map(|definition| definition.spec.names.kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["Incident", "Mitigation", "MitigationPolicy", "Postmortem", "TimelineEntry"]);
    for definition in &found {
        let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let wrong: Vec<_> = conditions
            .filter(|condition| match condition.type_.as_str() {
                "Established" | "NamesAccepted" => condition.status != "True",
                // Says what is wrong with a schema that is taken all the same.
                "NonStructuralSchema" => condition.status == "True",
                _ => false,
            })
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", definition.spec.names.kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_get_pods_and_the_audit_log_tells_who_changed_them() {
    let namespace = TestNamespace::new("workloads").await;
    namespace.create_ready(workload::deployment("importer", 3)).await;
    namespace.create_ready(workload::statefulset("store", 2)).await;

    let deployments = namespace.api::<Deployment>();
    let history = History::of(&deployments, "importer").await;
    let mark = audit::mark();
    let importer = json!({"spec": {"replicas": 0}});
    let params = PatchParams { field_manager: Some("somebody".to_owned()), ..Default::default() };
    let changed =
        deployments.patch("importer", &params, &Patch::Merge(&importer)).await.expect("it can be scaled");
    assert!(managed_fields(&changed).contains(&"somebody".to_owned()));
    assert_eq!(marks(&changed), Vec::<String>::new());
    wait_for(PATIENCE, "end of the pods", async || {
        let pods =
            namespace.api::<Pod>().list(&ListParams::default().labels("app=importer")).await.ok()?.items;
        pods.is_empty().then_some(())
    })
    .await;

    let replicas = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
    history.first("scaled Deployment", |revision| replicas(&revision.object) == Some(0)).await;
    assert_eq!(replicas(&history.revisions()[0].object), Some(3));

    let quiet = Duration::from_millis(200);
    let found = audit::settled(mark, quiet, |request| {
        request.namespace == namespace.name && request.field_manager == "somebody"
    })
    .await;
    assert_eq!(
        found.iter().map(audit::Request::brief).collect::<Vec<_>>(),
        ["patch deployments/importer 200"]
    );
    assert_eq!(found[0].body.as_ref(), Some(&importer));
    assert_eq!(found[0].user, "kwok-admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_is_the_real_one_and_its_refusals_are_returned() {
    let namespace = TestNamespace::new("kubectl").await;
    let said = namespace.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n");
    assert_eq!(said.as_deref(), Ok("configmap/a created\n"));
    assert_eq!(namespace.kubectl(&["get", "configmap", "a", "-o", "jsonpath={.data.k}"]).success(), "v");
    let refused =
        namespace.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_}\n").expect_err("a bad name");
    assert!(refused.contains("RFC 1123"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_rights_are_the_charts_and_end_at_the_namespace() {
    let namespace = TestNamespace::new("rights").await;
    let may = |namespace: &str, verb: &str, resource: &str| {
        let user = format!("system:serviceaccount:{}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1);
        let output = kubectl(&["auth", "can-i", verb, resource, "--namespace", namespace, "--as", &user]);
        output.stdout.trim() == "yes"
    };
    assert!(may(&namespace.name, "patch", "deployments.apps"));
    assert!(may(&namespace.name, "patch", "configmaps"));
    assert!(may(&namespace.name, "update", "leases.coordination.k8s.io/incident-operator"));
    assert!(!may("default", "patch", "deployments.apps"));
    // With secretNames.enabled, as it is here, a Secret may be asked for by its name, and no more.
    assert!(may(&namespace.name, "get", "secrets") && !may("default", "get", "secrets"));
    assert!(["list", "watch", "create", "patch"].iter().all(|verb| !may(&namespace.name, verb, "secrets")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_starts_serves_and_stops() {
    let namespace = TestNamespace::new("process").await;
    let mark = audit::mark();
    let mut operator = Operator::start(&namespace, Options::default()).await;
    assert_eq!(operator.get("/livez"), Some(200));
    assert!(operator.rss_kib() > 0 && operator.peak_rss_kib() >= operator.rss_kib());
    assert!(!operator.metrics().await.is_empty());
    let requests = operator.requests_once_quiet(mark, Duration::from_millis(300)).await;
    assert!(!requests.is_empty());
    let abroad = |request: &&audit::Request| !["", &namespace.name].contains(&request.namespace.as_str());
    assert_eq!(requests.iter().find(abroad), None, "it was told to look after one namespace");
    // 429 says that a new API server is not ready to serve a watch yet; it is asked again.
    let refused = |request: &&audit::Request| request.code >= 400 && request.code != 429;
    assert_eq!(requests.iter().find(refused), None, "the chart grants what a start needs");

    operator.restart().await;
    let (status, took) = operator.terminate().await;
    assert!(status.success(), "after SIGTERM: {status}");
    assert!(took < Duration::from_secs(5), "it took {took:?} to stop");
    assert_eq!(operator.get("/livez"), None);
}
