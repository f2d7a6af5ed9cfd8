//! What is known of the objects of one kind: from the watch, and from the answers to our own writes.
//!
//! An answer to a write is newer than what the watch has told so far. It is taken in at once, so the next
//! decision never rests on what was true before our own write, and the watch event that follows is recognised
//! as an echo.
//!
//! Objects that are at rest, as closed incidents are, are kept as compressed text: they are many, and hardly ever looked
//! at.

use super::key::Key;
use kube::{Resource, runtime::watcher::Event};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// So many objects that are gone are remembered. More are not deleted while an answer is on its way.
const REMEMBERED: usize = 4096;

/// What closed incidents have in common: names of fields, the checklist, conditions. Each is compressed as if this stood
/// before it, which makes it half as large. Whatever is in here is no more than a hint.
const IN_COMMON: &[u8] = include_bytes!("cache/at_rest.txt");

/// Groups objects under texts, for look-ups.
pub type Index<K> = fn(&K) -> Vec<String>;

/// The objects of one kind.
pub struct Cache<K: 'static> {
    state: Mutex<State<K>>,
    indexes: &'static [Index<K>],
    /// For our own kinds: whether an object is at rest. What the API server notes of writers is dropped then, too; it
    /// comes with the answers to our own writes.
    ours: Option<fn(&K) -> bool>,
    /// Gives back what reading set aside and did not need.
    fit: fn(&mut K),
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: HashMap<Key, Known<K>>,
    groups: Vec<HashMap<String, BTreeSet<Key>>>,
    /// Objects of a list that is being received; what is not among them afterwards is gone.
    listing: Option<HashSet<Key>>,
    /// Objects that are there and cannot be read.
    unreadable: HashSet<Key>,
    /// Versions of objects that were dropped. What is told of earlier ones, by the watch after our own write or by
    /// the answer to our own write after the watch, is older than what we knew, and must not be taken for the present.
    dropped: HashMap<Key, u64>,
    /// Those of which the watch has told that they are gone, oldest first: no answer is on its way for ever.
    gone: VecDeque<(Key, u64)>,
}

impl<K> State<K> {
    /// The key as it is kept. All who hold it for long share one copy of the names: thousands of copies that go after a
    /// start would leave the heap in pieces, among which everything that is made later is scattered.
    fn shared(&self, key: Key) -> Key {
        self.objects.get_key_value(&key).map_or(key, |(kept, _)| kept.clone())
    }

    /// The watch told that the object is gone, and its last version.
    fn remember(&mut self, key: Key, version: u64) {
        if self.gone.len() == REMEMBERED
            && let Some((key, version)) = self.gone.pop_front()
            && self.dropped.get(&key) == Some(&version)
        {
            self.dropped.remove(&key);
        }
        self.dropped.insert(key.clone(), version);
        self.gone.push_back((key, version));
    }
}

/// One object.
enum Known<K> {
    Whole(Arc<K>),
    /// JSON, compressed: as text alone it would be no smaller than decoded. The resourceVersion is beside it, since every
    /// piece of news asks for it.
    Text(u64, Box<[u8]>),
}

impl<K: Resource + Serialize + DeserializeOwned> Known<K> {
    fn new(object: &Arc<K>, at_rest: bool) -> Known<K> {
        // What cannot be written as text is kept as it is.
        let text = at_rest.then(|| serde_json::to_vec(object.as_ref()).ok()).flatten();
        text.map_or_else(
            || Known::Whole(object.clone()),
            |text| {
                let text = lz4_flex::block::compress_prepend_size_with_dict(&text, IN_COMMON);
                // A copy: cut to its length, the buffer, which is as large as it can get, would leave a hole in the heap.
                Known::Text(version(object.as_ref()), text.as_slice().into())
            },
        )
    }

    fn version(&self) -> u64 {
        match self {
            Known::Whole(object) => version(object.as_ref()),
            Known::Text(version, _) => *version,
        }
    }

    fn whole(&self) -> Option<Arc<K>> {
        match self {
            Known::Whole(object) => Some(object.clone()),
            // It was written from an object of this very type.
            Known::Text(_, text) => {
                let text = lz4_flex::block::decompress_size_prepended_with_dict(text, IN_COMMON).ok()?;
                serde_json::from_slice(&text).ok().map(Arc::new)
            }
        }
    }
}

/// What an event told.
pub enum News<K> {
    /// The object is new or another than before.
    Changed(Arc<K>),
    /// The object is gone; this is the last that was known.
    Gone(Arc<K>),
}

