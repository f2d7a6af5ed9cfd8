//! Evidence: what is kept of what is about to go, before it goes.
//!
//! Pure: what is read is put into a bundle of bounded size, without what looks like a secret. Values of environment
//! variables that come from Secrets are never resolved, so they are not in it at all.

use kube::core::DynamicObject;
use regex_lite::Regex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::LazyLock};

/// Most bytes of a bundle: an object may have about 1.5 MB, its keys and metadata included.
pub const MAX_BUNDLE: usize = 900 * 1024;
/// Most bytes of one item. Of a log that is its end.
pub const MAX_ITEM: usize = 96 * 1024;
/// Most items that are told as missing.
const MAX_MISSING: usize = 16;

/// What was gathered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    items: BTreeMap<String, String>,
    missing: Vec<String>,
    bytes: usize,
}

impl Bundle {
    /// Adds a text without what looks like a secret in it. What does not fit is recorded as missing.
    pub fn add(&mut self, name: &str, text: &str) {
        let text = redact(end_of(text, MAX_ITEM));
        let name = key(name);
        if self.bytes + name.len() + text.len() > MAX_BUNDLE {
            return self.miss(name, "there was no room left");
        }
        self.bytes += name.len() + text.len();
        self.items.insert(name, text);
    }

    /// Records that something could not be had.
    pub fn miss(&mut self, name: impl AsRef<str>, why: &str) {
        let why: String = why.chars().take(256).collect();
        match self.missing.len() {
            n if n < MAX_MISSING => self.missing.push(format!("{}: {}", name.as_ref(), redact(&why))),
            MAX_MISSING => self.missing.push("and more".to_owned()),
            _ => {}
        }
    }

    /// What could not be had, and why.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when nothing was gathered.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, with the list of what is missing among them.
    pub fn into_data(mut self) -> BTreeMap<String, String> {
        if !self.missing.is_empty() {
            self.items.insert("MISSING.txt".to_owned(), self.missing.join("\n") + "\n");
        }
        self.items
    }
}

/// Hash over all items, each with its name: equal items have equal hashes in whatever order they came.
pub fn sha256(data: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for (name, text) in data {
        for part in [name, text] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The end of a text, from the beginning of a character on.
fn end_of(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// A name as a key of a ConfigMap may be.
fn key(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().map(|c| if allowed(c) { c } else { '_' }).take(253).collect()
}

/// Patterns of secrets: the first group stays, the rest is replaced.
static SECRETS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"(?i)(authorization\s*[:=]\s*(?:bearer|basic)?\s*)[A-Za-z0-9+/=._~-]{8,}",
        r"(?i)(bearer\s+)[A-Za-z0-9+/=._~-]{16,}",
        r#"(?i)((?:passw(?:or)?d|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)[A-Za-z0-9_-]{0,16}["']?\s*[:=]\s*["']?)[^\s"',;&]{4,}"#,
        r"([a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?:@)",
        r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"()\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
        r"()\bgh[pousr]_[A-Za-z0-9]{20,}",
        r"()\bxox[abprs]-[A-Za-z0-9-]{10,}",
        r"(?s)()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
    ]
    .iter()
    // They are fixed, and a test compiles them.
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});

/// Words without which a text needs no closer look.
static HINTS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)auth|bearer|pass|pwd|secret|token|key|credential|://|eyJ|AKIA|ASIA|gh[pousr]_|xox").ok()
});

/// A text in which what looks like a secret is replaced.
pub fn redact(text: &str) -> String {
    if HINTS.as_ref().is_some_and(|hints| !hints.is_match(text)) {
        return text.to_owned();
    }
    SECRETS.iter().fold(text.to_owned(), |text, pattern| {
        if pattern.is_match(&text) { pattern.replace_all(&text, "${1}[REDACTED]").into_owned() } else { text }
    })
}

/// An object as it is kept: without bookkeeping, and without values that may be secrets.
pub fn manifest(object: &DynamicObject) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    hide_environment(&mut value);
    serde_saphyr::to_string(&value).unwrap_or_else(|_| value.to_string())
}

/// Replaces the values of environment variables whose names speak of secrets, wherever containers are.
fn hide_environment(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let named = map.get("name").and_then(Value::as_str).is_some_and(is_secret_name);
            if named && map.get("value").is_some_and(Value::is_string) {
                map.insert("value".to_owned(), json!("[REDACTED]"));
            }
            map.values_mut().for_each(hide_environment);
        }
        Value::Array(list) => list.iter_mut().for_each(hide_environment),
        _ => {}
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "key", "credential", "dsn", "auth"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::patch::tests::object;

    #[test]
    fn what_looks_like_a_secret_is_replaced_and_the_rest_stays() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
        for (text, wanted) in [
            ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [REDACTED]"),
            ("db_password=hunter22 user=x", "db_password=[REDACTED] user=x"),
            (r#"{"apiKey":"0123456789","n":1}"#, r#"{"apiKey":"[REDACTED]","n":1}"#),
            ("postgres://app:s3cr3t@db:5432/x", "postgres://app:[REDACTED]db:5432/x"),
            ("id AKIAABCDEFGHIJKLMNOP end", "id [REDACTED] end"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc end", "jwt [REDACTED] end"),
            ("결제 실패: timeout after 30s", "결제 실패: timeout after 30s"),
            ("token bucket is full", "token bucket is full"),
        ] {
            assert_eq!(redact(text), wanted, "{text}");
        }
        assert_eq!(redact(&format!("a {key} b")), "a [REDACTED] b");
        assert_eq!(SECRETS.len(), 9, "every pattern compiles");
        assert!(HINTS.is_some());
    }

    #[test]
    fn a_manifest_has_no_bookkeeping_and_no_value_of_a_variable_that_may_be_secret() {
        let text = manifest(&object(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}, "managedFields": [{"manager": "m"}]},
            "spec": {"env": [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "MODE", "value": "fast"}]}}),
        ));
        assert!(
            !text.contains("hunter2") && !text.contains("managedFields") && !text.contains("last-applied")
        );
        assert!(text.contains("fast"), "{text}");
    }

    #[test]
    fn a_bundle_keeps_the_end_of_logs_has_a_limit_and_says_what_is_missing() {
        let mut bundle = Bundle::default();
        bundle.add("a/log", &format!("{}끝", "x".repeat(MAX_ITEM)));
        for n in 0..20 {
            bundle.add(&format!("{n}"), &"y".repeat(MAX_ITEM));
        }
        assert!(bundle.bytes <= MAX_BUNDLE);
        let missing = bundle.missing().to_vec();
        assert!(missing.iter().all(|m| m.contains("no room")), "{missing:?}");
        let data = bundle.into_data();
        assert!(data["a_log"].ends_with('끝') && data["a_log"].len() <= MAX_ITEM);
        assert!(data["MISSING.txt"].contains("no room"));
        assert_eq!(sha256(&data), sha256(&data.clone().into_iter().rev().collect()));
    }
}
