//! Whether what is known of an object is as new as this process's lead.
//!
//! Who led before wrote nothing after the lease came to this process. So a revision of an object that is later than that
//! write of the lease has all of what others did; resourceVersions count the writes of one store, in one order. An earlier
//! revision may lack some of it, since watches and lists may lag behind: before such an object is acted upon it is read.

use super::{Context, Error, Key, cache::version, indexes::BY_INCIDENT};
use crate::api::{Incident, Mitigation};
use kube::{Api, Resource};
use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What was read since this process leads.
#[derive(Default)]
pub struct Freshness {
    since: AtomicU64,
    /// Kinds and keys.
    read: Mutex<HashSet<(&'static str, Key)>>,
}

impl Freshness {
    fn lock(&self) -> MutexGuard<'_, HashSet<(&'static str, Key)>> {
        // A set is whole after each of its operations.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process leads since the lease got this version.
    pub fn lead(&self, since: u64) {
        self.since.store(since, Ordering::SeqCst);
        self.lock().clear();
    }

    /// True when the object is as new as the lead, or was read since. `None`: it is not known.
    fn has<K: Resource>(&self, kind: &'static str, key: &Key, known: Option<&K>) -> bool {
        known.is_some_and(|object| version(object) > self.since.load(Ordering::SeqCst))
            || self.lock().contains(&(kind, key.clone()))
    }

    fn was_read(&self, kind: &'static str, key: &Key) {
        self.lock().insert((kind, key.clone()));
    }

    fn forget(&self, kind: &'static str, key: &Key) {
        self.lock().remove(&(kind, key.clone()));
    }
}

const INCIDENT: &str = "Incident";
const MITIGATION: &str = "Mitigation";

impl Context {
    /// Reads a mitigation that may be older than our lead. `None`: it is as new already. The inner `None`: it is gone.
    /// `own`: its own driver asks, and goes on by itself.
    pub(super) async fn fresh_mitigation(
        &self,
        key: &Key,
        known: &Mitigation,
        own: bool,
    ) -> Result<Option<Option<Mitigation>>, Error> {
        if self.freshness.has(MITIGATION, key, Some(known)) {
            return Ok(None);
        }
        let api: Api<Mitigation> = Api::namespaced(self.client.clone(), &key.namespace);
        let there = api.get_opt(&key.name).await.map_err(Error::api(format!("reading mitigation {key}")))?;
        let there = there.filter(|there| there.metadata.uid == known.metadata.uid);
        self.freshness.was_read(MITIGATION, key);
        if let Some(news) = there.clone().and_then(|there| self.mitigations.saw(there)) {
            self.heard_of_mitigation(&news, own);
        }
        Ok(Some(there))
    }

    /// The same of all mitigations of an incident. False: what is known is as new already.
    pub(super) async fn fresh_mitigations(&self, incident: &Key) -> Result<bool, Error> {
        let mut read = false;
        for known in self.mitigations.group(BY_INCIDENT, &incident.to_string()) {
            read |= self.fresh_mitigation(&Key::of(known.as_ref()), &known, false).await?.is_some();
        }
        Ok(read)
    }

    /// Reads the mitigations that an incident knows of and that nobody told of: they are gone, or a list or a watch lags
    /// behind. False: there are none. The end of most was recorded before they went, so this is rare.
    pub(super) async fn look_for_missing(&self, key: &Key, incident: &Incident) -> Result<bool, Error> {
        let mut looked = false;
        let summaries = incident.status.iter().flat_map(|status| &status.mitigations);
        for summary in summaries.filter(|summary| !summary.phase.is_ended()) {
            let key = Key::new(&key.namespace, &summary.name);
            if self.mitigations.contains(&key) || self.mitigations.is_unreadable(&key) {
                continue;
            }
            looked = true;
            let api: Api<Mitigation> = Api::namespaced(self.client.clone(), &key.namespace);
            let there =
                api.get_opt(&key.name).await.map_err(Error::api(format!("looking for mitigation {key}")))?;
            if let Some(news) = there.and_then(|there| self.mitigations.saw(there)) {
                self.heard_of_mitigation(&news, false);
            }
        }
        Ok(looked)
    }

    /// Reads an incident that may be older than our lead. False: what is known is as new already.
    pub(super) async fn fresh_incident(&self, key: &Key) -> Result<bool, Error> {
        // One that cannot be read is not acted upon.
        let known = self.incidents.get(key);
        if self.incidents.is_unreadable(key) || self.freshness.has(INCIDENT, key, known.as_deref()) {
            return Ok(false);
        }
        let api: Api<Incident> = Api::namespaced(self.client.clone(), &key.namespace);
        let there = api.get_opt(&key.name).await.map_err(Error::api(format!("reading incident {key}")))?;
        self.freshness.was_read(INCIDENT, key);
        if let Some(news) = there.and_then(|there| self.incidents.saw(there)) {
            self.heard_of_incident(&news, false);
        }
        Ok(true)
    }

    pub(super) fn forget_read_incident(&self, key: &Key) {
        self.freshness.forget(INCIDENT, key);
    }

    pub(super) fn forget_read_mitigation(&self, key: &Key) {
        self.freshness.forget(MITIGATION, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    #[test]
    fn an_object_is_fresh_when_it_is_later_than_the_lease_or_was_read_since() {
        let (freshness, key) = (Freshness::default(), Key::new("shop", "m"));
        let fresh = |version: &str| {
            let object: ConfigMap =
                serde_json::from_value(json!({"metadata": {"resourceVersion": version}})).unwrap();
            freshness.has(MITIGATION, &key, Some(&object))
        };
        freshness.lead(100);
        assert_eq!(["99", "100", "101"].map(fresh), [false, false, true]);
        freshness.was_read(MITIGATION, &key);
        assert!(fresh("99"));
        freshness.lead(200);
        assert!(!fresh("101"), "somebody else may have led in between");
        freshness.was_read(MITIGATION, &key);
        freshness.forget(MITIGATION, &key);
        assert!(!fresh("101"), "another of its name");
    }
}
