use super::*;
use crate::{scenario::Scenario, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "postmortem",
    about: "an incident that needs a postmortem is resolved; the draft is written, exported and reviewed",
    fields: &[],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    let mut declared = incident("checkout", "SEV2", &[]);
    declared["spec"]["noMitigationNeeded"] = json!("it stopped by itself");
    world.create(declared).await;
    world.create_as("alice", acknowledgement("checkout")).await;
    world.stage("checkout", "Resolve").await;
    world
        .edit("Incident", "checkout", json!({"spec": {"resolution": {"summary": "the importer is fixed"}}}))
        .await;
    world.until("Postmortem", "checkout", "export", |p| p["status"]["export"]["sha256"].is_string()).await;
    world.stage("checkout", "Postmortem").await;
    world
        .edit(
            "Postmortem",
            "checkout",
            json!({"spec": {"summary": "It broke and was mended.", "owner": "alice"}}),
        )
        .await;
    world
        .until("Postmortem", "checkout", "second look", |p| {
            p["status"]["observedGeneration"] == p["metadata"]["generation"]
        })
        .await;
}
