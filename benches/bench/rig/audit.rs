//! The API server's audit log: who asked what.

use super::Rig;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    time::Duration,
};

/// A place in the log.
#[derive(Clone, Copy)]
pub struct Mark(u64);

/// A request of the operator.
pub struct Request {
    /// get, list, watch, create, …
    pub verb: String,
    /// Plural, with the subresource.
    pub resource: String,
    /// Name of the object.
    pub name: String,
    /// Size of the body, where the log keeps it.
    pub bytes: usize,
    /// Path and query.
    pub uri: String,
    /// Whether it was the second patch of a release, and somebody had written before it came.
    pub returned_late: bool,
}

impl Rig {
    /// The present end of the log, once what was asked so far is in it.
    pub async fn mark(&self) -> anyhow::Result<Mark> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Mark(std::fs::metadata(self.dir.join("audit.log"))?.len()))
    }

    /// What the operator has asked since.
    pub async fn requests(&self, since: Mark) -> anyhow::Result<Vec<Request>> {
        let until = self.mark().await?;
        let mut file = File::open(self.dir.join("audit.log"))?;
        file.seek(SeekFrom::Start(since.0))?;
        let mut text = Vec::new();
        file.take(until.0 - since.0).read_to_end(&mut text)?;
        let mut seen = HashSet::new();
        let mut requests = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            // A line may be cut by the mark.
            let Ok(event) = serde_json::from_slice::<Value>(line) else { continue };
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if !text("/user/username").ends_with(":incident-operator") {
                continue;
            }
            // A watch is there twice: when it begins and when it ends. One that began before the mark is not counted.
            let watch = text("/verb") == "watch";
            if watch && text("/stage") != "ResponseStarted" || !seen.insert(text("/auditID").to_owned()) {
                continue;
            }
            let sub = text("/objectRef/subresource");
            let resource = text("/objectRef/resource");
            let body = event.get("requestObject").map(Value::to_string).unwrap_or_default();
            let code = event.pointer("/responseStatus/code").and_then(Value::as_u64);
            requests.push(Request {
                verb: text("/verb").to_owned(),
                resource: if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") },
                name: text("/objectRef/name").to_owned(),
                bytes: body.len(),
                uri: text("/requestURI").to_owned(),
                // What it tests tells that the target is restored: the record of the mitigation is quoted in it.
                returned_late: code == Some(422) && body.contains(r#"\"restored\":true"#),
            });
        }
        Ok(requests)
    }
}

/// How many reads follow the second patch of a release that came too late: somebody had written meanwhile.
pub fn read_again<'a>(requests: impl IntoIterator<Item = &'a Request>) -> usize {
    let (mut late, mut again) = (HashSet::new(), 0);
    for request in requests {
        let object = (&request.resource, &request.name);
        if request.returned_late {
            late.insert(object);
        } else if request.verb == "get" && late.remove(&object) {
            again += 1;
        }
    }
    again
}

/// How many requests of each kind.
pub fn counted<'a>(requests: impl IntoIterator<Item = &'a Request>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    counts
}
