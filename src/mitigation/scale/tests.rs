use super::*;
use crate::mitigation::{Asked, Refusal, record::HeldField, scene_tests::Stage};

fn deployment(body: Value) -> Value {
    let mut base = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "importer", "namespace": "shop", "uid": "u", "generation": 2},
        "spec": {"replicas": 3, "template": {"metadata": {"labels": {"app": "importer"}}}},
        "status": {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3}});
    json_patch::merge(&mut base, &body);
    base
}

fn to(replicas: i32) -> Scale {
    Scale { replicas, restore_step_percent: None }
}

fn autoscaler(spec: Value) -> Value {
    let mut base = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "importer", "uid": "h"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "importer"},
            "minReplicas": 2, "maxReplicas": 8},
        "status": {"currentReplicas": 3}});
    json_patch::merge(&mut base["spec"], &spec);
    base
}

/// What is planned, as (object, path, value).
fn planned(scale: &Scale, stage: &Stage) -> Result<Vec<(String, String, Value)>, Refusal> {
    let parts = stage.ask(|scene| scale.parts(scene))?;
    let changes = parts.iter().flat_map(|part| {
        let Asked::Change(changes) = &part.asked else { panic!("nothing is made") };
        changes.iter().map(|c| (part.id.to_string(), c.path.clone(), c.to.clone().unwrap_or_default()))
    });
    Ok(changes.collect())
}

fn change(object: &str, path: &str, value: Value) -> (String, String, Value) {
    (object.to_owned(), path.to_owned(), value)
}

#[test]
fn the_present_number_is_what_is_captured() {
    let stage = Stage::new(deployment(json!({})));
    let parts = stage.ask(|scene| to(0).parts(scene)).unwrap();
    assert_eq!(parts[0].changes()[0].from, Some(json!(3)));
    assert_eq!(planned(&to(0), &stage).unwrap(), [change("Deployment/importer", REPLICAS, json!(0))]);
}

#[test]
fn a_workload_that_another_controller_sets_is_refused_and_the_controller_named() {
    let owned = deployment(json!({"metadata": {"ownerReferences": [
        {"apiVersion": "flagger.app/v1", "kind": "Canary", "name": "web", "uid": "c", "controller": true}]}}));
    let refusal = planned(&to(0), &Stage::new(owned)).unwrap_err();
    assert_eq!(refusal.reason, "TargetControlled");
    assert!(refusal.message.contains("Canary web"), "{}", refusal.message);
}

#[test]
fn scaling_is_refused_where_it_or_its_release_would_delete_volumes() {
    let set = deployment(json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}}));
    let stage = Stage::new(set);
    assert_eq!(planned(&to(0), &stage).unwrap_err().reason, "WouldDeleteVolumes");
    // The volumes of the fourth and fifth pod, with what is written to them meanwhile, would go with the release.
    let refusal = planned(&to(5), &stage).unwrap_err();
    assert_eq!(refusal.reason, "WouldDeleteVolumes");
    assert!(refusal.message.contains("the release scales down"), "{}", refusal.message);
}

#[test]
fn what_the_api_server_calls_is_not_stopped() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"selector": {"app": "importer"}}});
    let client = json!({"service": {"namespace": "shop", "name": "hook"}});
    let hooks = |policy: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "guard"}, "webhooks": [{"failurePolicy": policy, "clientConfig": client}]})
    };
    let apis = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.example"}, "spec": {"service": {"namespace": "shop", "name": "hook"}}});
    let conversion = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example"},
        "spec": {"conversion": {"webhook": {"clientConfig": client}}}});
    for (needs, refused) in
        [(hooks("Fail"), true), (hooks("Ignore"), false), (apis, true), (conversion, true)]
    {
        let stage = Stage::new(deployment(json!({}))).with(service.clone()).with(needs.clone());
        let answer = planned(&to(0), &stage);
        assert_eq!(answer.as_ref().is_err_and(|r| r.reason == "ServesTheApi"), refused, "{needs} {answer:?}");
        assert!(planned(&to(1), &stage).is_ok(), "one replica still serves");
        let other = deployment(json!({"spec": {"template": {"metadata": {"labels": {"app": "other"}}}}}));
        assert!(planned(&to(0), &Stage::new(other).with(service.clone()).with(needs)).is_ok());
    }
}

