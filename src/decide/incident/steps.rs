//! Steps that a person does by hand: who was asked for what goes on record.

use super::Decision;
use crate::api::Action;
use crate::decide::conditions::one_line;

/// Longest text; the schema's maximum.
const MAX_CHANGE: usize = 1024;

impl Decision<'_> {
    /// What a person changes is not seen from here. In its place stands what was asked, which is gone with the object
    /// otherwise.
    pub(super) fn steps(&mut self) {
        let seen = self.seen;
        for m in seen.mitigations {
            let Action::Manual(step) = &m.spec.template.action else { continue };
            let of_this = self.status.mitigations.iter_mut().find(|s| s.uid == m.metadata.uid);
            if let Some(summary) = of_this.filter(|s| s.applied_time.is_some()) {
                let who = step.assignee.as_deref().unwrap_or("somebody");
                let asked = format!("{who} was asked: {}", step.instructions);
                summary.change = Some(one_line(&asked, MAX_CHANGE));
            }
        }
    }
}
