//! The action `freeze`: who is refused, who is not, and that nothing of it is left.

use super::mitigation::*;
use super::support::{workload, *};
use incident_operator::api::MitigationPhase as Phase;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

const FROZEN_BY: &str = "freeze.incident-operator.dev/";

fn freeze(namespace: &TestNamespace, name: &str, incident: Option<&str>) -> Value {
    let mut object = mitigation_of(name, "Namespace", &namespace.name, json!({"freeze": {}}));
    if let Some(incident) = incident {
        object["spec"]["incidentRef"] = json!({"name": incident});
    }
    object
}

/// Lets a user do what people do in a namespace; `everything` is what cluster administrators hold.
async fn grant(namespace: &TestNamespace, user: &str, rules: Value) {
    let name = user.replace(':', "-");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    namespace.create(role).await;
    namespace.create(binding).await;
}

fn work() -> Value {
    let verbs = json!(["get", "list", "create", "update", "patch", "delete"]);
    json!([
        {"apiGroups": ["", "apps", "coordination.k8s.io", "discovery.k8s.io", "incident-operator.dev"], "verbs": verbs,
            "resources": ["configmaps", "pods", "deployments", "deployments/scale", "deployments/status", "leases",
                "endpointslices", "events", "namespaces", "timelineentries"]},
    ])
}

/// Says what a user is told who changes a ConfigMap; `None` when the change is taken.
fn refusal(namespace: &TestNamespace, user: &str) -> Option<String> {
    let value = fastrand::u64(..).to_string();
    let patch = json!({"data": {"a": value}}).to_string();
    let said =
        namespace.kubectl(&["--as", user, "patch", "configmap", "flags", "--type=merge", "-p", &patch]);
    (!said.ok).then_some(said.stderr)
}

/// Waits until a change by the user is refused with these words. The API server hears of labels a moment later.
async fn refused_with(namespace: &TestNamespace, user: &str, words: &str) {
    wait_for(PATIENCE, &format!("refusal with {words:?}"), async || {
        let said = refusal(namespace, user).ok_or("the change was taken")?;
        if said.contains(words) { Ok(()) } else { Err(said) }
    })
    .await;
}

async fn taken(namespace: &TestNamespace, user: &str) {
    wait_for(PATIENCE, "a change that is taken", async || match refusal(namespace, user) {
        None => Ok(()),
        Some(said) => Err(said),
    })
    .await;
}

async fn stored(namespace: &TestNamespace) -> Namespace {
    let api: Api<Namespace> = Api::all(namespace.cluster.client.clone());
    api.get(&namespace.name).await.expect("the namespace exists")
}

