//! The action `rateLimit` with the kinds of Envoy Gateway, Traefik and ingress-nginx. Their controllers do not run: what
//! Envoy Gateway would say, the test writes.

use super::mitigation::*;
use super::support::{audit, crds, *};
use incident_operator::api::{ConditionStatus, Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::networking::v1::IngressClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

/// Makes an object of a name.
type Make = Box<dyn Fn(&str) -> Value>;

const MIDDLEWARES: &str = "traefik.ingress.kubernetes.io/router.middlewares";

fn limit(name: &str, kind: &str, target: &str, more: Value) -> Value {
    let mut asked = json!({"requests": 100, "per": "Second"});
    json_patch::merge(&mut asked, &more);
    mitigation_of(name, kind, target, json!({"rateLimit": asked}))
}

fn route(name: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [{"name": "api", "port": 80}]}]}})
}

fn policy(name: &str, kind: &str, target: &str, more: Value) -> Value {
    let mut object = json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "BackendTrafficPolicy", "metadata": {"name": name},
        "spec": {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": kind, "name": target}]}});
    json_patch::merge(&mut object["spec"], &more);
    object
}

fn local(requests: i64) -> Value {
    json!({"type": "Local", "local": {"rules": [{"limit": {"requests": requests, "unit": "Second"}}]}})
}

fn middleware(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": {"name": name}, "spec": spec})
}

fn ingress(name: &str, class: &str, annotations: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "annotations": annotations},
        "spec": {"ingressClassName": class, "defaultBackend": {"service": {"name": "api", "port": {"number": 80}}}}})
}

/// Classes belong to the whole cluster; every test makes the same.
async fn classes(namespace: &TestNamespace) {
    let api: Api<IngressClass> = Api::all(namespace.cluster.client.clone());
    for (name, controller) in [
        ("traefik", "traefik.io/ingress-controller"),
        ("nginx", "k8s.io/ingress-nginx"),
        ("other", "example.com/x"),
    ] {
        let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name}, "spec": {"controller": controller}});
        let params = PatchParams::apply("tests").force();
        api.patch(name, &params, &Patch::Apply(&class)).await.expect("a class");
    }
}

async fn accept(namespace: &TestNamespace, policy: &DynamicObject, status: &str) {
    let condition = json!({"type": "Accepted", "status": status, "reason": "Said", "message": "by the test",
        "lastTransitionTime": "2026-11-23T10:00:00Z", "observedGeneration": policy.metadata.generation});
    let ancestor = json!({"ancestorRef": {"name": "edge"}, "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
        "conditions": [condition]});
    let object = serde_json::to_value(policy).expect("JSON");
    crds::set_status(namespace, &object, json!({"ancestors": [ancestor]})).await;
}

async fn the_made(namespace: &TestNamespace, like: &Value) -> Option<DynamicObject> {
    let api = namespace.cluster.api_of(like, &namespace.name);
    let all = api.list(&ListParams::default()).await.expect("it can be listed").items;
    all.into_iter().find(|o| o.name_any().starts_with("mit-"))
}

