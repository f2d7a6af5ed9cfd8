//! `freeze`: nobody changes anything in the namespace, but for those who must.
//!
//! A ValidatingAdmissionPolicy of the chart does the refusing; it looks at namespaces that a mitigation holds and asks
//! for the annotation that is set here. Each freeze has an annotation of its own, so several freezes do not wait for
//! each other, and the namespace thaws when the last one is released, without a moment in between.

use super::{
    Change, Effect, Engine, Look, NAMESPACE, Part, Rule, Scene, Stop, TargetKind, VALIDATING_POLICY,
    VALIDATING_POLICY_BINDING, patch::pointer,
};
use crate::api::{ActionName, Freeze, TargetRef};
use crate::authority::{Authority, on, right};
use crate::fence::{Fence, Update};
use serde_json::{Value, json};

/// Prefix of the annotation that names a freeze. The chart's policy looks for it.
const FROZEN_BY: &str = "freeze.incident-operator.dev/";
/// Label of the chart's policy and of its binding.
const POLICY: &str = "incident-operator.dev/policy=freeze";
/// Longest name of a commander in a refusal.
const MAX_COMMANDER: usize = 128;

/// An instance, for what is generated from all actions.
pub(super) fn example() -> Freeze {
    Freeze {}
}

/// Who froze the namespace, as a refusal tells it.
fn frozen_by(scene: &Scene<'_>) -> String {
    let mitigation = scene.name;
    let Some(incident) = scene.incident else {
        return format!("mitigation {mitigation}, which belongs to no incident");
    };
    let commander = scene.commander.map_or_else(
        || "no commander named yet".to_owned(),
        |name| {
            let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_COMMANDER).collect();
            format!("commander {name}")
        },
    );
    format!("incident {incident} ({commander}; mitigation {mitigation})")
}

/// Why the policy of the chart does not refuse anything, if so.
fn policy_is_missing(scene: &Scene<'_>) -> Result<Option<String>, Stop> {
    let bindings = scene.list(VALIDATING_POLICY_BINDING, Some(POLICY))?;
    let policies = scene.list(VALIDATING_POLICY, Some(POLICY))?;
    let denies = bindings.iter().any(|binding| {
        let spec = binding.data.get("spec");
        let policy = spec.and_then(|spec| spec.get("policyName")).and_then(Value::as_str);
        let actions = spec.and_then(|spec| spec.get("validationActions")).and_then(Value::as_array);
        actions.into_iter().flatten().any(|action| action == "Deny")
            && policies.iter().any(|there| there.metadata.name.as_deref() == policy)
    });
    Ok((!denies).then(|| {
        "no ValidatingAdmissionPolicy refuses changes in frozen namespaces: install the chart with freeze.enabled=true"
            .to_owned()
    }))
}

impl Engine for Freeze {
    fn name(&self) -> ActionName {
        ActionName::Freeze
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[NAMESPACE]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[VALIDATING_POLICY, VALIDATING_POLICY_BINDING]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        if scene.id.name != scene.namespace {
            return Err(Stop::refuse(
                "OtherNamespace",
                format!(
                    "a freeze works on the namespace that the mitigation lies in ({}), not on {}: make it there",
                    scene.namespace, scene.id.name
                ),
            ));
        }
        if scene.namespace.starts_with("kube-") {
            return Err(Stop::refuse(
                "ProtectedNamespace",
                format!("what runs in {} keeps the cluster alive: it is not frozen", scene.namespace),
            ));
        }
        if let Some(words) = policy_is_missing(scene)? {
            return Err(Stop::refuse("PolicyMissing", words));
        }
        let path = pointer(&["metadata", "annotations", &format!("{FROZEN_BY}{}", scene.short_uid())]);
        Ok(vec![Part::change(scene.id, vec![Change::set(scene.target, path, json!(frozen_by(scene)))])])
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        Ok(match policy_is_missing(scene)? {
            None => Effect::Seen(format!(
                "the API server refuses changes in namespace {}, except those of nodes, of the cluster's controllers and of holders of the verb bypass",
                scene.namespace
            )),
            Some(seen) => {
                Effect::Awaited { what: "waiting for the policy that refuses changes".to_owned(), seen }
            }
        })
    }

    fn follows(&self, scene: &Scene<'_>) -> Option<Look> {
        self.watches_over(scene)
    }

    fn watches_over(&self, _scene: &Scene<'_>) -> Option<Look> {
        Some(Look::List { kind: VALIDATING_POLICY_BINDING, labels: Some(POLICY.to_owned()) })
    }

