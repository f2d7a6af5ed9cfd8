//! The archive of a timeline: the older entries of an incident, in immutable ConfigMaps. How these are named, which of
//! them count, and how much of them goes into a document.

use crate::api::{
    INCIDENT_UID_ANNOTATION, IncidentSnapshot, MANAGED_BY, MANAGED_BY_LABEL, TimelineRecord, names,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

/// Key of the entries in such a ConfigMap.
pub const ARCHIVE_KEY: &str = "timeline.json";
/// Most bytes of entries that are read for a document: more than twice of what it holds.
const MAX_BYTES: usize = 2 << 20;
/// Most ConfigMaps that are read for it. With fifty entries each, a document of nothing else is full before.
const MAX_MAPS: i32 = 128;

/// Name of the ConfigMap with this number, and the one that it has where that was taken.
pub fn config_map_names(incident: &str, uid: &str, number: i32) -> [String; 2] {
    let suffix = format!("timeline-{number}");
    [names::joined(incident, &suffix), names::hashed(incident, &suffix, uid)]
}

/// Whether the operator alone can have written what is in it: admission keeps everybody else from this label, and what
/// is immutable was so when it was made. Anything else under a name that can be foreseen is somebody else's.
pub fn is_record(config_map: &ConfigMap) -> bool {
    config_map.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY)
        && config_map.immutable == Some(true)
}

/// The entries in a ConfigMap; `None` when it is no part of the archive of this incident.
pub fn entries(config_map: &ConfigMap, uid: Option<&String>) -> Option<Vec<TimelineRecord>> {
    let ours = is_record(config_map) && config_map.annotations().get(INCIDENT_UID_ANNOTATION) == uid;
    serde_json::from_str(text(config_map).filter(|_| ours)?).ok()
}

fn text(config_map: &ConfigMap) -> Option<&String> {
    config_map.data.as_ref()?.get(ARCHIVE_KEY)
}

/// Older entries of a timeline, as far as they were found and have room, the oldest first.
#[derive(Debug, Default)]
pub struct Archived {
    records: Vec<TimelineRecord>,
    bytes: usize,
}

impl Archived {
    /// The names of the ConfigMaps of an archive, in the order in which they are to be added.
    pub fn places(incident: &IncidentSnapshot) -> impl Iterator<Item = [String; 2]> {
        let count = incident.timeline_archive.as_ref().map_or(0, |archive| archive.config_maps);
        let uid = incident.uid.as_deref().unwrap_or_default();
        (0..count.min(MAX_MAPS)).map(move |number| config_map_names(&incident.name, uid, number))
    }

    /// Adds what is in a ConfigMap, unless it is somebody else's.
    pub fn add(&mut self, incident: &IncidentSnapshot, config_map: &ConfigMap) -> bool {
        let found = entries(config_map, incident.uid.as_ref());
        let is_ours = found.is_some();
        self.records.extend(found.into_iter().flatten());
        self.bytes += text(config_map).filter(|_| is_ours).map_or(0, String::len);
        is_ours
    }

    /// Whether there is room for no more of them.
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// What an archive has of ConfigMaps that are at hand.
    pub fn among(incident: &IncidentSnapshot, config_maps: &[ConfigMap]) -> Archived {
        let mut archived = Archived::default();
        for names in Archived::places(incident) {
            if archived.is_full() {
                break;
            }
            for name in names {
                if config_maps.iter().any(|map| map.name_any() == name && archived.add(incident, map)) {
                    break;
                }
            }
        }
        archived
    }

    /// The entries.
    pub fn records(&self) -> &[TimelineRecord] {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn incident(config_maps: i32) -> IncidentSnapshot {
        let archive = json!({"configMaps": config_maps, "entries": 300});
        serde_json::from_value(json!({"name": "outage", "uid": "u1", "timelineArchive": archive})).unwrap()
    }

    fn config_map(name: &str, message: &str) -> Value {
        let entry = json!({"time": "2026-11-23T10:00:00Z", "recordedTime": "2026-11-23T10:00:00Z", "reason": "Note",
            "message": message});
        json!({
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "incident-operator"},
                "annotations": {"incident-operator.dev/incident-uid": "u1"}},
            "immutable": true, "data": {"timeline.json": json!([entry]).to_string()},
        })
    }

    fn read(config_maps: i32, there: Vec<Value>) -> Vec<String> {
        let there: Vec<_> = there.into_iter().map(|map| serde_json::from_value(map).unwrap()).collect();
        let archived = Archived::among(&incident(config_maps), &there);
        archived.records().iter().map(|record| record.message.clone()).collect()
    }

    #[test]
    fn entries_come_in_the_order_of_their_config_maps_whatever_their_names_are_and_wherever_they_stand() {
        let [_, second] = config_map_names("outage", "u1", 1);
        let there = vec![
            config_map("outage-timeline-10", "eleventh"),
            config_map("outage-timeline-2", "third"),
            config_map(&second, "second"),
            config_map("outage-timeline-0", "first"),
        ];
        assert_eq!(read(11, there.clone()), ["first", "second", "third", "eleventh"]);
        assert_eq!(read(2, there), ["first", "second"], "what the record does not count is none of it");
    }

    #[test]
    fn what_somebody_else_can_have_written_is_no_part_of_the_record() {
        let forged = |path: &str, value: Value| {
            let mut map = config_map("outage-timeline-0", "forged");
            *map.pointer_mut(path).unwrap() = value;
            map
        };
        for map in [
            forged("/immutable", json!(false)),
            forged("/metadata/labels", json!({})),
            forged("/metadata/annotations/incident-operator.dev~1incident-uid", json!("u2")),
            forged("/data/timeline.json", json!("[{}]")),
            forged("/metadata/name", json!("timeline-0")),
        ] {
            assert_eq!(read(1, vec![map.clone()]), Vec::<String>::new(), "{map}");
        }
        // The operator's own lies under the other name then.
        let [_, other] = config_map_names("outage", "u1", 0);
        let there = vec![forged("/immutable", json!(null)), config_map(&other, "true")];
        assert_eq!(read(1, there), ["true"]);
    }

    #[test]
    fn a_number_of_config_maps_that_cannot_be_and_entries_without_end_are_read_no_further_than_they_have_room()
     {
        assert_eq!(Archived::places(&incident(i32::MAX)).count(), 128);
        assert_eq!(Archived::places(&incident(-1)).count(), 0);
        let long = "x".repeat(1 << 20);
        let there = (0..4).map(|n| config_map(&format!("outage-timeline-{n}"), &long)).collect();
        assert_eq!(read(4, there).len(), 2);
    }
}
