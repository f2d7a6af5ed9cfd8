use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "expiry",
    about: "a mitigation that expires and is released by itself",
    fields: &[("ConfigMap", "flags", "/data/mode")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.create(workload::configmap("flags", &[("mode", "normal")])).await;
    let short =
        json!({"featureFlag": {"key": "mode", "value": "slow"}, "expiresAfter": "2s", "onExpire": "Release"});
    world.create(mitigation("slow", "ConfigMap", "flags", short)).await;
    world.reaches("slow", "Released").await;
}
