//! Envoy Gateway: a BackendTrafficPolicy. Of several policies for one target only the oldest counts, so one that is
//! there already is changed; and a policy for a route replaces the one of its Gateway unless it says that it is merged.

use super::{
    BACKEND_TRAFFIC_POLICY, Effect, GATEWAY, HTTP_ROUTE, ObjectId, Part, RateLimit, RateScope, RateUnit,
    Scene, Stop, field,
};
use crate::mitigation::{Change, gateway, record::Record, selector};
use kube::core::DynamicObject;
use serde_json::{Value, json};

/// Type of a limit that counts in each Envoy.
const LOCAL: &str = "Local";

/// What a budget counts for.
pub fn meaning(limit: &RateLimit) -> String {
    format!(
        "each replica of Envoy lets {} pass on each match of each route, whoever sends them; more is answered 429",
        limit.rate()
    )
}

/// What changes in a policy that is there. As little as possible, so that all of it goes back to who owns it.
fn changes(policy: &DynamicObject, limit: &RateLimit) -> Vec<Change> {
    let to = rate_limit(limit);
    if field(policy, "/spec/rateLimit").is_none() {
        return vec![Change::set_deep(policy, "/spec/rateLimit", to)];
    }
    let mut changes =
        vec![Change::set_deep(policy, "/spec/rateLimit/local/rules", to["local"]["rules"].clone())];
    // Where the type is left out, what is there counts; and what is Local already is nothing to be told.
    if !counts_locally(policy) {
        changes.push(Change::set(policy, "/spec/rateLimit/type", to["type"].clone()));
    }
    changes
}

/// Whether the local limit of a policy counts.
fn counts_locally(policy: &DynamicObject) -> bool {
    field(policy, "/spec/rateLimit/type").is_none_or(|type_| type_ == LOCAL)
}

fn rate_limit(limit: &RateLimit) -> Value {
    let unit = match limit.per {
        RateUnit::Second => "Second",
        RateUnit::Minute => "Minute",
        RateUnit::Hour => "Hour",
    };
    json!({"type": LOCAL, "local": {"rules": [{"limit": {"requests": limit.requests, "unit": unit}}]}})
}

/// The references of a policy: kind, name, and whether only a section of it is meant.
fn references(policy: &DynamicObject) -> Vec<(String, String, bool)> {
    let one = field(policy, "/spec/targetRef");
    let many = field(policy, "/spec/targetRefs");
    let many = many.as_ref().and_then(Value::as_array).into_iter().flatten();
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    many.chain(one.as_ref())
        .map(|each| (text(each, "kind"), text(each, "name"), each.get("sectionName").is_some()))
        .collect()
}

/// Whether a policy is for an object; `part` when it is for a section of it only.
fn is_for(policy: &DynamicObject, kind: &str, object: &DynamicObject, part: bool) -> bool {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    if references(policy).iter().any(|(k, n, section)| k == kind && n == name && *section == part) {
        return true;
    }
    let selectors = field(policy, "/spec/targetSelectors").unwrap_or_default();
    let labels = object.metadata.labels.clone().unwrap_or_default();
    !part
        && selectors
            .as_array()
            .into_iter()
            .flatten()
            .any(|each| each["kind"] == kind && selector::selects(each, &labels))
}

fn others<'a>(scene: &Scene<'a>) -> Result<impl Iterator<Item = &'a DynamicObject>, Stop> {
    let ours = scene.made_name();
    Ok(scene.everywhere(BACKEND_TRAFFIC_POLICY)?.filter(move |p| p.metadata.name.as_ref() != Some(&ours)))
}

/// The policy of somebody else that counts for the target.
fn present<'a>(scene: &Scene<'a>) -> Result<Option<&'a DynamicObject>, Stop> {
    let kind = scene.id.kind.kind;
    let found = others(scene)?.filter(|policy| is_for(policy, kind, scene.target, false));
    Ok(found.min_by_key(|policy| {
        let made = policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (made, policy.metadata.name.clone())
    }))
}

