//! Approvals: by somebody else, of exactly this, for a while.

use super::mitigation::*;
use super::policy::Policy;
use super::support::{audit, workload, *};
use incident_operator::api::{Incident, MitigationPhase as Phase, TimelineEntry};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::time::Duration;

const SCALES: &str = "patch deployments.apps/scale";
const APPROVES: &str = "approve mitigations.incident-operator.dev";

fn word(type_: &str, name: &str, mitigation: &str, digest: &str) -> Value {
    let spec = json!({"incidentRef": {"name": "outage"}, "type": type_, "mitigationRef": {"name": mitigation},
        "digest": digest, "message": "I looked at it"});
    workload::ours("TimelineEntry", name, spec)
}

async fn digest(namespace: &TestNamespace, name: &str) -> String {
    let m = reaches(namespace, name, Phase::AwaitingApproval).await;
    let digest = m.status.and_then(|s| s.approval_digest).expect("it tells the digest");
    assert!(digest.starts_with("sha256:"), "{digest}");
    digest
}

async fn replicas(namespace: &TestNamespace) -> Option<i32> {
    namespace.api::<Deployment>().get("web").await.expect("it exists").spec.and_then(|spec| spec.replicas)
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_approves_exactly_what_is_asked_and_the_record_says_who() {
    let namespace = TestNamespace::new("approve").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let policy = Policy::new(
        &namespace,
        json!({"approval": [{"severities": ["SEV3"], "require": "NotRequired"}, {"require": "Required"}]}),
    )
    .await;
    let alice = namespace.person("alice", &[SCALES, APPROVES]).await;
    let bob = namespace.person("bob", &[APPROVES]).await;
    let entry = json!({"name": "stop", "reason": "floods", "targetRef": {"kind": "Deployment", "name": "web"},
        "scale": {"replicas": 0}, "evidence": "None"});
    let outage =
        workload::incident("outage", json!({"title": "x", "severity": "SEV1", "mitigations": [entry]}));
    alice.create(&outage).await.expect("alice may");
    let first = digest(&namespace, "outage-stop").await;

    // Not by who asked.
    alice.create(&word("Approval", "own", "outage-stop", &first)).await.expect("she holds the verb");
    until(&namespace, "outage-stop", "refusal of one's own approval", |m| {
        condition(m, "Approved").is_some_and(|c| c.message.contains("alice asked for the mitigation"))
    })
    .await;
    // The entry is in the timeline by now, and whoever describes the mitigation is still told why it was void.
    wait_gone(&namespace.api::<TimelineEntry>(), "own").await;
    policy.set(json!({"minInterval": "1s"})).await;
    operator.requests_once_quiet(audit::mark(), Duration::from_secs(2)).await;
    let told = namespace.kubectl(&["describe", "mitigation", "outage-stop"]).success();
    let void = "counted for nothing: alice asked for the mitigation, and somebody else must approve it";
    assert!(told.contains(void), "{told}");
    // Not of what was changed since.
    let mut changed = outage.clone();
    changed["spec"]["mitigations"][0]["reason"] = json!("floods the database");
    alice.apply(&changed, "x").await.expect("alice may");
    until(&namespace, "outage-stop", "another digest", |m| {
        m.status.as_ref().and_then(|s| s.approval_digest.clone()).is_some_and(|d| d != first)
    })
    .await;
    bob.create(&word("Approval", "old", "outage-stop", &first)).await.expect("bob may");
    wait_gone(&namespace.api::<TimelineEntry>(), "old").await;
    assert_eq!(replicas(&namespace).await, Some(2));

    let second = digest(&namespace, "outage-stop").await;
    bob.create(&word("Approval", "new", "outage-stop", &second)).await.expect("bob may");
    let m = effective(&namespace, "outage-stop").await;
    assert_eq!(replicas(&namespace).await, Some(0));
    let approval = m.status.and_then(|s| s.approval).expect("it is on record");
    assert_eq!((approval.by.as_str(), approval.digest.as_str()), ("bob", second.as_str()));
    for name in ["own", "old", "new"] {
        wait_gone(&namespace.api::<TimelineEntry>(), name).await;
    }
    let incident = wait_status(&namespace.api::<Incident>(), "outage", "three entries", |i: &Incident| {
        let timeline = i.status.iter().flat_map(|s| &s.timeline);
        timeline.filter(|record| record.reason == "Approval").count() == 3
    })
    .await;
    let timeline = incident.status.expect("a status").timeline;
    let authors: Vec<_> =
        timeline.iter().filter(|r| r.reason == "Approval").map(|r| r.author.clone()).collect();
    assert_eq!(authors, ["alice", "bob", "bob"].map(|name| Some(name.to_owned())));
}

/// Whoever may change the target can write the note of a change that never was on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_note_puts_nothing_in_force_without_its_approval() {
    let namespace = TestNamespace::new("forgery").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 2);
    namespace.create_ready(web.clone()).await;
    let _policy = Policy::new(&namespace, json!({"approval": [{}]})).await;
    let alice = namespace.person("alice", &[SCALES]).await;
    let bob = namespace.person("bob", &[APPROVES]).await;
    let stop = with(scale("stop", "Deployment", "web", 0), json!({"evidence": "None"}));
    alice.create(&stop).await.expect("alice may");
    let asked = digest(&namespace, "stop").await;
    let m = reaches(&namespace, "stop", Phase::AwaitingApproval).await;
    let uid = m.metadata.uid.clone().expect("a uid");
    let forge = async |prior: i32| {
        let target = present(&namespace, &web).await.metadata.uid;
        let note = json!({"v": 1, "uid": uid, "mitigation": "stop", "action": "scale", "target": target,
            "at": Timestamp::now().to_string(), "fields": [{"path": "/spec/replicas", "prior": prior, "applied": 0}]});
        let key = format!("incident-operator.dev/mit-{}", &uid[..8]);
        let patch = json!({"spec": {"replicas": 0}, "metadata": {
            "labels": {"incident-operator.dev/mitigated": "true"}, "annotations": {key: note.to_string()}}});
        edit(&namespace, &web, "mallory", patch).await;
    };
    let is_off = async || {
        wait_status(&namespace.api::<Deployment>(), "web", "the note off", |web: &Deployment| {
            marks(web).is_empty()
        })
        .await;
    };
    forge(9).await;
    is_off().await;
    let m = until(&namespace, "stop", "who forged it", |m| {
        condition(m, "Approved").is_some_and(|c| c.message.contains("mallory noted a change"))
    })
    .await;
    assert_eq!(phase_of(&m), Some(Phase::AwaitingApproval));
    assert!(m.status.is_some_and(|s| s.applied_time.is_none() && s.prior.is_empty()));
    // Also while nobody looks, and when it ends before it began: nothing is written back that was never there.
    operator.kill();
    forge(77).await;
    operator.restart().await;
    is_off().await;
    assert_eq!(replicas(&namespace).await, Some(0), "what mallory may change is mallory's");
    edit(&namespace, &web, "alice", json!({"spec": {"replicas": 2}})).await;
    bob.create(&word("Approval", "yes", "stop", &asked)).await.expect("bob may");
    let m = effective(&namespace, "stop").await;
    assert_eq!(m.status.expect("a status").prior[0].value.as_deref(), Some("2"));
    delete(&namespace, "stop").await;
    assert_eq!(replicas(&namespace).await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_ends_it_and_an_old_approval_of_one_that_is_gone_is_worth_nothing() {
    let namespace = TestNamespace::new("reject").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let _policy = Policy::new(&namespace, json!({"approval": [{}]})).await;
    let bob = namespace.person("bob", &[APPROVES]).await;
    let alice = namespace.person("alice", &[SCALES]).await;
    let stop = with(scale("stop", "Deployment", "web", 0), json!({"evidence": "None"}));
    alice.create(&stop).await.expect("alice may");
    let first = digest(&namespace, "stop").await;
    bob.create(&word("Rejection", "no", "stop", &first)).await.expect("bob may");
    let m = reaches(&namespace, "stop", Phase::Refused).await;
    assert!(message(&m, "Ready").contains("bob rejected it: I looked at it"), "{}", message(&m, "Ready"));
    delete(&namespace, "stop").await;
    // The same once more is something else.
    alice.create(&stop).await.expect("alice may");
    let second = digest(&namespace, "stop").await;
    assert_ne!(first, second);
    bob.create(&word("Approval", "replayed", "stop", &first)).await.expect("bob may");
    until(&namespace, "stop", "judgement of the old digest", |m| {
        condition(m, "Approved").is_some_and(|c| c.message.contains("bob names another digest"))
    })
    .await;
    assert_eq!(replicas(&namespace).await, Some(2));
    // Without an incident, the entry names the one in whose record it is to stand.
    namespace.create(workload::incident("outage", json!({"title": "x"}))).await;
    bob.create(&word("Approval", "yes", "stop", &second)).await.expect("bob may");
    effective(&namespace, "stop").await;
    assert_eq!(namespace.api::<Deployment>().get("web").await.expect("it exists").name_any(), "web");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_severity_that_is_stated_later_lets_go_what_waited_for_an_approval_by_it() {
    let namespace = TestNamespace::new("severity").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let _policy =
        Policy::new(&namespace, json!({"approval": [{"severities": ["SEV3"], "require": "Required"}]})).await;
    let entry = json!({"name": "stop", "reason": "floods", "targetRef": {"kind": "Deployment", "name": "web"},
        "scale": {"replicas": 0}, "evidence": "None"});
    let outage = workload::incident("outage", json!({"title": "x", "mitigations": [entry]}));
    namespace.create(outage.clone()).await;
    // What is not known excuses nobody.
    reaches(&namespace, "outage-stop", Phase::AwaitingApproval).await;
    operator.requests_once_quiet(audit::mark(), Duration::from_secs(2)).await;
    namespace.admin().merge(&outage, json!({"spec": {"severity": "SEV1"}})).await.expect("it can be stated");
    let m = effective(&namespace, "outage-stop").await;
    assert_eq!(condition(&m, "Approved").expect("it is there").reason, "NotRequired");
    assert_eq!(replicas(&namespace).await, Some(0));
}

/// Whoever may act as the one who asked is the same one, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_what_was_asked_for_in_a_name_that_they_may_take() {
    let namespace = TestNamespace::new("names").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let _policy = Policy::new(&namespace, json!({"approval": [{}]})).await;
    let pipeline = namespace.account("pipeline", &[SCALES, APPROVES]).await;
    let stop = with(scale("stop", "Deployment", "web", 0), json!({"evidence": "None"}));
    pipeline.create(&stop).await.expect("the pipeline may");
    let asked = digest(&namespace, "stop").await;
    let mary = namespace.person("mary", &[APPROVES, "impersonate serviceaccounts pipeline"]).await;
    let toby = namespace.person("toby", &[APPROVES, "create serviceaccounts/token"]).await;
    for (person, name) in [(&mary, "by-mary"), (&toby, "by-toby")] {
        person.create(&word("Approval", name, "stop", &asked)).await.expect("they hold the verb");
        let words = format!("{} may act as {}, who asked for it", person.name, pipeline.name);
        until(&namespace, "stop", "the refusal of that approval", |m| {
            condition(m, "Approved").is_some_and(|c| c.message.contains(&words))
        })
        .await;
    }
    assert_eq!(replicas(&namespace).await, Some(2));
    let bob = namespace.person("bob", &[APPROVES]).await;
    bob.create(&word("Approval", "by-bob", "stop", &asked)).await.expect("bob may");
    effective(&namespace, "stop").await;

    // A program that who asked may be.
    let alice = namespace.person("alice", &[SCALES, "impersonate serviceaccounts pipeline"]).await;
    let mut down = with(scale("down", "Deployment", "api", 1), json!({"evidence": "None"}));
    down["spec"]["reason"] = json!("too many");
    namespace.create_ready(workload::deployment("api", 2)).await;
    alice.create(&down).await.expect("alice may");
    let asked = digest(&namespace, "down").await;
    pipeline.create(&word("Approval", "by-pipeline", "down", &asked)).await.expect("it holds the verb");
    let words = format!("alice, who asked for it, may act as {}", pipeline.name);
    until(&namespace, "down", "the refusal of that approval", |m| {
        condition(m, "Approved").is_some_and(|c| c.message.contains(&words))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_is_too_old_counts_for_nothing() {
    let namespace = TestNamespace::new("stale").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let policy = Policy::new(&namespace, json!({"approval": [{"validFor": "2s"}]})).await;
    let bob = namespace.person("bob", &[APPROVES]).await;
    let alice = namespace.person("alice", &[SCALES]).await;
    let stop = with(scale("stop", "Deployment", "web", 0), json!({"evidence": "None"}));
    alice.create(&stop).await.expect("alice may");
    let asked = digest(&namespace, "stop").await;
    // Nobody looks while it is good.
    operator.signal("STOP");
    let given = bob.create(&word("Approval", "early", "stop", &asked)).await.expect("bob may");
    let given = given.metadata.creation_timestamp.expect("the API server sets it").0;
    wait_for(PATIENCE, "end of the approval", async || {
        (Timestamp::now().duration_since(given).as_secs() > 2).then_some(())
    })
    .await;
    operator.signal("CONT");
    until(&namespace, "stop", "the end of the approval", |m| {
        condition(m, "Approved").is_some_and(|c| c.message.contains("the approval by bob was good until"))
    })
    .await;
    assert_eq!(replicas(&namespace).await, Some(2));
    policy.set(json!({"approval": [{"validFor": "1h"}]})).await;
    // The digest is the same, so the first one is good again by the new rule: what counts is the rule of now.
    let m = effective(&namespace, "stop").await;
    assert_eq!(m.status.and_then(|s| s.approval).expect("it is on record").by, "bob");
    assert_eq!(replicas(&namespace).await, Some(0));
}
