//! `pauseRollout`: stop a rollout of a Deployment, StatefulSet or DaemonSet where it stands.
//!
//! No pod changes its version because of the template any more; scaling and the replacement of lost pods go on.

use super::{
    Change, DAEMON_SET, DEPLOYMENT, Effect, Engine, Part, Rule, STATEFUL_SET, Scene, Stop, TargetKind,
    workload,
};
use crate::api::{ActionName, PauseRollout, TargetRef};
use crate::authority::{Authority, workloads};
use crate::fence::{Fence, fields};
use serde_json::json;

const PAUSED: &str = "/spec/paused";
const PARTITION: &str = "/spec/updateStrategy/rollingUpdate/partition";
const STRATEGY: &str = "/spec/updateStrategy/type";
const ON_DELETE: &str = "OnDelete";
/// Above any ordinal of a pod: every pod is spared.
const EVERY_POD: i32 = i32::MAX;

impl Engine for PauseRollout {
    fn name(&self) -> ActionName {
        ActionName::PauseRollout
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[DEPLOYMENT, STATEFUL_SET, DAEMON_SET]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        let target = scene.target;
        workload::refuse_controlled(target, "its rollout", None)?;
        let on_delete = workload::text(target, STRATEGY).as_deref() == Some(ON_DELETE);
        let change = match scene.id.kind {
            DEPLOYMENT => Change::set(target, PAUSED, json!(true)),
            // A StatefulSet with OnDelete has no rollout that could be stopped: it stands already.
            STATEFUL_SET if !on_delete => Change::set_whole(target, PARTITION, json!(EVERY_POD)),
            // What rollingUpdate says may stay beside another type, and is there again afterwards.
            _ => Change::set(target, STRATEGY, json!(ON_DELETE)),
        };
        Ok(vec![Part::change(scene.id, vec![change])])
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        let target = scene.target;
        let number = |path: &str| workload::number(target, path);
        if workload::is_unseen(target) {
            return Ok(Effect::Unseen {
                what: "waiting until the workload's controller has seen the change".to_owned(),
                seen: workload::UNSEEN.to_owned(),
            });
        }
        let (updated, all) = match scene.id.kind {
            DAEMON_SET => ("/status/updatedNumberScheduled", "/status/desiredNumberScheduled"),
            _ => ("/status/updatedReplicas", "/status/replicas"),
        };
        Ok(Effect::Seen(format!(
            "the rollout stands: {} of {} pods are of the newest version",
            number(updated),
            number(all)
        )))
    }

    fn already(&self) -> &'static str {
        "AlreadyPaused"
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        let change = parts.iter().flat_map(Part::changes).next();
        let how = change.map(|change| {
            let to = change.to.as_ref().map(ToString::to_string).unwrap_or_default();
            format!(" ({}: {to})", change.path.trim_start_matches('/').replace('/', "."))
        });
        format!("stop the rollout of {}/{}{}", target.kind, target.name, how.unwrap_or_default())
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = vec![
            "scaling goes on, and pods that are lost are replaced".to_owned(),
            "what is changed in the template meanwhile rolls out with the release".to_owned(),
        ];
        match scene.id.kind {
            STATEFUL_SET => warnings.push(
                "a pod of the new version that is lost meanwhile comes back in the old version".to_owned(),
            ),
            DAEMON_SET => warnings.push(
                "a pod that is lost meanwhile, and one on a new node, comes in the new version".to_owned(),
            ),
            _ => warnings.push("a paused Deployment cannot be rolled back: roll back first".to_owned()),
        }
        Ok(warnings)
    }

    fn release(&self) -> String {
        "lets the rollout go on, unless it was stopped before or somebody changed that meanwhile".to_owned()
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule {
            groups: &["apps"],
            resources: &["deployments", "statefulsets", "daemonsets"],
            verbs: &["patch"],
        }]
    }

    fn authority(&self) -> Authority {
        Authority { rights: workloads(), ..Authority::default() }
    }

    fn fence(&self) -> Fence {
        Fence {
            updates: const {
                &[
                    fields(&["deployments.apps"], &["spec.paused"]),
                    fields(&["statefulsets.apps", "daemonsets.apps"], &["spec.updateStrategy"]),
                ]
            },
            makes: &[],
            deletes: &[],
        }
    }
}

#[cfg(test)]
mod tests;
