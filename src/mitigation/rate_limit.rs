//! `rateLimit`: let fewer requests through. Each gateway limits in its own way, so there is an adapter for each, and
//! what a budget counts for is stated as that gateway counts and not as one might wish.

mod envoy;
mod nginx;
mod traefik;

use super::{
    BACKEND_TRAFFIC_POLICY, Effect, Engine, GATEWAY, HTTP_ROUTE, INGRESS, INGRESS_CLASS, INGRESS_ROUTE, Look,
    MIDDLEWARE, ObjectId, Part, Refusal, Rule, Scene, Stop, TargetKind, field,
};
use crate::api::{ActionName, RateAdapter, RateLimit, RateScope, RateUnit, TargetRef};
use crate::authority::{Authority, By, on, right};
use crate::fence::{Fence, Update, fields};
use serde_json::Value;

/// An instance, for what is generated from all actions.
pub(super) fn example() -> RateLimit {
    RateLimit { requests: 1, per: RateUnit::Second, scope: None, adapter: None }
}

impl RateUnit {
    /// The unit in words.
    fn word(self) -> &'static str {
        match self {
            RateUnit::Second => "second",
            RateUnit::Minute => "minute",
            RateUnit::Hour => "hour",
        }
    }

    fn seconds(self) -> i64 {
        match self {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
        }
    }
}

impl RateScope {
    fn word(self) -> &'static str {
        match self {
            RateScope::PerClient => "PerClient",
            RateScope::PerProxy => "PerProxy",
            RateScope::Global => "Global",
        }
    }
}

impl RateLimit {
    /// "100 requests a second".
    fn rate(&self) -> String {
        format!("{} requests a {}", self.requests, self.per.word())
    }

    /// Refuses a scope that the gateway does not count in.
    fn check_scope(&self, gateway: &str, can: RateScope, counts: &str) -> Result<(), Refusal> {
        match self.scope {
            None => Ok(()),
            Some(asked) if asked == can => Ok(()),
            Some(asked) => Err(Refusal::new(
                "ScopeNotSupported",
                format!(
                    "{gateway} cannot limit with scope {}: {counts}; use scope {} or leave it out",
                    asked.word(),
                    can.word()
                ),
            )),
        }
    }

    /// The adapter, from what is stated, from the target's kind, and for an Ingress from its class.
    fn adapter(&self, scene: &Scene<'_>) -> Result<RateAdapter, Stop> {
        let (told, by) = match scene.id.kind {
            HTTP_ROUTE | GATEWAY => (Some(RateAdapter::EnvoyGateway), "its kind".to_owned()),
            INGRESS_ROUTE => (Some(RateAdapter::Traefik), "its kind".to_owned()),
            _ => by_class(scene)?,
        };
        match (self.adapter, told) {
            (Some(stated), Some(told)) if stated != told => Err(Stop::refuse(
                "OtherGateway",
                format!(
                    "adapter {} does not work on {}, which is for {} by {by}: leave adapter out",
                    adapter_word(stated),
                    scene.id,
                    adapter_word(told)
                ),
            )),
            (Some(RateAdapter::EnvoyGateway), None) => Err(Stop::refuse(
                "OtherGateway",
                "adapter EnvoyGateway works on an HTTPRoute or Gateway, not on an Ingress: correct adapter or spec.targetRef",
            )),
            (Some(adapter), _) | (None, Some(adapter)) => Ok(adapter),
            (None, None) => Err(Stop::refuse(
                "GatewayUnknown",
                format!("which gateway serves {} cannot be told by {by}: state adapter", scene.id),
            )),
        }
    }

    /// What a budget counts for, as the gateway counts.
    fn meaning(&self, adapter: RateAdapter, scene: &Scene<'_>) -> String {
        match adapter {
            RateAdapter::EnvoyGateway => envoy::meaning(self),
            RateAdapter::Traefik => traefik::meaning(self),
            RateAdapter::IngressNginx => nginx::meaning(self, scene),
        }
    }
}

fn adapter_word(adapter: RateAdapter) -> &'static str {
    match adapter {
        RateAdapter::EnvoyGateway => "EnvoyGateway",
        RateAdapter::Traefik => "Traefik",
        RateAdapter::IngressNginx => "IngressNginx",
    }
}

/// The adapter of an Ingress, by the controller of its class.
fn by_class(scene: &Scene<'_>) -> Result<(Option<RateAdapter>, String), Stop> {
    let text = |value: Option<Value>| value.and_then(|v| v.as_str().map(str::to_owned));
    let named = text(field(scene.target, "/spec/ingressClassName"))
        .or_else(|| text(field(scene.target, "/metadata/annotations/kubernetes.io~1ingress.class")));
    let class = match &named {
        Some(name) => scene.one(&ObjectId::new(INGRESS_CLASS, name))?,
        None => scene.everywhere(INGRESS_CLASS)?.find(|class| {
            let default = class.metadata.annotations.as_ref();
            default
                .and_then(|a| a.get("ingressclass.kubernetes.io/is-default-class"))
                .is_some_and(|v| v == "true")
        }),
    };
    let controller = class.and_then(|class| text(field(class, "/spec/controller")));
    let adapter = match controller.as_deref() {
        Some("traefik.io/ingress-controller") => Some(RateAdapter::Traefik),
        Some("k8s.io/ingress-nginx") => Some(RateAdapter::IngressNginx),
        _ => None,
    };
    let by = match (named, controller) {
        (Some(name), Some(controller)) => format!("its class {name} ({controller})"),
        (Some(name), None) => format!("its class {name}, of which there is no IngressClass"),
        (None, Some(controller)) => format!("the default IngressClass ({controller})"),
        (None, None) => "its class, since it names none".to_owned(),
    };
    Ok((adapter, by))
}

