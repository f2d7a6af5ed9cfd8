//! The objects that a mitigation touches, as they are, with its records on them.

use super::{
    Decision, DynamicObject, Effect, HeldField, MAX_PRIOR, MAX_REASSERTS, Mitigation, ObjectId, Phase,
    Record, TargetKind, Value, Write, clip, mitigation, patch, whole_seconds, writer,
};
use crate::mitigation::scalable;
use crate::mutants::{Mutant, seeded};

/// The target of a mitigation, of a kind that some action knows.
pub fn target_id(mitigation: &Mitigation) -> Option<ObjectId> {
    let template = &mitigation.spec.template;
    let target = &template.target_ref;
    let allowed =
        mitigation::engine(&template.action).and_then(|engine| mitigation::target_kind(engine, target).ok());
    let group = target.api_version.as_deref().map(|v| v.rsplit_once('/').map_or("", |(group, _)| group));
    let kind = allowed.or_else(|| {
        let same = |k: &&TargetKind| k.kind == target.kind && group.is_none_or(|group| k.group == group);
        mitigation::ALL.iter().find(same).copied().or_else(|| scalable::known(group, &target.kind))
    });
    Some(ObjectId::new(kind?, &target.name))
}

/// The objects that a mitigation touches, as far as its status tells: its target, unless it says otherwise.
pub fn objects(mitigation: &Mitigation) -> Vec<ObjectId> {
    let stated = announced(mitigation);
    if stated.is_empty() { target_id(mitigation).into_iter().collect() } else { stated }
}

pub(super) fn announced(mitigation: &Mitigation) -> Vec<ObjectId> {
    let stated = mitigation.status.iter().flat_map(|status| &status.objects);
    stated
        .filter_map(|object| {
            let group = object.api_version.rsplit_once('/').map_or("", |(group, _)| group);
            Some(ObjectId::new(TargetKind::named(group, &object.kind)?, &object.name))
        })
        .collect()
}

/// An object that the mitigation holds, or is to hold.
pub(super) struct Holding<'a> {
    pub(super) id: ObjectId,
    /// As it is; `None` when it is gone or another by now.
    pub(super) object: Option<&'a DynamicObject>,
    pub(super) record: Option<Record>,
    /// The record on the object is not the one that was written there; this is the true one.
    pub(super) forged: bool,
}

