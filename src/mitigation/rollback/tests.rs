use super::*;
use crate::mitigation::{Refusal, patch::tests::object, scene_tests::Stage};
use serde_json::json;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}})
}

fn workload_of(kind: &str, image: &str, more: Value) -> Value {
    let mut base = json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 2},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template(image)},
        "status": {"observedGeneration": 2}});
    json_patch::merge(&mut base, &more);
    base
}

/// A ReplicaSet, or a ControllerRevision of any other kind.
fn revision(kind: &str, number: i64, image: &str, made: &str) -> Value {
    let mut template = template(image);
    let metadata = json!({"name": format!("web-{made}"), "uid": format!("uid-{made}"), "labels": {"app": "web"},
        "creationTimestamp": format!("2026-11-23T0{made}:00:00Z"),
        "annotations": {"deployment.kubernetes.io/revision": number.to_string()},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": "u", "controller": true}]});
    if kind == "Deployment" {
        template["metadata"]["labels"]["pod-template-hash"] = json!(made);
        return json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": {"template": template}});
    }
    template["$patch"] = json!("replace");
    template["metadata"]["creationTimestamp"] = Value::Null;
    json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": number,
        "data": {"spec": {"template": template}}})
}

/// Three versions, one after the other, of which the third runs.
fn third(kind: &str) -> Stage {
    let mut stage = Stage::new(workload_of(kind, "c", json!({})));
    for (number, image) in [(1, "a"), (2, "b"), (3, "c")] {
        stage = stage.with(revision(kind, number, image, &number.to_string()));
    }
    stage
}

fn to(goal: Value) -> Rollback {
    serde_json::from_value(goal).unwrap()
}

/// Where a rollback comes from, where it goes to, and the image that runs then.
fn planned(rollback: &Rollback, stage: &Stage) -> Result<(Option<i64>, i64, String), Refusal> {
    let parts = stage.ask(|scene| rollback.parts(scene))?;
    let [change] = parts[0].changes() else { panic!("one field changes") };
    let How::Revision(pin) = &change.how else { panic!("it is pinned") };
    let raw = change.raw.clone().unwrap();
    assert_eq!(change.to, Some(field::digest(&raw)));
    assert_eq!(raw, template(revisions::images(&raw)[0]), "nothing of a revision's own is left in it");
    let image = revisions::images(&raw)[0].to_owned();
    Ok((pin.from.as_ref().map(|from| from.number), pin.to.number, image))
}

#[test]
fn each_kind_goes_back_to_the_revision_before_to_one_by_number_and_to_one_by_image() {
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        for (goal, number, image) in [
            (json!({}), 2, "b"),
            (json!({"to": "Previous"}), 2, "b"),
            (json!({"revision": 1}), 1, "a"),
            (json!({"to": "Image", "image": "a"}), 1, "a"),
        ] {
            assert_eq!(
                planned(&to(goal), &third(kind)).unwrap(),
                (Some(3), number, image.to_owned()),
                "{kind}"
            );
        }
    }
}

#[test]
fn the_revision_before_is_never_one_that_somebody_went_back_from() {
    // a, b, and back to a, which is renumbered and stays the older one.
    for kind in ["Deployment", "StatefulSet"] {
        let back = Stage::new(workload_of(kind, "a", json!({})))
            .with(revision(kind, 3, "a", "1"))
            .with(revision(kind, 2, "b", "2"));
        let refusal = planned(&to(json!({})), &back).unwrap_err();
        assert_eq!(refusal.reason, "NoOtherRevision");
        assert!(refusal.message.contains("2 with b"), "{}", refusal.message);
        assert_eq!(planned(&to(json!({"revision": 2})), &back).unwrap(), (Some(3), 2, "b".to_owned()));
        // From a later version the good one is the one before, although the bad one is younger than it.
        let forward = Stage::new(workload_of(kind, "c", json!({})))
            .with(revision(kind, 3, "a", "1"))
            .with(revision(kind, 2, "b", "2"))
            .with(revision(kind, 4, "c", "3"));
        assert_eq!(planned(&to(json!({})), &forward).unwrap(), (Some(4), 3, "a".to_owned()));
    }
}

