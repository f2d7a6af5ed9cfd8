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

fn span(text: &str, key: &str) -> Option<Range<usize>> {
    let (mut start, mut found) = (0, None);
    for line in text.split_inclusive('\n') {
        let body = line.trim_end_matches(['\n', '\r']);
        let is_comment = body.trim_start().starts_with(['#', ';', '!']);
        if !is_comment
            && let Some(separator) = body.find(['=', ':'])
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
