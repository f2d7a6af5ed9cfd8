//! P8: what an entry of the timeline costs when the timeline is long.
//!
//! One incident for each length, and their appends and the floors in turn: whatever else happens on the machine meets all
//! alike.

use crate::{
    report::{Goal, Report, Row},
    rig::{
        NAMESPACE, Rig,
        audit::Request,
        kinds::*,
        observer::Observer,
        samples::{Samples, Spread},
    },
};
use futures::TryStreamExt as _;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Appends that are measured at each length: as many as there are between two moves of older ones to a ConfigMap, so that
/// each has its share of that.
const APPENDS: usize = 100;

fn name_of(length: usize) -> String {
    format!("long-{length}")
}

fn entry(incident: &str, name: &str) -> Value {
    json!({"apiVersion": format!("{OURS}/v1alpha1"), "kind": "TimelineEntry", "metadata": {"name": name},
        "spec": {"incidentRef": {"name": incident}, "type": "Note", "message": format!("looked at the dashboard, {name}")}})
}

fn length(incident: &Value) -> usize {
    let inline = incident["status"]["timeline"].as_array().map_or(0, Vec::len);
    let stored = incident["status"]["timelineArchive"]["entries"].as_u64().unwrap_or(0);
    inline + usize::try_from(stored).unwrap_or(0)
}

/// The kinds, and who watches them.
struct Desk {
    incidents: Api<DynamicObject>,
    entries: Api<DynamicObject>,
    raw: Api<DynamicObject>,
    seen: Observer,
    seen_raw: Observer,
}

impl Desk {
    /// An incident with so many entries.
    async fn prepare(&self, wanted: usize) -> anyhow::Result<()> {
        let incident = name_of(wanted);
        let object_of = json!({"apiVersion": format!("{OURS}/v1alpha1"), "kind": "Incident",
            "metadata": {"name": incident, "namespace": NAMESPACE},
            "spec": {"title": "a long one", "severity": "SEV5", "noMitigationNeeded": "none"}});
        self.incidents.create(&PostParams::default(), &object(object_of)?).await?;
        let present = self.seen.is(&incident, |o| length(o) > 0).await?;
        futures::stream::iter((length(&present)..wanted).map(anyhow::Ok))
            .try_for_each_concurrent(8, |i| {
                let (entries, incident) = (self.entries.clone(), incident.clone());
                async move {
                    let entry = entry(&incident, &format!("{incident}-before-{i}"));
                    entries.create(&PostParams::default(), &object(entry)?).await?;
                    Ok(())
                }
            })
            .await?;
        self.seen.is(&incident, |o| length(o) >= wanted).await?;
        self.seen.forget(&incident);
        Ok(())
    }

    /// How long until an entry is on record.
    async fn append(&self, incident: &str, name: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.entries.create(&PostParams::default(), &object(entry(incident, name))?).await?;
        let told = format!("looked at the dashboard, {name}");
        let has = |o: &Value| {
            let timeline = o["status"]["timeline"].as_array();
            timeline.is_some_and(|t| t.iter().any(|r| r["message"] == told.as_str()))
        };
        let took = self.seen.when(incident, begun, has).await? - begun;
        self.seen.forget(incident);
        Ok(took)
    }

    /// The floor: an object, seen, and something in the status of it, seen.
    async fn floor(&self, name: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.raw.create(&PostParams::default(), &object(incident(RAW, name, &[]))?).await?;
        self.seen_raw.when(name, begun, |_| true).await?;
        let told = json!({"status": {"nextUpdateTime": "told"}});
        self.raw.patch_status(name, &PatchParams::default(), &Patch::Merge(told)).await?;
        let took =
            self.seen_raw.when(name, begun, |o| o["status"]["nextUpdateTime"] == "told").await? - begun;
        self.raw.delete(name, &Default::default()).await?;
        self.seen_raw.gone(name).await?;
        self.seen_raw.forget(name);
        Ok(took)
    }
}

/// Measures.
pub async fn run(rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    let mut lengths: Vec<usize> = vec![10, 200, 2000];
    if rig.full {
        lengths.push(10_000);
    }
    if std::env::var_os("QUICK").is_some() {
        lengths = vec![10, 50];
    }
    make_raw_kinds(&rig.admin).await?;
    let incidents = api(&rig.admin, OURS, "Incident");
    let raw = api(&rig.admin, RAW, "Incident");
    let desk = Desk {
        entries: api(&rig.admin, OURS, "TimelineEntry"),
        seen: Observer::of(incidents.clone()).await?,
        seen_raw: Observer::of(raw.clone()).await?,
        incidents,
        raw,
    };
    for wanted in &lengths {
        rig.say(&format!("P8: an incident with {wanted} entries"));
        desk.prepare(*wanted).await?;
    }
    rig.say(&format!("P8: {APPENDS} entries more in each"));
    let mark = rig.mark().await?;
    let mut measured: Vec<(Samples, Samples)> = lengths.iter().map(|_| Default::default()).collect();
    for i in 0..APPENDS {
        for (wanted, (floor, ours)) in lengths.iter().zip(&mut measured) {
            let incident = name_of(*wanted);
            ours.add(desk.append(&incident, &format!("{incident}-then-{i}")).await?);
            floor.add(desk.floor(&format!("short-{wanted}-{i}")).await?);
        }
        rig.tick("entries", i + 1, APPENDS);
    }
    let requests = rig.requests(mark).await?;
    let mut first: Option<(f64, f64)> = None;
    for (wanted, (floor, ours)) in lengths.iter().zip(&measured) {
        let incident = name_of(*wanted);
        // Its status, and the ConfigMaps that it is moved to.
        let its = |r: &&Request| match r.resource.as_str() {
            "incidents/status" => r.name == incident,
            "configmaps" => r.name.starts_with(&format!("{incident}-timeline-")),
            _ => false,
        };
        let sent: usize = requests.iter().filter(its).map(|r| r.bytes).sum();
        let mut told = |what: &str, unit: &'static str, value: f64| {
            let what = format!("{what} at length {wanted}");
            report.rows.push(Row::plain("P8", what, unit, Spread::one(value), Goal::None));
        };
        told("sent for an entry", "bytes", sent as f64 / APPENDS as f64);
        let stored = desk.incidents.get(&incident).await?;
        told("size of the incident", "bytes", serde_json::to_string(&stored)?.len() as f64);
        let pair = (floor.percentile(50.0), ours.percentile(50.0));
        report.rows.push(Row::against(
            "P8",
            format!("an entry on record at length {wanted}, p50"),
            "ms",
            &[pair],
            Goal::None,
        ));
        match first {
            None => first = Some(pair),
            Some(first) => {
                let what = format!("the same against length 10, at {wanted}");
                let grown = (first.1 / first.0, pair.1 / pair.0);
                report.rows.push(Row::against("P8", what, "× floor", &[grown], Goal::Ratio(1.25)));
            }
        }
    }
    remove_all(&desk.incidents).await
}
