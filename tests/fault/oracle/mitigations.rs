//! What a Mitigation says of itself is true when it says so: applied, effective, released; and an end is an end.

use super::{Record, Seen, condition, short, text};
use crate::recorder::Revision;
use serde_json::Value;
use std::collections::HashMap;

const ENDS: [&str; 6] = ["Released", "Kept", "Superseded", "Abandoned", "Refused", "Failed"];

pub(super) fn judge(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let mut last: HashMap<&str, &Revision> = HashMap::new();
    for revision in seen.revisions.iter().filter(|r| r.kind == "Mitigation") {
        let before = last.insert(revision.uid(), revision);
        let was = |type_: &str| before.is_some_and(|b| condition(&b.object, type_) == "True");
        let is = |type_: &str| condition(&revision.object, type_) == "True";
        let mut blame = |words: String| {
            wrong.push(format!("Mitigation/{} @{}: {words}", revision.name, revision.version));
        };
        if is("Applied") && !was("Applied") {
            applied(seen, revision, &mut blame);
        }
        if is("Effective") && !was("Effective") {
            effective(seen, revision, &mut blame);
        }
        let phase = text(&revision.object, "/status/phase");
        let phase_before = before.map(|b| text(&b.object, "/status/phase")).unwrap_or_default();
        if ENDS.contains(&phase_before) && phase != phase_before {
            blame(format!("was {phase_before}, which is an end, and is {phase} now"));
        }
        if ENDS.contains(&phase) && phase != phase_before {
            ended(seen, revision, phase, &mut blame);
        }
    }
    duplicates(seen, wrong);
}

fn target<'a>(seen: &'a Seen<'_>, mitigation: &Revision) -> Option<&'a Revision> {
    let (kind, name) =
        (text(&mitigation.object, "/spec/targetRef/kind"), text(&mitigation.object, "/spec/targetRef/name"));
    seen.before(kind, name, mitigation.version)
}

fn applied(seen: &Seen<'_>, revision: &Revision, blame: &mut dyn FnMut(String)) {
    let Some(target) = target(seen, revision).filter(|t| !t.deleted) else { return };
    let recorded = Record::all(&target.object).iter().any(|record| record.uid == revision.uid());
    // A kind of change whose record lies elsewhere has no record on the target at any time.
    let ever = seen.revisions.iter().filter(|r| r.kind == target.kind && r.name == target.name);
    let ever =
        ever.into_iter().any(|r| Record::all(&r.object).iter().any(|record| record.uid == revision.uid()));
    if ever && !recorded {
        blame("says that it is applied while its target carries no record of it".to_owned());
    }
    if !ever && has_own_record(&revision.object) {
        blame("says that it is applied, and its target never carried a record of it".to_owned());
    }
}

fn has_own_record(mitigation: &Value) -> bool {
    ["scale", "featureFlag", "rollback", "pauseRollout", "suspend"]
        .iter()
        .any(|action| mitigation["spec"].get(action).is_some())
}

/// Judged by the target alone, in the terms of the cluster.
fn effective(seen: &Seen<'_>, revision: &Revision, blame: &mut dyn FnMut(String)) {
    let spec = &revision.object["spec"];
    let Some(target) = target(seen, revision) else {
        return blame("says that it is effective, and its target does not exist".to_owned());
    };
    let object = &target.object;
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let seen_by_controller = number("/status/observedGeneration") >= number("/metadata/generation");
    if let Some(wanted) = spec.pointer("/scale/replicas").and_then(Value::as_i64) {
        let there = number("/status/replicas");
        let ready = number("/status/readyReplicas");
        if !seen_by_controller || number("/spec/replicas") != wanted || there != wanted || ready < wanted {
            blame(format!(
                "says that it is effective with {wanted} replicas asked for, {} in the spec, {there} there and {ready} ready",
                number("/spec/replicas")
            ));
        }
    }
    if let Some(flag) =
        spec.get("featureFlag").filter(|flag| flag.get("path").is_none() && flag.get("value").is_some())
    {
        let key = text(flag, "/key");
        let live = object["data"].get(key);
        if live != flag.get("value") {
            blame(format!("says that it is effective while {key} is {}", short(live)));
        }
    }
    if spec.get("rollback").is_some() && target.kind == "Deployment" {
        let (wanted, updated) = (number("/spec/replicas"), number("/status/updatedReplicas"));
        let available = number("/status/availableReplicas");
        if !seen_by_controller || updated < wanted || available < wanted {
            blame(format!(
                "says that it is effective with {updated} of {wanted} pods updated and {available} available"
            ));
        }
    }
}

fn ended(seen: &Seen<'_>, revision: &Revision, phase: &str, blame: &mut dyn FnMut(String)) {
    let Some(target) = target(seen, revision).filter(|t| !t.deleted) else { return };
    if Record::all(&target.object).iter().any(|record| record.uid == revision.uid()) {
        blame(format!("is {phase} while its target still carries its record"));
    }
}

/// One Mitigation an entry, one Postmortem an incident: what is made twice is found here.
fn duplicates(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let mut owned: HashMap<(String, String), Vec<&str>> = HashMap::new();
    for revision in seen.revisions.iter().filter(|r| r.kind == "Mitigation" || r.kind == "Postmortem") {
        let object = &revision.object;
        let of = match revision.kind.as_str() {
            "Postmortem" => text(object, "/spec/incidentRef/uid").to_owned(),
            _ => {
                let owner = text(object, "/metadata/ownerReferences/0/uid");
                if owner.is_empty() {
                    continue;
                }
                format!("{owner} {} {}", text(object, "/spec/targetRef/name"), text(object, "/spec/reason"))
            }
        };
        let uids = owned.entry((revision.kind.clone(), of)).or_default();
        if !uids.contains(&revision.uid()) {
            uids.push(revision.uid());
            if uids.len() > 1 {
                wrong.push(format!(
                    "{}/{} @{}: made a second time",
                    revision.kind, revision.name, revision.version
                ));
            }
        }
    }
}
