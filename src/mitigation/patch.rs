//! The JSON Patches on a target. Every one tests what it was decided on, so that a change by somebody else in
//! between makes it fail as a whole instead of being overwritten.

mod builder;

use super::{
    field::{Change, How, field, merged},
    ownership::{Owner, give_back, part_of_others, rightful},
    record::{HeldField, Record, key},
};
use crate::api::MITIGATED_LABEL;
use crate::mutants::{Mutant, seeded};
use builder::Builder;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::collections::HashSet;

/// A JSON Pointer from its parts, escaped.
pub fn pointer(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

/// The parts of a JSON Pointer, as they are.
pub fn pointer_parts(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
}

/// What the mitigation with this uid is to write so that held fields get these values; `None` removes a field. `Err`: a
/// document cannot be edited so that nothing else in it changes.
fn writes<'v>(
    target: &DynamicObject,
    uid: &str,
    wanted: impl Iterator<Item = (&'v str, &'v How, Option<&'v Value>)>,
) -> Result<Vec<(String, Option<Value>)>, String> {
    let mut writes: Vec<(String, Option<Value>)> = Vec::new();
    for (path, how, value) in wanted {
        // Several values may lie in one document.
        let known = writes.iter().position(|(known, _)| known == path);
        let index = known.unwrap_or_else(|| {
            writes.push((path.to_owned(), field(target, path)));
            writes.len() - 1
        });
        let slot = &mut writes[index].1;
        *slot = match how {
            // Who put something of their own into a map that was added keeps it.
            How::Subset if value.is_none() => {
                slot.take().and_then(|present| part_of_others(target, path, &present, uid))
            }
            How::Plain | How::Digest | How::Subset | How::Revision(_) | How::Shared => value.cloned(),
            How::Member(member) => member.write(slot.take(), value.is_some()),
            How::Inside(place) => {
                let text = slot.as_ref().and_then(Value::as_str).unwrap_or_default();
                Some(json!(place.write(text, value)?))
            }
        };
    }
    Ok(writes)
}

/// Captures the prior values and changes the fields, in one write.
///
/// `holders` are the uids of the mitigations that may hold the target; records of others are removed.
pub fn take(
    target: &DynamicObject,
    record: &Record,
    changes: &[Change],
    holders: &HashSet<String>,
) -> Result<Value, String> {
    let mut patch = Builder::new(target);
    if changes.iter().any(Change::is_none) {
        // The value does not change, so testing it would not notice another mitigation in between.
        patch.test_unchanged();
    }
    let to = changes.iter().map(|c| (c.path.as_str(), &c.how, c.raw.as_ref().or(c.to.as_ref())));
    let writes = writes(target, &record.uid, to)?;
    patch.drop_leftovers(record, holders);
    if !(seeded(Mutant::CaptureAfterChange) && changes.iter().any(|change| !change.is_none())) {
        patch.set_record(record);
        patch.share_owners(record, holders);
        patch.set_label();
    }
    patch.write(&writes);
    Ok(patch.build())
}

/// Who is to own a field once this is written. A field of which we hold a part belongs to nobody when it is gone.
fn owners(target: &DynamicObject, held: &HeldField, writes: &[(String, Option<Value>)]) -> Vec<Owner> {
    match writes.iter().find(|(path, _)| *path == held.path) {
        None => held.owners.clone(),
        Some((_, None)) if held.how.is_part() => Vec::new(),
        Some((path, to)) => {
            let present = field(target, path);
            let mut owners = rightful(target, path, present.as_ref(), to.as_ref(), &held.owners);
            let as_before = match &held.how {
                How::Plain => present == held.prior,
                How::Inside(place) => {
                    present.as_ref().and_then(Value::as_str).is_some_and(|text| place.is_as_captured(text))
                }
                How::Digest | How::Subset | How::Member(_) | How::Revision(_) | How::Shared => false,
            };
            if as_before {
                // Had it not been for us, whoever wrote the value that was there before would own it along with the others.
                let known = |owner: &&Owner| !owners.iter().any(|other| other.is_same(owner));
                let before: Vec<Owner> = held.owners.iter().filter(known).cloned().collect();
                owners.extend(before);
            }
            owners
        }
    }
}

/// Takes back a machine's change and counts it, in one write. `raw` are the values to write, one for each field.
pub fn reassert(
    target: &DynamicObject,
    record: &Record,
    raw: &[Option<Value>],
    holders: &HashSet<String>,
) -> Result<Value, String> {
    let mut patch = Builder::new(target);
    // What others put into a map beside ours stays.
    let whole = record.fields.iter().zip(raw).map(|(held, raw)| match (&held.how, raw) {
        (How::Subset, Some(part)) => {
            Some(field(target, &held.path).map_or_else(|| part.clone(), |there| merged(&there, part)))
        }
        (_, raw) => raw.clone(),
    });
    let whole: Vec<Option<Value>> = whole.collect();
    let to = record.fields.iter().zip(&whole).map(|(h, raw)| (h.path.as_str(), &h.how, raw.as_ref()));
    let writes = writes(target, &record.uid, to)?;
    let mut record = record.clone();
    // Whose change is taken back had the field from those who owned it before, and is to have it afterwards.
    for held in record.fields.iter_mut().filter(|held| held.how.is_part() || held.how.is_plain()) {
        held.owners = owners(target, held, &writes);
    }
    patch.set_record(&record);
    patch.share_owners(&record, holders);
    patch.set_label();
    patch.write(&writes);
    Ok(patch.build())
}

/// Puts record and label back on a target whose fields still have our values.
pub fn recapture(target: &DynamicObject, record: &Record) -> Value {
    let mut patch = Builder::new(target);
    for held in &record.fields {
        patch.test(&held.path, field(target, &held.path).as_ref());
    }
    patch.set_record(record);
    patch.set_label();
    patch.build()
}

/// Restores prior values where the fields still have ours, and notes that on the record. Ending the hold is a write
/// of its own: only then does the API server say who owns the fields.
///
/// A field that another mitigation shares keeps its value: whoever goes last puts it back. And so does one that somebody
/// changed meanwhile.
pub fn restore(
    target: &DynamicObject,
    record: &Record,
    raw: &[Option<Value>],
    holders: &HashSet<String>,
) -> Result<Value, String> {
    let mut patch = Builder::new(target);
    let sharer = |held: &HeldField| {
        held.sharers(target).find(|other| other.uid != record.uid && holders.contains(&other.uid))
    };
    let mut to = Vec::new();
    for (held, raw) in record.fields.iter().zip(raw) {
        match sharer(held) {
            Some(other) => patch.test_record(&other.uid),
            None if !held.is_ours(target) && !seeded(Mutant::ReleaseWithoutCompare) => {
                patch.test(&held.path, field(target, &held.path).as_ref());
            }
            None => to.push((held.path.as_str(), &held.how, raw.as_ref())),
        }
    }
    let writes = writes(target, &record.uid, to.into_iter())?;
    patch.write(&writes);
    // What was put back is what counts as the prior value from now on: an autoscaler's bounds may have moved it.
    // Who owned a field by now loses it to this write.
    let fields = record.fields.iter().zip(raw).map(|(held, raw)| match held.how {
        How::Plain if held.is_ours(target) => HeldField { prior: raw.clone(), ..held.clone() },
        How::Inside(_) | How::Member(_) => {
            HeldField { owners: owners(target, held, &writes), ..held.clone() }
        }
        How::Plain | How::Digest | How::Subset | How::Revision(_) | How::Shared => held.clone(),
    });
    let restored = Record { restored: true, fields: fields.collect(), ..record.clone() };
    patch.set_record(&restored);
    patch.share_owners(&restored, holders);
    Ok(patch.build())
}

/// One step of several towards the prior values: the fields get these values, and are held there.
pub fn step(
    target: &DynamicObject,
    record: &Record,
    raw: &[Option<Value>],
    now: Timestamp,
) -> Result<Value, String> {
    let mut patch = Builder::new(target);
    let to = record.fields.iter().zip(raw).map(|(h, raw)| (h.path.as_str(), &h.how, raw.as_ref()));
    let writes = writes(target, &record.uid, to)?;
    patch.write(&writes);
    let fields = record.fields.iter().zip(raw);
    let fields = fields.map(|(held, raw)| HeldField { applied: raw.clone(), ..held.clone() }).collect();
    patch.set_record(&Record { fields, stepped: Some(now), ..record.clone() });
    Ok(patch.build())
}

/// An object that the mitigation makes, with its record.
pub fn made(id: &super::ObjectId, namespace: &str, record: &Record, spec: &Value, owner: &Value) -> Value {
    json!({
        "apiVersion": id.kind.api_version(), "kind": id.kind.kind,
        "metadata": {
            "name": id.name, "namespace": namespace,
            "labels": {MITIGATED_LABEL: "true"},
            "annotations": {key(&record.uid): record.to_text()},
            "ownerReferences": [owner],
        },
        "spec": spec,
    })
}

/// Ends the hold, leaves the fields as they are, and removes what the API server noted of our writes
/// (`metadata.managedFields`). Where the prior values are back, so are those who owned them.
pub fn let_go(target: &DynamicObject, record: &Record, holders: &HashSet<String>, undone: bool) -> Value {
    let mut patch = Builder::new(target);
    patch.drop_hold(record, holders);
    if record.made {
        // What stays, as asked or since somebody changed it, must not go with the mitigation.
        patch.drop_owner(&record.uid);
    }
    let none: &[Owner] = &[];
    let owned: Vec<(&str, &[Owner])> = record
        .fields
        .iter()
        .map(|held| {
            let shared = held.sharers(target).any(|other| other.uid != record.uid);
            (held.path.as_str(), if undone && !shared { held.owners.as_slice() } else { none })
        })
        .collect();
    let paths: Vec<&str> = record.fields.iter().map(|held| held.path.as_str()).collect();
    let shared = Record::all(target).any(|other| {
        other.uid != record.uid && other.action == record.action && holders.contains(&other.uid)
    });
    let manager = format!("incident-operator-{}", record.action);
    patch.ops.extend(give_back(target, &manager, &owned, shared.then_some(&paths)));
    patch.build()
}

/// The object as it would be had a mitigation not changed it, for looking ahead. `None`: that cannot be told.
pub fn without(
    target: &DynamicObject,
    record: &Record,
    raw: &[Option<Value>],
    holders: &HashSet<String>,
) -> Option<DynamicObject> {
    let mut patch = Builder::new(target);
    let ours = record.fields.iter().zip(raw).filter(|(held, _)| held.is_in_place(target));
    let to = ours.map(|(held, raw)| (held.path.as_str(), &held.how, raw.as_ref()));
    patch.write(&writes(target, &record.uid, to).ok()?);
    patch.drop_hold(record, holders);
    let mut object = serde_json::to_value(target).ok()?;
    json_patch::patch(&mut object, &serde_json::from_value::<json_patch::Patch>(patch.build()).ok()?).ok()?;
    serde_json::from_value(object).ok()
}

/// Removes what the API server noted of our writes, or `None` when there is nothing. Left behind, it would make
/// us owner of a field for ever.
pub fn disown(target: &DynamicObject, manager: &str) -> Option<Value> {
    let mut patch = Builder::new(target);
    patch.ops = give_back(target, manager, &[], None);
    (!patch.ops.is_empty()).then(|| patch.build())
}

#[cfg(test)]
pub(crate) mod tests;
