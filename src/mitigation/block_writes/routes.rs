//! Level Routes: a second HTTPRoute for the same hosts and paths, but only for the methods that write. The Gateway API
//! prefers a match with a method to the same match without one, so it wins while the target stays as it is.

use super::{
    BlockWrites, DynamicObject, Effect, HTTP_ROUTE, HTTP_ROUTE_FILTER, ObjectId, Part, Refusal, SERVICE,
    Scene, Stop,
};
use crate::mitigation::{field, gateway, workload};
use serde_json::{Value, json};

/// Methods that write, as HTTP means them.
const WRITES: &[&str] = &["POST", "PUT", "PATCH", "DELETE"];
/// What the Gateway API allows in one route.
const MAX_MATCHES_OF_RULE: usize = 64;
const MAX_MATCHES: usize = 128;

/// The methods that are answered 503.
pub fn methods(block: &BlockWrites) -> Vec<&str> {
    match &block.methods {
        Some(methods) if !methods.is_empty() => methods.iter().map(String::as_str).collect(),
        _ => WRITES.to_vec(),
    }
}

/// What is made: the answer, and the route that gives it.
pub fn parts(block: &BlockWrites, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
    gateway::is_envoy(scene.target, scene.id, "block at another level, or by hand")?;
    refuse_grpc(scene)?;
    let matches = matches(block, scene.target)?;
    let name = scene.made_name();
    let incident = scene.incident.map(|incident| format!(" (incident {incident})")).unwrap_or_default();
    let filter = json!({"directResponse": {
        "statusCode": 503,
        "contentType": "text/plain",
        "body": {"type": "Inline", "inline": format!("Writes are blocked for now{incident}.\n")},
    }});
    let extension = json!({"group": HTTP_ROUTE_FILTER.group, "kind": HTTP_ROUTE_FILTER.kind, "name": name});
    let rules: Vec<Value> = matches
        .chunks(MAX_MATCHES_OF_RULE)
        .map(|matches| {
            json!({"matches": matches, "filters": [{"type": "ExtensionRef", "extensionRef": extension}]})
        })
        .collect();
    let mut spec = json!({"rules": rules});
    for shared in ["parentRefs", "hostnames"] {
        if let Some(value) = field(scene.target, &format!("/spec/{shared}")) {
            spec[shared] = value;
        }
    }
    Ok(vec![
        Part::create(ObjectId::new(HTTP_ROUTE_FILTER, &name), filter),
        Part::create(ObjectId::new(HTTP_ROUTE, &name), spec),
    ])
}

/// Every match of the target, once for each method.
fn matches(block: &BlockWrites, target: &DynamicObject) -> Result<Vec<Value>, Refusal> {
    let everything = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let rules = field(target, "/spec/rules").unwrap_or_else(|| json!([{}]));
    let mut found: Vec<Value> = Vec::new();
    for rule in rules.as_array().into_iter().flatten() {
        let stated = rule.get("matches").filter(|matches| matches.as_array().is_some_and(|m| !m.is_empty()));
        for each in stated.unwrap_or(&everything).as_array().into_iter().flatten() {
            if let Some(method) = each.get("method").and_then(Value::as_str) {
                if methods(block).contains(&method) {
                    return Err(Refusal::new(
                        "MethodMatched",
                        format!(
                            "the target has a rule for method {method} of its own ({}), which is older and so wins: change that rule, or block at another level",
                            path_of(each)
                        ),
                    ));
                }
                // Only requests of a method that may go on.
                continue;
            }
            for method in methods(block) {
                let mut each = each.clone();
                each["method"] = json!(method);
                if !found.contains(&each) {
                    found.push(each);
                }
            }
        }
    }
    if found.is_empty() {
        let message = format!("no rule of the target lets {} through", methods(block).join(", "));
        return Err(Refusal::new("NothingToBlock", message));
    }
    if found.len() > MAX_MATCHES {
        return Err(Refusal::new(
            "TooManyMatches",
            format!(
                "the target has so many matches that {} would be needed, and a route may have {MAX_MATCHES}: name fewer methods, or block at another level",
                found.len()
            ),
        ));
    }
    Ok(found)
}

fn path_of(each: &Value) -> String {
    each.pointer("/path/value").and_then(Value::as_str).unwrap_or("/").to_owned()
}

