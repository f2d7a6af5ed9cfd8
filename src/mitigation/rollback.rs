//! `rollback`: go back to an earlier revision of a Deployment, StatefulSet or DaemonSet.
//!
//! Where to is decided once, before the change, and kept with it by uid: revisions are renumbered when they come back,
//! so a name like "the previous one" means another one afterwards. Nothing but the template is written; the template
//! is always read from the revision itself, never from a status or an annotation.
//!
//! Unlike `kubectl rollout undo` this leaves the annotations of the workload alone, and of the revisions before the
//! present one it skips those that somebody went back from: they are newer than the present one by their creation.

mod effect;
mod refusals;

use super::{
    CONFIG_MAP, CONTROLLER_REVISION, Change, DAEMON_SET, DEPLOYMENT, Effect, Engine, Look, ObjectId,
    PERSISTENT_VOLUME_CLAIM, POD, Part, REPLICA_SET, Refusal, Rule, SECRET, SERVICE_ACCOUNT, STATEFUL_SET,
    Scene, Stop, TargetKind, Undo,
    field::{self, How},
    ownership,
    record::{HeldField, Record},
    revisions::{self, Mark, Pin, Revision, TEMPLATE},
    workload,
};
use crate::api::{ActionName, Rollback, RollbackTo, TargetRef};
use crate::authority::{Authority, extra, right, workloads};
use crate::fence::{Delete, Fence, Which, template};
use kube::core::DynamicObject;
use serde_json::Value;
use std::time::Duration;

/// Annotation of `kubectl apply`, which works out from it what to remove.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A template that was written so lately may have a revision that is soon told of. Afterwards it is rolled back without
/// one: its controller may be down, and the bad version is not to begin when it is back.
const LATELY: Duration = Duration::from_secs(30);
/// How long until it is looked at again meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where a rollback comes from and goes to.
struct Way {
    from: Option<Revision>,
    to: Revision,
}

impl Way {
    fn pin(&self) -> Pin {
        Pin { from: self.from.as_ref().map(|from| from.mark.clone()), to: self.to.mark.clone() }
    }
}

impl Rollback {
    /// What is asked for, where it may be told from what else is stated.
    fn goal(&self) -> Result<RollbackTo, Stop> {
        let goal = match (self.to, self.revision, &self.image) {
            (Some(to), ..) => to,
            (None, Some(_), _) => RollbackTo::Revision,
            (None, None, Some(_)) => RollbackTo::Image,
            (None, None, None) => RollbackTo::Previous,
        };
        let fits = match goal {
            RollbackTo::Previous => self.revision.is_none() && self.image.is_none(),
            RollbackTo::Revision => self.revision.is_some() && self.image.is_none(),
            RollbackTo::Image => self.image.is_some() && self.revision.is_none(),
        };
        if fits {
            return Ok(goal);
        }
        Err(Stop::refuse(
            "GoalUnclear",
            "state one goal: to: Previous alone, to: Revision with revision, or to: Image with image",
        ))
    }

    /// Where from and where to.
    fn way(&self, scene: &Scene<'_>) -> Result<Way, Stop> {
        let goal = self.goal()?;
        let all = revisions::all(scene)?;
        let present = revisions::present(scene.target);
        let behind = revisions::may_lack_the_present(scene, &all);
        let (same, others): (Vec<Revision>, Vec<Revision>) =
            all.into_iter().partition(|revision| revision.template == present);
        let from = same.into_iter().next();
        if from.is_none() && behind && was_written_lately(scene) {
            // Without it nobody could go forward again, and "previous" could be one too early.
            let message = "its template was written just now, and the revision of it is not to be seen yet; the rollback waits for it, at most 30 s after that write";
            return Err(Stop::NotYet(Refusal::new("RevisionNotSeen", message), LOOK_AGAIN));
        }
        let known = || match others.is_empty() {
            true => "there is no other".to_owned(),
            false => format!("there are: {}", told(&others)),
        };
        let to = match goal {
            RollbackTo::Previous => {
                // One that was made later has a lower number only because somebody went back from it.
                let after = |r: &&Revision| {
                    from.as_ref().is_some_and(|from| r.made > from.made && from.made.is_some())
                };
                let to = others.iter().find(|revision| !after(revision));
                to.ok_or_else(|| match others.is_empty() {
                    true => refusals::no_other(scene.target),
                    false => Stop::refuse(
                        "NoOtherRevision",
                        format!(
                            "the other revisions are newer than the present one, so it was gone back from them already; if one is meant all the same, name it with to: Revision ({})",
                            known()
                        ),
                    ),
                })?
            }
            RollbackTo::Revision => {
                let wanted = self.revision.unwrap_or_default();
                if from.as_ref().is_some_and(|from| from.mark.number == wanted) {
                    return Err(already(&format!("revision {wanted}")));
                }
                others.iter().find(|revision| revision.mark.number == wanted).ok_or_else(|| {
                    Stop::refuse("RevisionNotFound", format!("it has no revision {wanted}; {}", known()))
                })?
            }
            RollbackTo::Image => {
                let wanted = self.image.as_deref().unwrap_or_default();
                if revisions::images(&present).contains(&wanted) {
                    return Err(already(&format!("image {wanted}")));
                }
                others.iter().find(|revision| revision.images().contains(&wanted)).ok_or_else(|| {
                    Stop::refuse("ImageNotFound", format!("no revision of it runs {wanted}; {}", known()))
                })?
            }
        };
        Ok(Way { to: to.clone(), from })
    }
}