#[test]
fn a_version_of_which_no_revision_was_made_yet_is_rolled_back_all_the_same() {
    let stage = Stage::new(workload_of("Deployment", "new", json!({})))
        .with(revision("Deployment", 1, "a", "1"))
        .with(revision("Deployment", 2, "b", "2"));
    assert_eq!(planned(&to(json!({})), &stage).unwrap(), (None, 2, "b".to_owned()));
}

/// Whether a rollback waits for a revision that is not told yet, and what it would do otherwise.
fn waits(stage: &Stage) -> bool {
    match planned(&to(json!({})), stage) {
        Ok((None, 2, _)) => false,
        Err(refusal) if refusal.reason == "RevisionNotSeen" => true,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_revision_that_is_soon_told_of_is_waited_for_and_one_that_never_is_is_not() {
    let written = |seconds: i64, kind: &str, more: Value| {
        let time = Stage::new(workload_of(kind, "new", json!({}))).now;
        let time = time.checked_sub(k8s_openapi::jiff::SignedDuration::from_secs(seconds)).unwrap();
        let entry = json!({"manager": "kubectl-set", "operation": "Update", "apiVersion": "apps/v1",
            "time": time.to_string(), "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:template": {}}}});
        let mut base = workload_of(kind, "new", json!({"metadata": {"managedFields": [entry]}}));
        json_patch::merge(&mut base, &more);
        let stage = Stage::new(base);
        stage.with(revision(kind, 1, "a", "1")).with(revision(kind, 2, "b", "2"))
    };
    let unseen = json!({"metadata": {"generation": 3}});
    let numbered = |n: &str| json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": n}}});
    let named = |name: &str| json!({"status": {"updateRevision": name}});

    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        assert!(waits(&written(5, kind, unseen.clone())), "the controller of the {kind} will make it");
        assert!(waits(&written(-5, kind, unseen.clone())), "clocks differ");
        assert!(!waits(&written(31, kind, unseen.clone())), "the controller of the {kind} may be down");
    }
    assert!(waits(&written(5, "Deployment", numbered("3"))), "it is made, and the watch is behind");
    assert!(!waits(&written(5, "Deployment", numbered("2"))), "a paused Deployment gets none");
    assert!(waits(&written(5, "StatefulSet", named("web-3"))), "it is made, and the watch is behind");
    assert!(!waits(&written(5, "StatefulSet", named("web-2"))), "all is told, and none is alike");
    assert!(waits(&written(5, "DaemonSet", json!({}))), "a DaemonSet does not say which one is its own");
    assert!(!waits(&written(31, "Deployment", numbered("3"))), "for ever would be too long");
}

#[test]
fn revisions_of_somebody_else_with_the_same_labels_do_not_count() {
    let mut foreign = revision("Deployment", 2, "b", "2");
    foreign["metadata"]["ownerReferences"][0]["uid"] = json!("other");
    let stage = Stage::new(workload_of("Deployment", "c", json!({})))
        .with(revision("Deployment", 3, "c", "3"))
        .with(foreign);
    assert_eq!(planned(&to(json!({})), &stage).unwrap_err().reason, "NoOtherRevision");
}

