//! The driver of an incident: entries become objects and are acted on at once, the record is written in one
//! status write, and what was folded is removed.

use super::{
    BY_INCIDENT, Context, Error, Key, access,
    error::Retry,
    events::Note,
    mitigation, moment,
    news::reference,
    notify::Subject,
    orphans, postmortem,
    status::{self, FIELD_MANAGER, merge_difference},
    way_back,
};
use crate::mutants::{Mutant, seeded};
use crate::{
    api::{
        ConditionStatus, Incident, IncidentStatus, Mitigation, MitigationPhase as Phase, MitigationSpec,
        TimelineEntry, TimelineEntryType, TimelineRecord, names,
    },
    decide::{
        access::foreseen,
        conditions::Conditions,
        incident::{Archive, Effect, LOOK_AGAIN, Observed, Original, Plan, decide, drop_archived},
        mitigation::target_id,
    },
};
use futures::{TryStreamExt, future::join_all};
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::ObjectMeta,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

/// Rounds in one visit.
const MAX_ROUNDS: usize = 6;
/// How long the record waits for a mitigation that is being made, so that one write tells of both.
const RECORD_WAIT: Duration = Duration::from_millis(500);
/// Entries of people that are removed in one round, and how many at the same time.
const REMOVED_AT_ONCE: usize = 64;
const REMOVERS: usize = 8;
/// Key in an archive's data.
const ARCHIVE_KEY: &str = "timeline.json";

