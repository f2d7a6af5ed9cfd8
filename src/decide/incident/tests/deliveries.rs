//! What goes to channels.

use super::*;
use crate::api::{ClockName, ConditionStatus::True, Outbox};
use crate::config::read;
use crate::decide::outbox::Attempt;
use serde_json::{Value, json};

const CHANNELS: &str = "channels:\n- {name: chat, type: Slack, audience: Internal, urlFile: /u}\n- {name: page, type: Slack, audience: Public, urlFile: /u}\n";

fn declared(spec: Value) -> World {
    let mut w = World::declared(spec);
    w.settings = read(CHANNELS).unwrap();
    w.run();
    w
}

fn outbox(w: &World, audience: ClockName) -> Outbox {
    let found = w.status().communication.iter().find(|c| c.audience == audience);
    found.map(|c| c.outbox.clone()).unwrap_or_default()
}

/// Reason and text of what waits.
fn waiting(w: &World, audience: ClockName) -> Vec<(String, String)> {
    outbox(w, audience).messages.into_iter().map(|m| (m.reason, m.text)).collect()
}

fn update(w: &mut World, audience: &str, text: &str) {
    w.wait(61);
    w.entry("carol", json!({"type": "StatusUpdate", "audience": audience, "message": text}));
    w.run();
}

fn delivered(w: &mut World, channel: &str, audience: ChannelAudience, number: i64) {
    let result = Attempt::Delivered;
    let outcome =
        Outcome { channel: channel.into(), number, attempts: 1, time: w.now, result, remote_id: None };
    w.outcomes.push((audience, outcome));
    w.run();
}

fn public() -> Value {
    json!({"severity": "SEV2", "communication": {"visibility": "Public"}})
}

#[test]
fn without_channels_nothing_is_kept_of_messages() {
    let mut w = World::declared(public());
    w.run();
    update(&mut w, "Public", "we are on it");
    assert!(w.status().communication.iter().all(|c| c.outbox == Outbox::default()));
    assert!(!w.status().conditions.iter().any(|c| c.type_ == "Notified"));
}

#[test]
fn what_is_seen_at_one_time_is_one_message_with_the_weightiest_reason() {
    let w = declared(json!({"severity": "SEV2", "roles": {"incidentCommander": "alice"}}));
    let waiting = waiting(&w, ClockName::Internal);
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(waiting[0].0, "Declared");
    assert!(
        waiting[0].1.starts_with("SEV2 incident declared: Checkout fails (by alice)\n"),
        "{}",
        waiting[0].1
    );
    assert!(waiting[0].1.contains("alice has command"), "{}", waiting[0].1);
    assert_eq!(w.says("Notified"), (True, "Delivered"));
}

#[test]
fn the_public_hears_public_updates_word_for_word_and_nothing_else() {
    let mut w = declared(public());
    update(&mut w, "Internal", "db-7 is down");
    update(&mut w, "Responders", "try the replica");
    assert_eq!(waiting(&w, ClockName::Public), []);
    update(&mut w, "Public", "We are on it.\nNext update at 10:20.");
    let told = ("StatusUpdate".to_owned(), "We are on it.\nNext update at 10:20.".to_owned());
    assert_eq!(waiting(&w, ClockName::Public), [told]);
    let internal = waiting(&w, ClockName::Internal);
    assert!(internal.iter().any(|(_, text)| text == "db-7 is down (by carol)"), "{internal:?}");
    assert!(!internal.iter().any(|(_, text)| text.contains("replica")), "{internal:?}");
}

#[test]
fn of_the_end_the_public_hears_when_it_has_heard_of_the_incident() {
    let resolved = json!({"roles": {"incidentCommander": "alice"}, "impact": {"affectedTenants": 1},
        "noMitigationNeeded": "it heals", "resolution": {"summary": "db-7 restarted"}});
    let mut silent = declared(public());
    silent.edit("alice", resolved.clone());
    assert_eq!(waiting(&silent, ClockName::Public), []);
    let mut w = declared(public());
    update(&mut w, "Public", "We are on it.");
    w.edit("alice", resolved);
    let waiting = waiting(&w, ClockName::Public);
    assert_eq!(waiting[1], ("Resolved".to_owned(), "This incident has been resolved.".to_owned()));
    assert!(!waiting.iter().any(|(_, text)| text.contains("db-7")));
}

