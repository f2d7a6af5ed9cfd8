//! Command: who has it, who confirmed it, and how it is handed on.

use super::{world::mitigated, *};
use crate::api::{
    ConditionStatus::{False, True},
    Stage,
};
use serde_json::json;

#[test]
fn who_declares_with_oneself_as_commander_has_acknowledged_when_it_was_declared() {
    let mut w = World::declared(
        json!({"severity": "SEV3", "impact": {"summary": "x"}, "roles": {"incidentCommander": "alice"}}),
    );
    w.wait(3600).run();
    assert_eq!(w.says("Acknowledged"), (True, "Commanded"));
    let m = w.status().milestones.clone();
    assert_eq!(
        m.acknowledged_time.unwrap().0,
        time("10:00:00"),
        "the operator came an hour late, alice did not"
    );
    assert_eq!(m.triaged_time.unwrap().0, time("10:00:00"));
    let mut other = World::declared(json!({"roles": {"incidentCommander": "bob"}}));
    other.run();
    assert_eq!(other.says("Acknowledged"), (False, "NotConfirmed"));
}

#[test]
fn only_the_commander_confirms_command() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "bob", "scribe": "erin"}}));
    w.run().acknowledge("erin").acknowledge("mallory");
    assert_eq!(w.says("Acknowledged"), (False, "NotConfirmed"));
    assert!(w.status().roles.iter().any(|r| r.holder == "erin" && r.acknowledged_time.is_some()));
    w.acknowledge("bob");
    assert_eq!(w.says("Acknowledged"), (True, "Commanded"));
}

#[test]
fn an_acknowledgement_without_an_author_counts_only_where_nobody_vouches_for_authors() {
    for (signed, status) in [(true, False), (false, True)] {
        let mut w = World::declared(json!({"roles": {"incidentCommander": "bob"}}));
        w.signed = signed;
        w.run().entry("nobody", json!({"type": "Acknowledgement"}));
        w.entries[0].metadata.annotations = None;
        w.run();
        assert_eq!(w.condition("Acknowledged").status, status, "signed: {signed}");
    }
}

#[test]
fn until_the_successor_confirms_the_predecessor_has_command_and_the_stage_stays() {
    let mut w = mitigated("SEV1");
    w.wait(60).edit("carol", json!({"roles": {"incidentCommander": "bob"}}));
    assert_eq!((w.stage(), w.says("Acknowledged")), (Stage::Resolve, (True, "HandingOver")));
    let message = &w.condition("Acknowledged").message;
    assert!(message.contains("alice has command") && message.contains("until bob confirms"), "{message}");
    w.wait(60).edit("carol", json!({"roles": {"incidentCommander": "dave"}}));
    assert!(w.condition("Acknowledged").message.starts_with("alice has command"));
    w.acknowledge("bob");
    assert_eq!(w.says("Acknowledged"), (True, "HandingOver"), "bob is not asked any more");
    w.acknowledge("dave");
    assert_eq!(w.condition("Acknowledged").message, "dave has command");
    assert_eq!(w.status().milestones.acknowledged_time.as_ref().unwrap().0, time("10:00:00"));
}

#[test]
fn who_gets_command_back_before_another_confirmed_it_has_it() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "alice"}}));
    w.run().wait(60).edit("dave", json!({"roles": {"incidentCommander": "bob"}}));
    assert_eq!(
        w.condition("Acknowledged").message,
        "alice has command until bob confirms it: create a TimelineEntry of type Acknowledgement"
    );
    w.wait(60).edit("dave", json!({"roles": {"incidentCommander": "alice"}}));
    assert_eq!(w.condition("Acknowledged").message, "alice has command");
    assert!(w.told("CommandHandedOver").is_empty(), "it never passed on");
}

#[test]
fn who_left_command_to_nobody_does_not_have_it_when_another_is_named() {
    let mut w = mitigated("SEV1");
    w.wait(60).edit("carol", json!({"roles": {"incidentCommander": null}}));
    assert_eq!((w.stage(), w.says("Acknowledged")), (Stage::Detect, (False, "NoCommander")));
    w.wait(60).edit("carol", json!({"roles": {"incidentCommander": "bob"}}));
    assert_eq!(w.says("Acknowledged"), (False, "NotConfirmed"));
}

#[test]
fn an_acknowledgement_that_is_on_record_does_not_confirm_what_is_given_later() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "bob"}}));
    w.deletes = false;
    w.run().acknowledge("bob").wait(60).edit("alice", json!({"roles": {"incidentCommander": "alice"}}));
    w.wait(60).edit("carol", json!({"roles": {"incidentCommander": "bob"}}));
    assert_eq!(w.says("Acknowledged"), (True, "HandingOver"));
    assert!(w.condition("Acknowledged").message.starts_with("alice has command"));
}

#[test]
fn a_role_given_to_a_blank_name_is_given_to_nobody() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "  "}}));
    w.run();
    assert_eq!(w.says("Acknowledged"), (False, "NoCommander"));
}

#[test]
fn who_holds_a_role_is_not_forgotten_however_often_the_others_change() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "alice"}}));
    w.run();
    for i in 0..100 {
        w.wait(60).edit("alice", json!({"roles": {"deputy": format!("deputy-{i}")}}));
    }
    assert_eq!(w.status().roles.len(), 64);
    assert_eq!(w.says("Acknowledged"), (True, "Commanded"));
    assert_eq!(w.told("RoleAssigned").len(), 101);
}
