//! Rights are checked once more right before a change and before a release that was asked for.

use super::mitigation::*;
use super::policy::Policy;
use super::support::{audit, workload, *};
use incident_operator::api::MitigationPhase as Phase;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

const SCALES: &str = "patch deployments.apps/scale";
const FLAGS: &str = "patch configmaps";

async fn replicas(namespace: &TestNamespace, name: &str) -> Option<i32> {
    namespace.api::<Deployment>().get(name).await.expect("it exists").spec.and_then(|spec| spec.replicas)
}

fn stop(name: &str, target: &str) -> Value {
    with(scale(name, "Deployment", target, 0), json!({"evidence": "None"}))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_right_between_asking_and_acting_is_refused() {
    let namespace = TestNamespace::new("lost").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let alice = namespace.person("alice", &[SCALES]).await;
    alice.create(&stop("stop", "web")).await.expect("alice may");
    let entry = json!({"name": "stop", "reason": "floods", "targetRef": {"kind": "Deployment", "name": "web"},
        "scale": {"replicas": 1}});
    let outage = workload::incident("outage", json!({"title": "x", "mitigations": [entry]}));
    alice.create(&outage).await.expect("alice may");
    says(&namespace, "stop", "Ready", "TargetNotFound").await;
    says(&namespace, "outage-stop", "Ready", "TargetNotFound").await;
    namespace.revoke(&alice, SCALES).await;
    let mark = audit::mark();
    namespace.create(workload::deployment("web", 2)).await;
    for name in ["stop", "outage-stop"] {
        let m = reaches(&namespace, name, Phase::Refused).await;
        assert_eq!(condition(&m, "Authorized").expect("it is there").reason, "RequesterForbidden");
        let words = message(&m, "Ready");
        let parts =
            ["alice may not make this now", "patch deployments.apps/scale \"web\"", "nothing was changed"];
        assert!(parts.iter().all(|part| words.contains(part)), "{words}");
    }
    assert_eq!(replicas(&namespace, "web").await, Some(2));
    let asked = operator.requests(mark);
    assert!(!asked.iter().any(|r| r.verb == "patch" && r.resource == "deployments"), "nothing was tried");
    assert!(asked.iter().any(|r| r.resource == "localsubjectaccessreviews" && r.code == 201));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leavers_mitigation_is_released_by_others_with_the_right_and_not_by_who_lost_it() {
    let namespace = TestNamespace::new("leaver").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let alice = namespace.person("alice", &[SCALES]).await;
    alice.create(&stop("stop", "web")).await.expect("alice may");
    effective(&namespace, "stop").await;
    // She asks for the release while she may, and may not any more when it is to be done.
    operator.signal("STOP");
    let ask = json!({"spec": {"desiredState": "Released"}});
    alice.merge(&stop("stop", "web"), ask).await.expect("alice still may");
    namespace.revoke(&alice, SCALES).await;
    operator.signal("CONT");
    let m = says(&namespace, "stop", "Stalled", "RequesterForbidden").await;
    assert_eq!(phase_of(&m), Some(Phase::Active));
    assert!(message(&m, "Ready").contains("whoever holds that right can delete"), "{}", message(&m, "Ready"));
    assert_eq!(replicas(&namespace, "web").await, Some(0));
    let bob = namespace.person("bob", &[SCALES]).await;
    bob.delete(&stop("stop", "web")).await.expect("bob may");
    wait_gone(&namespace.api::<incident_operator::api::Mitigation>(), "stop").await;
    assert_eq!(replicas(&namespace, "web").await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_use_of_a_policy_nobody_releases_what_it_does_not_allow() {
    let namespace = TestNamespace::new("byuse").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    let policy = Policy::new(&namespace, json!({"actions": ["scale", "featureFlag"]})).await;
    let under = with(stop("stop", "web"), json!({"policyRef": {"name": policy.name()}}));
    namespace.create(under.clone()).await;
    effective(&namespace, "stop").await;
    // From now on it is about flags alone, and a pause holds up no release.
    policy.set(json!({"actions": ["featureFlag"], "paused": true})).await;
    let using = format!("use mitigationpolicies.incident-operator.dev {}", policy.name());
    let oncall = namespace.person("oncall", &[&using]).await;
    wait_for(PATIENCE, "the policy as it is now", async || {
        let probe = stop(&format!("probe-{}", fastrand::u32(..)), "nobody");
        let name = probe["metadata"]["name"].as_str().expect("a name").to_owned();
        namespace.create(probe).await;
        let m = until(&namespace, &name, "an answer", |m| condition(m, "Ready").is_some()).await;
        (phase_of(&m) == Some(Phase::Refused)).then_some(())
    })
    .await;
    let ask = json!({"spec": {"desiredState": "Released"}});
    oncall.merge(&under, ask).await.expect("admission cannot know what the policy allows");
    let m = says(&namespace, "stop", "Stalled", "RequesterForbidden").await;
    assert_eq!(phase_of(&m), Some(Phase::Active), "{}", message(&m, "Ready"));
    assert_eq!(replicas(&namespace, "web").await, Some(0));
    // It allows it again: who asked is asked about once more by the next process.
    policy.set(json!({"actions": ["scale"]})).await;
    drop(operator);
    let _operator = Operator::start(&namespace, Options::default()).await;
    reaches(&namespace, "stop", Phase::Released).await;
    assert_eq!(replicas(&namespace, "web").await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_account_or_policy_stands_in_also_at_the_moment_of_acting() {
    let namespace = TestNamespace::new("standin").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let policy = Policy::new(&namespace, json!({"actions": ["featureFlag"]})).await;
    for name in ["a", "b", "c", "d"] {
        namespace.create(workload::configmap(name, &[("mode", "normal")])).await;
    }
    let bot = namespace.account("bot", &[FLAGS]).await;
    let deputy = namespace.person("deputy", &["impersonate serviceaccounts bot"]).await;
    let by_bot = |name: &str| with(flag(name, name, "mode", "slow"), json!({"serviceAccountName": "bot"}));
    deputy.create(&by_bot("a")).await.expect("through the account");
    let m = effective(&namespace, "a").await;
    assert!(message(&m, "Authorized").contains("in whose name deputy acts"), "{}", message(&m, "Authorized"));

    let using = format!("use mitigationpolicies.incident-operator.dev {}", policy.name());
    let oncall = namespace.person("oncall", &[&using]).await;
    let by_policy =
        |name: &str| with(flag(name, name, "mode", "slow"), json!({"policyRef": {"name": policy.name()}}));
    oncall.create(&by_policy("b")).await.expect("by the policy");
    let m = effective(&namespace, "b").await;
    assert!(message(&m, "Authorized").contains("by the use of MitigationPolicy"));
    // The use of a policy is within its bounds, and ends with it.
    let beyond = with(stop("beyond", "web"), json!({"policyRef": {"name": policy.name()}}));
    oncall.create(&beyond).await.expect("admission cannot know");
    let m = reaches(&namespace, "beyond", Phase::Refused).await;
    assert_eq!(condition(&m, "Ready").expect("it is there").reason, "ActionNotAllowed");
    policy.delete().await;
    wait_for(PATIENCE, "end of the policy", async || {
        let name = format!("late-{}", fastrand::u32(..));
        let late = with(flag(&name, "c", "mode", "slow"), json!({"policyRef": {"name": policy.name()}}));
        oncall.create(&late).await.expect("admission cannot know");
        let m = until(&namespace, &name, "an answer", |m| {
            matches!(phase_of(m), Some(Phase::Refused | Phase::Active))
        })
        .await;
        let ready = condition(&m, "Ready").expect("it is there");
        if ready.reason == "PolicyNotInForce" {
            return Ok(());
        }
        delete(&namespace, &name).await;
        Err(ready.reason.clone())
    })
    .await;

    // An account that lost its right does nothing for anybody.
    namespace.revoke(&bot, FLAGS).await;
    let refused = deputy.create(&by_bot("d")).await.expect_err("admission says it first");
    assert!(refused.contains("may not ask for"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_touched_besides_the_target_needs_a_right_too() {
    let namespace = TestNamespace::new("beside").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 2)).await;
    // An autoscaler that may go to zero must be held off.
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]}});
    namespace.create(scaler).await;
    let alice = namespace.person("alice", &[SCALES]).await;
    // Down to a number that is not zero, the autoscaler would undo it.
    let down = with(scale("down", "Deployment", "web", 1), json!({"evidence": "None"}));
    alice.create(&down).await.expect("alice may scale");
    let m = until(&namespace, "down", "an answer", |m| {
        matches!(phase_of(m), Some(Phase::Refused | Phase::Active))
    })
    .await;
    assert_eq!(phase_of(&m), Some(Phase::Refused), "{}", message(&m, "Ready"));
    let words = message(&m, "Ready");
    assert!(words.contains("patch horizontalpodautoscalers.autoscaling \"web\""), "{words}");
    assert_eq!(replicas(&namespace, "web").await, Some(2));
    let carol = namespace.person("carol", &[SCALES, "patch horizontalpodautoscalers.autoscaling"]).await;
    let down = with(scale("down-too", "Deployment", "web", 1), json!({"evidence": "None"}));
    carol.create(&down).await.expect("carol may scale");
    reaches(&namespace, "down-too", Phase::Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_holds_no_logs_for_who_may_not_read_them_and_says_so() {
    let namespace = TestNamespace::new("nologs").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let alice = namespace.person("alice", &[SCALES]).await;
    let mark = audit::mark();
    alice.create(&scale("stop", "Deployment", "web", 0)).await.expect("alice may");
    let m =
        until(&namespace, "stop", "evidence", |m| m.status.as_ref().is_some_and(|s| s.evidence.is_some()))
            .await;
    let evidence = m.status.and_then(|s| s.evidence).expect("it was kept");
    assert!(evidence.missing.iter().any(|text| text.contains("may not read them")), "{:?}", evidence.missing);
    assert!(!operator.requests(mark).iter().any(|r| r.subresource == "log"), "none was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_forges_the_prior_value_is_named_and_the_true_one_is_restored() {
    let namespace = TestNamespace::new("forged").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 2);
    namespace.create_ready(web.clone()).await;
    namespace.create(stop("stop", "web")).await;
    effective(&namespace, "stop").await;
    let forged = async |manager: &str| {
        let object = present(&namespace, &web).await;
        let (key, text) = object
            .metadata
            .annotations
            .iter()
            .flatten()
            .find(|(key, _)| key.starts_with(CAPTURE))
            .expect("the note is there");
        let mut note: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(note["fields"][0]["prior"], 2);
        note["fields"][0]["prior"] = json!(900);
        edit(&namespace, &web, manager, json!({"metadata": {"annotations": {key: note.to_string()}}})).await;
    };
    forged("mallory").await;
    let m = until(&namespace, "stop", "the name of who forged it", |m| {
        m.status.as_ref().is_some_and(|s| s.record_changed_by.as_deref() == Some("mallory"))
    })
    .await;
    assert_eq!(m.status.expect("a status").prior[0].value.as_deref(), Some("2"));
    wait_for(PATIENCE, "the true note", async || {
        let object = present(&namespace, &web).await;
        let notes = object.metadata.annotations.unwrap_or_default();
        let note = notes.iter().find(|(key, _)| key.starts_with(CAPTURE)).map(|(_, text)| text.clone());
        let note = note.unwrap_or_default();
        // With its name: a uid may hold the same digits.
        if note.contains(r#""prior":900"#) { Err(note) } else { Ok(()) }
    })
    .await;
    // Also when nobody looks until the release.
    operator.kill();
    forged("eve").await;
    namespace
        .api::<incident_operator::api::Mitigation>()
        .delete("stop", &Default::default())
        .await
        .expect("it can be deleted");
    operator.restart().await;
    wait_gone(&namespace.api::<incident_operator::api::Mitigation>(), "stop").await;
    assert_eq!(replicas(&namespace, "web").await, Some(2));
    assert_eq!(marks(&present(&namespace, &web).await), Vec::<String>::new());
}
