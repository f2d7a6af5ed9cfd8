//! Every revision of an object, as a watch of the API server told it: for what must hold at all times, and for
//! how long something took.

use super::poll::{PATIENCE, wait_for};
use futures::StreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::task::JoinHandle;

/// One revision, or the deletion with the last state.
#[derive(Clone, Debug)]
pub struct Revision<K> {
    /// When the watch told it.
    pub seen: Instant,
    /// The object.
    pub object: K,
    /// Whether the object is gone now.
    pub deleted: bool,
}

/// A watch on one name that runs until it goes out of scope.
pub struct History<K> {
    revisions: Arc<Mutex<Vec<Revision<K>>>>,
    task: JoinHandle<()>,
}

impl<K> History<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Begins with the present state, if the object exists. An object of the same name that is made later is
    /// seen, too.
    pub async fn of(api: &Api<K>, name: &str) -> History<K> {
        let only = format!("metadata.name={name}");
        let present = api.list(&ListParams::default().fields(&only)).await.expect("objects can be listed");
        let start = present.metadata.resource_version.unwrap_or_default();
        let seen = Instant::now();
        let first = present.items.into_iter().map(|object| Revision { seen, object, deleted: false });
        let revisions = Arc::new(Mutex::new(first.collect::<Vec<_>>()));
        // The longest time that the API server lets a watch live; no test takes as long.
        let params = WatchParams::default().fields(&only).timeout(290);
        let mut events = api.watch(&params, &start).await.expect("objects can be watched").boxed();
        let known = revisions.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                let (object, deleted) = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                    WatchEvent::Deleted(object) => (object, true),
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
                };
                known.lock().unwrap().push(Revision { seen: Instant::now(), object, deleted });
            }
        });
        History { revisions, task }
    }

    /// All revisions so far, oldest first.
    pub fn revisions(&self) -> Vec<Revision<K>> {
        self.revisions.lock().unwrap().clone()
    }

    /// Waits for the first revision that is as wanted.
    #[track_caller]
    pub fn first(
        &self,
        what: &str,
        holds: impl Fn(&Revision<K>) -> bool,
    ) -> impl Future<Output = Revision<K>> {
        wait_for(PATIENCE, what, async move || {
            let revisions = self.revisions();
            let last = format!("{:?}", revisions.last().map(|revision| &revision.object));
            revisions.into_iter().find(&holds).ok_or(last)
        })
    }
}

impl<K> Drop for History<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
