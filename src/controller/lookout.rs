//! What actions look at beyond their target: the objects of a kind in a namespace, kept up to date while somebody
//! needs them.
//!
//! The first look opens a watch that begins with what is there; later looks cost no request. A watch that nobody used
//! for a while is closed. Whoever follows one is looked at again when something in it changes.

mod slim;

use super::{
    cache::{Cache, Index},
    client::watch_config,
    error::Error,
    key::Key,
    queue::Queue,
};
use crate::mitigation::{CUSTOM_RESOURCE_DEFINITION, Look, ObjectId, TargetKind};
use futures::StreamExt;
use kube::{Client, core::DynamicObject, runtime::watcher};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

/// Watches that are open at the same time. A further one takes the place of one that nobody needs. Where all are
/// needed, it is looked at once and closed, and whoever wants to follow looks again now and then instead.
const MAX_OPEN: usize = 128;
/// A watch that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// How long a kind that the cluster does not have counts as missing, while no CustomResourceDefinition says otherwise.
const MISSING: Duration = Duration::from_secs(300);
/// The same of one that is defined, so that the API server will soon serve it, or of which that cannot be seen.
const NOT_YET: Duration = Duration::from_secs(20);
/// When a watch that stays open is tried again where the operator may not look.
const ANEW: Duration = Duration::from_secs(30);
/// Longest wait for the objects of a first look.
const PATIENCE: Duration = Duration::from_secs(10);

const NO_INDEX: &[Index<DynamicObject>] = &[];

/// Which objects are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scope {
    kind: TargetKind,
    namespace: Option<String>,
    labels: Option<String>,
}

/// All open watches.
pub struct Lookouts {
    watches: Client,
    /// Where followers are queued.
    queue: Arc<Queue>,
    open: Mutex<HashMap<Scope, Arc<Lookout>>>,
    missing: Mutex<HashMap<TargetKind, Instant>>,
}

/// One watch.
struct Lookout {
    cache: Cache<DynamicObject>,
    state: watch::Sender<State>,
    used: Mutex<Instant>,
    followers: Mutex<HashSet<Key>>,
    /// It stays open whether it is used or not.
    kept: bool,
    /// Its watch is to end now, unless somebody still waits for it.
    closed: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Complete,
    /// The cluster has no such kind.
    Missing,
    /// The operator may not look.
    Forbidden,
}

impl Lookout {
    /// Nobody waits for it and nobody follows it.
    fn is_needless(&self) -> bool {
        self.state.receiver_count() == 0 && lock(&self.followers).is_empty()
    }

