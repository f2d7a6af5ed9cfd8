//! What is the operator's alone to write, and what the operator itself may not write.

use super::support::workload::{configmap, deployment, entry, incident, mitigation, ours};
use super::support::*;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SCALES: &str = "patch deployments.apps/scale";
const STATUS: [&str; 3] = [
    "patch incidents.incident-operator.dev/status",
    "patch mitigations.incident-operator.dev/status",
    "update mitigations.incident-operator.dev/status",
];

fn stop(name: &str) -> Value {
    mitigation(
        name,
        json!({"reason": "a test", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0}}),
    )
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, String>, part: &str) {
    let words = answer.expect_err("this should be refused");
    assert!(words.contains(part), "the refusal lacks {part:?}: {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_operator_writes_status_by_whichever_request() {
    let namespace = TestNamespace::new("status").await;
    let rights: Vec<&str> = STATUS.into_iter().chain([SCALES]).collect();
    let person = namespace.person("person", &rights).await;
    let (i, m) = (incident("i", json!({"title": "a test"})), stop("m"));
    person.create(&i).await.expect("she may");
    person.create(&m).await.expect("she may");
    let words = "may not write the status of";
    for who in [&person, &namespace.admin()] {
        refused(who.merge_status(&i, json!({"status": {"stage": "Closed"}})).await, words);
        refused(who.merge_status(&m, json!({"status": {"phase": "Released"}})).await, words);
        let forged: DynamicObject = serde_json::from_value(
            json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Mitigation", "metadata": {"name": "m"}, "status": {"phase": "Released"}}),
        )
        .expect("well formed");
        let params = PatchParams::apply("x").force();
        let applied = who.api(&m).patch_status("m", &params, &Patch::Apply(&forged)).await;
        refused(applied.map_err(|e| e.to_string()), words);
        let mut present = who.api(&m).get("m").await.expect("it exists");
        present.data["status"] = json!({"phase": "Released"});
        let replaced = who.api(&m).replace_status("m", &PostParams::default(), &present).await;
        refused(replaced.map_err(|e| e.to_string()), words);
    }
    // A status that comes with a creation or an update of the rest is dropped by the API server itself.
    let mut claimed = stop("claimed");
    claimed["status"] = json!({"phase": "Released"});
    let made = person.create(&claimed).await.expect("taken");
    assert_ne!(made.data["status"]["phase"], "Released");
    let made = person.put(&m, |m| m["status"] = json!({"phase": "Released"})).await.expect("taken");
    assert_ne!(made.data["status"]["phase"], "Released");
    let operator = namespace.the_operator().await;
    operator.merge_status(&m, json!({"status": {"phase": "Active"}})).await.expect("it is the operator's");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_entries_postmortems_and_policies_is_locked_too() {
    let namespace = TestNamespace::new("others").await;
    let admin = namespace.admin();
    let entry = ours(
        "TimelineEntry",
        "e",
        json!({"incidentRef": {"name": "i"}, "type": "Note", "message": "a test"}),
    );
    for object in [entry, ours("Postmortem", "p", json!({"title": "a test"}))] {
        admin.create(&object).await.expect("taken");
        refused(
            admin.merge_status(&object, json!({"status": {"observedGeneration": 7}})).await,
            "only the operator does",
        );
    }
    let policy = ours("MitigationPolicy", &namespace.name, json!({"actions": ["scale"]}));
    cluster::kubectl_with(&["create", "-f", "-"], &policy.to_string()).success();
    let said = kubectl(&[
        "patch",
        "mitigationpolicy",
        &namespace.name,
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"observedGeneration":7}}"#,
    ]);
    kubectl(&["delete", "mitigationpolicy", &namespace.name]).success();
    assert!(said.failure().contains("only the operator does"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_finalizer_and_the_owner_decide_about_the_release_and_stay_as_they_are() {
    let namespace = TestNamespace::new("metadata").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 1)).await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let entry = json!({"name": "stop", "reason": "a test", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0}});
    let i = incident("i", json!({"title": "a test", "mitigations": [entry]}));
    scaler.create(&i).await.expect("she may");
    let api = namespace.raw("Mitigation");
    wait_status(&api, "i-stop", "effect", |m| m.data["status"]["phase"] == "Active").await;
    let child = stop("i-stop");
    let ghost = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}]);
    for who in [&scaler, &namespace.admin()] {
        refused(
            who.merge(&child, json!({"metadata": {"finalizers": null}})).await,
            "taken off by the operator once the change is undone",
        );
        refused(
            who.merge(&child, json!({"metadata": {"ownerReferences": null}})).await,
            "the owner references are the operator's",
        );
        refused(
            who.merge(&child, json!({"metadata": {"ownerReferences": ghost}})).await,
            "the owner references are the operator's",
        );
        refused(
            who.merge(&i, json!({"metadata": {"ownerReferences": ghost}})).await,
            "the owner references are the operator's",
        );
        let moved = json!({"metadata": {"labels": {"incident-operator.dev/entry": "gone"}}});
        refused(who.merge(&child, moved).await, "the labels incident-operator.dev/entry and");
        refused(
            who.put(&child, |m| m["metadata"]["labels"] = json!({})).await,
            "the labels incident-operator.dev/entry and",
        );
        refused(
            who.merge(&child, json!({"spec": {"desiredState": "Released"}})).await,
            "was expanded from incident \"i\"",
        );
    }
    // A finalizer of somebody else is theirs to set and to take off.
    let both = json!({"metadata": {"finalizers": ["incident-operator.dev/release", "example.com/mine"]}});
    scaler.merge(&child, both).await.expect("taken");
    scaler
        .merge(&child, json!({"metadata": {"finalizers": ["incident-operator.dev/release"]}}))
        .await
        .expect("taken");
    // And none of it stands in the way of a release.
    scaler.delete(&child).await.expect("she may");
    wait_gone(&api, "i-stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_mitigation_that_seems_to_belong_to_an_incident() {
    let namespace = TestNamespace::new("child").await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let i = scaler.create(&incident("i", json!({"title": "a test"}))).await.expect("taken");
    let words = "only the operator makes a mitigation that belongs to an entry of an incident";
    let mut labelled = stop("i-stop");
    labelled["metadata"]["labels"] = json!({"incident-operator.dev/entry": "stop"});
    refused(scaler.create(&labelled).await, words);
    let mut owned = stop("i-stop");
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
        "name": "i", "uid": i.uid(), "controller": true}]);
    refused(scaler.create(&owned).await, words);
    scaler.create(&stop("i-stop")).await.expect("its name alone says nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn config_maps_of_the_record_are_the_operators_and_others_are_not_touched_by_that() {
    let namespace = TestNamespace::new("record").await;
    let scribe = namespace
        .person("scribe", &["create configmaps", "update configmaps", "patch configmaps", "get configmaps"])
        .await;
    let operator = namespace.the_operator().await;
    let mut archive = configmap("i-timeline-0", &[("timeline.json", "[]")]);
    archive["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "incident-operator"});
    let words = "is part of the record and only written by the operator";
    refused(scribe.create(&archive).await, words);
    operator.manager("incident-operator").create(&archive).await.expect("it is the operator's");
    refused(scribe.merge(&archive, json!({"data": {"timeline.json": "[{}]"}})).await, words);
    let bare = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
    refused(scribe.merge(&archive, bare).await, words);
    refused(namespace.admin().merge(&archive, json!({"data": {"timeline.json": "[{}]"}})).await, words);
    // Nor taken away, but by who may delete the incidents themselves.
    let janitor = namespace.person_as("janitor", "responder", &["delete configmaps"]).await;
    refused(janitor.delete(&archive).await, "only who may delete incidents");
    let commander =
        namespace.person("commander", &["delete configmaps", "delete incidents.incident-operator.dev"]).await;
    commander.try_delete(&archive).await.expect("who may delete the incident");
    scribe.create(&configmap("theirs", &[("a", "b")])).await.expect("taken");
    let seized = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "incident-operator"}}});
    refused(scribe.merge(&configmap("theirs", &[]), seized).await, words);
    // Nor made under the name that the operator needs.
    let takes = configmap("incident-operator-takes", &[("a", "b")]);
    let words = "may not make a ConfigMap of the name incident-operator-takes";
    for made in [scribe.create(&takes).await, namespace.admin().create(&takes).await] {
        refused(made, words);
    }
    refused(scribe.apply(&takes, "x").await, words);
    scribe.create(&configmap("incident-operator-takes-2", &[("a", "b")])).await.expect("another name");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_not_on_record_yet_is_taken_away_by_its_author_and_by_nobody_who_may_not_delete_the_incident()
 {
    let namespace = TestNamespace::new("entrylock").await;
    namespace.create(incident("i", json!({"title": "a test"}))).await;
    let deletes = "delete timelineentries.incident-operator.dev";
    let carol = namespace.person_as("carol", "responder", &[deletes]).await;
    let dave = namespace.person_as("dave", "responder", &[deletes]).await;
    let note = entry("i", "Note", "no, the queue grows");
    let note = ours("TimelineEntry", "note", note["spec"].clone());
    carol.create(&note).await.expect("a responder writes entries");
    let words = "may not delete the timeline entry \"note\": only its author may";
    refused(dave.delete(&note).await, words);
    let all = format!("/apis/incident-operator.dev/v1alpha1/namespaces/{}/timelineentries", namespace.name);
    let many = namespace
        .person_as("many", "responder", &["deletecollection timelineentries.incident-operator.dev"])
        .await;
    refused::<()>(Err(many.kubectl(&["delete", "--raw", &all], "").failure()), words);
    // A forged author is none.
    let mine = json!({"metadata": {"annotations": {"incident-operator.dev/requester": "dave"}}});
    drop(dave.merge(&note, mine).await);
    refused(dave.delete(&note).await, words);
    carol.try_delete(&note).await.expect("the author");
    let boss = namespace
        .person_as("boss", "responder", &[deletes, "delete incidents.incident-operator.dev i"])
        .await;
    boss.try_delete(&note).await.expect("who may delete the incident");
    namespace.the_operator().await.try_delete(&note).await.expect("the operator folds it");
}

