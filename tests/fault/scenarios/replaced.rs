use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "replaced",
    about: "while the take, and later the release, is on its way, the target is made anew: what was decided on the old one does not touch the new one",
    fields: &[("ConfigMap", "flags", "/data/mode")],
    most: 100,
    run: |world| run(world).boxed(),
};

/// With a label and an annotation: a patch that must make the first one rests on the resourceVersion as well.
fn flags() -> Value {
    let mut flags = workload::configmap("flags", &[("mode", "normal")]);
    flags["metadata"]["labels"] = json!({"app": "shop"});
    flags["metadata"]["annotations"] = json!({"example.com/team": "checkout"});
    flags
}

async fn anew(world: &World, flags: Value) {
    world.delete("ConfigMap", "flags").await;
    world.gone("ConfigMap", "flags").await;
    world.create(flags).await;
}

async fn run(world: &World) {
    world.create(flags()).await;
    world.hold("configmaps");
    let slow = json!({"featureFlag": {"key": "mode", "value": "slow"}});
    world.create(mitigation("slow", "ConfigMap", "flags", slow)).await;
    world.held().await;
    anew(world, flags()).await;
    world.let_go();
    world.effective("slow").await;

    world.hold("configmaps");
    world.release("slow").await;
    world.held().await;
    let held = world.until("ConfigMap", "flags", "held value", |c| c["data"]["mode"] == "slow").await;
    // As a restore from a backup does: the same but for the identity.
    let mut copy = flags();
    copy["data"]["mode"] = json!("slow");
    copy["metadata"]["annotations"] = held["metadata"]["annotations"].clone();
    copy["metadata"]["labels"] = held["metadata"]["labels"].clone();
    anew(world, copy).await;
    world.let_go();
    world.reaches("slow", "Abandoned").await;
}
