use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "deletion",
    about: "an incident is deleted while its mitigations are active: all is undone and nothing of it is left",
    fields: &[("Deployment", "importer", "/spec/replicas"), ("ConfigMap", "flags", "/data/pricing")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.workload(workload::deployment("importer", 2)).await;
    world.create(workload::configmap("flags", &[("pricing", "on")])).await;
    let mitigations = [
        entry("stop", "Deployment", "importer", json!({"scale": {"replicas": 0}})),
        entry(
            "pricing-off",
            "ConfigMap",
            "flags",
            json!({"featureFlag": {"key": "pricing", "value": "off"}}),
        ),
    ];
    world.create(incident("checkout", "SEV3", &mitigations)).await;
    world.effective("checkout-stop").await;
    world.effective("checkout-pricing-off").await;
    world.delete("Incident", "checkout").await;
    for name in ["checkout-stop", "checkout-pricing-off"] {
        world.gone("Mitigation", name).await;
    }
    world.gone("Incident", "checkout").await;
}
