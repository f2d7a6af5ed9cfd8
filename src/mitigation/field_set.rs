//! Sets of fields as `metadata.managedFields` spells them (FieldsV1): which are below a path, in one and not in another.

use serde_json::{Value, json};

/// True when the set of fields holds the field at the JSON Pointer.
pub fn owns(fields: &Value, path: &str) -> bool {
    parts(path).iter().try_fold(fields, |at, part| at.get(part)).is_some()
}

/// The parts of a JSON Pointer as sets of fields spell them.
pub fn parts(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|part| format!("f:{}", part.replace("~1", "/").replace("~0", "~"))).collect()
}

/// The set of fields below a path.
pub fn below(fields: &Value, path: &str) -> Option<Value> {
    parts(path).iter().try_fold(fields, |at, part| at.get(part)).cloned()
}

/// The part of a value that a set of fields names. Of a list that is all of it, when any of its items is in the set.
pub fn part(value: &Value, set: &Value) -> Option<Value> {
    let members = set.as_object().filter(|members| !members.is_empty());
    let (Some(members), Value::Object(map)) = (members, value) else { return Some(value.clone()) };
    let kept = map.iter().filter_map(|(key, value)| {
        let below = members.get(&format!("f:{key}"))?;
        Some((key.clone(), part(value, below)?))
    });
    let kept: serde_json::Map<String, Value> = kept.collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// What of a set of fields goes to whoever changes the value like this.
pub fn lost(set: &Value, from: Option<&Value>, to: Option<&Value>) -> Option<Value> {
    let members = set.as_object().filter(|members| !members.is_empty());
    let Some(members) = members else { return (from != to).then(|| json!({})) };
    let kept = members.iter().filter_map(|(part, child)| {
        let child = match part.as_str() {
            "." => (from.is_some() && to.is_none()).then(|| json!({})),
            _ => lost(child, member(from, part), member(to, part)),
        };
        Some((part.clone(), child?))
    });
    let kept: serde_json::Map<String, Value> = kept.collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// The member of a value that a part of a set of fields stands for.
fn member<'v>(value: Option<&'v Value>, part: &str) -> Option<&'v Value> {
    let value = value?;
    let (kind, name) = part.split_once(':')?;
    let parsed = || serde_json::from_str::<Value>(name).ok();
    match kind {
        "f" => value.get(name),
        "k" => {
            let keys = parsed()?;
            // A key that has its default may be missing in the item.
            let is = |item: &&Value| {
                keys.as_object().is_some_and(|keys| {
                    keys.iter().all(|(key, value)| item.get(key).is_none_or(|there| there == value))
                })
            };
            value.as_array()?.iter().find(is)
        }
        "v" => {
            let wanted = parsed()?;
            value.as_array()?.iter().find(|item| **item == wanted)
        }
        "i" => value.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// A set of fields without those of another.
pub fn without(set: &Value, other: &Value) -> Option<Value> {
    let members = set.as_object().filter(|members| !members.is_empty())?;
    let left = members.iter().filter_map(|(part, child)| match other.get(part) {
        None => Some((part.clone(), child.clone())),
        Some(there) => Some((part.clone(), without(child, there)?)),
    });
    let left: serde_json::Map<String, Value> = left.collect();
    (!left.is_empty()).then_some(Value::Object(left))
}

/// Two sets of fields in one. An empty object inside a set stands for the field itself; as soon as it has children,
/// that is said by a dot.
pub fn merged(fields: &Value, more: &Value) -> Value {
    let mut map = fields.as_object().cloned().unwrap_or_default();
    for (part, child) in more.as_object().into_iter().flatten() {
        let both = match map.get(part) {
            None => child.clone(),
            Some(there) if there == child => continue,
            Some(leaf) if *leaf == json!({}) => merged(&json!({".": {}}), child),
            Some(there) if *child == json!({}) => merged(there, &json!({".": {}})),
            Some(there) => merged(there, child),
        };
        map.insert(part.clone(), both);
    }
    Value::Object(map)
}

/// A set of fields without one, and without what is empty then.
pub fn without_leaf(fields: &Value, parts: &[String]) -> Value {
    let mut map = fields.as_object().cloned().unwrap_or_default();
    let Some((first, rest)) = parts.split_first() else { return fields.clone() };
    let Some(child) = map.get(first) else { return fields.clone() };
    let remaining = if rest.is_empty() { json!({}) } else { without_leaf(child, rest) };
    if remaining == json!({}) && (rest.is_empty() || *child != json!({})) {
        map.remove(first);
    } else {
        map.insert(first.clone(), remaining);
    }
    Value::Object(map)
}

/// The paths of all maps that a set of fields owns as such.
pub fn maps(fields: &Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (part, child) in fields.as_object().into_iter().flatten() {
        if part == "." {
            found.push(Vec::new());
        }
        found.extend(maps(child).into_iter().map(|below| [vec![part.clone()], below].concat()));
    }
    found
}
