//! What the operator records: every fact exactly once, with the time and the author of what happened.

use super::{
    world::{is_sorted, scale},
    *,
};
use crate::api::{
    ConditionStatus::{True, Unknown},
    MitigationPhase as Phase,
};
use serde_json::json;
use std::collections::BTreeSet;

/// Reason, message, author and uid of everything on record; what is left are the times at which it was written.
fn facts(w: &World) -> Vec<(String, String, Option<String>, Option<String>)> {
    let mut facts: Vec<_> = w
        .record()
        .into_iter()
        .map(|r| (r.reason.clone(), r.message.clone(), r.author.clone(), r.entry_uid.clone()))
        .collect();
    facts.sort_unstable();
    facts
}

/// A life with a bit of everything; `look` is called after each thing that happens.
fn life(look: &mut dyn FnMut(&mut World)) -> World {
    let mut w = World::declared(json!({"severity": "SEV1", "mitigations": [scale("stop"), scale("slow")]}));
    let mut on = |w: &mut World| {
        look(w);
        w.run().wait(60);
    };
    on(&mut w);
    w.change(
        "bob",
        json!({"severity": "SEV2", "severityReason": "one tenant",
        "roles": {"incidentCommander": "alice", "scribe": "erin"}}),
    );
    on(&mut w);
    w.entry("alice", json!({"type": "Acknowledgement"})).entry("erin", json!({"message": "a note"}));
    on(&mut w);
    w.change("alice", json!({"impact": {"summary": "40 %"}}));
    on(&mut w);
    w.gets_to("checkout-stop", Phase::Active, True).gets_to("checkout-slow", Phase::Active, Unknown);
    on(&mut w);
    w.gets_to("checkout-slow", Phase::Active, True);
    on(&mut w);
    w.gets_to("checkout-slow", Phase::Superseded, Unknown);
    on(&mut w);
    w.change("alice", json!({"mitigations": [scale("stop")], "resolution": {"summary": "fixed"}}));
    on(&mut w);
    w.delete("checkout-stop");
    w.gets_to("checkout-stop", Phase::Released, Unknown);
    on(&mut w);
    w.reviewed();
    on(&mut w);
    w.change("alice", json!({"resolution": null}));
    on(&mut w);
    w
}

#[test]
fn the_record_is_the_same_whatever_is_lost_after_anything_that_happens() {
    let whole = life(&mut |_| {});
    let told: BTreeSet<_> = whole.record().iter().map(|r| r.reason.clone()).collect();
    for reason in [
        "Acknowledged",
        "Acknowledgement",
        "Closed",
        "Declared",
        "Mitigated",
        "MitigationApplied",
        "MitigationEffective",
        "MitigationReleased",
        "MitigationSuperseded",
        "Note",
        "Reopened",
        "Resolved",
        "RoleAssigned",
        "SeverityChanged",
        "Triaged",
    ] {
        assert!(told.contains(reason), "{reason}");
    }
    for mask in 0u32..16 {
        let parts: Vec<Part> =
            ALL.into_iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, p)| p).collect();
        let lossy = life(&mut |w| {
            for _ in 0..3 {
                w.step(&parts);
                w.wait(7);
            }
        });
        assert_eq!(facts(&lossy), facts(&whole), "only {parts:?} survives");
    }
}

#[test]
fn deciding_twice_on_the_same_facts_adds_nothing() {
    let w = life(&mut |w| {
        w.run();
        let before = w.incident.status.clone().unwrap();
        let plan = w.wait(1).plan();
        assert_eq!((plan.added.as_slice(), plan.status), ([].as_slice(), before));
    });
    assert!(is_sorted(&w.status().timeline));
}

#[test]
fn what_happened_unseen_is_told_with_the_time_it_happened() {
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    w.run().wait(60).gets_to("checkout-stop", Phase::Active, True);
    w.wait(60).gets_to("checkout-stop", Phase::Released, Unknown);
    w.wait(3600).run();
    for (reason, at) in [
        ("MitigationApplied", "10:01:05"),
        ("MitigationEffective", "10:01:05"),
        ("MitigationReleased", "10:02:05"),
    ] {
        let told = w.told(reason);
        assert_eq!(told.len(), 1, "{reason}");
        assert_eq!((told[0].time.0, told[0].recorded_time.0), (time(at), w.now), "{reason}");
    }
}

#[test]
fn a_mitigation_that_was_seen_while_it_was_being_applied_is_told_as_applied_once() {
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    w.run();
    for phase in [Phase::Pending, Phase::AwaitingApproval, Phase::Applying, Phase::Active, Phase::Releasing] {
        w.reaches("checkout-stop", phase);
    }
    assert_eq!(w.told("MitigationApplied").len(), 1);
    assert_eq!(
        w.told("MitigationApplied")[0].message,
        "scale Deployment/stop: replicas from 3 to 0 (floods)"
    );
}

