//! Checks a document against the schema that the API server would check it against, so that a pull request fails and
//! not the apply after it.
//!
//! Covered are types, unknown and required fields, lengths, enumerations, times and sets. Patterns and CEL rules are
//! left to the API server.

use crate::crds::{END_OF_TIME, TOO_LATE};
use crate::decide::postmortem::{Finding, Level};
use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value};

/// What the API server would refuse of `value`, which stands at `path`.
pub fn check(schema: &Value, value: &Value, path: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    walk(schema, value, path, &mut found);
    found
}

fn invalid(path: &str, message: String) -> Finding {
    Finding { level: Level::Invalid, rule: "schema", field: path.to_owned(), message }
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<Finding>) {
    // An explicit null is as good as leaving the field out.
    if value.is_null() {
        return;
    }
    let expected = schema["type"].as_str().unwrap_or("object");
    let fits = match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    };
    if !fits {
        return found.push(invalid(
            path,
            format!("a value of type {expected} is expected, {} is given", name(value)),
        ));
    }
    match value {
        Value::Object(map) => object(schema, map, path, found),
        Value::Array(items) => array(schema, items, path, found),
        Value::String(text) => string(schema, text, path, found),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn object(schema: &Value, map: &Map<String, Value>, path: &str, found: &mut Vec<Finding>) {
    let known = schema["properties"].as_object();
    for (key, value) in map {
        let path = format!("{path}.{key}");
        if let Some(child) = known.and_then(|known| known.get(key)) {
            walk(child, value, &path, found);
        } else if schema["additionalProperties"].is_object() {
            walk(&schema["additionalProperties"], value, &path, found);
        } else if let Some(known) = known {
            let meant = known.keys().find(|k| is_alike(k, key));
            let hint = meant.map(|k| format!("; {k} is meant?")).unwrap_or_default();
            found.push(invalid(&path, format!("there is no such field{hint}")));
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for key in required.filter(|key| map.get(*key).is_none_or(Value::is_null)) {
        found.push(invalid(&format!("{path}.{key}"), "the field is required".to_owned()));
    }
}

fn array(schema: &Value, items: &[Value], path: &str, found: &mut Vec<Finding>) {
    if let Some(max) = schema["maxItems"].as_u64().filter(|max| items.len() as u64 > *max) {
        found.push(invalid(path, format!("{} entries are given, {max} are allowed", items.len())));
    }
    for (index, item) in items.iter().enumerate() {
        walk(&schema["items"], item, &format!("{path}[{index}]"), found);
        if schema["x-kubernetes-list-type"] == "set" && items[..index].contains(item) {
            found.push(invalid(&format!("{path}[{index}]"), "the entry is given twice".to_owned()));
        }
    }
}

fn string(schema: &Value, text: &str, path: &str, found: &mut Vec<Finding>) {
    let length = text.chars().count() as u64;
    if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
        found.push(invalid(path, format!("{length} characters are given, {max} are allowed")));
    }
    if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
        found.push(invalid(path, format!("at least {min} characters are needed")));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.iter().any(|v| v == text)
    {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
        found.push(invalid(path, format!("one of {} is expected", values.join(", "))));
    }
    if schema["format"] == "date-time"
        && let Err(message) = time(text)
    {
        found.push(invalid(path, message.to_owned()));
    }
}

/// Whether the API server takes a text as a time, as RFC 3339 has it. The library that reads it later is more lenient.
fn time(text: &str) -> Result<(), &'static str> {
    let wrong = Err("a time such as 2026-11-23T10:02:00Z is expected");
    let is_like = |text: &[u8], form: &[u8]| {
        text.len() == form.len()
            && text.iter().zip(form).all(|(c, f)| if *f == b'0' { c.is_ascii_digit() } else { c == f })
    };
    let Some((moment, rest)) = text.as_bytes().split_at_checked("0000-00-00T00:00:00".len()) else {
        return wrong;
    };
    let fraction = rest.strip_prefix(b".").map_or(0, |digits| {
        // The dot, and one digit at least.
        1 + digits.iter().take_while(|c| c.is_ascii_digit()).count()
    });
    let (fraction, offset) = rest.split_at(fraction);
    let has_form = is_like(moment, b"0000-00-00T00:00:00")
        && fraction.len() != 1
        && (is_like(offset, b"Z") || is_like(offset, b"+00:00") || is_like(offset, b"-00:00"));
    // A leap second is none to the API server.
    if !has_form || moment.ends_with(b"60") || offset.get(1..3).is_some_and(|hours| hours > b"23".as_slice())
    {
        return wrong;
    }
    if fraction.len() > "000000000".len() + 1 {
        return Err("a second has at most nine digits after the dot");
    }
    match text.parse::<Timestamp>() {
        Ok(at) if at.to_zoned(TimeZone::UTC).year() < END_OF_TIME => Ok(()),
        Ok(_) => Err(TOO_LATE),
        // The last days of that year are beyond what can be read.
        Err(_) if moment.starts_with(b"9999") => Err(TOO_LATE),
        Err(_) => wrong,
    }
}

fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number (quotes make it text)",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Whether one name is likely a misspelling of the other: letter case, a plural, a short form.
fn is_alike(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let (short, long) = if a.len() < b.len() { (&a, &b) } else { (&b, &a) };
    short.len() >= 3 && (long.starts_with(short.as_str()) || long.ends_with(short.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the real API server says of the same texts is in tests/e2e/schema_incident.rs.
    #[test]
    fn a_time_is_one_to_the_check_when_it_is_one_to_the_api_server() {
        for text in [
            "2026-11-20T10:00:00Z",
            "2026-11-20T10:00:00.123456789+09:00",
            "2026-11-20T10:00:00.1-23:59",
            "0001-01-01T00:00:00Z",
            "9998-12-31T23:59:59Z",
        ] {
            assert_eq!(time(text), Ok(()), "{text}");
        }
        let wrong = Err("a time such as 2026-11-23T10:02:00Z is expected");
        for text in [
            "2026-11-20 10:00:00Z",
            "2026-11-20t10:00:00Z",
            "2026-11-20T10:00:00z",
            "2026-11-20T10:00Z",
            "2026-11-20T10:00:00+09",
            "2026-11-20T10:00:00+0900",
            "2026-11-20T23:59:60Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T10:00:00",
            "2026-11-20T10:00:00.Z",
            "2026-11-20T10:00:00+24:00",
            "2026-11-20T10:00:00+09:60",
            "2026-11-20T10:00:00Z[UTC]",
            "2026-02-30T10:00:00Z",
            "2026-11-20",
            "yesterday",
            "",
            "결제가 실패하고 있습니다",
        ] {
            assert_eq!(time(text), wrong, "{text}");
        }
        assert_eq!(time("9999-01-01T00:00:00Z"), Err(TOO_LATE));
        assert_eq!(time("9999-12-31T23:59:59Z"), Err(TOO_LATE));
        assert_eq!(
            time("2026-11-20T10:00:00.1234567890Z"),
            Err("a second has at most nine digits after the dot")
        );
    }
}
