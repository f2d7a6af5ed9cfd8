//! Postmortems that nobody finishes: deadlines, reminders, and input that makes no sense.

use super::support::record::{incident_when, says};
use super::support::workload::{incident, ours};
use super::support::*;
use incident_operator::api::{Incident, Postmortem};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::{Timestamp, ToSpan, tz::TimeZone};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

/// Waits until the operator has looked at the present generation.
async fn looked_at(namespace: &TestNamespace, name: &str) -> Postmortem {
    wait_status(&namespace.api::<Postmortem>(), name, "look at the postmortem", |p| {
        p.status
            .as_ref()
            .is_some_and(|s| s.observed_generation == p.metadata.generation && s.export.is_some())
    })
    .await
}

/// Reason and note of each Event about a postmortem.
async fn events(namespace: &TestNamespace, name: &str) -> Vec<(String, String)> {
    let all =
        namespace.api::<Event>().list(&ListParams::default()).await.expect("events can be listed").items;
    let about = all.into_iter().filter(|e| {
        e.regarding
            .as_ref()
            .is_some_and(|r| r.kind.as_deref() == Some("Postmortem") && r.name.as_deref() == Some(name))
    });
    let mut told: Vec<_> =
        about.map(|e| (e.reason.unwrap_or_default(), e.note.unwrap_or_default())).collect();
    told.sort();
    told
}

/// The day so many days from now, in the operator's time zone.
fn day(days: i64) -> String {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    today.checked_add(days.days()).expect("a near day").to_string()
}

fn item(id: &str, due: &str) -> Value {
    json!({"id": id, "title": format!("do {id}"), "owner": "bob", "dueDate": due})
}

