use super::*;
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
