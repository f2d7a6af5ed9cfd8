//! What should be better: a condition asks for it, and nothing is refused.

use super::*;
use crate::api::ConditionStatus::{False, True, Unknown};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn the_roles_that_a_severity_asks_for_are_named_when_nobody_holds_them() {
    let mut w = World::declared(json!({"severity": "SEV1", "roles": {"incidentCommander": "alice"}}));
    w.run();
    assert_eq!(w.says("RolesFilled"), (False, "RolesMissing"));
    assert_eq!(
        w.condition("RolesFilled").message,
        "this severity asks for more roles: name the communications lead (spec.roles.communicationsLead), \
         the operations lead (spec.roles.operationsLead)"
    );
    w.edit("alice", json!({"roles": {"communicationsLead": "carol", "operationsLead": "bob"}}));
    assert_eq!(w.says("RolesFilled"), (True, "Filled"));
    w.edit("alice", json!({"roles": {"communicationsLead": " "}}));
    assert_eq!(w.says("RolesFilled"), (False, "RolesMissing"), "a blank name holds nothing");
    w.edit("alice", json!({"severity": "SEV3", "severityReason": "x"}));
    assert_eq!(w.says("RolesFilled"), (True, "Filled"));
}

#[test]
fn who_leads_does_not_repair_on_sev1_and_sev2() {
    for (severity, expected) in [("SEV1", False), ("SEV2", False), ("SEV3", True)] {
        let roles = json!({"incidentCommander": "alice", "operationsLead": "alice"});
        let mut w = World::declared(json!({"severity": severity, "roles": roles}));
        w.run();
        assert_eq!(w.condition("DutiesSeparated").status, expected, "{severity}");
        w.edit("alice", json!({"roles": {"operationsLead": "bob"}}));
        assert_eq!(w.says("DutiesSeparated"), (True, "Separated"));
    }
}

fn lowered(more: Value) -> World {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    let mut patch = json!({"severity": "SEV3"});
    json_patch::merge(&mut patch, &more);
    w.run().wait(600).edit("bob", patch);
    w
}

#[test]
fn lowering_the_severity_wants_a_reason_and_raising_it_none() {
    let mut w = lowered(json!({}));
    assert_eq!(w.says("SeverityExplained"), (False, "ReasonWanted"));
    let message = &w.condition("SeverityExplained").message;
    assert!(
        message.contains("from SEV1 to SEV3 by bob") && message.contains("spec.severityReason"),
        "{message}"
    );
    w.edit("bob", json!({"severityReason": "one tenant"}));
    assert_eq!(w.says("SeverityExplained"), (True, "Explained"));
    w.wait(60).edit("bob", json!({"severity": "SEV2"}));
    assert_eq!(w.says("SeverityExplained"), (True, "Raised"));
    w.wait(60).edit("bob", json!({"severity": "SEV4"}));
    assert_eq!(w.says("SeverityExplained"), (False, "ReasonWanted"), "that reason explained another change");
    w.wait(60).edit("bob", json!({"severityReason": "no customer"}));
    assert_eq!(w.says("SeverityExplained"), (True, "Explained"));
    assert_eq!(lowered(json!({"severityReason": "x"})).says("SeverityExplained"), (True, "Explained"));
    // While none is stated everything runs as for SEV3: taking SEV1 away is lowering it.
    let mut taken = World::declared(json!({"severity": "SEV1"}));
    taken.run().wait(600).edit("bob", json!({"severity": null}));
    assert_eq!(taken.says("SeverityExplained").0, False);
    taken.edit("bob", json!({"severity": "SEV2"}));
    assert_eq!(taken.says("SeverityExplained"), (True, "Raised"));
}

#[test]
fn an_entry_of_the_same_minute_is_a_reason_and_one_of_another_time_or_an_acknowledgement_is_none() {
    for (seconds, type_, expected) in
        [(30, "Decision", True), (60, "Note", True), (90, "Decision", False), (30, "Acknowledgement", False)]
    {
        let mut after = lowered(json!({}));
        after.wait(seconds).entry("bob", json!({"type": type_, "message": "one tenant"})).run();
        assert_eq!(after.condition("SeverityExplained").status, expected, "{type_} {seconds} s after");
        let mut before = World::declared(json!({"severity": "SEV1"}));
        before.run().wait(600).entry("bob", json!({"type": type_, "message": "one tenant"})).run();
        before.wait(seconds).edit("bob", json!({"severity": "SEV3"}));
        assert_eq!(before.condition("SeverityExplained").status, expected, "{type_} {seconds} s before");
    }
}

#[test]
fn a_reason_explains_one_change_and_a_raise_needs_and_takes_none() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run().wait(600).edit("bob", json!({"severity": "SEV2", "severityReason": "reason A"}));
    w.wait(5).edit("bob", json!({"severity": "SEV1"}));
    assert_eq!(w.says("SeverityExplained"), (True, "Raised"));
    w.wait(5).edit("bob", json!({"severity": "SEV3"}));
    assert_eq!(w.says("SeverityExplained"), (False, "ReasonWanted"));
    w.wait(5).entry("carol", json!({"message": "reason B"})).run();
    assert_eq!(w.says("SeverityExplained"), (True, "Explained"));
    w.wait(5).edit("bob", json!({"severity": "SEV1"}));
    w.wait(5).edit("bob", json!({"severity": "SEV4"}));
    assert_eq!(w.says("SeverityExplained"), (False, "ReasonWanted"), "both explained another change");
    w.wait(5).edit("bob", json!({"severityReason": "reason C"}));
    assert_eq!(w.condition("SeverityExplained").message, "reason C");
    let told = |w: &World, reason: &str| w.told(reason).iter().map(|r| r.message.clone()).collect::<Vec<_>>();
    assert_eq!(
        told(&w, "SeverityChanged"),
        [
            "severity is SEV2 (was SEV1): reason A",
            "severity is SEV1 (was SEV2)",
            "severity is SEV3 (was SEV1)",
            "severity is SEV1 (was SEV3)",
            "severity is SEV4 (was SEV1)",
        ]
    );
    let late = ["severity is SEV3 (was SEV1): reason B", "severity is SEV4 (was SEV1): reason C"];
    assert_eq!(told(&w, "SeverityExplained"), late);
    let authors: Vec<_> = w.told("SeverityExplained").iter().map(|r| r.author.clone().unwrap()).collect();
    assert_eq!(authors, ["carol", "bob"]);
    // A text that comes with a raise is no reason to lower it again.
    let mut raised = World::declared(json!({"severity": "SEV3"}));
    raised.run().wait(600).edit("bob", json!({"severity": "SEV2", "severityReason": "more tenants"}));
    raised.wait(60).edit("bob", json!({"severity": "SEV3"}));
    assert_eq!(raised.says("SeverityExplained"), (False, "ReasonWanted"));
}

