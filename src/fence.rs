//! What the operator itself may change on workloads, by the field manager it writes as: the table behind the
//! chart's fence policy.
//!
//! A role can grant `patch deployments`, never `patch spec.replicas`. The API server narrows what the roles grant
//! to this table, so that an operator that was taken over cannot run an image of its own as "scale".

use crate::mitigation::{engines, field::leaves, patch::pointer, record::HeldField};
use serde_json::{Value, json};

/// Fields that an action may change on existing objects, besides its notes: the annotations
/// `incident-operator.dev/mit-…`, the label `incident-operator.dev/mitigated`, and what holds a GitOps engine off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The objects, each as `resource` or `resource.group`, or `resource.group/status`.
    pub resources: &'static [&'static str],
    /// Paths in dots; what is below them is free too. A last part that has dots itself stands in brackets; one that ends in
    /// `/` stands for all keys that begin with it.
    pub fields: &'static [&'static str],
    /// Labels, by key.
    pub labels: &'static [&'static str],
    /// Annotations, by key. One that ends in `/` stands for all keys that begin with it.
    pub annotations: &'static [&'static str],
    /// Whether all labels are free: whoever takes a pod out of service takes away labels that others chose.
    pub any_label: bool,
}

/// Which objects may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that a controller of this kind owns.
    OwnedBy(&'static str),
    /// Those that carry the note of a mitigation.
    Noted,
}

/// Objects that an action may delete, although it did not make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete {
    /// As `resource` or `resource.group`.
    pub resource: &'static str,
    /// Which of them.
    pub which: Which,
}

/// Labels that every action may set on what it holds.
const NOTE_LABELS: &[&str] = &["incident-operator.dev/mitigated"];
/// Annotations that every action may set on what it holds, besides `incident-operator.dev/mit-…`: those that tell
/// a GitOps engine to leave the object alone meanwhile.
const NOTE_ANNOTATIONS: &[&str] =
    &["helm.toolkit.fluxcd.io/driftDetection", "kustomize.toolkit.fluxcd.io/reconcile"];

/// What one action may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Fields of existing objects.
    pub updates: &'static [Update],
    /// Objects that the action makes, changes, and deletes on release: they are called `mit-<8 hex digits>…` and labelled
    /// `incident-operator.dev/mitigated: "true"`, like everything that a mitigation holds.
    pub makes: &'static [&'static str],
    /// Other objects that it deletes.
    pub deletes: &'static [Delete],
}

/// An update of fields alone.
pub(crate) const fn fields(resources: &'static [&'static str], fields: &'static [&'static str]) -> Update {
    Update { resources, fields, labels: &[], annotations: &[], any_label: false }
}

const WORKLOADS: &[&str] = &["deployments.apps", "statefulsets.apps", "daemonsets.apps"];
/// An update of what is in the templates of workloads. The API server counts those of a DaemonSet in an annotation.
pub(crate) const fn template(fields: &'static [&'static str]) -> Update {
    Update {
        resources: WORKLOADS,
        fields,
        labels: &[],
        annotations: &["deprecated.daemonset.template.generation"],
        any_label: false,
    }
}

/// A flag that is read only at the start needs a restart of its readers.
/// By no other annotation, since some make an injector run an image.
pub(crate) const RESTART: Update =
    template(&["spec.template.metadata.annotations[restarted-for.incident-operator.dev/]"]);
pub(crate) const FLAG: Update = fields(&["configmaps"], &["data"]);

