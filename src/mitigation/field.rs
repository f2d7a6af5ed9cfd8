//! A held field: how its value is read, compared and written.

use super::{
    document,
    patch::{pointer, pointer_parts},
    revisions::Pin,
};
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
    /// One member of a list; the other members belong to others.
    Member(Member),
    /// By its hash, like [`How::Digest`]: the template of a workload, kept in its revisions.
    Revision(Box<Pin>),
    /// As it is, and several mitigations may hold it at once: whoever goes last puts back what was there first.
    Shared,
}

/// One member of a list that others add to as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member.
    pub item: Value,
    /// Without it, the field is a text with commas between the members. With it, the field is a list of objects, and
    /// the member stands in the list under this key of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_each: Option<String>,
}

impl Member {
    /// The member, when the field has it.
    fn read(&self, raw: &Value) -> Option<Value> {
        let there = match &self.of_each {
            None => raw.as_str()?.split(',').any(|part| self.is(part)),
            Some(key) => {
                let lists = raw.as_array()?.iter().filter_map(|entry| entry.get(key)?.as_array());
                lists.flatten().any(|item| *item == self.item)
            }
        };
        there.then(|| self.item.clone())
    }

    fn is(&self, part: &str) -> bool {
        self.item.as_str() == Some(part.trim())
    }

    /// The list in words; `path` is that of the field.
    fn list(&self, path: &str) -> String {
        match &self.of_each {
            None => path.to_owned(),
            Some(key) => format!("{key} of each of {path}"),
        }
    }

    /// That it is added to the list, or taken out of it.
    pub fn comes(&self, path: &str, added: bool) -> String {
        let what = if added { "added to" } else { "taken out of" };
        format!("{} {what} {}", self.item, self.list(path))
    }

    /// That it is in the list already.
    pub fn is_there(&self, path: &str) -> String {
        format!("{} is in {}", self.item, self.list(path))
    }

    /// That it is not in the list any more.
    pub fn is_missing(&self, path: &str) -> String {
        format!("{} is not in {}", self.item, self.list(path))
    }

    /// The field with the member, or without it and without what is empty then.
    pub fn write(&self, raw: Option<Value>, add: bool) -> Option<Value> {
        let Some(key) = &self.of_each else {
            let text = raw.as_ref().and_then(Value::as_str).unwrap_or_default();
            let mut parts: Vec<&str> = text.split(',').filter(|part| !self.is(part)).collect();
            if text.is_empty() {
                parts.clear();
            }
            if add {
                parts.extend(self.item.as_str());
            }
            return (!parts.is_empty()).then(|| json!(parts.join(",")));
        };
        let mut raw = raw?;
        for entry in raw.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            let list = entry.get(key).and_then(Value::as_array);
            let mut list: Vec<Value> =
                list.into_iter().flatten().filter(|item| **item != self.item).cloned().collect();
            if add {
                list.push(self.item.clone());
            }
            if list.is_empty() {
                entry.remove(key);
            } else {
                entry.insert(key.clone(), Value::Array(list));
            }
        }
        Some(raw)
    }
}

impl How {
    /// True for [`How::Plain`].
    pub fn is_plain(&self) -> bool {
        *self == How::Plain
    }

    /// True for something of ours in a field whose other contents belong to others, who change them meanwhile.
    pub fn is_part(&self) -> bool {
        match self {
            How::Inside(_) | How::Member(_) => true,
            How::Plain | How::Digest | How::Subset | How::Revision(_) | How::Shared => false,
        }
    }

    /// True when only the hash of the value is kept.
    pub fn is_hashed(&self) -> bool {
        matches!(self, How::Digest | How::Revision(_))
    }

    /// A value as people are told it.
    pub fn told(&self, value: Option<&Value>) -> String {
        match (self, value) {
            (_, None) => "absent".to_owned(),
            (How::Inside(_), Some(value)) => document::told(value),
            (_, Some(value)) => value.to_string(),
        }
    }

    /// True when what is written takes everything out of a list or map inside a document.
    pub fn empties(&self, to: Option<&Value>) -> bool {
        matches!(self, How::Inside(_)) && to == Some(&document::empty_map())
    }

