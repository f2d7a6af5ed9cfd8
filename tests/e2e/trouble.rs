//! An API server in trouble: killed, frozen, forgetful. These tests disturb everybody on the control
//! plane, so they run by themselves, one after the other (`make e2e ARGS=trouble`).
//!
//! What must hold: a request has an answer or has failed within 10 s, watches are there again within 60 s, nobody
//! storms the API server when it is back, everything that was asked for is done, and nothing is done twice.

mod certificates;
mod fairness;

use super::support::leadership::{Load, Pace, in_full, leader_among, works};
use super::support::parts::{Part, Parts, api_server_is_ready, born, etcd, store};
use super::support::record::{incident_says, incident_when, told};
use super::support::workload::{configmap, deployment, incident};
use super::support::*;
use incident_operator::api::Incident;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most requests of one operator within a second that fail. What it has to catch up with takes many more than usual;
/// a storm is what asks for the same again and again.
const MOST_PER_SECOND: usize = 60;

fn off(target: &str) -> Value {
    json!({
        "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": target},
        "featureFlag": {"key": "a", "value": "off"},
    })
}

/// Waits until the controllers of Kubernetes work: those that were started again wait for a lease, too.
async fn controllers_work(namespace: &TestNamespace) {
    let name = format!("probe-{}", fastrand::u32(..));
    namespace.create(deployment(&name, 0)).await;
    wait_for(Duration::from_secs(90), "work of the controllers", async || {
        let found = namespace.api::<Deployment>().get(&name).await.map_err(|e| e.to_string())?;
        if found.status.and_then(|s| s.observed_generation) == Some(1) { Ok(()) } else { Err(String::new()) }
    })
    .await;
}

