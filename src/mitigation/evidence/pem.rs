//! Private keys in PEM, also where the beginning or the end of one was cut off.

use super::{redact::REDACTED, value::after_time};
use std::borrow::Cow;

/// Most bytes of a key in a log: that of a key of 16384 bits with a time before each line. Beyond, a line that begins
/// or ends a key hides nothing: whoever writes one into a log must not make the rest of it go.
const MAX_KEY: usize = 32 * 1024;
/// Fewest characters of a line of a key when other words stand before it.
const MIN_LINE: usize = 40;
const LABEL: &str = "PRIVATE KEY";
/// Most bytes of a marker before and after what is in every label.
const AROUND: usize = 48;

/// A line that begins or ends a key.
struct Marker {
    begins: bool,
    start: usize,
    end: usize,
}

/// A text without private keys.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    let mut markers = markers(text).peekable();
    if markers.peek().is_none() {
        return Cow::Borrowed(text);
    }
    let (mut redacted, mut copied) = (String::with_capacity(text.len()), 0);
    while let Some(marker) = markers.next() {
        if !marker.begins {
            // Its beginning was cut off.
            let line = text[copied..marker.start].rfind('\n').map_or(copied, |end| copied + end + 1);
            let from = match line - copied > MAX_KEY {
                true => end_of_line(text, line - MAX_KEY).min(line),
                false => copied,
            };
            redacted.push_str(&text[copied..from]);
            without_lines_of_keys(&text[from..line], &mut redacted);
            redacted.push_str(REDACTED);
            copied = marker.end;
            continue;
        }
        redacted.push_str(&text[copied..marker.start]);
        redacted.push_str(REDACTED);
        let ends = |next: &Marker| !next.begins && next.start - marker.start <= MAX_KEY;
        if let Some(end) = markers.next_if(ends) {
            copied = end.end;
            continue;
        }
        // Its end was cut off.
        let most = markers.peek().map_or(text.len(), |next| next.start);
        let line = text[marker.end..most].find('\n').map_or(most, |end| marker.end + end);
        copied = match most - line > MAX_KEY {
            true => end_of_line(text, line + MAX_KEY).min(most),
            false => most,
        };
        without_lines_of_keys(&text[line..copied], &mut redacted);
    }
    redacted.push_str(&text[copied..]);
    Cow::Owned(redacted)
}

/// The markers in a text, in order.
fn markers(text: &str) -> impl Iterator<Item = Marker> {
    let bytes = text.as_bytes();
    // Where the last one ended: the next may share its dashes.
    let mut last = 0;
    text.match_indices(LABEL).filter_map(move |(at, _)| {
        let before = &bytes[at.saturating_sub(AROUND)..at];
        let find = |word: &[u8]| before.windows(word.len()).rposition(|part| part == word);
        let (begin, end) = (find(b"-----BEGIN "), find(b"-----END "));
        let opens = begin.max(end)?;
        let kind = &before[opens + 5..];
        if !kind.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ') {
            return None;
        }
        let rest = &bytes[at + LABEL.len()..];
        let dashes =
            rest.iter().take(AROUND).position(|byte| !(byte.is_ascii_uppercase() || *byte == b' '))?;
        let start = (at - before.len() + opens).max(last);
        rest[dashes..].starts_with(b"-----").then(|| {
            last = at + LABEL.len() + dashes + 5;
            Marker { begins: begin > end, start, end: last }
        })
    })
}

/// A part of a text without the lines that look like those of a key.
fn without_lines_of_keys(text: &str, redacted: &mut String) {
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let is_key = is_of_key(line);
        match (is_key, in_key) {
            (true, true) => {}
            (true, false) => redacted.push_str(&format!("{REDACTED}\n")),
            (false, _) => redacted.push_str(line),
        }
        in_key = is_key;
    }
}

fn is_of_key(line: &str) -> bool {
    let line = line[after_time(line.as_bytes())..].trim();
    let is_base64 = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\'))
    };
    let last = line.rsplit([' ', '\t']).next().unwrap_or_default().trim_matches(['"', '\'', ',']);
    !last.is_empty() && is_base64(last) && (last.len() >= MIN_LINE || last.len() == line.len())
}

/// Where the line ends that has this place in it, before its line feed.
fn end_of_line(text: &str, at: usize) -> usize {
    let at = (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[at..].find('\n').map_or(text.len(), |end| at + end)
}
