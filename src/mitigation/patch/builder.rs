//! The parts that patches are made of. Whatever an operation rests on is tested in front of all operations.

use super::pointer;
use crate::{
    api::MITIGATED_LABEL,
    mitigation::{
        field::field,
        record::{Record, key},
    },
    mutants::{Mutant, seeded},
};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::collections::HashSet;

fn annotation(uid: &str) -> String {
    pointer(&["metadata", "annotations", &key(uid)])
}

fn label() -> String {
    pointer(&["metadata", "labels", MITIGATED_LABEL])
}

/// Collects operations and remembers what they rest on.
pub struct Builder<'a> {
    target: &'a DynamicObject,
    tests: Vec<Value>,
    pub ops: Vec<Value>,
}

impl<'a> Builder<'a> {
    pub fn new(target: &'a DynamicObject) -> Self {
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": target.metadata.uid});
        let tests = if seeded(Mutant::MissingUidTest) { Vec::new() } else { vec![uid] };
        Builder { target, tests, ops: Vec::new() }
    }

    /// The whole object must be unchanged.
    pub fn test_unchanged(&mut self) {
        let version = self.target.metadata.resource_version.clone();
        self.test_once(json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
    }

    pub fn test(&mut self, path: &str, value: Option<&Value>) {
        match value {
            Some(value) => self.tests.push(json!({"op": "test", "path": path, "value": value})),
            None => self.test_absent(path),
        }
    }

    /// JSON Patch cannot test that something is absent; then all that is around it must be unchanged. Of workloads that
    /// is the spec, told by its generation: their status changes all the time while a version rolls out.
    fn test_absent(&mut self, path: &str) {
        let types = self.target.types.as_ref();
        let is_workload = types.is_some_and(|types| types.api_version.starts_with("apps/"));
        match self.target.metadata.generation {
            Some(generation) if is_workload && path.starts_with("/spec/") => {
                self.test_once(json!({"op": "test", "path": "/metadata/generation", "value": generation}));
            }
            _ => self.test_unchanged(),
        }
    }

    fn test_once(&mut self, test: Value) {
        if !self.tests.contains(&test) {
            self.tests.push(test);
        }
    }

    fn set(&mut self, path: &str, value: &Value) {
        self.ops.push(json!({"op": "add", "path": path, "value": value}));
    }

    fn remove(&mut self, path: &str) {
        self.ops.push(json!({"op": "remove", "path": path}));
    }

    pub fn set_record(&mut self, record: &Record) {
        if self.target.metadata.annotations.is_none() {
            self.test_unchanged();
            self.set("/metadata/annotations", &json!({}));
        }
        self.set(&annotation(&record.uid), &json!(record.to_text()));
    }

    /// Tells the records of those who hold other parts of the same fields who is to own these in the end. Our write takes
    /// them from everybody, so what only one record knew would be lost to the others.
    pub fn share_owners(&mut self, record: &Record, holders: &HashSet<String>) {
        for other in Record::all(self.target) {
            if other.uid == record.uid || !holders.contains(&other.uid) {
                continue;
            }
            let mut told = other.clone();
            for held in &mut told.fields {
                if let Some(ours) = record.fields.iter().find(|own| own.is_beside(held)) {
                    held.owners.clone_from(&ours.owners);
                }
            }
            if told != other {
                self.test_record(&other.uid);
                self.set(&annotation(&other.uid), &json!(told.to_text()));
            }
        }
    }

    pub fn set_label(&mut self) {
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
            self.test_absent(parent);
            let made = json!({"op": "add", "path": parent, "value": {}});
            if !self.ops.contains(&made) {
                self.ops.push(made);
            }
        }
        self.set(path, value);
    }

    /// Tests each field as it is and writes it, all or none.
    pub fn write(&mut self, writes: &[(String, Option<Value>)]) {
        for (path, _) in writes {
            self.test(path, field(self.target, path).as_ref());
        }
        for (path, value) in writes {
            self.set_field(path, value.as_ref());
        }
    }

    /// A record is as it was.
    pub fn test_record(&mut self, uid: &str) {
        let text = self.target.metadata.annotations.as_ref().and_then(|a| a.get(&key(uid)));
        self.tests.push(json!({"op": "test", "path": annotation(uid), "value": text}));
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
    pub fn drop_leftovers(&mut self, record: &Record, holders: &HashSet<String>) {
        for other in Record::all(self.target) {
            if other.uid != record.uid && !holders.contains(&other.uid) {
                self.drop_record(&other.uid);
            }
        }
    }

    /// Drops the record, and the label when nobody else holds the object.
    pub fn drop_hold(&mut self, record: &Record, holders: &HashSet<String>) {
        self.drop_record(&record.uid);
        self.drop_leftovers(record, holders);
        let other =
            Record::all(self.target).find(|other| other.uid != record.uid && holders.contains(&other.uid));
        let labelled = self.target.metadata.labels.as_ref().is_some_and(|l| l.contains_key(MITIGATED_LABEL));
        if let Some(other) = other {
            // Whoever goes last takes the label; were two to go at once, each would leave it to the other.
            self.test_record(&other.uid);
        } else if labelled {
            self.remove(&label());
        }
    }

    /// Drops the reference to an owner with this uid.
    pub fn drop_owner(&mut self, uid: &str) {
        let owners = self.target.metadata.owner_references.iter().flatten();
        if let Some(index) = owners.into_iter().position(|owner| owner.uid == uid) {
            let path = format!("/metadata/ownerReferences/{index}");
            self.tests.push(json!({"op": "test", "path": format!("{path}/uid"), "value": uid}));
            self.remove(&path);
        }
    }

    pub fn build(self) -> Value {
        Value::Array(self.tests.into_iter().chain(self.ops).collect())
    }
}