    /// The same, with what is to be known of the field as it is so that it can be put back.
    #[must_use]
    pub fn captured(&self, raw: Option<&Value>) -> How {
        match (self, raw.and_then(Value::as_str)) {
            (How::Inside(place), Some(text)) => How::Inside(place.as_written(text)),
            _ => self.clone(),
        }
    }

    /// The value that is compared, from the field as it is. `wanted` is what a subset is looked for.
    pub fn seen(&self, raw: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
        match self {
            How::Plain | How::Shared => raw.cloned(),
            How::Inside(place) => place.read(raw?.as_str()?),
            How::Digest | How::Revision(_) => raw.map(digest),
            How::Member(member) => member.read(raw?),
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

    /// A field gets a value that other mitigations may give it as well.
    pub fn share(target: &DynamicObject, path: impl Into<String>, to: Value) -> Change {
        Change { how: How::Shared, ..Change::set(target, path, to) }
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

    /// A field gets a value. Where the map around it is missing, both are added, and removed together: left alone, the
    /// API server would fill the map with defaults that were not there before.
    pub fn set_whole(target: &DynamicObject, path: &str, to: Value) -> Change {
        let around = path.rsplit_once('/').map_or("", |(around, _)| around);
        match field(target, around) {
            Some(_) => Change::set(target, path, to),
            None => Change::set_deep(target, path, to),
        }
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

    /// The template of a workload is replaced by that of one of its revisions.
    pub fn revision(target: &DynamicObject, path: impl Into<String>, to: Value, pin: Pin) -> Change {
        Change { how: How::Revision(Box::new(pin)), ..Change::digest(target, path, to) }
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

    /// A list gets a member; the other members belong to others.
    pub fn member(target: &DynamicObject, path: impl Into<String>, member: Member) -> Change {
        let (path, to) = (path.into(), Some(member.item.clone()));
        let how = How::Member(member);
        let from = how.seen(field(target, &path).as_ref(), None);
        Change { how, from, to, raw: None, path }
    }

    /// True when the field has the value already.
    pub fn is_none(&self) -> bool {
        self.from == self.to
    }
}

/// A JSON Pointer in the notation of `kubectl explain`: `spec.replicas`.
pub fn dotted(path: &str) -> String {
    path.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
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

/// The paths of what is in a value and is no map itself.
pub fn leaves(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().flat_map(|(key, value)| leaves(&format!("{path}{}", pointer(&[key])), value)).collect()
        }
        _ => vec![path.to_owned()],
    }
}

/// A map with what is in another one; where both have a value, that of the other.
pub fn merged(whole: &Value, part: &Value) -> Value {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            let mut all = whole.clone();
            for (key, value) in part {
                let value = whole.get(key).map_or_else(|| value.clone(), |there| merged(there, value));
                all.insert(key.clone(), value);
            }
            Value::Object(all)
        }
        _ => part.clone(),
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
    fn a_member_of_a_list_comes_and_goes_and_the_others_stay_as_they_are() {
        let text = Member { item: json!("ours"), of_each: None };
        for before in [json!("a, b"), json!("a")] {
            let with = text.write(Some(before.clone()), true).unwrap();
            assert_eq!(text.read(&with), Some(json!("ours")));
            assert_eq!(text.read(&before), None);
            // Somebody else adds one meanwhile.
            let more = json!(format!("{},theirs", with.as_str().unwrap()));
            let left = text.write(Some(more), false).unwrap();
            assert_eq!(left, json!(format!("{},theirs", before.as_str().unwrap())));
            assert_eq!(text.write(Some(with), false), Some(before));
        }
        assert_eq!(text.write(None, true), Some(json!("ours")));
        assert_eq!(text.write(Some(json!("ours")), false), None);

        let each = Member { item: json!({"name": "ours"}), of_each: Some("middlewares".into()) };
        let before = json!([{"match": "a"}, {"match": "b", "middlewares": [{"name": "x"}]}]);
        let with = each.write(Some(before.clone()), true).unwrap();
        assert_eq!(with[0]["middlewares"], json!([{"name": "ours"}]));
        assert_eq!(with[1]["middlewares"], json!([{"name": "x"}, {"name": "ours"}]));
        assert_eq!((each.read(&with), each.read(&before)), (Some(json!({"name": "ours"})), None));
        assert_eq!(each.write(Some(with), false), Some(before));
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
