//! Label selectors, as the API server matches them.

use serde_json::Value;
use std::collections::BTreeMap;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// True when a LabelSelector (matchLabels and matchExpressions) selects what has these labels. An empty one selects
/// everything.
pub fn selects(selector: &Value, labels: &Labels) -> bool {
    let pairs = selector.get("matchLabels").and_then(Value::as_object);
    let terms = selector.get("matchExpressions").and_then(Value::as_array);
    pairs.into_iter().flatten().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
        && terms.into_iter().flatten().all(|term| holds(term, labels))
}

fn holds(term: &Value, labels: &Labels) -> bool {
    let text = |key: &str| term.get(key).and_then(Value::as_str).unwrap_or_default();
    let present = labels.get(text("key"));
    let values = term.get("values").and_then(Value::as_array);
    let listed = present.is_some_and(|present| {
        values.into_iter().flatten().any(|value| value.as_str() == Some(present.as_str()))
    });
    match text("operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => present.is_some(),
        "DoesNotExist" => present.is_none(),
        _ => false,
    }
}

/// A map of labels out of an object.
pub fn labels(value: Option<&Value>) -> Labels {
    let map = value.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_the_api_server_matches() {
        let pod = labels(Some(&json!({"app": "db", "role": "primary"})));
        let yes = [
            json!({}),
            json!({"matchLabels": {"app": "db"}}),
            json!({"matchExpressions": [{"key": "role", "operator": "In", "values": ["primary", "x"]}]}),
            json!({"matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["replica"]}]}),
            json!({"matchExpressions": [{"key": "other", "operator": "NotIn", "values": ["x"]}]}),
            json!({"matchExpressions": [{"key": "role", "operator": "Exists"}]}),
            json!({"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]}),
        ];
        for selector in yes {
            assert!(selects(&selector, &pod), "{selector}");
        }
        let no = [
            json!({"matchLabels": {"app": "web"}}),
            json!({"matchLabels": {"app": "db", "zone": "a"}}),
            json!({"matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["primary"]}]}),
            json!({"matchExpressions": [{"key": "other", "operator": "In", "values": ["x"]}]}),
            json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
        ];
        for selector in no {
            assert!(!selects(&selector, &pod), "{selector}");
        }
    }
}
