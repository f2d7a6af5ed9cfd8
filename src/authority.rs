//! The rights that a mitigation asks of whoever requests it: the table behind the chart's authority policies.
//!
//! Declaring an incident grants nobody power. So whoever asks for a mitigation, changes one or releases one must
//! hold, on the mitigation's own target, the right that the action uses there. The API server checks it by CEL
//! policies which the chart renders from this table; see [`crate::manifests`].

use crate::{
    api::{ActionName, MitigationTemplate, TargetRef},
    decide::access::Need,
    mitigation::scalable,
};
use serde_json::{Value, json};

/// Every action, in the order of the schema.
pub const ACTIONS: [ActionName; 10] = [
    ActionName::Scale,
    ActionName::FeatureFlag,
    ActionName::Rollback,
    ActionName::PauseRollout,
    ActionName::Suspend,
    ActionName::Freeze,
    ActionName::BlockWrites,
    ActionName::RateLimit,
    ActionName::Isolate,
    ActionName::Manual,
];

/// A verb on a resource, as RBAC names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// Verb.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural of the kind.
    pub resource: &'static str,
    /// Subresource, or empty.
    pub subresource: &'static str,
}

/// The right that an action needs for a target of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnKind {
    /// Kind of the target.
    pub kind: &'static str,
    /// Its API group and version.
    pub api_version: &'static str,
    /// The right.
    pub right: Right,
    /// Whether the right is on the target itself, so that a grant for this one name is enough. Otherwise it is on
    /// objects that the action makes or finds, and the grant must be for all of them.
    pub on_target: bool,
    /// Only for these values of [`Authority::by`]; an empty text is the field left out. Empty: for all.
    pub when: &'static [&'static str],
}

/// A right that one value of a field asks for besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra {
    /// Path of the field inside the action's block.
    pub field: &'static str,
    /// What counts when the field is left out.
    pub default: Value,
    /// The value that asks for the right.
    pub value: Value,
    /// The right, on all objects of the resource.
    pub right: Right,
}

/// A field of the action's block by which the rights differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// Its name.
    pub field: &'static str,
    /// What counts when it is left out.
    pub default: &'static str,
}

/// What one action asks of the requester.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authority {
    /// The field by which the rights differ, if they do.
    pub by: Option<By>,
    /// By kind of the target; a kind that is not here is refused. Empty: no right is needed.
    pub rights: Vec<OnKind>,
    /// What parameters ask for besides.
    pub extras: Vec<Extra>,
}

const fn right(verb: &'static str, group: &'static str, resource: &'static str) -> Right {
    Right { verb, group, resource, subresource: "" }
}

/// A right on the target itself.
const fn on(kind: &'static str, api_version: &'static str, right: Right) -> OnKind {
    OnKind { kind, api_version, right, on_target: true, when: &[] }
}

impl OnKind {
    const fn when(self, when: &'static [&'static str]) -> OnKind {
        OnKind { when, ..self }
    }

    /// The right is not on the target, but on what is made for it.
    const fn beside(self) -> OnKind {
        OnKind { on_target: false, ..self }
    }
}

fn extra(field: &'static str, default: impl Into<Value>, value: impl Into<Value>, right: Right) -> Extra {
    Extra { field, default: default.into(), value: value.into(), right }
}

const GATEWAY: &str = "gateway.networking.k8s.io";
const ENVOY: &str = "gateway.envoyproxy.io";

/// Reading logs, which evidence does on behalf of whoever demands it.
pub const EVIDENCE: Right = Right { verb: "get", group: "", resource: "pods", subresource: "log" };

