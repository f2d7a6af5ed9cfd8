use super::*;
use crate::{api::ActionName, crds};

/// The schema of a Mitigation's spec.
fn spec() -> Value {
    let all = crds::all();
    let crd = all.iter().find(|crd| crd.spec.names.kind == "Mitigation").expect("it is one of ours");
    let schema = serde_json::to_value(&crd.spec.versions[0].schema).expect("it is plain data");
    schema["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(schema, |schema, name| &schema["properties"][name])
}

#[test]
fn every_action_of_the_schema_has_its_line() {
    let spec = spec();
    for engine in engines() {
        let action = engine.name();
        assert!(at(&spec, action.as_str()).is_object(), "{action:?}");
    }
    let blocks = spec["properties"].as_object().expect("a spec has fields");
    let named = |name: &str| engines().iter().any(|engine| engine.name().as_str() == name);
    let other = "desiredState dryRun evidence expiresAfter gitops incidentRef onExpire onRelease policyRef \
                 reason releaseOn serviceAccountName targetRef verification";
    let missing: Vec<_> =
        blocks.keys().filter(|key| !named(key) && !other.split(' ').any(|o| o == *key)).collect();
    assert!(missing.is_empty(), "no action and no other known field: {missing:?}");
}

#[test]
fn fields_that_decide_about_rights_are_spelt_as_in_the_schema_with_all_their_values() {
    let spec = spec();
    for engine in engines() {
        let action = engine.name();
        let block = at(&spec, action.as_str());
        let authority = engine.authority();
        if let Some(by) = authority.by {
            let values = at(block, by.field)["enum"].as_array().expect("a field with fixed values").clone();
            for value in values.iter().filter_map(Value::as_str) {
                let known = authority.rights.iter().any(|on| on.when.contains(&value));
                assert!(known, "{action:?}: no right for {}: {value}", by.field);
            }
            for value in authority.rights.iter().flat_map(|on| on.when).filter(|value| !value.is_empty()) {
                assert!(values.contains(&json!(value)), "{action:?}: {} is never {value}", by.field);
            }
        }
        for extra in &authority.extras {
            let field = at(block, extra.field);
            let fits = match &extra.value {
                Value::Bool(_) => field["type"] == "boolean",
                value => field["enum"].as_array().is_some_and(|values| values.contains(value)),
            };
            assert!(fits, "{action:?}: {} is {field}, not {}", extra.field, extra.value);
        }
    }
}

#[test]
fn every_kind_that_an_engine_works_on_has_its_right() {
    for engine in engines() {
        let rights = engine.authority().rights;
        for kind in engine.kinds() {
            let known = rights.iter().any(|on| on.kind == kind.kind && on.api_version == kind.api_version());
            assert!(known, "{:?} works on {}, and no right says who may ask", engine.name(), kind.kind);
        }
    }
}

#[test]
fn a_listed_kind_asks_for_the_right_on_its_own_scale() {
    scalable::tests::listed();
    for (version, kind, asked) in [
        (None, "Worker", "patch workers.shop.example/scale \"w\""),
        (Some("shop.example/v1"), "Pool", "patch pools.shop.example/scale \"w\""),
        (None, "ReplicaSet", "patch replicasets.apps/scale \"w\""),
        (None, "Deployment", "patch deployments.apps/scale \"w\""),
    ] {
        let template = json!({"reason": "r", "targetRef": {"apiVersion": version, "kind": kind, "name": "w"},
            "scale": {"replicas": 0}});
        let template: MitigationTemplate = serde_json::from_value(template).expect("it is one");
        for taken in [true, false] {
            let needs: Vec<_> = wanted(&template, taken).iter().map(ToString::to_string).collect();
            assert_eq!(needs, [asked]);
        }
    }
}

#[test]
fn only_a_step_by_hand_needs_no_right() {
    for engine in engines() {
        let action = engine.name();
        assert_eq!(engine.authority().rights.is_empty(), action == ActionName::Manual, "{action:?}");
    }
}
