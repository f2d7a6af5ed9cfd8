//! Lines of `key=value` or `key: value`. Comments begin with `#`, `;` or `!`; a value is one line.

use std::ops::Range;

/// The value of a key; the last line wins, as it does where such files are read.
pub fn read(text: &str, key: &str) -> Option<String> {
    span(text, key).map(|span| text[span].to_owned())
}

/// The text with another value for a key.
pub fn write(text: &str, key: &str, value: &str) -> Result<String, String> {
    if value.contains(['\n', '\r']) {
        return Err(format!("the value of {key} must be one line"));
    }
    let span = span(text, key).ok_or_else(|| format!("there is no line with the key {key}"))?;
    Ok([&text[..span.start], value, &text[span.end..]].concat())
}

/// The keys, each once, in their order.
pub fn keys(text: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    for key in text.lines().filter_map(|line| Some(line[..separator(line)?].trim())) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Where the key of a line ends, unless it is a comment.
fn separator(line: &str) -> Option<usize> {
    let is_comment = line.trim_start().starts_with(['#', ';', '!']);
    line.find(['=', ':']).filter(|_| !is_comment)
}

fn span(text: &str, key: &str) -> Option<Range<usize>> {
    let (mut start, mut found) = (0, None);
    for line in text.split_inclusive('\n') {
        let body = line.trim_end_matches(['\n', '\r']);
        if let Some(separator) = separator(body)
            && body[..separator].trim() == key
        {
            let value = &body[separator + 1..];
            let from = start + separator + 1 + (value.len() - value.trim_start().len());
            found = Some(from..from + value.trim().len());
        }
        start += line.len();
    }
    found
}
