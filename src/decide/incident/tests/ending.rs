//! Resolution, postmortem and cancellation, and the way back from each.

use super::{
    world::{mitigated, scale},
    *,
};
use crate::api::{
    ConditionStatus::{False, True},
    MitigationPhase as Phase, Stage,
};
use serde_json::json;

#[test]
fn a_resolution_counts_when_criteria_are_done_and_nothing_is_active_without_a_waiver() {
    for (state, phase, waiver, status) in [
        ("Done", Phase::Released, None, True),
        ("Todo", Phase::Released, None, False),
        ("Done", Phase::Active, None, False),
        ("Done", Phase::Pending, None, False),
        ("Done", Phase::Releasing, None, False),
        ("Done", Phase::Superseded, None, True),
        ("Done", Phase::Active, Some("stop"), True),
        ("Done", Phase::Active, Some("checkout-stop"), True),
        ("Done", Phase::Active, Some("another"), False),
        ("Todo", Phase::Active, Some("stop"), False),
    ] {
        let mut w = World::declared(json!({"severity": "SEV3", "mitigations": [scale("stop")]}));
        w.run();
        if phase != Phase::Pending {
            w.works("checkout-stop");
        }
        if phase != Phase::Active {
            w.reaches("checkout-stop", phase);
        }
        let waivers: Vec<_> =
            waiver.iter().map(|name| json!({"mitigation": name, "reason": "stays"})).collect();
        w.edit(
            "alice",
            json!({"exitCriteria": [{"description": "c", "state": state}],
                "resolution": {"summary": "fixed", "waivers": waivers}}),
        );
        assert_eq!(w.condition("Resolved").status, status, "{state} {phase} {waiver:?}");
        assert_eq!(w.stage() == Stage::Closed, status == True);
    }
}

#[test]
fn waivers_written_ahead_declare_no_resolution_and_release_nothing() {
    for resolution in
        [json!({}), json!({"summary": " "}), json!({"waivers": [{"mitigation": "a", "reason": "b"}]})]
    {
        let mut w = World::declared(json!({"resolution": resolution}));
        w.run();
        assert_eq!(w.says("Resolved"), (False, "NotDeclared"));
        assert_eq!(releases(&w.incident), None, "{resolution}");
    }
}

#[test]
fn a_resolution_does_not_count_before_the_mitigations_of_the_same_request_exist() {
    let mut w = World::declared(json!({"mitigations": [scale("a")], "resolution": {"summary": "fixed"}}));
    w.step(&ALL);
    assert_eq!(w.says("Resolved"), (False, "NotDone"));
    w.run();
    assert_eq!(w.told("Resolved").len(), 0);
    assert!(w.postmortem.is_none());
}

#[test]
fn taking_the_resolution_back_reopens_and_the_next_one_counts() {
    let mut w = mitigated("SEV1");
    w.reaches("checkout-stop", Phase::Released).wait(60);
    let resolved = json!({"resolution": {"summary": "fixed"}});
    w.edit("alice", resolved.clone());
    let first = w.status().milestones.resolved_time.clone().unwrap();
    w.reviewed().run();
    assert_eq!(w.stage(), Stage::Closed);
    w.wait(60).edit("bob", json!({"resolution": null}));
    assert_eq!((w.stage(), w.told("Reopened").len()), (Stage::Resolve, 1));
    let m = &w.status().milestones;
    assert_eq!((&m.resolved_time, &m.closed_time), (&None, &None));
    assert!(m.mitigated_time.is_some() && m.triaged_time.is_some());
    w.wait(60).edit("alice", resolved);
    assert_eq!((w.stage(), w.told("Resolved").len(), w.told("Closed").len()), (Stage::Closed, 2, 2));
    assert!(w.status().milestones.resolved_time.as_ref().unwrap().0 > first.0);
}

#[test]
fn a_resolved_incident_that_was_never_acknowledged_is_past_all_that_came_before() {
    for (severity, stage) in [("SEV1", Stage::Postmortem), ("SEV4", Stage::Closed)] {
        let mut w = World::declared(json!({"severity": severity, "resolution": {"summary": "it healed"}}));
        w.run();
        assert_eq!(w.stage(), stage);
        assert_eq!(w.says("Acknowledged"), (False, "NoCommander"), "and the condition keeps saying so");
        assert_eq!(w.says("Mitigated"), (True, "ResolvedWithout"));
        assert_eq!(w.status().milestones.acknowledged_time, None);
    }
}