#[test]
fn times_that_cannot_be_true_are_said_and_nothing_is_refused() {
    for (spec, wrong) in [
        (json!({"startTime": "2026-11-23T10:30:00Z"}), Some("spec.startTime")),
        (
            json!({"startTime": "2026-11-23T09:30:00Z", "detection": {"time": "2026-11-23T09:00:00Z"}}),
            Some("spec.startTime"),
        ),
        (json!({"detection": {"time": "2026-11-23T12:00:00Z"}}), Some("spec.detection.time")),
        (json!({"startTime": "2026-11-23T09:00:00Z", "detection": {"time": "2026-11-23T09:30:00Z"}}), None),
        (json!({}), None),
    ] {
        let mut w = World::declared(spec.clone());
        w.run();
        let condition = w.condition("FactsConsistent");
        assert_eq!(condition.status == False, wrong.is_some(), "{spec}");
        assert!(condition.message.contains(wrong.unwrap_or("can be true")), "{}", condition.message);
        assert!(w.status().stage.is_some());
    }
}

#[test]
fn a_public_text_that_promises_or_names_too_much_is_warned_of_and_not_refused() {
    let mut w = World::declared(json!({"communication": {"visibility": "Public"}}));
    w.run();
    assert_eq!(w.says("PublicTextClean"), (Unknown, "NoPublicText"));
    let update = |message: &str| json!({"type": "StatusUpdate", "audience": "Public", "message": message});
    w.entry("carol", update("Outage of db-01, ETA 20 minutes")).run();
    assert_eq!(w.says("PublicTextClean"), (False, "Suspicious"));
    let message = w.condition("PublicTextClean").message.clone();
    for word in ["ETA", "db-01", "outage"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(w.told("StatusUpdate").len(), 1, "it is on record all the same");
    w.wait(60).entry("carol", update("Some checkouts fail.")).run();
    assert_eq!(w.says("PublicTextClean"), (True, "Clean"));
    w.entry("carol", json!({"type": "StatusUpdate", "message": "db-01 is dead, ETA 20 minutes"})).run();
    assert_eq!(w.says("PublicTextClean"), (True, "Clean"), "the company may know");
}

#[test]
fn an_acknowledgement_by_somebody_without_a_role_is_answered() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "bob"}}));
    w.run().acknowledge("mallory");
    assert!(w.told("NothingToAcknowledge").is_empty() && !w.entries.is_empty(), "a role may be on its way");
    assert_eq!(w.plan().wake, Some(w.now + Duration::from_secs(5)));
    w.wait(5).run();
    let told = w.told("NothingToAcknowledge");
    assert_eq!(told.len(), 1);
    assert!(told[0].message.starts_with("mallory holds no role of this incident"), "{}", told[0].message);
    w.acknowledge("bob").acknowledge("bob").wait(5).run();
    assert!(w.entries.is_empty());
    assert_eq!(w.told("NothingToAcknowledge").len(), 1, "a holder may say it twice");
}

#[test]
fn an_acknowledgement_that_is_seen_before_the_role_that_it_confirms_confirms_it_all_the_same() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "alice", "scribe": "bob"}}));
    w.run().acknowledge("bob");
    // Two watches: the one of entries is ahead.
    w.wait(60).acknowledge("bob").wait(2);
    w.edit("alice", json!({"roles": {"incidentCommander": "bob"}}));
    assert_eq!(w.status().commander.as_deref(), Some("bob"));
    assert!(w.entries.is_empty() && w.told("NothingToAcknowledge").is_empty());
}

#[test]
fn command_that_passes_on_is_told_when_it_is_confirmed() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "alice"}}));
    w.run();
    assert_eq!(w.status().commander.as_deref(), Some("alice"));
    w.wait(60).edit("alice", json!({"roles": {"incidentCommander": "bob"}}));
    assert_eq!((w.status().commander.as_deref(), w.told("CommandHandedOver").len()), (Some("alice"), 0));
    w.wait(60).acknowledge("bob");
    assert_eq!(w.told("CommandHandedOver")[0].message, "bob has command, alice has handed it over");
    assert_eq!(w.status().commander.as_deref(), Some("bob"));
    w.wait(60).edit("carol", json!({"roles": {"incidentCommander": "carol"}}));
    assert_eq!(w.told("CommandHandedOver").len(), 2, "who names oneself has confirmed it");
    w.wait(60).edit("carol", json!({"roles": null}));
    assert_eq!(w.status().commander, None);
    w.wait(60).edit("carol", json!({"roles": {"incidentCommander": "dave"}}));
    assert_eq!(w.status().commander.as_deref(), Some("dave (not confirmed)"));
}
