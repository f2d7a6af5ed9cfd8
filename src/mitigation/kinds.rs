//! The kinds of objects that actions change, make or look at.

use super::scalable;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Resource name.
    pub plural: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $group:literal $version:literal $kind:literal $plural:literal;)*) => {
        $($(#[$doc])* pub const $name: TargetKind =
            TargetKind { group: $group, version: $version, kind: $kind, plural: $plural };)*
        /// Every kind that some action changes, makes or looks at.
        pub const ALL: &[TargetKind] = &[$($name),*];
    };
}

kinds! {
    /// Deployment.
    DEPLOYMENT = "apps" "v1" "Deployment" "deployments";
    /// StatefulSet.
    STATEFUL_SET = "apps" "v1" "StatefulSet" "statefulsets";
    /// DaemonSet.
    DAEMON_SET = "apps" "v1" "DaemonSet" "daemonsets";
    /// ReplicaSet: the revisions of a Deployment.
    REPLICA_SET = "apps" "v1" "ReplicaSet" "replicasets";
    /// ControllerRevision: the revisions of a StatefulSet or DaemonSet.
    CONTROLLER_REVISION = "apps" "v1" "ControllerRevision" "controllerrevisions";
    /// ConfigMap.
    CONFIG_MAP = "" "v1" "ConfigMap" "configmaps";
    /// Secret: of one nothing but its existence is asked.
    SECRET = "" "v1" "Secret" "secrets";
    /// ServiceAccount.
    SERVICE_ACCOUNT = "" "v1" "ServiceAccount" "serviceaccounts";
    /// PersistentVolumeClaim.
    PERSISTENT_VOLUME_CLAIM = "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims";
    /// Pod.
    POD = "" "v1" "Pod" "pods";
    /// Service.
    SERVICE = "" "v1" "Service" "services";
    /// Namespace: the one that the mitigation is in.
    NAMESPACE = "" "v1" "Namespace" "namespaces";
    /// ResourceQuota.
    RESOURCE_QUOTA = "" "v1" "ResourceQuota" "resourcequotas";
    /// CronJob.
    CRON_JOB = "batch" "v1" "CronJob" "cronjobs";
    /// Job.
    JOB = "batch" "v1" "Job" "jobs";
    /// HorizontalPodAutoscaler.
    HORIZONTAL_POD_AUTOSCALER = "autoscaling" "v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers";
    /// ScaledObject of KEDA.
    SCALED_OBJECT = "keda.sh" "v1alpha1" "ScaledObject" "scaledobjects";
    /// NetworkPolicy.
    NETWORK_POLICY = "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies";
    /// Ingress.
    INGRESS = "networking.k8s.io" "v1" "Ingress" "ingresses";
    /// IngressClass.
    INGRESS_CLASS = "networking.k8s.io" "v1" "IngressClass" "ingressclasses";
    /// Gateway of the Gateway API.
    GATEWAY = "gateway.networking.k8s.io" "v1" "Gateway" "gateways";
    /// HTTPRoute of the Gateway API.
    HTTP_ROUTE = "gateway.networking.k8s.io" "v1" "HTTPRoute" "httproutes";
    /// HTTPRouteFilter of Envoy Gateway.
    HTTP_ROUTE_FILTER = "gateway.envoyproxy.io" "v1alpha1" "HTTPRouteFilter" "httproutefilters";
    /// BackendTrafficPolicy of Envoy Gateway.
    BACKEND_TRAFFIC_POLICY =
        "gateway.envoyproxy.io" "v1alpha1" "BackendTrafficPolicy" "backendtrafficpolicies";
    /// Middleware of Traefik.
    MIDDLEWARE = "traefik.io" "v1alpha1" "Middleware" "middlewares";
    /// ValidatingWebhookConfiguration.
    VALIDATING_WEBHOOKS = "admissionregistration.k8s.io" "v1" "ValidatingWebhookConfiguration" "validatingwebhookconfigurations";
    /// MutatingWebhookConfiguration.
    MUTATING_WEBHOOKS = "admissionregistration.k8s.io" "v1" "MutatingWebhookConfiguration" "mutatingwebhookconfigurations";
    /// ValidatingAdmissionPolicy.
    VALIDATING_POLICY = "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicy" "validatingadmissionpolicies";
    /// ValidatingAdmissionPolicyBinding.
    VALIDATING_POLICY_BINDING = "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicyBinding" "validatingadmissionpolicybindings";
    /// APIService.
    API_SERVICE = "apiregistration.k8s.io" "v1" "APIService" "apiservices";
    /// CustomResourceDefinition.
    CUSTOM_RESOURCE_DEFINITION = "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions";
    /// IngressRoute of Traefik.
    INGRESS_ROUTE = "traefik.io" "v1alpha1" "IngressRoute" "ingressroutes";
}

impl TargetKind {
    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource with its group, as `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The resource as the client wants it.
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(self.group, self.version, self.kind),
            self.plural,
        )
    }

    /// Whether its objects lie in namespaces.
    pub fn is_namespaced(&self) -> bool {
        let cluster_wide = [
            NAMESPACE,
            INGRESS_CLASS,
            VALIDATING_WEBHOOKS,
            MUTATING_WEBHOOKS,
            VALIDATING_POLICY,
            VALIDATING_POLICY_BINDING,
            API_SERVICE,
            CUSTOM_RESOURCE_DEFINITION,
        ];
        !cluster_wide.contains(self)
    }

    /// Kinds whose held objects are watched from the start. The others are watched from when one is first touched:
    /// they are rare, some clusters do not have them, and a watch costs memory.
    pub fn is_always_watched(&self) -> bool {
        [DEPLOYMENT, STATEFUL_SET, CONFIG_MAP].contains(self)
    }

    /// The known kind of this name. The version does not matter: an object is the same in each.
    pub fn named(group: &str, kind: &str) -> Option<TargetKind> {
        let own = ALL.iter().find(|known| known.group == group && known.kind == kind).copied();
        own.or_else(|| scalable::known(Some(group), kind))
    }
}

/// An object in the namespace of the mitigation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// The object of this kind and name.
    pub fn new(kind: TargetKind, name: impl Into<String>) -> ObjectId {
        ObjectId { kind, name: name.into() }
    }

    /// The object itself, named.
    pub fn of(kind: TargetKind, object: &DynamicObject) -> ObjectId {
        ObjectId::new(kind, object.metadata.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_group_and_name() {
        assert_eq!(TargetKind::named("apps", "Deployment"), Some(DEPLOYMENT));
        assert_eq!(TargetKind::named("", "Deployment"), None);
        assert!(DEPLOYMENT.is_namespaced() && !NAMESPACE.is_namespaced());
    }
}
