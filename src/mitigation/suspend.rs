//! `suspend`: suspend a CronJob or a Job, and if asked the running Jobs of a CronJob.
//!
//! A CronJob that is not suspended any more starts the latest run that it missed. With `missed: Skip` its controller
//! is told before the release that it has nothing to catch up on: `status.lastScheduleTime`, from which it counts, is
//! set to the present.

use super::{
    CRON_JOB, Change, Effect, Engine, JOB, Look, ObjectId, Part, Rule, Scene, Stop, TargetKind, Undo, field,
    prior,
    record::{HeldField, Record},
    workload,
};
use crate::api::{ActionName, MissedRuns, RunningJobs, Suspend, TargetRef};
use crate::authority::{Authority, extra, on, right};
use crate::fence::{Delete, Fence, Which, fields};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const SUSPEND: &str = "/spec/suspend";
const LAST: &str = "/status/lastScheduleTime";
/// What `kubectl create job --from` sets: somebody started that Job on purpose.
const BY_HAND: &str = "cronjob.kubernetes.io/instantiate";
/// Label of Jobs that Kueue starts and stops.
const QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// How far back a missed run may lie that is not worth another write.
const FRESH: Duration = Duration::from_secs(5);

impl Suspend {
    fn missed(&self) -> MissedRuns {
        self.missed.unwrap_or(MissedRuns::Skip)
    }

    fn running_jobs(&self) -> RunningJobs {
        self.running_jobs.unwrap_or(RunningJobs::Keep)
    }
}

/// The Jobs that the CronJob started and that have not ended.
fn running<'a>(scene: &Scene<'a>) -> Result<Vec<&'a DynamicObject>, Stop> {
    if scene.id.kind != CRON_JOB {
        return Ok(Vec::new());
    }
    Ok(started(scene)?.into_iter().filter(|job| job.metadata.deletion_timestamp.is_none()).collect())
}

/// The Jobs that the CronJob started and that have not ended, or are being deleted.
fn started<'a>(scene: &Scene<'a>) -> Result<Vec<&'a DynamicObject>, Stop> {
    let uid = scene.target.metadata.uid.as_deref();
    let runs = |job: &&DynamicObject| {
        workload::is_controlled_by(job, uid) && !is_ended(job) && workload::annotation(job, BY_HAND).is_none()
    };
    let mut jobs: Vec<_> = scene.list(JOB, None)?.iter().map(Arc::as_ref).filter(runs).collect();
    jobs.sort_by_key(|job| job.metadata.name.clone());
    Ok(jobs)
}

fn is_ended(job: &DynamicObject) -> bool {
    workload::has_condition(job, "Complete") || workload::has_condition(job, "Failed")
}

fn is_suspended(object: &DynamicObject) -> bool {
    field(object, SUSPEND).and_then(|value| value.as_bool()) == Some(true)
}

/// Whether another mitigation suspended it, which resumes it on its own release.
fn suspended_by_another(scene: &Scene<'_>) -> bool {
    let suspends = |held: &HeldField| held.path == SUSPEND && !held.is_unchanged();
    let others = Record::all(scene.target).filter(|r| r.uid != scene.uid && scene.holders.contains(&r.uid));
    others.flat_map(|record| record.fields).any(|held| suspends(&held))
}

fn names(jobs: &[&DynamicObject]) -> String {
    workload::names(jobs.iter().filter_map(|job| job.metadata.name.as_deref()))
}

/// Whether the pods of a suspended Job are gone.
fn at_rest(job: &DynamicObject) -> bool {
    is_ended(job)
        || workload::has_condition(job, "Suspended")
            && workload::number(job, "/status/active") == 0
            && workload::number(job, "/status/terminating") == 0
}

