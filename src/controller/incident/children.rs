//! The children of an incident: an entry becomes a Mitigation that is acted on at once, an edit is carried over, and one
//! that was taken out is deleted.

use super::super::{
    Context, Error, Key, access, mitigation, postmortem, run,
    status::{FIELD_MANAGER, merge_difference},
};
use crate::{
    api::{Mitigation, MitigationSpec},
    decide::{access::foreseen, incident::Effect, mitigation::target_id},
};
use futures::future::join_all;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info};

/// How long the record waits for a mitigation that is being made, so that one write tells of both.
const RECORD_WAIT: Duration = Duration::from_millis(500);

pub(super) async fn carry_out(ctx: &Arc<Context>, key: &Key, effects: Vec<Effect>) -> Result<(), Error> {
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
            match run::bounded(mitigation::reconcile(&ctx, &child_key, ahead)).await {
                Ok(later) => {
                    ctx.queues.mitigations.set_later(&child_key, later);
                    ctx.metrics.reconciled("mitigation", started.elapsed(), later.is_some());
                }
                // The queue tries again, with its own patience.
                Err(error) => {
                    match &error {
                        Error::Panicked(_) => error!(mitigation = %child_key, %error, "first visit failed"),
                        error => debug!(mitigation = %child_key, %error, "first visit failed"),
                    }
                    ctx.metrics.failed("mitigation", started.elapsed(), error.category());
                    ctx.queues.mitigations.add(child_key);
                }
            }
        })
    };
    // A slow target must not keep the record waiting.
    let _ = timeout(RECORD_WAIT, worker).await;
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
