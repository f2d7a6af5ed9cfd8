//! What the tests share. A scenario needs some of it, none needs all.
#![allow(dead_code, unused_imports)]

pub mod admission;
pub mod audit;
pub mod cluster;
pub mod crds;
pub mod history;
pub mod leadership;
pub mod metrics;
pub mod namespace;
pub mod operator;
pub mod own_cluster;
pub mod parts;
pub mod person;
pub mod poll;
pub mod proxy;
pub mod receiver;
pub mod record;
pub mod schema;
pub mod workload;

pub use cluster::{Cluster, Output, SERVICE_ACCOUNT, kubectl};
pub use history::History;
pub use namespace::TestNamespace;
pub use operator::{Operator, Options};
pub use person::Person;
pub use poll::{PATIENCE, holds_for, skipped, wait_for, wait_gone, wait_status};

use kube::{Resource, ResourceExt};

/// Names of the field managers of an object, in the object's order, one per entry.
pub fn managed_fields(object: &impl Resource) -> Vec<String> {
    object.managed_fields().iter().map(|entry| entry.manager.clone().unwrap_or_default()).collect()
}

/// Everything on an object that names the operator: annotations, labels, finalizers and field managers.
/// Empty after a clean release.
pub fn marks(object: &impl Resource) -> Vec<String> {
    let ours = |text: &str| text.contains("incident-operator");
    let pairs = |kind: &str, pairs: &std::collections::BTreeMap<String, String>| {
        pairs
            .iter()
            .filter(|(key, _)| ours(key))
            .map(|(key, value)| format!("{kind} {key}={value}"))
            .collect()
    };
    let mut found: Vec<String> = pairs("annotation", object.annotations());
    found.extend::<Vec<String>>(pairs("label", object.labels()));
    found
        .extend(object.finalizers().iter().filter(|name| ours(name)).map(|name| format!("finalizer {name}")));
    found.extend(
        managed_fields(object).into_iter().filter(|name| ours(name)).map(|name| format!("manager {name}")),
    );
    found
}
