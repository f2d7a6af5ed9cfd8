//! P8: what an entry of the timeline costs when the timeline is long.

use crate::{
    report::{Goal, Report, Row},
    rig::{
        NAMESPACE, Rig,
        kinds::*,
        observer::Observer,
        samples::{Samples, Spread},
    },
};
use futures::TryStreamExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Instant;

/// Appends that are measured at each length: as many as there are between two moves of older ones to a ConfigMap, so that
/// each has its share of that.
const APPENDS: usize = 100;

fn entry(group: &str, name: &str) -> Value {
    json!({"apiVersion": format!("{group}/v1alpha1"), "kind": "TimelineEntry", "metadata": {"name": name},
        "spec": {"incidentRef": {"name": "long"}, "type": "Note", "message": format!("looked at the dashboard, {name}")}})
}

fn length(incident: &Value) -> usize {
    let inline = incident["status"]["timeline"].as_array().map_or(0, Vec::len);
    let stored = incident["status"]["timelineArchive"]["entries"].as_u64().unwrap_or(0);
    inline + usize::try_from(stored).unwrap_or(0)
}

/// Measures.
pub async fn run(rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    let mut lengths: Vec<u16> = vec![10, 200, 2000];
    if rig.full {
        lengths.push(10_000);
    }
    if std::env::var_os("QUICK").is_some() {
        lengths = vec![10, 50];
    }
    make_raw_kinds(&rig.admin).await?;
    let incidents = api(&rig.admin, OURS, "Incident");
    let entries = api(&rig.admin, OURS, "TimelineEntry");
    let raw = api(&rig.admin, RAW, "Incident");
    let (seen, seen_raw) = (Observer::of(incidents.clone()).await?, Observer::of(raw.clone()).await?);
    let object_of = json!({"apiVersion": format!("{OURS}/v1alpha1"), "kind": "Incident", "metadata": {"name": "long", "namespace": NAMESPACE},
        "spec": {"title": "a long one", "severity": "SEV5", "noMitigationNeeded": "none"}});
    incidents.create(&PostParams::default(), &object(object_of)?).await?;
    let mut made = 0;
    let mut firsts: Option<(f64, f64)> = None;
    for wanted in lengths.into_iter().map(usize::from) {
        rig.say(&format!("P8: an entry at length {wanted}"));
        let present = seen.is("long", |o| length(o) > 0).await?;
        let missing = wanted.saturating_sub(length(&present));
        futures::stream::iter((made..made + missing).map(anyhow::Ok))
            .try_for_each_concurrent(8, |i| {
                let entries = entries.clone();
                async move {
                    entries
                        .create(&PostParams::default(), &object(entry(OURS, &format!("long-{i}")))?)
                        .await?;
                    Ok(())
                }
            })
            .await?;
        made += missing;
        seen.is("long", |o| length(o) >= wanted).await?;
        seen.forget("long");
        let mark = rig.mark().await?;
        let (mut ours, mut floor) = (Samples::default(), Samples::default());
        for i in 0..APPENDS {
            let name = format!("long-{made}");
            made += 1;
            let begun = Instant::now();
            entries.create(&PostParams::default(), &object(entry(OURS, &name))?).await?;
            let told = format!("looked at the dashboard, {name}");
            let has = |o: &Value| {
                o["status"]["timeline"]
                    .as_array()
                    .is_some_and(|t| t.iter().any(|r| r["message"] == told.as_str()))
            };
            ours.add(seen.when("long", begun, has).await? - begun);
            seen.forget("long");

            let name = format!("short-{wanted}-{i}");
            let begun = Instant::now();
            raw.create(&PostParams::default(), &object(incident(RAW, &name, &[]))?).await?;
            seen_raw.when(&name, begun, |_| true).await?;
            let told = json!({"status": {"nextUpdateTime": "told"}});
            raw.patch_status(&name, &PatchParams::default(), &Patch::Merge(told)).await?;
            floor
                .add(seen_raw.when(&name, begun, |o| o["status"]["nextUpdateTime"] == "told").await? - begun);
            raw.delete(&name, &Default::default()).await?;
            seen_raw.gone(&name).await?;
            seen_raw.forget(&name);
        }
        let requests = rig.requests(mark).await?;
        let sent: usize = requests.iter().filter(|r| r.resource == "incidents/status").map(|r| r.bytes).sum();
        let kept: usize = requests.iter().filter(|r| r.resource == "configmaps").map(|r| r.bytes).sum();
        let bytes = (sent + kept) as f64 / APPENDS as f64;
        report.rows.push(Row::plain(
            "P8",
            format!("sent for an entry at length {wanted}"),
            "bytes",
            Spread::one(bytes),
            Goal::None,
        ));
        let stored = incidents.get("long").await?;
        let stored = serde_json::to_string(&stored)?.len() as f64;
        report.rows.push(Row::plain(
            "P8",
            format!("size of the incident at length {wanted}"),
            "bytes",
            Spread::one(stored),
            Goal::None,
        ));
        let pair = (floor.percentile(50.0), ours.percentile(50.0));
        report.rows.push(Row::against(
            "P8",
            format!("an entry on record at length {wanted}, p50"),
            "ms",
            &[pair],
            Goal::None,
        ));
        match firsts {
            None => firsts = Some(pair),
            Some(first) => {
                let what = format!("the same against length 10, at {wanted}");
                let grown = (first.1 / first.0, pair.1 / pair.0);
                report.rows.push(Row::against("P8", what, "× floor", &[grown], Goal::Ratio(1.25)));
            }
        }
    }
    remove_all(&incidents).await
}