#[tokio::test(flavor = "multi_thread")]
async fn action_items_are_chased_once_whatever_restarts_and_a_pause_is_followed_by_no_flood() {
    let namespace = TestNamespace::new("chase").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let mut done = item("done", "2017-03-01");
    done["state"] = json!("Done");
    let items = json!([item("late", "2017-03-01"), item("soon", &day(1)), item("far", "9999-12-31"), done]);
    namespace.create(ours("Postmortem", "open", json!({"actionItems": items}))).await;
    let many: Vec<_> = (0..100).map(|n| item(&format!("i{n:03}"), "2020-02-29")).collect();
    namespace.create(ours("Postmortem", "many", json!({"actionItems": many}))).await;

    let told = wait_for(PATIENCE, "reminders", async || {
        let told = events(&namespace, "open").await;
        let many = events(&namespace, "many").await;
        if told.len() == 2 && many.len() == 5 { Ok((told, many)) } else { Err(format!("{told:?} {many:?}")) }
    })
    .await;
    assert_eq!(told.0[0].0, "ActionItemDueSoon");
    assert_eq!(told.0[0].1, format!("action item soon of bob is due tomorrow, {}: do soon", day(1)));
    assert_eq!(told.0[1].0, "ActionItemOverdue");
    assert!(told.0[1].1.starts_with("action item late of bob was due on 2017-03-01, "), "{:?}", told.0);
    assert!(
        told.1.iter().any(|(r, n)| r == "ActionItemsDue" && n.starts_with("96 more action items")),
        "{:?}",
        told.1
    );

    let open = looked_at(&namespace, "open").await;
    let status = open.status.as_ref().expect("it has one");
    let reminded: Vec<_> = status.reminders.iter().map(|r| (r.id.as_str(), r.reason.as_str())).collect();
    assert_eq!(reminded, [("late", "ActionItemOverdue"), ("soon", "ActionItemDueSoon")]);
    assert_eq!(
        (status.open_action_items, status.overdue_action_items.join(",")),
        (Some(3), "late".to_owned())
    );
    for (overdue, count) in [("true", 101.0), ("false", 2.0)] {
        let labels = [("namespace", namespace.name.as_str()), ("overdue", overdue)];
        operator.metric_is("incident_operator_action_items", &labels, count).await;
    }

    operator.restart().await;
    let mark = audit::mark();
    let asked = operator.requests_once_quiet(mark, Duration::from_secs(1)).await;
    let writes: Vec<_> = asked.iter().filter(|r| r.writes()).map(audit::Request::brief).collect();
    assert_eq!(writes, Vec::<String>::new());
    assert_eq!((events(&namespace, "open").await, events(&namespace, "many").await), told);
    assert_eq!(
        namespace.api::<Postmortem>().get("open").await.expect("it is there").resource_version(),
        open.resource_version()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_is_overdue_is_a_condition_an_event_and_a_metric() {
    let namespace = TestNamespace::new("overdue").await;
    namespace.create(ours("Postmortem", "old", json!({"incidentRef": {"name": "gone", "uid": "u1"}}))).await;
    // What an operator of last year left behind: the incident is gone, its record is not.
    let record = json!({"status": {"incident": {"name": "gone", "uid": "u1", "title": "t", "severity": "SEV1",
        "startedTime": "2025-03-03T10:00:00Z", "resolvedTime": "2025-03-03T12:00:00Z"}}});
    let before: Api<Postmortem> = Cluster::as_the_operator().await.api(&namespace.name);
    before.patch_status("old", &PatchParams::default(), &Patch::Merge(&record)).await.expect("written");
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let old = looked_at(&namespace, "old").await;
    let conditions = &old.status.as_ref().expect("it has one").conditions;
    assert_eq!(says(conditions, "Overdue"), "True Overdue: the review was due at 2025-03-06T12:00:00Z");
    assert_eq!(says(conditions, "Ready"), "True Settled: this generation is observed");
    let told = || async { events(&namespace, "old").await };
    let first = wait_for(PATIENCE, "Event", async || {
        let told = told().await;
        (!told.is_empty()).then_some(told)
    })
    .await;
    assert_eq!(
        first,
        [("PostmortemOverdue".to_owned(), "the review was due at 2025-03-06T12:00:00Z".to_owned())]
    );
    let labels = [("namespace", namespace.name.as_str()), ("overdue", "true"), ("state", "Draft")];
    operator.metric_is("incident_operator_postmortems", &labels, 1.0).await;
    operator.restart().await;
    operator.requests_once_quiet(audit::mark(), Duration::from_secs(1)).await;
    assert_eq!(told().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_postmortems_about_one_incident_the_first_counts_and_both_say_so() {
    let namespace = TestNamespace::new("two").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["b-first", "a-second"] {
        namespace
            .create(ours("Postmortem", name, json!({"incidentRef": {"name": "outage"}, "summary": name})))
            .await;
        // Objects of the same second have no other order than that of their names.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let spec = json!({"title": "Checkout fails", "severity": "SEV1", "resolution": {"summary": "restarted"}});
    namespace.create(incident("outage", spec)).await;
    let resolved = incident_when(&namespace, "outage", "postmortem", |i: &Incident| {
        i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some())
    })
    .await;
    assert_eq!(resolved.status.and_then(|s| s.postmortem_ref).map(|r| r.name).as_deref(), Some("b-first"));
    for (name, part) in
        [("b-first", "a-second names the same incident"), ("a-second", "is b-first: merge this one into it")]
    {
        wait_status(&namespace.api::<Postmortem>(), name, "warning and record", |p| {
            p.status
                .as_ref()
                .is_some_and(|s| s.incident.is_some() && s.warnings.iter().any(|w| w.contains(part)))
        })
        .await;
    }
    let kept = namespace.api::<Postmortem>().list(&ListParams::default()).await.expect("listed").items;
    assert_eq!(kept.len(), 2, "none is drafted beside them");
    namespace.api::<Postmortem>().delete("b-first", &Default::default()).await.expect("deleted");
    wait_status(&namespace.api::<Postmortem>(), "a-second", "end of the warning", |p| {
        p.status.as_ref().is_some_and(|s| !s.warnings.iter().any(|w| w.contains("merge this one")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_its_field_or_reported_and_never_stops_the_operator() {
    let namespace = TestNamespace::new("nonsense").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let refused = async |spec: Value, part: &str| {
        let error = namespace
            .try_create(ours("Postmortem", "no", spec))
            .await
            .expect_err("it is refused")
            .to_string();
        assert!(error.contains(part), "{part} in {error}");
    };
    refused(json!({"actionItems": [item("a", "tomorrow")]}), "spec.actionItems[0].dueDate").await;
    refused(json!({"actionItems": [item("a", "10000-01-01")]}), "spec.actionItems[0].dueDate").await;
    refused(
        json!({"actionItems": vec![item("a", "2026-12-01"); 100]}),
        "spec.actionItems[1]: Duplicate value",
    )
    .await;
    refused(json!({"summary": "x".repeat(65_537)}), "spec.summary").await;
    refused(json!({"timeline": [{"time": "yesterday", "message": "m"}]}), "spec.timeline[0].time").await;
    refused(json!({"state": "Closed"}), "spec.state").await;

    // Each of these is taken, looked at, and rendered.
    let hostile = "| a | b |\n<script>alert(1)</script>\n---\ntitle: x\n---\n\u{0}\u{1b}[31m\u{202e} [x](javascript:alert(1))";
    let loop_ = "https://kubernetes.example/postmortems/loop";
    let cases = [
        (
            "no-such-day",
            json!({"actionItems": [item("a", "2026-02-31"), item("b", "0001-01-01"), item("c", "9999-12-31")]}),
        ),
        (
            "hostile",
            json!({"summary": hostile, "title": "a\u{0}b", "owner": hostile, "timeline": [{"time": "2026-11-23T10:00:00Z", "message": hostile}]}),
        ),
        (
            "loop",
            json!({"links": [loop_, loop_], "actionItems": [{"id": "loop", "title": loop_, "url": loop_}]}),
        ),
        (
            "nobody",
            json!({"incidentRef": {"name": "there-is-none"}, "timeline": [
            {"time": "2018-10-21T22:52:00Z", "message": "begin"}, {"time": "2018-10-22T23:03:00Z", "message": "end"}]}),
        ),
        (
            "odd-times",
            json!({"timeline": [{"time": "9998-12-31T23:59:59Z", "message": "m"}, {"time": "0001-01-01T00:00:00Z", "message": "m"}]}),
        ),
    ];
    for (name, spec) in &cases {
        namespace.create(ours("Postmortem", name, spec.clone())).await;
    }
    let mut seen = Vec::new();
    for (name, _) in &cases {
        seen.push(looked_at(&namespace, name).await.status.expect("it has one"));
    }
    assert!(
        seen[0].missing_sections.iter().any(|s| s.contains("2026-02-31 is none")),
        "{:?}",
        seen[0].missing_sections
    );
    assert!(
        seen[0].warnings.iter().any(|w| w.contains("0001-01-01 was over when the postmortem was created")),
        "{:?}",
        seen[0].warnings
    );
    assert_eq!(seen[3].durations.as_ref().and_then(|d| d.resolve_seconds), Some(87_060));

    // A lone surrogate, which JSON can write and no text can hold.
    let body = r#"{"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Postmortem", "metadata": {"name": "surrogate"}, "spec": {"summary": "a \ud800 b"}}"#;
    let _ = namespace.apply(body);
    if namespace.api::<Postmortem>().get_opt("surrogate").await.expect("asked").is_some() {
        looked_at(&namespace, "surrogate").await;
    }

    // 64 KB in every section, each character of which takes four in Markdown: longer than a ConfigMap may be.
    let mut spec = json!({});
    for field in [
        "summary",
        "impact",
        "rootCauses",
        "trigger",
        "detection",
        "resolution",
        "wentWell",
        "wentPoorly",
        "gotLucky",
    ] {
        spec[field] = json!(format!("{field} {}", "<a ".repeat(21_000)));
    }
    namespace.create(ours("Postmortem", "long", spec)).await;
    looked_at(&namespace, "long").await;
    let map = namespace.api::<ConfigMap>().get("long-postmortem").await.expect("it is exported");
    let text = &map.data.expect("it has data")["postmortem.md"];
    assert!(text.len() <= 900_000 && text.contains("> **This document is cut**"), "{}", text.len());

    // Back from Reviewed to Draft is allowed, and recorded.
    let api = namespace.api::<Postmortem>();
    let complete = json!({"state": "Reviewed", "owner": "alice", "summary": "s", "impact": "i", "rootCauses": "r", "detection": "d",
        "wentWell": "w", "wentPoorly": "p", "timeline": [{"time": "2026-11-20T10:00:00Z", "message": "m"}],
        "actionItems": [{"id": "a", "title": "t", "owner": "o", "dueDate": "2026-11-21", "state": "Done"}]});
    namespace.create(ours("Postmortem", "back", complete)).await;
    wait_status(&api, "back", "review", |p| {
        p.status.as_ref().is_some_and(|s| says(&s.conditions, "Reviewed").starts_with("True Reviewed"))
    })
    .await;
    api.patch("back", &PatchParams::default(), &Patch::Merge(&json!({"spec": {"state": "Draft"}})))
        .await
        .expect("allowed");
    wait_status(&api, "back", "end of the review", |p| {
        p.status.as_ref().is_some_and(|s| {
            says(&s.conditions, "Reviewed").starts_with("False Withdrawn")
                && s.review.as_ref().is_some_and(|r| r.withdrawn_time.is_some())
        })
    })
    .await;
    let told = wait_for(PATIENCE, "Events", async || {
        let told: Vec<_> = events(&namespace, "back").await.into_iter().map(|(reason, _)| reason).collect();
        if told.len() == 2 { Ok(told) } else { Err(format!("{told:?}")) }
    })
    .await;
    assert_eq!(told, ["ReviewWithdrawn", "Reviewed"]);
    assert!(!operator.log().contains("panicked"), "{}", operator.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_review_is_of_who_set_the_state_and_no_owner_gives_it_to_oneself() {
    let namespace = TestNamespace::new("review").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let alice = namespace.person("alice", &[]).await;
    let bob = namespace.person("bob", &[]).await;
    let complete = ours(
        "Postmortem",
        "pm",
        json!({"owner": "alice", "summary": "s", "impact": "i", "rootCauses": "r", "detection": "d",
            "wentWell": "w", "wentPoorly": "p", "timeline": [{"time": "2026-11-20T10:00:00Z", "message": "m"}],
            "actionItems": [item("a", "2026-12-01")]}),
    );
    alice.create(&complete).await.expect("alice may");
    let set = |spec: Value| json!({"spec": spec});
    let reviewed = async |wanted: &'static str| {
        wait_status(&namespace.api::<Postmortem>(), "pm", wanted, |p| {
            p.status.as_ref().is_some_and(|s| {
                s.observed_generation == p.metadata.generation
                    && says(&s.conditions, "Reviewed").starts_with(wanted)
            })
        })
        .await
    };
    alice.merge(&complete, set(json!({"state": "Reviewed"}))).await.expect("alice may write it");
    reviewed("False ReviewedByOwner").await;
    // Somebody else's correction of another part is no review.
    bob.merge(&complete, set(json!({"summary": "better"}))).await.expect("bob may write it");
    reviewed("False ReviewedByOwner").await;
    alice.merge(&complete, set(json!({"state": "Draft"}))).await.expect("alice may write it");
    reviewed("False").await;
    // Nor does she review it who gives it away in the same write.
    alice
        .merge(&complete, set(json!({"owner": "bob", "state": "Reviewed"})))
        .await
        .expect("alice may write it");
    reviewed("False ReviewedByOwner").await;
    alice
        .merge(&complete, set(json!({"owner": "alice", "state": "InReview"})))
        .await
        .expect("alice may write it");
    bob.merge(&complete, set(json!({"state": "Reviewed"}))).await.expect("bob may write it");
    let pm = reviewed("True Reviewed").await;
    let review = pm.status.and_then(|s| s.review).expect("it is on record");
    assert_eq!((review.by.as_deref(), review.authenticated), (Some("bob"), true));
}
