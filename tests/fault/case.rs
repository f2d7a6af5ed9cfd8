//! One run of a scenario, and many of them side by side.

use super::mode::Mode;
use super::options;
use super::oracle::{self, Seen, state};
use super::proxy::{self, Fault, Proxy, Written};
use super::recorder::{KINDS, Recorder};
use super::request::Request;
use super::scenario::Scenario;
use super::support::namespace::Bindings;
use super::support::operator::signed_requests;
use super::support::{Cluster, Operator, Options, TestNamespace};
use super::watchdog;
use super::world::{PATIENCE, People, World};
use futures::FutureExt;
use kube::Client;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long nothing is written before the end of an undisturbed run is believed: longer than the operator waits after a
/// declaration before it looks for a way back.
const SETTLED: Duration = Duration::from_millis(4500);
/// The same where it is known what the end looks like.
const STILL: Duration = Duration::from_millis(300);
/// A run takes so many of the places; those that only wait take fewer.
const PLACES: u32 = 4;
/// Longest time that a run may take, whatever stands still in it.
const LONGEST: Duration = Duration::from_secs(240);
/// How long nothing moves before nothing is expected any more: longer than a request that hangs, and what is tried
/// again after it.
const STUCK: Duration = Duration::from_secs(35);
/// The same for mutants, of which most are caught by their getting stuck.
const STUCK_MUTANT: Duration = Duration::from_secs(12);
/// Writes that may come late, if they change nothing.
const LATE: usize = 2;
/// Reads a second that may go on when all is done.
const READS: f64 = 5.0;

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
    /// The fault, in words.
    pub fn what(&self) -> String {
        let words = |fault: &Fault| format!("{} at write {}", fault.mode, fault.at);
        self.fault.as_ref().map_or("no fault".to_owned(), words)
    }

    /// How to run it again.
    pub fn command(&self) -> String {
        match &self.fault {
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
    /// What each write was.
    pub requests: Vec<Request>,
    /// The state in the end.
    pub state: Vec<String>,
}

impl Reference {
    /// Number of writes.
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// A fault at a write, counted from 1.
    pub fn fault(&self, mode: Mode, at: usize) -> Fault {
        let write = self.requests.get(at - 1).map(|request| {
            let like = |other: &&Request| other.kind() == request.kind();
            (request.kind(), self.requests[..at].iter().filter(like).count())
        });
        Fault { mode, at, write }
    }
}

/// What came of a run.
pub struct Outcome {
    /// What did not hold.
    pub wrong: Vec<String>,
    /// The operator's writes.
    pub written: Vec<Written>,
    /// The state in the end.
    pub state: Vec<String>,
    /// Whether the write came that the fault is for, and the fault changed something.
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
        let requests = || self.written.iter().map(|written| written.request.clone()).collect();
        good.then(|| Reference { requests: requests(), state: self.state.clone() })
    }
}

