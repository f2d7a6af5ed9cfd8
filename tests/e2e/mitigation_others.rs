//! Mitigations that meet other people: a second mitigation, a person's edit, a machine that applies again and
//! again, a target that comes late or goes, and annotations that somebody strips or copies.

use super::mitigation::*;
use super::support::{workload, *};
use incident_operator::api::{ConditionStatus, Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

async fn flag_value(namespace: &TestNamespace, map: &str, key: &str) -> Value {
    present(namespace, &workload::configmap(map, &[])).await.data["data"][key].clone()
}

async fn replicas(namespace: &TestNamespace, name: &str) -> i64 {
    let target = present(namespace, &workload::deployment(name, 0)).await;
    target.data["spec"]["replicas"].as_i64().expect("the API server sets a default")
}

// ---- another mitigation ------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn the_second_mitigation_of_a_field_waits_names_the_first_and_takes_when_it_is_released() {
    let namespace = TestNamespace::new("busy").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(workload::configmap("control", &[("mode", "normal")])).await;
    namespace.create(flag("first", "flags", "mode", "slow")).await;
    effective(&namespace, "first").await;
    namespace.create(flag("second", "flags", "mode", "off")).await;
    let waiting = says(&namespace, "second", "Ready", "FieldBusy").await;
    assert!(message(&waiting, "Ready").contains("mitigation first"), "{}", message(&waiting, "Ready"));
    assert_eq!(phase_of(&waiting), Some(Phase::Pending));
    assert_eq!(flag_value(&namespace, "flags", "mode").await, "slow");

    release(&namespace, "first");
    reaches(&namespace, "first", Phase::Released).await;
    let took = effective(&namespace, "second").await;
    assert_eq!(flag_value(&namespace, "flags", "mode").await, "off");
    assert_eq!(took.status.unwrap().prior[0].value.as_deref(), Some("\"normal\""));
    delete(&namespace, "second").await;
    let flags = present(&namespace, &workload::configmap("flags", &[])).await;
    assert_same(&flags, &present(&namespace, &workload::configmap("control", &[])).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_mitigation_of_a_field_can_be_released_first_and_has_touched_nothing() {
    let namespace = TestNamespace::new("busytwo").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(workload::configmap("control", &[("mode", "normal")])).await;
    namespace.create(flag("first", "flags", "mode", "slow")).await;
    effective(&namespace, "first").await;
    namespace.create(flag("second", "flags", "mode", "off")).await;
    says(&namespace, "second", "Ready", "FieldBusy").await;
    let history = History::of(&namespace.api::<ConfigMap>(), "flags").await;
    release(&namespace, "second");
    let released = reaches(&namespace, "second", Phase::Released).await;
    assert!(message(&released, "Ready").contains("nothing had been changed"));
    delete(&namespace, "second").await;
    assert_eq!(history.revisions().len(), 1, "the target was not written");
    delete(&namespace, "first").await;
    let flags = present(&namespace, &workload::configmap("flags", &[])).await;
    assert_same(&flags, &present(&namespace, &workload::configmap("control", &[])).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_refused_at_once_while_another_mitigation_holds_something_else_of_the_target() {
    let namespace = TestNamespace::new("wrong").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("a", "on"), ("app.yaml", "x: 1\n")])).await;
    namespace.create(flag("one", "flags", "a", "off")).await;
    effective(&namespace, "one").await;
    namespace.create(flag("two", "flags", "nokey", "off")).await;
    let block = json!({"key": "app.yaml", "path": "zzz", "value": "0"});
    namespace.create(mitigation_of("three", "ConfigMap", "flags", json!({"featureFlag": block}))).await;
    for (name, reason) in [("two", "KeyNotFound"), ("three", "PathNotFound")] {
        let refused = reaches(&namespace, name, Phase::Refused).await;
        assert_eq!(condition(&refused, "Stalled").map(|c| c.reason.as_str()), Some(reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mitigations_of_two_keys_of_one_map_live_side_by_side_and_end_in_either_order() {
    let namespace = TestNamespace::new("twokeys").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let data = [("a", "1"), ("b", "1"), ("c", "1")];
    for order in [["one", "two"], ["two", "one"]] {
        let map = format!("flags-{}", order[0]);
        let control = format!("control-{}", order[0]);
        namespace.create(workload::configmap(&map, &data)).await;
        namespace.create(workload::configmap(&control, &data)).await;
        namespace.create(flag("one", &map, "a", "0")).await;
        namespace.create(flag("two", &map, "b", "0")).await;
        effective(&namespace, "one").await;
        effective(&namespace, "two").await;
        let held = present(&namespace, &workload::configmap(&map, &[])).await;
        assert_eq!(held.data["data"], json!({"a": "0", "b": "0", "c": "1"}));

        delete(&namespace, order[0]).await;
        let left = if order[0] == "one" {
            json!({"a": "1", "b": "0", "c": "1"})
        } else {
            json!({"a": "0", "b": "1", "c": "1"})
        };
        let half = present(&namespace, &workload::configmap(&map, &[])).await;
        assert_eq!(half.data["data"], left);
        assert_eq!(half.labels()["incident-operator.dev/mitigated"], "true", "the other one holds it still");
        let records = half.annotations().keys().filter(|key| key.starts_with(CAPTURE)).count();
        assert_eq!(records, 1);
        delete(&namespace, order[1]).await;
        let flags = present(&namespace, &workload::configmap(&map, &[])).await;
        assert_same(&flags, &present(&namespace, &workload::configmap(&control, &[])).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_mitigations_of_one_map_that_come_and_go_at_once_leave_it_as_it_was() {
    let namespace = TestNamespace::new("eight").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let keys: Vec<String> = (0..8).map(|n| format!("key-{n}")).collect();
    let data: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "on")).collect();
    namespace.create(workload::configmap("flags", &data)).await;
    namespace.create(workload::configmap("control", &data)).await;
    let names: Vec<String> = keys.iter().map(|key| format!("off-{key}")).collect();
    let create = |n: usize| namespace.create(flag(&names[n], "flags", &keys[n], "off"));
    futures::future::join_all((0..8).map(create)).await;
    futures::future::join_all(names.iter().map(|name| effective(&namespace, name))).await;
    let held = present(&namespace, &workload::configmap("flags", &[])).await;
    assert!(held.data["data"].as_object().unwrap().values().all(|value| value == "off"));
    futures::future::join_all(names.iter().map(|name| delete(&namespace, name))).await;
    let flags = present(&namespace, &workload::configmap("flags", &[])).await;
    assert_same(&flags, &present(&namespace, &workload::configmap("control", &[])).await);
}

// ---- a person ----------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_changes_stands_at_once_and_the_mitigation_ends_and_names_the_tool() {
    let namespace = TestNamespace::new("person").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["scaled", "edited"] {
        namespace.create_ready(workload::deployment(name, 2)).await;
        namespace.create(scale(&format!("stop-{name}"), "Deployment", name, 0)).await;
        effective(&namespace, &format!("stop-{name}")).await;
    }
    let history = History::of(&namespace.api::<Deployment>(), "scaled").await;
    namespace.kubectl(&["scale", "deployment", "scaled", "--replicas=1"]).success();
    let patch = json!({"spec": {"replicas": 3}});
    edit(&namespace, &workload::deployment("edited", 0), "kubectl-edit", patch).await;
    for (name, manager, value) in [("scaled", "kubectl", 1), ("edited", "kubectl-edit", 3)] {
        let ended = reaches(&namespace, &format!("stop-{name}"), Phase::Superseded).await;
        assert_eq!(ended.status.as_ref().unwrap().undone_by.as_deref(), Some(manager));
        assert!(message(&ended, "Ready").contains(manager), "{}", message(&ended, "Ready"));
        let target = present(&namespace, &workload::deployment(name, 0)).await;
        assert_eq!(
            (target.data["spec"]["replicas"].as_i64(), marks(&target)),
            (Some(value), vec![]),
            "{name}"
        );
        assert!(managed_fields(&target).contains(&manager.to_owned()));
    }
    // At no revision after the person's was the mitigation's value back.
    let later: Vec<_> = history.revisions().into_iter().map(|r| r.object).collect();
    let edited =
        later.iter().position(|d| d.spec.as_ref().unwrap().replicas == Some(1)).expect("it was scaled");
    assert!(later[edited..].iter().all(|d| d.spec.as_ref().unwrap().replicas == Some(1)));
    // Deleting what has ended changes nothing.
    delete(&namespace, "stop-scaled").await;
    assert_eq!(replicas(&namespace, "scaled").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_another_field_of_the_target_does_not_end_the_mitigation() {
    let namespace = TestNamespace::new("elsewhere").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 1);
    namespace.create_ready(web.clone()).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    effective(&namespace, "stop").await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}});
    edit(&namespace, &web, "kubectl-rollout", patch).await;
    // Its controller notes the new revision: what follows is seen by the operator after the edit.
    wait_status(&namespace.api::<Deployment>(), "web", "second revision", |d| {
        d.annotations().get("deployment.kubernetes.io/revision").is_some_and(|r| r == "2")
    })
    .await;
    delete(&namespace, "stop").await;
    let after = present(&namespace, &web).await;
    assert_eq!((after.data["spec"]["replicas"].as_i64(), marks(&after)), (Some(1), vec![]));
    assert_eq!(after.data["spec"]["template"]["metadata"]["annotations"]["restarted"], "now");
}

// ---- a machine ---------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_keeps_applying_is_overruled_three_times_and_then_named_and_left_alone() {
    let namespace = TestNamespace::new("machine").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let api: Api<Deployment> = namespace.api();
    let wanted = workload::deployment("web", 2);
    let params = PatchParams::apply("my-engine").force();
    api.patch("web", &params, &Patch::Apply(&wanted)).await.expect("it can be applied");
    let history = History::of(&api, "web").await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    reaches(&namespace, "stop", Phase::Active).await;

    let applied = Arc::new(AtomicUsize::new(0));
    let machine = tokio::spawn({
        let (api, params, applied) = (api.clone(), params.clone(), applied.clone());
        async move {
            let mut every_second = tokio::time::interval(Duration::from_secs(1));
            loop {
                every_second.tick().await;
                let _ = api.patch("web", &params, &Patch::Apply(&wanted)).await;
                applied.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let contested = says(&namespace, "stop", "Contested", "ContestedBy").await;
    let so_far = applied.load(Ordering::Relaxed);
    wait_for(PATIENCE, "two more rounds of the machine", async || {
        (applied.load(Ordering::Relaxed) >= so_far + 2).then_some(())
    })
    .await;
    machine.abort();
    assert!(is(&contested, "Contested", ConditionStatus::True));
    assert!(is(&contested, "Effective", ConditionStatus::False));
    let words = message(&contested, "Contested");
    assert!(words.contains("at the source of my-engine set spec.replicas: 0"), "{words}");
    assert_eq!(contested.status.as_ref().unwrap().attempts, Some(4));
    assert_eq!(phase_of(&contested), Some(Phase::Active));
    let reasserts = [("operation", "reassert"), ("result", "success")];
    operator.metric_is("incident_operator_mitigation_operations_total", &reasserts, 3.0).await;
    // Its take and three times more; each of them a change from the machine's value to ours.
    let values: Vec<_> =
        history.revisions().iter().map(|r| r.object.spec.as_ref().unwrap().replicas).collect();
    let stopped = values.windows(2).filter(|pair| pair[0] == Some(2) && pair[1] == Some(0)).count();
    assert_eq!(stopped, 4, "{values:?}");
    assert!(
        event_reasons(&namespace, "Mitigation", "stop").await.contains(&"MitigationContested".to_owned())
    );

    delete(&namespace, "stop").await;
    let after = present(&namespace, &workload::deployment("web", 0)).await;
    assert_eq!((after.data["spec"]["replicas"].as_i64(), marks(&after)), (Some(2), vec![]));
}

/// It has taken the field by force, so that it is its field from then on, whatever value it has meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_change_was_taken_back_owns_the_field_after_the_release() {
    let namespace = TestNamespace::new("overruled").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let api: Api<Deployment> = namespace.api();
    for name in ["web", "control"] {
        namespace.create_ready(workload::deployment(name, 2)).await;
    }
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    effective(&namespace, "stop").await;
    let params = PatchParams::apply("my-engine").force();
    for name in ["web", "control"] {
        let wanted = workload::deployment(name, 2);
        api.patch(name, &params, &Patch::Apply(&wanted)).await.expect("it can be applied");
    }
    let overruled = says(&namespace, "stop", "Contested", "TakenBack").await;
    assert_eq!(overruled.status.as_ref().and_then(|status| status.attempts), Some(2));
    delete(&namespace, "stop").await;
    let after = present(&namespace, &workload::deployment("web", 0)).await;
    assert_same(&after, &present(&namespace, &workload::deployment("control", 0)).await);
}

// ---- the target comes and goes -----------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_mitigation_waits_for_its_target_and_takes_it_as_soon_as_it_appears() {
    let namespace = TestNamespace::new("late").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(scale("stop", "Deployment", "late", 0)).await;
    let waiting = says(&namespace, "stop", "Ready", "TargetNotFound").await;
    assert_eq!(phase_of(&waiting), Some(Phase::Pending));
    assert!(message(&waiting, "Ready").contains("Deployment/late"), "{}", message(&waiting, "Ready"));
    events_are(&namespace, "Mitigation", "stop", &["TargetNotFound"]).await;
    let history = History::of(&namespace.api::<Deployment>(), "late").await;
    namespace.create(workload::deployment("late", 2)).await;
    let stopped =
        history.first("stopped workload", |r| r.object.spec.as_ref().unwrap().replicas == Some(0)).await;
    let took = stopped.seen - history.revisions()[0].seen;
    println!("from the appearance of the target to its mitigation: {took:?}");
    // Without a watch it would be looked at again after 30 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
    effective(&namespace, "stop").await;
    delete(&namespace, "stop").await;
    assert_eq!(replicas(&namespace, "late").await, 2);
    assert!(!operator.log().contains("visit failed"), "{}", operator.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_mitigation_can_be_deleted_and_the_target_stays_untouched_when_it_appears() {
    let namespace = TestNamespace::new("never").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(scale("stop", "Deployment", "late", 0)).await;
    says(&namespace, "stop", "Ready", "TargetNotFound").await;
    delete(&namespace, "stop").await;
    namespace.create_ready(workload::deployment("late", 1)).await;
    assert_eq!(marks(&present(&namespace, &workload::deployment("late", 1)).await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_deleted_and_made_anew_is_abandoned_and_the_new_object_is_left_alone() {
    let namespace = TestNamespace::new("anew").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    for name in ["gone", "anew", "unseen"] {
        namespace.create_ready(workload::deployment(name, 2)).await;
        namespace.create(scale(&format!("stop-{name}"), "Deployment", name, 0)).await;
        effective(&namespace, &format!("stop-{name}")).await;
    }
    let api: Api<Deployment> = namespace.api();
    for name in ["gone", "anew"] {
        api.delete(name, &Default::default()).await.expect("it can be deleted");
        wait_gone(&api, name).await;
    }
    namespace.create_ready(workload::deployment("anew", 3)).await;
    // The third is replaced while nobody looks.
    operator.kill();
    api.delete("unseen", &Default::default()).await.expect("it can be deleted");
    wait_gone(&api, "unseen").await;
    namespace.create_ready(workload::deployment("unseen", 3)).await;
    operator.restart().await;
    for name in ["gone", "anew", "unseen"] {
        let mitigation = format!("stop-{name}");
        let ended = reaches(&namespace, &mitigation, Phase::Abandoned).await;
        assert!(message(&ended, "Ready").contains("is gone"), "{}", message(&ended, "Ready"));
        delete(&namespace, &mitigation).await;
    }
    for name in ["anew", "unseen"] {
        let object = present(&namespace, &workload::deployment(name, 0)).await;
        assert_eq!((object.data["spec"]["replicas"].as_i64(), marks(&object)), (Some(3), vec![]), "{name}");
    }
}

// ---- annotations and labels in other hands -----------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn annotation_and_label_that_are_stripped_by_hand_come_back_with_the_same_prior_value() {
    let namespace = TestNamespace::new("stripped").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    namespace.create_ready(workload::deployment("control", 2)).await;
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"expiresAfter": "1h"}))).await;
    let before = effective(&namespace, "stop").await.status.unwrap();
    let api: Api<Deployment> = namespace.api();
    let web = api.get("web").await.unwrap();
    let key = web.annotations().keys().find(|key| key.starts_with(CAPTURE)).expect("a record").clone();
    let label = "incident-operator.dev/mitigated";
    for (strip, what) in [
        (json!({"annotations": {&key: null}}), "the annotation"),
        (json!({"labels": {label: null}}), "the label"),
        (json!({"annotations": {&key: null}, "labels": {label: null}}), "both"),
        (json!({"annotations": {&key: "{}"}}), "a broken annotation"),
    ] {
        let stripped =
            edit(&namespace, &workload::deployment("web", 0), "kubectl-edit", json!({"metadata": strip}))
                .await;
        let back = wait_status(&api, "web", &format!("return of {what}"), |d| {
            version(d) > version(&stripped)
                && d.labels().get(label).is_some_and(|v| v == "true")
                && d.annotations().get(&key).is_some_and(|text| text.contains("\"prior\":2"))
        })
        .await;
        assert_eq!(back.spec.unwrap().replicas, Some(0), "{what}");
    }
    let after = effective(&namespace, "stop").await.status.unwrap();
    assert_eq!((after.applied_time, after.expiry_time), (before.applied_time, before.expiry_time));
    delete(&namespace, "stop").await;
    let web = present(&namespace, &workload::deployment("web", 0)).await;
    assert_eq!((web.data["spec"]["replicas"].as_i64(), marks(&web)), (Some(2), vec![]));
    // Who owned the field is known from status, as the value is.
    let control = present(&namespace, &workload::deployment("control", 0)).await;
    assert_same(&web, &control);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_copied_to_another_object_counts_for_nothing_there() {
    let namespace = TestNamespace::new("copied").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(flag("slow", "flags", "mode", "slow")).await;
    effective(&namespace, "slow").await;
    let original = present(&namespace, &workload::configmap("flags", &[])).await;
    let mut copy = workload::configmap("copy", &[("mode", "copied")]);
    copy["metadata"]["annotations"] = json!(original.annotations());
    copy["metadata"]["labels"] = json!(original.labels());
    namespace.create(copy.clone()).await;
    let before = present(&namespace, &copy).await;

    // Neither the original's release nor a mitigation of the copy is misled by it.
    delete(&namespace, "slow").await;
    assert_eq!(flag_value(&namespace, "flags", "mode").await, "normal");
    assert_eq!(present(&namespace, &copy).await, before);
    namespace.create(flag("off", "copy", "mode", "off")).await;
    let held = effective(&namespace, "off").await;
    assert_eq!(held.status.unwrap().prior[0].value.as_deref(), Some("\"copied\""));
    delete(&namespace, "off").await;
    assert_eq!(flag_value(&namespace, "copy", "mode").await, "copied");
}

/// The deployment controller copies a Deployment's annotations to its ReplicaSets, and an undo of a rollout
/// copies them back: a record can return that nobody answers for.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_back_with_an_undone_rollout_blocks_nobody_and_is_cleaned_away() {
    let namespace = TestNamespace::new("undo").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 2);
    namespace.create_ready(web.clone()).await;
    namespace.create(scale("first", "Deployment", "web", 0)).await;
    effective(&namespace, "first").await;
    release(&namespace, "first");
    reaches(&namespace, "first", Phase::Released).await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    edit(&namespace, &web, "kubectl-edit", patch).await;
    let api: Api<Deployment> = namespace.api();
    let revision = |d: &Deployment, wanted: &str| {
        d.annotations().get("deployment.kubernetes.io/revision").is_some_and(|r| r == wanted)
    };
    wait_status(&api, "web", "second revision", |d| revision(d, "2")).await;
    namespace.kubectl(&["rollout", "undo", "deployment/web"]).success();
    let undone = wait_status(&api, "web", "third revision", |d| revision(d, "3")).await;
    assert!(
        undone.annotations().keys().any(|key| key.starts_with(CAPTURE)),
        "Kubernetes brings the record back; if it does not any more, this test can go: {undone:?}"
    );
    assert_eq!(phase_of(&namespace.api::<Mitigation>().get("first").await.unwrap()), Some(Phase::Released));

    namespace.create(scale("second", "Deployment", "web", 0)).await;
    effective(&namespace, "second").await;
    delete(&namespace, "second").await;
    let after = present(&namespace, &web).await;
    assert_eq!((after.data["spec"]["replicas"].as_i64(), marks(&after)), (Some(2), vec![]));
}
