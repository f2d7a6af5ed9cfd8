//! Hold: what is changed is watched, taken back from machines a few times, and left to people at once.

use super::{
    Decision, DynamicObject, Effect, End, Engine, HeldField, Holding, MAX_OWNERS, MAX_PRIOR, MAX_REASSERTS,
    MITIGATED_LABEL, ObjectId, Phase, REASSERT_BACKOFF, Record, Value, Write, Writer, clip,
    leave::only_restart_notes_differ,
    patch,
    release::{DELETER, are_gone},
    superseded::changer,
    told, whole_seconds, writer,
};
use crate::api::ConditionStatus::{False, True, Unknown};
use crate::decide::conditions::find;
use crate::{
    api::PriorValue,
    mitigation::{
        field::How,
        gitops,
        ownership::{Owner, WriterKind},
    },
};

/// Why a field is not contested: a machine's change of it was taken back.
pub const TAKEN_BACK: &str = "TakenBack";
const TAKING_BACK: &str = "TakingBack";

impl<'a> Decision<'a> {
    pub(super) fn hold(
        &mut self,
        engine: &'a dyn Engine,
        target: &'a DynamicObject,
        holdings: &[Holding<'a>],
    ) {
        let records: Vec<(&Holding<'a>, &Record)> =
            holdings.iter().filter_map(|h| Some((h, h.record.as_ref()?))).collect();
        if !records.is_empty() {
            self.note_applied(target, &records);
            if !self.note_allowed(holdings) {
                return;
            }
        }
        let mut gone = Vec::new();
        for holding in holdings {
            match (holding.object, &holding.record) {
                (Some(object), Some(record)) => {
                    if only_restart_notes_differ(object, record) {
                        return self.leave(holding, object, record);
                    }
                    if let Some(first) = record.fields.iter().find(|held| !held.is_in_place(object)) {
                        if let Some(words) = record.unclear(object) {
                            return self.cannot_be_read(&holding.id, &words);
                        }
                        let by = writer(object, &first.path);
                        return self.drifted(holding, object, record, by);
                    }
                    if holding.forged || !has_label(object) {
                        return self.put_back(holding, object, record);
                    }
                }
                (Some(object), None) if self.is_left(holding, object) => {
                    let record = self.record_from_status(&holding.id, object);
                    match record.filter(|record| self.bears_marks(object, record)) {
                        // Whoever put another revision in its place took the record away with it, and the label stayed.
                        Some(record) => return self.leave(holding, object, &record),
                        None => self.strike(&holding.id),
                    }
                }
                (Some(object), None) => return self.capture_removed(holding, object),
                // What the mitigation made is gone: somebody deleted it.
                (None, _) if self.was_made(holding) => return self.deleted_by_somebody(),
                (None, _) => gone.push(holding.id.to_string()),
            }
        }
        let mut held = "the field has the mitigation's value".to_owned();
        if let Some(who) = &self.plan.status.record_changed_by {
            held = format!(
                "{held}; {who} changed the note of the prior value on the target, and it was put right"
            );
        }
        // With the last object that bears it, the change is gone.
        let Some(since) = records.iter().map(|(_, record)| record.at).max() else {
            return self.deleted_by_somebody();
        };
        if !gone.is_empty() {
            held = clip(&format!("{held}; {}", are_gone(&gone)), 2048);
        }
        if let Some(left) = self.left_alone() {
            held = clip(&format!("{held}; {left}"), 2048);
        }
        let reason = match self.taken_back(&records) {
            Some(told) => {
                held = told;
                TAKEN_BACK
            }
            None => "Held",
        };
        self.conditions().set("Contested", False, reason, held);
        self.verify(engine, target, since);
        if self.plan.effect.is_none() {
            self.note_evidence();
        }
        if self.plan.effect.is_none() {
            self.expire();
        }
    }

    /// That a machine's change was taken back, and whose, as long as nothing else happens to the field.
    fn taken_back(&self, records: &[(&Holding<'a>, &Record)]) -> Option<String> {
        let told = find(&self.plan.status.conditions, "Contested")?;
        let before = self.m.status.as_ref().and_then(|status| status.attempts);
        let reasserts = records.iter().map(|(_, record)| record.reasserts).max()?;
        match told.reason.as_str() {
            TAKING_BACK if self.plan.status.attempts > before => {
                let times = format!("{reasserts} of {MAX_REASSERTS} times");
                Some(clip(&format!("{}; it was taken back ({times})", told.message), 2048))
            }
            TAKEN_BACK => Some(told.message.clone()),
            _ => None,
        }
    }

    /// The value lies in a document that somebody is in the middle of editing, or broke: it is held until that can be read
    /// again. Nothing is written meanwhile, and who repairs it wakes us.
    fn cannot_be_read(&mut self, id: &ObjectId, words: &str) {
        let message = clip(
            &format!("{id} {words}; the value is held, and looked at again when that is repaired"),
            2048,
        );
        let mut c = self.conditions();
        c.set("Contested", Unknown, "Unreadable", message.clone());
        c.set("Effective", Unknown, "Unreadable", message.clone());
        c.set("Ready", False, "Unreadable", message);
        self.expire();
    }

    fn deleted_by_somebody(&mut self) {
        self.plan.status.undone_by = Some(DELETER.to_owned());
        self.release(&End::Undone);
    }

    fn was_made(&self, holding: &Holding<'_>) -> bool {
        let label = self.label_of(&holding.id);
        label.is_some()
            && self
                .plan
                .status
                .prior
                .iter()
                .any(|p| p.object == label && p.path == "/spec" && p.value.is_none() && p.how.is_some())
    }

    fn put_back(&mut self, holding: &Holding<'_>, object: &DynamicObject, record: &Record) {
        let patch = patch::recapture(object, record);
        let object = holding.id.clone();
        self.plan.effect = Some(Effect::Write { object, what: Write::Recapture, patch });
    }

    /// What the records say, in status.
    pub(super) fn note_applied(&mut self, target: &DynamicObject, records: &[(&Holding<'_>, &Record)]) {
        let times = || records.iter().map(|(_, record)| self.in_its_life(record.at));
        let Some(first) = times().min() else { return };
        let last = times().max().unwrap_or(first);
        let mut prior = Vec::new();
        for (holding, record) in records {
            let object = self.label_of(&holding.id);
            prior.extend(record.fields.iter().map(|held| PriorValue {
                object: object.clone(),
                how: (!held.how.is_plain()).then(|| how_text(&held.how)),
                path: held.path.clone(),
                value: held.prior.as_ref().map(Value::to_string),
                applied: held.applied.as_ref().map(Value::to_string),
                owners: owners_text(&held.owners),
            }));
        }
        // What is gone, or back already, stays on record.
        let recorded: Vec<_> = records.iter().map(|(holding, _)| self.label_of(&holding.id)).collect();
        let before = std::mem::take(&mut self.plan.status.prior);
        prior.extend(before.into_iter().filter(|p| !recorded.contains(&p.object)));
        prior.truncate(MAX_PRIOR);
        self.note_latest_end();
        let reasserts = records.iter().map(|(_, record)| record.reasserts).max().unwrap_or(0);
        self.note_asked_by(records.iter().find_map(|(_, record)| record.by.as_deref()));
        self.expires_from(last);
        let status = &mut self.plan.status;
        status.phase = Some(Phase::Active);
        status.target_uid.clone_from(&target.metadata.uid);
        status.applied_time = Some(whole_seconds(first));
        status.attempts = Some(1 + i32::from(reasserts));
        status.prior = prior;
        let held = || records.iter().flat_map(|(_, record)| &record.fields);
        let unchanged = held().all(HeldField::is_unchanged);
        let changes = records.iter().flat_map(|(holding, record)| {
            let label = self.label_of(&holding.id).map(|l| format!("{l} ")).unwrap_or_default();
            let made = record.made;
            // What is held beside a change, and had its value before, is no change.
            let changed = record.fields.iter().filter(move |held| unchanged || !held.is_unchanged());
            changed.map(move |held| match made {
                true => format!("{label}made"),
                false => format!("{label}{}", told::change(held)),
            })
        });
        let mut changed = clip(&changes.collect::<Vec<_>>().join("; "), 4096);
        let template = &self.m.spec.template;
        for (holding, record) in records {
            let Some(object) = holding.object else { continue };
            let written = gitops::Written::recorded(&holding.id, object, record);
            if let Some(warning) = gitops::warning(template.gitops, &written, template.action.name()) {
                changed = clip(&format!("{changed}; {warning}"), 8192);
            }
        }
        let engine = crate::mitigation::engine(&self.m.spec.template.action);
        let already = engine.map_or("AlreadyAtValue", Engine::already);
        let mut c = self.conditions();
        match unchanged {
            true => c.set("Applied", True, already, format!("{changed} (it had this value before)")),
            false => c.set("Applied", True, "Changed", changed),
        }
        c.set("Stalled", False, "Progressing", "nothing is in the way");
    }

    /// Somebody changed a field that we hold.
    fn drifted(
        &mut self,
        holding: &Holding<'a>,
        object: &'a DynamicObject,
        record: &Record,
        by: Option<Writer>,
    ) {
        let machine = by.as_ref().is_some_and(|w| w.kind.is_machine());
        let kind = by.as_ref().map(|w| w.kind);
        let changed = record.fields.iter().find(|held| !held.is_in_place(object));
        let name = by.map_or_else(|| changer(object, changed), |w| w.manager);
        let engine = crate::mitigation::engine(&self.m.spec.template.action);
        if !machine || record.made || engine.is_some_and(|engine| engine.gives_way(object, record)) {
            self.plan.status.undone_by = Some(clip(&name, 256));
            return self.release(&End::Undone);
        }
        let values = told::drift(object, record);
        if record.reasserts >= MAX_REASSERTS {
            let fix = match kind {
                Some(WriterKind::GitOps) => Some(gitops::fix(object, record, &name)),
                Some(WriterKind::Autoscaler | WriterKind::Person) | None => None,
            };
            let message = format!(
                "{name} keeps changing the field ({values}); {MAX_REASSERTS} times it was taken back: {}",
                fix.unwrap_or_else(|| {
                    format!("change it at its source, or pause {name} for this object")
                })
            );
            let mut c = self.conditions();
            c.set("Contested", True, "ContestedBy", message.clone());
            c.set("Effective", False, "Contested", message.clone());
            c.set("Ready", False, "Contested", message);
            return self.expire();
        }
        let message = format!("{name} changed the field: {values}");
        {
            let mut c = self.conditions();
            c.set("Contested", True, TAKING_BACK, message.clone());
            c.set("Effective", False, "Contested", message.clone());
            c.set("Ready", False, "Contested", message.clone());
        }
        let due = record
            .reasserted
            .and_then(|last| last.checked_add(REASSERT_BACKOFF * (1 << record.reasserts)).ok())
            .unwrap_or(self.now);
        if due > self.now {
            return self.wake_at(due);
        }
        let again = Record {
            reasserts: record.reasserts + 1,
            reasserted: Some(whole_seconds(self.now).0),
            ..record.clone()
        };
        let Some(raw) = self.raw_again(holding, record) else { return };
        match patch::reassert(object, &again, &raw, self.seen.holders) {
            Ok(patch) => {
                let object = holding.id.clone();
                self.plan.effect = Some(Effect::Write { object, what: Write::Reassert, patch });
            }
            // It cannot be taken back without touching what belongs to others.
            Err(words) => {
                let mut c = self.conditions();
                c.set("Contested", True, "ContestedBy", format!("{message}; {words}"));
                self.expire();
            }
        }
    }

    /// The values to write again. What is kept by its hash must be looked up again by the action.
    fn raw_again(&mut self, holding: &Holding<'a>, record: &Record) -> Option<Vec<Option<Value>>> {
        if !record.fields.iter().any(|held| held.how.is_hashed()) {
            return Some(record.fields.iter().map(|held| held.applied.clone()).collect());
        }
        let engine = crate::mitigation::engine(&self.m.spec.template.action)?;
        let Some(Some(target)) = self.target() else { return None };
        let id = self.id.clone()?;
        match engine.again(&self.scene(&id, target), record) {
            Ok(raw) => Some(raw),
            Err(stop) => {
                if let Some(refusal) = self.stopped(stop) {
                    let message = format!("{} cannot be taken back: {}", holding.id, refusal.message);
                    let mut c = self.conditions();
                    c.set("Contested", True, "ContestedBy", message.clone());
                    c.set("Effective", False, "Contested", message.clone());
                    c.set("Ready", False, "Contested", message);
                }
                None
            }
        }
    }

    /// The record is gone from an object that we changed.
    fn capture_removed(&mut self, holding: &Holding<'a>, object: &'a DynamicObject) {
        let Some(record) = self.record_from_status(&holding.id, object) else {
            self.plan
                .status
                .undone_by
                .get_or_insert_with(|| "somebody who removed the annotation with the prior value".to_owned());
            return self.release(&End::Undone);
        };
        if record.is_in_place(object) {
            return self.put_back(holding, object, &record);
        }
        if let Some(words) = record.unclear(object) {
            return self.cannot_be_read(&holding.id, &words);
        }
        let changed = record.fields.iter().find(|held| !held.is_in_place(object));
        self.plan.status.undone_by.get_or_insert_with(|| changer(object, changed));
        self.release(&End::Undone);
    }
}

pub(super) fn has_label(object: &DynamicObject) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.get(MITIGATED_LABEL).is_some_and(|value| value == "true"))
}

/// As status keeps them: left out when there are none, or more than it has room for.
fn owners_text(owners: &[Owner]) -> Option<String> {
    let text = (!owners.is_empty()).then(|| serde_json::to_string(owners).ok())?;
    text.filter(|text| text.len() <= MAX_OWNERS)
}

fn how_text(how: &How) -> String {
    // Plain data can always be written as text.
    serde_json::to_string(how).unwrap_or_default()
}
