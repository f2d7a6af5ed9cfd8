//! The API server's audit log: the ground truth for who asked what.

use super::cluster::Cluster;
use super::poll::{PATIENCE, wait_for};
use serde_json::Value;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

/// A place in the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// The present end of the log: what is asked from now on comes after it.
pub fn mark() -> Mark {
    Mark(std::fs::metadata(path()).expect("the control plane keeps an audit log").len())
}

/// A request as the API server saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// get, list, watch, create, update, patch, delete, …
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural of the kind.
    pub resource: String,
    /// status, scale, … or empty.
    pub subresource: String,
    /// Name of the object, where the request names one.
    pub name: String,
    /// Namespace, where the request names one.
    pub namespace: String,
    /// HTTP status of the reply; 0 for a reply that still goes on.
    pub code: u64,
    /// Who asked.
    pub user: String,
    /// With which credential: tells several processes of one ServiceAccount apart.
    pub credential: String,
    /// With which program.
    pub user_agent: String,
    /// Field manager that a writing request named.
    pub field_manager: String,
    /// Path and query.
    pub uri: String,
    /// When it came in.
    pub received: String,
    /// When the reply was complete, or had begun for a watch.
    pub time: String,
    /// Body of the request, for the writes whose body the audit policy keeps.
    pub body: Option<Value>,
    id: String,
}

impl Request {
    /// Whether it asked for a change (a dry run counts: it costs the same).
    pub fn writes(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// In short, such as `patch deployments/importer 200` or `patch mitigations/a/status 200`.
    pub fn brief(&self) -> String {
        let mut text = format!("{} {}", self.verb, self.resource);
        for part in [&self.name, &self.subresource] {
            if !part.is_empty() {
                text = format!("{text}/{part}");
            }
        }
        format!("{text} {}", self.code)
    }
}

/// The requests after the mark that are wanted, in the order of the log. A watch counts once, from its
/// beginning.
pub fn requests(since: Mark, wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
    let mut text = Vec::new();
    let mut file = File::open(path()).expect("the control plane keeps an audit log");
    file.seek(SeekFrom::Start(since.0))
        .and_then(|_| file.read_to_end(&mut text))
        .expect("the audit log is readable");
    let mut seen = HashSet::new();
    // What comes after the last line break is still being written.
    text.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .filter_map(parse)
        .filter(wanted)
        .filter(|request| seen.insert(request.id.clone()))
        .collect()
}

/// The same, once no such request has come for the given time. A request is in the log only after its reply,
/// so what a test has just caused may come a moment later.
pub async fn settled(since: Mark, quiet: Duration, wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
    let mut last = (0, Instant::now());
    wait_for(PATIENCE + quiet, "end of the requests", async || {
        let found = requests(since, &wanted);
        if found.len() != last.0 {
            last = (found.len(), Instant::now());
        }
        if last.1.elapsed() >= quiet {
            return Ok(found);
        }
        Err(found.last().map_or("none".to_owned(), Request::brief))
    })
    .await
}

fn path() -> std::path::PathBuf {
    Cluster::dir().join("audit.log")
}

fn parse(line: &[u8]) -> Option<Request> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let uri = text("/requestURI");
    let field_manager = uri
        .split_once('?')
        .and_then(|(_, query)| query.split('&').find_map(|pair| pair.strip_prefix("fieldManager=")))
        .unwrap_or_default()
        .to_owned();
    Some(Request {
        verb: text("/verb"),
        group: text("/objectRef/apiGroup"),
        resource: text("/objectRef/resource"),
        subresource: text("/objectRef/subresource"),
        name: text("/objectRef/name"),
        namespace: text("/objectRef/namespace"),
        code: event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
        user: text("/user/username"),
        credential: text("/user/extra/authentication.kubernetes.io~1credential-id/0"),
        user_agent: text("/userAgent"),
        field_manager,
        uri,
        received: text("/requestReceivedTimestamp"),
        time: text("/stageTimestamp"),
        body: event.get("requestObject").cloned(),
        id: text("/auditID"),
    })
}
