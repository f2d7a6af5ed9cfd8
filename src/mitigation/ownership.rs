//! Who wrote a field, from `metadata.managedFields`, and what kind of writer that is.

use super::{
    field_set::{below, lost, maps, merged, owns, parts, without, without_leaf},
    patch::pointer,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The last writer of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Name of the field manager.
    pub manager: String,
    /// What kind of writer it is.
    pub kind: WriterKind,
}

/// What kind of writer a field manager is. It decides whether a change is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterKind {
    /// A horizontal autoscaler, KEDA or the like: writes again by itself.
    Autoscaler,
    /// A GitOps engine or another server-side applier: writes again by itself.
    GitOps,
    /// A person, a pipeline, or somebody unknown: means it. Never fought.
    Person,
}

impl WriterKind {
    /// True for a writer that writes again by itself, whatever people want right now.
    pub fn is_machine(self) -> bool {
        match self {
            WriterKind::Autoscaler | WriterKind::GitOps => true,
            WriterKind::Person => false,
        }
    }
}

/// The last writer of a field other than ourselves, as the API server noted it.
pub fn writer(target: &DynamicObject, path: &str) -> Option<Writer> {
    let entries = target.metadata.managed_fields.as_deref().unwrap_or_default();
    entries
        .iter()
        .filter(|entry| !manager(entry).starts_with("incident-operator"))
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0, path)))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .map(|entry| Writer { manager: manager(entry).to_owned(), kind: classify(entry) })
}

fn manager(entry: &ManagedFieldsEntry) -> &str {
    entry.manager.as_deref().unwrap_or("unknown")
}

/// A field manager that owned a field before we changed it. Our write took the field from it, and nothing but
/// `metadata.managedFields` itself says so; unless it is given back, the field belongs to nobody afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Name of the field manager.
    pub manager: String,
    /// Apply or Update.
    pub operation: String,
    /// API version that the manager wrote with.
    pub api_version: String,
    /// The subresource that it wrote through, such as scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
    /// When it wrote last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// What it owned below the field, as far as our write took it; left out when it was the field itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Value>,
}

impl Owner {
    fn of(entry: &ManagedFieldsEntry) -> Owner {
        Owner {
            manager: manager(entry).to_owned(),
            operation: entry.operation.clone().unwrap_or_default(),
            api_version: entry.api_version.clone().unwrap_or_default(),
            subresource: entry.subresource.clone(),
            time: entry.time.clone(),
            fields: None,
        }
    }

    /// Whether both are the same entry, whenever that was written last.
    fn is_same(&self, other: &Owner) -> bool {
        let bare = |owner: &Owner| Owner { time: None, fields: None, ..owner.clone() };
        bare(self) == bare(other)
    }

    fn is(&self, entry: &ManagedFieldsEntry) -> bool {
        self.is_same(&Owner::of(entry))
    }
}

fn entries(target: &DynamicObject) -> &[ManagedFieldsEntry] {
    target.metadata.managed_fields.as_deref().unwrap_or_default()
}

fn fields_of(entry: &ManagedFieldsEntry) -> Value {
    entry.fields_v1.as_ref().map_or_else(|| json!({}), |fields| fields.0.clone())
}

/// Who owns a field, other than ourselves, and loses it, or something below it, when its value changes like this.
pub fn losers(target: &DynamicObject, path: &str, from: Option<&Value>, to: Option<&Value>) -> Vec<Owner> {
    others(target)
        .filter_map(|entry| {
            let set = below(&fields_of(entry), path)?;
            let lost = if from == to { set } else { lost(&set, from, to)? };
            Some(Owner { fields: (lost != json!({})).then_some(lost), ..Owner::of(entry) })
        })
        .collect()
}

fn others(target: &DynamicObject) -> impl Iterator<Item = &ManagedFieldsEntry> {
    entries(target).iter().filter(|entry| !manager(entry).starts_with("incident-operator"))
}

