//! Targets that a GitOps engine owns. Its part is played by a field manager that applies every two seconds.

use super::mitigation::*;
use super::support::{workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

fn owned(name: &str, labels: Value, annotations: Value) -> Value {
    let mut web = workload::deployment(name, 2);
    web["metadata"]["labels"] = labels;
    web["metadata"]["annotations"] = annotations;
    web
}

fn flux(name: &str) -> Value {
    let labels = json!({"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"});
    owned(name, labels, json!({}))
}

/// Applies the object every two seconds, as kustomize-controller does: not while it carries the annotation.
fn play_flux(namespace: &TestNamespace, object: Value) -> tokio::task::JoinHandle<()> {
    let api = namespace.cluster.api_of(&object, &namespace.name);
    tokio::spawn(async move {
        let name = object["metadata"]["name"].as_str().expect("it has a name").to_owned();
        let params = PatchParams::apply("kustomize-controller").force();
        loop {
            let present = api.get(&name).await.ok();
            let annotations = present.and_then(|o| o.metadata.annotations).unwrap_or_default();
            let frozen = annotations.get("kustomize.toolkit.fluxcd.io/reconcile");
            if frozen.is_none_or(|value| value != "disabled") {
                let _ = api.patch(&name, &params, &Patch::Apply(&object)).await;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_is_held_off_on_the_object_itself_and_takes_over_again_after_release() {
    let namespace = TestNamespace::new("flux").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let engine = play_flux(&namespace, flux("web"));
    wait_for(PATIENCE, "the engine to apply", async || {
        namespace.cluster.api_of(&flux("web"), &namespace.name).get("web").await.ok()
    })
    .await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    let held = effective(&namespace, "stop").await;
    assert!(
        message(&held, "Applied").contains("Flux Kustomization flux-system/apps"),
        "{}",
        message(&held, "Applied")
    );
    holds_for(Duration::from_secs(5), "nobody scales it up", async || {
        let replicas = present(&namespace, &flux("web")).await.data["spec"]["replicas"].clone();
        (replicas == json!(0)).then_some(()).ok_or_else(|| replicas.to_string())
    })
    .await;
    assert_eq!(until(&namespace, "stop", "it", |_| true).await.status.and_then(|s| s.attempts), Some(1));
    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Released).await;
    let after = present(&namespace, &flux("web")).await;
    assert_eq!(after.data["spec"]["replicas"], json!(2));
    assert!(
        !json!(after.metadata.annotations).to_string().contains("fluxcd"),
        "{:?}",
        after.metadata.annotations
    );
    engine.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_only_reported_wins_in_the_end_and_the_lines_to_change_are_named() {
    let namespace = TestNamespace::new("report").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let engine = play_flux(&namespace, flux("web"));
    wait_for(PATIENCE, "the engine to apply", async || {
        namespace.cluster.api_of(&flux("web"), &namespace.name).get("web").await.ok()
    })
    .await;
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"gitops": "Report"}))).await;
    let contested = says(&namespace, "stop", "Contested", "ContestedBy").await;
    assert!(is(&contested, "Contested", ConditionStatus::True));
    let words = message(&contested, "Contested");
    assert!(
        words.contains("in the git source of Flux Kustomization flux-system/apps set spec.replicas: 0"),
        "{words}"
    );
    engine.abort();
    delete(&namespace, "stop").await;
}

/// What is changed besides the target belongs to somebody as well.
#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_that_flux_owns_is_held_off_with_the_workload() {
    let namespace = TestNamespace::new("fluxhpa").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let autoscaler = |name: &str| {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "labels": flux(name)["metadata"]["labels"]},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": 2, "maxReplicas": 9, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}]}})
    };
    for name in ["web", "other"] {
        namespace.create_ready(workload::deployment(name, 2)).await;
        namespace.create(autoscaler(name)).await;
    }
    namespace.create(scale("hold", "Deployment", "web", 4)).await;
    let held = effective(&namespace, "hold").await;
    let words = message(&held, "Applied");
    assert!(words.contains("leaves HorizontalPodAutoscaler/web alone"), "{words}");
    assert!(!words.contains("leaves Deployment/web alone"), "nobody owns it: {words}");
    let annotations = present(&namespace, &autoscaler("web")).await.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations["kustomize.toolkit.fluxcd.io/reconcile"], "disabled");
    delete(&namespace, "hold").await;
    let control = present(&namespace, &autoscaler("other")).await;
    assert_same(&present(&namespace, &autoscaler("web")).await, &control);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_git_to_be_the_only_way_refuses_and_argo_cd_is_told_what_to_ignore() {
    let namespace = TestNamespace::new("refuse").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(flux("web")).await;
    namespace.create(with(scale("no", "Deployment", "web", 0), json!({"gitops": "Refuse"}))).await;
    let refused = reaches(&namespace, "no", Phase::Refused).await;
    assert_eq!(condition(&refused, "Stalled").map(|c| c.reason.as_str()), Some("OwnedByGitOps"));
    let tracking = json!({"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/argo"});
    namespace.create_ready(owned("argo", json!({}), tracking)).await;
    namespace.create(scale("yes", "Deployment", "argo", 0)).await;
    let held = effective(&namespace, "yes").await;
    let words = message(&held, "Applied");
    assert!(words.contains("Application shop") && words.contains("incident-operator-scale"), "{words}");
}
