//! `scale`: set the number of replicas.
//!
//! The operator needs `patch` on the workload itself and not only on its scale subresource, because the prior
//! number is kept on the workload in the same patch.

use super::{Change, DEPLOYMENT, Effect, Engine, Refusal, Rule, STATEFUL_SET, TargetKind, field};
use crate::api::{ActionName, Scale, TargetRef};
use kube::core::DynamicObject;
use serde_json::{Value, json};

const REPLICAS: &str = "/spec/replicas";

/// An instance, for what is generated from all actions.
pub(super) fn example() -> Scale {
    Scale { replicas: 0, restore_step_percent: None }
}

impl Engine for Scale {
    fn name(&self) -> ActionName {
        ActionName::Scale
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[DEPLOYMENT, STATEFUL_SET]
    }

    fn changes(&self, target: &DynamicObject) -> Result<Vec<Change>, Refusal> {
        if let Some(owner) =
            target.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))
        {
            return Err(Refusal::new(
                "TargetControlled",
                format!(
                    "its replicas are set by {} {}, which would put them back: mitigate that object instead",
                    owner.kind, owner.name
                ),
            ));
        }
        let deletes_volumes =
            field(target, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled").and_then(Value::as_str);
        let present = replicas(target);
        if deletes_volumes == Some("Delete") && i64::from(self.replicas) < present {
            return Err(Refusal::new(
                "WouldDeleteVolumes",
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled is Delete: scaling down deletes the data of the removed pods; set it to Retain first",
            ));
        }
        if self.restore_step_percent.is_some() {
            return Err(Refusal::new(
                "NotImplemented",
                "restoreStepPercent is not available in this version: leave it out, release then restores in one step",
            ));
        }
        Ok(vec![Change {
            path: REPLICAS.to_owned(),
            from: field(target, REPLICAS).cloned(),
            to: json!(self.replicas),
        }])
    }

    fn effect(&self, target: &DynamicObject) -> Effect {
        let wanted = i64::from(self.replicas);
        let number = |path| field(target, path).and_then(Value::as_i64);
        let observed = number("/status/observedGeneration").unwrap_or(0);
        let awaited = |seen: String| Effect::Awaited {
            what: match wanted {
                0 => "waiting until no pod is left".to_owned(),
                _ => format!("waiting until {wanted} pods are ready"),
            },
            seen,
        };
        if observed < target.metadata.generation.unwrap_or(0) {
            return awaited("the workload's controller has not seen the change yet".to_owned());
        }
        let running = number("/status/replicas").unwrap_or(0);
        // Deployments count terminating pods apart; StatefulSets count them in status.replicas.
        let terminating = number("/status/terminatingReplicas").unwrap_or(0);
        let ready = number("/status/readyReplicas").unwrap_or(0);
        if running > wanted {
            awaited(format!("{running} pods are there, {wanted} wanted"))
        } else if wanted == 0 && terminating > 0 {
            awaited(format!("{terminating} pods are still terminating"))
        } else if ready < wanted {
            awaited(format!("{ready} of {wanted} pods are ready"))
        } else if wanted == 0 {
            Effect::Seen("no pod is left".to_owned())
        } else {
            Effect::Seen(format!("{ready} of {wanted} pods are ready"))
        }
    }

    fn summary(&self, target: &TargetRef, changes: &[Change]) -> String {
        let from =
            changes.first().and_then(|c| c.from.as_ref()).map_or("the default".into(), Value::to_string);
        format!("scale {}/{} from {from} to {}", target.kind, target.name, self.replicas)
    }

    fn warnings(&self, target: &DynamicObject) -> Vec<String> {
        let mut warnings = Vec::new();
        if replicas(target) == i64::from(self.replicas) {
            warnings.push(format!("the number is {} already: nothing will change", self.replicas));
        }
        if i64::from(self.replicas) < replicas(target) {
            warnings
                .push("a PodDisruptionBudget does not slow this down: it binds evictions only".to_owned());
        }
        warnings
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule { groups: &["apps"], resources: &["deployments", "statefulsets"], verbs: &["patch"] }]
    }
}

/// The number of replicas the workload asks for; Kubernetes takes 1 when it is absent.
fn replicas(target: &DynamicObject) -> i64 {
    field(target, REPLICAS).and_then(Value::as_i64).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::patch::tests::object;

    fn deployment(body: Value) -> DynamicObject {
        let mut base = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "importer", "uid": "u", "generation": 2},
            "spec": {"replicas": 3}, "status": {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3}});
        json_patch::merge(&mut base, &body);
        object(base)
    }

    fn to(replicas: i32) -> Scale {
        Scale { replicas, restore_step_percent: None }
    }

    #[test]
    fn the_present_number_is_what_is_captured() {
        let changes = to(0).changes(&deployment(json!({}))).unwrap();
        assert_eq!(changes, [Change { path: REPLICAS.into(), from: Some(json!(3)), to: json!(0) }]);
    }

    #[test]
    fn a_workload_that_another_controller_sets_is_refused_and_the_controller_named() {
        let owned = deployment(json!({"metadata": {"ownerReferences": [
            {"apiVersion": "flagger.app/v1", "kind": "Canary", "name": "web", "uid": "c", "controller": true}]}}));
        let refusal = to(0).changes(&owned).unwrap_err();
        assert_eq!(refusal.reason, "TargetControlled");
        assert!(refusal.message.contains("Canary web"), "{}", refusal.message);
    }

    #[test]
    fn scaling_down_is_refused_where_it_would_delete_volumes_and_scaling_up_is_not() {
        let set =
            deployment(json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}}));
        assert_eq!(to(0).changes(&set).unwrap_err().reason, "WouldDeleteVolumes");
        assert!(to(5).changes(&set).is_ok());
    }

    #[test]
    fn zero_is_effective_only_when_the_last_pod_is_gone() {
        for (status, seen) in [
            (json!({"observedGeneration": 1, "replicas": 0}), false),
            (json!({"replicas": 1}), false),
            (json!({"replicas": 0, "readyReplicas": 0, "terminatingReplicas": 2}), false),
            (json!({"replicas": 0, "readyReplicas": 0, "terminatingReplicas": 0}), true),
            (json!({"replicas": null, "readyReplicas": null}), true),
        ] {
            let target = deployment(json!({"spec": {"replicas": 0}, "status": status}));
            assert_eq!(matches!(to(0).effect(&target), Effect::Seen(_)), seen, "{:?}", target.data);
        }
    }

    #[test]
    fn more_replicas_are_effective_only_when_they_are_ready() {
        let starting =
            deployment(json!({"spec": {"replicas": 5}, "status": {"replicas": 5, "readyReplicas": 4}}));
        let Effect::Awaited { what, seen } = to(5).effect(&starting) else { panic!("one pod is missing") };
        assert_eq!(what, "waiting until 5 pods are ready");
        assert_eq!(seen, "4 of 5 pods are ready");
    }
}
