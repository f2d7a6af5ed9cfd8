//! One run of a scenario, and many of them side by side.

use super::mode::Mode;
use super::options;
use super::oracle::{self, Seen, state};
use super::proxy::{self, Fault, Proxy, Written};
use super::recorder::{KINDS, Recorder};
use super::scenario::Scenario;
use super::support::{Cluster, Operator, Options, TestNamespace};
use super::world::{PATIENCE, World};
use futures::FutureExt;
use kube::Client;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long nothing is written before the end of an undisturbed run is believed.
const SETTLED: Duration = Duration::from_millis(2500);
/// The same where it is known what the end looks like.
const STILL: Duration = Duration::from_millis(300);
/// A run takes so many of the places; those that only wait take one.
const PLACES: u32 = 4;

/// A scenario with a fault.
#[derive(Clone)]
pub struct Case {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// The fault; none in the undisturbed run.
    pub fault: Option<Fault>,
    /// The seeded bug that the operator runs with.
    pub mutant: Option<&'static str>,
}

impl Case {
    /// How to run it again.
    pub fn command(&self) -> String {
        match self.fault {
            Some(fault) => {
                format!("make fault SCENARIO={} MODE={} K={}", self.scenario.name, fault.mode, fault.at)
            }
            None => format!("make fault SCENARIO={} MODE=none", self.scenario.name),
        }
    }
}

/// What an undisturbed run did, by which the others are judged.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Number of writes.
    pub count: usize,
    /// The state in the end.
    pub state: Vec<String>,
}

/// What came of a run.
pub struct Outcome {
    /// What did not hold.
    pub wrong: Vec<String>,
    /// The operator's writes.
    pub written: Vec<Written>,
    /// The state in the end.
    pub state: Vec<String>,
    /// Whether there was a k-th write.
    pub struck: bool,
    /// How long it took.
    pub took: Duration,
    /// The operator's log.
    pub log_file: String,
}

impl Outcome {
    /// What the others are compared with, when all was well.
    pub fn reference(&self) -> Option<Reference> {
        let good = self.wrong.is_empty() && !self.struck;
        good.then(|| Reference { count: self.written.len(), state: self.state.clone() })
    }
}

/// What all runs share.
pub struct Harness {
    cluster: Cluster,
    recorder: Arc<Recorder>,
    upstream: Client,
    tls: TlsAcceptor,
    /// Of everything that is random.
    pub seed: u64,
    /// Runs at the same time.
    pub jobs: usize,
    quiet: Duration,
    quiet_reference: Duration,
}

impl Harness {
    /// Connects to the control plane and begins to record it.
    pub async fn start(options: &options::Options, seed: u64) -> Arc<Harness> {
        let cluster = Cluster::get().await;
        let kubeconfig = kube::config::Kubeconfig::read_from(Cluster::kubeconfig()).expect("it is readable");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await;
        Arc::new(Harness {
            recorder: Recorder::start(&cluster.client).await,
            upstream: proxy::upstream(&config.expect("the kubeconfig is complete")),
            tls: proxy::tls(Cluster::dir()),
            cluster,
            seed,
            jobs: options.jobs,
            quiet: Duration::from_secs_f64(options.quiet),
            quiet_reference: Duration::from_secs_f64(options.quiet_reference),
        })
    }

