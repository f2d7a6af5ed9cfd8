//! Who may take a lease, and when. Pure: from what was seen of it and since when it looks like that.
//!
//! One rule a line, with its reason:
//! - A lease that names somebody else is taken once it has not changed for as long as it says, by our own
//!   monotonic clock: clocks of different machines need not agree.
//! - One that was given back is taken at once: whoever gave it back had stopped writing before.
//! - One that a person emptied or deleted is taken only after a whole lease duration: its holder does not know
//!   yet. The holder itself puts it right at its next renewal.
//! - One that does not exist when this process looks for the first time is made at once: nobody has led before.
//! - One that names us is ours only if we wrote it, or if it did when this process looked for the first time: a
//!   container that was started again has the name of its pod, and its former process is dead.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// On a lease that its holder gave back: who did. A holder that a person took out leaves none.
pub(super) const GIVEN_BACK_ANNOTATION: &str = "incident-operator.dev/given-back-by";

/// Longest time that a lease is waited for, whatever somebody wrote into it.
const LONGEST: Duration = Duration::from_secs(300);

/// Writes of our own that are remembered: more than are under way before one is seen to have arrived.
const REMEMBERED: usize = 8;

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a lease is good for after its last renewal: others wait as long.
    pub lease_duration: Duration,
    /// How long a holder leads after its last renewal.
    pub renew_deadline: Duration,
    /// Time between renewals.
    pub retry_period: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Times {
    /// These times, or what is wrong with them.
    pub fn checked(self) -> Result<Times, String> {
        let Times { lease_duration, renew_deadline, retry_period } = self;
        if lease_duration.subsec_nanos() != 0 || lease_duration.is_zero() || lease_duration > LONGEST {
            return Err(format!(
                "lease-duration is {lease_duration:?}: use whole seconds, {LONGEST:?} at most"
            ));
        }
        if renew_deadline + retry_period > lease_duration {
            return Err(format!(
                "renew-deadline ({renew_deadline:?}) and retry-period ({retry_period:?}) together must not be longer than \
                 lease-duration ({lease_duration:?}): who leads must stop before somebody else may begin"
            ));
        }
        if retry_period < Duration::from_millis(100) || retry_period * 2 > renew_deadline {
            return Err(format!(
                "retry-period is {retry_period:?}: use at least 100ms, and at most half of renew-deadline ({renew_deadline:?}), \
                 so that a renewal may fail"
            ));
        }
        Ok(self)
    }

    /// Time between looks at somebody else's lease: how long nobody leads after it was given back.
    pub(super) fn look_period(&self) -> Duration {
        self.retry_period / 2
    }

    /// Longest time that one request for the lease may take, so that a second one is possible before the deadline.
    pub(super) fn request_timeout(&self) -> Duration {
        self.renew_deadline * 2 / 5
    }
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move {
    Create,
    Renew,
    TakeOver,
    Wait,
}

/// What one candidate knows of the lease.
pub(super) struct View {
    pub identity: String,
    pub times: Times,
    seen: Option<Sight>,
    /// The times in our last writes, since the answers may be lost: they tell our writes from those in our name.
    written: VecDeque<MicroTime>,
}

struct Sight {
    lease: Option<Lease>,
    since: Instant,
    /// It looked like that when this process looked for the first time.
    first: bool,
}

impl View {
    pub fn new(identity: &str, times: Times) -> View {
        View { identity: identity.to_owned(), times, seen: None, written: VecDeque::new() }
    }

    /// The lease, as seen last.
    pub fn lease(&self) -> Option<&Lease> {
        self.seen.as_ref()?.lease.as_ref()
    }

    /// Takes in how the lease looks. A time counts from when the answer came, which is never too early.
    pub fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        let version = |lease: &Option<Lease>| lease.as_ref().map(|l| l.metadata.resource_version.clone());
        if self.seen.as_ref().is_none_or(|sight| version(&sight.lease) != version(&lease)) {
            self.seen = Some(Sight { lease, since: now, first: self.seen.is_none() });
        }
    }

    /// What to do now. `leads`: our claim holds.
    pub fn next_move(&self, leads: bool, now: Instant) -> Move {
        let Some(sight) = &self.seen else { return Move::Wait };
        let waited = |length: Duration| now.saturating_duration_since(sight.since) >= length;
        let Some(lease) = &sight.lease else {
            let free = leads || sight.first || waited(self.times.lease_duration);
            return if free { Move::Create } else { Move::Wait };
        };
        let named = holder(lease).filter(|name| !name.is_empty());
        let free = match named {
            Some(name) if name == self.identity && (sight.first || self.wrote(lease)) => return Move::Renew,
            Some(name) if name != self.identity => false,
            Some(_) => leads,
            None => leads || was_given_back(lease),
        };
        if free || waited(self.length(lease)) { Move::TakeOver } else { Move::Wait }
    }

    /// The lease as we would write it.
    pub fn wanted(&mut self, now: MicroTime) -> Lease {
        let mut lease = self.lease().cloned().unwrap_or_default();
        let before = lease.spec.take().unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        let made = lease.metadata.resource_version.is_none();
        lease.metadata.managed_fields = None;
        if let Some(annotations) = lease.metadata.annotations.as_mut() {
            annotations.remove(GIVEN_BACK_ANNOTATION);
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.lease_duration.as_secs()).ok(),
            acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now.clone()),
            lease_transitions: Some(
                before.lease_transitions.unwrap_or(0).max(0).saturating_add(i32::from(!ours && !made)),
            ),
            ..LeaseSpec::default()
        });
        self.written.push_back(now);
        if self.written.len() > REMEMBERED {
            self.written.pop_front();
        }
        lease
    }

    /// The lease without a holder, when it is ours to give.
    pub fn given_back(&self) -> Option<Lease> {
        let mut lease = self.lease().filter(|lease| self.wrote(lease))?.clone();
        lease.metadata.managed_fields = None;
        let mark = (GIVEN_BACK_ANNOTATION.to_owned(), self.identity.clone());
        lease.metadata.annotations.get_or_insert_with(BTreeMap::new).extend([mark]);
        lease.spec.as_mut()?.holder_identity = Some(String::new());
        Some(lease)
    }

    fn wrote(&self, lease: &Lease) -> bool {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        holder(lease) == Some(&self.identity) && renewed.is_some_and(|time| self.written.contains(time))
    }

    fn length(&self, lease: &Lease) -> Duration {
        let stated = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let stated = Duration::from_secs(u64::try_from(stated).unwrap_or(0)).min(LONGEST);
        stated.max(self.times.lease_duration)
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

fn was_given_back(lease: &Lease) -> bool {
    lease.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(GIVEN_BACK_ANNOTATION))
}

#[cfg(test)]
mod tests;