fn was_written_lately(scene: &Scene<'_>) -> bool {
    let written = ownership::written(scene.target, TEMPLATE);
    // The clocks of the API server and of the operator may differ either way.
    written.is_some_and(|written| scene.now.duration_since(written).unsigned_abs() <= LATELY)
}

fn already(what: &str) -> Stop {
    Stop::refuse(
        "SameRevision",
        format!("it runs {what} already: name another one, or look for another cause"),
    )
}

fn told(revisions: &[Revision]) -> String {
    let all: Vec<String> =
        revisions.iter().map(|r| format!("{} with {}", r.mark.number, r.images().join(" and "))).collect();
    workload::names(all.iter().map(String::as_str))
}

/// The field that a rollback holds, and where it came from.
fn held(record: &Record) -> Option<(&HeldField, &Pin)> {
    record.fields.iter().find_map(|held| match &held.how {
        How::Revision(pin) => Some((held, pin.as_ref())),
        How::Plain | How::Inside(_) | How::Digest | How::Subset | How::Member(_) | How::Shared => None,
    })
}

/// The values of all fields of a record: the template for the one, the kept ones for the others.
fn values(
    record: &Record,
    template: &Value,
    other: impl Fn(&HeldField) -> Option<Value>,
) -> Vec<Option<Value>> {
    let value = |held: &HeldField| match &held.how {
        How::Revision(_) => Some(template.clone()),
        How::Plain | How::Inside(_) | How::Digest | How::Subset | How::Member(_) | How::Shared => other(held),
    };
    record.fields.iter().map(value).collect()
}

/// The pinned revision, as long as it exists and says the same. One whose uid was not known is told by its hash.
fn pinned(scene: &Scene<'_>, mark: Option<&Mark>, hash: Option<&Value>) -> Result<Option<Revision>, Stop> {
    let all = revisions::all(scene)?;
    let fits = |r: &Revision| {
        mark.is_none_or(|mark| mark.uid == r.mark.uid) && Some(&field::digest(&r.template)) == hash
    };
    Ok(all.into_iter().find(fits))
}

impl Engine for Rollback {
    fn name(&self) -> ActionName {
        ActionName::Rollback
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[DEPLOYMENT, STATEFUL_SET, DAEMON_SET]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[REPLICA_SET, CONTROLLER_REVISION, POD, CONFIG_MAP, SERVICE_ACCOUNT, PERSISTENT_VOLUME_CLAIM]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        refusals::check(scene)?;
        let way = self.way(scene)?;
        refusals::needs(scene, &way.to)?;
        let pin = way.pin();
        let change = Change::revision(scene.target, TEMPLATE, way.to.template, pin);
        Ok(vec![Part::change(scene.id, vec![change])])
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        effect::seen(scene, self.allow_pod_deletion == Some(true))
    }

    fn follows(&self, scene: &Scene<'_>) -> Option<Look> {
        // The others say in their status all there is to know.
        (scene.id.kind == STATEFUL_SET)
            .then(|| Look::List { kind: POD, labels: Some(workload::selector(scene.target)) })
    }

