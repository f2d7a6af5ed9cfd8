//! Timeline entries whose incident does not exist. They wait, because it may be on its way in the same `kubectl
//! apply`; after a while they say so themselves, where their author looks.

use super::{Context, Error, Key, moment, status};
use crate::{
    api::{ConditionStatus, TimelineEntry},
    decide::conditions::{Conditions, find, one_line},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use std::sync::Arc;
use tokio::time::Instant;

/// How long an entry waits before it says what it waits for.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// Tells on each entry that it waits for an incident of this name. Answers when to look again.
pub async fn tell(ctx: &Context, key: &Key) -> Result<Option<Instant>, Error> {
    let now = Timestamp::now();
    let mut again: Option<Timestamp> = None;
    for entry in ctx.entries.group(0, &key.to_string()) {
        let conditions = entry.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        if entry.metadata.deletion_timestamp.is_some() || find(conditions, "Folded").is_some() {
            continue;
        }
        let due = entry.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0) + PATIENCE;
        if due > now {
            again = Some(again.map_or(due, |a| a.min(due)));
            continue;
        }
        mark(ctx, key, &entry).await?;
    }
    Ok(again.map(moment))
}

async fn mark(ctx: &Context, key: &Key, entry: &Arc<TimelineEntry>) -> Result<(), Error> {
    let mut wanted = entry.status.clone().unwrap_or_default();
    let name = one_line(&key.name, 253);
    let (reason, message) = if ctx.incidents.is_unreadable(key) {
        let words = format!(
            "incident {name} is there and cannot be read, as one that a newer version wrote: the entry waits"
        );
        ("IncidentUnreadable", words)
    } else {
        let words = format!(
            "there is no incident {name} in namespace {}: the entry waits for one, or delete it and name another; \
             incidents of other namespaces cannot be named",
            key.namespace
        );
        ("IncidentNotFound", words)
    };
    let mut c = Conditions::new(&mut wanted.conditions, entry.metadata.generation, Timestamp::now());
    c.set("Folded", ConditionStatus::False, reason, message);
    let api: Api<TimelineEntry> = Api::namespaced(ctx.client.clone(), &key.namespace);
    match status::write(&api, entry, entry.status.as_ref(), &wanted).await {
        // It went or changed meanwhile; its watch says what became of it.
        Err(Error::Api { source: kube::Error::Api(status), .. }) if matches!(status.code, 404 | 409) => {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}
