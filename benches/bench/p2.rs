//! P2: how many lives a second the operator sustains when they arrive at random, whatever it has finished, against what
//! a raw loop of the same writes reaches at the best concurrency. And the CPU that a life costs.

use crate::{
    lifecycle::{Life, World, target},
    report::{Goal, Report, Row},
    rig::{
        NAMESPACE, RAW, Rig,
        process::cpu,
        samples::{Samples, Spread},
    },
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Targets: lives under way at most.
const TARGETS: usize = 300;
const REPETITIONS: usize = 3;
const RAW_SECONDS: f64 = 3.0;
const SECONDS: f64 = 5.0;
/// Arrival rates, as parts of what the raw loop reaches.
const RATES: [f64; 4] = [0.4, 0.75, 0.9, 1.0];
/// At a sustained rate the change is visible within this in 99 of 100 cases.
const LATE: Duration = Duration::from_secs(1);
/// And nothing piles up: so long after the last arrival all lives are over.
const OVER: Duration = Duration::from_millis(1500);

/// What one rate gave.
struct Outcome {
    arrived: f64,
    /// Of the time from the first arrival until the last end, less what half of the lives take: the last one, too, is
    /// under way for so long after it arrived.
    finished: f64,
    /// How long after the last arrival the last life was over.
    tail: Duration,
    visible: Samples,
    operator: Duration,
    server: Duration,
    lives: usize,
}

impl Outcome {
    fn sustained(&self) -> bool {
        self.tail <= OVER && self.visible.percentile(99.0) <= LATE.as_secs_f64() * 1e3
    }
}

/// Measures.
pub async fn run(rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    let world = Arc::new(World::make(rig, TARGETS).await?);
    let (mut pairs, mut late, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
    let mut table = "Lives that arrive at random, and what became of them\n\n| Repetition | Arrived /s | Finished /s | of the raw loop | visible p50 ms | p95 | p99 | max | CPU of the operator ms | of the API server ms |\n|---|---|---|---|---|---|---|---|---|---|\n".to_owned();
    // How many at a time are best is found once.
    let mut tried = vec![1, 4, 16, 64];
    for repetition in 1..=REPETITIONS {
        let mut floor = 0.0_f64;
        let mut raw_cpu = f64::NAN;
        for workers in std::mem::take(&mut tried) {
            rig.say(&format!("P2: raw loop, {workers} at a time, repetition {repetition} of {REPETITIONS}"));
            let before = cpu(rig.part("kube-apiserver")?)?;
            let (rate, lives) = raw(&world, rig, workers, repetition).await?;
            if rate > floor {
                floor = rate;
                tried = vec![workers];
                raw_cpu = (cpu(rig.part("kube-apiserver")?)? - before).as_secs_f64() * 1e3 / lives as f64;
            }
        }
        let mut best: Option<Outcome> = None;
        for part in RATES {
            rig.say(&format!("P2: {:.1} lives/s ({:.0} % of the raw loop)", floor * part, part * 100.0));
            let outcome =
                arrivals(&world, rig, floor * part, &format!("p2-{repetition}-{}", (part * 100.0) as u32))
                    .await?;
            let each = |time: Duration| time.as_secs_f64() * 1e3 / outcome.lives as f64;
            let p = |p| outcome.visible.percentile(p);
            table.push_str(&format!(
                "| {repetition} | {:.1} | {:.1} | {:.0} % | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {:.1} |\n",
                outcome.arrived, outcome.finished, outcome.finished / floor * 100.0, p(50.0), p(95.0), p(99.0), p(100.0),
                each(outcome.operator), each(outcome.server),
            ));
            let good = outcome.sustained();
            if good && best.as_ref().is_none_or(|b| outcome.finished > b.finished) {
                best = Some(outcome);
            }
            if !good {
                break;
            }
        }
        let Some(best) = best else {
            pairs.push((floor, 0.0));
            continue;
        };
        pairs.push((floor, best.finished));
        late.push(best.visible.percentile(99.0));
        let each = |time: Duration| time.as_secs_f64() * 1e3 / best.lives as f64;
        cpus.push((each(best.operator), each(best.server), raw_cpu));
    }
    report.rows.push(Row::against(
        "P2",
        "sustained lives of a Mitigation",
        "/s",
        &pairs,
        Goal::RatioAtLeast(0.7),
    ));
    report.rows.push(Row::plain("P2", "visible at that rate, p99", "ms", Spread::of(late), Goal::None));
    let operator = Spread::of(cpus.iter().map(|c| c.0));
    report.rows.push(Row::plain(
        "CPU",
        "of the operator for a life, at that rate",
        "ms",
        operator,
        Goal::Most(4.0),
    ));
    let server: Vec<(f64, f64)> = cpus.iter().map(|c| (c.2, c.1)).collect();
    report.rows.push(Row::against(
        "CPU",
        "of the API server for a life, at that rate",
        "ms",
        &server,
        Goal::None,
    ));
    report.notes.push(table);
    Ok(())
}

/// So many workers, each with the writes of one life after the other and nothing else: lives a second.
async fn raw(
    world: &Arc<World>,
    rig: &Rig,
    workers: usize,
    repetition: usize,
) -> anyhow::Result<(f64, usize)> {
    let done = AtomicUsize::new(0);
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs_f64(RAW_SECONDS);
    let work = (0..workers).map(|worker| {
        let (world, done) = (world.clone(), &done);
        async move {
            let api = crate::rig::kinds::api(&rig.admin, RAW, "Mitigation");
            let params = PatchParams { field_manager: Some("bench".to_owned()), ..PatchParams::default() };
            let target = target(worker);
            for i in 0.. {
                if Instant::now() >= deadline {
                    break;
                }
                let name = format!("raw-{repetition}-{workers}-{worker}-{i}");
                let object = crate::rig::kinds::mitigation(RAW, &name, &target, Some("None"));
                api.create(&PostParams::default(), &crate::rig::kinds::object(object)?).await?;
                // Take; applied; effective; restore; give back; the finalizer; and the deletion by people.
                world.floor_take(&target).await?;
                world.floor_status(&name).await?;
                let note = |word: &str| Patch::Merge(json!({"metadata": {"annotations": {"note": word}}}));
                let effective = Patch::Merge(json!({"status": {"observedGeneration": 2, "phase": "Active"}}));
                api.patch_status(&name, &params, &effective).await?;
                world.floor_restore(&target).await?;
                crate::rig::kinds::deployments(&rig.admin).patch(&target, &params, &note(&name)).await?;
                api.patch(&name, &params, &note("released")).await?;
                api.delete(&name, &Default::default()).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(work).await?;
    let lives = done.load(Ordering::Relaxed);
    Ok((lives as f64 / begun.elapsed().as_secs_f64(), lives))
}

/// Lives that begin at random moments, so many a second.
async fn arrivals(world: &Arc<World>, rig: &Rig, rate: f64, label: &str) -> anyhow::Result<Outcome> {
    let (give_back, mut free) = mpsc::unbounded_channel();
    for i in 0..TARGETS {
        give_back.send(target(i))?;
    }
    let (operator, server) = (rig.operator.pid(), rig.part("kube-apiserver")?);
    let before = (cpu(operator)?, cpu(server)?);
    let visible: Arc<Mutex<Samples>> = Arc::default();
    let wanted = crate::count((rate * SECONDS) as usize).max(1);
    let begun = Instant::now();
    let mut due = Duration::ZERO;
    let mut lives = tokio::task::JoinSet::new();
    let (mut last, mut lengths) = (begun, Samples::default());
    for i in 0..wanted {
        // Poisson: the times between arrivals are exponentially distributed.
        due += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
        tokio::time::sleep_until((begun + due).into()).await;
        let target = free.recv().await.unwrap_or_default();
        let (world, give_back, visible) = (world.clone(), give_back.clone(), visible.clone());
        let name = format!("{label}-{i}");
        let arrived = begun + due;
        lives.spawn(async move {
            // What waited for a target arrived all the same.
            let waited = arrived.elapsed();
            let targets = [target];
            let times = world.begin(Life::Taken, &name, &targets).await?;
            visible.lock().unwrap_or_else(PoisonError::into_inner).add(times.visible + waited);
            world.release(Life::Taken, &name, &targets).await?;
            let [target] = targets;
            give_back.send(target)?;
            anyhow::Ok((Instant::now(), arrived.elapsed()))
        });
        rig.tick("lives", i + 1, wanted);
    }
    while let Some(ended) = lives.join_next().await {
        let (end, length) = ended??;
        last = last.max(end);
        lengths.add(length);
    }
    // The last Events are on their way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let visible = std::mem::take(&mut *visible.lock().unwrap_or_else(PoisonError::into_inner));
    anyhow::ensure!(visible.len() == wanted, "some lives in {NAMESPACE} got lost");
    let arrived = wanted as f64 / due.as_secs_f64();
    let spent = (last - begun).as_secs_f64() - lengths.percentile(50.0) / 1e3;
    Ok(Outcome {
        arrived,
        finished: arrived.min(wanted as f64 / spent),
        tail: last.saturating_duration_since(begun + due),
        visible,
        operator: cpu(operator)? - before.0,
        server: cpu(server)? - before.1,
        lives: wanted,
    })
}
