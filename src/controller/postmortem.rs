//! The driver of a postmortem: drafts it once, then keeps status and Markdown true and leaves the spec alone.

mod export;
mod kept;

use super::{
    Context, Error, Key,
    events::Note,
    json_patch::{self, Part},
    moment,
    news::reference,
    notify::Subject,
    status::{self, FIELD_MANAGER},
};
use crate::mutants::{Mutant, seeded};
use crate::{
    api::{Incident, Postmortem, PostmortemStatus, names},
    config::{ChannelAudience, Settings},
    decide::{
        conditions::Conditions,
        outbox::Outcome,
        postmortem::{EXPORT_REFUSED, Observed, began, decide, expected_uid, is_about, news, wake},
    },
};
use export::Exported;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{PatchParams, PostParams},
};
use serde_json::json;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::info;

pub use export::Exports;
pub use kept::watch;

/// Creates the draft and its record.
pub async fn draft(ctx: &Context, incident: &Key, mut draft: Postmortem) -> Result<(), Error> {
    let api: Api<Postmortem> = Api::namespaced(ctx.client.clone(), &incident.namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let record = draft.status.take();
    // Until the record is written nobody else is to work on it.
    let _claim = ctx.queues.postmortems.claim(&Key::of(&draft));
    let mut made = api.create(&params, &draft).await;
    if seeded(Mutant::RetryOfPost) && matches!(&made, Err(error) if !matches!(error, kube::Error::Api(_))) {
        draft.metadata.name = Some(names::hashed(&incident.name, "postmortem", "again"));
        made = api.create(&params, &draft).await;
    }
    if matches!(&made, Err(kube::Error::Api(status)) if status.code == 409) {
        let there = api.get_opt(&draft.name_any()).await;
        let there = there.map_err(Error::api(format!("reading postmortem {incident}")))?;
        let uid = draft.spec.incident_ref.as_ref().and_then(|r| r.uid.clone());
        // Gone again, or not seen yet: whose the name is can be told by the next visit.
        let Some(there) = there else { return Err(Error::Restless(format!("postmortem {incident}"))) };
        let began = record.as_ref().and_then(|r| r.incident.as_ref()?.started_time.as_ref()).map(|t| t.0);
        match is_about(&there, &incident.name, uid.as_ref(), began) {
            true => made = Ok(there),
            false => {
                // The name is that of another incident's postmortem.
                draft.metadata.name =
                    Some(names::hashed(&incident.name, "postmortem", uid.as_deref().unwrap_or_default()));
                made = api.create(&params, &draft).await;
            }
        }
    }
    let made = match made {
        // Under the second name, too, it was made by an earlier visit.
        Err(kube::Error::Api(status)) if status.code == 409 => api
            .get(&draft.name_any())
            .await
            .map_err(Error::api(format!("reading postmortem of {incident}")))?,
        other => other.map_err(Error::api(format!("drafting the postmortem of {incident}")))?,
    };
    info!(incident = %incident, postmortem = made.name_any(), "postmortem drafted");
    let made = match record.filter(|_| is_new(&made)) {
        Some(record) => status::write(&api, &made, None, &record).await?.unwrap_or(made),
        None => made,
    };
    // What is missed here is done at the first visit.
    let made = disown(&api, made.clone()).await.unwrap_or(made);
    saw(ctx, made, false);
    Ok(())
}

/// Gives the spec away: whoever writes it next owns what they write, and nobody needs to force anything.
async fn disown(api: &Api<Postmortem>, made: Postmortem) -> Result<Postmortem, Error> {
    let entries = made.metadata.managed_fields.as_deref().unwrap_or_default();
    let index = entries.iter().position(|e| {
        e.manager.as_deref() == Some(FIELD_MANAGER) && e.subresource.as_deref().unwrap_or("").is_empty()
    });
    let Some(index) = index else { return Ok(made) };
    let what = format!("giving away the spec of postmortem {}", made.name_any());
    let path = format!("/metadata/managedFields/{index}");
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": made.metadata.resource_version},
        {"op": "test", "path": format!("{path}/manager"), "value": FIELD_MANAGER},
        {"op": "remove", "path": path},
    ]);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match json_patch::send(api, Part::Object, &made.name_any(), &params, &patch).await {
        Ok(object) => Ok(object),
        // Somebody writes it already: the next visit sees what they wrote.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
            Err(Error::Restless(format!("postmortem {}", made.name_any())))
        }
        Err(error) => Err(Error::api(what)(error)),
    }
}

