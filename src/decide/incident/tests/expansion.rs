//! Entries of spec.mitigations and the Mitigation objects that are made of them.

use super::{world::scale, *};
use crate::api::{
    ConditionStatus::{False, True, Unknown},
    DesiredState, ENTRY_LABEL, FINALIZER, MitigationPhase as Phase, REQUESTER_ANNOTATION, Stage,
};
use serde_json::json;

fn with_entries(names: &[&str]) -> World {
    let entries: Vec<_> = names.iter().map(|n| scale(n)).collect();
    let mut w = World::declared(json!({"mitigations": entries}));
    w.run();
    w
}

#[test]
fn an_entry_becomes_one_object_that_carries_its_name_owner_and_signature() {
    let mut w = with_entries(&["stop", "slow"]);
    assert_eq!(w.made, ["checkout-stop", "checkout-slow"]);
    let child = w.object("checkout-stop").clone();
    assert_eq!(child.metadata.labels.as_ref().unwrap()[ENTRY_LABEL], "stop");
    assert_eq!(child.metadata.annotations.as_ref().unwrap()[REQUESTER_ANNOTATION], "alice");
    assert_eq!(child.metadata.finalizers, Some(vec![FINALIZER.to_owned()]), "it is never without");
    let owner = &child.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.uid.as_str(), owner.controller), ("uid-checkout", Some(true)));
    assert_eq!(child.spec.incident_ref.as_ref().unwrap().name, "checkout");
    assert_eq!(child.spec.template, w.incident.spec.mitigations[0].template);
}

#[test]
fn objects_are_made_once_also_when_the_status_was_lost_after_making_them() {
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    for _ in 0..3 {
        w.step(&[Part::Effects]);
        assert_eq!(w.status().stage, None, "nobody has written it");
    }
    w.run();
    assert_eq!((w.made.len(), w.mitigations.len(), w.status().mitigations.len()), (1, 1, 1));
}

#[test]
fn an_edit_of_an_entry_is_carried_over_while_its_object_lives() {
    let mut w = with_entries(&["stop"]);
    w.works("checkout-stop");
    let mut edited = scale("stop");
    edited["desiredState"] = json!("Released");
    w.edit("alice", json!({"mitigations": [edited.clone()]}));
    assert_eq!(w.object("checkout-stop").spec.template.desired_state, Some(DesiredState::Released));
    assert_eq!(w.object("checkout-stop").spec.incident_ref.as_ref().unwrap().name, "checkout");
    w.reaches("checkout-stop", Phase::Released);
    edited["reason"] = json!("another");
    w.edit("alice", json!({"mitigations": [edited]}));
    assert_eq!(w.object("checkout-stop").spec.template.reason, "floods", "what has ended is history");
}

#[test]
fn what_was_released_at_its_object_is_not_taken_again_because_the_entry_does_not_say_so() {
    let mut w = with_entries(&["stop"]);
    w.object("checkout-stop").spec.template.desired_state = Some(DesiredState::Released);
    w.reaches("checkout-stop", Phase::Releasing).reaches("checkout-stop", Phase::Released);
    assert_eq!(w.object("checkout-stop").spec.template.desired_state, Some(DesiredState::Released));
    assert_eq!((w.made.len(), w.object("checkout-stop").metadata.deletion_timestamp.is_some()), (1, false));
}

#[test]
fn an_entry_that_is_taken_out_deletes_its_object_and_no_other() {
    let mut w = with_entries(&["stop", "slow"]);
    w.works("checkout-stop").works("checkout-slow");
    w.edit("alice", json!({"mitigations": [scale("slow")]}));
    assert!(w.object("checkout-stop").metadata.deletion_timestamp.is_some());
    assert!(w.object("checkout-slow").metadata.deletion_timestamp.is_none());
    assert_eq!(w.summary("checkout-stop").removed, Some(true));
    assert_eq!(w.says("Ready").0, False, "it is being released");
    w.reaches("checkout-stop", Phase::Released);
    assert_eq!(w.mitigations.len(), 1);
    assert_eq!((w.says("Ready").0, w.says("Mitigated").0), (True, True));
}

