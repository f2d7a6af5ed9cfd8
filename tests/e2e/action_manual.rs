//! `manual`: a step that a person does, with the record and the clocks of the others.

use super::mitigation::*;
use super::support::record::{incident_says, incident_when};
use super::support::{workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_says_what_came_of_it_and_the_incident_is_mitigated() {
    let namespace = TestNamespace::new("manual").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let entry = json!({"name": "failover", "reason": "the primary is slow",
        "targetRef": {"kind": "Database", "name": "orders"},
        "manual": {"instructions": "fail over to the standby", "assignee": "dana"}, "expiresAfter": "1h"});
    namespace.create(workload::incident("slow", json!({"title": "t", "mitigations": [entry]}))).await;
    let asked = says(&namespace, "slow-failover", "Effective", "WaitingForPerson").await;
    assert_eq!(phase_of(&asked), Some(Phase::Active));
    assert!(message(&asked, "Effective").contains("dana"));
    assert!(
        message(&asked, "Ready").contains("its entry in spec.mitigations"),
        "{}",
        message(&asked, "Ready")
    );
    assert!(is(&asked, "Authorized", ConditionStatus::True), "nothing waits for a right");
    assert!(asked.status.as_ref().is_some_and(|s| s.expiry_time.is_some()), "its clock runs");
    let told = r#"[{"op":"add","path":"/spec/mitigations/0/manual/result","value":{"state":"Done","note":"took 4 minutes"}}]"#;
    namespace.kubectl(&["patch", "incident", "slow", "--type=json", "-p", told]).success();
    let done = effective(&namespace, "slow-failover").await;
    // It was another one who said so than who had been asked.
    let words = message(&done, "Effective");
    assert!(words.ends_with(" says that it is done: took 4 minutes") && !words.contains("dana"), "{words}");
    let who = words.split(' ').next().unwrap_or_default();
    let mitigated =
        incident_when(&namespace, "slow", "mitigated", |i| incident_says(i, "Mitigated").starts_with("True"))
            .await;
    let timeline = mitigated.status.iter().flat_map(|s| &s.timeline);
    let told: Vec<_> = timeline.filter(|e| e.message.contains("took 4 minutes")).collect();
    assert!(!told.is_empty() && told.iter().all(|e| e.author.as_deref() == Some(who)), "{told:?}");
    // Corrected, it counts for nothing, also once it is taken out.
    let failed = r#"[{"op":"replace","path":"/spec/mitigations/0/manual/result","value":{"state":"Failed","note":"it came back"}}]"#;
    namespace.kubectl(&["patch", "incident", "slow", "--type=json", "-p", failed]).success();
    incident_when(&namespace, "slow", "not mitigated", |i| {
        incident_says(i, "Mitigated").starts_with("False")
    })
    .await;
    let out = r#"[{"op":"remove","path":"/spec/mitigations"}]"#;
    namespace.kubectl(&["patch", "incident", "slow", "--type=json", "-p", out]).success();
    wait_gone(&namespace.api::<incident_operator::api::Mitigation>(), "slow-failover").await;
    let over = incident_when(&namespace, "slow", "without the step", |i| {
        i.status.as_ref().is_some_and(|s| s.mitigations.iter().all(|m| m.phase.is_ended()))
    })
    .await;
    assert!(!incident_says(&over, "Mitigated").starts_with("True"), "{}", incident_says(&over, "Mitigated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_step_asks_nobody() {
    let namespace = TestNamespace::new("manualdry").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let step = json!({"manual": {"instructions": "call the provider", "assignee": "dana"}, "dryRun": true});
    namespace.create(mitigation_of("call", "Service", "cdn", step)).await;
    let told = says(&namespace, "call", "Ready", "DryRun").await;
    assert_eq!(phase_of(&told), Some(Phase::Pending));
    let status = told.status.as_ref().expect("it has a status");
    assert!(status.applied_time.is_none(), "no clock runs");
    let plan = status.plan.as_ref().expect("it is planned");
    assert_eq!(plan.summary, "would ask dana to act on Service/cdn: call the provider");
    delete(&namespace, "call").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_failed_is_told_as_not_effective_and_its_instructions_stay_as_they_were() {
    let namespace = TestNamespace::new("manualfail").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let step = json!({"manual": {"instructions": "call the provider", "result": {"state": "Failed", "note": "no answer"}}});
    namespace.create(mitigation_of("call", "Service", "cdn", step)).await;
    let failed = says(&namespace, "call", "Effective", "Failed").await;
    assert!(is(&failed, "Effective", ConditionStatus::False));
    // `kubectl wait --for=condition=Ready` must not succeed, and who waits by kstatus must not wait for ever.
    assert!(is(&failed, "Ready", ConditionStatus::False) && is(&failed, "Stalled", ConditionStatus::True));
    let patch = r#"{"spec":{"manual":{"instructions":"do something else"}}}"#;
    let words = namespace.kubectl(&["patch", "mitigation", "call", "--type=merge", "-p", patch]).failure();
    assert!(words.contains("manual cannot be changed"), "{words}");
    release(&namespace, "call");
    // "Released" would read as if it had been in force.
    let ended = reaches(&namespace, "call", Phase::Failed).await;
    assert!(message(&ended, "Ready").contains("the step failed: no answer"), "{}", message(&ended, "Ready"));
    assert!(is(&ended, "Ready", ConditionStatus::False) && is(&ended, "Stalled", ConditionStatus::True));
}
