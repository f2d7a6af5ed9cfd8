//! An object as it is kept: without bookkeeping, and without values that may be secrets.
//!
//! Values are replaced in the object and not in its YAML, so that what is kept is YAML still, and a field that only
//! names a Secret (`secretKeyRef`, `secretName`) says which.

use super::{
    names,
    redact::{REDACTED, redact},
    value::{is_harmless, is_name},
};
use kube::core::DynamicObject;
use serde_json::{Value, json};

/// An object without its managed fields, without what kubectl copied of it, and without what looks like a secret.
pub fn manifest(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    value
}

/// Replaces what looks like a secret, wherever it is.
pub(super) fn hide(value: &mut Value) {
    match value {
        Value::String(text) => *text = redact(text),
        Value::Array(list) => hide_in_list(list),
        Value::Object(map) => {
            let named = map.get("name").and_then(Value::as_str).is_some_and(is_secret_variable);
            for (key, value) in map.iter_mut() {
                let is_variable = named && key == "value" && value.is_string();
                match names::of(key) {
                    _ if is_variable => *value = json!(REDACTED),
                    Some(name) => hide_named(value, name.plural),
                    None => hide(value),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces the value of a field whose name speaks of a secret. What has fields of its own is looked at by those.
fn hide_named(value: &mut Value, plural: bool) {
    match value {
        Value::String(text) if is_harmless(text.as_bytes(), plural) => {}
        Value::Number(_) if plural => {}
        Value::String(_) | Value::Number(_) => *value = json!(REDACTED),
        Value::Array(list) => list.iter_mut().for_each(|value| hide_named(value, plural)),
        Value::Object(_) => hide(value),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Replaces secrets in a list; of arguments also the one after a flag whose name speaks of a secret.
fn hide_in_list(list: &mut [Value]) {
    let mut after_flag = false;
    for value in list {
        let flag = value.as_str().and_then(|text| text.strip_prefix('-'));
        let is_flag = flag.is_some_and(|flag| {
            flag.bytes().all(is_name) && names::of(flag.trim_start_matches('-')).is_some()
        });
        match value {
            Value::String(text) if after_flag && flag_value(text) => *text = REDACTED.to_owned(),
            _ => hide(value),
        }
        after_flag = is_flag;
    }
}

fn flag_value(text: &str) -> bool {
    !text.starts_with('-') && !is_harmless(text.as_bytes(), false)
}

/// Whether a variable may be a secret by its name: here too much is better than too little, for what else a variable may
/// be called nobody knows.
fn is_secret_variable(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "key", "credential", "dsn", "auth", "cookie"]
        .iter()
        .any(|word| name.contains(word))
}
