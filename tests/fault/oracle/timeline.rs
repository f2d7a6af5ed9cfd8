//! Each thing that happened is on record once, at every revision, and what people wrote is neither lost nor doubled.

use super::{Seen, text};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

pub(super) fn judge(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let mut archived: HashMap<String, Vec<Value>> = HashMap::new();
    for revision in seen.revisions.iter().filter(|r| r.kind == "ConfigMap" && !r.deleted) {
        let of = text(&revision.object, "/metadata/annotations/incident-operator.dev~1incident-uid");
        let stored = text(&revision.object, "/data/timeline.json");
        if let Ok(records) = serde_json::from_str::<Vec<Value>>(stored) {
            archived.insert(format!("{of} {}", revision.name), records);
        }
    }
    let in_archive = |uid: &str, record: &Value| {
        archived.iter().any(|(of, records)| of.starts_with(&format!("{uid} ")) && records.contains(record))
    };
    let mut last: HashMap<&str, &Value> = HashMap::new();
    for revision in seen.revisions.iter().filter(|r| r.kind == "Incident") {
        let mut blame = |words: String| {
            wrong.push(format!("Incident/{} @{}: {words}", revision.name, revision.version));
        };
        let records = records(&revision.object);
        if let Some(before) = last.insert(revision.uid(), &revision.object) {
            let there: HashSet<String> = records.iter().map(|record| record.to_string()).collect();
            for gone in self::records(before).iter().filter(|r| !there.contains(&r.to_string())) {
                if !in_archive(revision.uid(), gone) {
                    blame(format!("the timeline lost an entry: {gone}"));
                }
            }
        }
        twice(records.iter().copied(), &mut blame);
    }
    // Everything, wherever it is kept in the end.
    let mut kept: HashMap<&str, usize> = HashMap::new();
    let (mut inline, mut all): (Vec<&Value>, Vec<&Value>) = (Vec::new(), Vec::new());
    for (uid, object) in &last {
        inline.extend(records(object));
        let own = archived.iter().filter(|(of, _)| of.starts_with(&format!("{uid} ")));
        all.extend(own.flat_map(|(_, records)| records));
    }
    all.extend(&inline);
    for record in &all {
        *kept.entry(text(record, "/entryUid")).or_default() += 1;
    }
    let mut blame = |words: String| wrong.push(words);
    twice(all.into_iter(), &mut blame);
    for uid in seen.entries {
        let count = kept.get(uid.as_str()).copied().unwrap_or(0);
        if count != 1 {
            wrong.push(format!("a person's entry {uid} is on record {count} times"));
        }
    }
    let mut left: HashMap<&str, bool> = HashMap::new();
    for revision in seen.revisions.iter().filter(|r| r.kind == "TimelineEntry") {
        left.insert(revision.uid(), !revision.deleted);
    }
    for (uid, there) in left {
        if there && seen.entries.iter().any(|known| known == uid) {
            wrong.push(format!("a person's entry {uid} is on record and its object is still there"));
        }
    }
}

fn records(incident: &Value) -> Vec<&Value> {
    incident["status"]["timeline"].as_array().into_iter().flatten().collect()
}

fn twice<'a>(records: impl Iterator<Item = &'a Value>, blame: &mut dyn FnMut(String)) {
    let mut known = HashSet::new();
    for record in records {
        let entry = text(record, "/entryUid");
        let key = if entry.is_empty() {
            // The same thing may happen again, but not at the same time.
            format!("{} {} {}", text(record, "/time"), text(record, "/reason"), text(record, "/message"))
        } else {
            entry.to_owned()
        };
        if !known.insert(key) {
            blame(format!(
                "an entry is in the timeline twice: {} {}",
                text(record, "/reason"),
                text(record, "/message")
            ));
        }
    }
}
