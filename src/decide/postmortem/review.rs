//! Who reviewed a postmortem.
//!
//! The first write that sets `spec.state: Reviewed` and comes from somebody else than the owner is the review. It
//! counts until `spec.state` says something else; then it is kept as withdrawn. Where the API server does not vouch
//! for the authors of requests, nobody can be told apart and the state is taken at its word.
//!
//! A review counts for what had happened and was written by then. What is set on a postmortem that lacks something is
//! none, and does not become one when others write on; nor does a review outlast a section that goes missing, or the
//! incident's being resolved again. Such a refusal is kept until `spec.state` says something else.

use super::sections::is_placeholder;
use super::{Observed, blameless::short_name};
use crate::api::{
    ACTOR_ANNOTATION, PostmortemSpec, PostmortemState, PostmortemStatus, Review, ReviewRefusal, STATE_STAMP,
};
use crate::decide::{
    conditions::{clip, one_line, whole_seconds},
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
    /// Its state is Reviewed, but something is missing.
    Incomplete,
    /// Its state is Reviewed since a time at which that could not count.
    Refused(ReviewRefusal),
    /// Nobody owns it.
    WithoutOwner,
    /// The owner set the state.
    ByOwner(String),
    /// Nobody knows who set the state.
    ByNobody,
}

/// What a postmortem lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// Nothing.
    Nothing,
    /// Something about its action items, which live on after the review.
    Details,
    /// A section.
    Sections,
}

/// Judges the review, and records it, its withdrawal or its refusal.
pub(super) fn review(
    seen: &Observed<'_>,
    status: &mut PostmortemStatus,
    lacks: Lacks,
    now: Timestamp,
) -> Verdict {
    let spec = &seen.postmortem.spec;
    if spec.state.unwrap_or_default() != PostmortemState::Reviewed {
        withdraw_live(status, now);
        status.review_refused = None;
        return Verdict::NotStated;
    }
    let resolved = status.incident.as_ref().and_then(|i| i.resolved_time.as_ref()).map(|t| t.0);
    if live(status).zip(resolved).is_some_and(|(review, resolved)| review.time.0 < resolved) {
        withdraw(status, ReviewRefusal::BeforeResolution, now);
    }
    match lacks {
        Lacks::Nothing => {}
        Lacks::Details if live(status).is_some() => return Verdict::Incomplete,
        Lacks::Details | Lacks::Sections => {
            withdraw(status, ReviewRefusal::Incomplete, now);
            status.review_refused.get_or_insert(ReviewRefusal::Incomplete);
            return Verdict::Incomplete;
        }
    }
    if let Some(refusal) = status.review_refused {
        return match refusal {
            ReviewRefusal::OwnerMissing if !is_owned(spec) => Verdict::WithoutOwner,
            refusal => Verdict::Refused(refusal),
        };
    }
    if live(status).is_some() {
        return Verdict::Reviewed;
    }
    if seen.signed && !is_owned(spec) {
        status.review_refused = Some(ReviewRefusal::OwnerMissing);
        return Verdict::WithoutOwner;
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

/// The review that counts, if there is one.
fn live(status: &PostmortemStatus) -> Option<&Review> {
    status.review.as_ref().filter(|review| review.withdrawn_time.is_none())
}

/// Takes back the review that counts, if there is one, and answers whether there was.
fn withdraw_live(status: &mut PostmortemStatus, now: Timestamp) -> bool {
    let live = status.review.as_mut().filter(|review| review.withdrawn_time.is_none());
    live.map(|review| review.withdrawn_time = Some(whole_seconds(now))).is_some()
}

/// The review that counts, if there is one, counts no more, and the state has to be set anew.
pub(super) fn withdraw(status: &mut PostmortemStatus, why: ReviewRefusal, now: Timestamp) {
    if withdraw_live(status, now) {
        status.review_refused = Some(why);
    }
}

fn is_owned(spec: &PostmortemSpec) -> bool {
    spec.owner.as_ref().is_some_and(|owner| !is_placeholder(owner))
}

/// A warning when somebody reviewed it who is not among those who were to.
pub(super) fn unnamed_reviewer(spec: &PostmortemSpec, status: &PostmortemStatus) -> Option<String> {
    let by = live(status).filter(|review| review.authenticated)?.by.as_ref()?;
    let named = spec.reviewers.is_empty() || spec.reviewers.iter().any(|reviewer| is_same(by, reviewer));
    (!named).then(|| format!("spec.reviewers: {} reviewed it, who is none of them", one_line(by, 253)))
}

/// Whether two names are of one person: equal, or one the short form of the other (`alice`, `@alice`,
/// `oidc:alice@example.com`).
fn is_same(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(|user| user.trim().trim_start_matches('@'));
    let short = |user: &str| short_name(user).to_lowercase();
    let is_short = |user: &str| !user.contains([':', '/', '@']);
    a == b || ((is_short(a) || is_short(b)) && short(a) == short(b))
}
