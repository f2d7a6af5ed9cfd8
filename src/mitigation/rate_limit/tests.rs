use super::*;
use crate::mitigation::{Asked, field::How, scene_tests::Stage};
use serde_json::json;

fn per(requests: i64, per: RateUnit) -> RateLimit {
    RateLimit { requests, per, scope: None, adapter: None }
}

fn limit() -> RateLimit {
    per(100, RateUnit::Second)
}

fn route() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "uid": "r", "labels": {"app": "web"}},
        "spec": {"parentRefs": [{"name": "edge"}]}})
}

fn policy(name: &str, made: &str, spec: Value) -> Value {
    json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "BackendTrafficPolicy",
        "metadata": {"name": name, "uid": name, "creationTimestamp": made, "generation": 1}, "spec": spec})
}

fn target(kind: &str, name: &str) -> Value {
    json!([{"group": "gateway.networking.k8s.io", "kind": kind, "name": name}])
}

fn ingress(class: Option<&str>, annotations: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "uid": "i", "annotations": annotations}, "spec": {"ingressClassName": class}})
}

fn class(name: &str, controller: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
        "spec": {"controller": controller}})
}

fn traefik(list: Option<&str>) -> Stage {
    let annotations =
        list.map_or(json!({}), |list| json!({"traefik.ingress.kubernetes.io/router.middlewares": list}));
    Stage::new(ingress(Some("edge"), annotations)).with(class("edge", "traefik.io/ingress-controller"))
}

fn middleware(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": {"name": name, "uid": name}, "spec": spec})
}

/// What is planned: made objects with their spec, changed ones with their changes.
fn planned(limit: &RateLimit, stage: &Stage) -> Result<Vec<(String, Value)>, Refusal> {
    let parts = stage.ask(|scene| limit.parts(scene))?;
    let told = parts.into_iter().map(|part| {
        let asked = match part.asked {
            Asked::Create(spec) => spec,
            Asked::Change(changes) => changes.into_iter().map(|c| json!([c.path, c.to])).collect(),
        };
        (part.id.to_string(), asked)
    });
    Ok(told.collect())
}

#[test]
fn a_route_without_a_policy_gets_one_that_counts_in_each_envoy() {
    let local = local(100);
    let plan = planned(&limit(), &Stage::new(route())).unwrap();
    let spec = json!({"targetRefs": target("HTTPRoute", "web"), "rateLimit": local});
    assert_eq!(plan, [("BackendTrafficPolicy/mit-01234567".to_owned(), spec)]);
}

#[test]
fn a_policy_for_the_route_is_merged_with_one_of_its_gateway_and_replaces_none() {
    let stage = || Stage::new(route());
    let merges = |stage: Stage| planned(&limit(), &stage).unwrap()[0].1.get("mergeType").cloned();
    assert_eq!(merges(stage()), None);
    let gateways = policy("g", "2026-01-01T00:00:00Z", json!({"targetRefs": target("Gateway", "edge")}));
    assert_eq!(merges(stage().with(gateways)), Some(json!("StrategicMerge")));
    let other = policy("g", "2026-01-01T00:00:00Z", json!({"targetRefs": target("Gateway", "other")}));
    assert_eq!(merges(stage().with(other)), None);
    let mut abroad = route();
    abroad["spec"]["parentRefs"][0]["namespace"] = json!("infra");
    assert_eq!(merges(Stage::new(abroad)), Some(json!("StrategicMerge")));
}