/// Every call of gRPC is a POST, the reads too.
fn refuse_grpc(scene: &Scene<'_>) -> Result<(), Stop> {
    let refuse = |why: String| {
        Err(Stop::refuse(
            "Grpc",
            format!(
                "{why}: in gRPC every call is a POST, so reads would be blocked as well; block at another level"
            ),
        ))
    };
    let rules = field(scene.target, "/spec/rules").unwrap_or_default();
    for rule in rules.as_array().into_iter().flatten() {
        let matches = rule.get("matches").and_then(Value::as_array).into_iter().flatten();
        for header in matches.filter_map(|m| m.get("headers")?.as_array()).flatten() {
            let text = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or_default();
            if text("name").eq_ignore_ascii_case("content-type") && text("value").contains("grpc") {
                return refuse("the target has a rule for gRPC".to_owned());
            }
        }
        for backend in rule.get("backendRefs").and_then(Value::as_array).into_iter().flatten() {
            let kind = backend.get("kind").and_then(Value::as_str).unwrap_or(SERVICE.kind);
            let elsewhere = backend.get("namespace").and_then(Value::as_str);
            let elsewhere = elsewhere.is_some_and(|namespace| namespace != scene.namespace);
            let name = backend.get("name").and_then(Value::as_str).unwrap_or_default();
            if kind != SERVICE.kind || elsewhere || name.is_empty() {
                continue;
            }
            let Some(service) = scene.one(&ObjectId::new(SERVICE, name))? else { continue };
            let ports = field(service, "/spec/ports").unwrap_or_default();
            let speaks = ports.as_array().into_iter().flatten().any(|port| {
                port.get("port") == backend.get("port")
                    && ["name", "appProtocol"].iter().any(|key| {
                        let text = port.get(key).and_then(Value::as_str).unwrap_or_default();
                        text.to_ascii_lowercase().contains("grpc")
                    })
            });
            if speaks {
                return refuse(format!("Service/{name} speaks gRPC"));
            }
        }
    }
    Ok(())
}

/// What of the target is not blocked, since it came to it later.
fn unblocked(block: &BlockWrites, target: &DynamicObject, route: &DynamicObject) -> Option<String> {
    let wanted = match matches(block, target) {
        Ok(wanted) => wanted,
        Err(refusal) => return Some(refusal.message),
    };
    let rules = field(route, "/spec/rules").unwrap_or_default();
    let rules = rules.as_array().into_iter().flatten();
    let made: Vec<&Value> = rules.filter_map(|rule| rule.get("matches")?.as_array()).flatten().collect();
    let mut missing: Vec<String> = wanted.iter().filter(|each| !made.contains(each)).map(path_of).collect();
    missing.dedup();
    for shared in ["hostnames", "parentRefs"] {
        let list = |object: &DynamicObject| match field(object, &format!("/spec/{shared}")) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let (wanted, made) = (list(target), list(route));
        // No host at all means every host, but a route that names the host goes before one that does not.
        let added = wanted.iter().filter(|each| !made.contains(each));
        missing.extend(added.map(|each| format!("{shared} {each}")));
        if wanted.is_empty() && !made.is_empty() {
            missing.push(format!("{shared} that it does not name any more"));
        }
    }
    (!missing.is_empty()).then(|| {
        let shown = workload::names(missing.iter().map(String::as_str));
        format!("the target was changed since, and this is not blocked: {shown}; release and ask again")
    })
}

/// Whether every gateway has taken the route, and it still covers the target.
pub fn effect(block: &BlockWrites, scene: &Scene<'_>) -> Result<Effect, Stop> {
    let id = ObjectId::new(HTTP_ROUTE, scene.made_name());
    let what = "waiting until the gateway accepts the route".to_owned();
    let Some(route) = scene.one(&id)? else {
        return Ok(Effect::Awaited { what, seen: format!("{id} is not there") });
    };
    if let Some(seen) = unblocked(block, scene.target, route) {
        return Ok(Effect::Awaited { what: "waiting until every path is blocked".to_owned(), seen });
    }
    let asked = field(route, "/spec/parentRefs").and_then(|v| v.as_array().map(Vec::len)).unwrap_or(0);
    let parents = field(route, "/status/parents").unwrap_or_default();
    let parents: Vec<&Value> = parents.as_array().into_iter().flatten().collect();
    for parent in &parents {
        for type_ in ["Accepted", "ResolvedRefs"] {
            if let Some(effect) = gateway::lacks(route, parent, type_, &what) {
                return Ok(effect);
            }
        }
    }
    if parents.len() < asked.max(1) {
        let seen = format!("{} of {asked} gateways have accepted {id}", parents.len());
        return Ok(Effect::Awaited { what, seen });
    }
    Ok(Effect::Seen(format!("the gateway has accepted {id}: it answers these methods with 503")))
}

/// Who suffers.
pub fn warnings(block: &BlockWrites, scene: &Scene<'_>) -> Vec<String> {
    let methods = methods(block).join(", ");
    let mut warnings = vec![format!(
        "writes: requests with {methods} through this route get 503; others reach the data all the same: other routes, calls inside the cluster, jobs. Reads: those that are sent with one of these methods (searches by POST, GraphQL)"
    )];
    let rules = field(scene.target, "/spec/rules").unwrap_or_default();
    if rules.to_string().contains("RegularExpression") {
        warnings
            .push("a match by regular expression: which of two routes wins is up to the gateway".to_owned());
    }
    if block.methods.iter().flatten().any(|method| !WRITES.contains(&method.as_str())) {
        warnings.push("a method is named that does not write in HTTP: reads are blocked as asked".to_owned());
    }
    warnings
}
