//! What a mitigation costs the API server, how soon it acts, and what people see of it: columns, conditions to
//! wait for, Events, metrics.

use super::mitigation::*;
use super::support::{audit, record, workload, *};
use incident_operator::api::MitigationPhase as Phase;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_millis(700);

/// What the operator asked, without watches and Events, and the number of Events.
async fn asked(operator: &Operator, mark: audit::Mark) -> (Vec<String>, usize) {
    let requests = operator.requests_once_quiet(mark, QUIET).await;
    let (events, mut rest): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .filter(|request| request.verb != "watch" && request.resource != "leases")
        .partition(|request| request.resource == "events");
    assert!(events.iter().all(|event| event.verb == "create" && event.code == 201), "{events:?}");
    // Asked side by side with the reading of the target, so either may be first.
    rest.sort_by_key(|request| request.resource != "localsubjectaccessreviews");
    (rest.iter().map(audit::Request::brief).collect(), events.len())
}

/// The contract: nothing is read but the target, once, and one right asked for beside it; one write takes, one status follows; two writes release.
#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_mitigation_costs_exactly_these_requests() {
    let namespace = TestNamespace::new("cost").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create_ready(workload::deployment("web", 3)).await;

    let mark = audit::mark();
    namespace.create(flag("slow", "flags", "mode", "slow")).await;
    effective(&namespace, "slow").await;
    let take = [
        "create localsubjectaccessreviews 201",
        "get configmaps/flags 200",
        "patch configmaps/flags 200",
        "patch mitigations/slow/status 200",
    ];
    assert_eq!(asked(&operator, mark).await, (take.map(str::to_owned).to_vec(), 2));
    let mark = audit::mark();
    release(&namespace, "slow");
    reaches(&namespace, "slow", Phase::Released).await;
    let undo = [
        "create localsubjectaccessreviews 201",
        "patch configmaps/flags 200",
        "patch configmaps/flags 200",
        "patch mitigations/slow/status 200",
    ];
    assert_eq!(asked(&operator, mark).await, (undo.map(str::to_owned).to_vec(), 2));
    let mark = audit::mark();
    delete(&namespace, "slow").await;
    assert_eq!(asked(&operator, mark).await, (vec!["patch mitigations/slow 200".to_owned()], 0));

    // A workload takes a while to follow: one status more. And a deletion saves the last status.
    let mark = audit::mark();
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"evidence": "None"}))).await;
    effective(&namespace, "stop").await;
    let take = [
        "create localsubjectaccessreviews 201",
        "get deployments/web 200",
        "patch deployments/web 200",
        "patch mitigations/stop/status 200",
        "patch mitigations/stop/status 200",
    ];
    assert_eq!(asked(&operator, mark).await, (take.map(str::to_owned).to_vec(), 4));
    let mark = audit::mark();
    delete(&namespace, "stop").await;
    let (mut undo, events) = asked(&operator, mark).await;
    // The workload's controller writes at the same time, and may move the entry that is given back.
    undo.retain(|request| {
        !["patch deployments/web 422", "get deployments/web 200"].contains(&request.as_str())
    });
    assert_eq!(
        undo,
        ["patch deployments/web 200", "patch deployments/web 200", "patch mitigations/stop 200"]
    );
    assert_eq!(events, 2);
}

