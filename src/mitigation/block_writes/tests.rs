use super::*;
use crate::api::ShortText;
use crate::mitigation::{Asked, scene_tests::Stage};
use serde_json::json;

fn block(level: BlockLevel) -> BlockWrites {
    BlockWrites { level, flag: None, methods: None, resources: None, read_replica_labels: None }
}

fn route(rules: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "uid": "r"},
        "spec": {"parentRefs": [{"name": "edge"}], "hostnames": ["shop.example"], "rules": rules}})
}

fn store(body: Value) -> Value {
    let mut base = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "uid": "s"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db", "role": "primary"}}}}});
    json_patch::merge(&mut base, &body);
    base
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

fn made(block: &BlockWrites, stage: &Stage) -> Result<Vec<(String, Value)>, Refusal> {
    let parts = stage.ask(|scene| block.parts(scene))?;
    let made = parts.into_iter().map(|part| match part.asked {
        Asked::Create(spec) => (part.id.to_string(), spec),
        Asked::Change(changes) => panic!("{changes:?}"),
    });
    Ok(made.collect())
}

fn reason(block: &BlockWrites, stage: &Stage) -> &'static str {
    stage.ask(|scene| block.parts(scene)).unwrap_err().reason
}

fn read_replicas(labels: &[(&str, &str)]) -> BlockWrites {
    let labels =
        labels.iter().map(|(key, value)| ((*key).to_owned(), ShortText((*value).to_owned()))).collect();
    BlockWrites { read_replica_labels: Some(labels), ..block(BlockLevel::Network) }
}

#[test]
fn every_match_of_the_route_is_answered_503_for_the_methods_that_write() {
    let api =
        json!({"path": {"type": "PathPrefix", "value": "/api"}, "headers": [{"name": "x", "value": "y"}]});
    let rules = json!([
        {"matches": [api], "backendRefs": [{"name": "api", "port": 80}]},
        {"backendRefs": [{"name": "web", "port": 80}]},
        {"matches": [{"path": {"type": "Exact", "value": "/feed"}, "method": "GET"}]},
    ]);
    let made = made(&block(BlockLevel::Routes), &Stage::new(route(rules))).unwrap();
    let [(filter, answer), (name, spec)] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!((filter.as_str(), name.as_str()), ("HTTPRouteFilter/mit-01234567", "HTTPRoute/mit-01234567"));
    assert_eq!(answer["directResponse"]["statusCode"], 503);
    assert_eq!(
        (&spec["parentRefs"], &spec["hostnames"]),
        (&json!([{"name": "edge"}]), &json!(["shop.example"]))
    );
    assert_eq!(spec["rules"][0]["filters"][0]["extensionRef"]["name"], "mit-01234567");
    assert_eq!(spec["rules"][0].get("backendRefs"), None);
    let matches = spec["rules"][0]["matches"].as_array().unwrap();
    assert_eq!(matches.len(), 8, "four methods on two matches; what only lets GET through stays");
    let mut wanted = api;
    wanted["method"] = json!("POST");
    assert_eq!(matches[0], wanted);
    assert_eq!(matches[7]["path"]["value"], "/");
    assert_eq!(matches[7]["method"], "DELETE");
}

#[test]
fn a_route_that_would_not_lose_to_ours_is_refused() {
    let own = route(json!([{"matches": [{"path": {"value": "/api"}, "method": "POST"}]}]));
    let refusal = Stage::new(own.clone()).ask(|scene| block(BlockLevel::Routes).parts(scene)).unwrap_err();
    assert_eq!(refusal.reason, "MethodMatched");
    assert!(refusal.message.contains("POST") && refusal.message.contains("/api"), "{}", refusal.message);
    let only_put = BlockWrites { methods: Some(vec!["PUT".into()]), ..block(BlockLevel::Routes) };
    assert_eq!(reason(&only_put, &Stage::new(own)), "NothingToBlock");
}

#[test]
fn grpc_and_other_gateways_are_refused() {
    let backend = json!([{"backendRefs": [{"name": "api", "port": 90}]}]);
    let service = |protocol: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"},
            "spec": {"ports": [{"port": 90, "appProtocol": protocol}]}})
    };
    let routes = block(BlockLevel::Routes);
    assert_eq!(reason(&routes, &Stage::new(route(backend.clone())).with(service("grpc"))), "Grpc");
    assert!(made(&routes, &Stage::new(route(backend)).with(service("http"))).is_ok());
    let header = json!([{"matches": [{"headers": [{"name": "Content-Type", "value": "application/grpc"}]}]}]);
    assert_eq!(reason(&routes, &Stage::new(route(header))), "Grpc");
    let mut other = route(json!([{}]));
    other["status"] = json!({"parents": [{"controllerName": "istio.io/gateway-controller"}]});
    let refusal = made(&routes, &Stage::new(other)).unwrap_err();
    assert_eq!(refusal.reason, "OtherGateway");
    assert!(refusal.message.contains("block at another level"), "{}", refusal.message);
}

