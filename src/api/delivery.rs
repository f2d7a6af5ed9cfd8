//! Messages to channels: what is to be delivered, and how far each channel is.

use super::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Messages to one audience, and how far each channel is with them.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Outbox {
    /// Number of messages so far.
    pub message_count: Option<i64>,
    /// Messages that some channel has not taken yet, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub messages: Vec<Message>,
    /// How far each channel is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["channel"]))]
    pub deliveries: Vec<Delivery>,
}

/// A message that is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Number of the message.
    pub number: i64,
    /// What it is about, in one word.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// When it happened.
    pub time: Time,
    /// What is said.
    #[schemars(length(max = 4096))]
    pub text: String,
}

/// How far a channel is.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Name of the channel in the operator's configuration.
    #[schemars(length(min = 1, max = 63))]
    pub channel: String,
    /// Id of the message that was delivered last or is tried; the same message is never given another one.
    #[schemars(length(max = 128))]
    pub message_id: String,
    /// Number of the last message that this channel is done with.
    #[serde(default)]
    pub number: i64,
    /// When a message was last delivered.
    pub delivered_time: Option<Time>,
    /// How often the one that is tried was tried; 0 when nothing waits.
    pub attempts: i32,
    /// Since when it fails: three attempts in a row have failed, or a message was given up, and none was delivered
    /// since. Absent while it works.
    pub failing_since_time: Option<Time>,
    /// Why it failed last.
    #[schemars(length(max = 512))]
    pub error: Option<String>,
    /// Number of messages that were given up.
    pub given_up: Option<i64>,
    /// What the receiver calls the incident.
    #[schemars(length(max = 128))]
    pub remote_id: Option<String>,
}
