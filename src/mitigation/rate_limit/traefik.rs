//! Traefik: a Middleware, and its name in the list of the route. Of that list only our own entry is added and taken
//! away. Where the whole route has a limit already, that one is changed and put back instead: two limits on one route
//! would hide each other. Where only some rules of it have one, every rule gets ours, so that none stays without.

use super::{INGRESS, Look, MIDDLEWARE, ObjectId, Part, RateLimit, RateScope, RateUnit, Scene, Stop, field};
use crate::mitigation::{Change, field::Member, patch::pointer, record::Record, workload};
use kube::core::DynamicObject;
use serde_json::{Value, json};

const MIDDLEWARES: &str = "traefik.ingress.kubernetes.io/router.middlewares";
/// How an Ingress names a Middleware of the cluster: its namespace, its name, and this.
const PROVIDER: &str = "@kubernetescrd";

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

/// One rule of the route.
struct Rule {
    /// What it matches, in words.
    of: String,
    /// The Middlewares of the mitigation's namespace that it names.
    names: Vec<String>,
}

impl Rule {
    fn has(&self, middleware: &DynamicObject) -> bool {
        self.names.iter().any(|name| Some(name) == middleware.metadata.name.as_ref())
    }
}

/// The rules of the route. An Ingress names its Middlewares once for all of them.
fn rules(scene: &Scene<'_>) -> Vec<Rule> {
    if scene.id.kind == INGRESS {
        let list = field(scene.target, &pointer(&["metadata", "annotations", MIDDLEWARES]));
        let list = list.as_ref().and_then(Value::as_str).unwrap_or_default();
        let own = |entry: &str| {
            let name = entry.trim().strip_prefix(scene.namespace)?.strip_prefix('-')?;
            name.strip_suffix(PROVIDER).map(str::to_owned)
        };
        return vec![Rule { of: scene.id.to_string(), names: list.split(',').filter_map(own).collect() }];
    }
    let own = |middleware: &Value| {
        let namespace = middleware.get("namespace").and_then(Value::as_str).unwrap_or(scene.namespace);
        let name = middleware.get("name")?.as_str()?;
        (namespace == scene.namespace).then(|| name.to_owned())
    };
    let routes = field(scene.target, "/spec/routes").unwrap_or_default();
    let routes = routes.as_array().into_iter().flatten().map(|route| {
        let of = route.get("match").and_then(Value::as_str).unwrap_or("/").to_owned();
        let named = route.get("middlewares").and_then(Value::as_array);
        Rule { of, names: named.into_iter().flatten().filter_map(own).collect() }
    });
    routes.collect()
}

/// What the route has for limits already.
struct Present<'a> {
    rules: Vec<Rule>,
    /// The Middlewares with a limit that a rule names.
    limits: Vec<&'a DynamicObject>,
}

impl<'a> Present<'a> {
    fn of(scene: &Scene<'a>) -> Result<Present<'a>, Stop> {
        let (rules, ours) = (rules(scene), scene.made_name());
        let limits = scene.everywhere(MIDDLEWARE)?.filter(|middleware| {
            middleware.metadata.name.as_ref() != Some(&ours)
                && field(middleware, "/spec/rateLimit").is_some()
                && rules.iter().any(|rule| rule.has(middleware))
        });
        let limits = limits.collect();
        Ok(Present { rules, limits })
    }

    /// Whether every rule has one.
    fn everywhere(&self) -> bool {
        !self.limits.is_empty()
            && self.rules.iter().all(|rule| self.limits.iter().any(|middleware| rule.has(middleware)))
    }
}

/// The limit of a Middleware that is there is changed. What counts as one client stays as it was.
fn change(limit: &RateLimit, middleware: &DynamicObject) -> Part {
    let to = rate_limit(limit);
    let to = to.as_object().into_iter().flatten();
    let changes =
        to.map(|(key, value)| Change::set(middleware, format!("/spec/rateLimit/{key}"), value.clone()));
    Part::change(&ObjectId::of(MIDDLEWARE, middleware), changes.collect())
}

/// The Middleware and where it is named, or the Middlewares that limit every rule already.
pub fn parts(limit: &RateLimit, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
    let counts = "it counts for each client address in each of its replicas";
    limit.check_scope("Traefik", RateScope::PerClient, counts)?;
    let present = Present::of(scene)?;
    if present.everywhere() {
        return Ok(present.limits.into_iter().map(|middleware| change(limit, middleware)).collect());
    }
    let name = scene.made_name();
    let attach = if scene.id.kind == INGRESS {
        let item = json!(format!("{}-{name}{PROVIDER}", scene.namespace));
        let path = pointer(&["metadata", "annotations", MIDDLEWARES]);
        Change::member(scene.target, path, Member { item, of_each: None })
    } else {
        let member = Member { item: json!({"name": name}), of_each: Some("middlewares".to_owned()) };
        Change::member(scene.target, "/spec/routes", member)
    };
    // It is there before it is named, and named no more before it goes.
    let made = json!({"rateLimit": rate_limit(limit)});
    let mut parts =
        vec![Part::create(ObjectId::new(MIDDLEWARE, name), made), Part::change(scene.id, vec![attach])];
    // What another mitigation holds is asked for as well, so that this one waits until that one is released.
    let held = present.limits.into_iter().filter(|middleware| Record::all(middleware).next().is_some());
    parts.extend(held.map(|middleware| change(limit, middleware)));
    Ok(parts)
}

/// The rules that name no Middleware of this mitigation, since they came or were edited later: what is held tells only
/// whether some rule names it, and where a limit that was there is changed, the route is not held at all.
pub fn unlimited(scene: &Scene<'_>) -> Option<String> {
    let touched = scene.touched.iter().filter(|id| id.kind == MIDDLEWARE);
    let touched: Vec<&str> = touched.map(|id| id.name.as_str()).collect();
    let rules = rules(scene);
    let bare = rules.iter().filter(|rule| !rule.names.iter().any(|name| touched.contains(&name.as_str())));
    let bare: Vec<&str> = bare.map(|rule| rule.of.as_str()).collect();
    let advice = "the limit is named there no more, or never was; release and ask again";
    match (bare.is_empty(), scene.id.kind == INGRESS) {
        (true, _) => None,
        (false, true) => Some(format!("{} is not limited: {advice}", scene.id)),
        (false, false) => {
            let shown = workload::names(bare.into_iter());
            Some(format!("these rules of {} are not limited: {shown}; {advice}", scene.id))
        }
    }
}

/// The route, where it is not held and so not watched.
pub fn follows(scene: &Scene<'_>) -> Option<Look> {
    let held = scene.touched.contains(scene.id);
    (!held).then_some(Look::List { kind: scene.id.kind, labels: None })
}

/// What to know before.
pub fn warnings(scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
    let mut warnings =
        vec!["behind a proxy that hides client addresses, all clients are one for Traefik".to_owned()];
    let present = Present::of(scene)?;
    for middleware in &present.limits {
        let id = ObjectId::of(MIDDLEWARE, middleware);
        if !present.everywhere() {
            let of = present.rules.iter().filter(|rule| rule.has(middleware)).map(|rule| rule.of.as_str());
            warnings.push(format!(
                "{} has the limit {id} already, which stays as it is: there the smaller of the two counts",
                workload::names(of)
            ));
            continue;
        }
        warnings.push(format!(
            "the route has the limit {id} already, which is changed meanwhile: other routes that name it are limited as well"
        ));
        if let Some(criterion) = field(middleware, "/spec/rateLimit/sourceCriterion") {
            warnings.push(format!("{id} says itself what counts as one client: {criterion}"));
        }
    }
    Ok(warnings)
}
