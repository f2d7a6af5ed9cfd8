//! Who wrote a field, from `metadata.managedFields`, and what kind of writer that is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::DynamicObject;
use serde_json::Value;

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

/// True when the set of fields holds the field at the JSON Pointer, or all of an object around it.
fn owns(fields: &Value, path: &str) -> bool {
    let mut at = fields;
    for part in path.split('/').skip(1) {
        let name = part.replace("~1", "/").replace("~0", "~");
        match at.get(format!("f:{name}")) {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
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

    #[test]
    fn a_field_that_nobody_wrote_has_no_writer() {
        assert_eq!(writer(&written_by("x", "Update"), "/spec/selector"), None);
    }
}
