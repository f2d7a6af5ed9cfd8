//! A held field: how its value is read, compared and written.

use super::{document, patch::pointer_parts};
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// How the value of a field is kept and compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// As it is.
    #[default]
    Plain,
    /// One value inside a document that the field holds as text; the rest of it belongs to others.
    Inside(document::Place),
    /// By its hash: the value is large and can be read elsewhere.
    Digest,
    /// What we wrote is in it; the API server may have added defaults.
    Subset,
}

impl How {
    /// True for [`How::Plain`].
    pub fn is_plain(&self) -> bool {
        *self == How::Plain
    }

    /// The value that is compared, from the field as it is. `wanted` is what a subset is looked for.
    pub fn seen(&self, raw: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
        match self {
            How::Plain => raw.cloned(),
            How::Inside(place) => place.read(raw?.as_str()?),
            How::Digest => raw.map(digest),
            How::Subset => {
                let (raw, wanted) = (raw?, wanted?);
                Some(if contains(raw, wanted) { wanted } else { raw }.clone())
            }
        }
    }
}

/// One field that changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// JSON Pointer of the field.
    pub path: String,
    /// How the values are kept and compared.
    pub how: How,
    /// The value before; `None` when the field is absent.
    pub from: Option<Value>,
    /// The value after; `None` removes the field.
    pub to: Option<Value>,
    /// The value to write, when `to` is only its hash.
    pub raw: Option<Value>,
}

impl Change {
    /// A field gets a value.
    pub fn set(target: &DynamicObject, path: impl Into<String>, to: Value) -> Change {
        let path = path.into();
        Change { how: How::Plain, from: field(target, &path), to: Some(to), raw: None, path }
    }

    /// A field deep in the object gets a value; what is missing around it is added with it, and removed with it.
    pub fn set_deep(target: &DynamicObject, path: &str, to: Value) -> Change {
        let (mut path, mut to) = (path, to);
        while let Some((parent, last)) = path.rsplit_once('/')
            && parent.matches('/').count() > 1
            && field(target, parent).is_none()
        {
            to = json!({last.replace("~1", "/").replace("~0", "~"): to});
            path = parent;
        }
        Change { how: How::Subset, ..Change::set(target, path, to) }
    }

    /// A field is removed.
    pub fn remove(target: &DynamicObject, path: impl Into<String>) -> Change {
        let path = path.into();
        Change { how: How::Plain, from: field(target, &path), to: None, raw: None, path }
    }

    /// A large field is replaced by a value that can be read elsewhere; only hashes are kept.
    pub fn digest(target: &DynamicObject, path: impl Into<String>, to: Value) -> Change {
        let path = path.into();
        let from = field(target, &path).as_ref().map(digest);
        Change { how: How::Digest, from, to: Some(digest(&to)), raw: Some(to), path }
    }

    /// One value inside a document gets a value, or is removed.
    pub fn inside(
        target: &DynamicObject,
        path: impl Into<String>,
        place: document::Place,
        to: Option<Value>,
    ) -> Change {
        let (path, how) = (path.into(), How::Inside(place));
        let from = how.seen(field(target, &path).as_ref(), None);
        Change { how, from, to, raw: None, path }
    }

    /// True when the field has the value already.
    pub fn is_none(&self) -> bool {
        self.from == self.to
    }
}

/// The value at a JSON Pointer of an object, in its body or in its metadata.
pub fn field(target: &DynamicObject, path: &str) -> Option<Value> {
    let Some(rest) = path.strip_prefix("/metadata/") else { return target.data.pointer(path).cloned() };
    let parts = pointer_parts(&format!("/{rest}"));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let map = match parts.first() {
        Some(&"labels") => target.metadata.labels.as_ref(),
        Some(&"annotations") => target.metadata.annotations.as_ref(),
        _ => None,
    }?;
    match parts.as_slice() {
        [_] => Some(json!(map)),
        [_, key] => map.get(*key).map(|value| json!(value)),
        _ => None,
    }
}

/// What is kept of a value that is compared by its hash.
pub fn digest(value: &Value) -> Value {
    // Maps are sorted by key, so equal values have equal text.
    let hash = Sha256::digest(value.to_string());
    json!({"sha256": hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
}

/// True when everything in `part` is in `whole`; lists must have the same length.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|there| contains(there, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(there, value)| contains(there, value))
        }
        _ => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_the_api_server_adds_are_no_change_and_another_value_is() {
        let sent = json!({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"]});
        let stored =
            json!({"podSelector": {"matchLabels": {"a": "b"}, "x": 1}, "policyTypes": ["Ingress"], "y": {}});
        assert_eq!(How::Subset.seen(Some(&stored), Some(&sent)), Some(sent.clone()));
        let edited =
            json!({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress", "Egress"]});
        assert_eq!(How::Subset.seen(Some(&edited), Some(&sent)), Some(edited));
    }

    #[test]
    fn equal_values_have_equal_hashes_whatever_the_order_of_their_keys() {
        let (a, b): (Value, Value) = (
            serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).unwrap(),
            serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).unwrap(),
        );
        assert_eq!(digest(&a), digest(&b));
    }

    #[test]
    fn labels_and_annotations_are_fields_like_others() {
        let target: DynamicObject = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a/b": "c"}}, "spec": {"x": 1}}))
        .unwrap();
        assert_eq!(field(&target, "/metadata/labels/a~1b"), Some(json!("c")));
        assert_eq!(field(&target, "/metadata/labels"), Some(json!({"a/b": "c"})));
        assert_eq!(field(&target, "/metadata/annotations/x"), None);
        assert_eq!(field(&target, "/spec/x"), Some(json!(1)));
    }
}
