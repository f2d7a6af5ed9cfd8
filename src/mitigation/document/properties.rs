//! Lines of `key=value` or `key: value`. Comments begin with `#`, `;` or `!`; a value is one line.
//!
//! A line that ends in an odd number of backslashes goes on in the next one, as Java reads it; such a value is not edited.
//! Where lines like `[name]` divide the text, a key that stands in several sections is named as `name.key`.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

/// One line with a key.
struct Line<'t> {
    section: Option<&'t str>,
    key: &'t str,
    /// Where the value stands, without the spaces around it.
    value: Range<usize>,
    /// The value goes on in the next line.
    goes_on: bool,
}

impl Line<'_> {
    fn full_name(&self) -> String {
        self.section.map_or_else(|| self.key.to_owned(), |section| format!("{section}.{}", self.key))
    }
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let (mut start, mut section, mut continued) = (0, None, false);
    let mut lines = Vec::new();
    for whole in text.split_inclusive('\n') {
        let body = whole.trim_end_matches(['\n', '\r']);
        let goes_on = body.len() - body.trim_end_matches('\\').len();
        let goes_on = goes_on % 2 == 1;
        let trimmed = body.trim();
        if continued {
            // It belongs to the value before.
        } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name.trim());
        } else if !trimmed.starts_with(['#', ';', '!'])
            && let Some(separator) = body.find(['=', ':'])
        {
            let value = &body[separator + 1..];
            let from = start + separator + 1 + (value.len() - value.trim_start().len());
            let value = from..from + value.trim().len();
            lines.push(Line { section, key: body[..separator].trim(), value, goes_on });
        }
        continued = goes_on && (continued || !trimmed.starts_with(['#', ';', '!']));
        start += whole.len();
    }
    lines
}

/// The line of a key. The last of equal lines wins, as it does where such files are read; without its section, a key that
/// stands in several means none of them.
fn find<'t>(text: &'t str, key: &str) -> Option<Line<'t>> {
    let mut lines = lines(text);
    let exact = lines.iter().rposition(|line| line.section.is_some() && line.full_name() == key);
    let plain = || {
        let found = lines.iter().rposition(|line| line.key == key)?;
        let mut all = lines.iter().filter(|line| line.key == key);
        all.all(|line| line.section == lines[found].section).then_some(found)
    };
    let index = exact.or_else(plain)?;
    Some(lines.swap_remove(index))
}

/// The name of a key with its section, where it stands in one.
pub fn full_name(text: &str, key: &str) -> Option<String> {
    find(text, key).map(|line| line.full_name())
}

/// Whether several sections have the key and none is named.
pub fn is_ambiguous(text: &str, key: &str) -> bool {
    find(text, key).is_none() && lines(text).iter().any(|line| line.key == key)
}

/// The value of a key; of one that goes on in further lines, the first line.
pub fn read(text: &str, key: &str) -> Option<String> {
    find(text, key).map(|line| text[line.value].to_owned())
}

/// The text with another value for a key.
pub fn write(text: &str, key: &str, value: &str) -> Result<String, String> {
    if value.contains(['\n', '\r']) {
        return Err(format!("the value of {key} must be one line"));
    }
    let line = find(text, key).ok_or_else(|| format!("there is no line with the key {key}"))?;
    if line.goes_on {
        return Err(format!("the value of {key} goes on in the next line: write it in one line first"));
    }
    let written = [&text[..line.value.start], value, &text[line.value.end..]].concat();
    let there = find(&written, key);
    if there.is_none_or(|line| line.goes_on || written[line.value] != *value) {
        return Err(format!(
            "{value:?} would not be read as the value of {key}: no spaces around it and no backslash at its end"
        ));
    }
    Ok(written)
}

/// The keys, each once, in their order; with their section where several sections have a key of this name.
pub fn keys(text: &str) -> Vec<String> {
    let lines = lines(text);
    let mut sections: HashMap<&str, HashSet<Option<&str>>> = HashMap::new();
    for line in &lines {
        sections.entry(line.key).or_default().insert(line.section);
    }
    let mut known = HashSet::new();
    let names = lines.iter().map(|line| match sections[line.key].len() {
        1 => line.key.to_owned(),
        _ => line.full_name(),
    });
    names.filter(|name| known.insert(name.clone())).collect()
}
