//! The capture record: the annotation on the target that keeps the prior value.
//!
//! It is written in the same patch as the change, so a change without its prior value never exists. If it is
//! there, the mitigation is applied; that is what makes a crash at any point harmless.

use super::{
    field::{Change, How, dotted, field, leaves},
    ownership::{Owner, applier, losers, others_own, rightful},
};
use crate::api::CAPTURE_PREFIX;
use crate::mutants::{Mutant, seeded};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is kept on the target while a mitigation holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub v: u8,
    /// uid of the Mitigation.
    pub uid: String,
    /// Name of the Mitigation, in the target's namespace.
    pub mitigation: String,
    /// Name of the incident, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// Name of the action.
    pub action: String,
    /// uid of the target. A record on an object with another uid was copied there and counts for nothing.
    pub target: String,
    /// The fields that are held.
    pub fields: Vec<HeldField>,
    /// When the change was made.
    pub at: Timestamp,
    /// Who had asked for it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How often a machine's change was taken back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasserts: u8,
    /// When that was done last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasserted: Option<Timestamp>,
    /// When the last step of a staged restore was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stepped: Option<Timestamp>,
    /// The prior values are back; what is left is to remove the record and to give the fields back to their
    /// owners. So a crash in between loses neither.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restored: bool,
    /// The mitigation made the object; it is deleted on release.
    #[serde(default, skip_serializing_if = "is_false")]
    pub made: bool,
}

/// One field that is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldField {
    /// JSON Pointer of the field.
    pub path: String,
    /// How the values are kept and compared.
    #[serde(default, skip_serializing_if = "How::is_plain")]
    pub how: How,
    /// The value before; left out when the field was absent. `null` is a value: a document may have it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub prior: Option<Value>,
    /// The value during the mitigation; left out when the field is absent then.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub applied: Option<Value>,
    /// Who owned the field before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<Owner>,
}

/// What is written is there, also when it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(n: &u8) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(b: &bool) -> bool {
    !*b
}

impl HeldField {
    /// What is kept of a field that is about to change. The prior value is that of the object that is patched, and
    /// not the one that the change was planned on: that may have been older.
    pub fn capture(target: &DynamicObject, change: &Change) -> Self {
        let first = Record::all(target)
            .flat_map(|record| record.fields)
            .find(|held| change.how == How::Shared && held.how == How::Shared && held.path == change.path);
        if let Some(first) = first {
            return first;
        }
        let present = field(target, &change.path);
        let to = change.raw.as_ref().or(change.to.as_ref());
        // Who lost the field to an earlier mitigation is noted on that one's record alone.
        let earlier = Record::all(target)
            .flat_map(|record| record.fields)
            .find(|held| held.how.is_part() && change.how.is_part() && held.path == change.path);
        HeldField {
            owners: match earlier {
                Some(earlier) => rightful(target, &change.path, present.as_ref(), to, &earlier.owners),
                None => losers(target, &change.path, present.as_ref(), to),
            },
            path: change.path.clone(),
            prior: change.how.seen(present.as_ref(), change.to.as_ref()),
            how: change.how.captured(present.as_ref()),
            applied: change.to.clone(),
        }
    }

    /// True when the field had the mitigation's value before.
    pub fn is_unchanged(&self) -> bool {
        self.prior == self.applied
    }

    /// True for the note that restarts the pods of a workload. It has done its work with the change: whoever takes it
    /// away later, with a template of their own, has started the pods anew and ends nothing.
    pub fn is_restart_note(&self) -> bool {
        self.path.starts_with("/spec/template/metadata")
    }

    /// The present value, as it is compared.
    pub fn seen(&self, target: &DynamicObject) -> Option<Value> {
        self.how.seen(field(target, &self.path).as_ref(), self.applied.as_ref())
    }

    /// Why it cannot be told whether the field has the mitigation's value: the document that it lies in cannot be read, or
    /// was reshaped. That is no change of the value.
    pub fn unclear(&self, target: &DynamicObject) -> Option<String> {
        let How::Inside(place) = &self.how else { return None };
        let words = place.unclear(field(target, &self.path)?.as_str()?)?;
        Some(format!("{}: {words}", dotted(&self.path)))
    }

