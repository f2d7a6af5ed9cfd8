use super::*;
use crate::{scenario::Scenario, support::workload, world::World};
use futures::FutureExt;

pub const SCENARIO: Scenario = Scenario {
    name: "timeline",
    about: "people write entries before, while and after the operator folds others; each is on record once",
    fields: &[],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    world.create(workload::entry("checkout", "Note", "written before the incident was declared")).await;
    world.create(incident("checkout", "SEV3", &[])).await;
    for (kind, words) in [
        ("Note", "결제가 실패합니다"),
        ("Decision", "roll back"),
        ("Hypothesis", "the importer"),
        ("StatusUpdate", "we are on it"),
    ] {
        world.create(workload::entry("checkout", kind, words)).await;
    }
    for uid in world.entries() {
        world.folded("checkout", &uid).await;
    }
    world.create(workload::entry("checkout", "Note", "one more")).await;
    for uid in world.entries() {
        world.folded("checkout", &uid).await;
    }
}
