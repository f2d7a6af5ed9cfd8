//! TimelineEntry: what a person or controller adds to the record of an incident.

use super::{Condition, LocalRef, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A create-only entry; the operator folds it into the incident's timeline and removes the object.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "incident-operator.dev",
    version = "v1alpha1",
    kind = "TimelineEntry",
    plural = "timelineentries",
    shortname = "tle",
    category = "incident-operator",
    doc = "A TimelineEntry adds a note, decision, update, acknowledgement or approval to an incident's record. It cannot be changed; the operator folds it into the timeline of the Incident and removes it.",
    namespaced,
    status = "TimelineEntryStatus",
    derive = "PartialEq",
    printcolumn(name = "Incident", type_ = "string", json_path = ".spec.incidentRef.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Message", type_ = "string", json_path = ".spec.message"),
    printcolumn(
        name = "Waits-For",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Folded\")].message"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a timeline entry cannot be changed: create another one"),
    validation = Rule::new("!(self.type in ['Approval', 'Rejection']) || (has(self.mitigationRef) && has(self.digest))").message("an Approval or Rejection names the mitigation (mitigationRef) and the digest in its status (digest)")
)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntrySpec {
    /// The incident this entry is about.
    pub incident_ref: LocalRef,
    /// What the entry is.
    #[serde(rename = "type")]
    pub type_: TimelineEntryType,
    /// Who may read it. Internal is the default.
    pub audience: Option<Audience>,
    /// The mitigation that is approved or rejected.
    pub mitigation_ref: Option<LocalRef>,
    /// The digest of what is approved, from the mitigation's status.
    #[schemars(length(min = 1, max = 128))]
    pub digest: Option<String>,
    /// When it happened, if that is not now.
    pub occurred_time: Option<Time>,
    /// What happened, in words.
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = super::prose("message")))]
    pub message: String,
    /// Address of a graph, log or page that shows it.
    #[schemars(length(min = 1, max = 2048))]
    pub link: Option<String>,
}

/// Why an entry was not folded yet; absent while all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct TimelineEntryStatus {
    /// Observations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum TimelineEntryType {
    /// Something worth remembering.
    Note,
    /// A decision of the incident commander.
    Decision,
    /// An update to an audience; resets its clock.
    StatusUpdate,
    /// The author takes the role they were given.
    Acknowledgement,
    /// Approves a mitigation.
    Approval,
    /// Rejects a mitigation.
    Rejection,
    /// A theory of the cause.
    Hypothesis,
    /// Points to evidence.
    Evidence,
}

/// Who may read a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Audience {
    /// Those who work on the incident.
    Responders,
    /// Everybody in the company.
    #[default]
    Internal,
    /// Those who lead the company.
    Executives,
    /// Customers and the public.
    Public,
}
