//! What each piece of news makes worth looking at. `own` is true for the answer to a write of the object's own driver,
//! which goes on by itself.

use super::{
    Context, Key,
    cache::News,
    indexes::{BY_INCIDENT, BY_OBJECT, BY_ORIGINAL, BY_POSTMORTEM, is_waiting},
    targets::index_text,
};
use crate::{
    api::{Incident, Mitigation, Postmortem, TimelineEntry},
    decide::mitigation::objects,
};
use std::collections::HashSet;

impl Context {
    pub(super) fn heard_of_incident(&self, news: &News<Incident>, own: bool) {
        let (News::Changed(incident) | News::Gone(incident)) = news;
        let key = self.incidents.key_of(incident);
        if let News::Gone(_) = news {
            self.way_back.forget(incident.metadata.uid.as_ref());
            self.forget_read_incident(&key);
        }
        if !own {
            self.queues.incidents.add(key.clone());
        }
        for duplicate in self.incidents.group(BY_ORIGINAL, &key.to_string()) {
            self.queues.incidents.add(Key::of(duplicate.as_ref()));
        }
        let releases = crate::decide::incident::releases(incident).is_some();
        // Whether somebody must approve follows from the severity.
        let asks = self.policies.all().iter().any(|policy| !policy.spec.approval.is_empty());
        for mitigation in self.mitigations.group(BY_INCIDENT, &key.to_string()) {
            let awaits = asks && is_waiting(&mitigation);
            if releases || awaits || mitigation.metadata.deletion_timestamp.is_some() {
                self.queues.mitigations.add(Key::of(mitigation.as_ref()));
            }
        }
        // Also when the resolution was taken back.
        for postmortem in self.postmortems.group(0, &key.to_string()) {
            self.queues.postmortems.add(Key::of(postmortem.as_ref()));
        }
    }

    pub(super) fn heard_of_mitigation(&self, news: &News<Mitigation>, own: bool) {
        let (News::Changed(mitigation) | News::Gone(mitigation)) = news;
        let key = self.mitigations.key_of(mitigation);
        if !own {
            self.queues.mitigations.add(key.clone());
        }
        if let Some(incident) = &mitigation.spec.incident_ref {
            self.queues.incidents.add(Key::new(&key.namespace, &incident.name));
        }
        let ended = mitigation.status.as_ref().and_then(|s| s.phase).is_some_and(|p| p.is_ended());
        if matches!(news, News::Gone(_)) {
            self.takes.remember(mitigation);
            self.forget_read_mitigation(&key);
        }
        if ended || matches!(news, News::Gone(_)) {
            self.one_counts_no_more(&key.namespace);
            // Others may wait for the field.
            for id in objects(mitigation) {
                self.wake_mitigations_of(&index_text(&key.namespace, id.kind.kind, &id.name), Some(&key));
            }
        }
    }

    /// One mitigation of the namespace does not count among the active ones any more: others may wait for that. One that
    /// found no room a moment ago has not said so yet, so all are looked at that are not made.
    pub(super) fn one_counts_no_more(&self, namespace: &str) {
        if self.policies.all().iter().any(|policy| policy.spec.max_active.is_some()) {
            self.wake_waiting(namespace);
        }
    }

    pub(super) fn heard_of_entry(&self, news: &News<TimelineEntry>) {
        let (News::Changed(entry) | News::Gone(entry)) = news;
        let key = Key::of(entry.as_ref());
        if let (News::Gone(_), Some(uid)) = (news, &entry.metadata.uid) {
            self.removed().remove(uid);
        }
        self.queues.incidents.add(Key::new(&key.namespace, &entry.spec.incident_ref.name));
        if let Some(mitigation) = &entry.spec.mitigation_ref {
            self.queues.mitigations.add(Key::new(&key.namespace, &mitigation.name));
        }
    }

    pub(super) fn heard_of_postmortem(&self, news: &News<Postmortem>, own: bool) {
        let (News::Changed(postmortem) | News::Gone(postmortem)) = news;
        let key = self.postmortems.key_of(postmortem);
        let seen = postmortem.status.as_ref().and_then(|s| s.observed_generation);
        let is_news = matches!(news, News::Gone(_)) || seen != postmortem.metadata.generation;
        // Also the incident that it was about until now.
        let named = postmortem.spec.incident_ref.iter().map(|r| Key::new(&key.namespace, &r.name));
        let known = self.incidents.group(BY_POSTMORTEM, &key.to_string());
        let known = known.iter().map(|incident| Key::of(incident.as_ref()));
        for incident in named.chain(known).collect::<HashSet<_>>() {
            self.queues.incidents.add(incident.clone());
            if is_news {
                // Each of those that are about one incident says which one counts.
                for other in self.postmortems.group(0, &incident.to_string()) {
                    self.queues.postmortems.add(Key::of(other.as_ref()));
                }
            }
        }
        if !own {
            self.queues.postmortems.add(key);
        }
    }

    /// Looks at the mitigations of a target that have not ended.
    pub(super) fn wake_mitigations_of(&self, target: &str, except: Option<&Key>) {
        for mitigation in self.mitigations.group(BY_OBJECT, target) {
            let ended = mitigation.status.as_ref().and_then(|s| s.phase).is_some_and(|p| p.is_ended());
            let key = Key::of(mitigation.as_ref());
            if !ended && Some(&key) != except {
                self.queues.mitigations.add(key);
            }
        }
    }

    /// True when a mitigation of the target has not been taken yet.
    pub(super) fn has_waiting(&self, target: &str) -> bool {
        self.mitigations.group(BY_OBJECT, target).iter().any(|m| {
            let status = m.status.as_ref();
            m.metadata.deletion_timestamp.is_none()
                && status.and_then(|s| s.phase).is_none_or(|p| !p.is_ended())
                && status.is_none_or(|s| s.applied_time.is_none())
        })
    }
}