#[test]
fn what_must_not_be_rolled_back_or_would_have_no_effect_is_refused() {
    let owner = json!([{"apiVersion": "flagger.app/v1", "kind": "Canary", "name": "web", "uid": "c", "controller": true}]);
    for (kind, more, reason) in [
        ("Deployment", json!({"spec": {"paused": true}}), "Paused"),
        ("StatefulSet", json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 3}}}}), "Paused"),
        (
            "DaemonSet",
            json!({"metadata": {"annotations": {"incident-operator.dev/rollback": "forbidden"}}}),
            "RollbackForbidden",
        ),
        ("Deployment", json!({"metadata": {"ownerReferences": owner}}), "TargetControlled"),
    ] {
        let mut stage = Stage::new(workload_of(kind, "b", more));
        for (number, image) in [(1, "a"), (2, "b")] {
            stage = stage.with(revision(kind, number, image, &number.to_string()));
        }
        assert_eq!(planned(&to(json!({})), &stage).unwrap_err().reason, reason);
    }
    let forgetful = workload_of("Deployment", "b", json!({"spec": {"revisionHistoryLimit": 0}}));
    let rolled_out = Stage::new(forgetful.clone()).with(revision("Deployment", 2, "b", "2"));
    assert_eq!(planned(&to(json!({})), &rolled_out).unwrap_err().reason, "NoHistory");
    // A rollout that is stuck leaves the earlier revision in place, since it still serves.
    let stuck = Stage::new(forgetful).with(revision("Deployment", 1, "a", "1"));
    assert!(planned(&to(json!({})), &stuck.with(revision("Deployment", 2, "b", "2"))).is_ok());
    let spared = Stage::new(workload_of(
        "StatefulSet",
        "b",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}}),
    ));
    let spared = spared.with(revision("StatefulSet", 1, "a", "1")).with(revision("StatefulSet", 2, "b", "2"));
    assert!(planned(&to(json!({})), &spared).is_ok(), "one pod of three would change");
    for (goal, reason) in [
        (json!({"revision": 3}), "SameRevision"),
        (json!({"image": "c"}), "SameRevision"),
        (json!({"revision": 9}), "RevisionNotFound"),
        (json!({"image": "z"}), "ImageNotFound"),
        (json!({"to": "Previous", "revision": 1}), "GoalUnclear"),
        (json!({"to": "Revision"}), "GoalUnclear"),
        (json!({"revision": 1, "image": "a"}), "GoalUnclear"),
    ] {
        assert_eq!(planned(&to(goal.clone()), &third("Deployment")).unwrap_err().reason, reason, "{goal}");
    }
}

#[test]
fn a_template_that_names_what_is_gone_is_refused_and_the_missing_object_named() {
    let mut needs = revision("Deployment", 1, "a", "1");
    needs["spec"]["template"]["spec"]["volumes"] = json!([{"name": "x", "configMap": {"name": "settings"}}]);
    let stage = || {
        Stage::new(workload_of("Deployment", "b", json!({}))).with(needs.clone()).with(revision(
            "Deployment",
            2,
            "b",
            "2",
        ))
    };
    let refusal = stage().ask(|scene| to(json!({})).parts(scene)).unwrap_err();
    assert_eq!(refusal.reason, "ReferenceGone");
    assert!(refusal.message.contains("ConfigMap/settings"), "{}", refusal.message);
    let there =
        stage().with(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}));
    assert!(there.ask(|scene| to(json!({})).parts(scene)).is_ok());
}

fn record(from: Option<i64>, prior: &str, applied: &str) -> Record {
    let mark = |number: i64| Mark { uid: format!("uid-{number}"), name: format!("web-{number}"), number };
    let held = |path: &str, how: How, prior: Value, applied: Value| HeldField {
        path: path.to_owned(),
        how,
        prior: Some(prior),
        applied: Some(applied),
        owners: Vec::new(),
    };
    let pin = Pin { from: from.map(mark), to: mark(2) };
    Record {
        v: 1,
        uid: "0123456789".into(),
        mitigation: "m".into(),
        incident: None,
        action: "rollback".into(),
        target: "u".into(),
        fields: vec![
            held(
                TEMPLATE,
                How::Revision(Box::new(pin)),
                field::digest(&template(prior)),
                field::digest(&template(applied)),
            ),
            held("/metadata/annotations/x", How::Plain, json!("before"), json!("during")),
        ],
        at: "2026-11-23T09:00:00Z".parse().unwrap(),
        by: None,
        reasserts: 0,
        reasserted: None,
        stepped: None,
        restored: false,
        made: false,
    }
}