/// What all runs share.
pub struct Harness {
    cluster: Cluster,
    bindings: Bindings,
    signed_requests: String,
    people: Arc<People>,
    tidy: bool,
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
        let cluster = Cluster::impatient().await;
        let kubeconfig = kube::config::Kubeconfig::read_from(Cluster::kubeconfig()).expect("it is readable");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await;
        Arc::new(Harness {
            // Its watches live for minutes.
            recorder: Recorder::start(&Cluster::get().await.client).await,
            bindings: Bindings::of(&cluster).await,
            signed_requests: signed_requests(&cluster).await,
            people: Arc::default(),
            tidy: options.is_long(),
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
            let waits = case.fault.as_ref().is_some_and(|f| matches!(f.mode, Mode::Hang | Mode::HangAfter));
            let places = places.clone().acquire_many_owned(if waits { 2 } else { PLACES });
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
        // With a client of its own: a connection that nobody used for long is closed at any moment.
        let cluster = Cluster::impatient().await;
        let namespace = TestNamespace::within(cluster, case.scenario.name, &self.bindings).await;
        let (upstream, admin) = (self.upstream.clone(), self.cluster.client.clone());
        let proxy = Proxy::start(upstream, admin, self.tls.clone(), case.fault.clone()).await;
        let args =
            case.mutant.map(|mutant| vec!["--mutant".to_owned(), mutant.to_owned()]).unwrap_or_default();
        let server = Some(format!("https://{}", proxy.address));
        let signed_requests = Some(self.signed_requests.clone());
        let options = Options { args, server, signed_requests, ..Options::default() };
        let operator = Operator::start(&namespace, options).await;
        proxy.protects(operator.pid());
        World {
            namespace,
            recorder: self.recorder.clone(),
            proxy,
            stuck: if case.mutant.is_some() { STUCK_MUTANT } else { STUCK },
            tidy: self.tidy,
            people: self.people.clone(),
            operator: tokio::sync::Mutex::new(operator),
            down: Mutex::new(false),
            entries: Mutex::default(),
        }
    }

    /// Runs one case.
    pub async fn run(&self, case: &Case, reference: Option<&Reference>) -> Outcome {
        let started = Instant::now();
        let _watched = watchdog::watch(case.command());
        let outcome = match tokio::time::timeout(LONGEST, told(self.try_run(case, reference))).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(words)) => Err(words),
            Err(_) => Err(format!("it did not end within {LONGEST:?}")),
        };
        let failed = |words| Outcome {
            wrong: vec![words],
            written: Vec::new(),
            state: Vec::new(),
            struck: false,
            took: Duration::ZERO,
            log_file: String::new(),
        };
        Outcome { took: started.elapsed(), ..outcome.unwrap_or_else(failed) }
    }

    async fn try_run(&self, case: &Case, reference: Option<&Reference>) -> Outcome {
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
        Outcome { wrong, written, state, struck, took: Duration::ZERO, log_file }
    }

    /// Waits for the end that is expected, and then for nothing to happen any more.
    async fn end(&self, world: &World, reference: Option<&Reference>) -> Result<Vec<String>, Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let (still, quiet) = match reference {
            Some(_) => (STILL, self.quiet),
            None => (SETTLED, self.quiet_reference),
        };
        let mut late = 0;
        loop {
            let state = self.settled(world, reference, still, deadline).await?;
            let (before, reads) = (world.proxy.count(), world.proxy.reads());
            tokio::time::sleep(quiet).await;
            let after = world.proxy.written();
            let reads = world.proxy.reads() - reads;
            if reads as f64 > READS * quiet.as_secs_f64().max(1.0) {
                return Err(vec![format!("not quiet: {reads} reads in {quiet:?} after the end was reached")]);
            }
            if after.len() == before {
                return Ok(state);
            }
            // What was on its way may arrive and find that there is nothing to do.
            late += after.len() - before;
            if late > LATE || after[before..].iter().any(Written::is_done) {
                let mut words =
                    vec![format!("not quiet: {} writes after the end was reached:", after.len() - before)];
                words.extend(after[before..].iter().map(Written::line));
                let now =
                    state::masked(&world.namespace.name, &world.recorder.present(&world.namespace.name));
                words.extend(state::difference(&now, &state).into_iter().take(40));
                return Err(words);
            }
        }
    }

    /// The state once nothing was written for a while, and it is the one that is expected.
    async fn settled(
        &self,
        world: &World,
        reference: Option<&Reference>,
        still: Duration,
        deadline: Instant,
    ) -> Result<Vec<String>, Vec<String>> {
        let namespace = &world.namespace.name;
        let mut last = (world.proxy.count(), Instant::now());
        let mut known: Option<(usize, Vec<String>)> = None;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let count = world.proxy.count();
            if count != last.0 {
                last = (count, Instant::now());
            }
            let late = Instant::now() > deadline || world.idle() >= world.stuck;
            let settled = last.1.elapsed() >= still && world.proxy.is_past() && self.is_recorded(world);
            if !settled && !late {
                continue;
            }
            let (told, _) = world.recorder.progress(namespace);
            let state = match known.take() {
                Some((at, state)) if at == told => state,
                _ => state::masked(namespace, &world.recorder.present(namespace)),
            };
            if settled && reference.is_none_or(|reference| reference.state == state) {
                return Ok(state);
            }
            if late {
                let should_be = reference.map(|r| r.state.clone()).unwrap_or_default();
                let mut words = vec![match settled {
                    true => "in the end the state is another than without a fault (- missing, + added):".to_owned(),
                    false => "no end: the operator does not come to rest, or does not lead; against the end without a fault (- missing, + added):".to_owned(),
                }];
                words.extend(state::difference(&state, &should_be).into_iter().take(40));
                return Err(words);
            }
            known = Some((told, state));
        }
    }

    /// Whether all that the operator wrote has reached the record.
    fn is_recorded(&self, world: &World) -> bool {
        let known = |kind: &str| KINDS.iter().any(|(_, known)| *known == kind);
        let mut newest: HashMap<String, HashMap<(String, String), u64>> = HashMap::new();
        world.proxy.written().iter().flat_map(Written::objects).all(|(version, object)| {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let (Some(kind), Some(name)) = (kind.as_str(), name.as_str()) else { return true };
            if !known(kind) {
                return true;
            }
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or(name);
            let newest =
                newest.entry(namespace.to_owned()).or_insert_with(|| self.recorder.newest(namespace));
            newest.get(&(kind.to_owned(), name.to_owned())).is_some_and(|told| *told >= version)
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
