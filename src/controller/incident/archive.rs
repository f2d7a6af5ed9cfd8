//! The archive of an incident: entries that no longer fit into its status, in immutable ConfigMaps.

use super::super::{Context, Error, Key, error::refuses, status::FIELD_MANAGER};
use crate::{
    api::{
        INCIDENT_UID_ANNOTATION, Incident, IncidentStatus, MANAGED_BY, MANAGED_BY_LABEL, TimelineRecord,
        names,
    },
    decide::{
        archive::{ARCHIVE_KEY, entries},
        incident::Archive,
    },
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt, api::PostParams, core::ObjectMeta};
use tracing::warn;

/// The schema's maximum for the timeline in the status.
const MAX_INLINE: usize = 256;

/// Stores entries in an immutable ConfigMap. Answers what is in it, which after a crash may be what an earlier
/// visit put there; the inner error is the API server's refusal, in its words.
pub(super) async fn store(
    ctx: &Context,
    key: &Key,
    incident: &Incident,
    archive: &Archive,
) -> Result<Result<Vec<TimelineRecord>, String>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    for name in [&archive.name, &archive.other_name] {
        let what = || format!("archiving the timeline in config map {}/{name}", key.namespace);
        let object = archive_object(incident, name, &archive.records)
            .map_err(|e| Error::api(what())(kube::Error::SerdeError(e)))?;
        match api.create(&params, &object).await {
            Ok(_) => return Ok(Ok(archive.records.clone())),
            Err(kube::Error::Api(status)) if refuses(status.code) => return Ok(Err(status.message.clone())),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there = api.get(name).await.map_err(Error::api(what()))?;
                if let Some(records) = entries(&there, incident.metadata.uid.as_ref()) {
                    return Ok(Ok(records));
                }
            }
            Err(error) => return Err(Error::api(what())(error)),
        }
    }
    Ok(Err(format!("{} and {} are somebody else's", archive.name, archive.other_name)))
}

fn archive_object(
    incident: &Incident,
    name: &str,
    records: &[TimelineRecord],
) -> serde_json::Result<ConfigMap> {
    let labels = [
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (crate::api::INCIDENT_LABEL.to_owned(), names::label_value(&incident.name_any())),
    ];
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: incident.metadata.namespace.clone(),
            labels: Some(labels.into()),
            annotations: incident
                .metadata
                .uid
                .clone()
                .map(|uid| [(INCIDENT_UID_ANNOTATION.to_owned(), uid)].into()),
            ..ObjectMeta::default()
        },
        data: Some([(ARCHIVE_KEY.to_owned(), serde_json::to_string_pretty(records)?)].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    })
}

/// Where the archive cannot be written, the oldest entries make room: a status that the API server refuses
/// would stop everything.
pub(super) fn keep_within_bounds(key: &Key, status: &mut IncidentStatus) {
    let excess = status.timeline.len().saturating_sub(MAX_INLINE);
    if excess > 0 {
        warn!(incident = %key, lost = excess, "the timeline cannot be archived: its oldest entries are lost");
        status.timeline.drain(..excess);
    }
}
