//! Edits of an incident's list of mitigations, and what becomes of the Mitigations that were made of it.

use super::support::record::{entry_phase, entry_summary, incident_says, incident_when, told};
use super::support::workload::{configmap, deployment, incident, mitigation};
use super::support::*;
use incident_operator::api::{Incident, Mitigation};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// An entry that sets a key of ConfigMap `flags` to "off".
fn flag_off(name: &str, key: &str) -> Value {
    json!({
        "name": name, "reason": "errors began with the flag",
        "targetRef": {"kind": "ConfigMap", "name": "flags"}, "featureFlag": {"key": key, "value": "off"},
    })
}

fn with(entries: &[Value]) -> Value {
    json!({"title": "Checkout fails", "severity": "SEV3", "mitigations": entries})
}

async fn flags(namespace: &TestNamespace, keys: &[&str]) {
    let data: Vec<_> = keys.iter().map(|key| (*key, "on")).collect();
    namespace.create(configmap("flags", &data)).await;
}

/// Waits until a key has a value.
async fn flag_is(namespace: &TestNamespace, key: &str, value: &str) -> ConfigMap {
    let what = format!("value {value} of flag {key}");
    wait_status(&namespace.api::<ConfigMap>(), "flags", &what, |c| {
        c.data.as_ref().is_some_and(|d| d[key] == value)
    })
    .await
}