/// The same for an incident: the entry becomes an object, and each thing that happens is one write of the record.
#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_an_incident_costs_exactly_these_requests() {
    let namespace = TestNamespace::new("costs").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let mut web = workload::deployment("web", 3);
    // Without pods: it follows at once.
    web["spec"]["paused"] = true.into();
    namespace.create(web).await;
    wait_status(&namespace.api::<Deployment>(), "web", "its controller", |d| {
        d.status.as_ref().and_then(|s| s.observed_generation) == d.metadata.generation
    })
    .await;
    let entry = json!({"name": "stop", "reason": "web makes it worse", "evidence": "None",
        "targetRef": {"kind": "Deployment", "name": "web"}, "scale": {"replicas": 0}});
    let mark = audit::mark();
    namespace.create(workload::incident("down", json!({"title": "down", "mitigations": [entry]}))).await;
    effective(&namespace, "down-stop").await;
    let (begun, _) = asked(&operator, mark).await;
    let count = |asked: &[String], request: &str| asked.iter().filter(|a| *a == request).count();
    for (request, times) in [
        ("create mitigations/down-stop 201", 1..=1),
        ("create localsubjectaccessreviews 201", 1..=1),
        ("get deployments/web 200", 1..=1),
        ("patch deployments/web 200", 1..=1),
        // Applied, then effective. The incident may hear of both at once; where the take is slow, it does not wait for
        // it to record what was declared.
        ("patch mitigations/down-stop/status 200", 2..=2),
        ("patch incidents/down/status 200", 1..=3),
    ] {
        assert!(times.contains(&count(&begun, request)), "{request}: {begun:?}");
    }
    assert!(begun.len() <= 9, "and nothing else: {begun:?}");

    let mark = audit::mark();
    namespace.kubectl(&["delete", "incident", "down", "--wait=false"]).success();
    wait_gone(&namespace.api::<incident_operator::api::Mitigation>(), "down-stop").await;
    let (ended, _) = asked(&operator, mark).await;
    assert_eq!(count(&ended, "patch deployments/web 200"), 2, "{ended:?}");
    assert_eq!(count(&ended, "patch mitigations/down-stop 200"), 1, "{ended:?}");
    // That the incident is gone was told, so nobody asks for it.
    let is_read = |a: &String| a.starts_with("list") || a.starts_with("get incidents");
    assert!(!ended.iter().any(is_read), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_the_operator_asks_for_nothing_but_watches_and_its_lease() {
    let namespace = TestNamespace::new("rest").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    namespace.create(with(flag("slow", "flags", "mode", "slow"), json!({"expiresAfter": "1h"}))).await;
    effective(&namespace, "stop").await;
    effective(&namespace, "slow").await;
    namespace.create(flag("second", "flags", "mode", "off")).await;
    namespace.create(scale("waiting", "Deployment", "nobody", 0)).await;
    says(&namespace, "second", "Ready", "FieldBusy").await;
    says(&namespace, "waiting", "Ready", "TargetNotFound").await;
    operator.requests_once_quiet(audit::mark(), Duration::from_secs(3)).await;
    // Longer than a watch lives: its renewal is all that there is.
    let mark = audit::mark();
    holds_for(Duration::from_secs(60), "rest", async || {
        let requests = operator.requests(mark);
        match requests.iter().find(|r| r.resource != "leases" && r.verb != "watch") {
            Some(request) => Err(request.brief()),
            None => Ok(()),
        }
    })
    .await;
}

/// However many incidents there are: what was found out before is on record.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_among_incidents_writes_nothing_and_looks_at_nothing_a_second_time() {
    let namespace = TestNamespace::new("start").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    let off = json!({"name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "mode", "value": "slow"}});
    for (name, more) in [
        ("served", json!({"service": "checkout"})),
        ("unserved", json!({})),
        ("held", json!({"service": "checkout", "mitigations": [off]})),
        (
            "over",
            json!({"noMitigationNeeded": "none", "impact": {"summary": "x"}, "severity": "SEV5",
            "resolution": {"summary": "done"}}),
        ),
    ] {
        namespace.create(with(workload::incident(name, json!({"title": "t"})), more)).await;
    }
    for (name, note) in
        [("served", "labelled app=checkout"), ("unserved", "state spec.service"), ("held", "in use")]
    {
        record::incident_when(&namespace, name, note, |i| {
            let checklist = i.status.iter().flat_map(|s| &s.checklist);
            checklist.into_iter().any(|item| item.note.as_ref().is_some_and(|said| said.contains(note)))
        })
        .await;
    }
    operator.requests_once_quiet(audit::mark(), QUIET).await;
    let mark = audit::mark();
    operator.restart().await;
    // Longer than it waits before it looks.
    let asked = operator.requests_once_quiet(mark, Duration::from_secs(4)).await;
    let is_look = |r: &audit::Request| r.uri.contains("labelSelector=app");
    let is_read = |r: &audit::Request| ["watch", "list"].contains(&r.verb.as_str()) && !is_look(r);
    let more: Vec<_> =
        asked.iter().filter(|r| !is_read(r) && r.resource != "leases").map(|r| &r.uri).collect();
    assert!(more.is_empty(), "{more:#?}");
}

/// Printed, not judged by the clock: what the operator adds to the three requests that the same takes by hand.
#[tokio::test(flavor = "multi_thread")]
async fn from_apply_to_scaled_takes_little_more_than_the_raw_requests() {
    const ROUNDS: usize = 15;
    let namespace = TestNamespace::new("latency").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    // Without pods: what the scheduler and the kubelets do is not what is measured.
    let mut web = workload::deployment("web", 3);
    web["spec"]["paused"] = true.into();
    namespace.create(web).await;
    let api: Api<Deployment> = namespace.api();
    let history = History::of(&api, "web").await;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("stop-{round}");
        let after = version(&api.get("web").await.unwrap());
        let begun = Instant::now();
        namespace.create(with(scale(&name, "Deployment", "web", 0), json!({"evidence": "None"}))).await;
        let stopped = history
            .first("stopped workload", |r| {
                version(&r.object) > after && r.object.spec.as_ref().unwrap().replicas == Some(0)
            })
            .await;
        ours.push(stopped.seen - begun);
        delete(&namespace, &name).await;

        let begun = Instant::now();
        let record: k8s_openapi::api::core::v1::ConfigMap =
            serde_json::from_value(workload::configmap(&format!("raw-{round}"), &[])).unwrap();
        namespace.api().create(&PostParams::default(), &record).await.expect("it can be made");
        let present = api.get("web").await.expect("it can be read");
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": present.uid()},
            {"op": "add", "path": "/spec/replicas", "value": 0},
        ]);
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).unwrap());
        let written = api.patch("web", &PatchParams::default(), &patch).await.expect("it can be patched");
        let seen = history.first("raw change", |r| version(&r.object) >= version(&written)).await;
        raw.push(seen.seen - begun);
        let back = Patch::Merge(json!({"spec": {"replicas": 3}}));
        api.patch("web", &PatchParams::default(), &back).await.expect("it can be patched");
    }
    ours.sort();
    raw.sort();
    println!(
        "apply to scaled: p50 {:?} max {:?}; the raw requests: p50 {:?} max {:?}",
        ours[ROUNDS / 2],
        ours[ROUNDS - 1],
        raw[ROUNDS / 2],
        raw[ROUNDS - 1]
    );
    assert!(ours[ROUNDS / 2] < raw[ROUNDS / 2] * 10 + Duration::from_millis(500), "{ours:?} against {raw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_selects_and_waits_for_mitigations() {
    let namespace = TestNamespace::new("columns").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    namespace.create(workload::configmap("flags", &[("mode", "normal")])).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    namespace.create(flag("slow", "flags", "mode", "slow")).await;
    for condition in ["Effective", "Applied", "Ready"] {
        let wanted = format!("--for=condition={condition}");
        namespace.kubectl(&["wait", "mit/stop", "mit/slow", &wanted, "--timeout=30s"]).success();
    }
    let table = namespace.kubectl(&["get", "mit"]).success();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "ACTION", "TARGET", "PHASE", "EFFECTIVE", "INCIDENT", "AGE"], "{table}");
    assert_eq!(rows[1][..5], ["slow", "featureFlag", "ConfigMap/flags", "Active", "True"], "{table}");
    assert_eq!(rows[2][..5], ["stop", "scale", "Deployment/web", "Active", "True"], "{table}");
    let wide = namespace.kubectl(&["get", "mit", "stop", "-o", "wide"]).success();
    assert!(wide.contains("web makes it worse"), "{wide}");
    for (selector, wanted) in [
        ("spec.targetRef.name=web", "mitigation.incident-operator.dev/stop\n"),
        ("spec.targetRef.kind=ConfigMap", "mitigation.incident-operator.dev/slow\n"),
        ("status.phase=Released", ""),
    ] {
        let found = namespace.kubectl(&["get", "mit", "-o", "name", "--field-selector", selector]).success();
        assert_eq!(found, wanted, "{selector}");
    }
    release(&namespace, "slow");
    namespace
        .kubectl(&["wait", "mit/slow", "--for=jsonpath={.status.phase}=Released", "--timeout=30s"])
        .success();
    let described = namespace.kubectl(&["describe", "mit", "slow"]).success();
    assert!(described.contains("MitigationReleased"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_on_mitigation_and_target_and_writes_are_counted_by_action_and_result() {
    let namespace = TestNamespace::new("told").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let reason = "결제 오류 🔥 \u{200f}abc\nsecond line";
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"reason": reason}))).await;
    effective(&namespace, "stop").await;
    delete(&namespace, "stop").await;
    let wanted = ["MitigationApplied", "MitigationEffective", "MitigationReleased"];
    events_are(&namespace, "Mitigation", "stop", &wanted).await;
    events_are(&namespace, "Deployment", "web", &wanted).await;
    let fields =
        kube::api::ListParams::default().fields("regarding.kind=Deployment,reason=MitigationApplied");
    let events: Api<k8s_openapi::api::events::v1::Event> = namespace.api();
    let event = events.list(&fields).await.expect("events can be listed").items.remove(0);
    let note = event.note.unwrap();
    assert!(note.contains("결제 오류 🔥") && note.contains("mitigation stop"), "{note}");
    assert!(!note.contains('\n'), "{note:?}");
    assert_eq!(event.related.and_then(|r| r.name).as_deref(), Some("stop"));

    for (operation, count) in [("take", 1.0), ("restore", 1.0), ("let_go", 1.0)] {
        let labels = [("action", "scale"), ("operation", operation), ("result", "success")];
        operator.metric_is("incident_operator_mitigation_operations_total", &labels, count).await;
    }
    namespace.create(scale("again", "Deployment", "web", 0)).await;
    effective(&namespace, "again").await;
    let labels = [("action", "scale"), ("phase", "Active")];
    operator.metric_is("incident_operator_mitigations", &labels, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_253_characters_is_as_good_as_any_other() {
    let namespace = TestNamespace::new("long").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let name = format!("{}.b", "a".repeat(251));
    let target = format!("{}.c", "f".repeat(251));
    namespace.create(workload::configmap(&target, &[("mode", "normal")])).await;
    namespace.create(flag(&name, &target, "mode", "slow")).await;
    effective(&namespace, &name).await;
    events_are(&namespace, "ConfigMap", &target, &["MitigationApplied"]).await;
    delete(&namespace, &name).await;
    let after = present(&namespace, &workload::configmap(&target, &[])).await;
    assert_eq!((after.data["data"]["mode"].as_str(), marks(&after)), (Some("normal"), vec![]));
}
