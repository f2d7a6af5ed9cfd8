use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;

/// More than stay in the status of an incident.
const ENTRIES: usize = 215;

pub const SCENARIO: Scenario = Scenario {
    name: "archive",
    about: "more entries than an incident's status keeps: the older ones move to an archive, and each is on record once",
    fields: &[],
    // Each entry is removed by a write of its own.
    most: 6,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.create(incident("checkout", "SEV3", &[])).await;
    for number in 0..ENTRIES {
        let mut entry = workload::entry("checkout", "Note", &format!("entry {number}"));
        entry["metadata"] = serde_json::json!({"name": format!("e-{number:03}")});
        world.create(entry).await;
    }
    for number in 0..ENTRIES {
        world.gone("TimelineEntry", &format!("e-{number:03}")).await;
    }
    world
        .until("Incident", "checkout", "archive", |i| {
            i["status"]["timelineArchive"]["configMaps"].as_i64() >= Some(1)
        })
        .await;
}