    /// True when the field has the mitigation's value, and, of an object that the mitigation made, nobody added to it.
    pub fn is_in_place(&self, target: &DynamicObject) -> bool {
        self.seen(target) == self.applied && !self.is_added_to(target)
    }

    /// Who wants the mitigation's value by now for reasons of their own, as whoever applied it server-side meanwhile: it is
    /// not put back.
    pub fn adopted_by(&self, target: &DynamicObject) -> Option<String> {
        let ours = self.how.is_plain() && !self.is_unchanged() && self.applied.is_some();
        ours.then(|| applier(target, &self.path)).flatten()
    }

    /// True when the value is there, and nobody else's.
    pub fn is_ours(&self, target: &DynamicObject) -> bool {
        self.is_in_place(target) && self.adopted_by(target).is_none()
    }

    /// Whether others have put something of theirs into an object that the mitigation made: it is theirs, too, then.
    fn is_added_to(&self, target: &DynamicObject) -> bool {
        let made = self.path == "/spec" && self.how == How::Subset && self.prior.is_none();
        made && others_own(target, &self.path)
    }

    /// True when the field has its prior value.
    pub fn is_back(&self, target: &DynamicObject) -> bool {
        self.sharers(target).next().is_some()
            || self.how.seen(field(target, &self.path).as_ref(), self.prior.as_ref()) == self.prior
    }

    /// Whether it was back when another mitigation took the field: that one noted our prior value as what it found.
    pub fn was_back(&self, target: &DynamicObject) -> bool {
        Record::all(target).any(|record| {
            let found =
                |held: &HeldField| held.how == self.how && held.path == self.path && held.prior == self.prior;
            !record.made && record.fields.iter().any(found)
        })
    }

    /// The records on an object that hold this field as well and have not put it back.
    pub fn sharers<'t>(&self, target: &'t DynamicObject) -> impl Iterator<Item = Record> + use<'t> {
        let (path, shared) = (self.path.clone(), self.how == How::Shared);
        Record::all(target).filter(move |record| {
            let holds = |held: &HeldField| held.how == How::Shared && held.path == path;
            shared && !record.restored && record.fields.iter().any(holds)
        })
    }

    /// True when both are parts of one field, which has one owner for all of it.
    pub fn is_beside(&self, other: &HeldField) -> bool {
        self.how.is_part() && other.how.is_part() && self.path == other.path
    }

    /// True when holding both would disturb one of them.
    pub fn overlaps(&self, change: &Change) -> bool {
        match (&self.how, &change.how) {
            (How::Inside(a), How::Inside(b)) if self.path == change.path => a.overlaps(b),
            (How::Member(a), How::Member(b)) if self.path == change.path => a == b,
            (How::Shared, How::Shared) if self.path == change.path => false,
            // Of a map that was added around a field only what was put into it is held.
            (How::Subset, _) if self.prior.is_none() => self
                .applied
                .iter()
                .flat_map(|value| leaves(&self.path, value))
                .any(|leaf| overlaps(&leaf, &change.path)),
            _ => overlaps(&self.path, &change.path),
        }
    }
}

/// Key of the annotation for the Mitigation with this uid.
pub fn key(uid: &str) -> String {
    format!("{CAPTURE_PREFIX}{}", uid.get(..8).unwrap_or(uid))
}

/// What the annotations of an object may take in all, keys and values: a limit of the API server.
const MAX_ANNOTATIONS: usize = 256 * 1024;
/// What stays free beside a record: later writes say in it what was taken back and restored.
const SPARE: usize = 1024;

impl Record {
    /// Whether there is room for the record among the annotations of an object, now and as it grows. `Err`: the bytes that
    /// it takes, and those that are free.
    pub fn fits(&self, object: &DynamicObject) -> Result<(), (usize, usize)> {
        let own = key(&self.uid);
        let there = object.metadata.annotations.iter().flatten();
        let taken: usize =
            there.filter(|(key, _)| **key != own).map(|(key, value)| key.len() + value.len()).sum();
        let (needed, free) =
            (own.len() + self.to_text().len() + SPARE, MAX_ANNOTATIONS.saturating_sub(taken));
        if needed <= free { Ok(()) } else { Err((needed, free)) }
    }

