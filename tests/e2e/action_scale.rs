//! `scale` beside the autoscalers, and what it refuses.

use super::mitigation::*;
use super::support::{crds, metrics::ExternalMetrics, workload, *};
use incident_operator::api::{ConditionStatus, Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

fn autoscaler(name: &str, min: i32, max: i32) -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": min, "maxReplicas": max,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_with_an_autoscaler_stays_at_zero_and_comes_back_within_its_bounds() {
    let namespace = TestNamespace::new("hpa").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let hpa = autoscaler("web", 2, 6);
    namespace.create(hpa.clone()).await;
    wait_for(PATIENCE, "the autoscaler to enforce its lower bound", async || {
        let web = namespace.api::<Deployment>().get("web").await.ok()?;
        (web.spec?.replicas == Some(2)).then_some(())
    })
    .await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    effective(&namespace, "stop").await;
    let untouched = present(&namespace, &hpa).await;
    assert!(marks(&untouched).is_empty(), "it does nothing at zero, so it is left alone");
    holds_for(std::time::Duration::from_secs(3), "the autoscaler leaves it at zero", async || {
        let web = namespace.api::<Deployment>().get("web").await.map_err(|e| e.to_string())?;
        let replicas = web.spec.and_then(|spec| spec.replicas);
        (replicas == Some(0)).then_some(()).ok_or_else(|| format!("{replicas:?}"))
    })
    .await;
    // By the time of the release the bounds are others.
    edit(&namespace, &hpa, "kubectl-edit", json!({"spec": {"minReplicas": 3}})).await;
    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Released).await;
    let web = namespace.api::<Deployment>().get("web").await.expect("it exists");
    assert_eq!(web.spec.and_then(|spec| spec.replicas), Some(3));
}