    /// Runs cases side by side and tells of each when it is finished.
    pub async fn run_all(
        self: &Arc<Self>,
        cases: Vec<Case>,
        references: &[(&'static str, Arc<Reference>)],
        mut finished: impl FnMut(&Case, &Outcome),
    ) {
        let most = u32::try_from(self.jobs).unwrap_or(1) * PLACES;
        let places = Arc::new(Semaphore::new(most as usize));
        let mut running = JoinSet::new();
        for case in cases {
            let waits = case.fault.is_some_and(|f| matches!(f.mode, Mode::Hang | Mode::HangAfter));
            let places = places.clone().acquire_many_owned(if waits { 1 } else { PLACES });
            tokio::pin!(places);
            let place = loop {
                tokio::select! {
                    place = &mut places => break place.expect("it is never closed"),
                    Some(done) = running.join_next() => {
                        let (case, outcome): (Case, Outcome) = done.expect("a run catches its panics");
                        finished(&case, &outcome);
                    }
                }
            };
            let reference =
                references.iter().find(|(name, _)| *name == case.scenario.name).map(|(_, r)| r.clone());
            let harness = self.clone();
            running.spawn_local(async move {
                let _place = place;
                let outcome = harness.run(&case, reference.as_deref()).await;
                (case, outcome)
            });
        }
        while let Some(done) = running.join_next().await {
            let (case, outcome) = done.expect("a run catches its panics");
            finished(&case, &outcome);
        }
    }

    /// A namespace with an operator behind a proxy.
    pub async fn world(&self, case: &Case) -> World {
        let namespace = TestNamespace::new(case.scenario.name).await;
        let (upstream, admin) = (self.upstream.clone(), self.cluster.client.clone());
        let proxy = Proxy::start(upstream, admin, self.tls.clone(), case.fault).await;
        let args =
            case.mutant.map(|mutant| vec!["--mutant".to_owned(), mutant.to_owned()]).unwrap_or_default();
        let server = Some(format!("https://{}", proxy.address));
        let operator = Operator::start(&namespace, Options { args, server, ..Options::default() }).await;
        proxy.protects(operator.pid());
        World {
            namespace,
            recorder: self.recorder.clone(),
            proxy,
            operator: tokio::sync::Mutex::new(operator),
            down: Mutex::new(false),
            entries: Mutex::default(),
        }
    }

    /// Runs one case.
    pub async fn run(&self, case: &Case, reference: Option<&Reference>) -> Outcome {
        let started = Instant::now();
        let world = self.world(case).await;
        let story = async {
            (case.scenario.run)(&world).await;
            self.end(&world, reference).await
        };
        let (mut wrong, mut state) = (Vec::new(), Vec::new());
        tokio::select! {
            outcome = told(story) => match outcome {
                Ok(Ok(end)) => state = end,
                Ok(Err(words)) => wrong.extend(words),
                Err(words) => wrong.push(words),
            },
            () = revive(&world) => {}
        }
        let mut operator = world.operator.lock().await;
        if let Some(status) = operator.ended() {
            wrong.push(format!("the operator ended by itself: {status}"));
        }
        operator.kill();
        wrong.extend(judge(case.scenario, &world, &operator.log()));
        let log_file = operator.log_file.display().to_string();
        if wrong.is_empty() {
            let _ = std::fs::remove_file(&operator.log_file);
        }
        drop(operator);
        let (written, struck) = (world.proxy.written(), world.proxy.struck());
        world.remove().await;
        Outcome { wrong, written, state, struck, took: started.elapsed(), log_file }
    }

    /// Waits for the end that is expected, and then for nothing to happen any more.
    async fn end(&self, world: &World, reference: Option<&Reference>) -> Result<Vec<String>, Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let (still, quiet) = match reference {
            Some(_) => (STILL, self.quiet),
            None => (SETTLED, self.quiet_reference),
        };
        let mut last = (world.proxy.count(), Instant::now());
        let state = loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let count = world.proxy.count();
            if count != last.0 {
                last = (count, Instant::now());
            }
            let state = state::masked(&world.namespace.name, &world.recorder.present(&world.namespace.name));
            let settled = last.1.elapsed() >= still && self.is_recorded(world);
            if settled && reference.is_none_or(|reference| reference.state == state) {
                break state;
            }
            if Instant::now() > deadline {
                let should_be = reference.map(|r| r.state.clone()).unwrap_or_default();
                let mut words = vec![
                    "in the end the state is another than without a fault (- missing, + added):".to_owned(),
                ];
                words.extend(state::difference(&state, &should_be).into_iter().take(40));
                return Err(words);
            }
        };
        let before = world.proxy.count();
        tokio::time::sleep(quiet).await;
        let after = world.proxy.written();
        if after.len() > before {
            let mut words =
                vec![format!("not quiet: {} writes after the end was reached:", after.len() - before)];
            words.extend(after[before..].iter().map(Written::line));
            return Err(words);
        }
        Ok(state)
    }

    /// Whether all that the operator wrote has reached the record.
    fn is_recorded(&self, world: &World) -> bool {
        world.proxy.written().iter().all(|written| {
            let Some((version, object)) = written.version().zip(written.object.as_ref()) else { return true };
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let (Some(kind), Some(name)) = (kind.as_str(), name.as_str()) else { return true };
            let known = KINDS.iter().any(|(_, known)| *known == kind);
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or(name);
            !known || self.recorder.has(namespace, kind, name, version)
        })
    }
}

/// What did not hold at some revision.
pub fn judge(scenario: &Scenario, world: &World, log: &str) -> Vec<String> {
    let (revisions, written) = (world.recorder.all(&world.namespace.name), world.proxy.written());
    let entries = world.entries();
    oracle::judge(&Seen { scenario, revisions: &revisions, written: &written, entries: &entries, log })
}

/// Runs something that may panic; what it said then is the error.
pub async fn told<T>(story: impl Future<Output = T>) -> Result<T, String> {
    let caught = async {
        let outcome = AssertUnwindSafe(story).catch_unwind().await;
        let words = |_| PANIC.with(|words| words.lock().unwrap_or_else(PoisonError::into_inner).take());
        outcome.map_err(|panic| words(panic).unwrap_or_else(|| "a panic".to_owned()))
    };
    PANIC.scope(Mutex::new(None), caught).await
}

/// Starts the operator again whenever the proxy has killed it. With the same identity, as when a container of a pod is
/// started again: so the lease is its own and costs no time. Leases have tests of their own.
async fn revive(world: &World) {
    loop {
        world.proxy.killed().await;
        let mut operator = world.operator.lock().await;
        world.relaunch(&mut operator);
    }
}

tokio::task_local! {
    static PANIC: Mutex<Option<String>>;
}

/// Panics of runs are findings: they are kept with the run and not printed.
pub fn collect_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let kept = PANIC.try_with(|words| {
            let payload = info.payload();
            let text = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(payload.downcast_ref::<&str>().copied());
            *words.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(text.unwrap_or("a panic").to_owned());
        });
        if kept.is_err() {
            print(info);
        }
    }));
}