#[test]
fn of_an_end_that_was_none_the_public_hears_too_and_of_each_end_once() {
    for outcome in
        [json!({"outcome": "FalseAlarm"}), json!({"outcome": "Duplicate", "duplicateOf": {"name": "b"}})]
    {
        let mut w = declared(public());
        w.original = Some(Original::Found);
        update(&mut w, "Public", "We are on it.");
        w.edit("alice", outcome);
        let end = ("Resolved".to_owned(), "This incident has been resolved.".to_owned());
        assert_eq!(waiting(&w, ClockName::Public)[1..], [end]);
    }
    let mut w = declared(public());
    update(&mut w, "Public", "We are on it.");
    let resolved = json!({"roles": {"incidentCommander": "alice"}, "impact": {"affectedTenants": 1},
        "noMitigationNeeded": "it heals", "resolution": {"summary": "db-7 restarted"}});
    w.edit("alice", resolved).edit("alice", json!({"outcome": "FalseAlarm"}));
    assert_eq!(waiting(&w, ClockName::Public).len(), 2, "it was over already");
}

#[test]
fn a_page_that_was_told_hears_of_the_end_also_when_the_severity_was_lowered() {
    let mut w = World::declared(public());
    w.settings =
        read(&CHANNELS.replace("audience: Public,", "audience: Public, minSeverity: SEV2,")).unwrap();
    w.run();
    update(&mut w, "Public", "We are on it.");
    delivered(&mut w, "page", ChannelAudience::Public, 1);
    w.edit("alice", json!({"severity": "SEV4", "severityReason": "few"}));
    w.edit("alice", json!({"outcome": "FalseAlarm"}));
    assert_eq!(waiting(&w, ClockName::Public).len(), 1);
}

#[test]
fn executives_hear_what_is_for_them_and_the_end_when_they_have_heard_of_it() {
    let channels = CHANNELS.replace("audience: Public", "audience: Executives");
    let mut w = World::declared(json!({"severity": "SEV1"}));
    w.settings = read(&channels).unwrap();
    w.run();
    update(&mut w, "Internal", "db-7 is down");
    assert_eq!(outbox(&w, ClockName::Executives).messages, []);
    update(&mut w, "Executives", "The shop loses orders.");
    w.edit("alice", json!({"outcome": "FalseAlarm"}));
    let heard = waiting(&w, ClockName::Executives);
    assert_eq!(heard[0], ("StatusUpdate".to_owned(), "The shop loses orders. (by carol)".to_owned()));
    assert_eq!((heard.len(), heard[1].0.as_str()), (2, "Cancelled"));
}

#[test]
fn what_is_on_its_way_stays_while_nobody_knows_the_channels() {
    let mut w = declared(json!({"severity": "SEV2"}));
    let before = outbox(&w, ClockName::Internal);
    assert!(!before.messages.is_empty());
    w.settings = Settings::default().but_refused("line 1: no".into());
    w.run();
    assert_eq!(outbox(&w, ClockName::Internal), before);
    w.settings = Settings::default();
    w.run();
    assert_eq!(waiting(&w, ClockName::Internal), [], "now it is known that there is none");
}

#[test]
fn what_was_public_and_is_not_any_more_is_taken_back() {
    let mut w = declared(public());
    update(&mut w, "Public", "We are on it.");
    w.edit("alice", json!({"communication": {"visibility": "Internal"}}));
    assert_eq!(waiting(&w, ClockName::Public), []);
    update(&mut w, "Public", "for later");
    assert_eq!(waiting(&w, ClockName::Public), []);
}

#[test]
fn a_drill_tells_nobody() {
    let mut w =
        declared(json!({"drill": true, "severity": "SEV1", "communication": {"visibility": "Public"}}));
    update(&mut w, "Public", "We are on it.");
    for audience in [ClockName::Internal, ClockName::Public] {
        assert_eq!(outbox(&w, audience), Outbox::default());
    }
}

#[test]
fn what_is_told_of_deliveries_begets_no_message() {
    let mut w = declared(public());
    update(&mut w, "Internal", "still at it");
    let count = outbox(&w, ClockName::Internal).message_count.unwrap();
    for number in 1..=count {
        delivered(&mut w, "chat", ChannelAudience::Internal, number);
    }
    assert_eq!(w.told("UpdateSent").len(), 1);
    let after = outbox(&w, ClockName::Internal);
    assert_eq!((after.message_count, after.messages.len()), (Some(count), 0));
    assert_eq!(after.deliveries[0].number, count);
}
