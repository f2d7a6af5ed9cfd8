//! What is true about an incident; written by the operator alone.

use super::{Audience, ChecklistState, Condition, LocalRef, MitigationPhase, Outbox, Severity, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is true about an incident.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct IncidentStatus {
    /// The generation of the spec that this status is about.
    pub observed_generation: Option<i64>,
    /// Where the incident stands; derived from the facts below, for columns and selectors.
    pub stage: Option<Stage>,
    /// When each milestone was first reached.
    pub milestones: Milestones,
    /// What somebody who was just woken must know, a line for each: what happened, who leads, what was done and
    /// whether it works, what is due next, what is missing. It changes with facts, never with the clock.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 24),
        inner(length(max = 2048)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub briefing: Vec<String>,
    /// Who has command. While nobody has confirmed it: who is to confirm it, and that.
    #[schemars(length(max = 320))]
    pub commander: Option<String>,
    /// The severity that was last recorded.
    pub severity: Option<Severity>,
    /// The last change of severity.
    pub severity_change: Option<SeverityChange>,
    /// When the next update is due, to whomever.
    #[schemars(length(max = 32))]
    pub next_update_time: Option<String>,
    /// Number of updates and items of the checklist that are overdue.
    pub overdue: Option<i32>,
    /// Number of mitigations in force.
    pub active_mitigations: Option<i32>,
    /// Who held which role, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub roles: Vec<RoleRecord>,
    /// The checklist of the first fifteen minutes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checklist: Vec<ChecklistItem>,
    /// Clocks and texts, one entry an audience.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["audience"]))]
    pub communication: Vec<AudienceStatus>,
    /// The mitigations of this incident, those that ended included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub mitigations: Vec<MitigationSummary>,
    /// The latest entries of the timeline, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub timeline: Vec<TimelineRecord>,
    /// Where the older entries are: in ConfigMaps named <incident>-timeline-<n>, with a hash at the end where
    /// that name was taken. Their annotation incident-operator.dev/incident-uid names the incident.
    pub timeline_archive: Option<TimelineArchive>,
    /// The postmortem of this incident.
    pub postmortem_ref: Option<LocalRef>,
    /// Observations: Acknowledged, Triaged, Mitigated, Resolved, PostmortemComplete, Configured, Notified,
    /// Ready, Stalled; and what should be better: RolesFilled, DutiesSeparated, SeverityExplained, ChecklistOnTime,
    /// UpdatesOnTime, PublicInformed, PublicTextClean, FactsConsistent, AuthorsVerified.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 24),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// Where an incident stands, in the words of the response playbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Stage {
    /// Found; nobody has taken command yet.
    Detect,
    /// Commanded; severity or impact is not stated yet.
    Triage,
    /// Understood; the bleeding is not stopped yet.
    Mitigate,
    /// Mitigated; not resolved yet.
    Resolve,
    /// Resolved; the postmortem is not done yet.
    Postmortem,
    /// Done.
    Closed,
    /// A false alarm or a duplicate.
    Cancelled,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The variant names are the wire names.
        write!(f, "{self:?}")
    }
}

/// When each milestone was first reached.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Milestones {
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
    /// When nothing was left to do.
    pub closed_time: Option<Time>,
}

/// Who held a role, from when until when.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct RoleRecord {
    /// The role.
    pub role: Role,
    /// Who holds it.
    #[schemars(length(max = 253))]
    pub holder: String,
    /// Since when.
    pub from_time: Time,
    /// Until when; absent while it lasts.
    pub until_time: Option<Time>,
    /// When the holder confirmed it.
    pub acknowledged_time: Option<Time>,
}

/// A role in an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Role {
    /// Leads.
    IncidentCommander,
    /// Writes the updates.
    CommunicationsLead,
    /// Changes the system.
    OperationsLead,
    /// Stands in for the commander.
    Deputy,
    /// Keeps the timeline.
    Scribe,
}

/// A change of severity.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct SeverityChange {
    /// What it was; absent when none was stated.
    pub from: Option<Severity>,
    /// What it became; absent when none is stated any more.
    pub to: Option<Severity>,
    /// When.
    pub time: Time,
    /// Who changed it.
    #[schemars(length(max = 253))]
    pub author: Option<String>,
    /// True when the incident counts as less bad than before.
    pub lowered: bool,
    /// Why, in the author's words.
    #[schemars(length(max = 4096))]
    pub reason: Option<String>,
    /// What spec.severityReason said when it explained a change, or stood there while the severity was raised. It
    /// explains no other.
    #[schemars(length(max = 4096))]
    pub earlier_reason: Option<String>,
    /// uids of the entries that explained the latest changes. None of them explains another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub explained_by: Vec<String>,
}

/// One item of the checklist.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct ChecklistItem {
    /// Name of the item.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What is to be done.
    #[schemars(length(max = 512))]
    pub description: String,
    /// Todo, Done or NotNeeded.
    #[serde(default)]
    pub state: ChecklistState,
    /// Who does it.
    pub owner: Option<Role>,
    /// From when its time is counted, when that is not the declaration.
    pub since_time: Option<Time>,
    /// By when.
    pub due_time: Option<Time>,
    /// When it was told that it is overdue.
    pub overdue_time: Option<Time>,
    /// When it was done.
    pub done_time: Option<Time>,
    /// Who ticked it: a user; absent when the operator did from what it saw.
    #[schemars(length(max = 253))]
    pub done_by: Option<String>,
    /// What was seen.
    #[schemars(length(max = 1024))]
    pub note: Option<String>,
}

