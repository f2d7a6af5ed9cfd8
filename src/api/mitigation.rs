//! Mitigation: one action on one target. Deleting it releases it.

use super::{Condition, LocalRef, MitigationTemplate, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One action on one target: taken, verified, held, and undone on release or deletion.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "incident-operator.dev",
    version = "v1alpha1",
    kind = "Mitigation",
    plural = "mitigations",
    shortname = "mit",
    category = "incident-operator",
    doc = "A Mitigation is one action on one target: taken, verified, held, and undone when it is released or deleted.",
    namespaced,
    status = "MitigationStatus",
    derive = "PartialEq",
    selectable = ".spec.targetRef.kind",
    selectable = ".spec.targetRef.name",
    selectable = ".status.phase",
    printcolumn(name = "Action", type_ = "string", json_path = ".status.action"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Effective",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Effective\")].status"
    ),
    printcolumn(name = "Incident", type_ = "string", json_path = ".spec.incidentRef.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct MitigationSpec {
    /// The incident this belongs to. May be left out: a controller may mitigate before anyone declares.
    pub incident_ref: Option<LocalRef>,
    /// What is asked for.
    #[serde(flatten)]
    pub template: MitigationTemplate,
}

/// What is true about a mitigation; written by the operator alone.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct MitigationStatus {
    /// The generation of the spec that this status is about.
    pub observed_generation: Option<i64>,
    /// Where the mitigation stands; derived from the conditions, for columns and selectors.
    pub phase: Option<MitigationPhase>,
    /// Name of the action block.
    #[schemars(length(max = 63))]
    pub action: Option<String>,
    /// The target as kind/name.
    #[schemars(length(max = 320))]
    pub target: Option<String>,
    /// uid of the object that was changed. An object of the same name with another uid is left alone.
    #[schemars(length(max = 64))]
    pub target_uid: Option<String>,
    /// The objects that are changed or made, when these are not the target alone. Written down before the first
    /// of them is touched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub objects: Vec<TouchedObject>,
    /// What was changed, and the value before. For display: the value that a release restores is kept on the
    /// target itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub prior: Vec<PriorValue>,
    /// Why a release leaves a value in place, when it cannot put the prior one back.
    #[schemars(length(max = 1024))]
    pub left: Option<String>,
    /// When the target was changed.
    pub applied_time: Option<Time>,
    /// Who had asked for the change when it was made. Who edits the mitigation afterwards did not.
    #[schemars(length(max = 253))]
    pub asked_by: Option<String>,
    /// When the effect was first seen.
    pub effective_time: Option<Time>,
    /// When the change was undone or the hold ended.
    pub released_time: Option<Time>,
    /// When the mitigation expires.
    pub expiry_time: Option<Time>,
    /// When it was told that the mitigation expired.
    pub expired_time: Option<Time>,
    /// Who changed the field while the mitigation held it (the field manager), when that ended it.
    #[schemars(length(max = 256))]
    pub undone_by: Option<String>,
    /// Who changed the note of the prior value on the target (the field manager). It was put right from this status.
    #[schemars(length(max = 256))]
    pub record_changed_by: Option<String>,
    /// How often the target was written.
    pub attempts: Option<i32>,
    /// The evidence that was kept before the change.
    pub evidence: Option<EvidenceStatus>,
    /// What would change, or was changed, in words.
    pub plan: Option<MitigationPlan>,
    /// Digest of spec and target that an approval must name.
    #[schemars(length(max = 128))]
    pub approval_digest: Option<String>,
    /// The approval that was given.
    pub approval: Option<ApprovalStatus>,
    /// Why the last approval counted for nothing, as long as another one is waited for.
    #[schemars(length(max = 1024))]
    pub void_approval: Option<String>,
    /// uids of the TimelineEntries that were judged as approvals or rejections of this mitigation, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub judged_entries: Vec<String>,
    /// When it is released at the latest, whatever the spec says since: the policies in force when the change was
    /// made allow no more.
    pub latest_end_time: Option<Time>,
    /// Observations: Authorized, Approved, EvidenceCaptured, Applied, Effective, Contested, Ready, Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// Who approved a mitigation, and for what.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalStatus {
    /// The authenticated name of who approved.
    #[schemars(length(max = 253))]
    pub by: String,
    /// When.
    pub time: Option<Time>,
    /// Until when the change must have begun.
    pub valid_until: Option<Time>,
    /// Digest of spec and target that was approved; with another one the approval is void.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// uid of the TimelineEntry.
    #[schemars(length(max = 64))]
    pub entry_uid: Option<String>,
}

