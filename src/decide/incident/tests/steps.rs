//! Steps that a person does by hand: what the briefing and the record for the postmortem say of them.

use super::*;
use crate::api::{ConditionStatus, MitigationPhase as Phase};
use serde_json::{Value, json};

fn bank(extra: Value) -> Value {
    let mut step = json!({"name": "bank", "reason": "payments hang", "targetRef": {"kind": "Service", "name": "bank"},
        "manual": {"instructions": "Call the bank\nand ask for the limit", "assignee": "bob"}});
    step.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    step
}

fn line(w: &World) -> &str {
    w.status().briefing.iter().find(|line| line.contains("Service/bank")).unwrap()
}

const ASKED: &str = "bob was asked: Call the bank and ask for the limit";

#[test]
fn a_step_that_nobody_has_done_is_asked_for_and_not_done_and_the_briefing_says_what_is_to_be_done() {
    let mut w = World::declared(json!({"severity": "SEV2", "mitigations": [bank(json!({}))]}));
    w.run().gets_to("checkout-bank", Phase::Active, ConditionStatus::Unknown).run();
    let asked = format!("Asked: manual Service/bank: {ASKED}; no answer yet (says Active)");
    assert_eq!(line(&w), asked);
    w.fails("checkout-bank");
    assert_eq!(line(&w), format!("Not done: manual Service/bank: {ASKED}; says Active"));
    w.works("checkout-bank");
    assert_eq!(line(&w), format!("Done: manual Service/bank: {ASKED}; it works since 2026-11-23 10:00 UTC"));
    w.reaches("checkout-bank", Phase::Released);
    assert!(line(&w).starts_with("Done: "), "{}", line(&w));
}

#[test]
fn a_step_that_ended_before_anybody_did_it_is_not_done_and_what_was_asked_stays_on_record() {
    let mut w = World::declared(json!({"severity": "SEV2", "mitigations": [bank(json!({}))]}));
    w.run();
    assert_eq!(w.summary("checkout-bank").change, None, "nobody was asked yet");
    w.gets_to("checkout-bank", Phase::Active, ConditionStatus::Unknown).run();
    w.edit("alice", json!({"mitigations": []})).reaches("checkout-bank", Phase::Released);
    let ended = format!("Not done: manual Service/bank: {ASKED}; ended, and nobody said that it was done");
    assert_eq!(line(&w), ended);
    assert!(w.mitigations.is_empty(), "the object went");
    assert_eq!(w.summary("checkout-bank").change.as_deref(), Some(ASKED));
    assert_eq!(line(&w), ended);
}
