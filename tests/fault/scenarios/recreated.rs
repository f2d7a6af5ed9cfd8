use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "recreated",
    about: "the target is deleted and made anew from a copy, record and all: the new object is nobody's, and stays as it is",
    fields: &[("ConfigMap", "flags", "/data/mode")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.create(workload::configmap("flags", &[("mode", "normal")])).await;
    world
        .create(mitigation(
            "slow",
            "ConfigMap",
            "flags",
            json!({"featureFlag": {"key": "mode", "value": "slow"}}),
        ))
        .await;
    world.effective("slow").await;
    world.stop_operator().await;
    let held = world.until("ConfigMap", "flags", "held value", |c| c["data"]["mode"] == "slow").await;
    // As a restore from a backup does: the same but for the identity.
    let mut copy = workload::configmap("flags", &[("mode", "slow")]);
    copy["metadata"]["annotations"] = held["metadata"]["annotations"].clone();
    copy["metadata"]["labels"] = held["metadata"]["labels"].clone();
    world.delete("ConfigMap", "flags").await;
    world.gone("ConfigMap", "flags").await;
    world.create(copy).await;
    world.release("slow").await;
    world.start_operator().await;
    world.reaches("slow", "Abandoned").await;
}
