use super::*;
use crate::mitigation::document;
use k8s_openapi::jiff::Timestamp;

pub(crate) fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn record(prior: Option<Value>) -> Record {
    Record {
        v: 1,
        uid: "0123456789".into(),
        mitigation: "m".into(),
        incident: None,
        action: "scale".into(),
        target: "t".into(),
        fields: vec![HeldField {
            path: "/spec/replicas".into(),
            how: How::Plain,
            prior,
            applied: Some(json!(0)),
            owners: Vec::new(),
        }],
        at: Timestamp::UNIX_EPOCH,
        by: None,
        reasserts: 0,
        reasserted: None,
        stepped: None,
        restored: false,
        made: false,
    }
}

/// The patch of a take that sets replicas to 0.
fn stop(target: &Value, record: &Record) -> Value {
    let target = object(target.clone());
    take(&target, record, &[Change::set(&target, "/spec/replicas", json!(0))], &nobody()).unwrap()
}

fn back(target: &Value, record: &Record) -> Value {
    let raw: Vec<_> = record.fields.iter().map(|held| held.prior.clone()).collect();
    restore(&object(target.clone()), record, &raw, &nobody()).unwrap()
}

fn nobody() -> HashSet<String> {
    HashSet::new()
}

fn deployment(metadata: Value) -> Value {
    let mut base = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "uid": "t", "resourceVersion": "7"}, "spec": {"replicas": 3}});
    json_patch::merge(&mut base["metadata"], &metadata);
    base
}

/// Applies a patch as the API server does: all of it, or an error.
fn apply(to: &Value, patch: &Value) -> Result<Value, json_patch::PatchError> {
    let mut out = to.clone();
    json_patch::patch(&mut out, &serde_json::from_value::<json_patch::Patch>(patch.clone()).unwrap())?;
    Ok(out)
}

#[test]
fn take_and_restore_leave_the_object_as_it_was() {
    for metadata in [json!({}), json!({"annotations": {"a": "b"}, "labels": {"c": "d"}})] {
        let before = deployment(metadata);
        let taken = apply(&before, &stop(&before, &record(Some(json!(3))))).unwrap();
        assert_eq!(taken["spec"]["replicas"], 0);
        assert_eq!(Record::find(&object(taken.clone()), "0123456789"), Some(record(Some(json!(3)))));
        let undone = apply(&taken, &back(&taken, &record(Some(json!(3))))).unwrap();
        let noted = Record::find(&object(undone.clone()), "0123456789").unwrap();
        assert!(noted.restored && undone["spec"]["replicas"] == 3);
        let mut restored = apply(&undone, &let_go(&object(undone.clone()), &noted, &nobody(), true)).unwrap();
        // The API server does not store empty maps.
        for map in ["annotations", "labels"] {
            if restored["metadata"][map] == json!({}) {
                restored["metadata"].as_object_mut().unwrap().remove(map);
            }
        }
        assert_eq!(restored, before);
    }
}

#[test]
fn take_fails_as_a_whole_when_the_field_or_the_object_is_another_by_then() {
    let before = deployment(json!({"annotations": {"a": "b"}, "labels": {"c": "d"}}));
    let patch = stop(&before, &record(Some(json!(3))));
    for change in [json!({"spec": {"replicas": 4}}), json!({"metadata": {"uid": "other"}})] {
        let mut changed = before.clone();
        json_patch::merge(&mut changed, &change);
        assert!(apply(&changed, &patch).is_err(), "{change}");
    }
    let mut unrelated = before.clone();
    json_patch::merge(&mut unrelated, &json!({"metadata": {"resourceVersion": "8"}}));
    assert!(apply(&unrelated, &patch).is_ok(), "status churn must not make a take fail");
}

#[test]
fn maps_that_were_missing_are_not_overwritten_when_somebody_adds_them_in_between() {
    let before = deployment(json!({}));
    let patch = stop(&before, &record(Some(json!(3))));
    let mut changed = before;
    json_patch::merge(&mut changed, &json!({"metadata": {"resourceVersion": "8", "labels": {"new": "x"}}}));
    assert!(apply(&changed, &patch).is_err());
}