#[test]
fn too_many_matches_for_one_route_are_refused_and_many_are_spread_over_rules() {
    let rules = |n: usize| {
        let matches: Vec<Value> =
            (0..n).map(|i| json!({"path": {"type": "Exact", "value": format!("/{i}")}})).collect();
        route(json!([{"matches": matches}]))
    };
    let routes = block(BlockLevel::Routes);
    let spec = made(&routes, &Stage::new(rules(30))).unwrap()[1].1.clone();
    let sizes: Vec<_> =
        spec["rules"].as_array().unwrap().iter().map(|r| r["matches"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [64, 56]);
    assert_eq!(reason(&routes, &Stage::new(rules(33))), "TooManyMatches");
}

#[test]
fn a_route_works_once_every_gateway_has_accepted_it_as_it_is() {
    let condition = |type_: &str, status: &str, generation: i64| json!({"type": type_, "status": status, "reason": "Because", "message": "of this", "observedGeneration": generation});
    let effect = |conditions: Vec<Value>| {
        let mut ours = route(json!([{}]));
        ours["metadata"] = json!({"name": "mit-01234567", "generation": 2});
        ours["spec"] =
            made(&block(BlockLevel::Routes), &Stage::new(route(json!([{}])))).unwrap()[1].1.clone();
        if !conditions.is_empty() {
            ours["status"] =
                json!({"parents": [{"controllerName": "gateway.envoyproxy.io/x", "conditions": conditions}]});
        }
        let stage = Stage::new(route(json!([{}]))).with(ours);
        stage.ask(|scene| block(BlockLevel::Routes).effect(scene)).unwrap()
    };
    let both = |status: &str, generation: i64| {
        vec![condition("Accepted", "True", 2), condition("ResolvedRefs", status, generation)]
    };
    assert!(matches!(effect(vec![]), Effect::Awaited { .. }));
    assert!(matches!(effect(both("True", 1)), Effect::Unseen { .. }));
    assert!(matches!(effect(both("True", 2)), Effect::Seen(_)));
    let Effect::Awaited { seen, .. } = effect(both("False", 2)) else { panic!("not accepted") };
    assert!(seen.contains("ResolvedRefs=False, Because: of this"), "{seen}");
}

/// The target stays as it is, so it may be changed by anybody while writes are blocked.
#[test]
fn what_comes_to_the_target_later_is_told_as_not_blocked() {
    let api = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}]});
    let asked = block(BlockLevel::Routes);
    let made = made(&asked, &Stage::new(route(json!([api])))).unwrap();
    let accepted = json!({"parents": [{"controllerName": "gateway.envoyproxy.io/x", "conditions": [
        {"type": "Accepted", "status": "True"}, {"type": "ResolvedRefs", "status": "True"}]}]});
    let ours = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "mit-01234567"}, "spec": made[1].1, "status": accepted});
    let effect =
        |target: Value| Stage::new(target).with(ours.clone()).ask(|scene| asked.effect(scene)).unwrap();
    assert!(matches!(effect(route(json!([api]))), Effect::Seen(_)));
    let admin = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/admin"}}]});
    let mut other_host = route(json!([api]));
    other_host["spec"]["hostnames"] = json!(["shop.example", "api.example"]);
    let mut other_gateway = route(json!([api]));
    other_gateway["spec"]["parentRefs"] = json!([{"name": "edge"}, {"name": "inner"}]);
    let own_method = json!({"matches": [{"path": {"type": "Exact", "value": "/pay"}, "method": "POST"}]});
    for (target, words) in [
        (route(json!([api, admin])), "/admin"),
        (other_host, "api.example"),
        (other_gateway, "inner"),
        (route(json!([api, own_method])), "/pay"),
    ] {
        let Effect::Awaited { seen, .. } = effect(target) else { panic!("{words} is not blocked") };
        assert!(seen.contains(words), "{seen}");
    }
}

#[test]
fn a_quota_stops_batch_work_unless_told_otherwise_and_never_pods_by_itself() {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "n"}});
    let stage = Stage::new(namespace);
    let quota = block(BlockLevel::Quota);
    let spec = json!({"hard": {"count/jobs.batch": "0", "count/cronjobs.batch": "0"}});
    assert_eq!(made(&quota, &stage).unwrap(), [("ResourceQuota/mit-01234567".to_owned(), spec)]);
    let named = BlockWrites { resources: Some(vec!["count/pods".into()]), ..quota.clone() };
    assert_eq!(made(&named, &stage).unwrap()[0].1, json!({"hard": {"count/pods": "0"}}));
    let warnings = stage.ask(|scene| named.warnings(scene)).unwrap();
    assert!(warnings.iter().any(|w| w.contains("comes back")), "{warnings:?}");
    let odd = BlockWrites { resources: Some(vec!["Jobs".into()]), ..quota };
    assert_eq!(reason(&odd, &stage), "NotAResource");
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other", "uid": "n"}});
    assert_eq!(reason(&block(BlockLevel::Quota), &Stage::new(other)), "OtherNamespace");
}