#[test]
fn of_the_policies_for_a_route_the_oldest_counts_and_is_changed() {
    let old = policy(
        "b",
        "2026-01-01T00:00:00Z",
        json!({"targetRef": target("HTTPRoute", "web")[0], "rateLimit": {"type": "Global"}}),
    );
    let young = policy("a", "2026-02-01T00:00:00Z", json!({"targetRefs": target("HTTPRoute", "web")}));
    let stage = Stage::new(route()).with(young).with(old);
    let plan = planned(&limit(), &stage).unwrap();
    assert_eq!(plan.len(), 1);
    let rules = json!([{"limit": {"requests": 100, "unit": "Second"}}]);
    let changes = json!([["/spec/rateLimit/local", {"rules": rules}], ["/spec/rateLimit/type", "Local"]]);
    assert_eq!(plan[0], ("BackendTrafficPolicy/b".to_owned(), changes));
    let warnings = stage.ask(|scene| limit().warnings(scene)).unwrap();
    assert!(warnings.iter().any(|w| w.contains("does not hold meanwhile")), "{warnings:?}");
    let selected = policy(
        "c",
        "2026-01-01T00:00:00Z",
        json!({"targetSelectors": [{"kind": "HTTPRoute", "matchLabels": {"app": "web"}}]}),
    );
    assert_eq!(
        planned(&limit(), &Stage::new(route()).with(selected)).unwrap()[0].0,
        "BackendTrafficPolicy/c"
    );
}

fn local(requests: i64) -> Value {
    json!({"type": "Local", "local": {"rules": [{"limit": {"requests": requests, "unit": "Second"}}]}})
}

#[test]
fn of_a_limit_of_envoy_gateway_only_what_differs_is_changed() {
    let present = json!({"targetRefs": target("HTTPRoute", "web"), "rateLimit": local(500)});
    let house = policy("house", "2026-01-01T00:00:00Z", present.clone());
    let plan = planned(&limit(), &Stage::new(route()).with(house)).unwrap();
    let rules = json!([{"limit": {"requests": 100, "unit": "Second"}}]);
    let changes = json!([["/spec/rateLimit/local/rules", rules]]);
    assert_eq!(plan, [("BackendTrafficPolicy/house".to_owned(), changes)], "not the type, which is Local");
    // So it is not held, and whoever changes it later takes the local limit out of force.
    let mut held = policy("house", "2026-01-01T00:00:00Z", present);
    held["spec"]["rateLimit"]["type"] = json!("Global");
    let record = json!({"v": 1, "uid": "0123456789", "mitigation": "mitigation", "action": "rateLimit",
        "target": "house", "fields": [], "at": "2026-11-23T10:00:00Z"});
    held["metadata"]["annotations"] =
        json!({crate::mitigation::record::key("0123456789"): record.to_string()});
    held["status"] = json!({"ancestors": [{"controllerName": "gateway.envoyproxy.io/x", "conditions": [
        {"type": "Accepted", "status": "True", "observedGeneration": 1}]}]});
    let effect = Stage::new(route()).with(held).ask(|scene| limit().effect(scene)).unwrap();
    let Effect::Awaited { seen, .. } = effect else { panic!("the local limit does not count") };
    assert!(seen.contains("Global"), "{seen}");
}

#[test]
fn envoy_gateway_says_whether_it_took_the_limit() {
    let effect = |status: Value| {
        let mut ours =
            policy("mit-01234567", "2026-01-01T00:00:00Z", json!({"targetRefs": target("HTTPRoute", "web")}));
        ours["status"] = status;
        Stage::new(route()).with(ours).ask(|scene| limit().effect(scene)).unwrap()
    };
    let accepted = |status: &str| {
        json!({"ancestors": [{"controllerName": "gateway.envoyproxy.io/x", "conditions": [
            {"type": "Accepted", "status": status, "reason": "Invalid", "message": "no", "observedGeneration": 1}]}]})
    };
    assert!(matches!(effect(json!({})), Effect::Awaited { .. }));
    let Effect::Awaited { seen, .. } = effect(accepted("False")) else { panic!("not accepted") };
    assert!(seen.contains("Accepted=False, Invalid: no"), "{seen}");
    let Effect::Seen(words) = effect(accepted("True")) else { panic!("accepted") };
    assert!(words.contains("each replica of Envoy lets 100 requests a second"), "{words}");
}

