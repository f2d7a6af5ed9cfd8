//! What a policy's own status says: whether it can be understood.

use crate::{
    api::{
        ConditionStatus::{False, True},
        MitigationPolicy, MitigationPolicySpec, MitigationPolicyStatus, Selector,
    },
    decide::conditions::Conditions,
};
use k8s_openapi::jiff::Timestamp;

/// What cannot be understood of a policy: a reason and what to mend.
pub fn problem(policy: &MitigationPolicySpec) -> Option<(&'static str, String)> {
    for (field, selector) in
        [("namespaceSelector", &policy.namespace_selector), ("targetSelector", &policy.target_selector)]
    {
        if let Some(why) = selector.as_ref().and_then(bad_selector) {
            return Some(("InvalidSelector", format!("{field}: {why}")));
        }
    }
    let rules = policy.approval.iter().map(|rule| ("approval.validFor", &rule.valid_for));
    let durations = [("maxDuration", &policy.max_duration), ("minInterval", &policy.min_interval)];
    let bad = durations.into_iter().chain(rules).find_map(|(field, duration)| {
        let duration = duration.as_ref()?;
        duration.get().is_none().then(|| format!("{field}: {:?} is no duration such as 30m", duration.0))
    })?;
    Some(("InvalidDuration", bad))
}

/// Whether it cannot be told which namespaces a policy selects.
pub fn selects_who_knows_what(policy: &MitigationPolicySpec) -> bool {
    policy.namespace_selector.as_ref().is_some_and(|selector| bad_selector(selector).is_some())
}

fn bad_selector(selector: &Selector) -> Option<String> {
    let pairs = selector.match_labels.iter().flatten();
    let pairs = pairs.map(|(key, value)| bad_key(key).or_else(|| bad_value(&value.0)));
    let terms = selector.match_expressions.iter().map(|term| {
        let values = term.values.as_deref().unwrap_or_default();
        if let Some(why) = bad_key(&term.key) {
            return Some(why);
        }
        match (term.operator.as_str(), values.is_empty()) {
            ("In" | "NotIn", true) => Some(format!("{} on {:?} needs values", term.operator, term.key)),
            ("Exists" | "DoesNotExist", false) => {
                Some(format!("{} on {:?} takes no values", term.operator, term.key))
            }
            ("In" | "NotIn", false) => values.iter().find_map(|value| bad_value(value)),
            ("Exists" | "DoesNotExist", true) => None,
            (other, _) => Some(format!("{other:?} is no operator: use In, NotIn, Exists or DoesNotExist")),
        }
    });
    pairs.chain(terms).flatten().next()
}

/// Names as Kubernetes allows them for labels: letters, digits and `-_.` inside.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}

fn bad_key(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let domain = |p: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ['-', '.'].contains(&c);
        !p.is_empty() && p.len() <= 253 && p.chars().all(inner)
    };
    (!is_name(name) || !prefix.is_none_or(domain)).then(|| format!("{key:?} cannot be the key of a label"))
}

fn bad_value(value: &str) -> Option<String> {
    (!value.is_empty() && !is_name(value)).then(|| format!("{value:?} cannot be the value of a label"))
}

/// The status of a policy.
pub fn status(policy: &MitigationPolicy, now: Timestamp) -> MitigationPolicyStatus {
    let mut status = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation;
    status.observed_generation = generation;
    let mut c = Conditions::new(&mut status.conditions, generation, now);
    match problem(&policy.spec) {
        None => {
            let message = match policy.spec.paused {
                Some(true) => "in force: no new mitigation is made where it holds",
                Some(false) | None => "in force",
            };
            c.set("Ready", True, "InForce", message);
            c.set("Stalled", False, "InForce", "nothing is in the way");
        }
        Some((reason, why)) => {
            let place = match selects_who_knows_what(&policy.spec) {
                true => "in any namespace",
                false => "where the policy holds",
            };
            let message = format!("{why}; until this is mended, no mitigation is made {place}");
            c.set("Ready", False, reason, message.clone());
            c.set("Stalled", True, reason, message);
        }
    }
    status
}