/// One visit. Answers when to come again.
pub async fn reconcile(ctx: &Arc<Context>, key: &Key) -> Result<Option<Instant>, Error> {
    let mut failed: Option<Error> = None;
    for round in 1..=MAX_ROUNDS {
        // Entries that name it wait for one of that name; its children are the garbage collector's.
        let Some(incident) = ctx.incidents.get(key) else {
            ctx.notifier.forget(&Subject::Incident(key.clone()));
            return orphans::tell(ctx, key).await;
        };
        let mut plan = plan(ctx, key, &incident);
        // What is done is seen by the next round; the record is written when nothing is left to do.
        if !plan.effects.is_empty() && failed.is_none() {
            match carry_out(ctx, key, std::mem::take(&mut plan.effects)).await {
                Err(error) if error.retry() == Retry::Soon => return Err(error),
                // It is tried again later; what else happened goes on record all the same.
                outcome => failed = outcome.err(),
            }
            continue;
        }
        if let Some(error) = &failed {
            report(&incident, &mut plan.status, error);
        }
        if let Some(archive) = plan.archive.take() {
            match store(ctx, key, &incident, &archive).await? {
                Some(stored) => drop_archived(&mut plan.status, &stored),
                None => plan.wake = Timestamp::now().checked_add(LOOK_AGAIN).ok(),
            }
        }
        keep_within_bounds(key, &mut plan.status);
        if seeded(Mutant::RemovedBeforeFolded) {
            remove_folded(ctx, key, &plan.folded).await?;
        }
        record(ctx, key, &incident, &plan).await?;
        ctx.deliver(&Subject::Incident(key.clone()));
        if remove_folded(ctx, key, &plan.folded).await? {
            plan.wake = Some(Timestamp::now());
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if plan.wake.is_none_or(|wake| wake > Timestamp::now()) || round == MAX_ROUNDS {
            let look = way_back::look(ctx, key, &incident, &plan.status);
            return Ok(plan.wake.into_iter().chain(look).min().map(moment));
        }
    }
    Err(Error::Restless(format!("incident {key}")))
}

/// Says what could not be done: the incident is not as it was asked for.
fn report(incident: &Incident, status: &mut IncidentStatus, error: &Error) {
    let mut c = Conditions::new(&mut status.conditions, incident.metadata.generation, Timestamp::now());
    c.set("Ready", ConditionStatus::False, "NotDone", error.words());
}

fn plan(ctx: &Context, key: &Key, incident: &Incident) -> Plan {
    let settings = ctx.settings();
    let uid = incident.metadata.uid.as_ref();
    let group = key.to_string();
    let mitigations: Vec<Arc<Mitigation>> = ctx
        .mitigations
        .group(BY_INCIDENT, &group)
        .into_iter()
        // The children of an earlier incident of the same name are not ours.
        .filter(|m| controller(m).is_none_or(|owner| Some(owner) == uid))
        .collect();
    let taken_names: HashMap<String, Option<String>> = incident
        .spec
        .mitigations
        .iter()
        .map(|entry| names::joined(&key.name, &entry.name))
        .filter_map(|name| {
            let object = ctx.mitigations.get(&Key::new(&key.namespace, &name))?;
            Some((name, controller(&object).cloned()))
        })
        .collect();
    let postmortem = postmortem::about(ctx, &group, uid).into_iter().next();
    let original = original(ctx, key, incident);
    let way_back = ctx.way_back.found(uid);
    let known = incident.status.iter().flat_map(|status| &status.mitigations).map(|s| s.name.clone());
    let unreadable: Vec<String> =
        known.filter(|name| ctx.mitigations.is_unreadable(&Key::new(&key.namespace, name))).collect();
    let observed = Observed {
        incident,
        mitigations: &mitigations,
        taken_names: &taken_names,
        entries: &ctx.entries.group(0, &group),
        postmortem: postmortem.as_deref(),
        original,
        way_back: way_back.as_deref(),
        unreadable: &unreadable,
        signed: ctx.signed,
        outcomes: &ctx.notifier.outcomes(&Subject::Incident(key.clone()), uid),
        settings: &settings,
    };
    decide(&observed, Timestamp::now())
}

/// What the incident is a duplicate of, and whether that leads back to it.
fn original(ctx: &Context, key: &Key, incident: &Incident) -> Option<Original> {
    let mut next = incident.spec.duplicate_of.as_ref()?.name.clone();
    let mut by = vec![key.name.to_string()];
    loop {
        if next == *key.name {
            return Some(Original::Circle(by));
        }
        let Some(other) = ctx.incidents.get(&Key::new(&key.namespace, &next)) else {
            // Only the one that it names itself must be there.
            return Some(if by.len() == 1 { Original::Missing } else { Original::Found });
        };
        if by.contains(&next) {
            // Others go round in a circle; each of them says so.
            return Some(Original::Found);
        }
        by.push(next);
        match &other.spec.duplicate_of {
            Some(further) => next = further.name.clone(),
            None => return Some(Original::Found),
        }
    }
}

fn controller(mitigation: &Mitigation) -> Option<&String> {
    mitigation.owner_references().iter().find(|o| o.controller == Some(true)).map(|o| &o.uid)
}

// ---- effects -------------------------------------------------------------------------------------------------

async fn carry_out(ctx: &Arc<Context>, key: &Key, effects: Vec<Effect>) -> Result<(), Error> {
    let all = effects.into_iter().map(|effect| async {
        match effect {
            Effect::CreateMitigation(child) => make(ctx, key, *child).await,
            Effect::UpdateMitigation { object, spec, signatures } => {
                edit(ctx, key, &object, &spec, &signatures).await
            }
            Effect::DeleteMitigation(object) => delete(ctx, key, &object).await,
            Effect::CreatePostmortem(draft) => postmortem::draft(ctx, key, *draft).await,
        }
    });
    join_all(all).await.into_iter().collect()
}

/// Makes a Mitigation and acts on it at once: the target is read while the object is written, and its own
/// watch event is not waited for.
async fn make(ctx: &Arc<Context>, key: &Key, child: Mitigation) -> Result<(), Error> {
    let child_key = Key::of(&child);
    let api: Api<Mitigation> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let Some(claim) = ctx.queues.mitigations.claim(&child_key) else {
        // Somebody works on an object of this name; what it is will be known when they are done.
        return Err(Error::Restless(format!("mitigation {child_key}")));
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let target = async {
        let target = target_id(&child)?;
        match ctx.targets.known(&key.namespace, &target) {
            Some(_) => None,
            None => Some((target.clone(), ctx.targets.read(&key.namespace, &target).await)),
        }
    };
    let questions = if ctx.signed { foreseen(&child) } else { Vec::new() };
    let asking = access::ask(&ctx.client, &key.namespace, questions);
    let (made, target, answers) = tokio::join!(api.create(&params, &child), target, asking);
    // What could not be asked now is asked again.
    let ahead = mitigation::Ahead { target, answers: answers.unwrap_or_default() };
    match made {
        Ok(object) => {
            info!(incident = %key, mitigation = %child_key, "mitigation made");
            saw_mitigation(ctx, object, true);
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            // It was made before, or the name is somebody else's: the next round sees which.
            let what = format!("reading mitigation {child_key}");
            if let Some(object) = api.get_opt(&child_key.name).await.map_err(Error::api(what))? {
                drop(claim);
                saw_mitigation(ctx, object, false);
            }
            return Ok(());
        }
        Err(error) => return Err(Error::api(format!("making mitigation {child_key}"))(error)),
    }
    let worker = {
        let (ctx, child_key) = (ctx.clone(), child_key.clone());
        tokio::spawn(async move {
            let _claim = claim;
            let started = Instant::now();
            match mitigation::reconcile(&ctx, &child_key, ahead).await {
                Ok(later) => {
                    ctx.queues.mitigations.set_later(&child_key, later);
                    ctx.metrics.reconciled("mitigation", started.elapsed(), later.is_some());
                }
                // The queue tries again, with its own patience.
                Err(error) => {
                    debug!(mitigation = %child_key, %error, "first visit failed");
                    ctx.queues.mitigations.add(child_key);
                }
            }
        })
    };
    // A slow target must not keep the record waiting.
    if let Ok(Err(_panicked)) = timeout(RECORD_WAIT, worker).await {
        ctx.queues.mitigations.add(child_key);
    }
    Ok(())
}

/// Carries an edit of an entry over.
async fn edit(
    ctx: &Arc<Context>,
    key: &Key,
    object: &Mitigation,
    spec: &MitigationSpec,
    signatures: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let name = object.name_any();
    let what = format!("updating mitigation {}/{name}", key.namespace);
    let value = |spec: &MitigationSpec| serde_json::to_value(spec);
    let (old, new) = match (value(&object.spec), value(spec)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(e), _) | (_, Err(e)) => return Err(Error::api(what)(kube::Error::SerdeError(e))),
    };
    let Some(difference) = merge_difference(&old, &new) else { return Ok(()) };
    let patch = json!({
        "metadata": {
            "resourceVersion": object.metadata.resource_version,
            "uid": object.metadata.uid,
            "annotations": signatures,
        },
        "spec": difference,
    });
    let api: Api<Mitigation> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let object = api.patch(&name, &params, &Patch::Merge(patch)).await.map_err(Error::api(what))?;
    saw_mitigation(ctx, object, false);
    Ok(())
}

/// Deletes the Mitigation of an entry that was taken out; its finalizer makes that a release.
async fn delete(ctx: &Arc<Context>, key: &Key, object: &Mitigation) -> Result<(), Error> {
    let name = object.name_any();
    let preconditions = Preconditions { uid: object.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let api: Api<Mitigation> = Api::namespaced(ctx.client.clone(), &key.namespace);
    match api.delete(&name, &params).await {
        Ok(answer) => {
            if let either::Either::Left(object) = answer {
                saw_mitigation(ctx, object, false);
            }
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Error::api(format!("deleting mitigation {}/{name}", key.namespace))(error)),
    }
}

fn saw_mitigation(ctx: &Context, object: Mitigation, worked_on: bool) {
    if let Some(news) = ctx.mitigations.saw(object) {
        ctx.heard_of_mitigation(&news, worked_on);
    }
}

// ---- the record ----------------------------------------------------------------------------------------------

/// Writes the status and, once it is written, mirrors what was added as Events.
async fn record(ctx: &Context, key: &Key, incident: &Incident, plan: &Plan) -> Result<(), Error> {
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
                | "Reopened"
                | "UpdateOverdue"
                | "ChecklistOverdue"
                | "NothingToAcknowledge"
        ),
        time: record.time.0,
    }
}

