//! One value inside a document that a field holds as text: JSON, YAML or properties.
//!
//! Only the bytes of that one value change: comments, order and spacing of the rest stay. Whatever is written is read
//! again and compared with the document before; an edit that would change anything else is not made.
//!
//! A list or map is told by its text, `{"raw": "…"}`, so that it goes back as it was written.

mod entry;
mod json;
mod properties;
mod yaml;

use entry::Entry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::ops::Range;

/// Where a value lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Format of the document.
    pub format: Format,
    /// The keys that lead to it, from the outside; a number counts the entries of a list. In properties: one key.
    pub path: Vec<String>,
    /// What the entries of the lists on the path are known by, since their numbers move, with their places in the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<(usize, Entry)>,
    /// How a single value was written when it was captured, where that is not how we would write it: `on`, `0644`,
    /// `1.50` and `'x'` go back as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// The hash of the whole document when it was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

/// The same place is the same however its value was written.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.format == other.format && self.path == other.path
    }
}

impl Eq for Place {}

/// Bytes of a value that are kept as they were written.
const MAX_WRITTEN: usize = 1024;

/// Format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Lines of `key=value`.
    Properties,
}

impl Format {
    /// The format of a document, told by the name of its key and, failing that, by its text.
    /// `Err`: the document is in none of them that is known, and would be broken by an edit.
    pub fn of(key: &str, text: &str) -> Result<Format, String> {
        let is_map = |format| parse(format, text).is_ok_and(|value: Value| value.is_object());
        let end = key.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
        match end.as_deref() {
            Some("json") => Ok(Format::Json),
            Some("yaml" | "yml") => Ok(Format::Yaml),
            Some("properties" | "conf" | "ini" | "env") => Ok(Format::Properties),
            Some(end) if OTHERS.contains(&end) => Err(format!("one value in a .{end} file cannot be edited")),
            _ if is_map(Format::Json) => Ok(Format::Json),
            _ if is_map(Format::Yaml) => Ok(Format::Yaml),
            _ if text.trim_start().starts_with('<') => Err("it looks like XML".to_owned()),
            _ => Ok(Format::Properties),
        }
        .map_err(|words| format!("{words}: JSON, YAML and lines of key=value are known; leave path out and state the whole text in value"))
    }
}

/// Ends of names of files that have lines which look like `key=value` and are not.
const OTHERS: [&str; 14] =
    ["toml", "xml", "html", "htm", "hcl", "tf", "lua", "js", "ts", "py", "rb", "sh", "sql", "json5"];

/// What `true`, `false` or, in YAML, `on`, `off`, `yes` and `no` mean.
pub fn truth(format: Format, word: &str) -> Option<bool> {
    match word {
        "true" => Some(true),
        "false" => Some(false),
        _ => yaml::switch(word).filter(|_| format == Format::Yaml).map(|(on, _)| on),
    }
}

/// An empty map, as it is written.
pub fn empty_map() -> Value {
    json!({"raw": "{}"})
}

/// A value inside a document as people are told it: a list or map as it is written there, anything else as JSON.
pub fn told(value: &Value) -> String {
    value.get("raw").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_owned)
}

impl Place {
    /// A place in a document, which is given as its text and, where it has structure, as a value.
    pub fn new(format: Format, path: Vec<String>, text: &str, document: &Value) -> Self {
        let entries = entry::known_by(document, &path);
        let path = match (format, path.as_slice()) {
            (Format::Properties, [key]) => {
                vec![properties::full_name(text, key).unwrap_or_else(|| key.clone())]
            }
            _ => path,
        };
        Place { format, path, entries, written: None, whole: None }
    }

    /// Where the value is in the document as it is now.
    fn now(&self, document: &Value) -> Option<Vec<String>> {
        entry::resolve(document, &self.path, &self.entries)
    }

