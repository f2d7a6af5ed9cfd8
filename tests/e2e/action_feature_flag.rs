//! `featureFlag` inside documents, and the workloads that read it.

use super::mitigation::*;
use super::support::{workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};

const FLAGD: &str = r#"{
  "flags": {
    "new-pricing": {"state": "ENABLED", "variants": {"on": true, "off": false},
      "defaultVariant": "on",  "targeting": {"if": [{"in": ["@corp", {"var": "email"}]}, "on", "off"]}}
  }
}
"#;

const YAML: &str = "# of the shop\nlimits:\n  import: 100   # per second\n  export: 5\n";

fn documents() -> Value {
    workload::configmap(
        "flags",
        &[("flags.json", FLAGD), ("app.yaml", YAML), ("app.properties", "beta=on\nx=1\n")],
    )
}

fn flag_in(name: &str, key: &str, path: &str, more: Value) -> Value {
    let mut block = json!({"key": key, "path": path});
    for (field, value) in more.as_object().expect("an object") {
        block[field] = value.clone();
    }
    mitigation_of(name, "ConfigMap", "flags", json!({"featureFlag": block}))
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_documents_change_alone_and_the_documents_come_back_byte_by_byte() {
    let namespace = TestNamespace::new("documents").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(documents()).await;
    namespace
        .create(flag_in(
            "price",
            "flags.json",
            "new-pricing",
            json!({"mode": "ForceVariant", "value": "off"}),
        ))
        .await;
    namespace.create(flag_in("import", "app.yaml", "limits.import", json!({"value": "0"}))).await;
    namespace.create(flag_in("beta", "app.properties", "beta", json!({"value": "off"}))).await;
    for name in ["price", "import", "beta"] {
        effective(&namespace, name).await;
    }
    let price = effective(&namespace, "price").await;
    let words = message(&price, "Applied");
    assert!(words.contains(r#"targeting is emptied, it was {"if": [{"in": ["@corp""#), "{words}");
    assert!(!words.contains("raw"), "no encoding of ours: {words}");
    let held = present(&namespace, &documents()).await;
    let text = |key: &str| held.data["data"][key].as_str().expect("it is text").to_owned();
    assert_eq!(text("app.yaml"), YAML.replace("100", "0"));
    assert_eq!(text("app.properties"), "beta=off\nx=1\n");
    assert!(
        text("flags.json").contains(r#""defaultVariant": "off",  "targeting": {}"#),
        "{}",
        text("flags.json")
    );
    // Another value of the same document is somebody else's, and stays as they make it.
    let edited = text("app.yaml").replace("export: 5", "export: 7");
    edit(&namespace, &documents(), "kubectl-edit", json!({"data": {"app.yaml": edited}})).await;
    operator.restart().await;
    for name in ["import", "price", "beta"] {
        delete(&namespace, name).await;
    }
    let after = present(&namespace, &documents()).await;
    assert_eq!(after.data["data"]["app.yaml"], YAML.replace("export: 5", "export: 7"));
    assert_eq!(after.data["data"]["flags.json"], FLAGD);
    assert_eq!(after.data["data"]["app.properties"], "beta=on\nx=1\n");
    assert!(marks(&after).is_empty());
}

/// `on` is no `true` for everybody who reads the file, and null is a value.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_document_come_back_as_they_were_written() {
    const WRITTEN: &str = "beta: on # why\nmode: 0644\nratio: 1.50\nnothing: ~\ntext: 'v1'\n";
    let namespace = TestNamespace::new("spelling").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let map = workload::configmap(
        "flags",
        &[("app.yaml", WRITTEN), ("x.json", r#"{"n": null, "big": 12345678901234567890123}"#)],
    );
    namespace.create(map.clone()).await;
    let cases = [
        ("beta", "app.yaml", "off"),
        ("mode", "app.yaml", "7"),
        ("ratio", "app.yaml", "2"),
        ("nothing", "app.yaml", "x"),
        ("text", "app.yaml", "0777"),
        ("n", "x.json", "x"),
        ("big", "x.json", "1"),
    ];
    for (path, key, value) in cases {
        namespace.create(flag_in(path, key, path, json!({"value": value}))).await;
        effective(&namespace, path).await;
    }
    let held = present(&namespace, &map).await;
    assert!(
        held.data["data"]["app.yaml"].as_str().unwrap().starts_with("beta: off # why\n"),
        "{}",
        held.data
    );
    operator.restart().await;
    for (path, _, _) in cases {
        delete(&namespace, path).await;
    }
    let after = present(&namespace, &map).await;
    assert_eq!(after.data["data"], map["data"]);
    assert!(marks(&after).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mitigations_of_one_document_hold_different_values_and_of_one_value_the_second_waits() {
    let namespace = TestNamespace::new("onedoc").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(documents()).await;
    namespace.create(flag_in("import", "app.yaml", "limits.import", json!({"value": "0"}))).await;
    effective(&namespace, "import").await;
    namespace.create(flag_in("export", "app.yaml", "limits.export", json!({"value": "0"}))).await;
    effective(&namespace, "export").await;
    namespace.create(flag_in("again", "app.yaml", "limits.import", json!({"value": "1"}))).await;
    says(&namespace, "again", "Ready", "FieldBusy").await;
    delete(&namespace, "import").await;
    effective(&namespace, "again").await;
    for name in ["again", "export"] {
        delete(&namespace, name).await;
    }
    assert_eq!(present(&namespace, &documents()).await.data["data"]["app.yaml"], YAML);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_document_does_not_have_is_refused_with_what_it_has() {
    let namespace = TestNamespace::new("nopath").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(documents()).await;
    let forced =
        flag_in("plan", "flags.json", "new-pricing", json!({"mode": "ForceVariant", "value": "off"}));
    namespace.create(with(forced, json!({"dryRun": true}))).await;
    let planned = says(&namespace, "plan", "Ready", "DryRun").await;
    let plan = planned.status.and_then(|s| s.plan).expect("it is planned");
    assert!(plan.summary.ends_with("and flags.new-pricing.targeting is emptied"), "{}", plan.summary);
    let targeting = plan.changes.last().expect("two changes");
    assert!(targeting.from.starts_with(r#"{"if": [{"in""#) && targeting.to == "{}", "{targeting:?}");
    for (name, object, reason) in [
        ("path", flag_in("path", "app.yaml", "limits.nope", json!({"value": "0"})), "PathNotFound"),
        ("type", flag_in("type", "app.yaml", "limits.import", json!({"value": "many"})), "ValueType"),
        ("flag", flag_in("flag", "flags.json", "old-pricing", json!({"mode": "Disable"})), "FlagNotFound"),
    ] {
        namespace.create(object).await;
        let refused = reaches(&namespace, name, Phase::Refused).await;
        assert_eq!(condition(&refused, "Stalled").map(|c| c.reason.as_str()), Some(reason));
        let words = message(&refused, "Stalled");
        assert!(name != "path" || words.contains("(limits has export, import)"), "{words}");
    }
    assert!(marks(&present(&namespace, &documents()).await).is_empty());
}

/// A Deployment that reads the ConfigMap when it starts.
fn reader(name: &str) -> Value {
    let mut web = workload::deployment(name, 2);
    web["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "switches"}}]);
    web
}

/// The times of containers are whole seconds: what starts in the same second as a change may have read either value.
async fn next_second() {
    let since = k8s_openapi::jiff::Timestamp::now().as_second();
    wait_for(PATIENCE, "the next second", async || {
        (k8s_openapi::jiff::Timestamp::now().as_second() > since).then_some(())
    })
    .await;
}

/// By environment and by one path of a volume it is read once, by the whole volume again and again.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_the_flag_is_told_by_the_way_in_which_it_is_read() {
    let namespace = TestNamespace::new("readers").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    // Ten characters as kustomize appends them.
    let map = "switches-2k4b8fm6h7";
    namespace.create(workload::configmap(map, &[("beta", "on"), ("flags.json", FLAGD)])).await;
    let reads = |name: &str, container: Value| {
        let mut reader = workload::deployment(name, 1);
        let template = &mut reader["spec"]["template"]["spec"];
        template["volumes"] = json!([{"name": "v", "configMap": {"name": map}}]);
        for (field, value) in container.as_object().expect("an object") {
            template["containers"][0][field] = value.clone();
        }
        reader
    };
    let env = json!({"env": [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": map, "key": "beta"}}}]});
    let one_path = json!({"volumeMounts": [{"name": "v", "mountPath": "/beta", "subPath": "beta"}]});
    let whole = json!({"volumeMounts": [{"name": "v", "mountPath": "/flags"}]});
    for (name, container) in [("by-env", env), ("by-path", one_path), ("by-volume", whole)] {
        namespace.create_ready(reads(name, container)).await;
    }
    next_second().await;
    namespace.create(flag("named", map, "beta", "off")).await;
    let told = says(&namespace, "named", "Effective", "NeedsRestart").await;
    let words = message(&told, "Effective");
    assert!(words.contains("Deployment/by-env, Deployment/by-path read it"), "{words}");
    assert!(!words.contains("by-volume"), "it sees it by itself: {words}");
    delete(&namespace, "named").await;
    // Of the other key the volume alone tells.
    let disable = json!({"featureFlag": {"key": "flags.json", "path": "new-pricing", "mode": "Disable"}});
    let asked = mitigation_of("disable", "ConfigMap", map, disable.clone());
    namespace.create(with(asked, json!({"dryRun": true}))).await;
    let planned = says(&namespace, "disable", "Ready", "DryRun").await;
    let warnings = planned.status.and_then(|s| s.plan).expect("it is planned").warnings.join("; ");
    assert!(warnings.contains("looks like a generated name"), "{warnings}");
    assert!(warnings.contains("coded default"), "{warnings}");
    namespace.create(mitigation_of("really", "ConfigMap", map, disable)).await;
    until(&namespace, "really", "take", |m| is(m, "Applied", ConditionStatus::True)).await;
    let held = present(&namespace, &workload::configmap(map, &[])).await;
    let text = held.data["data"]["flags.json"].as_str().expect("it is text");
    assert_eq!(text, FLAGD.replace("ENABLED", "DISABLED"));
    delete(&namespace, "really").await;
    let after = present(&namespace, &workload::configmap(map, &[])).await;
    assert_eq!(after.data["data"]["flags.json"], FLAGD);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_read_the_flag_when_they_start_are_named_and_restarted_when_that_is_asked_for() {
    let namespace = TestNamespace::new("consumers").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let switches = workload::configmap("switches", &[("beta", "on"), ("gamma", "on")]);
    namespace.create(switches).await;
    namespace.create_ready(reader("web")).await;
    namespace.create_ready(reader("other")).await;
    next_second().await;
    namespace.create(flag("named", "switches", "beta", "off")).await;
    let told = says(&namespace, "named", "Effective", "NeedsRestart").await;
    let words = message(&told, "Effective");
    assert!(words.contains("Deployment/other, Deployment/web read it"), "{words}");
    assert!(words.ends_with("restart them, or set restartConsumers"), "{words}");
    // Somebody restarts them by hand: that is seen.
    next_second().await;
    namespace.kubectl(&["rollout", "restart", "deployment/web", "deployment/other"]).success();
    effective(&namespace, "named").await;
    delete(&namespace, "named").await;

    let revision = async |wanted: i64| {
        wait_for(PATIENCE, &format!("revision {wanted} of web"), async || {
            let web = namespace.api::<Deployment>().get("web").await.ok()?;
            let revision =
                web.metadata.annotations?.get("deployment.kubernetes.io/revision")?.parse::<i64>().ok()?;
            (wanted == 0 || revision == wanted).then_some(revision)
        })
        .await
    };
    let before = revision(0).await;
    let restarting = json!({"featureFlag": {"key": "gamma", "value": "off", "restartConsumers": true}});
    namespace.create(mitigation_of("restarted", "ConfigMap", "switches", restarting)).await;
    let held = effective(&namespace, "restarted").await;
    let names: Vec<String> = held.status.iter().flat_map(|s| &s.objects).map(|o| o.name.clone()).collect();
    assert_eq!(names, ["switches", "other", "web"]);
    revision(before + 1).await;
    delete(&namespace, "restarted").await;
    // The release restarts them once more.
    revision(before + 2).await;
    let web = present(&namespace, &reader("web")).await;
    assert!(marks(&web).is_empty() && !web.data.to_string().contains("restarted-for"), "{}", web.data);
}

/// Nothing makes a bare pod anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_nothing_restarts_is_named_in_the_plan_and_at_once_after_the_change() {
    let namespace = TestNamespace::new("bare").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("switches", &[("beta", "on")])).await;
    let mut bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}});
    bare["spec"] = reader("web")["spec"]["template"]["spec"].clone();
    namespace.create(bare).await;
    wait_status(&namespace.api::<Pod>(), "bare", "start", |pod: &Pod| {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        statuses.filter_map(|s| s.state.as_ref()).any(|state| state.running.is_some())
    })
    .await;
    next_second().await;
    let block = json!({"featureFlag": {"key": "beta", "value": "off", "restartConsumers": true}});
    let asked = mitigation_of("plan", "ConfigMap", "switches", block.clone());
    namespace.create(with(asked, json!({"dryRun": true}))).await;
    let planned = says(&namespace, "plan", "Ready", "DryRun").await;
    let warnings = planned.status.and_then(|s| s.plan).expect("it is planned").warnings;
    assert!(warnings.iter().any(|w| w.starts_with("Pod/bare is not restarted")), "{warnings:?}");
    namespace.create(mitigation_of("really", "ConfigMap", "switches", block)).await;
    let told = says(&namespace, "really", "Effective", "NeedsRestart").await;
    let words = message(&told, "Effective");
    assert!(words.contains("Pod/bare") && !words.contains("or set restartConsumers"), "{words}");
    delete(&namespace, "really").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_incidents_is_no_flag_whoever_asks_for_it() {
    let namespace = TestNamespace::new("recordflag").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let operator = namespace.the_operator().await;
    let mut record = workload::configmap("pm-postmortem", &[("postmortem.md", "what happened")]);
    record["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "incident-operator"});
    operator.manager("incident-operator").create(&record).await.expect("it is the operator's");
    let forge = flag("forge", "pm-postmortem", "postmortem.md", "what did not happen");
    let block = mitigation_of(
        "block",
        "ConfigMap",
        "pm-postmortem",
        json!({"blockWrites": {"level": "Flag", "flag": {"key": "postmortem.md", "value": "nothing"}}}),
    );
    for (name, object) in [("forge", &forge), ("block", &block)] {
        namespace.apply(&object.to_string()).expect("admission cannot know");
        let m = reaches(&namespace, name, Phase::Refused).await;
        assert_eq!(condition(&m, "Ready").expect("it is there").reason, "RecordLocked");
        assert!(message(&m, "Ready").contains("part of the record"), "{}", message(&m, "Ready"));
    }
    let kept = namespace.api::<ConfigMap>().get("pm-postmortem").await.expect("it exists");
    assert_eq!(kept.data.expect("data")["postmortem.md"], "what happened");
}
