//! The rights that a mitigation asks of whoever requests it: the table behind the chart's authority policies.
//!
//! Declaring an incident grants nobody power. So whoever asks for a mitigation, changes one or releases one must
//! hold, on the mitigation's own target, the right that the action uses there. The API server checks it by CEL
//! policies which the chart renders from this table; see [`crate::manifests`].

use crate::{
    api::{ActionName, MitigationTemplate, TargetRef},
    decide::access::Need,
    mitigation::{engine, engines, scalable},
};
use serde_json::{Value, json};

/// A verb on a resource, as RBAC names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// Verb.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural of the kind.
    pub resource: &'static str,
    /// Subresource, or empty.
    pub subresource: &'static str,
}

/// The right that an action needs for a target of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnKind {
    /// Kind of the target.
    pub kind: &'static str,
    /// Its API group and version.
    pub api_version: &'static str,
    /// The right.
    pub right: Right,
    /// Whether the right is on the target itself, so that a grant for this one name is enough. Otherwise it is on
    /// objects that the action makes or finds, and the grant must be for all of them.
    pub on_target: bool,
    /// Only for these values of [`Authority::by`]; an empty text is the field left out. Empty: for all.
    pub when: &'static [&'static str],
}

/// A right that one value of a field asks for besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra {
    /// Path of the field inside the action's block.
    pub field: &'static str,
    /// What counts when the field is left out.
    pub default: Value,
    /// The value that asks for the right.
    pub value: Value,
    /// The right, on all objects of the resource.
    pub right: Right,
    /// Whether the release does what the right is for, too: then whoever releases the mitigation needs it.
    pub on_release: bool,
    /// Only for these values of [`Authority::by`]. Empty: for all.
    pub when: &'static [&'static str],
}

impl Extra {
    /// The release does it, too.
    pub(crate) fn also_on_release(self) -> Extra {
        Extra { on_release: true, ..self }
    }

    /// Only for these values of the field by which the rights differ.
    pub(crate) fn when(self, when: &'static [&'static str]) -> Extra {
        Extra { when, ..self }
    }
}

/// A field of the action's block by which the rights differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// Its name.
    pub field: &'static str,
    /// What counts when it is left out.
    pub default: &'static str,
}

/// What one action asks of the requester.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authority {
    /// The field by which the rights differ, if they do.
    pub by: Option<By>,
    /// By kind of the target; a kind that is not here is refused. Empty: no right is needed.
    pub rights: Vec<OnKind>,
    /// What parameters ask for besides.
    pub extras: Vec<Extra>,
}

/// A right on a resource.
pub(crate) const fn right(verb: &'static str, group: &'static str, resource: &'static str) -> Right {
    Right { verb, group, resource, subresource: "" }
}

/// A right on the target itself.
pub(crate) const fn on(kind: &'static str, api_version: &'static str, right: Right) -> OnKind {
    OnKind { kind, api_version, right, on_target: true, when: &[] }
}

impl OnKind {
    /// Only for these values of the field by which the rights differ.
    pub(crate) const fn when(self, when: &'static [&'static str]) -> OnKind {
        OnKind { when, ..self }
    }

    /// The right is not on the target, but on what is made for it.
    pub(crate) const fn beside(self) -> OnKind {
        OnKind { on_target: false, ..self }
    }
}

/// A right for one value of a field.
pub(crate) fn extra(
    field: &'static str,
    default: impl Into<Value>,
    value: impl Into<Value>,
    right: Right,
) -> Extra {
    Extra { field, default: default.into(), value: value.into(), right, on_release: false, when: &[] }
}

/// Reading logs, which evidence does on behalf of whoever demands it.
pub const EVIDENCE: Right = Right { verb: "get", group: "", resource: "pods", subresource: "log" };

/// The same for the three kinds that roll out pods.
pub(crate) fn workloads() -> Vec<OnKind> {
    [("Deployment", "deployments"), ("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets")]
        .map(|(kind, resource)| on(kind, "apps/v1", right("patch", "apps", resource)))
        .to_vec()
}

