//! Starts what runs: watches on every replica, workers where this process leads.

use super::{
    Context, Error, Key, client,
    error::backoff,
    events::Events,
    incident, mitigation,
    notify::Notifier,
    policies, postmortem,
    queue::{Claim, Queue},
    settings, watch,
};
use crate::{
    health::{self, Health},
    lease::{Election, Times},
    metrics::Metrics,
};
use anyhow::Context as _;
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::HashMap,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch as channel},
    time::{Instant, timeout},
};
use tracing::{error, info, warn};

/// Objects of one kind that are worked on at the same time.
const CONCURRENCY: usize = 16;
/// Longest visit.
const VISIT_TIMEOUT: Duration = Duration::from_secs(45);
/// Longest wait for visits under way when the process is asked to stop: a successor waits as long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the lease to be given back after that.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How the operator runs.
pub struct Options {
    /// Only this namespace; all of them when absent.
    pub namespace: Option<String>,
    /// Namespace of the lease.
    pub lease_namespace: String,
    /// Name of the lease.
    pub lease_name: String,
    /// Who this process is.
    pub identity: String,
    /// The times of the election.
    pub lease_times: Times,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// Whether the API server vouches for the authors of requests.
    pub signed: bool,
    /// The configuration file; the defaults when absent.
    pub config: Option<std::path::PathBuf>,
    /// Whether MitigationPolicies can be read; without, none is enforced.
    pub policies: bool,
    /// Whether it may be asked if a Secret exists.
    pub secret_names: bool,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: kube::Config, options: Options) -> anyhow::Result<()> {
    let config = client::named(config, &options.identity);
    let metrics = Arc::new(Metrics::default());
    // The lease's own requests are not subject to the claim that they make.
    let lease_client = client::requests(&config, metrics.clone(), None).context("the Kubernetes client")?;
    let (election, mut claim) = Election::new(
        lease_client,
        &options.lease_namespace,
        &options.lease_name,
        &options.identity,
        options.lease_times,
    );
    let requests = client::requests(&config, metrics.clone(), Some(claim.clone()))?;
    let watches = client::watches(&config)?;
    let events = Events::start(requests.clone(), &options.identity, metrics.clone());
    let server = &config.cluster_url;
    let api_server = server.host().map(|host| (host.to_owned(), server.port_u16().unwrap_or(443)));
    let ctx =
        Context::new(requests, watches.clone(), events, metrics.clone(), Notifier::new(api_server), &options);

    let health = Health::new();
    let serving = health::serve(options.listen, health.clone(), {
        let ctx = ctx.clone();
        move |out: &mut dyn std::fmt::Write| ctx.tell_metrics(out)
    })
    .await
    .with_context(|| format!("cannot listen on {}", options.listen))?;
    info!(address = %serving, "serving");

    settings::follow(&ctx);
    watch::start(&ctx, &watches, options.namespace.as_deref());
    let (resign, resigning) = channel::channel(false);
    let mut elected = tokio::spawn(election.run(until(resigning)));
    tokio::spawn({
        let (ctx, health) = (ctx.clone(), health.clone());
        async move {
            ctx.wait_synced().await;
            info!("caches are complete");
            health.set_ready();
        }
    });

    let mut signals = Signals::new()?;
    // One round for each time that this process leads. In between it is a standby with warm caches.
    let signal = loop {
        tokio::select! {
            () = claim.acquired() => {}
            name = signals.next() => break name,
            // It ends by a panic alone, and nobody could lead any more.
            _ = &mut elected => anyhow::bail!("the election of a leader failed: see the log"),
        }
        metrics.set_leader(true);
        ctx.notifier.lead(claim.clone());
        ctx.takes.lead();
        ctx.freshness.lead(claim.since());
        let (end, ending) = channel::channel(false);
        let workers = start_workers(&ctx, &ending);
        let signal = tokio::select! {
            name = signals.next() => Some(name),
            () = claim.lost() => None,
        };
        metrics.set_leader(false);
        end.send_replace(true);
        if signal.is_some() {
            health.set_stopping();
        }
        // What is under way may end well; what does not is found as it is by the next leader.
        if timeout(DRAIN_TIMEOUT, workers.wait()).await.is_err() {
            warn!("some visits did not end in time; they are taken up by the next leader");
        }
        match signal {
            Some(name) => break name,
            None => warn!("this process does not lead any more: it stands by"),
        }
    };
    info!(signal, "stopping");
    // Stopped last: whoever still visits an object still leads.
    resign.send_replace(true);
    let _ = timeout(STOP_TIMEOUT, elected).await;
    Ok(())
}

async fn until(mut stopping: channel::Receiver<bool>) {
    // An error means that the process ends.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The signals that end the process.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Context {
    async fn wait_synced(&self) {
        self.incidents.wait_synced().await;
        self.mitigations.wait_synced().await;
        self.entries.wait_synced().await;
        self.postmortems.wait_synced().await;
        if self.reads_policies {
            self.policies.wait_synced().await;
        }
        for kind in crate::mitigation::held_kinds()
            .into_iter()
            .filter(crate::mitigation::TargetKind::is_always_watched)
        {
            self.targets.cache(kind).wait_synced().await;
        }
    }
}

/// The visits that are under way.
struct Workers(Vec<Arc<Semaphore>>);

impl Workers {
    async fn wait(&self) {
        for slots in &self.0 {
            let all = u32::try_from(CONCURRENCY).unwrap_or(u32::MAX);
            let _ = slots.acquire_many(all).await;
        }
    }
}

type Visit = for<'a> fn(&'a Arc<Context>, &'a Key) -> BoxFuture<'a, Result<Option<Instant>, Error>>;