#[test]
fn of_a_workload_what_is_absent_is_tested_by_the_generation_which_its_status_does_not_change() {
    let metadata = json!({"generation": 3, "annotations": {"a": "b"}, "labels": {"c": "d"}});
    let mut before = deployment(metadata);
    before["spec"] = json!({"template": {"spec": {}}});
    let restart = "/spec/template/metadata/annotations/restarted";
    for (path, to) in [("/spec/paused", json!(true)), (restart, json!("now"))] {
        let change = Change::set(&object(before.clone()), path, to);
        let patch = take(&object(before.clone()), &record(None), &[change], &nobody()).unwrap();
        let mut status = before.clone();
        json_patch::merge(&mut status, &json!({"metadata": {"resourceVersion": "8"}}));
        assert!(apply(&status, &patch).is_ok(), "{path}: status churn must not make a take fail");
        json_patch::merge(&mut status, &json!({"metadata": {"generation": 4}}));
        assert!(apply(&status, &patch).is_err(), "{path}: somebody may have set it");
        // What other kinds do with the number nobody knows.
        let mut other = before.clone();
        other["apiVersion"] = "autoscaling/v2".into();
        other["kind"] = "HorizontalPodAutoscaler".into();
        let change = Change::set(&object(other.clone()), path, json!("x"));
        let patch = take(&object(other.clone()), &record(None), &[change], &nobody()).unwrap();
        json_patch::merge(&mut other, &json!({"metadata": {"resourceVersion": "8"}}));
        assert!(apply(&other, &patch).is_err(), "{path}");
    }
}

#[test]
fn a_field_that_was_absent_is_removed_on_restore() {
    let mut before = deployment(json!({"annotations": {"a": "b"}, "labels": {"c": "d"}}));
    before["spec"] = json!({"paused": false});
    let taken = apply(&before, &stop(&before, &record(None))).unwrap();
    assert_eq!(taken["spec"]["replicas"], 0);
    let restored = apply(&taken, &back(&taken, &record(None))).unwrap();
    assert_eq!(restored["spec"], before["spec"]);
}

#[test]
fn restore_never_overwrites_a_later_change_of_somebody_else() {
    let before = deployment(json!({"annotations": {"a": "b"}, "labels": {"c": "d"}}));
    let mut taken = apply(&before, &stop(&before, &record(Some(json!(3))))).unwrap();
    let patch = back(&taken, &record(Some(json!(3))));
    taken["spec"]["replicas"] = json!(7);
    assert!(apply(&taken, &patch).is_err());
}

#[test]
fn the_label_stays_while_another_mitigation_holds_the_object() {
    let other = Record { uid: "99999999-other".into(), ..record(Some(json!(1))) };
    let before = deployment(json!({
        "labels": {MITIGATED_LABEL: "true"},
        "annotations": {key(&other.uid): other.to_text(), key("0123456789"): record(Some(json!(3))).to_text()}}));
    let mut held = before;
    held["spec"]["replicas"] = json!(0);
    let holders = HashSet::from([other.uid.clone()]);
    let after =
        apply(&held, &let_go(&object(held.clone()), &record(Some(json!(3))), &holders, false)).unwrap();
    assert_eq!(after["metadata"]["labels"][MITIGATED_LABEL], "true");
}

