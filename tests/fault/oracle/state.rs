//! The state in the end, without what differs between any two runs: identities, counters, times.

use super::text;
use crate::proxy::RACED;
use crate::recorder::Revision;
use regex_lite::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How a line of what is on record begins.
const TIMELINE: &str = ".status.timeline ";

/// Facts that depend on the moment, not on what was done.
const MOMENTARY: &[&str] = &[
    "attempts",
    "sha256",
    "observedGeneration",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "durations",
];

/// The masked state of a namespace, line by line.
pub fn masked(namespace: &str, present: &[Revision]) -> Vec<String> {
    let mut lines = Vec::new();
    let uids: Vec<(&str, String)> =
        present.iter().map(|r| (r.uid(), format!("<uid of {} {}>", r.kind, r.name))).collect();
    for revision in present {
        let (kind, name) = (revision.kind.as_str(), revision.name.as_str());
        if name == "kube-root-ca.crt" || kind == "Namespace" && name != namespace {
            continue;
        }
        let mut object = revision.object.as_ref().clone();
        let own = text(&object, "/apiVersion").starts_with("incident-operator.dev/");
        if !own && let Some(map) = object.as_object_mut() {
            // The controllers' word on it.
            map.remove("status");
        }
        if object.pointer("/metadata/annotations/incident-operator.dev~1incident-uid").is_some()
            && object.pointer("/data/timeline.json").is_some()
        {
            continue;
        }
        if object.pointer("/metadata/labels/incident-operator.dev~1evidence").is_some() {
            // What was seen at the time; that it is kept once is what counts.
            let stands_for = HASHES.replace_all(name, "-<hash>").into_owned();
            let like = |r: &&Revision| r.kind == kind && HASHES.replace_all(&r.name, "-<hash>") == stands_for;
            let copies = present.iter().filter(like).count();
            lines.push(format!(
                "{kind}/{stands_for} is evidence, {copies} of it, immutable: {}",
                object["immutable"]
            ));
            continue;
        }
        let mut all = String::new();
        if kind == "Incident" {
            whole_timeline(&mut object, present, &mut all);
        }
        by_moment(&mut object, kind);
        mask(&mut object);
        flatten(&object, &mut String::new(), &mut all);
        for (uid, stands_for) in &uids {
            if !uid.is_empty() {
                all = all.replace(uid, stands_for);
                all = all.replace(&uid[..8], "<uid8>");
            }
        }
        all = all.replace(namespace, "<namespace>");
        all = TIMES.replace_all(&all, "<time>").into_owned();
        all = UIDS.replace_all(&all, "<uid>").into_owned();
        all = DURATIONS.replace_all(&all, "<duration>").into_owned();
        all = HASHES.replace_all(&all, "-<hash>").into_owned();
        let name = HASHES.replace_all(name, "-<hash>").replace(namespace, "<namespace>");
        lines.extend(all.lines().map(|line| format!("{kind}/{name} {line}")));
    }
    lines.sort();
    // What a person or the operator noted twice stands there twice; other lines may be alike by what is masked.
    lines.dedup_by(|a, b| a == b && !a.contains(TIMELINE));
    lines
}

/// What is missing and what is too much, compared with another state.
pub fn difference(is: &[String], should_be: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for line in should_be {
        *counts.entry(line).or_default() -= 1;
    }
    for line in is {
        *counts.entry(line).or_default() += 1;
    }
    let told = |sign: &str, line: &str, count: i64| match count {
        1 => format!("{sign} {line}"),
        _ => format!("{sign} {line} ({count} times)"),
    };
    let missing = counts.iter().filter(|(_, count)| **count < 0).map(|(line, count)| told("-", line, -count));
    let added = counts.iter().filter(|(_, count)| **count > 0).map(|(line, count)| told("+", line, *count));
    missing.chain(added).collect()
}

static TIMES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|UTC|\+00:00))?)?|\b\d\d:\d\d(:\d\d)?( UTC)?\b",
    )
    .expect("it is a pattern")
});
static UIDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").expect("it is a pattern")
});
/// What is made of a uid ends the names of some objects.
static HASHES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"-[0-9a-f]{8}\b").expect("it is a pattern"));
/// As people read them: `3 s`, `less than a second`, `2 min`.
static DURATIONS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"\b(less than a (second|minute)|\d+(\.\d+)? ?(ms|s|sec|seconds?|min|minutes?|h|hours?|d|days?))\b",
    )
    .expect("it is a pattern")
});