/// The operator's notes on a target.
fn notes() -> Value {
    json!({"annotations": {"incident-operator.dev/mit-12345678": "{}"}, "labels": {"incident-operator.dev/mitigated": "true"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_own_token_changes_no_image_as_scale_nor_anything_but_replicas() {
    let namespace = TestNamespace::new("fence").await;
    namespace.create(deployment("importer", 3)).await;
    let operator = namespace.operator_by_token().await;
    let scale = operator.manager("incident-operator-scale");
    let importer = deployment("importer", 3);
    let evil = json!([{"name": "main", "image": "registry.example/evil:1"}]);
    let words = "like this as field manager \"incident-operator-scale\": scale may change spec.replicas of";
    let image = json!({"spec": {"template": {"spec": {"containers": evil}}}});
    refused(scale.merge(&importer, image.clone()).await, words);
    let both =
        json!({"metadata": notes(), "spec": {"replicas": 0, "template": {"spec": {"containers": evil}}}});
    refused(scale.merge(&importer, both).await, words);
    for change in [
        json!({"spec": {"paused": true}}),
        json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}),
        json!({"metadata": {"labels": {"team": "evil"}}}),
        json!({"metadata": {"annotations": {"example.com/x": "y"}}}),
        json!({"metadata": {"annotations": {"incident-operator.dev/x": "y"}}}),
        json!({"metadata": {"finalizers": ["example.com/x"]}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}}),
    ] {
        refused(scale.merge(&importer, change).await, words);
    }
    let nobody = "this field manager may change nothing here";
    refused(operator.merge(&importer, json!({"spec": {"replicas": 1}})).await, nobody);
    let recorder = operator.manager("incident-operator");
    refused(recorder.merge(&importer, json!({"spec": {"replicas": 1}})).await, nobody);
    let flags = operator.manager("incident-operator-featureFlag");
    refused(
        flags.merge(&importer, json!({"spec": {"replicas": 1}})).await,
        "featureFlag may change data of configmaps",
    );
    // What it is there for.
    scale.merge(&importer, json!({"metadata": notes(), "spec": {"replicas": 0}})).await.expect("its field");
    let undone = json!({"metadata": {"annotations": {"incident-operator.dev/mit-12345678": null},
        "labels": {"incident-operator.dev/mitigated": null}}, "spec": {"replicas": 3}});
    scale.merge(&importer, undone).await.expect("and back");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_own_token_changes_nothing_of_a_config_map_but_data_and_keeps_only_its_record() {
    let namespace = TestNamespace::new("fenceflag").await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    namespace.create(configmap("theirs-postmortem", &[("a", "b")])).await;
    let operator = namespace.operator_by_token().await;
    let flags = configmap("flags", &[]);
    let flag = operator.manager("incident-operator-featureFlag");
    flag.merge(&flags, json!({"metadata": notes(), "data": {"a": "off"}})).await.expect("its field");
    refused(
        flag.merge(&flags, json!({"immutable": true})).await,
        "featureFlag may change data of configmaps",
    );
    let scale = operator.manager("incident-operator-scale");
    refused(scale.merge(&flags, json!({"data": {"a": "on"}})).await, "scale may change spec.replicas");
    let recorder = operator.manager("incident-operator");
    refused(recorder.merge(&flags, json!({"data": {"a": "on"}})).await, "may change nothing here");

    let record = |name: &str, by: &str| {
        let mut record = configmap(name, &[("postmortem.md", "text")]);
        record["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": by});
        record
    };
    recorder.create(&record("i-postmortem", "incident-operator")).await.expect("the record");
    let again = json!({"data": {"postmortem.md": "more text"}});
    recorder.merge(&record("i-postmortem", ""), again.clone()).await.expect("the record");
    // The record is no flag.
    let forged = json!({"metadata": notes(), "data": {"postmortem.md": "another text"}});
    let locked = "it is part of the record";
    refused(flag.merge(&record("i-postmortem", ""), forged).await, locked);
    let seized = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "incident-operator"}}});
    refused(flag.merge(&flags, seized).await, locked);
    refused(
        recorder.create(&record("evil", "incident-operator")).await,
        "may not CREATE configmaps \"evil\"",
    );
    refused(recorder.create(&record("x-postmortem", "somebody")).await, "may not CREATE configmaps");
    refused(
        recorder.merge(&record("theirs-postmortem", ""), again).await,
        "may not UPDATE configmaps \"theirs-postmortem\"",
    );
}