#[test]
fn traefik_gets_a_middleware_before_the_route_names_it_and_only_that_name_is_held() {
    let stage = traefik(Some("auth@file"));
    let parts = stage.ask(|scene| limit().parts(scene)).unwrap();
    assert_eq!(parts[0].id.to_string(), "Middleware/mit-01234567");
    assert_eq!(
        parts[0].asked,
        Asked::Create(json!({"rateLimit": {"average": 100, "period": "1s", "burst": 100}}))
    );
    let change = &parts[1].changes()[0];
    assert_eq!(change.to, Some(json!("shop-mit-01234567@kubernetescrd")));
    assert_eq!(change.from, None);
    assert!(matches!(change.how, How::Member(_)));
    assert!(limit().undone_backwards(), "the name goes first");
}

#[test]
fn a_slow_rate_of_traefik_has_no_burst_since_it_forgets_clients_that_pause() {
    let plan = planned(&per(30, RateUnit::Minute), &traefik(None)).unwrap();
    assert_eq!(plan[0].1, json!({"rateLimit": {"average": 30, "period": "1m", "burst": 1}}));
    let plan = planned(&per(6000, RateUnit::Minute), &traefik(None)).unwrap();
    assert_eq!(plan[0].1["rateLimit"]["burst"], 100);
}

#[test]
fn a_limit_that_the_route_has_already_is_changed_and_its_clients_stay_what_they_were() {
    let present = json!({"rateLimit": {"average": 500, "sourceCriterion": {"requestHeaderName": "x"}}});
    let stage = traefik(Some("shop-slow@kubernetescrd")).with(middleware("slow", present.clone()));
    let to = |key: &str, value: Value| json!([format!("/spec/rateLimit/{key}"), value]);
    let changes = json!([to("average", json!(100)), to("burst", json!(100)), to("period", json!("1s"))]);
    assert_eq!(planned(&limit(), &stage).unwrap(), [("Middleware/slow".to_owned(), changes)]);
    // One that the route does not name is none of its limits.
    let stage = traefik(Some("shop-auth@kubernetescrd")).with(middleware("slow", present.clone()));
    assert_eq!(planned(&limit(), &stage).unwrap()[0].0, "Middleware/mit-01234567");
    let routes = |b: &[&str]| Stage::new(routes(&[("a", &["slow"]), ("b", b)]));
    let plan = planned(&limit(), &routes(&["slow"]).with(middleware("slow", present))).unwrap();
    assert_eq!(plan.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["Middleware/slow"]);
    let plan = planned(&limit(), &routes(&[])).unwrap();
    assert_eq!(plan[1].1, json!([["/spec/routes", {"name": "mit-01234567"}]]));
}

/// Rules of an IngressRoute: what each matches, and the Middlewares that it names.
type Rules<'a> = &'a [(&'a str, &'a [&'a str])];

fn routes(rules: Rules<'_>) -> Value {
    let rules = rules.iter().map(|(path, names)| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"match": path, "middlewares": names})
    });
    json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "web", "uid": "i"},
        "spec": {"routes": rules.collect::<Vec<_>>()}})
}

fn average(of: i64) -> Value {
    json!({"rateLimit": {"average": of}})
}

/// What is planned is touched, in this order.
fn ids(stage: &Stage) -> Vec<String> {
    planned(&limit(), stage).unwrap().into_iter().map(|(id, _)| id).collect()
}

#[test]
fn every_limit_that_the_rules_of_a_route_name_is_changed() {
    let stage = Stage::new(routes(&[("a", &["la", "auth"]), ("b", &["lb"])]))
        .with(middleware("la", average(500)))
        .with(middleware("lb", average(900)))
        .with(middleware("auth", json!({"basicAuth": {}})));
    assert_eq!(ids(&stage), ["Middleware/la", "Middleware/lb"]);
    let warnings = stage.ask(|scene| limit().warnings(scene)).unwrap().join("; ");
    assert!(warnings.contains("Middleware/la") && warnings.contains("Middleware/lb"), "{warnings}");
    let list = traefik(Some("shop-la@kubernetescrd, shop-lb@kubernetescrd"))
        .with(middleware("la", average(500)))
        .with(middleware("lb", average(900)));
    assert_eq!(ids(&list), ["Middleware/la", "Middleware/lb"]);
}

