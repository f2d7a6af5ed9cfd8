//! The configuration file. What is left out has the response playbook's value.
//!
//! The doc comments of these types are the documentation: `docs/configuration.md` and the schema of the chart's value
//! `config` are made from them.

use super::{ChannelAudience, ChannelType};
use crate::api::{Role, Severity};
use k8s_openapi::jiff::civil::Date;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Visitor};
use serde_saphyr::Spanned;
use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf, time::Duration};

/// The operator's configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct File {
    /// What each severity asks for. A field that is left out keeps its default; the table below has them.
    pub severities: Severities,
    /// Business days and time zone, for the deadlines of postmortems and action items.
    pub calendar: CalendarFile,
    /// Within how many days after the end of the incident action items are to be done, by priority.
    pub action_items: ActionItems,
    /// Where messages go. What is sent when: docs/communication.md.
    #[schemars(with = "Vec<ChannelFile>", length(max = 16))]
    pub channels: Vec<Spanned<ChannelFile>>,
    /// Kinds with a scale subresource that the action scale may change, beside Deployment and StatefulSet.
    #[schemars(with = "Vec<ScalableKindFile>", length(max = 32))]
    pub scalable_kinds: Vec<Spanned<ScalableKindFile>>,
    /// Where requests to channels may go.
    pub outgoing: OutgoingFile,
}

/// Rules by severity. While none is stated, those of SEV3 hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Severities {
    /// Critical: customers are widely affected.
    #[serde(rename = "SEV1")]
    pub sev1: SeverityFile,
    /// Critical: many customers cannot use the product.
    #[serde(rename = "SEV2")]
    pub sev2: SeverityFile,
    /// Partial loss, or one step away from SEV2.
    #[serde(rename = "SEV3")]
    pub sev3: SeverityFile,
    /// Minor.
    #[serde(rename = "SEV4")]
    pub sev4: SeverityFile,
    /// Cosmetic.
    #[serde(rename = "SEV5")]
    pub sev5: SeverityFile,
}

/// What a severity asks for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SeverityFile {
    /// Time between internal updates.
    pub internal_update: Option<Interval>,
    /// By when after the declaration the public hears of it. The clocks for the public run only where
    /// spec.communication.visibility is Public.
    pub public_first_post: Option<Interval>,
    /// How much later the public hears who and what is affected.
    pub public_scope: Option<Interval>,
    /// Time between updates for the public after that.
    pub public_update: Option<Interval>,
    /// For how long these are due, from the first post on; never: until the incident is resolved.
    pub public_update_for: Option<Interval>,
    /// Time between updates for executives.
    pub executives_update: Option<Interval>,
    /// Longest time between refreshes of the incident document.
    pub document_refresh: Option<Interval>,
    /// Roles that somebody must hold.
    #[schemars(length(max = 5))]
    pub required_roles: Option<Vec<Role>>,
    /// Whether a postmortem is required, and by when.
    pub postmortem: Option<PostmortemFile>,
}

/// Whether a postmortem is required, and by when its review is due after the resolution.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostmortemFile {
    /// Whether one is required.
    #[serde(deserialize_with = "truth")]
    pub required: bool,
    /// Days until its review is due; 5 when left out.
    #[schemars(range(min = 1, max = 255))]
    pub days: Option<u8>,
    /// Which days count; Business when left out.
    pub count: Option<DayKind>,
}

/// Which days count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum DayKind {
    /// Days on which people work; the calendar says which those are.
    #[default]
    Business,
    /// All days.
    Calendar,
}

/// Business days, and where days begin and end.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CalendarFile {
    /// Days of the week on which nobody works; Saturday and Sunday when left out.
    #[schemars(length(max = 6))]
    pub weekend: Option<Vec<Day>>,
    /// Further days on which nobody works, such as 2026-12-25.
    #[schemars(with = "Vec<DateText>", length(max = 1000))]
    pub holidays: Vec<Date>,
    /// Where days begin and end, such as Europe/Berlin; UTC when left out.
    #[schemars(with = "Option<String>")]
    pub time_zone: Option<Spanned<String>>,
}

/// A day, as 2026-12-25.
pub struct DateText;

impl JsonSchema for DateText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Date".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Days by priority.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActionItems {
    /// At once; 7 when left out.
    #[serde(rename = "P0")]
    pub p0: Option<Days>,
    /// Next; 30 when left out.
    #[serde(rename = "P1")]
    pub p1: Option<Days>,
    /// Soon; 90 when left out.
    #[serde(rename = "P2")]
    pub p2: Option<Days>,
    /// Some time; never when left out.
    #[serde(rename = "P3")]
    pub p3: Option<Days>,
}

