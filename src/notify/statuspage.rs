//! The API of Statuspage: an incident is created with the first public update and updated from then on; it is resolved
//! with ours. Components have the state that the incident gives them, as far as the configuration knows their ids.

use super::{
    escape,
    render::{Notice, Request, Step, json},
};
use crate::{
    api::{ComponentState, Severity},
    config::Channel,
    decide::conditions::clip,
};
use serde_json::{Map, Value, json as value};

/// Longest name of an incident.
const MAX_NAME: usize = 120;
/// Longest body of an update.
const MAX_BODY: usize = 4096;
/// Key, in the metadata of what we create, below which it says what it is about.
const METADATA: &str = "incident-operator";

pub(super) fn step(channel: &Channel, notice: &Notice<'_>) -> Step {
    let page = channel.page_id.as_deref().unwrap_or_default();
    match notice.remote_id {
        Some(id) => Step::Send(update(channel, notice, id)),
        None => Step::Find {
            list: Request {
                method: http::Method::GET,
                path: format!("/v1/pages/{page}/incidents/unresolved"),
                content_type: "application/json",
                body: Vec::new(),
                signed: false,
            },
            uid: notice.facts.uid.clone(),
        },
    }
}

/// Creates the incident.
pub fn create(channel: &Channel, notice: &Notice<'_>) -> Request {
    let page = channel.page_id.as_deref().unwrap_or_default();
    let mut incident = common(channel, notice);
    incident.insert("name".into(), name(channel, notice).into());
    incident.insert("impact_override".into(), impact(notice).into());
    incident.insert("metadata".into(), value!({METADATA: {"uid": notice.facts.uid}}));
    json(http::Method::POST, format!("/v1/pages/{page}/incidents"), &value!({"incident": incident}))
}

/// Updates or resolves the one that there is.
pub fn update(channel: &Channel, notice: &Notice<'_>, id: &str) -> Request {
    let page = channel.page_id.as_deref().unwrap_or_default();
    let path = format!("/v1/pages/{page}/incidents/{id}");
    json(http::Method::PATCH, path, &value!({"incident": common(channel, notice)}))
}

/// The id of the incident that was created for ours, in a list of incidents.
pub fn find(list: &Value, uid: &str) -> Option<String> {
    let ours = |i: &&Value| i["metadata"][METADATA]["uid"] == uid;
    list.as_array()?.iter().find(ours).and_then(id)
}

/// The id in an answer. It becomes part of an address, so nothing but an id is taken for one.
pub fn id(answer: &Value) -> Option<String> {
    let id = answer["id"].as_str()?;
    let is_id = (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_id.then(|| id.to_owned())
}

fn common(channel: &Channel, notice: &Notice<'_>) -> Map<String, Value> {
    let status = notice.progress();
    let resolved = status == "resolved";
    let mut incident = Map::new();
    incident.insert("status".into(), status.into());
    incident.insert(
        "body".into(),
        clip(&escape::inert(&escape::lines(&notice.message.text, usize::MAX)), MAX_BODY).into(),
    );
    let known = notice.facts.components.iter().filter_map(|(name, state)| {
        let state = if resolved { ComponentState::Operational } else { *state };
        Some((channel.components.get(name)?.clone(), Value::from(component(state))))
    });
    let known: Map<String, Value> = known.collect();
    if !known.is_empty() {
        incident.insert("component_ids".into(), known.keys().cloned().collect::<Vec<_>>().into());
        incident.insert("components".into(), known.into());
    }
    incident
}

/// What stands above the updates. The title of our incident is for the company: the page has the first line of the
/// first update.
fn name(channel: &Channel, notice: &Notice<'_>) -> String {
    let text = escape::lines(&notice.message.text, MAX_BODY);
    let first = text.lines().next().unwrap_or_default();
    let name = clip(&escape::inert(sentence(first).trim_end_matches('.')), MAX_NAME);
    if !name.is_empty() {
        return name;
    }
    let affected: Vec<_> = notice
        .facts
        .components
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|n| channel.components.contains_key(*n))
        .collect();
    format!("Incident: {}", affected.join(", "))
}

/// The first sentence of a line. A dot inside "2.5 %" or "example.com" ends none.
fn sentence(line: &str) -> &str {
    let ends = |(at, c): &(usize, char)| {
        let rest = &line[at + c.len_utf8()..];
        *c == '。' || matches!(c, '.' | '!' | '?') && rest.chars().next().is_none_or(char::is_whitespace)
    };
    line.char_indices().find(ends).map_or(line, |(at, c)| &line[..at + c.len_utf8()])
}

fn impact(notice: &Notice<'_>) -> &'static str {
    match notice.facts.severity {
        Some(Severity::SEV1) => "critical",
        Some(Severity::SEV2) => "major",
        None | Some(Severity::SEV3) => "minor",
        Some(Severity::SEV4 | Severity::SEV5) => "none",
    }
}

fn component(state: ComponentState) -> &'static str {
    match state {
        ComponentState::Operational => "operational",
        ComponentState::DegradedPerformance => "degraded_performance",
        ComponentState::PartialOutage => "partial_outage",
        ComponentState::MajorOutage => "major_outage",
        ComponentState::UnderMaintenance => "under_maintenance",
    }
}
