//! What is kept of what goes, before it goes.

use super::mitigation::*;
use super::support::{audit, workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// Gives the pods of the namespace a log.
fn logs(namespace: &TestNamespace, lines: &[&str]) -> PathBuf {
    let dir = Cluster::dir().join("logs-of-pods");
    fs::create_dir_all(&dir).expect("the folder of the tests is writable");
    let file = dir.join(format!("{}.log", namespace.name));
    let text: String = lines.iter().map(|line| format!("2026-11-23T10:00:00Z stdout F {line}\n")).collect();
    fs::write(&file, text).expect("it is writable");
    let object = json!({"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "ClusterLogs",
        "metadata": {"name": namespace.name},
        "spec": {"selector": {"matchNamespaces": [namespace.name]},
            "logs": [{"containers": ["main"], "logsFile": file, "previousLogsFile": file}]}});
    cluster::kubectl_with(&["apply", "-f", "-"], &object.to_string()).success();
    file
}

async fn kept(namespace: &TestNamespace, name: &str) -> (String, ConfigMap) {
    let mitigation = until(namespace, name, "evidence", |m| {
        m.status.as_ref().is_some_and(|status| status.evidence.is_some())
    })
    .await;
    let evidence = mitigation.status.and_then(|status| status.evidence).expect("it is there");
    let map = namespace.api::<ConfigMap>().get(&evidence.config_map).await.expect("it exists");
    (evidence.sha256, map)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_manifests_and_events_are_kept_without_secrets_before_the_pods_go() {
    let namespace = TestNamespace::new("evidence").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let mut web = workload::deployment("web", 2);
    web["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "MODE", "value": "fast"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k", "optional": true}}}]);
    namespace.create_ready(web).await;
    let lines = [
        "결제 실패: connection pool exhausted",
        "login with password=hunter2",
        r#"{"msg":"{\"authorization\":\"Basic hunter2\"}"}"#,
    ];
    let _file = logs(&namespace, &lines);
    wait_for(PATIENCE, "the log to be served", async || {
        let out = namespace.kubectl(&["logs", "deployment/web"]);
        out.stdout.contains("pool exhausted").then_some(())
    })
    .await;
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"evidence": "Required"}))).await;
    let held = effective(&namespace, "stop").await;
    assert!(is(&held, "EvidenceCaptured", ConditionStatus::True), "{}", message(&held, "EvidenceCaptured"));
    let (hash, map) = kept(&namespace, "stop").await;
    assert_eq!(map.immutable, Some(true));
    let data = map.data.clone().unwrap_or_default();
    let all = format!("{data:?}");
    assert!(!all.contains("hunter2"), "{all}");
    let logs: Vec<&String> =
        data.iter().filter(|(name, _)| name.ends_with(".log")).map(|(_, log)| log).collect();
    assert_eq!(logs.len(), 2, "{:?}", data.keys());
    assert!(logs.iter().all(|log| log.contains("결제 실패") && log.contains("[REDACTED]")), "{logs:?}");
    let escaped = r#"{"msg":"{\"authorization\":\"Basic [REDACTED]\"}"}"#;
    assert!(logs.iter().all(|log| log.contains(escaped)), "{logs:?}");
    let manifest: Value = serde_saphyr::from_str(&data["Deployment.web.yaml"]).expect("it is YAML still");
    assert_eq!(manifest["spec"]["replicas"], 2);
    let env = &manifest["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[0]["value"], "[REDACTED]");
    assert_eq!(env[2]["valueFrom"]["secretKeyRef"], json!({"name": "sec", "key": "k", "optional": true}));
    assert!(data.contains_key("events.txt"));
    // It outlives the mitigation, and nothing is read twice.
    operator.restart().await;
    delete(&namespace, "stop").await;
    let name = map.metadata.name.expect("it has a name");
    let after = namespace.api::<ConfigMap>().get(&name).await.expect("it is still there");
    assert_eq!(after.data, map.data);
    assert_eq!(hash, incident_operator::mitigation::evidence::sha256(&data));
}

