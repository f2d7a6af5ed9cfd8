use super::*;
use crate::mitigation::patch::tests::object;
use serde_json::json;

fn written_by(manager: &str, operation: &str) -> DynamicObject {
    let owner = json!({"f:spec": {"f:replicas": {}}});
    object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "managedFields": [
        {"manager": "incident-operator-scale", "operation": "Update", "time": "2026-01-01T00:00:09Z", "fieldsV1": owner},
        {"manager": "old", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": owner},
        {"manager": "elsewhere", "operation": "Update", "time": "2026-01-01T00:00:08Z", "fieldsV1": {"f:spec": {"f:paused": {}}}},
        {"manager": manager, "operation": operation, "time": "2026-01-01T00:00:05Z", "fieldsV1": owner}]}}))
}

#[test]
fn the_last_writer_of_the_field_other_than_ourselves_is_named() {
    let writer = writer(&written_by("kubectl-edit", "Update"), "/spec/replicas").unwrap();
    assert_eq!(writer, Writer { manager: "kubectl-edit".into(), kind: WriterKind::Person });
}

#[test]
fn machines_are_told_from_people_and_the_unknown_count_as_people() {
    for (manager, operation, kind) in [
        ("kube-controller-manager", "Update", WriterKind::Autoscaler),
        ("keda-operator", "Update", WriterKind::Autoscaler),
        ("kustomize-controller", "Apply", WriterKind::GitOps),
        ("argocd-controller", "Apply", WriterKind::GitOps),
        ("my-engine", "Apply", WriterKind::GitOps),
        ("my-script", "Update", WriterKind::Person),
        ("kubectl", "Apply", WriterKind::Person),
        ("helm", "Apply", WriterKind::Person),
    ] {
        let writer = writer(&written_by(manager, operation), "/spec/replicas").unwrap();
        assert_eq!(writer.kind, kind, "{manager} {operation}");
    }
}

fn managed(entries: Value) -> DynamicObject {
    object(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "managedFields": entries}}),
    )
}

fn apply(target: &DynamicObject, ops: Vec<Value>) -> Value {
    let mut value = serde_json::to_value(target).unwrap();
    let patch = serde_json::from_value::<json_patch::Patch>(Value::Array(ops)).unwrap();
    json_patch::patch(&mut value, &patch).unwrap();
    value["metadata"]["managedFields"].clone()
}

fn entry(manager: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
}

#[test]
fn a_field_goes_back_to_its_owner_and_everything_of_ours_goes() {
    let both = json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}});
    let before = managed(json!([entry("kubectl", both.clone())]));
    let owned = losers(&before, "/data/a", None, Some(&json!("x")));
    for (left, what) in [
        (json!({"f:data": {".": {}, "f:b": {}}}), "other fields stayed with it"),
        (json!({"f:data": {}, "f:x": {}}), "only the object around it stayed, which is written as a leaf"),
    ] {
        let held = managed(json!([
            entry("incident-operator-featureFlag", json!({"f:data": {"f:a": {}}})),
            entry("kubectl", left.clone())
        ]));
        let after =
            apply(&held, give_back(&held, "incident-operator-featureFlag", &[("/data/a", &owned)], None));
        let mut wanted = merged(&left, &json!({"f:data": {"f:a": {}}}));
        if left["f:data"] == json!({}) {
            wanted = json!({"f:data": {".": {}, "f:a": {}}, "f:x": {}});
        }
        assert_eq!(after, json!([entry("kubectl", wanted)]), "{what}");
    }
}