    /// Why it cannot be told what stands there, although the document is there: nobody changed the value, as far as is
    /// known.
    pub fn unclear(&self, text: &str) -> Option<String> {
        if self.format == Format::Properties {
            let key = self.path.first()?;
            return properties::is_ambiguous(text, key).then(|| format!("several sections have a key {key}"));
        }
        match parse(self.format, text) {
            Err(words) => Some(words),
            Ok(document) if self.now(&document).is_none() => {
                Some(format!("which entry of a list {} means cannot be told any more", self.path.join(".")))
            }
            Ok(_) => None,
        }
    }

    /// Whether the document is, as a whole, what it was when it was captured.
    pub fn is_as_captured(&self, text: &str) -> bool {
        self.whole.as_deref() == Some(&*hash(text))
    }

    /// The place, with how its value is written in the document now.
    #[must_use]
    pub fn as_written(&self, text: &str) -> Self {
        let raw = || {
            let value = self.read(text).filter(|value| !value.is_object())?;
            let path = self.now(&parse(self.format, text).ok()?)?;
            let raw = text.get(self.span(text, &path)?)?;
            // A text of YAML has several spellings, and which of them is ours depends on what stands there.
            let spelt = value.to_string();
            let usual = raw == spelt && !(value.is_string() && self.format == Format::Yaml);
            (raw.len() <= MAX_WRITTEN && !usual).then(|| raw.to_owned())
        };
        Place { written: raw(), whole: Some(hash(text)), ..self.clone() }
    }

    /// The value, when it is there.
    pub fn read(&self, text: &str) -> Option<Value> {
        if self.format == Format::Properties {
            return properties::read(text, self.path.first()?).map(Value::String);
        }
        let document = parse(self.format, text).ok()?;
        let path = self.now(&document)?;
        let value = at(&document, &path)?.clone();
        if value.is_object() || value.is_array() {
            let raw = text.get(self.span(text, &path)?)?;
            return Some(json!({"raw": raw}));
        }
        Some(value)
    }

    /// The document with another value in that place and nothing else changed.
    pub fn write(&self, text: &str, value: Option<&Value>) -> Result<String, String> {
        let name = self.path.join(".");
        let Some(value) = value else {
            return Err(format!("{name} cannot be taken out of the document"));
        };
        if self.read(text).as_ref() == Some(value) {
            return Ok(text.to_owned());
        }
        if self.format == Format::Properties {
            let value = value.as_str().ok_or_else(|| format!("the value of {name} is not a text"))?;
            return properties::write(text, &name, value);
        }
        let before = parse(self.format, text)?;
        let Some(path) = self.now(&before) else { return Err(self.unclear(text).unwrap_or_default()) };
        let span = self.span(text, &path).ok_or_else(|| match at(&before, &path) {
            Some(_) => format!(
                "what stands at {name} is shared with other places of the document (an anchor or a merge key)"
            ),
            None => format!("the document has no value at {name}"),
        })?;
        for candidate in self.spellings(&text[span.clone()], value) {
            let written = [&text[..span.start], &candidate, &text[span.end..]].concat();
            let Ok(after) = parse(self.format, &written) else { continue };
            let mut wanted = before.clone();
            let slot = at_mut(&mut wanted, &path);
            let there = at(&after, &path);
            let (Some(slot), Some(there)) = (slot, there) else { continue };
            *slot = there.clone();
            if wanted == after && self.read(&written).as_ref() == Some(value) {
                return Ok(written);
            }
        }
        Err(format!("the document cannot be edited at {name} without changing something else in it"))
    }

    /// The ways to write a value: as it was written before, if that is the value, then those that look like what stands
    /// there.
    fn spellings(&self, old: &str, value: &Value) -> Vec<String> {
        self.written.clone().into_iter().chain(self.usual_spellings(old, value)).collect()
    }

