//! The end that somebody else brought about: who it was, which fields that is about, and what became of the others.

use super::{Decision, DynamicObject, HeldField, Holding, Phase, Record, clip, release::DELETER, writer};
use crate::mitigation::field::{dotted, field};

/// Who ended a mitigation by removing a field that it holds: the API server notes who wrote a field, and nobody for one
/// that is gone.
const REMOVER: &str = "somebody who removed it";

/// Who changed a field that was held, as far as the object tells.
pub(super) fn changer(object: &DynamicObject, changed: Option<&HeldField>) -> String {
    let removed = changed.is_some_and(|held| field(object, &held.path).is_none());
    match changed.and_then(|held| writer(object, &held.path)) {
        Some(writer) => clip(&writer.manager, 256),
        None if removed => REMOVER.to_owned(),
        None => "somebody unknown".to_owned(),
    }
}

/// An object that is there, and what status tells of the change of it.
type Told<'a> = (&'a Holding<'a>, &'a DynamicObject, Option<Record>);

impl Decision<'_> {
    /// Somebody else's change ends it: which fields that is about, and what became of the others.
    pub(super) fn superseded(
        &mut self,
        who: &str,
        told: &[Told<'_>],
        is_back: impl Fn(&DynamicObject, &HeldField) -> bool,
    ) {
        let left = self.plan.status.left.iter().map(|left| format!("; {left}")).collect::<String>();
        if who == DELETER {
            let message = match left.is_empty() {
                true => "what bore the change was deleted by somebody: nothing is left to undo".to_owned(),
                false => clip(&format!("what bore the change was deleted by somebody{left}"), 2048),
            };
            return self.finish(Phase::Superseded, "ChangedBySomebodyElse", message);
        }
        let (mut held_all, mut changed) = (Vec::new(), Vec::new());
        let mut restored = false;
        let mut removed = true;
        for (holding, object, record) in told {
            let label = self.label_of(&holding.id).map(|label| format!(" of {label}")).unwrap_or_default();
            for held in record.iter().flat_map(|record| &record.fields) {
                held_all.push(format!("{}{label}", dotted(&held.path)));
                match is_back(object, held) {
                    true => restored |= !held.is_unchanged(),
                    false => {
                        removed &= field(object, &held.path).is_none();
                        changed.push(format!("{}{label}", dotted(&held.path)));
                    }
                }
            }
        }
        let what = match (changed.as_slice(), held_all.as_slice()) {
            // Who put the prior value back changed it, too.
            ([], [one]) => one.clone(),
            ([], []) => "the field".to_owned(),
            ([], many) => format!("one of {}", many.join(", ")),
            (changed, _) => changed.join(", "),
        };
        let rest = if restored && held_all.len() > 1 { "; what else was changed is back" } else { "" };
        let said = match (who, removed) {
            (REMOVER, true) => {
                format!("somebody removed {what}, and nothing notes who did; it stays removed")
            }
            (REMOVER, false) => format!("somebody removed or changed {what}; that stands"),
            (who, _) => format!("{who} changed {what}; that value stands"),
        };
        let message = clip(&format!("{said}{rest}{left}"), 2048);
        self.finish(Phase::Superseded, "ChangedBySomebodyElse", message);
    }
}
