//! Stages, conditions and milestones, as section 3 of the design says.

use super::{
    world::{difference, mitigated, scale},
    *,
};
use crate::api::{
    ConditionStatus::{False, True, Unknown},
    MitigationPhase as Phase, Stage,
};
use serde_json::json;

#[test]
fn an_incident_goes_through_every_stage_and_each_condition_says_what_is_missing() {
    let mut w = World::declared(json!({}));
    let expect = |w: &World, stage, condition: &str, words: &str| {
        assert_eq!(w.stage(), stage);
        let c = w.condition(condition);
        assert!(c.message.contains(words), "{condition}: {}", c.message);
    };
    w.run();
    expect(&w, Stage::Detect, "Acknowledged", "spec.roles.incidentCommander");
    w.edit("bob", json!({"roles": {"incidentCommander": "alice"}}));
    expect(&w, Stage::Detect, "Acknowledged", "alice is to confirm command");
    w.acknowledge("alice");
    expect(&w, Stage::Triage, "Triaged", "spec.severity and spec.impact");
    w.edit("alice", json!({"severity": "SEV1"}));
    expect(&w, Stage::Triage, "Triaged", "state spec.impact");
    w.edit("alice", json!({"impact": {"affectedFeatures": ["checkout"]}}));
    expect(&w, Stage::Mitigate, "Mitigated", "add one to spec.mitigations, or say why none is needed");
    w.edit(
        "alice",
        json!({"mitigations": [scale("stop")], "exitCriteria": [{"description": "errors < 1 %"}]}),
    );
    expect(&w, Stage::Mitigate, "Mitigated", "stop is Pending");
    w.works("checkout-stop");
    expect(&w, Stage::Resolve, "Resolved", "spec.resolution.summary");
    w.edit("alice", json!({"resolution": {"summary": "rate fixed"}}));
    expect(&w, Stage::Resolve, "Resolved", "\"errors < 1 %\"; mitigations are still active: stop");
    w.edit("alice", json!({"exitCriteria": [{"description": "errors < 1 %", "state": "Done"}]}));
    expect(&w, Stage::Resolve, "Resolved", "waive each in spec.resolution.waivers");
    w.reaches("checkout-stop", Phase::Released);
    expect(&w, Stage::Postmortem, "PostmortemComplete", "checkout is not reviewed yet");
    w.reviewed().run();
    expect(&w, Stage::Closed, "PostmortemComplete", "checkout is reviewed");
}