/// A role that is far too wide, as an admin might bind it by mistake.
async fn bind_too_much(namespace: &TestNamespace) {
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "too-much"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": SERVICE_ACCOUNT.0, "name": SERVICE_ACCOUNT.1}],
    }))
    .expect("well formed");
    namespace.api::<RoleBinding>().create(&PostParams::default(), &binding).await.expect("a binding");
    let operator = namespace.the_operator().await;
    wait_for(PATIENCE, "right of the operator", async || {
        let pods: Api<DynamicObject> = operator.api(&json!({"apiVersion": "v1", "kind": "Secret"}));
        pods.list(&ListParams::default()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_far_too_many_rights_the_operator_still_leaves_workloads_alone() {
    let namespace = TestNamespace::new("toomuch").await;
    namespace.create(deployment("importer", 3)).await;
    bind_too_much(&namespace).await;
    let operator = namespace.operator_by_token().await;
    let importer = deployment("importer", 3);
    refused(operator.delete(&importer).await, "may not DELETE deployments.apps \"importer\"");
    refused(operator.create(&deployment("evil", 1)).await, "may not CREATE deployments.apps \"evil\"");
    refused(
        operator.manager("incident-operator-scale").create(&deployment("evil", 1)).await,
        "may not CREATE deployments.apps",
    );
    let params = PatchParams::default();
    let scaled = operator
        .api(&importer)
        .patch_scale("importer", &params, &Patch::Merge(json!({"spec": {"replicas": 0}})))
        .await;
    refused(scaled.map_err(|e| e.to_string()), "may not UPDATE deployments.apps/scale");
    let config = configmap("theirs", &[("a", "b")]);
    namespace.create(config.clone()).await;
    refused(operator.delete(&config).await, "may not DELETE configmaps \"theirs\"");
}

/// Every action's line of the fence, with rights that are too wide, so that the fence alone decides.
#[tokio::test(flavor = "multi_thread")]
async fn each_action_changes_its_own_fields_and_no_others() {
    let namespace = TestNamespace::new("lines").await;
    bind_too_much(&namespace).await;
    let operator = namespace.operator_by_token().await;
    namespace.create(deployment("web", 1)).await;
    namespace.create(workload::statefulset("db", 1)).await;
    namespace
        .create(
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": {
        "schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "registry.example/main:1"}]}}}}}}),
        )
        .await;
    namespace
        .create(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/main:1"}]}}),
        )
        .await;
    namespace
        .create(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "shop"},
        "spec": {"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}}}))
        .await;
    let of = |api: &str, kind: &str, name: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}});
    let web = of("apps/v1", "Deployment", "web");
    let db = of("apps/v1", "StatefulSet", "db");
    let nightly = of("batch/v1", "CronJob", "nightly");
    let pod = of("v1", "Pod", "alone");
    let shop = of("networking.k8s.io/v1", "Ingress", "shop");
    let own = of("v1", "Namespace", &namespace.name);
    let runs = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
    let (earlier, image) = (runs("registry.example/main:0"), runs("registry.example/evil:1"));
    let annotated = |key: &str| json!({"spec": {"template": {"metadata": {"annotations": {key: "now"}}}}});
    let restart = annotated("restarted-for.incident-operator.dev/0123abcd");
    // An injector runs an image by it.
    let injected = annotated("sidecar.istio.io/proxyImage");
    // Manager, object, what it may change, what it may not.
    let lines = [
        ("featureFlag", &web, restart.clone(), image.clone()),
        ("featureFlag", &web, restart.clone(), injected.clone()),
        ("rollback", &web, earlier.clone(), json!({"spec": {"replicas": 0}})),
        ("rollback", &db, earlier, json!({"spec": {"replicas": 0}})),
        ("pauseRollout", &web, json!({"spec": {"paused": true}}), image.clone()),
        (
            "pauseRollout",
            &db,
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 9}}}}),
            json!({"spec": {"replicas": 0}}),
        ),
        ("suspend", &nightly, json!({"spec": {"suspend": true}}), json!({"spec": {"schedule": "* * * * *"}})),
        (
            "freeze",
            &own,
            json!({"metadata": {"annotations": {"freeze.incident-operator.dev/01234567": "x"}}}),
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
        ),
        ("blockWrites", &web, restart, injected),
        (
            "rateLimit",
            &shop,
            json!({"metadata": {"annotations": {"nginx.ingress.kubernetes.io/limit-rps": "5"}}}),
            json!({"metadata": {"annotations": {"nginx.ingress.kubernetes.io/configuration-snippet": "x"}}}),
        ),
        (
            "isolate",
            &pod,
            json!({"metadata": {"labels": {"app": null, "x": "y"}}}),
            json!({"spec": {"activeDeadlineSeconds": 1}}),
        ),
    ];
    for (action, object, may, may_not) in &lines {
        let manager = operator.manager(&format!("incident-operator-{action}"));
        refused(manager.merge(object, may_not.clone()).await, &format!("{action} may change"));
        let noted = json!({"metadata": notes()});
        let mut change = may.clone();
        json_patch::merge(&mut change, &noted);
        manager.merge(object, change).await.unwrap_or_else(|words| panic!("{action}: {words}"));
        let other = if *action == "scale" { "rollback" } else { "scale" };
        let other = operator.manager(&format!("incident-operator-{other}"));
        let undo = json!({"metadata": {"labels": {"x": "z"}}});
        refused(other.merge(object, undo).await, "scale may change spec.replicas");
    }
    // What an action makes bears its name and label, and nothing else is made or removed.
    let quota = |name: &str, by: &str| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": name, "labels": {"incident-operator.dev/mitigated": by}}, "spec": {"hard": {"count/jobs.batch": "0"}}})
    };
    let block = operator.manager("incident-operator-blockWrites");
    block.create(&quota("mit-0123abcd", "true")).await.expect("its own");
    refused(block.create(&quota("evil", "true")).await, "may not CREATE resourcequotas \"evil\"");
    refused(block.create(&quota("mit-0123abce", "false")).await, "may not CREATE resourcequotas");
    refused(
        operator.manager("incident-operator-scale").create(&quota("mit-0123abcf", "true")).await,
        "may not CREATE",
    );
    namespace.create(quota("theirs", "false")).await;
    refused(block.delete(&quota("theirs", "")).await, "may not DELETE resourcequotas \"theirs\"");
    block.delete(&quota("mit-0123abcd", "")).await.expect("its own");
    // The status that an action changes is fenced like all else.
    let scheduled = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}});
    let others = operator.manager("incident-operator-scale");
    refused(others.merge_status(&nightly, scheduled.clone()).await, "scale may change spec.replicas");
    operator.manager("incident-operator-suspend").merge_status(&nightly, scheduled).await.expect("its own");
    // A pod goes only when it was isolated, or when a StatefulSet makes it anew.
    operator.delete(&pod).await.expect("it has our note");
    let pods: Api<DynamicObject> = operator.api(&pod);
    let found = pods.list(&ListParams::default().labels("app=web")).await.expect("listed").items;
    refused(operator.delete(&of("v1", "Pod", &found[0].name_any())).await, "may not DELETE pods");
    wait_status(&pods, "db-0", "pod", |_| true).await;
    operator.delete(&of("v1", "Pod", "db-0")).await.expect("of a StatefulSet");
}

