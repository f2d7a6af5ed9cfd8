//! The texts to paste, and the briefing.

use super::{
    world::{mitigated, scale},
    *,
};
use crate::api::{ClockName, MitigationPhase as Phase, Stage};
use serde_json::{Value, json};

fn text(w: &World, name: ClockName) -> Option<String> {
    w.status().communication.iter().find(|c| c.audience == name)?.text.clone()
}

fn public(message: &str) -> Value {
    json!({"type": "StatusUpdate", "audience": "Public", "message": message})
}

#[test]
fn the_internal_text_is_the_template_of_the_playbook_filled_from_facts() {
    let mut w = World::declared(json!({}));
    w.run();
    assert_eq!(
        text(&w, ClockName::Internal).unwrap(),
        "Incident: Checkout fails\nImpact: not known yet\nStart: 2026-11-23 10:00 UTC\nOwner: nobody yet\n\
         Next update: in 1h (2026-11-23 11:00 UTC)"
    );
    w.edit(
        "alice",
        json!({"severity": "SEV2", "startTime": "2026-11-23T09:52:00Z", "roles": {"incidentCommander": "alice"},
            "impact": {"summary": "40 % of checkouts fail", "affectedTenants": 120, "affectedFeatures": ["checkout"],
                "components": [{"name": "checkout", "state": "PartialOutage"}], "dataAtRisk": "Suspected"}}),
    );
    assert_eq!(
        text(&w, ClockName::Internal).unwrap(),
        "SEV2 Incident: Checkout fails\n\
         Impact: 40 % of checkouts fail; 120 tenants; checkout; checkout works in part; data may be at risk\n\
         Start: 2026-11-23 09:52 UTC\nOwner: @alice\nNext update: in 15m (2026-11-23 10:15 UTC)"
    );
    w.now = time("10:16:00");
    w.run();
    assert!(
        text(&w, ClockName::Internal).unwrap().ends_with("Next update: overdue since 2026-11-23 10:15 UTC")
    );
    w.edit("alice", json!({"resolution": {"summary": "fixed"}, "drill": true}));
    let over = text(&w, ClockName::Internal).unwrap();
    assert!(
        over.starts_with("DRILL: SEV2")
            && over.ends_with("Next update: none, resolved at 2026-11-23 10:16 UTC"),
        "{over}"
    );
}

#[test]
fn the_public_text_is_what_a_public_update_said_and_nothing_else_of_the_incident() {
    let secret = json!({"title": "secret-title", "impact": {"summary": "secret-impact"}, "severity": "SEV1",
        "roles": {"incidentCommander": "secret-alice"}, "communication": {"visibility": "Public"}});
    let mut w = World::declared(secret);
    w.run();
    assert_eq!(text(&w, ClockName::Public), None, "nothing is said before somebody says it");
    w.entry("carol", json!({"type": "StatusUpdate", "message": "secret-internal"}));
    w.entry("carol", public("Some checkouts fail. We are looking into it.\n")).run();
    assert_eq!(
        text(&w, ClockName::Public).unwrap(),
        "Some checkouts fail. We are looking into it.\n\nStatus: Investigating\nNext update: by 2026-11-23 10:05 UTC"
    );
    w.wait(60).entry("carol", public("Payments by card fail in Europe.")).run();
    let now = text(&w, ClockName::Public).unwrap();
    assert!(now.starts_with("Payments by card") && !now.contains("secret"), "{now}");
    w.now = time("11:00:00");
    w.run();
    assert!(
        text(&w, ClockName::Public).unwrap().ends_with("Next update: as soon as there is news"),
        "no promise that is broken already"
    );
    w.edit("alice", json!({"resolution": {"summary": "secret-resolution"}}));
    assert_eq!(
        text(&w, ClockName::Public).unwrap(),
        "Payments by card fail in Europe.\n\nThis incident has been resolved.\n\nStatus: Resolved",
        "what is pasted says the same as what is sent"
    );
    w.edit("alice", json!({"communication": {"visibility": "Internal"}}));
    assert_eq!(text(&w, ClockName::Public), None, "it is not public any more");
}

