//! Incident: the command record.

use super::{GoDuration, IncidentStatus, LocalRef, MitigationTemplate, Role, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people assert about an incident.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "incident-operator.dev",
    version = "v1alpha1",
    kind = "Incident",
    plural = "incidents",
    shortname = "inc",
    category = "incident-operator",
    doc = "An Incident is the command record of one outage: who leads, how bad it is, what was done to stop it, what was said to whom, and how it ended.",
    namespaced,
    status = "IncidentStatus",
    derive = "PartialEq",
    selectable = ".spec.severity",
    selectable = ".spec.service",
    selectable = ".status.stage",
    printcolumn(name = "Severity", type_ = "string", json_path = ".spec.severity"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.stage"),
    printcolumn(name = "Commander", type_ = "string", json_path = ".status.commander"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeMitigations"),
    printcolumn(name = "Next-Update", type_ = "string", json_path = ".status.nextUpdateTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Overdue", type_ = "integer", json_path = ".status.overdue", priority = 1),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service", priority = 1),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        priority = 1
    ),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title", priority = 1)
)]
#[x_kube(
    validation = Rule::new("!has(self.duplicateOf) || (has(self.outcome) && self.outcome == 'Duplicate')").message("duplicateOf goes with outcome: Duplicate"),
    validation = Rule::new("!has(self.outcome) || self.outcome != 'Duplicate' || has(self.duplicateOf)").message("outcome Duplicate needs duplicateOf: the name of the other incident")
)]
#[serde(rename_all = "camelCase")]
pub struct IncidentSpec {
    /// What is wrong, in one line. The only required field.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = super::prose("title")))]
    pub title: String,
    /// SEV1 (worst) to SEV5. Until it is stated, clocks run as for SEV3 and the incident is not triaged.
    pub severity: Option<Severity>,
    /// Why the severity was lowered, when it was.
    #[schemars(length(min = 1, max = 1024))]
    pub severity_reason: Option<String>,
    /// The service that is affected.
    #[schemars(length(min = 1, max = 253))]
    pub service: Option<String>,
    /// When the impact began, if that was before the incident was declared.
    pub start_time: Option<Time>,
    /// How the incident was found.
    pub detection: Option<Detection>,
    /// Who does what.
    pub roles: Option<Roles>,
    /// Who and what is affected.
    pub impact: Option<Impact>,
    /// What is done to stop the bleeding; each entry becomes a Mitigation named after the incident and the
    /// entry. Removing an entry releases it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub mitigations: Vec<InlineMitigation>,
    /// Says that no mitigation is needed, and why: the incident counts as mitigated without one.
    #[schemars(length(min = 1, max = 1024))]
    pub no_mitigation_needed: Option<String>,
    /// What must be true before the incident counts as resolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["description"])
    )]
    pub exit_criteria: Vec<ExitCriterion>,
    /// Items of the checklist: an item of the playbook that a person ticks, or a further one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub checklist: Vec<ChecklistEntry>,
    /// Who is told what.
    pub communication: Option<Communication>,
    /// Declares the incident resolved. It counts once the exit criteria are done and no mitigation is active
    /// without a waiver; until then condition Resolved says what is missing.
    pub resolution: Option<Resolution>,
    /// Genuine (the default), FalseAlarm or Duplicate. The last two cancel the incident and release its
    /// mitigations.
    pub outcome: Option<Outcome>,
    /// The incident, in the same namespace, of which this is a duplicate.
    pub duplicate_of: Option<LocalRef>,
    /// A drill: everything is reconciled as usual, but no message leaves the cluster.
    pub drill: Option<bool>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Severity {
    /// Critical: customers are widely affected; public notice is due.
    SEV1,
    /// Critical: many customers cannot use the product.
    SEV2,
    /// Partial loss, or one step away from SEV2.
    SEV3,
    /// Minor; customers are not affected.
    SEV4,
    /// Cosmetic.
    SEV5,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The variant names are the wire names.
        write!(f, "{self:?}")
    }
}

/// How the incident was found.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Detection {
    /// What found it.
    pub source: Option<DetectionSource>,
    /// When it was found. Default: when the Incident was created.
    pub time: Option<Time>,
    /// Address of the alert, ticket or message.
    #[schemars(length(min = 1, max = 2048))]
    pub reference: Option<String>,
}

/// What found an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum DetectionSource {
    /// An alert.
    Alert,
    /// Somebody looking at monitoring.
    Monitor,
    /// A customer.
    Customer,
    /// An employee.
    Employee,
    /// Something else.
    Other,
}

