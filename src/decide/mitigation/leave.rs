//! Workloads that were restarted along the way, and got another template from somebody else since: they are let go, and
//! the mitigation goes on.

use super::{
    Decision, DynamicObject, Effect, HeldField, Holding, MAX_PRIOR, Mitigation, ObjectId, Record, Write,
    clip, hold::has_label, objects, patch,
};

impl Decision<'_> {
    /// Lets a workload go that was restarted and has another template by now. It is struck from the list with the next look,
    /// when it bears no marks any more: the write may be refused, or its answer be lost.
    pub(super) fn leave(&mut self, holding: &Holding<'_>, object: &DynamicObject, record: &Record) {
        let patch = patch::let_go(object, record, self.seen.holders, false);
        self.plan.effect = Some(Effect::Write { object: holding.id.clone(), what: Write::LetGo, patch });
    }

    /// Whether an object that bears no record is none that is held: it was let go before, or never changed.
    pub(super) fn is_left(&self, holding: &Holding<'_>, object: &DynamicObject) -> bool {
        if self.label_of(&holding.id).is_none() {
            return false;
        }
        match self.record_from_status(&holding.id, object) {
            Some(record) if self.has_prior(&holding.id) => only_restart_notes_differ(object, &record),
            _ => !self.has_prior(&holding.id) && self.plan.status.prior.len() < MAX_PRIOR,
        }
    }

    /// Whether an object still tells of the mitigation, although it bears no record.
    pub(super) fn bears_marks(&self, object: &DynamicObject, record: &Record) -> bool {
        let held = Record::all(object).any(|other| self.seen.holders.contains(&other.uid));
        let manager = format!("incident-operator-{}", record.action);
        !held && (has_label(object) || patch::disown(object, &manager).is_some())
    }

    pub(super) fn strike(&mut self, id: &ObjectId) {
        self.plan.status.objects.retain(|o| o.kind != id.kind.kind || o.name != id.name);
    }

    /// That workloads were restarted and rolled out anew by others since, in words: they are not held any more.
    pub(super) fn left_alone(&self) -> Option<String> {
        let held: Vec<String> =
            objects(&Mitigation { status: Some(self.plan.status.clone()), ..self.m.clone() })
                .iter()
                .map(ToString::to_string)
                .collect();
        let mut left: Vec<&str> = self.plan.status.prior.iter().filter_map(|p| p.object.as_deref()).collect();
        left.retain(|object| !held.iter().any(|held| held == object));
        left.dedup();
        (!left.is_empty()).then(|| {
            let names = clip(&left.join(", "), 512);
            format!("{names} got another template from somebody else since: the release does not restart it")
        })
    }
}

/// Whether an object has all of the mitigation's values but the note that restarted its pods.
pub(super) fn only_restart_notes_differ(object: &DynamicObject, record: &Record) -> bool {
    let mut differ = record.fields.iter().filter(|held| !held.is_in_place(object)).peekable();
    differ.peek().is_some() && differ.all(HeldField::is_restart_note)
}
