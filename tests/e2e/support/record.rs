//! What the record of an incident says.

use super::namespace::TestNamespace;
use super::poll::wait_status;
use incident_operator::api::{Condition, Incident, MitigationSummary, TimelineRecord};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use serde_json::Value;

/// Waits until an incident is as wanted.
#[track_caller]
pub fn incident_when(
    namespace: &TestNamespace,
    name: &str,
    what: &str,
    holds: impl Fn(&Incident) -> bool,
) -> impl Future<Output = Incident> {
    let (api, name, what) = (namespace.api::<Incident>(), name.to_owned(), what.to_owned());
    let caller = std::panic::Location::caller();
    async move {
        let what = format!("{what} of incident {name} ({caller})");
        wait_status(&api, &name, &what, holds).await
    }
}

/// Status, reason and message of a condition, in one line; empty when it is not there.
pub fn says(conditions: &[Condition], type_: &str) -> String {
    let found = conditions.iter().find(|c| c.type_ == type_);
    found.map(|c| format!("{} {}: {}", c.status, c.reason, c.message)).unwrap_or_default()
}

/// The same of an incident.
pub fn incident_says(incident: &Incident, type_: &str) -> String {
    says(incident.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default(), type_)
}

/// The stage of an incident.
pub fn stage(incident: &Incident) -> String {
    incident.status.as_ref().and_then(|s| s.stage).map(|s| s.to_string()).unwrap_or_default()
}

/// What the incident says of the mitigation of an entry.
pub fn entry_summary<'a>(incident: &'a Incident, entry: &str) -> Option<&'a MitigationSummary> {
    incident.status.as_ref()?.mitigations.iter().find(|m| m.entry.as_deref() == Some(entry))
}

/// Phase of the mitigation of an entry, as the incident tells it.
pub fn entry_phase(incident: &Incident, entry: &str) -> String {
    entry_summary(incident, entry).map(|m| m.phase.to_string()).unwrap_or_default()
}

/// The timeline in the status.
pub fn timeline(incident: &Incident) -> &[TimelineRecord] {
    incident.status.as_ref().map(|s| s.timeline.as_slice()).unwrap_or_default()
}

/// The entries of the timeline with this reason.
pub fn told<'a>(incident: &'a Incident, reason: &str) -> Vec<&'a TimelineRecord> {
    timeline(incident).iter().filter(|r| r.reason == reason).collect()
}

/// The whole timeline: what is archived, and what is in the status.
pub async fn whole_timeline(namespace: &TestNamespace, incident: &Incident) -> Vec<TimelineRecord> {
    let mut all = Vec::new();
    for archive in archives(namespace, incident).await {
        let text = &archive.data.as_ref().expect("an archive has data")["timeline.json"];
        all.extend(serde_json::from_str::<Vec<TimelineRecord>>(text).expect("an archive is JSON"));
    }
    all.extend(timeline(incident).iter().cloned());
    all
}

/// The ConfigMaps to which the timeline of an incident has spilled.
pub async fn archives(namespace: &TestNamespace, incident: &Incident) -> Vec<ConfigMap> {
    let found = namespace.api::<ConfigMap>().list(&ListParams::default()).await.expect("it can be listed");
    let uid = incident.uid();
    found
        .items
        .into_iter()
        .filter(|c| c.annotations().get("incident-operator.dev/incident-uid") == uid.as_ref())
        .collect()
}

/// `metadata.name` and the value at a JSON pointer of an object.
pub fn at<'a>(object: &'a DynamicObject, pointer: &str) -> &'a Value {
    object.data.pointer(pointer).unwrap_or(&Value::Null)
}
