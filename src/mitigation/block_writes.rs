//! `blockWrites`: stop writes where data is at risk, at one of four levels: a read-only flag of the application, HTTP
//! methods on a route, a quota for new objects, or a network policy in front of the data store.
//!
//! Each level says which reads and writes suffer, because none of them can tell a write from a read exactly.

mod network;
mod quota;
mod routes;

use super::{
    CONFIG_MAP, DAEMON_SET, DEPLOYMENT, Effect, Engine, FeatureFlag, HTTP_ROUTE, HTTP_ROUTE_FILTER, Look,
    NAMESPACE, NETWORK_POLICY, ObjectId, POD, Part, REPLICA_SET, RESOURCE_QUOTA, Refusal, Rule, SERVICE,
    STATEFUL_SET, Scene, Stop, TargetKind, Undo, record::Record,
};
use crate::api::{ActionName, BlockLevel, BlockWrites, TargetRef};
use crate::authority::{Authority, By, extra, on, right};
use crate::fence::{FLAG, Fence, RESTART, fields};
use kube::core::DynamicObject;
use serde_json::Value;

/// An instance, for what is generated from all actions.
pub(super) fn example() -> BlockWrites {
    BlockWrites {
        level: BlockLevel::Flag,
        flag: Some(super::feature_flag::example()),
        methods: None,
        resources: None,
        read_replica_labels: None,
    }
}

impl BlockWrites {
    fn flag(&self) -> Result<&FeatureFlag, Refusal> {
        self.flag.as_ref().ok_or_else(|| {
            let message =
                "flag is missing: state key and value of the read-only flag in spec.blockWrites.flag";
            Refusal::new("FlagMissing", message)
        })
    }

    /// Refuses a target that the level does not work on.
    fn check_kind(&self, kind: TargetKind) -> Result<(), Refusal> {
        let (level, kinds): (&str, &[TargetKind]) = match self.level {
            BlockLevel::Flag => ("Flag", &[CONFIG_MAP]),
            BlockLevel::Routes => ("Routes", &[HTTP_ROUTE]),
            BlockLevel::Quota => ("Quota", &[NAMESPACE]),
            BlockLevel::Network => ("Network", &[DEPLOYMENT, STATEFUL_SET]),
        };
        if kinds.contains(&kind) {
            return Ok(());
        }
        let known = kinds.iter().map(|kind| kind.kind).collect::<Vec<_>>().join(" or ");
        let message = format!(
            "blockWrites at level {level} works on a {known}, not on a {}: correct spec.targetRef or the level in a new mitigation",
            kind.kind
        );
        Err(Refusal::new("KindNotAllowed", message))
    }
}

impl Engine for BlockWrites {
    fn name(&self) -> ActionName {
        ActionName::BlockWrites
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[CONFIG_MAP, HTTP_ROUTE, NAMESPACE, DEPLOYMENT, STATEFUL_SET]
    }