/// The pods of a CronJob are two owners away, and what a container said before it was restarted tells why it was.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_cronjob_whose_jobs_are_deleted_the_logs_of_their_pods_are_kept() {
    let namespace = TestNamespace::new("evidencecron").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let _file = logs(&namespace, &["import broke off"]);
    let report = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report"},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "OnFailure", "nodeSelector": {"no": "where"}, "containers": [{"name": "main", "image": "registry.example/main:1"}]}}}}}});
    namespace.create(report.clone()).await;
    let missed = json!({"status": {"lastScheduleTime": "2025-06-01T00:00:00Z"}}).to_string();
    namespace
        .kubectl(&["patch", "cronjob", "report", "--subresource=status", "--type=merge", "-p", &missed])
        .success();
    let pod = wait_for(PATIENCE, "a pod of the Job", async || {
        namespace.api::<Pod>().list(&Default::default()).await.ok()?.items.pop()
    })
    .await;
    let name = pod.name_any();
    // A pod whose phase is not known goes on, and nothing here plays its kubelet.
    let restarted = json!({"status": {"phase": "Unknown", "containerStatuses": [{"name": "main", "image": "i", "imageID": "",
        "ready": false, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
    let patch = Patch::Merge(&restarted);
    let patched = namespace.api::<Pod>().patch_status(&name, &PatchParams::default(), &patch).await;
    patched.expect("its status can be written");
    let node = kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).success();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", namespace.name);
    cluster::kubectl_with(&["create", "--raw", &path, "-f", "-"], &binding.to_string()).success();
    let stop = mitigation_of("stop", "CronJob", "report", json!({"suspend": {"runningJobs": "Delete"}}));
    namespace.create(with(stop, json!({"evidence": "Required"}))).await;
    let held = effective(&namespace, "stop").await;
    let (_, map) = kept(&namespace, "stop").await;
    let data = map.data.unwrap_or_default();
    for item in [format!("pod.{name}.main.log"), format!("pod.{name}.main.previous.log")] {
        let text = data.get(&item).unwrap_or_else(|| panic!("no {item}: {:?}", data.keys()));
        assert!(text.contains("import broke off"), "{text}");
    }
    assert!(
        data.contains_key(&format!("pod.{name}.status.yaml")) && data.contains_key("CronJob.report.yaml")
    );
    let told = condition(&held, "EvidenceCaptured").expect("it is told");
    assert_eq!(told.reason, "Captured", "{}", told.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_told_and_delays_nothing_unless_it_is_required() {
    let namespace = TestNamespace::new("noevidence").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["web", "other"] {
        namespace.create_ready(workload::deployment(name, 1)).await;
    }
    let _file = logs(&namespace, &["x"]);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
        "spec": {"hard": {"count/configmaps": "0"}}});
    namespace.create(quota.clone()).await;
    wait_for(PATIENCE, "the quota to be in force", async || {
        let quota = present(&namespace, &quota).await;
        quota.data.pointer("/status/hard").is_some().then_some(())
    })
    .await;
    namespace.create(with(scale("must", "Deployment", "other", 0), json!({"evidence": "Required"}))).await;
    let refused = reaches(&namespace, "must", Phase::Refused).await;
    assert_eq!(condition(&refused, "Stalled").map(|c| c.reason.as_str()), Some("EvidenceFailed"));
    assert!(marks(&present(&namespace, &workload::deployment("other", 1)).await).is_empty());
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    let held = effective(&namespace, "stop").await;
    assert!(is(&held, "EvidenceCaptured", ConditionStatus::False));
    assert!(message(&held, "EvidenceCaptured").contains("quota"), "{}", message(&held, "EvidenceCaptured"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_evidence_nothing_is_listed_and_the_target_is_read_once() {
    let namespace = TestNamespace::new("unasked").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let mark = audit::mark();
    let stop: Value = with(scale("stop", "Deployment", "web", 0), json!({"evidence": "None"}));
    namespace.create(stop).await;
    let held = effective(&namespace, "stop").await;
    assert_eq!(condition(&held, "EvidenceCaptured").map(|c| c.reason.as_str()), Some("NotRequested"));
    let requests = operator.requests_once_quiet(mark, std::time::Duration::from_millis(300)).await;
    assert!(requests.iter().all(|r| r.verb != "list"), "{requests:?}");
    assert_eq!(requests.iter().filter(|r| r.verb == "get" && r.resource == "deployments").count(), 1);
    assert!(requests.iter().all(|r| r.subresource != "log"));
}
