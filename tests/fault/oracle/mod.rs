//! What must hold at every revision, and in the end.
//!
//! Judged from two things that the operator has no part in: every revision that the API server stored, and what the
//! proxy saw of each write. Objects are read as JSON, without the operator's own types and rules.

mod held;
mod mitigations;
pub mod state;
mod timeline;

use super::proxy::Written;
use super::recorder::{KINDS, Revision};
use super::scenario::Scenario;
use super::support::cluster::resource_of;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Everything that is known of a run.
pub struct Seen<'a> {
    /// What was run.
    pub scenario: &'a Scenario,
    /// All revisions, in the order of the writes.
    pub revisions: &'a [Revision],
    /// The operator's writes.
    pub written: &'a [Written],
    /// uids of the TimelineEntries that people made.
    pub entries: &'a [String],
    /// Last lines of the operator's log, all starts.
    pub log: &'a str,
}

/// What did not hold, in words; empty when all is well.
pub fn judge(seen: &Seen<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    held::judge(seen, &mut wrong);
    mitigations::judge(seen, &mut wrong);
    timeline::judge(seen, &mut wrong);
    panics(seen.log, &mut wrong);
    recorded(seen, &mut wrong);
    wrong.dedup();
    wrong
}

/// A panic, or one that was caught: our own Error says of which controller it was.
pub fn panics(log: &str, wrong: &mut Vec<String>) {
    let caught = |line: &str| line.contains("visit failed") && line.contains("error=internal error: ");
    for line in log.lines().filter(|line| line.contains("panicked at") || caught(line)) {
        wrong.push(format!("the operator panicked: {line}"));
    }
}

/// What is written is judged only where it is recorded.
fn recorded(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let plural =
        |api_version: &str, kind: &str| resource_of(&json!({"apiVersion": api_version, "kind": kind})).plural;
    let known: Vec<String> = KINDS.iter().map(|(api_version, kind)| plural(api_version, kind)).collect();
    for written in seen.written.iter().filter(|w| w.is_done() && !known.contains(&w.request.resource)) {
        wrong.push(format!("a kind that is not recorded was written: {}", written.line()));
    }
}

impl Seen<'_> {
    /// The operator's writes by the resourceVersion that they made.
    fn by_version(&self) -> HashMap<u64, &Written> {
        let objects =
            |written: &'_ _| Written::objects(written).map(|(version, _)| version).collect::<Vec<_>>();
        self.written.iter().flat_map(|w| objects(w).into_iter().map(move |version| (version, w))).collect()
    }

    /// The last revision of an object before a moment.
    fn before(&self, kind: &str, name: &str, version: u64) -> Option<&Revision> {
        self.revisions.iter().rev().find(|r| r.version < version && r.kind == kind && r.name == name)
    }
}

/// A capture record on an object.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    uid: String,
    mitigation: String,
    restored: bool,
    fields: Vec<Value>,
}

impl Record {
    /// The records on an object that are about this object.
    fn all(object: &Value) -> Vec<Record> {
        let Some(annotations) = object["metadata"]["annotations"].as_object() else { return Vec::new() };
        annotations
            .iter()
            .filter(|(key, _)| key.starts_with("incident-operator.dev/mit-"))
            .filter_map(|(_, text)| {
                let record: Value = serde_json::from_str(text.as_str()?).ok()?;
                // One that was copied from another object is about that one.
                let of = record["target"].as_str().unwrap_or_default();
                if !of.is_empty() && object["metadata"]["uid"] != of {
                    return None;
                }
                Some(Record {
                    uid: record["uid"].as_str()?.to_owned(),
                    mitigation: record["mitigation"].as_str()?.to_owned(),
                    restored: record["restored"] == true,
                    fields: record["fields"].as_array()?.clone(),
                })
            })
            .collect()
    }

    /// What the record keeps of a field.
    fn field(&self, pointer: &str) -> Option<&Value> {
        let path = |field: &Value| field["path"].as_str().unwrap_or("-").to_owned();
        self.fields.iter().find(|field| {
            let path = path(field);
            path == pointer
                || path.starts_with(&format!("{pointer}/"))
                || pointer.starts_with(&format!("{path}/"))
        })
    }
}

/// A value in few words.
fn short(value: Option<&Value>) -> String {
    let text = value.map_or("absent".to_owned(), Value::to_string);
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Status of a condition.
fn condition<'a>(object: &'a Value, type_: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == type_);
    found.and_then(|c| c["status"].as_str()).unwrap_or("Unknown")
}
