//! `featureFlag` with `restartConsumers`, while its readers are stopped, rolled back and restarted by others.

use super::mitigation::*;
use super::support::record::{entry_phase, incident_when};
use super::support::{workload, *};
use incident_operator::api::{Incident, Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

/// A Deployment that reads the ConfigMap `switches` when it starts. Its template has no annotations.
fn reader(name: &str) -> Value {
    let mut web = workload::deployment(name, 2);
    web["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "switches"}}]);
    web
}

fn off(name: &str, key: &str) -> Value {
    mitigation_of(name, "ConfigMap", "switches", off_and_restart(key))
}

fn off_and_restart(key: &str) -> Value {
    json!({"featureFlag": {"key": key, "value": "off", "restartConsumers": true}})
}

async fn shop(namespace: &TestNamespace) {
    namespace.create(workload::configmap("switches", &[("beta", "on"), ("gamma", "on")])).await;
    namespace.create_ready(reader("web")).await;
}

async fn switch(namespace: &TestNamespace, key: &str) -> String {
    let map = namespace.api::<ConfigMap>().get("switches").await.expect("it exists");
    map.data.expect("it has data")[key].clone()
}

/// The annotations of the template of `web`.
async fn annotations(namespace: &TestNamespace) -> Vec<String> {
    let web = namespace.api::<Deployment>().get("web").await.expect("it exists");
    let template = web.spec.expect("it has a spec").template.metadata.unwrap_or_default();
    template.annotations.unwrap_or_default().into_keys().collect()
}

/// Between the look at the pods and the change of the last object there may be no pod left to restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_flag_stays_off_when_its_reader_is_stopped_by_the_same_incident() {
    let namespace = TestNamespace::new("stopread").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    let mut stop =
        json!({"name": "stop", "reason": "test", "targetRef": {"kind": "Deployment", "name": "web"}});
    stop["scale"] = json!({"replicas": 0});
    let mut flag = off_and_restart("beta");
    for (field, value) in [
        ("name", json!("flag")),
        ("reason", json!("test")),
        ("targetRef", json!({"kind": "ConfigMap", "name": "switches"})),
    ] {
        flag[field] = value;
    }
    namespace.create(workload::incident("both", json!({"title": "both", "mitigations": [stop, flag]}))).await;
    incident_when(&namespace, "both", "both in force", |incident| {
        ["stop", "flag"].iter().all(|entry| entry_phase(incident, entry) == "Active")
    })
    .await;
    for name in ["both-stop", "both-flag"] {
        effective(&namespace, name).await;
    }
    assert_eq!(switch(&namespace, "beta").await, "off");
    namespace.api::<Incident>().delete("both", &Default::default()).await.expect("it can be deleted");
    for name in ["both-stop", "both-flag"] {
        wait_gone(&namespace.api::<Mitigation>(), name).await;
    }
    assert_eq!(switch(&namespace, "beta").await, "on");
    assert!(annotations(&namespace).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_rolls_a_restarted_reader_back_does_not_switch_the_flag_on_again() {
    let namespace = TestNamespace::new("undoread").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    namespace.create(off("flag", "beta")).await;
    effective(&namespace, "flag").await;
    namespace.kubectl(&["rollout", "undo", "deployment/web"]).success();
    let left = until(&namespace, "flag", "that the reader is left alone", |m| {
        message(m, "Contested").contains("got another template")
    })
    .await;
    assert_eq!(left.status.and_then(|s| s.phase), Some(Phase::Active));
    effective(&namespace, "flag").await;
    assert_eq!(switch(&namespace, "beta").await, "off");
    let web = present(&namespace, &reader("web")).await;
    assert!(marks(&web).is_empty(), "{:?}", marks(&web));
    release(&namespace, "flag");
    let released = reaches(&namespace, "flag", Phase::Released).await;
    let told = message(&released, "Ready");
    assert!(told.contains("Deployment/web") && told.contains("does not restart"), "{told}");
    assert_eq!(switch(&namespace, "beta").await, "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_add_to_the_template_of_a_restarted_reader_stays() {
    let namespace = TestNamespace::new("addread").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    namespace.create(off("flag", "beta")).await;
    effective(&namespace, "flag").await;
    namespace.kubectl(&["rollout", "restart", "deployment/web"]).success();
    delete(&namespace, "flag").await;
    assert_eq!(switch(&namespace, "beta").await, "on");
    assert_eq!(annotations(&namespace).await, ["kubectl.kubernetes.io/restartedAt"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_rollout_is_paused_is_named_with_what_restarts_it() {
    let namespace = TestNamespace::new("pausedread").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    namespace.kubectl(&["rollout", "pause", "deployment/web"]).success();
    namespace.create(with(off("look", "beta"), json!({"dryRun": true}))).await;
    let planned = until(&namespace, "look", "a plan", |m| {
        m.status.as_ref().and_then(|status| status.plan.as_ref()).is_some()
    })
    .await;
    let plan = serde_json::to_string(&planned.status.unwrap().plan).unwrap();
    assert!(plan.contains("Deployment/web gets no new pods by itself"), "{plan}");
    namespace.create(off("flag", "beta")).await;
    let waiting = says(&namespace, "flag", "Effective", "NeedsRestart").await;
    let words = message(&waiting, "Effective");
    assert!(words.contains("its rollout is paused: resume it"), "{words}");
    namespace.kubectl(&["rollout", "resume", "deployment/web"]).success();
    effective(&namespace, "flag").await;
    delete(&namespace, "flag").await;
    assert_eq!(switch(&namespace, "beta").await, "on");
    assert!(annotations(&namespace).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_flags_with_one_reader_are_both_off_and_both_come_back() {
    let namespace = TestNamespace::new("tworead").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    for (name, key) in [("one", "beta"), ("two", "gamma")] {
        namespace.create(off(name, key)).await;
    }
    for name in ["one", "two"] {
        effective(&namespace, name).await;
    }
    assert_eq!(
        (switch(&namespace, "beta").await, switch(&namespace, "gamma").await),
        ("off".into(), "off".into())
    );
    delete(&namespace, "one").await;
    assert_eq!(
        (switch(&namespace, "beta").await, switch(&namespace, "gamma").await),
        ("on".into(), "off".into())
    );
    effective(&namespace, "two").await;
    assert_eq!(annotations(&namespace).await.len(), 1, "the other one is restarted still");
    delete(&namespace, "two").await;
    assert_eq!(switch(&namespace, "gamma").await, "on");
    assert!(annotations(&namespace).await.is_empty());
}
