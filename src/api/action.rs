//! The ten actions that stop the bleeding.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Exactly one of these blocks says what is done to the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Set the number of replicas of a Deployment or StatefulSet: 0 stops it, more gives it headroom.
    Scale(Scale),
    /// Set one value of a ConfigMap that switches a feature.
    FeatureFlag(FeatureFlag),
    /// Go back to an earlier revision of a Deployment, StatefulSet or DaemonSet.
    Rollback(Rollback),
    /// Stop a rollout of a Deployment, StatefulSet or DaemonSet where it stands.
    PauseRollout(PauseRollout),
    /// Suspend a CronJob or Job.
    Suspend(Suspend),
    /// Freeze changes in the namespace; the target is the Namespace itself.
    Freeze(Freeze),
    /// Block writes where data is at risk.
    BlockWrites(BlockWrites),
    /// Limit the rate of requests on a route.
    RateLimit(RateLimit),
    /// Take pods out of service and keep them for inspection.
    Isolate(Isolate),
    /// A step that a person does by hand, recorded like the others.
    Manual(Manual),
}

/// Set the number of replicas.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// Number of replicas while the mitigation is active.
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,
    /// Restore in steps of this percentage of the prior number, so that a stampede does not follow.
    #[schemars(range(min = 1, max = 100))]
    pub restore_step_percent: Option<i32>,
}

/// Set one value of a ConfigMap.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct FeatureFlag {
    /// Key in the ConfigMap's data.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// Path to one value inside the JSON, YAML or properties document under the key, in dots
    /// ("flags.new-pricing.state"). Without it the whole key is the value.
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// Value while the mitigation is active.
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// For a flagd document: Disable sets the flag's state to DISABLED, ForceVariant makes every evaluation
    /// answer the variant named in value. Set (the default) writes value.
    pub mode: Option<FlagMode>,
    /// Add the key when it is missing; release removes it again. Without it a missing key is refused.
    pub create_if_missing: Option<bool>,
    /// Restart the workloads that read the ConfigMap only when they start.
    pub restart_consumers: Option<bool>,
}

/// How a flag is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum FlagMode {
    /// Write the value.
    Set,
    /// Set the state of a flagd flag to DISABLED: the application's coded default applies.
    Disable,
    /// Make a flagd flag answer one variant for everybody, targeting rules or not.
    ForceVariant,
}

/// Go back to an earlier revision.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Where to: Previous (the default), Revision (a number) or Image (the newest revision with that image). May be
    /// left out when revision or image is stated.
    pub to: Option<RollbackTo>,
    /// Number of the revision, with to: Revision.
    #[schemars(range(min = 1))]
    pub revision: Option<i64>,
    /// Image that the revision must run, with to: Image.
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Allow deleting pods of a StatefulSet that are of the bad version and not ready, one at a time: its
    /// controller waits for them and would never replace them.
    pub allow_pod_deletion: Option<bool>,
}

/// Where a rollback goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum RollbackTo {
    /// The revision before the present one; never one that somebody went back from already.
    Previous,
    /// The revision with the given number.
    Revision,
    /// The newest revision that runs the given image.
    Image,
}

/// Stop a rollout where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct PauseRollout {}

/// Suspend a CronJob or Job.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Suspend {
    /// What happens on release to runs that were missed: Skip (the default) or Run the latest at once.
    pub missed: Option<MissedRuns>,
    /// What happens to Jobs of the CronJob that are running: Keep (the default), Suspend or Delete. Jobs that
    /// somebody started by hand (kubectl create job --from) always go on.
    pub running_jobs: Option<RunningJobs>,
}

/// What happens to missed runs of a CronJob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum MissedRuns {
    /// The latest missed run starts when the mitigation is released.
    Run,
    /// Missed runs are left out.
    Skip,
}

/// What happens to running Jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum RunningJobs {
    /// They go on.
    Keep,
    /// They are suspended too; their pods are deleted and come back on release.
    Suspend,
    /// They are deleted.
    Delete,
}

/// Freeze changes in the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Freeze {}