/// Otherwise the rules without one would stay without one, and nobody would hear of it.
#[test]
fn a_route_that_is_limited_in_part_is_limited_in_each_of_its_rules() {
    let rules: Rules<'_> = &[("a", &["la"]), ("b", &[])];
    let stage = Stage::new(routes(rules)).with(middleware("la", average(500)));
    assert_eq!(ids(&stage), ["Middleware/mit-01234567", "IngressRoute/web"]);
    let warnings = stage.ask(|scene| limit().warnings(scene)).unwrap().join("; ");
    assert!(warnings.contains("a has the limit Middleware/la already, which stays"), "{warnings}");
    // What another mitigation holds is asked for, too, so that this one waits until that one is released.
    let rules: Rules<'_> = &[("a", &["mit-89abcdef"]), ("b", &[])];
    let mut held = middleware("mit-89abcdef", average(5));
    let record = json!({"v": 1, "uid": "89abcdef01", "mitigation": "other", "action": "rateLimit",
        "target": "mit-89abcdef", "fields": [], "at": "2026-11-23T10:00:00Z"});
    held["metadata"]["annotations"] =
        json!({crate::mitigation::record::key("89abcdef01"): record.to_string()});
    let stage = Stage::new(routes(rules)).with(held);
    assert_eq!(ids(&stage), ["Middleware/mit-01234567", "IngressRoute/web", "Middleware/mit-89abcdef"]);
}

#[test]
fn a_rule_that_no_limit_of_ours_is_named_in_is_told() {
    let seen = |target: Value, touched: &[(TargetKind, &str)]| {
        let mut stage = Stage::new(target).with(class("edge", "traefik.io/ingress-controller"));
        stage.touched = touched.iter().map(|(kind, name)| ObjectId::new(*kind, *name)).collect();
        match stage.ask(|scene| Ok((limit().effect(scene)?, limit().follows(scene)))).unwrap() {
            (Effect::Unclear { reason: "NotReported", .. }, follows) => (String::new(), follows),
            (Effect::Awaited { seen, .. }, follows) => (seen, follows),
            (other, _) => panic!("{other:?}"),
        }
    };
    let made = [(MIDDLEWARE, "mit-01234567"), (INGRESS_ROUTE, "web")];
    let (all, one): (Rules<'_>, Rules<'_>) = (
        &[("a", &["mit-01234567"]), ("b", &["x", "mit-01234567"])],
        &[("a", &["mit-01234567"]), ("b", &["x"])],
    );
    assert_eq!(seen(routes(all), &made), (String::new(), None), "the route is held, and so watched");
    let (words, _) = seen(routes(one), &made);
    assert!(words.contains("rules of IngressRoute/web are not limited: b"), "{words}");
    let changed = [(MIDDLEWARE, "la"), (MIDDLEWARE, "lb")];
    let list = |kind| Some(Look::List { kind, labels: None });
    let (words, follows) = seen(routes(&[("a", &["la"]), ("b", &["lb"])]), &changed);
    assert_eq!((words.as_str(), follows), ("", list(INGRESS_ROUTE)), "the route is not held");
    let (words, _) = seen(routes(&[("a", &["la"]), ("b", &["other"])]), &changed);
    assert!(words.contains("not limited: b"), "{words}");
    let on =
        |list: &str| ingress(Some("edge"), json!({"traefik.ingress.kubernetes.io/router.middlewares": list}));
    let (words, follows) = seen(on("shop-la@kubernetescrd,x@file"), &changed);
    assert_eq!((words.as_str(), follows), ("", list(INGRESS)));
    let (words, _) = seen(on("x@file"), &changed);
    assert!(words.contains("Ingress/web"), "{words}");
}