#[test]
fn a_release_goes_forward_only_to_the_very_revision_that_it_came_from() {
    let stage = third("Deployment");
    let undo = |record: &Record| {
        stage.ask(|scene| to(json!({})).undo(scene, scene.id, scene.target, record)).unwrap()
    };
    let forward = Undo::Restore(vec![Some(template("c")), Some(json!("before"))]);
    assert_eq!(undo(&record(Some(3), "c", "b")), forward);
    assert_eq!(undo(&record(None, "c", "b")), forward, "without a uid, by its hash");
    for gone in [record(Some(7), "c", "b"), record(Some(3), "other", "b"), record(None, "other", "b")] {
        assert!(matches!(undo(&gone), Undo::Leave(_)), "{gone:?}");
    }
}

#[test]
fn what_is_written_again_is_the_revision_that_was_gone_back_to_and_nothing_else() {
    let stage = third("StatefulSet");
    let again = |record: &Record| stage.ask(|scene| to(json!({})).again(scene, record));
    assert_eq!(again(&record(Some(3), "c", "b")).unwrap(), [Some(template("b")), Some(json!("during"))]);
    assert_eq!(again(&record(Some(3), "c", "other")).unwrap_err().reason, "RevisionGone");
}

#[test]
fn a_machine_is_taken_back_when_it_brings_the_bad_version_and_not_when_it_brings_another() {
    let record = record(Some(3), "c", "b");
    for (image, gives_way) in [("b", false), ("c", false), ("fixed", true)] {
        let object = object(workload_of("Deployment", image, json!({})));
        assert_eq!(to(json!({})).gives_way(&object, &record), gives_way, "{image}");
    }
}

fn effect(kind: &str, more: Value) -> Effect {
    let stage = Stage::new(workload_of(kind, "b", more));
    let stage = stage.with(revision(kind, 3, "b", "2")).with(revision(kind, 2, "c", "3"));
    stage.ask(|scene| to(json!({})).effect(scene)).unwrap()
}

#[test]
fn it_is_effective_when_all_pods_run_the_earlier_version_and_none_of_the_bad_one_is_left() {
    let deployment = |updated: i64, available: i64, all: i64| {
        effect(
            "Deployment",
            json!({"status": {"updatedReplicas": updated, "availableReplicas": available, "replicas": all}}),
        )
    };
    assert!(matches!(deployment(3, 3, 3), Effect::Seen(_)));
    for (updated, available, all) in [(2, 3, 3), (3, 2, 3), (3, 3, 4)] {
        assert!(matches!(deployment(updated, available, all), Effect::Awaited { .. }));
    }
    let unseen = json!({"metadata": {"generation": 9}, "status": {"updatedReplicas": 3, "availableReplicas": 3, "replicas": 3}});
    assert!(matches!(effect("Deployment", unseen), Effect::Unseen { .. }));
    let daemons = |updated: i64| {
        effect(
            "DaemonSet",
            json!({"status": {"desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": 2}}),
        )
    };
    assert!(matches!(daemons(2), Effect::Seen(_)) && matches!(daemons(1), Effect::Awaited { .. }));
    let on_delete =
        json!({"spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"desiredNumberScheduled": 2}});
    assert!(matches!(effect("DaemonSet", on_delete), Effect::Unclear { reason: "NeedsPodDeletion", .. }));
    let spared = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}},
        "status": {"updatedReplicas": 1, "availableReplicas": 3, "replicas": 3}});
    assert!(matches!(effect("StatefulSet", spared), Effect::Seen(_)));
}

