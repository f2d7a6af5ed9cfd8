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
use crate::mitigation::{Look, TargetKind};
use futures::StreamExt;
use kube::{Client, core::DynamicObject, runtime::watcher};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{debug, warn};

/// Watches that are open at the same time. More than that is looked at once and not followed.
const MAX_OPEN: usize = 128;
/// A watch that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// How long a kind that the cluster does not have counts as missing.
const MISSING: Duration = Duration::from_secs(20);
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Complete,
    /// The cluster has no such kind.
    Missing,
}

impl Lookout {
    /// Nobody waits for it and nobody follows it.
    fn is_needless(&self) -> bool {
        self.state.receiver_count() == 0 && lock(&self.followers).is_empty()
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
        let known = lock(&self.missing).get(&kind).is_some_and(|since| since.elapsed() < MISSING);
        if known {
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
        let (lookout, mut state) = loop {
            let wide = lock(&self.open).get(&everywhere).cloned();
            let (scope, lookout) = match wide {
                Some(wide) => (&everywhere, wide),
                None => (&scope, self.open(&scope, false)),
            };
            let state = lookout.state.subscribe();
            if self.has(scope, &lookout) {
                break (lookout, state);
            }
        };
        *lock(&lookout.used) = Instant::now();
        let what = || format!("looking at {} in {namespace}", kind.plural);
        let seen = timeout(PATIENCE, state.wait_for(|state| *state != State::Opening)).await;
        match seen {
            Ok(Ok(state)) if *state == State::Missing => Ok(Vec::new()),
            Ok(Ok(_)) => {
                let here = |o: &Arc<DynamicObject>| {
                    o.metadata.namespace.as_ref().is_none_or(|there| there == namespace)
                };
                Ok(lookout.cache.all().into_iter().filter(here).collect())
            }
            Ok(Err(_)) | Err(_) => Err(Error::NotSeen(what())),
        }
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

    /// A mitigation is looked at again when one of these changes; `None` ends that.
    pub fn follow(self: &Arc<Self>, mitigation: &Key, look: Option<&Look>) {
        let scope = match look {
            Some(Look::List { kind, labels }) => Some(Scope {
                kind: *kind,
                namespace: kind.is_namespaced().then(|| mitigation.namespace.to_string()),
                labels: labels.clone(),
            }),
            Some(Look::One(_)) | None => None,
        };
        if let Some(scope) = &scope
            && !lock(&self.missing).contains_key(&scope.kind)
        {
            self.open(scope, false);
        }
        for (open, lookout) in lock(&self.open).iter() {
            let wanted = scope.as_ref() == Some(open);
            let mut followers = lock(&lookout.followers);
            if wanted {
                followers.insert(mitigation.clone());
            } else {
                followers.remove(mitigation);
            }
        }
    }

    /// Whether a mitigation is looked at again when an object of this kind changes.
    pub fn is_following(&self, mitigation: &Key, kind: TargetKind) -> bool {
        let open = lock(&self.open);
        open.iter().any(|(scope, l)| scope.kind == kind && lock(&l.followers).contains(mitigation))
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
        });
        if open.len() >= MAX_OPEN {
            // The one that was used least lately makes room; its task ends by itself.
            let oldest = open.iter().filter(|(_, l)| !l.kept).min_by_key(|(_, l)| *lock(&l.used));
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

    fn close(&self, scope: &Scope, lookout: &Arc<Lookout>) {
        let mut open = lock(&self.open);
        if open.get(scope).is_some_and(|known| Arc::ptr_eq(known, lookout)) {
            open.remove(scope);
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
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => break,
                    Some(Ok(event)) => {
                        let complete = matches!(event, watcher::Event::InitDone);
                        let news = lookout.cache.take_in(event);
                        if complete {
                            lookout.state.send_replace(State::Complete);
                        }
                        if !news.is_empty() {
                            for key in lock(&lookout.followers).iter() {
                                lookouts.queue.add(key.clone());
                            }
                        }
                    }
                    Some(Err(error)) => match code(&error) {
                        // Where the operator may not look it must go without.
                        Some(code @ (403 | 404)) => {
                            if code == 403 {
                                warn!(kind = scope.kind.kind, %error, "not allowed to look");
                            }
                            lock(&lookouts.missing).insert(scope.kind, Instant::now());
                            lookout.state.send_replace(State::Missing);
                            lookouts.close(&scope, &lookout);
                            return;
                        }
                        Some(400 | 422) if streaming => {
                            streaming = false;
                            break;
                        }
                        _ => warn!(kind = scope.kind.kind, %error, "watch interrupted; it is renewed"),
                    },
                },
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
mod tests {
    use super::*;
    use crate::mitigation::CONFIG_MAP;
    use futures::FutureExt;
    use http::{Request, Response};
    use kube::client::Body;

    /// An API server that has one ConfigMap and says that this is all.
    fn one_config_map() -> Client {
        let map = r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"flags","namespace":"shop","resourceVersion":"7"}}}"#;
        let end = r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"8","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let answer = move |_: Request<Body>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(
                format!("{map}\n{end}\n").into_bytes(),
            )))
        };
        Client::new(tower::service_fn(answer), "shop")
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_looked_and_lets_go_does_not_close_the_watch_that_another_waits_for() {
        let lookouts = Arc::new(Lookouts::new(one_config_map(), Arc::new(Queue::default())));
        let mut waits = Box::pin(lookouts.list(CONFIG_MAP, "shop", Some("app=x")));
        assert!((&mut waits).now_or_never().is_none(), "the watch was only begun");
        lookouts.let_go(CONFIG_MAP, "shop", Some("app=x"));
        let seen = timeout(Duration::from_secs(1), waits).await.expect("no wait for what never comes");
        assert_eq!(seen.expect("it was looked").len(), 1);
        assert!(!lock(&lookouts.open).is_empty());
        lookouts.let_go(CONFIG_MAP, "shop", Some("app=x"));
        assert!(lock(&lookouts.open).is_empty(), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_had_to_make_room_still_serves_those_who_wait_for_it() {
        let lookouts = Arc::new(Lookouts::new(one_config_map(), Arc::new(Queue::default())));
        let mut waits = Box::pin(lookouts.list(CONFIG_MAP, "shop", None));
        assert!((&mut waits).now_or_never().is_none(), "the watch was only begun");
        lock(&lookouts.open).clear();
        let seen = timeout(Duration::from_secs(1), waits).await.expect("no wait for what never comes");
        assert_eq!(seen.expect("it was looked").len(), 1);
    }
}
