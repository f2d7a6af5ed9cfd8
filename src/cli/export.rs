//! A postmortem as it is kept in git: what people wrote, and nothing that the cluster added.
//!
//! The spec stays as it is stored, letter for letter: a time that was written with an offset stays one, and no default
//! is added. So what is exported can be committed and applied again, and nothing differs.

use super::{postmortem, yaml};
use crate::api::{
    ACTOR_ANNOTATION, ACTOR_GROUPS_ANNOTATION, INCIDENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL,
    REQUESTER_ANNOTATION, STATE_STAMP,
};
use anyhow::bail;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The order in which people read a postmortem; what is not named here follows by name.
const ORDER: [&str; 35] = [
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "incidentRef",
    "id",
    "time",
    "title",
    "message",
    "link",
    "state",
    "type",
    "priority",
    "owner",
    "reviewers",
    "dueDate",
    "reason",
    "url",
    "summary",
    "impact",
    "rootCauses",
    "trigger",
    "detection",
    "resolution",
    "wentWell",
    "wentPoorly",
    "gotLucky",
    "timeline",
    "actionItems",
    "links",
];

/// Labels and annotations that the cluster, the operator or a GitOps engine puts on an object. What people say with such
/// a key, as how an engine is to treat the object, is none of them.
const NOT_OURS: [&str; 23] = [
    INCIDENT_LABEL,
    REQUESTER_ANNOTATION,
    ACTOR_ANNOTATION,
    ACTOR_GROUPS_ANNOTATION,
    STATE_STAMP,
    "kubectl.kubernetes.io/last-applied-configuration",
    "kubectl.kubernetes.io/restartedAt",
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/installation-id",
    "argocd.argoproj.io/instance",
    "argocd.argoproj.io/refresh",
    "argocd.argoproj.io/hydrate",
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "kustomize.toolkit.fluxcd.io/checksum",
    "helm.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/namespace",
    "config.kubernetes.io/origin",
    "config.k8s.io/owning-inventory",
    "alpha.config.kubernetes.io/transformations",
    "meta.helm.sh/release-name",
    "meta.helm.sh/release-namespace",
    "applyset.kubernetes.io/part-of",
];
/// Annotations with which kustomize works inside.
const INTERNAL: &str = "internal.config.kubernetes.io/";

/// The postmortems of a file (`-` is standard input), as documents of YAML.
pub fn export_file(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    let mut documents = Vec::new();
    for (name, value) in postmortem::values(path)? {
        if name.is_empty() {
            bail!("{}: a postmortem has no metadata.name: give it one", path.display());
        }
        documents.push(document(&value));
    }
    Ok(documents.join("---\n"))
}

/// One postmortem without what the cluster added.
fn document(value: &Value) -> String {
    let mut metadata = Map::new();
    for key in ["name", "namespace"] {
        if let Some(text) = value["metadata"][key].as_str() {
            metadata.insert(key.to_owned(), json!(text));
        }
    }
    for key in ["labels", "annotations"] {
        let kept = ours(&value["metadata"][key]);
        if !kept.is_empty() {
            metadata.insert(key.to_owned(), Value::Object(kept));
        }
    }
    let mut whole = Map::new();
    whole.insert("apiVersion".to_owned(), value["apiVersion"].clone());
    whole.insert("kind".to_owned(), value["kind"].clone());
    whole.insert("metadata".to_owned(), Value::Object(metadata));
    let spec = value.get("spec").filter(|spec| spec.is_object()).cloned().unwrap_or_else(|| json!({}));
    whole.insert("spec".to_owned(), spec);
    yaml::write(&whole, &ORDER)
}

