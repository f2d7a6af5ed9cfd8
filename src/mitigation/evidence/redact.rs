//! Takes what looks like a secret out of a text.
//!
//! One pass over the bytes of each line: a name that speaks of a secret loses its value, however the two are written
//! (`name=value`, JSON, JSON inside JSON, YAML, a flag and its value, a header); a token that is known by how it begins
//! and the password of a URL go wherever they are. Every look ahead or back has an end, so the time grows with the
//! length of the text alone, whatever is in it.

use super::{
    names::{self, Kind, Name},
    pem, tokens,
    value::{self, Quote},
};

/// What stands in the place of a secret.
pub const REDACTED: &str = "[REDACTED]";
/// Most bytes between the beginning of a line and a name that may still be the first thing in it.
const LINE_START: usize = 256;

/// A text in which what looks like a secret is replaced.
pub fn redact(text: &str) -> String {
    let text = pem::redact(text);
    let mut redacted = String::with_capacity(text.len());
    // The indent of the name of a YAML text that has the lines below it, and whether they were replaced already.
    let mut block: Option<(usize, bool)> = None;
    for line in text.split_inclusive('\n') {
        let body = &line[value::after_time(line.as_bytes())..];
        let indent = body.len() - body.trim_start_matches(' ').len();
        if let Some((of_name, replaced)) = &mut block {
            if indent > *of_name || body.trim().is_empty() {
                if !std::mem::replace(replaced, true) {
                    redacted.push_str(&format!("{}{REDACTED}\n", &line[..line.len() - body.len() + indent]));
                }
                continue;
            }
            block = None;
        }
        if begins_block(body) {
            block = Some((indent, false));
        }
        redact_line(line, &mut redacted);
    }
    redacted
}

/// Whether the lines below, indented by more, are the value of a name that speaks of a secret.
fn begins_block(line: &str) -> bool {
    let line = line.trim_end();
    let line = line.strip_suffix(['-', '+']).unwrap_or(line);
    let name = line.strip_suffix(['|', '>']).map(str::trim_end).and_then(|line| line.strip_suffix(':'));
    name.is_some_and(|name| {
        let name = name.trim_start_matches([' ', '-']).trim_matches(['"', '\'']);
        !name.contains(' ') && names::of(name).is_some()
    })
}

fn redact_line(line: &str, redacted: &mut String) {
    let bytes = line.trim_end_matches(['\n', '\r']).as_bytes();
    let (mut at, mut copied) = (0, 0);
    // Up to there no password of a URL can end.
    let mut no_password = 0;
    while at < bytes.len() {
        let (end, secret) = if value::is_name(bytes[at]) {
            let end = value::name_end(bytes, at);
            (end, tokens::find(bytes, at, end).or_else(|| named(bytes, at, end)))
        } else if bytes[at..].starts_with(b"://") {
            (at + 3, value::url_password(bytes, at + 3, &mut no_password))
        } else {
            (at + 1, None)
        };
        at = end;
        if let Some((from, to)) = secret {
            redacted.push_str(&line[copied..from]);
            redacted.push_str(REDACTED);
            (at, copied) = (to.max(end), to);
        }
    }
    redacted.push_str(&line[copied..]);
}

/// How a value was joined to its name.
enum Join {
    /// By `:` and a blank, as in prose and in YAML.
    Said,
    /// By `=`, by `:` without a blank, or as JSON does.
    Set,
    /// By being the next argument.
    Next,
    /// As the text of an element.
    Element,
}

/// The secret that a name at this place names.
fn named(bytes: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
    let dashes = bytes[start..end].iter().take_while(|b| **b == b'-').count();
    let text = std::str::from_utf8(&bytes[start + dashes..end]).ok()?;
    if text.eq_ignore_ascii_case("bearer") {
        return tokens::bearer(bytes, end);
    }
    let name = names::of(text).or_else(|| names::of_key(text, value::word_before(bytes, start)))?;
    let closing = Quote::at(bytes, end);
    let (join, at) = joined(bytes, start, end, dashes > 0, closing)?;
    let quote = Quote::at(bytes, at);
    if let Some(open) = quote {
        let from = at + open.len();
        let to = open.end(bytes, from);
        return in_quotes(&bytes[from..to], name).map(|skipped| (from + skipped, to));
    }
    match bytes.get(at)? {
        b'{' => None,
        b'[' => value::list(bytes, at),
        _ if matches!(join, Join::Element) => {
            let to = at + bytes[at..].iter().position(|b| *b == b'<').unwrap_or(bytes.len() - at);
            value::unless_harmless(bytes, at, to, name.plural)
        }
        _ => bare(bytes, start, at, name, &join, closing.is_some()),
    }
}