/// One visit. Answers when to come again.
pub async fn reconcile(ctx: &Arc<Context>, key: &Key) -> Result<Option<Instant>, Error> {
    let subject = Subject::Postmortem(key.clone());
    let Some(mut postmortem) = ctx.postmortems.get(key) else {
        ctx.notifier.forget(&subject);
        ctx.exports.forget(key);
        return Ok(None);
    };
    if postmortem.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let api: Api<Postmortem> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let around = Around::of(ctx, key, &postmortem);
    let now = Timestamp::now();
    let before = postmortem.status.clone();
    if is_new(&postmortem) {
        let status = decide(&around.seen(ctx, &postmortem), now);
        let Some(there) = first_visit(&api, &postmortem, status).await? else { return Ok(None) };
        saw(ctx, there.clone(), true);
        postmortem = Arc::new(there);
    }
    let mut object = postmortem.as_ref().clone();
    object.status = Some(decide(&around.seen(ctx, &postmortem), now));
    let exported = export::keep(ctx, key, &object, now).await?;
    let mut new = object.status.take().unwrap_or_default();
    let mut again = None;
    match exported {
        Exported::AsBefore => {}
        Exported::Waits(until) => again = Some(until),
        Exported::Written(export) => new.export = Some(export),
        Exported::Refused(words, at) => {
            let mut c = Conditions::new(&mut new.conditions, postmortem.metadata.generation, now);
            c.set("Ready", crate::api::ConditionStatus::True, EXPORT_REFUSED, words);
            again = Some(at);
        }
    }
    let written = status::write(&api, postmortem.as_ref(), postmortem.status.as_ref(), &new).await;
    match written {
        Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error),
        Ok(Some(object)) => saw(ctx, object, true),
        Ok(None) => {}
    }
    ctx.deliver(&subject);
    for news in news(before.as_ref(), &new) {
        ctx.events.tell(Note {
            regarding: reference(postmortem.as_ref()),
            source: None,
            related: None,
            reason: news.reason,
            message: news.message,
            warning: news.warning,
            time: now,
        });
    }
    let next = wake(&around.seen(ctx, &postmortem), &new, now);
    Ok(next.into_iter().chain(again).min().map(moment))
}

/// What else is seen.
struct Around {
    incident: Option<Arc<Incident>>,
    recorded_is_there: bool,
    namesakes: Vec<String>,
    settings: Arc<Settings>,
    outcomes: Vec<(ChannelAudience, Outcome)>,
}

impl Around {
    fn of(ctx: &Context, key: &Key, postmortem: &Postmortem) -> Around {
        let settings = ctx.settings();
        let subject = Subject::Postmortem(key.clone());
        let outcomes = ctx.notifier.outcomes(&subject, postmortem.metadata.uid.as_ref());
        let recorded = postmortem.status.as_ref().and_then(|s| s.incident.as_ref());
        let recorded_is_there = recorded.is_some_and(|recorded| {
            let there = ctx.incidents.get(&Key::new(&key.namespace, &recorded.name));
            there.is_some_and(|there| there.metadata.uid == recorded.uid)
        });
        let Some(named) = &postmortem.spec.incident_ref else {
            return Around { incident: None, recorded_is_there, namesakes: Vec::new(), settings, outcomes };
        };
        let incident = Key::new(&key.namespace, &named.name);
        let found = ctx.incidents.get(&incident);
        let there = found.as_ref().and_then(|i| i.metadata.uid.as_ref());
        let uid = expected_uid(postmortem).or(there);
        let began = found.as_deref().filter(|i| i.metadata.uid.as_ref() == uid).and_then(began);
        let namesakes = about(ctx, &incident.to_string(), uid, began).iter().map(|p| p.name_any()).collect();
        Around { incident: found, recorded_is_there, namesakes, settings, outcomes }
    }

    fn seen<'a>(&'a self, ctx: &'a Context, postmortem: &'a Postmortem) -> Observed<'a> {
        Observed {
            postmortem,
            incident: self.incident.as_deref(),
            recorded_is_there: self.recorded_is_there,
            namesakes: &self.namesakes,
            signed: ctx.signed,
            outcomes: &self.outcomes,
            settings: &self.settings,
        }
    }
}

/// The postmortems that are about an incident, by uid or by name alone. The first of them, which is the one that was
/// there first, counts for the incident.
pub(super) fn about(
    ctx: &Context,
    incident: &str,
    uid: Option<&String>,
    began: Option<Timestamp>,
) -> Vec<Arc<Postmortem>> {
    let mut found = ctx.postmortems.group(0, incident);
    let name = incident.rsplit('/').next().unwrap_or_default();
    found.retain(|p| is_about(p, name, uid, began));
    found.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.name_any()));
    found
}

/// Gives the spec away, if whoever drafted it was cut off before. `None`: it is gone.
///
/// The status is written first, all but the generation, which tells that this is done: the API server takes no
/// emptied list of managers, so another entry must be there before ours can go.
async fn first_visit(
    api: &Api<Postmortem>,
    known: &Postmortem,
    status: PostmortemStatus,
) -> Result<Option<Postmortem>, Error> {
    let before = known.status.clone().unwrap_or_default();
    let unseen = PostmortemStatus {
        observed_generation: before.observed_generation,
        // What is told of as an Event or a message is told by the write that completes the visit.
        conditions: before.conditions,
        reminders: before.reminders,
        communication: before.communication,
        ..status
    };
    let there = match status::write(api, known, known.status.as_ref(), &unseen).await? {
        Some(written) => Some(written),
        None => {
            let name = known.name_any();
            api.get_opt(&name).await.map_err(Error::api(format!("reading postmortem {name}")))?
        }
    };
    match there {
        Some(there) => disown(api, there).await.map(Some),
        None => Ok(None),
    }
}

/// Whether nobody has looked at the postmortem. A new one has a status that says so.
fn is_new(postmortem: &Postmortem) -> bool {
    let seen = postmortem.status.as_ref().and_then(|s| s.observed_generation);
    seen.is_none_or(|generation| generation < 0)
}

fn saw(ctx: &Context, object: Postmortem, own: bool) {
    if let Some(news) = ctx.postmortems.saw(object) {
        ctx.heard_of_postmortem(&news, own);
    }
}
