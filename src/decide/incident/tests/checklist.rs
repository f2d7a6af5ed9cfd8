//! The checklist: ticked by what is seen or by people, overdue once.

use super::*;
use crate::api::{
    ChecklistItem, ChecklistState as State,
    ConditionStatus::{False, True},
    Role,
};
use serde_json::json;

fn item<'a>(w: &'a World, name: &str) -> &'a ChecklistItem {
    w.status().checklist.iter().find(|i| i.name == name).unwrap_or_else(|| panic!("there is no item {name}"))
}

#[test]
fn the_items_of_the_playbook_are_there_with_owner_and_deadline() {
    let mut w = World::declared(json!({"communication": {"visibility": "Public"}}));
    w.run();
    let all: Vec<_> = w
        .status()
        .checklist
        .iter()
        .map(|i| (i.name.as_str(), i.owner.unwrap(), i.due_time.as_ref().unwrap().0, i.state))
        .collect();
    let (five, ten, fifteen) = (time("10:05:00"), time("10:10:00"), time("10:15:00"));
    assert_eq!(
        all,
        [
            ("commander-named", Role::IncidentCommander, five, State::Todo),
            ("impact-scope-known", Role::OperationsLead, ten, State::Todo),
            ("rollback-or-flag", Role::OperationsLead, fifteen, State::Todo),
            ("internal-draft-ready", Role::CommunicationsLead, fifteen, State::Todo),
            ("public-draft-ready", Role::CommunicationsLead, fifteen, State::Todo),
            ("timeline-started", Role::Scribe, fifteen, State::Todo),
        ]
    );
}

#[test]
fn the_operator_ticks_what_it_sees_and_says_who_did_it() {
    let mut w = World::declared(json!({"severity": "SEV1", "communication": {"visibility": "Public"}}));
    w.run().wait(60).edit("bob", json!({"roles": {"incidentCommander": "bob"}}));
    w.wait(60).edit("carol", json!({"impact": {"summary": "x"}}));
    assert_eq!(item(&w, "impact-scope-known").state, State::Todo, "a summary is no scope");
    w.wait(60).edit("carol", json!({"impact": {"affectedTenants": 3}}));
    w.wait(60).entry("erin", json!({"message": "first"})).run();
    w.wait(60).entry("carol", json!({"type": "StatusUpdate", "audience": "Public"})).run();
    w.way_back =
        Some(WayBack { found: vec!["ConfigMap/flags holds flags: x".into()], looked: vec!["y".into()] });
    w.wait(60).run();
    let done = |name: &str| {
        let i = item(&w, name);
        (i.state, i.done_time.as_ref().unwrap().0.strftime("%H:%M").to_string(), i.done_by.clone())
    };
    let by = |who: &str| Some(who.to_owned());
    assert_eq!(done("commander-named"), (State::Done, "10:01".into(), by("bob")));
    assert_eq!(done("impact-scope-known"), (State::Done, "10:03".into(), by("carol")));
    assert_eq!(done("internal-draft-ready"), (State::Done, "10:02".into(), None));
    assert_eq!(done("timeline-started"), (State::Done, "10:04".into(), by("erin")));
    assert_eq!(done("public-draft-ready"), (State::Done, "10:05".into(), None));
    assert_eq!(done("rollback-or-flag"), (State::Done, "10:06".into(), None));
    assert_eq!(item(&w, "rollback-or-flag").note.as_deref(), Some("ConfigMap/flags holds flags: x"));
    assert_eq!(w.says("ChecklistOnTime"), (True, "Done"));
    w.wait(60).edit("bob", json!({"impact": null, "roles": null}));
    assert_eq!(w.says("ChecklistOnTime"), (True, "Done"), "what was done stays done");
}

