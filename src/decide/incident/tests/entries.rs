//! Entries of people: folded once each, kept for good, and moved out when they are many.

use super::{
    world::{is_sorted, mitigated, scale},
    *,
};
use crate::api::{
    ConditionStatus::{False, True},
    MitigationPhase as Phase, Stage, TimelineEntryType,
};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn peoples_entries_are_folded_with_all_they_say() {
    let mut w = World::declared(json!({}));
    w.run().wait(60).entry(
        "bob",
        json!({"type": "Evidence", "message": "<!channel>\n결제", "link": "https://g.example", "audience": "Responders"}),
    );
    w.wait(60).run();
    let told = w.told("Evidence");
    assert_eq!((told.len(), w.entries.len()), (1, 0));
    let record = told[0];
    assert_eq!((record.time.0, record.recorded_time.0), (time("10:01:05"), time("10:02:05")));
    assert_eq!((record.author.as_deref(), record.authenticated), (Some("bob"), Some(true)));
    assert_eq!(record.message, "<!channel>\n결제");
    assert_eq!(
        (record.link.as_deref(), record.audience),
        (Some("https://g.example"), Some(crate::api::Audience::Responders))
    );
    assert_eq!(record.entry_uid.as_deref(), Some("entry-1"));
}

#[test]
fn an_entry_of_any_type_is_recorded_under_its_own_word() {
    use TimelineEntryType::*;
    for type_ in [Note, Decision, StatusUpdate, Acknowledgement, Approval, Rejection, Hypothesis, Evidence] {
        let mut w = World::declared(json!({}));
        w.run().entry("bob", json!({"type": type_})).wait(5).run();
        assert_eq!(w.told(&format!("{type_:?}")).len(), 1);
    }
}

#[test]
fn an_entry_is_folded_once_also_when_it_cannot_be_deleted() {
    let mut w = World::declared(json!({}));
    w.deletes = false;
    w.run().entry("bob", json!({"message": "first"})).run();
    w.entry("bob", json!({"message": "second"})).wait(60).run().wait(60).run();
    let plan = w.plan();
    assert_eq!((w.told("Note").len(), plan.folded.len()), (2, 2), "both are asked to go until they do");
    w.deletes = true;
    w.run();
    assert_eq!((w.told("Note").len(), w.entries.len()), (2, 0));
}

#[test]
fn entries_that_cannot_be_deleted_do_not_keep_the_rest_of_the_record_out() {
    let mut w = World::declared(json!({}));
    w.deletes = false;
    w.run();
    for i in 0..400 {
        w.entry("bob", json!({"message": format!("note {i}")}));
    }
    for i in 0..40 {
        for _ in 0..5 {
            w.step(&ALL);
        }
        w.wait(60).change("alice", json!({"roles": {"deputy": format!("deputy-{i}")}}));
    }
    w.step(&ALL);
    assert_eq!(w.told("RoleAssigned").len(), 40);
    w.deletes = true;
    w.run();
    assert_eq!((w.told("Note").len(), w.told("RoleAssigned").len(), w.entries.len()), (400, 40, 0));
}

#[test]
fn an_entry_dated_in_the_future_happened_when_it_was_written_and_one_dated_before_keeps_its_date() {
    for (occurred, at) in [
        ("2031-01-01T00:00:00Z", "10:05:05"),
        ("2026-11-23T10:06:30Z", "10:05:05"),
        ("2026-11-23T10:05:35Z", "10:05:35"),
        ("2026-11-23T10:03:00Z", "10:03:00"),
        ("2026-11-23T03:00:00Z", "03:00:00"),
    ] {
        let mut w = World::declared(json!({}));
        w.run().wait(300).entry("bob", json!({"occurredTime": occurred})).run();
        assert_eq!(w.told("Note")[0].time.0, time(at), "{occurred}");
        assert!(is_sorted(&w.status().timeline));
    }
}

#[test]
fn entries_stand_in_the_order_in_which_things_happened_whenever_they_were_written() {
    let mut w = World::declared(json!({}));
    w.run();
    for minute in [30, 10, 20, 5, 25, 10] {
        w.wait(3600).entry("bob", json!({"occurredTime": format!("2026-11-23T10:{minute:02}:00Z")})).run();
    }
    assert!(is_sorted(&w.status().timeline));
    let same: Vec<_> = w.told("Note").iter().map(|r| r.entry_uid.clone().unwrap()).collect();
    assert_eq!(same, ["entry-4", "entry-2", "entry-6", "entry-3", "entry-5", "entry-1"]);
}

