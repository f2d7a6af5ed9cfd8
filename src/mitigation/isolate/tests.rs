use super::*;
use crate::api::ShortText;
use crate::authority::wanted;
use crate::mitigation::{Asked, Refusal, scene_tests::Stage};

fn web() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "uid": "w"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}, "status": {"readyReplicas": 2}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "uid": name,
            "labels": {"app": "web", "pod-template-hash": "abc", "team": "shop", "tier": "front"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "uid": "r",
                "controller": true}]},
        "spec": {}, "status": {"phase": "Running"}})
}

fn replica_set() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web-abc", "uid": "r"},
        "spec": {"selector": {"matchLabels": {"app": "web", "pod-template-hash": "abc"}}}})
}

fn service(selector: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": selector}})
}

fn policy(spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec})
}

fn stage() -> Stage {
    Stage::new(web()).with(pod("web-1")).with(replica_set())
}

fn parts(isolate: &Isolate, stage: &Stage) -> Result<Vec<Part>, Refusal> {
    stage.ask(|scene| isolate.parts(scene))
}

fn removed(part: &Part) -> Vec<&str> {
    part.changes()
        .iter()
        .filter(|c| c.to.is_none())
        .map(|c| c.path.trim_start_matches("/metadata/labels/"))
        .collect()
}

#[test]
fn every_label_by_which_something_selects_the_pod_is_taken_away_and_no_other() {
    let stage = stage()
        .with(service(json!({"app": "web"})))
        .with(policy(json!({"podSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
            "policyTypes": ["Ingress"], "ingress": [{}]})));
    let parts = parts(&Isolate::default(), &stage).unwrap();
    assert!(
        matches!(&parts[0].asked, Asked::Create(spec) if spec["policyTypes"] == json!(["Ingress", "Egress"]))
    );
    assert_eq!(parts[0].id.to_string(), "NetworkPolicy/mit-01234567");
    assert_eq!(parts[1].id.to_string(), "Pod/web-1");
    assert_eq!(removed(&parts[1]), ["app", "pod-template-hash", "tier"]);
}

#[test]
fn a_selector_that_does_not_match_the_pod_takes_nothing_away() {
    let stage = stage().with(service(json!({"team": "other"})));
    assert_eq!(removed(&parts(&Isolate::default(), &stage).unwrap()[1]), ["app", "pod-template-hash"]);
}

#[test]
fn more_pods_than_allowed_and_none_at_all_are_refused() {
    let two = stage().with(pod("web-2"));
    assert_eq!(parts(&Isolate::default(), &two).unwrap_err().reason, "TooManyPods");
    let both = Isolate { max_pods: Some(2), ..Isolate::default() };
    assert_eq!(parts(&both, &two).unwrap().len(), 3);
    assert_eq!(parts(&both, &Stage::new(web())).unwrap_err().reason, "NoPods");
}

#[test]
fn the_pods_that_were_announced_stay_the_same_when_others_have_come_since() {
    let mut later = stage().with(pod("web-2")).with(pod("web-3"));
    later.touched = vec![ObjectId::new(NETWORK_POLICY, "mit-01234567"), ObjectId::new(POD, "web-2")];
    let parts = parts(&Isolate::default(), &later).unwrap();
    assert_eq!(parts.iter().map(|p| p.id.name.as_str()).collect::<Vec<_>>(), ["mit-01234567", "web-2"]);
}

#[test]
fn a_policy_is_refused_where_another_one_allows_traffic() {
    let deny = Isolate { method: Some(IsolateMethod::DenyPolicy), ..Isolate::default() };
    let allowing = policy(json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}));
    assert_eq!(parts(&deny, &stage().with(allowing)).unwrap_err().reason, "AnotherPolicyAllows");
    let denying = policy(json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let made = parts(&deny, &stage().with(denying)).unwrap();
    assert!(
        matches!(&made[0].asked, Asked::Create(s) if s["podSelector"]["matchLabels"] == json!({"app": "web"}))
    );
}

