//! The clocks: deadlines from recorded facts, missed ones counted once, and no flood.

use super::*;
use crate::api::{
    AudienceStatus, ClockName,
    ConditionStatus::{False, True},
};
use crate::decide::conditions::whole_seconds;
use serde_json::{Value, json};

fn clock(w: &World, name: ClockName) -> AudienceStatus {
    let found = w.status().communication.iter().find(|c| c.audience == name);
    found.cloned().unwrap_or_else(|| AudienceStatus::of(name))
}

/// When it is due, how often it was missed, and whether it is overdue.
fn due(w: &World, name: ClockName) -> (String, i32, bool) {
    let clock = clock(w, name);
    let due = clock.next_due_time.map(|t| t.0.strftime("%H:%M:%S").to_string()).unwrap_or_default();
    (due, clock.overdue_count.unwrap_or(0), clock.missed_time.is_some())
}

fn update(audience: &str) -> Value {
    json!({"type": "StatusUpdate", "audience": audience, "message": format!("for {audience}")})
}

fn public(severity: &str) -> Value {
    json!({"severity": severity, "communication": {"visibility": "Public"}})
}

#[test]
fn each_audience_has_the_interval_of_the_severity_and_its_own_update_resets_it() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run();
    assert_eq!(due(&w, ClockName::Internal).0, "10:15:00");
    assert_eq!(due(&w, ClockName::Executives).0, "10:30:00");
    assert_eq!(due(&w, ClockName::Document).0, "14:00:00");
    assert_eq!(due(&w, ClockName::Public).0, "", "it is not public");
    w.wait(600).entry("carol", update("Internal")).run();
    assert_eq!(due(&w, ClockName::Internal).0, "10:25:05");
    assert_eq!(due(&w, ClockName::Executives).0, "10:30:00");
    w.wait(60).entry("carol", update("Executives")).run();
    assert_eq!(
        (due(&w, ClockName::Internal).0, due(&w, ClockName::Executives).0),
        ("10:25:05".into(), "10:41:05".into())
    );
    assert_eq!(clock(&w, ClockName::Executives).message.as_deref(), Some("for Executives"));
    w.wait(60).entry("carol", update("Responders")).run();
    assert_eq!(due(&w, ClockName::Internal).0, "10:25:05", "the responders are no audience with a clock");
    assert_eq!(due(&w, ClockName::Document).0, "14:12:05", "any entry of a person refreshes the document");
    w.wait(60).edit("alice", json!({"impact": {"summary": "x"}}));
    assert_eq!(due(&w, ClockName::Document).0, "14:13:05", "and so does an edit");
}

#[test]
fn an_update_that_is_dated_long_before_the_incident_silences_no_clock() {
    let mut w = World::declared(public("SEV1"));
    w.run();
    for audience in ["Internal", "Executives", "Public"] {
        let mut old = update(audience);
        old["occurredTime"] = json!("2025-11-23T10:00:00Z");
        w.entry("carol", old).run();
    }
    for (name, first) in [
        (ClockName::Internal, "10:15:00"),
        (ClockName::Executives, "10:30:00"),
        (ClockName::Document, "14:00:00"),
        (ClockName::Public, "10:05:00"),
    ] {
        assert_eq!(due(&w, name), (first.to_owned(), 0, false), "{name:?}");
    }
    w.wait(115).entry("carol", update("Public")).run();
    assert_eq!(due(&w, ClockName::Public).0, "10:07:00", "the first post, and then the scope");
    w.wait(240).entry("carol", update("Public")).run();
    assert_eq!(due(&w, ClockName::Public).0, "10:26:00", "two hours begin with the first post");
    w.sleep_until(time("10:16:00"));
    assert_eq!(w.told("UpdateOverdue").len(), 1);
}