/// One place where messages go. Secrets are never in this file: it names files that hold them, which are read at each
/// use, so that a Secret that is mounted can be changed without a restart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelFile {
    /// Its name in status, metrics and logs: small letters, digits and dashes.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What it speaks.
    #[serde(rename = "type")]
    pub type_: ChannelType,
    /// Whom it reaches.
    pub audience: ChannelAudience,
    /// Only incidents at least this bad; all of them when left out. One whose severity is not stated counts as a SEV3.
    pub min_severity: Option<Severity>,
    /// Only incidents and postmortems of these namespaces; all of them when left out.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub namespaces: Vec<String>,
    /// Address of a receiver of type Webhook, where it is no secret. For Statuspage: another address of the API than
    /// https://api.statuspage.io.
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// File that holds the address, which is a secret for Slack and those that are compatible.
    #[schemars(with = "Option<String>")]
    pub url_file: Option<PathBuf>,
    /// File that holds the API key of Statuspage, or the bearer token of a Webhook.
    #[schemars(with = "Option<String>")]
    pub token_file: Option<PathBuf>,
    /// File that holds the secret with which requests to a Webhook are signed after Standard Webhooks: whsec_ and
    /// base64 of 24 to 64 bytes.
    #[schemars(with = "Option<String>")]
    pub secret_file: Option<PathBuf>,
    /// Id of the page at Statuspage.
    #[schemars(length(max = 64))]
    pub page_id: Option<String>,
    /// Ids of the components at Statuspage, by the names that incidents give them in spec.impact.components.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub components: BTreeMap<String, String>,
    /// Most messages in a minute; 30 when left out.
    #[schemars(range(min = 1, max = 600))]
    pub per_minute: Option<u16>,
    /// Longest time for an answer, up to 30s; 10s when left out.
    pub timeout: Option<Interval>,
}

/// A kind with a scale subresource. The chart gives the operator its rights on it from the same list: see
/// docs/actions.md.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScalableKindFile {
    /// Group and version, such as argoproj.io/v1alpha1.
    #[schemars(length(min = 1, max = 253))]
    pub api_version: String,
    /// The kind, such as Rollout.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its plural name, such as rollouts.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub plural: String,
    /// Where its number of replicas is, as its scale subresource says; .spec.replicas when left out.
    #[schemars(length(max = 253))]
    pub replicas_path: Option<String>,
}

/// Where requests to channels may go. Only the hosts of the channels are asked, over https, and only at public
/// addresses: what resolves to a loopback, link-local, private, multicast or reserved address, or to the API server's
/// own, is refused.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutgoingFile {
    /// Networks that may be reached although they are not public, such as 10.1.0.0/16. There, and only there, plain
    /// http is allowed, too.
    #[schemars(with = "Vec<String>", length(max = 64))]
    pub allowed_networks: Vec<Spanned<String>>,
    /// PEM file with certificate authorities that are trusted beside the public ones.
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
}

/// True or false, as the chart's schema takes them: in quotes either is text, whatever it says.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Truth;

    impl Visitor<'_> for Truth {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<bool, E> {
            Err(E::custom(format!("{text:?} is text: write true or false, without quotes")))
        }
    }

    deserializer.deserialize_any(Truth)
}

/// A length of time in hours, minutes and seconds, such as 15m or 1h30m, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Interval(pub Option<Duration>);

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "never" {
            return Ok(Interval(None));
        }
        let length = crate::api::GoDuration(text.clone()).get().filter(|d| *d >= Duration::from_secs(1));
        length.map(|d| Interval(Some(d))).ok_or_else(|| {
            format!("{text:?} is no length of time: write one from 1s on, such as 15m or 1h30m, or never")
        })
    }
}

impl JsonSchema for Interval {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^(never|([0-9]{1,5}(h|m|s|ms)){1,4})$"})
    }
}

/// A number of days, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(pub Option<u8>);

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "never" => Ok(Days(None)),
            number => {
                number.parse().ok().filter(|days| *days > 0).map(|days| Days(Some(days))).ok_or_else(|| {
                    serde::de::Error::custom(format!(
                        "{text:?} is no number of days from 1 to 255, and not never"
                    ))
                })
            }
        }
    }
}

impl JsonSchema for Days {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Days".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 255}, {"const": "never"}]})
    }
}
