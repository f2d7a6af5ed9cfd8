//! The pods that are about to go: those that are touched themselves, or those of the workloads that are.

use super::{MAX_LISTED, Request, is_complete, words};
use crate::mitigation::{CRON_JOB, POD, workload};
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, ResourceExt, api::ListParams, core::DynamicObject};
use std::collections::{BTreeMap, BTreeSet};

/// Label of the pods of a Job.
const OF_JOB: &str = "batch.kubernetes.io/controller-uid";
/// Where kinds of others tell the labels of their pods, as the scale subresource has them.
const TOLD: &[&str] = &["/status/selector", "/status/labelSelector"];

/// What was found.
#[derive(Default)]
pub struct Found {
    /// The pods, those that are in trouble first.
    pub pods: Vec<Pod>,
    /// What could not be found, and why.
    pub missing: Vec<String>,
}

impl Found {
    /// Nothing was found.
    pub fn nothing(why: impl Into<String>) -> Found {
        Found { pods: Vec::new(), missing: vec![why.into()] }
    }
}

/// The pods behind what is touched.
pub async fn of(client: &Client, request: &Request) -> Found {
    let namespace = &request.mitigation.namespace;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut found = Found::default();
    let mut pods = BTreeMap::new();
    let single = single(request);
    if !single.is_empty() {
        for name in single {
            match api.get_opt(&name).await {
                Ok(pod) => pods.extend(pod.map(|pod| (name, pod))),
                Err(error) => found.missing.push(words(error)),
            }
        }
    } else if request.id.kind == CRON_JOB {
        let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
        match of_cron_job(&api, &jobs, request.target.metadata.uid.as_deref()).await {
            Ok((those, all)) => {
                pods.extend(those.into_iter().map(|pod| (pod.name_any(), pod)));
                found.missing.extend((!all).then(more));
            }
            Err(error) => found.missing.push(words(error)),
        }
    } else {
        let selectors = selectors(request);
        if selectors.is_empty() && request.destroys {
            found.missing.push(format!("nothing tells which pods are those of {}", request.id));
        }
        for selector in selectors {
            match api.list(&ListParams::default().labels(&selector).limit(MAX_LISTED)).await {
                Ok(list) => {
                    found.missing.extend((!is_complete(&list.metadata)).then(more));
                    pods.extend(list.items.into_iter().map(|pod| (pod.name_any(), pod)));
                }
                Err(error) => found.missing.push(words(error)),
            }
        }
    }
    found.pods = pods.into_values().collect();
    // Those that are in trouble tell most.
    found.pods.sort_by_cached_key(|pod| (is_ready(pod), pod.name_any()));
    found
}

fn more() -> String {
    format!("there are more than {MAX_LISTED}")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Names of the pods that are touched one by one.
fn single(request: &Request) -> BTreeSet<String> {
    let touched = request.touched.iter().map(|(id, _)| id);
    touched.chain([&request.id]).filter(|id| id.kind == POD).map(|id| id.name.clone()).collect()
}

/// The labels of the pods of each workload that is touched, and of the target.
fn selectors(request: &Request) -> BTreeSet<String> {
    let objects = request.touched.iter().map(|(_, object)| object.as_ref());
    objects.chain([request.target.as_ref()]).filter_map(selector).collect()
}

fn selector(object: &DynamicObject) -> Option<String> {
    let stated = workload::selector(object);
    let told = || TOLD.iter().find_map(|path| workload::text(object, path));
    Some(stated).filter(|stated| !stated.is_empty()).or_else(told).filter(|selector| !selector.is_empty())
}

/// The pods of the Jobs that a CronJob controls, and whether these are all.
async fn of_cron_job(
    pods: &Api<Pod>,
    jobs: &Api<Job>,
    uid: Option<&str>,
) -> Result<(Vec<Pod>, bool), kube::Error> {
    let jobs = jobs.list(&ListParams::default().limit(MAX_LISTED)).await?;
    let ours = |owner: &OwnerReference| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid;
    let uids: Vec<String> = jobs
        .items
        .iter()
        .filter(|job| job.owner_references().iter().any(ours))
        .filter_map(|job| job.metadata.uid.clone())
        .collect();
    if uids.is_empty() {
        return Ok((Vec::new(), is_complete(&jobs.metadata)));
    }
    let labels = format!("{OF_JOB} in ({})", uids.join(","));
    let list = pods.list(&ListParams::default().labels(&labels).limit(MAX_LISTED)).await?;
    Ok((list.items, is_complete(&jobs.metadata) && is_complete(&list.metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::key::Key,
        mitigation::{CONFIG_MAP, DEPLOYMENT, ObjectId, patch::tests::object},
    };
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn request(target: Value, touched: Vec<(ObjectId, Value)>) -> Request {
        Request {
            mitigation: Key::new("shop", "m"),
            uid: "u".into(),
            incident: None,
            id: ObjectId::new(CONFIG_MAP, "flags"),
            target: Arc::new(object(target)),
            touched: touched.into_iter().map(|(id, value)| (id, Arc::new(object(value)))).collect(),
            destroys: true,
            logs: true,
        }
    }

    fn workload(spec: Value, status: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec,
            "status": status})
    }

    #[test]
    fn pods_are_found_by_whatever_tells_their_labels() {
        let of = |spec: Value, status: Value| {
            let selectors = selectors(&request(workload(spec, status), Vec::new()));
            selectors.into_iter().collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(of(json!({"selector": {"matchLabels": {"app": "web"}}}), json!({})), "app=web");
        let terms = json!({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}});
        assert_eq!(of(terms, json!({})), "app in (a,b)");
        assert_eq!(of(json!({}), json!({"selector": "app=worker"})), "app=worker");
        assert_eq!(of(json!({}), json!({})), "");
    }

    #[test]
    fn of_a_config_map_the_pods_of_the_workloads_that_are_restarted_go() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flags"}, "data": {}});
        let web = workload(json!({"selector": {"matchLabels": {"app": "web"}}}), json!({}));
        let request = request(map, vec![(ObjectId::new(DEPLOYMENT, "web"), web)]);
        assert_eq!(selectors(&request).into_iter().collect::<Vec<_>>(), ["app=web"]);
    }
}