/// Who does what. Names are user names, as the cluster knows them.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Roles {
    /// Leads: decides, delegates, repairs nothing.
    #[schemars(length(min = 1, max = 253))]
    pub incident_commander: Option<String>,
    /// Writes the updates.
    #[schemars(length(min = 1, max = 253))]
    pub communications_lead: Option<String>,
    /// Changes the system.
    #[schemars(length(min = 1, max = 253))]
    pub operations_lead: Option<String>,
    /// Stands in for the commander and watches the clocks.
    #[schemars(length(min = 1, max = 253))]
    pub deputy: Option<String>,
    /// Keeps the timeline.
    #[schemars(length(min = 1, max = 253))]
    pub scribe: Option<String>,
}

/// Who and what is affected.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Impact {
    /// The impact in one sentence.
    #[schemars(length(min = 1, max = 1024))]
    pub summary: Option<String>,
    /// Number of tenants that are affected.
    #[schemars(range(min = 0))]
    pub affected_tenants: Option<i64>,
    /// Features that are affected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub affected_features: Vec<String>,
    /// Components of the status page, with their state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub components: Vec<Component>,
    /// Whether data may be lost or damaged.
    pub data_at_risk: Option<DataRisk>,
}

/// A component of the status page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Name of the component.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its state.
    pub state: ComponentState,
}

/// State of a component, in the words of status pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ComponentState {
    /// It works.
    Operational,
    /// It is slow.
    DegradedPerformance,
    /// Some of it does not work.
    PartialOutage,
    /// It does not work.
    MajorOutage,
    /// It is being maintained.
    UnderMaintenance,
}

/// Whether data may be lost or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum DataRisk {
    /// No data is at risk.
    None,
    /// Data may be at risk.
    Suspected,
    /// Data is lost or damaged.
    Confirmed,
}

/// A mitigation that stands inside an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct InlineMitigation {
    /// Name within the incident; the Mitigation is called <incident>-<name>.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What is asked for.
    #[serde(flatten)]
    pub template: MitigationTemplate,
}

/// One thing that must be true before the incident counts as resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct ExitCriterion {
    /// What must be true.
    #[schemars(length(min = 1, max = 512))]
    pub description: String,
    /// Todo (the default) or Done.
    #[serde(default)]
    pub state: CriterionState,
}

/// Whether an exit criterion is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum CriterionState {
    /// Not yet.
    #[default]
    Todo,
    /// Met.
    Done,
}

/// What people say of an item of the checklist. An item that the playbook does not have is added by it.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct ChecklistEntry {
    /// Name of the item, as in status.checklist.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What is to be done.
    #[schemars(length(min = 1, max = 512))]
    pub description: Option<String>,
    /// Who does it.
    pub owner: Option<Role>,
    /// How long it may take, from the declaration, or from when the item was added later. Default: 15m.
    pub within: Option<GoDuration>,
    /// Done, NotNeeded or Todo. When absent the operator ticks the item from what it sees, if it can.
    pub state: Option<ChecklistState>,
    /// What was found, or why it is not needed.
    #[schemars(length(min = 1, max = 1024))]
    pub note: Option<String>,
}

/// Where an item of the checklist stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ChecklistState {
    /// Not yet.
    #[default]
    Todo,
    /// Done.
    Done,
    /// It does not apply.
    NotNeeded,
}

/// Who is told what.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Communication {
    /// Internal (the default), or Public, which also keeps the external clock and status page.
    pub visibility: Option<Visibility>,
    /// Time between internal updates, when it is to differ from the configuration's for this severity.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s')",
        "message": "write a length of time from 1s on, such as 15m or 1h30m; without it the configuration's holds"
    }]))]
    pub update_interval: Option<GoDuration>,
}

/// Who may know of the incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Visibility {
    /// The company.
    #[default]
    Internal,
    /// Everybody.
    Public,
}

/// Declares the incident resolved.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Resolution {
    /// What resolved it.
    #[schemars(length(min = 1, max = 4096))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Mitigations that may stay active although the incident is resolved, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mitigation"])
    )]
    pub waivers: Vec<Waiver>,
}

/// Lets a mitigation stay active although the incident is resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Waiver {
    /// Name of the mitigation: an entry of spec.mitigations, or a Mitigation of this incident.
    #[schemars(length(min = 1, max = 253))]
    pub mitigation: String,
    /// Why it may stay.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}

/// What the incident turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Outcome {
    /// A real incident.
    #[default]
    Genuine,
    /// Nothing was wrong.
    FalseAlarm,
    /// Another incident is about the same.
    Duplicate,
}
