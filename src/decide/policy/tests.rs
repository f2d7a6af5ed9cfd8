//! Rules of policies, one by one.

use super::{
    approval::need,
    limits::{Limits, Present, check},
    *,
};
use crate::api::Severity;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

fn policy(name: &str, spec: Value) -> Arc<MitigationPolicy> {
    let object = json!({"apiVersion": crate::api::API_VERSION, "kind": "MitigationPolicy", "metadata": {"name": name}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn labels(value: Value) -> Labels {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_policy_holds_where_its_selector_says_and_everywhere_without_one_or_with_a_bad_one() {
    let all = vec![
        policy("all", json!({})),
        policy("shop", json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}})),
        policy("bad", json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
    ];
    let names = |labels: Value| -> Vec<String> {
        in_force(all.clone(), &self::labels(labels)).iter().map(|p| name(p).to_owned()).collect()
    };
    assert_eq!(names(json!({"team": "shop"})), ["all", "bad", "shop"]);
    assert_eq!(names(json!({})), ["all", "bad"]);
    let needing: Vec<bool> = all.iter().map(|p| needs_labels(&p.spec)).collect();
    assert_eq!(needing, [false, true, true]);
}

#[test]
fn what_cannot_be_understood_is_told() {
    let bad = [
        json!({"namespaceSelector": {"matchLabels": {"a b": "c"}}}),
        json!({"namespaceSelector": {"matchLabels": {"a": "-"}}}),
        json!({"targetSelector": {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}}),
        json!({"targetSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
        json!({"maxDuration": "2d"}),
        json!({"minInterval": "x"}),
        json!({"approval": [{"validFor": "y"}]}),
    ];
    for spec in bad {
        assert!(problem(&policy("p", spec.clone()).spec).is_some(), "{spec}");
    }
    let good = json!({"namespaceSelector": {"matchLabels": {"example.org/a": ""}, "matchExpressions": [
        {"key": "b", "operator": "NotIn", "values": ["c"]}]}, "maxDuration": "1h30m"});
    assert_eq!(problem(&policy("p", good).spec), None);
}

#[test]
fn the_first_rule_that_matches_decides_and_what_is_not_known_excuses_nobody() {
    let policies = [policy(
        "p",
        json!({"approval": [
            {"severities": ["SEV1", "SEV2"], "require": "NotRequired"},
            {"actions": ["manual"], "require": "NotRequired"},
            {"severities": ["SEV3"], "validFor": "5m"}]}),
    )];
    let need = |severity, action| need(&policies, severity, action).map(|n| n.valid_for.as_secs());
    assert_eq!(need(Some(Severity::SEV1), ActionName::Scale), None);
    assert_eq!(need(Some(Severity::SEV3), ActionName::Scale), Some(300));
    assert_eq!(need(Some(Severity::SEV3), ActionName::Manual), None);
    assert_eq!(need(Some(Severity::SEV5), ActionName::Scale), None);
    assert_eq!(need(None, ActionName::Scale), Some(300));
    let more = [policies[0].clone(), policy("q", json!({"approval": [{}]}))];
    let both = super::approval::need(&more, Some(Severity::SEV3), ActionName::Scale).unwrap();
    assert_eq!((both.policies.len(), both.valid_for.as_secs()), (2, 300));
}

#[test]
fn the_narrowest_limit_counts_and_is_never_passed_by_one() {
    let policies = [
        policy("wide", json!({"maxActive": 5, "minInterval": "1m"})),
        policy("narrow", json!({"maxActive": 2, "minInterval": "10m"})),
    ];
    let limits = Limits::of(&policies);
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let present = |active: usize, last: Option<&str>| Present {
        active: (0..active).map(|i| format!("m{i}")).collect(),
        last_take: last.map(|t| t.parse().unwrap()),
    };
    assert_eq!(check(&limits, &present(1, None), now), None);
    let wait = check(&limits, &present(2, None), now).unwrap();
    assert_eq!(wait.reason, "TooManyActive");
    assert!(wait.message.contains("narrow") && wait.message.contains("m0, m1"), "{}", wait.message);
    let wait = check(&limits, &present(0, Some("2026-11-23T09:55:00Z")), now).unwrap();
    assert_eq!((wait.reason, wait.until), ("TooSoon", Some("2026-11-23T10:05:00Z".parse().unwrap())));
    assert_eq!(check(&limits, &present(0, Some("2026-11-23T09:50:00Z")), now), None);
    assert!(Limits::of(&[]).is_none());
}

#[test]
fn a_policy_that_cannot_be_understood_says_so_and_allows_nothing_where_it_holds() {
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let says = |spec: Value| {
        let status = status(&policy("p", spec), now);
        let of = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).unwrap().clone();
        (of("Ready").status, of("Stalled").status, of("Ready").message)
    };
    use crate::api::ConditionStatus::{False, True};
    let (ready, stalled, _) = says(json!({}));
    assert_eq!((ready, stalled), (True, False));
    let (ready, stalled, message) = says(json!({"maxDuration": "2d"}));
    assert_eq!((ready, stalled), (False, True));
    assert!(message.contains("maxDuration") && message.ends_with("where the policy holds"), "{message}");
    let (_, _, message) = says(json!({"namespaceSelector": {"matchLabels": {"a b": "c"}}}));
    assert!(message.ends_with("in any namespace"), "{message}");

    let bad = json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}, "maxDuration": "2d"});
    let template =
        serde_json::from_value(json!({"reason": "x", "targetRef": {"kind": "Deployment", "name": "a"},
        "scale": {"replicas": 0}}))
        .unwrap();
    let refused = |labels: Value| {
        let known = InForce::Known(in_force(vec![policy("p", bad.clone())], &self::labels(labels)));
        let asked = Asked { template: &template, labels: None, evidence: EvidencePolicy::None };
        refusal(&known, &asked).map(|refusal| refusal.reason)
    };
    assert_eq!(refused(json!({"team": "shop"})), Some("PolicyInvalid"));
    assert_eq!(refused(json!({})), None);
}
