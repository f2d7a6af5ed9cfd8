//! `scale`: set the number of replicas.
//!
//! Autoscalers first: a workload that KEDA scales is stopped through its ScaledObject and not touched itself, and a
//! HorizontalPodAutoscaler that would scale it again is held off, before the number is changed.
//!
//! The operator needs `patch` on the workload itself and not only on its scale subresource, because the prior
//! number is kept on the workload in the same patch. Besides Deployments and StatefulSets it works on what the
//! configuration lists, if that has a scale subresource.

mod autoscalers;
mod paths;
mod refusals;

use super::{
    API_SERVICE, CUSTOM_RESOURCE_DEFINITION, Change, DEPLOYMENT, Effect, Engine, HORIZONTAL_POD_AUTOSCALER,
    Look, MUTATING_WEBHOOKS, ObjectId, POD, Part, Rule, SCALED_OBJECT, SERVICE, STATEFUL_SET, Scene, Stop,
    TargetKind, Undo, VALIDATING_WEBHOOKS,
    field::{self, How, field},
    prior,
    record::{HeldField, Record},
    scalable,
    workload::{UNSEEN, has_condition},
};
use crate::api::{ActionName, Scale, TargetRef};
use crate::authority::{Authority, Right, on};
use crate::fence::{Fence, Update, fields};
use kube::core::DynamicObject;
use paths::Paths;
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

    fn listed_kinds(&self) -> Vec<TargetKind> {
        scalable::allowed().iter().map(|listed| listed.kind).collect()
    }

    fn touches(&self) -> &'static [TargetKind] {
        &[HORIZONTAL_POD_AUTOSCALER, SCALED_OBJECT]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[POD, SERVICE, VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS, API_SERVICE, CUSTOM_RESOURCE_DEFINITION]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        let paths = paths::paths(scene)?;
        refusals::check(self.replicas, &paths, scene)?;
        if let Some(scaled) = autoscalers::scaled_object(scene)? {
            return Ok(vec![autoscalers::pause(scaled, self.replicas)]);
        }
        let mut parts = Vec::new();
        if let Some(autoscaler) = autoscalers::horizontal(scene)? {
            parts.extend(autoscalers::hold_off(autoscaler, self.replicas));
        }
        let to = json!(self.replicas);
        let change = Change::set_whole(scene.target, &paths.wanted, to);
        parts.push(Part::change(scene.id, vec![change]));
        Ok(parts)
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        let target = scene.target;
        let wanted = i64::from(self.replicas);
        let what = match wanted {
            0 => "waiting until no pod is left".to_owned(),
            _ => format!("waiting until {wanted} pods are ready"),
        };
        let awaited = |seen: String| Ok(Effect::Awaited { what: what.clone(), seen });
        let observed = number(target, "/status/observedGeneration");
        // A controller of others need not tell which generation it has seen.
        let observed = observed.or_else(|| paths::is_built_in(scene).then_some(0));
        if observed.is_some_and(|observed| observed < target.metadata.generation.unwrap_or(0)) {
            return Ok(Effect::Unseen { what, seen: UNSEEN.to_owned() });
        }
        let Some(Counted { there, ready }) = counted(scene)? else {
            return Ok(Effect::Unclear {
                reason: "NotReported",
                message: format!("nothing tells how many pods of {} there are: look at them", scene.id),
            });
        };
        // Deployments count terminating pods apart; StatefulSets count them in status.replicas.
        let terminating = number(target, "/status/terminatingReplicas").unwrap_or(0);
        if there > wanted {
            awaited(format!("{there} pods are there, {wanted} wanted"))
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
        if let Some(look) = self.watches_over(scene) {
            return Some(look);
        }
        let selector = paths::paths(scene).ok().and_then(|paths| paths::selector(scene.target, &paths));
        selector.map(|labels| Look::List { kind: POD, labels: Some(labels) })
    }

    fn watches_over(&self, scene: &Scene<'_>) -> Option<Look> {
        // A workload that is stopped through its autoscaler is not held itself, so nobody tells of it otherwise.
        let held = scene.touched.is_empty() || scene.touched.contains(scene.id);
        (!held).then_some(Look::List { kind: scene.id.kind, labels: None })
    }

    fn undo(
        &self,
        scene: &Scene<'_>,
        id: &ObjectId,
        _object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        let Undo::Restore(mut values) = prior(record) else { return Ok(prior(record)) };
        let is_number = |held: &HeldField| held.how == How::Plain && held.path.starts_with("/spec/");
        let replicas = record.fields.iter().position(is_number);
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
        let ready = match counted(scene) {
            Ok(counted) => counted.map_or(0, |counted| counted.ready),
            Err(look @ Stop::Look(_)) => return Err(look),
            // The kind is not listed any more: each step takes its time.
            Err(Stop::Refused(_) | Stop::NotYet(..)) => 0,
        };
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
        let (own, others): (Vec<&Part>, Vec<&Part>) =
            parts.iter().partition(|part| part.id.kind.kind == target.kind && part.id.name == target.name);
        let Some(change) = own.iter().flat_map(|part| part.changes()).next() else {
            let by = others.first().map(|part| part.id.to_string()).unwrap_or_default();
            return format!("scale {}/{} to {} through {by}", target.kind, target.name, self.replicas);
        };
        let from = change.from.as_ref().map_or("the default".into(), Value::to_string);
        let first = others.first().map(|part| format!("hold off {}, then ", part.id)).unwrap_or_default();
        format!("{first}scale {}/{} from {from} to {}", target.kind, target.name, self.replicas)
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = Vec::new();
        let present = replicas(scene.target, &paths::paths(scene)?);
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

    fn authority(&self) -> Authority {
        let scale = |resource| Right { verb: "patch", group: "apps", resource, subresource: "scale" };
        let rights = vec![
            on("Deployment", "apps/v1", scale("deployments")),
            on("StatefulSet", "apps/v1", scale("statefulsets")),
        ];
        Authority { rights, ..Authority::default() }
    }

    fn fence(&self) -> Fence {
        // An autoscaler is told to leave the number alone. With one field of its behaviour the API server fills in
        // the others.
        Fence {
            updates: const {
                &[
                    fields(&["deployments.apps", "statefulsets.apps"], &["spec.replicas"]),
                    fields(
                        &["horizontalpodautoscalers.autoscaling"],
                        &["spec.minReplicas", "spec.maxReplicas", "spec.behavior"],
                    ),
                    Update {
                        resources: &["scaledobjects.keda.sh"],
                        annotations: &["autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas"],
                        fields: &[],
                        labels: &[],
                        any_label: false,
                    },
                ]
            },
            makes: &[],
            deletes: &[],
        }
    }
}

