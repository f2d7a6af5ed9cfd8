//! The soak: a random schedule of all scenarios and modes from a printed seed, and one operator that is never killed
//! and must not grow.

use super::case::{Case, Harness, Reference, judge, told};
use super::mode::Mode;
use super::options::Options;
use super::oracle;
use super::proxy::Fault;
use super::report::Report;
use super::scenario::Scenario;
use super::scenarios;
use super::world::World;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs in one round; the time is looked at between rounds.
const ROUND: usize = 20;
/// Growth that counts as none, in KiB a minute: what a page here and there makes of a half hour.
const SLOPE: f64 = 60.0;
/// Minutes before growth is looked at: caches and allocator come to rest first.
const WARM: f64 = 0.2;

/// Runs until the time is over. True when nothing was wrong and the memory stayed.
pub async fn run(harness: &Arc<Harness>, options: &Options) -> bool {
    let mut random = fastrand::Rng::with_seed(harness.seed);
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let (scenarios, modes) = (options.scenarios(), options.modes());
    let mut report = Report::new(false);
    let mut references: Vec<(&'static str, Arc<Reference>)> = Vec::new();
    let firsts = scenarios.iter().map(|s| Case { scenario: s, fault: None, mutant: None }).collect();
    harness
        .run_all(firsts, &[], |case, outcome| {
            references.extend(outcome.reference().map(|r| (case.scenario.name, Arc::new(r))));
            report.finished(case, outcome);
        })
        .await;
    for (name, reference) in &references {
        report.counted(name, reference.count());
    }
    let mut resident = Resident::start(harness).await;
    let mut samples: Vec<(f64, f64)> = Vec::new();
    let started = Instant::now();
    while Instant::now() < end {
        let cases = (0..ROUND)
            .map(|_| {
                let scenario = scenarios[random.usize(..scenarios.len())];
                let known = references.iter().find(|(name, _)| *name == scenario.name);
                let mode = modes[random.usize(..modes.len())];
                let fault = known
                    .map(|(_, reference)| reference.fault(mode, random.usize(1..=reference.count().max(1))));
                Case { scenario, fault, mutant: None }
            })
            .collect();
        report.expect(ROUND);
        let beside = async {
            for _ in 0..5 {
                resident.story(&mut random).await;
            }
        };
        let all = harness.run_all(cases, &references, |case, outcome| report.finished(case, outcome));
        tokio::join!(all, beside);
        let (minutes, kib) = (started.elapsed().as_secs_f64() / 60.0, resident.rss_kib().await);
        println!("{minutes:>6.1} min  memory of the operator that stays: {kib} KiB");
        samples.push((minutes, kib as f64));
    }
    let passed = report.print(&modes);
    let whole = samples.last().map_or(0.0, |(minutes, _)| *minutes);
    samples.retain(|(minutes, _)| *minutes >= whole * WARM);
    let slope = slope(&samples);
    println!("memory of the operator that stays: {slope:+.1} KiB a minute (at most {SLOPE})");
    // Said in any case.
    let resident = resident.end().await;
    passed && resident && slope <= SLOPE && references.len() == scenarios.len()
}

/// The operator that stays: through story after story, with all faults but those that end the process.
struct Resident {
    world: World,
    scenario: &'static Scenario,
    stories: usize,
    wrong: usize,
}

impl Resident {
    async fn start(harness: &Arc<Harness>) -> Resident {
        let scenario = scenarios::ALL.iter().find(|s| s.name == "deletion").expect("there is one");
        let world = harness.world(&Case { scenario, fault: None, mutant: None }).await;
        Resident { world, scenario, stories: 0, wrong: 0 }
    }

    /// One story, after which nothing is left.
    async fn story(&mut self, random: &mut fastrand::Rng) {
        const HARMLESS: [Mode; 14] = [
            Mode::LostReply,
            Mode::LostRequest,
            Mode::Twice,
            Mode::Conflict,
            Mode::Invalid,
            Mode::Throttled,
            Mode::Broken,
            Mode::Unavailable,
            Mode::GatewayTimeout,
            Mode::Raced,
            Mode::WatchDelay,
            Mode::WatchCoalesce,
            Mode::WatchCut,
            Mode::WatchGone,
        ];
        let (mode, at) = (HARMLESS[random.usize(..HARMLESS.len())], random.usize(1..=18));
        self.world.proxy.begin_anew(Fault { mode, at, write: None });
        let world = &self.world;
        let outcome = told(async {
            (self.scenario.run)(world).await;
            for (kind, name) in [("Deployment", "importer"), ("ConfigMap", "flags")] {
                world.delete(kind, name).await;
                world.gone(kind, name).await;
            }
        })
        .await;
        let mut wrong = judge(self.scenario, world, "");
        wrong.extend(outcome.err());
        if let Some(status) = world.operator.lock().await.ended() {
            wrong.push(format!("it ended by itself: {status}"));
        }
        self.stories += 1;
        self.wrong += wrong.len();
        for words in wrong {
            println!("the operator that stays, story {} with {mode} at {at}: {words}", self.stories);
        }
        world.recorder.clear(&world.namespace.name);
    }

    async fn rss_kib(&self) -> u64 {
        self.world.operator.lock().await.rss_kib()
    }

    async fn end(self) -> bool {
        let log = self.world.operator.lock().await.log();
        let mut panics = Vec::new();
        oracle::panics(&log, &mut panics);
        for words in &panics {
            println!("the operator that stays: {words}");
        }
        let wrong = self.wrong + panics.len();
        println!("the operator that stays: {} stories, {wrong} violations", self.stories);
        self.world.remove().await;
        wrong == 0
    }
}

/// Of the line that lies closest to the samples.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    if count < 3.0 {
        return 0.0;
    }
    let (mean_x, mean_y) = (
        samples.iter().map(|(x, _)| x).sum::<f64>() / count,
        samples.iter().map(|(_, y)| y).sum::<f64>() / count,
    );
    let rise: f64 = samples.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let run: f64 = samples.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if run > 0.0 { rise / run } else { 0.0 }
}
