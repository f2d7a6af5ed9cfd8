//! Where the value of a name begins and ends, and when it is no secret.

use super::redact::REDACTED;

/// Most bytes that are looked at after a separator, or before a name, to tell what comes there.
const LOOK: usize = 64;
/// Longest word that still may be prose.
const MAX_WORD: usize = 15;
/// Longest name of a scheme of the Authorization header.
const MAX_SCHEME: usize = 24;

/// What stands for no value at all, for one that is switched on or off, or for one that was taken out already.
const HARMLESS: &[&str] = &[
    "true",
    "false",
    "null",
    "nil",
    "none",
    "undefined",
    "~",
    "-",
    "|",
    "|-",
    "|+",
    ">",
    ">-",
    ">+",
    "<nil>",
    "<none>",
    "<unset>",
    "<empty>",
    "<redacted>",
    "<hidden>",
    "redacted",
    REDACTED,
];
/// Words that follow a flag which is spoken of, not given.
const PROSE: &[&str] = &[
    "is", "are", "was", "to", "or", "and", "flag", "flags", "option", "not", "for", "from", "must", "cannot",
    "in", "with", "requires", "has", "may", "should", "instead",
];
/// Schemes of the Authorization header, and whether one word follows.
const SCHEMES: &[(&str, bool)] = &[
    ("bearer", true),
    ("basic", true),
    ("token", true),
    ("negotiate", true),
    ("ntlm", true),
    ("apikey", true),
    ("splunk", true),
    ("digest", false),
    ("hmac", false),
    ("aws4-hmac-sha256", false),
];

/// Whether a byte may be in a name.
pub(super) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// How many bytes from there on are so.
fn run(bytes: &[u8], at: usize, is: impl Fn(u8) -> bool) -> usize {
    bytes[at..].iter().take_while(|byte| is(**byte)).count()
}

/// Where the name ends that begins there.
pub(super) fn name_end(bytes: &[u8], at: usize) -> usize {
    at + run(bytes, at, is_name)
}

/// The first place from there on that is not blank.
pub(super) fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    at + run(bytes, at, is_blank)
}

/// Where a line begins after the time that a kubelet adds to each.
pub(super) fn after_time(bytes: &[u8]) -> usize {
    let is_time = bytes.len() > 20 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[10] == b'T';
    let end = bytes.iter().take(40).position(|byte| is_blank(*byte));
    end.filter(|_| is_time).map_or(0, |end| end + 1)
}

/// A quote, with the backslashes before it: text inside text inside text has more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    byte: u8,
    slashes: usize,
}

impl Quote {
    /// The quote that is there.
    pub(super) fn at(bytes: &[u8], at: usize) -> Option<Quote> {
        let slashes = run(&bytes[..bytes.len().min(at + LOOK)], at, |byte| byte == b'\\');
        let byte = *bytes.get(at + slashes).filter(|byte| is_quote(**byte))?;
        Some(Quote { byte, slashes })
    }

    /// Its bytes.
    pub(super) fn len(self) -> usize {
        self.slashes + 1
    }

    /// Where the text ends that begins there: at the quote of the same depth, or at the end of the line.
    ///
    /// Each level of text inside text doubles the backslashes and adds one. So behind n of them, one that belongs to
    /// the text stands behind n + (n + 1) · odd, and the one that closes it behind n + (n + 1) · even.
    pub(super) fn end(self, bytes: &[u8], from: usize) -> usize {
        let n = self.slashes;
        let (mut at, mut slashes) = (from, 0);
        while at < bytes.len() {
            if bytes[at] == b'\\' {
                slashes += 1;
            } else {
                let closes = slashes < n || ((slashes - n) / (n + 1)).is_multiple_of(2);
                if bytes[at] == self.byte && closes {
                    // YAML and SQL double a quote that belongs to the text.
                    if self.byte != b'\'' || slashes > 0 || bytes.get(at + 1) != Some(&b'\'') {
                        return at - slashes.min(n);
                    }
                    at += 1;
                }
                slashes = 0;
            }
            at += 1;
        }
        bytes.len()
    }
}

/// The end of a value without the blanks, separators and brackets that belong to what is around it.
fn trimmed(bytes: &[u8], from: usize, to: usize) -> usize {
    let value = &bytes[from..to];
    let [round, square, curly] = [b'(', b'[', b'{'].map(|open| value.contains(&open));
    let is_around = |byte: &&u8| match **byte {
        b')' => !round,
        b']' => !square,
        b'}' => !curly,
        byte => is_blank(byte) || matches!(byte, b',' | b';' | b'\\'),
    };
    to - value.iter().rev().take_while(is_around).count()
}

