//! Writes YAML for people who keep it in git: keys in a given order, long text as blocks, quotes where they are
//! needed and nowhere else. The same value gives the same bytes, and reading them back gives the same value.

use serde_json::{Map, Value};
use std::fmt::Write;

/// Longest text that stands on the line of its key.
const MAX_INLINE: usize = 100;

/// A document. `order` names the keys that come first, in that order, wherever they occur; the others follow by name.
pub fn write(value: &Map<String, Value>, order: &[&str]) -> String {
    let mut out = String::new();
    Writer { out: &mut out, order }.object(value, 0);
    out
}

struct Writer<'a> {
    out: &'a mut String,
    order: &'a [&'a str],
}

impl Writer<'_> {
    /// Each key on a line of its own, indented.
    fn object(&mut self, object: &Map<String, Value>, indent: usize) {
        let place = |key: &str| self.order.iter().position(|known| *known == key).unwrap_or(self.order.len());
        let mut keys: Vec<&String> = object.keys().collect();
        keys.sort_by(|a, b| (place(a), a).cmp(&(place(b), b)));
        for (index, key) in keys.into_iter().enumerate() {
            // The first key of a list's item follows its dash.
            if index > 0 || !self.out.ends_with("- ") {
                self.indent(indent);
            }
            self.out.push_str(&scalar(key));
            self.out.push(':');
            self.value(&object[key], indent);
        }
    }

    /// What follows a key.
    fn value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(object) if !object.is_empty() => {
                self.out.push('\n');
                self.object(object, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                self.out.push('\n');
                for item in items {
                    self.indent(indent);
                    self.out.push('-');
                    match item {
                        Value::Object(object) if !object.is_empty() => {
                            self.out.push(' ');
                            self.object(object, indent + 2);
                        }
                        item => self.value(item, indent + 2),
                    }
                }
            }
            Value::String(text) => match block(text) {
                Some(header) => {
                    let _ = writeln!(self.out, " {header}");
                    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
                        if !line.is_empty() {
                            self.indent(indent + 2);
                            self.out.push_str(line);
                        }
                        self.out.push('\n');
                    }
                }
                None => {
                    let _ = writeln!(self.out, " {}", scalar(text));
                }
            },
            other => {
                let _ = writeln!(self.out, " {other}");
            }
        }
    }

    fn indent(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }
}

/// The header of the block in which a text can stand as it is; `None` when it has to be quoted.
fn block(text: &str) -> Option<&'static str> {
    let long = text.contains('\n') || text.chars().count() > MAX_INLINE;
    // The first line sets the indentation, so it may neither be empty nor begin with a space; a last line that is
    // empty needs another header.
    let odd = text.starts_with(['\n', ' ', '\t']) || text.ends_with("\n\n") || text == "\n";
    let shown = |c: char| c == '\n' || c == '\t' || is_shown(c);
    // What stands at the end of a line cannot be seen, and editors take it away.
    let trailing = text.split('\n').any(|line| line.ends_with([' ', '\t']));
    let fits = long && !odd && !trailing && text.chars().all(shown);
    fits.then_some(if text.ends_with('\n') { "|" } else { "|-" })
}

/// Whether YAML takes a character as it is, and a reader sees it.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        && (c as u32 & 0xfffe) != 0xfffe
}

/// A text on one line: plain where nothing in it means something to YAML, in double quotes elsewhere.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_shown(c) => out.push(c),
            c if (c as u32) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => {
                let _ = write!(out, "\\U{:08X}", c as u32);
            }
        }
    }
    out.push('"');
    out
}

/// Whether a text can stand without quotes: it begins with a letter, holds nothing that means something, and is no
/// word that some reader takes for something else.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 13] =
        ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "nil", "none"];
    let inner = |c: char| c.is_alphanumeric() || " -_./,()%+;'!?@=".contains(c);
    text.starts_with(|c: char| c.is_alphabetic())
        && text.chars().all(inner)
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn written(value: Value) -> String {
        write(value.as_object().unwrap(), &["name", "id"])
    }

    #[test]
    fn text_stands_as_one_would_write_it() {
        let text = written(json!({
            "b": "two words", "name": "checkout-errors", "a": {"z": "40 % of checkouts", "on": "on", "c": 7, "e": {}, "l": []},
            "text": "# Cause\n\n- one\n- two\n", "last": "one\ntwo", "long": "word ".repeat(30).trim(),
            "items": [{"title": "t: u", "id": "x"}, {"id": "w", "more": ["p", "q: r"]}, "plain"],
        }));
        let long = "word ".repeat(30);
        let expected = format!(
            "name: checkout-errors
a:
  c: 7
  e: {{}}
  l: []
  \"on\": \"on\"
  z: \"40 % of checkouts\"
b: two words
items:
- id: x
  title: \"t: u\"
- id: w
  more:
  - p
  - \"q: r\"
- plain
last: |-
  one
  two
long: |-
  {}
text: |
  # Cause

  - one
  - two
",
            long.trim()
        );
        assert_eq!(text, expected);
    }

    fn read(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    #[test]
    fn whatever_looks_like_something_else_is_read_back_as_text() {
        for text in [
            "",
            " ",
            "\n",
            "\n\n",
            "a\n\n",
            "a\n",
            "a \nb",
            " a\nb",
            "\ta\nb",
            "yes",
            "No",
            "null",
            "~",
            "1e3",
            "0x1f",
            "12:30:45",
            "2026-11-23",
            "2026-11-23T10:00:00Z",
            "- a",
            "? a",
            "a: b",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "---",
            "--- a\nb",
            "...",
            "a\n---\nb",
            "{a}",
            "[a]",
            "'a'",
            "\"a\"",
            "a\\b",
            "a\r\nb",
            "a\0b",
            "\u{85}",
            "\u{2028}x",
            "\u{feff}",
            "\u{fffe}",
            "\u{1f525}",
            "\u{10ffff}",
            "결제\n오류",
            ".inf",
            "=",
            "<<",
            "name:\n  - x\n",
            "a\n  b\n c",
            "key: |\n  x\n",
        ] {
            let value = json!({"k": text, "l": [text, {"m": text, "n": text}], "o": {"p": text}, text: 1});
            assert_eq!(read(&written(value.clone())), value, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(texts in prop::collection::vec("[a-c \\n\\t:#|>'\"\\\\{}\\[\\],&*!%@`~\\-?0-9\u{0}\u{85}\u{2028}한]{0,130}", 1..6)) {
            let items: Vec<_> = texts.iter().map(|t| json!({"id": t, "title": [t]})).collect();
            let value = json!({"spec": {"a": texts[0], "items": items}, "z": texts});
            prop_assert_eq!(read(&written(value.clone())), value);
        }
    }
}
