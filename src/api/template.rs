//! What is common to asking for any action: its target, how long it lasts, what a release does.

use super::{Action, GoDuration, LocalRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The object that a mitigation acts on, in the namespace of the mitigation.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group and version of the target, for example "apps/v1". May be left out for kinds that the
    /// action knows.
    #[schemars(length(max = 316))]
    pub api_version: Option<String>,
    /// Kind of the target, for example Deployment.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// Name of the target.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// What is asked for, whether a Mitigation stands alone or inside an Incident.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct MitigationTemplate {
    /// Why this is done; shown in Events, on the target and in the postmortem.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = super::prose("reason")))]
    pub reason: String,
    /// The object that is changed. Immutable.
    pub target_ref: TargetRef,
    /// Exactly one action block.
    #[serde(flatten)]
    pub action: Action,
    /// Active (the default) takes and holds the change; Released undoes it. A released mitigation stays
    /// released: make a new one to act again.
    pub desired_state: Option<DesiredState>,
    /// How long the change may last, counted from when it was applied. Without it, it lasts until released.
    pub expires_after: Option<GoDuration>,
    /// What happens when the time is over: Notify (the default) tells and changes nothing, Release undoes
    /// the change.
    pub on_expire: Option<OnExpire>,
    /// Manual (the default): only a person or controller releases it. Resolve: it is released when the
    /// incident's resolution is declared and its exit criteria are done.
    pub release_on: Option<ReleaseOn>,
    /// What a release does to the changed field: Restore puts the prior value back (the default, except for
    /// rollback), Keep leaves the value and only ends the hold.
    pub on_release: Option<OnRelease>,
    /// How the effect is verified.
    pub verification: Option<Verification>,
    /// Whether evidence (events, manifests, logs) is kept before the change.
    pub evidence: Option<EvidencePolicy>,
    /// How a GitOps engine that owns the target is dealt with. Auto is the default.
    pub gitops: Option<GitOpsPolicy>,
    /// Only work out what would change: the answer is in status.plan, nothing is written to the target. Taken out later,
    /// the plan is carried out; it cannot be set later.
    pub dry_run: Option<bool>,
    /// Act with the rights of this ServiceAccount of the same namespace; the requester needs the verb
    /// impersonate on it.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: Option<String>,
    /// Act under this MitigationPolicy; the requester needs the verb use on it.
    pub policy_ref: Option<LocalRef>,
}

/// Whether a mitigation should be in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum DesiredState {
    /// In force.
    #[default]
    Active,
    /// Undone.
    Released,
}

/// What happens at expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum OnExpire {
    /// Tell the responders; change nothing.
    #[default]
    Notify,
    /// Release the mitigation.
    Release,
}

/// What releases a mitigation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ReleaseOn {
    /// Only a person or controller.
    #[default]
    Manual,
    /// The resolution of the incident.
    Resolve,
}

/// What a release does to the changed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum OnRelease {
    /// Put the prior value back.
    Restore,
    /// Leave the value.
    Keep,
}

/// How the effect is verified.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// How long the effect may take before it is reported as not effective. Default 2m.
    pub timeout: Option<GoDuration>,
}

/// Whether evidence is kept before the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum EvidencePolicy {
    /// The change waits until evidence is kept.
    Required,
    /// Evidence is kept as far as that delays the change by no more than half a second.
    BestEffort,
    /// No evidence is kept.
    None,
}

/// How a GitOps engine that owns the target is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum GitOpsPolicy {
    /// FreezeObject where the engine can, else Report.
    Auto,
    /// Tell the engine, on the object, to leave it alone until release.
    FreezeObject,
    /// Act, and report that the engine will revert it.
    Report,
    /// Do not act on an object that a GitOps engine owns.
    Refuse,
}
