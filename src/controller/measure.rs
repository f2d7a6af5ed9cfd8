//! The gauges that are worked out when metrics are read.

use super::{Context, indexes::BY_LABELS};
use crate::{
    api::{ConditionStatus, Postmortem, PostmortemStatus},
    decide::{conditions::status as status_of, postmortem::is_open},
    metrics::{ActionItemLabels, IncidentLabels, MitigationLabels, OpenIncidents, PostmortemLabels, render},
};
use k8s_openapi::jiff::Timestamp;
use std::{fmt, sync::PoisonError};

impl Context {
    /// Writes the text that a scraper reads.
    pub(super) fn tell_metrics(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let counted = {
            // One at a time: the gauges are set anew for each, whatever else was left of them.
            let _alone = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
            self.measure();
            self.metrics.counted()
        };
        render(out, &counted, OpenIncidents::new(self.incidents.not_at_rest(), Timestamp::now()))
    }

    /// Sets the gauges that are worked out when metrics are read.
    fn measure(&self) {
        let queues = &self.queues;
        self.metrics.set_depth("incident", queues.incidents.depth());
        self.metrics.set_depth("mitigation", queues.mitigations.depth());
        self.metrics.set_depth("policy", queues.policies.depth());
        self.metrics.set_depth("postmortem", queues.postmortems.depth());
        self.metrics.set_channels(&self.notifier.channels(&self.settings().channels));
        self.metrics.incidents.clear();
        for (words, count) in self.incidents.sizes(BY_LABELS) {
            let mut words = words.split(' ').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            let labels = IncidentLabels { severity: next(), stage: next(), drill: next() };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.incidents.get_or_create(&labels).set(count);
        }
        self.metrics.mitigations.clear();
        for mitigation in self.mitigations.all() {
            let labels = MitigationLabels {
                action: mitigation.spec.template.action.name().as_str(),
                phase: mitigation.status.as_ref().and_then(|s| s.phase).unwrap_or_default().to_string(),
            };
            self.metrics.mitigations.get_or_create(&labels).inc();
        }
        self.metrics.postmortems.clear();
        self.metrics.action_items.clear();
        for postmortem in self.postmortems.all() {
            self.measure_postmortem(&postmortem);
        }
    }

    fn measure_postmortem(&self, postmortem: &Postmortem) {
        let namespace = postmortem.metadata.namespace.clone().unwrap_or_default();
        let none = PostmortemStatus::default();
        let status = postmortem.status.as_ref().unwrap_or(&none);
        let drill = status.incident.as_ref().is_some_and(|i| i.drill == Some(true)).to_string();
        let is = |type_| status_of(&status.conditions, type_) == ConditionStatus::True;
        let labels = PostmortemLabels {
            namespace: namespace.clone(),
            state: format!("{:?}", postmortem.spec.state.unwrap_or_default()),
            reviewed: is("Reviewed").to_string(),
            overdue: is("Overdue").to_string(),
            drill: drill.clone(),
        };
        self.metrics.postmortems.get_or_create(&labels).inc();
        for item in postmortem.spec.action_items.iter().filter(|item| is_open(item)) {
            let labels = ActionItemLabels {
                namespace: namespace.clone(),
                priority: item.priority.map_or("unstated".to_owned(), |p| format!("{p:?}")),
                overdue: status.overdue_action_items.contains(&item.id).to_string(),
                drill: drill.clone(),
            };
            self.metrics.action_items.get_or_create(&labels).inc();
        }
    }
}
