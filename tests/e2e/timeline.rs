//! The timeline: each entry exactly once, whatever happens in between.

use super::support::parts::store;
use super::support::record::{
    archives, entry_phase, incident_says, incident_when, says as says_of, stage, timeline, told,
    whole_timeline,
};
use super::support::workload::{configmap, deployment, entry, incident};
use super::support::*;
use futures::future::join_all;
use incident_operator::api::{Incident, Postmortem, TimelineEntry};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

async fn no_entry_is_left(namespace: &TestNamespace) {
    wait_for(Duration::from_secs(60), "end of the entries", async || {
        let left =
            namespace.api::<TimelineEntry>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        if left.items.is_empty() { Ok(()) } else { Err(format!("{} entries", left.items.len())) }
    })
    .await;
}

/// How often each message stands in the whole timeline.
async fn counted(namespace: &TestNamespace, name: &str) -> BTreeMap<String, usize> {
    let incident = namespace.api::<Incident>().get(name).await.expect("the incident exists");
    let mut counts = BTreeMap::new();
    for record in whole_timeline(namespace, &incident).await {
        *counts.entry(record.message).or_default() += 1;
    }
    counts
}

fn with(mut entry: Value, field: &str, value: Value) -> Value {
    entry["spec"][field] = value;
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_every_type_are_folded_in_order_of_what_happened_and_removed() {
    let namespace = TestNamespace::new("fold").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(incident("talk", json!({"title": "Checkout fails"}))).await;
    let early = with(entry("talk", "Evidence", "first alert"), "occurredTime", json!("2026-01-05T10:00:00Z"));
    let future = with(entry("talk", "Note", "dated tomorrow"), "occurredTime", json!("2036-01-05T10:00:00Z"));
    let public = with(entry("talk", "StatusUpdate", "we are on it"), "audience", json!("Public"));
    let linked = with(entry("talk", "Hypothesis", "the pool"), "link", json!("https://graphs.example/pool"));
    for one in
        [future, public, linked, entry("talk", "Decision", "roll back"), entry("talk", "Note", "seen"), early]
    {
        namespace.create(one).await;
    }
    no_entry_is_left(&namespace).await;
    let talk = namespace.api::<Incident>().get("talk").await.expect("it exists");
    let times: Vec<_> = timeline(&talk).iter().map(|r| r.time.0).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(timeline(&talk)[0].message, "first alert");
    assert!(
        times.iter().all(|t| t.to_string().as_str() < "2036"),
        "what is dated in the future happened when it was written"
    );
    assert_eq!(told(&talk, "StatusUpdate")[0].audience.map(|a| format!("{a:?}")).as_deref(), Some("Public"));
    assert_eq!(told(&talk, "Hypothesis")[0].link.as_deref(), Some("https://graphs.example/pool"));
    assert_eq!(told(&talk, "Note").len(), 2);
    assert!(told(&talk, "Decision")[0].entry_uid.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_to_the_company_resets_its_clock() {
    let namespace = TestNamespace::new("clock").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace
        .create(incident(
            "tick",
            json!({"title": "t", "severity": "SEV3", "detection": {"time": "2026-01-05T10:00:00Z"}}),
        ))
        .await;
    let due = |i: &Incident| i.status.as_ref().and_then(|s| s.next_update_time.clone()).unwrap_or_default();
    incident_when(&namespace, "tick", "clock", |i| due(i) == "2026-01-05T11:00:00Z").await;
    let update =
        with(entry("tick", "StatusUpdate", "still broken"), "occurredTime", json!("2026-01-05T10:20:00Z"));
    namespace.create(update).await;
    incident_when(&namespace, "tick", "next round of the clock", |i| due(i) == "2026-01-05T11:20:00Z").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_entry_is_lost_or_doubled_when_the_operator_is_killed_again_and_again() {
    let namespace = TestNamespace::new("crash").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(incident("shaky", json!({"title": "Checkout fails"}))).await;
    let rounds = 15;
    for round in 0..rounds {
        for n in 0..3 {
            namespace.create(entry("shaky", "Note", &format!("round {round} entry {n}"))).await;
        }
        // Not a wait for anything: the moment of the crash is what varies.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..30_000))).await;
        operator.restart().await;
    }
    no_entry_is_left(&namespace).await;
    let counts = counted(&namespace, "shaky").await;
    let notes: Vec<_> = counts.iter().filter(|(message, _)| message.starts_with("round")).collect();
    assert_eq!(notes.len(), rounds * 3, "{counts:#?}");
    assert!(counts.values().all(|n| *n == 1), "{counts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_entries_at_once_are_all_kept_the_older_ones_in_config_maps() {
    let namespace = TestNamespace::new("burst").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(incident("loud", json!({"title": "Checkout fails"}))).await;
    for batch in 0..15 {
        let notes: Vec<_> =
            (0..20).map(|n| entry("loud", "Note", &format!("note {}", batch * 20 + n))).collect();
        join_all(notes.into_iter().map(|note| namespace.create(note))).await;
    }
    no_entry_is_left(&namespace).await;
    let loud = incident_when(&namespace, "loud", "end of the archiving", |i| timeline(i).len() <= 100).await;
    let counts = counted(&namespace, "loud").await;
    assert!(
        counts.values().all(|n| *n == 1),
        "{:?}",
        counts.iter().filter(|(_, n)| **n != 1).collect::<Vec<_>>()
    );
    assert_eq!(counts.keys().filter(|message| message.starts_with("note ")).count(), 300);

    let stored = archives(&namespace, &loud).await;
    let archive = loud.status.as_ref().and_then(|s| s.timeline_archive.clone()).expect("some are archived");
    assert_eq!(archive.config_maps as usize, stored.len());
    assert_eq!(archive.entries as usize, counts.len() - timeline(&loud).len());
    assert!(stored.len() <= 5, "an archive is worth its object: {} of them", stored.len());
    for map in &stored {
        assert_eq!(map.immutable, Some(true));
        assert_eq!(map.labels()["incident-operator.dev/incident"], "loud");
    }
    assert!(!operator.log().contains("panic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_takes_as_many_bytes_to_record_however_many_there_are() {
    let namespace = TestNamespace::new("bytes").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(incident("long", json!({"title": "Checkout fails"}))).await;
    let (mut count, mut sizes) = (0, Vec::<usize>::new());
    for upto in [10, 190, 400] {
        loop {
            let long = namespace.api::<Incident>().get("long").await.expect("it exists");
            // Where older ones are about to move out, that is another write.
            if count >= upto && timeline(&long).len() <= 95 {
                break;
            }
            let batch = if count < upto { 20.min(upto - count) } else { 5 };
            join_all(
                (0..batch).map(|n| namespace.create(entry("long", "Note", &format!("note {}", count + n)))),
            )
            .await;
            count += batch;
            no_entry_is_left(&namespace).await;
        }
        let mark = audit::mark();
        let words = format!("measured after {upto:03}");
        namespace.create(entry("long", "Note", &words)).await;
        count += 1;
        no_entry_is_left(&namespace).await;
        let asked = operator.requests_once_quiet(mark, Duration::from_millis(300)).await;
        let bodies = asked.iter().filter(|r| r.brief() == "patch incidents/long/status 200");
        let mut bodies = bodies.filter_map(|r| r.body.as_ref());
        let body =
            bodies.find(|body| body.to_string().contains(&words)).expect("it was recorded by one write");
        // A deadline that passes in the same moment changes conditions, whose size is another matter.
        let operations = body.as_array().unwrap_or_else(|| panic!("a patch of what changes: {body}"));
        let is_entry =
            |op: &&Value| op["path"].as_str().is_some_and(|path| path.starts_with("/status/timeline"));
        sizes.push(operations.iter().filter(is_entry).map(|op| op.to_string().len()).sum());
    }
    let (least, most) = (sizes.iter().min().expect("three"), sizes.iter().max().expect("three"));
    assert!(most - least < 512, "bytes after 10, 190 and 400 entries: {sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_incident_of_the_same_name_keeps_its_own_archive() {
    let namespace = TestNamespace::new("again").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let declared = namespace.create(incident("twice", json!({"title": "Checkout fails"}))).await;
    // Somebody uses the name that an archive will have, and says that it is of this incident.
    let mut forged = configmap("twice-timeline-0", &[("timeline.json", "[]")]);
    forged["metadata"]["annotations"] = json!({"incident-operator.dev/incident-uid": declared.uid()});
    forged["immutable"] = json!(true);
    namespace.create(forged).await;
    for batch in 0..13 {
        let notes: Vec<_> =
            (0..20).map(|n| entry("twice", "Note", &format!("note {}", batch * 20 + n))).collect();
        join_all(notes.into_iter().map(|note| namespace.create(note))).await;
    }
    no_entry_is_left(&namespace).await;
    let twice = incident_when(&namespace, "twice", "archive", |i| {
        i.status.as_ref().is_some_and(|s| s.timeline_archive.is_some()) && timeline(i).len() <= 100
    })
    .await;
    let kept = archives(&namespace, &twice).await;
    let ours = kept.iter().filter(|c| c.labels().contains_key("app.kubernetes.io/managed-by"));
    let archive = twice.status.as_ref().and_then(|s| s.timeline_archive.clone()).expect("some are archived");
    assert_eq!(ours.count(), archive.config_maps as usize, "the forged one is none of them");
    let counts = counted(&namespace, "twice").await;
    assert_eq!(counts.keys().filter(|message| message.starts_with("note ")).count(), 260);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_entries_fit_in_however_many_there_are() {
    let namespace = TestNamespace::new("long").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(incident("heavy", json!({"title": "Checkout fails"}))).await;
    // The longest message that the schema takes, of characters of three bytes: 12 KiB each, 3 MiB in all.
    let text = |n: usize| format!("{n:03}{}", "결".repeat(4093));
    for batch in 0..13 {
        let notes: Vec<_> = (0..20).map(|n| entry("heavy", "Note", &text(batch * 20 + n))).collect();
        join_all(notes.into_iter().map(|note| namespace.create(note))).await;
    }
    no_entry_is_left(&namespace).await;
    // What moves out is in its config map for a moment before it leaves the status.
    let counts = wait_for(PATIENCE, "each entry once", async || {
        let counts = counted(&namespace, "heavy").await;
        let twice: Vec<_> = counts
            .iter()
            .filter(|(_, n)| **n != 1)
            .map(|(m, n)| (m.chars().take(40).collect::<String>(), *n))
            .collect();
        if twice.is_empty() { Ok(counts) } else { Err(format!("{twice:?}")) }
    })
    .await;
    assert_eq!(counts.keys().filter(|message| message.contains('결')).count(), 260);
    let refused =
        operator.log().lines().filter(|l| l.contains("too large") || l.contains("Too long")).count();
    assert_eq!(refused, 0, "{}", operator.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_may_not_be_written_stops_nothing_and_is_not_asked_for_all_the_time() {
    let namespace = TestNamespace::new("no-room").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("pricing", "on")])).await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"count/configmaps": "2"}},
    });
    namespace.create(quota).await;
    let quotas = namespace.api::<k8s_openapi::api::core::v1::ResourceQuota>();
    wait_status(&quotas, "few", "quota in force", |q| q.status.as_ref().is_some_and(|s| s.used.is_some()))
        .await;
    namespace.create(incident("full", json!({"title": "Checkout fails"}))).await;
    for batch in 0..14 {
        let notes: Vec<_> =
            (0..20).map(|n| entry("full", "Note", &format!("note {}", batch * 20 + n))).collect();
        join_all(notes.into_iter().map(|note| namespace.create(note))).await;
    }
    incident_when(&namespace, "full", "full timeline", |i| timeline(i).len() >= 225).await;
    // What is asked for is done and told all the same.
    let off = json!([{
        "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "pricing", "value": "off"},
    }]);
    let mark = audit::mark();
    namespace
        .kubectl(&[
            "patch",
            "incident",
            "full",
            "--type=merge",
            "-p",
            &json!({"spec": {"mitigations": off}}).to_string(),
        ])
        .success();
    incident_when(&namespace, "full", "effect", |i| {
        incident_says(i, "Mitigated").starts_with("True") && told(i, "MitigationApplied").len() == 1
    })
    .await;
    holds_for(Duration::from_secs(1), "bounded asking", async || {
        let tries = operator
            .requests(mark)
            .iter()
            .filter(|r| r.verb == "create" && r.resource == "configmaps")
            .count();
        if tries < 20 { Ok(()) } else { Err(format!("{tries} tries")) }
    })
    .await;
    quotas.delete("few", &DeleteParams::default()).await.expect("deleted");
    // It is looked at again by itself after half a minute; an edit is quicker.
    namespace
        .kubectl(&["patch", "incident", "full", "--type=merge", "-p", r#"{"spec": {"title": "x"}}"#])
        .success();
    no_entry_is_left(&namespace).await;
    let counts = counted(&namespace, "full").await;
    assert_eq!(counts.keys().filter(|message| message.starts_with("note ")).count(), 280, "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_policy_refuses_config_maps_an_incident_of_many_entries_goes_on_to_its_end() {
    let namespace = TestNamespace::new("no-maps").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 1)).await;
    let _denied =
        admission::Denial::of(&namespace, "", "configmaps", "true", &configmap("probe", &[("a", "b")])).await;
    namespace
        .create(incident(
            "full",
            json!({"title": "t", "severity": "SEV2", "impact": {"affectedTenants": 1},
            "roles": {"incidentCommander": "alice"}}),
        ))
        .await;
    for batch in 0..13 {
        let notes: Vec<_> =
            (0..20).map(|n| entry("full", "Note", &format!("note {}", batch * 20 + n))).collect();
        join_all(notes.into_iter().map(|note| namespace.create(note))).await;
    }
    incident_when(&namespace, "full", "full timeline", |i| timeline(i).len() >= 225).await;
    let incidents = namespace.api::<Incident>();
    // More is told than has room.
    for n in 0..8 {
        let scribe = json!({"spec": {"roles": {"scribe": format!("scribe-{n}")}}});
        incidents.patch("full", &PatchParams::default(), &Patch::Merge(scribe)).await.expect("an edit");
        incident_when(&namespace, "full", "role", |i| {
            told(i, "RoleAssigned").iter().any(|r| r.message.contains(&format!("scribe-{n} ")))
        })
        .await;
    }
    let stop = json!([{"name": "stop", "reason": "r", "targetRef": {"kind": "Deployment", "name": "importer"},
        "scale": {"replicas": 0}, "releaseOn": "Resolve"}]);
    let asked = json!({"spec": {"mitigations": stop}});
    incidents.patch("full", &PatchParams::default(), &Patch::Merge(asked)).await.expect("an edit");
    incident_when(&namespace, "full", "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await;
    let resolved = json!({"spec": {"resolution": {"summary": "done"}}});
    incidents.patch("full", &PatchParams::default(), &Patch::Merge(resolved)).await.expect("an edit");
    let full = incident_when(&namespace, "full", "end", |i| {
        stage(i) == "Postmortem" && entry_phase(i, "stop") == "Released"
    })
    .await;
    let says = incident_says(&full, "TimelineArchived");
    assert!(says.starts_with("False Refused") && says.contains("refused by this test"), "{says}");
    assert!(says.contains("oldest are lost"), "{says}");
    // Its Markdown is refused, too, which keeps nobody from reviewing it.
    wait_status(&namespace.api::<Postmortem>(), "full", "postmortem", |p| {
        let conditions = p.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        says_of(conditions, "Ready").starts_with("True ExportRefused")
            && says_of(conditions, "Reviewed").starts_with("False")
    })
    .await;
    assert!(!operator.log().contains("panic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_about_an_incident_that_does_not_exist_waits_until_it_does() {
    let namespace = TestNamespace::new("early").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(entry("later", "Note", "before anybody declared it")).await;
    let mark = audit::mark();
    operator.requests_once_quiet(mark, Duration::from_millis(300)).await;
    let waiting = namespace.api::<TimelineEntry>().list(&ListParams::default()).await.expect("listed").items;
    assert_eq!(waiting.len(), 1);
    namespace.create(incident("later", json!({"title": "Checkout fails"}))).await;
    no_entry_is_left(&namespace).await;
    incident_when(&namespace, "later", "the early note", |i| told(i, "Note").len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_in_any_script_is_kept_as_it_is_and_control_characters_as_pictures_of_themselves() {
    let namespace = TestNamespace::new("scripts").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    // What the schema refuses may have been stored before it did.
    let stored = ["שלום עולם \u{202e}abc", "a\u{1b}[31mred\u{7}\u{0}\t\r\n"];
    let written = [
        "결제가 실패합니다",
        "支付失败",
        "🔥🧯👩🏽‍🚒",
        "العربية",
        "\u{feff}x\u{200b}",
        "<script>alert(1)</script> & *bold* | `code` {{ x }}",
    ];
    let texts: Vec<&str> = written.into_iter().chain(stored).collect();
    let title: String = written.concat().chars().take(256).collect();
    namespace
        .create(incident("world", json!({"title": title, "roles": {"incidentCommander": stored[1]}})))
        .await;
    for text in written {
        namespace.create(entry("world", "Note", text)).await;
    }
    for (n, text) in stored.into_iter().enumerate() {
        let refused = namespace.try_create(entry("world", "Note", text)).await.expect_err("it is refused");
        assert!(refused.to_string().contains("message has characters that control"), "{refused}");
        let mut early = entry("world", "Note", text);
        early["metadata"] = json!({
            "name": format!("early-{n}"), "namespace": namespace.name, "generation": 1,
            "uid": format!("{:08x}-0000-4000-8000-{n:012x}", fastrand::u32(..)),
            "creationTimestamp": "2026-01-05T10:00:00Z",
        });
        store("incident-operator.dev", "timelineentries", &early);
    }
    let world = incident_when(&namespace, "world", "notes", |i| told(i, "Note").len() == texts.len()).await;
    for text in &texts {
        let kept = text
            .replace("\r\n", "\n")
            .replace('\u{1b}', "␛")
            .replace('\u{7}', "␇")
            .replace('\u{0}', "␀")
            .replace('\u{202e}', "\u{fffd}");
        assert!(told(&world, "Note").iter().any(|r| r.message == kept), "{text:?}");
    }
    // What the operator says itself cannot drive a terminal.
    let conditions = &world.status.as_ref().expect("it has one").conditions;
    assert!(conditions.iter().all(|c| !c.message.chars().any(char::is_control)), "{conditions:?}");
    no_entry_is_left(&namespace).await;
    wait_for(PATIENCE, "Events about the notes", async || {
        let found = namespace.api::<Event>().list(&ListParams::default()).await.ok()?.items;
        (found.iter().filter(|e| e.reason.as_deref() == Some("Note")).count() == texts.len()).then_some(())
    })
    .await;
    assert_eq!(operator.metric("incident_operator_events_dropped_total", &[]).await.unwrap_or(0.0), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_events_are_refused_the_timeline_is_complete_and_mitigations_work() {
    let namespace = TestNamespace::new("no-events").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 2)).await;
    let _denied = admission::Denial::of(
        &namespace,
        "events.k8s.io",
        "events",
        "true",
        &json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "probe"}, "action": "a",
            "eventTime": "2026-01-05T10:00:00.000000Z", "reason": "r", "type": "Normal", "note": "n",
            "reportingController": "example.com/test", "reportingInstance": "i",
            "regarding": {"kind": "Deployment", "namespace": namespace.name, "name": "importer"},
        }),
    )
    .await;
    let mark = audit::mark();
    let stop = json!({
        "name": "stop", "reason": "r", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0},
    });
    namespace.create(incident("mute", json!({"title": "t", "mitigations": [stop]}))).await;
    let mute =
        incident_when(&namespace, "mute", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
            .await;
    for reason in ["Declared", "MitigationApplied", "MitigationEffective", "Mitigated"] {
        assert_eq!(told(&mute, reason).len(), 1, "{reason}");
    }
    let importer = namespace.api::<Deployment>().get("importer").await.expect("it exists");
    assert_eq!(importer.spec.and_then(|s| s.replicas), Some(0));
    wait_for(PATIENCE, "count of the Events that were dropped", async || {
        operator.metric("incident_operator_events_dropped_total", &[]).await.filter(|n| *n >= 4.0)
    })
    .await;
    let asked = operator.requests(mark);
    let events: Vec<_> = asked.iter().filter(|r| r.resource == "events" && r.verb == "create").collect();
    assert!(!events.is_empty() && events.iter().all(|r| r.code == 422), "{events:?}");
}