#[test]
fn what_was_declared_while_nobody_looked_is_dated_and_counted_from_the_declaration() {
    let spec = json!({"severity": "SEV1", "impact": {"summary": "x"}, "roles": {"incidentCommander": "alice"},
        "communication": {"updateInterval": "10s"}});
    let mut w = World::declared(spec);
    w.now = time("10:10:25");
    w.run();
    let milestones = &w.status().milestones;
    let declared = Some(whole_seconds(time("10:00:00")));
    assert_eq!((&milestones.acknowledged_time, &milestones.triaged_time), (&declared, &declared));
    assert_eq!(Some(&w.status().roles[0].from_time), declared.as_ref());
    assert_eq!(w.status().checklist[0].due_time, Some(whole_seconds(time("10:05:00"))));
    assert_eq!(due(&w, ClockName::Document), ("14:00:00".into(), 0, false));
    assert_eq!(due(&w, ClockName::Internal), ("10:00:10".into(), 62, true));
    assert!(w.told("UpdateOverdue")[0].message.ends_with("missed 62 times in a row"));
    // What was edited before anybody looked: the playbook's checklist counts from the declaration all the same.
    let mut edited = World::declared(json!({}));
    edited.change("bob", json!({"title": "b", "checklist": [{"name": "own"}]}));
    edited.now = time("10:10:00");
    edited.run();
    let due_of = |w: &World, i: usize| w.status().checklist[i].due_time.clone();
    assert_eq!(due_of(&edited, 0), Some(whole_seconds(time("10:05:00"))));
    assert_eq!(due_of(&edited, 6), Some(whole_seconds(time("10:25:00"))), "added nobody knows when");
    assert_eq!(due(&edited, ClockName::Document).0, "14:00:00", "what nobody has seen was not edited since");
}

#[test]
fn what_was_written_for_the_public_while_it_could_not_read_it_has_told_it_nothing() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run();
    assert_eq!(w.says("PublicInformed"), (True, "NotPublic"));
    w.wait(55).entry("carol", update("Public")).run();
    assert_eq!(w.told("StatusUpdate").len(), 1, "it is on record");
    assert_eq!(w.says("PublicInformed"), (False, "Withheld"));
    assert!(w.condition("PublicInformed").message.contains("set spec.communication.visibility to Public"));
    w.wait(60).edit("carol", json!({"communication": {"visibility": "Public"}}));
    assert_eq!(due(&w, ClockName::Public).0, "10:05:00", "the first post is due");
    assert_eq!(clock(&w, ClockName::Public).text, None);
    assert_eq!(w.says("PublicInformed"), (False, "Withheld"));
    w.entry("carol", update("Public")).run();
    assert_eq!(w.says("PublicInformed"), (True, "Informed"));
    assert_eq!(due(&w, ClockName::Public).0, "10:07:00", "the scope is next");
}

#[test]
fn who_was_told_that_it_is_over_is_to_be_told_that_it_is_not() {
    let mut w = World::declared(public("SEV1"));
    w.run().wait(55).entry("carol", update("Public")).run();
    w.wait(240).entry("carol", update("Public")).run();
    w.wait(60).edit("alice", json!({"resolution": {"summary": "fixed"}}));
    assert_eq!(w.says("PublicInformed"), (True, "Over"));
    w.wait(60).edit("alice", json!({"resolution": null}));
    assert_eq!(w.says("PublicInformed"), (False, "ToldOver"));
    assert!(w.condition("PublicInformed").message.contains("the public was told that it is over"));
    assert_eq!(due(&w, ClockName::Public), ("10:12:00".into(), 0, false), "as soon as a first post");
    w.wait(60).edit("alice", json!({"impact": {"summary": "x"}}));
    assert_eq!(due(&w, ClockName::Public).0, "10:12:00");
    w.wait(60).entry("carol", update("Public")).run();
    assert_eq!(w.says("PublicInformed"), (True, "Informed"));
    assert_eq!(due(&w, ClockName::Public).0, "10:29:00");
    // Who was told nothing does not wait for the end of an end.
    let mut untold = World::declared(public("SEV1"));
    untold.run().edit("alice", json!({"resolution": {"summary": "fixed"}}));
    untold.edit("alice", json!({"resolution": null}));
    assert_eq!(untold.says("PublicInformed"), (True, "Informed"));
    assert_eq!(due(&untold, ClockName::Public).0, "10:05:00");
}

#[test]
fn an_interval_of_less_than_a_second_that_is_stored_switches_no_clock_off() {
    for short in ["0s", "999ms"] {
        let mut w = World::declared(json!({"severity": "SEV1", "communication": {"updateInterval": short}}));
        w.run();
        assert_eq!(due(&w, ClockName::Internal).0, "10:15:00", "{short}");
    }
}

