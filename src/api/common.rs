//! Types that several resources share: conditions, times, durations, references.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// One observation about an object, as Kubernetes defines conditions.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed, for example Mitigated.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// The generation of the object that this observation is about.
    pub observed_generation: Option<i64>,
    /// When the status of this condition last changed.
    pub last_transition_time: Time,
    /// One word for machines that says why.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// A sentence for people that says why, and what to do.
    #[schemars(length(max = 2048))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be told, or not yet.
    Unknown,
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        })
    }
}

/// Rules of a text that is shown in columns, Events and terminals: it says something, and drives nothing. What was stored
/// before these rules stays as it is until it is changed.
pub(super) fn prose(field: &str) -> serde_json::Value {
    serde_json::json!([
        {"rule": r"self.matches(r'[^\s\pZ\pC]')", "message": format!("{field} is blank: say it in words")},
        {
            "rule": r"!self.matches(r'[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\x{202A}-\x{202E}\x{2066}-\x{2069}]')",
            "message": format!("{field} has characters that control a terminal or turn the direction of text: take them out"),
        },
    ])
}

/// Names an object in the same namespace. There is no reference to another namespace anywhere in this API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct LocalRef {
    /// Name of the object, in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A length of time as a Go duration string: hours, minutes, seconds, milliseconds ("15m", "1h30m").
/// The text is kept as it was written; it is never re-serialised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(transparent)]
#[schemars(inline)]
pub struct GoDuration(
    #[schemars(length(max = 24), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))] pub String,
);

impl GoDuration {
    /// The length, or `None` when the text is not a duration (the schema refuses such text, a stored object
    /// may still hold it).
    pub fn get(&self) -> Option<Duration> {
        if self.0.len() > 24 || !self.0.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let length = Duration::from(self.0.parse::<kube::core::Duration>().ok()?);
        (length <= MAX_DURATION).then_some(length)
    }
}

impl From<&str> for GoDuration {
    fn from(text: &str) -> Self {
        GoDuration(text.to_owned())
    }
}

/// Longest duration that is taken seriously: ten years. Beyond it, arithmetic on times could overflow.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(GoDuration::from("15m").get(), Some(Duration::from_secs(900)));
        assert_eq!(GoDuration::from("1h30m").get(), Some(Duration::from_secs(5400)));
        assert_eq!(GoDuration::from("500ms").get(), Some(Duration::from_millis(500)));
    }

    #[test]
    fn text_that_is_no_duration_or_longer_than_ten_years_is_none_and_never_a_panic() {
        for text in ["", "2d", "15", "PT15M", "-5m", "99999h99999h99999h99999h"] {
            assert_eq!(GoDuration::from(text).get(), None, "{text}");
        }
    }
}
