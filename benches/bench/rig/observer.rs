//! An independent witness: a watch that stamps what it is told when it is told.

use super::NAMESPACE;
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, ResourceExt as _,
    api::DynamicObject,
    runtime::{watcher, watcher::Event},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinHandle};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A state of an object and when it was told; `None` once it is gone.
type State = (Instant, Option<Arc<Value>>);

#[derive(Default)]
struct Seen {
    states: HashMap<String, Vec<State>>,
    ready: bool,
}

/// Watches one kind in the bench's namespace until it is dropped.
pub struct Observer {
    what: String,
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    /// Begins; returns when it knows what is there.
    pub async fn of(api: Api<DynamicObject>) -> anyhow::Result<Observer> {
        let (seen, changed) = (Arc::new(Mutex::new(Seen::default())), Arc::new(Notify::new()));
        let what = api.resource_url().to_owned();
        let task = tokio::spawn(run(api, seen.clone(), changed.clone()));
        let observer = Observer { what, seen, changed, task };
        observer.wait("the first list", |seen| seen.ready.then_some(())).await?;
        Ok(observer)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait<T>(&self, what: &str, found: impl Fn(&Seen) -> Option<T>) -> anyhow::Result<T> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = found(&self.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found
            .with_context(|| format!("{} in {NAMESPACE}: {what} did not come within {PATIENCE:?}", self.what))
    }

    /// When the object was first seen as wanted, not before `since`.
    pub async fn when(
        &self,
        name: &str,
        since: Instant,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Instant> {
        self.wait(name, |seen| {
            let states = seen.states.get(name)?;
            let mut later = states.iter().filter(|(at, _)| *at >= since);
            later.find(|(_, object)| object.as_ref().is_some_and(|o| wanted(o))).map(|(at, _)| *at)
        })
        .await
    }

    /// When the object is as wanted now: not what it was at some time.
    pub async fn is(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Arc<Value>> {
        self.wait(name, |seen| {
            let object = seen.states.get(name)?.last()?.1.clone()?;
            wanted(&object).then_some(object)
        })
        .await
    }

    /// When the object is gone.
    pub async fn gone(&self, name: &str) -> anyhow::Result<Instant> {
        self.wait(name, |seen| {
            let (at, object) = seen.states.get(name)?.last()?;
            object.is_none().then_some(*at)
        })
        .await
    }

    /// Forgets what was seen of an object that is of no further interest, but for its last state.
    pub fn forget(&self, name: &str) {
        if let Some(states) = self.lock().states.get_mut(name) {
            let last = states.pop();
            states.clear();
            states.extend(last.filter(|(_, object)| object.is_some()));
        }
    }
}

async fn run(api: Api<DynamicObject>, seen: Arc<Mutex<Seen>>, changed: Arc<Notify>) {
    let mut events = watcher(api, watcher::Config::default()).boxed();
    loop {
        let event = events.try_next().await;
        let now = Instant::now();
        let (object, gone) = match event {
            Ok(Some(Event::Apply(object) | Event::InitApply(object))) => (object, false),
            Ok(Some(Event::Delete(object))) => (object, true),
            Ok(Some(Event::InitDone)) => {
                seen.lock().unwrap_or_else(PoisonError::into_inner).ready = true;
                changed.notify_waiters();
                continue;
            }
            Ok(Some(Event::Init)) => continue,
            Ok(None) => return,
            // The watch is renewed by itself.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let name = object.name_any();
        let state = if gone { None } else { serde_json::to_value(&object).ok().map(Arc::new) };
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .states
            .entry(name)
            .or_default()
            .push((now, state));
        changed.notify_waiters();
    }
}