impl<K: Resource + Serialize + DeserializeOwned + 'static> Cache<K> {
    /// An empty cache for objects that are kept as they are.
    pub fn new(indexes: &'static [Index<K>]) -> Self {
        Self::with(indexes, None)
    }

    /// An empty cache for a kind of ours: without what the API server notes of writers, and as text while at rest.
    pub fn of_ours(indexes: &'static [Index<K>], at_rest: fn(&K) -> bool) -> Self {
        Self::with(indexes, Some(at_rest))
    }

    fn with(indexes: &'static [Index<K>], ours: Option<fn(&K) -> bool>) -> Self {
        let groups = indexes.iter().map(|_| HashMap::new()).collect();
        Cache {
            state: Mutex::new(State {
                objects: HashMap::new(),
                groups,
                listing: None,
                unreadable: HashSet::new(),
                dropped: HashMap::new(),
                gone: VecDeque::new(),
            }),
            indexes,
            ours,
            fit: |_| {},
            synced: watch::Sender::new(false),
        }
    }

    /// The same, which makes each object fit before it is kept.
    pub fn fitting(self, fit: fn(&mut K)) -> Self {
        Cache { fit, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // Nothing below panics between two statements that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object, when it is known.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.lock().objects.get(key).and_then(Known::whole)
    }

    /// The key of an object, of which a copy costs nothing where the object is known.
    pub fn key_of(&self, object: &K) -> Key {
        self.lock().shared(Key::of(object))
    }

    /// True when the object is there.
    pub fn contains(&self, key: &Key) -> bool {
        self.lock().objects.contains_key(key)
    }

    /// How many objects an index groups under each text.
    pub fn sizes(&self, index: usize) -> Vec<(String, usize)> {
        let state = self.lock();
        let groups = state.groups.get(index).into_iter().flatten();
        groups.map(|(text, keys)| (text.clone(), keys.len())).collect()
    }

    /// The objects that an index groups under a text.
    pub fn group(&self, index: usize, text: &str) -> Vec<Arc<K>> {
        let state = self.lock();
        let keys = state.groups.get(index).and_then(|groups| groups.get(text));
        keys.into_iter().flatten().filter_map(|key| state.objects.get(key)?.whole()).collect()
    }

    /// All objects that are not at rest.
    pub fn not_at_rest(&self) -> Vec<Arc<K>> {
        let state = self.lock();
        let awake = state.objects.values().filter_map(|known| match known {
            Known::Whole(object) => Some(object.clone()),
            Known::Text(..) => None,
        });
        awake.collect()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.lock().objects.values().filter_map(Known::whole).collect()
    }

    /// Takes in an object from the answer to a write. `None`: it was known, or something newer is.
    pub fn saw(&self, object: K) -> Option<News<K>> {
        let mut state = self.lock();
        let key = state.shared(Key::of(&object));
        if let Some(listing) = state.listing.as_mut() {
            listing.insert(key.clone());
        }
        self.put(&mut state, key, object)
    }

    /// Takes in an object that was read. It is as new as what was forgotten, or newer.
    pub fn was_read(&self, object: K) {
        let mut state = self.lock();
        let key = state.shared(Key::of(&object));
        if state.dropped.get(&key) == Some(&version(&object)) {
            state.dropped.remove(&key);
        }
        if let Some(listing) = state.listing.as_mut() {
            listing.insert(key.clone());
        }
        self.put(&mut state, key, object);
    }

    /// Takes in that an object is there that cannot be read: what was known of it stays known.
    pub fn saw_unreadable(&self, key: &Key) {
        let mut state = self.lock();
        state.unreadable.insert(key.clone());
        if let Some(listing) = state.listing.as_mut() {
            listing.insert(key.clone());
        }
    }

    /// True while an object is there that cannot be read.
    pub fn is_unreadable(&self, key: &Key) -> bool {
        self.lock().unreadable.contains(key)
    }

    /// One of the objects that are there and cannot be read.
    pub fn any_unreadable(&self) -> Option<Key> {
        self.lock().unreadable.iter().next().cloned()
    }

    /// Whether this version of an object, or a newer one, is known: then what the watch tells of it need not be read. If it
    /// is part of a list, that is noted.
    pub fn has(&self, key: &Key, version: u64, listed: bool) -> bool {
        let mut state = self.lock();
        let State { objects, listing, .. } = &mut *state;
        let known = objects.get_key_value(key).filter(|(_, known)| known.version() >= version);
        if let (Some((key, _)), Some(listing), true) = (known, listing.as_mut(), listed) {
            listing.insert(key.clone());
        }
        known.is_some()
    }

    /// Takes in from the answer to a write that an object is gone, or does not belong here any more.
    pub fn saw_gone(&self, last: &K) -> Option<News<K>> {
        let mut state = self.lock();
        let key = Key::of(last);
        if state.objects.get(&key).is_some_and(|known| known.version() > version(last)) {
            return None;
        }
        let known = self.drop_object(&mut state, &key)?;
        state.dropped.insert(key, version(last));
        Some(News::Gone(known))
    }

    /// Takes in from the watch that an object is gone of which it could only tell the name.
    pub fn heard_gone(&self, key: &Key) -> Option<News<K>> {
        let mut state = self.lock();
        state.dropped.remove(key);
        self.drop_object(&mut state, key).map(News::Gone)
    }

    /// What is known of an object proved to be outdated: it is unknown until something newer is heard.
    pub fn forget(&self, key: &Key) {
        let mut state = self.lock();
        if let Some(known) = self.drop_object(&mut state, key) {
            state.dropped.insert(key.clone(), version(known.as_ref()));
        }
    }

    /// Takes in a watch event.
    pub fn take_in(&self, event: Event<K>) -> Vec<News<K>> {
        let mut state = self.lock();
        match event {
            Event::Apply(object) => {
                let key = state.shared(Key::of(&object));
                self.put(&mut state, key, object).into_iter().collect()
            }
            Event::Delete(object) => {
                let key = Key::of(&object);
                let newer = state.objects.get(&key).is_some_and(|known| {
                    let another = || known.whole().is_some_and(|known| known.meta().uid != object.meta().uid);
                    known.version() > version(&object) && another()
                });
                if newer {
                    return Vec::new();
                }
                // The event tells the last state, with what was there when it stopped matching.
                self.drop_object(&mut state, &key);
                state.remember(key, version(&object));
                vec![News::Gone(Arc::new(object))]
            }
            Event::Init => {
                state.listing = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = state.shared(Key::of(&object));
                if let Some(listing) = state.listing.as_mut() {
                    listing.insert(key.clone());
                }
                self.put(&mut state, key, object).into_iter().collect()
            }
            Event::InitDone => {
                let listed = state.listing.take().unwrap_or_default();
                let State { dropped, gone, .. } = &mut *state;
                let remembered: HashSet<(&Key, u64)> =
                    gone.iter().map(|(key, version)| (key, *version)).collect();
                dropped.retain(|key, version| remembered.contains(&(key, *version)));
                state.unreadable.retain(|key| listed.contains(key));
                let gone: Vec<Key> =
                    state.objects.keys().filter(|key| !listed.contains(key)).cloned().collect();
                let news =
                    gone.iter().filter_map(|key| self.drop_object(&mut state, key)).map(News::Gone).collect();
                drop(state);
                self.synced.send_replace(true);
                news
            }
        }
    }

    fn put(&self, state: &mut State<K>, key: Key, mut object: K) -> Option<News<K>> {
        if state.objects.get(&key).is_some_and(|known| known.version() >= version(&object)) {
            return None;
        }
        if state.dropped.get(&key).is_some_and(|dropped| *dropped >= version(&object)) {
            return None;
        }
        state.dropped.remove(&key);
        state.unreadable.remove(&key);
        self.ungroup(state, &key);
        for (index, groups) in self.indexes.iter().zip(&mut state.groups) {
            for text in index(&object) {
                groups.entry(text).or_default().insert(key.clone());
            }
        }
        if self.ours.is_some() {
            object.meta_mut().managed_fields = None;
        }
        let at_rest = self.ours.is_some_and(|is_at_rest| is_at_rest(&object));
        if !at_rest {
            (self.fit)(&mut object);
        }
        let object = Arc::new(object);
        state.objects.insert(key, Known::new(&object, at_rest));
        Some(News::Changed(object))
    }

    fn drop_object(&self, state: &mut State<K>, key: &Key) -> Option<Arc<K>> {
        state.unreadable.remove(key);
        self.ungroup(state, key);
        state.objects.remove(key)?.whole()
    }

    fn ungroup(&self, state: &mut State<K>, key: &Key) {
        let Some(object) = state.objects.get(key).and_then(Known::whole) else { return };
        for (index, groups) in self.indexes.iter().zip(&mut state.groups) {
            for text in index(&object) {
                if let Some(keys) = groups.get_mut(&text) {
                    keys.remove(key);
                    if keys.is_empty() {
                        groups.remove(&text);
                    }
                }
            }
        }
    }

    /// Waits until the first list is complete.
    pub async fn wait_synced(&self) {
        // The sender lives as long as we do.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }
}

/// The resourceVersion as a number; Kubernetes has declared it comparable. What is no number counts as newest.
pub(super) fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