/// An autoscaler that may go to zero itself comes back from there as soon as there is work; it must not while the
/// workload is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_its_autoscaler_brought_to_zero_stays_there_until_the_release() {
    let namespace = TestNamespace::new("hpazero").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let metrics = ExternalMetrics::serve(&namespace).await;
    let by_queue = |name: &str| {
        let mut hpa = autoscaler(name, 0, 4);
        hpa["spec"]["metrics"] = json!([{"type": "External", "external": {"metric": {"name": "queue"},
            "target": {"type": "AverageValue", "averageValue": "10"}}}]);
        hpa["spec"]["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
        hpa
    };
    for name in ["web", "other"] {
        namespace.create_ready(workload::deployment(name, 1)).await;
        namespace.create(by_queue(name)).await;
    }
    let replicas = async |name: &str| {
        let deployment = namespace.api::<Deployment>().get(name).await.expect("it exists");
        deployment.spec.and_then(|spec| spec.replicas)
    };
    let becomes = async |name: &str, wanted: i32| {
        wait_for(PATIENCE * 2, &format!("{wanted} replicas of {name}"), async || {
            let now = replicas(name).await;
            if now == Some(wanted) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    };
    becomes("web", 0).await;
    becomes("other", 0).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    effective(&namespace, "stop").await;
    metrics.say(40);
    becomes("other", 4).await;
    let hpa = present(&namespace, &by_queue("web")).await;
    assert_eq!(hpa.data["spec"]["behavior"]["scaleUp"]["selectPolicy"], "Disabled");
    // Some rounds of its autoscaler, one of which was enough for the other.
    holds_for(std::time::Duration::from_secs(6), "it is stopped, whatever there is to do", async || {
        let now = replicas("web").await;
        (now == Some(0)).then_some(()).ok_or_else(|| format!("{now:?}"))
    })
    .await;
    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Released).await;
    becomes("web", 4).await;
    let after = [present(&namespace, &by_queue("web")).await, present(&namespace, &by_queue("other")).await];
    assert_eq!(marks(&after[0]), marks(&after[1]));
    assert_eq!(after[0].data["spec"]["behavior"], after[1].data["spec"]["behavior"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_up_moves_the_autoscaler_first_and_a_release_puts_both_back_byte_by_byte() {
    let namespace = TestNamespace::new("hpaup").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    for name in ["web", "other"] {
        namespace.create_ready(workload::deployment(name, 2)).await;
        namespace.create(autoscaler(name, 2, 3)).await;
    }
    namespace.create(scale("more", "Deployment", "web", 5)).await;
    let held = effective(&namespace, "more").await;
    let touched = &held.status.as_ref().expect("it has a status").objects;
    let kinds: Vec<&str> = touched.iter().map(|object| object.kind.as_str()).collect();
    assert_eq!(kinds, ["HorizontalPodAutoscaler", "Deployment"]);
    let hpa = present(&namespace, &autoscaler("web", 2, 3)).await;
    assert_eq!((&hpa.data["spec"]["minReplicas"], &hpa.data["spec"]["maxReplicas"]), (&json!(5), &json!(5)));
    operator.restart().await;
    delete(&namespace, "more").await;
    for (mitigated, control) in [
        (workload::deployment("web", 2), workload::deployment("other", 2)),
        (autoscaler("web", 2, 3), autoscaler("other", 2, 3)),
    ] {
        assert_same(&present(&namespace, &mitigated).await, &present(&namespace, &control).await);
    }
}

/// The bounds are back before the number: what the number goes back to must not be worked out from the bounds that a
/// watch told a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_between_the_bounds_is_held_by_both_and_a_release_puts_all_back_byte_by_byte() {
    let namespace = TestNamespace::new("hpabetween").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["web", "other"] {
        namespace.create_ready(workload::deployment(name, 3)).await;
        namespace.create(autoscaler(name, 2, 10)).await;
    }
    namespace.create(scale("hold", "Deployment", "web", 5)).await;
    effective(&namespace, "hold").await;
    let hpa = present(&namespace, &autoscaler("web", 2, 10)).await;
    assert_eq!((&hpa.data["spec"]["minReplicas"], &hpa.data["spec"]["maxReplicas"]), (&json!(5), &json!(5)));
    delete(&namespace, "hold").await;
    for (mitigated, control) in [
        (workload::deployment("web", 3), workload::deployment("other", 3)),
        (autoscaler("web", 2, 10), autoscaler("other", 2, 10)),
    ] {
        assert_same(&present(&namespace, &mitigated).await, &present(&namespace, &control).await);
    }
}

/// One that is made while the number is held, and so was not held off.
#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_that_comes_later_is_fought_three_times_and_then_named() {
    let namespace = TestNamespace::new("hpafight").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 5)).await;
    namespace.create(scale("less", "Deployment", "web", 1)).await;
    effective(&namespace, "less").await;
    namespace.create(autoscaler("web", 2, 6)).await;
    // It looks every 15 seconds.
    let contested = wait_for(std::time::Duration::from_secs(150), "the end of the fight", async || {
        let held = namespace.api::<Mitigation>().get("less").await.ok()?;
        condition(&held, "Contested").filter(|c| c.reason == "ContestedBy")?;
        Some(held)
    })
    .await;
    assert_eq!(contested.status.as_ref().and_then(|status| status.attempts), Some(4));
    let words = message(&contested, "Contested");
    assert!(words.contains("kube-controller-manager") && words.contains("2 instead of 1"), "{words}");
    release(&namespace, "less");
    let ended = reaches(&namespace, "less", Phase::Superseded).await;
    assert!(message(&ended, "Ready").contains("kube-controller-manager"), "{}", message(&ended, "Ready"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_scaled_down_is_refused_and_left_as_it_is() {
    let namespace = TestNamespace::new("scaleno").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut volumes = workload::statefulset("volumes", 2);
    volumes["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete"});
    let mut own = workload::deployment("own", 1);
    own["metadata"]["labels"] = json!({"app.kubernetes.io/name": "incident-operator"});
    let hook = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443}]}});
    let serves = workload::deployment("hook", 1);
    for object in [&volumes, &own, &serves, &hook] {
        namespace.create(object.clone()).await;
    }
    let service = json!({"namespace": namespace.name, "name": "hook"});
    let group = format!("{}.example.dev", namespace.name);
    // Nobody asks for it while it is there; what it names answers nothing.
    let api = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("v1.{group}")},
        "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "service": service,
            "insecureSkipTLSVerify": true}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object"}}})
    };
    let conversion = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.c{group}")},
        "spec": {"group": format!("c{group}"), "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"service": service}}}}});
    let cases = [
        ("volumes", "StatefulSet", &volumes, None, "WouldDeleteVolumes", "whenScaled"),
        ("own", "Deployment", &own, None, "Self", "the operator itself"),
        ("hook", "Deployment", &serves, Some(api), "ServesTheApi", "APIService v1."),
        ("hook", "Deployment", &serves, Some(conversion), "ServesTheApi", "the conversion of things."),
    ];
    for (index, (name, kind, object, needs, reason, words)) in cases.into_iter().enumerate() {
        if let Some(needs) = &needs {
            cluster::kubectl_with(&["apply", "-f", "-"], &needs.to_string()).success();
        }
        let before = present(&namespace, object).await;
        let mitigation = format!("stop-{index}");
        namespace.create(scale(&mitigation, kind, name, 0)).await;
        let refused =
            until(&namespace, &mitigation, "refusal", |m| phase_of(m) == Some(Phase::Refused)).await;
        if let Some(needs) = &needs {
            cluster::kubectl_with(&["delete", "-f", "-"], &needs.to_string()).success();
        }
        let stalled = condition(&refused, "Stalled").expect("it is told");
        assert_eq!(stalled.reason, reason, "{name}: {}", stalled.message);
        assert!(stalled.message.contains(words), "{name}: {}", stalled.message);
        assert_same(&present(&namespace, object).await, &before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_actions_on_one_deployment_end_in_either_order_and_leave_no_trace() {
    let namespace = TestNamespace::new("twoactions").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for order in [["fewer", "halt"], ["halt", "fewer"]] {
        let (name, control) = (format!("web-{}", order[0]), format!("other-{}", order[0]));
        for name in [&name, &control] {
            namespace.create_ready(workload::deployment(name, 3)).await;
        }
        namespace.create(scale("fewer", "Deployment", &name, 1)).await;
        namespace.create(mitigation_of("halt", "Deployment", &name, json!({"pauseRollout": {}}))).await;
        effective(&namespace, "fewer").await;
        effective(&namespace, "halt").await;
        delete(&namespace, order[0]).await;
        let half = present(&namespace, &workload::deployment(&name, 3)).await;
        let left = (half.data["spec"]["replicas"].as_i64(), half.data["spec"]["paused"].as_bool());
        assert_eq!(left, if order[0] == "fewer" { (Some(3), Some(true)) } else { (Some(1), None) });
        delete(&namespace, order[1]).await;
        let (after, control) = (workload::deployment(&name, 3), workload::deployment(&control, 3));
        assert_same(&present(&namespace, &after).await, &present(&namespace, &control).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keda_scales_is_stopped_through_its_scaled_object_alone() {
    crds::install("keda.sh_scaledobjects.yaml", "scaledobjects.keda.sh");
    let namespace = TestNamespace::new("keda").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let scaled = |name: &str| {
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
            "spec": {"scaleTargetRef": {"name": "web"}, "triggers": [{"type": "cron", "metadata": {
                "timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "3"}}]}})
    };
    namespace.create_ready(workload::deployment("web", 1)).await;
    namespace.create(scaled("web")).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    let taken = says(&namespace, "stop", "Applied", "Changed").await;
    assert!(message(&taken, "Applied").contains("ScaledObject/web"), "{}", message(&taken, "Applied"));
    let object = present(&namespace, &scaled("web")).await;
    let annotations = object.metadata.annotations.as_ref().expect("it has annotations");
    assert_eq!(annotations["autoscaling.keda.sh/paused"], "true");
    assert_eq!(annotations["autoscaling.keda.sh/paused-replicas"], "0");
    let web = namespace.api::<Deployment>().get("web").await.expect("it exists");
    assert!(marks(&web).is_empty(), "the workload is KEDA's to change");
    // KEDA does its work; here somebody plays it.
    assert!(is(&taken, "Effective", ConditionStatus::Unknown), "applied is not effective");
    namespace.kubectl(&["scale", "deployment/web", "--replicas=0"]).success();
    effective(&namespace, "stop").await;
    // Nothing is written to the workload, so that its pods are back must be heard otherwise.
    namespace.kubectl(&["scale", "deployment/web", "--replicas=1"]).success();
    until(&namespace, "stop", "word that pods are back", |m| !is(m, "Effective", ConditionStatus::True))
        .await;
    namespace.kubectl(&["scale", "deployment/web", "--replicas=0"]).success();
    effective(&namespace, "stop").await;
    delete(&namespace, "stop").await;
    let mut control = scaled("web");
    control["metadata"]["name"] = json!("control");
    control["spec"]["scaleTargetRef"]["name"] = json!("nobody");
    namespace.create(control.clone()).await;
    let (after, control) = (present(&namespace, &scaled("web")).await, present(&namespace, &control).await);
    assert_eq!(marks(&after), marks(&control));
    assert_eq!(managed_fields(&after), managed_fields(&control));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_the_api_server_is_not_stopped() {
    let namespace = TestNamespace::new("backend").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    namespace
        .create(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 443}]}}))
        .await;
    let hooks = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace.name}, "webhooks": [{"name": "guard.example.dev", "failurePolicy": "Fail",
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": namespace.name, "name": "hook"}},
            "rules": [{"apiGroups": ["nothing.example.dev"], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["nothings"]}]}]});
    cluster::kubectl_with(&["apply", "-f", "-"], &hooks.to_string()).success();
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    let refused = reaches(&namespace, "stop", Phase::Refused).await;
    kubectl(&["delete", "validatingwebhookconfiguration", &namespace.name]).success();
    assert!(
        message(&refused, "Stalled").contains("guard")
            || message(&refused, "Stalled").contains(&namespace.name)
    );
    assert_eq!(condition(&refused, "Stalled").map(|c| c.reason.as_str()), Some("ServesTheApi"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_release_goes_up_in_steps_and_ends_where_it_began() {
    let namespace = TestNamespace::new("staged").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    for name in ["web", "other"] {
        namespace.create_ready(workload::deployment(name, 5)).await;
    }
    let staged = json!({"scale": {"replicas": 0, "restoreStepPercent": 40}});
    namespace.create(mitigation_of("stop", "Deployment", "web", staged)).await;
    effective(&namespace, "stop").await;
    let history = history::History::of(&namespace.api::<Deployment>(), "web").await;
    release(&namespace, "stop");
    history.first("the first step", |web| web.object.spec.as_ref().and_then(|s| s.replicas) == Some(2)).await;
    says(&namespace, "stop", "Effective", "Restoring").await;
    operator.kill();
    operator.restart().await;
    reaches(&namespace, "stop", Phase::Released).await;
    let mut numbers: Vec<i32> = history
        .revisions()
        .iter()
        .filter_map(|revision| revision.object.spec.as_ref().and_then(|spec| spec.replicas))
        .collect();
    numbers.dedup();
    assert_eq!(numbers, [0, 2, 4, 5]);
    let control = present(&namespace, &workload::deployment("other", 5)).await;
    assert_same(&present(&namespace, &workload::deployment("web", 5)).await, &control);
}

/// What a mitigation changed with a field that somebody changed since, goes back all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_changes_one_bound_of_an_autoscaler_does_not_keep_the_other_from_going_back() {
    let namespace = TestNamespace::new("bounds").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let hpa = autoscaler("web", 1, 3);
    namespace.create(hpa.clone()).await;
    namespace.create(scale("up", "Deployment", "web", 4)).await;
    effective(&namespace, "up").await;
    edit(&namespace, &hpa, "somebody", json!({"spec": {"maxReplicas": 9}})).await;
    let m = reaches(&namespace, "up", Phase::Superseded).await;
    let hpa = present(&namespace, &hpa).await;
    assert_eq!((&hpa.data["spec"]["minReplicas"], &hpa.data["spec"]["maxReplicas"]), (&json!(1), &json!(9)));
    assert_eq!(marks(&hpa), Vec::<String>::new());
    let said = message(&m, "Ready");
    let words = "somebody changed spec.maxReplicas of HorizontalPodAutoscaler/web; that value stands; what else was \
                 changed is back";
    assert!(said.contains(words), "{said}");
}
