//! Postmortem: the learning record. It outlives its incident.

use super::{
    ActionItem, ActionItemReminder, Condition, Impact, LocalRef, MitigationPhase, Outbox, RoleRecord,
    Severity, Time, TimelineArchive, TimelineRecord,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people write about an incident. The operator drafts it once and then leaves the spec alone.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "incident-operator.dev",
    version = "v1alpha1",
    kind = "Postmortem",
    plural = "postmortems",
    shortname = "pm",
    category = "incident-operator",
    doc = "A Postmortem is the learning record of an incident: what happened, why, and what is done so that it does not happen again. It outlives the Incident.",
    namespaced,
    status = "PostmortemStatus",
    derive = "PartialEq",
    selectable = ".spec.state",
    printcolumn(name = "Incident", type_ = "string", json_path = ".spec.incidentRef.name"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Missing", type_ = "integer", json_path = ".status.missingCount"),
    printcolumn(name = "Open-Actions", type_ = "integer", json_path = ".status.openActionItems"),
    printcolumn(name = "Due", type_ = "string", json_path = ".status.dueTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Overdue-Actions",
        type_ = "string",
        json_path = ".status.overdueActionItems",
        priority = 1
    ),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title", priority = 1)
)]
#[serde(rename_all = "camelCase", default)]
pub struct PostmortemSpec {
    /// The incident this is about. It need not exist any more.
    pub incident_ref: Option<IncidentRef>,
    /// What happened, in one line.
    #[schemars(length(min = 1, max = 256))]
    pub title: Option<String>,
    /// Draft (the default), InReview or Reviewed.
    pub state: Option<PostmortemState>,
    /// Who writes it.
    #[schemars(length(min = 1, max = 253))]
    pub owner: Option<String>,
    /// Who reviews it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub reviewers: Vec<String>,
    /// What happened, for somebody who was not there.
    #[schemars(length(max = 65536))]
    pub summary: Option<String>,
    /// Who was affected, how, for how long.
    #[schemars(length(max = 65536))]
    pub impact: Option<String>,
    /// Why it could happen.
    #[schemars(length(max = 65536))]
    pub root_causes: Option<String>,
    /// What set it off.
    #[schemars(length(max = 65536))]
    pub trigger: Option<String>,
    /// How it was found, and how it could have been found earlier.
    #[schemars(length(max = 65536))]
    pub detection: Option<String>,
    /// What ended it.
    #[schemars(length(max = 65536))]
    pub resolution: Option<String>,
    /// What went well.
    #[schemars(length(max = 65536))]
    pub went_well: Option<String>,
    /// What went poorly.
    #[schemars(length(max = 65536))]
    pub went_poorly: Option<String>,
    /// Where luck helped.
    #[schemars(length(max = 65536))]
    pub got_lucky: Option<String>,
    /// Entries that complete or correct the recorded timeline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub timeline: Vec<CuratedEntry>,
    /// What is done so that it does not happen again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub action_items: Vec<ActionItem>,
    /// Further reading.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 2048)), extend("x-kubernetes-list-type" = "atomic"))]
    pub links: Vec<String>,
}

/// Names the incident of a postmortem.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct IncidentRef {
    /// Name of the incident, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// uid of the incident, which tells it from a later one of the same name.
    #[schemars(length(min = 1, max = 64))]
    pub uid: Option<String>,
}

/// How far a postmortem is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum PostmortemState {
    /// Being written.
    #[default]
    Draft,
    /// Being reviewed.
    InReview,
    /// Reviewed.
    Reviewed,
}

/// An entry that completes or corrects the recorded timeline.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct CuratedEntry {
    /// When it happened.
    pub time: Time,
    /// What happened.
    #[schemars(length(min = 1, max = 4096))]
    pub message: String,
    /// Address of something that shows it.
    #[schemars(length(min = 1, max = 2048))]
    pub link: Option<String>,
}

