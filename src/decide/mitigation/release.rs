//! Release: each object goes back in two writes, the prior values first and then the end of the hold. Only what
//! still has our value is put back.

use super::{
    Decision, DynamicObject, Effect, End, HeldField, Holding, ObjectId, OnRelease, Phase, Record, Refused,
    Write, clip, leave::only_restart_notes_differ, on_release, patch, superseded::changer, whole_seconds,
};
use crate::api::ConditionStatus::{False, True};
use crate::mitigation::{self, NAMESPACE, Stop, Undo, prior};
use crate::mutants::{Mutant, seeded};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// How long after the time by which a deleted object should be gone it is waited for. The kubelet of a node that is
/// gone ends no pod.
const DELETION_PATIENCE: Duration = Duration::from_secs(300);

/// Who ended a mitigation by deleting what bore its change.
pub(super) const DELETER: &str = "somebody who deleted it";

/// That objects are gone, in words.
pub(super) fn are_gone(objects: &[String]) -> String {
    let verb = if objects.len() == 1 { "is" } else { "are" };
    format!("{} {verb} gone", clip(&objects.join(", "), 1024))
}

impl<'a> Decision<'a> {
    pub(super) fn release(&mut self, end: &End) {
        if self.is_by_hand() {
            return self.release_by_hand(end);
        }
        if self.id.is_none() && self.was_applied() {
            // Its kind was taken from the configuration, and nothing else says how to reach the object.
            let kind = &self.m.spec.template.target_ref.kind;
            return self.cannot_release(&format!(
                "since {kind} is no kind that this operator knows: list it in the configuration's scalableKinds again"
            ));
        }
        let Some(target) = self.target() else { return };
        let Some(holdings) = self.holdings() else { return };
        if !self.releaser_may(&holdings, end) {
            return;
        }
        let recorded: Vec<(&Holding<'a>, &DynamicObject, &Record)> =
            holdings.iter().filter_map(|h| Some((h, h.object?, h.record.as_ref()?))).collect();
        if let (Some(target), false) = (target, recorded.is_empty()) {
            let records: Vec<_> = recorded.iter().map(|(h, _, record)| (*h, *record)).collect();
            // Only what is held by our own record is told as applied; a take that failed half way is not.
            if !matches!(end, End::Refused(_)) || self.was_applied() {
                self.note_applied(target, &records);
                if !self.note_allowed(&holdings) {
                    return;
                }
            }
        }
        // What is back already only needs its hold to end; the rest first, in the order of the action.
        let engine = mitigation::engine(&self.m.spec.template.action);
        let mut next = recorded;
        if engine.is_some_and(mitigation::Engine::undone_backwards) {
            next.reverse();
        }
        if !next.is_empty() {
            let mut going = None;
            for (holding, object, record) in next {
                // What was made for others stays until they are gone.
                if going.is_some() && record.made {
                    break;
                }
                match self.undo(target, holding, object, record, end) {
                    Some(until) => going = going.or(Some((holding.id.clone(), until))),
                    None => return,
                }
            }
            if let Some((id, until)) = going {
                self.wake_at(until);
                self.conditions().set("Ready", False, "Releasing", format!("waiting until {id} is gone"));
            }
            return;
        }
        if target.is_none() && !matches!(end, End::Refused(_)) {
            return match self.was_applied() {
                true => self.abandon(),
                false => self.nothing_to_undo(end),
            };
        }
        self.released(&holdings, end);
    }

    fn abandon(&mut self) {
        let target = self.plan.status.target.clone().unwrap_or_default();
        self.finish(
            Phase::Abandoned,
            "TargetGone",
            format!("{target} is gone; an object made anew under its name is left alone"),
        );
    }

    /// Whether a release leaves the value.
    fn keeps(&self) -> bool {
        on_release(&self.m.spec.template) == OnRelease::Keep
    }

    /// Undoes the change of one object. The object may be on its way out already: then until when that is waited for,
    /// and others can be undone meanwhile.
    fn undo(
        &mut self,
        target: Option<&'a DynamicObject>,
        holding: &Holding<'a>,
        object: &'a DynamicObject,
        record: &Record,
        end: &End,
    ) -> Option<Timestamp> {
        self.plan.status.phase = Some(Phase::Releasing);
        self.conditions().set(
            "Ready",
            False,
            "Releasing",
            format!("the change is being undone: {}", end.because()),
        );
        if let Some(refused @ Refused { releasing: true, .. }) = self.seen.refused {
            let words = refused.words.clone();
            if holding.id.kind == NAMESPACE && object.metadata.deletion_timestamp.is_some() {
                // Whoever deletes a namespace takes the operator's rights in it away, in no certain order.
                let message = format!("{} is being deleted, and its change goes with it", holding.id);
                self.finish(Phase::Abandoned, "TargetGone", message);
                return None;
            }
            self.cannot_release(&format!(
                "the API server refuses it: {words}; where that is to stay so, let the value stay with onRelease: Keep"
            ));
            return None;
        }
        let id = &holding.id;
        let keep = self.keeps() && !matches!(end, End::Refused(_));
        let undone = record.restored || !record.made && record.fields.iter().all(HeldField::is_unchanged);
        let adopted = record.adopted_by(object);
        let intact = record.is_in_place(object) && adopted.is_none() || seeded(Mutant::ReleaseWithoutCompare);
        if !undone
            && !keep
            && !intact
            && let Some(words) = record.unclear(object)
        {
            self.cannot_release(&format!("{words}: repair that, or let the value stay with onRelease: Keep"));
            return None;
        }
        if !undone && !keep && !intact && !only_restart_notes_differ(object, record) {
            let changed = record.fields.iter().find(|held| !held.is_in_place(object));
            let name = adopted.filter(|_| changed.is_none()).unwrap_or_else(|| changer(object, changed));
            self.plan.status.undone_by.get_or_insert(clip(&name, 256));
            // What else was changed with it goes back.
            let ours = |held: &HeldField| held.is_ours(object) && !held.is_unchanged();
            if !record.made
                && record.fields.iter().any(ours)
                && let Undo::Restore(values) = prior(record)
            {
                let patch = patch::restore(object, record, &values, self.seen.holders);
                self.write_values(id, Write::Restore, patch);
                return None;
            }
        }
        if undone || keep || !intact {
            self.let_go(id, object, record, undone);
            return None;
        }
        let engine = mitigation::engine(&self.m.spec.template.action);
        let how = match (engine, target, self.id.clone()) {
            (Some(engine), Some(target), Some(target_id)) => {
                engine.undo(&self.scene(&target_id, target), id, object, record)
            }
            _ => Ok(prior(record)),
        };
        match how {
            Ok(Undo::Restore(values)) => {
                self.write_values(
                    id,
                    Write::Restore,
                    patch::restore(object, record, &values, self.seen.holders),
                );
            }
            Ok(Undo::Step(values)) => {
                self.goes_back_in_steps();
                self.write_values(
                    id,
                    Write::Step,
                    patch::step(object, record, &values, whole_seconds(self.now).0),
                );
            }
            Ok(Undo::Status(patch)) => {
                self.plan.effect = Some(Effect::Write { object: id.clone(), what: Write::Status, patch });
            }
            // That it is deleted was agreed for its release. Somebody else's edit is no release, and may come from who may
            // not delete it.
            Ok(Undo::Delete) if *end == End::Undone && !record.made => {
                let left = self.plan.status.left.take().map(|left| format!("{left}, ")).unwrap_or_default();
                let left =
                    if left.is_empty() { "stays as it is and is held no more: ".to_owned() } else { left };
                self.plan.status.left = Some(clip(&format!("{left}{id}"), 1024));
                self.let_go(id, object, record, false);
            }
            Ok(Undo::Delete) => {
                if let Some(deleted) = &object.metadata.deletion_timestamp {
                    // The API server states when it should be gone.
                    let until = deleted.0.checked_add(DELETION_PATIENCE).unwrap_or(self.now);
                    if until > self.now {
                        return Some(until);
                    }
                    self.plan.status.left = Some(format!("{id} was deleted and is still not gone"));
                    self.let_go(id, object, record, false);
                    return None;
                }
                let uid = object.metadata.uid.clone().unwrap_or_default();
                self.plan.effect = Some(Effect::Delete { object: id.clone(), uid, releasing: true });
            }
            Ok(Undo::Wait { until, what }) => {
                self.goes_back_in_steps();
                self.wake_at(until);
                self.conditions().set("Ready", False, "Releasing", what);
            }
            Ok(Undo::Leave(why)) => {
                self.plan.status.left = Some(clip(&format!("{id}: {why}"), 1024));
                self.let_go(id, object, record, false);
            }
            Err(Stop::Look(look)) => self.plan.effect = Some(Effect::Look(look)),
            Err(Stop::Refused(refusal) | Stop::NotYet(refusal, _)) => self.cannot_release(&refusal.message),
        }
        None
    }

    /// What the mitigation brought about is over with the first step, and not only with the last.
    fn goes_back_in_steps(&mut self) {
        self.conditions().set("Effective", False, "Restoring", "the prior value goes back in steps");
    }

    fn write_values(&mut self, id: &ObjectId, what: Write, patch: Result<Value, String>) {
        match patch {
            Ok(patch) => self.plan.effect = Some(Effect::Write { object: id.clone(), what, patch }),
            Err(words) => self.cannot_release(&words),
        }
    }

    fn let_go(&mut self, id: &ObjectId, object: &DynamicObject, record: &Record, undone: bool) {
        let patch = patch::let_go(object, record, self.seen.holders, undone);
        self.plan.effect = Some(Effect::Write { object: id.clone(), what: Write::LetGo, patch });
    }

    pub(super) fn cannot_release(&mut self, why: &str) {
        let message = format!("the change cannot be undone, {why}");
        self.plan.wake = self.now.checked_add(Duration::from_secs(15)).ok();
        let mut c = self.conditions();
        c.set("Stalled", True, "ReleaseRefused", message.clone());
        c.set("Ready", False, "ReleaseRefused", message);
    }

    fn nothing_to_undo(&mut self, end: &End) {
        self.finish(
            Phase::Released,
            end.reason(),
            format!("nothing had been changed when {}", end.because()),
        );
    }

    /// There is no record any more: nothing was changed, or the release is done but not recorded yet.
    fn released(&mut self, holdings: &[Holding<'a>], end: &End) {
        let there: Vec<(&Holding<'a>, &DynamicObject)> =
            holdings.iter().filter_map(|h| Some((h, h.object?))).collect();
        let told: Vec<_> = there
            .iter()
            .map(|(holding, object)| (*holding, *object, self.record_from_status(&holding.id, object)))
            .collect();
        let kept = self.keeps();
        if self.was_applied() && self.phase() != Phase::Releasing && !kept {
            // Our value is still there, so it was not our release that removed the record.
            let forgotten = told.iter().find_map(|(holding, object, record)| {
                let record = record.as_ref()?;
                // What somebody wants by now was left by our release, whether that got on record or not.
                let ours = record.is_in_place(object) && record.adopted_by(object).is_none();
                let changed = ours && !record.fields.iter().all(HeldField::is_unchanged);
                changed.then(|| (holding.id.clone(), *object, record.clone()))
            });
            if let Some((id, object, record)) = forgotten {
                self.plan.status.phase = Some(Phase::Releasing);
                match prior(&record) {
                    Undo::Restore(values) => {
                        return self.write_values(
                            &id,
                            Write::Restore,
                            patch::restore(object, &record, &values, self.seen.holders),
                        );
                    }
                    _ => self.plan.status.left = Some(format!("{id}: its record was removed")),
                }
            }
        }
        for (holding, object) in &there {
            if self.disown(&holding.id, object) {
                return;
            }
        }
        if let End::Refused(refusal) = end {
            self.plan.status.applied_time = None;
            self.plan.status.objects.clear();
            return self.refuse(&refusal.clone());
        }
        let is_back =
            |object: &DynamicObject, held: &HeldField| held.is_back(object) || held.was_back(object);
        if let Some(who) = self.plan.status.undone_by.clone() {
            return self.superseded(&who, &told, is_back);
        }
        if !self.was_applied() {
            return self.nothing_to_undo(end);
        }
        let because = end.because();
        if kept {
            return self.finish(Phase::Kept, end.reason(), format!("the value stays, as asked; {because}"));
        }
        if let Some(left) = self.plan.status.left.clone() {
            return self.finish(Phase::Kept, "NotRestored", format!("{left}; {because}"));
        }
        // Who waited for the field may have it by now, before our end was recorded.
        let back = told.iter().all(|(_, object, record)| {
            let mut fields = record.iter().flat_map(|record| &record.fields);
            fields.all(|held| is_back(object, held) || held.is_restart_note())
        });
        if back {
            let gone: Vec<String> = holdings
                .iter()
                .filter(|h| h.object.is_none() && self.has_prior(&h.id))
                .map(|h| h.id.to_string())
                .collect();
            let values = told.iter().any(|(_, _, record)| record.is_some());
            let said = match (values, gone.is_empty()) {
                (true, false) => format!("the prior value is back; {}", are_gone(&gone)),
                (false, false) => are_gone(&gone),
                (_, true) => "the prior value is back".to_owned(),
            };
            let left = self.left_alone().map(|left| format!("; {left}")).unwrap_or_default();
            self.finish(Phase::Released, end.reason(), clip(&format!("{said}; {because}{left}"), 2048));
        } else {
            // Let go by a visit that could not say any more why: the object still tells who wrote last.
            let by = told.iter().find_map(|(_, object, record)| {
                let changed = record.as_ref()?.fields.iter().find(|held| !is_back(object, held))?;
                Some(changer(object, Some(changed)))
            });
            let who = by.unwrap_or_else(|| "somebody unknown".to_owned());
            self.plan.status.undone_by = Some(who.clone());
            self.superseded(&who, &told, is_back);
        }
    }

    /// Whether status tells of a change of this object.
    pub(super) fn has_prior(&self, id: &ObjectId) -> bool {
        let label = self.label_of(id);
        self.plan.status.prior.iter().any(|prior| prior.object == label)
    }

    /// Plans the removal of our entry in managedFields, when it is there and no other mitigation of this action
    /// needs it. True when it is planned.
    fn disown(&mut self, id: &ObjectId, object: &DynamicObject) -> bool {
        let action = self.m.spec.template.action.name();
        let holds = |r: &Record| r.uid != self.uid() && self.seen.holders.contains(&r.uid);
        if Record::all(object).any(|r| r.action == action.as_str() && holds(&r)) {
            return false;
        }
        let Some(patch) = patch::disown(object, &action.field_manager()) else { return false };
        self.plan.effect = Some(Effect::Write { object: id.clone(), what: Write::Disown, patch });
        true
    }
}
