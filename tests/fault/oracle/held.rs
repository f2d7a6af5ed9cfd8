//! What the operator does to objects that are not its own: the prior value of each field that it changed stands on the
//! object itself as long as its own value does; nothing else is changed; what is restored was still its own.

use super::{Record, Seen, short, text};
use crate::recorder::Revision;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Paths that the operator may write on any object that it holds.
const MARKS: [&str; 2] = [
    "/metadata/annotations/incident-operator.dev~1mit-",
    "/metadata/labels/incident-operator.dev~1mitigated",
];

/// What the API server keeps by itself.
const KEPT_BY_THE_SERVER: [&str; 5] = [
    "/metadata/resourceVersion",
    "/metadata/generation",
    "/metadata/managedFields",
    "/metadata/annotations/deployment.kubernetes.io~1revision",
    "/metadata/annotations/deprecated.daemonset.template.generation",
];

pub(super) fn judge(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let own = ["Incident", "Mitigation", "TimelineEntry", "Postmortem"];
    let mut objects: Vec<(&str, &str)> = Vec::new();
    for revision in seen.revisions.iter().filter(|r| !own.contains(&r.kind.as_str())) {
        let id = (revision.kind.as_str(), revision.uid());
        if !objects.contains(&id) && !is_made_by_the_operator(seen, revision) {
            objects.push(id);
        }
    }
    for (kind, uid) in objects {
        let revisions = seen.revisions.iter().filter(|r| r.kind == kind && r.uid() == uid && !r.deleted);
        Walk::new(seen, wrong).over(&revisions.collect::<Vec<_>>());
    }
}

/// Records, archives and copies are the operator's own, and so is what a mitigation makes.
fn is_made_by_the_operator(seen: &Seen<'_>, revision: &Revision) -> bool {
    seen.written.iter().any(|written| {
        let makes =
            written.request.method == http::Method::POST || written.request.uri.contains("force=true");
        makes && written.objects().any(|(_, object)| text(object, "/metadata/uid") == revision.uid())
    })
}

/// One field of the object through its life.
#[derive(Default)]
struct Field {
    /// The value that somebody else wrote last.
    theirs: Option<Value>,
    /// The value that the operator wrote last, while nobody has written another since.
    ours: Option<Option<Value>>,
}

struct Walk<'a, 'b> {
    seen: &'a Seen<'a>,
    wrong: &'b mut Vec<String>,
    fields: HashMap<String, Field>,
    /// Mitigations that have taken the object.
    taken: HashSet<String>,
    /// Prior values by mitigation and path.
    priors: HashMap<(String, String), Option<Value>>,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(seen: &'a Seen<'a>, wrong: &'b mut Vec<String>) -> Self {
        Walk { seen, wrong, fields: HashMap::new(), taken: HashSet::new(), priors: HashMap::new() }
    }

