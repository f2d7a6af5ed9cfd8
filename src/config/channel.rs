//! Channels: where messages go.

use crate::api::Severity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Where messages go.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Its name in status, metrics and logs.
    pub name: String,
    /// What it speaks.
    pub type_: ChannelType,
    /// Whom it reaches.
    pub audience: ChannelAudience,
    /// Only incidents at least this bad; `None`: all of them.
    pub min_severity: Option<Severity>,
    /// Only incidents of these namespaces; empty: all of them.
    pub namespaces: Vec<String>,
    /// Address, where it is no secret.
    pub url: Option<String>,
    /// File that holds the address, where it is one.
    pub url_file: Option<PathBuf>,
    /// File that holds the token.
    pub token_file: Option<PathBuf>,
    /// File that holds the secret with which requests are signed.
    pub secret_file: Option<PathBuf>,
    /// Statuspage: the page.
    pub page_id: Option<String>,
    /// Statuspage: ids of its components by the names that incidents give them.
    pub components: BTreeMap<String, String>,
    /// Most messages in a minute.
    pub per_minute: u16,
    /// Longest time for an answer.
    pub timeout: Duration,
}

/// What a channel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChannelType {
    /// An incoming webhook of Slack.
    Slack,
    /// An incoming webhook of a chat that speaks as Slack did before blocks: Mattermost, Rocket.Chat, Zulip.
    SlackCompatible,
    /// The API of Statuspage.
    Statuspage,
    /// Any receiver of signed CloudEvents.
    Webhook,
}

/// Whom a channel reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChannelAudience {
    /// The company: everything that people should know.
    Internal,
    /// Those who lead the company: status updates for executives, and the end of what they have heard of.
    Executives,
    /// Everybody: nothing but public status updates of incidents whose visibility is Public, and their end.
    Public,
}

impl Channel {
    /// The files that it names, with the field that names each.
    pub fn files(&self) -> Vec<(String, &PathBuf)> {
        let field = |field: &str| format!("channels, {}: {field}", self.name);
        [("urlFile", &self.url_file), ("tokenFile", &self.token_file), ("secretFile", &self.secret_file)]
            .into_iter()
            .filter_map(|(name, file)| Some((field(name), file.as_ref()?)))
            .collect()
    }

    /// Whether an incident of this namespace and severity concerns it. One whose severity is not stated counts as a
    /// SEV3, as everywhere.
    pub fn concerns(&self, namespace: &str, severity: Option<Severity>) -> bool {
        let bad_enough = |least| severity.unwrap_or(Severity::SEV3) <= least;
        self.listens_in(namespace) && self.min_severity.is_none_or(bad_enough)
    }

    /// Whether anything of this namespace concerns it.
    pub fn listens_in(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace)
    }
}