    /// The annotation's value.
    pub fn to_text(&self) -> String {
        // Serialising plain data to a string cannot fail; an empty record would be refused when read.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The record of this Mitigation on the target, when there is one that belongs to both.
    pub fn find(target: &DynamicObject, mitigation_uid: &str) -> Option<Record> {
        let text = target.metadata.annotations.as_ref()?.get(&key(mitigation_uid))?;
        let record: Record = serde_json::from_str(text).ok()?;
        (record.uid == mitigation_uid && record.belongs_to(target)).then_some(record)
    }

    /// Every record on the target that belongs to it.
    pub fn all(target: &DynamicObject) -> impl Iterator<Item = Record> + '_ {
        let annotations = target.metadata.annotations.iter().flatten();
        annotations
            .filter(|(key, _)| key.starts_with(CAPTURE_PREFIX))
            .filter_map(|(_, text)| serde_json::from_str::<Record>(text).ok())
            .filter(|record| record.belongs_to(target))
    }

    /// True on the object that it was written for. What the mitigation made had no uid when it was written.
    fn belongs_to(&self, target: &DynamicObject) -> bool {
        let unchecked = self.made && self.target.is_empty() || seeded(Mutant::MissingUidTest);
        unchecked || Some(&self.target) == target.metadata.uid.as_ref()
    }

    /// Who wants the mitigation's value of one of its fields by now.
    pub fn adopted_by(&self, target: &DynamicObject) -> Option<String> {
        self.fields.iter().find_map(|held| held.adopted_by(target))
    }

    /// Why it cannot be told of one of its fields whether it has the mitigation's value.
    pub fn unclear(&self, target: &DynamicObject) -> Option<String> {
        self.fields.iter().find_map(|held| held.unclear(target))
    }

    /// True when every field has the mitigation's value.
    pub fn is_in_place(&self, target: &DynamicObject) -> bool {
        self.fields.iter().all(|held| held.is_in_place(target))
    }
}

/// True when holding one path would disturb the other: they are the same, or one lies inside the other.
pub fn overlaps(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.starts_with(short) && (long.len() == short.len() || long.as_bytes()[short.len()] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_null_is_no_missing_value() {
        for (prior, applied) in [(Some(Value::Null), None), (None, Some(Value::Null)), (None, None)] {
            let held =
                HeldField { path: "/data/a".to_owned(), how: How::Plain, prior, applied, owners: Vec::new() };
            let text = serde_json::to_string(&held).unwrap();
            assert_eq!(serde_json::from_str::<HeldField>(&text).unwrap(), held, "{text}");
        }
    }

    #[test]
    fn a_record_fits_only_where_room_is_left_for_what_is_noted_in_it_later() {
        let with = |bytes: usize| {
            let annotations = serde_json::json!({"a": "x".repeat(bytes)});
            let object = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"annotations": annotations}});
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let text = r#"{"v":1,"uid":"12345678-1","mitigation":"m","action":"scale","target":"u","fields":[],"at":"2026-01-01T00:00:00Z"}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.fits(&with(0)), Ok(()));
        let takes = record.to_text().len() + key(&record.uid).len();
        let room = MAX_ANNOTATIONS - 1 - takes - SPARE;
        assert_eq!(record.fits(&with(room)), Ok(()));
        assert_eq!(record.fits(&with(room + 1)), Err((takes + SPARE, takes + SPARE - 1)));
    }

    #[test]
    fn fields_overlap_when_they_are_equal_or_nested_and_not_when_names_merely_begin_alike() {
        assert!(overlaps("/spec/replicas", "/spec/replicas"));
        assert!(overlaps("/spec", "/spec/replicas"));
        assert!(!overlaps("/data/new", "/data/new-pricing"));
    }
}
