//! The action `blockWrites` at its four levels. Where a controller of others would answer, the test writes its status.

use super::mitigation::*;
use super::support::{crds, workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;

fn block(name: &str, kind: &str, target: &str, more: Value) -> Value {
    mitigation_of(name, kind, target, json!({"blockWrites": more}))
}

/// The one object of a kind that a mitigation made.
async fn made<K>(namespace: &TestNamespace) -> K
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
    K::DynamicType: Default,
{
    let all = namespace.api::<K>().list(&ListParams::default()).await.expect("it can be listed").items;
    let mut ours = all.into_iter().filter(|o| o.name_any().starts_with("mit-"));
    let first = ours.next().expect("it was made");
    assert!(ours.next().is_none(), "one only");
    first
}

fn job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/main:1"}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_effective_only_when_it_is_enforced_and_leaves_the_namespace_as_it_was() {
    let namespace = TestNamespace::new("quota").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let namespaces: Api<Namespace> = Api::all(namespace.cluster.client.clone());
    let before = namespaces.get(&namespace.name).await.expect("it exists");
    namespace.create(block("no-jobs", "Namespace", &namespace.name, json!({"level": "Quota"}))).await;
    effective(&namespace, "no-jobs").await;
    // At the moment of being effective: no waiting here.
    let refused = namespace.try_create(job("import")).await.expect_err("no new Job");
    assert!(refused.to_string().contains("exceeded quota"), "{refused}");
    let quota: ResourceQuota = made(&namespace).await;
    assert_eq!(
        json!(quota.spec.unwrap().hard),
        json!({"count/jobs.batch": "0", "count/cronjobs.batch": "0"})
    );
    // Pods come and go as before.
    namespace.kubectl(&["scale", "deployment", "web", "--replicas=2"]).success();
    let web = workload::deployment("web", 2);
    let api = namespace.cluster.api_of(&web, &namespace.name);
    wait_status(&api, "web", "a second pod", |d| d.data["status"]["readyReplicas"] == 2).await;

    delete(&namespace, "no-jobs").await;
    let left = namespace.api::<ResourceQuota>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(left.len(), 0);
    wait_for(PATIENCE, "a new Job", async || match namespace.try_create(job("import")).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    let after = namespaces.get(&namespace.name).await.expect("it exists");
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version, "never written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_adds_to_a_quota_that_was_made_is_an_edit_and_stays() {
    let namespace = TestNamespace::new("quota-added").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(block("no-jobs", "Namespace", &namespace.name, json!({"level": "Quota"}))).await;
    effective(&namespace, "no-jobs").await;
    let quota: ResourceQuota = made(&namespace).await;
    let more = r#"{"spec": {"hard": {"count/secrets": "50"}}}"#;
    namespace.kubectl(&["patch", "resourcequota", &quota.name_any(), "--type=merge", "-p", more]).success();
    let ended = reaches(&namespace, "no-jobs", Phase::Superseded).await;
    assert!(message(&ended, "Ready").contains("kubectl-patch"), "{}", message(&ended, "Ready"));
    delete(&namespace, "no-jobs").await;
    let left: ResourceQuota = namespace.api().get(&quota.name_any()).await.expect("it is theirs now");
    assert_eq!(json!(left.spec.unwrap().hard)["count/secrets"], "50");
    assert_eq!(left.metadata.owner_references, None, "it must not go with the mitigation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_for_a_resource_that_nobody_counts_is_not_called_effective() {
    let namespace = TestNamespace::new("typo").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let typo =
        block("typo", "Namespace", &namespace.name, json!({"level": "Quota", "resources": ["job.batch"]}));
    namespace.create(with(typo, json!({"verification": {"timeout": "3s"}}))).await;
    let told = says(&namespace, "typo", "Effective", "NotEffective").await;
    let words = message(&told, "Effective");
    assert!(words.contains("does not count count/job.batch"), "{words}");
    delete(&namespace, "typo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_store_is_closed_but_for_its_read_replicas_whenever_the_operator_is_killed() {
    let namespace = TestNamespace::new("network").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let store = workload::statefulset("db", 2);
    namespace.create_ready(store.clone()).await;
    namespace.kubectl(&["label", "pod", "db-1", "role=replica"]).success();
    let before = present(&namespace, &store).await;
    let policies: Api<NetworkPolicy> = namespace.api();
    for round in 0..4 {
        let name = format!("close-{round}");
        let asked = json!({"level": "Network", "readReplicaLabels": {"role": "replica"}});
        namespace.create(block(&name, "StatefulSet", "db", asked)).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
        operator.restart().await;
        // Nobody reports whether it is enforced, so that is not claimed.
        let closed = says(&namespace, &name, "Effective", "NotReported").await;
        let words = message(&closed, "Effective");
        assert!(words.contains("selects 1 of 2 pods"), "{words}");
        assert!(is(&closed, "Applied", ConditionStatus::True));
        let policy: NetworkPolicy = made(&namespace).await;
        assert_eq!(
            json!(policy.spec.unwrap()),
            json!({
                "podSelector": {"matchLabels": {"app": "db"},
                    "matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["replica"]}]},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
            })
        );
        namespace
            .api::<incident_operator::api::Mitigation>()
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
        operator.restart().await;
        wait_gone(&namespace.api::<incident_operator::api::Mitigation>(), &name).await;
        assert_eq!(policies.list(&ListParams::default()).await.unwrap().items.len(), 0);
    }
    let after = present(&namespace, &store).await;
    assert_eq!(version(&before), version(&after), "the store's own object is never written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_mitigation_has_closed_is_waited_for_and_closed_then() {
    let namespace = TestNamespace::new("networktwice").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::statefulset("db", 2)).await;
    let close = |name: &str| block(name, "StatefulSet", "db", json!({"level": "Network"}));
    namespace.create(close("first")).await;
    says(&namespace, "first", "Effective", "NotReported").await;
    namespace.create(with(close("plan"), json!({"dryRun": true}))).await;
    let planned = says(&namespace, "plan", "Ready", "DryRun").await;
    let plan = planned.status.and_then(|status| status.plan).expect("a plan");
    assert!(plan.summary.contains("would wait until mitigation first"), "{}", plan.summary);
    namespace.create(close("second")).await;
    let waits = says(&namespace, "second", "Applied", "FieldBusy").await;
    assert!(message(&waits, "Applied").contains("mitigation first"), "{}", message(&waits, "Applied"));
    delete(&namespace, "first").await;
    says(&namespace, "second", "Effective", "NotReported").await;
    delete(&namespace, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_policy_allows_traffic_closing_is_refused_and_one_that_comes_later_is_told() {
    let namespace = TestNamespace::new("union").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::statefulset("db", 1)).await;
    let let_in = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "let-in"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": [{}]}});
    namespace.create(let_in.clone()).await;
    namespace.create(block("close", "StatefulSet", "db", json!({"level": "Network"}))).await;
    let refused = reaches(&namespace, "close", Phase::Refused).await;
    assert_eq!(condition(&refused, "Stalled").unwrap().reason, "AllowedByAnother");
    assert!(message(&refused, "Stalled").contains("NetworkPolicy/let-in"));

    let policies: Api<NetworkPolicy> = namespace.api();
    policies.delete("let-in", &DeleteParams::default()).await.expect("deleted");
    wait_gone(&policies, "let-in").await;
    let again = block("again", "StatefulSet", "db", json!({"level": "Network"}));
    wait_for(PATIENCE, "a take after the policy is gone", async || {
        let _ = namespace.try_create(again.clone()).await;
        let api = namespace.api::<incident_operator::api::Mitigation>();
        let now = api.get("again").await.ok()?;
        if phase_of(&now) == Some(Phase::Refused) {
            // It was looked at before the watch told.
            delete(&namespace, "again").await;
            return None;
        }
        condition(&now, "Effective").is_some_and(|c| c.reason == "NotReported").then_some(())
    })
    .await;
    let policy: NetworkPolicy = made(&namespace).await;
    assert_eq!(policy.spec.unwrap().ingress, None, "a single pod: nobody at all");
    namespace.create(let_in).await;
    until(&namespace, "again", "word of the policy that lets traffic in", |m| {
        condition(m, "Effective").is_some_and(|c| c.reason == "Verifying" || c.message.contains("let-in"))
    })
    .await;
    delete(&namespace, "again").await;
}

fn route(name: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": "edge"}], "hostnames": ["shop.example"], "rules": [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "backendRefs": [{"name": "api", "port": 80}]}]}})
}

async fn accept(namespace: &TestNamespace, route: &DynamicObject) {
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "Fine", "message": "", "lastTransitionTime": "2026-11-23T10:00:00Z",
            "observedGeneration": route.metadata.generation})
    };
    let parents = json!([{"parentRef": {"name": "edge"}, "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
        "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]);
    let object = serde_json::to_value(route).expect("JSON");
    crds::set_status(namespace, &object, json!({"parents": parents})).await;
}

async fn the_made(namespace: &TestNamespace, like: &Value) -> Option<DynamicObject> {
    let api = namespace.cluster.api_of(like, &namespace.name);
    let all = api.list(&ListParams::default()).await.expect("it can be listed").items;
    all.into_iter().find(|o| o.name_any().starts_with("mit-"))
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_on_a_route_are_answered_by_a_second_route_and_the_first_is_never_written() {
    crds::install_all(&["gateway.networking", "gateway.envoyproxy"]);
    let namespace = TestNamespace::new("routes").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let target = namespace.create(route("web")).await;
    let filter = json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "HTTPRouteFilter"});
    for round in 0..3 {
        let name = format!("read-only-{round}");
        namespace.create(block(&name, "HTTPRoute", "web", json!({"level": "Routes"}))).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
        operator.restart().await;
        says(&namespace, &name, "Effective", "Verifying").await;
        let ours = the_made(&namespace, &route("")).await.expect("a route was made");
        let methods: Vec<&str> = ours.data["spec"]["rules"][0]["matches"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|m| m["method"].as_str())
            .collect();
        assert_eq!(methods, ["POST", "PUT", "PATCH", "DELETE"]);
        assert_eq!(ours.data["spec"]["hostnames"], target.data["spec"]["hostnames"]);
        assert_eq!(ours.data["spec"]["parentRefs"], target.data["spec"]["parentRefs"]);
        let answer = the_made(&namespace, &filter).await.expect("its answer was made");
        assert_eq!(answer.data["spec"]["directResponse"]["statusCode"], 503);
        assert_eq!(ours.data["spec"]["rules"][0]["filters"][0]["extensionRef"]["name"], answer.name_any());
        accept(&namespace, &ours).await;
        effective(&namespace, &name).await;
        namespace
            .api::<incident_operator::api::Mitigation>()
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
        operator.restart().await;
        wait_gone(&namespace.api::<incident_operator::api::Mitigation>(), &name).await;
        assert!(
            the_made(&namespace, &route("")).await.is_none() && the_made(&namespace, &filter).await.is_none()
        );
    }
    assert_eq!(version(&present(&namespace, &route("web")).await), version(&target));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_comes_to_the_route_later_is_told_as_not_blocked() {
    crds::install_all(&["gateway.networking", "gateway.envoyproxy"]);
    let namespace = TestNamespace::new("routelater").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut web = route("web");
    web["spec"].as_object_mut().expect("a map").remove("hostnames");
    namespace.create(web.clone()).await;
    let asked = block("read-only", "HTTPRoute", "web", json!({"level": "Routes"}));
    namespace.create(with(asked, json!({"verification": {"timeout": "1s"}}))).await;
    wait_for(PATIENCE, "our route", async || the_made(&namespace, &route("")).await).await;
    accept(&namespace, &the_made(&namespace, &route("")).await.expect("it is there")).await;
    effective(&namespace, "read-only").await;
    let add = r#"[{"op":"add","path":"/spec/rules/-","value":{"matches":[{"path":{"type":"PathPrefix","value":"/admin"}}]}}]"#;
    namespace.kubectl(&["patch", "httproute", "web", "--type=json", "-p", add]).success();
    let told = says(&namespace, "read-only", "Effective", "NotEffective").await;
    assert!(message(&told, "Effective").contains("/admin"), "{}", message(&told, "Effective"));
    let remove = r#"[{"op":"remove","path":"/spec/rules/1"}]"#;
    namespace.kubectl(&["patch", "httproute", "web", "--type=json", "-p", remove]).success();
    effective(&namespace, "read-only").await;
    // One that names a host goes before one that names none.
    let host = r#"[{"op":"add","path":"/spec/hostnames","value":["shop.example"]}]"#;
    namespace.kubectl(&["patch", "httproute", "web", "--type=json", "-p", host]).success();
    let told = says(&namespace, "read-only", "Effective", "NotEffective").await;
    assert!(message(&told, "Effective").contains("shop.example"), "{}", message(&told, "Effective"));
    delete(&namespace, "read-only").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_a_rule_for_a_method_is_refused_and_an_edit_of_ours_by_a_person_stands() {
    crds::install_all(&["gateway.networking", "gateway.envoyproxy"]);
    let namespace = TestNamespace::new("methods").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut own = route("own");
    own["spec"]["rules"][0]["matches"][0]["method"] = json!("POST");
    namespace.create(own).await;
    namespace.create(block("own", "HTTPRoute", "own", json!({"level": "Routes"}))).await;
    let refused = reaches(&namespace, "own", Phase::Refused).await;
    assert_eq!(condition(&refused, "Stalled").unwrap().reason, "MethodMatched");

    namespace.create(route("web")).await;
    namespace.create(block("web", "HTTPRoute", "web", json!({"level": "Routes"}))).await;
    says(&namespace, "web", "Effective", "Verifying").await;
    let ours = the_made(&namespace, &route("")).await.expect("a route was made");
    let params = PatchParams { field_manager: Some("kubectl-edit".into()), ..Default::default() };
    let api = namespace.cluster.api_of(&route(""), &namespace.name);
    let hosts = json!({"spec": {"hostnames": ["other.example"]}});
    api.patch(&ours.name_any(), &params, &Patch::Merge(hosts)).await.expect("edited");
    let ended = reaches(&namespace, "web", Phase::Superseded).await;
    assert_eq!(ended.status.unwrap().undone_by.as_deref(), Some("kubectl-edit"));
    let left = the_made(&namespace, &route("")).await.expect("what a person edited stays");
    assert_eq!(left.data["spec"]["hostnames"], json!(["other.example"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_flag_goes_back_as_it_was_and_a_dry_run_of_each_level_says_who_suffers() {
    crds::install_all(&["gateway.networking", "gateway.envoyproxy"]);
    let namespace = TestNamespace::new("readonly").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let flags = workload::configmap("flags", &[("read-only", "false"), ("other", "x")]);
    namespace.create(flags.clone()).await;
    namespace.create(workload::configmap("control", &[("read-only", "false"), ("other", "x")])).await;
    namespace.create(workload::statefulset("db", 1)).await;
    namespace.create(route("web")).await;
    let flag = json!({"level": "Flag", "flag": {"key": "read-only", "value": "true"}});
    namespace.create(block("flag", "ConfigMap", "flags", flag.clone())).await;
    effective(&namespace, "flag").await;
    assert_eq!(present(&namespace, &flags).await.data["data"]["read-only"], "true");
    delete(&namespace, "flag").await;
    let control = present(&namespace, &workload::configmap("control", &[])).await;
    assert_same(&present(&namespace, &flags).await, &control);

    for (name, kind, target, asked) in [
        ("a", "ConfigMap", "flags", flag),
        ("b", "HTTPRoute", "web", json!({"level": "Routes"})),
        ("c", "Namespace", namespace.name.as_str(), json!({"level": "Quota"})),
        ("d", "StatefulSet", "db", json!({"level": "Network"})),
    ] {
        let asked = with(block(name, kind, target, asked), json!({"dryRun": true}));
        namespace.create(asked).await;
        let plan = says(&namespace, name, "Ready", "DryRun").await.status.unwrap().plan.unwrap();
        let all = plan.warnings.join("\n").to_lowercase();
        assert!(all.contains("writes:") && all.contains("reads:"), "{name}: {:?}", plan.warnings);
        assert!(!plan.changes.is_empty(), "{name}");
    }
    assert_eq!(namespace.api::<NetworkPolicy>().list(&ListParams::default()).await.unwrap().items.len(), 0);
    assert_eq!(namespace.api::<ResourceQuota>().list(&ListParams::default()).await.unwrap().items.len(), 0);
}

/// What was made belongs to the mitigation, and would go with it, as long as it is to be undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_kept_or_edited_outlives_the_mitigation_that_made_it() {
    let namespace = TestNamespace::new("outlives").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::statefulset("db", 1)).await;
    namespace.create(workload::statefulset("cache", 1)).await;
    let kept = json!({"onRelease": "Keep"});
    namespace.create(with(block("kept", "StatefulSet", "db", json!({"level": "Network"})), kept)).await;
    namespace.create(block("edited", "StatefulSet", "cache", json!({"level": "Network"}))).await;
    let policies = namespace.api::<NetworkPolicy>();
    for name in ["kept", "edited"] {
        until(&namespace, name, "take", |m| is(m, "Applied", ConditionStatus::True)).await;
    }
    let made = policies.list(&ListParams::default()).await.expect("listed").items;
    assert_eq!(made.len(), 2);
    for policy in &made {
        let owner = policy.owner_references().first().expect("the mitigation owns it").name.clone();
        if owner == "edited" {
            let own = json!({"spec": {"policyTypes": ["Ingress", "Egress"]}});
            policies
                .patch(&policy.name_any(), &PatchParams::default(), &Patch::Merge(own))
                .await
                .expect("edited");
        }
    }
    reaches(&namespace, "edited", Phase::Superseded).await;
    for name in ["kept", "edited"] {
        delete(&namespace, name).await;
    }
    for policy in &made {
        let left = wait_status(&policies, &policy.name_any(), "let go", |p: &NetworkPolicy| {
            p.owner_references().is_empty() && marks(p).is_empty()
        })
        .await;
        assert!(left.metadata.deletion_timestamp.is_none(), "nobody owns it, so nobody takes it away");
    }
}