/// Policies add up, and no label can be taken away by which these select the pod.
#[test]
fn stripping_labels_is_refused_where_a_policy_allows_traffic_whatever_the_labels_are() {
    let allowing = |selector: Value| {
        let spec = json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{}]});
        parts(&Isolate::default(), &stage().with(policy(spec)))
    };
    let without = |key: &str, operator: &str| json!({"matchExpressions": [{"key": key, "operator": operator, "values": ["x"]}]});
    for selector in [
        json!({}),
        without("tier", "NotIn"),
        json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}),
    ] {
        let refusal = allowing(selector.clone()).unwrap_err();
        assert_eq!(refusal.reason, "AnotherPolicyAllows", "{selector}");
        assert!(refusal.message.contains("NetworkPolicy p"), "{}", refusal.message);
    }
    assert!(allowing(json!({"matchLabels": {"app": "web"}})).is_ok(), "that label goes");
}

fn effect(isolate: &Isolate, stage: &Stage) -> Effect {
    stage.ask(|scene| isolate.effect(scene)).unwrap()
}

#[test]
fn a_policy_that_comes_later_and_allows_traffic_ends_the_effect() {
    let later = policy(json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}));
    let mut isolated = pod("web-1");
    isolated["metadata"]["labels"] = json!({"team": "shop", ISOLATED: "01234567"});
    let deny = Isolate { method: Some(IsolateMethod::DenyPolicy), ..Isolate::default() };
    let strip = Isolate::default();
    let held = || Stage::new(isolated.clone());
    assert!(matches!(effect(&strip, &held()), Effect::Seen(_)));
    assert!(matches!(effect(&deny, &stage()), Effect::Unclear { reason: "NotReported", .. }));
    for (isolate, stage) in [(&strip, held().with(later.clone())), (&deny, stage().with(later))] {
        let Effect::Awaited { seen, .. } = effect(isolate, &stage) else { panic!("traffic is allowed") };
        assert!(seen.contains("NetworkPolicy p allows"), "{seen}");
        let followed = stage.ask(|scene| {
            isolate.effect(scene)?;
            Ok(isolate.follows(scene))
        });
        assert_eq!(followed.unwrap(), Some(Look::List { kind: NETWORK_POLICY, labels: None }));
    }
}

#[test]
fn a_pod_that_nobody_would_replace_is_refused_unless_it_is_to_have_its_labels_back() {
    let mut lone = pod("lone");
    lone["metadata"]["ownerReferences"] = json!(null);
    assert_eq!(parts(&Isolate::default(), &Stage::new(lone.clone())).unwrap_err().reason, "StandsAlone");
    let relabel = Isolate { release_pods: Some(ReleasePods::Relabel), ..Isolate::default() };
    assert!(parts(&relabel, &Stage::new(lone.clone())).is_ok());
    // Once it is isolated, its workload has let go of it.
    lone["metadata"]["labels"] = json!({ISOLATED: "01234567"});
    assert!(parts(&Isolate::default(), &Stage::new(lone)).is_ok());
}

#[test]
fn what_cannot_be_isolated_is_refused() {
    let mut host = pod("web-1");
    host["spec"]["hostNetwork"] = json!(true);
    let stage = Stage::new(web()).with(host).with(replica_set());
    assert_eq!(parts(&Isolate::default(), &stage).unwrap_err().reason, "HostNetwork");
    let mut ordinal = pod("db-0");
    ordinal["metadata"]["ownerReferences"][0]["kind"] = json!("StatefulSet");
    assert_eq!(parts(&Isolate::default(), &Stage::new(ordinal)).unwrap_err().reason, "StatefulPod");
}