    fn touches(&self) -> &'static [TargetKind] {
        // The workloads are those that a flag restarts.
        &[HTTP_ROUTE_FILTER, RESOURCE_QUOTA, NETWORK_POLICY, DAEMON_SET]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[POD, REPLICA_SET, SERVICE]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        self.check_kind(scene.id.kind)?;
        match self.level {
            BlockLevel::Flag => self.flag()?.parts(scene),
            BlockLevel::Routes => routes::parts(self, scene),
            BlockLevel::Quota => quota::parts(self, scene),
            BlockLevel::Network => network::parts(self, scene),
        }
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        match self.level {
            BlockLevel::Flag => self.flag()?.effect(scene),
            BlockLevel::Routes => routes::effect(self, scene),
            BlockLevel::Quota => quota::effect(self, scene),
            BlockLevel::Network => network::effect(self, scene),
        }
    }

    fn undo(
        &self,
        scene: &Scene<'_>,
        id: &ObjectId,
        object: &DynamicObject,
        record: &Record,
    ) -> Result<Undo, Stop> {
        match (self.level, &self.flag) {
            (BlockLevel::Flag, Some(flag)) => flag.undo(scene, id, object, record),
            _ => Ok(super::prior(record)),
        }
    }

    fn again(&self, scene: &Scene<'_>, record: &Record) -> Result<Vec<Option<Value>>, Stop> {
        self.flag()?.again(scene, record)
    }

    fn follows(&self, scene: &Scene<'_>) -> Option<Look> {
        match self.level {
            BlockLevel::Flag => self.flag.as_ref()?.follows(scene),
            // What is made is held, and so watched.
            BlockLevel::Quota => None,
            BlockLevel::Routes | BlockLevel::Network => self.watches_over(scene),
        }
    }

    fn watches_over(&self, _scene: &Scene<'_>) -> Option<Look> {
        match self.level {
            BlockLevel::Flag | BlockLevel::Quota => None,
            // The target itself is not held, and may get further paths.
            BlockLevel::Routes => Some(Look::List { kind: HTTP_ROUTE, labels: None }),
            BlockLevel::Network => Some(Look::List { kind: NETWORK_POLICY, labels: None }),
        }
    }

    /// A flag may restart its readers.
    fn destroys(&self) -> bool {
        self.flag.as_ref().is_some_and(|flag| self.level == BlockLevel::Flag && flag.destroys())
    }

    fn undone_backwards(&self) -> bool {
        match self.level {
            BlockLevel::Flag => false,
            // The route names the filter.
            BlockLevel::Routes | BlockLevel::Quota | BlockLevel::Network => true,
        }
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        match (self.level, &self.flag) {
            (BlockLevel::Flag, Some(flag)) => {
                format!("block writes by a flag: {}", flag.summary(target, parts))
            }
            (BlockLevel::Flag, None) => "block writes by a flag".to_owned(),
            (BlockLevel::Routes, _) => format!(
                "answer {} on the paths of HTTPRoute/{} with 503",
                routes::methods(self).join(", "),
                target.name
            ),
            (BlockLevel::Quota, _) => {
                format!("refuse new {} in namespace {}", quota::resources(self).join(", "), target.name)
            }
            (BlockLevel::Network, _) => {
                format!("close the way to the pods of {}/{}", target.kind, target.name)
            }
        }
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        match self.level {
            BlockLevel::Flag => {
                let mut warnings = vec![
                    "writes: those that the application stops while the flag is set, in pods that have read it; reads: none, if the application tells them apart".to_owned(),
                ];
                warnings.extend(self.flag()?.warnings(scene)?);
                Ok(warnings)
            }
            BlockLevel::Routes => Ok(routes::warnings(self, scene)),
            BlockLevel::Quota => Ok(quota::warnings(self)),
            BlockLevel::Network => network::warnings(self, scene),
        }
    }

    fn release(&self) -> String {
        match (self.level, &self.flag) {
            (BlockLevel::Flag, Some(flag)) => flag.release(),
            (BlockLevel::Flag, None) => "puts the flag back".to_owned(),
            (BlockLevel::Routes, _) => {
                "deletes the route that answers 503; the target was not changed".to_owned()
            }
            (BlockLevel::Quota, _) => {
                "deletes the quota; objects that were refused meanwhile are not made again by it".to_owned()
            }
            (BlockLevel::Network, _) => {
                "deletes the network policy; clients connect again by themselves".to_owned()
            }
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let made = &["create", "patch", "delete"];
        let mut rules = vec![
            Rule { groups: &["gateway.networking.k8s.io"], resources: &["httproutes"], verbs: made },
            Rule { groups: &["gateway.envoyproxy.io"], resources: &["httproutefilters"], verbs: made },
            Rule { groups: &[""], resources: &["resourcequotas"], verbs: made },
            Rule { groups: &["networking.k8s.io"], resources: &["networkpolicies"], verbs: made },
        ];
        rules.extend(super::feature_flag::example().rules());
        rules
    }

    fn authority(&self) -> Authority {
        let quota = right("create", "", "resourcequotas");
        let network = right("create", "networking.k8s.io", "networkpolicies");
        let routes = right("patch", "gateway.networking.k8s.io", "httproutes");
        Authority {
            by: Some(By { field: "level", default: "" }),
            rights: vec![
                on("ConfigMap", "v1", right("patch", "", "configmaps")).when(&["Flag"]),
                on("HTTPRoute", "gateway.networking.k8s.io/v1", routes).when(&["Routes"]),
                on("Namespace", "v1", quota).beside().when(&["Quota"]),
                on("Deployment", "apps/v1", network).beside().when(&["Network"]),
                on("StatefulSet", "apps/v1", network).beside().when(&["Network"]),
            ],
            extras: vec![
                extra("flag.restartConsumers", false, true, right("patch", "apps", "deployments"))
                    .also_on_release(),
            ],
        }
    }

    fn fence(&self) -> Fence {
        Fence {
            updates: const { &[FLAG, RESTART, fields(&["httproutes.gateway.networking.k8s.io"], &["spec.rules"])] },
            makes: &[
                "httproutes.gateway.networking.k8s.io",
                "httproutefilters.gateway.envoyproxy.io",
                "resourcequotas",
                "networkpolicies.networking.k8s.io",
            ],
            deletes: &[],
        }
    }
}

#[cfg(test)]
mod tests;