#[test]
fn whoever_goes_last_takes_the_label_whatever_the_order_and_two_cannot_go_at_once() {
    let uids = ["aaaaaaaa-1", "bbbbbbbb-2", "cccccccc-3"];
    let record_of = |uid: &str| Record { uid: uid.into(), ..record(Some(json!(1))) };
    let mut annotations = json!({"a": "b"});
    for uid in uids {
        annotations[key(uid)] = record_of(uid).to_text().into();
    }
    let held = deployment(json!({"labels": {MITIGATED_LABEL: "true", "c": "d"}, "annotations": annotations}));
    let leaves = |now: &Value, uid: &str, holders: &HashSet<String>| {
        let_go(&object(now.clone()), &record_of(uid), holders, false)
    };
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut holders: HashSet<String> = uids.iter().map(|uid| (*uid).to_owned()).collect();
        let mut now = held.clone();
        for (gone, index) in order.into_iter().enumerate() {
            let patch = leaves(&now, uids[index], &holders);
            // Of the other two, the one that this one counts on cannot have gone in between.
            let others = order[gone + 1..].iter().map(|other| leaves(&now, uids[*other], &holders));
            let after = apply(&now, &patch).unwrap();
            for other in others {
                let Ok(both) = apply(&after, &other) else { continue };
                let left = Record::all(&object(both.clone())).count();
                assert_eq!(left > 0, both["metadata"]["labels"][MITIGATED_LABEL] == "true", "{both:#}");
            }
            now = after;
            holders.remove(uids[index]);
            assert_eq!(now["metadata"]["labels"][MITIGATED_LABEL] == "true", gone < 2, "{order:?}");
        }
        assert_eq!(now["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(now["metadata"]["labels"], json!({"c": "d"}));
    }
}

#[test]
fn what_two_mitigations_share_is_put_back_by_whoever_goes_last() {
    let path = "/metadata/annotations/frozen";
    let (a, b) = ("aaaaaaaa-1", "bbbbbbbb-2");
    let holders = HashSet::from([a.to_owned(), b.to_owned()]);
    let record_of = |target: &DynamicObject, uid: &str, change: &Change| Record {
        uid: uid.into(),
        fields: vec![HeldField::capture(target, change)],
        ..record(None)
    };
    for prior in [None, Some("no")] {
        for order in [[a, b], [b, a]] {
            let annotations = prior.map_or(json!({"x": "y"}), |prior| json!({"x": "y", "frozen": prior}));
            let before = deployment(json!({"annotations": annotations, "labels": {"c": "d"}}));
            let mut now = before.clone();
            for uid in [a, b] {
                let target = object(now.clone());
                let change = Change::share(&target, path, json!("yes"));
                let record = record_of(&target, uid, &change);
                assert_eq!(record.fields[0].prior, prior.map(|prior| json!(prior)), "the very first value");
                now = apply(&now, &take(&target, &record, &[change], &holders).unwrap()).unwrap();
            }
            for (i, uid) in order.into_iter().enumerate() {
                let target = object(now.clone());
                let record = Record::find(&target, uid).unwrap();
                let raw = [record.fields[0].prior.clone()];
                now = apply(&now, &restore(&target, &record, &raw, &holders).unwrap()).unwrap();
                let target = object(now.clone());
                let record = Record::find(&target, uid).unwrap();
                assert!(record.fields[0].is_back(&target));
                now = apply(&now, &let_go(&target, &record, &holders, true)).unwrap();
                assert_eq!(now["metadata"]["annotations"]["frozen"] == "yes", i == 0, "{order:?}");
            }
            assert_eq!(now, before);
        }
    }
}

#[test]
fn disowning_removes_exactly_our_entries() {
    let target = object(deployment(json!({"managedFields": [
        {"manager": "incident-operator-scale"}, {"manager": "kubectl"}, {"manager": "incident-operator-scale"}]})));
    let patch = disown(&target, "incident-operator-scale").unwrap();
    let after = apply(&serde_json::to_value(&target).unwrap(), &patch).unwrap();
    assert_eq!(after["metadata"]["managedFields"], json!([{"manager": "kubectl"}]));
    assert_eq!(disown(&target, "incident-operator-rollback"), None);
}

#[test]
fn whoever_holds_a_part_of_a_field_knows_whose_it_is_by_now() {
    let own = |manager: &str| {
        json!([{"manager": manager, "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:doc": {}}}}])
    };
    let place =
        |part: &str| document::Place::new(document::Format::Yaml, vec![part.to_owned()], "", &Value::Null);
    let mut now = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"doc": "one: 1\ntwo: 1\n"},
        "metadata": {"name": "c", "uid": "t", "resourceVersion": "7", "labels": {}, "annotations": {},
            "managedFields": own("kubectl")}});
    let (one, two) = ("aaaaaaaa-1", "bbbbbbbb-2");
    let holders = HashSet::from([one.to_owned(), two.to_owned()]);
    let owner = |now: &Value, uid: &str| {
        let record = Record::find(&object(now.clone()), uid).unwrap();
        record.fields[0].owners.iter().map(|owner| owner.manager.clone()).collect::<Vec<_>>()
    };
    let take_part = |now: &Value, uid: &str, part: &str| {
        let target = object(now.clone());
        let change = Change::inside(&target, "/data/doc", place(part), Some(json!(0)));
        let fields = vec![HeldField::capture(&target, &change)];
        let record = Record { uid: uid.into(), fields, ..record(None) };
        apply(now, &take(&target, &record, &[change], &holders).unwrap()).unwrap()
    };
    let ours = own("incident-operator-featureFlag");
    now = take_part(&now, one, "one");
    now["metadata"]["managedFields"] = ours.clone();
    assert_eq!(owner(&now, one), ["kubectl"]);
    let second = take_part(&now, two, "two");
    assert_eq!(owner(&second, two), ["kubectl"], "who lost it to the first one");
    // Bob edits between the two.
    now["metadata"]["managedFields"] = own("bob");
    now = take_part(&now, two, "two");
    now["metadata"]["managedFields"] = ours;
    assert_eq!((owner(&now, one), owner(&now, two)), (vec!["bob".to_owned()], vec!["bob".to_owned()]));
    // A machine sets one back, which is taken back from it.
    now["metadata"]["managedFields"] = own("engine");
    now["data"]["doc"] = json!("one: 1\ntwo: 0\n");
    let target = object(now.clone());
    let record = Record::find(&target, one).unwrap();
    now = apply(&now, &reassert(&target, &record, &[Some(json!(0))], &holders).unwrap()).unwrap();
    assert_eq!((owner(&now, one), owner(&now, two)), (vec!["engine".to_owned()], vec!["engine".to_owned()]));
    // Ann edits before the release of the second.
    now["metadata"]["managedFields"] = own("ann");
    let target = object(now.clone());
    let record = Record::find(&target, two).unwrap();
    now = apply(&now, &restore(&target, &record, &[Some(json!(1))], &holders).unwrap()).unwrap();
    assert_eq!(now["data"]["doc"], "one: 0\ntwo: 1\n");
    assert_eq!((owner(&now, one), owner(&now, two)), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
    // A record that nobody answers for is not written again.
    let target = object(now.clone());
    let patch = restore(&target, &Record::find(&target, two).unwrap(), &[Some(json!(1))], &nobody()).unwrap();
    assert!(!patch.to_string().contains("mit-aaaaaaaa"), "{patch}");
}