#[test]
fn an_object_goes_only_when_the_incident_has_its_end_on_record() {
    let mut w = with_entries(&["stop"]);
    w.works("checkout-stop").delete("checkout-stop");
    w.gets_to("checkout-stop", Phase::Released, Unknown).step(&[Part::Effects]);
    assert_eq!(w.mitigations.len(), 1, "the status was lost");
    w.run();
    assert!(w.mitigations.is_empty());
    assert_eq!(w.summary("checkout-stop").phase, Phase::Released);
    assert_eq!(w.told("MitigationReleased").len(), 1);
}

#[test]
fn an_object_that_somebody_deleted_counts_as_released_and_is_not_made_anew() {
    let mut w = with_entries(&["stop"]);
    w.works("checkout-stop").delete("checkout-stop");
    w.reaches("checkout-stop", Phase::Releasing).reaches("checkout-stop", Phase::Released);
    assert_eq!((w.made.len(), w.mitigations.len()), (1, 0));
    assert_eq!((w.says("Ready").0, w.says("Mitigated").0), (True, True), "it has worked");
    w.wait(3600).edit("alice", json!({"title": "another"}));
    assert_eq!(w.made.len(), 1);
}

#[test]
fn an_object_deleted_before_anybody_looked_is_not_made_anew() {
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    w.step(&[Part::Effects]);
    w.delete("checkout-stop");
    w.run().reaches("checkout-stop", Phase::Released);
    assert_eq!((w.made.len(), w.mitigations.len()), (1, 0));
}

#[test]
fn an_object_that_cannot_be_read_is_not_taken_for_gone_and_not_made_anew() {
    let mut w = with_entries(&["stop"]);
    w.works("checkout-stop");
    w.mitigations.clear();
    w.unreadable = vec!["checkout-stop".to_owned()];
    let made = w.made.len();
    w.run().wait(60).run();
    assert_eq!((w.told("MitigationAbandoned").len(), w.made.len()), (0, made));
    w.unreadable.clear();
    w.run();
    assert_eq!(w.told("MitigationAbandoned").len(), 1, "gone is gone");
}

#[test]
fn an_object_made_to_go_by_force_is_on_record_once_with_a_warning() {
    let mut w = with_entries(&["stop"]);
    w.works("checkout-stop");
    w.mitigations.clear();
    w.run().wait(60).run();
    let told = w.told("MitigationAbandoned");
    assert_eq!(told.len(), 1);
    assert!(told[0].message.contains("look at its target"));
    assert_eq!((w.summary("checkout-stop").phase, w.made.len()), (Phase::Abandoned, 1));
}

#[test]
fn an_entry_that_is_put_back_is_made_anew_also_while_the_first_one_still_goes() {
    for put_back_early in [false, true] {
        let mut w = with_entries(&["stop"]);
        w.works("checkout-stop").edit("alice", json!({"mitigations": []}));
        if put_back_early {
            w.edit("alice", json!({"mitigations": [scale("stop")]}));
            assert_eq!(w.made.len(), 1, "the name is taken until the first one is gone");
        }
        w.reaches("checkout-stop", Phase::Releasing).reaches("checkout-stop", Phase::Released);
        if !put_back_early {
            assert!(w.mitigations.is_empty());
            w.edit("alice", json!({"mitigations": [scale("stop")]}));
        }
        assert_eq!(w.made, ["checkout-stop", "checkout-stop"], "early: {put_back_early}");
        w.works("checkout-stop");
        assert_eq!(w.told("MitigationApplied").len(), 2);
        assert_eq!(w.status().mitigations.len(), 1, "names are keys");
        assert_eq!(w.summary("checkout-stop").removed, None);
    }
}

#[test]
fn an_entry_put_back_before_its_object_was_deleted_keeps_the_object() {
    let mut w = with_entries(&["stop"]);
    w.works("checkout-stop");
    w.change("alice", json!({"mitigations": []})).step(&[Part::Status]);
    w.edit("alice", json!({"mitigations": [scale("stop")]}));
    assert_eq!((w.made.len(), w.summary("checkout-stop").removed), (1, None));
    assert!(w.object("checkout-stop").metadata.deletion_timestamp.is_none());
}