/// Whether a Gateway of the route has a policy, as far as can be seen.
fn parent_has_policy(scene: &Scene<'_>) -> Result<bool, Stop> {
    let parents = field(scene.target, "/spec/parentRefs").unwrap_or_default();
    for parent in parents.as_array().into_iter().flatten() {
        let text = |key: &str| parent.get(key).and_then(Value::as_str);
        if text("kind").unwrap_or(GATEWAY.kind) != GATEWAY.kind {
            continue;
        }
        // What lies in another namespace is not looked at. Without a policy there, merging changes nothing.
        if text("namespace").is_some_and(|namespace| namespace != scene.namespace) {
            return Ok(true);
        }
        let name = text("name").unwrap_or_default();
        let known = scene.one(&ObjectId::new(GATEWAY, name))?;
        let has = others(scene)?.any(|policy| {
            let named = references(policy).iter().any(|(k, n, _)| k == GATEWAY.kind && n == name);
            named || known.is_some_and(|gateway| is_for(policy, GATEWAY.kind, gateway, false))
        });
        if has {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The policy that is changed, or made.
pub fn parts(limit: &RateLimit, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
    let counts = "its local limit counts in each Envoy for all clients together, and a global one needs a rate limit service of which nothing can be seen here";
    limit.check_scope("Envoy Gateway", RateScope::PerProxy, counts)?;
    gateway::is_envoy(scene.target, scene.id, "limit it there by hand")?;
    if let Some(policy) = present(scene)? {
        return Ok(vec![Part::change(&ObjectId::of(BACKEND_TRAFFIC_POLICY, policy), changes(policy, limit))]);
    }
    let mut spec = json!({
        "targetRefs": [{"group": scene.id.kind.group, "kind": scene.id.kind.kind, "name": scene.id.name}],
        "rateLimit": rate_limit(limit),
    });
    if scene.id.kind == HTTP_ROUTE && parent_has_policy(scene)? {
        spec["mergeType"] = json!("StrategicMerge");
    }
    Ok(vec![Part::create(ObjectId::new(BACKEND_TRAFFIC_POLICY, scene.made_name()), spec)])
}

/// Whether Envoy Gateway has accepted the policy everywhere.
pub fn effect(limit: &RateLimit, scene: &Scene<'_>) -> Result<Effect, Stop> {
    let what = "waiting until Envoy Gateway accepts the policy".to_owned();
    let mut id = ObjectId::new(BACKEND_TRAFFIC_POLICY, scene.made_name());
    if let Some(policy) = present(scene)? {
        let changed = ObjectId::of(BACKEND_TRAFFIC_POLICY, policy);
        let ours = scene.one(&changed)?.is_some_and(|policy| Record::find(policy, scene.uid).is_some());
        if ours {
            id = changed;
        }
    }
    let Some(policy) = scene.one(&id)? else {
        return Ok(Effect::Awaited { what, seen: format!("{id} is not there") });
    };
    if !counts_locally(policy) {
        let type_ = field(policy, "/spec/rateLimit/type").unwrap_or_default();
        let seen = format!("spec.rateLimit.type of {id} is {type_}, so that its local limit does not count");
        return Ok(Effect::Awaited { what: "waiting until the local limit counts".to_owned(), seen });
    }
    let ancestors = field(policy, "/status/ancestors").unwrap_or_default();
    let ancestors: Vec<&Value> = ancestors.as_array().into_iter().flatten().collect();
    if ancestors.is_empty() {
        let seen = format!("Envoy Gateway has said nothing about {id} yet");
        return Ok(Effect::Awaited { what, seen });
    }
    for ancestor in ancestors {
        if let Some(effect) = gateway::lacks(policy, ancestor, "Accepted", &what) {
            return Ok(effect);
        }
    }
    Ok(Effect::Seen(format!("Envoy Gateway has accepted {id}: {}", meaning(limit))))
}

/// What to know before.
pub fn warnings(scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
    let mut warnings = Vec::new();
    if let Some(policy) = present(scene)? {
        let id = ObjectId::of(BACKEND_TRAFFIC_POLICY, policy);
        if let Some(limit) = field(policy, "/spec/rateLimit") {
            warnings.push(format!("the limit in {id} does not hold meanwhile: {limit}"));
        }
        let name = scene.id.name.as_str();
        let also: Vec<String> = references(policy)
            .into_iter()
            .filter(|(_, other, _)| other != name)
            .map(|(kind, other, _)| format!("{kind}/{other}"))
            .collect();
        if !also.is_empty() || field(policy, "/spec/targetSelectors").is_some() {
            let also =
                if also.is_empty() { "what its targetSelectors match".to_owned() } else { also.join(", ") };
            warnings.push(format!("{id} is for {also} too, which is limited as well"));
        }
    }
    let kind = scene.id.kind.kind;
    for policy in others(scene)? {
        let id = ObjectId::of(BACKEND_TRAFFIC_POLICY, policy);
        if is_for(policy, kind, scene.target, true) {
            warnings.push(format!("{id} is for a section of the target, which is not limited by this"));
        }
        let route = references(policy).into_iter().find(|(kind, _, _)| kind.ends_with("Route"));
        if let (GATEWAY, Some((kind, name, _)), None) =
            (scene.id.kind, route, field(policy, "/spec/mergeType"))
        {
            warnings.push(format!(
                "{id} replaces what is said for the Gateway: {kind}/{name} is not limited by this if it is attached to it"
            ));
        }
    }
    Ok(warnings)
}
