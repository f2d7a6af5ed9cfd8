//! A background of incidents as they are after a while: 2 to 4 KiB, 20 timeline entries, nine of ten closed.
//!
//! Two incidents live through their whole life; the others are their copies, status included, so that the operator
//! finds nothing to do with them. Nobody else may write a status, so the copies' are written with the operator's own
//! token, while it is stopped.

use super::{NAMESPACE, Rig, kinds::*, observer::Observer};
use anyhow::Context as _;
use futures::TryStreamExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

/// Entries in the timeline of each.
const ENTRIES: usize = 20;
/// Requests at a time.
const AT_ONCE: usize = 12;

/// An open incident and a closed one, to copy from.
pub struct Templates {
    open: Value,
    closed: Value,
}

fn spec(resolved: bool) -> Value {
    let mut spec = json!({
        "title": "Checkout returns 500 for 40 % of requests in eu-west",
        "severity": "SEV5",
        "service": "checkout",
        "startTime": "2026-01-01T10:00:00Z",
        "detection": {"source": "Alert", "reference": "https://alerts.example.com/d/4711", "time": "2026-01-01T10:02:00Z"},
        "impact": {"summary": "40 % of checkouts in eu-west fail with an error after payment", "affectedTenants": 120,
            "affectedFeatures": ["checkout", "vouchers"]},
        "noMitigationNeeded": "the importer was stopped by hand before the incident was declared",
    });
    if resolved {
        spec["resolution"] = json!({"summary": "the importer's rate is limited now"});
    }
    spec
}

impl Templates {
    /// Lets two incidents live and takes what they have become.
    pub async fn make(rig: &Rig) -> anyhow::Result<Templates> {
        Ok(Templates { open: life(rig, "open", false).await?, closed: life(rig, "closed", true).await? })
    }

    /// Bytes of a closed one as JSON, without what the API server notes of writers.
    pub fn bytes(&self) -> usize {
        self.closed.to_string().len()
    }

    /// Makes copies number `from` to `to`. The operator must not run.
    pub async fn copy(&self, rig: &Rig, from: usize, to: usize) -> anyhow::Result<()> {
        let people = api(&rig.admin, OURS, "Incident");
        let operator = api(&rig.operator_client, OURS, "Incident");
        let done = AtomicUsize::new(0);
        futures::stream::iter((from..to).map(anyhow::Ok))
            .try_for_each_concurrent(AT_ONCE, |i| {
                let (people, operator, done) = (people.clone(), operator.clone(), &done);
                async move {
                    let template = if i % 10 == 0 { &self.open } else { &self.closed };
                    let name = format!("background-{i}");
                    let mut copy = template.clone();
                    copy["metadata"] = json!({"name": name});
                    let status = copy["status"].take();
                    people.create(&PostParams::default(), &object(copy)?).await?;
                    let params = PatchParams {
                        field_manager: Some("incident-operator".to_owned()),
                        ..PatchParams::default()
                    };
                    operator.patch_status(&name, &params, &Patch::Merge(json!({"status": status}))).await?;
                    rig.tick(
                        "incidents in the background",
                        done.fetch_add(1, Ordering::Relaxed) + 1,
                        to - from,
                    );
                    Ok(())
                }
            })
            .await
            .with_context(|| format!("making a background of {to} incidents"))
    }
}

async fn life(rig: &Rig, name: &str, resolved: bool) -> anyhow::Result<Value> {
    let incidents = api(&rig.admin, OURS, "Incident");
    let entries = api(&rig.admin, OURS, "TimelineEntry");
    let observer = Observer::of(incidents.clone()).await?;
    let begun = Instant::now();
    let mut incident = json!({"apiVersion": format!("{OURS}/v1alpha1"), "kind": "Incident",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec(resolved)});
    let made = incidents.create(&PostParams::default(), &object(incident.clone())?).await?;
    // The commander is who declared it, so that command is taken.
    let who = made.metadata.annotations.as_ref().and_then(|a| a.get("incident-operator.dev/requester"));
    if let Some(who) = who {
        incidents.delete(name, &Default::default()).await?;
        observer.gone(name).await?;
        incident["spec"]["roles"] = json!({"incidentCommander": who});
        incidents.create(&PostParams::default(), &object(incident.clone())?).await?;
    }
    let recorded = |object: &Value| object["status"]["timeline"].as_array().map_or(0, Vec::len);
    let done = move |object: &Value| {
        says(object, "Ready")
            && (!resolved
                || object["status"]["stage"] == "Closed"
                || object["status"]["stage"] == "Postmortem")
    };
    observer.when(name, begun, done).await?;
    let present = observer.is(name, done).await?;
    for i in recorded(&present)..ENTRIES {
        let entry = json!({"apiVersion": format!("{OURS}/v1alpha1"), "kind": "TimelineEntry", "metadata": {"name": format!("{name}-{i}")},
            "spec": {"incidentRef": {"name": name}, "type": "Note",
                "message": format!("looked at dashboard {i}: errors at 3.{i} %")}});
        entries.create(&PostParams::default(), &object(entry)?).await?;
    }
    let object = observer.is(name, |object| recorded(object) >= ENTRIES && done(object)).await?;
    // What a copy has not seen yet is its first generation.
    let generation = object["metadata"]["generation"].clone();
    let mut status = object["status"].clone();
    renumber(&mut status, &generation);
    incident["status"] = status;
    Ok(incident)
}

fn renumber(value: &mut Value, generation: &Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "observedGeneration" && value == generation {
                    *value = 1.into();
                } else {
                    renumber(value, generation);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| renumber(value, generation)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
