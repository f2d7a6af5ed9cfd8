use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "human-edit",
    about: "while two mitigations hold, a person changes one held value and one beside the other; then both are released",
    fields: &[("Deployment", "importer", "/spec/replicas"), ("ConfigMap", "flags", "/data/mode")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.workload(workload::deployment("importer", 2)).await;
    world.create(workload::configmap("flags", &[("mode", "normal"), ("other", "x")])).await;
    world.create(mitigation("stop", "Deployment", "importer", json!({"scale": {"replicas": 0}}))).await;
    world
        .create(mitigation(
            "slow",
            "ConfigMap",
            "flags",
            json!({"featureFlag": {"key": "mode", "value": "slow"}}),
        ))
        .await;
    world.effective("stop").await;
    world.effective("slow").await;
    world.edit("ConfigMap", "flags", json!({"data": {"other": "y"}})).await;
    // The release is asked for, and before it comes somebody has already set another value: that one stands.
    world.stop_operator().await;
    world.edit("Deployment", "importer", json!({"spec": {"replicas": 1}})).await;
    world.release("stop").await;
    world.delete("Mitigation", "slow").await;
    world.start_operator().await;
    world.reaches("stop", "Superseded").await;
    world.gone("Mitigation", "slow").await;
}
