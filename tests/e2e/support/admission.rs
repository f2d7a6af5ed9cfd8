//! Refusals by the API server, for what the operator does when it is refused.

use super::cluster::kubectl;
use super::namespace::TestNamespace;
use super::poll::{PATIENCE, wait_for};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};

/// A refusal of writes in one namespace, until it goes out of scope.
pub struct Denial {
    name: String,
}

impl Denial {
    /// Refuses creations and updates of a resource (`incidents/status`) for which a CEL expression is true, and
    /// waits until it does: `probe` is an object whose creation it refuses.
    pub async fn of(
        namespace: &TestNamespace,
        group: &str,
        resource: &str,
        when: &str,
        probe: &Value,
    ) -> Denial {
        let client = &namespace.cluster.client;
        let denial = Denial { name: namespace.name.clone() };
        let policy = json!({
            "metadata": {"name": denial.name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
                    "resourceRules": [{
                        "apiGroups": [group], "apiVersions": ["*"], "resources": [resource],
                        "operations": ["CREATE", "UPDATE"],
                    }],
                },
                "validations": [{"expression": format!("!({when})"), "message": "refused by this test"}],
            },
        });
        let binding = json!({
            "metadata": {"name": denial.name},
            "spec": {"policyName": denial.name, "validationActions": ["Deny"]},
        });
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        let params = PostParams::default();
        let policy = serde_json::from_value(policy).expect("well formed");
        policies.create(&params, &policy).await.expect("a policy can be made");
        let binding = serde_json::from_value(binding).expect("well formed");
        bindings.create(&params, &binding).await.expect("a binding can be made");
        let api = namespace.cluster.api_of(probe, &namespace.name);
        let probe: DynamicObject = serde_json::from_value(probe.clone()).expect("the probe has metadata");
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        wait_for(PATIENCE, "refusal by the policy", async || match api.create(&dry, &probe).await {
            Err(kube::Error::Api(status)) if status.message.contains("refused by this test") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        denial
    }
}

impl Drop for Denial {
    fn drop(&mut self) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            kubectl(&["delete", kind, &self.name, "--wait=false"]);
        }
    }
}