#[test]
fn what_nobody_mitigated_is_not_on_record_as_mitigated_because_it_is_resolved() {
    use Phase::{Abandoned, Active, Released, Superseded};
    // What the mitigations go through; how often it is mitigated on record; and what is said once it is resolved.
    let cases: [(&[&[Phase]], usize, &str, &str); 4] = [
        (&[], 0, "ResolvedWithout", "the incident was resolved without a mitigation"),
        (
            &[&[Superseded]],
            0,
            "ResolvedAnyway",
            "the incident was resolved while a is Superseded: says Superseded",
        ),
        (
            &[&[Active, Superseded]],
            1,
            "ResolvedAnyway",
            "the incident was resolved while a is Superseded: says Superseded",
        ),
        (
            &[&[Superseded], &[Abandoned], &[Active, Released]],
            0,
            "ResolvedAnyway",
            "the incident was resolved while a is Superseded: says Superseded; b is Abandoned: says Abandoned",
        ),
    ];
    for (lives, told, reason, message) in cases {
        let names = &["a", "b", "c"][..lives.len()];
        let entries: Vec<_> = names.iter().map(|name| scale(name)).collect();
        let mut w = World::declared(json!({"severity": "SEV1", "mitigations": entries}));
        w.run();
        for (name, life) in names.iter().zip(lives) {
            for phase in *life {
                w.gets_to(&format!("checkout-{name}"), *phase, True).run();
            }
        }
        w.wait(60).edit("alice", json!({"resolution": {"summary": "it healed"}}));
        assert_eq!(w.stage(), Stage::Postmortem, "{lives:?}");
        assert_eq!((w.says("Mitigated"), w.told("Mitigated").len()), ((True, reason), told), "{lives:?}");
        assert_eq!(w.condition("Mitigated").message, message);
        assert_eq!(w.status().milestones.mitigated_time.is_some(), told > 0, "{lives:?}");
        let reopened = w.told("Reopened").len();
        assert_eq!(reopened, told, "what was undone before the resolution: {lives:?}");
        // It goes on: nothing was mitigated that would not be any more.
        w.wait(60).edit("alice", json!({"resolution": null}));
        let last = w.told("Reopened")[reopened..].iter().map(|r| r.message.clone()).collect::<Vec<_>>();
        assert_eq!(last, ["reopened: the resolution was taken back"], "{lives:?}");
        assert_eq!(w.condition("Mitigated").status, False);
        w.wait(60).edit("alice", json!({"mitigations": [], "noMitigationNeeded": "it healed"}));
        assert_eq!(w.told("Mitigated").len(), told + 1, "{lives:?}");
        assert!(w.status().milestones.mitigated_time.is_some());
    }
}

#[test]
fn what_begins_to_work_after_the_resolution_is_not_when_the_incident_was_mitigated() {
    let mut w = World::declared(json!({"severity": "SEV1", "mitigations": [scale("stop")]}));
    let waivers = json!([{"mitigation": "stop", "reason": "until monday"}]);
    w.run().edit("alice", json!({"resolution": {"summary": "it healed", "waivers": waivers}}));
    assert_eq!(w.says("Mitigated"), (True, "ResolvedAnyway"));
    w.wait(60).works("checkout-stop");
    assert_eq!((w.says("Mitigated"), w.told("Mitigated").len()), ((True, "Effective"), 0));
    assert_eq!(w.status().milestones.mitigated_time, None, "it would be later than the resolution");
    w.wait(60).edit("alice", json!({"resolution": null}));
    assert_eq!(w.told("Mitigated").len(), 1, "it goes on, and is mitigated");
    assert!(w.status().milestones.mitigated_time.is_some());
}

#[test]
fn nobody_is_asked_to_resolve_what_is_cancelled() {
    let mut w = World::declared(json!({"severity": "SEV1", "outcome": "FalseAlarm"}));
    w.run();
    assert_eq!((w.stage(), w.says("Resolved")), (Stage::Cancelled, (False, "Cancelled")));
    assert_eq!(w.condition("Resolved").message, "the incident is cancelled: there is nothing to resolve");
    w.edit("alice", json!({"outcome": "Genuine"}));
    assert_eq!(w.says("Resolved"), (False, "NotDeclared"));
}

#[test]
fn a_postmortem_is_drafted_once_when_the_severity_requires_one_and_only_then() {
    for (severity, required) in
        [(json!("SEV1"), true), (json!("SEV2"), true), (json!("SEV3"), false), (json!(null), false)]
    {
        let mut w = World::declared(json!({"severity": severity, "noMitigationNeeded": "x"}));
        w.run();
        assert!(w.postmortem.is_none(), "nothing is resolved yet");
        w.edit("alice", json!({"resolution": {"summary": "fixed"}}));
        assert_eq!(w.postmortem.is_some(), required, "{severity}");
        assert_eq!(w.stage(), if required { Stage::Postmortem } else { Stage::Closed });
        let name = required.then_some("checkout");
        assert_eq!(w.status().postmortem_ref.as_ref().map(|r| r.name.as_str()), name);
        if required {
            w.postmortem = None;
            w.run();
            assert_eq!(w.says("PostmortemComplete"), (False, "PostmortemGone"), "not drafted anew");
            assert!(w.postmortem.is_none());
        }
    }
}

