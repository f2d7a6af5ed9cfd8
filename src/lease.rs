//! Leader election: at most one process writes.
//!
//! Whether somebody else's lease has expired is judged by our own monotonic clock, from when we saw it change
//! last, so clocks of different machines need not agree. Every write of the lease carries the resourceVersion
//! it was decided on. A holder counts as leading only until its renew deadline, which lies before the moment
//! at which another process may take over, and every write asks [`Claim::holds`] first.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use std::{future::Future, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

/// How long a lease is good for after its last renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a holder leads after its last renewal.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between renewals.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Time between looks at somebody else's lease: how long nobody leads after it was given back.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Longest time one request for the lease may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Tells whether this process leads.
#[derive(Clone)]
pub struct Claim(watch::Receiver<Option<Instant>>);

impl Claim {
    /// True while this process leads.
    pub fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until this process leads.
    pub async fn acquired(&mut self) {
        // The sender ends with the process.
        let _ = self.0.wait_for(|until| until.is_some_and(|until| Instant::now() < until)).await;
    }

    /// Waits until this process, having led, does not lead any more.
    pub async fn lost(&mut self) {
        loop {
            let until = *self.0.borrow_and_update();
            match until {
                Some(until) if Instant::now() < until => {
                    tokio::select! {
                        changed = self.0.changed() => if changed.is_err() { return },
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
    identity: String,
    claim: watch::Sender<Option<Instant>>,
    /// The lease as seen last, and when it was seen to change.
    seen: Option<(Lease, Instant)>,
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Create,
    Renew,
    TakeOver,
    Wait,
}

impl Election {
    /// A candidate with this identity for the lease of this name.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> (Election, Claim) {
        let (claim, receiver) = watch::channel(None);
        let election = Election {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            claim,
            seen: None,
        };
        (election, Claim(receiver))
    }

    /// Runs until `stop`, then gives the lease back.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let asked = Instant::now();
            match timeout(REQUEST_TIMEOUT, self.step()).await {
                Ok(Ok(true)) => {
                    if self.claim.borrow().is_none() {
                        info!(lease = self.name, identity = self.identity, "leading");
                    }
                    // Counted from before the request, since that is when others count from at the latest.
                    self.claim.send_replace(Some(asked + RENEW_DEADLINE));
                }
                Ok(Ok(false)) => self.not_leading("somebody else holds the lease"),
                Ok(Err(error)) => warn!(lease = self.name, %error, "lease request failed"),
                Err(_) => warn!(lease = self.name, "lease request timed out"),
            }
            let period = if self.claim.borrow().is_some() { RETRY_PERIOD } else { LOOK_PERIOD };
            let jitter = period.mul_f64(0.9 + fastrand::f64() / 5.0);
            tokio::select! {
                () = sleep(jitter) => {}
                () = &mut stop => break,
            }
        }
        self.give_back().await;
    }

    fn not_leading(&self, why: &str) {
        if self.claim.send_replace(None).is_some() {
            warn!(lease = self.name, identity = self.identity, why, "not leading any more");
        }
    }

    /// One look at the lease; true when we hold it.
    async fn step(&mut self) -> Result<bool, kube::Error> {
        // Once more after a conflict: somebody may have edited the lease without taking it.
        for _ in 0..2 {
            // While we hold it, nobody else is to write it, so a renewal needs no read before.
            if self.next_move() != Move::Renew {
                let lease = self.api.get_opt(&self.name).await?;
                self.observe(lease);
            }
            let params = PostParams::default();
            let present = self.seen.as_ref().map(|(lease, _)| lease);
            let written = match self.next_move() {
                Move::Wait => return Ok(false),
                Move::Create => self.api.create(&params, &self.wanted(None)).await,
                Move::Renew | Move::TakeOver => {
                    self.api.replace(&self.name, &params, &self.wanted(present)).await
                }
            };
            match written {
                Ok(lease) => {
                    self.seen = Some((lease, Instant::now()));
                    return Ok(true);
                }
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    debug!(lease = self.name, "somebody else wrote the lease first");
                    self.seen = None;
                    let lease = self.api.get_opt(&self.name).await?;
                    self.observe(lease);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn observe(&mut self, lease: Option<Lease>) {
        let same = match (&self.seen, &lease) {
            (Some((known, _)), Some(lease)) => {
                known.metadata.resource_version == lease.metadata.resource_version
            }
            _ => false,
        };
        if !same {
            self.seen = lease.map(|lease| (lease, Instant::now()));
        }
    }

    fn is_ours(&self) -> bool {
        self.seen.as_ref().is_some_and(|(lease, _)| holder(lease) == Some(&self.identity))
    }

    fn next_move(&self) -> Move {
        match &self.seen {
            None => Move::Create,
            Some(_) if self.is_ours() => Move::Renew,
            Some((lease, since)) => {
                let free = holder(lease).is_none_or(str::is_empty);
                let length = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or(0);
                let length = Duration::from_secs(u64::try_from(length).unwrap_or(0)).max(LEASE_DURATION);
                if free || since.elapsed() >= length { Move::TakeOver } else { Move::Wait }
            }
        }
    }

    fn wanted(&self, present: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = present.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: present.and_then(|lease| lease.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
                acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(
                    before.lease_transitions.unwrap_or(0) + i32::from(!ours && present.is_some()),
                ),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Gives the lease back, so that a successor need not wait for it to expire.
    async fn give_back(mut self) {
        self.claim.send_replace(None);
        let Some((mut lease, _)) =
            self.seen.take().filter(|(lease, _)| holder(lease) == Some(&self.identity))
        else {
            return;
        };
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
        }
        lease.metadata.managed_fields = None;
        let given =
            timeout(Duration::from_secs(2), self.api.replace(&self.name, &PostParams::default(), &lease))
                .await;
        match given {
            Ok(Ok(_)) => info!(lease = self.name, "lease given back"),
            Ok(Err(error)) => warn!(lease = self.name, %error, "lease not given back"),
            Err(_) => warn!(lease = self.name, "lease not given back in time"),
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}