    fn summary(&self, target: &TargetRef, _parts: &[Part]) -> String {
        format!("refuse changes of all objects in namespace {}", target.name)
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = vec![
            "nodes, controllers in kube-system with autoscaling, this operator, and whoever holds the verb bypass on freezes.incident-operator.dev in the namespace go on; incidents, mitigations and timeline entries can be written".to_owned(),
            "a controller outside of kube-system that writes objects here is refused too, unless it is granted the verb bypass".to_owned(),
            "requests to running pods (exec, port-forward, logs) and evictions are not refused".to_owned(),
        ];
        let others = scene.target.metadata.annotations.iter().flatten();
        let others: Vec<&str> = others
            .filter(|(key, _)| key.strip_prefix(FROZEN_BY).is_some_and(|uid| uid != scene.short_uid()))
            .map(|(_, by)| by.as_str())
            .collect();
        if !others.is_empty() {
            warnings.push(format!("the namespace is frozen already, by {}", others.join("; by ")));
        }
        Ok(warnings)
    }

    fn release(&self) -> String {
        "lifts this freeze; the namespace stays frozen while another freeze of it is active".to_owned()
    }

    fn rules(&self) -> Vec<Rule> {
        // Bound in a namespace, this reaches that Namespace object alone.
        vec![Rule { groups: &[""], resources: &["namespaces"], verbs: &["patch"] }]
    }

    fn authority(&self) -> Authority {
        // Who may patch a Namespace may do far more than freeze it, and who freezes it need not.
        Authority {
            rights: vec![on("Namespace", "v1", right("freeze", "", "namespaces"))],
            ..Authority::default()
        }
    }

    fn fence(&self) -> Fence {
        Fence {
            updates: &[Update {
                resources: &["namespaces"],
                annotations: &["freeze.incident-operator.dev/"],
                fields: &[],
                labels: &[],
                any_label: false,
            }],
            makes: &[],
            deletes: &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::scene_tests::Stage;

    fn namespace(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": "n"}})
    }

    fn stage(name: &str, actions: &[&str]) -> Stage {
        let labels = json!({"incident-operator.dev/policy": "freeze"});
        let kind = |kind: &str, spec: Value| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": {"name": "op-freeze", "labels": labels}, "spec": spec})
        };
        Stage::new(namespace(name)).with(kind("ValidatingAdmissionPolicy", json!({}))).with(kind(
            "ValidatingAdmissionPolicyBinding",
            json!({"policyName": "op-freeze", "validationActions": actions}),
        ))
    }

    #[test]
    fn the_annotation_names_incident_commander_and_mitigation() {
        let mut stage = stage("shop", &["Deny"]);
        let value = |stage: &Stage| {
            let parts = stage.ask(|scene| Freeze {}.parts(scene)).unwrap();
            let change = parts[0].changes()[0].clone();
            assert_eq!(change.path, "/metadata/annotations/freeze.incident-operator.dev~101234567");
            assert_eq!(change.from, None);
            change.to.unwrap()
        };
        assert_eq!(value(&stage), "mitigation mitigation, which belongs to no incident");
        stage.incident = Some("checkout-errors");
        assert_eq!(value(&stage), "incident checkout-errors (no commander named yet; mitigation mitigation)");
        stage.commander = Some("alice\nbob");
        assert_eq!(value(&stage), "incident checkout-errors (commander alicebob; mitigation mitigation)");
    }

    #[test]
    fn another_namespace_and_those_of_the_cluster_itself_are_refused() {
        let refused = |stage: Stage| stage.ask(|scene| Freeze {}.parts(scene)).unwrap_err().reason;
        assert_eq!(refused(stage("other", &["Deny"])), "OtherNamespace");
    }

    #[test]
    fn without_a_policy_that_denies_nothing_is_claimed() {
        let bare = Stage::new(namespace("shop"));
        assert_eq!(bare.ask(|scene| Freeze {}.parts(scene)).unwrap_err().reason, "PolicyMissing");
        let audits = stage("shop", &["Audit"]);
        assert_eq!(audits.ask(|scene| Freeze {}.parts(scene)).unwrap_err().reason, "PolicyMissing");
        assert!(matches!(audits.ask(|scene| Freeze {}.effect(scene)), Ok(Effect::Awaited { .. })));
        let denies = stage("shop", &["Deny"]);
        assert!(matches!(denies.ask(|scene| Freeze {}.effect(scene)), Ok(Effect::Seen(_))));
    }
}
