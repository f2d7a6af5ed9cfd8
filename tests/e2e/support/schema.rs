//! What the real API server says about objects, without keeping any.

use super::cluster::{Cluster, resource_of};
use super::namespace::TestNamespace;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::Value;
use std::panic::Location;

/// The API server takes the object as it is, without an unknown field; returns it with its defaults.
#[track_caller]
pub fn accepts(object: Value) -> impl Future<Output = DynamicObject> {
    let caller = Location::caller();
    async move {
        match dry_create(&object).await {
            Ok(stored) => stored,
            Err(reason) => panic!("{caller}: refused: {reason}\n{object:#}"),
        }
    }
}

/// The API server refuses the object, and its message contains the text.
#[track_caller]
pub fn rejects(object: Value, part: &str) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        match dry_create(&object).await {
            Ok(_) => panic!("{caller}: taken, although it should be refused with {part:?}\n{object:#}"),
            Err(reason) => assert!(reason.contains(part), "{caller}: the refusal lacks {part:?}: {reason}"),
        }
    }
}

/// The API server refuses a change (a merge patch) of an object that it has taken, and its message contains
/// the text.
#[track_caller]
pub fn rejects_change(
    namespace: &TestNamespace,
    object: Value,
    change: Value,
    part: &str,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        match dry_change(namespace, object, &change).await {
            Ok(_) => panic!(
                "{caller}: the change is taken, although it should be refused with {part:?}\n{change:#}"
            ),
            Err(reason) => assert!(reason.contains(part), "{caller}: the refusal lacks {part:?}: {reason}"),
        }
    }
}

/// The API server takes a change (a merge patch) of an object.
#[track_caller]
pub fn accepts_change(
    namespace: &TestNamespace,
    object: Value,
    change: Value,
) -> impl Future<Output = DynamicObject> {
    let caller = Location::caller();
    async move {
        match dry_change(namespace, object, &change).await {
            Ok(changed) => changed,
            Err(reason) => panic!("{caller}: the change is refused: {reason}\n{change:#}"),
        }
    }
}

async fn dry_create(object: &Value) -> Result<DynamicObject, String> {
    let resource = resource_of(object);
    let scope = if resource.kind == "MitigationPolicy" { "" } else { "/namespaces/default" };
    // Strict, as kubectl asks: otherwise unknown fields are dropped without a word.
    let uri = format!(
        "/apis/{}/{}{scope}/{}?dryRun=All&fieldValidation=Strict",
        resource.group, resource.version, resource.plural
    );
    let mut named = object.clone();
    if named["metadata"]["name"].is_null() && named["metadata"]["generateName"].is_null() {
        named["metadata"]["generateName"] = "schema-".into();
    }
    let request = http::Request::post(uri)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(named.to_string().into_bytes())
        .expect("the request is well formed");
    Cluster::get().await.client.request(request).await.map_err(reason)
}

async fn dry_change(
    namespace: &TestNamespace,
    object: Value,
    change: &Value,
) -> Result<DynamicObject, String> {
    let api = namespace.cluster.api_of(&object, &namespace.name);
    let name = object["metadata"]["name"].as_str().expect("the object has a name").to_owned();
    // A second change may be tried on an object that the test has made before.
    if api.get_opt(&name).await.map_err(reason)?.is_none() {
        namespace.create(object).await;
    }
    api.patch(&name, &PatchParams { dry_run: true, ..Default::default() }, &Patch::Merge(change))
        .await
        .map_err(reason)
}

fn reason(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => panic!("no answer from the API server: {other}"),
    }
}
