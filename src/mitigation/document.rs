//! One value inside a document that a field holds as text: JSON, YAML or properties.
//!
//! Only the bytes of that one value change: comments, order and spacing of the rest stay. Whatever is written is read
//! again and compared with the document before; an edit that would change anything else is not made.
//!
//! A list or map is told by its text, `{"raw": "…"}`, so that it goes back as it was written.

mod json;
mod properties;
mod yaml;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;

/// Where a value lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Format of the document.
    pub format: Format,
    /// The keys that lead to it, from the outside; a number counts the entries of a list. In properties: one key.
    pub path: Vec<String>,
    /// How a single value was written when it was captured, where that is not how we would write it: `on`, `0644`,
    /// `1.50` and `'x'` go back as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
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
    pub fn of(key: &str, text: &str) -> Format {
        let is_map = |format| parse(format, text).is_ok_and(|value: Value| value.is_object());
        match key.rsplit_once('.').map(|(_, end)| end) {
            Some("json") => Format::Json,
            Some("yaml" | "yml") => Format::Yaml,
            Some("properties" | "conf" | "ini" | "env") => Format::Properties,
            _ if is_map(Format::Json) => Format::Json,
            _ if is_map(Format::Yaml) => Format::Yaml,
            _ => Format::Properties,
        }
    }
}

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
    /// A place in a document.
    pub fn new(format: Format, path: Vec<String>) -> Self {
        Place { format, path, written: None }
    }

    /// The place, with how its value is written in the document now.
    #[must_use]
    pub fn as_written(&self, text: &str) -> Self {
        let raw = || {
            let value = self.read(text).filter(|value| !value.is_object())?;
            let raw = text.get(self.span(text)?)?;
            // A text of YAML has several spellings, and which of them is ours depends on what stands there.
            let spelt = value.to_string();
            let usual = raw == spelt && !(value.is_string() && self.format == Format::Yaml);
            (raw.len() <= MAX_WRITTEN && !usual).then(|| raw.to_owned())
        };
        Place { written: raw(), ..self.clone() }
    }

    /// The value, when it is there.
    pub fn read(&self, text: &str) -> Option<Value> {
        if self.format == Format::Properties {
            return properties::read(text, self.path.first()?).map(Value::String);
        }
        let value = at(&parse(self.format, text).ok()?, &self.path)?.clone();
        if value.is_object() || value.is_array() {
            let raw = text.get(self.span(text)?)?;
            return Some(json!({"raw": raw}));
        }
        Some(value)
    }

    /// The document with another value in that place and nothing else changed.
    pub fn write(&self, text: &str, value: Option<&Value>) -> Result<String, String> {
        let path = self.path.join(".");
        let Some(value) = value else {
            return Err(format!("{path} cannot be taken out of the document"));
        };
        if self.read(text).as_ref() == Some(value) {
            return Ok(text.to_owned());
        }
        if self.format == Format::Properties {
            let value = value.as_str().ok_or_else(|| format!("the value of {path} is not a text"))?;
            return properties::write(text, &path, value);
        }
        let span = self.span(text).ok_or_else(|| format!("the document has no value at {path}"))?;
        let before = parse(self.format, text)?;
        for candidate in self.spellings(&text[span.clone()], value) {
            let written = [&text[..span.start], &candidate, &text[span.end..]].concat();
            let Ok(after) = parse(self.format, &written) else { continue };
            let mut wanted = before.clone();
            let slot = at_mut(&mut wanted, &self.path);
            let there = at(&after, &self.path);
            let (Some(slot), Some(there)) = (slot, there) else { continue };
            *slot = there.clone();
            if wanted == after && self.read(&written).as_ref() == Some(value) {
                return Ok(written);
            }
        }
        Err(format!("the document cannot be edited at {path} without changing something else in it"))
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

    fn span(&self, text: &str) -> Option<Range<usize>> {
        match self.format {
            Format::Json => json::span(text, &self.path),
            Format::Yaml => yaml::span(text, &self.path),
            Format::Properties => None,
        }
    }

    /// True when one lies inside the other.
    pub fn overlaps(&self, other: &Place) -> bool {
        let common = self.path.len().min(other.path.len());
        self.path[..common] == other.path[..common]
    }
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
