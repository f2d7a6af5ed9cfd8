//! Several replicas: whatever happens to the one that leads, to the lease, to the way to it or to a clock, at most
//! one writes at every moment. The witness is the audit log, where each replica has a user agent of its own.
//!
//! `TROUBLE=full` runs them with the times that the operator has by itself, and stops a leader for a minute.

use super::support::leadership::*;
use super::support::proxy::{Fate, Proxy};
use super::support::*;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

async fn replicas(namespace: &TestNamespace, count: usize, pace: &Pace) -> Vec<Operator> {
    join_all((0..count).map(|_| Operator::start(namespace, pace.options()))).await
}

/// Long enough for a successor, on a loaded machine.
fn patience(pace: &Pace) -> Duration {
    pace.lease * 2 + Duration::from_secs(15)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_replicas_one_writes_through_kills_and_handovers() {
    let namespace = TestNamespace::new("three").await;
    let (mark, pace) = (audit::mark(), Pace::get());
    let mut all = replicas(&namespace, 3, &pace).await;
    let (first, _) = leader_among(&namespace, &all, patience(&pace), |_| true).await;
    let load = Load::start(&namespace).await;
    works(&namespace, "before").await;

    all[first].kill();
    let (second, took) = leader_among(&namespace, &all, patience(&pace), |n| n != first).await;
    println!("after SIGKILL another replica leads within {took:?} (the lease is good for {:?})", pace.lease);
    assert!(took > pace.lease / 2, "the one that was killed might only have been slow: {took:?}");
    works(&namespace, "killed").await;
    all[first].restart().await;

    // Each in its turn is asked to stop, with work under way.
    let mut leader = second;
    let mut gaps = Vec::new();
    for _ in 0..3 {
        let asked = audit::mark();
        let before = all[leader].identity.clone();
        let start = k8s_openapi::jiff::Timestamp::now();
        let (status, took) = all[leader].terminate().await;
        assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
        let wrote = wait_for(patience(&pace), "write of a successor", async || {
            let mut found = writes(&namespace, asked).into_iter();
            found.find(|r| r.resource != "leases" && identity(r) != before)
        })
        .await;
        let time: k8s_openapi::jiff::Timestamp = wrote.received.parse().expect("a time");
        gaps.push(time.duration_since(start).as_millis());
        let (next, _) = leader_among(&namespace, &all, patience(&pace), |n| n != leader).await;
        all[leader].restart().await;
        leader = next;
    }
    gaps.sort_unstable();
    println!("after SIGTERM a successor has written within {gaps:?} ms");
    assert!(gaps[1] <= 2000, "a successor acts within 2 s: {gaps:?} ms");

    let count = load.end(&namespace).await;
    let terms = one_writer(&namespace, mark);
    assert_eq!(terms.terms.len(), 5, "{terms:#?}");
    println!("{count} incidents; {:?}", terms.writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_for_long_and_goes_on_writes_nothing_more_and_stands_by() {
    let namespace = TestNamespace::new("stopped").await;
    let (mark, pace) = (audit::mark(), Pace::get());
    let mut all = replicas(&namespace, 2, &pace).await;
    let (old, _) = leader_among(&namespace, &all, patience(&pace), |_| true).await;
    let new = 1 - old;
    works(&namespace, "before").await;
    // A request that it has begun to send would go out when it goes on: no lease can hold that back, see
    // docs/reliability.md. So it is stopped while it has nothing to write.
    all[old].requests_once_quiet(mark, Duration::from_millis(500)).await;
    all[old].signal("STOP");
    let stopped = Instant::now();
    let load = Load::start(&namespace).await;
    let (leads, took) = leader_among(&namespace, &all, patience(&pace), |n| n == new).await;
    assert!(leads == new && took > pace.lease / 2, "{took:?}");
    works(&namespace, "meanwhile").await;
    tokio::time::sleep(pace.stop.saturating_sub(stopped.elapsed())).await;
    let resumed = audit::mark();
    all[old].signal("CONT");
    // It is told about all that happened meanwhile, and would have enough to do.
    wait_for(PATIENCE, "requests of the one that goes on", async || {
        let asked = all[old].requests(resumed);
        asked.iter().any(|r| r.resource == "leases" && r.verb == "get").then_some(())
    })
    .await;
    for n in 0..5 {
        works(&namespace, &format!("after-{n}")).await;
    }
    let wrote = |r: &audit::Request| r.writes() && (r.resource != "leases" || r.code < 300);
    let by_old: Vec<_> = all[old].requests(resumed).into_iter().filter(wrote).map(|r| r.brief()).collect();
    assert_eq!(by_old, Vec::<String>::new(), "nothing was written or even asked for");
    assert_eq!(all[old].get("/readyz"), Some(200), "it is a standby with warm caches");
    assert_eq!(all[old].metric("leader_election_master_status", &[]).await, Some(0.0));

    // And it takes over again when its turn comes.
    all[new].kill();
    leader_among(&namespace, &all, patience(&pace), |n| n == old).await;
    works(&namespace, "again").await;
    load.end(&namespace).await;
    let terms = one_writer(&namespace, mark);
    assert_eq!(terms.terms.len(), 3, "{terms:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_or_edited_by_hand_lets_no_second_one_write() {
    let namespace = TestNamespace::new("byhand").await;
    let (mark, pace) = (audit::mark(), Pace::get());
    let all = replicas(&namespace, 2, &pace).await;
    let leases: Api<Lease> = namespace.api();
    let (leader, _) = leader_among(&namespace, &all, patience(&pace), |_| true).await;
    let load = Load::start(&namespace).await;
    works(&namespace, "before").await;
    let edit = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        leases.patch("incident-operator", &PatchParams::default(), &patch).await.expect("it can be edited");
    };

    leases.delete("incident-operator", &DeleteParams::default()).await.expect("it can be deleted");
    leader_among(&namespace, &all, patience(&pace), |n| n == leader).await;
    edit(json!({"holderIdentity": ""})).await;
    leader_among(&namespace, &all, patience(&pace), |n| n == leader).await;
    edit(json!({"holderIdentity": null, "renewTime": null, "leaseDurationSeconds": null})).await;
    leader_among(&namespace, &all, patience(&pace), |n| n == leader).await;
    works(&namespace, "emptied").await;
    let terms = one_writer(&namespace, mark);
    assert_eq!(terms.terms.len(), 1, "its holder puts it right, nobody else takes it: {terms:#?}");

    // In the name of somebody who does not exist: they are waited for, then it goes on.
    edit(json!({"holderIdentity": "nobody"})).await;
    let (next, took) = leader_among(&namespace, &all, patience(&pace), |_| true).await;
    assert!(took > pace.lease / 2, "{took:?}");
    works(&namespace, "nobody").await;
    // In the name of the standby, which has not asked for it: it waits until the other one must have seen it.
    let standby = 1 - next;
    edit(json!({"holderIdentity": all[standby].identity})).await;
    // Nobody renews it meanwhile, so when its time is over the other one may be quicker: either is right, both are not.
    let named = leases.get("incident-operator").await.expect("it is there").spec.and_then(|s| s.renew_time);
    wait_for(patience(&pace), "one of the two that renews it", async || {
        let lease = leases.get("incident-operator").await.ok()?.spec?;
        let known = all.iter().any(|replica| Some(&replica.identity) == lease.holder_identity.as_ref());
        (known && lease.renew_time != named).then_some(())
    })
    .await;
    works(&namespace, "named").await;
    load.end(&namespace).await;
    println!("{:#?}", one_writer(&namespace, mark));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_renewals_fail_or_hang_stops_writing_before_another_begins() {
    let namespace = TestNamespace::new("renewals").await;
    let (mark, pace) = (audit::mark(), Pace::get());
    let proxy = Proxy::start().await;
    let options = Options { server: Some(proxy.url.clone()), ..pace.options() };
    let first = Operator::start(&namespace, options).await;
    leader_among(&namespace, std::slice::from_ref(&first), patience(&pace), |_| true).await;
    let mut all = [first, Operator::start(&namespace, pace.options()).await];
    let load = Load::start(&namespace).await;
    works(&namespace, "before").await;

    for (fate, name) in [(Fate::Answer(503), "refused"), (Fate::Hang, "hangs")] {
        // All else still reaches the API server, so nothing but its own clock holds it back.
        proxy.rule(
            move |method, path| {
                if *method != "GET" && path.contains("/leases/") { fate } else { Fate::Pass }
            },
        );
        leader_among(&namespace, &all, patience(&pace), |n| n == 1).await;
        works(&namespace, name).await;
        one_writer(&namespace, mark);
        proxy.rule(|_, _| Fate::Pass);
        // Back to the first one.
        all[1].terminate().await;
        leader_among(&namespace, &all, patience(&pace), |n| n == 0).await;
        all[1].restart().await;
        works(&namespace, &format!("{name}-back")).await;
    }

    // Of every two renewals one arrives and its answer is lost: the holder finds out that it is its own.
    let terms = one_writer(&namespace, mark).terms.len();
    let count = AtomicU32::new(0);
    proxy.rule(move |method, path| {
        let renewal = *method != "GET" && path.contains("/leases/");
        let lost = renewal && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        if lost { Fate::LoseAnswer } else { Fate::Pass }
    });
    tokio::time::sleep(pace.lease * 3 / 2).await;
    works(&namespace, "lost").await;
    assert_eq!(one_writer(&namespace, mark).terms.len(), terms, "a lost answer costs no leadership");
    load.end(&namespace).await;
    println!("{:#?}", one_writer(&namespace, mark));
}

/// Environment of a process with a clock of its own; `None` when that cannot be had here.
fn clock(faketime: &str, monotonic_too: bool) -> Option<Vec<(String, String)>> {
    let script = own_cluster::root().join("tests/controlplane/faketime.sh");
    let found = own_cluster::run(&mut Command::new(script));
    if !found.ok {
        skipped("clocks that differ", &found.stderr);
        return None;
    }
    let mut env = vec![("LD_PRELOAD", found.stdout.trim()), ("FAKETIME", faketime)];
    if !monotonic_too {
        env.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1"));
    }
    Some(env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_are_an_hour_apart_or_run_at_half_and_double_rate_change_no_leader() {
    let namespace = TestNamespace::new("clocks").await;
    let (mark, pace) = (audit::mark(), Pace::get());
    let mut all = vec![Operator::start(&namespace, pace.options()).await];
    leader_among(&namespace, &all, patience(&pace), |_| true).await;
    for faketime in ["+3600s", "-3600s", "+0s x2", "+0s x0.5"] {
        let Some(env) = clock(faketime, false) else { return };
        all.push(Operator::start(&namespace, Options { env, ..pace.options() }).await);
    }
    let load = Load::start(&namespace).await;
    // Whoever compared the time in the lease with a clock on the wall would take over now.
    tokio::time::sleep(pace.lease * 3 / 2).await;
    assert_eq!(one_writer(&namespace, mark).terms.len(), 1, "nobody took over from a healthy leader");
    // Each of them leads once, and the others respect it.
    for round in 0..all.len() {
        let (leader, _) = leader_among(&namespace, &all, patience(&pace), |_| true).await;
        works(&namespace, &format!("round-{round}")).await;
        all[leader].kill();
        if round + 1 < all.len() {
            let (_, took) = leader_among(&namespace, &all, patience(&pace), |n| n != leader).await;
            assert!(took > pace.lease / 2, "round {round}: {took:?}");
        }
    }
    all[0].restart().await;
    load.end(&namespace).await;
    let terms = one_writer(&namespace, mark);
    assert!(terms.terms.len() > all.len(), "{terms:#?}");
    println!("{terms:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_monotonic_clock_that_a_lease_is_judged_by() {
    let namespace = TestNamespace::new("monotonic").await;
    let (mark, pace) = (audit::mark(), Pace::get());
    let Some(env) = clock("+0s x2", true) else { return };
    let mut all = vec![Operator::start(&namespace, pace.options()).await];
    leader_among(&namespace, &all, patience(&pace), |_| true).await;
    all.push(Operator::start(&namespace, Options { env, ..pace.options() }).await);
    let load = Load::start(&namespace).await;
    tokio::time::sleep(pace.lease * 3 / 2).await;
    assert_eq!(one_writer(&namespace, mark).terms.len(), 1, "a renewed lease is safe at double rate, too");
    all[0].kill();
    let (_, took) = leader_among(&namespace, &all, patience(&pace), |n| n == 1).await;
    println!("with a monotonic clock at double rate a lease of {:?} runs out after {took:?}", pace.lease);
    assert!(took < pace.lease * 9 / 10, "its own monotonic clock counts: {took:?}");
    load.end(&namespace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_would_let_two_lead_are_refused_at_the_start() {
    let namespace = TestNamespace::new("times").await;
    // Makes sure that the program lies in E2E_DIR/bin.
    Operator::start(&namespace, Options::default()).await.terminate().await;
    let run = |args: &[&str]| {
        own_cluster::run(
            Command::new(Cluster::dir().join("bin/incident-operator"))
                .arg("run")
                .args(args)
                .env("KUBECONFIG", Cluster::kubeconfig()),
        )
    };
    let said = run(&["--renew-deadline", "15s"]).failure();
    assert!(said.contains("must not be longer than"), "{said}");
    let said = run(&["--lease-duration", "soon"]).failure();
    assert!(said.contains("use a duration such as 15s"), "{said}");
}
