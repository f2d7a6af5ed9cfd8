//! The watches: each feeds one cache and tells what its news makes worth looking at.
//!
//! On every replica, so that a standby has warm caches; what is queued there waits until it leads.

use super::{
    Context, Key,
    cache::{Cache, News, version},
    client::{PAGE, watch_config},
    guard::Guarded,
    invalid::Reports,
    postmortem,
    renew::Renewal,
    supervise,
    targets::news_text,
};
use crate::{
    api::{Incident, Mitigation, MitigationPolicy, Postmortem, TimelineEntry},
    mitigation::{
        API_SERVICE, CUSTOM_RESOURCE_DEFINITION, HORIZONTAL_POD_AUTOSCALER, MUTATING_WEBHOOKS, TargetKind,
        VALIDATING_WEBHOOKS,
    },
};
use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, sync::Arc};
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// Starts every watch.
pub fn start(ctx: &Arc<Context>, client: &Client, namespace: Option<&str>) {
    let reports = Arc::new(Reports::default());
    start_one(
        ctx,
        client,
        namespace,
        &reports,
        |ctx| &ctx.incidents,
        |ctx, n: &News<Incident>| {
            ctx.heard_of_incident(n, false);
        },
    );
    start_one(
        ctx,
        client,
        namespace,
        &reports,
        |ctx| &ctx.mitigations,
        |ctx, n: &News<Mitigation>| {
            ctx.heard_of_mitigation(n, false);
        },
    );
    start_one(
        ctx,
        client,
        namespace,
        &reports,
        |ctx| &ctx.entries,
        |ctx, n: &News<TimelineEntry>| {
            ctx.heard_of_entry(n);
        },
    );
    start_one(
        ctx,
        client,
        namespace,
        &reports,
        |ctx| &ctx.postmortems,
        |ctx, n: &News<Postmortem>| {
            ctx.heard_of_postmortem(n, false);
        },
    );
    postmortem::watch(ctx, client, namespace);
    if ctx.reads_policies {
        follow(
            ctx,
            Api::all(client.clone()),
            &reports,
            |ctx| &ctx.policies,
            |ctx, n: &News<MitigationPolicy>| ctx.heard_of_policy(n),
        );
    }
    for kind in crate::mitigation::held_kinds().into_iter().filter(TargetKind::is_always_watched) {
        start_targets(ctx, kind, namespace);
    }
    ctx.lookouts.keep(HORIZONTAL_POD_AUTOSCALER, namespace);
    for kind in [VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS, API_SERVICE, CUSTOM_RESOURCE_DEFINITION] {
        ctx.lookouts.keep(kind, None);
    }
}

fn start_one<K>(
    ctx: &Arc<Context>,
    client: &Client,
    namespace: Option<&str>,
    reports: &Arc<Reports>,
    cache: fn(&Context) -> &Cache<K>,
    heard: fn(&Arc<Context>, &News<K>),
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Serialize
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<Guarded<K>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    follow(ctx, api, reports, cache, heard);
}

fn follow<K>(
    ctx: &Arc<Context>,
    api: Api<Guarded<K>>,
    reports: &Arc<Reports>,
    cache: fn(&Context) -> &Cache<K>,
    heard: fn(&Arc<Context>, &News<K>),
) where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (ctx, reports) = (ctx.clone(), reports.clone());
    supervise::spawn(format!("watch of {}", K::kind(&())), move || {
        let (ctx, reports, api) = (ctx.clone(), reports.clone(), api.clone());
        async move {
            let events = watcher(api, watch_config()).backoff(Renewal::default());
            let mut events = std::pin::pin!(events);
            let take_in = move |event| {
                let news = match readable(&ctx, &reports, cache(&ctx), event) {
                    Readable::Event(event) => cache(&ctx).take_in(event),
                    Readable::Gone(key) => cache(&ctx).heard_gone(&key).into_iter().collect(),
                    Readable::No => Vec::new(),
                };
                for news in news {
                    heard(&ctx, &news);
                }
            };
            let mut pages = Pages::new(take_in.clone());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event @ watcher::Event::InitApply(_)) => pages.add(event).await,
                    Ok(event) => {
                        pages.done().await;
                        take_in(event);
                    }
                    Err(error) => interrupted(&K::kind(&()), &error),
                }
            }
        }
    });
}

/// What a list told and was not taken in yet. That is done a page at a time, while the next page is on its way.
struct Pages<E, F> {
    take_in: F,
    page: Vec<E>,
    under_way: JoinSet<()>,
}