async fn entries_become(namespace: &TestNamespace, name: &str, entries: &[Value]) {
    let api = namespace.api::<Incident>();
    let change = json!({"spec": {"mitigations": entries}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .expect("the entries can be changed");
}

async fn effective(namespace: &TestNamespace, name: &str) -> Incident {
    incident_when(namespace, name, "effect", |i| incident_says(i, "Mitigated").starts_with("True")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_an_entry_is_carried_over_to_its_mitigation() {
    let namespace = TestNamespace::new("edit").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["pricing"]).await;
    let mut off = flag_off("pricing-off", "pricing");
    namespace.create(incident("edited", with(&[off.clone()]))).await;
    effective(&namespace, "edited").await;
    let mitigations = namespace.api::<Mitigation>();

    off["reason"] = "the flag doubles the queries".into();
    off["expiresAfter"] = "2h".into();
    entries_become(&namespace, "edited", &[off.clone()]).await;
    let edited = wait_status(&mitigations, "edited-pricing-off", "edit", |m| {
        m.status.as_ref().is_some_and(|s| s.expiry_time.is_some())
    })
    .await;
    assert_eq!(edited.spec.template.reason, "the flag doubles the queries");
    let status = edited.status.expect("it has one");
    let lasts = status.expiry_time.map(|t| t.0.as_second()).zip(status.applied_time.map(|t| t.0.as_second()));
    assert_eq!(lasts.map(|(end, start)| end - start), Some(7200), "counted from when it was applied");

    // What was there may go again.
    off.as_object_mut().expect("it is one").remove("expiresAfter");
    entries_become(&namespace, "edited", &[off.clone()]).await;
    wait_status(&mitigations, "edited-pricing-off", "end of the expiry", |m| {
        m.spec.template.expires_after.is_none() && m.status.as_ref().is_some_and(|s| s.expiry_time.is_none())
    })
    .await;

    off["desiredState"] = "Released".into();
    entries_become(&namespace, "edited", &[off.clone()]).await;
    incident_when(&namespace, "edited", "release", |i| entry_phase(i, "pricing-off") == "Released").await;
    assert_eq!(marks(&flag_is(&namespace, "pricing", "on").await), Vec::<String>::new());
    off["desiredState"] = "Active".into();
    let refused = namespace
        .kubectl(&[
            "patch",
            "incident",
            "edited",
            "--type=merge",
            "-p",
            &json!({"spec": {"mitigations": [off]}}).to_string(),
        ])
        .failure();
    assert!(refused.contains("a released mitigation stays released: add one with another name"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mitigation_of_an_entry_is_edited_in_the_incident_alone() {
    let namespace = TestNamespace::new("locked").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["pricing"]).await;
    namespace.create(incident("parent", with(&[flag_off("off", "pricing")]))).await;
    effective(&namespace, "parent").await;
    let patch = r#"{"spec": {"reason": "another"}}"#;
    let refused =
        namespace.kubectl(&["patch", "mitigation", "parent-off", "--type=merge", "-p", patch]).failure();
    assert!(
        refused.contains("expanded from incident \"parent\": edit spec.mitigations of the incident"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_the_title_writes_nothing_but_the_status_of_the_incident() {
    let namespace = TestNamespace::new("title").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["pricing"]).await;
    namespace.create(incident("quiet", with(&[flag_off("off", "pricing")]))).await;
    effective(&namespace, "quiet").await;
    operator.requests_once_quiet(audit::mark(), std::time::Duration::from_millis(300)).await;

    let mark = audit::mark();
    namespace
        .kubectl(&["patch", "incident", "quiet", "--type=merge", "-p", r#"{"spec": {"title": "새 제목"}}"#])
        .success();
    incident_when(&namespace, "quiet", "look at the edit", |i| {
        i.status.as_ref().and_then(|s| s.observed_generation) == Some(2)
    })
    .await;
    let asked = operator.requests_once_quiet(mark, std::time::Duration::from_millis(300)).await;
    let asked: Vec<_> = asked.iter().map(audit::Request::brief).collect();
    assert_eq!(asked, ["patch incidents/quiet/status 200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_taken_out_is_released_and_put_back_it_is_made_anew() {
    let namespace = TestNamespace::new("back").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["pricing", "gifts"]).await;
    let (pricing, gifts) = (flag_off("pricing-off", "pricing"), flag_off("gifts-off", "gifts"));
    namespace.create(incident("list", with(&[pricing.clone(), gifts.clone()]))).await;
    effective(&namespace, "list").await;
    let mitigations = namespace.api::<Mitigation>();
    let first = mitigations.get("list-pricing-off").await.expect("it exists").uid();

    entries_become(&namespace, "list", std::slice::from_ref(&gifts)).await;
    wait_gone(&mitigations, "list-pricing-off").await;
    flag_is(&namespace, "pricing", "on").await;
    flag_is(&namespace, "gifts", "off").await;
    let released = incident_when(&namespace, "list", "release on record", |i| {
        entry_summary(i, "pricing-off")
            .is_some_and(|s| s.removed == Some(true) && s.phase.to_string() == "Released")
    })
    .await;
    assert_eq!(told(&released, "MitigationReleased").len(), 1);

    entries_become(&namespace, "list", &[pricing, gifts]).await;
    flag_is(&namespace, "pricing", "off").await;
    let anew = mitigations.get("list-pricing-off").await.expect("it is made anew").uid();
    assert_ne!(anew, first);
    let again =
        incident_when(&namespace, "list", "second effect", |i| entry_phase(i, "pricing-off") == "Active")
            .await;
    let summary = entry_summary(&again, "pricing-off").expect("it is there");
    assert_eq!((summary.removed, &summary.uid), (None, &anew));
    assert_eq!(told(&again, "MitigationApplied").len(), 3, "{:#?}", again.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_put_back_before_its_release_is_over_is_made_anew() {
    let namespace = TestNamespace::new("hasty").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["pricing"]).await;
    let off = flag_off("off", "pricing");
    namespace.create(incident("list", with(std::slice::from_ref(&off)))).await;
    effective(&namespace, "list").await;
    let mitigations = namespace.api::<Mitigation>();
    for round in 0..6 {
        let is_live = |m: &Mitigation| m.metadata.deletion_timestamp.is_none();
        let before = wait_status(&mitigations, "list-off", "live one", is_live).await.uid();
        // Somebody else's finalizer makes the release last; in odd rounds it is as short as it is.
        let finalizers =
            json!({"metadata": {"finalizers": ["incident-operator.dev/release", "example.com/slow"]}});
        if round % 2 == 0 {
            mitigations
                .patch("list-off", &PatchParams::default(), &Patch::Merge(finalizers))
                .await
                .expect("taken");
        }
        entries_become(&namespace, "list", &[]).await;
        if round % 2 == 0 {
            wait_status(&mitigations, "list-off", "deletion", |m| m.metadata.deletion_timestamp.is_some())
                .await;
        }
        entries_become(&namespace, "list", std::slice::from_ref(&off)).await;
        if round % 2 == 0 {
            let free = json!({"metadata": {"finalizers": null}});
            wait_status(&mitigations, "list-off", "release", |m| m.finalizers() == ["example.com/slow"])
                .await;
            mitigations.patch("list-off", &PatchParams::default(), &Patch::Merge(free)).await.expect("taken");
            wait_status(&mitigations, "list-off", "new one", |m| m.uid() != before).await;
        }
        // In odd rounds the one that is live may still be the one that goes: which one it is, is asked again.
        wait_for(PATIENCE, "effect of the one that is live", async || {
            let now = mitigations.get("list-off").await.ok().filter(is_live)?.uid();
            let incident = namespace.api::<Incident>().get("list").await.ok()?;
            let summary = entry_summary(&incident, "off").filter(|s| s.uid == now && s.removed.is_none());
            let works = summary.is_some_and(|s| s.phase.to_string() == "Active")
                && incident_says(&incident, "Mitigated").starts_with("True");
            works.then_some(())
        })
        .await;
        flag_is(&namespace, "pricing", "off").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_became_another_while_nobody_looked_replaces_the_first() {
    let namespace = TestNamespace::new("another").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["pricing", "gifts"]).await;
    namespace.create(incident("list", with(&[flag_off("off", "pricing")]))).await;
    effective(&namespace, "list").await;

    // Taken out, and another one put in under its name: that is no edit of the first.
    operator.kill();
    entries_become(&namespace, "list", &[]).await;
    entries_become(&namespace, "list", &[flag_off("off", "gifts")]).await;
    operator.restart().await;
    flag_is(&namespace, "gifts", "off").await;
    flag_is(&namespace, "pricing", "on").await;
    let list = effective(&namespace, "list").await;
    assert_eq!(entry_phase(&list, "off"), "Active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mitigation_that_somebody_deletes_is_released_recorded_and_not_made_anew() {
    let namespace = TestNamespace::new("deleted").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["pricing"]).await;
    namespace.create(incident("once", with(&[flag_off("off", "pricing")]))).await;
    effective(&namespace, "once").await;
    namespace.kubectl(&["delete", "mitigation", "once-off", "--timeout=30s"]).success();
    assert_eq!(marks(&flag_is(&namespace, "pricing", "on").await), Vec::<String>::new());
    let record =
        incident_when(&namespace, "once", "release on record", |i| entry_phase(i, "off") == "Released").await;
    assert_eq!(told(&record, "MitigationReleased").len(), 1);
    assert_eq!(entry_summary(&record, "off").and_then(|s| s.removed), None);
    let mark = audit::mark();
    namespace
        .kubectl(&["patch", "incident", "once", "--type=merge", "-p", r#"{"spec": {"title": "x"}}"#])
        .success();
    incident_when(&namespace, "once", "look", |i| {
        i.status.as_ref().and_then(|s| s.observed_generation) == Some(2)
    })
    .await;
    let asked = operator.requests_once_quiet(mark, std::time::Duration::from_millis(300)).await;
    assert!(asked.iter().all(|r| r.resource != "mitigations"), "{asked:?}");
    assert!(namespace.api::<Mitigation>().get_opt("once-off").await.expect("it answers").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_entries_are_taken_side_by_side_and_a_ninth_is_refused() {
    let namespace = TestNamespace::new("eight").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let keys: Vec<String> = (1..=9).map(|n| format!("flag-{n}")).collect();
    flags(&namespace, &keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let entries: Vec<_> = keys.iter().map(|key| flag_off(key, key)).collect();
    let refused =
        namespace.try_create(incident("nine", with(&entries))).await.expect_err("nine are too many");
    assert!(
        refused.to_string().contains("spec.mitigations: Too many: 9: must have at most 8 items"),
        "{refused}"
    );

    namespace.create(incident("eight", with(&entries[..8]))).await;
    let all = effective(&namespace, "eight").await;
    assert_eq!(all.status.as_ref().and_then(|s| s.active_mitigations), Some(8));
    assert_eq!(told(&all, "MitigationApplied").len(), 8);
    let data = namespace.api::<ConfigMap>().get("flags").await.expect("it exists").data.expect("it has data");
    assert_eq!(data.values().filter(|v| *v == "off").count(), 8);
    assert_eq!(data["flag-9"], "on");
    namespace.api::<Incident>().delete("eight", &DeleteParams::default()).await.expect("deleted");
    for key in &keys[..8] {
        flag_is(&namespace, key, "on").await;
    }
    wait_status(&namespace.api::<ConfigMap>(), "flags", "clean flags", |c| marks(c).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_collide_or_are_too_long_give_valid_and_different_mitigations() {
    let namespace = TestNamespace::new("names").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["a", "b", "c", "d", "e"]).await;
    // a + b-c, a-b + c, and one that stands there already are all called a-b-c by nature.
    let alone = json!({
        "reason": "stands alone", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "a", "value": "off"},
    });
    namespace.create(mitigation("a-b-c", alone)).await;
    flag_is(&namespace, "a", "off").await;
    namespace.create(incident("a", with(&[flag_off("b-c", "b")]))).await;
    namespace.create(incident("a-b", with(&[flag_off("c", "c")]))).await;
    let long = "x".repeat(253);
    let dotted = format!("{}.{}", "y".repeat(62), "y".repeat(190));
    namespace.create(incident(&long, with(&[flag_off(&"n".repeat(63), "d")]))).await;
    namespace.create(incident(&dotted, with(&[flag_off(&"n".repeat(63), "e")]))).await;
    for name in ["a", "a-b", &long, &dotted] {
        let one = effective(&namespace, name).await;
        assert_eq!(told(&one, "MitigationApplied").len(), 1, "only its own mitigation is on its record");
    }
    let made = namespace.api::<Mitigation>().list(&ListParams::default()).await.expect("listed").items;
    let names: BTreeSet<_> = made.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names.len(), 5);
    for key in ["a", "b", "c", "d", "e"] {
        flag_is(&namespace, key, "off").await;
    }
    // Each goes with its own incident.
    namespace.api::<Incident>().delete(&long, &DeleteParams::default()).await.expect("deleted");
    flag_is(&namespace, "d", "on").await;
    flag_is(&namespace, "e", "off").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mitigation_that_cannot_be_made_is_reported_and_keeps_nothing_else_from_the_record() {
    let namespace = TestNamespace::new("refused").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 2)).await;
    flags(&namespace, &["pricing"]).await;
    let probe = mitigation(
        "probe-stop",
        json!({"reason": "r", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0}}),
    );
    let rule = "object.metadata.name.endsWith('-stop')";
    let denial =
        admission::Denial::of(&namespace, "incident-operator.dev", "mitigations", rule, &probe).await;
    let stop = json!({
        "name": "stop", "reason": "r", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0},
    });
    namespace.create(incident("short", with(&[flag_off("off", "pricing"), stop]))).await;
    let told_so = incident_when(&namespace, "short", "report", |i| {
        incident_says(i, "Ready").contains("refused by this test")
            && i.status.as_ref().is_some_and(|s| s.active_mitigations == Some(1))
    })
    .await;
    assert_eq!(told(&told_so, "Declared").len(), 1);
    // As soon as it may be, it is made.
    drop(denial);
    wait_status(&namespace.api::<Deployment>(), "importer", "stop", |d| {
        d.spec.as_ref().and_then(|s| s.replicas) == Some(0)
    })
    .await;
    effective(&namespace, "short").await;
}
