//! P9: many incidents at once: how long until all of them are mitigated, against a raw loop of the same writes.

use crate::{
    lifecycle::{Life, World, target},
    report::{Goal, Report, Row},
    rig::{Rig, kinds::*},
};
use futures::TryStreamExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

/// A repetition takes more than a minute, most of it to clean up, and no goal depends on it.
fn repetitions(rig: &Rig) -> usize {
    if rig.full { 3 } else { 1 }
}
/// Requests at a time of those who apply.
const APPLIERS: usize = 32;

/// Measures.
pub async fn run(rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    let count = crate::count(500);
    rig.say(&format!("P9: {count} workloads"));
    let world = World::make(rig, count).await?;
    let mut pairs = Vec::new();
    // How many at a time are best is found once.
    let mut tried = vec![16, 64];
    let repetitions = repetitions(rig);
    for repetition in 1..=repetitions {
        let mut floor = (Duration::MAX, 0);
        for workers in tried {
            rig.say(&format!("P9: raw loop, {workers} at a time, repetition {repetition} of {repetitions}"));
            floor = floor.min((raw(rig, &world, count, workers).await?, workers));
        }
        let (floor, best) = floor;
        tried = vec![best];
        rig.say(&format!("P9: {count} incidents at once, repetition {repetition} of {repetitions}"));
        let ours = storm(rig, &world, count, repetition).await?;
        pairs.push((floor.as_secs_f64() * 1e3, ours.as_secs_f64() * 1e3));
    }
    report.rows.push(Row::against(
        "P9",
        format!("{count} incidents at once, all mitigated"),
        "ms",
        &pairs,
        Goal::None,
    ));
    Ok(())
}

/// The same writes: the incident, the mitigation of its entry, the target, and the status of both.
async fn raw(rig: &Rig, world: &World, count: usize, workers: usize) -> anyhow::Result<Duration> {
    let (incidents, mitigations) = (api(&rig.admin, RAW, "Incident"), api(&rig.admin, RAW, "Mitigation"));
    let params = PatchParams::default();
    let begun = Instant::now();
    futures::stream::iter((0..count).map(anyhow::Ok))
        .try_for_each_concurrent(workers, |i| {
            let (incidents, mitigations, params) = (incidents.clone(), mitigations.clone(), params.clone());
            async move {
                let (name, target) = (format!("storm-{i}"), target(i));
                let create = PostParams::default();
                incidents
                    .create(&create, &object(incident(RAW, &name, std::slice::from_ref(&target)))?)
                    .await?;
                mitigations.create(&create, &object(mitigation(RAW, &name, &target, Some("None")))?).await?;
                world.floor_take(&target).await?;
                world.floor_status(&name).await?;
                let status = json!({"status": {"observedGeneration": 1, "nextUpdateTime": "x".repeat(32)}});
                incidents.patch_status(&name, &params, &Patch::Merge(status)).await?;
                Ok(())
            }
        })
        .await?;
    let took = begun.elapsed();
    futures::stream::iter((0..count).map(anyhow::Ok))
        .try_for_each_concurrent(16, |i| async move { world.floor_restore(&target(i)).await })
        .await?;
    remove_all(&incidents).await?;
    remove_all(&mitigations).await?;
    Ok(took)
}

async fn storm(rig: &Rig, world: &World, count: usize, repetition: usize) -> anyhow::Result<Duration> {
    let name = |i: usize| format!("storm-{repetition}-{i}");
    let incidents = api(&rig.admin, OURS, "Incident");
    let begun = Instant::now();
    futures::stream::iter((0..count).map(anyhow::Ok))
        .try_for_each_concurrent(APPLIERS, |i| {
            let incidents = incidents.clone();
            async move {
                let incident = incident(OURS, &name(i), &[target(i)]);
                incidents.create(&PostParams::default(), &object(incident)?).await?;
                Ok(())
            }
        })
        .await?;
    let mut last = begun;
    for i in 0..count {
        last = last.max(world.zero_since(&target(i), begun).await?);
    }
    futures::stream::iter((0..count).map(anyhow::Ok))
        .try_for_each_concurrent(APPLIERS, |i| async move {
            world.release(Life::Incident(1), &name(i), &[target(i)]).await
        })
        .await?;
    Ok(last - begun)
}
