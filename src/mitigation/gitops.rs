//! GitOps engines that own a target: told from its labels and annotations, and dealt with as the mitigation asks.
//!
//! Flux leaves an object alone while it carries an annotation (kustomize-controller: `reconcile: disabled`,
//! helm-controller: `driftDetection: disabled`), so that is set in the same write as the change and goes with it.
//! Argo CD has no such switch for one object: a rule must have been set up before, and is named here.

use super::{Change, ObjectId, Part, Refusal, Stop, record::Record};
use crate::api::{ActionName, GitOpsPolicy};
use kube::core::DynamicObject;
use serde_json::json;

const FLUX_KUSTOMIZE: &str = "/metadata/annotations/kustomize.toolkit.fluxcd.io~1reconcile";
const FLUX_HELM: &str = "/metadata/annotations/helm.toolkit.fluxcd.io~1driftDetection";

/// The engine that owns an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A Kustomization of Flux.
    FluxKustomization(String),
    /// A HelmRelease of Flux.
    FluxHelmRelease(String),
    /// An Application of Argo CD.
    ArgoApplication(String),
}

impl Owner {
    /// The engine that owns the object, when one does.
    pub fn of(object: &DynamicObject) -> Option<Owner> {
        let label = |key: &str| object.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let annotation = |key: &str| object.metadata.annotations.as_ref().and_then(|a| a.get(key));
        let flux = |group: &str| {
            let name = label(&format!("{group}/name"))?;
            let namespace = label(&format!("{group}/namespace"));
            Some(namespace.map_or(name.clone(), |namespace| format!("{namespace}/{name}")))
        };
        if let Some(name) = flux("kustomize.toolkit.fluxcd.io") {
            return Some(Owner::FluxKustomization(name));
        }
        if let Some(name) = flux("helm.toolkit.fluxcd.io") {
            return Some(Owner::FluxHelmRelease(name));
        }
        // <application>:<group>/<kind>:<namespace>/<name>
        let tracking = annotation("argocd.argoproj.io/tracking-id")?;
        let application = tracking.split_once(':').map_or(tracking.as_str(), |(name, _)| name);
        Some(Owner::ArgoApplication(application.to_owned()))
    }

    fn words(&self) -> String {
        match self {
            Owner::FluxKustomization(name) => format!("Flux Kustomization {name}"),
            Owner::FluxHelmRelease(name) => format!("Flux HelmRelease {name}"),
            Owner::ArgoApplication(name) => format!("Argo CD Application {name}"),
        }
    }
}

/// Adds to the parts what the policy asks for, or refuses.
pub fn prepare(
    policy: Option<GitOpsPolicy>,
    id: &ObjectId,
    target: &DynamicObject,
    parts: &mut [Part],
) -> Result<(), Stop> {
    let Some(owner) = Owner::of(target) else { return Ok(()) };
    match policy.unwrap_or(GitOpsPolicy::Auto) {
        GitOpsPolicy::Report => return Ok(()),
        GitOpsPolicy::Refuse => {
            return Err(Refusal::new(
                "OwnedByGitOps",
                format!("{} owns {id} and spec.gitops is Refuse: change it in git", owner.words()),
            )
            .into());
        }
        GitOpsPolicy::Auto | GitOpsPolicy::FreezeObject => {}
    }
    let path = match owner {
        Owner::FluxKustomization(_) => FLUX_KUSTOMIZE,
        Owner::FluxHelmRelease(_) => FLUX_HELM,
        Owner::ArgoApplication(_) if policy == Some(GitOpsPolicy::FreezeObject) => {
            return Err(Refusal::new(
                "CannotFreeze",
                format!(
                    "{} owns {id}; Argo CD cannot leave one object alone: use gitops: Report",
                    owner.words()
                ),
            )
            .into());
        }
        Owner::ArgoApplication(_) => return Ok(()),
    };
    for part in parts.iter_mut().filter(|part| part.id == *id) {
        if let super::Asked::Change(changes) = &mut part.asked {
            changes.push(Change::share(target, path, json!("disabled")));
        }
    }
    Ok(())
}

