use super::*;
use crate::{
    scenario::Scenario,
    support::workload,
    world::{World, says},
};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "one-field",
    about: "two mitigations of one field: the second waits, takes when the first is released, and is deleted",
    fields: &[("ConfigMap", "flags", "/data/mode")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.create(workload::configmap("flags", &[("mode", "normal")])).await;
    let set = |value: &str| json!({"featureFlag": {"key": "mode", "value": value}});
    world.create(mitigation("first", "ConfigMap", "flags", set("slow"))).await;
    world.effective("first").await;
    world.create(mitigation("second", "ConfigMap", "flags", set("off"))).await;
    world.until("Mitigation", "second", "FieldBusy", |m| says(m, "Ready").1 == "FieldBusy").await;
    world.release("first").await;
    world.reaches("first", "Released").await;
    world.effective("second").await;
    world.delete("Mitigation", "second").await;
    world.gone("Mitigation", "second").await;
}
