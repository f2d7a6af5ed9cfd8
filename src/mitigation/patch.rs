//! The JSON Patches on a target. Every one tests what it was decided on, so that a change by somebody else in
//! between makes it fail as a whole instead of being overwritten.

use super::{
    field::{Change, How, field},
    ownership::{Owner, give_back},
    record::{HeldField, Record, key},
};
use crate::api::MITIGATED_LABEL;
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

fn annotation(uid: &str) -> String {
    pointer(&["metadata", "annotations", &key(uid)])
}

fn label() -> String {
    pointer(&["metadata", "labels", MITIGATED_LABEL])
}

/// Collects operations and remembers what they rest on.
struct Builder<'a> {
    target: &'a DynamicObject,
    tests: Vec<Value>,
    ops: Vec<Value>,
}

impl<'a> Builder<'a> {
    fn new(target: &'a DynamicObject) -> Self {
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": target.metadata.uid});
        Builder { target, tests: vec![uid], ops: Vec::new() }
    }

    /// JSON Patch cannot test that something is absent; then the whole object must be unchanged.
    fn test_unchanged(&mut self) {
        let version = &self.target.metadata.resource_version;
        let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
        if !self.tests.contains(&test) {
            self.tests.push(test);
        }
    }

    fn test(&mut self, path: &str, value: Option<&Value>) {
        match value {
            Some(value) => self.tests.push(json!({"op": "test", "path": path, "value": value})),
            None => self.test_unchanged(),
        }
    }

    fn set(&mut self, path: &str, value: &Value) {
        self.ops.push(json!({"op": "add", "path": path, "value": value}));
    }

    fn remove(&mut self, path: &str) {
        self.ops.push(json!({"op": "remove", "path": path}));
    }

    fn set_record(&mut self, record: &Record) {
        if self.target.metadata.annotations.is_none() {
            self.test_unchanged();
            self.set("/metadata/annotations", &json!({}));
        }
        self.set(&annotation(&record.uid), &json!(record.to_text()));
    }

    fn set_label(&mut self) {
        match &self.target.metadata.labels {
            Some(labels) if labels.get(MITIGATED_LABEL).is_some_and(|v| v == "true") => return,
            Some(_) => {}
            None => {
                self.test_unchanged();
                self.set("/metadata/labels", &json!({}));
            }
        }
        self.set(&label(), &json!("true"));
    }

    /// Writes a field, and the maps around it where they are missing.
    fn set_field(&mut self, path: &str, value: Option<&Value>) {
        let Some(value) = value else {
            if field(self.target, path).is_some() {
                self.remove(path);
            }
            return;
        };
        let mut missing = Vec::new();
        let mut at = path;
        while let Some((parent, _)) = at.rsplit_once('/')
            && !parent.is_empty()
            // The maps of metadata are seen to with record and label.
            && !parent.starts_with("/metadata")
            && field(self.target, parent).is_none()
        {
            missing.push(parent);
            at = parent;
        }
        for parent in missing.into_iter().rev() {
            self.test_unchanged();
            let made = json!({"op": "add", "path": parent, "value": {}});
            if !self.ops.contains(&made) {
                self.ops.push(made);
            }
        }
        self.set(path, value);
    }

    /// Tests each field as it is and writes it, all or none.
    fn write(&mut self, writes: &[(String, Option<Value>)]) {
        for (path, _) in writes {
            self.test(path, field(self.target, path).as_ref());
        }
        for (path, value) in writes {
            self.set_field(path, value.as_ref());
        }
    }

    /// Drops a record as it stands.
    fn drop_record(&mut self, uid: &str) {
        let path = annotation(uid);
        let text = self.target.metadata.annotations.as_ref().and_then(|a| a.get(&key(uid)));
        if let Some(text) = text {
            self.tests.push(json!({"op": "test", "path": path, "value": text}));
            self.remove(&path);
        }
    }

    /// Drops records that nobody answers for any more.
    fn drop_leftovers(&mut self, record: &Record, holders: &HashSet<String>) {
        for other in Record::all(self.target) {
            if other.uid != record.uid && !holders.contains(&other.uid) {
                self.drop_record(&other.uid);
            }
        }
    }

    /// Drops the record, and the label when nobody else holds the object.
    fn drop_hold(&mut self, record: &Record, holders: &HashSet<String>) {
        self.drop_record(&record.uid);
        self.drop_leftovers(record, holders);
        let other =
            Record::all(self.target).find(|other| other.uid != record.uid && holders.contains(&other.uid));
        let labelled = self.target.metadata.labels.as_ref().is_some_and(|l| l.contains_key(MITIGATED_LABEL));
        if let Some(other) = other {
            // Whoever goes last takes the label; were two to go at once, each would leave it to the other.
            let text = self.target.metadata.annotations.as_ref().and_then(|a| a.get(&key(&other.uid)));
            self.tests.push(json!({"op": "test", "path": annotation(&other.uid), "value": text}));
        } else if labelled {
            self.remove(&label());
        }
    }