/// What the engine will do, when it is not held off.
pub fn warning(policy: Option<GitOpsPolicy>, target: &DynamicObject, action: ActionName) -> Option<String> {
    let owner = Owner::of(target)?;
    let words = owner.words();
    Some(match (owner, policy.unwrap_or(GitOpsPolicy::Auto)) {
        (_, GitOpsPolicy::Refuse) => return None,
        (
            Owner::FluxKustomization(_) | Owner::FluxHelmRelease(_),
            GitOpsPolicy::Auto | GitOpsPolicy::FreezeObject,
        ) => {
            format!(
                "{words} leaves the object alone until release: no change from git reaches it, a fix neither"
            )
        }
        (Owner::FluxKustomization(_) | Owner::FluxHelmRelease(_), GitOpsPolicy::Report) => {
            format!("{words} will put its own value back at its next run")
        }
        (Owner::ArgoApplication(name), _) => format!(
            "{words} will put its own value back at its next sync, unless its spec.ignoreDifferences lists \
             managedFieldsManagers: [{}] and its syncOptions RespectIgnoreDifferences=true (Application {name})",
            action.field_manager()
        ),
    })
}

/// What to change at the source, when the engine does not give in.
pub fn fix(object: &DynamicObject, record: &Record) -> Option<String> {
    let owner = Owner::of(object)?;
    let lines = record
        .fields
        .iter()
        .filter(|held| !held.path.starts_with("/metadata/annotations"))
        .map(|held| {
            let value = held.applied.as_ref().map_or("(leave it out)".to_owned(), |v| v.to_string());
            format!("{}: {value}", held.path.trim_start_matches('/').replace('/', "."))
        })
        .collect::<Vec<_>>()
        .join(", ");
    Some(format!("in the git source of {}, set {lines}, or suspend it", owner.words()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::{DEPLOYMENT, patch::tests::object};

    fn owned(labels: serde_json::Value, annotations: serde_json::Value) -> DynamicObject {
        object(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": labels, "annotations": annotations}, "spec": {"replicas": 3}}))
    }

    fn flux() -> DynamicObject {
        owned(
            json!({"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}),
            json!({}),
        )
    }

    fn scaled(target: &DynamicObject) -> Vec<Part> {
        let id = ObjectId::new(DEPLOYMENT, "web");
        vec![Part::change(&id, vec![Change::set(target, "/spec/replicas", json!(0))])]
    }

    #[test]
    fn flux_is_told_on_the_object_in_the_same_write() {
        let (target, id) = (flux(), ObjectId::new(DEPLOYMENT, "web"));
        let mut parts = scaled(&target);
        prepare(None, &id, &target, &mut parts).unwrap();
        assert_eq!(parts[0].changes()[1].path, FLUX_KUSTOMIZE);
        let mut parts = scaled(&target);
        prepare(Some(GitOpsPolicy::Report), &id, &target, &mut parts).unwrap();
        assert_eq!(parts[0].changes().len(), 1);
        assert!(
            warning(Some(GitOpsPolicy::Report), &target, ActionName::Scale)
                .unwrap()
                .contains("flux-system/apps")
        );
        let refused = prepare(Some(GitOpsPolicy::Refuse), &id, &target, &mut parts).unwrap_err();
        assert!(matches!(refused, Stop::Refused(r) if r.reason == "OwnedByGitOps"));
    }

    #[test]
    fn argo_cd_cannot_be_told_on_the_object_so_the_rule_is_named() {
        let target =
            owned(json!({}), json!({"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/web"}));
        let mut parts = scaled(&target);
        prepare(None, &ObjectId::new(DEPLOYMENT, "web"), &target, &mut parts).unwrap();
        assert_eq!(parts[0].changes().len(), 1);
        let words = warning(None, &target, ActionName::Scale).unwrap();
        assert!(words.contains("incident-operator-scale") && words.contains("Application shop"), "{words}");
    }
}