#[test]
fn ingress_nginx_has_one_limit_at_a_time_and_no_hours() {
    let stage = |annotations| {
        Stage::new(ingress(Some("nginx"), annotations)).with(class("nginx", "k8s.io/ingress-nginx"))
    };
    let (rps, rpm) = (
        "/metadata/annotations/nginx.ingress.kubernetes.io~1limit-rps",
        "/metadata/annotations/nginx.ingress.kubernetes.io~1limit-rpm",
    );
    assert_eq!(
        planned(&limit(), &stage(json!({}))).unwrap(),
        [("Ingress/web".to_owned(), json!([[rps, "100"]]))]
    );
    let limited = stage(json!({"nginx.ingress.kubernetes.io/limit-rps": "5"}));
    assert_eq!(planned(&per(7, RateUnit::Minute), &limited).unwrap()[0].1, json!([[rpm, "7"], [rps, null]]));
    assert_eq!(planned(&per(7, RateUnit::Hour), &limited).unwrap_err().reason, "UnitNotSupported");
}

#[test]
fn the_burst_of_ingress_nginx_is_told_as_the_ingress_states_it() {
    for (stated, words) in [
        (None, "and five times as many in a burst"),
        (Some("many"), "and five times as many in a burst"),
        (Some("3"), "and 3 times as many in a burst"),
        (Some("1"), "and as many in a burst"),
        (Some("0"), "and none in a burst"),
    ] {
        let annotations =
            stated.map_or(json!({}), |n| json!({"nginx.ingress.kubernetes.io/limit-burst-multiplier": n}));
        let stage =
            Stage::new(ingress(Some("nginx"), annotations)).with(class("nginx", "k8s.io/ingress-nginx"));
        let (effect, warnings) =
            stage.ask(|scene| Ok((limit().effect(scene)?, limit().warnings(scene)?))).unwrap();
        let Effect::Unclear { message, .. } = effect else { panic!("silent") };
        assert!(
            message.contains(words) && warnings[0].contains(words),
            "{stated:?}: {message}; {warnings:?}"
        );
    }
}

#[test]
fn a_route_of_another_gateway_is_refused_in_words_that_fit_a_limit() {
    let mut other = route();
    other["status"] = json!({"parents": [{"controllerName": "istio.io/gateway-controller"}]});
    let refusal = planned(&limit(), &Stage::new(other)).unwrap_err();
    assert_eq!(refusal.reason, "OtherGateway");
    assert!(!refusal.message.contains("level"), "a limit has no levels: {}", refusal.message);
}

#[test]
fn a_scope_that_the_gateway_does_not_count_in_is_refused() {
    let scoped = |scope| RateLimit { scope: Some(scope), ..limit() };
    let route = Stage::new(route());
    for scope in [RateScope::PerClient, RateScope::Global] {
        let refusal = planned(&scoped(scope), &route).unwrap_err();
        assert_eq!(refusal.reason, "ScopeNotSupported");
        assert!(refusal.message.contains("use scope PerProxy"), "{}", refusal.message);
    }
    assert!(planned(&scoped(RateScope::PerProxy), &route).is_ok());
    let traefik = traefik(None);
    assert!(planned(&scoped(RateScope::PerClient), &traefik).is_ok());
    assert_eq!(planned(&scoped(RateScope::PerProxy), &traefik).unwrap_err().reason, "ScopeNotSupported");
}

#[test]
fn the_adapter_is_told_from_kind_and_class_and_a_wrong_one_is_refused() {
    let stated = |adapter| RateLimit { adapter: Some(adapter), ..limit() };
    let reason = |limit: RateLimit, stage: Stage| planned(&limit, &stage).unwrap_err().reason;
    assert_eq!(reason(stated(RateAdapter::Traefik), Stage::new(route())), "OtherGateway");
    assert_eq!(reason(stated(RateAdapter::IngressNginx), traefik(None)), "OtherGateway");
    let bare = || Stage::new(ingress(None, json!({})));
    assert_eq!(reason(limit(), bare()), "GatewayUnknown");
    assert_eq!(reason(stated(RateAdapter::EnvoyGateway), bare()), "OtherGateway");
    assert!(planned(&stated(RateAdapter::Traefik), &bare()).is_ok());
    let mut default = class("edge", "k8s.io/ingress-nginx");
    default["metadata"]["annotations"] = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    assert_eq!(planned(&limit(), &bare().with(default)).unwrap()[0].0, "Ingress/web");
}