/// Clock and text of one audience.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct AudienceStatus {
    /// The audience.
    pub audience: ClockName,
    /// How often it is to be told; absent while nothing is due.
    #[schemars(length(max = 24))]
    pub interval: Option<String>,
    /// Since when this interval holds.
    pub since_time: Option<Time>,
    /// When it was first told.
    pub first_update_time: Option<Time>,
    /// When it was last told.
    pub last_update_time: Option<Time>,
    /// How often it was told.
    pub updates: Option<i32>,
    /// The time of the last update for it that nobody was told: one for the public while visibility was Internal.
    /// Absent once it was told something.
    pub withheld_time: Option<Time>,
    /// Since when the incident goes on although it was told that it is over. Absent once it was told otherwise.
    pub reopened_time: Option<Time>,
    /// When it is to be told next. Once that is over the time stays until it is told.
    pub next_due_time: Option<Time>,
    /// The last deadline that was missed since it was last told.
    pub missed_time: Option<Time>,
    /// How many were missed in a row since it was last told.
    pub missed_in_a_row: Option<i32>,
    /// The last deadline that was missed and counted before the present one moved behind it. It is not counted again.
    pub counted_time: Option<Time>,
    /// How many deadlines were missed in all.
    pub overdue_count: Option<i32>,
    /// What it was told last.
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// The text to paste, as it stands now.
    #[schemars(length(max = 8192))]
    pub text: Option<String>,
    /// Messages to the channels of this audience.
    #[serde(flatten)]
    pub outbox: Outbox,
}

impl AudienceStatus {
    /// The clock of an audience that was told nothing yet.
    pub fn of(audience: ClockName) -> AudienceStatus {
        AudienceStatus {
            audience,
            interval: None,
            since_time: None,
            first_update_time: None,
            last_update_time: None,
            updates: None,
            withheld_time: None,
            reopened_time: None,
            next_due_time: None,
            missed_time: None,
            missed_in_a_row: None,
            counted_time: None,
            overdue_count: None,
            message: None,
            text: None,
            outbox: Outbox::default(),
        }
    }
}

/// Whose clock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ClockName {
    /// The company.
    Internal,
    /// Customers and the public.
    Public,
    /// Executives.
    Executives,
    /// The incident document.
    Document,
}

/// One mitigation of the incident.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct MitigationSummary {
    /// Name of the Mitigation object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of the entry in spec.mitigations; absent for a Mitigation that stands alone.
    #[schemars(length(max = 63))]
    pub entry: Option<String>,
    /// uid of the Mitigation object. An entry that has had an object is not made anew.
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// The action.
    #[schemars(length(max = 63))]
    pub action: Option<String>,
    /// The target as kind/name.
    #[schemars(length(max = 320))]
    pub target: Option<String>,
    /// Why it was asked for.
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// What it changed, in words, or what was asked of whom to be done by hand; absent while nothing is changed.
    #[schemars(length(max = 1024))]
    pub change: Option<String>,
    /// Where it stands.
    pub phase: MitigationPhase,
    /// Whether it works: True, False or Unknown.
    #[schemars(length(max = 16))]
    pub effective: Option<String>,
    /// What it says of itself.
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// True once the entry was taken out of spec.mitigations.
    pub removed: Option<bool>,
    /// True when it only says what it would change.
    pub dry_run: Option<bool>,
    /// When the target was changed.
    pub applied_time: Option<Time>,
    /// When its effect was first seen.
    pub effective_time: Option<Time>,
    /// When the change was undone or the hold ended.
    pub released_time: Option<Time>,
    /// Who asked for its end, if the API server tells: who took the entry out, set desiredState, resolved or cancelled
    /// the incident. Who deletes an object is not told.
    #[schemars(length(max = 253))]
    pub ended_by: Option<String>,
    /// Who undid it, when that was not us.
    #[schemars(length(max = 256))]
    pub undone_by: Option<String>,
    /// When it was told that its time is over.
    pub expired_time: Option<Time>,
    /// What became of its evidence; absent where none is asked for, and while it is being kept.
    pub evidence: Option<EvidenceOutcome>,
}

/// What became of the evidence of a mitigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum EvidenceOutcome {
    /// It is in a ConfigMap, maybe in part: the Mitigation says what is missing.
    Kept,
    /// Nothing could be kept.
    Missing,
}

/// One entry of the timeline.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct TimelineRecord {
    /// When it happened.
    pub time: Time,
    /// When it happened as the author stated it, if that lies in the future and cannot be.
    pub stated_time: Option<Time>,
    /// When it was recorded.
    pub recorded_time: Time,
    /// What it is, in one word; also the reason of the mirrored Event.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// What happened, in words.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// Who caused it. Absent where the operator itself did, and where nobody knows who did: then authenticated is false.
    #[schemars(length(max = 253))]
    pub author: Option<String>,
    /// True when the API server vouches for the author. False without an author: somebody did it, and the API server
    /// does not tell who, as with an object that was deleted.
    pub authenticated: Option<bool>,
    /// Who may read it.
    pub audience: Option<Audience>,
    /// Address of something that shows it.
    #[schemars(length(max = 2048))]
    pub link: Option<String>,
    /// uid of the TimelineEntry that this came from, so that it is folded exactly once.
    #[schemars(length(max = 64))]
    pub entry_uid: Option<String>,
}

/// Where the older entries of a timeline are: ConfigMaps named <incident>-timeline-<n>, with a hash at the end
/// where that name was taken. Their annotation incident-operator.dev/incident-uid names the incident.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct TimelineArchive {
    /// Number of ConfigMaps.
    pub config_maps: i32,
    /// Number of entries in them.
    pub entries: i64,
    /// Number of entries that are lost, because they could not be written to one.
    pub lost: Option<i64>,
}
