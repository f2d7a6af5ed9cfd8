//! The postmortem: drafted once, then owned by people; it outlives its incident.

use super::support::record::{entry_summary, incident_says, incident_when, says, stage};
use super::support::workload::{configmap, deployment, incident, ours};
use super::support::*;
use incident_operator::api::{Incident, Mitigation, Postmortem, names};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

/// An incident that is resolved as soon as it is declared.
fn resolved(name: &str, severity: &str) -> Value {
    incident(
        name,
        json!({
            "title": "Checkout fails", "severity": severity, "roles": {"incidentCommander": "alice"},
            "impact": {"summary": "40 % of checkouts fail"}, "detection": {"source": "Alert", "reference": "https://alerts.example/1"},
            "resolution": {"summary": "restarted"},
        }),
    )
}

/// Waits until the postmortem is looked at in its present generation.
async fn looked_at(namespace: &TestNamespace, name: &str) -> Postmortem {
    wait_status(&namespace.api::<Postmortem>(), name, "look at the postmortem", |p| {
        p.status
            .as_ref()
            .is_some_and(|s| s.observed_generation == p.metadata.generation && s.export.is_some())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_draft_has_what_is_known_and_belongs_to_whoever_writes_it() {
    let namespace = TestNamespace::new("draft").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(resolved("outage", "SEV1")).await;
    let draft = looked_at(&namespace, "outage").await;
    let spec = &draft.spec;
    assert_eq!(spec.title.as_deref(), Some("Checkout fails"));
    assert_eq!(spec.owner.as_deref(), Some("alice"));
    assert_eq!(spec.impact.as_deref(), Some("40 % of checkouts fail"));
    assert_eq!(spec.resolution.as_deref(), Some("restarted"));
    assert_eq!(spec.links, ["https://alerts.example/1"]);
    let status = draft.status.as_ref().expect("it has one");
    assert!(!status.timeline.is_empty());
    assert!(status.missing_sections.iter().any(|s| s.starts_with("Root cause")), "{status:?}");
    assert_eq!(says(&status.conditions, "Ready"), "True Settled: this generation is observed");
    let due = status.due_time.as_ref().expect("SEV1 has a deadline").0.as_second();
    let resolved = status.incident.as_ref().and_then(|i| i.resolved_time.as_ref()).expect("it is resolved").0;
    assert_eq!(due - resolved.as_second(), 3 * 24 * 3600);

    // No field of the spec is the operator's.
    let of_spec: Vec<_> =
        draft.managed_fields().iter().filter(|f| f.subresource.as_deref() != Some("status")).collect();
    assert!(of_spec.is_empty(), "{of_spec:?}");
    let mark = audit::mark();
    let file = "
apiVersion: incident-operator.dev/v1alpha1
kind: Postmortem
metadata: {name: outage}
spec: {state: InReview, impact: All checkouts failed., rootCauses: One pool for all.}
";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("postmortem.yaml");
    std::fs::write(&path, file).expect("written");
    let path = path.display().to_string();
    let apply = || namespace.kubectl(&["apply", "--server-side", "-f", &path]).success();
    apply();
    let applied = looked_at(&namespace, "outage").await;
    assert_eq!(applied.spec.impact.as_deref(), Some("All checkouts failed."));
    operator.requests_once_quiet(mark, Duration::from_millis(300)).await;
    // The same file again changes nothing, for nobody.
    let mark = audit::mark();
    apply();
    assert_eq!(operator.requests_once_quiet(mark, Duration::from_millis(300)).await, []);
    let again = namespace.api::<Postmortem>().get("outage").await.expect("it exists");
    assert_eq!(again.resource_version(), applied.resource_version());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_markdown_lies_in_a_config_map_with_its_hash_and_follows_every_edit() {
    let namespace = TestNamespace::new("export").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(resolved("written", "SEV2")).await;
    let matches = async || {
        let postmortem = looked_at(&namespace, "written").await;
        let export = postmortem.status.and_then(|s| s.export).expect("it is exported");
        let map =
            namespace.api::<ConfigMap>().get(&export.config_map_ref.name).await.map_err(|e| e.to_string())?;
        let text = map.data.unwrap_or_default()["postmortem.md"].clone();
        if names::sha256_hex(&text) == export.sha256 { Ok(text) } else { Err(text) }
    };
    let text = wait_for(PATIENCE, "Markdown with the hash that is told", matches).await;
    assert!(text.contains("Checkout fails"), "{text}");
    namespace
        .kubectl(&[
            "patch",
            "postmortem",
            "written",
            "--type=merge",
            "-p",
            r#"{"spec": {"title": "결제 실패"}}"#,
        ])
        .success();
    wait_for(PATIENCE, "Markdown with the new title", async || {
        let text = matches().await?;
        if text.contains("결제 실패") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mitigations_tell_what_they_changed_and_how_they_ended_even_when_their_objects_are_gone() {
    let namespace = TestNamespace::new("changed").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 2)).await;
    namespace.create(configmap("flags", &[("new-pricing", "on")])).await;
    let mitigations = json!([
        {"name": "stop", "reason": "it floods the database", "targetRef": {"kind": "Deployment", "name": "importer"},
            "scale": {"replicas": 0}, "releaseOn": "Resolve"},
        {"name": "off", "reason": "errors began with the flag", "targetRef": {"kind": "ConfigMap", "name": "flags"},
            "featureFlag": {"key": "new-pricing", "value": "off"}},
        {"name": "rehearsal", "reason": "what would it do?", "targetRef": {"kind": "ConfigMap", "name": "flags"},
            "featureFlag": {"key": "other", "value": "off"}, "dryRun": true}]);
    let spec = json!({"title": "Checkout fails", "severity": "SEV1", "mitigations": mitigations});
    namespace.create(incident("changed", spec)).await;
    incident_when(&namespace, "changed", "mitigation", |i| {
        incident_says(i, "Mitigated").starts_with("True")
            && entry_summary(i, "off").is_some_and(|s| s.change.is_some())
    })
    .await;
    // One is taken out and its object goes, long before anybody writes a postmortem.
    let patch = json!({"spec": {"mitigations": [mitigations[0]]}});
    let incidents = namespace.api::<Incident>();
    incidents.patch("changed", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("edited");
    wait_gone(&namespace.api::<Mitigation>(), "changed-off").await;
    let patch = json!({"spec": {"resolution": {"summary": "limited the importer"}}});
    incidents.patch("changed", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("resolved");
    let ended = |p: &Postmortem| {
        let known = p.status.as_ref().and_then(|s| s.incident.as_ref());
        known.is_some_and(|i| {
            i.mitigations.len() == 2 && i.mitigations.iter().all(|m| m.released_time.is_some())
        })
    };
    wait_status(&namespace.api::<Postmortem>(), "changed", "record of the mitigations", ended).await;
    let wanted = [
        "it floods the database | spec.replicas from 2 to 0 |",
        "errors began with the flag | data.new-pricing from \"on\" to \"off\" |",
        "worked; released",
    ];
    wait_for(PATIENCE, "Markdown that tells it", async || {
        let map = namespace.api::<ConfigMap>().get("changed-postmortem").await.map_err(|e| e.to_string())?;
        let text = map.data.unwrap_or_default()["postmortem.md"].clone();
        if wanted.iter().all(|w| text.contains(w)) && !text.contains("what would it do?") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn less_severe_incidents_close_without_a_postmortem() {
    let namespace = TestNamespace::new("minor").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for severity in ["SEV3", "SEV4", "SEV5"] {
        let name = severity.to_lowercase();
        namespace.create(resolved(&name, severity)).await;
        let closed = incident_when(&namespace, &name, "end", |i| stage(i) == "Closed").await;
        assert!(incident_says(&closed, "PostmortemComplete").starts_with("True NotRequired"));
    }
    assert_eq!(
        namespace.api::<Postmortem>().list(&ListParams::default()).await.expect("listed").items.len(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postmortem_that_came_from_git_is_adopted_and_not_drafted_a_second_time() {
    let namespace = TestNamespace::new("git").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let written = ours(
        "Postmortem",
        "checkout-2026-01",
        json!({"incidentRef": {"name": "adopted"}, "summary": "by hand"}),
    );
    namespace.create(written).await;
    // Watches of two kinds tell in no order. What is made in the same moment is a second one, and both say so.
    looked_at(&namespace, "checkout-2026-01").await;
    namespace.create(resolved("adopted", "SEV1")).await;
    let adopted = incident_when(&namespace, "adopted", "postmortem", |i| {
        i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some()) && stage(i) == "Postmortem"
    })
    .await;
    let named = adopted.status.and_then(|s| s.postmortem_ref).map(|r| r.name);
    assert_eq!(named.as_deref(), Some("checkout-2026-01"));
    let known =
        wait_status(&namespace.api::<Postmortem>(), "checkout-2026-01", "record of the incident", |p| {
            p.status.as_ref().is_some_and(|s| s.incident.is_some())
        })
        .await;
    assert_eq!(known.spec.summary.as_deref(), Some("by hand"));
    assert_eq!(
        namespace.api::<Postmortem>().list(&ListParams::default()).await.expect("listed").items.len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_incident_of_the_same_name_has_a_postmortem_of_its_own() {
    let namespace = TestNamespace::new("second").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut uids = Vec::new();
    for _ in 0..2 {
        namespace.create(resolved("monday", "SEV1")).await;
        let drafted = incident_when(&namespace, "monday", "postmortem", |i| {
            stage(i) == "Postmortem" && i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some())
        })
        .await;
        uids.push(drafted.uid());
        let name = drafted.status.and_then(|s| s.postmortem_ref).expect("it is named").name;
        let has_the_record = |p: &Postmortem| p.status.as_ref().is_some_and(|s| s.incident.is_some());
        let postmortem =
            wait_status(&namespace.api::<Postmortem>(), &name, "record of the incident", has_the_record)
                .await;
        assert_eq!(postmortem.spec.incident_ref.and_then(|r| r.uid), drafted.metadata.uid);
        let incidents = namespace.api::<Incident>();
        incidents.delete("monday", &DeleteParams::default()).await.expect("deleted");
        wait_gone(&incidents, "monday").await;
    }
    let kept = namespace.api::<Postmortem>().list(&ListParams::default()).await.expect("listed").items;
    assert_eq!(kept.len(), 2);
    for postmortem in &kept {
        let known = postmortem.status.as_ref().and_then(|s| s.incident.as_ref()).expect("with its record");
        assert!(
            uids.contains(&known.uid)
                && postmortem.spec.incident_ref.as_ref().is_some_and(|r| r.uid == known.uid)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_incident_of_the_same_name_does_not_close_on_what_git_has_about_the_earlier_one() {
    let namespace = TestNamespace::new("later").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    // In git nobody knows a uid.
    let file = json!({"title": "Checkout failed", "incidentRef": {"name": "monday"}});
    namespace.create(ours("Postmortem", "from-git", file)).await;
    let incidents = namespace.api::<Incident>();
    let mut names = Vec::new();
    for _ in 0..2 {
        namespace.create(resolved("monday", "SEV1")).await;
        let monday = incident_when(&namespace, "monday", "postmortem", |i| {
            stage(i) == "Postmortem" && i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some())
        })
        .await;
        let name = monday.status.and_then(|s| s.postmortem_ref).expect("it is named").name;
        let of_it = |p: &Postmortem| {
            let known = p.status.as_ref().and_then(|s| s.incident.as_ref());
            known.is_some_and(|i| i.uid == monday.metadata.uid && i.resolved_time.is_some())
        };
        wait_status(&namespace.api::<Postmortem>(), &name, "record of the incident", of_it).await;
        names.push(name);
        incidents.delete("monday", &DeleteParams::default()).await.expect("deleted");
        wait_gone(&incidents, "monday").await;
    }
    assert_eq!(names[0], "from-git");
    assert_ne!(names[1], "from-git");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postmortem_whose_drafting_was_cut_off_is_finished_and_given_away() {
    let namespace = TestNamespace::new("cut").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    for round in 0..8 {
        let name = format!("cut-{round}");
        namespace.create(resolved(&name, "SEV1")).await;
        // Not a wait for anything: the moment of the crash is what varies.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..60_000))).await;
        operator.restart().await;
        // The record follows as soon as the incident's own status says that it is resolved.
        let whole = wait_status(&namespace.api::<Postmortem>(), &name, "whole postmortem", |p| {
            p.status.as_ref().is_some_and(|s| {
                s.observed_generation == p.metadata.generation
                    && s.export.is_some()
                    && s.incident.is_some()
                    && !s.timeline.is_empty()
            })
        })
        .await;
        let of_spec: Vec<_> =
            whole.managed_fields().iter().filter(|f| f.subresource.as_deref() != Some("status")).collect();
        assert!(of_spec.is_empty(), "round {round}: {of_spec:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_postmortem_is_missed_and_not_made_again_behind_somebodys_back() {
    let namespace = TestNamespace::new("gone").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(resolved("lost", "SEV1")).await;
    looked_at(&namespace, "lost").await;
    incident_when(&namespace, "lost", "postmortem", |i| {
        i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some())
    })
    .await;
    namespace.api::<Postmortem>().delete("lost", &DeleteParams::default()).await.expect("deleted");
    incident_when(&namespace, "lost", "report", |i| {
        incident_says(i, "PostmortemComplete").starts_with("False PostmortemGone")
    })
    .await;
    namespace.create(ours("Postmortem", "lost", json!({"incidentRef": {"name": "lost"}}))).await;
    incident_when(&namespace, "lost", "new one", |i| {
        incident_says(i, "PostmortemComplete").starts_with("False NotReviewed")
    })
    .await;
}
