//! Input at its limits, and input that this version cannot read.

use super::support::parts::{born, store};
use super::support::record::{incident_says, incident_when, says, told};
use super::support::workload::{configmap, entry, incident};
use super::support::*;
use incident_operator::api::{GROUP, Incident, Mitigation, TimelineEntry};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A time that no clock knows. The schema refuses it; what was stored before it did may hold it.
const NO_TIME: &str = "9999-12-31T23:59:59Z";

fn off(key: &str, value: &str) -> Value {
    json!({
        "name": key, "reason": "결".repeat(1024), "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": key, "value": value},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_with_every_field_at_its_limit_is_worked_on_like_any_other() {
    let namespace = TestNamespace::new("large").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let keys: Vec<String> = (0..8).map(|n| format!("flag-{n}")).collect();
    namespace.create(configmap("flags", &keys.iter().map(|k| (k.as_str(), "on")).collect::<Vec<_>>())).await;
    let text = |n: usize| "긴".repeat(n);
    let numbered = |n: usize, length: usize| format!("{n:02}{}", "급".repeat(length - 2));
    let value = text(4096);
    let spec = json!({
        "title": text(256), "severity": "SEV2", "severityReason": text(1024), "service": text(253),
        "detection": {"source": "Alert", "reference": text(2048)},
        "roles": {
            "incidentCommander": text(253), "communicationsLead": text(253), "operationsLead": text(253),
            "deputy": text(253), "scribe": text(253),
        },
        "impact": {
            "summary": text(1024), "affectedTenants": i64::MAX, "dataAtRisk": "Confirmed",
            "affectedFeatures": vec![text(253); 64],
            "components": (0..32).map(|n| json!({"name": numbered(n, 253), "state": "MajorOutage"})).collect::<Vec<_>>(),
        },
        "mitigations": keys.iter().map(|key| off(key, &value)).collect::<Vec<_>>(),
        "noMitigationNeeded": text(1024),
        "exitCriteria": (0..32).map(|n| json!({"description": numbered(n, 512)})).collect::<Vec<_>>(),
        "resolution": {
            "summary": text(4096),
            "waivers": (0..16).map(|n| json!({"mitigation": numbered(n, 253), "reason": text(1024)})).collect::<Vec<_>>(),
        },
    });
    let mut large = incident("large", spec);
    // And as many annotations as an object may have.
    large["metadata"]["annotations"] = json!({"example.com/notes": "x".repeat(250 * 1024)});
    let size = large.to_string().len();
    assert!(size > 500_000, "{size} bytes");
    namespace.create(large).await;
    let done =
        incident_when(&namespace, "large", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
            .await;
    assert!(incident_says(&done, "Resolved").contains("exit criteria are not done"));
    let flags =
        namespace.api::<ConfigMap>().get("flags").await.expect("it exists").data.expect("it has data");
    assert!(flags.values().all(|v| *v == value));
    namespace.create(entry("large", "Note", &text(4096))).await;
    incident_when(&namespace, "large", "note", |i| told(i, "Note").len() == 1).await;
    let note = wait_for(PATIENCE, "Event of the note", async || {
        let events = namespace.api::<Event>().list(&ListParams::default()).await.ok()?.items;
        events.into_iter().find(|e| e.reason.as_deref() == Some("Note"))?.note
    })
    .await;
    assert!(note.len() <= 1024 && note.starts_with("긴긴") && note.ends_with('…'), "{note}");
    namespace.api::<Incident>().delete("large", &DeleteParams::default()).await.expect("deleted");
    wait_status(&namespace.api::<ConfigMap>(), "flags", "flags as before", |c| {
        c.data.as_ref().is_some_and(|d| d.values().all(|v| v == "on")) && marks(c).is_empty()
    })
    .await;
    let failed: Vec<_> =
        operator.log().lines().filter(|l| l.contains("visit failed")).map(str::to_owned).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_that_cannot_be_read_is_told_so_and_stops_nothing_else() {
    let namespace = TestNamespace::new("unreadable").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("a", "on"), ("b", "on")])).await;
    let odd = born(incident("odd", json!({"title": "t", "startTime": NO_TIME})), &namespace.name);
    store(GROUP, "incidents", &odd);
    let reported = |i: &Value| {
        let text = i["status"]["conditions"].to_string();
        text.contains("InvalidObject")
            && text.contains("this version of the operator cannot read the object: spec.startTime: ")
    };
    let odd = namespace.raw("Incident");
    let first = wait_status(&odd, "odd", "report", |i| reported(&i.data)).await;
    let of = |type_: &str| {
        let list = first.data["status"]["conditions"].as_array().expect("a list").clone();
        list.into_iter().find(|c| c["type"] == type_).expect("the condition")["status"].clone()
    };
    assert_eq!((of("Ready"), of("Stalled")), (json!("False"), json!("True")));
    assert_eq!(first.data["status"]["observedGeneration"], 1);
    let other = json!({"spec": {"title": "another"}});
    odd.patch("odd", &PatchParams::default(), &Patch::Merge(other)).await.expect("edited");
    wait_status(&odd, "odd", "report of the edited one", |i| i.data["status"]["observedGeneration"] == 2)
        .await;

    namespace.create(incident("even", json!({"title": "t", "mitigations": [off("a", "off")]}))).await;
    incident_when_raw(&namespace, "even", "Mitigated").await;
    operator.restart().await;
    namespace.create(incident("also", json!({"title": "t", "mitigations": [off("b", "off")]}))).await;
    incident_when_raw(&namespace, "also", "Mitigated").await;

    // Corrected, it is an incident like any other.
    let correct = json!({"spec": {"startTime": "2026-01-05T10:00:00Z"}});
    odd.patch("odd", &PatchParams::default(), &Patch::Merge(correct)).await.expect("corrected");
    incident_when_raw(&namespace, "odd", "Ready").await;
}

/// Waits for a condition by the real kubectl: the typed list of the tests cannot read everything here either.
async fn incident_when_raw(namespace: &TestNamespace, name: &str, condition: &str) {
    let incident = format!("incident/{name}");
    namespace
        .kubectl(&["wait", &incident, &format!("--for=condition={condition}"), "--timeout=30s"])
        .success();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_incident_holds_is_held_while_it_cannot_be_read_and_released_when_it_is_deleted() {
    let namespace = TestNamespace::new("spoilt").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    namespace.create(incident("held", json!({"title": "t", "mitigations": [off("a", "off")]}))).await;
    incident_when_raw(&namespace, "held", "Mitigated").await;
    let incidents = namespace.raw("Incident");
    let mut held = incidents.get("held").await.expect("it exists");
    held.data["spec"]["startTime"] = NO_TIME.into();
    store(GROUP, "incidents", &serde_json::to_value(held).expect("JSON"));
    wait_status(&incidents, "held", "report", |i| {
        i.data["status"]["conditions"].to_string().contains("InvalidObject")
    })
    .await;
    let flags =
        namespace.api::<ConfigMap>().get("flags").await.expect("it exists").data.expect("it has data");
    assert_eq!(flags["a"], "off");
    let start = Instant::now();
    incidents.delete("held", &DeleteParams::default()).await.expect("deleted");
    wait_status(&namespace.api::<ConfigMap>(), "flags", "release", |c| {
        c.data.as_ref().is_some_and(|d| d["a"] == "on") && marks(c).is_empty()
    })
    .await;
    wait_for(PATIENCE, "end of the mitigation", async || {
        let left = namespace.api::<Mitigation>().list(&ListParams::default()).await.ok()?.items;
        left.is_empty().then_some(())
    })
    .await;
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "nobody waits for the record of what is gone: {:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_is_told_so_and_the_others_are_folded() {
    let namespace = TestNamespace::new("odd-entry").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(incident("talk", json!({"title": "t"}))).await;
    let mut odd = entry("talk", "Note", "when?");
    odd["metadata"] = json!({"name": "odd"});
    odd["spec"]["occurredTime"] = NO_TIME.into();
    store(GROUP, "timelineentries", &born(odd, &namespace.name));
    namespace.create(entry("talk", "Note", "fine")).await;
    incident_when(&namespace, "talk", "the other note", |i| told(i, "Note").len() == 1).await;
    wait_status(&namespace.raw("TimelineEntry"), "odd", "report", |e| {
        let text = e.data["status"]["conditions"].to_string();
        text.contains("InvalidObject") && text.contains("spec.occurredTime: ")
    })
    .await;
    let api = namespace.api::<TimelineEntry>();
    api.delete("odd", &DeleteParams::default()).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_does_not_wait_for_the_end_of_the_outage() {
    let namespace = TestNamespace::new("helm-wait").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    let chart = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(chart.path().join(name), text).expect("written");
    write("Chart.yaml", "apiVersion: v2\nname: drill\nversion: 0.1.0\n");
    std::fs::create_dir(chart.path().join("templates")).expect("a folder");
    write(
        "templates/incident.yaml",
        &incident("drill", json!({"title": "t", "mitigations": [off("a", "off")]})).to_string(),
    );
    let helm = |args: &[&str]| {
        let dir = Cluster::dir();
        Command::new(dir.join("bin/helm"))
            .args(args)
            .args(["--namespace", &namespace.name])
            .env("KUBECONFIG", Cluster::kubeconfig())
            .env("HELM_CACHE_HOME", dir.join("helm/cache"))
            .env("HELM_CONFIG_HOME", dir.join("helm/config"))
            .env("HELM_DATA_HOME", dir.join("helm/data"))
            .stdin(Stdio::null())
            .output()
            .expect("helm lies in E2E_DIR/bin")
    };
    let path = chart.path().display().to_string();
    let said = helm(&["install", "drill", &path, "--wait", "--timeout", "25s"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let drill = namespace.api::<Incident>().get("drill").await.expect("it exists");
    let status = drill.status.as_ref().expect("helm waited until it was looked at");
    assert_eq!(status.observed_generation, drill.metadata.generation);
    assert!(says(&status.conditions, "Ready").starts_with("True"), "{status:?}");
    assert!(says(&status.conditions, "Resolved").starts_with("False"), "the outage goes on");
    let flags =
        namespace.api::<ConfigMap>().get("flags").await.expect("it exists").data.expect("it has data");
    assert_eq!(flags["a"], "off", "helm waited for the effect");
    assert!(helm(&["uninstall", "drill"]).status.success());
    wait_status(&namespace.api::<ConfigMap>(), "flags", "release", |c| {
        c.data.as_ref().is_some_and(|d| d["a"] == "on")
    })
    .await;
}