    fn build(self) -> Value {
        Value::Array(self.tests.into_iter().chain(self.ops).collect())
    }
}

/// What is to be written so that held fields get these values; `None` removes a field. `Err`: a document cannot be
/// edited so that nothing else in it changes.
fn writes<'v>(
    target: &DynamicObject,
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
            How::Plain | How::Digest | How::Subset | How::Revision(_) => value.cloned(),
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
    let writes = writes(target, to)?;
    patch.drop_leftovers(record, holders);
    patch.set_record(record);
    patch.set_label();
    patch.write(&writes);
    Ok(patch.build())
}

/// Takes back a machine's change and counts it, in one write. `raw` are the values to write, one for each field.
pub fn reassert(target: &DynamicObject, record: &Record, raw: &[Option<Value>]) -> Result<Value, String> {
    let mut patch = Builder::new(target);
    let to = record.fields.iter().zip(raw).map(|(h, raw)| (h.path.as_str(), &h.how, raw.as_ref()));
    let writes = writes(target, to)?;
    patch.set_record(record);
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
pub fn restore(target: &DynamicObject, record: &Record, raw: &[Option<Value>]) -> Result<Value, String> {
    let mut patch = Builder::new(target);
    let to = record.fields.iter().zip(raw).map(|(h, raw)| (h.path.as_str(), &h.how, raw.as_ref()));
    let writes = writes(target, to)?;
    patch.write(&writes);
    // What was put back is what counts as the prior value from now on: an autoscaler's bounds may have moved it.
    let fields = record.fields.iter().zip(raw).map(|(held, raw)| match held.how {
        How::Plain => HeldField { prior: raw.clone(), ..held.clone() },
        How::Inside(_) | How::Digest | How::Subset | How::Member(_) | How::Revision(_) => held.clone(),
    });
    patch.set_record(&Record { restored: true, fields: fields.collect(), ..record.clone() });
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
    let writes = writes(target, to)?;
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
    let none: &[Owner] = &[];
    let owned: Vec<(&str, &[Owner])> = record
        .fields
        .iter()
        .map(|held| (held.path.as_str(), if undone { held.owners.as_slice() } else { none }))
        .collect();
    let paths: Vec<&str> = record.fields.iter().map(|held| held.path.as_str()).collect();
    let shared = Record::all(target).any(|other| {
        other.uid != record.uid && other.action == record.action && holders.contains(&other.uid)
    });
    let manager = format!("incident-operator-{}", record.action);
    patch.ops.extend(give_back(target, &manager, &owned, shared.then_some(&paths)));
    patch.build()
}

/// Removes what the API server noted of our writes, or `None` when there is nothing. Left behind, it would make
/// us owner of a field for ever.
pub fn disown(target: &DynamicObject, manager: &str) -> Option<Value> {
    let mut patch = Builder::new(target);
    patch.ops = give_back(target, manager, &[], None);
    (!patch.ops.is_empty()).then(|| patch.build())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    pub(crate) fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn record(prior: Option<Value>) -> Record {
        Record {
            v: 1,
            uid: "0123456789".into(),
            mitigation: "m".into(),
            incident: None,
            action: "scale".into(),
            target: "t".into(),
            fields: vec![HeldField {
                path: "/spec/replicas".into(),
                how: How::Plain,
                prior,
                applied: Some(json!(0)),
                owners: Vec::new(),
            }],
            at: Timestamp::UNIX_EPOCH,
            reasserts: 0,
            reasserted: None,
            stepped: None,
            restored: false,
            made: false,
        }
    }

    /// The patch of a take that sets replicas to 0.
    fn stop(target: &Value, record: &Record) -> Value {
        let target = object(target.clone());
        take(&target, record, &[Change::set(&target, "/spec/replicas", json!(0))], &nobody()).unwrap()
    }

    fn back(target: &Value, record: &Record) -> Value {
        let raw: Vec<_> = record.fields.iter().map(|held| held.prior.clone()).collect();
        restore(&object(target.clone()), record, &raw).unwrap()
    }

    fn nobody() -> HashSet<String> {
        HashSet::new()
    }

    fn deployment(metadata: Value) -> Value {
        let mut base = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "uid": "t", "resourceVersion": "7"}, "spec": {"replicas": 3}});
        json_patch::merge(&mut base["metadata"], &metadata);
        base
    }

    /// Applies a patch as the API server does: all of it, or an error.
    fn apply(to: &Value, patch: &Value) -> Result<Value, json_patch::PatchError> {
        let mut out = to.clone();
        json_patch::patch(&mut out, &serde_json::from_value::<json_patch::Patch>(patch.clone()).unwrap())?;
        Ok(out)
    }

    #[test]
    fn take_and_restore_leave_the_object_as_it_was() {
        for metadata in [json!({}), json!({"annotations": {"a": "b"}, "labels": {"c": "d"}})] {
            let before = deployment(metadata);
            let taken = apply(&before, &stop(&before, &record(Some(json!(3))))).unwrap();
            assert_eq!(taken["spec"]["replicas"], 0);
            assert_eq!(Record::find(&object(taken.clone()), "0123456789"), Some(record(Some(json!(3)))));
            let undone = apply(&taken, &back(&taken, &record(Some(json!(3))))).unwrap();
            let noted = Record::find(&object(undone.clone()), "0123456789").unwrap();
            assert!(noted.restored && undone["spec"]["replicas"] == 3);
            let mut restored =
                apply(&undone, &let_go(&object(undone.clone()), &noted, &nobody(), true)).unwrap();
            // The API server does not store empty maps.
            for map in ["annotations", "labels"] {
                if restored["metadata"][map] == json!({}) {
                    restored["metadata"].as_object_mut().unwrap().remove(map);
                }
            }
            assert_eq!(restored, before);
        }
    }

    #[test]
    fn take_fails_as_a_whole_when_the_field_or_the_object_is_another_by_then() {
        let before = deployment(json!({"annotations": {"a": "b"}, "labels": {"c": "d"}}));
        let patch = stop(&before, &record(Some(json!(3))));
        for change in [json!({"spec": {"replicas": 4}}), json!({"metadata": {"uid": "other"}})] {
            let mut changed = before.clone();
            json_patch::merge(&mut changed, &change);
            assert!(apply(&changed, &patch).is_err(), "{change}");
        }
        let mut unrelated = before.clone();
        json_patch::merge(&mut unrelated, &json!({"metadata": {"resourceVersion": "8"}}));
        assert!(apply(&unrelated, &patch).is_ok(), "status churn must not make a take fail");
    }

    #[test]
    fn maps_that_were_missing_are_not_overwritten_when_somebody_adds_them_in_between() {
        let before = deployment(json!({}));
        let patch = stop(&before, &record(Some(json!(3))));
        let mut changed = before;
        json_patch::merge(
            &mut changed,
            &json!({"metadata": {"resourceVersion": "8", "labels": {"new": "x"}}}),
        );
        assert!(apply(&changed, &patch).is_err());
    }

    #[test]
    fn a_field_that_was_absent_is_removed_on_restore() {
        let mut before = deployment(json!({"annotations": {"a": "b"}, "labels": {"c": "d"}}));
        before["spec"] = json!({"paused": false});
        let taken = apply(&before, &stop(&before, &record(None))).unwrap();
        assert_eq!(taken["spec"]["replicas"], 0);
        let restored = apply(&taken, &back(&taken, &record(None))).unwrap();
        assert_eq!(restored["spec"], before["spec"]);
    }

    #[test]
    fn restore_never_overwrites_a_later_change_of_somebody_else() {
        let before = deployment(json!({"annotations": {"a": "b"}, "labels": {"c": "d"}}));
        let mut taken = apply(&before, &stop(&before, &record(Some(json!(3))))).unwrap();
        let patch = back(&taken, &record(Some(json!(3))));
        taken["spec"]["replicas"] = json!(7);
        assert!(apply(&taken, &patch).is_err());
    }

    #[test]
    fn the_label_stays_while_another_mitigation_holds_the_object() {
        let mut other = record(Some(json!(1)));
        other.uid = "99999999-other".into();
        let before = deployment(json!({
            "labels": {MITIGATED_LABEL: "true"},
            "annotations": {key(&other.uid): other.to_text(), key("0123456789"): record(Some(json!(3))).to_text()}}));
        let mut held = before;
        held["spec"]["replicas"] = json!(0);
        let holders = HashSet::from([other.uid.clone()]);
        let after =
            apply(&held, &let_go(&object(held.clone()), &record(Some(json!(3))), &holders, false)).unwrap();
        assert_eq!(after["metadata"]["labels"][MITIGATED_LABEL], "true");
    }

    #[test]
    fn disowning_removes_exactly_our_entries() {
        let target = object(deployment(json!({"managedFields": [
            {"manager": "incident-operator-scale"}, {"manager": "kubectl"}, {"manager": "incident-operator-scale"}]})));
        let patch = disown(&target, "incident-operator-scale").unwrap();
        let after = apply(&serde_json::to_value(&target).unwrap(), &patch).unwrap();
        assert_eq!(after["metadata"]["managedFields"], json!([{"manager": "kubectl"}]));
        assert_eq!(disown(&target, "incident-operator-rollback"), None);
    }
}
