//! `isolate`: take pods out of service and keep them for inspection.
//!
//! A policy that denies all traffic does nothing for pods that another policy allows: NetworkPolicies are a union. So
//! by default the labels are taken away by which anything selects the pods: no Service sends them requests, their
//! workload makes new ones in their place, and no other policy speaks for them any more; then a policy of our own
//! that denies everything holds. `DenyPolicy` leaves the labels and is refused where it would do nothing.

mod selection;

use super::{
    Change, DAEMON_SET, DEPLOYMENT, Effect, Engine, JOB, Look, NETWORK_POLICY, ObjectId, POD, Part,
    REPLICA_SET, Rule, SERVICE, STATEFUL_SET, Scene, Stop, TargetKind, Undo, field, patch::pointer, prior,
    record::Record,
};
use crate::api::{ActionName, Isolate, IsolateMethod, ReleasePods, TargetRef};
use kube::core::DynamicObject;
use serde_json::{Value, json};

/// Label of isolated pods: the mitigation by which they are.
const ISOLATED: &str = "incident-operator.dev/isolated";

/// An instance, for what is generated from all actions.
pub(super) fn example() -> Isolate {
    Isolate::default()
}

impl Isolate {
    fn method(&self) -> IsolateMethod {
        self.method.unwrap_or(IsolateMethod::StripLabels)
    }

    fn strip(scene: &Scene<'_>, pods: &[&DynamicObject]) -> Result<Vec<Part>, Stop> {
        let mut parts = vec![Part::create(
            ObjectId::new(NETWORK_POLICY, scene.made_name()),
            deny_all(&json!({ISOLATED: scene.short_uid()})),
        )];
        for pod in pods {
            let mut changes =
                vec![Change::set(pod, pointer(&["metadata", "labels", ISOLATED]), json!(scene.short_uid()))];
            for key in selection::selected_labels(scene, pod)? {
                changes.push(Change::remove(pod, pointer(&["metadata", "labels", &key])));
            }
            parts.push(Part::change(&ObjectId::of(POD, pod), changes));
        }
        Ok(parts)
    }

    fn deny(&self, scene: &Scene<'_>, pods: &[&DynamicObject]) -> Result<Vec<Part>, Stop> {
        let selector = selection::selector(self, scene)?;
        for policy in scene.list(NETWORK_POLICY, None)? {
            if policy.metadata.name.as_deref() == Some(scene.made_name().as_str()) {
                continue;
            }
            if let Some(pod) = pods.iter().find(|pod| selection::allows(policy, pod)) {
                return Err(Stop::refuse(
                    "AnotherPolicyAllows",
                    format!(
                        "NetworkPolicy {} allows traffic of pod {}, and policies add up: use method StripLabels",
                        policy.metadata.name.as_deref().unwrap_or_default(),
                        pod.metadata.name.as_deref().unwrap_or_default()
                    ),
                ));
            }
        }
        Ok(vec![Part::create(ObjectId::new(NETWORK_POLICY, scene.made_name()), deny_all(&selector))])
    }
}

/// No rule at all for both directions: nothing passes.
fn deny_all(labels: &Value) -> Value {
    json!({"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress", "Egress"]})
}

impl Engine for Isolate {
    fn name(&self) -> ActionName {
        ActionName::Isolate
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[POD, DEPLOYMENT, STATEFUL_SET, DAEMON_SET]
    }