#[test]
fn a_rollback_or_flag_that_is_in_use_is_possible_and_what_was_not_found_is_said() {
    let mut w = World::declared(json!({}));
    w.run();
    w.way_back = Some(WayBack::default());
    w.run();
    let note = |w: &World| item(w, "rollback-or-flag").note.clone().unwrap();
    assert!(note(&w).contains("state spec.service"), "{}", note(&w));
    w.way_back = Some(WayBack { found: vec![], looked: vec!["what is labelled app=x".into()] });
    w.run();
    let found = "found no earlier revision and no flag among what is labelled app=x";
    assert_eq!(note(&w), found);
    w.way_back = None;
    w.run();
    assert_eq!(note(&w), found, "a process that has not looked leaves what is on record");
    let flag = json!({"name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"}, "featureFlag": {"key": "k", "value": "off"}});
    w.edit("alice", json!({"mitigations": [flag]})).works("checkout-off");
    assert_eq!(
        (item(&w, "rollback-or-flag").state, note(&w).as_str()),
        (State::Done, "in use: featureFlag ConfigMap/flags")
    );
}

#[test]
fn people_tick_in_the_spec_take_it_back_and_add_their_own() {
    let mut w = World::declared(json!({"checklist": [
        {"name": "call-the-bank", "description": "The bank knows", "owner": "CommunicationsLead", "within": "1h"}]}));
    w.run();
    let own = item(&w, "call-the-bank");
    assert_eq!(
        (own.description.as_str(), own.owner, own.due_time.as_ref().unwrap().0),
        ("The bank knows", Some(Role::CommunicationsLead), time("11:00:00"))
    );
    w.wait(60).edit(
        "dave",
        json!({"checklist": [
        {"name": "call-the-bank", "state": "Done", "note": "spoke to Kim"},
        {"name": "rollback-or-flag", "state": "NotNeeded", "note": "nothing was rolled out"}]}),
    );
    let own = item(&w, "call-the-bank");
    assert_eq!(
        (own.state, own.done_by.as_deref(), own.note.as_deref()),
        (State::Done, Some("dave"), Some("spoke to Kim"))
    );
    assert_eq!(own.done_time.as_ref().unwrap().0, time("10:01:05"));
    assert_eq!(item(&w, "rollback-or-flag").state, State::NotNeeded);
    w.wait(60).edit("dave", json!({"checklist": [{"name": "call-the-bank", "state": "Todo"}]}));
    assert_eq!((item(&w, "call-the-bank").state, &item(&w, "call-the-bank").done_by), (State::Todo, &None));
    assert_eq!(item(&w, "rollback-or-flag").state, State::Todo, "nobody says so any more");
    w.wait(60).edit("dave", json!({"checklist": []}));
    assert!(
        !w.status().checklist.iter().any(|i| i.name == "call-the-bank"),
        "it was not done and is not wanted"
    );
}

#[test]
fn a_tick_is_of_who_ticked_and_on_record_once() {
    let mut w = World::declared(json!({"severity": "SEV3"}));
    w.run().wait(60);
    let ticked = json!([{"name": "rollback-or-flag", "state": "NotNeeded"}, {"name": "own", "state": "Done"},
        {"name": "internal-draft-ready", "state": "Done"}]);
    w.change("carol", json!({"checklist": ticked})).change("dave", json!({"impact": {"affectedTenants": 3}}));
    w.edit("bob", json!({"title": "b"}));
    let by = |w: &World, name: &str| item(w, name).done_by.clone();
    assert_eq!(
        (by(&w, "own").as_deref(), by(&w, "rollback-or-flag").as_deref()),
        (Some("carol"), Some("carol"))
    );
    assert_eq!(by(&w, "impact-scope-known").as_deref(), Some("dave"));
    let told = w.told("ChecklistTicked");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].message, "checklist: internal-draft-ready, own done; rollback-or-flag not needed");
    assert_eq!(told[0].author.as_deref(), Some("carol"));
    w.wait(60).edit("bob", json!({"checklist": [{"name": "own", "state": "Todo"}]}));
    let told = w.told("ChecklistTicked");
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].message, "checklist: rollback-or-flag, own open again");
}

#[test]
fn what_the_public_was_told_before_the_declaration_ticks_nothing_and_the_item_says_so() {
    let mut w = World::declared(json!({"communication": {"visibility": "Public"}}));
    let before =
        json!({"type": "StatusUpdate", "audience": "Public", "occurredTime": "2026-11-23T09:50:00Z"});
    w.run().entry("carol", before).run();
    let told = item(&w, "public-draft-ready");
    assert_eq!(told.state, State::Todo);
    assert!(told.description.contains("since the declaration"), "{}", told.description);
}