#[test]
fn the_public_hears_first_that_it_is_known_then_the_scope_then_at_every_interval_and_later_less_often() {
    let mut w = World::declared(public("SEV1"));
    w.run();
    assert_eq!(due(&w, ClockName::Public).0, "10:05:00");
    w.wait(115).entry("carol", update("Public")).run();
    assert_eq!(due(&w, ClockName::Public).0, "10:07:00", "the scope, five minutes after the first post");
    w.wait(240).entry("carol", update("Public")).run();
    assert_eq!(due(&w, ClockName::Public).0, "10:26:00");
    w.wait(7200 - 241).entry("carol", update("Public")).run();
    assert_eq!(due(&w, ClockName::Public).0, "12:21:59", "still within two hours of the first post");
    w.wait(1200).entry("carol", update("Public")).run();
    assert_eq!(due(&w, ClockName::Public).0, "16:21:59", "after that as often as the document is refreshed");
}

#[test]
fn deadlines_that_were_missed_are_counted_one_by_one_and_told_when_their_number_doubles() {
    let mut w = World::declared(json!({"severity": "SEV2"}));
    w.run();
    let looks = w.sleep_until(time("14:00:05"));
    // 10:15, 10:30, 10:45, 11:00 are looked at; then the 8th (12:00) and the 16th (14:00).
    assert_eq!(due(&w, ClockName::Internal), ("10:15:00".into(), 16, true));
    let told: Vec<_> = w
        .told("UpdateOverdue")
        .iter()
        .map(|r| r.message.clone())
        .filter(|m| m.starts_with("internal"))
        .collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    assert_eq!(told[0], "internal update is overdue since 2026-11-23 10:15 UTC");
    assert_eq!(told[4], "internal update is overdue since 2026-11-23 10:15 UTC, missed 16 times in a row");
    assert!(looks < 20, "{looks} looks in four hours");
    assert_eq!(w.says("UpdatesOnTime"), (False, "Overdue"));
    w.entry("carol", update("Internal")).run();
    assert_eq!(due(&w, ClockName::Internal), ("14:15:05".into(), 16, false));
}

#[test]
fn a_replica_that_was_down_for_an_hour_counts_what_was_missed_and_tells_it_once() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run();
    w.now = time("11:20:00");
    w.run();
    assert_eq!(due(&w, ClockName::Internal), ("10:15:00".into(), 5, true));
    assert_eq!(due(&w, ClockName::Executives), ("10:30:00".into(), 2, true));
    let told = w.told("UpdateOverdue");
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(
        told[0].message,
        "internal update is overdue since 2026-11-23 10:15 UTC, missed 5 times in a row"
    );
    assert_eq!((told[0].time.0, told[0].recorded_time.0), (time("10:15:00"), time("11:20:00")));
    w.run().wait(1).run();
    assert_eq!((due(&w, ClockName::Internal).1, w.told("UpdateOverdue").len()), (5, 2), "and nothing twice");
    // The same, had it been there all the time.
    let mut there = World::declared(json!({"severity": "SEV1"}));
    there.run();
    there.sleep_until(time("11:20:00"));
    there.run();
    assert_eq!(due(&there, ClockName::Internal), due(&w, ClockName::Internal));
}

#[test]
fn what_was_over_before_anybody_could_know_counts_as_one() {
    let mut w = World::declared(json!({"severity": "SEV1", "detection": {"time": "2026-11-20T10:00:00Z"}}));
    w.run();
    assert_eq!(due(&w, ClockName::Internal).1, 1, "found three days ago, declared now");
    assert_eq!(w.told("UpdateOverdue").iter().filter(|r| r.message.starts_with("internal")).count(), 1);
    let mut raised = World::declared(json!({"severity": "SEV3"}));
    raised.run();
    raised.wait(3000 - 5).edit("bob", json!({"severity": "SEV1"}));
    // From the facts: detected at 10:00, every 15 minutes, so due since 10:15; but nobody missed it before 10:50.
    assert_eq!(due(&raised, ClockName::Internal), ("10:15:00".into(), 1, true));
    raised.now = time("11:00:00");
    raised.run();
    assert_eq!(due(&raised, ClockName::Internal).1, 2);
}