/// Mitigations in force on Deployments and ConfigMaps: what there is to hold when the trouble begins.
async fn in_force(namespace: &TestNamespace) {
    controllers_work(namespace).await;
    namespace.create_ready(deployment("importer", 2)).await;
    for n in 0..10 {
        namespace.create(configmap(&format!("held-{n}"), &[("a", "on")])).await;
        let spec = json!({"title": "t", "mitigations": [off(&format!("held-{n}"))]});
        namespace.create(incident(&format!("held-{n}"), spec)).await;
    }
    let scale = json!({
        "name": "stop", "reason": "r", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0},
    });
    namespace.create(incident("importer", json!({"title": "t", "mitigations": [scale]}))).await;
    for name in ["held-0", "held-9", "importer"] {
        incident_when(namespace, name, "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    }
}

/// Most requests that came in within one second and failed.
fn most_per_second(requests: &[audit::Request]) -> usize {
    let mut seconds: BTreeMap<&str, usize> = BTreeMap::new();
    for request in requests.iter().filter(|request| request.code >= 400) {
        *seconds.entry(&request.received[..19]).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or_default()
}

/// What must be true when the trouble is over.
async fn all_is_well(namespace: &TestNamespace, operator: &Operator, back: Instant, name: &str) {
    wait_for(Duration::from_secs(60), "work after the trouble", async || {
        match namespace.try_create(incident(name, json!({"title": "t"}))).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    wait_for(Duration::from_secs(60), "look at a new incident", async || {
        let found = namespace.api::<Incident>().get(name).await.map_err(|e| e.to_string())?;
        if told(&found, "Declared").len() == 1 { Ok(()) } else { Err(format!("{:?}", found.status)) }
    })
    .await;
    println!("{name}: works again {:?} after the API server is back", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(60), "{:?}", back.elapsed());
    let all = namespace.api::<Incident>().list(&ListParams::default()).await.expect("it can be listed").items;
    for incident in all {
        for reason in ["Declared", "MitigationApplied"] {
            assert!(told(&incident, reason).len() <= 1, "{reason} is told twice: {:?}", incident.status);
        }
    }
    assert_eq!(operator.get("/livez"), Some(200));
}

/// Deletes what is held, and sees it come back as it was.
async fn everything_is_released(namespace: &TestNamespace) {
    controllers_work(namespace).await;
    for name in ["held-0", "held-9", "importer"] {
        namespace.api::<Incident>().delete(name, &DeleteParams::default()).await.expect("it can be deleted");
    }
    wait_status(&namespace.api::<Deployment>(), "importer", "release", |d| {
        d.spec.as_ref().and_then(|s| s.replicas) == Some(2) && marks(d).is_empty()
    })
    .await;
    for name in ["held-0", "held-9"] {
        wait_status(&namespace.api::<k8s_openapi::api::core::v1::ConfigMap>(), name, "release", |c| {
            c.data.as_ref().is_some_and(|data| data["a"] == "on") && marks(c).is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_and_comes_back_finds_the_operator_patient_and_everything_done_once() {
    let namespace = TestNamespace::new("killed").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    in_force(&namespace).await;
    let parts = Parts::note();
    let server = Part::named("kube-apiserver");
    for (n, down) in [1, if in_full() { 60 } else { 12 }].into_iter().enumerate() {
        let load = Load::start_as(&namespace, &format!("kill{n}")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mark = audit::mark();
        server.kill_and_start(Duration::from_secs(down)).await;
        api_server_is_ready().await;
        parts.revive();
        let back = Instant::now();
        all_is_well(&namespace, &operator, back, &format!("after-kill-{n}")).await;
        let count = load.end(&namespace).await;
        let asked = operator.requests(mark);
        println!(
            "down for {down} s: {count} incidents, {} requests since, most that failed in a second {}",
            asked.len(),
            most_per_second(&asked)
        );
        assert!(most_per_second(&asked) < MOST_PER_SECOND, "{}", most_per_second(&asked));
        watches_are_there(&operator, mark).await;
        parts.revive();
    }
    everything_is_released(&namespace).await;
}

/// Waits until every kind of the project and of held targets is watched again.
async fn watches_are_there(operator: &Operator, mark: audit::Mark) {
    let start = Instant::now();
    wait_for(Duration::from_secs(60), "watches", async || {
        let asked = operator.requests(mark);
        let watched =
            |kind: &str| asked.iter().any(|r| r.verb == "watch" && r.resource == kind && r.code == 200);
        let kinds =
            ["incidents", "mitigations", "timelineentries", "postmortems", "deployments", "configmaps"];
        let missing: Vec<_> = kinds.into_iter().filter(|kind| !watched(kind)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not watched: {missing:?}")) }
    })
    .await;
    println!("all watches are there {:?} later", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_api_server_is_frozen_requests_fail_in_time_and_afterwards_all_goes_on() {
    let namespace = TestNamespace::new("frozen").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    in_force(&namespace).await;
    let load = Load::start(&namespace).await;
    works(&namespace, "before").await;
    let parts = Parts::note();
    let server = Part::named("kube-apiserver");
    let mark = audit::mark();
    let frozen = server.freeze();
    let start = Instant::now();
    let began = Timestamp::now();
    let long = Duration::from_secs(if in_full() { 60 } else { 20 });
    wait_for(Duration::from_secs(14), "a request that is given up", async || {
        let log = operator.log();
        let told = log.lines().filter(|line| at(line).is_some_and(|time| time > began));
        told.into_iter()
            .any(|l| l.contains("did not answer within 10s") || l.contains("request timed out"))
            .then_some(())
    })
    .await;
    println!("the first request was given up after {:?}", start.elapsed());
    assert_eq!(operator.get("/livez"), Some(200), "it lives");
    tokio::time::sleep(long.saturating_sub(start.elapsed())).await;
    // Its claim has run out: it could not know whether somebody else leads.
    assert_eq!(operator.metric("leader_election_master_status", &[]).await, Some(0.0));
    drop(frozen);
    let back = Instant::now();
    all_is_well(&namespace, &operator, back, "after-frozen").await;
    let count = load.end(&namespace).await;
    let asked = operator.requests(mark);
    println!(
        "frozen for {long:?}: {count} incidents, {} requests since, most that failed in a second {}",
        asked.len(),
        most_per_second(&asked)
    );
    assert!(most_per_second(&asked) < MOST_PER_SECOND, "{}", most_per_second(&asked));
    watches_are_there(&operator, mark).await;
    parts.revive();
    everything_is_released(&namespace).await;
}

/// The time at the beginning of a line of the log.
fn at(line: &str) -> Option<Timestamp> {
    line.split_whitespace().next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_etcd_is_compacted_and_the_watches_are_too_old_everything_is_listed_anew() {
    let namespace = TestNamespace::new("compacted").await;
    let env = vec![("RUST_LOG".to_owned(), "info,incident_operator=debug".to_owned())];
    let operator = Operator::start(&namespace, Options { env, ..Options::default() }).await;
    in_force(&namespace).await;
    let parts = Parts::note();
    operator.signal("STOP");
    // While it sees nothing: one incident goes, one comes, one changes.
    let incidents = namespace.api::<Incident>();
    incidents.delete("held-1", &DeleteParams::default()).await.expect("it can be deleted");
    namespace.create(configmap("unseen", &[("a", "on")])).await;
    namespace.create(incident("unseen", json!({"title": "t", "mitigations": [off("unseen")]}))).await;
    namespace
        .kubectl(&["patch", "incident", "held-2", "--type=merge", "-p", r#"{"spec":{"severity":"SEV1"}}"#])
        .success();
    let made = incidents.get("unseen").await.expect("it exists");
    let revision = made.metadata.resource_version.expect("it has a version");
    etcd("/v3/kv/compaction", &json!({"revision": revision, "physical": true}));
    // Its watch cache remembers what etcd has forgotten; a new one does not.
    Part::named("kube-apiserver").kill_and_start(Duration::from_secs(1)).await;
    api_server_is_ready().await;
    parts.revive();
    let mark = audit::mark();
    let back = Instant::now();
    operator.signal("CONT");
    all_is_well(&namespace, &operator, back, "after-compaction").await;
    incident_when(&namespace, "unseen", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
        .await;
    incident_when(&namespace, "held-2", "severity", |i| {
        told(i, "SeverityChanged").len() == 1 || incident_says(i, "Triaged").contains("impact")
    })
    .await;
    wait_status(&namespace.api::<k8s_openapi::api::core::v1::ConfigMap>(), "held-1", "release", |c| {
        c.data.as_ref().is_some_and(|data| data["a"] == "on") && marks(c).is_empty()
    })
    .await;
    let asked = operator.requests(mark);
    let anew = operator.log().contains("watch begins anew") || asked.iter().any(|r| r.code == 410);
    assert!(
        anew,
        "its watches were too old: {:?}",
        asked.iter().map(audit::Request::brief).collect::<Vec<_>>()
    );
    everything_is_released(&namespace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_live_through_a_frozen_api_server_and_one_of_them_goes_on() {
    let namespace = TestNamespace::new("both").await;
    let pace = Pace::get();
    let all = [
        Operator::start(&namespace, pace.options()).await,
        Operator::start(&namespace, pace.options()).await,
    ];
    leader_among(&namespace, &all, Duration::from_secs(60), |_| true).await;
    works(&namespace, "before").await;
    let _parts = Parts::note();
    let server = Part::named("kube-apiserver");
    let frozen = server.freeze();
    tokio::time::sleep(pace.lease * 2).await;
    for operator in &all {
        assert_eq!(operator.metric("leader_election_master_status", &[]).await, Some(0.0));
    }
    drop(frozen);
    let back = Instant::now();
    all_is_well(&namespace, &all[0], back, "after-both").await;
    leader_among(&namespace, &all, Duration::from_secs(60), |_| true).await;
}

/// The definitions of a newer version, which knows an action that this one does not, until it goes out of scope.
struct Newer(Vec<Value>);

const PLACES: [(&str, &str); 2] = [
    ("incidents.incident-operator.dev", "/spec/properties/mitigations/items"),
    ("mitigations.incident-operator.dev", "/spec"),
];

impl Newer {
    fn install() -> Newer {
        let mut before = Vec::new();
        for (name, place) in PLACES {
            let text = kubectl(&["get", "crd", name, "-o", "json"]).success();
            let mut crd: Value = serde_json::from_str(&text).expect("JSON");
            crd["metadata"].as_object_mut().expect("it has metadata").remove("resourceVersion");
            before.push(crd.clone());
            let root = "/spec/versions/0/schema/openAPIV3Schema/properties";
            let schema = crd.pointer_mut(&format!("{root}{place}")).expect("it has a schema");
            schema["properties"]["teleport"] =
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            let rules = schema["x-kubernetes-validations"].as_array_mut().expect("it has rules");
            let one = rules
                .iter_mut()
                .find(|r| r["message"].as_str().is_some_and(|m| m.starts_with("exactly one")));
            let rule = &mut one.expect("one of them counts the actions")["rule"];
            *rule = rule.as_str().expect("CEL").replace("[has(", "[has(self.teleport), has(").into();
            Newer::replace(&crd).success();
        }
        Newer(before)
    }

    fn replace(crd: &Value) -> Output {
        cluster::kubectl_with(&["replace", "-f", "-"], &crd.to_string())
    }
}

impl Drop for Newer {
    fn drop(&mut self) {
        for crd in &self.0 {
            Newer::replace(crd);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_of_a_newer_version_is_told_on_its_object_and_stops_nothing() {
    let namespace = TestNamespace::new("newer").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let _newer = Newer::install();
    let new_action = json!({
        "name": "away", "reason": "r", "targetRef": {"kind": "Deployment", "name": "web"}, "teleport": {"to": "mars"},
    });
    let mut alone = new_action.clone();
    alone.as_object_mut().expect("an object").remove("name");
    let object =
        |kind: &str, name: &str, spec: Value| born(workload::ours(kind, name, spec), &namespace.name);
    // The API server learns of the field by a watch of its own, and prunes what it does not know.
    wait_for(PATIENCE, "newer definitions", async || {
        store(
            "incident-operator.dev",
            "incidents",
            &object("Incident", "newer", json!({"title": "t", "mitigations": [new_action]})),
        );
        store("incident-operator.dev", "mitigations", &object("Mitigation", "newer", alone.clone()));
        let found = namespace.raw("Incident").get("newer").await.map_err(|e| e.to_string())?;
        let alone = namespace.raw("Mitigation").get("newer").await.map_err(|e| e.to_string())?;
        let there = found.data["spec"]["mitigations"][0]["teleport"]["to"] == "mars"
            && alone.data["spec"]["teleport"]["to"] == "mars";
        if there { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    for kind in ["Incident", "Mitigation"] {
        wait_status(&namespace.raw(kind), "newer", "report", |o| {
            let text = o.data["status"]["conditions"].to_string();
            text.contains("InvalidObject") && text.contains("run the version that wrote it")
        })
        .await;
    }
    works(&namespace, "beside").await;
    operator.restart().await;
    works(&namespace, "again").await;
    // Nobody can say which right its release needs, so the policies refuse that in words.
    let refused = namespace.kubectl(&["delete", "incident", "newer", "--timeout=30s"]).failure();
    assert!(refused.contains("unknown does not work on"), "{refused}");
}
