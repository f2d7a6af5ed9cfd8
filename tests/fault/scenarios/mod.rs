//! The stories. Each is one small file that exports a `SCENARIO`; `ALL` is the list of them.

mod archive;
mod deletion;
mod evidence;
mod expiry;
mod finalizer;
mod handoff;
mod human_edit;
mod life;
mod one_field;
mod policy_pause;
mod postmortem;
mod recreated;
mod replaced;
mod timeline;

use super::scenario::Scenario;
use super::support::workload;
use serde_json::{Value, json};

/// All scenarios.
pub const ALL: &[Scenario] = &[
    life::SCENARIO,
    expiry::SCENARIO,
    human_edit::SCENARIO,
    evidence::SCENARIO,
    one_field::SCENARIO,
    timeline::SCENARIO,
    postmortem::SCENARIO,
    deletion::SCENARIO,
    handoff::SCENARIO,
    finalizer::SCENARIO,
    recreated::SCENARIO,
    replaced::SCENARIO,
    policy_pause::SCENARIO,
    archive::SCENARIO,
];

// ---- what several of them are made of ------------------------------------------------------------------------

/// A Mitigation that stands alone; `more` is its action and what else its spec says.
fn mitigation(name: &str, kind: &str, target: &str, more: Value) -> Value {
    let mut spec = json!({"reason": "a fault scenario", "evidence": "None", "targetRef": {"kind": kind, "name": target}});
    merge(&mut spec, more);
    workload::mitigation(name, spec)
}

/// The same as an entry of an Incident.
fn entry(name: &str, kind: &str, target: &str, more: Value) -> Value {
    let mut entry = json!({
        "name": name, "reason": name, "evidence": "None", "targetRef": {"kind": kind, "name": target},
        "releaseOn": "Resolve",
    });
    merge(&mut entry, more);
    entry
}

fn merge(into: &mut Value, more: Value) {
    for (key, value) in more.as_object().expect("an object") {
        into[key] = value.clone();
    }
}

/// An incident in which everything is stated that a commander states at first.
fn incident(name: &str, severity: &str, mitigations: &[Value]) -> Value {
    workload::incident(
        name,
        json!({
            "title": "Checkout fails", "severity": severity, "roles": {"incidentCommander": "alice"},
            "impact": {"summary": "40 % of checkouts fail"}, "mitigations": mitigations,
        }),
    )
}

/// What a commander acknowledges.
fn acknowledgement(incident: &str) -> Value {
    workload::entry(incident, "Acknowledgement", "I am on it")
}
