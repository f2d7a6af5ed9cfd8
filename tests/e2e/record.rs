//! The command record as people see it: roles, severity, checklist, clocks, texts, and what is wrong with what they
//! stated.

use super::support::record::{incident_says, incident_when, stage, told};
use super::support::workload::{configmap, deployment, entry, incident};
use super::support::*;
use incident_operator::api::{
    AudienceStatus, ChecklistItem, ChecklistState, ClockName, Incident, Postmortem, TimelineEntry,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

async fn change(namespace: &TestNamespace, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    namespace
        .api::<Incident>()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("it can be changed");
}

fn item<'a>(incident: &'a Incident, name: &str) -> Option<&'a ChecklistItem> {
    incident.status.as_ref()?.checklist.iter().find(|i| i.name == name)
}

fn clock(incident: &Incident, name: ClockName) -> Option<&AudienceStatus> {
    incident.status.as_ref()?.communication.iter().find(|c| c.audience == name)
}

fn with(mut entry: Value, field: &str, value: Value) -> Value {
    entry["spec"][field] = value;
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn command_is_handed_over_when_the_successor_confirms_and_who_was_just_woken_reads_it_in_describe() {
    let namespace = TestNamespace::new("handoff").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let [alice, bob, mallory] = [
        namespace.person("alice", &[]).await,
        namespace.person("bob", &[]).await,
        namespace.person("mallory", &[]).await,
    ];
    alice
        .create(&incident(
            "errors",
            json!({"title": "Checkout fails", "severity": "SEV1", "impact": {"affectedTenants": 12},
                "roles": {"incidentCommander": "alice", "operationsLead": "alice"}}),
        ))
        .await
        .expect("they may");
    let errors = incident_when(&namespace, "errors", "command", |i| stage(i) == "Mitigate").await;
    assert!(incident_says(&errors, "DutiesSeparated").starts_with("False OneForTwo"));
    assert!(incident_says(&errors, "RolesFilled").contains("communications lead"));

    alice
        .merge(&incident("errors", json!({})), json!({"spec": {"roles": {"incidentCommander": "bob"}}}))
        .await
        .expect("they may");
    let errors = incident_when(&namespace, "errors", "handover", |i| {
        incident_says(i, "Acknowledged").starts_with("True HandingOver")
    })
    .await;
    assert_eq!(errors.status.as_ref().and_then(|s| s.commander.as_deref()), Some("alice"));

    mallory.create(&entry("errors", "Acknowledgement", "I take it")).await.expect("they may");
    incident_when(&namespace, "errors", "answer to mallory", |i| !told(i, "NothingToAcknowledge").is_empty())
        .await;
    bob.create(&entry("errors", "Acknowledgement", "I have it")).await.expect("they may");
    let errors = incident_when(&namespace, "errors", "new command", |i| {
        incident_says(i, "Acknowledged") == "True Commanded: bob has command"
    })
    .await;
    let handed = told(&errors, "CommandHandedOver");
    assert_eq!(
        (handed.len(), handed[0].author.as_deref(), handed[0].authenticated),
        (1, Some("bob"), Some(true))
    );

    let row = namespace.kubectl(&["get", "incident", "errors", "--no-headers"]).stdout;
    assert_eq!(
        row.split_whitespace().take(5).collect::<Vec<_>>(),
        ["errors", "SEV1", "Mitigate", "bob", "0"],
        "{row}"
    );
    let text = namespace.kubectl(&["describe", "incident", "errors"]).stdout;
    let briefing = text.split("Briefing:").nth(1).expect("describe has the briefing");
    for line in [
        "SEV1, stage Mitigate: Checkout fails",
        "Lead: bob has command",
        "Done: nothing yet",
        "To go on: no mitigation",
        "Due next: ",
    ] {
        assert!(briefing.contains(line), "{line}:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lowering_the_severity_asks_for_a_reason_until_there_is_one() {
    let namespace = TestNamespace::new("severity").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let bob = namespace.person("bob", &[]).await;
    namespace
        .create(incident(
            "slow",
            json!({"title": "t", "severity": "SEV2", "detection": {"time": "2026-01-05T10:00:00Z"}}),
        ))
        .await;
    let due = |i: &Incident| {
        clock(i, ClockName::Internal).and_then(|c| c.next_due_time.clone()).map(|t| t.0.to_string())
    };
    incident_when(&namespace, "slow", "clock", |i| due(i).as_deref() == Some("2026-01-05T10:15:00Z")).await;
    bob.merge(&incident("slow", json!({})), json!({"spec": {"severity": "SEV3"}})).await.expect("they may");
    let slow = incident_when(&namespace, "slow", "question", |i| {
        incident_says(i, "SeverityExplained").starts_with("False ReasonWanted")
    })
    .await;
    assert!(
        incident_says(&slow, "SeverityExplained").contains("by bob"),
        "{}",
        incident_says(&slow, "SeverityExplained")
    );
    assert_eq!(due(&slow).as_deref(), Some("2026-01-05T11:00:00Z"), "from the detection, not from now");
    bob.create(&entry("slow", "Decision", "only one tenant")).await.expect("they may");
    incident_when(&namespace, "slow", "answer", |i| {
        incident_says(i, "SeverityExplained") == "True Explained: only one tenant"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checklist_names_the_revision_and_the_flags_that_lead_back_without_a_list_and_people_tick_the_rest()
 {
    let namespace = TestNamespace::new("checklist").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("checkout", 1)).await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/main:2"}]}}}});
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = namespace.api();
    deployments
        .patch("checkout", &PatchParams::default(), &Patch::Strategic(image))
        .await
        .expect("a rollout begins");
    wait_status(&deployments, "checkout", "second revision", |d| {
        d.status.as_ref().and_then(|s| s.observed_generation) >= Some(2)
            && d.status.as_ref().and_then(|s| s.updated_replicas) == Some(1)
    })
    .await;
    let mut flags = configmap("checkout-flags", &[("new-pricing", "on")]);
    flags["metadata"]["labels"] = json!({"app.kubernetes.io/name": "checkout"});
    namespace.create(flags).await;
    let dave = namespace.person("dave", &[]).await;
    dave.create(&incident("back", json!({"title": "t", "severity": "SEV1", "service": "checkout"})))
        .await
        .expect("they may");
    let back = incident_when(&namespace, "back", "way back", |i| {
        item(i, "rollback-or-flag").is_some_and(|i| i.state == ChecklistState::Done)
    })
    .await;
    assert_eq!(
        item(&back, "rollback-or-flag").and_then(|i| i.note.as_deref()),
        Some(
            "Deployment/checkout can be rolled back to revision 1, registry.example/main:1; \
             ConfigMap/checkout-flags holds flags: new-pricing"
        )
    );
    let ticked = json!([{"name": "internal-draft-ready", "state": "Done", "note": "sent by mail"}]);
    dave.merge(&incident("back", json!({})), json!({"spec": {"checklist": ticked}})).await.expect("they may");
    let back = incident_when(&namespace, "back", "tick", |i| {
        item(i, "internal-draft-ready").is_some_and(|i| i.state == ChecklistState::Done)
    })
    .await;
    let ticked = item(&back, "internal-draft-ready").expect("it is there");
    assert_eq!((ticked.done_by.as_deref(), ticked.note.as_deref()), (Some("dave"), Some("sent by mail")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missed_is_told_once_also_when_the_operator_was_down_meanwhile() {
    let namespace = TestNamespace::new("missed").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let spec = json!({"title": "t", "severity": "SEV4", "communication": {"updateInterval": "2s"},
        "checklist": [{"name": "call-the-bank", "within": "2s"}]});
    namespace.create(incident("late", spec)).await;
    let missed = |i: &Incident| clock(i, ClockName::Internal).and_then(|c| c.overdue_count).unwrap_or(0);
    let late = incident_when(&namespace, "late", "first miss", |i| {
        missed(i) > 0 && item(i, "call-the-bank").is_some_and(|i| i.overdue_time.is_some())
    })
    .await;
    assert!(
        incident_says(&late, "UpdatesOnTime").starts_with("False Overdue: internal update is overdue since")
    );
    assert!(incident_says(&late, "ChecklistOnTime").contains("call-the-bank"));
    let of_late = [("name", "late"), ("severity", "SEV4"), ("drill", "false")];
    operator.metric_is("incident_operator_checklist_overdue", &of_late, 1.0).await;
    let of_clock = [of_late[0], ("audience", "Internal")];
    for name in
        ["incident_operator_incident_updates_missed", "incident_operator_incident_next_due_timestamp_seconds"]
    {
        // The watch of the test may tell of a status before the operator has read the answer to its write.
        wait_for(PATIENCE, name, async || {
            let told = operator.metric(name, &of_clock).await;
            if told.is_some_and(|n| n > 0.0) { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    }
    // Events are a mirror: those of which the operator was killed before it sent them are not sent again.
    wait_for(PATIENCE, "Events of what is overdue", async || {
        let events = namespace.kubectl(&["events", "--for", "incident/late"]).stdout;
        let all = events.contains("UpdateOverdue") && events.contains("ChecklistOverdue");
        if all { Ok(()) } else { Err(events) }
    })
    .await;
    operator.kill();
    let before = namespace.api::<Incident>().get("late").await.expect("it is there");
    let of = |i: &Incident| clock(i, ClockName::Internal).cloned().expect("it has the clock");
    let second = |t: Option<&Time>| t.expect("it is set").0.as_second();
    // Twenty more deadlines pass while nobody looks.
    let until = second(of(&before).missed_time.as_ref()) + 42;
    wait_for(PATIENCE * 2, "time of twenty deadlines", async || {
        (Timestamp::now().as_second() >= until).then_some(())
    })
    .await;
    operator.restart().await;
    let after = wait_for(PATIENCE, "count of what was missed", async || {
        let after = namespace.api::<Incident>().get("late").await.expect("it is there");
        let seen = of(&after);
        let all = second(seen.missed_time.as_ref()) >= until - 2;
        if all { Ok(after) } else { Err(format!("{seen:?}, and before {:?}", of(&before))) }
    })
    .await;
    let passed = (second(of(&after).missed_time.as_ref()) - second(of(&before).missed_time.as_ref())) / 2;
    assert!(passed >= 20, "{passed}");
    assert_eq!(i64::from(missed(&after) - missed(&before)), passed, "{:?} and {:?}", of(&before), of(&after));
    let told_of = |i: &Incident| told(i, "UpdateOverdue").len();
    assert!(told_of(&after) <= told_of(&before) + 2, "{} and {}", told_of(&before), told_of(&after));
    assert_eq!(told(&after, "ChecklistOverdue").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_resolved_and_fails_again_is_reopened_with_its_clock_and_its_postmortem() {
    let namespace = TestNamespace::new("reopened").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let alice = namespace.person("alice", &[]).await;
    let spec = json!({"title": "t", "severity": "SEV2", "roles": {"incidentCommander": "alice"},
        "impact": {"affectedTenants": 1}, "noMitigationNeeded": "it heals", "resolution": {"summary": "it healed"}});
    alice.create(&incident("again", spec)).await.expect("they may");
    let is_resolved = |i: &Incident| {
        stage(i) == "Postmortem" && i.status.as_ref().is_some_and(|s| s.milestones.resolved_time.is_some())
    };
    incident_when(&namespace, "again", "resolution", is_resolved).await;
    let deadline = async |wanted: bool| {
        let is = |p: &Postmortem| p.status.as_ref().is_some_and(|s| s.due_time.is_some() == wanted);
        wait_status(&namespace.api::<Postmortem>(), "again", "deadline of the review, or none", is).await;
    };
    deadline(true).await;
    for took in ["detect", "acknowledge", "mitigate", "resolve"] {
        let name = format!("incident_operator_time_to_{took}_seconds_count");
        operator.metric_is(&name, &[("severity", "SEV2")], 1.0).await;
    }
    operator.metric_is("incident_operator_checklist_overdue", &[("name", "again")], 0.0).await;
    let milestone = "incident_operator_incident_milestone_timestamp_seconds";
    assert!(operator.metric(milestone, &[("name", "again"), ("milestone", "resolved")]).await.is_some());

    change(&namespace, "again", json!({"resolution": null})).await;
    let open = incident_when(&namespace, "again", "reopening", |i| stage(i) == "Resolve").await;
    assert_eq!(told(&open, "Reopened").len(), 1);
    assert!(clock(&open, ClockName::Internal).is_some_and(|c| c.next_due_time.is_some()), "its clock runs");
    assert!(open.status.as_ref().is_some_and(|s| s.milestones.resolved_time.is_none()));
    deadline(false).await;

    change(&namespace, "again", json!({"resolution": {"summary": "now it did"}})).await;
    let again = incident_when(&namespace, "again", "second resolution", is_resolved).await;
    assert_eq!(told(&again, "Resolved").len(), 2);
    deadline(true).await;
    operator.metric_is("incident_operator_time_to_resolve_seconds_count", &[("severity", "SEV2")], 1.0).await;
    change(&namespace, "again", json!({"outcome": "FalseAlarm"})).await;
    incident_when(&namespace, "again", "end", |i| stage(i) == "Cancelled").await;
    deadline(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_reset_the_clock_of_their_audience_and_the_texts_can_be_pasted() {
    let namespace = TestNamespace::new("texts").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let carol = namespace.person("carol", &[]).await;
    carol
        .create(&incident(
            "page",
            json!({"title": "Checkout fails", "severity": "SEV2", "communication": {"visibility": "Public"},
                "impact": {"summary": "40 % fail"}, "roles": {"incidentCommander": "carol"}}),
        ))
        .await
        .expect("they may");
    let public = with(
        entry("page", "StatusUpdate", "Outage of db-01, fixed in 5 minutes"),
        "audience",
        json!("Public"),
    );
    carol.create(&public).await.expect("they may");
    let page = incident_when(&namespace, "page", "public text", |i| {
        clock(i, ClockName::Public).is_some_and(|c| c.text.is_some())
    })
    .await;
    assert!(incident_says(&page, "PublicTextClean").starts_with("False Suspicious"));
    let text = |path: &str| {
        namespace.kubectl(&["get", "incident", "page", "-o", &format!("jsonpath={path}")]).stdout
    };
    let public = text("{.status.communication[?(@.audience==\"Public\")].text}");
    assert!(
        public.starts_with("Outage of db-01") && public.contains("Status: Identified\nNext update: by 20"),
        "{public}"
    );
    let internal = text("{.status.communication[?(@.audience==\"Internal\")].text}");
    assert!(
        internal.starts_with("SEV2 Incident: Checkout fails\nImpact: 40 % fail\nStart: 20"),
        "{internal}"
    );
    assert!(internal.contains("Owner: @carol\nNext update: in 15m (20"), "{internal}");
    let example = include_str!("../../examples/status-update.yaml")
        .replace("namespace: shop", &format!("namespace: {}", namespace.name))
        .replace("name: checkout-errors", "name: page");
    let made = carol.kubectl(&["create", "-f", "-"], &example);
    assert!(made.ok, "{}", made.stderr);
    for audience in ["Executives"] {
        carol
            .create(&with(entry("page", "StatusUpdate", "all is known"), "audience", json!(audience)))
            .await
            .expect("they may");
    }
    incident_when(&namespace, "page", "three updates", |i| {
        [ClockName::Internal, ClockName::Public, ClockName::Executives]
            .into_iter()
            .all(|name| clock(i, name).is_some_and(|c| c.updates == Some(1) && c.last_update_time.is_some()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_for_an_incident_that_does_not_exist_says_so_and_is_folded_when_there_is_one() {
    let namespace = TestNamespace::new("orphan").await;
    let elsewhere = TestNamespace::new("elsewhere").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    elsewhere.create(incident("other", json!({"title": "t"}))).await;
    let entries: Api<TimelineEntry> = namespace.api();
    let name = namespace
        .create(entry("other", "StatusUpdate", "into the void"))
        .await
        .metadata
        .name
        .expect("a name");
    let told = wait_status(&entries, &name, "answer", |e| {
        e.status.as_ref().is_some_and(|s| !s.conditions.is_empty())
    })
    .await;
    let condition = &told.status.expect("it says").conditions[0];
    assert_eq!((condition.type_.as_str(), condition.reason.as_str()), ("Folded", "IncidentNotFound"));
    assert!(condition.message.contains("there is no incident other"), "{}", condition.message);
    let row = namespace.kubectl(&["get", "timelineentries", "--no-headers"]).stdout;
    assert!(row.contains("there is no incident other"), "{row}");
    namespace.create(incident("other", json!({"title": "t"}))).await;
    wait_gone(&entries, &name).await;
    let other = namespace.api::<Incident>().get("other").await.expect("it is there");
    assert_eq!(super::support::record::told(&other, "StatusUpdate").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_in_a_circle_let_go_of_nothing_and_say_which_they_are() {
    let namespace = TestNamespace::new("circle").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["a", "b", "c"] {
        namespace.create(incident(name, json!({"title": name}))).await;
        incident_when(&namespace, name, "first visit", |i| stage(i) == "Detect").await;
    }
    let of = |name: &str| json!({"outcome": "Duplicate", "duplicateOf": {"name": name}});
    change(&namespace, "a", of("b")).await;
    incident_when(&namespace, "a", "end", |i| stage(i) == "Cancelled").await;
    change(&namespace, "b", of("c")).await;
    incident_when(&namespace, "b", "end", |i| stage(i) == "Cancelled").await;
    change(&namespace, "c", of("a")).await;
    let c = incident_when(&namespace, "c", "circle", |i| {
        incident_says(i, "Stalled").starts_with("True DuplicateCircle")
    })
    .await;
    assert_eq!(stage(&c), "Detect", "one of them goes on");
    change(&namespace, "c", json!({"outcome": null, "duplicateOf": null})).await;
    incident_when(&namespace, "c", "way out", |i| incident_says(i, "Stalled").starts_with("False")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_true_is_said_and_kept_and_stops_nothing() {
    let namespace = TestNamespace::new("untrue").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let spec = json!({"title": "t", "startTime": "2026-01-05T12:00:00Z", "detection": {"time": "2026-01-05T10:00:00Z"}});
    namespace.create(incident("odd", spec)).await;
    let nasty = "<!channel> *b* ".repeat(270);
    namespace.create(with(entry("odd", "Note", &nasty), "occurredTime", json!("2036-01-05T10:00:00Z"))).await;
    namespace
        .create(with(entry("odd", "Note", "long before"), "occurredTime", json!("2025-01-05T10:00:00Z")))
        .await;
    let odd = incident_when(&namespace, "odd", "both notes", |i| told(i, "Note").len() == 2).await;
    assert!(incident_says(&odd, "FactsConsistent").starts_with("False Contradiction: spec.startTime"));
    let notes = told(&odd, "Note");
    assert_eq!(notes[0].message, "long before");
    assert!(notes[1].message.starts_with("<!channel> *b*"), "{}", notes[1].message);
    assert_eq!(
        notes[1].stated_time.as_ref().map(|t| t.0.to_string()).as_deref(),
        Some("2036-01-05T10:00:00Z")
    );
    let waiver = json!({"waivers": [{"mitigation": "nothing-of-ours", "reason": "r"}]});
    change(&namespace, "odd", json!({"startTime": null, "resolution": waiver})).await;
    let odd = incident_when(&namespace, "odd", "unknown waiver", |i| {
        incident_says(i, "FactsConsistent").contains("waivers names nothing-of-ours, which is no mitigation")
    })
    .await;
    assert!(incident_says(&odd, "Resolved").contains("spec.resolution declares nothing yet"));
    let empty = incident("empty", json!({"title": "t", "roles": {"incidentCommander": ""}}));
    let refused = namespace.try_create(empty).await.expect_err("a role has a name").to_string();
    assert!(refused.contains("incidentCommander"), "{refused}");
}