impl Fence {
    /// What may be changed, in words.
    fn says(&self) -> String {
        let mut parts = Vec::new();
        for update in self.updates {
            let mut what: Vec<String> = update.fields.iter().map(|field| (*field).to_owned()).collect();
            what.extend(update.labels.iter().map(|key| format!("label {key}")));
            what.extend(update.annotations.iter().map(|key| format!("annotation {key}")));
            if update.any_label {
                what.push("labels".to_owned());
            }
            parts.push(format!("{} of {}", what.join(" and "), update.resources.join(", ")));
        }
        if !self.makes.is_empty() {
            parts.push(format!("{} of its own making", self.makes.join(", ")));
        }
        for delete in self.deletes {
            parts.push(match delete.which {
                Which::OwnedBy(kind) => format!("the existence of {} of a {kind}", delete.resource),
                Which::Noted => format!("the existence of {} that it noted", delete.resource),
            });
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
    }

    /// Whether the action may have changed such an object like this. What the table does not name at all, as a kind that an
    /// administrator listed, is not judged.
    pub fn allows(&self, resource: &str, held: &HeldField) -> bool {
        // What was missing around a field is added with it, and nothing was there before.
        let around =
            |applied: &Value| leaves(&held.path, applied).iter().all(|leaf| self.has(resource, leaf));
        self.has(resource, &held.path) || held.prior.is_none() && held.applied.as_ref().is_some_and(around)
    }

    /// Whether a field, by its JSON Pointer, is among those of the action.
    fn has(&self, resource: &str, path: &str) -> bool {
        if self.makes.contains(&resource) {
            return true;
        }
        let mut updates =
            self.updates.iter().filter(|update| update.resources.contains(&resource)).peekable();
        let key = |prefix: &str| Some(path.strip_prefix(prefix)?.replace("~1", "/").replace("~0", "~"));
        updates.peek().is_none()
            || updates.any(|update| {
                let (label, annotation) = (key("/metadata/labels/"), key("/metadata/annotations/"));
                let matches =
                    |known: &str, key: &str| known == key || known.ends_with('/') && key.starts_with(known);
                update.fields.iter().any(|field| is_below(path, &pointer_of(field)))
                    || label.is_some_and(|key| update.any_label || update.labels.contains(&key.as_str()))
                    || annotation.is_some_and(|key| {
                        update.annotations.iter().chain(NOTE_ANNOTATIONS).any(|known| matches(known, &key))
                    })
            })
    }

    /// Every resource that the fence names.
    fn resources(&self) -> impl Iterator<Item = &'static str> {
        let updated = self.updates.iter().flat_map(|update| update.resources).copied();
        let all = updated
            .chain(self.makes.iter().copied())
            .chain(self.deletes.iter().map(|delete| delete.resource));
        // Subresources are matched with their resource.
        all.map(|resource| resource.split_once('/').map_or(resource, |(whole, _)| whole))
    }
}

