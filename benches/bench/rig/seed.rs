//! A background of incidents as they are after a while: 20 timeline entries, nine of ten closed. The report tells how large
//! they are: what a person writes is 1 KiB of it, conditions, checklist and timeline are most.
//!
//! Two incidents live through their whole life; the others are their copies down to the moment of creation, so that the
//! operator finds nothing to do with them. No API lets anybody state that moment, so the copies are put into etcd.

use super::{NAMESPACE, Rig, kinds::*, observer::Observer};
use anyhow::Context as _;
use futures::TryStreamExt as _;
use k8s_openapi::ByteString;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
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
    // No deadline passes while it is measured.
    spec["checklist"] = json!([{"name": "rollback-or-flag", "state": "Done"}]);
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
        let done = AtomicUsize::new(0);
        let etcd = etcd(rig)?;
        futures::stream::iter((from..to).map(anyhow::Ok))
            .try_for_each_concurrent(AT_ONCE, |i| {
                let (etcd, done) = (etcd.clone(), &done);
                let mut copy = if i % 10 == 0 { self.open.clone() } else { self.closed.clone() };
                async move {
                    let name = format!("background-{i}");
                    copy["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{i:012x}"));
                    copy["metadata"]["name"] = json!(name);
                    let key = format!("{}-{i}", prefix());
                    tokio::task::spawn_blocking(move || put(&etcd, &key, &copy)).await??;
                    rig.tick(
                        "incidents in the background",
                        done.fetch_add(1, Ordering::Relaxed) + 1,
                        to - from,
                    );
                    Ok(())
                }
            })
            .await
            .with_context(|| format!("making a background of {to} incidents"))?;
        // What was written so fast the API server has to catch up with before it answers.
        let incidents = api(&rig.admin, OURS, "Incident");
        let mut left = 60;
        while let Err(error) = incidents.list(&ListParams::default().limit(1)).await {
            left -= 1;
            anyhow::ensure!(left > 0, "the API server does not list the background: {error}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }
}

/// Where etcd listens, by its command line.
fn etcd(rig: &Rig) -> anyhow::Result<String> {
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", rig.part("etcd")?))?;
    let mut words = line.split('\0');
    let urls = words.find_map(|word| {
        let rest = word.strip_prefix("--listen-client-urls")?;
        Some(rest.strip_prefix('=').map(str::to_owned))
    });
    let urls =
        urls.context("etcd does not say where it listens")?.or_else(|| words.next().map(str::to_owned));
    let first = urls.as_deref().and_then(|urls| urls.split(',').next()?.strip_prefix("http://"));
    Ok(first.context("etcd listens by plain HTTP")?.replace("0.0.0.0", "127.0.0.1"))
}

/// Removes all copies. The operator must not run.
pub async fn remove(rig: &Rig) -> anyhow::Result<()> {
    let etcd = etcd(rig)?;
    // Some hundred at a time: etcd tells of all that is removed at once in one piece, which with tens of thousands takes the
    // API server minutes, and until then it tells of nothing that comes later.
    let some =
        (100..1000).map(|digits| (format!("{}-{digits}", prefix()), format!("{}-{digits}:", prefix())));
    let rest = (format!("{}-", prefix()), format!("{}.", prefix()));
    for (from, to) in some.chain([rest]) {
        let (etcd, body) = (etcd.clone(), json!({"key": bytes(from), "range_end": bytes(to)}));
        tokio::task::spawn_blocking(move || ask(&etcd, "deleterange", &body)).await??;
    }
    // As the API server's watches have it.
    let incidents = api(&rig.admin, OURS, "Incident");
    for _ in 0..60 {
        let there = incidents.list_metadata(&ListParams::default().match_any()).await?;
        if !there
            .items
            .iter()
            .any(|i| i.metadata.name.as_deref().is_some_and(|n| n.starts_with("background-")))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::bail!("the API server still tells of the background")
}

/// The keys of all copies begin so, and a hyphen follows.
fn prefix() -> String {
    format!("/registry/{OURS}/incidents/{NAMESPACE}/background")
}

fn bytes(text: String) -> ByteString {
    ByteString(text.into_bytes())
}

/// Stores an object as it is.
fn put(etcd: &str, key: &str, object: &Value) -> anyhow::Result<()> {
    ask(etcd, "put", &json!({"key": bytes(key.to_owned()), "value": bytes(object.to_string())}))
}

fn ask(etcd: &str, what: &str, body: &Value) -> anyhow::Result<()> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(etcd)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "POST /v3/kv/{what} HTTP/1.0\r\nHost: {etcd}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.lines().next().is_some_and(|line| line.contains(" 200 ")), "etcd said: {answer}");
    Ok(())
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
    observer.is(name, |object| recorded(object) >= ENTRIES && done(object)).await?;
    let mut copy = serde_json::to_value(incidents.get(name).await?)?;
    let metadata = copy["metadata"].as_object_mut().context("it has metadata")?;
    metadata.retain(|key, _| !["resourceVersion", "managedFields", "selfLink"].contains(&key.as_str()));
    Ok(copy)
}