/// Every `resource.group` of rules of roles or of policies that has a subresource `status`.
fn statuses<'a>(rules: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let list = |rule: &'a Value, key: &str| rule[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rules
        .flat_map(|rule| {
            let groups = list(rule, "apiGroups");
            list(rule, "resources").into_iter().flat_map(move |resource| {
                let resource = text(&resource);
                let groups = groups.clone().into_iter().map(|group| text(&group));
                groups.map(move |group| format!("{resource}/{group}")).collect::<Vec<_>>()
            })
        })
        .filter(|found| found.contains("/status/"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fence_leaves_out_statuses_alone_and_none_that_a_role_of_the_operator_grants() {
    let get = |args: &[&str]| -> Value {
        let text = kubectl(&[&["get", "-o", "json"], args].concat());
        serde_json::from_str(&text.success()).expect("JSON")
    };
    let fence = get(&["validatingadmissionpolicy", "incident-operator-fence"]);
    let out = fence["spec"]["matchConstraints"]["excludeResourceRules"].as_array().expect("a list");
    let left_out = statuses(out.iter());
    assert_eq!(left_out.len(), out.len(), "only statuses, one a rule: {out:#?}");
    // What changes all the time costs nothing more.
    for busy in ["deployments/status/apps", "pods/status/", "jobs/status/batch"] {
        assert!(left_out.contains(busy), "{left_out:?}");
    }
    let roles = get(&["clusterroles", "-l", "app.kubernetes.io/part-of=incident-operator"]);
    let rules = roles["items"].as_array().expect("a list").iter();
    let granted = statuses(rules.flat_map(|role| role["rules"].as_array().into_iter().flatten()));
    assert!(granted.contains("cronjobs/status/batch"), "{granted:?}");
    assert!(left_out.is_disjoint(&granted), "{:?}", left_out.intersection(&granted).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_passes_the_type_check_of_the_api_server() {
    let text = kubectl(&[
        "get",
        "validatingadmissionpolicies",
        "-l",
        "app.kubernetes.io/part-of=incident-operator",
        "-o",
        "json",
    ]);
    let all: Value = serde_json::from_str(&text.success()).expect("JSON");
    let policies = all["items"].as_array().expect("a list");
    assert!(policies.len() >= 10, "the chart installs them all");
    for policy in policies {
        assert!(policy["status"]["typeChecking"]["expressionWarnings"].is_null(), "{:#}", policy["status"]);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    }
}