/// Where the values of a map lie that are no maps themselves, as JSON Pointers.
fn is_below(path: &str, field: &str) -> bool {
    if field.ends_with("~1") {
        return path.starts_with(field);
    }
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path in dots as a JSON Pointer.
fn pointer_of(field: &str) -> String {
    let (dotted, last) =
        field.trim_end_matches(']').split_once('[').map_or((field, None), |(d, l)| (d, Some(l)));
    let parts: Vec<&str> = dotted.split('.').chain(last).collect();
    pointer(&parts)
}

/// The table as the chart reads it.
pub fn table() -> Value {
    let mut resources: Vec<&str> = Vec::new();
    let mut actions = Vec::new();
    for engine in engines() {
        let (action, fence) = (engine.name(), engine.fence());
        resources.extend(fence.resources());
        let updates: Vec<Value> = fence
            .updates
            .iter()
            .map(|update| {
                json!({
                    "resources": update.resources,
                    "fields": update.fields,
                    "labels": update.labels,
                    "annotations": update.annotations,
                    "anyLabel": update.any_label,
                })
            })
            .collect();
        let deletes: Vec<Value> = fence
            .deletes
            .iter()
            .map(|delete| match delete.which {
                Which::OwnedBy(kind) => json!({"resource": delete.resource, "ownedBy": kind}),
                Which::Noted => json!({"resource": delete.resource, "noted": true}),
            })
            .collect();
        actions.push(json!({
            "name": action.as_str(),
            "fieldManager": action.field_manager(),
            "says": fence.says(),
            "updates": updates,
            "makes": fence.makes,
            "deletes": deletes,
        }));
    }
    resources.sort_unstable();
    resources.dedup();
    let resources: Vec<Value> = resources
        .into_iter()
        .map(|resource| {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            json!({"group": group, "resource": plural})
        })
        .collect();
    let notes = json!({"labels": NOTE_LABELS, "annotations": NOTE_ANNOTATIONS});
    json!({"resources": resources, "notes": notes, "actions": actions})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ActionName;

    fn fence(action: ActionName) -> Fence {
        let engine = engines().into_iter().find(|engine| engine.name() == action);
        engine.map(|engine| engine.fence()).expect("it has an engine")
    }

    /// Whether the fence lets the holder of a rule use it at all.
    fn covers(fence: &Fence, resource: &str, verb: &str) -> bool {
        match verb {
            "patch" | "update" => {
                fence.makes.contains(&resource)
                    || fence.updates.iter().any(|update| update.resources.contains(&resource))
            }
            "create" => fence.makes.contains(&resource),
            "delete" => {
                fence.makes.contains(&resource)
                    || fence.deletes.iter().any(|delete| delete.resource == resource)
            }
            "get" | "list" | "watch" => true,
            _ => false,
        }
    }

    #[test]
    fn no_action_has_a_right_that_the_fence_takes_away() {
        for engine in engines() {
            let fence = engine.fence();
            for rule in engine.rules() {
                for (group, resource) in
                    rule.groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r)))
                {
                    let (plural, below) = resource
                        .split_once('/')
                        .map_or((*resource, String::new()), |(plural, below)| (plural, format!("/{below}")));
                    let dot = if group.is_empty() { "" } else { "." };
                    let full = format!("{plural}{dot}{group}{below}");
                    for verb in rule.verbs {
                        assert!(
                            covers(&fence, &full, verb),
                            "{:?} may {verb} {full} by its role, and nothing that it declares in fence() says what of it",
                            engine.name()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn only_a_rollback_may_change_what_runs_in_pods() {
        for engine in engines() {
            let action = engine.name();
            for field in engine.fence().updates.iter().flat_map(|update| update.fields) {
                let runs = "spec.template.spec".starts_with(field) || field.starts_with("spec.template.spec");
                assert_eq!(runs, action == ActionName::Rollback, "{action:?}: {field}");
            }
        }
    }

    #[test]
    fn a_field_that_an_action_never_touches_is_told_from_its_own() {
        for (action, resource, path, allowed) in [
            (ActionName::Scale, "deployments.apps", "/spec/replicas", true),
            (ActionName::Scale, "deployments.apps", "/spec/replicasOfOthers", false),
            (ActionName::Scale, "deployments.apps", "/spec/template/spec/containers/0/image", false),
            (ActionName::Scale, "workers.shop.example", "/spec/size", true),
            (ActionName::FeatureFlag, "configmaps", "/data/a.b", true),
            (ActionName::FeatureFlag, "configmaps", "/immutable", false),
            (
                ActionName::FeatureFlag,
                "deployments.apps",
                "/spec/template/metadata/annotations/restarted-for.incident-operator.dev~10123abcd",
                true,
            ),
            (ActionName::FeatureFlag, "deployments.apps", "/spec/template/metadata/annotations/x", false),
            (ActionName::Isolate, "pods", "/metadata/labels/app", true),
            (ActionName::Scale, "deployments.apps", "/metadata/labels/app", false),
            (
                ActionName::Freeze,
                "namespaces",
                "/metadata/annotations/freeze.incident-operator.dev~10123abcd",
                true,
            ),
            (
                ActionName::Scale,
                "deployments.apps",
                "/metadata/annotations/kustomize.toolkit.fluxcd.io~1reconcile",
                true,
            ),
        ] {
            assert_eq!(fence(action).has(resource, path), allowed, "{action:?} {resource} {path}");
        }
    }

    #[test]
    fn a_map_that_is_added_around_a_field_is_as_good_as_the_field() {
        for (prior, key, allowed) in [
            (None, "restarted-for.incident-operator.dev/0123abcd", true),
            (None, "sidecar.istio.io/proxyImage", false),
            // A release would write all of it.
            (Some(json!({"x": "y"})), "restarted-for.incident-operator.dev/0123abcd", false),
            (Some(Value::Null), "restarted-for.incident-operator.dev/0123abcd", false),
        ] {
            let mut held = json!({"path": "/spec/template/metadata/annotations", "applied": {key: "1"}});
            if let Some(prior) = &prior {
                held["prior"] = prior.clone();
            }
            let held: HeldField = serde_json::from_value(held).expect("a field");
            let may = fence(ActionName::FeatureFlag).allows("deployments.apps", &held);
            assert_eq!(may, allowed, "{prior:?} {key}");
        }
    }

    #[test]
    fn what_may_be_changed_is_said_in_words() {
        let says = fence(ActionName::Scale).says();
        assert!(
            says.starts_with("spec.replicas of deployments.apps, statefulsets.apps; spec.minReplicas"),
            "{says}"
        );
        assert_eq!(fence(ActionName::Manual).says(), "nothing");
        assert!(fence(ActionName::Isolate).says().ends_with("the existence of pods that it noted"));
    }
}
