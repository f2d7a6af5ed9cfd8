use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "evidence",
    about: "evidence is required before pods go, kept, and stays when the mitigation is deleted",
    fields: &[("Deployment", "importer", "/spec/replicas")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.workload(workload::deployment("importer", 1)).await;
    let stop = json!({"scale": {"replicas": 0}, "evidence": "Required"});
    world.create(mitigation("stop", "Deployment", "importer", stop)).await;
    world.effective("stop").await;
    let kept = |m: &serde_json::Value| m["status"]["evidence"]["configMap"].is_string();
    world.until("Mitigation", "stop", "evidence", kept).await;
    world.delete("Mitigation", "stop").await;
    world.gone("Mitigation", "stop").await;
}
