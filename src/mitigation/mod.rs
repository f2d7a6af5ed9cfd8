//! The actions: what each one changes, refuses and counts as its effect. Pure: no client, no clock.
//!
//! One file an action. The engine knows no action by name outside [`engine`], the one exhaustive match; what
//! the operator may write to the cluster (RBAC), what its field managers may change and which rights it asks of the
//! requester are rendered from what each declares.

mod block_writes;
pub mod document;
pub mod evidence;
mod feature_flag;
pub mod field;
mod field_set;
mod freeze;
mod gateway;
pub mod gitops;
mod isolate;
mod kinds;
mod manual;
pub mod ownership;
pub mod patch;
mod pause_rollout;
mod rate_limit;
pub mod record;
pub mod revisions;
mod rollback;
pub mod scalable;
mod scale;
mod scene;
pub mod selector;
mod suspend;
pub mod workload;

pub use field::{Change, field};
pub use kinds::*;
pub use manual::UNDOES_NOTHING;
#[cfg(test)]
pub(crate) use scene::tests as scene_tests;
pub use scene::*;

use crate::api::{
    Action, ActionName, FeatureFlag, MitigationTemplate, OnRelease, PauseRollout, Rollback, Suspend,
    TargetRef,
};
use crate::{authority::Authority, fence::Fence};
use kube::core::DynamicObject;
use record::Record;
use serde_json::Value;

/// What an action needs to know and to tell. One implementation an action.
pub trait Engine {
    /// Name of the action block.
    fn name(&self) -> ActionName;

    /// Kinds the action works on. Empty for a step that a person does by hand.
    fn kinds(&self) -> &'static [TargetKind];

    /// Further kinds of targets, which the configuration lists.
    fn listed_kinds(&self) -> Vec<TargetKind> {
        Vec::new()
    }

    /// Further kinds that it changes or makes.
    fn touches(&self) -> &'static [TargetKind] {
        &[]
    }

    /// Further kinds that it looks at.
    fn looks_at(&self) -> &'static [TargetKind] {
        &[]
    }

    /// What is changed and made, in this order, from the target as it is. Nothing was written when it refuses.
    /// While it is being done it may be asked again, and must then answer the same for what is not done yet.
    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop>;

    /// Whether the change works. Only asked while the change is in place.
    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop>;

    /// How an object goes back on release; only asked while the object has the mitigation's values. By default
    /// to the prior values.
    fn undo(
        &self,
        _scene: &Scene<'_>,
        _id: &ObjectId,
        _object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        Ok(prior(record))
    }

    /// The values to write again, one for each held field, after somebody changed them. Only asked when a value is
    /// kept by its hash.
    fn again(&self, _scene: &Scene<'_>, _record: &Record) -> Result<Vec<Option<Value>>, Stop> {
        Err(Stop::refuse("ValueUnknown", "the value was not kept"))
    }

    /// Whether a machine's new value stands, so that the mitigation ends. By default it is taken back.
    fn gives_way(&self, _object: &DynamicObject, _record: &Record) -> bool {
        false
    }

    /// What else tells whether the change works, besides the objects that it holds: looked at again when one of
    /// these changes.
    fn follows(&self, _scene: &Scene<'_>) -> Option<Look> {
        None
    }

    /// What may end the effect later, besides the objects that it holds: looked at again when one of these changes.
    fn watches_over(&self, _scene: &Scene<'_>) -> Option<Look> {
        None
    }

    /// True when what was done last is undone first: what was made must not go before what names it.
    fn undone_backwards(&self) -> bool {
        false
    }

    /// What it is called when the target has the values already.
    fn already(&self) -> &'static str {
        "AlreadyAtValue"
    }

    /// Whether something goes that cannot be looked at afterwards, such as pods with their logs. Then evidence is
    /// kept unless the mitigation says otherwise.
    fn destroys(&self) -> bool {
        false
    }

    /// What the action does, as the end of "would …" ("scale Deployment/importer from 3 to 0").
    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String;

    /// What to know before it is done: who suffers, what does not change.
    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop>;

    /// What a release will do, when the value is put back.
    fn release(&self) -> String {
        "puts the value back, unless somebody changed it meanwhile".to_owned()
    }

    /// Writes to the cluster that the action needs: its role.
    fn rules(&self) -> Vec<Rule>;

    /// What it asks of whoever requests it, whatever its parameters are.
    fn authority(&self) -> Authority;

    /// What its field manager may change, whatever its parameters are.
    fn fence(&self) -> Fence;
}