fn start_workers(ctx: &Arc<Context>, stopping: &channel::Receiver<bool>) -> Workers {
    let kinds: [(&'static str, Arc<Queue>, Visit); 4] = [
        ("mitigation", ctx.queues.mitigations.clone(), |ctx, key| {
            mitigation::reconcile(ctx, key, mitigation::Ahead::default()).boxed()
        }),
        ("incident", ctx.queues.incidents.clone(), |ctx, key| incident::reconcile(ctx, key).boxed()),
        ("policy", ctx.queues.policies.clone(), |ctx, key| policies::reconcile(ctx, key).boxed()),
        ("postmortem", ctx.queues.postmortems.clone(), |ctx, key| postmortem::reconcile(ctx, key).boxed()),
    ];
    let slots = kinds.map(|(name, queue, visit)| {
        let slots = Arc::new(Semaphore::new(CONCURRENCY));
        tokio::spawn(work(ctx.clone(), name, queue, visit, slots.clone(), stopping.clone()));
        slots
    });
    Workers(slots.to_vec())
}

/// Visits the objects of one queue.
async fn work(
    ctx: Arc<Context>,
    name: &'static str,
    queue: Arc<Queue>,
    visit: Visit,
    slots: Arc<Semaphore>,
    stopping: channel::Receiver<bool>,
) {
    ctx.wait_synced().await;
    let failures: Arc<Mutex<HashMap<Key, u32>>> = Arc::default();
    let stop = until(stopping);
    tokio::pin!(stop);
    loop {
        let claim = tokio::select! {
            () = &mut stop => return,
            claim = queue.next() => claim,
        };
        // Never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (ctx, queue, failures) = (ctx.clone(), queue.clone(), failures.clone());
        tokio::spawn(async move {
            let _slot = slot;
            one_visit(&ctx, name, &queue, visit, &claim, &failures).await;
        });
    }
}

async fn one_visit(
    ctx: &Arc<Context>,
    name: &'static str,
    queue: &Queue,
    visit: Visit,
    claim: &Claim,
    failures: &Mutex<HashMap<Key, u32>>,
) {
    let key = claim.key();
    let started = Instant::now();
    let (outcome, asked) = client::heeding(bounded(visit(ctx, key))).await;
    let took = started.elapsed();
    match outcome {
        Ok(later) => {
            failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            queue.set_later(key, later);
            ctx.metrics.reconciled(name, took, later.is_some());
        }
        Err(error) => {
            let attempt = {
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                let attempt = failures.entry(key.clone()).or_default();
                *attempt += 1;
                *attempt
            };
            // Not before the API server wants to be asked again; and not all at the same moment.
            let asked = asked.unwrap_or_default().mul_f64(1.0 + fastrand::f64() / 4.0);
            let wait = backoff(error.retry(), attempt - 1).max(asked);
            queue.set_later(key, Some(Instant::now() + wait));
            ctx.metrics.failed(name, took, error.category());
            match &error {
                Error::Panicked(_) => error!(controller = name, object = %key, %error, "visit failed"),
                _ if error.category() == "conflict" => {
                    tracing::debug!(controller = name, object = %key, "somebody else wrote first");
                }
                _ => warn!(controller = name, object = %key, %error, retry_in = ?wait, "visit failed"),
            }
        }
    }
}

/// A visit that ends in time and takes nobody along when it panics.
pub(super) async fn bounded(
    visit: impl Future<Output = Result<Option<Instant>, Error>>,
) -> Result<Option<Instant>, Error> {
    match AssertUnwindSafe(timeout(VISIT_TIMEOUT, visit)).catch_unwind().await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Error::TimedOut(VISIT_TIMEOUT)),
        Err(panic) => Err(Error::Panicked(words(&*panic))),
    }
}

pub(super) fn words(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::{Client, client::Body};

    fn context() -> Arc<Context> {
        let answer = |_: http::Request<Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty()))
        };
        let client = Client::new(tower::service_fn(answer), "shop");
        let metrics = Arc::new(Metrics::default());
        let events = Events::start(client.clone(), "test", metrics.clone());
        let options = Options {
            namespace: None,
            lease_namespace: "shop".to_owned(),
            lease_name: "lease".to_owned(),
            identity: "test".to_owned(),
            lease_times: Times::default(),
            listen: ([127, 0, 0, 1], 0).into(),
            signed: true,
            config: None,
            policies: false,
            secret_names: false,
        };
        Context::new(client.clone(), client, events, metrics, Notifier::new(None), &options)
    }

    #[tokio::test]
    async fn a_visit_that_panics_is_counted_and_made_again_and_stops_no_other() {
        let (ctx, queue, failures) = (context(), Arc::new(Queue::default()), Mutex::default());
        let [bad, good] = ["bad", "good"].map(|name| Key::new("shop", name));
        let visit: Visit = |_, key| {
            async move {
                assert_ne!(&*key.name, "bad", "as it was seeded");
                Ok(None)
            }
            .boxed()
        };
        for key in [&bad, &good] {
            queue.add(key.clone());
            let claim = queue.next().await;
            one_visit(&ctx, "test", &queue, visit, &claim, &failures).await;
        }
        let text = ctx.metrics.counted();
        for line in [
            "controller_runtime_reconcile_panics_total{controller=\"test\"} 1",
            "controller_runtime_reconcile_total{controller=\"test\",result=\"success\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        // After the wait of a failure, and only the one that failed.
        let again = timeout(Duration::from_secs(5), queue.next()).await.expect("it is made again");
        assert_eq!(again.key(), &bad);
    }
}