/// JSON Patch operations on `metadata.managedFields`: fields are given back to those who owned them, and what is
/// noted of our own writes is removed, all of it or, with `only`, these fields.
///
/// Each entry is tested for what identifies it and not the whole object for its revision: a workload that is
/// being restored changes its status many times a second, and a test of the revision would fail as often.
pub fn give_back(
    target: &DynamicObject,
    ours: &str,
    owned: &[(&str, &[Owner])],
    only: Option<&[&str]>,
) -> Vec<Value> {
    let mut ops = Vec::new();
    let mut returning: Vec<(Owner, Value)> = Vec::new();
    let mut give =
        |owner: &Owner, fields: Value| match returning.iter_mut().find(|(known, _)| known.is_same(owner)) {
            Some((_, known)) => *known = merged(known, &fields),
            None => returning.push((owner.clone(), fields)),
        };
    for (path, before) in owned {
        for owner in *before {
            let mut back = Some(owner.fields.clone().unwrap_or_else(|| json!({})));
            for other in others(target) {
                // Who wrote it since then owns it now.
                if let (Some(set), Some(there)) = (&back, below(&fields_of(other), path)) {
                    back = without(set, &there);
                }
            }
            let Some(back) = back else { continue };
            let back = parts(path).iter().rev().fold(back, |inner, part| json!({part.as_str(): inner}));
            give(owner, back);
        }
    }
    if only.is_none() {
        for path in entries(target).iter().filter(|e| manager(e) == ours).flat_map(|e| maps(&fields_of(e))) {
            if let Some(heir) = heir(target, ours, &path) {
                let dot =
                    path.iter().rev().fold(json!({".": {}}), |inner, part| json!({part.as_str(): inner}));
                give(&Owner::of(heir), dot);
            }
        }
    }
    let mut added = Vec::new();
    for (owner, back) in returning {
        let Some(index) = entries(target).iter().position(|entry| owner.is(entry)) else {
            let fields = back;
            added.push(json!({"op": "add", "path": "/metadata/managedFields/-", "value": {
                "manager": owner.manager, "operation": owner.operation, "apiVersion": owner.api_version,
                "subresource": owner.subresource, "time": owner.time,
                "fieldsType": "FieldsV1", "fieldsV1": fields}}));
            continue;
        };
        let fields = fields_of(&entries(target)[index]);
        let new = merged(&fields, &back);
        let entry = format!("/metadata/managedFields/{index}");
        ops.push(json!({"op": "test", "path": format!("{entry}/manager"), "value": owner.manager}));
        for part in new.as_object().into_iter().flatten().map(|(part, _)| part) {
            if fields.get(part) == new.get(part) {
                continue;
            }
            let path = format!("{entry}/fieldsV1{}", pointer(&[part]));
            if let Some(old) = fields.get(part) {
                ops.push(json!({"op": "test", "path": path, "value": old}));
            }
            ops.push(json!({"op": "add", "path": path, "value": new[part]}));
        }
    }
    // From the end, so that removing one does not move the others.
    for (index, entry) in entries(target).iter().enumerate().rev().filter(|(_, e)| manager(e) == ours) {
        let path = format!("/metadata/managedFields/{index}");
        let fields = fields_of(entry);
        let rest = only.map_or_else(
            || json!({}),
            |only| only.iter().fold(fields.clone(), |fields, path| without_leaf(&fields, &parts(path))),
        );
        if only.is_some() && rest == fields {
            continue;
        }
        ops.push(json!({"op": "test", "path": format!("{path}/manager"), "value": ours}));
        if rest == json!({}) {
            ops.push(json!({"op": "remove", "path": path}));
        } else {
            ops.push(json!({"op": "test", "path": format!("{path}/fieldsV1"), "value": fields}));
            ops.push(json!({"op": "add", "path": format!("{path}/fieldsV1"), "value": rest}));
        }
    }
    ops.extend(added);
    ops
}

/// Who would own a map, had we not been there first: whoever writes the first member of a map owns the map, too.
fn heir<'t>(target: &'t DynamicObject, ours: &str, path: &[String]) -> Option<&'t ManagedFieldsEntry> {
    let members = |entry: &ManagedFieldsEntry| {
        let fields = fields_of(entry);
        let there = path.iter().try_fold(&fields, |at, part| at.get(part)).and_then(Value::as_object);
        there.is_some_and(|members| !members.is_empty()).then(|| there.is_some_and(|m| m.contains_key(".")))
    };
    let all = || entries(target).iter().filter(|e| manager(e) != ours).filter(|e| members(e).is_some());
    if all().any(|entry| members(entry) == Some(true)) {
        return None;
    }
    // Another action of ours hands it on in its turn.
    let people = others(target).filter(|entry| members(entry).is_some());
    let first = people.min_by_key(|entry| entry.time.as_ref().map(|time| time.0)).or_else(|| all().next());
    // Who applies owns members alone.
    first.filter(|entry| entry.operation.as_deref() == Some("Update"))
}

const AUTOSCALERS: &[&str] = &["kube-controller-manager", "horizontal-pod-autoscaler", "keda", "vpa-"];
const GITOPS: &[&str] = &["argocd", "kustomize-controller", "helm-controller", "flux", "fleet"];

fn classify(entry: &ManagedFieldsEntry) -> WriterKind {
    let name = manager(entry);
    let is = |known: &[&str]| known.iter().any(|prefix| name.starts_with(prefix));
    if is(AUTOSCALERS) {
        WriterKind::Autoscaler
    } else if is(GITOPS) {
        WriterKind::GitOps
    } else if entry.operation.as_deref() == Some("Apply") && !name.starts_with("kubectl") && name != "helm" {
        // Something applies server-side under its own name: it will apply again.
        WriterKind::GitOps
    } else {
        WriterKind::Person
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::patch::tests::object;
    use serde_json::json;

    fn written_by(manager: &str, operation: &str) -> DynamicObject {
        let owner = json!({"f:spec": {"f:replicas": {}}});
        object(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "managedFields": [
            {"manager": "incident-operator-scale", "operation": "Update", "time": "2026-01-01T00:00:09Z", "fieldsV1": owner},
            {"manager": "old", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": owner},
            {"manager": "elsewhere", "operation": "Update", "time": "2026-01-01T00:00:08Z", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            {"manager": manager, "operation": operation, "time": "2026-01-01T00:00:05Z", "fieldsV1": owner}]}}),
        )
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
            (
                json!({"f:data": {}, "f:x": {}}),
                "only the object around it stayed, which is written as a leaf",
            ),
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
        let ops =
            give_back(&held, "incident-operator-pauseRollout", &[("/spec/rollingUpdate", &owned)], None);
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
}