    fn usual_spellings(&self, old: &str, value: &Value) -> Vec<String> {
        if let Some(raw) = value.get("raw").and_then(Value::as_str) {
            return vec![raw.to_owned()];
        }
        let quoted = value.to_string();
        match (self.format, value) {
            (Format::Yaml, Value::String(text)) => {
                let single = format!("'{}'", text.replace('\'', "''"));
                match old.chars().next() {
                    Some('"') => vec![quoted, single],
                    Some('\'') => vec![single, quoted],
                    // What begins like a number may be a date or a time to who reads it.
                    _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                        vec![quoted, single, text.clone()]
                    }
                    _ => vec![text.clone(), quoted, single],
                }
            }
            (Format::Yaml, Value::Bool(on)) => {
                let alike = yaml::switch(old).map(|(_, pair)| pair[usize::from(!on)].to_owned());
                alike.into_iter().chain([quoted]).collect()
            }
            _ => vec![quoted],
        }
    }

    fn span(&self, text: &str, path: &[String]) -> Option<Range<usize>> {
        match self.format {
            Format::Json => json::span(text, path),
            Format::Yaml => yaml::span(text, path),
            Format::Properties => None,
        }
    }

    /// True when one lies inside the other.
    pub fn overlaps(&self, other: &Place) -> bool {
        let named = |place: &Place, depth: usize| {
            let entry = place.entries.iter().find(|(at, _)| *at == depth).map(|(_, entry)| entry.clone());
            entry.filter(|entry| matches!(entry, Entry::Named(..)))
        };
        let keys = self.path.iter().zip(&other.path).enumerate();
        keys.into_iter().all(|(depth, (a, b))| match (named(self, depth), named(other, depth)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        })
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Splits a path in dots. The longest keys that exist win, so that a key with a dot in it can be named.
pub fn split(document: &Value, path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let mut place = Some(document);
    let (mut out, mut from) = (Vec::new(), 0);
    while from < parts.len() {
        let known = (from + 1..=parts.len()).rev().find_map(|to| {
            let key = parts[from..to].join(".");
            Some((to, step(place?, &key)?, key))
        });
        let (to, next, key) = match known {
            Some((to, next, key)) => (to, Some(next), key),
            None => (from + 1, None, parts[from].to_owned()),
        };
        out.push(key);
        place = next;
        from = to;
    }
    out
}

/// Names that are shown of those that are there.
const SHOWN: usize = 10;

/// What there is as deep as a path leads into a document, in words: for who misspelt the rest of it.
pub fn nearest(format: Format, text: &str, path: &[String]) -> String {
    if format == Format::Properties {
        return format!("it has {}", listed(properties::keys(text).iter().map(String::as_str)));
    }
    let Ok(document) = parse(format, text) else { return "it cannot be read".to_owned() };
    let (mut place, mut depth) = (&document, 0);
    while let Some(next) = path.get(depth).and_then(|key| step(place, key)) {
        (place, depth) = (next, depth + 1);
    }
    let name = if depth == 0 { "it".to_owned() } else { path[..depth].join(".") };
    match place {
        Value::Object(map) => format!("{name} has {}", listed(map.keys().map(String::as_str))),
        Value::Array(list) => format!("{name} is a list of {}, counted from 0", list.len()),
        _ => format!("{name} is a single value"),
    }
}

fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let all: Vec<&str> = names.collect();
    let shown: Vec<String> = all.iter().take(SHOWN).map(|name| name.chars().take(64).collect()).collect();
    match (shown.is_empty(), all.len() - shown.len()) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A document as a value, for looking around in it. Properties have no structure.
pub fn parse(format: Format, text: &str) -> Result<Value, String> {
    match format {
        Format::Json => serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}")),
        Format::Yaml => yaml::parse(text).map_err(|e| format!("it is no YAML: {e}")),
        Format::Properties => Ok(Value::Null),
    }
}

fn step<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key),
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The value at a path.
pub fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |at, key| step(at, key))
}

fn at_mut<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |at, key| match at {
        Value::Object(map) => map.get_mut(key),
        Value::Array(list) => list.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