#[test]
fn of_pods_that_keep_a_stateful_set_from_going_on_the_highest_is_deleted_if_that_is_allowed() {
    let pod = |ordinal: i64, hash: &str, ready: &str, more: Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("web-{ordinal}"),
                "uid": format!("pod-{ordinal}"), "labels": {"app": "web", "controller-revision-hash": hash},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        json_patch::merge(&mut pod, &more);
        pod
    };
    let stage = |policy: &str, last: Value| {
        let set = workload_of("StatefulSet", "b", json!({"spec": {"podManagementPolicy": policy}}));
        Stage::new(set)
            .with(revision("StatefulSet", 3, "b", "2"))
            .with(revision("StatefulSet", 2, "c", "3"))
            .with(pod(0, "web-2", "True", json!({})))
            .with(pod(1, "web-3", "False", json!({})))
            .with(last)
    };
    let ask = |stage: &Stage, allowed: bool| {
        stage.ask(|scene| to(json!({"allowPodDeletion": allowed})).effect(scene)).unwrap()
    };
    let stuck = stage("OrderedReady", pod(2, "web-3", "False", json!({})));
    let Effect::Unclear { reason, message } = ask(&stuck, false) else { panic!("it needs a person") };
    assert_eq!(reason, "PodInTheWay");
    assert!(message.contains("Pod/web-2") && message.contains("allowPodDeletion"), "{message}");
    let deleted = |ordinal: i64| Effect::Delete {
        id: ObjectId::new(POD, format!("web-{ordinal}")),
        uid: format!("pod-{ordinal}"),
    };
    assert_eq!(ask(&stuck, true), deleted(2));
    // Ready ones are replaced by the controller, and good ones are what is wanted.
    assert_eq!(ask(&stage("OrderedReady", pod(2, "web-3", "True", json!({}))), true), deleted(1));
    assert_eq!(ask(&stage("OrderedReady", pod(2, "web-2", "False", json!({}))), true), deleted(1));
    let going = pod(2, "web-3", "False", json!({"metadata": {"deletionTimestamp": "2026-11-23T09:00:00Z"}}));
    assert!(
        matches!(ask(&stage("OrderedReady", going), true), Effect::Awaited { .. }),
        "one after the other"
    );
    let parallel = stage("Parallel", pod(2, "web-3", "False", json!({})));
    assert!(matches!(ask(&parallel, true), Effect::Awaited { .. }), "its controller sees to it itself");
}

#[test]
fn a_dry_run_tells_both_revisions_and_what_cannot_be_checked() {
    let mut bad = workload_of("Deployment", "c", json!({}));
    bad["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let mut good = revision("Deployment", 2, "b", "2");
    good["spec"]["template"]["spec"]["volumes"] = json!([{"name": "x", "secret": {"secretName": "tls"}}]);
    let mut stage = Stage::new(bad).with(good).with(revision("Deployment", 3, "c", "3"));
    stage.hidden.insert(SECRET);
    let rollback = to(json!({}));
    let target: TargetRef = serde_json::from_value(json!({"kind": "Deployment", "name": "web"})).unwrap();
    let parts = stage.ask(|scene| rollback.parts(scene)).unwrap();
    assert_eq!(
        rollback.summary(&target, &parts),
        "roll back Deployment/web from revision 3 (web-3) to revision 2 (web-2), which runs b"
    );
    let warnings = stage.ask(|scene| rollback.warnings(scene)).unwrap().join("\n");
    assert!(warnings.contains("tls") && warnings.contains("kubectl apply"), "{warnings}");
    assert!(warnings.contains("secretNames.enabled"), "{warnings}");
    // Who may ask, asks.
    stage.hidden.clear();
    let refused = stage.ask(|scene| rollback.parts(scene)).unwrap_err();
    assert_eq!(refused.reason, "ReferenceGone");
    assert!(refused.message.contains("Secret/tls"), "{}", refused.message);
    let there = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}});
    let stage = stage.with(there);
    assert!(stage.ask(|scene| rollback.parts(scene)).is_ok());
    let warnings = stage.ask(|scene| rollback.warnings(scene)).unwrap().join("\n");
    assert!(!warnings.contains("tls"), "{warnings}");
}