/// What a mitigation asks of whoever requests it (`taken`), or releases it: the same that the policies ask for.
pub fn wanted(template: &MitigationTemplate, taken: bool) -> Vec<Need> {
    let action = template.action.name();
    let Authority { by, rights, extras } =
        engine(&template.action).map(|engine| engine.authority()).unwrap_or_default();
    // The block of the action as it stands in the manifest.
    let block = serde_json::to_value(&template.action).unwrap_or_default();
    let field = |path: &str| path.split('.').fold(&block[action.as_str()], |value, name| &value[name]);
    let variant = by.map(|by| field(by.field).as_str().unwrap_or(by.default).to_owned());
    let target = &template.target_ref;
    let fits = |on: &&OnKind| {
        on.kind == target.kind
            && target.api_version.as_deref().is_none_or(|version| version == on.api_version)
            && variant.as_deref().is_none_or(|variant| on.when.is_empty() || on.when.contains(&variant))
    };
    let named = |on: &OnKind| if on.on_target { target.name.clone() } else { String::new() };
    let right = rights.iter().find(fits).map(|on| Need { right: on.right, name: named(on) });
    let right = right.or_else(|| (action == ActionName::Scale).then(|| scale_of_listed(target)).flatten());
    // What the table does not know is for those who may do everything.
    let unknown = || Need { right: right_on_everything(), name: String::new() };
    let right = right.or_else(|| (!rights.is_empty()).then(unknown));
    let asked = |extra: &&Extra| {
        let stated = field(extra.field);
        let fits = variant.as_deref().is_none_or(|v| extra.when.is_empty() || extra.when.contains(&v));
        fits && (taken || extra.on_release)
            && extra.value == *if stated.is_null() { &extra.default } else { stated }
    };
    let more = extras.iter().filter(asked).map(|extra| Need { right: extra.right, name: String::new() });
    right.into_iter().chain(more).collect()
}

const fn right_on_everything() -> Right {
    right("*", "*", "*")
}

/// The same right on a kind that the configuration lists, or listed once.
fn scale_of_listed(target: &TargetRef) -> Option<Need> {
    let group = target.api_version.as_deref().map(|v| v.rsplit_once('/').map_or("", |(group, _)| group));
    let kind = scalable::known(group, &target.kind)?;
    let right = Right { verb: "patch", group: kind.group, resource: kind.plural, subresource: "scale" };
    Some(Need { right, name: target.name.clone() })
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if self.subresource.is_empty() { Ok(()) } else { write!(f, "/{}", self.subresource) }
    }
}

impl Right {
    fn to_json(self) -> Value {
        let mut right = json!({"verb": self.verb, "group": self.group, "resource": self.resource});
        if !self.subresource.is_empty() {
            right["subresource"] = self.subresource.into();
        }
        right
    }
}

/// The table as the chart reads it.
pub fn table() -> Value {
    let actions: Vec<Value> = engines()
        .iter()
        .map(|engine| {
            let Authority { by, rights, extras } = engine.authority();
            let rights: Vec<Value> = rights
                .iter()
                .map(|on| {
                    let mut entry = on.right.to_json();
                    entry["kind"] = on.kind.into();
                    entry["apiVersion"] = on.api_version.into();
                    if on.on_target {
                        entry["named"] = true.into();
                    }
                    if !on.when.is_empty() {
                        entry["when"] = json!(on.when);
                    }
                    entry
                })
                .collect();
            let mut entry = json!({"name": engine.name().as_str(), "rights": rights});
            if let Some(by) = by {
                entry["by"] = json!({"field": by.field, "default": by.default});
            }
            let extras: Vec<Value> = extras
                .iter()
                .map(|extra| {
                    let mut entry = extra.right.to_json();
                    entry["field"] = extra.field.into();
                    entry["default"] = extra.default.clone();
                    entry["value"] = extra.value.clone();
                    if extra.on_release {
                        entry["onRelease"] = true.into();
                    }
                    if !extra.when.is_empty() {
                        entry["when"] = json!(extra.when);
                    }
                    entry
                })
                .collect();
            if !extras.is_empty() {
                entry["extras"] = extras.into();
            }
            entry
        })
        .collect();
    json!({"actions": actions, "evidence": EVIDENCE.to_json()})
}

#[cfg(test)]
mod tests;