impl<'a> Decision<'a> {
    pub(super) fn uid(&self) -> &'a str {
        self.m.metadata.uid.as_deref().unwrap_or_default()
    }

    /// What was read of an object. `None`: the plan says to read it.
    pub(super) fn read(&mut self, id: &ObjectId) -> Option<Option<&'a DynamicObject>> {
        let seen = self.seen;
        let known = seen.objects.get(id);
        if known.is_none() {
            self.plan.effect = Some(Effect::Read(id.clone()));
        }
        known.map(|object| object.as_deref())
    }

    /// The target, when it is there and, once it was changed, is still the same object.
    pub(super) fn target(&mut self) -> Option<Option<&'a DynamicObject>> {
        let Some(id) = self.id.clone() else { return Some(None) };
        let target = self.read(&id)?;
        Some(target.filter(|target| {
            self.plan.status.target_uid.is_none() || self.plan.status.target_uid == target.metadata.uid
        }))
    }

    /// Every object that it holds. `None`: the plan says what to read first.
    pub(super) fn holdings(&mut self) -> Option<Vec<Holding<'a>>> {
        let mut holdings = Vec::new();
        let with_status = Mitigation { status: Some(self.plan.status.clone()), ..self.m.clone() };
        for id in objects(&with_status) {
            let object = if Some(&id) == self.id.as_ref() {
                self.target()?
            } else {
                let uid =
                    self.plan.status.objects.iter().find(|o| o.name == id.name && o.kind == id.kind.kind);
                let uid = uid.and_then(|o| o.uid.clone());
                self.read(&id)?.filter(|object| uid.is_none() || uid == object.metadata.uid)
            };
            let record = object.and_then(|object| Record::find(object, self.uid()));
            let mut record =
                record.filter(|_| !seeded(Mutant::CaptureTwice) || self.phase() != Phase::Pending);
            if let (Some(object), Some(found)) = (object, &record)
                && !self.is_believable(&id, found)
            {
                self.drop_note(&id, object, found);
                return None;
            }
            let mut forged = false;
            if let (Some(object), Some(found)) = (object, record.as_mut()) {
                forged = self.correct(&id, object, found);
            }
            holdings.push(Holding { id, object, record, forged });
        }
        Some(holdings)
    }

    /// Whether a note on an object may be ours before status says that anything was changed. Whoever may change the
    /// object can write one, and none of it counts: neither to be in force without the approval that is waited for, which is
    /// on record before a change, nor to have fields written on release that the action never touches.
    fn is_believable(&self, id: &ObjectId, record: &Record) -> bool {
        let status = &self.plan.status;
        let unapproved = status.approval_digest.is_some() && status.approval.is_none();
        let engine = mitigation::engine(&self.m.spec.template.action);
        let ours =
            |held: &HeldField| engine.is_none_or(|engine| engine.fence().allows(&id.kind.qualified(), held));
        self.was_applied() || !unapproved && record.fields.iter().all(ours)
    }

    /// Takes a note off that somebody else wrote.
    fn drop_note(&mut self, id: &ObjectId, object: &DynamicObject, record: &Record) {
        self.plan.status.record_changed_by = Some(self.note_writer(object));
        let patch = patch::let_go(object, record, self.seen.holders, false);
        self.plan.effect = Some(Effect::Write { object: id.clone(), what: Write::LetGo, patch });
    }

    fn note_writer(&self, object: &DynamicObject) -> String {
        let path = patch::pointer(&["metadata", "annotations", &mitigation::record::key(self.uid())]);
        writer(object, &path).map_or("somebody unknown".to_owned(), |w| clip(&w.manager, 256))
    }

    /// How an object is called in values that are told: not at all when it is the target.
    pub(super) fn label_of(&self, id: &ObjectId) -> Option<String> {
        (Some(id) != self.id.as_ref()).then(|| id.to_string())
    }

    /// The record of an object as far as status tells it, when it was removed from the object.
    pub(super) fn record_from_status(&self, id: &ObjectId, target: &DynamicObject) -> Option<Record> {
        let parse = |text: &String| serde_json::from_str::<Value>(text).ok();
        let label = self.label_of(id);
        let told = self.plan.status.prior.iter().filter(|p| p.object == label);
        let fields = told
            .map(|p| {
                Some(HeldField {
                    path: p.path.clone(),
                    how: p
                        .how
                        .as_ref()
                        .map_or(Some(mitigation::field::How::Plain), |how| serde_json::from_str(how).ok())?,
                    prior: p.value.as_ref().map_or(Some(None), |text| parse(text).map(Some))?,
                    applied: p.applied.as_ref().map_or(Some(None), |text| parse(text).map(Some))?,
                    // Without them the value comes back all the same, and belongs to nobody.
                    owners: p
                        .owners
                        .as_ref()
                        .and_then(|text| serde_json::from_str(text).ok())
                        .unwrap_or_default(),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        // When it was changed and how often does not begin anew with the record.
        let at = self.plan.status.applied_time.as_ref().map_or(self.now, |time| time.0);
        let attempts = self.plan.status.attempts.unwrap_or(1);
        let reasserts = u8::try_from(attempts.saturating_sub(1)).unwrap_or(MAX_REASSERTS);
        let by = self.plan.status.asked_by.clone();
        (!fields.is_empty()).then(|| Record { at, by, reasserts, ..self.new_record(Some(target), fields) })
    }

    pub(super) fn new_record(&self, target: Option<&DynamicObject>, fields: Vec<HeldField>) -> Record {
        Record {
            v: 1,
            uid: self.uid().to_owned(),
            mitigation: self.m.metadata.name.clone().unwrap_or_default(),
            incident: self.seen.incident.name.clone(),
            action: self.m.spec.template.action.name().as_str().to_owned(),
            target: target.and_then(|target| target.metadata.uid.clone()).unwrap_or_default(),
            fields,
            at: whole_seconds(self.now).0,
            by: self.asks().map(str::to_owned),
            reasserts: 0,
            reasserted: None,
            stepped: None,
            restored: false,
            made: target.is_none(),
        }
    }

    /// Puts right what a record says of the prior values, where it differs from what status has on record: status is
    /// locked, and the annotation is not. True when somebody changed it.
    fn correct(&mut self, id: &ObjectId, object: &DynamicObject, found: &mut Record) -> bool {
        // What is more than status has room for cannot be compared.
        let whole = self.was_applied() && self.plan.status.prior.len() < MAX_PRIOR;
        // What is restored says what went back, and no value is written by it any more.
        let compared = whole && !found.restored;
        let Some(kept) = self.record_from_status(id, object).filter(|_| compared) else { return false };
        let same = |a: &HeldField, b: &HeldField| a.path == b.path && a.how == b.how && a.prior == b.prior;
        if kept.fields.len() == found.fields.len()
            && kept.fields.iter().zip(&found.fields).all(|(kept, found)| same(kept, found))
        {
            return false;
        }
        self.plan.status.record_changed_by = Some(self.note_writer(object));
        found.fields = kept.fields;
        true
    }
}
