//! `isolate`: take pods out of service and keep them for inspection.
//!
//! A policy that denies all traffic does nothing for pods that another policy allows: NetworkPolicies are a union. So
//! by default the labels are taken away by which anything selects the pods: no Service sends them requests, their
//! workload makes new ones in their place, and no other policy speaks for them any more; then a policy of our own
//! that denies everything holds. `DenyPolicy` leaves the labels and is refused where it would do nothing. A single pod has
//! the labels of its siblings, so that it gets one of its own by which the policy selects it and nobody else.

mod selection;

use super::{
    Change, DAEMON_SET, DEPLOYMENT, Effect, Engine, JOB, Look, NETWORK_POLICY, ObjectId, POD, Part,
    REPLICA_SET, Rule, SERVICE, STATEFUL_SET, Scene, Stop, TargetKind, Undo, field, patch::pointer, prior,
    record::Record,
};
use crate::api::{ActionName, Isolate, IsolateMethod, ReleasePods, TargetRef};
use crate::authority::{Authority, By, extra, on, right};
use crate::fence::{Delete, Fence, Update, Which};
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

    fn release_pods(&self) -> ReleasePods {
        self.release_pods.unwrap_or(ReleasePods::Delete)
    }

    fn strip(&self, scene: &Scene<'_>, pods: &[&DynamicObject]) -> Result<Vec<Part>, Stop> {
        let mut parts = vec![deny_marked(scene)];
        for pod in pods {
            self.refuse_lone(scene, pod)?;
            let keys = selection::selected_labels(scene, pod)?;
            // A selector of all pods, or of those that lack a label, selects them without their labels, too.
            if let Some(words) = selection::let_through(scene, &[&selection::stripped(scene, pod, &keys)])? {
                return Err(Stop::refuse(
                    "AnotherPolicyAllows",
                    format!(
                        "{words} whatever its labels are, and policies add up, so that it would not be isolated: take the rules of that policy away first"
                    ),
                ));
            }
            let mut changes = vec![mark(scene, pod)];
            for key in keys {
                changes.push(Change::remove(pod, pointer(&["metadata", "labels", &key])));
            }
            parts.push(Part::change(&ObjectId::of(POD, pod), changes));
        }
        Ok(parts)
    }

    /// A pod that nobody controls has nobody who makes a new one: it is not deleted unless that is what is asked for.
    fn refuse_lone(&self, scene: &Scene<'_>, pod: &DynamicObject) -> Result<(), Stop> {
        let controlled = pod.metadata.owner_references.iter().flatten().any(|o| o.controller == Some(true));
        // Its workload has let go of one that is stripped already.
        // So it has of one that another mitigation holds, which is waited for.
        let held = Record::all(pod).any(|record| scene.holders.contains(&record.uid));
        if controlled
            || held
            || selection::is_isolated(scene, pod)
            || self.release_pods() == ReleasePods::Relabel
        {
            return Ok(());
        }
        Err(Stop::refuse(
            "StandsAlone",
            format!(
                "pod {} has no controller: the release would delete it and nothing would take its place; set releasePods: Relabel, or use method DenyPolicy",
                pod.metadata.name.as_deref().unwrap_or_default()
            ),
        ))
    }

    fn deny(&self, scene: &Scene<'_>, pods: &[&DynamicObject]) -> Result<Vec<Part>, Stop> {
        if let Some(words) = selection::let_through(scene, pods)? {
            return Err(Stop::refuse(
                "AnotherPolicyAllows",
                format!("{words}, and policies add up: use method StripLabels"),
            ));
        }
        if scene.id.kind == POD {
            let marked = Part::change(scene.id, vec![mark(scene, scene.target)]);
            return Ok(vec![deny_marked(scene), marked]);
        }
        let selector = selection::selector(self, scene)?;
        Ok(vec![Part::create(ObjectId::new(NETWORK_POLICY, scene.made_name()), deny_all(&selector))])
    }
}

/// The label that no other pod has.
fn mark(scene: &Scene<'_>, pod: &DynamicObject) -> Change {
    Change::set(pod, pointer(&["metadata", "labels", ISOLATED]), json!(scene.short_uid()))
}

/// The policy for the pods with that label.
fn deny_marked(scene: &Scene<'_>) -> Part {
    let marked = json!({"matchLabels": {ISOLATED: scene.short_uid()}});
    Part::create(ObjectId::new(NETWORK_POLICY, scene.made_name()), deny_all(&marked))
}

