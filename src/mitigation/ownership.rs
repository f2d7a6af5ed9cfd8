//! Who wrote a field, from `metadata.managedFields`, and what kind of writer that is.

use super::{
    field::leaves,
    field_set::{below, lost, maps, merged, owns, part, parts, without, without_leaf},
    patch::pointer,
    record::Record,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time},
    jiff::Timestamp,
};
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

/// Who applied a field server-side, other than ourselves. A change of ours takes a field from everybody, so who has it beside
/// us has applied the same value since.
pub fn applier(target: &DynamicObject, path: &str) -> Option<String> {
    let entries = target.metadata.managed_fields.iter().flatten();
    let applied = |entry: &&ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Apply")
            && !manager(entry).starts_with("incident-operator")
            && entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0, path))
    };
    entries
        .filter(applied)
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .map(|e| manager(e).to_owned())
}

/// When somebody last wrote to a field, as the API server noted it, in whole seconds.
pub fn written(target: &DynamicObject, path: &str) -> Option<Timestamp> {
    let entries = target.metadata.managed_fields.iter().flatten();
    let of_field = |entry: &&ManagedFieldsEntry| entry.fields_v1.as_ref().is_some_and(|f| owns(&f.0, path));
    entries.filter(of_field).filter_map(|entry| Some(entry.time.as_ref()?.0)).max()
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
    pub fn is_same(&self, other: &Owner) -> bool {
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

/// Who is to own a field that holds something of ours beside what belongs to others, when its value changes like this.
/// Others change such a field while it is held, so those who own it by now count. `before` are those who had lost it to us.
pub fn rightful(
    target: &DynamicObject,
    path: &str,
    from: Option<&Value>,
    to: Option<&Value>,
    before: &[Owner],
) -> Vec<Owner> {
    let mut owners = losers(target, path, from, to);
    let is_ours = |entry: &ManagedFieldsEntry| manager(entry).starts_with("incident-operator");
    let ours = entries(target).iter().any(|entry| is_ours(entry) && owns(&fields_of(entry), path));
    // Whoever changes a value takes the field from all; who applies the value that is there owns it along with them.
    if owners.is_empty() || ours {
        for owner in before {
            if !owners.iter().any(|known| known.is_same(owner)) {
                owners.push(owner.clone());
            }
        }
    }
    owners
}

/// What of a map belongs to others: to field managers, and to mitigations but that with this uid.
pub fn part_of_others(target: &DynamicObject, path: &str, map: &Value, uid: &str) -> Option<Value> {
    let people = others(target).filter_map(|entry| below(&fields_of(entry), path));
    let records = Record::all(target).filter(|record| record.uid != uid && !record.restored);
    let held = records.flat_map(|record| record.fields).filter_map(|held| {
        let value = held.applied.filter(|_| is_within(&held.path, path) && !held.how.is_part())?;
        let set = leaves(&held.path, &value).iter().fold(json!({}), |set, leaf| {
            merged(
                &set,
                &parts(leaf).iter().rev().fold(json!({}), |inner, part| json!({part.as_str(): inner})),
            )
        });
        below(&set, path)
    });
    people.chain(held).reduce(|all, set| merged(&all, &set)).and_then(|set| part(map, &set))
}

/// Whether a field manager other than ourselves owns the field or something below it.
pub fn others_own(target: &DynamicObject, path: &str) -> bool {
    others(target).any(|entry| below(&fields_of(entry), path).is_some())
}

fn is_within(path: &str, map: &str) -> bool {
    path.strip_prefix(map).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
mod tests;
