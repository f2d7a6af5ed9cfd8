use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "finalizer",
    about: "where admission adds no finalizer the operator does, before it acts; deleted at once, it is undone all the same",
    fields: &[("ConfigMap", "flags", "/data/mode")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.create(workload::configmap("flags", &[("mode", "normal")])).await;
    world.stop_operator().await;
    world
        .create(mitigation(
            "slow",
            "ConfigMap",
            "flags",
            json!({"featureFlag": {"key": "mode", "value": "slow"}}),
        ))
        .await;
    world.as_the_operator("Mitigation", "slow", json!({"metadata": {"finalizers": null}})).await;
    world.start_operator().await;
    world.effective("slow").await;
    world.delete("Mitigation", "slow").await;
    world.gone("Mitigation", "slow").await;
}