#[test]
fn an_interval_that_goes_back_and_forth_counts_no_deadline_twice() {
    let every = |interval: &str| json!({"communication": {"updateInterval": interval}});
    let mut spec = every("10s");
    spec["severity"] = json!("SEV1");
    let mut w = World::declared(spec);
    w.run();
    w.now = time("10:00:25");
    w.run();
    assert_eq!(due(&w, ClockName::Internal), ("10:00:10".into(), 2, true));
    for (interval, expected) in
        [("5s", ("10:00:05", true)), ("1h", ("11:00:00", false)), ("10s", ("10:00:10", true))]
    {
        w.edit("bob", every(interval));
        let expected = (expected.0.to_owned(), 2, expected.1);
        assert_eq!(due(&w, ClockName::Internal), expected, "{interval}");
    }
    w.edit("bob", json!({"severity": "SEV4", "communication": null}))
        .edit("bob", json!({"severity": "SEV1"}));
    w.edit("bob", every("10s"));
    assert_eq!(due(&w, ClockName::Internal).1, 2, "nor when the clock stood still meanwhile");
    assert_eq!(w.told("UpdateOverdue").len(), 1);
    w.now = time("10:00:30");
    w.run();
    assert_eq!(due(&w, ClockName::Internal).1, 3, "the next one counts");
    let late = &w.condition("UpdatesOnTime").message;
    assert!(late.ends_with("create a TimelineEntry of type StatusUpdate with audience Internal"), "{late}");
}

#[test]
fn a_change_of_severity_moves_the_deadline_from_the_last_update_and_not_from_now() {
    let mut w = World::declared(json!({"severity": "SEV2"}));
    w.run().wait(595).entry("carol", update("Internal")).run();
    assert_eq!(due(&w, ClockName::Internal).0, "10:25:00");
    w.wait(300).edit("bob", json!({"severity": "SEV3", "severityReason": "one tenant"}));
    assert_eq!(due(&w, ClockName::Internal), ("11:10:00".into(), 0, false));
    w.wait(900).edit("bob", json!({"severity": "SEV2"}));
    assert_eq!(due(&w, ClockName::Internal), ("10:25:00".into(), 1, true));
    w.edit("bob", json!({"severity": "SEV4", "severityReason": "no customer"}));
    assert_eq!(due(&w, ClockName::Internal), (String::new(), 1, false), "nothing is due for SEV4");
    assert_eq!(w.says("UpdatesOnTime"), (True, "NothingDue"));
}

#[test]
fn an_update_that_is_written_down_late_counts_from_when_it_was_given() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run();
    w.now = time("10:20:00");
    w.run();
    assert_eq!(due(&w, ClockName::Internal), ("10:15:00".into(), 1, true));
    let mut late = update("Internal");
    late["occurredTime"] = json!("2026-11-23T10:14:00Z");
    w.entry("carol", late).run();
    assert_eq!(due(&w, ClockName::Internal), ("10:29:00".into(), 1, false), "what was told stays told");
}

/// What was said internally at this time, and is written down now.
fn said(at: &str) -> Value {
    let mut late = update("Internal");
    late["occurredTime"] = json!(format!("2026-11-23T{at}Z"));
    late
}

fn told_of_internal(w: &World) -> usize {
    w.told("UpdateOverdue").iter().filter(|r| r.message.starts_with("internal")).count()
}

#[test]
fn updates_that_are_written_down_late_one_after_the_other_count_no_deadline_again() {
    let mut w = World::declared(json!({"severity": "SEV4", "communication": {"updateInterval": "10s"}}));
    w.run();
    w.sleep_until(time("10:01:05"));
    w.run();
    assert_eq!(due(&w, ClockName::Internal), ("10:00:10".into(), 6, true));
    let told = told_of_internal(&w);
    for (at, next) in [("10:00:03", "10:00:13"), ("10:00:13", "10:00:23"), ("10:00:23", "10:00:33")] {
        w.wait(1).entry("carol", said(at)).run();
        // The one of 10:01:03 is new; all others were counted before the update was written down.
        assert_eq!(due(&w, ClockName::Internal), (next.into(), 7, true), "{at}");
    }
    assert_eq!(told_of_internal(&w), told + 1, "{:#?}", w.told("UpdateOverdue"));
    w.now = time("10:01:14");
    w.run();
    assert_eq!(due(&w, ClockName::Internal).1, 8, "the one of 10:01:13 counts");
}

