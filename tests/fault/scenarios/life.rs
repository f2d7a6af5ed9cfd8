use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "life",
    about: "the whole life of an incident with scale, featureFlag and rollback, resolved and closed",
    fields: &[
        ("Deployment", "importer", "/spec/replicas"),
        ("ConfigMap", "flags", "/data/pricing"),
        ("Deployment", "web", "/spec/template"),
    ],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.workload(workload::deployment("importer", 2)).await;
    world.workload(workload::deployment("web", 1)).await;
    world.create(workload::configmap("flags", &[("pricing", "on"), ("other", "x")])).await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/main:2"}]}}}});
    world.edit("Deployment", "web", image).await;
    world
        .until("Deployment", "web", "second version", |d| {
            let at = |pointer: &str| d.pointer(pointer).and_then(|v| v.as_i64()).unwrap_or(0);
            at("/status/observedGeneration") == at("/metadata/generation")
                && (at("/status/updatedReplicas"), at("/status/replicas"), at("/status/availableReplicas"))
                    == (1, 1, 1)
        })
        .await;
    let mitigations = [
        entry("stop", "Deployment", "importer", json!({"scale": {"replicas": 0}})),
        entry(
            "pricing-off",
            "ConfigMap",
            "flags",
            json!({"featureFlag": {"key": "pricing", "value": "off"}}),
        ),
        entry("back", "Deployment", "web", json!({"rollback": {}, "onRelease": "Restore"})),
    ];
    world.create(incident("checkout", "SEV3", &mitigations)).await;
    world.create_as("alice", acknowledgement("checkout")).await;
    for name in ["checkout-stop", "checkout-pricing-off", "checkout-back"] {
        world.effective(name).await;
    }
    world.stage("checkout", "Resolve").await;
    world
        .edit("Incident", "checkout", json!({"spec": {"resolution": {"summary": "the importer is fixed"}}}))
        .await;
    for name in ["checkout-stop", "checkout-pricing-off", "checkout-back"] {
        world.reaches(name, "Released").await;
    }
    world.stage("checkout", "Closed").await;
}
