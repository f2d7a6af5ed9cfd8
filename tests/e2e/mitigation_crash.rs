//! Mitigations when things go wrong around them: the operator is killed or was down, its rights are missing,
//! the namespace goes.

use super::mitigation::*;
use super::support::{Cluster, workload, *};
use incident_operator::api::{ConditionStatus, FINALIZER, Mitigation};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;

const ROUNDS: usize = 15;

/// In each round the operator is killed at a random moment after the apply and again after the deletion. What
/// must hold at every revision: taken once, the prior value beside the mitigated one; and in the end all is as
/// it was.
#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_operator_is_killed_the_value_is_captured_once_and_comes_back_exactly() {
    let namespace = TestNamespace::new("kill").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 2);
    let flags = workload::configmap("flags", &[("mode", "normal"), ("other", "x")]);
    namespace.create_ready(web.clone()).await;
    namespace.create_ready(workload::deployment("control", 2)).await;
    namespace.create(flags.clone()).await;
    namespace.create(workload::configmap("flags-control", &[("mode", "normal"), ("other", "x")])).await;
    let deployments = History::of(&namespace.api::<Deployment>(), "web").await;
    let maps = History::of(&namespace.api::<ConfigMap>(), "flags").await;
    let mitigations: Api<Mitigation> = namespace.api();

    let seed = fastrand::u64(..);
    println!("seed of the delays: {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut moment = |most: u64| Duration::from_micros(random.u64(0..most * 1000));
    for round in 0..ROUNDS {
        let (stop, slow) = (format!("stop-{round}"), format!("slow-{round}"));
        namespace.create(scale(&stop, "Deployment", "web", 0)).await;
        namespace.create(flag(&slow, "flags", "mode", "slow")).await;
        tokio::time::sleep(moment(40)).await;
        operator.restart().await;
        // Half of the rounds end while the take may still be under way.
        if round % 2 == 0 {
            effective(&namespace, &stop).await;
            effective(&namespace, &slow).await;
        }
        for name in [&stop, &slow] {
            mitigations.delete(name, &DeleteParams::default()).await.expect("it can be deleted");
        }
        tokio::time::sleep(moment(40)).await;
        operator.restart().await;
        wait_gone(&mitigations, &stop).await;
        wait_gone(&mitigations, &slow).await;
        let (d, m) = (present(&namespace, &web).await, present(&namespace, &flags).await);
        assert_eq!((d.data["spec"]["replicas"].as_i64(), marks(&d)), (Some(2), vec![]), "round {round}");
        assert_eq!((m.data["data"]["mode"].as_str(), marks(&m)), (Some("normal"), vec![]), "round {round}");
    }
    assert_same(
        &present(&namespace, &web).await,
        &present(&namespace, &workload::deployment("control", 2)).await,
    );
    let control = present(&namespace, &workload::configmap("flags-control", &[])).await;
    assert_eq!(
        essence(&present(&namespace, &flags).await),
        essence(&control).replace("NAME-control", "NAME")
    );

    let mut taken = 0;
    let mut before = Some(2);
    for revision in deployments.revisions() {
        let spec = revision.object.spec.as_ref().unwrap();
        let records: Vec<_> =
            revision.object.annotations().iter().filter(|(key, _)| key.starts_with(CAPTURE)).collect();
        assert!(records.len() <= 1, "{records:?}");
        if spec.replicas == Some(0) {
            assert!(records[0].1.contains(r#""prior":2"#), "captured anew: {records:?}");
            taken += usize::from(before == Some(2));
        }
        before = spec.replicas;
    }
    assert!(taken <= ROUNDS, "each was taken once at most: {taken}");
    assert!(taken >= ROUNDS / 2, "those that became effective were taken: {taken}");
    for revision in maps.revisions() {
        let slow = revision.object.data.as_ref().unwrap()["mode"] == "slow";
        let kept = revision.object.annotations().values().any(|text| text.contains(r#""prior":"normal""#));
        assert!(!slow || kept, "{:?}", revision.object);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mitigation_that_is_deleted_while_the_operator_is_down_is_released_and_gone_when_it_is_back() {
    let namespace = TestNamespace::new("down").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 2);
    namespace.create_ready(web.clone()).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    effective(&namespace, "stop").await;
    let (status, _) = operator.terminate().await;
    assert!(status.success());
    let mitigations: Api<Mitigation> = namespace.api();
    mitigations.delete("stop", &DeleteParams::default()).await.expect("it can be deleted");
    let waiting = mitigations.get("stop").await.expect("it stays until its effect is undone");
    assert!(waiting.metadata.deletion_timestamp.is_some());
    // And one that is made, edited away and deleted without the operator ever seeing it.
    namespace.create(scale("unseen", "Deployment", "web", 1)).await;
    mitigations.delete("unseen", &DeleteParams::default()).await.expect("it can be deleted");
    operator.restart().await;
    wait_gone(&mitigations, "stop").await;
    wait_gone(&mitigations, "unseen").await;
    let after = present(&namespace, &web).await;
    assert_eq!((after.data["spec"]["replicas"].as_i64(), marks(&after)), (Some(2), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_changes_while_the_operator_is_down_stands() {
    let namespace = TestNamespace::new("meanwhile").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(flag("slow", "flags", "mode", "slow")).await;
    effective(&namespace, "slow").await;
    operator.kill();
    let flags = workload::configmap("flags", &[]);
    edit(&namespace, &flags, "kubectl-edit", json!({"data": {"mode": "mine"}})).await;
    namespace.api::<Mitigation>().delete("slow", &DeleteParams::default()).await.expect("it can be deleted");
    operator.restart().await;
    wait_gone(&namespace.api::<Mitigation>(), "slow").await;
    let after = present(&namespace, &flags).await;
    assert_eq!((after.data["data"]["mode"].as_str(), marks(&after)), (Some("mine"), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_admission_adds_no_finalizer_the_operator_adds_it_before_it_acts() {
    let namespace = TestNamespace::new("finalizer").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    operator.kill();
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    let made = namespace.create(flag("slow", "flags", "mode", "slow")).await;
    assert!(made.finalizers().iter().any(|f| f == FINALIZER), "admission adds it, which saves a write");
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let api: Api<Mitigation> = namespace.api();
    let own: Api<Mitigation> = Cluster::as_the_operator().await.api(&namespace.name);
    own.patch("slow", &PatchParams::default(), &bare).await.expect("nobody else may take it away");
    let history = History::of(&api, "slow").await;
    operator.restart().await;
    effective(&namespace, "slow").await;
    let first = history.revisions().into_iter().map(|r| r.object);
    let first = first.filter(|m| m.finalizers().iter().any(|f| f == FINALIZER)).map(|m| version(&m)).min();
    let target = namespace.api::<ConfigMap>().get("flags").await.unwrap();
    assert!(first.expect("the operator added it") < version(&target), "before it changed the target");
    delete(&namespace, "slow").await;
    assert_eq!(marks(&namespace.api::<ConfigMap>().get("flags").await.unwrap()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_role_binding_it_says_which_one_is_missing_and_acts_once_it_is_there() {
    let namespace = TestNamespace::new("rights").await;
    let bindings: Api<RoleBinding> = namespace.api();
    // Several actions may write Deployments, and the recorder ConfigMaps.
    let bound = bindings.list(&Default::default()).await.expect("the chart binds roles").items;
    let writes =
        |name: &str| name.starts_with("incident-operator-mitigator-") || name == "incident-operator-recorder";
    for name in bound.iter().map(ResourceExt::name_any).filter(|name| writes(name)) {
        bindings.delete(&name, &DeleteParams::default()).await.expect("it can be deleted");
    }
    let user = format!("system:serviceaccount:{}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1);
    let may = |resource: &str| {
        let asked = namespace.kubectl(&["auth", "can-i", "patch", resource, "--as", &user]);
        asked.stdout.trim() == "yes"
    };
    wait_for(PATIENCE, "end of the rights", async || {
        (!may("deployments.apps") && !may("configmaps")).then_some(())
    })
    .await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    namespace.create(flag("slow", "flags", "mode", "slow")).await;
    for name in ["stop", "slow"] {
        let waiting = says(&namespace, name, "Ready", "OperatorForbidden").await;
        assert!(is(&waiting, "Authorized", ConditionStatus::False));
        let words = message(&waiting, "Ready").to_owned();
        assert!(words.contains(&namespace.name) && words.contains("`namespaces`"), "{words}");
        events_are(&namespace, "Mitigation", name, &["OperatorForbidden"]).await;
        // What it names is there to be bound, and that is the fix.
        let role = words.split_whitespace().find(|w| w.starts_with("incident-operator-mitigator-"));
        let role = role.expect("the message names a ClusterRole").trim_end_matches([',', ';']);
        kubectl(&["get", "clusterrole", role]).success();
        let account = format!("--serviceaccount={}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1);
        namespace.kubectl(&["create", "rolebinding", role, "--clusterrole", role, &account]).success();
    }
    for name in ["stop", "slow"] {
        let active = effective(&namespace, name).await;
        assert!(!is(&active, "Authorized", ConditionStatus::False), "{}", message(&active, "Authorized"));
    }
    let labels = [("action", "scale"), ("operation", "take"), ("result", "forbidden")];
    let refused = operator.metric("incident_operator_mitigation_operations_total", &labels).await;
    assert!(refused.is_some_and(|count| count >= 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_while_a_mitigation_is_active_goes() {
    let (home, namespace) = (TestNamespace::new("home").await, TestNamespace::new("going").await);
    let lease = Some(home.name.clone());
    let _operator = Operator::start(&namespace, Options { lease, ..Options::default() }).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    namespace.create(flag("slow", "flags", "mode", "slow")).await;
    namespace.create(scale("waiting", "Deployment", "nobody", 0)).await;
    effective(&namespace, "stop").await;
    effective(&namespace, "slow").await;
    says(&namespace, "waiting", "Ready", "TargetNotFound").await;
    let namespaces = Api::<Namespace>::all(namespace.cluster.client.clone());
    namespaces.delete(&namespace.name, &DeleteParams::default()).await.expect("it can be deleted");
    wait_for(Duration::from_secs(60), "end of the namespace", async || {
        match namespaces.get_opt(&namespace.name).await {
            Ok(None) => Ok(()),
            Ok(Some(left)) => Err(format!("{:?}", left.status)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