impl Engine for Suspend {
    fn name(&self) -> ActionName {
        ActionName::Suspend
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[CRON_JOB, JOB]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        let target = scene.target;
        workload::refuse_controlled(target, "spec.suspend", Some(CRON_JOB.kind))?;
        if scene.id.kind == JOB {
            if self.missed.is_some() || self.running_jobs.is_some() {
                return Err(Stop::refuse(
                    "OnlyForCronJobs",
                    "missed and runningJobs say what happens to the runs of a CronJob: leave them out for a Job",
                ));
            }
            if is_ended(target) {
                return Err(Stop::refuse("JobEnded", "the Job has ended: there is nothing to suspend"));
            }
        }
        // The CronJob first: no further Job starts while the running ones are seen to.
        let mut parts = vec![Part::change(scene.id, vec![Change::set(target, SUSPEND, json!(true))])];
        if self.running_jobs() == RunningJobs::Suspend {
            parts.extend(running(scene)?.into_iter().map(|job| {
                Part::change(&ObjectId::of(JOB, job), vec![Change::set(job, SUSPEND, json!(true))])
            }));
        }
        Ok(parts)
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        if scene.id.kind == JOB {
            return Ok(match at_rest(scene.target) {
                true => Effect::Seen("the Job is suspended and has no pods".to_owned()),
                false => Effect::Awaited {
                    what: "waiting until the pods of the Job are gone".to_owned(),
                    seen: format!("{} pods are active", workload::number(scene.target, "/status/active")),
                },
            });
        }
        let none = "no further Job starts";
        let running = running(scene)?;
        match self.running_jobs() {
            RunningJobs::Keep if running.is_empty() => Ok(Effect::Seen(none.to_owned())),
            RunningJobs::Keep => {
                Ok(Effect::Seen(format!("{none}; already running, and left alone: {}", names(&running))))
            }
            RunningJobs::Delete => Ok(match running.first() {
                Some(job) => Effect::Delete {
                    id: ObjectId::of(JOB, job),
                    uid: job.metadata.uid.clone().unwrap_or_default(),
                },
                // One that is being deleted stays until its pods are gone.
                None => match started(scene)?.as_slice() {
                    [] => Effect::Seen(format!("{none}, and none runs")),
                    going => Effect::Awaited {
                        what: "waiting until the running Jobs and their pods are gone".to_owned(),
                        seen: format!("these are still being deleted: {}", names(going)),
                    },
                },
            }),
            RunningJobs::Suspend => {
                let (held, late): (Vec<&DynamicObject>, Vec<&DynamicObject>) =
                    running.into_iter().partition(|job| is_suspended(job));
                if !late.is_empty() {
                    return Ok(Effect::Unclear {
                        reason: "JobStarted",
                        message: format!(
                            "{none}, but these started while the CronJob was being suspended: {}; suspend each with a mitigation of its own",
                            names(&late)
                        ),
                    });
                }
                let busy: Vec<_> = held.iter().copied().filter(|job| !at_rest(job)).collect();
                if busy.is_empty() {
                    return Ok(Effect::Seen(format!("{none}; {} Jobs are suspended", held.len())));
                }
                Ok(Effect::Awaited {
                    what: "waiting until the pods of the running Jobs are gone".to_owned(),
                    seen: format!("pods of these Jobs are left: {}", names(&busy)),
                })
            }
        }
    }

    fn follows(&self, scene: &Scene<'_>) -> Option<Look> {
        (scene.id.kind == CRON_JOB).then_some(Look::List { kind: JOB, labels: None })
    }

    fn undo(
        &self,
        scene: &Scene<'_>,
        id: &ObjectId,
        object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        if id.kind != CRON_JOB || self.missed() == MissedRuns::Run {
            return Ok(prior(record));
        }
        let last = workload::text(object, LAST).and_then(|text| text.parse::<Timestamp>().ok());
        let recent = scene.now.checked_sub(FRESH).unwrap_or(scene.now);
        if last.is_some_and(|last| last >= recent) {
            return Ok(prior(record));
        }
        let now = Timestamp::from_second(scene.now.as_second()).unwrap_or(scene.now);
        Ok(Undo::Status(caught_up(object, now)))
    }

