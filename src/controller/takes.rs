//! Counts what is active before something is made, so that a limit is never passed by one.
//!
//! Counting and being counted happen under one lock. What was granted counts until its status says what became of it,
//! and that status says so before the change is made: whoever counts after a restart sees it there.

mod kept;

use super::{
    Context, Error, Key,
    indexes::{ACTIVE_IN, BY_OBJECT},
    targets::index_text,
};
use crate::{
    api::{Mitigation, MitigationPhase as Phase},
    decide::{
        mitigation::{Reservation, target_id},
        policy::limits::{Limits, Present, check},
    },
};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt, api::ListParams};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Takes of mitigations that are gone are remembered so long at most, and so many of them.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
const MAX_REMEMBERED: usize = 4096;

/// What was granted and what was seen.
#[derive(Default)]
pub struct Takes(Mutex<State>);

#[derive(Default)]
struct State {
    /// Namespaces of which all mitigations were read since this process leads.
    read: HashSet<String>,
    /// By uid of the mitigation.
    granted: HashMap<String, Grant>,
    /// When the mitigations that are gone took their targets.
    past: HashMap<String, Timestamp>,
}

impl State {
    /// A mitigation that is gone took its target then.
    fn saw(&mut self, target: String, at: Timestamp) {
        let now = Timestamp::now();
        if self.past.len() >= MAX_REMEMBERED {
            self.past.retain(|_, at| now.duration_since(*at).unsigned_abs() < REMEMBERED);
        }
        if self.past.len() < MAX_REMEMBERED {
            let last = self.past.entry(target).or_insert(at);
            *last = (*last).max(at);
        }
    }
}

struct Grant {
    key: Key,
    target: String,
    at: Timestamp,
}

impl Takes {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two statements that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a mitigation among the active ones, unless that would pass a limit.
    pub async fn reserve(
        &self,
        ctx: &Context,
        mitigation: &Mitigation,
        limits: &Limits,
    ) -> Result<Reservation, Error> {
        let key = Key::of(mitigation);
        self.read_once(ctx, &key.namespace).await?;
        let uid = mitigation.uid().unwrap_or_default();
        let target = target_text(mitigation);
        let now = Timestamp::now();
        let mut state = self.lock();
        state.granted.retain(|uid, grant| is_open(ctx, uid, &grant.key));
        let recorded = ctx.mitigations.group(ACTIVE_IN, &key.namespace);
        let mut active: Vec<String> =
            recorded.iter().filter(|m| m.metadata.uid.as_ref() != Some(&uid)).map(|m| m.name_any()).collect();
        let unrecorded = state.granted.iter().filter(|(other, grant)| {
            **other != uid
                && grant.key.namespace == key.namespace
                && !recorded.iter().any(|m| m.metadata.uid.as_ref() == Some(other))
        });
        active.extend(unrecorded.map(|(_, grant)| grant.key.name.to_string()));
        let taken = ctx.mitigations.group(BY_OBJECT, &target).into_iter().filter_map(|m| {
            let own = m.metadata.uid.as_ref() == Some(&uid);
            let status = m.status.as_ref().filter(|_| !own && target_text(&m) == target)?;
            let begun = status.phase == Some(Phase::Applying);
            status.applied_time.as_ref().map(|t| t.0).or(begun.then_some(now))
        });
        let granted = state.granted.iter().filter(|(other, grant)| **other != uid && grant.target == target);
        let last_take =
            taken.chain(granted.map(|(_, grant)| grant.at)).chain(state.past.get(&target).copied()).max();
        if let Some(wait) = check(limits, &Present { active, last_take }, now) {
            state.granted.remove(&uid);
            return Ok(Reservation::Wait(wait));
        }
        state.granted.entry(uid).or_insert(Grant { key, target, at: now });
        Ok(Reservation::Granted)
    }

    /// What this process does not know yet of a namespace when it begins to lead, it reads: once.
    async fn read_once(&self, ctx: &Context, namespace: &str) -> Result<(), Error> {
        if self.lock().read.contains(namespace) {
            return Ok(());
        }
        let api: Api<Mitigation> = Api::namespaced(ctx.client.clone(), namespace);
        let what = format!("reading the mitigations of namespace {namespace}");
        for mut object in api.list(&ListParams::default()).await.map_err(Error::api(what))? {
            object.metadata.managed_fields = None;
            if let Some(news) = ctx.mitigations.saw(object) {
                ctx.heard_of_mitigation(&news, false);
            }
        }
        let kept = kept::takes(ctx, namespace).await?;
        let mut state = self.lock();
        for take in kept {
            state.saw(take.target, take.time);
        }
        state.read.insert(namespace.to_owned());
        Ok(())
    }

    /// A mitigation is about to go for good. Where a policy wants an interval, what it took counts on.
    pub async fn keep(&self, ctx: &Context, going: &Mitigation) {
        let namespace = going.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(interval) = ctx.interval_in(namespace) {
            kept::keep(ctx, going, target_text(going), interval).await;
        }
    }

    /// This process begins to lead: what another did meanwhile is to be read, and nothing is granted.
    pub fn lead(&self) {
        let mut state = self.lock();
        state.read.clear();
        state.granted.clear();
    }

    /// The mitigation waits for something else. Answers whether it was counted.
    pub fn give_back(&self, uid: &str) -> bool {
        self.lock().granted.remove(uid).is_some()
    }

    /// The mitigation is gone: what it took counts on.
    pub fn remember(&self, gone: &Mitigation) {
        let Some(at) = gone.status.as_ref().and_then(|s| s.applied_time.as_ref()).map(|t| t.0) else {
            return;
        };
        self.lock().saw(target_text(gone), at);
    }
}

/// Whether it is still to be seen in the mitigation's status what became of a grant.
fn is_open(ctx: &Context, uid: &str, key: &Key) -> bool {
    let known = ctx.mitigations.get(key).filter(|m| m.metadata.uid.as_deref() == Some(uid));
    known.is_some_and(|m| {
        let status = m.status.as_ref();
        !status.and_then(|s| s.phase).is_some_and(Phase::is_ended)
            && status.is_none_or(|s| s.applied_time.is_none())
    })
}

fn target_text(mitigation: &Mitigation) -> String {
    let namespace = mitigation.metadata.namespace.as_deref().unwrap_or_default();
    let target = &mitigation.spec.template.target_ref;
    let kind = target_id(mitigation).map_or(target.kind.as_str(), |id| id.kind.kind);
    index_text(namespace, kind, &target.name)
}
