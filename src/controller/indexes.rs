//! What the caches are looked up by, so that no visit goes through all objects of a kind.

use super::{cache::Index, targets::index_text};
use crate::{
    api::{
        Action, Incident, Mitigation, MitigationPhase as Phase, Postmortem, Stage, TimelineEntry,
        TimelineEntryType,
    },
    decide::mitigation::objects,
};

/// Mitigations by the incident they name.
pub(super) const BY_INCIDENT: usize = 0;
/// Mitigations by the objects that they touch.
pub(super) const BY_OBJECT: usize = 1;
/// Mitigations that are active, or are being made, by namespace.
pub(super) const ACTIVE_IN: usize = 2;
/// Mitigations that are not made yet, all under one text.
pub(super) const WAITING: usize = 3;

pub(super) const MITIGATION_INDEXES: &[Index<Mitigation>] = &[
    |m| {
        m.spec
            .incident_ref
            .iter()
            .map(|incident| text(m.metadata.namespace.as_ref(), &incident.name))
            .collect()
    },
    |m| {
        let namespace = m.metadata.namespace.as_deref().unwrap_or_default();
        let target = &m.spec.template.target_ref;
        let mut texts = vec![index_text(namespace, &target.kind, &target.name)];
        texts.extend(objects(m).iter().map(|id| index_text(namespace, id.kind.kind, &id.name)));
        texts.dedup();
        texts
    },
    |m| {
        // Nothing is changed by a dry run, nor by the operator where a person acts.
        let counts =
            m.spec.template.dry_run != Some(true) && !matches!(m.spec.template.action, Action::Manual(_));
        let phase = m.status.as_ref().and_then(|s| s.phase);
        let active = matches!(phase, Some(Phase::Applying | Phase::Active | Phase::Releasing));
        m.metadata.namespace.iter().filter(|_| counts && active).cloned().collect()
    },
    |m| is_waiting(m).then(String::new).into_iter().collect(),
];

/// Whether it has not been made yet, and may still be.
pub(super) fn is_waiting(m: &Mitigation) -> bool {
    let status = m.status.as_ref();
    let ended = status.and_then(|s| s.phase).is_some_and(Phase::is_ended);
    !ended && status.is_none_or(|s| s.applied_time.is_none())
}

/// Entries by the mitigation that they approve or reject.
pub(super) const BY_MITIGATION: usize = 1;
pub(super) const ENTRY_INDEXES: &[Index<TimelineEntry>] = &[
    |e| vec![text(e.metadata.namespace.as_ref(), &e.spec.incident_ref.name)],
    |e| {
        let judges = matches!(e.spec.type_, TimelineEntryType::Approval | TimelineEntryType::Rejection);
        let named = e.spec.mitigation_ref.iter().filter(|_| judges);
        named.map(|m| text(e.metadata.namespace.as_ref(), &m.name)).collect()
    },
];
/// Postmortems by the ConfigMap that holds their Markdown.
pub(super) const BY_EXPORT: usize = 1;
pub(super) const POSTMORTEM_INDEXES: &[Index<Postmortem>] = &[
    |p| p.spec.incident_ref.iter().map(|i| text(p.metadata.namespace.as_ref(), &i.name)).collect(),
    |p| {
        let export = p.status.iter().flat_map(|status| &status.export);
        export.map(|export| text(p.metadata.namespace.as_ref(), &export.config_map_ref.name)).collect()
    },
];
/// Incidents by the one of which they are a duplicate.
pub(super) const BY_ORIGINAL: usize = 0;
/// Incidents by what is counted of them, as words in a row.
pub(super) const BY_LABELS: usize = 1;

/// Incidents by the postmortem that their status names.
pub(super) const BY_POSTMORTEM: usize = 2;

pub(super) const INCIDENT_INDEXES: &[Index<Incident>] = &[
    |i| i.spec.duplicate_of.iter().map(|d| text(i.metadata.namespace.as_ref(), &d.name)).collect(),
    |i| {
        let stage = i.status.as_ref().and_then(|s| s.stage);
        let stage = stage.map_or("New".to_owned(), |s| s.to_string());
        let severity = i.spec.severity.map_or("unstated".to_owned(), |s| s.to_string());
        vec![format!("{severity} {stage} {}", i.spec.drill == Some(true))]
    },
    |i| {
        let postmortem = i.status.as_ref().and_then(|s| s.postmortem_ref.as_ref());
        postmortem.iter().map(|p| text(i.metadata.namespace.as_ref(), &p.name)).collect()
    },
];

/// Nothing happens to an incident that is over, unless somebody writes to it.
pub(super) fn is_over(incident: &Incident) -> bool {
    matches!(incident.status.as_ref().and_then(|s| s.stage), Some(Stage::Closed | Stage::Cancelled))
}

/// A list that is read grows by doubling: of an incident with 21 entries a third would be empty places.
pub(super) fn fit(incident: &mut Incident) {
    if let Some(status) = &mut incident.status {
        status.timeline.shrink_to_fit();
        status.checklist.shrink_to_fit();
        status.conditions.shrink_to_fit();
    }
}

fn text(namespace: Option<&String>, name: &str) -> String {
    format!("{}/{name}", namespace.map_or("", String::as_str))
}
