//! The Markdown of a postmortem where something is in its way.

use super::support::record::says;
use super::support::workload::{configmap, ours};
use super::support::*;
use incident_operator::api::Postmortem;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_of_somebody_elses_is_left_alone_and_the_markdown_lies_beside_it() {
    let namespace = TestNamespace::new("export-taken").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(configmap("taken-postmortem", &[("mine", "yes")])).await;
    namespace.create(ours("Postmortem", "taken", json!({"owner": "alice", "title": "One"}))).await;
    let api = namespace.api::<Postmortem>();
    let exported = |p: &Postmortem| {
        p.status
            .as_ref()
            .is_some_and(|s| s.observed_generation == p.metadata.generation && s.export.is_some())
    };
    let first = wait_status(&api, "taken", "Markdown", exported).await;
    let name =
        |p: &Postmortem| p.status.as_ref().and_then(|s| s.export.clone()).map(|e| e.config_map_ref.name);
    let beside = name(&first).expect("it is named");
    assert!(beside.starts_with("taken-postmortem-"), "{beside}");
    namespace
        .kubectl(&["patch", "postmortem", "taken", "--type=merge", "-p", r#"{"spec":{"title":"Two"}}"#])
        .success();
    let maps = namespace.api::<ConfigMap>();
    wait_for(PATIENCE, "new title", async || {
        let map = maps.get(&beside).await.map_err(|e| e.to_string())?;
        let text = map.data.unwrap_or_default()["postmortem.md"].clone();
        if text.contains("# Two") { Ok(()) } else { Err(text) }
    })
    .await;
    let theirs = maps.get("taken-postmortem").await.expect("it is there").data.expect("it has data");
    assert_eq!(theirs.into_iter().collect::<Vec<_>>(), [("mine".to_owned(), "yes".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn markdown_that_somebody_deletes_is_written_again_and_what_is_gone_meanwhile_too() {
    let namespace = TestNamespace::new("export-lost").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(ours("Postmortem", "lost", json!({"owner": "alice", "title": "One"}))).await;
    let maps = namespace.api::<ConfigMap>();
    let whole = async |what: &str| {
        wait_for(PATIENCE, what, async || {
            let map = maps.get("lost-postmortem").await.map_err(|e| e.to_string())?;
            let text = map.data.unwrap_or_default().remove("postmortem.md").unwrap_or_default();
            if text.contains("# One") { Ok(text) } else { Err(text) }
        })
        .await
    };
    let before = whole("Markdown").await;
    wait_status(&namespace.api::<Postmortem>(), "lost", "word of it", |p| {
        p.status.as_ref().is_some_and(|s| s.export.is_some())
    })
    .await;
    namespace.kubectl(&["delete", "configmap", "lost-postmortem"]).success();
    assert_eq!(whole("Markdown after it was deleted").await, before);
    let edit = r#"{"data":{"postmortem.md":"nothing happened"}}"#;
    let edited = namespace.kubectl(&["patch", "configmap", "lost-postmortem", "--type=merge", "-p", edit]);
    assert!(!edited.ok && edited.stderr.contains("only written by the operator"), "{edited:?}");
    operator.kill();
    namespace.kubectl(&["delete", "configmap", "lost-postmortem"]).success();
    operator.restart().await;
    assert_eq!(whole("Markdown after it was deleted while nobody looked").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn markdown_that_is_refused_for_a_missing_role_is_written_once_that_is_bound_and_nobody_edits_anything()
{
    let namespace = TestNamespace::new("export-unbound").await;
    let bindings = namespace.api::<RoleBinding>();
    let bound = bindings.list(&ListParams::default()).await.expect("the chart binds roles").items;
    // Who may change a flag may patch ConfigMaps, too.
    let writes =
        |name: &str| name.starts_with("incident-operator-mitigator-") || name == "incident-operator-recorder";
    for name in bound.iter().map(ResourceExt::name_any).filter(|name| writes(name)) {
        bindings.delete(&name, &DeleteParams::default()).await.expect("it can be deleted");
    }
    let user = format!("system:serviceaccount:{}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1);
    let may_patch = || {
        let asked = namespace.kubectl(&["auth", "can-i", "patch", "configmaps", "--as", &user]);
        asked.stdout.trim() == "yes"
    };
    wait_for(PATIENCE, "end of the right", async || (!may_patch()).then_some(())).await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(ours("Postmortem", "unbound", json!({"owner": "alice", "title": "One"}))).await;
    let api = namespace.api::<Postmortem>();
    let ready = |p: &Postmortem| p.status.as_ref().map(|s| says(&s.conditions, "Ready")).unwrap_or_default();
    let refused =
        wait_status(&api, "unbound", "refusal", |p| ready(p).starts_with("True ExportRefused")).await;
    let words = ready(&refused);
    // What it names is there to be bound, and that is the fix.
    let role = words.split_whitespace().find(|word| *word == "incident-operator-recorder");
    let role = role.unwrap_or_else(|| panic!("the message names a ClusterRole: {words}"));
    let account = format!("--serviceaccount={}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1);
    namespace.kubectl(&["create", "rolebinding", role, "--clusterrole", role, &account]).success();
    // The first of the waits, which grow; the second, too, where the binding is seen late.
    let written = wait_for(Duration::from_secs(60), "Markdown", async || {
        let found = api.get("unbound").await.map_err(|e| e.to_string())?;
        let is_there = found.status.as_ref().is_some_and(|s| s.export.is_some());
        if is_there { Ok(found) } else { Err(ready(&found)) }
    })
    .await;
    assert_eq!(ready(&written), "True Settled: this generation is observed");
    assert_eq!(written.metadata.generation, refused.metadata.generation, "nobody edited it");
    let map = namespace.api::<ConfigMap>().get("unbound-postmortem").await.expect("it is exported");
    assert!(map.data.expect("it has data")["postmortem.md"].contains("# One"));
}