fn number(target: &DynamicObject, path: &str) -> Option<i64> {
    field(target, path).and_then(|value| value.as_i64())
}

/// The number of replicas the workload asks for; Kubernetes takes 1 when it is absent.
fn replicas(target: &DynamicObject, paths: &Paths) -> i64 {
    number(target, &paths.wanted).unwrap_or(1)
}

/// Pods of the target.
struct Counted {
    there: i64,
    ready: i64,
}

/// How many pods there are; `None` when nothing tells.
fn counted(scene: &Scene<'_>) -> Result<Option<Counted>, Stop> {
    let (target, paths) = (scene.target, paths::paths(scene)?);
    if let Some(ready) = &paths.ready {
        let count = |path| number(target, path).unwrap_or(0);
        return Ok(Some(Counted { there: count(&paths.there), ready: count(ready) }));
    }
    let told = number(target, &paths.there);
    let Some(selector) = paths::selector(target, &paths) else {
        return Ok(told.map(|told| Counted { there: told, ready: told }));
    };
    // What a controller tells of itself may be old; the pods are not.
    let pods = scene.list(POD, Some(&selector))?;
    let count = |pods: usize| i64::try_from(pods).unwrap_or(i64::MAX);
    let ready = count(pods.iter().filter(|pod| has_condition(pod, "Ready")).count());
    Ok(Some(Counted { there: count(pods.len()).max(told.unwrap_or(0)), ready }))
}

#[cfg(test)]
mod tests;