/// What an action asks of the requester.
pub fn authority(action: ActionName) -> Authority {
    match action {
        ActionName::Scale => Authority { rights: scale(), ..Authority::default() },
        ActionName::FeatureFlag => Authority {
            rights: vec![on("ConfigMap", "v1", right("patch", "", "configmaps"))],
            extras: vec![extra("restartConsumers", false, true, right("patch", "apps", "deployments"))],
            ..Authority::default()
        },
        ActionName::Rollback => Authority {
            rights: workloads(),
            extras: vec![extra("allowPodDeletion", false, true, right("delete", "", "pods"))],
            ..Authority::default()
        },
        ActionName::PauseRollout => Authority { rights: workloads(), ..Authority::default() },
        ActionName::Suspend => Authority {
            rights: vec![
                on("CronJob", "batch/v1", right("patch", "batch", "cronjobs")),
                on("Job", "batch/v1", right("patch", "batch", "jobs")),
            ],
            extras: vec![
                extra("runningJobs", "Keep", "Suspend", right("patch", "batch", "jobs")),
                extra("runningJobs", "Keep", "Delete", right("delete", "batch", "jobs")),
            ],
            ..Authority::default()
        },
        // Who may patch a Namespace may do far more than freeze it, and who freezes it need not.
        ActionName::Freeze => Authority {
            rights: vec![on("Namespace", "v1", right("freeze", "", "namespaces"))],
            ..Authority::default()
        },
        ActionName::BlockWrites => block_writes(),
        ActionName::RateLimit => rate_limit(),
        ActionName::Isolate => isolate(),
        // Whoever does it by hand needs the rights then, not the one who asks for it.
        ActionName::Manual => Authority::default(),
    }
}

fn scale() -> Vec<OnKind> {
    let scale = |resource| Right { verb: "patch", group: "apps", resource, subresource: "scale" };
    vec![
        on("Deployment", "apps/v1", scale("deployments")),
        on("StatefulSet", "apps/v1", scale("statefulsets")),
    ]
}

fn workloads() -> Vec<OnKind> {
    [("Deployment", "deployments"), ("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets")]
        .map(|(kind, resource)| on(kind, "apps/v1", right("patch", "apps", resource)))
        .to_vec()
}

fn block_writes() -> Authority {
    let quota = right("create", "", "resourcequotas");
    let network = right("create", "networking.k8s.io", "networkpolicies");
    Authority {
        by: Some(By { field: "level", default: "" }),
        rights: vec![
            on("ConfigMap", "v1", right("patch", "", "configmaps")).when(&["Flag"]),
            on("HTTPRoute", "gateway.networking.k8s.io/v1", right("patch", GATEWAY, "httproutes"))
                .when(&["Routes"]),
            on("Namespace", "v1", quota).beside().when(&["Quota"]),
            on("Deployment", "apps/v1", network).beside().when(&["Network"]),
            on("StatefulSet", "apps/v1", network).beside().when(&["Network"]),
        ],
        extras: vec![extra("flag.restartConsumers", false, true, right("patch", "apps", "deployments"))],
    }
}

/// Without an adapter, the target's kind tells it.
fn rate_limit() -> Authority {
    let envoy: &[&str] = &["", "EnvoyGateway"];
    let make = right("create", ENVOY, "backendtrafficpolicies");
    Authority {
        by: Some(By { field: "adapter", default: "" }),
        rights: vec![
            on("HTTPRoute", "gateway.networking.k8s.io/v1", make).beside().when(envoy),
            on("Gateway", "gateway.networking.k8s.io/v1", make).beside().when(envoy),
            on("IngressRoute", "traefik.io/v1alpha1", right("patch", "traefik.io", "ingressroutes"))
                .when(&["", "Traefik"]),
            on("Ingress", "networking.k8s.io/v1", right("patch", "networking.k8s.io", "ingresses")).when(&[
                "",
                "IngressNginx",
                "Traefik",
            ]),
        ],
        extras: Vec::new(),
    }
}

fn isolate() -> Authority {
    let pods = right("patch", "", "pods");
    let deny = right("create", "networking.k8s.io", "networkpolicies");
    let mut rights = vec![on("Pod", "v1", pods).when(&["StripLabels"])];
    let workloads = ["Deployment", "StatefulSet", "DaemonSet"];
    rights.extend(workloads.map(|kind| on(kind, "apps/v1", pods).beside().when(&["StripLabels"])));
    rights.push(on("Pod", "v1", deny).beside().when(&["DenyPolicy"]));
    rights.extend(workloads.map(|kind| on(kind, "apps/v1", deny).beside().when(&["DenyPolicy"])));
    Authority {
        by: Some(By { field: "method", default: "StripLabels" }),
        rights,
        extras: vec![extra("releasePods", "Delete", "Delete", right("delete", "", "pods"))],
    }
}