/// Back to the prior values, as far as the record has them.
pub fn prior(record: &Record) -> Undo {
    if record.made {
        return Undo::Delete;
    }
    if record.fields.iter().any(|held| held.how.is_hashed() && held.prior.is_some()) {
        return Undo::Leave("only the hash of the prior value was kept".to_owned());
    }
    Undo::Restore(record.fields.iter().map(|held| held.prior.clone()).collect())
}

/// The engine of an action; `None` while it does not exist.
pub fn engine(action: &Action) -> Option<&dyn Engine> {
    match action {
        Action::Scale(scale) => Some(scale),
        Action::FeatureFlag(flag) => Some(flag),
        Action::Freeze(freeze) => Some(freeze),
        Action::BlockWrites(block) => Some(block),
        Action::RateLimit(limit) => Some(limit),
        Action::Rollback(rollback) => Some(rollback),
        Action::PauseRollout(pause) => Some(pause),
        Action::Suspend(suspend) => Some(suspend),
        Action::Isolate(isolate) => Some(isolate),
        Action::Manual(manual) => Some(manual),
    }
}

/// One action of each kind, in the order of the schema, for what is generated from all of them.
pub fn engines() -> Vec<Box<dyn Engine>> {
    vec![
        Box::new(scale::example()),
        Box::new(feature_flag::example()),
        Box::new(Rollback::default()),
        Box::new(PauseRollout::default()),
        Box::new(Suspend::default()),
        Box::new(freeze::example()),
        Box::new(block_writes::example()),
        Box::new(rate_limit::example()),
        Box::new(isolate::example()),
        Box::new(manual::example()),
    ]
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

/// Every kind that some action changes or makes, and so holds.
pub fn held_kinds() -> Vec<TargetKind> {
    distinct(|engine| [engine.kinds(), engine.touches()].concat())
}

/// Every kind that some action reads.
pub fn read_kinds() -> Vec<TargetKind> {
    distinct(|engine| [engine.kinds(), engine.touches(), engine.looks_at()].concat())
}

fn distinct(of: impl Fn(&dyn Engine) -> Vec<TargetKind>) -> Vec<TargetKind> {
    let mut kinds: Vec<TargetKind> = engines().iter().flat_map(|engine| of(engine.as_ref())).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// The kind a template's target is of, or why the action does not work on it.
pub fn target_kind(engine: &dyn Engine, target: &TargetRef) -> Result<TargetKind, Refusal> {
    let kinds = [engine.kinds().to_vec(), engine.listed_kinds()].concat();
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
    /// It cannot be told, or not before somebody does something.
    Unclear {
        /// One word for machines.
        reason: &'static str,
        /// What is known, and what to do.
        message: String,
    },
    /// An object is in the way and must be deleted for it to work; asked again afterwards.
    Delete {
        /// The object.
        id: ObjectId,
        /// uid of it; another of the same name is left alone.
        uid: String,
    },
    /// Whoever brings it about has not looked at the object since it was changed last, by whomever: what it says of it is
    /// old.
    Unseen {
        /// What is awaited.
        what: String,
        /// Who has not looked.
        seen: String,
    },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_actions_are_spelt_as_the_chart_spells_them() {
        assert_eq!(ActionName::FeatureFlag.cluster_role(), "incident-operator-mitigator-feature-flag");
        assert_eq!(ActionName::Scale.cluster_role(), "incident-operator-mitigator-scale");
    }
}