#[test]
fn the_postmortem_of_an_earlier_incident_of_the_same_name_closes_nothing() {
    let resolved = json!({"severity": "SEV1", "noMitigationNeeded": "x", "resolution": {"summary": "fixed"}});
    let mut earlier = World::declared(resolved.clone());
    earlier.run().reviewed().run();
    assert_eq!(earlier.stage(), Stage::Closed);
    let mut w = World::declared(resolved);
    w.incident.metadata.uid = Some("another".into());
    w.postmortem = earlier.postmortem;
    let (name, uid) = ("checkout", w.incident.metadata.uid.as_ref());
    assert!(!crate::decide::postmortem::is_about(w.postmortem.as_ref().unwrap(), name, uid, None));
    let plan = w.plan();
    assert_eq!(plan.status.stage, Some(Stage::Postmortem));
    let [Effect::CreatePostmortem(draft)] = plan.effects.as_slice() else { panic!("{:?}", plan.effects) };
    w.postmortem = Some((**draft).clone());
    w.run().reviewed().run();
    assert_eq!(w.stage(), Stage::Closed);
}

#[test]
fn lowering_the_severity_makes_the_postmortem_unneeded_and_raising_it_asks_for_one_again() {
    let mut w = World::declared(json!({"severity": "SEV1", "resolution": {"summary": "fixed"}}));
    w.run();
    w.edit("alice", json!({"severity": "SEV3", "severityReason": "only one tenant"}));
    assert_eq!((w.stage(), w.says("PostmortemComplete")), (Stage::Closed, (True, "NotRequired")));
    let told = w.told("SeverityChanged");
    assert_eq!(told[0].message, "severity is SEV3 (was SEV1): only one tenant");
    w.edit("alice", json!({"severity": "SEV2"}));
    assert_eq!((w.stage(), w.status().milestones.closed_time.is_some()), (Stage::Postmortem, false));
    assert_eq!(
        w.told("SeverityChanged")[1].message,
        "severity is SEV2 (was SEV3)",
        "raising needs no reason"
    );
}

#[test]
fn a_false_alarm_or_duplicate_is_cancelled_whatever_else_is_true() {
    for outcome in
        [json!({"outcome": "FalseAlarm"}), json!({"outcome": "Duplicate", "duplicateOf": {"name": "other"}})]
    {
        let mut w = mitigated("SEV1");
        w.original = Some(Original::Found);
        w.edit("bob", outcome.clone());
        assert_eq!((w.stage(), w.told("Cancelled").len()), (Stage::Cancelled, 1), "{outcome}");
        assert_eq!(w.told("Cancelled")[0].author.as_deref(), Some("bob"));
        assert!(w.status().milestones.closed_time.is_some());
        assert_eq!(releases(&w.incident), Some("IncidentCancelled"));
        assert_eq!(w.says("PostmortemComplete"), (True, "NotRequired"));
        assert_eq!(w.says("Ready").0, False, "its mitigations are to be released");
        w.reaches("checkout-stop", Phase::Released);
        assert_eq!(w.says("Ready").0, True);
        assert_eq!(w.status().next_update_time, None);
        w.edit("bob", json!({"resolution": {"summary": "never mind"}}));
        assert_eq!(w.stage(), Stage::Cancelled);
        assert!(w.postmortem.is_none());
        w.edit("bob", json!({"outcome": "Genuine", "duplicateOf": null, "resolution": null}));
        assert_eq!((w.stage(), w.status().milestones.closed_time.is_some()), (Stage::Resolve, false));
        let reopened: Vec<_> = w.told("Reopened").iter().map(|r| r.message.clone()).collect();
        assert!(reopened.iter().any(|m| m.contains("not cancelled any more")), "{reopened:?}");
    }
}

#[test]
fn a_duplicate_of_nothing_or_in_a_circle_lets_go_of_nothing_and_says_what_to_correct() {
    for (original, reason) in [
        (Original::Missing, "OriginalNotFound"),
        (Original::Circle(vec!["checkout".into(), "b".into(), "c".into()]), "DuplicateCircle"),
    ] {
        let mut w = mitigated("SEV1");
        w.original = Some(original);
        w.edit("bob", json!({"outcome": "Duplicate", "duplicateOf": {"name": "other"}}));
        assert_eq!((w.says("Stalled"), w.says("Ready").0), ((True, reason), False));
        assert_eq!(
            (w.stage(), releases(&w.incident)),
            (Stage::Resolve, None),
            "its mitigations stay in force"
        );
        w.original = Some(Original::Found);
        w.run();
        assert_eq!((w.says("Stalled").0, w.stage()), (False, Stage::Cancelled));
        assert_eq!(releases(&w.incident), Some("IncidentCancelled"));
        // That the original goes later brings nothing back.
        w.original = Some(Original::Missing);
        w.run();
        assert_eq!((w.says("Stalled"), w.stage()), ((True, "OriginalNotFound"), Stage::Cancelled));
    }
}