/// How the value is joined to the name that ends there, and where it begins.
fn joined(
    bytes: &[u8],
    start: usize,
    end: usize,
    is_flag: bool,
    closing: Option<Quote>,
) -> Option<(Join, usize)> {
    let after_name = end + closing.map_or(0, |quote| quote.len());
    let at = value::skip_blanks(bytes, after_name);
    let rest = &bytes[at..];
    let set = |length| Some((Join::Set, value::skip_blanks(bytes, at + length)));
    match rest.first()? {
        b'=' if rest.starts_with(b"=>") || rest.starts_with(b"==") => set(2),
        b'=' => set(1),
        b':' if rest.starts_with(b"://") || rest.starts_with(b"::") => None,
        b':' if rest.starts_with(b":=") => set(2),
        b':' => {
            let begin = value::skip_blanks(bytes, at + 1);
            let said = closing.is_none() && begin > at + 1;
            // "/run/secrets/token: no such file" says something about a file.
            let is_path = said && value::is_in_path(bytes, start);
            (!is_path).then_some((if said { Join::Said } else { Join::Set }, begin))
        }
        b'>' if at == end && start > 0 && bytes[start - 1] == b'<' => Some((Join::Element, end + 1)),
        // ["--password", "…"], and {"name": "PASSWORD", "value": "…"}
        b',' => {
            let closing = closing?;
            let begin = value::skip_blanks(bytes, at + 1);
            let open = Quote::at(bytes, begin).filter(|open| *open == closing)?;
            let from = begin + open.len();
            match is_flag {
                true => (bytes.get(from) != Some(&b'-')).then_some((Join::Next, begin)),
                false => value::after_value_key(bytes, from, open).map(|begin| (Join::Set, begin)),
            }
        }
        b'-' => None,
        _ => (is_flag && at > after_name && !value::is_prose(bytes, at)).then_some((Join::Next, at)),
    }
}

/// How much of a quoted value stays: the scheme of a header. `None` when all of it does.
fn in_quotes(text: &[u8], name: Name) -> Option<usize> {
    if value::is_harmless(text, name.plural) {
        return None;
    }
    match name.kind {
        Kind::Authorization => Some(value::scheme(text).map_or(0, |(length, _)| length)),
        _ => Some(0),
    }
}

/// A value without quotes.
fn bare(
    bytes: &[u8],
    start: usize,
    at: usize,
    name: Name,
    join: &Join,
    is_quoted: bool,
) -> Option<(usize, usize)> {
    let word = value::word_end(bytes, at);
    let to = match name.kind {
        Kind::Cookie => {
            let has_pair = bytes[at..word].contains(&b'=');
            match join {
                Join::Said if !has_pair => return None,
                _ if has_pair => value::header_end(bytes, at),
                _ => word,
            }
        }
        Kind::Authorization => return value::authorization(bytes, at, word),
        Kind::Made if matches!(join, Join::Said) && value::goes_on_as_prose(bytes, at) => return None,
        Kind::Phrase if !matches!(join, Join::Next) => value::open_end(bytes, at),
        Kind::Chosen | Kind::Made | Kind::Phrase => {
            // The first thing in its line is likely of a document, where the value has the rest of it.
            let open = !is_quoted && !matches!(join, Join::Next) && is_first(bytes, start);
            if open { value::open_end(bytes, at) } else { word }
        }
    };
    value::unless_harmless(bytes, at, to, name.plural)
}

/// Whether a name is the first thing in its line, but for indents, dashes of lists and the time that a kubelet adds.
fn is_first(bytes: &[u8], start: usize) -> bool {
    if start > LINE_START {
        return false;
    }
    let before = &bytes[value::after_time(bytes).min(start)..start];
    let dotted =
        before.iter().rev().take_while(|b| value::is_name(**b) || **b == b'.' || **b == b'/').count();
    before[..before.len() - dotted].iter().all(|b| matches!(b, b' ' | b'\t' | b'-'))
}