/// Block writes where data is at risk. The target is the ConfigMap of the flag, the HTTPRoute, the Namespace or the
/// workload of the data store, by level.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct BlockWrites {
    /// Where the writes are blocked.
    pub level: BlockLevel,
    /// The read-only flag to set, with level Flag.
    pub flag: Option<FeatureFlag>,
    /// HTTP methods that are answered 503, with level Routes. Default: POST, PUT, PATCH, DELETE.
    #[schemars(length(max = 8), inner(length(min = 1, max = 16)), extend("x-kubernetes-list-type" = "set"))]
    pub methods: Option<Vec<String>>,
    /// Resources of which no more may be created, with level Quota: plural and group. Default: jobs.batch and
    /// cronjobs.batch.
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub resources: Option<Vec<String>>,
    /// Labels of the data store's read replicas, which stay reachable, with level Network.
    #[schemars(extend("maxProperties" = 16))]
    pub read_replica_labels: Option<BTreeMap<String, ShortText>>,
}

/// Where writes are blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum BlockLevel {
    /// By a read-only flag of the application.
    Flag,
    /// By HTTP method on a route, which answers 503; needs Envoy Gateway.
    Routes,
    /// By a quota that stops new objects.
    Quota,
    /// By network policy in front of the data store.
    Network,
}

/// A label value or other short text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(transparent)]
#[schemars(inline)]
pub struct ShortText(#[schemars(length(max = 253))] pub String);

/// Limit the rate of requests.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Number of requests that pass.
    #[schemars(range(min = 1, max = 100000000))]
    pub requests: i64,
    /// Unit of time for the number of requests.
    pub per: RateUnit,
    /// What one budget counts for. Envoy Gateway counts PerProxy (and for each match of a route), Traefik and
    /// ingress-nginx count PerClient (in each of their replicas); what cannot be done is refused. Without it, the
    /// gateway's own.
    pub scope: Option<RateScope>,
    /// Which gateway enforces the limit. Without it, it is told from the target's kind, and for an Ingress from the
    /// controller of its IngressClass.
    pub adapter: Option<RateAdapter>,
}

/// Unit of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum RateUnit {
    /// Per second.
    Second,
    /// Per minute.
    Minute,
    /// Per hour.
    Hour,
}

/// What one budget of a rate limit counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum RateScope {
    /// Each client has a budget.
    PerClient,
    /// Each proxy replica has a budget.
    PerProxy,
    /// One budget for all.
    Global,
}

/// Which gateway enforces a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum RateAdapter {
    /// Envoy Gateway, by BackendTrafficPolicy.
    EnvoyGateway,
    /// Traefik, by Middleware.
    Traefik,
    /// ingress-nginx, by annotations of the Ingress.
    IngressNginx,
}

/// Take pods out of service.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Isolate {
    /// How: StripLabels (the default) takes away the labels that Services and policies select, DenyPolicy
    /// adds a policy that denies all traffic and is refused where another policy allows some.
    pub method: Option<IsolateMethod>,
    /// Labels of the pods, when the target is a workload and only some of its pods are meant.
    #[schemars(extend("maxProperties" = 16))]
    pub pod_labels: Option<BTreeMap<String, ShortText>>,
    /// Most pods that may be isolated. Default 1.
    #[schemars(range(min = 1, max = 100))]
    pub max_pods: Option<i32>,
    /// What a release does with the isolated pods: Delete (the default) or Relabel.
    pub release_pods: Option<ReleasePods>,
}

/// How pods are isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum IsolateMethod {
    /// Take away the labels by which Services, workloads and policies select the pods.
    StripLabels,
    /// Add a NetworkPolicy that denies all traffic.
    DenyPolicy,
}

/// What a release does with isolated pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ReleasePods {
    /// Give the labels back.
    Relabel,
    /// Delete the pods; the workload has replaced them.
    Delete,
}

/// A step that a person does by hand.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Manual {
    /// What is to be done.
    #[schemars(length(min = 1, max = 4096))]
    pub instructions: String,
    /// Who does it.
    #[schemars(length(min = 1, max = 253))]
    pub assignee: Option<String>,
    /// What came of it.
    pub result: Option<ManualResult>,
}

/// What came of a manual step.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct ManualResult {
    /// Done or Failed.
    pub state: ManualState,
    /// What was seen.
    #[schemars(length(max = 4096))]
    pub note: Option<String>,
}

/// State of a manual step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ManualState {
    /// It was done and helped.
    Done,
    /// It failed or did not help.
    Failed,
}