/// No rule at all for both directions: nothing passes.
fn deny_all(selector: &Value) -> Value {
    json!({"podSelector": selector, "policyTypes": ["Ingress", "Egress"]})
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
            IsolateMethod::StripLabels => self.strip(scene, &pods),
            IsolateMethod::DenyPolicy => self.deny(scene, &pods),
        }
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        let pods = selection::isolated(self, scene)?;
        if let Some(seen) = selection::let_through(scene, &pods)? {
            return Ok(Effect::Awaited {
                what: "waiting until no other policy lets traffic to the pods".to_owned(),
                seen: format!("{seen}, and policies add up"),
            });
        }
        if self.method() == IsolateMethod::DenyPolicy {
            return Ok(Effect::Unclear {
                reason: "NotReported",
                message: format!(
                    "the policy denies all traffic of {} pods and no other policy allows any; whether the cluster's network enforces policies, and ends connections that are open already, is reported by nobody: try a connection",
                    pods.len()
                ),
            });
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

    fn follows(&self, scene: &Scene<'_>) -> Option<Look> {
        let contested = || {
            let pods = selection::isolated(self, scene)?;
            Ok::<_, Stop>(selection::let_through(scene, &pods)?.is_some())
        };
        // What is awaited is either new pods or that a policy goes.
        let policies = self.method() == IsolateMethod::DenyPolicy || contested().unwrap_or(false);
        Some(Look::List { kind: if policies { NETWORK_POLICY } else { POD }, labels: None })
    }

    fn watches_over(&self, _scene: &Scene<'_>) -> Option<Look> {
        Some(Look::List { kind: NETWORK_POLICY, labels: None })
    }

    /// The policy stays until the pods are gone, or are as they were.
    fn undone_backwards(&self) -> bool {
        true
    }

    /// Its release deletes pods.
    fn destroys(&self) -> bool {
        self.method() == IsolateMethod::StripLabels && self.release_pods() == ReleasePods::Delete
    }

    fn undo(
        &self,
        _scene: &Scene<'_>,
        id: &ObjectId,
        _object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        let delete = self.release_pods() == ReleasePods::Delete;
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
        match self.method() {
            IsolateMethod::StripLabels => format!("isolate {}", pods.join(", ")),
            IsolateMethod::DenyPolicy if pods.is_empty() => {
                format!("deny all traffic of the pods of {}/{}", target.kind, target.name)
            }
            IsolateMethod::DenyPolicy => format!("deny all traffic of {}/{}", target.kind, target.name),
        }
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
        match (self.method(), self.release_pods()) {
            (IsolateMethod::DenyPolicy, _) => {
                "deletes the policy, and takes the label away by which it selects a single pod".to_owned()
            }
            (IsolateMethod::StripLabels, ReleasePods::Delete) => {
                "deletes the isolated pods, which were replaced, and when they are gone the policy".to_owned()
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

    fn authority(&self) -> Authority {
        let pods = right("patch", "", "pods");
        let deny = right("create", "networking.k8s.io", "networkpolicies");
        // Either way a single pod gets a label.
        let mut rights = vec![on("Pod", "v1", pods).when(&["StripLabels", "DenyPolicy"])];
        let workloads = ["Deployment", "StatefulSet", "DaemonSet"];
        rights.extend(workloads.map(|kind| on(kind, "apps/v1", pods).beside().when(&["StripLabels"])));
        rights.extend(workloads.map(|kind| on(kind, "apps/v1", deny).beside().when(&["DenyPolicy"])));
        Authority {
            by: Some(By { field: "method", default: "StripLabels" }),
            rights,
            extras: vec![
                extra("releasePods", "Delete", "Delete", right("delete", "", "pods"))
                    .also_on_release()
                    .when(&["StripLabels"]),
            ],
        }
    }

    fn fence(&self) -> Fence {
        Fence {
            updates: &[Update {
                resources: &["pods"],
                any_label: true,
                fields: &[],
                labels: &[],
                annotations: &[],
            }],
            makes: &["networkpolicies.networking.k8s.io"],
            deletes: &[Delete { resource: "pods", which: Which::Noted }],
        }
    }
}

#[cfg(test)]
mod tests;
