//! The Markdown of a postmortem where something is in its way.

use super::support::workload::{configmap, ours};
use super::support::*;
use incident_operator::api::Postmortem;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

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
