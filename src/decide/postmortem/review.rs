//! Who reviewed a postmortem.
//!
//! The first write that sets `spec.state: Reviewed` and comes from somebody else than the owner is the review. It
//! counts until `spec.state` says something else; then it is kept as withdrawn. Where the API server does not vouch
//! for the authors of requests, nobody can be told apart and the state is taken at its word.

use super::{Observed, blameless::short_name};
use crate::api::{ACTOR_ANNOTATION, PostmortemState, PostmortemStatus, Review, STATE_STAMP};
use crate::decide::{
    conditions::{clip, whole_seconds},
    stamp::Stamp,
};
use k8s_openapi::jiff::Timestamp;

/// Whether the postmortem is reviewed, and if not, why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Reviewed,
    /// Its state is another one.
    NotStated,
    /// Its state is Reviewed, but sections are missing.
    Incomplete,
    /// The owner set the state.
    ByOwner(String),
    /// Nobody knows who set the state.
    ByNobody,
}

/// Judges the review, and records it or its withdrawal.
pub(super) fn review(
    seen: &Observed<'_>,
    status: &mut PostmortemStatus,
    complete: bool,
    now: Timestamp,
) -> Verdict {
    let spec = &seen.postmortem.spec;
    if spec.state.unwrap_or_default() != PostmortemState::Reviewed {
        if let Some(review) = status.review.as_mut().filter(|r| r.withdrawn_time.is_none()) {
            review.withdrawn_time = Some(whole_seconds(now));
        }
        return Verdict::NotStated;
    }
    if !complete {
        return Verdict::Incomplete;
    }
    if status.review.as_ref().is_some_and(|r| r.withdrawn_time.is_none()) {
        return Verdict::Reviewed;
    }
    let annotations = seen.postmortem.metadata.annotations.as_ref();
    // Who set the state; a postmortem that was written before that was stamped names who wrote to it last.
    let stamp = Stamp::of(annotations, STATE_STAMP);
    let last =
        || annotations.and_then(|a| a.get(ACTOR_ANNOTATION)).filter(|actor| !actor.is_empty()).cloned();
    let actor = stamp.as_ref().map_or_else(last, |stamp| stamp.user().map(str::to_owned));
    if seen.signed {
        let Some(actor) = &actor else { return Verdict::ByNobody };
        // Who gives it away and reviews it in one write owned it.
        let mut owners = spec.owner.iter().chain(stamp.iter().filter_map(|stamp| stamp.owner.as_ref()));
        if owners.any(|owner| is_same(actor, owner)) {
            return Verdict::ByOwner(actor.clone());
        }
    }
    status.review = Some(Review {
        by: actor.map(|actor| clip(&actor, 253)),
        authenticated: seen.signed,
        time: whole_seconds(now),
        withdrawn_time: None,
    });
    Verdict::Reviewed
}

/// Whether two names are of one person: equal, or one the short form of the other (`alice`, `oidc:alice@example.com`).
fn is_same(a: &str, b: &str) -> bool {
    let short = |user: &str| short_name(user).to_lowercase();
    let is_short = |user: &str| !user.contains([':', '/', '@']);
    a == b || ((is_short(a) || is_short(b)) && short(a) == short(b))
}
