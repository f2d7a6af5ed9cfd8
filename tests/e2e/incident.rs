//! The life of an incident: declared, mitigated, resolved, closed; cancelled; deleted.

use super::support::record::{entry_phase, incident_says, incident_when, stage, told};
use super::support::workload::{configmap, deployment, entry, incident, mitigation};
use super::support::*;
use incident_operator::api::{Incident, Mitigation, Postmortem};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};
use std::time::Duration;

/// What there is before anything goes wrong.
async fn shop(namespace: &TestNamespace) {
    namespace.create_ready(deployment("importer", 3)).await;
    namespace.create(configmap("flags", &[("new-pricing", "on"), ("gift-cards", "off")])).await;
}

fn stop_importer() -> Value {
    json!({
        "name": "stop-importer", "reason": "importer floods the database",
        "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0},
    })
}

fn pricing_off() -> Value {
    json!({
        "name": "new-pricing-off", "reason": "errors began with the flag",
        "targetRef": {"kind": "ConfigMap", "name": "flags"}, "featureFlag": {"key": "new-pricing", "value": "off"},
    })
}

/// An entry that is released when the incident is resolved.
fn until_resolved(mut entry: Value) -> Value {
    entry["releaseOn"] = "Resolve".into();
    entry
}

/// Everything a commander states about an incident, with these mitigations.
fn stated(mitigations: &[Value]) -> Value {
    json!({
        "title": "Checkout fails", "severity": "SEV3", "roles": {"incidentCommander": "alice"},
        "impact": {"summary": "40 % of checkouts fail"}, "mitigations": mitigations,
    })
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|s| s.replicas)
}

/// Waits until the importer runs as before and nothing on it tells of us.
async fn importer_is_as_before(namespace: &TestNamespace) {
    wait_status(&namespace.api::<Deployment>(), "importer", "importer as before", |d| {
        replicas(d) == Some(3) && marks(d).is_empty()
    })
    .await;
}

async fn flags_are_as_before(namespace: &TestNamespace) {
    wait_status(&namespace.api::<ConfigMap>(), "flags", "flags as before", |c| {
        let data = c.data.clone().unwrap_or_default();
        data["new-pricing"] == "on" && data["gift-cards"] == "off" && marks(c).is_empty()
    })
    .await;
}

async fn no_mitigation_is_left(namespace: &TestNamespace) {
    wait_for(PATIENCE, "end of the mitigations", async || {
        let found = namespace.api::<Mitigation>().list(&ListParams::default()).await.ok()?.items;
        found.is_empty().then_some(())
    })
    .await;
}

async fn change(namespace: &TestNamespace, name: &str, change: Value) -> Incident {
    let api = namespace.api::<Incident>();
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .expect("the incident can be changed")
}

async fn events_about(namespace: &TestNamespace, kind: &str, name: &str) -> Vec<String> {
    let found = namespace.api::<Event>().list(&ListParams::default()).await.expect("events can be listed");
    found
        .items
        .into_iter()
        .filter(|event| {
            event.reporting_controller.as_deref() == Some("incident-operator.dev/incident-operator")
                && event
                    .regarding
                    .as_ref()
                    .is_some_and(|r| r.kind.as_deref() == Some(kind) && r.name.as_deref() == Some(name))
        })
        .filter_map(|event| event.reason)
        .collect()
}

