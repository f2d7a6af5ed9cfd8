//! `featureFlag` in documents that others reshape or break meanwhile: the value that goes back is the one that was changed.

use super::mitigation::*;
use super::support::{workload, *};
use incident_operator::api::MitigationPhase as Phase;
use kube::core::DynamicObject;
use serde_json::{Value, json};

fn flag_in(name: &str, map: &str, flag: Value) -> Value {
    mitigation_of(name, "ConfigMap", map, json!({"featureFlag": flag}))
}

async fn write(namespace: &TestNamespace, map: &str, key: &str, text: &str) -> DynamicObject {
    edit(namespace, &workload::configmap(map, &[]), "editor", json!({"data": {key: text}})).await
}

async fn text(namespace: &TestNamespace, map: &str, key: &str) -> String {
    let map = present(namespace, &workload::configmap(map, &[])).await;
    map.data["data"][key].as_str().expect("it is text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_list_goes_back_where_it_is_by_then_and_no_other_is_touched() {
    let namespace = TestNamespace::new("flaglist").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let rules = |new: &str, promo: bool| {
        format!("rules:\n{new}- name: legacy\n  enabled: false\n- name: promo\n  enabled: {promo}\n")
    };
    let new = "- name: new\n  enabled: true\n";
    namespace.create(workload::configmap("flags", &[("f.yaml", &rules("", true))])).await;
    let flag = json!({"key": "f.yaml", "path": "rules.1.enabled", "value": "false"});
    namespace.create(flag_in("promo", "flags", flag)).await;
    effective(&namespace, "promo").await;
    assert_eq!(text(&namespace, "flags", "f.yaml").await, rules("", false));
    write(&namespace, "flags", "f.yaml", &rules(new, false)).await;
    release(&namespace, "promo");
    reaches(&namespace, "promo", Phase::Released).await;
    assert_eq!(text(&namespace, "flags", "f.yaml").await, rules(new, true));
}

/// Nobody changed the value: who saved a half edited document is not who ends a mitigation.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_broken_for_a_while_ends_nothing_and_its_value_goes_back_once_it_is_repaired() {
    let namespace = TestNamespace::new("flagbroken").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let cases = [
        ("a", "f.json", "a", r#"{"a":true,"b":1}"#, r#"{"a":false,"b":1,}"#, r#"{"a":false,"b":1}"#),
        ("b", "f.yaml", "a", "a: true\nb: x\n", "a: false\nb: \"x\n", "a: false\nb: x\n"),
        ("c", "f.ini", "a", "a = true\n", "a = false\n[n]\na = 7\n", "a = false\n[n]\nb = 7\n"),
    ];
    for (name, key, path, before, broken, repaired) in cases {
        namespace.create(workload::configmap(name, &[(key, before)])).await;
        let flag = json!({"key": key, "path": path, "value": "false"});
        namespace.create(flag_in(name, name, flag)).await;
        effective(&namespace, name).await;
        write(&namespace, name, key, broken).await;
        let told = says(&namespace, name, "Ready", "Unreadable").await;
        assert_eq!(phase_of(&told), Some(Phase::Active), "{name}");
        // A release waits, and says for what.
        release(&namespace, name);
        let waits = says(&namespace, name, "Ready", "ReleaseRefused").await;
        assert!(message(&waits, "Ready").contains("onRelease: Keep"), "{}", message(&waits, "Ready"));
        assert_eq!(text(&namespace, name, key).await, broken, "nothing is written meanwhile");
        write(&namespace, name, key, repaired).await;
        reaches(&namespace, name, Phase::Released).await;
        assert_eq!(text(&namespace, name, key).await, repaired.replace("false", "true"), "{name}");
    }
}

/// A section that comes later has a key of the same name: it is another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_section_stays_that_of_its_section() {
    let namespace = TestNamespace::new("flagini").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("a", &[("a.ini", "[x]\nk=1\n[y]\nz = 1\n")])).await;
    namespace.create(flag_in("z", "a", json!({"key": "a.ini", "path": "z", "value": "5"}))).await;
    effective(&namespace, "z").await;
    write(&namespace, "a", "a.ini", "[x]\nk=1\n[y]\nz = 5\n[n]\nz = 7\n").await;
    release(&namespace, "z");
    reaches(&namespace, "z", Phase::Released).await;
    assert_eq!(text(&namespace, "a", "a.ini").await, "[x]\nk=1\n[y]\nz = 1\n[n]\nz = 7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_broken_or_rounded_is_refused_and_not_written() {
    let namespace = TestNamespace::new("flagrefused").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut map = workload::configmap(
        "f",
        &[
            ("app.toml", "[db]\nmode = \"rw\"\n"),
            ("f.xml", "<a b=\"1\"/>"),
            ("f.json", r#"{"a":1,"n":null}"#),
            ("two.yaml", "a: 1\n---\na: 2\n"),
        ],
    );
    map["binaryData"] = json!({"bin": "AAAA"});
    namespace.create(map.clone()).await;
    let cases = [
        ("toml", json!({"key": "app.toml", "path": "mode", "value": "ro"}), "NotADocument", ".toml"),
        ("xml", json!({"key": "f.xml", "path": "<a b", "value": "2"}), "NotADocument", ".xml"),
        (
            "big",
            json!({"key": "f.json", "path": "a", "value": "18446744073709551617"}),
            "ValueType",
            "64 bits",
        ),
        ("two", json!({"key": "two.yaml", "path": "a", "value": "2"}), "NotADocument", "several documents"),
        ("bin", json!({"key": "bin", "value": "2"}), "KeyIsBinary", "binaryData"),
    ];
    for (name, flag, reason, words) in cases {
        namespace.create(flag_in(name, "f", flag)).await;
        let refused = says(&namespace, name, "Stalled", reason).await;
        assert_eq!(phase_of(&refused), Some(Phase::Refused), "{name}");
        assert!(message(&refused, "Stalled").contains(words), "{}", message(&refused, "Stalled"));
    }
    let after = present(&namespace, &map).await;
    assert_eq!((&after.data["data"], &after.data["binaryData"]), (&map["data"], &map["binaryData"]));
    // What says nothing of its type gets a bool where a bool is stated.
    namespace.create(flag_in("null", "f", json!({"key": "f.json", "path": "n", "value": "false"}))).await;
    effective(&namespace, "null").await;
    assert_eq!(text(&namespace, "f", "f.json").await, r#"{"a":1,"n":false}"#);
    release(&namespace, "null");
    reaches(&namespace, "null", Phase::Released).await;
    assert_eq!(text(&namespace, "f", "f.json").await, r#"{"a":1,"n":null}"#);
}

/// The mitigation ended, and what it changed is what somebody wants by now.
#[tokio::test(flavor = "multi_thread")]
async fn who_applies_the_value_of_a_mitigation_meanwhile_keeps_it() {
    let namespace = TestNamespace::new("adopted").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let params = kube::api::PatchParams::apply("my-engine").force();
    let mut web = workload::deployment("web", 3);
    let api: kube::api::Api<k8s_openapi::api::apps::v1::Deployment> = namespace.api();
    api.patch("web", &params, &kube::api::Patch::Apply(&web)).await.expect("it can be applied");
    namespace.create(scale("stop", "Deployment", "web", 1)).await;
    until(&namespace, "stop", "the change", |m| phase_of(m) == Some(Phase::Active)).await;
    web["spec"]["replicas"] = 1.into();
    api.patch("web", &params, &kube::api::Patch::Apply(&web)).await.expect("it can be applied");
    release(&namespace, "stop");
    let ended = reaches(&namespace, "stop", Phase::Superseded).await;
    assert!(message(&ended, "Ready").contains("my-engine"), "{}", message(&ended, "Ready"));
    let after = present(&namespace, &web).await;
    assert_eq!(after.data["spec"]["replicas"], 1);
    assert_eq!(marks(&after), Vec::<String>::new());
}