#[test]
fn an_autoscaler_that_stays_off_at_zero_is_left_alone_and_one_that_may_scale_from_zero_is_held_off() {
    let stage = |spec| Stage::new(deployment(json!({}))).with(autoscaler(spec));
    assert_eq!(
        planned(&to(0), &stage(json!({}))).unwrap(),
        [change("Deployment/importer", REPLICAS, json!(0))]
    );
    let hpa = "HorizontalPodAutoscaler/importer";
    assert_eq!(
        planned(&to(0), &stage(json!({"minReplicas": 0}))).unwrap(),
        [
            change(hpa, "/spec/behavior", json!({"scaleUp": {"selectPolicy": "Disabled"}})),
            change("Deployment/importer", REPLICAS, json!(0))
        ]
    );
    assert_eq!(
        planned(&to(12), &stage(json!({}))).unwrap(),
        [
            change(hpa, "/spec/maxReplicas", json!(12)),
            change(hpa, "/spec/minReplicas", json!(12)),
            change("Deployment/importer", REPLICAS, json!(12))
        ]
    );
    // In between, too: under more load it would go up to its own upper bound.
    assert_eq!(
        planned(&to(5), &stage(json!({}))).unwrap(),
        [
            change(hpa, "/spec/maxReplicas", json!(5)),
            change(hpa, "/spec/minReplicas", json!(5)),
            change("Deployment/importer", REPLICAS, json!(5))
        ]
    );
    assert_eq!(
        planned(&to(8), &stage(json!({"minReplicas": 8}))).unwrap(),
        [change("Deployment/importer", REPLICAS, json!(8))]
    );
    assert_eq!(
        planned(&to(1), &stage(json!({}))).unwrap(),
        [
            change(hpa, "/spec/maxReplicas", json!(1)),
            change(hpa, "/spec/minReplicas", json!(1)),
            change("Deployment/importer", REPLICAS, json!(1))
        ]
    );
}

#[test]
fn what_keda_scales_is_stopped_through_its_scaled_object() {
    let scaled = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"name": "importer", "annotations": {"a": "b"}}, "spec": {"scaleTargetRef": {"name": "importer"}}});
    let stage = Stage::new(deployment(json!({}))).with(scaled).with(autoscaler(json!({})));
    assert_eq!(
        planned(&to(0), &stage).unwrap(),
        [
            change(
                "ScaledObject/importer",
                "/metadata/annotations/autoscaling.keda.sh~1paused",
                json!("true")
            ),
            change(
                "ScaledObject/importer",
                "/metadata/annotations/autoscaling.keda.sh~1paused-replicas",
                json!("0")
            ),
        ]
    );
}

fn undo(scale: &Scale, stage: &Stage, applied: i64, stepped: bool) -> Undo {
    let record = Record {
        v: 1,
        uid: "0123456789".into(),
        mitigation: "m".into(),
        incident: None,
        action: "scale".into(),
        target: "u".into(),
        fields: vec![HeldField {
            path: REPLICAS.into(),
            how: field::How::Plain,
            prior: Some(json!(10)),
            applied: Some(json!(applied)),
            owners: Vec::new(),
        }],
        at: stage.now,
        by: None,
        reasserts: 0,
        reasserted: None,
        stepped: stepped.then_some(stage.now),
        restored: false,
        made: false,
    };
    stage.ask(|scene| scale.undo(scene, scene.id, scene.target, &record)).unwrap()
}

#[test]
fn a_release_stays_within_the_bounds_that_the_autoscaler_has_by_then() {
    let stage = Stage::new(deployment(json!({"spec": {"replicas": 0}}))).with(autoscaler(json!({})));
    assert_eq!(undo(&to(0), &stage, 0, false), Undo::Restore(vec![Some(json!(8))]));
}

#[test]
fn a_staged_release_takes_the_next_step_when_the_pods_of_the_last_are_ready() {
    let staged = Scale { replicas: 0, restore_step_percent: Some(40) };
    let at = |ready: i64| Stage::new(deployment(json!({"status": {"readyReplicas": ready}})));
    assert_eq!(undo(&staged, &at(0), 0, false), Undo::Step(vec![Some(json!(4))]));
    assert!(matches!(undo(&staged, &at(3), 4, true), Undo::Wait { .. }));
    assert_eq!(undo(&staged, &at(4), 4, true), Undo::Step(vec![Some(json!(8))]));
    assert_eq!(undo(&staged, &at(8), 8, true), Undo::Restore(vec![Some(json!(10))]));
}

fn effect(scale: &Scale, target: Value) -> Effect {
    Stage::new(target).ask(|scene| scale.effect(scene)).unwrap()
}

#[test]
fn zero_is_effective_only_when_the_last_pod_is_gone() {
    for (status, seen) in [
        (json!({"observedGeneration": 1, "replicas": 0}), false),
        (json!({"replicas": 1}), false),
        (json!({"replicas": 0, "readyReplicas": 0, "terminatingReplicas": 2}), false),
        (json!({"replicas": 0, "readyReplicas": 0, "terminatingReplicas": 0}), true),
        (json!({"replicas": null, "readyReplicas": null}), true),
    ] {
        let target = deployment(json!({"spec": {"replicas": 0}, "status": status}));
        assert_eq!(matches!(effect(&to(0), target.clone()), Effect::Seen(_)), seen, "{target}");
    }
}

#[test]
fn more_replicas_are_effective_only_when_they_are_ready() {
    let starting =
        deployment(json!({"spec": {"replicas": 5}, "status": {"replicas": 5, "readyReplicas": 4}}));
    let Effect::Awaited { what, seen } = effect(&to(5), starting) else { panic!("one pod is missing") };
    assert_eq!(what, "waiting until 5 pods are ready");
    assert_eq!(seen, "4 of 5 pods are ready");
}

