//! The work queue of one kind: each object at most once, never two at a time for one object.
//!
//! kube-rs has a scheduler of its own, but it passes every request through a timer of millisecond resolution,
//! and that is a tenth of the time in which a mitigation takes effect. Here only what is to happen later sees a
//! timer. The queue never holds more than one place for an object, so it is as bounded as the objects are.

use super::key::Key;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// For so many objects there is always room.
const KEPT_ROOM: usize = 256;

/// The work queue of one kind.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Asked for while running.
    again: HashSet<Key>,
    later: BTreeMap<(Instant, u64), Key>,
    later_of: HashMap<Key, (Instant, u64)>,
    sequence: u64,
}

impl State {
    fn add(&mut self, key: Key) -> bool {
        if self.running.contains(&key) {
            self.again.insert(key);
            return false;
        }
        let new = self.queued.insert(key.clone());
        if new {
            self.ready.push_back(key);
        }
        new
    }

    fn cancel_later(&mut self, key: &Key) {
        if let Some(at) = self.later_of.remove(key) {
            self.later.remove(&at);
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some((&at, _)) = self.later.first_key_value() {
            if at.0 > now {
                return;
            }
            if let Some(key) = self.later.remove(&at) {
                self.later_of.remove(&key);
                self.add(key);
            }
        }
    }

    fn pop(&mut self) -> Option<Key> {
        while let Some(key) = self.ready.pop_front() {
            self.queued.remove(&key);
            if self.ready.is_empty() {
                // At a start everything waits; what that took is not needed any more.
                self.ready.shrink_to(KEPT_ROOM);
                self.queued.shrink_to(KEPT_ROOM);
            }
            if self.running.insert(key.clone()) {
                return Some(key);
            }
            // Claimed meanwhile: whoever claimed it runs it again afterwards.
            self.again.insert(key);
        }
        None
    }
}

/// The right to work on one object, until it is dropped.
pub struct Claim {
    queue: Arc<Queue>,
    key: Key,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let added = {
            let mut state = self.queue.lock();
            state.running.remove(&self.key);
            state.again.remove(&self.key) && state.add(self.key.clone())
        };
        if added {
            self.queue.changed.notify_one();
        }
    }
}

impl Claim {
    /// The object.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after each statement, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for an object to be looked at, as soon as possible.
    pub fn add(&self, key: Key) {
        if self.lock().add(key) {
            self.changed.notify_one();
        }
    }

    /// Sets when an object is looked at if nothing happens before; replaces what was set.
    pub fn set_later(&self, key: &Key, at: Option<Instant>) {
        let mut state = self.lock();
        state.cancel_later(key);
        let Some(at) = at else { return };
        state.sequence += 1;
        let slot = (at, state.sequence);
        state.later.insert(slot, key.clone());
        state.later_of.insert(key.clone(), slot);
        drop(state);
        self.changed.notify_one();
    }

    /// Claims an object outside the queue, unless somebody works on it.
    pub fn claim(self: &Arc<Self>, key: &Key) -> Option<Claim> {
        let free = self.lock().running.insert(key.clone());
        free.then(|| Claim { queue: self.clone(), key: key.clone() })
    }

    /// The next object to work on.
    pub async fn next(self: &Arc<Self>) -> Claim {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.pop() {
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return Claim { queue: self.clone(), key };
                }
                state.later.first_key_value().map(|(at, _)| at.0)
            };
            match due {
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// Number of objects that wait.
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::time::Duration;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test]
    async fn an_object_waits_in_one_place_however_often_it_is_asked_for() {
        let queue = Arc::new(Queue::default());
        for _ in 0..1000 {
            queue.add(key("a"));
        }
        assert_eq!(queue.depth(), 1);
        let _claim = queue.next().await;
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_room_for_all_that_waits_at_a_start_is_given_back() {
        let queue = Arc::new(Queue::default());
        for i in 0..10_000 {
            queue.add(key(&i.to_string()));
        }
        for _ in 0..10_000 {
            queue.next().await;
        }
        let state = queue.lock();
        assert!(state.ready.capacity() <= 2 * KEPT_ROOM, "{}", state.ready.capacity());
        assert!(state.queued.capacity() <= 2 * KEPT_ROOM, "{}", state.queued.capacity());
    }

    #[tokio::test]
    async fn two_never_work_on_one_object_and_what_is_asked_meanwhile_is_done_afterwards() {
        let queue = Arc::new(Queue::default());
        queue.add(key("a"));
        let claim = queue.next().await;
        queue.add(key("a"));
        assert!(queue.claim(&key("a")).is_none());
        assert!(queue.next().now_or_never().is_none());
        drop(claim);
        assert_eq!(*queue.next().await.key(), key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_on_when_to_look_again_counts() {
        let queue = Arc::new(Queue::default());
        let start = Instant::now();
        queue.set_later(&key("a"), Some(start + Duration::from_secs(60)));
        queue.set_later(&key("a"), Some(start + Duration::from_secs(5)));
        let claim = queue.next().await;
        assert_eq!(Instant::now() - start, Duration::from_secs(5));
        drop(claim);
        queue.set_later(&key("a"), Some(start + Duration::from_secs(90)));
        queue.set_later(&key("a"), None);
        tokio::time::advance(Duration::from_secs(200)).await;
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_claim_that_is_dropped_by_a_panic_frees_the_object() {
        let queue = Arc::new(Queue::default());
        queue.add(key("a"));
        let worker = tokio::spawn({
            let queue = queue.clone();
            async move {
                let _claim = queue.next().await;
                panic!("boom");
            }
        });
        assert!(worker.await.is_err());
        assert!(queue.claim(&key("a")).is_some());
    }
}