#[test]
fn a_message_of_four_kilobytes_with_escapes_and_markup_is_kept_and_drives_no_terminal() {
    let nasty = "\u{1b}[31mred\u{1b}[0m <!channel> *bold* [x](http://y) \u{7}\u{202e}\r\n".repeat(80);
    let message: String = nasty.chars().chain("결제".repeat(4096).chars()).take(4096).collect();
    let mut w = World::declared(json!({"severity": "SEV1", "communication": {"visibility": "Public"}}));
    w.run().entry("carol", public(&message)).run();
    let kept = &w.told("StatusUpdate")[0].message;
    assert!(kept.contains("␛[31mred␛[0m <!channel> *bold* [x](http://y) ␇"), "{kept}");
    assert!(kept.chars().count() <= 4096 && kept.chars().count() > 3900);
    let all = serde_json::to_string(w.status()).unwrap();
    assert!(!all.contains("\\u001b") && !all.contains('\u{202e}') && !all.contains("\\u0007"));
    let text = text(&w, ClockName::Public).unwrap();
    assert!(text.chars().count() <= 8192 && text.contains("Status: Investigating"));
    for line in &w.status().briefing {
        assert!(!line.contains('\n') && line.chars().count() <= 2048);
    }
}

#[test]
fn a_title_with_line_breaks_and_markup_stays_in_its_line() {
    let mut w = World::declared(
        json!({"title": "a\nOwner: @mallory\u{1b}[2J", "roles": {"incidentCommander": "bob\nx"}}),
    );
    w.run();
    let text = text(&w, ClockName::Internal).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("Owner: @bob x"));
}

#[test]
fn the_briefing_says_what_happened_who_leads_what_was_done_whether_it_works_and_what_is_due() {
    let mut w =
        World::declared(json!({"severity": "SEV2", "impact": {"summary": "40 % fail", "affectedTenants": 2},
        "roles": {"incidentCommander": "alice", "operationsLead": "bob", "communicationsLead": "carol"},
        "mitigations": [scale("stop"), scale("slow")]}));
    w.run().works("checkout-stop").fails("checkout-slow");
    w.wait(60).entry("carol", json!({"type": "StatusUpdate", "message": "importer stopped"})).run();
    assert_eq!(
        w.status().briefing,
        [
            "SEV2, stage Mitigate: Checkout fails. Impact since 2026-11-23 10:00 UTC: 40 % fail; 2 tenants",
            "Lead: alice has command; operations lead bob (not confirmed); communications lead carol (not confirmed)",
            "Done: scale Deployment/stop: spec.replicas from 3 to 0; it works since 2026-11-23 10:00 UTC",
            "Done: scale Deployment/slow: spec.replicas from 3 to 0; it does NOT work (says Active)",
            "Last update at 2026-11-23 10:01 UTC: importer stopped",
            "To go on: slow is not effective: says Active",
            "Due next: rollback-or-flag by 2026-11-23 10:15 UTC; internal update by 2026-11-23 10:16 UTC; \
             update for executives by 2026-11-23 10:30 UTC; refresh of the incident document by 2026-11-23 14:01 UTC",
        ]
    );
    w.reaches("checkout-slow", Phase::Superseded);
    assert!(
        w.status().briefing[3].starts_with("Not in force: scale Deployment/slow"),
        "{:?}",
        w.status().briefing
    );
    w.now = time("10:20:00");
    w.run();
    let overdue = w.status().briefing.iter().find(|l| l.starts_with("Overdue: ")).unwrap();
    assert!(overdue.contains("internal update is overdue since 2026-11-23 10:16 UTC"), "{overdue}");
}