impl Engine for RateLimit {
    fn name(&self) -> ActionName {
        ActionName::RateLimit
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[HTTP_ROUTE, GATEWAY, INGRESS, INGRESS_ROUTE]
    }

    fn touches(&self) -> &'static [TargetKind] {
        &[BACKEND_TRAFFIC_POLICY, MIDDLEWARE]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[INGRESS_CLASS]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        match self.adapter(scene)? {
            RateAdapter::EnvoyGateway => envoy::parts(self, scene),
            RateAdapter::Traefik => traefik::parts(self, scene),
            RateAdapter::IngressNginx => nginx::parts(self, scene),
        }
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        let adapter = self.adapter(scene)?;
        let silent = |gateway: &str| Effect::Unclear {
            reason: "NotReported",
            message: format!(
                "what was asked for stands where {gateway} reads it, and {gateway} reports nothing back: send requests to see it. {}",
                self.meaning(adapter, scene)
            ),
        };
        Ok(match adapter {
            RateAdapter::EnvoyGateway => envoy::effect(self, scene)?,
            RateAdapter::Traefik => match traefik::unlimited(scene) {
                Some(seen) => {
                    Effect::Awaited { what: "waiting until every rule is limited".to_owned(), seen }
                }
                None => silent("Traefik"),
            },
            RateAdapter::IngressNginx => silent("ingress-nginx"),
        })
    }

    fn follows(&self, scene: &Scene<'_>) -> Option<Look> {
        match scene.id.kind {
            HTTP_ROUTE | GATEWAY => Some(Look::List { kind: BACKEND_TRAFFIC_POLICY, labels: None }),
            // Who serves an Ingress is known by now, or was stated.
            _ => match self.adapter(scene) {
                Ok(RateAdapter::Traefik) => traefik::follows(scene),
                _ => None,
            },
        }
    }

    fn undone_backwards(&self) -> bool {
        // Traefik drops a route that names a Middleware which is not there.
        true
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        let by = parts.iter().map(|part| part.id.to_string()).collect::<Vec<_>>().join(" and ");
        let on = format!("{}/{}", target.kind, target.name);
        let by = if by == on { String::new() } else { format!(" by {by}") };
        format!("limit {on} to {}{by}", self.rate())
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let adapter = self.adapter(scene)?;
        let mut warnings = vec![self.meaning(adapter, scene)];
        match adapter {
            RateAdapter::EnvoyGateway => warnings.extend(envoy::warnings(scene)?),
            RateAdapter::Traefik => warnings.extend(traefik::warnings(scene)?),
            RateAdapter::IngressNginx => warnings.extend(nginx::warnings(scene)),
        }
        Ok(warnings)
    }

    fn release(&self) -> String {
        "takes away what was added, or puts the limit back that was there before, unless somebody changed it meanwhile".to_owned()
    }

    fn rules(&self) -> Vec<Rule> {
        let made = &["create", "patch", "delete"];
        vec![
            Rule { groups: &["gateway.envoyproxy.io"], resources: &["backendtrafficpolicies"], verbs: made },
            Rule { groups: &["traefik.io"], resources: &["middlewares"], verbs: made },
            Rule { groups: &["traefik.io"], resources: &["ingressroutes"], verbs: &["patch"] },
            Rule { groups: &["networking.k8s.io"], resources: &["ingresses"], verbs: &["patch"] },
        ]
    }

    fn authority(&self) -> Authority {
        // Without an adapter, the target's kind tells it.
        let envoy: &[&str] = &["", "EnvoyGateway"];
        let make = right("create", "gateway.envoyproxy.io", "backendtrafficpolicies");
        let traefik = right("patch", "traefik.io", "ingressroutes");
        let ingress = right("patch", "networking.k8s.io", "ingresses");
        Authority {
            by: Some(By { field: "adapter", default: "" }),
            rights: vec![
                on("HTTPRoute", "gateway.networking.k8s.io/v1", make).beside().when(envoy),
                on("Gateway", "gateway.networking.k8s.io/v1", make).beside().when(envoy),
                on("IngressRoute", "traefik.io/v1alpha1", traefik).when(&["", "Traefik"]),
                on("Ingress", "networking.k8s.io/v1", ingress).when(&["", "IngressNginx", "Traefik"]),
            ],
            extras: Vec::new(),
        }
    }

    fn fence(&self) -> Fence {
        Fence {
            updates: const {
                &[
                    fields(
                        &["backendtrafficpolicies.gateway.envoyproxy.io", "middlewares.traefik.io"],
                        &["spec.rateLimit"],
                    ),
                    fields(&["ingressroutes.traefik.io"], &["spec.routes"]),
                    Update {
                        resources: &["ingresses.networking.k8s.io"],
                        annotations: &[
                            "traefik.ingress.kubernetes.io/router.middlewares",
                            "nginx.ingress.kubernetes.io/limit-rpm",
                            "nginx.ingress.kubernetes.io/limit-rps",
                        ],
                        fields: &[],
                        labels: &[],
                        any_label: false,
                    },
                ]
            },
            makes: &["backendtrafficpolicies.gateway.envoyproxy.io", "middlewares.traefik.io"],
            deletes: &[],
        }
    }
}

#[cfg(test)]
mod tests;