/// What is true about a postmortem; written by the operator alone.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct PostmortemStatus {
    /// The generation of the spec that this status is about.
    pub observed_generation: Option<i64>,
    /// How far it is, as spec.state says; Draft where that is left out.
    pub state: Option<PostmortemState>,
    /// Sections that are missing, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub missing_sections: Vec<String>,
    /// Number of missing sections.
    pub missing_count: Option<i32>,
    /// What a reviewer should look at; none of it stands in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub warnings: Vec<String>,
    /// The review that counts, or counted last.
    pub review: Option<Review>,
    /// Why spec.state Reviewed is no review; kept until spec.state says something else.
    pub review_refused: Option<ReviewRefusal>,
    /// When the review is due.
    pub due_time: Option<Time>,
    /// How long detection, acknowledgement, mitigation and resolution took.
    pub durations: Option<Durations>,
    /// The incident, as it was when it was resolved.
    pub incident: Option<IncidentSnapshot>,
    /// The incident's timeline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub timeline: Vec<TimelineRecord>,
    /// Number of action items that are open or in progress.
    pub open_action_items: Option<i32>,
    /// Ids of action items whose due date has passed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub overdue_action_items: Vec<String>,
    /// The last reminder of each open action item: two days before it is due, on the day, and every week after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"])
    )]
    pub reminders: Vec<ActionItemReminder>,
    /// Messages to channels.
    pub communication: Option<Outbox>,
    /// The Markdown.
    pub export: Option<PostmortemExport>,
    /// Observations: Complete, Reviewed, ActionItemsDone, Overdue, Ready, Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// Who said that a postmortem is reviewed, and when that was seen.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// Who set spec.state to Reviewed; absent when nobody stated it.
    #[schemars(length(max = 253))]
    pub by: Option<String>,
    /// True when the API server vouches for the name.
    pub authenticated: bool,
    /// When it was seen.
    pub time: Time,
    /// When spec.state was seen to be something else again.
    pub withdrawn_time: Option<Time>,
}

/// Why spec.state Reviewed is no review, whatever is written afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ReviewRefusal {
    /// Something was missing when it was set, or a section went missing since.
    Incomplete,
    /// Nobody owned the postmortem when it was set.
    OwnerMissing,
    /// The incident was resolved later.
    BeforeResolution,
    /// The postmortem was about another incident.
    AnotherIncident,
}

/// How long things took, in seconds.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Durations {
    /// From the start of the impact to detection.
    pub detect_seconds: Option<i64>,
    /// From the start of the impact to acknowledgement.
    pub acknowledge_seconds: Option<i64>,
    /// From the start of the impact to mitigation.
    pub mitigate_seconds: Option<i64>,
    /// From the start of the impact to resolution.
    pub resolve_seconds: Option<i64>,
}

/// The incident, as it was when it was resolved.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct IncidentSnapshot {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// Its title.
    #[schemars(length(max = 256))]
    pub title: String,
    /// Its severity.
    pub severity: Option<Severity>,
    /// Its service.
    #[schemars(length(max = 253))]
    pub service: Option<String>,
    /// True when it was a drill.
    pub drill: Option<bool>,
    /// Who led it.
    #[schemars(length(max = 253))]
    pub commander: Option<String>,
    /// Who held which role, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub roles: Vec<RoleRecord>,
    /// Who and what was affected.
    pub impact: Option<Impact>,
    /// When the impact began.
    pub started_time: Option<Time>,
    /// When it was found.
    pub detected_time: Option<Time>,
    /// When the incident commander took command.
    pub acknowledged_time: Option<Time>,
    /// When severity and impact were stated.
    pub triaged_time: Option<Time>,
    /// When every mitigation was effective.
    pub mitigated_time: Option<Time>,
    /// When it was resolved.
    pub resolved_time: Option<Time>,
    /// What was done to stop the bleeding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub mitigations: Vec<MitigationRecord>,
    /// Where the older entries of its timeline are, which status.timeline lacks.
    pub timeline_archive: Option<TimelineArchive>,
}

/// One mitigation of the incident: what it was to change, why, and whether it worked.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct MitigationRecord {
    /// Its name: that of the entry of the incident, or of the Mitigation when it stands alone.
    #[schemars(length(max = 253))]
    pub name: String,
    /// uid of the Mitigation.
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// The action.
    #[schemars(length(max = 63))]
    pub action: Option<String>,
    /// The target as kind/name.
    #[schemars(length(max = 320))]
    pub target: Option<String>,
    /// Why it was done.
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// What it changed, in words, or what was asked of whom to be done by hand.
    #[schemars(length(max = 1024))]
    pub change: Option<String>,
    /// How it ended, or where it stood.
    pub phase: MitigationPhase,
    /// When the target was changed.
    pub applied_time: Option<Time>,
    /// When its effect was first seen; absent when it never worked.
    pub effective_time: Option<Time>,
    /// When the change was undone or the hold ended.
    pub released_time: Option<Time>,
    /// Who undid it, when that was not us.
    #[schemars(length(max = 256))]
    pub undone_by: Option<String>,
    /// Why it may stay although the incident is resolved.
    #[schemars(length(max = 1024))]
    pub waiver: Option<String>,
}

/// Where the Markdown is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct PostmortemExport {
    /// The ConfigMap, key postmortem.md.
    pub config_map_ref: LocalRef,
    /// sha256 of the Markdown, in hex.
    #[schemars(length(max = 64))]
    pub sha256: String,
}