#[test]
fn an_owner_that_had_nothing_else_gets_its_entry_back_as_it_was() {
    let scaled = json!([{"manager": "kubectl", "operation": "Update", "apiVersion": "apps/v1", "subresource": "scale",
        "time": "2026-01-01T00:00:05Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    let owned = losers(&managed(scaled.clone()), "/spec/replicas", Some(&json!(1)), Some(&json!(0)));
    let held = managed(json!([entry("incident-operator-scale", json!({"f:spec": {"f:replicas": {}}}))]));
    let after =
        apply(&held, give_back(&held, "incident-operator-scale", &[("/spec/replicas", &owned)], None));
    assert_eq!(after, scaled);
}

#[test]
fn a_map_that_began_with_ours_goes_to_whoever_came_next() {
    let ours = "incident-operator-scale";
    let noted = json!({"f:metadata": {"f:annotations": {".": {}, "f:record": {}}}});
    let one = |key: &str| json!({"f:metadata": {"f:annotations": {key: {}}}});
    let at = |mut entry: Value, time: &str| {
        entry["time"] = time.into();
        entry
    };
    let early = at(entry("zoe", one("f:a")), "2026-01-01T00:00:01Z");
    let late = at(entry("ann", one("f:b")), "2026-01-01T00:00:02Z");
    let held = managed(json!([entry(ours, noted.clone()), late.clone(), early]));
    let wanted = json!({"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}});
    let after = apply(&held, give_back(&held, ours, &[], None));
    assert_eq!(after, json!([late.clone(), at(entry("zoe", wanted), "2026-01-01T00:00:01Z")]));
    // Who applies owns no maps; who has it already keeps it; a map that is gone needs no owner.
    let mut applied = late.clone();
    applied["operation"] = "Apply".into();
    let owned = entry("bob", json!({"f:metadata": {"f:annotations": {".": {}, "f:c": {}}}}));
    for left in [json!([applied]), json!([late, owned]), json!([])] {
        let mut all = left.as_array().unwrap().clone();
        all.insert(0, entry(ours, noted.clone()));
        let held = managed(Value::Array(all));
        assert_eq!(apply(&held, give_back(&held, ours, &[], None)), left);
    }
    // Another action of ours keeps it for who comes then.
    let other = "incident-operator-pauseRollout";
    let held = managed(json!([entry(ours, noted), entry(other, one("f:other"))]));
    let after = apply(&held, give_back(&held, ours, &[], None));
    assert_eq!(after[0]["fieldsV1"]["f:metadata"]["f:annotations"], json!({".": {}, "f:other": {}}));
}

#[test]
fn who_took_the_field_meanwhile_keeps_it_alone() {
    let before = managed(json!([entry("kubectl", json!({"f:data": {"f:a": {}}}))]));
    let owned = losers(&before, "/data/a", Some(&json!("y")), Some(&json!("x")));
    let now = json!([entry("somebody", json!({"f:data": {"f:a": {}}}))]);
    let held = managed(now.clone());
    assert_eq!(
        apply(&held, give_back(&held, "incident-operator-featureFlag", &[("/data/a", &owned)], None)),
        now
    );
}

#[test]
fn what_another_mitigation_holds_stays_ours() {
    let held = managed(json!([entry(
        "incident-operator-featureFlag",
        json!({"f:data": {"f:a": {}, "f:b": {}}, "f:metadata": {"f:labels": {}}})
    )]));
    let ops = give_back(&held, "incident-operator-featureFlag", &[("/data/a", &[])], Some(&["/data/a"]));
    let wanted = json!([entry(
        "incident-operator-featureFlag",
        json!({"f:data": {"f:b": {}}, "f:metadata": {"f:labels": {}}})
    )]);
    assert_eq!(apply(&held, ops), wanted);
    let fields = json!({"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {}}});
    assert_eq!(without_leaf(&fields, &parts("/data/a")), json!({"f:metadata": {"f:labels": {}}}));
}

#[test]
fn of_a_large_field_each_owner_gets_back_what_was_taken_from_it_and_no_more() {
    let item = |more: Value| json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"main\"}": more}}}}});
    let created = item(json!({".": {}, "f:name": {}, "f:args": {}}));
    let set = item(json!({"f:image": {}}));
    let template =
        |image: &str| json!({"spec": {"containers": [{"name": "main", "image": image, "args": ["x"]}]}});
    let before =
        managed(json!([entry("kubectl-create", created.clone()), entry("kubectl-set", set.clone())]));
    let owned = losers(&before, "/spec/template", Some(&template("b")), Some(&template("a")));
    assert_eq!(owned.iter().map(|owner| owner.manager.as_str()).collect::<Vec<_>>(), ["kubectl-set"]);
    let held = managed(json!([
        entry("kubectl-create", created.clone()),
        entry("incident-operator-rollback", set.clone())
    ]));
    let ops = give_back(&held, "incident-operator-rollback", &[("/spec/template", &owned)], None);
    let mut given = entry("kubectl-set", set);
    (given["subresource"], given["time"]) = (Value::Null, Value::Null);
    assert_eq!(apply(&held, ops), json!([entry("kubectl-create", created), given]));
    // A map that was taken away is owned again as it was.
    let map = json!({"f:spec": {"f:rollingUpdate": {".": {}, "f:partition": {}}}});
    let before = managed(json!([entry("kubectl", map.clone())]));
    let owned = losers(&before, "/spec/rollingUpdate", Some(&json!({"partition": 0})), None);
    let held = managed(json!([entry("kubectl", json!({"f:spec": {}}))]));
    let ops = give_back(&held, "incident-operator-pauseRollout", &[("/spec/rollingUpdate", &owned)], None);
    assert_eq!(
        apply(&held, ops),
        json!([entry(
            "kubectl",
            json!({"f:spec": {".": {}, "f:rollingUpdate": map["f:spec"]["f:rollingUpdate"]}})
        )])
    );
}

#[test]
fn a_field_that_nobody_wrote_has_no_writer() {
    assert_eq!(writer(&written_by("x", "Update"), "/spec/selector"), None);
}

#[test]
fn a_field_that_others_wrote_meanwhile_is_theirs_and_one_that_they_left_goes_to_those_before() {
    let has = json!({"f:data": {"f:app.yaml": {}}});
    let path = "/data/app.yaml";
    let (a, b) = (json!("a"), json!("b"));
    let before =
        losers(&managed(json!([entry("kubectl", has.clone())])), path, Some(&json!("")), Some(&json!("a")));
    let ours = entry("incident-operator-featureFlag", has.clone());
    let bob = entry("bob", has.clone());
    let elsewhere = entry("elsewhere", json!({"f:data": {"f:other": {}}}));
    for (entries, wanted, what) in [
        (json!([ours, elsewhere]), vec!["kubectl"], "nobody wrote it"),
        (json!([elsewhere]), vec!["kubectl"], "nobody owns it, since another mitigation went first"),
        (json!([bob]), vec!["bob"], "bob changed it"),
        (json!([ours, bob]), vec!["bob", "kubectl"], "bob applied the value that was there"),
    ] {
        let owners = rightful(&managed(entries), path, Some(&a), Some(&b), &before);
        assert_eq!(owners.iter().map(|o| o.manager.as_str()).collect::<Vec<_>>(), wanted, "{what}");
    }
    let twice = rightful(&managed(json!([ours, entry("kubectl", has)])), path, Some(&a), Some(&b), &before);
    assert_eq!(twice.len(), 1, "who has it again is named once");
}