    fn already(&self) -> &'static str {
        "AlreadySuspended"
    }

    /// The pods of running Jobs. A CronJob alone has none.
    fn destroys(&self) -> bool {
        self.running_jobs() != RunningJobs::Keep
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        let jobs: Vec<&str> = parts.iter().skip(1).map(|part| part.id.name.as_str()).collect();
        let more = match (self.running_jobs(), jobs.is_empty()) {
            (RunningJobs::Keep, _) | (RunningJobs::Suspend, true) => String::new(),
            (RunningJobs::Suspend, false) => {
                format!(", and its running Jobs {}", workload::names(jobs.into_iter()))
            }
            (RunningJobs::Delete, _) => ", and delete its running Jobs".to_owned(),
        };
        format!("suspend {}/{}{more}", target.kind, target.name)
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = Vec::new();
        if scene.id.kind == JOB {
            warnings.push("its pods are deleted, and start anew on release".to_owned());
            if workload::label(scene.target, QUEUE).is_some() {
                warnings.push("Kueue suspends and resumes this Job itself, and may resume it".to_owned());
            }
            return Ok(warnings);
        }
        // By whom it is held is told anyway.
        if is_suspended(scene.target) && !suspended_by_another(scene) {
            warnings.push("it is suspended already: it stays so after the release".to_owned());
        }
        let running = running(scene)?;
        if !running.is_empty() {
            let what = match self.running_jobs() {
                RunningJobs::Keep => "go on",
                RunningJobs::Suspend => "lose their pods, which start anew on release",
                RunningJobs::Delete => "are deleted with their pods and do not come back",
            };
            warnings.push(format!("these Jobs run, and {what}: {}", names(&running)));
        }
        Ok(warnings)
    }

    fn release(&self) -> String {
        let missed = match self.missed() {
            MissedRuns::Skip => "runs that were missed are left out",
            MissedRuns::Run => "the latest run that was missed starts at once",
        };
        format!("lets it go on, unless it was suspended before; {missed}")
    }

    fn rules(&self) -> Vec<Rule> {
        vec![
            Rule { groups: &["batch"], resources: &["cronjobs", "jobs"], verbs: &["patch"] },
            // missed: Skip.
            Rule { groups: &["batch"], resources: &["cronjobs/status"], verbs: &["patch"] },
            // runningJobs: Delete.
            Rule { groups: &["batch"], resources: &["jobs"], verbs: &["delete"] },
        ]
    }

    fn authority(&self) -> Authority {
        Authority {
            rights: vec![
                on("CronJob", "batch/v1", right("patch", "batch", "cronjobs")),
                on("Job", "batch/v1", right("patch", "batch", "jobs")),
            ],
            extras: vec![
                extra("runningJobs", "Keep", "Suspend", right("patch", "batch", "jobs")),
                extra("runningJobs", "Keep", "Delete", right("delete", "batch", "jobs")),
            ],
            ..Authority::default()
        }
    }

    fn fence(&self) -> Fence {
        Fence {
            updates: const {
                &[
                    fields(&["cronjobs.batch", "jobs.batch"], &["spec.suspend"]),
                    // So that a run that was missed does not start.
                    fields(&["cronjobs.batch/status"], &["status.lastScheduleTime"]),
                ]
            },
            makes: &[],
            deletes: &[Delete { resource: "jobs.batch", which: Which::OwnedBy("CronJob") }],
        }
    }
}

/// Tells the controller of a CronJob, by its status, that there is nothing to catch up on.
fn caught_up(object: &DynamicObject, now: Timestamp) -> Value {
    let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": object.metadata.uid})];
    match field(object, LAST) {
        Some(last) => patch.push(json!({"op": "test", "path": LAST, "value": last})),
        None => patch.push(
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": object.metadata.resource_version}),
        ),
    }
    if field(object, "/status").is_none() {
        patch.push(json!({"op": "add", "path": "/status", "value": {}}));
    }
    patch.push(json!({"op": "add", "path": LAST, "value": now.to_string()}));
    Value::Array(patch)
}

#[cfg(test)]
mod tests;