    fn touches(&self) -> &'static [TargetKind] {
        &[POD, NETWORK_POLICY]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[SERVICE, REPLICA_SET, JOB]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        let pods = selection::pods(self, scene)?;
        let most = usize::try_from(self.max_pods.unwrap_or(1)).unwrap_or(1);
        if pods.is_empty() {
            return Err(Stop::refuse(
                "NoPods",
                "no running pod is meant: correct targetRef or podLabels in a new mitigation",
            ));
        }
        if pods.len() > most {
            return Err(Stop::refuse(
                "TooManyPods",
                format!(
                    "{} pods are meant and at most {most} may be isolated: narrow podLabels, or raise maxPods",
                    pods.len()
                ),
            ));
        }
        if let Some(pod) = pods.iter().find(|pod| field(pod, "/spec/hostNetwork") == Some(json!(true))) {
            return Err(Stop::refuse(
                "HostNetwork",
                format!(
                    "pod {} uses the network of its node: no policy and no Service isolates it",
                    pod.metadata.name.as_deref().unwrap_or_default()
                ),
            ));
        }
        match self.method() {
            IsolateMethod::StripLabels => Self::strip(scene, &pods),
            IsolateMethod::DenyPolicy => self.deny(scene, &pods),
        }
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        if self.method() == IsolateMethod::DenyPolicy {
            return Ok(Effect::Seen(
                "the policy denies all traffic, where the network plugin enforces policies; connections that are open may go on"
                    .to_owned(),
            ));
        }
        if let Some(wanted) = field(scene.target, "/spec/replicas").and_then(|v| v.as_i64())
            && scene.id.kind != POD
        {
            let ready = selection::replacements(scene)?;
            if ready < wanted {
                return Ok(Effect::Awaited {
                    what: "waiting until the workload has made new pods in their place".to_owned(),
                    seen: format!("{ready} of {wanted} pods are ready"),
                });
            }
        }
        Ok(Effect::Seen(
            "nothing selects the pods any more; connections that are open may go on until they are closed"
                .to_owned(),
        ))
    }

    fn follows(&self, _scene: &Scene<'_>) -> Option<Look> {
        Some(Look::List { kind: POD, labels: None })
    }

    fn undo(
        &self,
        _scene: &Scene<'_>,
        id: &ObjectId,
        _object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        let delete = self.release_pods.unwrap_or(ReleasePods::Delete) == ReleasePods::Delete;
        // A pod of its own has nobody who would make a new one.
        let replaced = record.fields.iter().any(|held| held.applied.is_none());
        if id.kind == POD && delete && replaced && self.method() == IsolateMethod::StripLabels {
            return Ok(Undo::Delete);
        }
        Ok(prior(record))
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        let pods: Vec<&str> =
            parts.iter().filter(|part| part.id.kind == POD).map(|part| part.id.name.as_str()).collect();
        if pods.is_empty() {
            return format!("deny all traffic of the pods of {}/{}", target.kind, target.name);
        }
        format!("isolate {}", pods.join(", "))
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = vec![
            "connections that are open may go on, and a network plugin that ignores policies isolates nothing"
                .to_owned(),
        ];
        let pods = selection::pods(self, scene)?;
        for pod in pods {
            let owner = pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match owner.map(|owner| owner.kind.as_str()) {
                None => warnings.push(format!("pod {name} stands alone: nothing takes its place")),
                Some("StatefulSet") => warnings.push(format!(
                    "pod {name} belongs to a StatefulSet, which makes one of the same name only after this one is deleted"
                )),
                Some(_) => {}
            }
        }
        warnings.truncate(15);
        Ok(warnings)
    }

    fn release(&self) -> String {
        match (self.method(), self.release_pods.unwrap_or(ReleasePods::Delete)) {
            (IsolateMethod::DenyPolicy, _) => "deletes the policy".to_owned(),
            (IsolateMethod::StripLabels, ReleasePods::Delete) => {
                "deletes the isolated pods, which were replaced, and the policy".to_owned()
            }
            (IsolateMethod::StripLabels, ReleasePods::Relabel) => {
                "gives the pods their labels back, so that the workload may delete surplus ones, and deletes the policy"
                    .to_owned()
            }
        }
    }

    fn rules(&self) -> Vec<Rule> {
        vec![
            Rule { groups: &[""], resources: &["pods"], verbs: &["patch", "delete"] },
            Rule {
                groups: &["networking.k8s.io"],
                resources: &["networkpolicies"],
                verbs: &["create", "patch", "delete"],
            },
        ]
    }
}

#[cfg(test)]
mod tests;
