//! One life of a mitigation, as people and as a raw loop live it: made, in force, released, gone.

use crate::rig::{Rig, kinds::*, observer::Observer};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// What lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The floor: create, see it on a watch, write its status, patch so many targets, see them on a watch.
    Floor(usize),
    /// A mitigation that stands alone, without evidence.
    Mitigation,
    /// The same, released as soon as its status says that it is applied.
    Taken,
    /// A mitigation with evidence as it is by default.
    WithEvidence,
    /// An incident with so many inline mitigations, without evidence.
    Incident(usize),
}

impl Life {
    /// Targets that it needs.
    pub fn targets(self) -> usize {
        match self {
            Life::Floor(count) | Life::Incident(count) => count,
            Life::Mitigation | Life::Taken | Life::WithEvidence => 1,
        }
    }
}

/// How long one took, from before the POST.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The answer to the POST.
    pub posted: Duration,
    /// The change seen on the last target.
    pub visible: Duration,
    /// The status says that it is applied; for a floor, the same as `visible`.
    pub applied: Duration,
    /// The status says that it works.
    pub effective: Duration,
}

/// Where lives are lived.
pub struct World {
    targets: Api<DynamicObject>,
    mitigations: Api<DynamicObject>,
    incidents: Api<DynamicObject>,
    raw: Api<DynamicObject>,
    see_targets: Observer,
    see_mitigations: Observer,
    see_raw: Observer,
    see_incidents: Observer,
    uids: HashMap<String, String>,
    /// What a floor writes as status: what the operator wrote, to be of the same size.
    status: Value,
    manager: PatchParams,
}

impl World {
    /// Makes the kinds of the floors, and so many targets named `t-0`, `t-1`, …
    pub async fn make(rig: &Rig, targets: usize) -> anyhow::Result<World> {
        make_raw_kinds(&rig.admin).await?;
        let names: Vec<String> = (0..targets).map(target).collect();
        make_deployments(rig, &names).await?;
        let all = Api::<Deployment>::namespaced(rig.admin.clone(), crate::rig::NAMESPACE);
        let all = all.list_metadata(&Default::default()).await?;
        let uids = all.items.into_iter().filter_map(|o| o.metadata.name.zip(o.metadata.uid)).collect();
        let (targets, mitigations) = (deployments(&rig.admin), api(&rig.admin, OURS, "Mitigation"));
        let (incidents, raw) = (api(&rig.admin, OURS, "Incident"), api(&rig.admin, RAW, "Mitigation"));
        let mut world = World {
            see_targets: Observer::of(targets.clone()).await?,
            see_mitigations: Observer::of(mitigations.clone()).await?,
            see_raw: Observer::of(raw.clone()).await?,
            see_incidents: Observer::of(incidents.clone()).await?,
            targets,
            mitigations,
            incidents,
            raw,
            uids,
            status: Value::Null,
            manager: PatchParams { field_manager: Some("bench".to_owned()), ..PatchParams::default() },
        };
        world.status = world.usual_status().await?;
        Ok(world)
    }

    async fn usual_status(&self) -> anyhow::Result<Value> {
        self.create(&self.mitigations, mitigation(OURS, "usual", &target(0), Some("None"))).await?;
        let object = self.see_mitigations.is("usual", |o| says(o, "Effective")).await?;
        self.release(Life::Mitigation, "usual", &[target(0)]).await?;
        Ok(object["status"].clone())
    }

    async fn create(&self, api: &Api<DynamicObject>, value: Value) -> anyhow::Result<()> {
        api.create(&PostParams::default(), &object(value)?).await?;
        Ok(())
    }

