//! Another mitigation is in the way: it holds the field, or what it changed is why this one cannot be done as things are.

use super::{Decision, DynamicObject, Engine, HeldField, ObjectId, Record, Refusal, Scene, Stop, clip};
use crate::mitigation::{Found, Look, Part, Undo, field::Change, gitops, patch, prior};
use std::{collections::HashSet, sync::Arc, time::Duration};

impl<'a> Decision<'a> {
    /// What is to be done, as things are in a scene.
    pub(super) fn parts(&self, engine: &dyn Engine, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        let mut parts = engine.parts(scene)?;
        gitops::prepare(self.m.spec.template.gitops, scene.id, true, scene.target, &mut parts)?;
        debug_assert!(
            parts.iter().all(|part| is_declared(engine, part)),
            "{parts:?} changes what the fence of the action does not name"
        );
        Ok(parts)
    }

    /// The mitigation of the same action without whose change, of the target or of something else that was looked at, this
    /// one would not be refused, and the object it holds: what that one changed is not what this one will find after its
    /// release. What would be refused all the same is refused at once,
    /// with the words that hold then: nobody is to wait for what never comes.
    pub(super) fn refused_for_now(
        &self,
        engine: &dyn Engine,
        id: &ObjectId,
        target: &DynamicObject,
    ) -> Result<Option<(ObjectId, Record)>, Stop> {
        let on_target = self.same_action(target).next().map(|record| (id.clone(), record));
        let elsewhere = || {
            let found = self.seen.found.iter().flat_map(|(look, objects)| {
                let kind = match look {
                    Look::List { kind, .. } => *kind,
                    Look::One(one) => one.kind,
                };
                objects.iter().map(move |object| (ObjectId::of(kind, object), object))
            });
            let mut held: Vec<_> =
                found.filter_map(|(at, object)| Some((at, self.same_action(object).next()?))).collect();
            held.sort_by(|(a, _), (b, _)| a.cmp(b));
            held.into_iter().next()
        };
        let Some(holder) = on_target.or_else(elsewhere) else { return Ok(None) };
        let Some(free) = self.without(target).flatten() else { return Ok(Some(holder)) };
        let mut found = Found::new();
        for (look, objects) in self.seen.found {
            let mut there = Vec::new();
            for object in objects {
                match self.same_action(object).next().map(|_| self.without(object)) {
                    None => there.push(object.clone()),
                    Some(Some(Some(free))) => there.push(Arc::new(free)),
                    Some(Some(None)) => {}
                    Some(None) => return Ok(Some(holder)),
                }
            }
            found.insert(look.clone(), there);
        }
        match self.parts(engine, &Scene { found: &found, ..self.scene(id, &free) }) {
            Ok(_) => Ok(Some(holder)),
            // What cannot be told is not guessed.
            Err(Stop::NotYet(..)) => Ok(Some(holder)),
            Err(stop @ (Stop::Look(_) | Stop::Refused(_))) => Err(stop),
        }
    }

    /// The records of other mitigations of the same action that hold an object.
    fn same_action<'o>(&self, object: &'o DynamicObject) -> impl Iterator<Item = Record> + use<'a, 'o> {
        let (action, holders) = (self.m.spec.template.action.name(), self.seen.holders);
        let ours = self.uid();
        Record::all(object).filter(move |record| {
            record.action == action.as_str() && record.uid != ours && holders.contains(&record.uid)
        })
    }

    /// An object as it will be after the release of those of the same action that hold it: `Some(None)` when it will be
    /// gone, and `None` when that cannot be told.
    fn without(&self, object: &DynamicObject) -> Option<Option<DynamicObject>> {
        let mut free = object.clone();
        for record in self.same_action(object) {
            match prior(&record) {
                Undo::Delete => return Some(None),
                Undo::Restore(values) => free = patch::without(&free, &record, &values, self.seen.holders)?,
                // Only the hash of what was there is known.
                Undo::Leave(_) | Undo::Step(_) | Undo::Wait { .. } | Undo::Status(_) => return None,
            }
        }
        Some(Some(free))
    }

    /// It waits for the release of another mitigation, which holds these fields. `refusal`: what would be said now.
    pub(super) fn field_busy<'p>(
        &mut self,
        id: &ObjectId,
        holder: &Record,
        paths: impl Iterator<Item = &'p str>,
        refusal: Option<&Refusal>,
    ) {
        let held = self.held_by(id, holder, paths);
        let now = refusal.map(|refusal| format!("; as it is now, {}", refusal.message)).unwrap_or_default();
        self.wait("FieldBusy", clip(&format!("{held}; this one acts when that one is released{now}"), 4096));
        if Some(id) != self.id.as_ref() {
            // News of the target is heard anyway, that of other objects is not.
            self.plan.follow = Some(Look::List { kind: id.kind, labels: None });
            self.plan.wake = self.now.checked_add(Duration::from_secs(15)).ok();
        }
    }

    /// That another mitigation holds these fields of an object, in words.
    pub(super) fn held_by<'p>(
        &self,
        id: &ObjectId,
        holder: &Record,
        paths: impl Iterator<Item = &'p str>,
    ) -> String {
        let mut paths: Vec<&str> = paths.collect();
        paths.dedup();
        format!(
            "{}{} is held by mitigation {}{}",
            paths.join(", "),
            self.label_of(id).map(|object| format!(" of {object}")).unwrap_or_default(),
            holder.mitigation,
            holder.incident.as_ref().map(|i| format!(" of incident {i}")).unwrap_or_default(),
        )
    }
}

/// Whether an action declares what it is about to change: a note of anything else counts as forged.
fn is_declared(engine: &dyn Engine, part: &Part) -> bool {
    part.changes().iter().all(|change| {
        let held = HeldField {
            path: change.path.clone(),
            how: change.how.clone(),
            prior: change.from.clone(),
            applied: change.to.clone(),
            owners: Vec::new(),
        };
        engine.fence().allows(&part.id.kind.qualified(), &held)
    })
}

/// The record of another mitigation that holds one of the fields.
pub(super) fn busy(target: &DynamicObject, changes: &[Change], holders: &HashSet<String>) -> Option<Record> {
    Record::all(target)
        .filter(|record| holders.contains(&record.uid))
        .find(|record| record.fields.iter().any(|held| changes.iter().any(|change| held.overlaps(change))))
}