#[test]
fn the_briefing_says_what_is_in_the_way_and_asks_nobody_to_lead_what_is_over() {
    let mut w = World::declared(json!({"outcome": "Duplicate", "duplicateOf": {"name": "d0"}}));
    w.original = Some(Original::Missing);
    w.settings.refused = Some("line 3: unknown field".to_owned());
    w.run();
    let has = |w: &World, line: &str| w.status().briefing.iter().any(|l| l == line);
    for line in [
        "Warning: there is no incident d0 in this namespace: correct spec.duplicateOf",
        "Warning: the operator's configuration is refused: line 3: unknown field",
    ] {
        assert!(has(&w, line), "{line}: {:#?}", w.status().briefing);
    }
    w.original = Some(Original::Circle(vec!["checkout".to_owned()]));
    w.run();
    assert!(w.condition("Stalled").message.starts_with("it is named as a duplicate of itself"));
    w.original = Some(Original::Found);
    w.run();
    assert!(has(&w, "Lead: nobody has command"), "{:#?}", w.status().briefing);
}

#[test]
fn the_briefing_of_what_is_over_says_when_and_by_what_it_ended() {
    let has = |w: &World, line: &str| {
        assert!(w.status().briefing.iter().any(|l| l == line), "{line}: {:#?}", w.status().briefing);
    };
    let mut w = mitigated("SEV1");
    has(&w, "SEV1, stage Resolve: Checkout fails. Impact since 2026-11-23 10:00 UTC: 0 tenants");
    let waivers = json!([{"mitigation": "stop", "reason": "until monday"}]);
    w.wait(600).edit("alice", json!({"resolution": {"summary": "rate fixed", "waivers": waivers}}));
    let resolved = "Resolved at 2026-11-23 10:10 UTC: rate fixed; stays in force: stop (until monday)";
    has(&w, "SEV1, stage Postmortem: Checkout fails. Impact began 2026-11-23 10:00 UTC: 0 tenants");
    has(&w, resolved);
    w.wait(600).reviewed().run();
    assert_eq!(w.stage(), Stage::Closed);
    has(&w, resolved);
    w.wait(60).edit("alice", json!({"resolution": null}));
    assert!(!w.status().briefing.iter().any(|l| l.starts_with("Resolved at")), "it goes on");
    w.wait(600).edit("alice", json!({"outcome": "Duplicate", "duplicateOf": {"name": "cart"}}));
    w.original = Some(Original::Found);
    w.run();
    has(&w, "Cancelled at 2026-11-23 10:31 UTC: it is a duplicate of cart");
}

#[test]
fn the_briefing_says_what_a_declared_resolution_waits_for_whatever_the_stage() {
    let lines = |w: &World| {
        let waits = |line: &&String| line.starts_with("To go on: ") || line.contains("resolution");
        w.status().briefing.iter().filter(waits).cloned().collect::<Vec<_>>()
    };
    let mut w = World::declared(
        json!({"severity": "SEV2", "impact": {"summary": "x"}, "mitigations": [scale("stop")],
        "roles": {"incidentCommander": "alice"}, "exitCriteria": [{"description": "errors < 1 %"}]}),
    );
    w.run().fails("checkout-stop");
    assert_eq!(lines(&w), ["To go on: stop is not effective: says Active"]);
    w.edit("alice", json!({"resolution": {"summary": "it healed"}}));
    let waits = "exit criteria are not done: \"errors < 1 %\"; mitigations are still active: stop; release them, or \
                 waive each in spec.resolution.waivers";
    assert_eq!(w.stage(), Stage::Mitigate);
    assert_eq!(
        lines(&w),
        [
            "To go on: stop is not effective: says Active".to_owned(),
            format!("The declared resolution waits: {waits}")
        ]
    );
    w.works("checkout-stop");
    assert_eq!(w.stage(), Stage::Resolve);
    assert_eq!(lines(&w), [format!("To go on: {waits}")], "said once");
}

#[test]
fn who_is_named_and_has_not_confirmed_owns_it_with_that_word() {
    let mut w = World::declared(json!({"roles": {"incidentCommander": "bob"}}));
    w.run();
    let internal = text(&w, ClockName::Internal).unwrap();
    assert!(internal.contains("Owner: @bob (not confirmed)\n"), "{internal}");
    let asks = w.condition("RolesFilled").message.clone();
    w.edit("alice", json!({"roles": null}));
    assert!(asks.starts_with("every role"), "{asks}");
    let asks = &w.condition("RolesFilled").message;
    assert!(
        asks.starts_with("more roles are asked for, as for SEV3 until a severity is stated: name"),
        "{asks}"
    );
}
