//! P1: how long from `apply` until a mitigation is visible on its target, and until its status says so, one at a time.
//!
//! The lives are interleaved: whatever else happens on the machine meets floor and operator alike.

use crate::{
    lifecycle::{Life, Times, World, target},
    report::{Goal, Report, Row},
    rig::{Rig, samples::Samples},
};
use std::time::Duration;

/// Targets, used in turn.
pub const TARGETS: usize = 24;
const REPETITIONS: usize = 3;
/// What a life must not find running when it begins.
const PAUSE: Duration = Duration::from_millis(20);

/// Samples of one kind of life in one repetition.
#[derive(Default)]
pub struct Lives {
    posted: Samples,
    visible: Samples,
    applied: Samples,
    effective: Samples,
}

impl Lives {
    /// Until the change is seen on the last target.
    pub fn visible(&self) -> &Samples {
        &self.visible
    }

    fn add(&mut self, times: Times) {
        self.posted.add(times.posted);
        self.visible.add(times.visible);
        self.applied.add(times.applied);
        self.effective.add(times.effective);
    }
}

/// Lives some of each kind, in turn; every `every`th round has the kind in it.
pub async fn interleaved(
    rig: &Rig,
    world: &World,
    label: &str,
    lives: &[(Life, usize)],
    rounds: usize,
) -> anyhow::Result<Vec<Lives>> {
    let mut samples: Vec<Lives> = lives.iter().map(|_| Lives::default()).collect();
    let mut next = 0;
    for round in 0..rounds {
        for (i, (life, every)) in lives.iter().enumerate() {
            if round % every != 0 {
                continue;
            }
            let targets: Vec<String> = (0..life.targets()).map(|t| target((next + t) % TARGETS)).collect();
            next += life.targets();
            let name = format!("{label}-{i}-{round}");
            let times = world.begin(*life, &name, &targets).await?;
            samples[i].add(times);
            world.release(*life, &name, &targets).await?;
            tokio::time::sleep(PAUSE).await;
        }
        rig.tick(label, round + 1, rounds);
    }
    Ok(samples)
}

/// Which times of a life.
type Pick = fn(&Lives) -> &Samples;

/// Measures.
pub async fn run(rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    let rounds = crate::count(if rig.full { 334 } else { 167 });
    let world = World::make(rig, TARGETS).await?;
    let lives = [
        (Life::Floor(1), 1),
        (Life::Mitigation, 1),
        (Life::Incident(1), 1),
        (Life::WithEvidence, 10),
        (Life::Floor(8), 8),
        (Life::Incident(8), 8),
    ];
    let mut all = Vec::new();
    // The first ones open connections and fill caches.
    interleaved(rig, &world, "p1-warm", &lives, 10).await?;
    for repetition in 1..=REPETITIONS {
        rig.say(&format!("P1: {rounds} lives of each kind, repetition {repetition} of {REPETITIONS}"));
        all.push(interleaved(rig, &world, &format!("p1-{repetition}"), &lives, rounds).await?);
    }
    let mut row = |what: &str, life: usize, floor: usize, pick: Pick, p: f64, goal: Goal| {
        let pairs: Vec<(f64, f64)> = all
            .iter()
            .map(|lives| (lives[floor].visible.percentile(p), pick(&lives[life]).percentile(p)))
            .collect();
        let count: usize = all.iter().map(|lives| pick(&lives[life]).len()).sum();
        let shown = if p == 100.0 { "max".to_owned() } else { format!("p{p}") };
        report.rows.push(Row::against("P1", format!("{what}, {shown} of {count}"), "ms", &pairs, goal));
    };
    let visible: Pick = |lives| &lives.visible;
    let applied: Pick = |lives| &lives.applied;
    let effective: Pick = |lives| &lives.effective;
    for (p, alone, one) in [
        (50.0, Goal::Ratio(0.95), Goal::Ratio(1.1)),
        (95.0, Goal::None, Goal::None),
        (99.0, Goal::Ratio(1.5), Goal::Ratio(1.5)),
        (100.0, Goal::None, Goal::None),
    ] {
        row("Mitigation alone, visible", 1, 0, visible, p, alone);
        row("Incident with one, visible", 2, 0, visible, p, one);
    }
    row("Mitigation alone, status says Applied", 1, 0, applied, 50.0, Goal::Ratio(1.5));
    row("Incident with one, status says Applied", 2, 0, applied, 50.0, Goal::Ratio(1.5));
    row("Mitigation alone, status says Effective", 1, 0, effective, 50.0, Goal::None);
    row("Incident with one, status says Effective", 2, 0, effective, 50.0, Goal::None);
    row("Mitigation with evidence, visible", 3, 0, visible, 50.0, Goal::None);
    row("Mitigation with evidence, visible", 3, 0, visible, 99.0, Goal::None);
    row("Incident with eight, all visible", 5, 4, visible, 50.0, Goal::None);
    row("Incident with eight, all visible", 5, 4, visible, 99.0, Goal::None);
    let mut post = |what: &str, life: usize| {
        let pairs: Vec<(f64, f64)> = all
            .iter()
            .map(|lives| (lives[0].posted.percentile(50.0), lives[life].posted.percentile(50.0)))
            .collect();
        report.rows.push(Row::against(
            "P1",
            format!("of it the answer to the POST, {what}, p50"),
            "ms",
            &pairs,
            Goal::None,
        ));
    };
    post("Mitigation", 1);
    post("Incident with one", 2);
    Ok(())
}