#[test]
fn an_effect_that_comes_back_is_told_again_with_its_own_time() {
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    w.run()
        .works("checkout-stop")
        .wait(60)
        .fails("checkout-stop")
        .wait(60)
        .works("checkout-stop")
        .wait(60)
        .run();
    let times: Vec<_> = w.told("MitigationEffective").iter().map(|r| r.time.0).collect();
    assert_eq!(times, [time("10:00:05"), time("10:02:05")]);
    assert_eq!(w.told("MitigationNotEffective").len(), 1);
}

#[test]
fn refusal_and_expiry_are_told_once() {
    let mut w = World::declared(json!({"mitigations": [scale("no"), scale("long")]}));
    w.run().reaches("checkout-no", Phase::Refused).works("checkout-long").wait(600);
    let now = w.now;
    w.object("checkout-long").status.as_mut().unwrap().expired_time = Some(crate::api::Time(now));
    w.run().wait(600).run();
    assert_eq!((w.told("MitigationRefused").len(), w.told("MitigationExpired").len()), (1, 1));
    assert_eq!(w.told("MitigationExpired")[0].time.0, now);
}

#[test]
fn what_became_of_the_evidence_is_told_once_each() {
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    w.run().works("checkout-stop");
    for (status, reason, words) in [
        ("False", "NotRequested", "not asked for"),
        ("Unknown", "Capturing", "being kept"),
        ("False", "Failed", "refused"),
        ("False", "Failed", "refused again"),
        ("True", "Captured", "7 items"),
    ] {
        let condition = json!({"type": "EvidenceCaptured", "status": status, "reason": reason, "message": words,
            "lastTransitionTime": w.now.to_string()});
        let conditions = &mut w.object("checkout-stop").status.as_mut().expect("it works").conditions;
        conditions.retain(|c| c.type_ != "EvidenceCaptured");
        conditions.push(serde_json::from_value(condition).expect("a condition"));
        let kept = json!({"configMap": "checkout-stop-evidence", "sha256": "0", "items": 7, "missing": ["a log", "another"]});
        if status == "True" {
            w.object("checkout-stop").status.as_mut().expect("it works").evidence =
                Some(serde_json::from_value(kept).expect("evidence"));
        }
        w.run().wait(60);
    }
    // Another look at what was kept, by a process that knows nothing of it yet.
    w.object("checkout-stop")
        .status
        .as_mut()
        .expect("it works")
        .conditions
        .retain(|c| c.type_ != "EvidenceCaptured");
    w.run();
    let told = |reason| w.told(reason).iter().map(|r| r.message.clone()).collect::<Vec<_>>();
    assert_eq!(told("EvidenceMissing"), ["scale Deployment/stop: no evidence, refused"]);
    assert_eq!(
        told("EvidenceKept"),
        [
            "scale Deployment/stop: evidence was kept, 7 items are in ConfigMap checkout-stop-evidence; 2 more could not be had, as its status says"
        ]
    );
}

#[test]
fn an_entry_of_the_operator_names_who_caused_it_and_whether_the_api_server_vouches_for_that() {
    for signed in [true, false] {
        let mut w = World::declared(json!({"title": "a\u{1b}[31m\nb"}));
        w.signed = signed;
        w.run();
        w.edit("bob", json!({"severity": "SEV2", "roles": {"deputy": "dave"}}));
        w.edit("carol", json!({"mitigations": [scale("stop")]}));
        w.edit("erin", json!({"title": "another"}));
        w.works("checkout-stop");
        for (reason, author) in [
            ("Declared", Some("alice")),
            ("SeverityChanged", Some("bob")),
            ("RoleAssigned", Some("bob")),
            ("MitigationApplied", Some("carol")),
            ("MitigationEffective", None),
            ("Mitigated", None),
        ] {
            let told = w.told(reason);
            assert_eq!(told[0].author.as_deref(), author, "{reason}");
            assert_eq!(told[0].authenticated, author.map(|_| signed), "{reason}");
        }
        assert_eq!(w.told("Declared")[0].message, "incident declared: a [31m b", "one line for a terminal");
    }
}

#[test]
fn what_a_mitigation_changed_and_why_stays_on_record_when_its_object_is_gone() {
    let mut w = World::declared(json!({"severity": "SEV1", "mitigations": [scale("stop")]}));
    w.run();
    assert_eq!(w.summary("checkout-stop").change, None);
    w.works("checkout-stop").reaches("checkout-stop", Phase::Released);
    w.object("checkout-stop").status.as_mut().unwrap().prior.clear();
    w.run();
    w.mitigations.clear();
    w.run();
    let gone = w.summary("checkout-stop");
    assert_eq!(gone.reason.as_deref(), Some("floods"));
    assert_eq!(gone.change.as_deref(), Some("spec.replicas from 3 to 0"));
    assert!(gone.applied_time.is_some() && gone.effective_time.is_some() && gone.released_time.is_some());
}

