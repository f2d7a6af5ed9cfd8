//! A real incident of fourteen and a half hours, replayed under a clock of its own and compared with a table made by
//! hand.
//!
//! The times are those of Amazon's summary of the disruption of DynamoDB in us-east-1 on 20 October 2025
//! (https://aws.amazon.com/message/101925/) and, for what the public was told until ten, of its status page, in UTC. The
//! words are our own. The declaration is put two minutes after the first errors, the people are invented, the updates to
//! the company are put at the times at which the summary reports progress, and scaling plays the part of each
//! mitigation.

use super::{world::scale, *};
use crate::api::{ClockName, Incident, MitigationPhase as Phase, Time};
use serde_json::json;

fn at(text: &str) -> Timestamp {
    format!("2025-10-20T{text}:00Z").parse().unwrap()
}

/// Something that happened.
enum Fact {
    /// The commander changes the spec.
    Edit(serde_json::Value),
    /// The communications lead tells an audience something.
    Told(&'static str, &'static str),
    /// A responder notes something.
    Noted(&'static str),
    /// A mitigation is asked for beside the others.
    Asked(&'static str),
    /// It works.
    Works(&'static str),
    /// It is taken out, and released.
    Ended(&'static str),
}

/// What is stated by hand of the time right after a fact: stage, and for the company, the public and the executives when
/// they are to be told next and how many deadlines were missed in all.
struct Row(&'static str, Fact, &'static str, [(&'static str, i32); 3]);

fn story() -> Vec<Row> {
    use Fact::*;
    let scope = json!({"impact": {"summary": "Requests to DynamoDB in us-east-1 fail", "affectedFeatures": ["dynamodb"],
        "components": [{"name": "dynamodb", "state": "MajorOutage"}]}});
    // Every 15 minutes; 5 after the declaration, 5 after the first post, every 20 for two hours, then every 4 hours; every
    // 30 minutes.
    vec![
        Row(
            "06:50",
            Noted("alarms on errors of the DynamoDB endpoint"),
            "Triage",
            [("07:05", 0), ("06:55", 0), ("07:20", 0)],
        ),
        Row(
            "07:11",
            Told("Public", "We see more errors in several services in us-east-1."),
            "Triage",
            [("07:05", 1), ("07:16", 1), ("07:20", 0)],
        ),
        Row(
            "07:38",
            Told("Internal", "the DNS record of the endpoint is empty"),
            "Triage",
            [("07:53", 3), ("07:16", 3), ("07:20", 1)],
        ),
        Row("07:40", Edit(scope), "Mitigate", [("07:53", 3), ("07:16", 3), ("07:20", 1)]),
        Row(
            "07:51",
            Told("Public", "Requests to DynamoDB fail."),
            "Mitigate",
            [("07:53", 3), ("08:11", 3), ("07:20", 2)],
        ),
        Row("07:55", Asked("bypass"), "Mitigate", [("07:53", 4), ("08:11", 3), ("07:20", 2)]),
        Row("08:15", Works("bypass"), "Resolve", [("07:53", 5), ("08:11", 4), ("07:20", 2)]),
        Row(
            "08:16",
            Told("Internal", "some services inside reach DynamoDB again"),
            "Resolve",
            [("08:31", 5), ("08:11", 4), ("07:20", 2)],
        ),
        Row(
            "08:26",
            Told("Public", "Requests to DynamoDB still fail."),
            "Resolve",
            [("08:31", 5), ("08:46", 4), ("07:20", 3)],
        ),
        Row(
            "09:01",
            Told("Public", "We found a likely cause in the resolution of names."),
            "Resolve",
            [("08:31", 8), ("09:21", 5), ("07:20", 4)],
        ),
        Row(
            "09:22",
            Told("Public", "We see first signs of recovery."),
            "Resolve",
            [("08:31", 9), ("13:22", 6), ("07:20", 5)],
        ),
        Row(
            "09:40",
            Told("Internal", "DNS is restored; caches expire"),
            "Resolve",
            [("09:55", 10), ("13:22", 6), ("07:20", 5)],
        ),
        Row(
            "10:03",
            Told("Public", "Services that need DynamoDB recover; some new instances do not start."),
            "Resolve",
            [("09:55", 11), ("14:03", 6), ("07:20", 6)],
        ),
        Row("11:14", Asked("throttle"), "Mitigate", [("09:55", 16), ("14:03", 6), ("07:20", 8)]),
        Row(
            "11:15",
            Told("Internal", "launches of instances are throttled"),
            "Mitigate",
            [("11:30", 16), ("14:03", 6), ("07:20", 8)],
        ),
        Row("12:28", Works("throttle"), "Resolve", [("11:30", 20), ("14:03", 6), ("07:20", 11)]),
        Row(
            "13:52",
            Noted("monitoring finds load balancers that lose capacity"),
            "Resolve",
            [("11:30", 26), ("14:03", 6), ("07:20", 14)],
        ),
        Row("16:36", Asked("freeze-failover"), "Mitigate", [("11:30", 37), ("14:03", 7), ("07:20", 19)]),
        Row("16:36", Works("freeze-failover"), "Resolve", [("11:30", 37), ("14:03", 7), ("07:20", 19)]),
        Row(
            "16:37",
            Told("Internal", "failover of load balancers is switched off"),
            "Resolve",
            [("16:52", 37), ("14:03", 7), ("07:20", 19)],
        ),
        Row("18:23", Ended("throttle"), "Resolve", [("16:52", 44), ("14:03", 8), ("07:20", 23)]),
        Row("21:09", Ended("freeze-failover"), "Resolve", [("16:52", 55), ("14:03", 8), ("07:20", 28)]),
        Row("21:10", Ended("bypass"), "Resolve", [("16:52", 55), ("14:03", 8), ("07:20", 28)]),
        Row(
            "21:20",
            Edit(json!({"resolution": {"summary": "every service has recovered"}})),
            "Postmortem",
            [("", 55), ("", 8), ("", 29)],
        ),
    ]
}

fn happen(w: &mut World, fact: &Fact, entries: &mut Vec<&'static str>) {
    let spec =
        |entries: &[&str]| json!({"mitigations": entries.iter().map(|name| scale(name)).collect::<Vec<_>>()});
    match fact {
        Fact::Edit(patch) => {
            w.edit("alice", patch.clone());
        }
        Fact::Told(audience, text) => {
            w.entry("carol", json!({"type": "StatusUpdate", "audience": audience, "message": text})).run();
        }
        Fact::Noted(text) => {
            w.entry("erin", json!({"message": text})).run();
        }
        Fact::Asked(name) => {
            entries.push(name);
            w.edit("alice", spec(entries));
        }
        Fact::Works(name) => {
            w.works(&format!("dynamodb-{name}"));
        }
        Fact::Ended(name) => {
            entries.retain(|entry| entry != name);
            w.edit("alice", spec(entries));
            w.reaches(&format!("dynamodb-{name}"), Phase::Released);
        }
    }
}

fn declared() -> World {
    let mut w = World::named(
        "dynamodb",
        json!({"title": "DynamoDB does not answer in us-east-1", "severity": "SEV1", "startTime": at("06:48"),
            "roles": {"incidentCommander": "alice", "communicationsLead": "carol", "operationsLead": "bob"},
            "communication": {"visibility": "Public"}}),
    );
    w.incident.metadata.creation_timestamp = Some(Time(at("06:50")));
    w.now = at("06:50");
    w.run();
    w
}

/// The clocks as the table has them.
fn clocks(incident: &Incident) -> [(String, i32); 3] {
    let all = &incident.status.as_ref().unwrap().communication;
    [ClockName::Internal, ClockName::Public, ClockName::Executives].map(|name| {
        let clock = all.iter().find(|c| c.audience == name).unwrap();
        let due = clock.next_due_time.as_ref().map(|t| t.0.strftime("%H:%M").to_string());
        (due.unwrap_or_default(), clock.overdue_count.unwrap_or(0))
    })
}

#[test]
fn a_real_incident_of_many_hours_goes_as_the_table_says() {
    let (mut w, mut entries) = (declared(), Vec::new());
    let mut looks = 0;
    for Row(when, fact, stage, expected) in &story() {
        looks += w.sleep_until(at(when));
        happen(&mut w, fact, &mut entries);
        let expected = expected.map(|(due, missed)| (due.to_owned(), missed));
        assert_eq!((w.stage().to_string().as_str(), clocks(&w.incident)), (*stage, expected), "at {when}");
    }
    let m = w.status().milestones.clone();
    let milestones = [
        m.started_time,
        m.detected_time,
        m.acknowledged_time,
        m.triaged_time,
        m.mitigated_time,
        m.resolved_time,
    ];
    let milestones = milestones.map(|t| t.unwrap().0.strftime("%H:%M").to_string());
    assert_eq!(milestones, ["06:48", "06:50", "06:50", "07:40", "08:15", "21:20"]);
    // The first recovery was not the last: two more mitigations took the incident back.
    let reopened: Vec<_> =
        w.told("Reopened").iter().map(|r| r.time.0.strftime("%H:%M").to_string()).collect();
    assert_eq!(reopened, ["11:14", "16:36"]);
    assert!(looks < 60, "{looks} looks in fourteen hours for deadlines alone");
    let overdue = w.told("UpdateOverdue").len();
    assert!(overdue < 60, "{overdue} entries tell of 92 missed deadlines");
    assert!(w.postmortem.is_some());
}

#[test]
fn the_texts_of_a_real_incident_are_those_written_by_hand() {
    let (mut w, mut entries) = (declared(), Vec::new());
    let text = |w: &World, name: ClockName| {
        w.status().communication.iter().find(|c| c.audience == name).and_then(|c| c.text.clone()).unwrap()
    };
    for Row(when, fact, ..) in &story() {
        w.sleep_until(at(when));
        happen(&mut w, fact, &mut entries);
        match *when {
            "08:16" => assert_eq!(
                text(&w, ClockName::Internal),
                "SEV1 Incident: DynamoDB does not answer in us-east-1\n\
                 Impact: Requests to DynamoDB in us-east-1 fail; dynamodb; dynamodb is down\n\
                 Start: 2025-10-20 06:48 UTC\nOwner: @alice\nNext update: in 15m (2025-10-20 08:31 UTC)"
            ),
            "07:51" => assert_eq!(
                text(&w, ClockName::Public),
                "Requests to DynamoDB fail.\n\nStatus: Identified\nNext update: by 2025-10-20 08:11 UTC"
            ),
            "09:22" => assert_eq!(
                text(&w, ClockName::Public),
                "We see first signs of recovery.\n\nStatus: Monitoring\nNext update: by 2025-10-20 13:22 UTC"
            ),
            "21:20" => {
                let internal = text(&w, ClockName::Internal);
                assert!(
                    internal.ends_with("Next update: none, resolved at 2025-10-20 21:20 UTC"),
                    "{internal}"
                );
                assert!(text(&w, ClockName::Public).ends_with("Status: Resolved"));
            }
            _ => {}
        }
    }
}

#[test]
fn an_operator_that_sleeps_between_the_facts_counts_the_same() {
    let (mut there, mut late) = (declared(), declared());
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for Row(when, fact, ..) in &story() {
        there.sleep_until(at(when));
        happen(&mut there, fact, &mut a);
        // Nobody looks before something happens.
        late.now = at(when);
        happen(&mut late, fact, &mut b);
        assert_eq!(clocks(&there.incident), clocks(&late.incident), "at {when}");
        assert_eq!(there.stage(), late.stage(), "at {when}");
    }
    assert!(late.told("UpdateOverdue").len() <= there.told("UpdateOverdue").len());
}