/// Whether a name with its own value comes there.
fn is_pair(bytes: &[u8], at: usize) -> bool {
    let part = &bytes[..bytes.len().min(at + LOOK)];
    let length = if at < part.len() { run(part, at, |byte| is_name(byte) || byte == b'.') } else { 0 };
    length > 0 && matches!(bytes.get(at + length), Some(b'=' | b':'))
}

/// Where a value without quotes ends, when it is one word.
pub(super) fn word_end(bytes: &[u8], from: usize) -> usize {
    let ends = |at: usize| {
        let next = bytes.get(at + 1).copied();
        match bytes[at] {
            byte if is_blank(byte) => true,
            byte if is_quote(byte) => next.is_none_or(|next| !is_name(next)),
            b',' | b';' | b'&' => {
                next.is_none_or(|next| {
                    is_blank(next) || is_quote(next) || matches!(next, b'\\' | b'}' | b']')
                }) || is_pair(bytes, at + 1)
            }
            _ => false,
        }
    };
    let end = (from..bytes.len()).find(|at| ends(*at)).unwrap_or(bytes.len());
    trimmed(bytes, from, end)
}

/// Where a value without quotes ends, when it may be several words: before the next name with a value.
pub(super) fn open_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        let next = bytes.get(at + 1);
        if is_blank(bytes[at]) {
            let next = skip_blanks(bytes, at);
            if is_pair(bytes, next) {
                break;
            }
            at = next;
            continue;
        }
        if is_quote(bytes[at]) && matches!(next, None | Some(b',' | b'}' | b']' | b'\\')) {
            break;
        }
        at += 1;
    }
    trimmed(bytes, from, at)
}

/// Where the value of a header without quotes ends: at a quote around it, or at the end of the line.
pub(super) fn header_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut after_equals) = (from, false);
    while at < bytes.len() {
        if is_quote(bytes[at]) {
            if !after_equals {
                break;
            }
            // A part of the value that has quotes of its own.
            at += 1 + run(bytes, at + 1, |byte| byte != bytes[at]);
        }
        after_equals = bytes.get(at).is_some_and(|byte| *byte == b'=' || after_equals && *byte == b'\\');
        at += 1;
    }
    trimmed(bytes, from, at.min(bytes.len()))
}

/// What is in a list of values; nothing when it is of objects.
pub(super) fn list(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let from = skip_blanks(bytes, at + 1);
    if bytes[at..].starts_with(REDACTED.as_bytes()) || matches!(bytes.get(from)?, b'{' | b'[' | b']') {
        return None;
    }
    let mut end = from;
    while end < bytes.len() && bytes[end] != b']' {
        end = match Quote::at(bytes, end) {
            Some(quote) => {
                let close = quote.end(bytes, end + quote.len());
                bytes.len().min(close + quote.len())
            }
            None => end + 1,
        };
    }
    Some((from, end))
}

/// The scheme that a value of the Authorization header begins with: its bytes with the blanks after it, and whether one
/// word follows.
pub(super) fn scheme(text: &[u8]) -> Option<(usize, bool)> {
    let length = run(&text[..text.len().min(MAX_SCHEME)], 0, is_name);
    let (_, single) =
        SCHEMES.iter().find(|(known, _)| text[..length].eq_ignore_ascii_case(known.as_bytes()))?;
    let begin = skip_blanks(text, length);
    (begin > length && begin < text.len()).then_some((begin, *single))
}

/// The secret in the value of an Authorization header without quotes, whose first word ends there.
pub(super) fn authorization(bytes: &[u8], at: usize, word: usize) -> Option<(usize, usize)> {
    if let Some((length, single)) = scheme(&bytes[at..]) {
        let from = at + length;
        let to = if single { word_end(bytes, from) } else { header_end(bytes, from) };
        return unless_harmless(bytes, from, to, false);
    }
    let next = skip_blanks(bytes, word);
    if next >= bytes.len() || next == word {
        return unless_harmless(bytes, at, word, false);
    }
    // A scheme that is not known, or a sentence about authorization.
    let second = next + run(bytes, next, |byte| !is_blank(byte));
    let is_made = |from: usize, to: usize| {
        let part = &bytes[from..to];
        part.len() >= 20 || (part.len() >= 8 && part.iter().any(u8::is_ascii_digit))
    };
    (is_made(at, word) || is_made(next, second)).then(|| (at, header_end(bytes, at)))
}

/// A value, unless it is none or no secret.
pub(super) fn unless_harmless(bytes: &[u8], from: usize, to: usize, plural: bool) -> Option<(usize, usize)> {
    (from < to && !is_harmless(&bytes[from..to], plural)).then_some((from, to))
}

