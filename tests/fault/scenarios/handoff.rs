use super::*;
use crate::{
    scenario::Scenario,
    world::{World, is},
};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "handoff",
    about: "command is acknowledged, handed over and acknowledged again; severity is raised meanwhile",
    fields: &[],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.create(incident("checkout", "SEV3", &[])).await;
    world.create_as("alice", acknowledgement("checkout")).await;
    world.until("Incident", "checkout", "command", |i| is(i, "Acknowledged")).await;
    let handed = json!({"spec": {"roles": {"incidentCommander": "bob"}, "severity": "SEV2"}});
    world.edit("Incident", "checkout", handed).await;
    world.until("Incident", "checkout", "handoff on record", |i| held(i, "bob").is_some()).await;
    world.create_as("bob", acknowledgement("checkout")).await;
    world.until("Incident", "checkout", "acknowledged handoff", |i| held(i, "bob") == Some(true)).await;
}

/// Whether somebody's role is acknowledged, if they have one.
fn held(incident: &serde_json::Value, who: &str) -> Option<bool> {
    let roles = incident["status"]["roles"].as_array();
    let role = roles.into_iter().flatten().find(|r| r["holder"] == who && r["untilTime"].is_null())?;
    Some(!role["acknowledgedTime"].is_null())
}