fn ours(pairs: &Value) -> Map<String, Value> {
    let by_operator = |key: &str, value: &Value| key == MANAGED_BY_LABEL && value == MANAGED_BY;
    let pairs = pairs.as_object().into_iter().flatten();
    let kept = pairs.filter(|(key, value)| {
        !NOT_OURS.contains(&key.as_str()) && !key.starts_with(INTERNAL) && !by_operator(key, value)
    });
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::NamedTempFile;

    fn exported(text: &str) -> anyhow::Result<String> {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        export_file(file.path())
    }

    /// As `kubectl get postmortem -o yaml --show-managed-fields` writes it.
    const LIVE: &str = r#"
apiVersion: incident-operator.dev/v1alpha1
kind: Postmortem
metadata:
  annotations:
    incident-operator.dev/requester: system:serviceaccount:incident-operator:incident-operator
    kubectl.kubernetes.io/last-applied-configuration: |
      {"apiVersion":"incident-operator.dev/v1alpha1"}
    team.example.com/wiki: https://wiki.example.com/1
  creationTimestamp: "2026-11-23T10:40:00Z"
  generation: 4
  labels:
    app.kubernetes.io/managed-by: incident-operator
    incident-operator.dev/incident: checkout-errors
    kustomize.toolkit.fluxcd.io/name: postmortems
    team: shop
  managedFields:
  - apiVersion: incident-operator.dev/v1alpha1
    fieldsType: FieldsV1
    fieldsV1: {"f:spec": {"f:summary": {}}}
    manager: kubectl-edit
    operation: Update
  name: checkout-errors
  namespace: shop
  resourceVersion: "4711"
  uid: 0b0f2b9e-0000-4000-8000-000000000000
spec:
  actionItems:
  - dueDate: "2026-12-15"
    id: pool
    owner: bob
    state: Open
    title: Give the importer a pool of its own
  incidentRef:
    name: checkout-errors
    uid: u1
  rootCauses: |
    # Pool

    Importer and checkout share one pool.
  state: Draft
  timeline:
  - message: pricing flag switched on
    time: "2026-11-23T18:58:00+09:00"
  title: Checkout returns 500
status:
  missingCount: 3
"#;

    #[test]
    fn what_the_cluster_added_is_gone_and_what_people_wrote_stands_in_the_order_in_which_it_is_read() {
        let expected = r#"apiVersion: incident-operator.dev/v1alpha1
kind: Postmortem
metadata:
  name: checkout-errors
  namespace: shop
  labels:
    team: shop
  annotations:
    team.example.com/wiki: "https://wiki.example.com/1"
spec:
  incidentRef:
    name: checkout-errors
    uid: u1
  title: Checkout returns 500
  state: Draft
  rootCauses: |
    # Pool

    Importer and checkout share one pool.
  timeline:
  - time: "2026-11-23T18:58:00+09:00"
    message: pricing flag switched on
  actionItems:
  - id: pool
    title: Give the importer a pool of its own
    state: Open
    owner: bob
    dueDate: "2026-12-15"
"#;
        assert_eq!(exported(LIVE).unwrap(), expected);
        // What was exported is exported as it is.
        assert_eq!(exported(expected).unwrap(), expected);
    }

    #[test]
    fn what_people_tell_an_engine_or_note_under_a_key_of_the_operators_stays() {
        let said = [
            ("argocd.argoproj.io/ignore-healthcheck", "true"),
            ("argocd.argoproj.io/sync-options", "Prune=false"),
            ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
            ("incident-operator.dev/note", "for the board"),
        ];
        let added = [
            ("argocd.argoproj.io/tracking-id", "shop:incident-operator.dev/Postmortem:shop/x"),
            ("incident-operator.dev/state-actor", "{}"),
            ("kustomize.toolkit.fluxcd.io/checksum", "abc"),
            ("internal.config.kubernetes.io/path", "a.yaml"),
        ];
        let pairs: String = said.iter().chain(&added).map(|(k, v)| format!("    {k}: '{v}'\n")).collect();
        let live = LIVE.replace("  annotations:\n", &format!("  annotations:\n{pairs}"));
        let live = live.replace("managed-by: incident-operator", "managed-by: platform-team");
        let text = exported(&live).unwrap();
        for (key, _) in said {
            assert!(text.contains(key), "{key} is not in {text}");
        }
        assert!(text.contains("managed-by: platform-team"), "{text}");
        for (key, _) in added {
            assert!(!text.contains(key), "{key} is in {text}");
        }
        assert_eq!(exported(&text).unwrap(), text);
    }

    #[test]
    fn a_list_gives_one_document_each_and_other_kinds_are_left_out() {
        let item = LIVE.trim().replace('\n', "\n  ");
        let second = item.replace("name: checkout-errors\n    namespace", "name: second\n    namespace");
        let list = format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n- {second}\n- kind: ConfigMap\n");
        let text = exported(&list).unwrap();
        let names: Vec<_> = text.split("---\n").map(|d| d.lines().nth(3).unwrap().trim()).collect();
        assert_eq!(names, ["name: checkout-errors", "name: second"]);
    }

    #[test]
    fn what_is_no_postmortem_or_has_no_name_is_an_error_that_says_so() {
        let error = |text: &str| format!("{:#}", exported(text).unwrap_err());
        assert!(error("kind: ConfigMap").contains("holds no Postmortem"));
        assert!(
            error(&LIVE.replace("  name: checkout-errors\n  namespace", "  namespace"))
                .contains("metadata.name")
        );
    }

    #[test]
    fn every_field_of_the_spec_has_its_place_in_the_order() {
        let crd = serde_json::to_value(<crate::api::Postmortem as kube::CustomResourceExt>::crd()).unwrap();
        let spec =
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        for key in spec.as_object().unwrap().keys() {
            assert!(ORDER.contains(&key.as_str()), "{key}");
        }
    }
}