/// Without the expressions every pod of the namespace would be meant, and deleted with the release.
#[test]
fn pods_are_told_by_the_whole_selector_of_their_workload() {
    let deny = Isolate { method: Some(IsolateMethod::DenyPolicy), ..Isolate::default() };
    let track = json!([{"key": "track", "operator": "NotIn", "values": ["canary"]}]);
    for selector in [
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}, track[0]]}),
        json!({"matchLabels": {"app": "web"}, "matchExpressions": track}),
    ] {
        let mut target = web();
        target["spec"]["selector"] = selector.clone();
        target["spec"]["replicas"] = json!(1);
        let mut other = pod("other-1");
        other["metadata"]["labels"]["app"] = json!("other");
        let mut canary = pod("canary-1");
        canary["metadata"]["labels"]["track"] = json!("canary");
        for foreign in [&mut other, &mut canary] {
            foreign["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        }
        let stage =
            || Stage::new(target.clone()).with(replica_set()).with(other.clone()).with(canary.clone());
        let made = parts(&Isolate::default(), &stage().with(pod("web-1"))).unwrap();
        let names: Vec<&str> = made.iter().map(|part| part.id.name.as_str()).collect();
        assert_eq!(names, ["mit-01234567", "web-1"], "{selector}");
        let made = parts(&deny, &stage().with(pod("web-1"))).unwrap();
        assert!(matches!(&made[0].asked, Asked::Create(spec) if spec["podSelector"] == selector), "{made:?}");
        let narrow =
            Isolate { pod_labels: Some([("zone".into(), ShortText("b".into()))].into()), ..deny.clone() };
        let mut zoned = pod("web-1");
        zoned["metadata"]["labels"]["zone"] = json!("b");
        let made = parts(&narrow, &stage().with(pod("web-2")).with(zoned)).unwrap();
        let mut both = selector.clone();
        both["matchLabels"]["zone"] = json!("b");
        assert!(matches!(&made[0].asked, Asked::Create(spec) if spec["podSelector"] == both), "{made:?}");
        // Pods of somebody else are no replacements.
        assert!(matches!(effect(&Isolate::default(), &stage()), Effect::Awaited { .. }));
    }
    let mut blank = web();
    blank["spec"]["selector"] = json!({"matchLabels": {}});
    let refusal = parts(&Isolate::default(), &Stage::new(blank).with(pod("web-1"))).unwrap_err();
    assert_eq!(refusal.reason, "NoSelector", "an empty one would select every pod");
}

/// Its siblings have the same labels, so by these the policy would be an outage of all of them.
#[test]
fn a_policy_for_one_pod_selects_that_pod_by_a_label_of_its_own() {
    let deny = Isolate { method: Some(IsolateMethod::DenyPolicy), ..Isolate::default() };
    let made = parts(&deny, &Stage::new(pod("web-1")).with(pod("web-2"))).unwrap();
    let own = json!({"matchLabels": {ISOLATED: "01234567"}});
    assert!(matches!(&made[0].asked, Asked::Create(spec) if spec["podSelector"] == own), "{made:?}");
    assert_eq!(made[1].id.to_string(), "Pod/web-1");
    let changes: Vec<(&str, &Option<Value>)> =
        made[1].changes().iter().map(|change| (change.path.as_str(), &change.to)).collect();
    assert_eq!(
        changes,
        [("/metadata/labels/incident-operator.dev~1isolated", &Some(json!("01234567")))],
        "no label is taken away"
    );
    let target = TargetRef { api_version: None, kind: "Pod".into(), name: "web-1".into() };
    assert_eq!(deny.summary(&target, &made), "deny all traffic of Pod/web-1");
    // The pod is written to, so whoever asks must be one who may.
    let template = json!({"reason": "r", "targetRef": target, "isolate": deny});
    let template = serde_json::from_value(template).unwrap();
    for taken in [true, false] {
        let needs: Vec<_> = wanted(&template, taken).iter().map(ToString::to_string).collect();
        assert_eq!(needs, ["patch pods \"web-1\""]);
    }
}

/// A pod that got its labels back keeps ours, and the policy of its workload selects it all the same.
#[test]
fn every_pod_that_the_policy_of_a_workload_selects_is_counted() {
    let deny = Isolate { method: Some(IsolateMethod::DenyPolicy), ..Isolate::default() };
    let mut marked = pod("web-2");
    marked["metadata"]["labels"][ISOLATED] = json!("89abcdef");
    assert_eq!(parts(&deny, &stage().with(marked.clone())).unwrap_err().reason, "TooManyPods");
    assert_eq!(parts(&Isolate::default(), &stage().with(marked)).unwrap().len(), 2);
}