#[test]
fn facts_count_in_whatever_order_they_come() {
    type Fact = fn(&mut World);
    let facts: [Fact; 5] = [
        |w| {
            w.edit("alice", json!({"roles": {"incidentCommander": "alice"}}));
        },
        |w| {
            w.edit("bob", json!({"severity": "SEV3"}));
        },
        |w| {
            w.edit("bob", json!({"impact": {"summary": "40 % fail"}}));
        },
        |w| {
            w.works("checkout-stop").reaches("checkout-stop", Phase::Released);
        },
        |w| {
            w.edit("bob", json!({"resolution": {"summary": "fixed"}}));
        },
    ];
    for order in permutations(5) {
        let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
        w.run();
        let mut done = [false; 5];
        for &i in &order {
            facts[i](&mut w);
            done[i] = true;
            let [commanded, severe, stated, stopped, resolved] = done;
            let expected = match (resolved && stopped, commanded, severe && stated, stopped) {
                (true, ..) => Stage::Closed,
                (false, false, ..) => Stage::Detect,
                (false, true, false, _) => Stage::Triage,
                (false, true, true, false) => Stage::Mitigate,
                (false, true, true, true) => Stage::Resolve,
            };
            assert_eq!(w.stage(), expected, "{order:?}, after {i}");
        }
        let m = &w.status().milestones;
        assert!(m.acknowledged_time.is_some() && m.triaged_time.is_some() && m.mitigated_time.is_some());
        assert!(m.resolved_time.is_some() && m.closed_time.is_some(), "{order:?}");
        for reason in ["Declared", "Acknowledged", "Triaged", "Mitigated", "Resolved", "Closed"] {
            assert_eq!(w.told(reason).len(), 1, "{reason}, {order:?}");
        }
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else { return vec![Vec::new()] };
    let insert = |order: &Vec<usize>, at| [&order[..at], &[last], &order[at..]].concat();
    permutations(last).iter().flat_map(|order| (0..n).map(move |at| insert(order, at))).collect()
}

#[test]
fn every_known_condition_is_there_from_the_first_visit() {
    let mut w = World::declared(json!({}));
    w.run();
    let mut types: Vec<&str> = w.status().conditions.iter().map(|c| c.type_.as_str()).collect();
    types.sort_unstable();
    let known = [
        "Acknowledged",
        "AuthorsVerified",
        "ChecklistOnTime",
        "Configured",
        "DutiesSeparated",
        "FactsConsistent",
        "Mitigated",
        "PostmortemComplete",
        "PublicInformed",
        "PublicTextClean",
        "Ready",
        "Resolved",
        "RolesFilled",
        "SeverityExplained",
        "Stalled",
        "Triaged",
        "UpdatesOnTime",
    ];
    assert_eq!(types, known);
    assert!(w.status().conditions.iter().all(|c| c.observed_generation == Some(1)));
    w.edit("alice", json!({"severity": "SEV3"}));
    assert!(w.status().conditions.iter().all(|c| c.observed_generation == Some(2)));
}

#[test]
fn any_statement_of_the_impact_will_do_and_an_empty_one_will_not() {
    for (impact, status) in [
        (json!({}), False),
        (json!({"dataAtRisk": "None"}), False),
        (json!({"summary": "x"}), True),
        (json!({"affectedTenants": 0}), True),
        (json!({"affectedFeatures": ["x"]}), True),
        (json!({"components": [{"name": "x", "state": "Operational"}]}), True),
    ] {
        let mut w = World::declared(json!({"severity": "SEV2", "impact": impact}));
        w.run();
        assert_eq!(w.condition("Triaged").status, status, "{impact}");
    }
}

#[test]
fn while_no_severity_is_stated_clocks_run_as_for_sev3_and_it_is_not_triaged() {
    let mut w = World::declared(json!({"impact": {"summary": "x"}}));
    w.run();
    assert_eq!(w.says("Triaged"), (False, "NotStated"));
    assert_eq!(w.status().next_update_time.as_deref(), Some("2026-11-23T11:00:00Z"));
    w.edit("alice", json!({"severity": "SEV1"}));
    assert_eq!(w.status().next_update_time.as_deref(), Some("2026-11-23T10:15:00Z"), "from recorded facts");
}

#[test]
fn the_incident_is_mitigated_when_every_mitigation_works_or_has_worked() {
    use Phase::{Abandoned, Active, Failed, Kept, Pending, Refused, Released, Superseded};
    // What the two go through, and whether the incident is mitigated then.
    for (first, second, status) in [
        (vec![(Active, True)], vec![(Active, True)], True),
        (vec![(Active, True)], vec![(Active, Unknown)], False),
        (vec![(Active, True)], vec![(Active, False)], False),
        (vec![(Active, True)], vec![(Pending, Unknown)], False),
        (vec![(Active, True)], vec![(Refused, Unknown)], False),
        (vec![(Active, True)], vec![(Active, Unknown), (Failed, Unknown)], False),
        (vec![(Active, True)], vec![(Active, True), (Superseded, Unknown)], False),
        (vec![(Active, True)], vec![(Active, True), (Abandoned, Unknown)], False),
        (vec![(Active, True)], vec![(Released, Unknown)], True),
        (vec![(Active, True), (Kept, Unknown)], vec![(Active, True), (Released, Unknown)], True),
        (vec![(Released, Unknown)], vec![(Released, Unknown)], False),
    ] {
        let mut w = World::declared(json!({"mitigations": [scale("a"), scale("b")]}));
        w.run();
        for (name, steps) in [("checkout-a", &first), ("checkout-b", &second)] {
            for (phase, effective) in steps {
                w.gets_to(name, *phase, *effective).run();
            }
        }
        assert_eq!(w.condition("Mitigated").status, status, "{first:?} {second:?}");
    }
}

#[test]
fn a_dry_run_mitigates_nothing_and_stands_in_nobodys_way() {
    let mut entry = scale("a");
    entry["dryRun"] = json!(true);
    let mut w = World::declared(json!({"mitigations": [entry]}));
    w.run().reaches("checkout-a", Phase::Pending);
    assert_eq!(w.says("Mitigated"), (False, "NothingDone"));
    w.edit("alice", json!({"resolution": {"summary": "fixed"}}));
    assert_eq!(w.says("Resolved"), (True, "Resolved"));
}

#[test]
fn no_mitigation_is_needed_only_when_that_is_said_and_none_is_lacking() {
    let mut w = World::declared(json!({"noMitigationNeeded": "it healed"}));
    w.run();
    assert_eq!(w.says("Mitigated"), (True, "NoneNeeded"));
    w.edit("alice", json!({"mitigations": [scale("a")]}));
    assert_eq!(w.says("Mitigated"), (False, "NotEffective"), "one is asked for all the same");
}

#[test]
fn mitigated_since_its_last_effect_or_since_what_lacked_was_taken_out() {
    let mut w = World::declared(json!({"mitigations": [scale("a"), scale("b")]}));
    w.run().wait(60).works("checkout-a").wait(60).gets_to("checkout-b", Phase::Active, True);
    w.wait(60).run();
    assert_eq!(w.status().milestones.mitigated_time.as_ref().unwrap().0, time("10:02:05"));

    let mut w = World::declared(json!({"mitigations": [scale("a"), scale("b")]}));
    w.run().wait(60).works("checkout-a").fails("checkout-b");
    w.wait(600).edit("alice", json!({"mitigations": [scale("a")]}));
    assert_eq!(w.status().milestones.mitigated_time.as_ref().unwrap().0, time("10:11:05"));
}

#[test]
fn an_undone_mitigation_goes_back_to_mitigate_and_says_so_once() {
    let mut w = mitigated("SEV1");
    let first = w.status().milestones.mitigated_time.clone();
    w.wait(60).fails("checkout-stop");
    assert_eq!((w.stage(), w.told("Reopened").len()), (Stage::Mitigate, 1));
    assert_eq!(w.status().milestones.mitigated_time, first, "the milestone is kept");
    w.wait(60).works("checkout-stop");
    assert_eq!((w.stage(), w.told("Mitigated").len()), (Stage::Resolve, 2));
    assert_eq!(w.status().milestones.mitigated_time, first);
}

#[test]
fn a_release_on_purpose_does_not_reopen() {
    let mut w = mitigated("SEV1");
    for phase in [Phase::Releasing, Phase::Released] {
        w.wait(60).reaches("checkout-stop", phase);
        assert_eq!((w.stage(), w.told("Reopened").len()), (Stage::Resolve, 0), "{phase}");
    }
}

#[test]
fn ready_means_that_this_generation_is_carried_out_and_not_that_the_outage_is_over() {
    let mut w = World::declared(json!({}));
    w.run();
    assert_eq!(w.says("Ready"), (True, "Settled"), "nothing is asked for");
    w.change("alice", json!({"mitigations": [scale("a")]})).step(&ALL);
    assert_eq!(w.says("Ready").0, False, "the object is being made");
    w.run().works("checkout-a");
    assert_eq!(w.says("Ready").0, True);
    let mut released = scale("a");
    released["desiredState"] = json!("Released");
    w.change("alice", json!({"mitigations": [released]})).step(&ALL);
    assert_eq!(w.says("Ready").0, False, "the edit is being carried over");
    w.run();
    assert_eq!(w.says("Ready").0, False, "what is said of the earlier edit does not count");
    w.reaches("checkout-a", Phase::Released);
    assert_eq!(w.says("Ready").0, True);
}

#[test]
fn what_is_refused_stalls_the_incident_until_it_is_taken_out_or_deleted() {
    let mut w = World::declared(json!({"mitigations": [scale("a"), scale("b")]}));
    w.run().works("checkout-a").reaches("checkout-b", Phase::Refused);
    assert_eq!((w.says("Stalled"), w.says("Ready").0), ((True, "MitigationRefused"), False));
    let mut deleted = World::declared(json!({"mitigations": [scale("a"), scale("b")]}));
    deleted.run().works("checkout-a").reaches("checkout-b", Phase::Refused).delete("checkout-b");
    w.edit("alice", json!({"mitigations": [scale("a")]}));
    for w in [&mut w, &mut deleted] {
        w.run();
        assert_eq!((w.says("Stalled").0, w.says("Ready").0, w.says("Mitigated").0), (False, True, True));
    }
}

/// A manual step that failed is one: nobody who waits for this incident would ever see more.
#[test]
fn one_in_force_that_waits_for_help_stalls_the_incident_until_its_edit_is_seen() {
    let mut w = World::declared(json!({"mitigations": [scale("a")]}));
    w.run().fails("checkout-a");
    assert_eq!((w.says("Stalled").0, w.says("Ready").0), (False, False), "it may work yet");
    let conditions = &mut w.object("checkout-a").status.as_mut().unwrap().conditions;
    conditions.iter_mut().find(|c| c.type_ == "Stalled").unwrap().status = True;
    w.run();
    assert_eq!((w.says("Stalled"), w.says("Ready").0), ((True, "MitigationRefused"), False));
    assert!(w.condition("Ready").message.contains("a: says Active"), "{}", w.condition("Ready").message);
    let mut edited = scale("a");
    edited["reason"] = json!("another reason");
    w.change("alice", json!({"mitigations": [edited]})).run();
    assert_eq!(
        (w.says("Stalled").0, w.says("Ready").0),
        (False, False),
        "what it said is of the earlier edit"
    );
    w.works("checkout-a");
    let conditions = &w.object("checkout-a").status.as_ref().unwrap().conditions;
    assert!(conditions.iter().any(|c| c.type_ == "Stalled" && c.status == False));
    assert_eq!((w.says("Stalled").0, w.says("Ready").0), (False, True));
}

#[test]
fn time_alone_changes_nothing_when_nothing_is_due() {
    for (severity, change) in [
        ("SEV5", json!({"checklist": done()})),
        ("SEV1", json!({"resolution": {"summary": "x", "waivers": [{"mitigation": "stop", "reason": "x"}]}})),
        ("SEV1", json!({"outcome": "FalseAlarm"})),
    ] {
        let mut w = mitigated(severity);
        w.edit("alice", change);
        let before = w.status().clone();
        let plan = w.wait(90 * 24 * 3600).plan();
        assert_eq!(difference(&before, &plan.status), "", "{severity}");
        assert!(plan.effects.is_empty() && plan.added.is_empty() && plan.wake.is_none());
    }
}

/// Every item of the checklist, ticked by hand.
fn done() -> serde_json::Value {
    let mut w = World::declared(json!({}));
    let items: Vec<_> =
        w.run().status().checklist.iter().map(|i| json!({"name": i.name, "state": "Done"})).collect();
    json!(items)
}

#[test]
fn a_stage_that_goes_back_is_told_once_with_what_is_missing() {
    let mut w = mitigated("SEV1");
    w.wait(60).edit("bob", json!({"impact": null})).run();
    let told = w.told("WentBack");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].message.starts_with("stage is Triage again (was Resolve): state spec.impact"),
        "{told:?}"
    );
    assert_eq!(told[0].author.as_deref(), Some("bob"));
    w.wait(60).edit("bob", json!({"impact": {"affectedTenants": 1}}));
    w.wait(60).fails("checkout-stop");
    assert_eq!((w.told("WentBack").len(), w.told("Reopened").len()), (1, 1), "that has an entry already");
}