    fn over(&mut self, revisions: &[&Revision]) {
        let Some(first) = revisions.first() else { return };
        let pointers: Vec<&str> = self
            .seen
            .scenario
            .fields
            .iter()
            .filter(|(kind, name, _)| *kind == first.kind && *name == first.name)
            .map(|(_, _, pointer)| *pointer)
            .collect();
        for pointer in &pointers {
            let theirs = first.object.pointer(pointer).cloned();
            self.fields.insert((*pointer).to_owned(), Field { theirs, ours: None });
        }
        let by_version = self.seen.by_version();
        for pair in revisions.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if by_version.contains_key(&after.version) {
                self.written_by_the_operator(before, after, &pointers);
            } else {
                self.written_by_others(before, after, &pointers);
            }
            self.always(after, &pointers);
        }
    }

    fn blame(&mut self, at: &Revision, words: &str) {
        self.wrong.push(format!("{}/{} @{}: {words}", at.kind, at.name, at.version));
    }

    fn written_by_others(&mut self, before: &Revision, after: &Revision, pointers: &[&str]) {
        for pointer in pointers {
            let (old, new) = (before.object.pointer(pointer), after.object.pointer(pointer));
            if old != new
                && let Some(field) = self.fields.get_mut(*pointer)
            {
                *field = Field { theirs: new.cloned(), ours: None };
            }
        }
    }

    fn written_by_the_operator(&mut self, before: &Revision, after: &Revision, pointers: &[&str]) {
        let mut changed = Vec::new();
        differences(&before.object, &after.object, String::new(), &mut changed);
        for path in changed {
            let ours = MARKS.iter().chain(&KEPT_BY_THE_SERVER).any(|mark| path.starts_with(mark))
                || pointers.iter().any(|p| {
                    path == *p || path.starts_with(&format!("{p}/")) || p.starts_with(&format!("{path}/"))
                });
            if !ours {
                let (old, new) = (before.object.pointer(&path), after.object.pointer(&path));
                let words = format!(
                    "the operator changed {path}, which is none of its business: {} -> {}",
                    short(old),
                    short(new)
                );
                self.blame(after, &words);
            }
        }
        let (had, has) = (Record::all(&before.object), Record::all(&after.object));
        for record in has.iter().filter(|r| !had.iter().any(|h| h.uid == r.uid)) {
            self.take(before, after, record);
        }
        for pointer in pointers {
            let (old, new) =
                (before.object.pointer(pointer).cloned(), after.object.pointer(pointer).cloned());
            if old != new {
                self.change(before, after, pointer, (old, new), &had, &has);
            }
        }
    }

    /// A record appears.
    fn take(&mut self, before: &Revision, after: &Revision, record: &Record) {
        if !self.taken.insert(record.uid.clone()) {
            let words = format!("mitigation {} captured a second time", record.mitigation);
            self.blame(after, &words);
        }
        for field in &record.fields {
            let path = text(field, "/path");
            let prior = field.get("prior");
            if field.get("how").is_none() && prior != before.object.pointer(path) {
                let was = short(before.object.pointer(path));
                let words = format!("the record says that {path} was {}, but it was {was}", short(prior));
                self.blame(after, &words);
            }
        }
        let held = self
            .seen
            .revisions
            .iter()
            .rev()
            .find(|r| r.version < after.version && r.kind == "Mitigation" && r.uid() == record.uid);
        let finalizer = held.is_some_and(|r| {
            let finalizers = r.object["metadata"]["finalizers"].as_array();
            finalizers.is_some_and(|all| {
                all.iter().any(|f| f.as_str().is_some_and(|f| f.contains("incident-operator")))
            })
        });
        if !finalizer {
            let words = format!("taken before mitigation {} had its finalizer", record.mitigation);
            self.blame(after, &words);
        }
    }

    /// The operator changes a field.
    fn change(
        &mut self,
        before: &Revision,
        after: &Revision,
        pointer: &str,
        (old, new): (Option<Value>, Option<Value>),
        had: &[Record],
        has: &[Record],
    ) {
        let held_before = had.iter().any(|r| r.field(pointer).is_some());
        let held_after = has.iter().any(|r| r.field(pointer).is_some());
        let field = self.fields.entry(pointer.to_owned()).or_default();
        let (theirs, ours) = (field.theirs.clone(), field.ours.clone());
        field.ours = (new != theirs).then(|| new.clone());
        if !held_before && !held_after {
            let words = format!(
                "{pointer} changed from {} to {} without a record",
                short(old.as_ref()),
                short(new.as_ref())
            );
            return self.blame(after, &words);
        }
        // Held already: only its own value may be replaced, and by nothing but the prior one or the next step.
        if held_before && ours.as_ref() != Some(&old) {
            let words = format!(
                "the operator overwrote {pointer}, which was {} and not its own value any more, with {}",
                short(old.as_ref()),
                short(new.as_ref())
            );
            self.blame(after, &words);
        }
        let restores = has.iter().all(|r| r.field(pointer).is_none() || r.restored);
        if restores && new != theirs {
            let words = format!(
                "restored {pointer} to {}, but before it was {}",
                short(new.as_ref()),
                short(theirs.as_ref())
            );
            self.blame(before, &words);
        }
    }

    /// What holds whoever wrote last.
    fn always(&mut self, at: &Revision, pointers: &[&str]) {
        let records = Record::all(&at.object);
        for record in &records {
            for field in &record.fields {
                let key = (record.uid.clone(), text(field, "/path").to_owned());
                let prior = field.get("prior").cloned();
                match self.priors.get(&key) {
                    Some(known) if *known != prior && !record.restored => {
                        let words = format!(
                            "the record of {} forgot the prior value {} and says {}",
                            record.mitigation,
                            short(known.as_ref()),
                            short(prior.as_ref())
                        );
                        self.blame(at, &words);
                    }
                    Some(_) => {}
                    None => {
                        self.priors.insert(key, prior);
                    }
                }
            }
        }
        for pointer in pointers {
            let Some(field) = self.fields.get(*pointer) else { continue };
            let Some(ours) = field.ours.clone() else { continue };
            let present = at.object.pointer(pointer).cloned();
            if present != ours {
                continue;
            }
            let theirs = field.theirs.clone();
            let found = records.iter().find_map(|r| r.field(pointer));
            let kept = match found {
                // Inside a document or a revision, the record keeps the part or its name.
                Some(field) if field.get("how").is_some() => true,
                Some(field) if text(field, "/path") == *pointer => field.get("prior") == theirs.as_ref(),
                // A part of what is compared: the same part of what was there.
                Some(field) => match text(field, "/path").strip_prefix(pointer) {
                    Some(rest) => {
                        field.get("prior") == theirs.as_ref().and_then(|theirs| theirs.pointer(rest))
                    }
                    None => true,
                },
                None => false,
            };
            if kept {
                continue;
            }
            if found.is_none() && self.is_kept(at) {
                self.fields.insert((*pointer).to_owned(), Field { theirs: present, ours: None });
                continue;
            }
            let words = format!(
                "{pointer} is {} and its prior value {} is nowhere on the object",
                short(present.as_ref()),
                short(theirs.as_ref())
            );
            self.blame(at, &words);
        }
    }

    /// Whether a mitigation that leaves its value has let the object go.
    fn is_kept(&self, at: &Revision) -> bool {
        self.seen.revisions.iter().any(|r| {
            let spec = &r.object["spec"];
            let target = &spec["targetRef"];
            r.kind == "Mitigation"
                && self.taken.contains(r.uid())
                && target["kind"] == at.kind.as_str()
                && target["name"] == at.name.as_str()
                && (spec["onRelease"] == "Keep"
                    || spec.get("rollback").is_some() && spec["onRelease"] != "Restore")
        })
    }
}

/// Pointers to the leaves that differ; `status` is the controllers'.
fn differences(old: &Value, new: &Value, at: String, found: &mut Vec<String>) {
    if old == new || at == "/status" || at == "/metadata/managedFields" {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                let none = Value::Null;
                differences(a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none), path, found);
            }
        }
        // A map that appears or goes is the sum of what is in it.
        (Value::Null, Value::Object(_)) => differences(&Value::Object(Default::default()), new, at, found),
        (Value::Object(_), Value::Null) => differences(old, &Value::Object(Default::default()), at, found),
        _ => found.push(at),
    }
}