#[test]
fn an_internal_update_resets_the_clock_and_an_old_one_does_not_set_it_back() {
    let mut w = World::declared(json!({"severity": "SEV3", "communication": {"updateInterval": "15m"}}));
    w.run();
    assert_eq!(w.status().next_update_time.as_deref(), Some("2026-11-23T10:15:00Z"));
    let update = |at: &str| json!({"type": "StatusUpdate", "occurredTime": format!("2026-11-23T{at}Z")});
    w.wait(1200).entry("carol", update("10:12:00")).run();
    assert_eq!(w.status().next_update_time.as_deref(), Some("2026-11-23T10:27:00Z"));
    w.entry("carol", update("10:02:00")).run();
    assert_eq!(w.status().next_update_time.as_deref(), Some("2026-11-23T10:27:00Z"));
    w.entry("carol", json!({"type": "StatusUpdate", "audience": "Responders"})).entry("bob", json!({})).run();
    assert_eq!(
        w.status().next_update_time.as_deref(),
        Some("2026-11-23T10:27:00Z"),
        "not an internal update"
    );
    w.edit("alice", json!({"communication": {"updateInterval": "30m"}}));
    assert_eq!(w.status().next_update_time.as_deref(), Some("2026-11-23T10:42:00Z"));
    w.edit("alice", json!({"resolution": {"summary": "fixed"}}));
    assert_eq!(w.status().next_update_time, None, "nobody waits for an update any more");
}

/// uids of people's entries on record, and how many records they have.
fn uids(w: &World) -> (BTreeSet<String>, usize) {
    let uids: Vec<_> = w.record().iter().filter_map(|r| r.entry_uid.clone()).collect();
    let count = uids.len();
    (uids.into_iter().collect(), count)
}

#[test]
fn ten_thousand_entries_are_kept_once_each_and_few_of_them_inline() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run();
    for batch in 0..100 {
        for i in 0..100 {
            w.entry("bot", json!({"message": format!("{batch}/{i}")}));
        }
        // The process dies in every place now and then.
        let parts = &ALL[..batch % 4];
        w.step(parts);
        if batch % 7 == 0 {
            w.wait(60).change("alice", json!({"severity": if batch % 2 == 0 { "SEV1" } else { "SEV2" }}));
        }
        w.step(parts);
        w.run();
        assert!(w.status().timeline.len() <= INLINE_ENTRIES + 56);
        assert!(is_sorted(&w.status().timeline));
    }
    let (different, count) = uids(&w);
    assert_eq!((different.len(), count), (10_000, 10_000));
    assert_eq!((w.told("Declared").len(), w.told("SeverityChanged").len()), (1, 14));
    let archive = w.status().timeline_archive.clone().unwrap();
    assert_eq!(usize::try_from(archive.config_maps).unwrap(), w.archives.len());
    let archived: usize = w.archives.values().map(Vec::len).sum();
    assert_eq!(usize::try_from(archive.entries).unwrap(), archived);
    assert!(w.archives.contains_key("checkout-timeline-0"));
}

#[test]
fn a_long_timeline_moves_out_at_once_down_to_its_latest_fifty_entries() {
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.run();
    for i in 0..200 {
        w.entry("bot", json!({"message": format!("{i}")}));
    }
    w.run();
    let sizes = |w: &World| w.archives.values().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(&w), [w.record().len() - 50], "one object for all");
    for i in 0..INLINE_ENTRIES {
        w.wait(1).entry("bot", json!({"message": format!("then {i}")})).run();
        assert!(w.status().timeline.len() <= INLINE_ENTRIES);
    }
    assert_eq!(sizes(&w)[1..], [51], "one more, as soon as there are more than a hundred");
}

#[test]
fn a_backlog_of_entries_is_folded_without_waiting_for_anything_else_to_happen() {
    let mut w = World::declared(json!({}));
    for _ in 0..1000 {
        w.entry("bot", json!({}));
    }
    while !w.entries.is_empty() {
        let waits = w.plan().wake == Some(w.now);
        w.step(&ALL);
        assert!(waits || w.entries.is_empty(), "it looks again at once");
    }
    assert_eq!(uids(&w).1, 1000);
}

