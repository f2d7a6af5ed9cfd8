//! Objects from a watch: not read before somebody wants them, and without one that cannot be read ending the watch for
//! all others.
//!
//! Most of what a watch tells is an echo of our own writes, of which the version is all that matters. So only the names
//! are read at first. What the API server notes of writers, the largest part of many objects, is dropped at once.
//!
//! kube's `DeserializeGuard` reads and copies every object twice.

use kube::{
    Resource,
    core::{ObjectMeta, error_boundary::InvalidObject},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, fmt, marker::PhantomData};

/// To who asks it for a newtype of this name, serde_json gives the text. It does so for its own `RawValue`, which cannot
/// be had where an object stands in front of what tells its type; everything else gives the object, as always.
const AS_TEXT: &str = "$serde_json::private::RawValue";

/// An object that was told and not read yet.
#[derive(Clone)]
pub struct Guarded<K> {
    /// Name, namespace, uid and resourceVersion.
    names: ObjectMeta,
    text: String,
    kind: PhantomData<fn() -> K>,
}

impl<K> fmt::Debug for Guarded<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<K: DeserializeOwned> Guarded<K> {
    /// The object, or what can be said of one that cannot be read.
    pub fn read(self) -> Result<K, Box<InvalidObject>> {
        if let Ok(object) = serde_json::from_str(&self.text) {
            return Ok(object);
        }
        // Told without line and column, which nobody else counts as the API server wrote them.
        let value: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        K::deserialize(value).map_err(|error| {
            let metadata = ObjectMeta::deserialize(metadata).unwrap_or(self.names);
            Box::new(InvalidObject { error: error.to_string(), metadata })
        })
    }
}

impl<'de, K> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_newtype_struct(AS_TEXT, Text)?;
        let Head { metadata } = serde_json::from_str(&text).map_err(D::Error::custom)?;
        let names = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            ..ObjectMeta::default()
        };
        // The notes are a part of the text, and where they begin is where they lie.
        let notes = metadata.managed_fields.map(RawValue::get);
        let begin = notes.map(|notes| notes.as_ptr().addr() - text.as_ptr().addr());
        let rest = begin.zip(notes).map(|(begin, notes)| (&text[..begin], &text[begin + notes.len()..]));
        let text = match rest {
            Some((before, after)) => [before, "null", after].concat(),
            None => text,
        };
        Ok(Guarded { names, text, kind: PhantomData })
    }
}

/// What is read at first.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: Names<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names<'a> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    #[serde(borrow)]
    managed_fields: Option<&'a RawValue>,
}

/// The text of an object.
struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<String, A::Error> {
        match access.next_key::<Cow<'de, str>>()?.as_deref() {
            Some(AS_TEXT) => access.next_value(),
            _ => Err(A::Error::custom("the text of an object was asked for")),
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        Value::deserialize(deserializer).map(|value| value.to_string())
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.names
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Incident;
    use kube::core::WatchEvent;
    use serde_json::json;

    fn written() -> Value {
        let notes =
            json!([{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {"f:title": {}}}}]);
        json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
            "metadata": {"name": "a", "namespace": "n", "generation": 3, "labels": {"managedFields": "kept"},
                "managedFields": notes},
            "spec": {"title": "결제 오류 \"🔥\"", "impact": {"affectedTenants": 120}, "noMitigationNeeded": null}})
    }

    #[test]
    fn an_object_is_read_as_it_is_but_for_the_notes_of_writers() {
        let text = written().to_string();
        let read = serde_json::from_str::<Guarded<Incident>>(&text).unwrap().read().unwrap();
        let mut plain: Incident = serde_json::from_str(&text).unwrap();
        assert!(plain.metadata.managed_fields.take().is_some() && read.metadata.managed_fields.is_none());
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&plain).unwrap());
        assert_eq!(read.metadata.labels.unwrap()["managedFields"], "kept");
    }

    /// The API server tells the type first, but nothing says that it must.
    #[test]
    fn an_object_is_read_whether_the_type_of_the_event_is_told_before_or_after_it() {
        let mut object = written();
        object["metadata"]["resourceVersion"] = "7".into();
        for text in [
            format!(r#"{{"type": "MODIFIED", "object": {object}}}"#),
            format!(r#"{{"object": {object}, "type": "MODIFIED"}}"#),
        ] {
            let event = serde_json::from_str::<WatchEvent<Guarded<Incident>>>(&text).unwrap();
            let WatchEvent::Modified(told) = event else { panic!("{text}") };
            assert_eq!(told.meta().resource_version.as_deref(), Some("7"));
            let read = told.read().unwrap();
            assert_eq!(read.spec.title, "결제 오류 \"🔥\"");
            assert_eq!(read.metadata.managed_fields, None);
        }
    }

    #[test]
    fn one_that_cannot_be_read_says_why_and_which_it_is() {
        let mut value = written();
        value["spec"]["severity"] = "SEV9".into();
        let invalid = serde_json::from_str::<Guarded<Incident>>(&value.to_string()).unwrap();
        assert_eq!(invalid.meta().name.as_deref(), Some("a"));
        let invalid = invalid.read().unwrap_err();
        assert!(invalid.error.contains("SEV9") && !invalid.error.contains("column"), "{}", invalid.error);
        assert_eq!(invalid.metadata.generation, Some(3));
    }

    #[test]
    fn what_is_no_json_object_with_names_is_an_error_and_other_nonsense_stops_nothing() {
        for text in ["{", "[]x", r#"{"metadata": {"name": 3}, "spec": {}}"#] {
            assert!(serde_json::from_str::<Guarded<Incident>>(text).is_err(), "{text}");
        }
        let text = r#"{"metadata": {"name": "a", "labels": 3}, "spec": {}}"#;
        let invalid = serde_json::from_str::<Guarded<Incident>>(text).unwrap().read().unwrap_err();
        assert_eq!(invalid.metadata.name.as_deref(), Some("a"));
    }
}
