//! What is copied from an incident, within what the schema of a postmortem takes.
//!
//! The spec of an incident that was stored before its schema had a maximum may hold more, and lives on, because the API
//! server takes what did not change. Of a new object it takes nothing that is too long, and the draft would be refused
//! for ever. What stands in the status of an incident was written under the same maxima.

use crate::api::Impact;
use crate::decide::conditions::clip;
use std::collections::HashSet;

/// Longest title.
pub(super) const TITLE: usize = 256;
/// Longest name of a person, a service, a feature or a component.
pub(super) const NAME: usize = 253;
/// Longest text that is one sentence.
pub(super) const SENTENCE: usize = 1024;
/// Longest address.
pub(super) const LINK: usize = 2048;
/// Longest section.
pub(super) const SECTION: usize = 65_536;
/// Most features, and most components.
const FEATURES: usize = 64;
const COMPONENTS: usize = 32;

/// The impact as far as the schema takes it.
pub(super) fn impact(stated: &Impact) -> Impact {
    let mut impact = stated.clone();
    impact.summary = impact.summary.filter(|text| !text.is_empty()).map(|text| clip(&text, SENTENCE));
    impact.affected_tenants = impact.affected_tenants.filter(|count| *count >= 0);
    impact.affected_features.retain(|name| !name.is_empty());
    impact.affected_features.truncate(FEATURES);
    for name in &mut impact.affected_features {
        *name = clip(name, NAME);
    }
    for component in &mut impact.components {
        component.name = clip(&component.name, NAME);
    }
    // Each name counts once, also where two are the same as far as they are kept.
    let mut seen = HashSet::new();
    impact.components.retain(|c| !c.name.is_empty() && seen.insert(c.name.clone()));
    impact.components.truncate(COMPONENTS);
    impact
}

#[cfg(test)]
mod tests {
    use crate::api::{Incident, Postmortem};
    use crate::cli::schema;
    use crate::decide::postmortem::draft;
    use kube::CustomResourceExt;
    use serde_json::{Value, json};

    /// The schema of a part of a kind.
    fn schema_of<K: CustomResourceExt>(part: &str) -> Value {
        let crd = serde_json::to_value(K::crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
    }

    /// An incident each of whose texts and lists is longer than any schema takes.
    fn endless() -> Incident {
        // Four bytes each, so that bytes are no characters.
        let long = "🔥".repeat(70_000);
        let name = |n: usize| format!("{}{n}", "x".repeat(300));
        let components: Vec<_> =
            (0..40).map(|n| json!({"name": name(n), "state": "PartialOutage"})).collect();
        let whole = json!({
            "apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
            "metadata": {"name": "checkout", "namespace": "shop", "uid": "u1"},
            "spec": {
                "title": long, "severity": "SEV1", "service": long, "roles": {"incidentCommander": long},
                "detection": {"source": "Alert", "reference": format!("https://a.example/{long}")},
                "impact": {"summary": long, "affectedTenants": -1, "components": components,
                    "affectedFeatures": (0..100).map(name).chain([String::new()]).collect::<Vec<_>>()},
                "resolution": {"summary": long, "waivers": [{"mitigation": "stop", "reason": long}]},
            },
            "status": {
                "milestones": {"detectedTime": "2026-11-23T10:06:00Z", "resolvedTime": "2026-11-23T11:06:00Z"},
                "mitigations": [{"name": "checkout-stop", "entry": "stop", "phase": "Active"}],
            },
        });
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_draft_of_an_incident_that_was_stored_before_the_maxima_is_one_that_the_api_server_takes() {
        let incident = endless();
        let draft = draft(&incident, incident.status.as_ref().unwrap());
        let object = serde_json::to_value(&draft).unwrap();
        for part in ["spec", "status"] {
            let found = schema::check(&schema_of::<Postmortem>(part), &object[part], part);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::<String>::new());
        }
        let title = draft.spec.title.as_deref().unwrap();
        assert_eq!(title.chars().count(), 256);
        assert!(title.starts_with("🔥🔥") && title.ends_with("🔥…"), "{title}");
        assert_eq!(draft.spec.links, Vec::<String>::new(), "half an address leads nowhere");
        let record = draft.status.unwrap().incident.unwrap();
        assert!(record.mitigations[0].waiver.as_deref().unwrap().ends_with('…'));
        let impact = record.impact.unwrap();
        assert_eq!((impact.affected_features.len(), impact.components.len()), (64, 1));
    }

    #[test]
    fn what_is_copied_from_the_status_of_an_incident_has_no_greater_maximum_there() {
        /// Each maximum of the second schema for what the first has, too.
        fn smaller(from: &Value, to: &Value, path: &str, found: &mut Vec<String>) {
            for key in ["maxLength", "maxItems"] {
                if let (from, Some(to)) = (from[key].as_u64(), to[key].as_u64())
                    && from.is_none_or(|from| from > to)
                {
                    found.push(format!("{path}: {key} is {from:?}, and {to} where it is copied to"));
                }
            }
            for (key, to) in to["properties"].as_object().into_iter().flatten() {
                if let Some(from) = from["properties"].get(key) {
                    smaller(from, to, &format!("{path}.{key}"), found);
                }
            }
            if from["items"].is_object() && to["items"].is_object() {
                smaller(&from["items"], &to["items"], &format!("{path}[]"), found);
            }
        }
        let incident = &schema_of::<Incident>("status")["properties"];
        let postmortem = &schema_of::<Postmortem>("status")["properties"];
        let record = &postmortem["incident"]["properties"];
        let mut found = Vec::new();
        smaller(&incident["timeline"], &postmortem["timeline"], "timeline", &mut found);
        for list in ["roles", "mitigations"] {
            assert!(incident[list]["items"].is_object() && record[list]["items"].is_object(), "{list}");
            smaller(&incident[list], &record[list], list, &mut found);
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