#[test]
fn long_entries_move_out_before_the_status_is_too_large_to_be_written() {
    for message in ["<".repeat(4096), "결".repeat(4096), "\u{1}".repeat(4096)] {
        let mut w = World::declared(json!({}));
        w.run();
        for _ in 0..300 {
            w.entry("bot", json!({"message": message}));
        }
        w.run();
        assert_eq!((uids(&w).1, w.entries.len()), (300, 0));
    }
}

#[test]
fn an_entry_whose_object_is_still_there_does_not_move_out() {
    let mut w = World::declared(json!({}));
    w.deletes = false;
    w.run().entry("bob", json!({"message": "stays", "occurredTime": "2026-11-23T00:00:00Z"})).run();
    w.deletes = true;
    let stuck = w.entries.clone();
    for _ in 0..500 {
        w.entries.retain(|e| e.metadata.uid != stuck[0].metadata.uid);
        w.entry("bot", json!({}));
        w.entries.push(stuck[0].clone());
        w.step(&ALL);
    }
    w.run();
    assert_eq!((uids(&w).1, w.told("Note").iter().filter(|r| r.message == "stays").count()), (501, 1));
}

#[test]
fn a_fact_that_moves_out_with_the_write_that_was_lost_is_not_told_twice() {
    let mut w = World::declared(json!({}));
    w.run();
    while w.status().timeline.len() < INLINE_ENTRIES {
        w.wait(60).entry("bot", json!({})).run();
    }
    // Dated before everything else, so that it would be the first to move out.
    w.alone("bob", "early").gets_to("early", Phase::Active, True);
    w.object("early").status.as_mut().unwrap().applied_time = Some(crate::api::Time(time("09:00:00")));
    assert!(w.plan().archive.is_some());
    for _ in 0..10 {
        w.step(&[Part::Archive]);
        w.wait(60);
    }
    w.run();
    assert_eq!((w.told("MitigationApplied").len(), uids(&w).0.len()), (1, uids(&w).1));
}

#[test]
fn records_that_are_equal_move_out_one_by_one() {
    let record = |n: i64| TimelineRecord {
        time: crate::api::Time(Timestamp::from_second(n).unwrap()),
        stated_time: None,
        recorded_time: crate::api::Time(time("10:00:00")),
        reason: "Note".into(),
        message: "m".into(),
        author: None,
        authenticated: None,
        audience: None,
        link: None,
        entry_uid: None,
    };
    let mut status =
        IncidentStatus { timeline: vec![record(1), record(1), record(2)], ..IncidentStatus::default() };
    drop_archived(&mut status, &[record(1)], time("10:00:00"));
    assert_eq!(status.timeline, [record(1), record(2)]);
}

#[test]
fn where_older_entries_are_refused_a_place_the_record_goes_on_and_says_what_is_lost() {
    let mut w = mitigated("SEV2");
    w.refused = Some("configmaps are not for operators");
    for _ in 0..260 {
        w.entry("bot", json!({}));
    }
    w.run();
    let (False, "Refused") = w.says("TimelineArchived") else {
        panic!("{:?}", w.condition("TimelineArchived"))
    };
    let lost = |w: &World| w.status().timeline_archive.as_ref().and_then(|a| a.lost).unwrap_or_default();
    assert!(lost(&w) == 0 && !w.entries.is_empty(), "people's entries wait");
    for n in 0..20 {
        w.edit("alice", json!({"roles": {"scribe": format!("scribe-{n}")}}));
    }
    assert!(lost(&w) > 0 && w.status().timeline.len() < 256);
    let says = &w.condition("TimelineArchived").message;
    assert!(says.contains("not for operators") && says.contains("oldest are lost"), "{says}");
    let mut released = scale("stop");
    released["desiredState"] = json!("Released");
    w.edit("alice", json!({"mitigations": [released], "resolution": {"summary": "done"}}));
    w.reaches("checkout-stop", Phase::Released);
    assert_eq!((w.summary("checkout-stop").phase, w.stage()), (Phase::Released, Stage::Postmortem));
    assert!(!w.entries.is_empty());
    w.wait(601).run();
    assert!(w.entries.is_empty(), "they do not wait for ever");
    w.refused = None;
    for _ in 0..120 {
        w.entry("bot", json!({}));
    }
    w.run();
    assert_eq!(w.says("TimelineArchived"), (True, "Archived"));
}
