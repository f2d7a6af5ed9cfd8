//! `scale`: set the number of replicas.
//!
//! Autoscalers first: a workload that KEDA scales is stopped through its ScaledObject and not touched itself, and a
//! HorizontalPodAutoscaler that would scale it again is held off, before the number is changed.
//!
//! The operator needs `patch` on the workload itself and not only on its scale subresource, because the prior
//! number is kept on the workload in the same patch.

mod autoscalers;
mod refusals;

use super::{
    API_SERVICE, CUSTOM_RESOURCE_DEFINITION, Change, DEPLOYMENT, Effect, Engine, HORIZONTAL_POD_AUTOSCALER,
    Look, MUTATING_WEBHOOKS, ObjectId, Part, Rule, SCALED_OBJECT, SERVICE, STATEFUL_SET, Scene, Stop,
    TargetKind, Undo, VALIDATING_WEBHOOKS, field, prior, record::Record,
};
use crate::api::{ActionName, Scale, TargetRef};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::time::Duration;

const REPLICAS: &str = "/spec/replicas";
/// How long one step of a staged restore may take before the next one follows all the same.
const STEP_PATIENCE: Duration = Duration::from_secs(300);

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

    fn touches(&self) -> &'static [TargetKind] {
        &[HORIZONTAL_POD_AUTOSCALER, SCALED_OBJECT]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[SERVICE, VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS, API_SERVICE, CUSTOM_RESOURCE_DEFINITION]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        refusals::check(self.replicas, scene)?;
        if let Some(scaled) = autoscalers::scaled_object(scene)? {
            return Ok(vec![autoscalers::pause(scaled, self.replicas)]);
        }
        let mut parts = Vec::new();
        if let Some(autoscaler) = autoscalers::horizontal(scene)? {
            parts.extend(autoscalers::hold_off(autoscaler, self.replicas));
        }
        let change = Change::set(scene.target, REPLICAS, json!(self.replicas));
        parts.push(Part::change(scene.id, vec![change]));
        Ok(parts)
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        let target = scene.target;
        let wanted = i64::from(self.replicas);
        let number = |path| field(target, path).and_then(|v| v.as_i64());
        let observed = number("/status/observedGeneration").unwrap_or(0);
        let awaited = |seen: String| {
            Ok(Effect::Awaited {
                what: match wanted {
                    0 => "waiting until no pod is left".to_owned(),
                    _ => format!("waiting until {wanted} pods are ready"),
                },
                seen,
            })
        };
        if observed < target.metadata.generation.unwrap_or(0) {
            return awaited("the workload's controller has not seen the change yet".to_owned());
        }
        let running = number("/status/replicas").unwrap_or(0);
        // Deployments count terminating pods apart; StatefulSets count them in status.replicas.
        let terminating = number("/status/terminatingReplicas").unwrap_or(0);
        let ready = number("/status/readyReplicas").unwrap_or(0);
        if running > wanted && !autoscalers::may_exceed(wanted, scene)? {
            awaited(format!("{running} pods are there, {wanted} wanted"))
        } else if wanted == 0 && terminating > 0 {
            awaited(format!("{terminating} pods are still terminating"))
        } else if ready < wanted {
            awaited(format!("{ready} of {wanted} pods are ready"))
        } else if wanted == 0 {
            Ok(Effect::Seen("no pod is left".to_owned()))
        } else {
            Ok(Effect::Seen(format!("{ready} of {wanted} pods are ready")))
        }
    }

    fn follows(&self, scene: &Scene<'_>) -> Option<Look> {
        // A workload that is stopped through its autoscaler is not held itself, so nobody tells of it otherwise.
        let held = scene.touched.is_empty() || scene.touched.contains(scene.id);
        (!held).then_some(Look::List { kind: scene.id.kind, labels: None })
    }

    fn undo(
        &self,
        scene: &Scene<'_>,
        id: &ObjectId,
        object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        let Undo::Restore(mut values) = prior(record) else { return Ok(prior(record)) };
        let replicas = record.fields.iter().position(|held| held.path == REPLICAS);
        let (Some(index), true) = (replicas, id == scene.id) else { return Ok(Undo::Restore(values)) };
        // Absent means 1 where Kubernetes reads it; that is left as it was.
        let Some(back) = values[index].as_ref().and_then(Value::as_i64) else {
            return Ok(Undo::Restore(values));
        };
        let back = autoscalers::clamp(back, scene)?;
        values[index] = Some(json!(back));
        let Some(percent) = self.restore_step_percent else { return Ok(Undo::Restore(values)) };
        let now = record.fields[index].applied.as_ref().and_then(Value::as_i64).unwrap_or(0);
        let step = ((back * i64::from(percent) + 99) / 100).max(1);
        let ready = field(object, "/status/readyReplicas").and_then(|v| v.as_i64()).unwrap_or(0);
        if let Some(stepped) = record.stepped
            && ready < now
            && let Ok(until) = stepped.checked_add(STEP_PATIENCE)
            && until > scene.now
        {
            let what = format!(
                "the change is being undone in steps: {ready} of {now} pods are ready, {back} in the end"
            );
            return Ok(Undo::Wait { until, what });
        }
        if now + step >= back {
            return Ok(Undo::Restore(values));
        }
        values[index] = Some(json!(now + step));
        Ok(Undo::Step(values))
    }

    fn destroys(&self) -> bool {
        true
    }

    fn already(&self) -> &'static str {
        if self.replicas == 0 { "AlreadyZero" } else { "AlreadyAtValue" }
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        let change = parts.iter().flat_map(Part::changes).find(|change| change.path == REPLICAS);
        let Some(change) = change else {
            let by = parts.first().map(|part| part.id.to_string()).unwrap_or_default();
            return format!("scale {}/{} to {} through {by}", target.kind, target.name, self.replicas);
        };
        let from = change.from.as_ref().map_or("the default".into(), Value::to_string);
        let first = parts.iter().find(|part| !part.changes().iter().any(|c| c.path == REPLICAS));
        let first = first.map(|part| format!("hold off {}, then ", part.id)).unwrap_or_default();
        format!("{first}scale {}/{} from {from} to {}", target.kind, target.name, self.replicas)
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = Vec::new();
        let present = replicas(scene.target);
        if present == i64::from(self.replicas) {
            warnings.push(format!("the number is {} already: nothing will change", self.replicas));
        }
        if i64::from(self.replicas) < present {
            warnings
                .push("a PodDisruptionBudget does not slow this down: it binds evictions only".to_owned());
        }
        if let Some(autoscaler) = autoscalers::horizontal(scene)? {
            warnings.push(autoscalers::note(autoscaler, self.replicas));
        }
        Ok(warnings)
    }

    fn release(&self) -> String {
        match self.restore_step_percent {
            None => "puts the number back, within the bounds of the autoscaler, unless somebody changed it meanwhile".to_owned(),
            Some(percent) => format!("puts the number back in steps of {percent} %, each when the pods of the last are ready, unless somebody changed it meanwhile"),
        }
    }

    fn rules(&self) -> Vec<Rule> {
        vec![
            Rule { groups: &["apps"], resources: &["deployments", "statefulsets"], verbs: &["patch"] },
            Rule { groups: &["autoscaling"], resources: &["horizontalpodautoscalers"], verbs: &["patch"] },
            Rule { groups: &["keda.sh"], resources: &["scaledobjects"], verbs: &["patch"] },
        ]
    }
}

/// The number of replicas the workload asks for; Kubernetes takes 1 when it is absent.
fn replicas(target: &DynamicObject) -> i64 {
    field(target, REPLICAS).and_then(|v| v.as_i64()).unwrap_or(1)
}

#[cfg(test)]
mod tests;