/// Evidence that was kept of what went.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct EvidenceStatus {
    /// Name of the immutable ConfigMap that holds it.
    #[schemars(length(max = 253))]
    pub config_map: String,
    /// Hash over its items, as `incident-operator` computes it: of each name and text, with their lengths.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// Number of items.
    pub items: i32,
    /// What could not be had, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub missing: Vec<String>,
    /// When it was complete.
    pub captured_time: Option<Time>,
}

/// An object that a mitigation changes or makes.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct TouchedObject {
    /// API group and version.
    #[schemars(length(max = 316))]
    pub api_version: String,
    /// Kind.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name, in the namespace of the mitigation.
    #[schemars(length(max = 253))]
    pub name: String,
    /// uid, when the object was there before. Another object of the same name is left alone.
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
}

/// The value of one field before the change.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct PriorValue {
    /// The object as kind/name, when it is not the target.
    #[schemars(length(max = 320))]
    pub object: Option<String>,
    /// How the value is kept, when that is not the value of the whole field: as JSON.
    #[schemars(length(max = 1024))]
    pub how: Option<String>,
    /// JSON Pointer of the field.
    #[schemars(length(max = 1024))]
    pub path: String,
    /// The value before the change, as JSON. Left out when the field was absent; a hash for a large value.
    #[schemars(length(max = 65536))]
    pub value: Option<String>,
    /// The value during the mitigation, as JSON.
    #[schemars(length(max = 65536))]
    pub applied: Option<String>,
    /// Which field managers owned the field before, as JSON: they get it back. Left out when nobody did.
    #[schemars(length(max = 8192))]
    pub owners: Option<String>,
}

/// What would change, or was changed.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct MitigationPlan {
    /// One sentence that says it all.
    #[schemars(length(max = 1024))]
    pub summary: String,
    /// Each field that changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub changes: Vec<PlannedChange>,
    /// What a release will do.
    #[schemars(length(max = 1024))]
    pub release: Option<String>,
    /// Things to know before it is done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(max = 1024)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub warnings: Vec<String>,
}

/// One field that changes.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedChange {
    /// The object as kind/name, when it is not the target.
    #[schemars(length(max = 320))]
    pub object: Option<String>,
    /// JSON Pointer of the field; empty for an object that is made.
    #[schemars(length(max = 1024))]
    pub path: String,
    /// The value before, as JSON; "absent" when there is none, "not shown" where it may be nobody's business. A list or
    /// map inside a document as it is written there.
    #[schemars(length(max = 4096))]
    pub from: String,
    /// The value after, told likewise; for a list of which only one entry comes or goes, which one that is.
    #[schemars(length(max = 4096))]
    pub to: String,
    /// The field manager that wrote the field last.
    #[schemars(length(max = 256))]
    pub written_by: Option<String>,
}

/// Where a mitigation stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(description = "")]
pub enum MitigationPhase {
    /// Asked for; nothing is changed yet.
    #[default]
    Pending,
    /// Waits for somebody's approval.
    AwaitingApproval,
    /// The change is being made.
    Applying,
    /// The change is in place and held.
    Active,
    /// The change is being undone.
    Releasing,
    /// Undone: the prior value is back.
    Released,
    /// Ended with the value left in place, as asked.
    Kept,
    /// Ended because somebody else changed the field; their value stands.
    Superseded,
    /// Ended because the target is gone.
    Abandoned,
    /// It may not or cannot be done; nothing was changed.
    Refused,
    /// It went wrong and cannot be put right without help.
    Failed,
}

impl MitigationPhase {
    /// True when nothing more will happen.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Pending | Self::AwaitingApproval | Self::Applying | Self::Active | Self::Releasing => false,
            Self::Released
            | Self::Kept
            | Self::Superseded
            | Self::Abandoned
            | Self::Refused
            | Self::Failed => true,
        }
    }
}

impl std::fmt::Display for MitigationPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The variant names are the wire names.
        write!(f, "{self:?}")
    }
}
