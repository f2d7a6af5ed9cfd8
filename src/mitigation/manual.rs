//! `manual`: a step that a person does by hand.
//!
//! The operator writes nothing to the target, so it needs no right. The clocks, the record and the release are those of
//! any other mitigation; whether it works is what the person says.

use super::{Effect, Engine, Part, Rule, Scene, Stop, TargetKind};
use crate::api::{ActionName, Manual, TargetRef};
use crate::authority::Authority;
use crate::fence::Fence;

/// What to know before somebody is asked.
pub const UNDOES_NOTHING: &str = "nothing is done by itself, and a release undoes nothing";

/// An instance, for what is generated from all actions.
pub(super) fn example() -> Manual {
    Manual { instructions: "instructions".to_owned(), assignee: None, result: None }
}

impl Engine for Manual {
    fn name(&self) -> ActionName {
        ActionName::Manual
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[]
    }

    fn parts(&self, _scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        Ok(Vec::new())
    }

    fn effect(&self, _scene: &Scene<'_>) -> Result<Effect, Stop> {
        Ok(Effect::Unclear {
            reason: "WaitingForPerson",
            message: "whether it works is what the person says in spec.manual.result".to_owned(),
        })
    }

    fn summary(&self, target: &TargetRef, _parts: &[Part]) -> String {
        let who = self.assignee.as_deref().unwrap_or("somebody");
        format!("ask {who} to act on {}/{}: {}", target.kind, target.name, self.instructions)
    }

    fn warnings(&self, _scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        Ok(vec![UNDOES_NOTHING.to_owned()])
    }

    fn release(&self) -> String {
        "ends the step; what was done by hand is undone by hand".to_owned()
    }

    fn rules(&self) -> Vec<Rule> {
        Vec::new()
    }

    fn authority(&self) -> Authority {
        // Whoever does it by hand needs the rights then, not the one who asks for it.
        Authority::default()
    }

    fn fence(&self) -> Fence {
        Fence::default()
    }
}
