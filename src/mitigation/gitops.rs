//! GitOps engines that own a target: told from its labels and annotations, and dealt with as the mitigation asks.
//!
//! Flux leaves an object alone while it carries an annotation (kustomize-controller: `reconcile: disabled`,
//! helm-controller: `driftDetection: disabled`), so that is set in the same write as the change and goes with it.
//! Argo CD has no such switch for one object: a rule must have been set up before, and is named here.

use super::{
    Change, ObjectId, Part, Refusal, Stop,
    field::How,
    patch::pointer_parts,
    record::{HeldField, Record},
};
use crate::api::{ActionName, GitOpsPolicy};
use kube::core::DynamicObject;
use serde_json::{Value, json};

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

/// Adds to the parts of an object what the policy asks for, or refuses. Objects besides the target are only meant where
/// a value is changed that was there before: what is added to them is in no source, and no engine takes it away.
pub fn prepare(
    policy: Option<GitOpsPolicy>,
    id: &ObjectId,
    is_target: bool,
    target: &DynamicObject,
    parts: &mut [Part],
) -> Result<(), Stop> {
    let replaces = |part: &Part| part.changes().iter().any(|change| change.from.is_some());
    if !is_target && !parts.iter().any(|part| part.id == *id && replaces(part)) {
        return Ok(());
    }
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

/// What is changed of one object.
pub struct Written<'a> {
    /// The object.
    pub id: &'a ObjectId,
    /// As it is.
    pub object: &'a DynamicObject,
    /// Whether a value is changed that was there before.
    pub replaces: bool,
    /// Whether its engine is told to leave it alone.
    pub held_off: bool,
}

impl<'a> Written<'a> {
    /// What is to change.
    pub fn planned(part: &'a Part, object: &'a DynamicObject) -> Written<'a> {
        let (shared, plain): (Vec<&Change>, Vec<&Change>) =
            part.changes().iter().partition(|change| change.how == How::Shared);
        let replaces = plain.iter().any(|change| change.from.is_some());
        Written { id: &part.id, object, replaces, held_off: !shared.is_empty() }
    }

    /// What was changed.
    pub fn recorded(id: &'a ObjectId, object: &'a DynamicObject, record: &Record) -> Written<'a> {
        let (shared, plain): (Vec<&HeldField>, Vec<&HeldField>) =
            record.fields.iter().partition(|held| held.how == How::Shared);
        let replaces = !record.made && plain.iter().any(|held| held.prior.is_some());
        Written { id, object, replaces, held_off: !shared.is_empty() }
    }
}

/// What the engine that owns an object does about its change, if anything.
pub fn warning(policy: Option<GitOpsPolicy>, written: &Written<'_>, action: ActionName) -> Option<String> {
    let owner = Owner::of(written.object)?;
    let (words, id) = (owner.words(), written.id);
    Some(match owner {
        _ if policy == Some(GitOpsPolicy::Refuse) => return None,
        Owner::FluxKustomization(_) | Owner::FluxHelmRelease(_) if written.held_off => {
            format!("{words} leaves {id} alone until release: no change from git reaches it, a fix neither")
        }
        _ if !written.replaces => return None,
        Owner::FluxKustomization(_) | Owner::FluxHelmRelease(_) => {
            format!("{words} will put its own value of {id} back at its next run")
        }
        Owner::ArgoApplication(name) => format!(
            "{words} will put its own value of {id} back at its next sync, unless its spec.ignoreDifferences lists \
             managedFieldsManagers: [{}] and its syncOptions RespectIgnoreDifferences=true (Application {name})",
            action.field_manager()
        ),
    })
}

/// What to change at the source, when the engine does not give in. An engine that leaves no trace of its own is called
/// by the name under which it writes.
pub fn fix(object: &DynamicObject, record: &Record, manager: &str) -> String {
    // What tells the engine itself to stay away is not in its source.
    let lines: Vec<String> = record.fields.iter().filter(|held| held.how != How::Shared).map(line).collect();
    let set = match lines.as_slice() {
        [] => String::new(),
        lines => format!("set {}, or ", lines.join(", ")),
    };
    match Owner::of(object) {
        Some(owner) => format!("in the git source of {} {set}suspend it", owner.words()),
        None => format!("at the source of {manager} {set}pause it for this object"),
    }
}

/// The line of a manifest that gives a field the mitigation's value.
fn line(held: &HeldField) -> String {
    let path = dotted(&held.path);
    let value = held.applied.as_ref().map_or("(leave it out)".to_owned(), Value::to_string);
    match &held.how {
        How::Plain | How::Shared | How::Subset => format!("{path}: {value}"),
        How::Inside(place) => format!("{path}: {} = {value} in it", place.path.join(".")),
        How::Member(_) => format!("{path}: {value} among the others"),
        How::Revision(pin) => format!("{path}: that of {}", pin.to),
        How::Digest => format!("{path}: as the mitigation set it"),
    }
}