// ---- kinds that the configuration lists ----------------------------------------------------------------------

fn definition(plural: &str, scale: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.shop.example")},
        "spec": {"scope": "Namespaced", "versions": [
            {"name": "v1", "served": true, "subresources": {"scale": scale}}, {"name": "v0", "served": false}]}})
}

fn usual() -> Value {
    json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.running",
        "labelSelectorPath": ".status.selector"})
}

fn listed(kind: &str, spec: Value, status: Value) -> Value {
    scalable::tests::listed();
    json!({"apiVersion": "shop.example/v1", "kind": kind, "metadata": {"name": "w", "uid": "w", "generation": 3},
        "spec": spec, "status": status})
}

fn pod(name: &str, ready: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "w"}},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

#[test]
fn of_a_listed_kind_the_number_is_where_its_definition_says() {
    let stage =
        Stage::new(listed("Worker", json!({"replicas": 4}), json!({}))).with(definition("workers", usual()));
    assert_eq!(planned(&to(0), &stage).unwrap(), [change("Worker/w", REPLICAS, json!(0))]);
    let deep = definition(
        "pools",
        json!({"specReplicasPath": ".spec.workers.count",
        "statusReplicasPath": ".status.running"}),
    );
    let stage = |spec| Stage::new(listed("Pool", spec, json!({}))).with(deep.clone());
    assert_eq!(
        planned(&to(0), &stage(json!({"workers": {"count": 2}}))).unwrap(),
        [change("Pool/w", "/spec/workers/count", json!(0))]
    );
    // What is missing around it goes with the release.
    assert_eq!(
        planned(&to(0), &stage(json!({}))).unwrap(),
        [change("Pool/w", "/spec/workers", json!({"count": 0}))]
    );
}

#[test]
fn a_listed_kind_without_a_scale_that_can_be_patched_is_refused_in_words() {
    let target = || listed("Worker", json!({"replicas": 4}), json!({}));
    let mut unserved = definition("workers", usual());
    unserved["spec"]["versions"][0]["served"] = false.into();
    let mut cluster = definition("workers", usual());
    cluster["spec"]["scope"] = "Cluster".into();
    let elsewhere = json!({"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.running"});
    for (stage, words) in [
        (Stage::new(target()), "no CustomResourceDefinition workers.shop.example"),
        (Stage::new(target()).with(definition("workers", json!(null))), "no scale subresource in v1"),
        (Stage::new(target()).with(unserved), "not served as v1"),
        (Stage::new(target()).with(cluster), "does not lie in namespaces"),
        (Stage::new(target()).with(definition("workers", elsewhere)), "set replicasPath to .spec.size"),
    ] {
        let refusal = planned(&to(0), &stage).unwrap_err();
        assert_eq!(refusal.reason, "NotScalable");
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }
}

#[test]
fn of_a_listed_kind_the_pods_themselves_are_counted_where_it_tells_which_they_are() {
    let ask = |scale: Scale, status: Value, pods: &[Value]| {
        let target = listed("Worker", json!({"replicas": scale.replicas}), status);
        let stage = Stage::new(target).with(definition("workers", usual()));
        let stage = pods.iter().fold(stage, |stage, pod| stage.with(pod.clone()));
        stage.ask(|scene| scale.effect(scene)).unwrap()
    };
    let told = |running: i64| json!({"running": running, "selector": "app=w"});
    assert!(matches!(ask(to(0), told(0), &[]), Effect::Seen(_)));
    assert!(matches!(ask(to(0), told(0), &[pod("a", "True")]), Effect::Awaited { .. }), "a pod is left");
    assert!(matches!(ask(to(0), told(1), &[]), Effect::Awaited { .. }), "its controller has not seen it");
    assert!(matches!(ask(to(1), told(1), &[pod("a", "False")]), Effect::Awaited { .. }), "not ready");
    assert!(matches!(ask(to(1), told(1), &[pod("a", "True")]), Effect::Seen(_)));
    // Without a selector its own word counts, and without that nothing does.
    assert!(matches!(ask(to(0), json!({"running": 0}), &[pod("a", "True")]), Effect::Seen(_)));
    assert!(matches!(ask(to(0), json!({}), &[]), Effect::Unclear { reason: "NotReported", .. }));
    let behind = json!({"running": 0, "observedGeneration": 2});
    assert!(matches!(ask(to(0), behind, &[]), Effect::Unseen { .. }), "an older generation");
}

#[test]
fn an_autoscaler_of_a_kind_of_the_same_name_in_another_group_is_not_the_targets() {
    let other =
        json!({"minReplicas": 0, "scaleTargetRef": {"apiVersion": "other.example/v1", "kind": "Deployment"}});
    let stage = Stage::new(deployment(json!({}))).with(autoscaler(other));
    assert_eq!(planned(&to(0), &stage).unwrap(), [change("Deployment/importer", REPLICAS, json!(0))]);
}
