//! Watches that keep only what somebody looks at. A CustomResourceDefinition may have half a megabyte, and of all of
//! them it is only asked who converts them and where a scale subresource keeps its numbers: the rest is skipped while it is read, and never takes memory.

use crate::{
    controller::{renew::Renewal, targets::api_in},
    mitigation::{API_SERVICE, CUSTOM_RESOURCE_DEFINITION, TargetKind},
};
use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ApiResource, DynamicObject, DynamicResourceScope, ObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The watch of a kind.
pub fn watch(
    client: &Client,
    kind: TargetKind,
    namespace: Option<&str>,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>> {
    let without_bookkeeping = |object: &mut DynamicObject| object.managed_fields_mut().clear();
    if [CUSTOM_RESOURCE_DEFINITION, API_SERVICE].contains(&kind) {
        let api: Api<Slim> = Api::all_with(client.clone(), &kind.resource());
        let events = watcher(api, config).backoff(Renewal::default());
        return events.map(|event| event.map(dynamic)).boxed();
    }
    let api = api_in(client, kind, namespace);
    watcher(api, config).modify(without_bookkeeping).backoff(Renewal::default()).boxed()
}

fn dynamic(event: watcher::Event<Slim>) -> watcher::Event<DynamicObject> {
    match event {
        watcher::Event::Apply(slim) => watcher::Event::Apply(slim.into()),
        watcher::Event::Delete(slim) => watcher::Event::Delete(slim.into()),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(slim) => watcher::Event::InitApply(slim.into()),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

/// What is read of a CustomResourceDefinition or APIService.
#[derive(Clone, Debug, Deserialize)]
struct Slim {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    conversion: Option<Value>,
    service: Option<Value>,
    scope: Option<String>,
    #[serde(default)]
    versions: Vec<Version>,
}

/// One version of a CustomResourceDefinition.
#[derive(Clone, Debug, Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
    #[serde(default)]
    subresources: Subresources,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Subresources {
    scale: Option<Value>,
}

impl From<Slim> for DynamicObject {
    fn from(slim: Slim) -> Self {
        let metadata = ObjectMeta {
            name: slim.metadata.name,
            uid: slim.metadata.uid,
            resource_version: slim.metadata.resource_version,
            ..ObjectMeta::default()
        };
        let versions = slim.spec.versions.into_iter().map(|version| {
            json!({"name": version.name, "served": version.served,
                "subresources": {"scale": version.subresources.scale}})
        });
        let spec = json!({"conversion": slim.spec.conversion, "service": slim.spec.service,
            "scope": slim.spec.scope, "versions": versions.collect::<Vec<_>>()});
        DynamicObject { types: None, metadata, data: json!({"spec": spec}) }
    }
}

impl Resource for Slim {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
