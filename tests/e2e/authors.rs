//! Who the record names: who did it, and nobody who only wrote to the same object later; and where nobody can be named,
//! that.

use super::support::record::{entry_phase, incident_says, incident_when, told};
use super::support::workload::{configmap, incident, mitigation};
use super::support::*;
use incident_operator::api::{Incident, MitigationPhase};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::{Value, json};

fn off(key: &str) -> Value {
    json!({
        "name": key, "reason": "errors began with the flag",
        "targetRef": {"kind": "ConfigMap", "name": "flags"}, "featureFlag": {"key": key, "value": "off"},
    })
}

/// Author of the one entry with this word, whether the API server vouches for it, and what the entry says.
fn author<'i>(incident: &'i Incident, reason: &str, about: &str) -> (Option<&'i str>, Option<bool>, &'i str) {
    let all = told(incident, reason);
    let found: Vec<_> = all.into_iter().filter(|r| r.message.contains(about)).collect();
    assert_eq!(found.len(), 1, "{reason} {about}: {incident:?}");
    (found[0].author.as_deref(), found[0].authenticated, &found[0].message)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_named_for_what_they_did_although_others_edit_before_the_operator_looks() {
    let namespace = TestNamespace::new("authors").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let keys = ["by-entry", "by-state", "by-hand", "by-end"];
    namespace.create(configmap("flags", &keys.map(|key| (key, "on")))).await;
    let alice = namespace.person("alice", &["patch configmaps"]).await;
    let bob = namespace.person("bob", &["patch configmaps"]).await;
    operator.kill();
    let mut last = off("by-end");
    last["releaseOn"] = json!("Resolve");
    let outage = incident(
        "errors",
        json!({"title": "Checkout fails", "severity": "SEV3", "impact": {"affectedTenants": 3},
            "mitigations": [off("by-entry"), off("by-state"), off("by-hand"), last]}),
    );
    let declared = alice.create(&outage).await.expect("she may");
    bob.merge(&outage, json!({"spec": {"title": "Checkout fails for all"}})).await.expect("a title is free");
    operator.restart().await;
    let errors =
        incident_when(&namespace, "errors", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
            .await;
    for (reason, about) in
        [("Declared", ""), ("Triaged", ""), ("MitigationApplied", "by-hand"), ("MitigationApplied", "by-end")]
    {
        let (who, vouched, _) = author(&errors, reason, about);
        assert_eq!((who, vouched), (Some("alice"), Some(true)), "{reason} {about}");
    }
    assert!(declared.metadata.creation_timestamp.is_some());

    // Bob applies an older file, in which one entry is not yet there and one is to be released.
    let mut released = off("by-state");
    released["desiredState"] = json!("Released");
    bob.merge(&outage, json!({"spec": {"mitigations": [released, off("by-hand"), last]}}))
        .await
        .expect("he may");
    namespace.kubectl(&["delete", "mitigation", "errors-by-hand", "--timeout=60s"]).success();
    alice.merge(&outage, json!({"spec": {"title": "Checkout failed"}})).await.expect("a title is free");
    for entry in ["by-state", "by-hand", "by-entry"] {
        incident_when(&namespace, "errors", "release", |i| entry_phase(i, entry) == "Released").await;
    }
    bob.merge(&outage, json!({"spec": {"resolution": {"summary": "the flag was wrong"}}}))
        .await
        .expect("he may");
    let errors =
        incident_when(&namespace, "errors", "the last release", |i| entry_phase(i, "by-end") == "Released")
            .await;
    let released = |key: &str| {
        let name = format!("errors-{key}");
        let summary = errors.status.iter().flat_map(|s| &s.mitigations).find(|m| m.name == name).expect(key);
        let all = told(&errors, "MitigationReleased");
        let at = summary.released_time.clone().expect("it was released");
        assert!(all.iter().any(|r| r.time == at), "{key}");
        summary.ended_by.clone()
    };
    assert_eq!(keys.map(released).map(|by| by.unwrap_or_default()), ["bob", "bob", "", "bob"]);
    let (who, vouched, _) = author(&errors, "MitigationReleased", "its entry was taken out of the incident");
    assert_eq!((who, vouched), (Some("bob"), Some(true)));
    let (who, vouched, _) =
        author(&errors, "MitigationReleased", "by somebody whom the API server does not name");
    assert_eq!((who, vouched), (None, Some(false)), "nobody knows, and it was not the operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_otherwise_is_not_in_place_and_what_was_never_done_is_not_done() {
    let namespace = TestNamespace::new("ended").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("a", "on"), ("b", "on")])).await;
    let mut later = off("later");
    later["targetRef"] = json!({"kind": "ConfigMap", "name": "not-there"});
    let mut plan = off("a");
    (plan["name"], plan["dryRun"]) = (json!("plan"), json!(true));
    let spec = json!({"title": "t", "severity": "SEV3", "mitigations": [off("a"), later, plan]});
    namespace.create(incident("errors", spec)).await;
    incident_when(&namespace, "errors", "hold", |i| entry_phase(i, "a") == "Active").await;
    let summary = |i: &Incident, entry: &str| {
        i.status.iter().flat_map(|s| &s.mitigations).find(|m| m.entry.as_deref() == Some(entry)).cloned()
    };
    incident_when(&namespace, "errors", "plan", |i| {
        summary(i, "plan").and_then(|s| s.message).is_some_and(|m| m.contains("the plan is in status.plan"))
    })
    .await;

    // What was never done: waited for a target, or only asked what would be.
    for name in ["errors-later", "errors-plan"] {
        namespace.kubectl(&["delete", "mitigation", name, "--timeout=60s"]).success();
    }
    let errors =
        incident_when(&namespace, "errors", "the withdrawal", |i| !told(i, "MitigationWithdrawn").is_empty())
            .await;
    assert_eq!(told(&errors, "MitigationWithdrawn").len(), 1, "a dry run was not announced, nor is its end");
    assert!(told(&errors, "MitigationReleased").is_empty());
    let briefing = |i: &Incident| i.status.as_ref().expect("it has one").briefing.clone();
    let lines: Vec<_> = briefing(&errors).into_iter().filter(|line| line.contains("featureFlag")).collect();
    assert_eq!(lines.len(), 2, "the plan is none of them: {lines:?}");
    assert_eq!(lines[1], "Not done: featureFlag ConfigMap/not-there; withdrawn before anything was changed");

    // The target is made anew: what was asked for has ended, and nothing is in place.
    namespace.api::<ConfigMap>().delete("flags", &DeleteParams::default()).await.expect("it is there");
    namespace.create(configmap("flags", &[("a", "on"), ("b", "on")])).await;
    let errors = incident_when(&namespace, "errors", "the end", |i| {
        incident_says(i, "Ready").starts_with("True Ended: a is Abandoned")
    })
    .await;
    assert!(incident_says(&errors, "Ready").ends_with("; nothing further will be done"));
    assert!(incident_says(&errors, "Mitigated").starts_with("False NotEffective"));
    assert!(incident_says(&errors, "Stalled").starts_with("False"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_what_another_mitigation_holds_tells_the_plan_and_who_holds_it() {
    let namespace = TestNamespace::new("dry-busy").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("flags", &[("mode", "normal")])).await;
    let flag = |value: &str, dry: bool| {
        json!({"reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"}, "dryRun": dry,
            "featureFlag": {"key": "mode", "value": value}})
    };
    namespace.create(mitigation("zero", flag("slow", false))).await;
    super::mitigation::reaches(&namespace, "zero", MitigationPhase::Active).await;
    namespace.create(mitigation("what-if", flag("off", true))).await;
    let planned = super::mitigation::says(&namespace, "what-if", "Ready", "DryRun").await;
    let plan = planned.status.and_then(|s| s.plan).expect("a plan");
    assert_eq!((plan.changes[0].from.as_str(), plan.changes[0].to.as_str()), ("\"slow\"", "\"off\""));
    assert!(plan.warnings[0].contains("held by mitigation zero"), "{:?}", plan.warnings);
}