#[test]
fn a_change_names_the_field_and_both_values() {
    let says = |prior: serde_json::Value| {
        let mut w = World::declared(json!({"severity": "SEV1", "mitigations": [scale("stop")]}));
        w.run().works("checkout-stop");
        let status = w.object("checkout-stop").status.as_mut().unwrap();
        status.prior = serde_json::from_value(prior).unwrap();
        w.run().summary("checkout-stop").change.clone()
    };
    let field =
        |path: &str, value: Option<&str>| json!([{"path": path, "value": value, "applied": "\"off\""}]);
    assert_eq!(
        says(field("/data/new-pricing", Some("\"on\""))).as_deref(),
        Some(r#"data.new-pricing from "on" to "off""#)
    );
    assert_eq!(
        says(field("/data/a~1b~0c", None)).as_deref(),
        Some(r#"data.a/b~c set to "off", where nothing was set"#)
    );
    assert_eq!(
        says(field("/data/x", Some("\"off\""))).as_deref(),
        Some(r#"nothing: data.x was "off" already"#)
    );
    let inside = json!([{"object": "ConfigMap/flags", "path": "/data/flags.json", "value": "true", "applied": "false",
        "how": r#"{"Inside": {"format": "Json", "path": ["pricing", "on"]}}"#}]);
    assert_eq!(
        says(inside).as_deref(),
        Some("pricing.on in data.flags.json of ConfigMap/flags from true to false")
    );
    let member = r#"{"Member": {"item": "shop-mit@kubernetescrd"}}"#;
    let entry = json!([{"path": "/metadata/annotations/list", "applied": "\"shop-mit@kubernetescrd\"", "how": member}]);
    assert_eq!(
        says(entry).as_deref(),
        Some(r#""shop-mit@kubernetescrd" added to metadata.annotations.list"#),
        "the list was there and stays"
    );
    let beside = json!([{"path": "/spec/burst", "value": "10", "applied": "10"},
        {"path": "/spec/average", "value": "500", "applied": "10"}]);
    assert_eq!(says(beside).as_deref(), Some("spec.average from 500 to 10"), "what stays is no change");
    let emptied = json!([{"path": "/data/flags.json", "value": r#"{"raw": "{\"if\": [1]}"}"#, "applied": r#"{"raw":"{}"}"#,
        "how": r#"{"Inside": {"format": "Json", "path": ["pricing", "targeting"]}}"#}]);
    assert_eq!(
        says(emptied).as_deref(),
        Some(r#"pricing.targeting in data.flags.json emptied; it was {"if": [1]}"#)
    );
    let large = json!([{"path": "/spec/template", "value": "{\"sha256\":\"a\"}", "applied": "{\"sha256\":\"b\"}", "how": "\"Digest\""}]);
    assert_eq!(says(large).as_deref(), Some("spec.template replaced as a whole"));
    let removed = json!([{"path": "/spec/paused", "value": "true"}]);
    assert_eq!(says(removed).as_deref(), Some("spec.paused removed; it was true"));
    let long = says(field("/data/x", Some(&"x".repeat(60_000)))).unwrap();
    assert!(long.chars().count() < 400, "{long}");
}

/// Author of the one entry with this word, and whether the API server vouches for it.
fn author<'w>(w: &'w World, reason: &str) -> (Option<&'w str>, Option<bool>) {
    let told = w.told(reason);
    assert_eq!(told.len(), 1, "{reason}");
    (told[0].author.as_deref(), told[0].authenticated)
}

#[test]
fn who_edits_before_anybody_looked_is_not_taken_for_who_declared() {
    let asked = json!({"severity": "SEV2", "impact": {"affectedTenants": 3}, "mitigations": [scale("stop")]});
    let mut w = World::declared(asked.clone());
    w.change("bob", json!({"title": "Checkout fails for all", "service": "checkout"})).run();
    let mut longer = scale("stop");
    longer["verification"] = json!({"timeout": "5m"});
    w.gets_to("checkout-stop", Phase::Active, True).change("bob", json!({"mitigations": [longer]})).run();
    for reason in ["Declared", "Triaged", "MitigationApplied"] {
        assert_eq!(author(&w, reason), (Some("alice"), Some(true)), "{reason}");
    }
    // Who states what was missing is who completes it.
    for (first, second) in [
        (json!({"severity": "SEV2"}), json!({"impact": {"affectedTenants": 3}})),
        (json!({"impact": {"affectedTenants": 3}}), json!({"severity": "SEV2"})),
    ] {
        for look in [true, false] {
            let mut w = World::declared(first.clone());
            if look {
                w.run();
            }
            w.change("bob", second.clone()).change("carol", json!({"title": "another"})).run();
            assert_eq!(author(&w, "Triaged"), (Some("bob"), Some(true)), "{second}");
        }
        let mut w = World::declared(json!({}));
        w.run().edit("bob", first.clone());
        w.change("alice", second.clone()).change("carol", json!({"title": "another"})).run();
        assert_eq!(author(&w, "Triaged"), (Some("alice"), Some(true)), "{second}");
    }
}

#[test]
fn a_release_is_told_with_who_asked_for_it_and_of_a_deletion_it_is_told_that_nobody_knows() {
    let on_resolve = |name| {
        let mut entry = scale(name);
        entry["releaseOn"] = json!("Resolve");
        entry
    };
    let released = |name| {
        let mut entry = scale(name);
        entry["desiredState"] = json!("Released");
        entry
    };
    type Ask = fn(&mut World, Vec<serde_json::Value>);
    let asks: [(Ask, Option<&str>); 5] = [
        (
            |w, _| {
                w.change("bob", json!({"mitigations": [scale("slow")]}));
            },
            Some("bob"),
        ),
        (
            |w, e| {
                w.change("bob", json!({"mitigations": [e[1], scale("slow")]}));
            },
            Some("bob"),
        ),
        (
            |w, _| {
                w.change("bob", json!({"resolution": {"summary": "fixed"}}));
            },
            Some("bob"),
        ),
        (
            |w, _| {
                w.change("bob", json!({"outcome": "FalseAlarm"}));
            },
            Some("bob"),
        ),
        (|w, _| w.delete("checkout-stop"), None),
    ];
    for (ask, by) in asks {
        let mut w =
            World::declared(json!({"severity": "SEV2", "mitigations": [on_resolve("stop"), scale("slow")]}));
        w.run().works("checkout-stop").works("checkout-slow");
        let mut entry = released("stop");
        entry["releaseOn"] = json!("Resolve");
        ask(&mut w, vec![on_resolve("stop"), entry]);
        w.run().reaches("checkout-stop", Phase::Releasing);
        // What others edit while it is being undone is not its release.
        w.edit("carol", json!({"title": "another", "impact": {"summary": "none"}}));
        w.gets_to("checkout-stop", Phase::Released, Unknown).run();
        assert_eq!(author(&w, "MitigationReleased"), (by, Some(by.is_some())), "{by:?}");
    }
    // What ends by itself, the operator ended.
    let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
    w.run().works("checkout-stop").reaches("checkout-stop", Phase::Released);
    assert_eq!(author(&w, "MitigationReleased"), (None, None));
    for (phase, reason) in
        [(Phase::Superseded, "MitigationSuperseded"), (Phase::Abandoned, "MitigationAbandoned")]
    {
        let mut w = World::declared(json!({"mitigations": [scale("stop")]}));
        w.run().works("checkout-stop").reaches("checkout-stop", phase);
        assert_eq!(author(&w, reason), (None, Some(false)), "a person or program that is not told");
    }
}

#[test]
fn what_was_withdrawn_before_anything_was_changed_is_not_told_as_a_release() {
    let mut w = World::declared(json!({"severity": "SEV2", "mitigations": [scale("stop"), scale("slow")]}));
    w.run().reaches("checkout-stop", Phase::Pending);
    w.edit("bob", json!({"mitigations": [scale("slow")]})).reaches("checkout-stop", Phase::Released);
    assert_eq!(author(&w, "MitigationWithdrawn"), (Some("bob"), Some(true)));
    assert!(w.told("MitigationReleased").is_empty());
    let briefing = &w.status().briefing;
    let line = briefing.iter().find(|line| line.contains("Deployment/stop")).unwrap();
    assert_eq!(line, "Not done: scale Deployment/stop; withdrawn before anything was changed");
    let mut dry = scale("slow");
    dry["dryRun"] = json!(true);
    let mut w = World::declared(json!({"severity": "SEV2", "mitigations": [dry]}));
    w.run();
    assert!(w.status().briefing.contains(&"Done: nothing yet".to_owned()), "{:?}", w.status().briefing);
    // A dry run was never announced, so there is nothing to take back.
    w.reaches("checkout-slow", Phase::Pending).wait(60);
    w.edit("bob", json!({"mitigations": []})).reaches("checkout-slow", Phase::Released);
    assert!(w.told("MitigationWithdrawn").is_empty(), "{:#?}", w.record());
}