/// What stands there or not by the moment at which it was looked at.
fn by_moment(object: &mut Value, kind: &str) {
    let phase = text(object, "/status/phase").to_owned();
    let over = ["Postmortem", "Closed", "Cancelled"].contains(&text(object, "/status/stage"));
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    match kind {
        "Incident" => {
            let items = status.get_mut("checklist").and_then(Value::as_array_mut);
            for item in items.into_iter().flatten().filter(|item| item["name"] == "rollback-or-flag") {
                // What could be rolled back is looked up as long as it matters.
                if (over || item["state"] == "Done")
                    && let Some(item) = item.as_object_mut()
                {
                    item.remove("note");
                }
            }
            // It stands there since something was refused, and says by now that nothing is.
            let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
            if let Some(conditions) = conditions {
                conditions.retain(|c| c["type"] != "TimelineArchived" || c["status"] != "True");
            }
        }
        // Whether it was seen to be effective before it expired, and which of the two ended it.
        "Mitigation" if status.contains_key("expiryTime") && phase != "Active" => {
            status.remove("effectiveTime");
            status.remove("expiredTime");
        }
        _ => {}
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in MOMENTARY {
                map.remove(*key);
            }
            map.remove(RACED);
            if let Some(Value::Array(entries)) = map.get_mut("managedFields") {
                // The admin of the cluster and its controllers write as they like.
                entries.retain(|entry| text(entry, "/manager").starts_with("incident-operator"));
                for entry in entries {
                    let map = entry.as_object_mut().expect("an entry is an object");
                    map.remove("time");
                }
            }
            map.retain(|_, value| !matches!(value, Value::Array(all) if all.is_empty()));
            map.retain(|_, value| !matches!(value, Value::Object(all) if all.is_empty()));
            for (key, value) in map.iter_mut() {
                // What is shown to people is made of what is compared elsewhere.
                if key == "postmortem.md" {
                    *value = Value::String("<markdown>".to_owned());
                }
                mask(value);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(mask),
        _ => {}
    }
}

/// What is on record, wherever it is kept and in whatever order entries of one second came.
fn whole_timeline(incident: &mut Value, present: &[Revision], all: &mut String) {
    let uid = text(incident, "/metadata/uid").to_owned();
    let mut records = incident["status"]["timeline"].take();
    let records = records.as_array_mut().map(std::mem::take).unwrap_or_default();
    if let Some(status) = incident["status"].as_object_mut() {
        status.remove("timeline");
        status.remove("timelineArchive");
    }
    let archives = present.iter().filter(|r| {
        r.kind == "ConfigMap"
            && text(&r.object, "/metadata/annotations/incident-operator.dev~1incident-uid") == uid
    });
    let archived = archives.flat_map(|r| {
        serde_json::from_str::<Vec<Value>>(text(&r.object, "/data/timeline.json")).unwrap_or_default()
    });
    for record in archived.chain(records) {
        let told = ["/reason", "/author", "/message"].map(|pointer| text(&record, pointer).to_owned());
        *all += &format!("{TIMELINE}{}\n", told.join(" | ").replace('\n', " "));
    }
}

/// One line a leaf. Members of lists are told by what names them, so that their order does not matter.
fn flatten(value: &Value, at: &mut String, all: &mut String) {
    let length = at.len();
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                *at += &format!(".{key}");
                flatten(value, at, all);
                at.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let named = ["type", "name", "id", "reason"].iter().find_map(|key| item.get(key)?.as_str());
                // Lines of text are told in the order of moments.
                let index = if item.is_string() { String::new() } else { index.to_string() };
                *at += &format!("[{}]", named.unwrap_or(&index));
                flatten(item, at, all);
                at.truncate(length);
            }
        }
        leaf => *all += &format!("{at} = {}\n", leaf.to_string().replace('\n', " ")),
    }
}
