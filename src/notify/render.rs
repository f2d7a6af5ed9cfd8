//! A message as the receiver wants it. Pure: what goes in decides every byte that comes out, but for the signature,
//! whose time is given.

use super::{escape, slack, statuspage, webhook};
use crate::{
    api::{
        ClockName, ComponentState, Impact, Incident, IncidentStatus, Message, Postmortem, Severity, Stage,
    },
    config::{Channel, ChannelAudience, ChannelType},
    decide::incident::impact_in_words,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// What is known of what a message is about.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Incident or Postmortem.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
    /// Title; internal.
    pub title: String,
    /// Severity.
    pub severity: Option<Severity>,
    /// Where an incident stands.
    pub stage: Option<Stage>,
    /// Who leads, or owns the postmortem.
    pub owner: Option<String>,
    /// Who and what is affected, in one line.
    pub impact: Option<String>,
    /// When the impact began.
    pub started: Option<Timestamp>,
    /// When the next update is due.
    pub next_update: Option<Timestamp>,
    /// Components of the status page.
    pub components: Vec<(String, ComponentState)>,
}

/// One message to one channel.
#[derive(Clone, Debug)]
pub struct Notice<'a> {
    /// Id of this delivery: the same for every attempt.
    pub id: String,
    /// Whom it reaches.
    pub audience: ChannelAudience,
    /// What it is about.
    pub facts: &'a Facts,
    /// The message.
    pub message: &'a Message,
    /// What the receiver calls the incident, if it was told of it before.
    pub remote_id: Option<&'a str>,
}

/// One request, as far as the address of the receiver is not needed for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// GET, POST or PATCH.
    pub method: http::Method,
    /// Path below the address of the receiver; empty: that address itself.
    pub path: String,
    /// Type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body is signed.
    pub signed: bool,
}

/// What is to be done for a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// One request, and the message is delivered.
    Send(Request),
    /// The receiver may have been told before and the answer was lost: look for what it has, then go on with the id, or
    /// with the other request when it has nothing.
    Find {
        /// Lists what the receiver has.
        list: Request,
        /// What tells ours from others.
        uid: String,
    },
}

impl Facts {
    /// Those of an incident.
    pub fn of_incident(incident: &Incident) -> Facts {
        let (none, unstated) = (IncidentStatus::default(), Impact::default());
        let (spec, status) = (&incident.spec, incident.status.as_ref().unwrap_or(&none));
        let impact = spec.impact.as_ref().unwrap_or(&unstated);
        let internal = status.communication.iter().find(|c| c.audience == ClockName::Internal);
        let over = matches!(status.stage, Some(Stage::Postmortem | Stage::Closed | Stage::Cancelled));
        Facts {
            kind: "Incident",
            namespace: incident.namespace().unwrap_or_default(),
            name: incident.name_any(),
            uid: incident.uid().unwrap_or_default(),
            title: spec.title.clone(),
            severity: spec.severity,
            stage: status.stage,
            // Who has command, which a successor who has not confirmed it does not.
            owner: status.commander.clone(),
            impact: spec.impact.as_ref().and_then(impact_in_words),
            started: status.milestones.started_time.as_ref().map(|t| t.0),
            // The public's is none of the company's.
            next_update: internal.and_then(|c| c.next_due_time.as_ref()).map(|t| t.0).filter(|_| !over),
            components: impact.components.iter().map(|c| (c.name.clone(), c.state)).collect(),
        }
    }

    /// Those of a postmortem.
    pub fn of_postmortem(postmortem: &Postmortem) -> Facts {
        let known = postmortem.status.as_ref().and_then(|s| s.incident.as_ref());
        Facts {
            kind: "Postmortem",
            namespace: postmortem.namespace().unwrap_or_default(),
            name: postmortem.name_any(),
            uid: postmortem.uid().unwrap_or_default(),
            title: postmortem.spec.title.clone().or(known.map(|i| i.title.clone())).unwrap_or_default(),
            severity: known.and_then(|i| i.severity),
            owner: postmortem.spec.owner.clone(),
            ..Facts::default()
        }
    }
}

impl Notice<'_> {
    /// `SEV2 Incident: Checkout fails`. The title is for the company alone.
    pub(super) fn heading(&self) -> String {
        let facts = self.facts;
        match self.audience {
            ChannelAudience::Internal | ChannelAudience::Executives => {
                let severity = facts.severity.map(|s| format!("{s} ")).unwrap_or_default();
                let title = escape::lines(&facts.title, 256).replace('\n', " ");
                format!("{severity}{}: {title}", facts.kind)
            }
            ChannelAudience::Public if self.message.reason == "Resolved" => "Resolved".to_owned(),
            ChannelAudience::Public => "Service update".to_owned(),
        }
    }

    /// Names and values that stand below a message to the company.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let facts = self.facts;
        if self.audience == ChannelAudience::Public {
            return Vec::new();
        }
        let time = |t: Timestamp| t.strftime("%Y-%m-%d %H:%M UTC").to_string();
        let mut fields = Vec::new();
        let mut add = |name, value: Option<String>| fields.extend(value.map(|v| (name, v)));
        add("Impact", facts.impact.as_ref().map(|i| escape::lines(i, 500)));
        add("Stage", facts.stage.map(|s| s.to_string()));
        add("Owner", facts.owner.as_ref().map(|o| escape::lines(o, 253)));
        add("Start", facts.started.map(time));
        add("Next update", facts.next_update.map(time));
        add(facts.kind, Some(format!("{}/{}", facts.namespace, facts.name)));
        fields
    }

    /// Where it stands, in the words of status pages.
    pub(super) fn progress(&self) -> &'static str {
        match self.facts.stage {
            _ if self.message.reason == "Resolved" => "resolved",
            None | Some(Stage::Detect | Stage::Triage) => "investigating",
            Some(Stage::Mitigate) => "identified",
            Some(Stage::Resolve) => "monitoring",
            Some(Stage::Postmortem | Stage::Closed | Stage::Cancelled) => "resolved",
        }
    }
}

/// What is to be sent to a channel.
pub fn render(channel: &Channel, notice: &Notice<'_>) -> Step {
    match channel.type_ {
        ChannelType::Slack => Step::Send(slack::blocks(notice)),
        ChannelType::SlackCompatible => Step::Send(slack::attachments(notice)),
        ChannelType::Statuspage => statuspage::step(channel, notice),
        ChannelType::Webhook => Step::Send(webhook::event(notice)),
    }
}

pub(super) fn json(method: http::Method, path: String, body: &serde_json::Value) -> Request {
    let body = body.to_string().into_bytes();
    Request { method, path, content_type: "application/json", body, signed: false }
}
