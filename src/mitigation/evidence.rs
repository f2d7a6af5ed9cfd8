//! Evidence: what is kept of what is about to go, before it goes.
//!
//! Pure: what is read is put into a bundle of bounded size, without what looks like a secret. Values of environment
//! variables that come from Secrets are never resolved, so they are not in it at all.

mod manifest;
mod names;
mod pem;
mod redact;
mod tokens;
mod value;

pub use manifest::manifest;
use redact::redact;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Most bytes of a bundle: an object may have about 1.5 MB, its keys and metadata included.
pub const MAX_BUNDLE: usize = 900 * 1024;
/// Most bytes of one item. Of a log that is its end.
pub const MAX_ITEM: usize = 96 * 1024;
/// Most bytes of a text in an object that would be too large otherwise.
const MAX_TEXT: usize = 1024;
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
        // What stands for a secret may be longer than the secret.
        let text = redact(newest_lines(text, MAX_ITEM));
        self.keep(name, newest_lines(&text, MAX_ITEM).to_owned());
    }

    /// Adds an object without what looks like a secret in it, as YAML. Of one that is too large, long texts are cut, and
    /// its beginning when that is not enough.
    pub fn add_object(&mut self, name: &str, mut object: Value) {
        let yaml = |object: &Value| serde_saphyr::to_string(object).unwrap_or_else(|_| object.to_string());
        manifest::hide(&mut object);
        let mut text = yaml(&object);
        if text.len() > MAX_ITEM {
            cut_texts(&mut object);
            text = yaml(&object);
            self.miss(key(name), &format!("too large: texts of more than {MAX_TEXT} bytes are cut"));
        }
        if text.len() > MAX_ITEM {
            text = newest_lines(&text, MAX_ITEM).to_owned();
            self.miss(key(name), "too large: its beginning is cut");
        }
        self.keep(name, text);
    }

    fn keep(&mut self, name: &str, text: String) {
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

/// The end of a text. What is left of a line that was cut goes, too: it may be a part of a secret whose name is gone.
pub fn newest_lines(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    if start == 0 || text.as_bytes()[start - 1] == b'\n' {
        return &text[start..];
    }
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let text = &text[start..];
    // A text without lines is cut between words.
    let end = text.find('\n').filter(|end| end + 1 < text.len());
    let end = end.or_else(|| text.find([' ', '\t', '"', '\'', ',']));
    &text[end.map_or(0, |end| end + 1)..]
}

/// Cuts what is long in an object.
fn cut_texts(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_TEXT => {
            let mut end = MAX_TEXT;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str("[CUT]");
        }
        Value::Array(list) => list.iter_mut().for_each(cut_texts),
        Value::Object(map) => map.values_mut().for_each(cut_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A name as a key of a ConfigMap may be.
fn key(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().map(|c| if allowed(c) { c } else { '_' }).take(253).collect()
}

#[cfg(test)]
mod tests;