async fn as_stored(namespace: &TestNamespace) -> DynamicObject {
    let value = serde_json::to_value(stored(namespace).await).expect("JSON");
    serde_json::from_value(value).expect("an object")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_namespace_refuses_changes_with_incident_and_commander_and_thaws_without_a_trace() {
    let namespace = TestNamespace::new("freeze").await;
    let control = TestNamespace::new("thawed").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("a", "b")])).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    grant(&namespace, "alice", work()).await;
    taken(&namespace, "alice").await;
    let spec = json!({"title": "checkout fails", "severity": "SEV2", "roles": {"incidentCommander": "Carol <c&o@example.com>"}});
    namespace.create(workload::incident("checkout", spec)).await;
    namespace.create(freeze(&namespace, "stop-changes", Some("checkout"))).await;
    effective(&namespace, "stop-changes").await;

    let by = format!(
        "namespace {} is frozen by incident checkout (commander Carol <c&o@example.com>; mitigation stop-changes)",
        namespace.name
    );
    refused_with(&namespace, "alice", &by).await;
    for change in [
        &["scale", "deployment", "web", "--replicas=2"][..],
        &["delete", "deployment", "web"],
        &["delete", "pods", "-l", "app=web"],
        &["create", "configmap", "another"],
        &["delete", "namespace", &namespace.name],
    ] {
        let said = namespace.kubectl(&[&["--as", "alice"], change].concat()).failure();
        assert!(said.contains("is frozen by incident checkout"), "{change:?}: {said}");
    }
    // What says how things are, what keeps programs in step, and the incident itself.
    let meta = json!({"name": "x", "namespace": namespace.name});
    for allowed in [
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {"holderIdentity": "x"}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4", "endpoints": []}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": {"namespace": namespace.name}, "reason": "R", "message": "m"}),
        json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "TimelineEntry", "metadata": meta,
            "spec": {"incidentRef": {"name": "checkout"}, "type": "Note", "message": "frozen"}}),
    ] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), allowed.to_string()).expect("written");
        let path = file.path().display().to_string();
        namespace.kubectl(&["--as", "alice", "create", "-f", &path]).success();
    }
    let status = r#"{"status":{"observedGeneration":1}}"#;
    namespace
        .kubectl(&[
            "--as",
            "alice",
            "patch",
            "deployment",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])
        .success();
    delete(&namespace, "stop-changes").await;
    taken(&namespace, "alice").await;
    assert_same(&as_stored(&namespace).await, &as_stored(&control).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_autoscalers_the_operator_and_holders_of_bypass_go_on_in_a_frozen_namespace() {
    let namespace = TestNamespace::new("exempt").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("a", "b")])).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let flux = "system:serviceaccount:flux-system:kustomize-controller";
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    for user in ["alice", "bob"] {
        grant(&namespace, user, work()).await;
    }
    grant(&namespace, "root", everything.clone()).await;
    grant(&namespace, flux, everything).await;
    let bypass = kubectl(&[
        "create",
        "rolebinding",
        "bob-bypasses",
        "--clusterrole=incident-operator-freeze-bypass",
        "--user=bob",
        "-n",
        &namespace.name,
    ]);
    bypass.success();
    namespace.create(freeze(&namespace, "stop-changes", None)).await;
    effective(&namespace, "stop-changes").await;
    refused_with(&namespace, "alice", "is frozen by mitigation stop-changes, which belongs to no incident")
        .await;
    assert_eq!(refusal(&namespace, "bob"), None, "bound to the chart's role");
    assert_eq!(refusal(&namespace, "root"), None, "who may do everything may bypass");
    let said = refusal(&namespace, flux).expect("a GitOps engine is bound though it may do everything");
    assert!(said.contains("is frozen by"), "{said}");

    // As the autoscaler writes: it may do no more than this.
    let scale_of = format!("/apis/apps/v1/namespaces/{}/deployments/web/scale", namespace.name);
    let wanted = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "web", "namespace": namespace.name}, "spec": {"replicas": 3}});
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), wanted.to_string()).expect("written");
    let hpa = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    let group = "system:serviceaccounts:kube-system";
    let path = file.path().display().to_string();
    kubectl(&["--as", hpa, "--as-group", group, "replace", "--raw", &scale_of, "-f", &path]).success();
    let web = workload::deployment("web", 1);
    let api = namespace.cluster.api_of(&web, &namespace.name);
    wait_status(&api, "web", "pods made by the controllers", |d| d.data["status"]["readyReplicas"] == 3)
        .await;
    // Another mitigation acts, and is undone.
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    effective(&namespace, "stop").await;
    delete(&namespace, "stop").await;
    assert_eq!(present(&namespace, &web).await.data["spec"]["replicas"], 3);
    delete(&namespace, "stop-changes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_freezes_neither_waits_and_the_last_release_thaws_without_a_gap() {
    for first in ["one", "two"] {
        let namespace = TestNamespace::new("nested").await;
        let control = TestNamespace::new("nested").await;
        let _operator = Operator::start(&namespace, Options::default()).await;
        namespace.create(workload::configmap("flags", &[("a", "b")])).await;
        grant(&namespace, "alice", work()).await;
        taken(&namespace, "alice").await;
        namespace.create(freeze(&namespace, "one", None)).await;
        effective(&namespace, "one").await;
        namespace.create(freeze(&namespace, "two", None)).await;
        effective(&namespace, "two").await;
        refused_with(&namespace, "alice", "which belongs to no incident; by mitigation ").await;
        release(&namespace, first);
        reaches(&namespace, first, Phase::Released).await;
        let second = if first == "one" { "two" } else { "one" };
        holds_for(Duration::from_millis(500), "the other freeze", async || {
            refusal(&namespace, "alice").map(|_| ()).ok_or("a change was taken".to_owned())
        })
        .await;
        refused_with(&namespace, "alice", &format!("is frozen by mitigation {second}, which")).await;
        release(&namespace, second);
        reaches(&namespace, second, Phase::Released).await;
        taken(&namespace, "alice").await;
        assert_same(&as_stored(&namespace).await, &as_stored(&control).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_operator_is_killed_a_freeze_is_lifted_exactly_and_labels_of_others_stay() {
    let namespace = TestNamespace::new("freezekill").await;
    let control = TestNamespace::new("freezekill").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let api: Api<Namespace> = Api::all(namespace.cluster.client.clone());
    for round in 0..6 {
        let name = format!("freeze-{round}");
        namespace.create(freeze(&namespace, &name, None)).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..30_000))).await;
        operator.restart().await;
        effective(&namespace, &name).await;
        let owner = json!({"metadata": {"labels": {"team": format!("t{round}")}}});
        for target in [&namespace.name, &control.name] {
            let params = PatchParams { field_manager: Some("kubectl-label".into()), ..Default::default() };
            api.patch(target, &params, &Patch::Merge(&owner)).await.expect("labelled");
        }
        namespace
            .api::<incident_operator::api::Mitigation>()
            .delete(&name, &Default::default())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..30_000))).await;
        operator.restart().await;
        wait_gone(&namespace.api::<incident_operator::api::Mitigation>(), &name).await;
        assert_same(&as_stored(&namespace).await, &as_stored(&control).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_annotation_away_lifts_the_freeze_for_good() {
    let namespace = TestNamespace::new("lifted").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("a", "b")])).await;
    grant(&namespace, "alice", work()).await;
    namespace.create(freeze(&namespace, "stop-changes", None)).await;
    effective(&namespace, "stop-changes").await;
    let key = stored(&namespace).await.annotations().keys().find(|k| k.starts_with(FROZEN_BY)).cloned();
    let key = key.expect("the annotation is there");
    kubectl(&["annotate", "namespace", &namespace.name, &format!("{key}-")]).success();
    let ended = reaches(&namespace, "stop-changes", Phase::Superseded).await;
    assert!(ended.status.unwrap().undone_by.is_some());
    taken(&namespace, "alice").await;
    assert_eq!(marks(&stored(&namespace).await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_of_another_namespace_is_refused_and_a_dry_run_tells_who_goes_on() {
    let namespace = TestNamespace::new("foreign").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let abroad = mitigation_of("abroad", "Namespace", "default", json!({"freeze": {}}));
    let refused = namespace.try_create(abroad).await.expect_err("the API server refuses it").to_string();
    assert!(refused.contains(&namespace.name), "it says what to freeze: {refused}");

    namespace.create(with(freeze(&namespace, "ask", None), json!({"dryRun": true}))).await;
    let asked = says(&namespace, "ask", "Ready", "DryRun").await;
    let plan = asked.status.unwrap().plan.unwrap();
    assert!(plan.summary.contains(&format!("refuse changes of all objects in namespace {}", namespace.name)));
    assert!(plan.warnings.iter().any(|w| w.contains("bypass")), "{:?}", plan.warnings);
    assert_eq!(marks(&stored(&namespace).await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_namespace_that_is_deleted_goes_also_when_the_rights_in_it_went_first() {
    // The lease does not lie in the namespace that goes.
    let (home, namespace) = (TestNamespace::new("home").await, TestNamespace::new("wedge-frozen").await);
    let lease = Some(home.name.clone());
    let _operator = Operator::start(&namespace, Options { lease, ..Options::default() }).await;
    namespace.create(freeze(&namespace, "stop", None)).await;
    effective(&namespace, "stop").await;
    // What the namespace controller does in no certain order: here the worst one.
    let bindings: Api<RoleBinding> = namespace.api();
    for binding in bindings.list(&ListParams::default()).await.expect("they can be listed") {
        if binding.role_ref.name.contains("mitigator") {
            bindings.delete(&binding.name_any(), &DeleteParams::default()).await.expect("it can be deleted");
        }
    }
    let namespaces: Api<Namespace> = Api::all(namespace.cluster.client.clone());
    namespaces.delete(&namespace.name, &DeleteParams::default()).await.expect("it can be deleted");
    // Its controller comes again after 15 s where something was left the first time.
    kubectl(&["wait", &format!("namespace/{}", namespace.name), "--for=delete", "--timeout=90s"]).success();
}