#[test]
fn what_stays_in_force_by_a_waiver_is_on_record_at_the_resolution_and_at_the_end() {
    let mut w = mitigated("SEV4");
    let waivers = json!([{"mitigation": "stop", "reason": "until monday"}]);
    w.wait(60).edit("alice", json!({"resolution": {"summary": "fixed", "waivers": waivers}}));
    assert_eq!(w.stage(), Stage::Closed);
    assert_eq!(w.told("Resolved")[0].message, "resolved: fixed; stays in force: stop (until monday)");
    assert_eq!(w.told("Closed")[0].message, "incident closed; stays in force: stop (until monday)");
    w.wait(60).edit("alice", json!({"resolution": null}));
    assert_eq!(w.told("Reopened")[0].message, "reopened: the resolution was taken back");
}

#[test]
fn what_ended_otherwise_than_asked_keeps_nobody_waiting_and_is_not_told_as_in_place() {
    let mut w = World::declared(json!({"severity": "SEV2", "mitigations": [scale("stop"), scale("slow")]}));
    w.run().works("checkout-stop").works("checkout-slow");
    w.reaches("checkout-stop", Phase::Abandoned);
    assert_eq!((w.says("Ready"), w.says("Mitigated")), ((True, "Ended"), (False, "NotEffective")));
    assert_eq!(w.says("Stalled"), (False, "Settled"));
    let message = &w.condition("Ready").message;
    assert_eq!(message, "stop is Abandoned: says Abandoned; nothing further will be done");
    w.reaches("checkout-slow", Phase::Superseded);
    assert!(w.condition("Ready").message.contains("slow is Superseded"));
    assert_eq!(
        w.condition("Mitigated").message,
        "stop is Abandoned: says Abandoned; slow is Superseded: says Superseded; to go on, take stop, slow out of \
         spec.mitigations (what has worked counts), or ask for it there again under another name"
    );
    let told = w.told("Reopened");
    assert_eq!(
        told[0].message, "no longer mitigated: stop is Abandoned: says Abandoned",
        "the record advises nobody"
    );
    w.edit("alice", json!({"mitigations": []}));
    assert_eq!(w.says("Ready"), (True, "Settled"), "it is not asked for any more");
    assert_eq!(w.says("Mitigated"), (True, "Effective"), "and that is the way on that was told");
    // One that stands alone has no entry that could be taken out.
    let mut alone = World::declared(json!({"severity": "SEV2"}));
    alone.run().alone("bob", "drain").run().works("drain").reaches("drain", Phase::Superseded);
    let message = alone.condition("Mitigated").message.clone();
    assert!(message.ends_with("to go on, delete Mitigation drain (what has worked counts)"), "{message}");
    alone.delete("drain");
    alone.run();
    assert_eq!(alone.says("Mitigated"), (True, "Effective"));
}

#[test]
fn an_empty_resolution_is_told_that_it_declares_nothing() {
    let mut w = World::declared(json!({"resolution": {}}));
    w.run();
    assert!(w.condition("Resolved").message.starts_with("spec.resolution declares nothing yet"));
}