async fn tells_by_events(namespace: &TestNamespace, kind: &str, name: &str, wanted: &[&str]) {
    wait_for(PATIENCE, &format!("Events {wanted:?} about {kind} {name}"), async || {
        let found = events_about(namespace, kind, name).await;
        let all = wanted.iter().all(|reason| found.iter().any(|f| f == reason));
        if all { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_apply_carries_an_incident_through_its_whole_life() {
    let namespace = TestNamespace::new("life").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;

    namespace
        .apply(
            r#"
apiVersion: incident-operator.dev/v1alpha1
kind: Incident
metadata: {name: checkout-errors}
spec:
  title: Checkout returns 500 for 40 % of requests
  severity: SEV2
  service: checkout
  startTime: "2026-01-05T10:02:00Z"
  detection: {source: Alert, reference: "https://alerts.example/checkout"}
  roles: {incidentCommander: alice, scribe: erin}
  mitigations:
  - name: stop-importer
    reason: importer floods the database
    targetRef: {kind: Deployment, name: importer}
    scale: {replicas: 0}
    releaseOn: Resolve
  - name: new-pricing-off
    reason: errors began with the flag
    targetRef: {kind: ConfigMap, name: flags}
    featureFlag: {key: new-pricing, value: "off"}
    releaseOn: Resolve
  exitCriteria:
  - description: error rate below 0.1 % for 30 minutes
"#,
        )
        .expect("the incident is taken");

    // Both are taken before anybody has acknowledged anything.
    let wait = |what: &str| {
        namespace
            .kubectl(&["wait", "incident/checkout-errors", &format!("--for={what}"), "--timeout=30s"])
            .success()
    };
    wait("condition=Mitigated");
    let importer = namespace.api::<Deployment>().get("importer").await.expect("it exists");
    assert_eq!(replicas(&importer), Some(0));
    let pods =
        namespace.api::<Pod>().list(&ListParams::default().labels("app=importer")).await.expect("listed");
    assert_eq!(pods.items.len(), 0, "mitigated means that the effect was seen");
    let flags = namespace.api::<ConfigMap>().get("flags").await.expect("it exists").data.unwrap_or_default();
    assert_eq!((flags["new-pricing"].as_str(), flags["gift-cards"].as_str()), ("off", "off"));
    wait("jsonpath={.status.stage}=Detect");
    wait("condition=Ready");

    // Each stage is left when its fact is there.
    let alice = namespace.person("alice", &[]).await;
    alice.create(&entry("checkout-errors", "Acknowledgement", "I am on it")).await.expect("she may");
    wait("condition=Acknowledged");
    wait("jsonpath={.status.stage}=Triage");
    change(&namespace, "checkout-errors", json!({"spec": {"impact": {"summary": "40 % of checkouts fail"}}}))
        .await;
    wait("jsonpath={.status.stage}=Resolve");
    let columns = namespace.kubectl(&["get", "incidents"]).success();
    let lines: Vec<Vec<&str>> = columns.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "SEVERITY", "STAGE", "COMMANDER", "ACTIVE", "NEXT-UPDATE", "AGE"]);
    assert_eq!(lines[1][..5], ["checkout-errors", "SEV2", "Resolve", "alice", "2"]);

    // A declared resolution counts only once the exit criteria are done.
    change(
        &namespace,
        "checkout-errors",
        json!({"spec": {"resolution": {"summary": "importer rate fixed"}}}),
    )
    .await;
    incident_when(&namespace, "checkout-errors", "reason why it is not resolved", |i| {
        incident_says(i, "Resolved")
            .contains("exit criteria are not done: \"error rate below 0.1 % for 30 minutes\"")
    })
    .await;
    let importer = namespace.api::<Deployment>().get("importer").await.expect("it exists");
    assert_eq!(
        replicas(&importer),
        Some(0),
        "it is released when the resolution counts, not when it is wished"
    );
    let done = json!([{"description": "error rate below 0.1 % for 30 minutes", "state": "Done"}]);
    change(&namespace, "checkout-errors", json!({"spec": {"exitCriteria": done}})).await;
    wait("condition=Resolved");
    wait("jsonpath={.status.stage}=Postmortem");
    importer_is_as_before(&namespace).await;
    flags_are_as_before(&namespace).await;

    // The record is in the postmortem; a review closes the incident.
    let drafted = wait_status(&namespace.api::<Postmortem>(), "checkout-errors", "postmortem", |p| {
        p.status.as_ref().is_some_and(|s| !s.missing_sections.is_empty())
    })
    .await;
    assert!(drafted.owner_references().is_empty(), "it must outlive the incident");
    let reviewed = "
apiVersion: incident-operator.dev/v1alpha1
kind: Postmortem
metadata: {name: checkout-errors}
spec:
  state: Reviewed
  summary: The importer used up the connections.
  impact: 40 % of checkouts failed.
  rootCauses: One connection pool for all.
  detection: An alert.
  wentWell: The importer was stopped at once.
  wentPoorly: It took long to learn who was affected.
  actionItems: [{id: pool, title: A pool of its own, owner: bob, dueDate: '2026-12-15'}]
";
    namespace.apply(reviewed).expect("whoever writes the postmortem need not force anything");
    wait("condition=PostmortemComplete");
    wait("jsonpath={.status.stage}=Closed");

    let closed = incident_when(&namespace, "checkout-errors", "end", |i| stage(i) == "Closed").await;
    let status = closed.status.as_ref().expect("it has one");
    let m = &status.milestones;
    let times = [
        &m.started_time,
        &m.detected_time,
        &m.acknowledged_time,
        &m.triaged_time,
        &m.resolved_time,
        &m.closed_time,
    ];
    let times: Vec<_> =
        times.into_iter().map(|t| t.as_ref().expect("every milestone is reached").0).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(times[0].to_string(), "2026-01-05T10:02:00Z");
    assert!(m.mitigated_time.as_ref().is_some_and(|t| t.0 >= times[1] && t.0 <= times[3]), "{m:?}");
    assert_eq!(status.active_mitigations, Some(0));
    for reason in [
        "Declared",
        "MitigationApplied",
        "EvidenceKept",
        "MitigationEffective",
        "Mitigated",
        "Acknowledged",
        "Triaged",
        "Resolved",
        "MitigationReleased",
        "Closed",
    ] {
        let twice = ["MitigationApplied", "MitigationEffective", "MitigationReleased"].contains(&reason);
        assert_eq!(
            told(&closed, reason).len(),
            if twice { 2 } else { 1 },
            "{reason}: {:#?}",
            status.timeline
        );
    }
    assert_eq!(told(&closed, "Acknowledgement")[0].message, "I am on it");

    // The same as Events, on the incident and on what was touched, and in kubectl describe.
    let reasons =
        ["Declared", "Mitigated", "Acknowledged", "Resolved", "Closed", "MitigationApplied", "EvidenceKept"];
    tells_by_events(&namespace, "Incident", "checkout-errors", &reasons).await;
    let touched = ["MitigationApplied", "MitigationReleased"];
    tells_by_events(&namespace, "Deployment", "importer", &touched).await;
    tells_by_events(&namespace, "ConfigMap", "flags", &touched).await;
    let described = namespace.kubectl(&["describe", "incident", "checkout-errors"]).success();
    for part in
        ["importer floods the database", "Stage:", "Closed", "alice has command", "MitigationReleased"]
    {
        assert!(described.contains(part), "kubectl describe lacks {part:?}:\n{described}");
    }
    let described = namespace.kubectl(&["describe", "deployment", "importer"]).success();
    assert!(described.contains("incident checkout-errors"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_in_stage_mitigate_until_every_mitigation_works() {
    let namespace = TestNamespace::new("stage").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let acknowledged = namespace.create(incident("late", stated(&[stop_importer()]))).await;
    let alice = namespace.person("alice", &[]).await;
    alice.create(&entry("late", "Acknowledgement", "mine")).await.expect("she may");
    let waiting = incident_when(&namespace, "late", "stage Mitigate", |i| stage(i) == "Mitigate").await;
    let mitigated = incident_says(&waiting, "Mitigated");
    assert!(
        mitigated
            .starts_with("False NotEffective: stop-importer is Pending: there is no Deployment/importer"),
        "{mitigated}"
    );
    assert!(incident_says(&waiting, "Ready").starts_with("False Progressing"), "{waiting:?}");
    assert!(incident_says(&waiting, "Stalled").starts_with("False"), "a target may still come");
    assert_eq!(waiting.uid(), acknowledged.uid());

    namespace.create_ready(deployment("importer", 0)).await;
    // Scaled down already: there is nothing to do, and that is said.
    let after = incident_when(&namespace, "late", "end of the waiting", |i| {
        !entry_phase(i, "stop-importer").is_empty() && entry_phase(i, "stop-importer") != "Pending"
    })
    .await;
    let phase = entry_phase(&after, "stop-importer");
    assert!(["Refused", "Active"].contains(&phase.as_str()), "{phase}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waived_mitigation_stays_active_after_the_resolution() {
    let namespace = TestNamespace::new("waiver").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    namespace.create(incident("keep", stated(&[stop_importer(), until_resolved(pricing_off())]))).await;
    incident_when(&namespace, "keep", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;

    change(&namespace, "keep", json!({"spec": {"resolution": {"summary": "fixed"}}})).await;
    let held = incident_when(&namespace, "keep", "release of the one that goes with the resolution", |i| {
        entry_phase(i, "new-pricing-off") == "Released"
    })
    .await;
    assert_eq!(
        incident_says(&held, "Resolved"),
        "False NotDone: mitigations are still active: stop-importer; release them, or waive each in \
         spec.resolution.waivers"
    );
    let waivers = json!([{"mitigation": "stop-importer", "reason": "the importer is rewritten first"}]);
    change(&namespace, "keep", json!({"spec": {"resolution": {"waivers": waivers}}})).await;
    let resolved =
        incident_when(&namespace, "keep", "resolution", |i| incident_says(i, "Resolved").starts_with("True"))
            .await;
    assert_eq!(entry_phase(&resolved, "stop-importer"), "Active");
    let importer = namespace.api::<Deployment>().get("importer").await.expect("it exists");
    assert_eq!(replicas(&importer), Some(0));
    assert_eq!(stage(&resolved), "Closed", "SEV3 needs no postmortem");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_alarm_cancels_the_incident_and_releases_what_was_done() {
    let namespace = TestNamespace::new("false-alarm").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    namespace.create(incident("alarm", stated(&[stop_importer(), pricing_off()]))).await;
    incident_when(&namespace, "alarm", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    change(&namespace, "alarm", json!({"spec": {"outcome": "FalseAlarm"}})).await;
    let cancelled = incident_when(&namespace, "alarm", "release", |i| {
        stage(i) == "Cancelled" && i.status.as_ref().is_some_and(|s| s.active_mitigations == Some(0))
    })
    .await;
    importer_is_as_before(&namespace).await;
    flags_are_as_before(&namespace).await;
    assert_eq!(told(&cancelled, "Cancelled")[0].message, "incident cancelled: it was a false alarm");
    assert!(cancelled.status.is_some_and(|s| s.milestones.closed_time.is_some()));
    assert_eq!(
        namespace.api::<Postmortem>().list(&ListParams::default()).await.expect("listed").items.len(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_names_its_original_and_is_told_when_that_one_is_missing() {
    let namespace = TestNamespace::new("duplicate").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    namespace.create(incident("second", stated(&[stop_importer()]))).await;
    incident_when(&namespace, "second", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
        .await;
    let duplicate = json!({"spec": {"outcome": "Duplicate", "duplicateOf": {"name": "first"}}});
    change(&namespace, "second", duplicate).await;
    let stalled = incident_when(&namespace, "second", "missing original", |i| {
        incident_says(i, "Stalled").starts_with("True OriginalNotFound")
    })
    .await;
    // Of nothing it goes on: nobody else would hold the importer down.
    assert_ne!(stage(&stalled), "Cancelled");
    let importer = namespace.api::<Deployment>().get("importer").await.expect("it is there");
    assert_eq!(replicas(&importer), Some(0));

    // The original may be declared later; nobody has to touch the duplicate for that.
    namespace.create(incident("first", json!({"title": "Checkout fails"}))).await;
    incident_when(&namespace, "second", "end", |i| stage(i) == "Cancelled").await;
    importer_is_as_before(&namespace).await;
    incident_when(&namespace, "second", "end of the stall", |i| {
        incident_says(i, "Stalled").starts_with("False") && incident_says(i, "Ready").starts_with("True")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_incident_releases_everything_and_leaves_the_postmortem() {
    let namespace = TestNamespace::new("delete").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    let mut spec = stated(&[stop_importer(), until_resolved(pricing_off())]);
    spec["severity"] = "SEV1".into();
    spec["resolution"] =
        json!({"summary": "fixed", "waivers": [{"mitigation": "stop-importer", "reason": "later"}]});
    namespace.create(incident("over", spec)).await;
    incident_when(&namespace, "over", "postmortem", |i| {
        i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some()) && stage(i) == "Postmortem"
    })
    .await;
    // Ordinary, as kubectl does it, with the waiting.
    namespace.kubectl(&["delete", "incident", "over", "--timeout=30s"]).success();
    importer_is_as_before(&namespace).await;
    flags_are_as_before(&namespace).await;
    no_mitigation_is_left(&namespace).await;
    let kept = namespace.api::<Postmortem>().get("over").await.expect("the postmortem stays");
    let snapshot = kept.status.and_then(|s| s.incident).expect("with its record");
    assert_eq!((snapshot.name.as_str(), snapshot.title.as_str()), ("over", "Checkout fails"));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_and_a_finalizer_of_somebody_else_release_just_the_same() {
    let namespace = TestNamespace::new("foreground").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    let api = namespace.api::<Incident>();
    namespace.create(incident("front", stated(&[stop_importer()]))).await;
    incident_when(&namespace, "front", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    api.delete("front", &foreground).await.expect("it can be deleted");
    wait_gone(&api, "front").await;
    importer_is_as_before(&namespace).await;
    no_mitigation_is_left(&namespace).await;

    let mut held = incident("held", stated(&[stop_importer()]));
    held["metadata"]["finalizers"] = json!(["example.com/backup"]);
    namespace.create(held).await;
    incident_when(&namespace, "held", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    api.delete("held", &DeleteParams::default()).await.expect("it can be deleted");
    importer_is_as_before(&namespace).await;
    no_mitigation_is_left(&namespace).await;
    let last = api.get("held").await.expect("the other finalizer still holds it");
    assert_eq!(told(&last, "MitigationReleased").len(), 1, "{last:?}");
    change(&namespace, "held", json!({"metadata": {"finalizers": null}})).await;
    wait_gone(&api, "held").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_that_is_deleted_while_its_mitigation_is_taken_leaves_nothing() {
    let namespace = TestNamespace::new("in-flight").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    shop(&namespace).await;
    let api = namespace.api::<Incident>();
    let rounds = 20;
    for round in 0..rounds {
        let name = format!("short-{round}");
        namespace.create(incident(&name, stated(&[stop_importer(), pricing_off()]))).await;
        // Not a wait for anything: the moment of the deletion is what varies.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..25_000))).await;
        api.delete(&name, &DeleteParams::default()).await.expect("it can be deleted");
    }
    no_mitigation_is_left(&namespace).await;
    importer_is_as_before(&namespace).await;
    flags_are_as_before(&namespace).await;
    // Nothing comes afterwards either.
    holds_for(Duration::from_millis(700), "the peace", async || {
        let importer = namespace.api::<Deployment>().get("importer").await.map_err(|e| e.to_string())?;
        let left =
            namespace.api::<Mitigation>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        if replicas(&importer) == Some(3) && left.items.is_empty() {
            Ok(())
        } else {
            Err(format!("{importer:?} {left:?}"))
        }
    })
    .await;
    assert!(!operator.log().contains("panic"), "{}", operator.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_during_an_incident_goes_away() {
    let lease = TestNamespace::new("beside").await;
    let namespace = TestNamespace::new("doomed").await;
    let options = Options { watch: Some(namespace.name.clone()), ..Options::default() };
    let operator = Operator::start(&lease, options).await;
    shop(&namespace).await;
    namespace.create(incident("lost", stated(&[stop_importer(), pricing_off()]))).await;
    incident_when(&namespace, "lost", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    let waiting = mitigation(
        "waiting",
        json!({
            "reason": "never there", "targetRef": {"kind": "Deployment", "name": "nowhere"}, "scale": {"replicas": 0},
        }),
    );
    namespace.create(waiting).await;
    let namespaces = Api::<Namespace>::all(namespace.cluster.client.clone());
    namespaces.delete(&namespace.name, &DeleteParams::default()).await.expect("it can be deleted");
    wait_for(Duration::from_secs(100), "end of the namespace", async || {
        match namespaces.get_opt(&namespace.name).await {
            Ok(None) => Ok(()),
            Ok(Some(still)) => Err(format!("{:?}", still.status)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    assert_eq!(operator.get("/readyz"), Some(200));
}