/// Removes people's entries that are on record now, as many as a visit may take: an edit of the incident must not
/// wait for hundreds of them. True when some are left.
async fn remove_folded(ctx: &Context, key: &Key, folded: &[Arc<TimelineEntry>]) -> Result<bool, Error> {
    let there: Vec<_> = {
        let removed = ctx.removed();
        let is_removed = |e: &TimelineEntry| e.metadata.uid.as_ref().is_some_and(|uid| removed.contains(uid));
        let stays = |e: &TimelineEntry| {
            e.metadata.deletion_timestamp.is_some() || is_removed(e) || is_awaited(ctx, key, e)
        };
        folded.iter().filter(|e| !stays(e)).collect()
    };
    futures::stream::iter(there.iter().take(REMOVED_AT_ONCE).map(Ok))
        .try_for_each_concurrent(REMOVERS, |entry| remove(ctx, key, entry))
        .await?;
    Ok(there.len() > REMOVED_AT_ONCE)
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

async fn remove(ctx: &Context, key: &Key, entry: &TimelineEntry) -> Result<(), Error> {
    let api: Api<TimelineEntry> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let name = entry.name_any();
    let preconditions = Preconditions { uid: entry.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    // It stays known until the watch says that it is gone: were it forgotten now, an entry that is archived
    // meanwhile could be folded a second time.
    match api.delete(&name, &params).await {
        Ok(_) => {
            // The watch may have told already; then there is nothing to remember.
            let known =
                ctx.entries.get(&Key::of(entry)).is_some_and(|e| e.metadata.uid == entry.metadata.uid);
            ctx.removed().extend(entry.metadata.uid.clone().filter(|_| known));
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Error::api(format!("removing timeline entry {}/{name}", key.namespace))(error)),
    }
}

/// Stores entries in an immutable ConfigMap. Answers what is in it, which after a crash may be what an earlier
/// visit put there; `None` when the operator may not write it.
async fn store(
    ctx: &Context,
    key: &Key,
    incident: &Incident,
    archive: &Archive,
) -> Result<Option<Vec<TimelineRecord>>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    for name in [&archive.name, &archive.other_name] {
        let what = || format!("archiving the timeline in config map {}/{name}", key.namespace);
        let object = archive_object(incident, name, &archive.records)
            .map_err(|e| Error::api(what())(kube::Error::SerdeError(e)))?;
        match api.create(&params, &object).await {
            Ok(_) => return Ok(Some(archive.records.clone())),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                warn!(incident = %key, error = status.message, "the timeline cannot be archived now");
                return Ok(None);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there = api.get(name).await.map_err(Error::api(what()))?;
                let ours = there.annotations().get(UID_ANNOTATION) == incident.metadata.uid.as_ref();
                let text = there.data.as_ref().and_then(|d| d.get(ARCHIVE_KEY)).filter(|_| ours);
                if let Some(records) = text.and_then(|t| serde_json::from_str(t).ok()) {
                    return Ok(Some(records));
                }
            }
            Err(error) => return Err(Error::api(what())(error)),
        }
    }
    Ok(None)
}

