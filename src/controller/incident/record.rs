//! What an incident leaves on record: its status, the Events that mirror it, and people's entries, which go once they are
//! in it.

use super::super::{Context, Error, Key, events::Note, news::reference, status};
use crate::{
    api::{Incident, MitigationPhase as Phase, TimelineEntry, TimelineEntryType, TimelineRecord},
    decide::incident::Plan,
};
use futures::TryStreamExt;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Entries of people that are removed in one round, and how many at the same time.
const REMOVED_AT_ONCE: usize = 64;
const REMOVERS: usize = 8;

/// Writes the status and, once it is written, mirrors what was added as Events.
pub(super) async fn record(ctx: &Context, key: &Key, incident: &Incident, plan: &Plan) -> Result<(), Error> {
    let api: Api<Incident> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let written = status::write(&api, incident, incident.status.as_ref(), &plan.status).await;
    let written = match written {
        Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => return Ok(()),
        other => other?,
    };
    if let Some(object) = written {
        ctx.metrics.record.reached(incident, &object);
        if let Some(news) = ctx.incidents.saw(object) {
            ctx.heard_of_incident(&news, true);
        }
        for added in &plan.added {
            ctx.events.tell(note(incident, added));
        }
    }
    Ok(())
}

fn note(incident: &Incident, record: &TimelineRecord) -> Note {
    let by = record.author.as_ref().map(|a| format!(" (by {a})")).unwrap_or_default();
    Note {
        regarding: reference(incident),
        source: record.entry_uid.clone(),
        related: None,
        reason: record.reason.clone(),
        message: format!("{}{by}", record.message),
        warning: matches!(
            record.reason.as_str(),
            "MitigationNotEffective"
                | "MitigationRefused"
                | "MitigationFailed"
                | "MitigationSuperseded"
                | "MitigationAbandoned"
                | "MitigationExpired"
                | "EvidenceMissing"
                | "Reopened"
                | "UpdateOverdue"
                | "ChecklistOverdue"
                | "NothingToAcknowledge"
        ),
        time: record.time.0,
    }
}

/// How long an entry may stay that could not be removed, before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Removes people's entries that are on record now, as many as a visit may take: an edit of the incident must not
/// wait for hundreds of them. When some are left, how soon they are looked at again.
pub(super) async fn remove_folded(
    ctx: &Context,
    key: &Key,
    folded: &[Arc<TimelineEntry>],
) -> Result<Option<Duration>, Error> {
    let there: Vec<_> = {
        let removed = ctx.removed();
        let is_removed = |e: &TimelineEntry| e.metadata.uid.as_ref().is_some_and(|uid| removed.contains(uid));
        let stays = |e: &TimelineEntry| {
            e.metadata.deletion_timestamp.is_some()
                || is_removed(e)
                || !is_known(ctx, e)
                || is_awaited(ctx, key, e)
        };
        folded.iter().filter(|e| !stays(e)).collect()
    };
    let left = AtomicBool::new(false);
    futures::stream::iter(there.iter().take(REMOVED_AT_ONCE).map(Ok))
        .try_for_each_concurrent(REMOVERS, |entry| remove(ctx, key, entry, &left))
        .await?;
    Ok(match there.len() > REMOVED_AT_ONCE {
        true => Some(Duration::ZERO),
        false => left.into_inner().then_some(LOOK_AGAIN),
    })
}

/// Whether an entry is still there, as far as the watch has told.
fn is_known(ctx: &Context, entry: &TimelineEntry) -> bool {
    ctx.entries.get(&Key::of(entry)).is_some_and(|known| known.metadata.uid == entry.metadata.uid)
}

/// Whether an approval or rejection is still to be judged by its mitigation, of which the entry itself is the proof.
fn is_awaited(ctx: &Context, key: &Key, entry: &TimelineEntry) -> bool {
    if !matches!(entry.spec.type_, TimelineEntryType::Approval | TimelineEntryType::Rejection) {
        return false;
    }
    let named = entry.spec.mitigation_ref.as_ref();
    let mitigation = named.and_then(|m| ctx.mitigations.get(&Key::new(&key.namespace, &m.name)));
    mitigation.is_some_and(|mitigation| {
        let status = mitigation.status.clone().unwrap_or_default();
        let settled = status.phase.is_some_and(Phase::is_ended) || status.applied_time.is_some();
        let judged = entry.metadata.uid.as_ref().is_some_and(|uid| status.judged_entries.contains(uid));
        let other = status.approval_digest.is_some() && status.approval_digest != entry.spec.digest;
        let ours = mitigation.spec.incident_ref.as_ref().is_none_or(|incident| *incident.name == *key.name);
        ours && mitigation.metadata.deletion_timestamp.is_none() && !settled && !judged && !other
    })
}

/// Sets `left` when the API server says that it is another, which the watch has not told.
async fn remove(ctx: &Context, key: &Key, entry: &TimelineEntry, left: &AtomicBool) -> Result<(), Error> {
    let api: Api<TimelineEntry> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let name = entry.name_any();
    let preconditions = Preconditions { uid: entry.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    // It stays known until the watch says that it is gone: were it forgotten now, an entry that is archived
    // meanwhile could be folded a second time.
    match api.delete(&name, &params).await {
        Ok(_) => {
            // The watch may have told already; then there is nothing to remember.
            let known = is_known(ctx, entry);
            ctx.removed().extend(entry.metadata.uid.clone().filter(|_| known));
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            left.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(Error::api(format!("removing timeline entry {}/{name}", key.namespace))(error)),
    }
}
