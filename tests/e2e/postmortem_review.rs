//! What a review counts for, and which incident a postmortem is about.

use super::support::record::{incident_says, incident_when, says, stage};
use super::support::workload::{incident, ours};
use super::support::*;
use incident_operator::api::{Incident, Postmortem};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

fn complete(extra: Value) -> Value {
    let mut spec = json!({"owner": "alice", "summary": "s", "impact": "i", "rootCauses": "r", "detection": "d",
        "wentWell": "w", "wentPoorly": "p",
        "actionItems": [{"id": "a", "title": "t", "owner": "o", "dueDate": "2030-11-21"}]});
    spec.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    spec
}

fn resolved(name: &str) -> Value {
    let spec = json!({"title": "Checkout fails", "severity": "SEV1", "resolution": {"summary": "restarted"}});
    incident(name, spec)
}

async fn edit<K>(namespace: &TestNamespace, name: &str, spec: Value)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(json!({"spec": spec}));
    namespace.api::<K>().patch(name, &PatchParams::default(), &patch).await.expect("an edit");
}

/// Waits until the postmortem's review is said to be like this.
async fn reviewed(namespace: &TestNamespace, name: &str, wanted: &'static str) -> Postmortem {
    wait_status(&namespace.api::<Postmortem>(), name, wanted, |p| {
        p.status.as_ref().is_some_and(|s| {
            s.observed_generation == p.metadata.generation
                && says(&s.conditions, "Reviewed").starts_with(wanted)
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_from_before_the_incident_was_resolved_closes_nothing() {
    let namespace = TestNamespace::new("review-old").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let bob = namespace.person("bob", &[]).await;
    // What is left of an outage of long ago that had the name of today's.
    let timeline = json!([{"time": "2024-03-01T10:00:00Z", "message": "then"}]);
    let old =
        complete(json!({"incidentRef": {"name": "checkout"}, "state": "Reviewed", "timeline": timeline}));
    bob.create(&ours("Postmortem", "checkout-2024", old)).await.expect("bob may");
    reviewed(&namespace, "checkout-2024", "True Reviewed").await;
    namespace.create(resolved("checkout")).await;
    let drafted = incident_when(&namespace, "checkout", "postmortem of its own", |i| {
        stage(i) == "Postmortem" && i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some())
    })
    .await;
    let name = drafted.status.and_then(|s| s.postmortem_ref).expect("it is named").name;
    assert_eq!(name, "checkout");
    let old = namespace.api::<Postmortem>().get("checkout-2024").await.expect("it is there");
    assert_eq!(old.status.and_then(|s| s.incident), None);

    // The one of its own is reviewed, and then it goes on again.
    let written = ours("Postmortem", "checkout", json!({}));
    bob.merge(&written, json!({"spec": complete(json!({"state": "Reviewed"}))})).await.expect("bob may");
    incident_when(&namespace, "checkout", "end", |i| stage(i) == "Closed").await;
    edit::<Incident>(&namespace, "checkout", json!({"resolution": null})).await;
    incident_when(&namespace, "checkout", "way back", |i| {
        !["Closed", "Postmortem"].contains(&stage(i).as_str())
    })
    .await;
    // Times are kept to the second; nothing else tells that one has passed.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    edit::<Incident>(&namespace, "checkout", json!({"resolution": {"summary": "mended"}})).await;
    reviewed(&namespace, "checkout", "False ReviewedBefore").await;
    let open = incident_when(&namespace, "checkout", "second review wanted", |i| {
        incident_says(i, "PostmortemComplete").contains("before the incident was resolved")
    })
    .await;
    assert_eq!(stage(&open), "Postmortem");
    let closed =
        |i: &Incident| i.status.iter().flat_map(|s| &s.timeline).filter(|r| r.reason == "Closed").count();
    assert_eq!(closed(&open), 1, "it was not closed a second time in between");
    for state in ["InReview", "Reviewed"] {
        bob.merge(&written, json!({"spec": {"state": state}})).await.expect("bob may");
        reviewed(&namespace, "checkout", if state == "Reviewed" { "True" } else { "False Withdrawn" }).await;
    }
    incident_when(&namespace, "checkout", "end", |i| stage(i) == "Closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_corrects_the_incident_of_a_postmortem_corrects_its_record_and_both_incidents_know() {
    let namespace = TestNamespace::new("ref").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(ours("Postmortem", "pm", json!({"incidentRef": {"name": "d2"}}))).await;
    reviewed(&namespace, "pm", "False NotReviewed").await;
    namespace.create(resolved("d2")).await;
    let of = |name: Option<&'static str>| {
        move |p: &Postmortem| {
            let known = p.status.as_ref().and_then(|s| s.incident.as_ref()).map(|i| i.name.as_str());
            known == name && p.status.as_ref().and_then(|s| s.observed_generation) == p.metadata.generation
        }
    };
    let api = namespace.api::<Postmortem>();
    wait_status(&api, "pm", "record of d2", of(Some("d2"))).await;
    incident_when(&namespace, "d2", "postmortem", |i| stage(i) == "Postmortem").await;
    edit::<Postmortem>(&namespace, "pm", json!({"incidentRef": {"name": "later"}})).await;
    let pm = wait_status(&api, "pm", "end of the wrong record", of(None)).await;
    let status = pm.status.expect("it has one");
    assert!(status.timeline.is_empty() && status.due_time.is_none());
    incident_when(&namespace, "d2", "word that it is named no more", |i| {
        incident_says(i, "PostmortemComplete").starts_with("False PostmortemElsewhere")
    })
    .await;
    namespace.create(resolved("later")).await;
    wait_status(&api, "pm", "record of the right one", of(Some("later"))).await;
    namespace.create(ours("Postmortem", "pm-d2", json!({"incidentRef": {"name": "d2"}}))).await;
    incident_when(&namespace, "d2", "its new postmortem", |i| {
        incident_says(i, "PostmortemComplete").contains("postmortem pm-d2 is not reviewed yet")
    })
    .await;
}
