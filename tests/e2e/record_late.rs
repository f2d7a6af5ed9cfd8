//! What the record says of what happened while nobody looked: when it was, and whose it is.

use super::support::record::{incident_says, incident_when, told};
use super::support::workload::{entry, incident};
use super::support::*;
use incident_operator::api::{ChecklistItem, ClockName, Incident};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;

fn item<'a>(incident: &'a Incident, name: &str) -> &'a ChecklistItem {
    let all = &incident.status.as_ref().expect("it was looked at").checklist;
    all.iter().find(|i| i.name == name).unwrap_or_else(|| panic!("there is no item {name}"))
}

fn created(incident: &Incident) -> Timestamp {
    incident.metadata.creation_timestamp.as_ref().expect("it was created").0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_declared_while_the_operator_was_down_is_dated_when_it_was_declared() {
    let namespace = TestNamespace::new("declared").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    operator.kill();
    let alice = namespace.person("alice", &[]).await;
    let spec = json!({"title": "t", "severity": "SEV1", "impact": {"affectedTenants": 1},
        "roles": {"incidentCommander": "alice"}, "communication": {"updateInterval": "2s"}});
    alice.create(&incident("down", spec)).await.expect("they may");
    let declared = created(&namespace.api::<Incident>().get("down").await.expect("it is there"));
    wait_for(PATIENCE, "time of ten deadlines", async || {
        (Timestamp::now() >= declared + SignedDuration::from_secs(20)).then_some(())
    })
    .await;
    operator.restart().await;
    let down = incident_when(&namespace, "down", "first look", |i| {
        i.status.as_ref().is_some_and(|s| s.milestones.triaged_time.is_some())
    })
    .await;
    let status = down.status.as_ref().expect("it was looked at");
    for (what, time) in [
        ("acknowledged", &status.milestones.acknowledged_time),
        ("triaged", &status.milestones.triaged_time),
        ("role", &Some(status.roles[0].from_time.clone())),
    ] {
        assert_eq!(time.as_ref().map(|t| t.0), Some(declared), "{what}");
    }
    let due = item(&down, "timeline-started").due_time.as_ref().expect("it is due").0;
    assert_eq!(due, declared + SignedDuration::from_mins(15));
    let clock = status.communication.iter().find(|c| c.audience == ClockName::Internal).expect("it runs");
    assert!(clock.overdue_count >= Some(9), "all that were missed count: {clock:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_of_who_ticked_also_when_others_edited_the_incident_before_the_operator_looked() {
    let namespace = TestNamespace::new("ticks").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let [carol, dave, bob] = [
        namespace.person("carol", &[]).await,
        namespace.person("dave", &[]).await,
        namespace.person("bob", &[]).await,
    ];
    let slow = incident("slow", json!({"title": "t", "severity": "SEV3"}));
    bob.create(&slow).await.expect("they may");
    incident_when(&namespace, "slow", "first look", |i| !incident_says(i, "Ready").is_empty()).await;
    operator.kill();
    let ticked =
        json!([{"name": "rollback-or-flag", "state": "NotNeeded", "note": "nothing was rolled out"}]);
    carol.merge(&slow, json!({"spec": {"checklist": ticked}})).await.expect("they may");
    dave.merge(&slow, json!({"spec": {"impact": {"affectedTenants": 3}}})).await.expect("they may");
    bob.merge(&slow, json!({"spec": {"title": "u"}})).await.expect("they may");
    operator.restart().await;
    let seen = incident_when(&namespace, "slow", "entry", |i| !told(i, "ChecklistTicked").is_empty()).await;
    assert_eq!(item(&seen, "rollback-or-flag").done_by.as_deref(), Some("carol"));
    assert_eq!(item(&seen, "impact-scope-known").done_by.as_deref(), Some("dave"));
    let told = told(&seen, "ChecklistTicked");
    assert_eq!(told[0].message, "checklist: rollback-or-flag not needed");
    assert_eq!((told.len(), told[0].author.as_deref()), (1, Some("carol")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_is_told_what_it_could_not_read_and_that_an_end_was_none() {
    let namespace = TestNamespace::new("told").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let carol = namespace.person("carol", &[]).await;
    let page = incident("page", json!({"title": "t", "severity": "SEV1"}));
    carol.create(&page).await.expect("they may");
    let mut update = entry("page", "StatusUpdate", "Some checkouts fail");
    update["spec"]["audience"] = json!("Public");
    carol.create(&update).await.expect("they may");
    let says = |what: &'static str| move |i: &Incident| incident_says(i, "PublicInformed").starts_with(what);
    incident_when(&namespace, "page", "warning", says("False Withheld")).await;
    carol.merge(&page, json!({"spec": {"communication": {"visibility": "Public"}}})).await.expect("they may");
    let public = |i: &Incident| {
        let all = &i.status.as_ref()?.communication;
        all.iter().find(|c| c.audience == ClockName::Public).cloned()
    };
    let open =
        incident_when(&namespace, "page", "clock", |i| public(i).is_some_and(|c| c.next_due_time.is_some()))
            .await;
    let clock = public(&open).expect("it runs");
    let first = created(&open) + SignedDuration::from_mins(5);
    assert_eq!((clock.next_due_time.map(|t| t.0), clock.text), (Some(first), None), "nothing was told yet");
    carol.create(&update).await.expect("they may");
    incident_when(&namespace, "page", "update", says("True Informed")).await;
    for (resolution, then) in [(json!({"summary": "fixed"}), "True Over"), (json!(null), "False ToldOver")] {
        carol.merge(&page, json!({"spec": {"resolution": resolution}})).await.expect("they may");
        incident_when(&namespace, "page", then, says(then)).await;
    }
    carol.create(&update).await.expect("they may");
    incident_when(&namespace, "page", "word that it goes on", says("True Informed")).await;
}
