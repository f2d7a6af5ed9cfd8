//! The process: health, metrics, logs, leadership, memory, and how little it asks when nothing happens.

use super::support::record::{incident_says, incident_when, timeline, told};
use super::support::workload::{configmap, entry, incident};
use super::support::*;
use futures::future::join_all;
use incident_operator::api::Incident;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn off(key: &str) -> Value {
    json!({
        "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": key, "value": "off"},
    })
}

async fn holder(namespace: &TestNamespace) -> String {
    let lease = namespace.api::<Lease>().get_opt("incident-operator").await.expect("it answers");
    lease.and_then(|l| l.spec).and_then(|s| s.holder_identity).unwrap_or_default()
}

async fn leads(namespace: &TestNamespace, operator: &Operator, limit: Duration) -> Duration {
    let start = Instant::now();
    wait_for(limit, "leadership", async || {
        let now = holder(namespace).await;
        if now == operator.identity { Ok(()) } else { Err(format!("{now:?} leads")) }
    })
    .await;
    start.elapsed()
}

/// Waits until an incident that is declared now is looked at.
async fn works(namespace: &TestNamespace, name: &str) {
    namespace.create(incident(name, json!({"title": "Checkout fails"}))).await;
    incident_when(namespace, name, "look", |i| told(i, "Declared").len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_tell_what_goes_on() {
    let namespace = TestNamespace::new("metrics").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    assert_eq!(
        (operator.get("/livez"), operator.get("/readyz"), operator.get("/nowhere")),
        (Some(200), Some(200), Some(404))
    );
    namespace.create(configmap("flags", &[("a", "on")])).await;
    let mut spec = json!({"title": "t", "severity": "SEV1", "mitigations": [off("a")]});
    spec["impact"] = json!({"affectedTenants": 1});
    namespace.create(incident("counted", spec)).await;
    incident_when(&namespace, "counted", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
        .await;
    let open = [("severity", "SEV1"), ("stage", "Detect"), ("drill", "false")];
    operator.metric_is("incident_operator_incidents", &open, 1.0).await;
    let active = [("action", "featureFlag"), ("phase", "Active")];
    operator.metric_is("incident_operator_mitigations", &active, 1.0).await;
    let taken = [("operation", "take"), ("result", "success")];
    operator.metric_is("incident_operator_mitigation_operations_total", &taken, 1.0).await;
    operator.metric_is("leader_election_master_status", &[], 1.0).await;
    wait_for(PATIENCE, "visits and requests to be counted", async || {
        let one = async |name: &str, labels: &[(&str, &str)]| operator.metric(name, labels).await;
        let incident = one("controller_runtime_reconcile_total", &[("controller", "incident")]).await?;
        let timed =
            one("controller_runtime_reconcile_time_seconds_count", &[("controller", "mitigation")]).await?;
        let patches = one("rest_client_requests_total", &[("code", "200"), ("method", "PATCH")]).await?;
        (incident >= 1.0 && timed >= 1.0 && patches >= 2.0).then_some(())
    })
    .await;
    let text = operator.metrics().await;
    assert!(text.ends_with("# EOF\n"), "OpenMetrics says where it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_only_the_leader_writes_and_the_other_takes_over() {
    let namespace = TestNamespace::new("replicas").await;
    let mut first = Operator::start(&namespace, Options::default()).await;
    leads(&namespace, &first, PATIENCE).await;
    let mut second = Operator::start(&namespace, Options::default()).await;
    assert_eq!(second.get("/readyz"), Some(200), "a standby is ready to take over");
    namespace.create(configmap("flags", &[("a", "on"), ("b", "on"), ("c", "on")])).await;

    let mark = audit::mark();
    namespace.create(incident("one", json!({"title": "t", "mitigations": [off("a")]}))).await;
    incident_when(&namespace, "one", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    let wrote = first.requests_once_quiet(mark, Duration::from_millis(300)).await;
    assert!(wrote.iter().any(audit::Request::writes));
    let by_standby: Vec<_> = second.requests(mark).into_iter().filter(audit::Request::writes).collect();
    assert_eq!(by_standby, [], "a standby writes nothing, not even the lease");

    // A leader that stops gives the lease back.
    let (status, took) = first.terminate().await;
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    let took = leads(&namespace, &second, Duration::from_secs(3)).await;
    println!("after SIGTERM the other replica leads within {took:?}");
    works(&namespace, "two").await;

    // One that is killed does not; the other waits until the lease has run out.
    first.restart().await;
    wait_for(PATIENCE, "readiness of the standby", async || {
        (first.get("/readyz") == Some(200)).then_some(())
    })
    .await;
    assert_eq!(holder(&namespace).await, second.identity);
    let mark = audit::mark();
    second.kill();
    // Seen by a standby, which may not write yet.
    let odd = incident("odd", json!({"title": "t", "startTime": "9999-12-31T23:59:59Z"}));
    parts::store("incident-operator.dev", "incidents", &parts::born(odd, &namespace.name));
    let took = leads(&namespace, &first, Duration::from_secs(25)).await;
    println!("after kill -9 the other replica leads within {took:?}");
    assert!(
        took > Duration::from_secs(8),
        "nobody leads twice: the one that was killed might only have been slow ({took:?})"
    );
    works(&namespace, "three").await;
    wait_status(&namespace.raw("Incident"), "odd", "report on what cannot be read", |i| {
        i.data["status"]["conditions"].to_string().contains("InvalidObject")
    })
    .await;
    assert!(first.requests(mark).iter().any(audit::Request::writes));
    let done = namespace.api::<Incident>().get("one").await.expect("it exists");
    assert_eq!(told(&done, "Declared").len(), 1, "nothing is told twice");
    assert_eq!(told(&done, "MitigationApplied").len(), 1, "{:?}", timeline(&done));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_hundred_incidents_at_rest_it_asks_for_nothing_but_its_lease_and_stays_small() {
    let namespace = TestNamespace::new("hundred").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let keys: Vec<String> = (0..20).map(|n| format!("flag-{n}")).collect();
    namespace.create(configmap("flags", &keys.iter().map(|k| (k.as_str(), "on")).collect::<Vec<_>>())).await;
    for batch in 0..10 {
        let some = (0..10).map(|n| batch * 10 + n).map(|n| {
            let mitigations: Vec<_> = keys.get(n).into_iter().map(|key| off(key)).collect();
            namespace.create(incident(&format!("inc-{n}"), json!({
                "title": "Checkout returns 500 for 40 % of requests", "severity": "SEV2", "service": "checkout",
                "roles": {"incidentCommander": "alice", "communicationsLead": "carol", "operationsLead": "bob"},
                "impact": {"summary": "40 % of checkouts fail", "affectedTenants": 120}, "mitigations": mitigations,
            })))
        });
        join_all(some).await;
    }
    join_all((0..100).map(|n| namespace.create(entry(&format!("inc-{n}"), "Note", "seen in the logs"))))
        .await;
    wait_for(Duration::from_secs(60), "settled incidents", async || {
        let all =
            namespace.api::<Incident>().list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let settled = all
            .iter()
            .filter(|i| incident_says(i, "Ready").starts_with("True") && told(i, "Note").len() == 1);
        let settled = settled.count();
        if settled == 100 { Ok(()) } else { Err(format!("{settled} of {}", all.len())) }
    })
    .await;
    // The Events of all of them take their time on a slow machine, and three seconds after its declaration an incident
    // looks for a way back.
    let mut last = (0, Instant::now());
    let mark = audit::mark();
    wait_for(Duration::from_secs(120), "end of the requests", async || {
        let asked = operator.requests(mark).iter().filter(|r| r.resource != "leases").count();
        if asked != last.0 {
            last = (asked, Instant::now());
        }
        if last.1.elapsed() > Duration::from_secs(4) { Ok(()) } else { Err(format!("{asked} so far")) }
    })
    .await;
    let mark = audit::mark();
    let rest = Duration::from_secs(5);
    holds_for(rest, "rest", async || {
        let asked = operator.requests(mark);
        let other: Vec<_> = asked.iter().filter(|r| r.verb != "watch" && r.resource != "leases").collect();
        if other.is_empty() { Ok(()) } else { Err(format!("{other:?}")) }
    })
    .await;
    let asked = operator.requests(mark);
    let (rss, peak) = (operator.rss_kib(), operator.peak_rss_kib());
    println!(
        "at rest: {} requests in {rest:?}; {rss} KiB, at most {peak} KiB (debug build: {})",
        asked.len(),
        cfg!(debug_assertions)
    );
    assert!(asked.len() <= 8, "{asked:?}");
    // The pages of a debug build's file are some 40 MB and no measure of anything; of a release build all counts.
    let (counts, most) = if cfg!(debug_assertions) { (operator.rss_anon_kib(), 20) } else { (rss, 40) };
    assert!(counts < most * 1024, "{counts} KiB with a hundred incidents");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_whose_record_is_refused_does_not_stop_the_others() {
    let namespace = TestNamespace::new("refused").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let stuck = incident("stuck", json!({"title": "t"}));
    let mut probe = stuck.clone();
    probe["metadata"]["name"] = "stuck-probe".into();
    // The API server refuses what is written to one incident; its creation stands for that in the probe.
    let rule = "object.metadata.name == 'stuck-probe' || (object.metadata.name == 'stuck' && request.?subResource.orValue('') == 'status')";
    let denial = admission::Denial::of(&namespace, "incident-operator.dev", "*/*", rule, &probe).await;
    namespace.create(stuck).await;
    for n in 0..10 {
        works(&namespace, &format!("free-{n}")).await;
    }
    let failed =
        operator.metric("controller_runtime_reconcile_errors_total", &[("controller", "incident")]).await;
    assert!(failed.is_some_and(|n| n >= 1.0), "{failed:?}");
    let tries = operator.log().lines().filter(|l| l.contains("visit failed") && l.contains("stuck")).count();
    assert!((1..40).contains(&tries), "it is tried again, with patience: {tries}");
    drop(denial);
    incident_when(&namespace, "stuck", "record after all", |i| told(i, "Declared").len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_json_when_asked_for_and_sigterm_ends_the_process_in_time() {
    let namespace = TestNamespace::new("logs").await;
    // Makes sure that the program lies in E2E_DIR/bin; this one gives its lease back.
    Operator::start(&namespace, Options::default()).await.terminate().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = std::fs::File::create(&path).expect("a file");
    let kubeconfig = folder.path().join("kubeconfig");
    operator::write_kubeconfig(&namespace.cluster, &kubeconfig, None).await;
    let mut child = Command::new(Cluster::dir().join("bin/incident-operator"))
        .args(["run", "--listen", "127.0.0.1:0", "--log-format", "json", "--watch-namespace"])
        .args([&namespace.name, "--lease-namespace", &namespace.name])
        .env("KUBECONFIG", &kubeconfig)
        .env("RUST_LOG", "debug")
        .stdout(Stdio::from(log.try_clone().expect("copied")))
        .stderr(Stdio::from(log))
        .spawn()
        .expect("it starts");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_for(PATIENCE, "leadership in the log", async || {
        let text = read();
        if text.contains("\"leading\"") { Ok(()) } else { Err(text) }
    })
    .await;
    works(&namespace, "logged").await;
    let start = Instant::now();
    Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &child.id().to_string()]).status().expect("sent");
    let status = wait_for(PATIENCE, "end", async || child.try_wait().expect("our child")).await;
    assert!(status.success() && start.elapsed() < Duration::from_secs(5), "{status} {:?}", start.elapsed());
    let text = read();
    assert!(text.lines().count() > 3);
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(
            entry["level"].is_string() && entry["timestamp"].is_string() && entry["message"].is_string(),
            "{line}"
        );
    }
    let lease = namespace
        .api::<Lease>()
        .get("incident-operator")
        .await
        .expect("it exists")
        .spec
        .and_then(|s| s.holder_identity);
    assert_eq!(lease.as_deref(), Some(""), "the lease is given back");
}