fn archive_object(
    incident: &Incident,
    name: &str,
    records: &[TimelineRecord],
) -> serde_json::Result<ConfigMap> {
    let labels = [
        ("app.kubernetes.io/managed-by".to_owned(), "incident-operator".to_owned()),
        (crate::api::INCIDENT_LABEL.to_owned(), names::label_value(&incident.name_any())),
    ];
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: incident.metadata.namespace.clone(),
            labels: Some(labels.into()),
            annotations: incident.metadata.uid.clone().map(|uid| [(UID_ANNOTATION.to_owned(), uid)].into()),
            ..ObjectMeta::default()
        },
        data: Some([(ARCHIVE_KEY.to_owned(), serde_json::to_string_pretty(records)?)].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    })
}

/// Where the archive cannot be written, the oldest entries make room: a status that the API server refuses
/// would stop everything.
fn keep_within_bounds(key: &Key, status: &mut IncidentStatus) {
    let excess = status.timeline.len().saturating_sub(MAX_INLINE);
    if excess > 0 {
        warn!(incident = %key, lost = excess, "the timeline cannot be archived: its oldest entries are lost");
        status.timeline.drain(..excess);
    }
}

/// The schema's maximum for the timeline in the status.
const MAX_INLINE: usize = 256;

/// Names the incident, by uid, whose timeline an archive holds.
const UID_ANNOTATION: &str = "incident-operator.dev/incident-uid";
