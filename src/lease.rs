//! Leader election: at most one process writes.
//!
//! Whether somebody else's lease has expired is judged by our own monotonic clock, from when we saw it change
//! last ([`rules`]). Every write of the lease carries the resourceVersion it was decided on. A holder counts as
//! leading only until its renew deadline, which lies before the moment at which another process may take over, and
//! every write asks [`Claim::to_write`] first. It is given back only when no write is under way any more.
//!
//! What no lease can hold back: a request that has left the process already. So every write also carries what it
//! was decided on (a uid, a resourceVersion, the value that is replaced) and is refused when that is not so any more.

mod rules;

pub use rules::Times;

use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use rules::{Move, View};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

/// Longest wait for the answers to writes under way before the lease is given back, and for that write itself.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_millis(1500);
/// More writes than are ever under way.
const WRITES: u32 = 1 << 16;

/// Tells whether this process leads.
#[derive(Clone)]
pub struct Claim {
    until: watch::Receiver<Option<Instant>>,
    writes: Arc<Semaphore>,
    since: Arc<AtomicU64>,
}

impl Claim {
    /// True while this process leads.
    pub fn holds(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// The resourceVersion of the lease since this process leads: whoever led before wrote nothing later. What is no number
    /// counts as 0.
    pub fn since(&self) -> u64 {
        self.since.load(Ordering::SeqCst)
    }

    /// The right to one write, until its answer is there. `None`: this process does not lead.
    pub fn to_write(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.writes.clone().try_acquire_owned().ok()?;
        // Asked last: whoever gives the lease back ends the claim first and waits for the permits afterwards.
        self.holds().then_some(permit)
    }

    /// Waits until this process leads.
    pub async fn acquired(&mut self) {
        // The sender ends with the process.
        let _ = self.until.wait_for(|until| until.is_some_and(|until| Instant::now() < until)).await;
    }

    /// Waits until this process, having led, does not lead any more.
    pub async fn lost(&mut self) {
        loop {
            let until = *self.until.borrow_and_update();
            match until {
                Some(until) if Instant::now() < until => {
                    tokio::select! {
                        changed = self.until.changed() => if changed.is_err() { return },
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
                _ => return,
            }
        }
    }
}

/// One candidate for the lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    view: View,
    claim: watch::Sender<Option<Instant>>,
    writes: Arc<Semaphore>,
    since: Arc<AtomicU64>,
}

impl Election {
    /// A candidate with this identity for the lease of this name.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        times: Times,
    ) -> (Election, Claim) {
        let (claim, until) = watch::channel(None);
        let writes = Arc::new(Semaphore::new(WRITES as usize));
        let election = Election {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            view: View::new(identity, times),
            claim,
            writes: writes.clone(),
            since: Arc::default(),
        };
        let claim = Claim { until, writes, since: election.since.clone() };
        (election, claim)
    }

    /// Runs until `stop`, then gives the lease back.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let times = self.view.times;
        loop {
            let asked = Instant::now();
            match timeout(times.request_timeout(), self.step()).await {
                Ok(Ok(true)) => {
                    if self.claim.borrow().is_none() {
                        info!(lease = self.name, identity = self.view.identity, "leading");
                    }
                    // Counted from before the request, since that is when others count from at the latest.
                    self.claim.send_replace(Some(asked + times.renew_deadline));
                }
                Ok(Ok(false)) => self.not_leading("somebody else holds the lease"),
                Ok(Err(error)) => warn!(lease = self.name, %error, "lease request failed"),
                Err(_) => warn!(lease = self.name, "lease request timed out"),
            }
            let period = if self.leads() { times.retry_period } else { times.look_period() };
            let jitter = period.mul_f64(0.9 + fastrand::f64() / 5.0);
            tokio::select! {
                () = sleep(jitter) => {}
                () = &mut stop => break,
            }
        }
        self.give_back().await;
    }

    fn leads(&self) -> bool {
        self.claim.borrow().is_some_and(|until| Instant::now() < until)
    }

    fn not_leading(&self, why: &str) {
        if self.claim.send_replace(None).is_some() {
            warn!(lease = self.name, identity = self.view.identity, why, "not leading any more");
        }
    }

    /// One look at the lease; true when we hold it.
    async fn step(&mut self) -> Result<bool, kube::Error> {
        // Once more after a conflict: somebody may have edited the lease without taking it.
        for _ in 0..2 {
            // While we lead, nobody else is to write it, so a renewal needs no read before.
            if !self.leads() || self.next_move() != Move::Renew {
                self.look().await?;
            }
            let params = PostParams::default();
            let next = self.next_move();
            let written = match next {
                Move::Wait => return Ok(false),
                Move::Create => {
                    let mut lease = self.view.wanted(now());
                    lease.metadata.name = Some(self.name.clone());
                    self.api.create(&params, &lease).await
                }
                Move::Renew | Move::TakeOver => {
                    self.api.replace(&self.name, &params, &self.view.wanted(now())).await
                }
            };
            match written {
                Ok(lease) => {
                    if next != Move::Renew || !self.leads() {
                        let version = lease.metadata.resource_version.as_deref();
                        let version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
                        self.since.store(version, Ordering::SeqCst);
                    }
                    self.view.observe(Some(lease), Instant::now());
                    return Ok(true);
                }
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    debug!(lease = self.name, "somebody else wrote the lease first");
                    self.look().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        self.view.observe(lease, Instant::now());
        Ok(())
    }

    fn next_move(&self) -> Move {
        self.view.next_move(self.leads(), Instant::now())
    }

    /// Gives the lease back, so that a successor need not wait for it to expire. One whose claim has run out gives
    /// nothing back: somebody else may hold the lease by now.
    async fn give_back(self) {
        let led = self.leads();
        self.claim.send_replace(None);
        let Some(lease) = self.view.given_back().filter(|_| led) else { return };
        if timeout(GIVE_BACK_TIMEOUT, self.writes.acquire_many(WRITES)).await.is_err() {
            warn!(lease = self.name, "a write is still under way: the lease is left to expire");
            return;
        }
        let params = PostParams::default();
        match timeout(GIVE_BACK_TIMEOUT, self.api.replace(&self.name, &params, &lease)).await {
            Ok(Ok(_)) => info!(lease = self.name, "lease given back"),
            Ok(Err(error)) => warn!(lease = self.name, %error, "lease not given back"),
            Err(_) => warn!(lease = self.name, "lease not given back in time"),
        }
    }
}

fn now() -> MicroTime {
    // The API keeps microseconds: what was written must be recognised when it is read.
    let micros = Timestamp::now().as_microsecond();
    MicroTime(Timestamp::from_microsecond(micros).unwrap_or_default())
}
