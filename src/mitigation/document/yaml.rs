//! Where a value stands in a YAML text.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::{fmt, ops::Range};

/// The document as a value.
pub fn parse(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|e| in_our_words(&e.to_string()))
}

/// What is wrong with a text, without the advice that the library gives to programmers.
fn in_our_words(error: &str) -> String {
    if error.contains("from_str_multiple") {
        return "it has several documents (---), and which one is meant cannot be said".to_owned();
    }
    let advice = error.find(", set DuplicateKeyPolicy").or_else(|| error.find("; set DuplicateKeyPolicy"));
    error[..advice.unwrap_or(error.len())].to_owned()
}

/// The words for true and false that older YAML has; each pair stands for the other in a document.
const SWITCHES: [[&str; 2]; 6] =
    [["on", "off"], ["On", "Off"], ["ON", "OFF"], ["yes", "no"], ["Yes", "No"], ["YES", "NO"]];

/// What such a word means, and the pair it is of.
pub fn switch(word: &str) -> Option<(bool, [&'static str; 2])> {
    SWITCHES.iter().find_map(|pair| Some((pair.iter().position(|w| *w == word)? == 0, *pair)))
}

/// The bytes of the value at a path.
pub fn span(text: &str, path: &[String]) -> Option<Range<usize>> {
    let root: Spanned<Node> = serde_saphyr::from_str(text).ok()?;
    let mut at = &root;
    for key in path {
        at = match &at.value {
            Node::Map(entries) => &entries.iter().find(|(name, _)| name == key)?.1,
            Node::List(entries) => entries.get(key.parse::<usize>().ok()?)?,
            Node::Leaf => return None,
        };
        // An alias stands for a value that others share.
        if at.referenced != at.defined {
            return None;
        }
    }
    let start = bytes(at)?.start;
    let end = match text.get(start..)?.chars().next()? {
        open @ ('{' | '[') => start + closing(&text[start..], open)?,
        _ => end(at)?,
    };
    // What stands in a block ends with its last value, not with the space behind it.
    let trimmed = text.get(start..end)?.trim_end().len();
    Some(start..start + trimmed)
}

fn bytes(node: &Spanned<Node>) -> Option<Range<usize>> {
    let span = node.defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    Some(start..start + usize::try_from(span.byte_len()?).ok()?)
}

/// Where the last value in it ends.
fn end(node: &Spanned<Node>) -> Option<usize> {
    let own = bytes(node)?.end;
    match &node.value {
        Node::Leaf => Some(own),
        Node::Map(entries) => entries.iter().map(|(_, child)| end(child)).try_fold(own, latest),
        Node::List(entries) => entries.iter().map(end).try_fold(own, latest),
    }
}

fn latest(known: usize, end: Option<usize>) -> Option<usize> {
    end.map(|end| known.max(end))
}

/// Length of a map or list in brackets, from its opening bracket on.
fn closing(text: &str, open: char) -> Option<usize> {
    let close = if open == '{' { '}' } else { ']' };
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    for (index, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == open => depth += 1,
            None if c == close => {
                depth -= 1;
                if depth == 0 {
                    return Some(index + c.len_utf8());
                }
            }
            None => {}
        }
    }
    None
}

/// The shape of a document.
enum Node {
    Leaf,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Node::List(entries))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        Node::deserialize(inner)
    }
}