/// A JSON Pointer as people write it: `metadata.annotations["example.dev/a"]`.
fn dotted(pointer: &str) -> String {
    pointer_parts(pointer).iter().fold(String::new(), |path, part| match part {
        part if part.contains(['.', '/']) => format!("{path}[{part:?}]"),
        part if path.is_empty() => part.clone(),
        part => format!("{path}.{part}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::{
        DEPLOYMENT,
        document::{Format, Place},
        patch::tests::object,
        revisions::{Mark, Pin},
    };

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
        prepare(None, &id, true, &target, &mut parts).unwrap();
        assert_eq!(parts[0].changes()[1].path, FLUX_KUSTOMIZE);
        let mut parts = scaled(&target);
        prepare(Some(GitOpsPolicy::Report), &id, true, &target, &mut parts).unwrap();
        assert_eq!(parts[0].changes().len(), 1);
        assert!(
            warning(Some(GitOpsPolicy::Report), &Written::planned(&parts[0], &target), ActionName::Scale)
                .unwrap()
                .contains("flux-system/apps will put its own value")
        );
        let refused = prepare(Some(GitOpsPolicy::Refuse), &id, true, &target, &mut parts).unwrap_err();
        assert!(matches!(refused, Stop::Refused(r) if r.reason == "OwnedByGitOps"));
    }

    #[test]
    fn argo_cd_cannot_be_told_on_the_object_so_the_rule_is_named() {
        let target =
            owned(json!({}), json!({"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/web"}));
        let mut parts = scaled(&target);
        prepare(None, &ObjectId::new(DEPLOYMENT, "web"), true, &target, &mut parts).unwrap();
        assert_eq!(parts[0].changes().len(), 1);
        let words = warning(None, &Written::planned(&parts[0], &target), ActionName::Scale).unwrap();
        assert!(words.contains("incident-operator-scale") && words.contains("Application shop"), "{words}");
    }

    #[test]
    fn what_is_written_besides_the_target_is_held_off_where_a_value_of_the_engine_changes() {
        let (target, id) = (flux(), ObjectId::new(DEPLOYMENT, "web"));
        let part = |change: Change| vec![Part::change(&id, vec![change])];
        let mut replaced = part(Change::set(&target, "/spec/replicas", json!(0)));
        prepare(None, &id, false, &target, &mut replaced).unwrap();
        assert_eq!(replaced[0].changes().len(), 2);
        let mut added = part(Change::set(&target, "/spec/more", json!(0)));
        prepare(None, &id, false, &target, &mut added).unwrap();
        assert_eq!(added[0].changes().len(), 1, "what git does not have, Flux leaves");
        assert_eq!(warning(None, &Written::planned(&added[0], &target), ActionName::Scale), None);
        let words = warning(None, &Written::planned(&replaced[0], &target), ActionName::Scale).unwrap();
        assert!(words.contains("leaves Deployment/web alone"), "{words}");
        // A mitigation that does not write the object says nothing of it.
        let nothing = Part::change(&id, Vec::new());
        assert_eq!(warning(None, &Written::planned(&nothing, &target), ActionName::Scale), None);
    }

    #[test]
    fn the_lines_to_change_are_those_of_a_manifest() {
        let target = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"},
            "data": {"flags.json": "{\"new-pricing\": {\"state\": \"ENABLED\"}}"}}));
        let place = Place::new(Format::Json, vec!["new-pricing".into(), "state".into()], "", &Value::Null);
        let inside = Change::inside(&target, "/data/flags.json", place, Some(json!("DISABLED")));
        let mark = Mark { name: "web-abc".into(), uid: "r".into(), number: 3 };
        let pin = Pin { from: None, to: mark };
        for (change, wanted) in [
            (Change::set(&target, "/spec/replicas", json!(0)), "spec.replicas: 0"),
            (Change::remove(&target, "/spec/paused"), "spec.paused: (leave it out)"),
            (inside, r#"data["flags.json"]: new-pricing.state = "DISABLED" in it"#),
            (
                Change::set(&target, "/metadata/annotations/autoscaling.keda.sh~1paused", json!("true")),
                r#"metadata.annotations["autoscaling.keda.sh/paused"]: "true""#,
            ),
            (
                Change::revision(&target, "/spec/template", json!({"spec": {}}), pin),
                "spec.template: that of revision 3 (web-abc)",
            ),
        ] {
            assert_eq!(line(&HeldField::capture(&target, &change)), wanted);
        }
    }
}