/// Whether a value is no secret: nothing, a switch, how many there are, a mask, or where it is to be taken from.
pub(super) fn is_harmless(text: &[u8], plural: bool) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    if text.len() > LOOK {
        return false;
    }
    let inside = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    let variable = inside("$(", ")").or_else(|| inside("${", "}"));
    text.trim().is_empty()
        || HARMLESS.iter().any(|word| text.eq_ignore_ascii_case(word))
        || (plural && text.bytes().all(|byte| byte.is_ascii_digit()))
        || text.bytes().all(|byte| byte == b'*')
        || variable.is_some_and(|name| name.bytes().all(|byte| is_name(byte) || byte == b'.'))
        || inside("{{", "}}").is_some()
}

/// The word before a name, when only a blank is between them.
pub(super) fn word_before(bytes: &[u8], start: usize) -> &[u8] {
    let before = &bytes[start.saturating_sub(MAX_WORD)..start];
    let before = before.strip_suffix(b" ").unwrap_or_default();
    &before[before.len() - before.iter().rev().take_while(|byte| is_name(**byte)).count()..]
}

/// Whether a name is the end of an absolute path.
pub(super) fn is_in_path(bytes: &[u8], start: usize) -> bool {
    let before = &bytes[start.saturating_sub(LOOK)..start];
    let path =
        before.iter().rev().take_while(|byte| is_name(**byte) || matches!(**byte, b'.' | b'/')).count();
    before[before.len() - path..].first() == Some(&b'/')
}

/// Whether what follows a flag is a word about it.
pub(super) fn is_prose(bytes: &[u8], at: usize) -> bool {
    let length = run(&bytes[..bytes.len().min(at + LOOK)], at, |byte| byte.is_ascii_alphabetic());
    bytes[at] == b'-' || PROSE.iter().any(|word| bytes[at..at + length].eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a sentence goes on there: an ordinary word, and another that is no name with a value.
pub(super) fn goes_on_as_prose(bytes: &[u8], at: usize) -> bool {
    let part = &bytes[..bytes.len().min(at + MAX_WORD + 1)];
    let length = usize::from(bytes[at].is_ascii_uppercase());
    let length = length + run(part, at + length, |byte| byte.is_ascii_lowercase());
    let after = at + length + run(part, at + length, |byte| matches!(byte, b':' | b','));
    let next = skip_blanks(bytes, after);
    length > 0
        && next > after
        && bytes.get(next).is_some_and(|byte| byte.is_ascii_alphabetic() || is_quote(*byte))
        && !bytes[next..].iter().take(LOOK).take_while(|byte| !is_blank(**byte)).any(|byte| *byte == b'=')
}

/// Where the value begins of `"value": …`, whose name begins there within such a quote.
pub(super) fn after_value_key(bytes: &[u8], from: usize, open: Quote) -> Option<usize> {
    const NAME: &[u8] = b"value";
    let at = from + NAME.len();
    if !bytes[from..].starts_with(NAME) || Quote::at(bytes, at) != Some(open) {
        return None;
    }
    let colon = skip_blanks(bytes, at + open.len());
    (bytes.get(colon) == Some(&b':')).then(|| skip_blanks(bytes, colon + 1))
}

/// The password of the URL whose authority begins there. Up to `without` it is known that there is none.
///
/// A password may have a slash in it, so the last `@` before a query counts; a port before a path is none.
pub(super) fn url_password(bytes: &[u8], from: usize, without: &mut usize) -> Option<(usize, usize)> {
    let ends = |byte: u8| is_blank(byte) || is_quote(byte) || matches!(byte, b'<' | b'>');
    if from < *without {
        return None;
    }
    let user = run(bytes, from, |byte| !ends(byte) && !matches!(byte, b':' | b'/' | b'@' | b'?' | b'#'));
    let start = from + user + 1;
    if bytes.get(start - 1) != Some(&b':') {
        return None;
    }
    let digits = run(bytes, start, |byte| byte.is_ascii_digit());
    let after = bytes.get(start + digits);
    if digits > 0 && after.is_none_or(|byte| ends(*byte) || matches!(byte, b'/' | b'?' | b'#' | b'\\' | b','))
    {
        return None;
    }
    let (mut at, mut password) = (start, None);
    while at < bytes.len() && !ends(bytes[at]) {
        match bytes[at] {
            b'@' => password = Some(at),
            b'?' | b'#' if password.is_some() => break,
            _ => {}
        }
        at += 1;
    }
    if password.is_none() {
        *without = at;
    }
    unless_harmless(bytes, start, password?, false)
}