    /// What it has told of a namespace, and of the cluster.
    fn objects_in(&self, namespace: &str) -> Vec<Arc<DynamicObject>> {
        let here =
            |o: &Arc<DynamicObject>| o.metadata.namespace.as_ref().is_none_or(|there| there == namespace);
        self.cache.all().into_iter().filter(here).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing below panics between two statements that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lookouts {
    /// None is open yet.
    pub fn new(watches: Client, queue: Arc<Queue>) -> Lookouts {
        Lookouts { watches, queue, open: Mutex::default(), missing: Mutex::default() }
    }

    /// Keeps a watch of a kind open, in all namespaces or in one: it is looked at so often that no take should wait
    /// for it.
    pub fn keep(self: &Arc<Self>, kind: TargetKind, namespace: Option<&str>) {
        self.open(&Scope { kind, namespace: namespace.map(str::to_owned), labels: None }, true);
    }

    /// The objects of a kind in a namespace.
    pub async fn list(
        self: &Arc<Self>,
        kind: TargetKind,
        namespace: &str,
        labels: Option<&str>,
    ) -> Result<Vec<Arc<DynamicObject>>, Error> {
        if self.is_missing(kind) {
            return Ok(Vec::new());
        }
        let scope = Scope {
            kind,
            namespace: kind.is_namespaced().then(|| namespace.to_owned()),
            labels: labels.map(str::to_owned),
        };
        let everywhere = Scope { namespace: None, ..scope.clone() };
        // Whoever waits holds a receiver, and a watch with one stays open; one that was closed just before is opened
        // anew.
        let (scope, lookout, mut state) = loop {
            let wide = lock(&self.open).get(&everywhere).cloned();
            let (scope, lookout) = match wide {
                Some(wide) => (&everywhere, wide),
                None => (&scope, self.open(&scope, false)),
            };
            let state = lookout.state.subscribe();
            if self.has(scope, &lookout) {
                break (scope.clone(), lookout, state);
            }
        };
        *lock(&lookout.used) = Instant::now();
        let seen = timeout(PATIENCE, state.wait_for(|state| *state != State::Opening)).await;
        let seen = seen.ok().and_then(Result::ok).map(|state| state.clone());
        let answer = match seen {
            Some(State::Missing) => Ok(Vec::new()),
            Some(State::Forbidden) => {
                let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
                Err(Error::MayNotLook(format!("{}{group}", kind.plural)))
            }
            Some(State::Complete) => Ok(lookout.objects_in(namespace)),
            Some(State::Opening) | None => {
                Err(Error::NotSeen(format!("looking at {} in {namespace}", kind.plural)))
            }
        };
        drop(state);
        if lock(&self.open).len() > MAX_OPEN && !lookout.kept && lookout.is_needless() {
            self.close(&scope, &lookout);
        }
        answer
    }

    /// If a kind is one of those that are watched all the time, the objects of all of them, as far as they are complete.
    pub fn kept_with(&self, kind: TargetKind, namespace: &str) -> Vec<(TargetKind, Vec<Arc<DynamicObject>>)> {
        let open = lock(&self.open);
        // One of another namespace tells nothing of this one.
        let covers = |scope: &Scope| scope.namespace.as_deref().is_none_or(|there| there == namespace);
        let kept = || open.iter().filter(|(scope, lookout)| lookout.kept && covers(scope));
        if !kept().any(|(scope, _)| scope.kind == kind) {
            return Vec::new();
        }
        let complete = kept().filter(|(_, lookout)| *lookout.state.borrow() == State::Complete);
        complete.map(|(scope, lookout)| (scope.kind, lookout.objects_in(namespace))).collect()
    }

    /// Whether the cluster did not have the kind a while ago, and there is no sign that it has it by now.
    fn is_missing(&self, kind: TargetKind) -> bool {
        let Some(since) = lock(&self.missing).get(&kind).copied() else { return false };
        since.elapsed() < if self.is_undefined(kind) { MISSING } else { NOT_YET }
    }

    /// Whether the CustomResourceDefinitions, which are watched all the time, say that there is no such kind.
    fn is_undefined(&self, kind: TargetKind) -> bool {
        let scope = Scope { kind: CUSTOM_RESOURCE_DEFINITION, namespace: None, labels: None };
        let name = Key::new("", &format!("{}.{}", kind.plural, kind.group));
        let open = lock(&self.open);
        open.get(&scope).is_some_and(|definitions| {
            *definitions.state.borrow() == State::Complete && definitions.cache.get(&name).is_none()
        })
    }

    /// Somebody who looked once will not look again: the watch is closed, unless others need it.
    pub fn let_go(&self, kind: TargetKind, namespace: &str, labels: Option<&str>) {
        let namespace = kind.is_namespaced().then(|| namespace.to_owned());
        let scope = Scope { kind, namespace, labels: labels.map(str::to_owned) };
        let lookout = lock(&self.open).get(&scope).cloned();
        if let Some(lookout) = lookout.filter(|l| !l.kept && l.is_needless()) {
            self.close(&scope, &lookout);
        }
    }

    /// A mitigation is looked at again when one of these changes; `None` ends that. `false`: it is not, since too much
    /// is followed already or there is no such kind at present.
    pub fn follow(self: &Arc<Self>, mitigation: &Key, look: Option<&Look>) -> bool {
        let scope = match look {
            Some(Look::List { kind, labels }) => Some(Scope {
                kind: *kind,
                namespace: kind.is_namespaced().then(|| mitigation.namespace.to_string()),
                labels: labels.clone(),
            }),
            Some(Look::One(_)) | None => None,
        };
        if let Some(scope) = &scope
            && !self.is_missing(scope.kind)
            && self.has_room_for(scope)
        {
            self.open(scope, false);
        }
        let mut follows = scope.is_none();
        for (open, lookout) in lock(&self.open).iter() {
            let wanted = scope.as_ref() == Some(open);
            let mut followers = lock(&lookout.followers);
            if wanted {
                // What it told before may be news to who begins to follow; later news wakes by itself.
                let is_new = followers.insert(mitigation.clone());
                if is_new && *lookout.state.borrow() == State::Complete {
                    self.queue.add(mitigation.clone());
                }
                follows = true;
            } else {
                followers.remove(mitigation);
            }
        }
        follows
    }

    /// Whether it is open, or can be without closing one that somebody needs.
    fn has_room_for(&self, scope: &Scope) -> bool {
        let open = lock(&self.open);
        open.len() < MAX_OPEN || open.contains_key(scope) || open.values().any(|l| !l.kept && l.is_needless())
    }

    /// Whether a watch that the mitigation follows has told of all objects of this kind.
    pub fn is_complete(&self, mitigation: &Key, kind: TargetKind) -> bool {
        self.followed_by(mitigation, kind).is_some_and(|lookout| *lookout.state.borrow() == State::Complete)
    }

    /// An object of a kind that the mitigation follows, as the watch tells it.
    pub fn followed(&self, mitigation: &Key, id: &ObjectId) -> Option<Arc<DynamicObject>> {
        let namespace = if id.kind.is_namespaced() { &*mitigation.namespace } else { "" };
        self.followed_by(mitigation, id.kind)?.cache.get(&Key::new(namespace, &id.name))
    }

    fn followed_by(&self, mitigation: &Key, kind: TargetKind) -> Option<Arc<Lookout>> {
        let open = lock(&self.open);
        let mut of_kind = open.iter().filter(|(scope, _)| scope.kind == kind).map(|(_, lookout)| lookout);
        of_kind.find(|lookout| lock(&lookout.followers).contains(mitigation)).cloned()
    }

    fn open(self: &Arc<Self>, scope: &Scope, kept: bool) -> Arc<Lookout> {
        let mut open = lock(&self.open);
        if let Some(known) = open.get(scope) {
            return known.clone();
        }
        let lookout = Arc::new(Lookout {
            cache: Cache::new(NO_INDEX),
            state: watch::Sender::new(State::Opening),
            used: Mutex::new(Instant::now()),
            followers: Mutex::default(),
            kept,
            closed: Notify::new(),
        });
        if open.len() >= MAX_OPEN {
            // Of those that nobody needs the one that was used least lately makes room; its task ends by itself.
            let needless = open.iter().filter(|(_, l)| !l.kept && l.is_needless());
            let oldest = needless.min_by_key(|(_, l)| *lock(&l.used));
            if let Some(scope) = oldest.map(|(scope, _)| scope.clone()) {
                open.remove(&scope);
            }
        }
        open.insert(scope.clone(), lookout.clone());
        drop(open);
        tokio::spawn(run(self.clone(), scope.clone(), lookout.clone()));
        lookout
    }

    /// True while the watch is among the open ones, or somebody still waits for it.
    fn is_wanted(&self, scope: &Scope, lookout: &Arc<Lookout>) -> bool {
        self.has(scope, lookout) || lookout.state.receiver_count() > 0
    }

    /// True while the watch is among the open ones.
    fn has(&self, scope: &Scope, lookout: &Arc<Lookout>) -> bool {
        lock(&self.open).get(scope).is_some_and(|known| Arc::ptr_eq(known, lookout))
    }

    /// Followers are looked at again: what they saw last may not be told any more.
    fn wake_followers(&self, lookout: &Lookout) {
        for key in lock(&lookout.followers).iter() {
            self.queue.add(key.clone());
        }
    }

    fn close(&self, scope: &Scope, lookout: &Arc<Lookout>) {
        let mut open = lock(&self.open);
        if open.get(scope).is_some_and(|known| Arc::ptr_eq(known, lookout)) {
            open.remove(scope);
            lookout.closed.notify_one();
        }
    }
}

async fn run(lookouts: Arc<Lookouts>, scope: Scope, lookout: Arc<Lookout>) {
    // One request answers with what is there and goes on with what changes; API servers that do not know that are
    // asked in the old way.
    let mut streaming = true;
    while lookouts.is_wanted(&scope, &lookout) {
        let mut config = watch_config();
        if streaming {
            config = config.streaming_lists();
        }
        if let Some(labels) = &scope.labels {
            config = config.labels(labels);
        }
        let mut events = slim::watch(&lookouts.watches, scope.kind, scope.namespace.as_deref(), config);
        let mut tick = tokio::time::interval(Duration::from_secs(10));
        let mut news = false;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => break,
                    Some(Ok(event)) => {
                        let complete = matches!(event, watcher::Event::InitDone);
                        // Half a list is no reason to look.
                        let half = matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
                        news |= !lookout.cache.take_in(event).is_empty();
                        if complete {
                            // That there is nothing is news as well, to who read something before.
                            news |= lookout.state.send_replace(State::Complete) != State::Complete;
                        }
                        if news && !half {
                            lookouts.wake_followers(&lookout);
                            news = false;
                        }
                    }
                    Some(Err(error)) => match code(&error) {
                        Some(code @ (403 | 404)) => {
                            let state = match code {
                                403 => State::Forbidden,
                                _ => State::Missing,
                            };
                            if state == State::Missing {
                                lock(&lookouts.missing).insert(scope.kind, Instant::now());
                            }
                            if lookout.state.send_replace(state.clone()) != state {
                                match state {
                                    State::Forbidden => {
                                        warn!(kind = scope.kind.kind, %error, "it may not be looked at");
                                    }
                                    // Most clusters lack some kind that could matter; that is no trouble.
                                    _ => debug!(kind = scope.kind.kind, "the cluster has no such kind"),
                                }
                                lookouts.wake_followers(&lookout);
                            }
                            if !lookout.kept {
                                lookouts.close(&scope, &lookout);
                                return;
                            }
                            // A right may be granted, and a kind installed, later.
                            sleep(ANEW).await;
                            break;
                        }
                        Some(400 | 422) if streaming => {
                            streaming = false;
                            break;
                        }
                        _ => warn!(kind = scope.kind.kind, %error, "watch interrupted; it is renewed"),
                    },
                },
                () = lookout.closed.notified() => {
                    if !lookouts.is_wanted(&scope, &lookout) {
                        return;
                    }
                }
                _ = tick.tick() => {
                    let idle = !lookout.kept
                        && lookout.is_needless()
                        && lock(&lookout.used).elapsed() > IDLE;
                    if idle {
                        debug!(kind = scope.kind.kind, "nobody looks any more");
                        lookouts.close(&scope, &lookout);
                    }
                    if !lookouts.is_wanted(&scope, &lookout) {
                        return;
                    }
                }
            }
        }
    }
}

fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