    fn undo(
        &self,
        scene: &Scene<'_>,
        _id: &ObjectId,
        _object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        let Some((held, pin)) = held(record) else {
            return Ok(Undo::Leave("which revision it came from was not kept".to_owned()));
        };
        let Some(before) = pinned(scene, pin.from.as_ref(), held.prior.as_ref())? else {
            let name = pin.from.as_ref().map_or("the revision before".to_owned(), Mark::to_string);
            return Ok(Undo::Leave(format!(
                "{name} is not there any more, or says something else: deploy the wanted version instead"
            )));
        };
        Ok(Undo::Restore(values(record, &before.template, |held| held.prior.clone())))
    }

    fn again(&self, scene: &Scene<'_>, record: &Record) -> Result<Vec<Option<Value>>, Stop> {
        let gone = |name: String| {
            Stop::refuse(
                "RevisionGone",
                format!("{name}, which it was rolled back to, is not there any more"),
            )
        };
        let Some((held, pin)) = held(record) else { return Err(gone("the revision".to_owned())) };
        let Some(wanted) = pinned(scene, Some(&pin.to), held.applied.as_ref())? else {
            return Err(gone(pin.to.to_string()));
        };
        Ok(values(record, &wanted.template, |held| held.applied.clone()))
    }

    /// A machine that brings the bad template again is taken back; one that brings another template brings the fix.
    fn gives_way(&self, object: &DynamicObject, record: &Record) -> bool {
        held(record).is_some_and(|(held, _)| !held.is_in_place(object) && !held.is_back(object))
    }

    /// The pods of the bad version, with what they logged.
    fn destroys(&self) -> bool {
        true
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        let change = parts.iter().flat_map(Part::changes).find(|change| change.path == TEMPLATE);
        let Some(change) = change else { return format!("roll back {}/{}", target.kind, target.name) };
        let images = change.raw.as_ref().map(revisions::images).unwrap_or_default().join(", ");
        let pin = match &change.how {
            How::Revision(pin) => format!(" {pin}"),
            How::Plain | How::Inside(_) | How::Digest | How::Subset | How::Member(_) | How::Shared => {
                String::new()
            }
        };
        format!("roll back {}/{}{pin}, which runs {images}", target.kind, target.name)
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = Vec::new();
        let way = self.way(scene)?;
        let mut unchecked = Vec::new();
        for secret in refusals::secrets(&way.to.template) {
            if scene.exists(&ObjectId::new(SECRET, &secret))?.is_none() {
                unchecked.push(secret);
            }
        }
        if !unchecked.is_empty() {
            warnings.push(format!(
                "it names Secrets ({}): whether they still exist is not checked, because the operator may not get them (the chart's value secretNames.enabled)",
                workload::names(unchecked.iter().map(String::as_str))
            ));
        }
        let pulls = refusals::pull_secrets(&way.to.template);
        if !pulls.is_empty() {
            warnings.push(format!(
                "it names Secrets that images are pulled with ({}): whether they still exist is not checked; a node that has the image already needs none",
                workload::names(pulls.iter().map(String::as_str))
            ));
        }
        if workload::annotation(scene.target, LAST_APPLIED).is_some() {
            warnings.push(
                "the workload is kept by kubectl apply, which does not know of the rollback: the next apply may leave parts of the earlier template in place; apply the earlier manifest as soon as possible"
                    .to_owned(),
            );
        }
        warnings.extend(effect::held_up(scene));
        warnings.push(
            "what the bad version did to data, such as a migration of a schema, is not undone".to_owned(),
        );
        Ok(warnings)
    }

    fn release(&self) -> String {
        "goes forward again to the revision it came from, if that still exists and nobody changed the template meanwhile"
            .to_owned()
    }

    fn rules(&self) -> Vec<Rule> {
        vec![
            Rule {
                groups: &["apps"],
                resources: &["deployments", "statefulsets", "daemonsets"],
                verbs: &["patch"],
            },
            // Pods of a broken StatefulSet, with allowPodDeletion.
            Rule { groups: &[""], resources: &["pods"], verbs: &["delete"] },
        ]
    }

    fn authority(&self) -> Authority {
        Authority {
            rights: workloads(),
            extras: vec![extra("allowPodDeletion", false, true, right("delete", "", "pods"))],
            ..Authority::default()
        }
    }

    fn fence(&self) -> Fence {
        // The whole template: which one it is cannot be said in a policy. That is why each action has a role.
        Fence {
            updates: const { &[template(&["spec.template"])] },
            makes: &[],
            deletes: &[Delete { resource: "pods", which: Which::OwnedBy("StatefulSet") }],
        }
    }
}

#[cfg(test)]
mod tests;
