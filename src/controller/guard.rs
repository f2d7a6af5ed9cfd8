//! Objects from a watch: without what the API server notes of writers, and without one that cannot be read ending the
//! watch for all others.
//!
//! kube's `DeserializeGuard` does the second, and copies every object twice for it. Here the notes of writers, the
//! largest part of many objects, are skipped while the text is read, and what is read is moved.

use kube::{
    Resource,
    core::{ObjectMeta, error_boundary::InvalidObject},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use std::{borrow::Cow, fmt};

/// An object, or what can be said of one that cannot be read.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Pruned { depth: 0, metadata: false }.deserialize(deserializer)?;
        // Small without the notes of writers, and needed only when all else fails.
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        match K::deserialize(value) {
            Ok(object) => Ok(Guarded(Ok(object))),
            Err(error) => {
                let metadata = ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?;
                Ok(Guarded(Err(InvalidObject { error: error.to_string(), metadata })))
            }
        }
    }
}

/// Reads a value without `metadata.managedFields`.
#[derive(Clone, Copy)]
struct Pruned {
    /// How many maps and lists it lies in.
    depth: usize,
    /// Whether it is the metadata of the object.
    metadata: bool,
}

impl<'de> DeserializeSeed<'de> for Pruned {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pruned {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inside = Pruned { depth: self.depth + 1, metadata: false };
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(inside)? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if self.metadata && key == "managedFields" {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            let metadata = self.depth == 0 && key == "metadata";
            let value = access.next_value_seed(Pruned { depth: self.depth + 1, metadata })?;
            map.insert(key, value);
        }
        Ok(map.into())
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
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Incident;
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
        let read = serde_json::from_str::<Guarded<Incident>>(&text).unwrap().0.unwrap();
        let mut plain: Incident = serde_json::from_str(&text).unwrap();
        assert!(plain.metadata.managed_fields.take().is_some() && read.metadata.managed_fields.is_none());
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&plain).unwrap());
        assert_eq!(read.metadata.labels.unwrap()["managedFields"], "kept");
    }

    #[test]
    fn one_that_cannot_be_read_says_why_and_which_it_is() {
        let mut value = written();
        value["spec"]["severity"] = "SEV9".into();
        let invalid = serde_json::from_str::<Guarded<Incident>>(&value.to_string()).unwrap();
        assert_eq!(invalid.meta().name.as_deref(), Some("a"));
        assert!(invalid.0.unwrap_err().error.contains("SEV9"));
    }

    #[test]
    fn what_is_no_json_object_with_metadata_is_an_error() {
        for text in ["{", "[]x", r#"{"metadata": {"labels": 3}, "spec": {}}"#] {
            assert!(serde_json::from_str::<Guarded<Incident>>(text).is_err(), "{text}");
        }
    }
}