#[test]
fn an_entry_put_back_with_another_target_before_anybody_looked_is_made_anew() {
    let mut w = with_entries(&["stop"]);
    w.works("checkout-stop");
    let mut other = scale("stop");
    other["targetRef"]["name"] = json!("another");
    w.edit("alice", json!({"mitigations": [other]}));
    assert!(w.object("checkout-stop").metadata.deletion_timestamp.is_some(), "a target cannot be changed");
    w.reaches("checkout-stop", Phase::Released);
    assert_eq!(w.made.len(), 2);
    assert_eq!(w.object("checkout-stop").spec.template.target_ref.name, "another");
}

#[test]
fn incidents_whose_names_run_together_do_not_share_an_object() {
    let entry = |name: &str| json!({"mitigations": [scale(name)]});
    let mut first = World::named("a", entry("b-c"));
    let mut second = World::named("a-b", entry("c"));
    first.run();
    second.mitigations = first.mitigations.clone();
    second.run();
    assert_eq!(first.made, ["a-b-c"]);
    assert_eq!(second.made.len(), 1);
    assert_ne!(second.made, first.made);
    assert!(second.made[0].starts_with("a-b-c-"));
    let made = second.made[0].clone();
    second.works(&made);
    assert_eq!(second.says("Mitigated").0, True);
    second.edit("alice", json!({"mitigations": []}));
    assert!(second.object("a-b-c").metadata.deletion_timestamp.is_none(), "it is not theirs to delete");
}

/// Admission lets no entry become a dry run, but one may go and another come in its place while nobody looks.
#[test]
fn a_dry_run_in_the_place_of_an_entry_that_was_done_undoes_it_and_the_other_way_round_carries_it_out() {
    let mut dry = scale("stop");
    dry["dryRun"] = json!(true);
    let mut done = World::declared(json!({"mitigations": [scale("stop")]}));
    done.run();
    let made = done.made[0].clone();
    done.edit("alice", json!({"mitigations": [dry.clone()]}));
    let first = done.object(&made);
    assert!(first.metadata.deletion_timestamp.is_some(), "it is released");
    assert_eq!(first.spec.template.dry_run, None, "and never becomes a plan");
    let mut planned = World::declared(json!({"mitigations": [dry]}));
    planned.run();
    let made = planned.made[0].clone();
    planned.edit("alice", json!({"mitigations": [scale("stop")]}));
    let object = planned.object(&made);
    assert_eq!((object.spec.template.dry_run, object.metadata.deletion_timestamp.is_none()), (None, true));
}

#[test]
fn a_standalone_mitigation_of_the_same_name_is_not_taken_for_the_entrys() {
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    w.alone("bob", "checkout-stop");
    w.run();
    assert_eq!(w.mitigations.len(), 2);
    assert_eq!(w.status().mitigations.len(), 2);
}

#[test]
fn names_of_253_characters_make_valid_and_different_names() {
    let long = "x".repeat(253);
    let mut w = World::named(&long, json!({"mitigations": [scale("stop"), scale(&"y".repeat(63))]}));
    w.run();
    assert_eq!(w.made.len(), 2);
    for m in &w.mitigations {
        assert!(m.metadata.name.as_ref().unwrap().len() <= 253);
        assert!(m.metadata.labels.as_ref().unwrap().values().all(|v| v.len() <= 63));
    }
    let mut other = World::named(&format!("{}z", "x".repeat(252)), json!({"mitigations": [scale("stop")]}));
    other.run();
    assert_ne!(other.made[0], w.made[0]);
}

#[test]
fn cancelled_and_deleted_incidents_make_nothing_and_wait_for_nothing() {
    let mut cancelled = World::declared(json!({"mitigations": [scale("stop")], "outcome": "FalseAlarm"}));
    let mut deleted = World::declared(json!({"mitigations": [scale("stop")]}));
    deleted.incident.metadata.deletion_timestamp = Some(crate::api::Time(deleted.now));
    for w in [&mut cancelled, &mut deleted] {
        w.run();
        assert!(w.made.is_empty());
        assert_eq!(w.says("Ready").0, True);
    }
    let mut resolved = World::declared(json!({"severity": "SEV1", "resolution": {"summary": "fixed"}}));
    resolved.incident.metadata.deletion_timestamp = Some(crate::api::Time(resolved.now));
    resolved.run();
    assert!(resolved.postmortem.is_none(), "no draft for what is going");
}

