//! Objects that nobody should write, and far too many of them at once: none stops the others, and memory stays bounded.
//!
//! `TROUBLE=full` takes the numbers that are promised; `make test` takes fewer, in the same way.

use super::mitigation::{flag, scale};
use super::support::leadership::{in_full, works};
use super::support::parts::store;
use super::support::record::{incident_says, incident_when, told, whole_timeline};
use super::support::workload::{configmap, deployment, entry, incident, ours};
use super::support::*;
use futures::{StreamExt, stream};
use incident_operator::api::{Incident, Mitigation, MitigationPhase, TimelineEntry};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Most memory at any time, in MiB, whatever comes. The chart's limit is 256 MiB; a debug build takes more.
const MOST_MEMORY: u64 = 128;

fn bounded(operator: &Operator, what: &str) {
    let (now, peak) = (operator.rss_kib() / 1024, operator.peak_rss_kib() / 1024);
    println!("{what}: {now} MiB, at most {peak} MiB");
    assert!(peak < MOST_MEMORY, "{what}: {peak} MiB");
}

/// An object as it lies in etcd.
fn stored(namespace: &TestNamespace, kind: &str, name: &str, spec: Value) -> Value {
    let mut object = ours(kind, name, spec);
    let uid =
        format!("{:08x}-{:04x}-4000-8000-{:012x}", fastrand::u32(..), fastrand::u16(..), fastrand::u32(..));
    object["metadata"] = json!({
        "name": name, "namespace": namespace.name, "uid": uid, "generation": 1,
        "creationTimestamp": "2026-01-05T10:00:00Z",
    });
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_break_every_rule_and_were_stored_before_the_rules_stop_nothing() {
    let namespace = TestNamespace::new("lawless").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    let target = json!({"kind": "ConfigMap", "name": "flags"});
    let long = "x".repeat(1 << 20);
    let many: Vec<_> = (0..60)
        .map(|_| json!({"name": "same", "reason": "", "targetRef": target, "featureFlag": {"key": "a", "value": "off"}}))
        .collect();
    let lawless = json!({
        "title": "", "severity": "SEV99", "outcome": "Duplicate", "duplicateOf": {"name": "lawless"},
        "startTime": "2099-01-01T00:00:00Z", "impact": {"affectedTenants": -5}, "roles": {"incidentCommander": ""},
        "mitigations": many, "resolution": {"summary": ""}, "severityReason": "",
    });
    for (name, spec) in [
        ("lawless", lawless),
        ("large", json!({"title": long})),
        ("empty", json!({})),
        ("duplicate", json!({"title": "t", "outcome": "Duplicate"})),
        ("negative", json!({"title": "t", "impact": {"affectedTenants": -9_223_372_036_854_775_808_i64}})),
        (
            "no-action",
            json!({"title": "t", "mitigations": [{"name": "m", "reason": "r", "targetRef": target}]}),
        ),
    ] {
        store("incident-operator.dev", "incidents", &stored(&namespace, "Incident", name, spec));
    }
    for (name, spec) in [
        ("no-action", json!({"reason": "r", "targetRef": target})),
        (
            "two-actions",
            json!({"reason": "r", "targetRef": target, "featureFlag": {"key": "nowhere", "value": "1"}, "scale": {"replicas": 0}}),
        ),
        (
            "far",
            json!({"reason": "r", "targetRef": {"kind": "Nonsense", "name": "../../x"}, "scale": {"replicas": -7}}),
        ),
        (
            "forever",
            json!({"reason": "r", "targetRef": target, "featureFlag": {"key": "missing", "value": "1"}, "expiresAfter": "99999999h"}),
        ),
    ] {
        store("incident-operator.dev", "mitigations", &stored(&namespace, "Mitigation", name, spec));
    }
    let talk = json!({"incidentRef": {"name": "even"}, "type": "Gossip", "message": long, "occurredTime": "0001-01-01T00:00:00Z"});
    store("incident-operator.dev", "timelineentries", &stored(&namespace, "TimelineEntry", "talk", talk));
    let postmortem =
        json!({"incidentRef": {"name": "even"}, "summary": long, "state": "Burnt", "actionItems": many});
    store("incident-operator.dev", "postmortems", &stored(&namespace, "Postmortem", "pm", postmortem));

    let with = json!({"title": "t", "mitigations": [{
        "name": "off", "reason": "r", "targetRef": target, "featureFlag": {"key": "a", "value": "off"},
    }]});
    let looked_at = async |name: &str| {
        let raw = namespace.raw("Incident");
        wait_status(&raw, name, "look", |i| i.data["status"]["conditions"].is_array()).await
    };
    namespace.create(incident("even", with)).await;
    let mitigated = |i: &Value| {
        i["status"]["conditions"].to_string().contains(r#""MitigationsEffective""#)
            || i["status"]["stage"] == "Detect" && i["status"]["conditions"].is_array()
    };
    wait_status(&namespace.raw("Incident"), "even", "look", |i| mitigated(&i.data)).await;
    wait_status(&namespace.api::<ConfigMap>(), "flags", "effect", |c| c.data.as_ref().unwrap()["a"] == "off")
        .await;
    // Each has got a word about itself.
    for name in ["lawless", "empty", "duplicate", "negative", "no-action"] {
        looked_at(name).await;
    }
    // A rule that costs more than the API server spends on one lets nobody write to the object: the log tells.
    let large = format!("{}/large", namespace.name);
    let tells = |line: &str| line.contains(&large) && line.contains("cost limit exceeded");
    wait_for(PATIENCE, "word of the large one", async || {
        let log = operator.log();
        if log.lines().any(tells) { Ok(()) } else { Err(log) }
    })
    .await;
    operator.restart().await;
    namespace.create(incident("later", json!({"title": "t"}))).await;
    looked_at("later").await;
    assert!(!operator.log().contains("panicked"), "no visit ended in a panic");
    let tries = operator.log().lines().filter(|line| line.contains("visit failed")).count();
    assert!(tries < 100, "{tries} visits failed");
    bounded(&operator, "lawless objects");
    // They can be deleted, all but those of which nobody can say what right a release needs: that is said in words.
    for (kind, stays) in [("incidents", 1), ("mitigations", 1), ("timelineentries", 0), ("postmortems", 0)] {
        let said = namespace.kubectl(&["delete", kind, "--all", "--timeout=60s"]);
        assert_eq!(said.ok, stays == 0, "{said:?}");
        assert!(said.ok || said.stderr.contains("unknown does not work on"), "{said:?}");
        wait_for(PATIENCE, "end of the others", async || {
            let left = namespace.kubectl(&["get", kind, "-o", "name"]).success();
            if left.lines().count() == stays { Ok(()) } else { Err(left) }
        })
        .await;
    }
    let flags = namespace.api::<ConfigMap>().get("flags").await.expect("it exists");
    assert_eq!((flags.data.as_ref().unwrap()["a"].as_str(), marks(&flags)), ("on", vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_schema_let_in_goes_through_its_life_and_can_be_edited() {
    let namespace = TestNamespace::new("older").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    // Longer than today's schema lets titles be, and a summary that it would find too short.
    let spec = json!({"title": "Checkout fails ".repeat(60), "severity": "SEV2", "impact": {"summary": ""}});
    store("incident-operator.dev", "incidents", &stored(&namespace, "Incident", "older", spec));
    incident_when(&namespace, "older", "look", |i| !told(i, "Declared").is_empty()).await;
    let patch = |spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        namespace.kubectl(&["patch", "incident", "older", "--type=merge", "-p", &patch])
    };
    let off = json!({"name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "a", "value": "off"}});
    patch(json!({"roles": {"incidentCommander": "alice"}, "mitigations": [off]})).success();
    incident_when(&namespace, "older", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    let refused = patch(json!({"title": "Checkout still fails ".repeat(60)}));
    assert!(
        !refused.ok && refused.stderr.contains("spec.title"),
        "what is changed must be right: {refused:?}"
    );
    patch(json!({"mitigations": [], "resolution": {"summary": "done"}})).success();
    incident_when(&namespace, "older", "end", |i| incident_says(i, "Resolved").starts_with("True")).await;
    let maps = namespace.api::<ConfigMap>();
    wait_status(&maps, "flags", "release", |c| c.data.as_ref().is_some_and(|data| data["a"] == "on")).await;
    namespace.kubectl(&["delete", "incident", "older", "--timeout=60s"]).success();
    // A field of another level, of which nobody said that it does nothing.
    let level = json!({"blockWrites": {"level": "Quota"}});
    let block = super::mitigation::mitigation_of("block", "Namespace", &namespace.name, level);
    namespace.create(block).await;
    let held = super::mitigation::effective(&namespace, "block").await;
    let mut held = serde_json::to_value(held).expect("it is JSON");
    held["spec"]["blockWrites"]["flag"] = json!({"key": "a", "value": "on"});
    store("incident-operator.dev", "mitigations", &held);
    let patch = r#"{"spec":{"reason":"another reason"}}"#;
    namespace.kubectl(&["patch", "mitigation", "block", "--type=merge", "-p", patch]).success();
    super::mitigation::delete(&namespace, "block").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_status_loses_no_prior_value_and_stops_nothing() {
    let namespace = TestNamespace::new("nonsense").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("web", 2)).await;
    namespace.create(configmap("flags", &[("mode", "normal")])).await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    let off = json!({
        "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "mode", "value": "slow"},
    });
    namespace.create(incident("inc", json!({"title": "t", "mitigations": [off]}))).await;
    super::mitigation::effective(&namespace, "stop").await;
    incident_when(&namespace, "inc", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;

    // The lock refuses people; whoever is past it, or restores a backup, may write this. The prior values that are noted
    // in status are left alone: they are what tells a forged record on the target.
    let refused = namespace.kubectl(&[
        "patch",
        "mitigation",
        "stop",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"phase":"Released"}}"#,
    ]);
    assert!(refused.failure().contains("may not write the status"));
    let own = Cluster::as_the_operator().await;
    let mitigations: Api<Mitigation> = own.api(&namespace.name);
    let incidents: Api<Incident> = own.api(&namespace.name);
    let params = PatchParams::default();
    // (Who undid it is believed of one that has not ended: it is then undone in full, and ends.)
    for phase in ["Released", "Refused", "Pending", "Failed", "Superseded"] {
        let nonsense = json!({"status": {
            "phase": phase, "targetUid": null,
            "appliedTime": "9999-01-01T00:00:00Z", "expiryTime": "0001-01-01T00:00:00Z", "attempts": 2_147_483_647,
            "undoneBy": (phase != "Pending").then_some("nobody"), "conditions": null, "objects": null, "observedGeneration": 99,
        }});
        for name in ["stop", "inc-off"] {
            mitigations.patch_status(name, &params, &Patch::Merge(&nonsense)).await.expect("it is written");
        }
        let nonsense = json!({"status": {
            "stage": "Closed", "milestones": {"detectedTime": "9999-01-01T00:00:00Z", "resolvedTime": "0001-01-01T00:00:00Z"},
            "mitigations": [{"name": "ghost", "phase": "Active", "entry": "ghost"}], "timeline": null, "conditions": null,
        }});
        incidents.patch_status("inc", &params, &Patch::Merge(&nonsense)).await.expect("it is written");
        for name in ["stop", "inc-off"] {
            let seen = wait_status(&namespace.api::<Mitigation>(), name, "truth", |m| {
                m.status.as_ref().is_some_and(|s| {
                    s.phase == Some(MitigationPhase::Active) && s.observed_generation != Some(99)
                })
            })
            .await;
            assert_eq!(seen.status.unwrap().undone_by, None, "{phase}");
        }
        incident_when(&namespace, "inc", "truth", |i| {
            let status = i.status.as_ref().expect("it has one");
            // What was told of a mitigation that never was stays on record as such.
            let ghosts = status.mitigations.iter().filter(|m| m.name == "ghost");
            status.stage.is_some_and(|s| s.to_string() != "Closed")
                && !status.conditions.is_empty()
                && ghosts.into_iter().all(|m| m.phase == MitigationPhase::Abandoned)
        })
        .await;
        works(&namespace, &format!("beside-{}", phase.to_lowercase())).await;
    }
    let web = namespace.api::<Deployment>().get("web").await.expect("it exists");
    assert_eq!(web.spec.as_ref().and_then(|s| s.replicas), Some(0), "it is held all the time");
    // Once more right before the end, so that what is deleted claims to have ended.
    let ended = json!({"status": {"phase": "Released"}});
    let mark = audit::mark();
    let (held, declared) = (namespace.api::<Mitigation>(), namespace.api::<Incident>());
    let (patch, delete) = (Patch::Merge(&ended), DeleteParams::default());
    let done = tokio::join!(
        mitigations.patch_status("stop", &params, &patch),
        held.delete("stop", &delete),
        declared.delete("inc", &delete),
    );
    assert!(done.1.is_ok() && done.2.is_ok(), "{done:?}");
    wait_gone(&namespace.api::<Mitigation>(), "stop").await;
    wait_gone(&namespace.api::<Mitigation>(), "inc-off").await;
    let web = namespace.api::<Deployment>().get("web").await.expect("it exists");
    assert_eq!((web.spec.as_ref().and_then(|s| s.replicas), marks(&web)), (Some(2), vec![]));
    let flags = namespace.api::<ConfigMap>().get("flags").await.expect("it exists");
    assert_eq!((flags.data.as_ref().unwrap()["mode"].as_str(), marks(&flags)), ("normal", vec![]));
    assert!(!operator.log().contains("panicked"));
    let asked = operator.requests_once_quiet(mark, Duration::from_millis(500)).await;
    assert!(asked.len() < 60, "it comes to rest: {}", asked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_timeline_entries_at_once_are_each_folded_once_and_others_do_not_wait_for_them() {
    let namespace = TestNamespace::new("entries").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let count = if in_full() { 5000 } else { 800 };
    namespace.create(incident("talk", json!({"title": "t"}))).await;
    incident_when(&namespace, "talk", "look", |i| told(i, "Declared").len() == 1).await;
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    let written = async {
        stream::iter(0..count)
            .for_each_concurrent(32, |n| {
                let namespace = &namespace;
                async move {
                    namespace.create(entry("talk", "Note", &format!("note {n} "))).await;
                }
            })
            .await;
    };
    let others = async {
        for n in 0..5 {
            let asked = Instant::now();
            works(&namespace, &format!("other-{n}")).await;
            slowest = slowest.max(asked.elapsed());
        }
    };
    tokio::join!(written, others);
    let made = start.elapsed();
    let api = namespace.api::<TimelineEntry>();
    wait_for(Duration::from_secs(300), "end of the entries", async || {
        let left = api.list_metadata(&ListParams::default()).await.map_err(|e| e.to_string())?.items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    })
    .await;
    println!(
        "{count} entries written in {made:?}, folded after {:?}; others waited {slowest:?} at most",
        start.elapsed()
    );
    let talk = namespace.api::<Incident>().get("talk").await.expect("it exists");
    let all = whole_timeline(&namespace, &talk).await;
    let notes: Vec<_> = all.iter().filter(|r| r.message.starts_with("note ")).collect();
    let distinct: HashSet<_> = notes.iter().map(|r| r.message.as_str()).collect();
    assert_eq!((notes.len(), distinct.len()), (count, count), "each once");
    bounded(&operator, &format!("{count} timeline entries"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_incidents_in_one_apply_of_a_folder_are_all_mitigated() {
    let namespace = TestNamespace::new("folder").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let count: usize = if in_full() { 500 } else { 120 };
    let folder = tempfile::tempdir().expect("a folder");
    // Fifty mitigations on one object is what a record in its annotations has room for, and more than happens.
    for n in 0..count.div_ceil(50) {
        let keys: Vec<String> = (0..50).map(|key| format!("k{key}")).collect();
        let data: Vec<_> = keys.iter().map(|key| (key.as_str(), "on")).collect();
        namespace.create(configmap(&format!("flags-{n}"), &data)).await;
    }
    for n in 0..count {
        let object = incident(
            &format!("inc-{n}"),
            json!({
                "title": "Checkout returns 500 for 40 % of requests", "severity": "SEV2", "mitigations": [{
                    "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": format!("flags-{}", n / 50)},
                    "featureFlag": {"key": format!("k{}", n % 50), "value": "off"},
                }],
            }),
        );
        std::fs::write(folder.path().join(format!("{n}.json")), object.to_string()).expect("writable");
    }
    let start = Instant::now();
    namespace.kubectl(&["apply", "-f", &folder.path().display().to_string()]).success();
    let applied = start.elapsed();
    wait_for(Duration::from_secs(180), "effect of all", async || {
        let all =
            namespace.api::<Incident>().list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let done = all.iter().filter(|i| incident_says(i, "Mitigated").starts_with("True")).count();
        if done == count { Ok(()) } else { Err(format!("{done} of {count}")) }
    })
    .await;
    println!("{count} incidents applied in {applied:?}, all mitigated after {:?}", start.elapsed());
    for n in 0..count.div_ceil(50) {
        let flags = namespace.api::<ConfigMap>().get(&format!("flags-{n}")).await.expect("it exists");
        let off = flags.data.unwrap().values().filter(|value| *value == "off").count();
        assert_eq!(off, 50.min(count - n * 50), "flags-{n}");
    }
    bounded(&operator, &format!("{count} incidents at once"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_megabyte_is_mitigated_or_refused_in_words() {
    let namespace = TestNamespace::new("megabyte").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let large = "x".repeat(1_000_000);
    namespace.create(configmap("large", &[("mode", "normal"), ("other", &large)])).await;
    namespace.create(flag("slow", "large", "mode", "slow")).await;
    super::mitigation::effective(&namespace, "slow").await;
    namespace.create(configmap("huge", &[("other", &large)])).await;
    namespace.create(flag("huge", "huge", "other", "off")).await;
    let refused = super::mitigation::reaches(&namespace, "huge", MitigationPhase::Refused).await;
    let words = super::mitigation::message(&refused, "Ready").to_owned();
    println!("a value of a megabyte: {words}");
    assert!(!words.is_empty());
    let too_long = namespace.try_create(incident("long", json!({"title": large}))).await;
    assert!(too_long.is_err_and(|error| error.to_string().contains("title")), "the schema has maxima");
    works(&namespace, "other").await;
    super::mitigation::delete(&namespace, "slow").await;
    let map = namespace.api::<ConfigMap>().get("large").await.expect("it exists");
    assert_eq!((map.data.as_ref().unwrap()["mode"].as_str(), marks(&map)), ("normal", vec![]));
    bounded(&operator, "objects of a megabyte");
}