/// What a mitigation asks of whoever requests it (`taken`), or releases it: the same that the policies ask for.
pub fn wanted(template: &MitigationTemplate, taken: bool) -> Vec<Need> {
    let action = template.action.name();
    let Authority { by, rights, extras } = authority(action);
    // The block of the action as it stands in the manifest.
    let block = serde_json::to_value(&template.action).unwrap_or_default();
    let field = |path: &str| path.split('.').fold(&block[action.as_str()], |value, name| &value[name]);
    let variant = by.map(|by| field(by.field).as_str().unwrap_or(by.default).to_owned());
    let target = &template.target_ref;
    let fits = |on: &&OnKind| {
        on.kind == target.kind
            && target.api_version.as_deref().is_none_or(|version| version == on.api_version)
            && variant.as_deref().is_none_or(|variant| on.when.is_empty() || on.when.contains(&variant))
    };
    let named = |on: &OnKind| if on.on_target { target.name.clone() } else { String::new() };
    let right = rights.iter().find(fits).map(|on| Need { right: on.right, name: named(on) });
    let right = right.or_else(|| (action == ActionName::Scale).then(|| scale_of_listed(target)).flatten());
    // What the table does not know is for those who may do everything.
    let unknown = || Need { right: right_on_everything(), name: String::new() };
    let right = right.or_else(|| (!rights.is_empty()).then(unknown));
    let asked = |extra: &&Extra| {
        let stated = field(extra.field);
        taken && extra.value == *if stated.is_null() { &extra.default } else { stated }
    };
    let more = extras.iter().filter(asked).map(|extra| Need { right: extra.right, name: String::new() });
    right.into_iter().chain(more).collect()
}

const fn right_on_everything() -> Right {
    right("*", "*", "*")
}

/// The same right on a kind that the configuration lists, or listed once.
fn scale_of_listed(target: &TargetRef) -> Option<Need> {
    let group = target.api_version.as_deref().map(|v| v.rsplit_once('/').map_or("", |(group, _)| group));
    let kind = scalable::known(group, &target.kind)?;
    let right = Right { verb: "patch", group: kind.group, resource: kind.plural, subresource: "scale" };
    Some(Need { right, name: target.name.clone() })
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if self.subresource.is_empty() { Ok(()) } else { write!(f, "/{}", self.subresource) }
    }
}

impl Right {
    fn to_json(self) -> Value {
        let mut right = json!({"verb": self.verb, "group": self.group, "resource": self.resource});
        if !self.subresource.is_empty() {
            right["subresource"] = self.subresource.into();
        }
        right
    }
}

/// The table as the chart reads it.
pub fn table() -> Value {
    let actions: Vec<Value> = ACTIONS
        .iter()
        .map(|action| {
            let Authority { by, rights, extras } = authority(*action);
            let rights: Vec<Value> = rights
                .iter()
                .map(|on| {
                    let mut entry = on.right.to_json();
                    entry["kind"] = on.kind.into();
                    entry["apiVersion"] = on.api_version.into();
                    if on.on_target {
                        entry["named"] = true.into();
                    }
                    if !on.when.is_empty() {
                        entry["when"] = json!(on.when);
                    }
                    entry
                })
                .collect();
            let mut entry = json!({"name": action.as_str(), "rights": rights});
            if let Some(by) = by {
                entry["by"] = json!({"field": by.field, "default": by.default});
            }
            let extras: Vec<Value> = extras
                .iter()
                .map(|extra| {
                    let mut entry = extra.right.to_json();
                    entry["field"] = extra.field.into();
                    entry["default"] = extra.default.clone();
                    entry["value"] = extra.value.clone();
                    entry
                })
                .collect();
            if !extras.is_empty() {
                entry["extras"] = extras.into();
            }
            entry
        })
        .collect();
    json!({"actions": actions, "evidence": EVIDENCE.to_json()})
}

#[cfg(test)]
mod tests;