    /// Lives until it works.
    pub async fn begin(&self, life: Life, name: &str, targets: &[String]) -> anyhow::Result<Times> {
        let start = Instant::now();
        match life {
            Life::Floor(_) => {
                self.create(&self.raw, mitigation(RAW, name, &targets[0], Some("None"))).await?;
                let posted = start.elapsed();
                self.see_raw.when(name, start, |_| true).await?;
                self.floor_status(name).await?;
                futures::future::try_join_all(targets.iter().map(|target| self.floor_take(target))).await?;
                let visible = self.all_zero(targets, start).await?;
                Ok(Times { posted, visible, applied: visible, effective: visible })
            }
            Life::Mitigation | Life::Taken | Life::WithEvidence => {
                let evidence = (life != Life::WithEvidence).then_some("None");
                self.create(&self.mitigations, mitigation(OURS, name, &targets[0], evidence)).await?;
                let posted = start.elapsed();
                let visible = self.all_zero(targets, start).await?;
                let applied = self.see_mitigations.when(name, start, |o| says(o, "Applied")).await? - start;
                if life == Life::Taken {
                    return Ok(Times { posted, visible, applied, effective: applied });
                }
                let effective =
                    self.see_mitigations.when(name, start, |o| says(o, "Effective")).await? - start;
                Ok(Times { posted, visible, applied, effective })
            }
            Life::Incident(count) => {
                self.create(&self.incidents, incident(OURS, name, targets)).await?;
                let posted = start.elapsed();
                let visible = self.all_zero(targets, start).await?;
                let (mut applied, mut effective) = (start, start);
                for i in 0..count {
                    let child = format!("{name}-m{i}");
                    let seen = &self.see_mitigations;
                    applied = applied.max(seen.when(&child, start, |o| says(o, "Applied")).await?);
                    effective = effective.max(seen.when(&child, start, |o| says(o, "Effective")).await?);
                }
                Ok(Times { posted, visible, applied: applied - start, effective: effective - start })
            }
        }
    }

    /// What a floor writes to its own object.
    pub async fn floor_status(&self, name: &str) -> anyhow::Result<()> {
        let status = Patch::Merge(json!({"status": self.status}));
        self.raw.patch_status(name, &self.manager, &status).await?;
        Ok(())
    }

    /// What a floor does to a target.
    pub async fn floor_take(&self, target: &str) -> anyhow::Result<()> {
        let uid = self.uids.get(target).map(String::as_str).unwrap_or_default();
        self.targets.patch(target, &self.manager, &take(uid)?).await?;
        Ok(())
    }

    /// How a floor undoes it.
    pub async fn floor_restore(&self, target: &str) -> anyhow::Result<()> {
        self.targets.patch(target, &self.manager, &restore()?).await?;
        Ok(())
    }

    /// When a target was first seen at zero, not before `since`.
    pub async fn zero_since(&self, target: &str, since: Instant) -> anyhow::Result<Instant> {
        self.see_targets.when(target, since, is_zero).await
    }

    async fn all_zero(&self, targets: &[String], start: Instant) -> anyhow::Result<Duration> {
        let mut last = start;
        for target in targets {
            last = last.max(self.zero_since(target, start).await?);
        }
        Ok(last - start)
    }

    /// Lives to the end: released and gone, the targets as they were.
    pub async fn release(&self, life: Life, name: &str, targets: &[String]) -> anyhow::Result<()> {
        match life {
            Life::Floor(_) => {
                futures::future::try_join_all(targets.iter().map(|target| self.floor_restore(target)))
                    .await?;
                self.raw.delete(name, &Default::default()).await?;
                self.see_raw.gone(name).await?;
                self.see_raw.forget(name);
            }
            Life::Mitigation | Life::Taken | Life::WithEvidence => {
                self.mitigations.delete(name, &Default::default()).await?;
                self.see_mitigations.gone(name).await?;
                self.see_mitigations.forget(name);
            }
            Life::Incident(count) => {
                self.incidents.delete(name, &Default::default()).await?;
                for i in 0..count {
                    let child = format!("{name}-m{i}");
                    self.see_mitigations.gone(&child).await?;
                    self.see_mitigations.forget(&child);
                }
                self.see_incidents.gone(name).await?;
                self.see_incidents.forget(name);
            }
        }
        for target in targets {
            self.see_targets.is(target, is_whole).await?;
            self.see_targets.forget(target);
        }
        Ok(())
    }
}

/// Name of a target.
pub fn target(i: usize) -> String {
    format!("t-{i}")
}