async fn kill_and_delete(namespace: &TestNamespace, operator: &mut Operator, name: &str) {
    let api = namespace.api::<Mitigation>();
    api.delete(name, &DeleteParams::default()).await.expect("it can be deleted");
    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
    operator.restart().await;
    wait_gone(&api, name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_gets_a_policy_that_is_effective_once_envoy_gateway_accepts_it() {
    crds::install_all(&["gateway"]);
    let namespace = TestNamespace::new("envoy").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let target = namespace.create(route("web")).await;
    let kind = policy("", "", "", json!({}));
    for round in 0..3 {
        let name = format!("slow-{round}");
        namespace.create(limit(&name, "HTTPRoute", "web", json!({}))).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
        operator.restart().await;
        says(&namespace, &name, "Effective", "Verifying").await;
        let ours = the_made(&namespace, &kind).await.expect("a policy was made");
        assert_eq!(
            ours.data["spec"],
            policy("", "HTTPRoute", "web", json!({"rateLimit": local(100)}))["spec"]
        );
        accept(&namespace, &ours, "True").await;
        let told = effective(&namespace, &name).await;
        let words = message(&told, "Effective");
        assert!(words.contains("each replica of Envoy lets 100 requests a second pass"), "{words}");
        kill_and_delete(&namespace, &mut operator, &name).await;
        assert!(the_made(&namespace, &kind).await.is_none());
    }
    assert_eq!(
        version(&present(&namespace, &route("web")).await),
        version(&target),
        "the route is never written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_there_is_changed_and_comes_back_exactly_and_the_gateways_policy_is_merged() {
    crds::install_all(&["gateway", "traefik"]);
    let namespace = TestNamespace::new("policies").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    for name in ["web", "bare"] {
        namespace.create(route(name)).await;
    }
    let present_limit = policy(
        "house",
        "HTTPRoute",
        "web",
        json!({"rateLimit": local(500), "timeout": {"http": {"requestTimeout": "5s"}}}),
    );
    namespace.apply(&present_limit.to_string()).expect("applied");
    namespace
        .create(policy("edge", "Gateway", "edge", json!({"timeout": {"http": {"requestTimeout": "9s"}}})))
        .await;
    let before = present(&namespace, &present_limit).await;
    for round in 0..3 {
        let name = format!("slow-{round}");
        namespace.create(limit(&name, "HTTPRoute", "web", json!({}))).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
        operator.restart().await;
        says(&namespace, &name, "Effective", "Verifying").await;
        let changed = present(&namespace, &present_limit).await;
        assert_eq!(changed.data["spec"]["rateLimit"], local(100));
        // A gateway that does not take it is told, and so is one that does.
        accept(&namespace, &changed, "False").await;
        accept(&namespace, &changed, "True").await;
        effective(&namespace, &name).await;
        // Somebody changes something else of it meanwhile.
        let timeout = json!({"spec": {"timeout": {"http": {"requestTimeout": "5s"}}}});
        edit(&namespace, &present_limit, "kubectl-client-side-apply", timeout).await;
        kill_and_delete(&namespace, &mut operator, &name).await;
        let after = present(&namespace, &present_limit).await;
        assert_same(&after, &before);
    }
    classes(&namespace).await;
    let house = middleware(
        "house",
        json!({"rateLimit": {"average": 500, "period": 1, "sourceCriterion": {"requestHost": true}}}),
    );
    namespace.apply(&house.to_string()).expect("applied");
    let named = format!("{}-house@kubernetescrd", namespace.name);
    namespace.create(ingress("shop", "traefik", json!({MIDDLEWARES: named}))).await;
    let before = present(&namespace, &house).await;
    namespace.create(limit("house", "Ingress", "shop", json!({"per": "Minute"}))).await;
    says(&namespace, "house", "Effective", "NotReported").await;
    let changed = present(&namespace, &house).await;
    let limited =
        json!({"average": 100, "period": "1m", "burst": 1, "sourceCriterion": {"requestHost": true}});
    assert_eq!(changed.data["spec"]["rateLimit"], limited);
    delete(&namespace, "house").await;
    assert_same(&present(&namespace, &house).await, &before);

    namespace.create(limit("merged", "HTTPRoute", "bare", json!({}))).await;
    says(&namespace, "merged", "Effective", "Verifying").await;
    let ours = the_made(&namespace, &present_limit).await.expect("a policy was made");
    assert_eq!(ours.data["spec"]["mergeType"], "StrategicMerge");
    delete(&namespace, "merged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_limits_on_one_route_the_second_waits_and_names_the_first() {
    crds::install_all(&["gateway", "traefik"]);
    let namespace = TestNamespace::new("two").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    classes(&namespace).await;
    namespace.create(route("web")).await;
    namespace.create(ingress("shop", "traefik", json!({}))).await;
    namespace.create(ingress("old", "nginx", json!({}))).await;
    for (kind, target) in [("HTTPRoute", "web"), ("Ingress", "shop"), ("Ingress", "old")] {
        let (first, second) = (format!("{target}-1"), format!("{target}-2"));
        namespace.create(limit(&first, kind, target, json!({}))).await;
        until(&namespace, &first, "take", |m| phase_of(m) == Some(Phase::Active)).await;
        namespace.create(limit(&second, kind, target, json!({"per": "Minute"}))).await;
        let waits = says(&namespace, &second, "Applied", "FieldBusy").await;
        assert!(message(&waits, "Applied").contains(&first), "{}", message(&waits, "Applied"));
        delete(&namespace, &first).await;
        until(&namespace, &second, "take of the second", |m| phase_of(m) == Some(Phase::Active)).await;
        delete(&namespace, &second).await;
        for like in [policy("", "", "", json!({})), middleware("", json!({}))] {
            assert!(the_made(&namespace, &like).await.is_none(), "{target}");
        }
        let object = match kind {
            "Ingress" => ingress(target, "", json!({})),
            _ => route(target),
        };
        assert_eq!(marks(&present(&namespace, &object).await), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_names_the_middleware_while_it_is_there_and_entries_of_others_stay() {
    crds::install_all(&["traefik"]);
    let namespace = TestNamespace::new("traefik").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    classes(&namespace).await;
    let target = ingress("web", "traefik", json!({MIDDLEWARES: "auth@file"}));
    for name in ["web", "control"] {
        namespace
            .apply(&ingress(name, "traefik", json!({MIDDLEWARES: "auth@file"})).to_string())
            .expect("applied");
    }
    for round in 0..4 {
        let name = format!("slow-{round}");
        let mark = audit::mark();
        namespace.create(limit(&name, "Ingress", "web", json!({"scope": "PerClient"}))).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..40_000))).await;
        operator.restart().await;
        let told = says(&namespace, &name, "Effective", "NotReported").await;
        let words = message(&told, "Effective");
        assert!(
            words.contains("each client address may send 100 requests a second to each replica of Traefik"),
            "{words}"
        );
        let ours = the_made(&namespace, &middleware("", json!({}))).await.expect("a Middleware was made");
        assert_eq!(ours.data["spec"], json!({"rateLimit": {"average": 100, "period": "1s", "burst": 100}}));
        let entry = format!("{}-{}@kubernetescrd", namespace.name, ours.name_any());
        let list = present(&namespace, &target).await.annotations()[MIDDLEWARES].clone();
        let rest =
            present(&namespace, &ingress("control", "", json!({}))).await.annotations()[MIDDLEWARES].clone();
        assert_eq!(list, format!("{rest},{entry}"));
        if round == 1 {
            // Somebody adds one of their own: ours stays in force, theirs stays after it.
            for each in ["web", "control"] {
                let list =
                    if each == "web" { format!("{list},more@file") } else { "auth@file,more@file".into() };
                let patch = json!({"metadata": {"annotations": {MIDDLEWARES: list}}});
                edit(&namespace, &ingress(each, "", json!({})), "kubectl-edit", patch).await;
            }
        }
        if round == 2 {
            let patch = json!({"metadata": {"annotations": {MIDDLEWARES: format!("auth@file,{entry}")}}});
            edit(&namespace, &target, "kubectl-edit", patch).await;
            let patch = json!({"metadata": {"annotations": {MIDDLEWARES: "auth@file"}}});
            edit(&namespace, &ingress("control", "", json!({})), "kubectl-edit", patch).await;
        }
        kill_and_delete(&namespace, &mut operator, &name).await;
        assert!(the_made(&namespace, &middleware("", json!({}))).await.is_none());
        let after = present(&namespace, &target).await;
        let control = present(&namespace, &ingress("control", "", json!({}))).await;
        assert_eq!(after.annotations()[MIDDLEWARES], control.annotations()[MIDDLEWARES]);
        assert_eq!(marks(&after), Vec::<String>::new());
        // It is there before it is named, and named no more before it goes. The log comes a moment later, and calls a
        // request whose sender was killed meanwhile a 504, although it was carried out.
        let done = |r: &audit::Request| r.code < 300 || r.code == 504;
        let writes = wait_for(PATIENCE, "the deletion in the audit log", async || {
            let writes = audit::requests(mark, |r| {
                r.namespace == namespace.name
                    && r.writes()
                    && ["ingresses", "middlewares"].contains(&r.resource.as_str())
                    && r.field_manager.starts_with("incident-operator") | (r.verb == "delete")
            });
            writes.iter().any(|r| r.verb == "delete" && done(r)).then_some(writes)
        })
        .await;
        let order: Vec<String> =
            writes.iter().filter(|r| done(r)).map(|r| format!("{} {}", r.verb, r.resource)).collect();
        assert_eq!(order.first().map(String::as_str), Some("create middlewares"), "{order:?}");
        assert_eq!(order.last().map(String::as_str), Some("delete middlewares"), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_ingress_and_ingress_route_come_back_byte_for_byte() {
    crds::install_all(&["traefik"]);
    let namespace = TestNamespace::new("bytes").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    classes(&namespace).await;
    let routes = |name: &str| {
        json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": name},
            "spec": {"routes": [
                {"kind": "Rule", "match": "Host(`shop`) && Path(`/a`)", "services": [{"name": "api", "port": 80}]},
                {"kind": "Rule", "match": "Path(`/b`)", "middlewares": [{"name": "auth"}], "services": [{"name": "api", "port": 80}]}]}})
    };
    let limited = json!({"nginx.ingress.kubernetes.io/limit-rps": "5"});
    let cases: Vec<(&str, Make)> = vec![
        ("Ingress", Box::new(|name| ingress(name, "traefik", json!({})))),
        ("Ingress", Box::new(|name| ingress(name, "traefik", json!({MIDDLEWARES: "auth@file, x@file"})))),
        ("Ingress", Box::new(|name| ingress(name, "nginx", json!({})))),
        ("Ingress", Box::new(move |name| ingress(name, "nginx", limited.clone()))),
        ("IngressRoute", Box::new(routes)),
    ];
    for (index, (kind, object)) in cases.iter().enumerate() {
        let (target, control) = (format!("web{index}"), format!("control{index}"));
        for (way, name) in [(index % 2 == 0, &target), (index % 2 == 0, &control)] {
            let object = object(name);
            if way {
                namespace.create(object).await;
            } else {
                namespace.apply(&object.to_string()).expect("applied");
            }
        }
        let name = format!("slow{index}");
        namespace.create(limit(&name, kind, &target, json!({"requests": 7, "per": "Minute"}))).await;
        says(&namespace, &name, "Effective", "NotReported").await;
        let held = present(&namespace, &object(&target)).await;
        let text = serde_json::to_string(&held).expect("JSON");
        assert!(text.contains("limit-rpm\":\"7\"") || text.contains("mit-"), "{text}");
        assert!(!text.contains("limit-rps\":\"5\""), "one limit at a time: {text}");
        release(&namespace, &name);
        reaches(&namespace, &name, Phase::Released).await;
        let (after, control) =
            (present(&namespace, &object(&target)).await, present(&namespace, &object(&control)).await);
        assert_same(&after, &control);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_cannot_do_is_refused_in_words() {
    crds::install_all(&["gateway", "traefik"]);
    let namespace = TestNamespace::new("cannot").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    classes(&namespace).await;
    namespace.create(route("web")).await;
    namespace.create(ingress("shop", "traefik", json!({}))).await;
    namespace.create(ingress("old", "nginx", json!({}))).await;
    namespace.create(ingress("odd", "other", json!({}))).await;
    for (name, kind, target, more, reason, words) in [
        ("a", "HTTPRoute", "web", json!({"scope": "Global"}), "ScopeNotSupported", "PerProxy"),
        ("b", "Ingress", "shop", json!({"scope": "PerProxy"}), "ScopeNotSupported", "PerClient"),
        ("c", "Ingress", "old", json!({"per": "Hour"}), "UnitNotSupported", "minute"),
        ("d", "Ingress", "odd", json!({}), "GatewayUnknown", "state adapter"),
    ] {
        namespace.create(limit(name, kind, target, more)).await;
        let refused = reaches(&namespace, name, Phase::Refused).await;
        assert_eq!(condition(&refused, "Stalled").unwrap().reason, reason, "{name}");
        assert!(message(&refused, "Stalled").contains(words), "{}", message(&refused, "Stalled"));
    }
    let other = limit("e", "HTTPRoute", "web", json!({"adapter": "Traefik"}));
    let refused = namespace.try_create(other).await.expect_err("the API server refuses it").to_string();
    assert!(refused.contains("HTTPRoute"), "{refused}");
    assert!(the_made(&namespace, &policy("", "", "", json!({}))).await.is_none());
}

/// The limit stands on a Middleware and not on the route that it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_whose_object_somebody_deletes_has_ended() {
    crds::install_all(&["traefik"]);
    let namespace = TestNamespace::new("nolimit").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    classes(&namespace).await;
    let limited = middleware("slow", json!({"rateLimit": {"average": 900}}));
    namespace.create(limited).await;
    let routes = json!([{"kind": "Rule", "match": "Path(`/a`)", "middlewares": [{"name": "slow"}], "services": [{"name": "api", "port": 80}]}]);
    namespace
        .create(json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "shop"}, "spec": {"routes": routes}}))
        .await;
    namespace.create(limit("m", "IngressRoute", "shop", json!({}))).await;
    until(&namespace, "m", "take", |m| is(m, "Applied", ConditionStatus::True)).await;
    namespace.kubectl(&["delete", "middleware", "slow"]).success();
    let m = reaches(&namespace, "m", Phase::Superseded).await;
    assert!(message(&m, "Ready").contains("deleted by somebody"), "{}", message(&m, "Ready"));
}

fn ingress_route(name: &str, rules: &[(&str, &[&str])]) -> Value {
    let rules = rules.iter().map(|(path, names)| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let mut rule = json!({"kind": "Rule", "match": path, "services": [{"name": "api", "port": 80}]});
        if !names.is_empty() {
            rule["middlewares"] = names.into();
        }
        rule
    });
    json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": name},
        "spec": {"routes": rules.collect::<Vec<_>>()}})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_of_an_ingress_route_is_limited_and_one_that_is_not_any_more_is_told() {
    crds::install_all(&["traefik"]);
    let namespace = TestNamespace::new("rules").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let limited = |of: i64| json!({"rateLimit": {"average": of, "period": "1s", "burst": of}});
    for (name, of) in [("la", 500), ("lb", 900)] {
        namespace.create(middleware(name, limited(of))).await;
    }
    let spec =
        async |name: &str| present(&namespace, &middleware(name, json!({}))).await.data["spec"].clone();
    let set_rules = async |name: &str, rules: &[(&str, &[&str])]| {
        let object = ingress_route(name, rules);
        edit(&namespace, &object, "kubectl-edit", json!({"spec": object["spec"]})).await;
    };
    let told = async |name: &str, rule: &str| {
        let words = says(&namespace, name, "Effective", "NotEffective").await;
        let words = message(&words, "Effective").to_owned();
        assert!(words.contains(rule), "{words}");
    };
    let short = json!({"verification": {"timeout": "1s"}});

    // Limited in part: each rule gets ours, and the limit of one stays.
    let part = ingress_route("part", &[("Path(`/a`)", &["la"]), ("Path(`/b`)", &[])]);
    namespace.create(part.clone()).await;
    namespace.create(with(limit("part", "IngressRoute", "part", json!({})), short.clone())).await;
    says(&namespace, "part", "Effective", "NotReported").await;
    let ours = the_made(&namespace, &middleware("", json!({}))).await.expect("a Middleware was made");
    let ours = ours.name_any();
    let held = ingress_route("part", &[("Path(`/a`)", &["la", &ours]), ("Path(`/b`)", &[&ours])]);
    assert_eq!(present(&namespace, &part).await.data["spec"], held["spec"]);
    assert_eq!(spec("la").await, limited(500));
    set_rules("part", &[("Path(`/a`)", &["la", &ours]), ("Path(`/b`)", &[])]).await;
    told("part", "Path(`/b`)").await;
    set_rules("part", &[("Path(`/a`)", &["la", &ours]), ("Path(`/b`)", &[&ours])]).await;
    says(&namespace, "part", "Effective", "NotReported").await;
    let rules: &[(&str, &[&str])] =
        &[("Path(`/a`)", &["la", &ours]), ("Path(`/b`)", &[&ours]), ("Path(`/c`)", &[])];
    set_rules("part", rules).await;
    told("part", "Path(`/c`)").await;
    delete(&namespace, "part").await;
    let left = ingress_route("part", &[("Path(`/a`)", &["la"]), ("Path(`/b`)", &[]), ("Path(`/c`)", &[])]);
    assert_eq!(present(&namespace, &part).await.data["spec"], left["spec"]);

    // Limited in each rule: every one of the limits is changed.
    let two = ingress_route("two", &[("Path(`/a`)", &["la"]), ("Path(`/b`)", &["lb"])]);
    namespace.create(two.clone()).await;
    namespace.create(with(limit("two", "IngressRoute", "two", json!({})), short)).await;
    says(&namespace, "two", "Effective", "NotReported").await;
    assert_eq!((spec("la").await, spec("lb").await), (limited(100), limited(100)));
    set_rules("two", &[("Path(`/a`)", &["la"]), ("Path(`/b`)", &[])]).await;
    told("two", "Path(`/b`)").await;
    delete(&namespace, "two").await;
    assert_eq!((spec("la").await, spec("lb").await), (limited(500), limited(900)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_is_told_by_object_and_entry_and_so_is_what_another_mitigation_holds() {
    crds::install_all(&["traefik"]);
    let namespace = TestNamespace::new("limitwords").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    classes(&namespace).await;
    let house = json!({"rateLimit": {"average": 900, "period": "1s", "burst": 100}});
    namespace.create(middleware("house", house)).await;
    namespace.create(ingress_route("limited", &[("Path(`/a`)", &["house"])])).await;
    namespace.create(ingress_route("bare", &[("Path(`/a`)", &["auth"])])).await;
    namespace.create(ingress("shop", "traefik", json!({MIDDLEWARES: "auth@file"}))).await;
    let applied = async |name: &str| {
        let told = says(&namespace, name, "Effective", "NotReported").await;
        message(&told, "Applied").to_owned()
    };

    // What has its value already is no change.
    namespace.create(limit("first", "IngressRoute", "limited", json!({}))).await;
    let words = applied("first").await;
    assert!(words.contains("Middleware/house spec.rateLimit.average from 900 to 100"), "{words}");
    assert!(!words.contains("burst") && !words.contains("period"), "{words}");
    // What is held is not on the target, so its object is named.
    namespace.create(limit("second", "IngressRoute", "limited", json!({"per": "Minute"}))).await;
    let waits = says(&namespace, "second", "Applied", "FieldBusy").await;
    let words = message(&waits, "Applied");
    assert!(words.contains("of Middleware/house is held by mitigation first;"), "{words}");

    // An entry comes to a list, which stays.
    let names = [
        ("IngressRoute", "bare", "middlewares of each of spec.routes"),
        ("Ingress", "shop", &format!("metadata.annotations.{MIDDLEWARES}")),
    ];
    for (kind, target, list) in names {
        let asked = with(limit("what-if", kind, target, json!({})), json!({"dryRun": true}));
        namespace.create(asked).await;
        let plan = says(&namespace, "what-if", "Ready", "DryRun").await.status.unwrap().plan.expect("a plan");
        let change =
            plan.changes.iter().find(|change| change.object.is_none()).expect("a change of the target");
        assert!(change.from.contains("auth"), "{change:?}");
        assert!(change.to.ends_with(&format!(" added to {list}")), "{change:?}");
        delete(&namespace, "what-if").await;
        namespace.create(limit(target, kind, target, json!({}))).await;
        let words = applied(target).await;
        assert!(words.contains(&format!(" added to {list}")), "{words}");
        assert!(words.contains("mit-") && !words.contains("absent"), "{words}");
    }
}
