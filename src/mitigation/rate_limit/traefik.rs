//! Traefik: a Middleware, and its name in the list of the route. Of that list only our own entry is added and taken
//! away. Where the route has a limit already, that one is changed and put back instead: two limits on one route would
//! hide each other.

use super::{INGRESS, MIDDLEWARE, ObjectId, Part, RateLimit, RateScope, RateUnit, Scene, Stop, field};
use crate::mitigation::{Change, field::Member, patch::pointer};
use kube::core::DynamicObject;
use serde_json::{Value, json};

const MIDDLEWARES: &str = "traefik.ingress.kubernetes.io/router.middlewares";

/// Requests that may come at once. Traefik forgets a client after a pause of about the time in which one request is
/// earned, or two seconds; with a larger burst, whoever pauses that long would have all of it anew.
fn burst(limit: &RateLimit) -> i64 {
    (limit.requests / limit.per.seconds()).max(1)
}

/// What a budget counts for.
pub fn meaning(limit: &RateLimit) -> String {
    format!(
        "each client address may send {} to each replica of Traefik, {} at once; more is answered 429",
        limit.rate(),
        burst(limit)
    )
}

fn rate_limit(limit: &RateLimit) -> Value {
    let period = match limit.per {
        RateUnit::Second => "1s",
        RateUnit::Minute => "1m",
        RateUnit::Hour => "1h",
    };
    json!({"average": limit.requests, "period": period, "burst": burst(limit)})
}

/// The Middleware with a limit that the route has already.
fn limited_by<'a>(scene: &Scene<'a>) -> Result<Option<&'a DynamicObject>, Stop> {
    let ours = scene.made_name();
    for middleware in scene.everywhere(MIDDLEWARE)? {
        let name = middleware.metadata.name.as_deref().unwrap_or_default();
        if name != ours && field(middleware, "/spec/rateLimit").is_some() && is_attached(scene, name) {
            return Ok(Some(middleware));
        }
    }
    Ok(None)
}

/// How an Ingress names a Middleware of its own namespace.
fn full_name(scene: &Scene<'_>, name: &str) -> String {
    format!("{}-{name}@kubernetescrd", scene.namespace)
}

fn is_attached(scene: &Scene<'_>, name: &str) -> bool {
    if scene.id.kind == INGRESS {
        let list = field(scene.target, &pointer(&["metadata", "annotations", MIDDLEWARES]));
        let list = list.as_ref().and_then(Value::as_str).unwrap_or_default();
        return list.split(',').any(|each| each.trim() == full_name(scene, name));
    }
    let routes = field(scene.target, "/spec/routes").unwrap_or_default();
    let attached = routes.as_array().into_iter().flatten();
    attached.filter_map(|route| route.get("middlewares")?.as_array()).flatten().any(|middleware| {
        let namespace = middleware.get("namespace").and_then(Value::as_str).unwrap_or(scene.namespace);
        middleware["name"] == name && namespace == scene.namespace
    })
}

/// The Middleware and where it is named.
pub fn parts(limit: &RateLimit, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
    let counts = "it counts for each client address in each of its replicas";
    limit.check_scope("Traefik", RateScope::PerClient, counts)?;
    if let Some(present) = limited_by(scene)? {
        // What counts as one client stays as it was.
        let to = rate_limit(limit);
        let to = to.as_object().into_iter().flatten();
        let changes =
            to.map(|(key, value)| Change::set(present, format!("/spec/rateLimit/{key}"), value.clone()));
        return Ok(vec![Part::change(&ObjectId::of(MIDDLEWARE, present), changes.collect())]);
    }
    let name = scene.made_name();
    let attach = if scene.id.kind == INGRESS {
        let item = json!(full_name(scene, &name));
        let path = pointer(&["metadata", "annotations", MIDDLEWARES]);
        Change::member(scene.target, path, Member { item, of_each: None })
    } else {
        let member = Member { item: json!({"name": name}), of_each: Some("middlewares".to_owned()) };
        Change::member(scene.target, "/spec/routes", member)
    };
    // It is there before it is named, and named no more before it goes.
    let made = json!({"rateLimit": rate_limit(limit)});
    Ok(vec![Part::create(ObjectId::new(MIDDLEWARE, name), made), Part::change(scene.id, vec![attach])])
}

/// What to know before.
pub fn warnings(scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
    let mut warnings =
        vec!["behind a proxy that hides client addresses, all clients are one for Traefik".to_owned()];
    if let Some(present) = limited_by(scene)? {
        let id = ObjectId::of(MIDDLEWARE, present);
        warnings.push(format!(
            "the route has the limit {id} already, which is changed meanwhile: other routes that name it are limited as well"
        ));
        if let Some(criterion) = field(present, "/spec/rateLimit/sourceCriterion") {
            warnings.push(format!("{id} says itself what counts as one client: {criterion}"));
        }
    }
    Ok(warnings)
}
