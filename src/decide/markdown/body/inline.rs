//! One line of text at a time: what would be interpreted and may not be, is shown.
//!
//! Every code span ends on its line, so no line changes what another one means.

fn begins_tag(after: &str) -> bool {
    after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'))
}

/// Text in which no tag begins; for code that stands there as it is.
pub(super) fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        out.push_str(if begins_tag(after) { "&lt;" } else { "<" });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// One line of text: no tags, no code span that goes on beyond the line, no link that runs something.
pub(super) fn safe(text: &str, tables: bool) -> String {
    // In a table a `|` ends its cell, and with it the code span.
    let distrusted = tables && spans(text).any(|span| span.contains('|'));
    let mut out = String::with_capacity(text.len() + 8);
    let mut before = ' ';
    // An address in running text, which GitHub makes a link, lasts until a space and takes marks with it.
    let mut address = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let mut taken = c.len_utf8();
        address = (address || begins_address(rest)) && c != ' ';
        if address && c == '`' {
            out.push(' ');
            address = false;
        }
        match c {
            '\\' if after.starts_with('<') => {
                taken = 2;
                out.push_str("&lt;");
            }
            '\\' if after.starts_with(|c: char| c.is_ascii_punctuation()) => {
                taken = 2;
                out.push_str(&rest[..2]);
            }
            '`' => match code_span(rest) {
                Some(span) => {
                    taken = span.len();
                    if distrusted {
                        out.push_str(&without_tags(span));
                    } else {
                        out.push_str(span);
                    }
                }
                None => {
                    taken = rest.len() - rest.trim_start_matches('`').len();
                    out.push_str(&"\\`".repeat(taken));
                }
            },
            '<' => match autolink(rest) {
                Some(link) => {
                    taken = link.len();
                    out.push_str(link);
                }
                None => out.push_str(if begins_tag(after) { "&lt;" } else { "<" }),
            },
            '&' => out.push_str(if is_odd_entity(rest) { "&amp;" } else { "&" }),
            _ => {
                if !before.is_alphanumeric() && begins_script(rest) {
                    out.push_str("unsafe-");
                }
                out.push(c);
            }
        }
        before = rest[..taken].chars().last().unwrap_or(c);
        rest = &rest[taken..];
    }
    out
}

/// The code span that a text begins with, if it ends on this line.
fn code_span(text: &str) -> Option<&str> {
    let length = text.len() - text.trim_start_matches('`').len();
    let mut at = length;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        let run = text[start..].len() - text[start..].trim_start_matches('`').len();
        at = start + run;
        if run == length {
            return Some(&text[..at]);
        }
    }
    None
}

fn spans(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            if c == '\\' && after.starts_with(|c: char| c.is_ascii_punctuation()) {
                rest = &after[1..];
            } else if c == '`' {
                let span = code_span(rest);
                let run = rest.len() - rest.trim_start_matches('`').len();
                rest = &rest[span.map_or(run, str::len)..];
                if span.is_some() {
                    return span;
                }
            } else {
                rest = after;
            }
        }
        None
    })
}

fn begins_address(text: &str) -> bool {
    ["http://", "https://", "ftp://", "www."]
        .iter()
        .any(|start| text.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)))
}

/// `<https://…>`, which is a link and no tag.
fn autolink(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('<')?;
    let scheme = ["https://", "http://", "mailto:"].iter().find(|scheme| inner.starts_with(**scheme))?;
    let end = inner.find(|c: char| c.is_whitespace() || c.is_control() || "<>`|\\\"".contains(c))?;
    (end > scheme.len() && inner[end..].starts_with('>')).then(|| &text[..end + 2])
}

/// Entities that need not be understood: all numbers, and names beyond the usual ones.
fn is_odd_entity(text: &str) -> bool {
    const USUAL: [&str; 18] = [
        "amp", "lt", "gt", "quot", "apos", "nbsp", "ndash", "mdash", "hellip", "copy", "reg", "trade", "deg",
        "times", "middot", "bull", "larr", "rarr",
    ];
    let Some((name, _)) = text[1..].split_once(';') else { return false };
    let number = name.starts_with('#');
    let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    number || (named && !USUAL.contains(&name))
}

/// `javascript:…` and what else a link could run.
fn begins_script(text: &str) -> bool {
    ["javascript:", "vbscript:", "data:text/", "data:image/svg", "data:application/"].iter().any(|start| {
        let (scheme, rest) = start.split_at(start.find(':').unwrap_or_default());
        let Some((word, after)) = text.split_at_checked(scheme.len()) else { return false };
        let after = after.strip_prefix('\\').unwrap_or(after);
        let type_ = after.get(..rest.len());
        word.eq_ignore_ascii_case(scheme) && type_.is_some_and(|t| t.eq_ignore_ascii_case(rest))
    })
}
