//! When mitigations that are gone took their targets, for whoever leads next: in a ConfigMap of their namespace, as
//! long as a policy there wants an interval between two takes of one target.

use crate::{
    api::{MANAGED_BY, MANAGED_BY_LABEL, Mitigation},
    controller::{Context, Error, Key, events::Note, news::reference, status::FIELD_MANAGER},
};
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};
use tracing::warn;

/// Name of the ConfigMap.
const NAME: &str = "incident-operator-takes";
/// Why nothing is kept in a ConfigMap of that name, nor read from it.
const FOREIGN: &str = "ConfigMap incident-operator-takes is not the operator's (it lacks the label \
                       app.kubernetes.io/managed-by=incident-operator): delete it, and the operator makes its own";
/// Why no more is kept.
const FULL: &str = "ConfigMap incident-operator-takes is full";
/// Most takes that are kept. A ConfigMap may have 1 MiB, one of them has some 300 bytes.
const MAX_KEPT: usize = 1024;

/// One take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Take {
    /// What was taken, as the index of mitigations calls it.
    pub target: String,
    /// When.
    pub time: Timestamp,
    /// Until when it counts.
    until: Timestamp,
}

/// What is kept, by uid of the mitigation. Admission keeps everybody else from what bears the label; without it, the
/// ConfigMap is somebody else's.
fn read(config_map: &ConfigMap) -> Option<BTreeMap<String, Take>> {
    let ours = config_map.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY);
    let takes = config_map.data.iter().flatten();
    ours.then(|| {
        takes.filter_map(|(uid, text)| Some((uid.clone(), serde_json::from_str(text).ok()?))).collect()
    })
}

/// What changes when one is added: those that count no more go.
fn change(kept: &BTreeMap<String, Take>, uid: &str, take: &Take, now: Timestamp) -> Map<String, Value> {
    let over = kept.iter().filter(|(_, take)| take.until <= now).map(|(uid, _)| (uid.clone(), Value::Null));
    let added = (uid.to_owned(), json!(json!(take).to_string()));
    over.chain([added]).collect()
}

/// The takes of a namespace that are kept.
pub async fn takes(ctx: &Context, namespace: &str) -> Result<Vec<Take>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
    match api.get_opt(NAME).await {
        Ok(None) => Ok(Vec::new()),
        Ok(Some(there)) => Ok(read(&there).map_or_else(
            || {
                warn!(namespace, why = FOREIGN, "takes of mitigations that are gone are not known");
                Vec::new()
            },
            |kept| kept.into_values().collect(),
        )),
        Err(kube::Error::Api(said)) if said.code == 403 => Ok(Vec::new()),
        Err(error) => Err(Error::api(format!("reading config map {namespace}/{NAME}"))(error)),
    }
}

/// Keeps when a mitigation took its target, before it goes. It goes all the same when that cannot be kept, and that is
/// told: nobody's namespace hangs on an interval.
pub async fn keep(ctx: &Context, going: &Mitigation, target: String, interval: Duration) {
    let applied = going.status.as_ref().and_then(|s| s.applied_time.as_ref()).map(|t| t.0);
    let (now, uid) = (Timestamp::now(), going.uid().unwrap_or_default());
    let Some((time, until)) = applied.and_then(|at| Some((at, at.checked_add(interval).ok()?))) else {
        return;
    };
    if until <= now {
        return;
    }
    let key = Key::of(going);
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let why = match write(&api, &uid, &Take { target, time, until }, now).await {
        Ok(None) => return,
        Ok(Some(why)) => why.to_owned(),
        Err(error) => error.to_string(),
    };
    warn!(mitigation = %key, why, "when it took its target is forgotten with the next restart");
    ctx.metrics.take_not_kept();
    let message = format!(
        "when {} was taken is forgotten with the next restart of the operator, and minInterval with it: {why}",
        going.status.as_ref().and_then(|s| s.target.as_deref()).unwrap_or("the target")
    );
    ctx.events.tell(Note {
        regarding: reference(going),
        source: None,
        related: None,
        reason: "TakeNotKept".to_owned(),
        message,
        warning: true,
        time: now,
    });
}

/// Writes it down; or says why that cannot be.
async fn write(
    api: &Api<ConfigMap>,
    uid: &str,
    take: &Take,
    now: Timestamp,
) -> Result<Option<&'static str>, kube::Error> {
    let there = match api.get_opt(NAME).await? {
        Some(there) => there,
        None => {
            let object = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                ..ConfigMap::default()
            };
            let params =
                PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            match api.create(&params, &object).await {
                // Another visit was faster, or somebody else.
                Err(kube::Error::Api(said)) if said.code == 409 => api.get(NAME).await?,
                made => made?,
            }
        }
    };
    let Some(kept) = read(&there) else { return Ok(Some(FOREIGN)) };
    if kept.values().filter(|take| take.until > now).count() >= MAX_KEPT {
        return Ok(Some(FULL));
    }
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    // Another one of that name need not be ours.
    let metadata = json!({"uid": there.metadata.uid});
    let patch = Patch::Merge(json!({"metadata": metadata, "data": change(&kept, uid, take, now)}));
    api.patch(NAME, &params, &patch).await.map(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_no_more_goes_when_another_is_kept_and_somebody_elses_config_map_says_nothing() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let take =
            |until: &str| Take { target: "t".into(), time: at("2026-11-23T10:00:00Z"), until: at(until) };
        let (old, new) = (take("2026-11-23T10:05:00Z"), take("2026-11-23T11:00:00Z"));
        let data: BTreeMap<String, String> = [("a", json!(old)), ("b", json!(new))]
            .map(|(uid, take)| (uid.to_owned(), take.to_string()))
            .into();
        let mut object = ConfigMap { data: Some(data), ..ConfigMap::default() };
        assert_eq!(read(&object), None);
        object.metadata.labels = Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into());
        let kept = read(&object).expect("ours");
        assert_eq!((kept.len(), &kept["a"]), (2, &old));
        let change = change(&kept, "c", &new, at("2026-11-23T10:30:00Z"));
        assert_eq!(change.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert!(change["a"].is_null() && change["c"].is_string());
    }
}
