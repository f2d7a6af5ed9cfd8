//! MitigationPolicy: what may be done where.

use super::{Condition, EvidencePolicy, GoDuration, Severity, ShortText};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What mitigations may do in the namespaces that the policy selects.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "incident-operator.dev",
    version = "v1alpha1",
    kind = "MitigationPolicy",
    plural = "mitigationpolicies",
    shortname = "mitpol",
    category = "incident-operator",
    doc = "A MitigationPolicy bounds what mitigations may do in the namespaces it selects. Every policy that selects a namespace must allow a mitigation there.",
    status = "MitigationPolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct MitigationPolicySpec {
    /// Namespaces the policy is about, by label. Empty selects all.
    pub namespace_selector: Option<Selector>,
    /// Actions that are allowed. Empty allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "set"))]
    pub actions: Vec<ActionName>,
    /// Targets that are allowed, by label. Empty allows all.
    pub target_selector: Option<Selector>,
    /// Targets that must never be touched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub protected: Vec<ProtectedTarget>,
    /// Longest time a mitigation may last: one must ask for this time or less in expiresAfter, with onExpire:
    /// Release; another is refused.
    pub max_duration: Option<GoDuration>,
    /// Most mitigations that may be active at once in one namespace; others wait until one has ended. Steps by
    /// hand do not count.
    #[schemars(range(min = 0, max = 1000))]
    pub max_active: Option<i32>,
    /// Shortest time between two takes on the same target; a take that comes too soon waits.
    pub min_interval: Option<GoDuration>,
    /// Which mitigations need somebody else's approval.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub approval: Vec<ApprovalRule>,
    /// Least evidence that must be kept.
    pub evidence: Option<EvidencePolicy>,
    /// Kill switch: no new mitigation is taken. Releases go on, and what was stopped does not start by itself
    /// when the switch is lifted.
    pub paused: Option<bool>,
}

/// Selects objects by label.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that must be there with these values.
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: Option<BTreeMap<String, ShortText>>,
    /// Further requirements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<SelectorRequirement>", length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// Shape of one requirement, with the maxima that the schema of Kubernetes' own type lacks.
#[derive(JsonSchema)]
#[schemars(description = "")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0",
    "message": "In and NotIn need values; Exists and DoesNotExist take none"
}]))]
#[allow(dead_code, reason = "only its schema is used")]
struct SelectorRequirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    key: String,
    /// In, NotIn, Exists or DoesNotExist.
    #[schemars(length(max = 16), regex(pattern = "^(In|NotIn|Exists|DoesNotExist)$"))]
    operator: String,
    /// The values, for In and NotIn.
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default)]
    values: Vec<String>,
}

/// A target that must never be touched.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct ProtectedTarget {
    /// Kind of the target.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the target; all of that kind when left out.
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

/// Which mitigations need an approval.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalRule {
    /// Severities the rule is about. Empty means all. A mitigation whose severity is not known, because it names no
    /// incident or the incident states none, counts as of every severity where an approval is required.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub severities: Vec<Severity>,
    /// Actions the rule is about. Empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "set"))]
    pub actions: Vec<ActionName>,
    /// Required (the default) or NotRequired. The first rule that matches decides.
    pub require: Option<ApprovalNeed>,
    /// How long after it was given an approval is good for. Default 30m.
    pub valid_for: Option<GoDuration>,
}

/// Whether an approval is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ApprovalNeed {
    /// Somebody else must approve.
    Required,
    /// Nobody needs to approve.
    NotRequired,
}

/// Names of the actions, as their blocks are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub enum ActionName {
    /// Set the number of replicas.
    Scale,
    /// Set one value of a ConfigMap.
    FeatureFlag,
    /// Go back to an earlier revision.
    Rollback,
    /// Stop a rollout.
    PauseRollout,
    /// Suspend a CronJob or Job.
    Suspend,
    /// Freeze changes in a namespace.
    Freeze,
    /// Block writes.
    BlockWrites,
    /// Limit the rate of requests.
    RateLimit,
    /// Take pods out of service.
    Isolate,
    /// A step done by hand.
    Manual,
}

/// What is true about a policy.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase", default)]
pub struct MitigationPolicyStatus {
    /// The generation of the spec that this status is about.
    pub observed_generation: Option<i64>,
    /// Observations: Ready, Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}