#[test]
fn what_is_needed_again_and_was_done_is_ticked_at_once() {
    let mut w = World::declared(json!({"communication": {"visibility": "Public"}}));
    w.run().entry("carol", json!({"type": "StatusUpdate", "audience": "Public"}));
    w.change("carol", json!({"checklist": [{"name": "public-draft-ready", "state": "NotNeeded"}]})).run();
    assert_eq!(item(&w, "public-draft-ready").state, State::NotNeeded);
    w.change("carol", json!({"checklist": []})).step(&ALL);
    assert_eq!(item(&w, "public-draft-ready").state, State::Done);
}

#[test]
fn an_item_that_is_given_another_length_of_time_is_due_accordingly() {
    let mut w = World::declared(json!({}));
    w.run();
    w.now = time("10:20:00");
    w.run();
    assert!(item(&w, "timeline-started").overdue_time.is_some());
    let within =
        |more: &str| json!({"checklist": [{"name": "timeline-started", "within": more}, {"name": "own"}]});
    w.edit("dave", within("1h"));
    let due = |w: &World, name: &str| item(w, name).due_time.as_ref().unwrap().0;
    assert_eq!((due(&w, "timeline-started"), due(&w, "own")), (time("11:00:00"), time("10:35:00")));
    assert_eq!(item(&w, "timeline-started").overdue_time, None);
    w.now = time("11:00:00");
    w.run();
    assert!(item(&w, "timeline-started").overdue_time.is_some());
    w.edit("dave", json!({"checklist": [{"name": "own", "within": "1h"}]}));
    assert_eq!((due(&w, "timeline-started"), due(&w, "own")), (time("10:15:00"), time("11:20:00")));
}

#[test]
fn what_is_added_later_is_due_later() {
    let mut w = World::declared(json!({}));
    w.run().wait(3595).edit("dave", json!({"checklist": [{"name": "later"}]}));
    assert_eq!(item(&w, "later").due_time.as_ref().unwrap().0, time("11:15:00"));
}

#[test]
fn overdue_items_are_told_once_and_done_ones_are_not_overdue_any_more() {
    let mut w = World::declared(json!({}));
    w.run();
    assert_eq!(w.plan().wake, Some(time("10:05:00")));
    w.now = time("10:05:00");
    w.run();
    assert_eq!(w.told("ChecklistOverdue")[0].message, "checklist is overdue: commander-named");
    assert_eq!(w.says("ChecklistOnTime"), (False, "Overdue"));
    w.now = time("10:20:00");
    w.run().wait(3600).run();
    let told: Vec<_> = w.told("ChecklistOverdue").iter().map(|r| r.message.clone()).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(
        told[1],
        "checklist is overdue: impact-scope-known, rollback-or-flag, internal-draft-ready, timeline-started"
    );
    w.edit("bob", json!({"roles": {"incidentCommander": "bob"}}));
    assert!(!w.condition("ChecklistOnTime").message.contains("commander-named"));
    w.edit("bob", json!({"outcome": "FalseAlarm"}));
    assert_eq!(w.says("ChecklistOnTime"), (True, "Over"));
}

#[test]
fn the_page_about_the_lifecycle_has_every_item_of_the_playbook_and_every_warning() {
    let page = include_str!("../../../../docs/lifecycle.md");
    let mut w = World::declared(json!({}));
    for item in &w.run().status().checklist {
        let due = item.due_time.as_ref().unwrap().0.duration_since(time("10:00:00")).as_mins();
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", item.name)));
        let row = row.unwrap_or_else(|| panic!("docs/lifecycle.md has no row of {}", item.name));
        assert!(row.contains(&format!("| {due} min |")), "{row}");
    }
    for warning in super::super::warnings::WARNINGS {
        assert!(page.contains(&format!("`{warning}`")), "docs/lifecycle.md does not name {warning}");
    }
}
