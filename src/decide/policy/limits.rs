//! How many mitigations may be active at once, and how soon one may follow another on the same target.
//!
//! Whoever counts must take before anybody else counts: the driver asks [`check`] and grants under one lock.

use super::name;
use crate::api::MitigationPolicy;
use k8s_openapi::jiff::Timestamp;
use std::{sync::Arc, time::Duration};

/// The narrowest limits of all policies that hold, each with the policy that sets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most active mitigations in the namespace.
    pub max_active: Option<(usize, String)>,
    /// Shortest time between two takes on one target.
    pub min_interval: Option<(Duration, String)>,
}

impl Limits {
    /// The limits of these policies.
    pub fn of(policies: &[Arc<MitigationPolicy>]) -> Limits {
        let active = policies.iter().filter_map(|policy| {
            let most = usize::try_from(policy.spec.max_active?).unwrap_or(0);
            Some((most, name(policy).to_owned()))
        });
        let interval = policies
            .iter()
            .filter_map(|policy| Some((policy.spec.min_interval.as_ref()?.get()?, name(policy).to_owned())));
        Limits {
            max_active: active.min(),
            min_interval: interval.max_by(|(a, x), (b, y)| a.cmp(b).then(y.cmp(x))),
        }
    }

    /// Whether there is nothing to count.
    pub fn is_none(&self) -> bool {
        self.max_active.is_none() && self.min_interval.is_none()
    }
}

/// What a limit is held against.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Names of the other mitigations that are active in the namespace, or are being made.
    pub active: Vec<String>,
    /// When the target was taken last by another mitigation.
    pub last_take: Option<Timestamp>,
}

/// Why a take waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// One word for machines.
    pub reason: &'static str,
    /// What is awaited.
    pub message: String,
    /// When it is over by itself.
    pub until: Option<Timestamp>,
}

/// Why a take must wait; `None` when it may be made now.
pub fn check(limits: &Limits, present: &Present, now: Timestamp) -> Option<Wait> {
    if let Some((most, policy)) = &limits.max_active
        && present.active.len() >= *most
    {
        let mut names: Vec<_> = present.active.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.truncate(8);
        let message = format!(
            "MitigationPolicy {policy} allows {most} active mitigations in this namespace, and there are {}{}{}; \
             this one acts when one of them has ended",
            present.active.len(),
            if names.is_empty() { "" } else { ": " },
            names.join(", ")
        );
        return Some(Wait { reason: "TooManyActive", message, until: None });
    }
    let (interval, policy) = limits.min_interval.as_ref()?;
    let until = present.last_take?.checked_add(*interval).unwrap_or(Timestamp::MAX);
    (until > now).then(|| Wait {
        reason: "TooSoon",
        message: format!(
            "MitigationPolicy {policy} wants {} s between two mitigations of one target; this one acts at {until}",
            interval.as_secs()
        ),
        until: Some(until),
    })
}
