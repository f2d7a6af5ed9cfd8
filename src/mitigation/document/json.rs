//! Where a value stands in a JSON text.

use jsonc_parser::{CollectOptions, ParseOptions, ast::Value, common::Ranged, parse_to_ast};
use std::ops::Range;

/// The bytes of the value at a path.
pub fn span(text: &str, path: &[String]) -> Option<Range<usize>> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default()).ok()?;
    let mut at = parsed.value.as_ref()?;
    for key in path {
        at = match at {
            // JSON takes the last of equal names.
            Value::Object(map) => &map.properties.iter().rev().find(|p| p.name.as_str() == key)?.value,
            Value::Array(list) => list.elements.get(key.parse::<usize>().ok()?)?,
            Value::StringLit(_) | Value::NumberLit(_) | Value::BooleanLit(_) | Value::NullKeyword(_) => {
                return None;
            }
        };
    }
    Some(at.range().start..at.range().end)
}