#[test]
fn a_mitigation_that_only_names_the_incident_is_counted_and_credited_to_who_made_it() {
    let mut w = World::declared(json!({"severity": "SEV3", "roles": {"incidentCommander": "alice"}}));
    w.run().alone("bob", "flags-off").run();
    assert_eq!(w.summary("flags-off").entry, None);
    assert_eq!((w.says("Mitigated").0, w.status().active_mitigations), (False, Some(0)));
    w.works("flags-off");
    assert_eq!((w.says("Mitigated").0, w.status().active_mitigations), (True, Some(1)));
    assert_eq!(w.told("MitigationApplied")[0].author.as_deref(), Some("bob"));
    w.edit("alice", json!({"resolution": {"summary": "fixed"}}));
    assert_eq!(w.says("Resolved").0, False, "it is still active");
    w.edit(
        "alice",
        json!({"resolution": {"waivers": [{"mitigation": "flags-off", "reason": "until Monday"}]}}),
    );
    assert_eq!(w.stage(), Stage::Closed);
    w.mitigations.clear();
    w.alone("bob", "unsigned");
    w.object("unsigned").metadata.annotations = None;
    w.works("unsigned");
    assert_eq!(w.told("MitigationApplied")[1].author, None, "not to who edited the incident");
}

#[test]
fn a_refused_mitigation_that_only_named_the_incident_is_forgiven_once_it_is_deleted() {
    let mut w = World::declared(json!({"noMitigationNeeded": "it heals"}));
    w.run().alone("bob", "no").reaches("no", Phase::Refused);
    assert_eq!((w.says("Stalled").0, w.says("Mitigated").0), (True, False));
    w.delete("no");
    w.run();
    assert_eq!((w.says("Stalled").0, w.says("Mitigated").0), (False, True));
}

#[test]
fn more_mitigations_than_the_status_holds_are_counted_and_told_once_each_and_can_go() {
    let mut w = World::declared(json!({}));
    for i in 0..100 {
        w.alone("bot", &format!("m-{i}"));
        w.gets_to(&format!("m-{i}"), Phase::Active, True);
    }
    w.run();
    let told = w.told("MitigationApplied").len();
    assert_eq!((w.status().active_mitigations, told), (Some(100), w.status().mitigations.len()));
    w.edit("alice", json!({"resolution": {"summary": "fixed"}, "mitigations": [scale("stop")]}));
    assert_eq!(w.says("Resolved").0, False);
    assert_eq!(w.summary("checkout-stop").entry.as_deref(), Some("stop"), "entries always have a place");
    w.delete("checkout-stop");
    w.reaches("checkout-stop", Phase::Released);
    assert_eq!(w.made.len(), 1, "and are not made anew");
    for i in 0..100 {
        w.delete(&format!("m-{i}"));
        w.gets_to(&format!("m-{i}"), Phase::Released, Unknown);
    }
    w.run();
    assert!(w.mitigations.is_empty(), "none waits for a record that will never be");
    assert_eq!(w.says("Resolved").0, True);
}

#[test]
fn a_mitigation_beyond_what_the_status_holds_blocks_the_resolution_by_its_name() {
    let mut w = World::declared(json!({"resolution": {"summary": "fixed"}}));
    for i in 0..80 {
        w.alone("bot", &format!("m-{i}")).gets_to(&format!("m-{i}"), Phase::Active, True);
    }
    w.run();
    for i in 0..79 {
        w.gets_to(&format!("m-{i}"), Phase::Released, Unknown);
    }
    w.run();
    assert_eq!(w.says("Resolved").0, False);
    assert!(w.condition("Resolved").message.contains("m-79"), "{}", w.condition("Resolved").message);
}