#[test]
fn a_quota_works_once_the_quota_controller_has_taken_it_in_and_counts_all_of_it() {
    let effect = |status: Value| {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "n"}});
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "mit-01234567"}, "status": status});
        let wanted = BlockWrites { resources: Some(vec!["jobs.batch".into()]), ..block(BlockLevel::Quota) };
        Stage::new(namespace).with(quota).ask(|scene| wanted.effect(scene)).unwrap()
    };
    assert!(matches!(effect(json!({})), Effect::Awaited { .. }));
    let hard = json!({"count/jobs.batch": "0"});
    let Effect::Awaited { seen, .. } = effect(json!({"hard": hard})) else { panic!("not counted") };
    assert!(seen.contains("does not count count/jobs.batch"), "{seen}");
    assert!(matches!(effect(json!({"hard": hard, "used": {"count/jobs.batch": "1"}})), Effect::Seen(_)));
}

#[test]
fn a_store_is_closed_but_for_its_own_pods_and_its_read_replicas() {
    let own = json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]);
    let stage = Stage::new(store(json!({})));
    let network = block(BlockLevel::Network);
    assert_eq!(
        made(&network, &stage).unwrap(),
        [(
            "NetworkPolicy/mit-01234567".to_owned(),
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": own})
        )]
    );
    let alone = Stage::new(store(json!({"spec": {"replicas": 1}})));
    assert_eq!(
        made(&network, &alone).unwrap()[0].1.get("ingress"),
        None,
        "a single pod has nobody to talk to"
    );
    let made = made(&read_replicas(&[("role", "replica"), ("zone", "b")]), &stage).unwrap();
    let names: Vec<&str> = made.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["NetworkPolicy/mit-01234567", "NetworkPolicy/mit-01234567-2"]);
    assert_eq!(
        made[0].1["podSelector"]["matchExpressions"],
        json!([{"key": "role", "operator": "NotIn", "values": ["replica"]}])
    );
    assert_eq!(reason(&read_replicas(&[("role", "primary")]), &stage), "NothingToBlock");
    let host = store(json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}));
    assert_eq!(reason(&network, &Stage::new(host)), "HostNetwork");
}

#[test]
fn where_another_policy_lets_traffic_to_the_pods_closing_the_way_is_refused() {
    let network = block(BlockLevel::Network);
    let open = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 5432}]}]});
    let stage = || Stage::new(store(json!({})));
    let refusal = stage().with(policy("let-in", open.clone())).ask(|s| network.parts(s)).unwrap_err();
    assert_eq!(refusal.reason, "AllowedByAnother");
    assert!(refusal.message.contains("NetworkPolicy/let-in"), "{}", refusal.message);
    // What allows nothing, is for other pods, or for the way out, is no hindrance; nor is our own.
    for harmless in [
        json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
    ] {
        assert!(made(&network, &stage().with(policy("other", harmless.clone()))).is_ok(), "{harmless}");
    }
    assert!(made(&network, &stage().with(policy("mit-01234567", open.clone()))).is_ok());
    // A policy for the read replicas alone may allow what it likes.
    let pod = |name: &str, role: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "db", "role": role}}});
    let replicas = json!({"podSelector": {"matchLabels": {"role": "replica"}}, "ingress": [{}]});
    let stage = stage().with(pod("db-1", "replica")).with(policy("reads", replicas));
    assert!(made(&read_replicas(&[("role", "replica")]), &stage).is_ok());
    assert_eq!(reason(&network, &stage), "AllowedByAnother");
    let Ok(Effect::Awaited { seen, .. }) = stage.ask(|scene| network.effect(scene)) else { panic!("open") };
    assert!(seen.contains("NetworkPolicy/reads"), "{seen}");
    let Ok(Effect::Unclear { message, .. }) =
        stage.ask(|scene| read_replicas(&[("role", "replica")]).effect(scene))
    else {
        panic!("nobody reports that a policy is enforced")
    };
    assert!(message.contains("0 of 1 pods"), "{message}");
}

#[test]
fn a_level_works_on_its_own_kinds_and_needs_its_flag() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flags", "uid": "c"},
        "data": {"read-only": "false"}});
    assert_eq!(reason(&block(BlockLevel::Routes), &Stage::new(map.clone())), "KindNotAllowed");
    assert_eq!(reason(&block(BlockLevel::Flag), &Stage::new(map.clone())), "FlagMissing");
    let flag = FeatureFlag {
        key: "read-only".into(),
        value: Some("true".into()),
        ..crate::mitigation::feature_flag::example()
    };
    let flagged = BlockWrites { flag: Some(flag), ..block(BlockLevel::Flag) };
    let stage = Stage::new(map);
    let parts = stage.ask(|scene| flagged.parts(scene)).unwrap();
    assert_eq!(parts[0].changes()[0].path, "/data/read-only");
    assert!(matches!(stage.ask(|scene| flagged.effect(scene)), Ok(Effect::Seen(_))));
    assert!(stage.ask(|scene| flagged.warnings(scene)).unwrap()[0].contains("reads: none"));
}