/// A template without annotations gets a map of them with the take; a person adds one of their own to it.
#[test]
fn what_others_put_into_a_map_that_was_added_stays_when_the_mitigation_goes() {
    let path = "/spec/template/metadata/annotations";
    let held = |uid: &str, path: &str, applied: Value| {
        let mut record = record(None);
        record.uid = uid.into();
        record.fields[0] = HeldField {
            path: path.into(),
            how: How::Subset,
            prior: None,
            applied: Some(applied),
            owners: vec![],
        };
        record
    };
    let ours = held("0123456789", path, json!({"ours": "1"}));
    let beside = held("abcdefghij", &format!("{path}/beside"), json!("1"));
    let with = |annotations: Value, managed: Value, other: Option<&Record>| {
        let mut object = deployment(json!({"annotations": {key(&ours.uid): ours.to_text()}}));
        if let Some(other) = other {
            object["metadata"]["annotations"][key(&other.uid)] = json!(other.to_text());
        }
        object["metadata"]["managedFields"] = json!([
            {"manager": "incident-operator-scale", "operation": "Update", "fieldsV1":
                {"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:ours": {}, "f:beside": {}}}}}}},
            {"manager": "kubectl", "operation": "Update", "fieldsV1":
                {"f:spec": {"f:template": {"f:metadata": {"f:annotations": managed}}}}},
        ]);
        object["spec"]["template"] = json!({"metadata": {"annotations": annotations}});
        object
    };
    let after = |object: &Value| {
        let after = apply(object, &back(object, &ours)).unwrap();
        after.pointer(path).cloned()
    };
    let alone = with(json!({"ours": "1"}), json!({}), None);
    assert_eq!(
        after(&{
            let mut o = alone;
            o["metadata"]["managedFields"].as_array_mut().unwrap().pop();
            o
        }),
        None
    );
    let edited = with(json!({"ours": "1", "theirs": {"a": "2"}}), json!({"f:theirs": {"f:a": {}}}), None);
    assert_eq!(after(&edited), Some(json!({"theirs": {"a": "2"}})));
    let both = with(json!({"ours": "1", "beside": "1"}), json!({"f:x": {}}), Some(&beside));
    assert_eq!(after(&both), Some(json!({"beside": "1"})), "another mitigation holds one of its own");

    // A machine changes ours: taking it back leaves theirs.
    let raw = [ours.fields[0].applied.clone()];
    let changed = with(json!({"ours": "0", "theirs": "2"}), json!({"f:theirs": {}}), None);
    let again = reassert(&object(changed.clone()), &ours, &raw, &nobody()).unwrap();
    let again = apply(&changed, &again).unwrap();
    assert_eq!(again.pointer(path), Some(&json!({"ours": "1", "theirs": "2"})));
}

#[test]
fn of_a_map_that_was_added_only_what_was_put_into_it_is_held() {
    let held = HeldField {
        path: "/spec/behavior".into(),
        how: How::Subset,
        prior: None,
        applied: Some(json!({"scaleUp": {"selectPolicy": "Disabled"}})),
        owners: vec![],
    };
    let target = object(json!({"apiVersion": "v1", "kind": "X", "spec": {"behavior": {}}}));
    for (path, overlaps) in [
        ("/spec/behavior/scaleUp/selectPolicy", true),
        ("/spec/behavior/scaleUp", true),
        ("/spec/behavior", true),
        ("/spec/behavior/scaleDown", false),
        ("/spec/minReplicas", false),
    ] {
        assert_eq!(held.overlaps(&Change::set(&target, path, json!(1))), overlaps, "{path}");
    }
}
