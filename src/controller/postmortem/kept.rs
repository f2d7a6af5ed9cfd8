//! Whether the ConfigMaps with the Markdown are as they were written: one watch of their metadata alone. One that somebody
//! changes or deletes is written again.

use super::{
    super::{
        Context, Key, client::watch_config, indexes::BY_EXPORT, renew::Renewal, supervise, watch::interrupted,
    },
    export::POSTMORTEM_LABEL,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use std::{collections::HashMap, sync::Arc};

/// Watches them, in all namespaces or in one.
pub fn watch(ctx: &Arc<Context>, client: &Client, namespace: Option<&str>) {
    let api: Api<PartialObjectMeta<ConfigMap>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let ctx = ctx.clone();
    supervise::spawn("watch of exported postmortems", move || {
        let (ctx, api) = (ctx.clone(), api.clone());
        async move {
            // Which name which of them is known from their status.
            ctx.postmortems.wait_synced().await;
            let config = watch_config().labels(POSTMORTEM_LABEL);
            let mut events = std::pin::pin!(watcher(api, config).backoff(Renewal::default()));
            let mut listing = HashMap::new();
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init) => listing.clear(),
                    Ok(Event::InitApply(map)) => {
                        listing.insert(Key::of(&map).to_string(), map.metadata.resource_version);
                    }
                    Ok(Event::InitDone) => {
                        for (name, _) in ctx.postmortems.sizes(BY_EXPORT) {
                            ctx.heard_of_export(&name, listing.remove(&name).flatten().as_deref());
                        }
                        listing = HashMap::new();
                    }
                    Ok(Event::Apply(map)) => {
                        let version = map.metadata.resource_version.as_deref();
                        ctx.heard_of_export(&Key::of(&map).to_string(), version);
                    }
                    Ok(Event::Delete(map)) => ctx.heard_of_export(&Key::of(&map).to_string(), None),
                    Err(error) => interrupted("ConfigMap", &error),
                }
            }
        }
    });
}

impl Context {
    /// The ConfigMap `namespace/name` has this resourceVersion, or is not there.
    fn heard_of_export(&self, name: &str, version: Option<&str>) {
        for postmortem in self.postmortems.group(BY_EXPORT, name) {
            let key = Key::of(postmortem.as_ref());
            if self.exports.found(&key, version) {
                self.queues.postmortems.add(key);
            }
        }
    }
}