#[test]
fn updates_of_before_the_declaration_do_not_make_the_record_look_worse() {
    let mut w = World::declared(json!({"severity": "SEV1", "detection": {"time": "2026-11-23T04:02:00Z"}}));
    w.run();
    assert_eq!(due(&w, ClockName::Internal), ("04:17:00".into(), 1, true), "nobody could have met those");
    for (at, next, overdue) in [
        ("04:10:00", "04:25:00", true),
        ("05:31:00", "05:46:00", true),
        // Due after the last one that is counted, and before the declaration.
        ("09:44:00", "09:59:00", true),
        ("09:50:00", "10:05:00", false),
    ] {
        w.wait(1).entry("carol", said(at)).run();
        assert_eq!(due(&w, ClockName::Internal), (next.into(), 1, overdue), "{at}");
    }
    assert_eq!(told_of_internal(&w), 1, "{:#?}", w.told("UpdateOverdue"));
    w.now = time("10:21:00");
    w.run();
    assert_eq!(due(&w, ClockName::Internal), ("10:05:00".into(), 3, true), "those of 10:05 and 10:20");
}

#[test]
fn what_is_dated_before_the_incident_counts_no_deadline_again() {
    let mut w = World::declared(public("SEV1"));
    w.run();
    w.now = time("10:20:00");
    w.run();
    let overdue = w.told("UpdateOverdue").len();
    for (audience, name, first) in
        [("Internal", ClockName::Internal, "10:15:00"), ("Public", ClockName::Public, "10:05:00")]
    {
        assert_eq!(due(&w, name), (first.into(), 1, true), "{audience}");
        let mut old = update(audience);
        old["occurredTime"] = json!("2025-11-23T10:00:00Z");
        w.wait(1).entry("carol", old).run();
        assert_eq!(due(&w, name), (first.into(), 1, true), "{audience}: it told nobody of this");
    }
    assert_eq!(w.told("UpdateOverdue").len(), overdue);
}

#[test]
fn a_detection_or_a_start_that_is_stated_ahead_silences_no_clock() {
    for (stated, detected, started) in [
        (json!({"detection": {"time": "2026-11-25T10:00:00Z"}}), "10:00:00", "10:00:00"),
        (
            json!({"detection": {"time": "2027-11-23T10:00:00Z"}, "startTime": "2026-11-23T09:30:00Z"}),
            "10:00:00",
            "09:30:00",
        ),
        (json!({"startTime": "2026-12-23T10:00:00Z"}), "10:00:00", "10:00:00"),
        (
            json!({"detection": {"time": "2026-11-23T09:50:00Z"}, "startTime": "2026-11-23T09:55:00Z"}),
            "09:50:00",
            "09:50:00",
        ),
    ] {
        let mut w = World::declared(stated.clone());
        w.run().edit("alice", json!({"severity": "SEV1"}));
        let m = &w.status().milestones;
        let expected = [detected, started].map(|t| Some(whole_seconds(time(t))));
        assert_eq!([m.detected_time.clone(), m.started_time.clone()], expected, "{stated}");
        let found = time(detected);
        for (name, seconds) in [(ClockName::Internal, 900), (ClockName::Executives, 1800)] {
            let next = clock(&w, name).next_due_time.unwrap().0;
            assert_eq!(next.as_second(), found.as_second() + seconds, "{name:?}, {stated}");
        }
        assert_eq!(w.says("FactsConsistent").0, False, "and it is said: {stated}");
    }
}

#[test]
fn nothing_is_due_once_it_is_resolved_and_reopened_it_is_due_again_without_a_debt() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run().wait(55).edit("alice", json!({"resolution": {"summary": "fixed"}}));
    assert_eq!(
        (due(&w, ClockName::Internal), w.status().next_update_time.clone()),
        ((String::new(), 0, false), None)
    );
    w.now = time("15:00:00");
    w.edit("alice", json!({"resolution": null}));
    assert_eq!(due(&w, ClockName::Internal), ("10:15:00".into(), 1, true), "due at once, missed once");
}

#[test]
fn the_next_update_is_the_first_that_is_due_to_whomever_and_the_number_overdue_is_a_column() {
    let mut w = World::declared(public("SEV1"));
    w.run();
    assert_eq!(w.status().next_update_time.as_deref(), Some("2026-11-23T10:05:00Z"));
    assert_eq!(w.status().overdue, Some(0));
    w.now = time("10:40:00");
    w.run();
    // Internal, public, executives; and six items of the checklist but none of them done.
    assert_eq!(w.status().overdue, Some(3 + 6));
}