impl<E: Send + 'static, F: FnMut(E) + Clone + Send + 'static> Pages<E, F> {
    fn new(take_in: F) -> Self {
        Pages { take_in, page: Vec::new(), under_way: JoinSet::new() }
    }

    async fn add(&mut self, event: E) {
        self.page.push(event);
        if self.page.len() >= PAGE {
            self.turn().await;
        }
    }

    /// Everything so far is taken in.
    async fn done(&mut self) {
        if !self.page.is_empty() {
            self.turn().await;
        }
        self.finished().await;
    }

    /// In order: one page after the other.
    async fn turn(&mut self) {
        self.finished().await;
        let (page, take_in) = (std::mem::take(&mut self.page), self.take_in.clone());
        self.under_way.spawn(async move { page.into_iter().for_each(take_in) });
    }

    async fn finished(&mut self) {
        while let Some(ended) = self.under_way.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                // As if it had happened here: the watch is begun anew.
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// What is known after an event.
enum Readable<K> {
    /// Its object can be read.
    Event(watcher::Event<K>),
    /// An object that cannot be read is gone.
    Gone(Key),
    /// Nothing new: the object is known, or cannot be read.
    No,
}

/// The event, when its object can be read; else the object is reported.
fn readable<K>(
    ctx: &Arc<Context>,
    reports: &Arc<Reports>,
    cache: &Cache<K>,
    event: watcher::Event<Guarded<K>>,
) -> Readable<K>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (mut gone, mut listed) = (false, false);
    let (wrap, guarded): (fn(K) -> watcher::Event<K>, _) = match event {
        watcher::Event::Init => return Readable::Event(watcher::Event::Init),
        watcher::Event::InitDone => return Readable::Event(watcher::Event::InitDone),
        watcher::Event::InitApply(object) => {
            listed = true;
            (watcher::Event::InitApply, object)
        }
        watcher::Event::Apply(object) => (watcher::Event::Apply, object),
        watcher::Event::Delete(object) => {
            gone = true;
            (watcher::Event::Delete, object)
        }
    };
    let key = Key::of(&guarded);
    if !gone && cache.has(&key, version(&guarded), listed) {
        reports.forget::<K>(&key);
        return Readable::No;
    }
    match guarded.read() {
        Ok(object) => {
            reports.forget::<K>(&key);
            Readable::Event(wrap(object))
        }
        Err(invalid) => {
            if gone {
                reports.forget::<K>(&key);
                return Readable::Gone(key);
            }
            cache.saw_unreadable(&key);
            let (ctx, reports) = (ctx.clone(), reports.clone());
            tokio::spawn(async move {
                reports.report::<K>(&ctx, &invalid.metadata, &invalid.error).await;
            });
            Readable::No
        }
    }
}

/// Watches the held objects of a kind.
pub fn start_targets(ctx: &Arc<Context>, kind: TargetKind, namespace: Option<&str>) {
    let (ctx, namespace) = (ctx.clone(), namespace.map(str::to_owned));
    supervise::spawn(format!("watch of {}", kind.kind), move || {
        let ctx = ctx.clone();
        let events = ctx.targets.watch(kind, namespace.as_deref());
        let cache = ctx.targets.cache(kind);
        async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        interrupted(kind.kind, &error);
                        continue;
                    }
                };
                for news in cache.take_in(event) {
                    ctx.wake_mitigations_of(&news_text(kind, &news), None);
                }
            }
        }
    });
}

/// Tells in the log that a watch was interrupted.
pub fn interrupted(kind: &str, error: &watcher::Error) {
    match error {
        // The API server has forgotten the revision: the objects are listed anew, as they should be.
        watcher::Error::WatchError(status) if status.code == 410 => debug!(kind, "watch begins anew"),
        error => warn!(kind, %error, "watch interrupted; it is renewed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn what_a_list_tells_is_taken_in_in_its_order_and_all_of_it_before_what_follows() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let mut pages = Pages::new(move |n: usize| sink.lock().unwrap().push(n));
        for n in 0..=2 * PAGE {
            pages.add(n).await;
        }
        pages.done().await;
        assert_eq!(*seen.lock().unwrap(), (0..=2 * PAGE).collect::<Vec<_>>());
        pages.done().await;
    }

    #[tokio::test]
    async fn a_panic_while_a_page_is_taken_in_ends_the_watch_as_any_other_does() {
        let mut pages = Pages::new(|n: usize| assert_ne!(n, PAGE / 2, "seeded"));
        let outcome = tokio::spawn(async move {
            for n in 0..PAGE {
                pages.add(n).await;
            }
            pages.done().await;
        });
        assert!(outcome.await.unwrap_err().is_panic());
    }
}
