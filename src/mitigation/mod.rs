//! The actions: what each one changes, refuses and counts as its effect. Pure: no client, no clock.
//!
//! One file an action. The engine knows no action by name outside [`engine`], the one exhaustive match; what
//! the operator may write to the cluster (RBAC) is rendered from [`Engine::rules`].

mod feature_flag;
pub mod ownership;
pub mod patch;
pub mod record;
mod scale;

use crate::api::{Action, ActionName, MitigationTemplate, OnRelease, TargetRef};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

/// What an action needs to know and to tell. One implementation an action.
pub trait Engine {
    /// Name of the action block.
    fn name(&self) -> ActionName;

    /// Kinds the action works on.
    fn kinds(&self) -> &'static [TargetKind];

    /// The fields that change, from the target as it is. `Err` refuses; nothing was written then.
    fn changes(&self, target: &DynamicObject) -> Result<Vec<Change>, Refusal>;

    /// Whether the change works, from the target as it is. Only asked while the change is in place.
    fn effect(&self, target: &DynamicObject) -> Effect;

    /// What the action does, as the end of "would …" ("scale Deployment/importer from 3 to 0").
    fn summary(&self, target: &TargetRef, changes: &[Change]) -> String;

    /// What to know before it is done.
    fn warnings(&self, target: &DynamicObject) -> Vec<String>;

    /// Writes to the cluster that the action needs.
    fn rules(&self) -> Vec<Rule>;
}

/// The engine of an action; `None` while it does not exist.
pub fn engine(action: &Action) -> Option<&dyn Engine> {
    match action {
        Action::Scale(scale) => Some(scale),
        Action::FeatureFlag(flag) => Some(flag),
        Action::Rollback(_)
        | Action::PauseRollout(_)
        | Action::Suspend(_)
        | Action::Freeze(_)
        | Action::BlockWrites(_)
        | Action::RateLimit(_)
        | Action::Isolate(_)
        | Action::Manual(_) => None,
    }
}

/// One action of each kind that has an engine, for what is generated from all of them.
pub fn engines() -> Vec<Box<dyn Engine>> {
    vec![Box::new(scale::example()), Box::new(feature_flag::example())]
}

impl Action {
    /// Name of the action block.
    pub fn name(&self) -> ActionName {
        match self {
            Action::Scale(_) => ActionName::Scale,
            Action::FeatureFlag(_) => ActionName::FeatureFlag,
            Action::Rollback(_) => ActionName::Rollback,
            Action::PauseRollout(_) => ActionName::PauseRollout,
            Action::Suspend(_) => ActionName::Suspend,
            Action::Freeze(_) => ActionName::Freeze,
            Action::BlockWrites(_) => ActionName::BlockWrites,
            Action::RateLimit(_) => ActionName::RateLimit,
            Action::Isolate(_) => ActionName::Isolate,
            Action::Manual(_) => ActionName::Manual,
        }
    }
}

impl ActionName {
    /// The name as it stands in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            ActionName::Scale => "scale",
            ActionName::FeatureFlag => "featureFlag",
            ActionName::Rollback => "rollback",
            ActionName::PauseRollout => "pauseRollout",
            ActionName::Suspend => "suspend",
            ActionName::Freeze => "freeze",
            ActionName::BlockWrites => "blockWrites",
            ActionName::RateLimit => "rateLimit",
            ActionName::Isolate => "isolate",
            ActionName::Manual => "manual",
        }
    }

    /// The ClusterRole of the chart that lets the operator take the action: its binding is the consent.
    pub fn cluster_role(self) -> String {
        let name: String = self
            .as_str()
            .chars()
            .flat_map(|c| c.is_ascii_uppercase().then_some('-').into_iter().chain([c.to_ascii_lowercase()]))
            .collect();
        format!("incident-operator-mitigator-{name}")
    }

    /// The field manager of the action's writes. One a kind of action, so that a GitOps engine that is told to
    /// ignore one does not ignore the others.
    pub fn field_manager(self) -> String {
        format!("incident-operator-{}", self.as_str())
    }
}

/// A kind that actions work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetKind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Resource name.
    pub plural: &'static str,
}

/// Deployment.
pub const DEPLOYMENT: TargetKind =
    TargetKind { group: "apps", version: "v1", kind: "Deployment", plural: "deployments" };
/// StatefulSet.
pub const STATEFUL_SET: TargetKind =
    TargetKind { group: "apps", version: "v1", kind: "StatefulSet", plural: "statefulsets" };
/// ConfigMap.
pub const CONFIG_MAP: TargetKind =
    TargetKind { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps" };

/// Every kind that some action works on: the kinds whose mitigated objects are watched.
pub fn target_kinds() -> Vec<TargetKind> {
    let mut kinds: Vec<TargetKind> = Vec::new();
    for engine in engines() {
        for kind in engine.kinds() {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
    }
    kinds
}

impl TargetKind {
    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource as the client wants it.
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(self.group, self.version, self.kind),
            self.plural,
        )
    }
}

/// The kind a template's target is of, or why the action does not work on it.
pub fn target_kind(engine: &dyn Engine, target: &TargetRef) -> Result<TargetKind, Refusal> {
    let kinds = engine.kinds();
    let found = kinds.iter().find(|k| {
        k.kind == target.kind && target.api_version.as_ref().is_none_or(|version| *version == k.api_version())
    });
    found.copied().ok_or_else(|| {
        let known =
            kinds.iter().map(|k| format!("{} ({})", k.kind, k.api_version())).collect::<Vec<_>>().join(", ");
        let stated = target.api_version.as_deref().map(|v| format!(" ({v})")).unwrap_or_default();
        Refusal::new(
            "KindNotAllowed",
            format!(
                "{} works on {known}, not on {}{stated}: correct spec.targetRef in a new mitigation",
                engine.name().as_str(),
                target.kind
            ),
        )
    })
}

/// What a release of this template does, when it does not say itself.
pub fn on_release(template: &MitigationTemplate) -> OnRelease {
    template.on_release.unwrap_or(match template.action {
        // The undo of a rollback is the bad version.
        Action::Rollback(_) => OnRelease::Keep,
        Action::Scale(_)
        | Action::FeatureFlag(_)
        | Action::PauseRollout(_)
        | Action::Suspend(_)
        | Action::Freeze(_)
        | Action::BlockWrites(_)
        | Action::RateLimit(_)
        | Action::Isolate(_)
        | Action::Manual(_) => OnRelease::Restore,
    })
}

/// One field that changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// JSON Pointer of the field.
    pub path: String,
    /// The value before; `None` when the field is absent.
    pub from: Option<Value>,
    /// The value after.
    pub to: Value,
}

/// Why a mitigation may not or cannot be done. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word for machines.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Refusal { reason, message: message.into() }
    }
}

/// Whether a change works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It works; the message says what was seen.
    Seen(String),
    /// Not yet.
    Awaited {
        /// What is awaited. It does not change while the effect comes closer, so that progress alone is no
        /// reason to write a status.
        what: String,
        /// What is there instead.
        seen: String,
    },
}

/// One RBAC rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// API groups.
    pub groups: &'static [&'static str],
    /// Resources.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// The value at a JSON Pointer of an object.
pub fn field<'a>(object: &'a DynamicObject, path: &str) -> Option<&'a Value> {
    object.data.pointer(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_actions_are_spelt_as_the_chart_spells_them() {
        assert_eq!(ActionName::FeatureFlag.cluster_role(), "incident-operator-mitigator-feature-flag");
        assert_eq!(ActionName::Scale.cluster_role(), "incident-operator-mitigator-scale");
    }
}
