//! The real kustomize-controller of Flux against mitigations. Not part of `make e2e`: `make test-gitops` builds the
//! controller, starts it and runs these. "Git" is a tarball that the test serves and changes.

use super::mitigation::*;
use super::support::{crds, workload, *};
use incident_operator::api::{ConditionStatus, MitigationPhase as Phase};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// How often Flux applies what is in git.
const INTERVAL: Duration = Duration::from_secs(3);

/// A folder in git that Flux applies to the test's namespace.
struct Git<'a> {
    namespace: &'a TestNamespace,
    address: String,
    served: Arc<Mutex<Vec<u8>>>,
}

impl<'a> Git<'a> {
    /// Serves the objects and lets Flux apply them.
    async fn with(namespace: &'a TestNamespace, objects: &[Value]) -> Git<'a> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let served: Arc<Mutex<Vec<u8>>> = Arc::default();
        let content = served.clone();
        let serve = move || async move { content.lock().expect("nobody panics with it").clone() };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(serve)).await });
        let git = Git { namespace, address, served };
        namespace.create(git.source()).await;
        git.commit(objects).await;
        let spec = json!({"interval": format!("{}s", INTERVAL.as_secs()), "prune": true, "path": "./",
            "sourceRef": {"kind": "ExternalArtifact", "name": "apps"}, "targetNamespace": namespace.name});
        namespace
            .create(json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
                "metadata": {"name": "apps"}, "spec": spec}))
            .await;
        git
    }

    fn source(&self) -> Value {
        json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "ExternalArtifact",
            "metadata": {"name": "apps"}, "spec": {}})
    }

    /// Puts these objects in git, and no others.
    async fn commit(&self, objects: &[Value]) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (i, object) in objects.iter().enumerate() {
            let file = folder.path().join(format!("{i}.yaml"));
            std::fs::write(file, object.to_string()).expect("it is writable");
        }
        let packed = Command::new("tar").args(["-cz", "-C"]).arg(folder.path()).arg(".").output();
        let packed = packed.expect("there is tar").stdout;
        let digest: String = Sha256::digest(&packed).iter().map(|byte| format!("{byte:02x}")).collect();
        *self.served.lock().expect("nobody panics with it") = packed;
        let now = k8s_openapi::jiff::Timestamp::now();
        let now = now.round(k8s_openapi::jiff::Unit::Second).expect("it can be rounded").to_string();
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored",
            "lastTransitionTime": now}]);
        let artifact = json!({"path": "apps.tar.gz", "url": format!("http://{}/apps.tar.gz", self.address),
            "revision": format!("main@sha256:{digest}"), "digest": format!("sha256:{digest}"), "lastUpdateTime": now});
        crds::set_status(self.namespace, &self.source(), json!({"artifact": artifact, "conditions": ready}))
            .await;
    }

    /// Waits until Flux has made a workload as git has it.
    async fn applies(&self, object: &Value, replicas: i64) -> DynamicObject {
        let api = self.namespace.cluster.api_of(object, &self.namespace.name);
        let name = object["metadata"]["name"].as_str().expect("it has a name").to_owned();
        wait_for(PATIENCE, &format!("Flux to scale {name} to {replicas}"), async || {
            let there = api.get(&name).await.map_err(|error| error.to_string())?;
            let has = there.data["spec"]["replicas"].clone();
            if has == json!(replicas) { Ok(there) } else { Err(has.to_string()) }
        })
        .await
    }

    /// Waits until Flux has been here again, and a little longer.
    async fn runs_again(&self) {
        let asked = format!("{:?}", std::time::Instant::now());
        let kustomization = json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": "apps"}});
        let request = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": asked}}});
        edit(self.namespace, &kustomization, "kubectl", request).await;
        let api = self.namespace.cluster.api_of(&kustomization, &self.namespace.name);
        wait_status(&api, "apps", "a run of Flux", |k| {
            k.data["status"]["lastHandledReconcileAt"] == asked.as_str()
        })
        .await;
    }
}

/// Flux's pods need their labels, and ours a name that tells whose they are.
fn in_git(name: &str, replicas: i32) -> Value {
    workload::deployment(name, replicas)
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_leaves_a_mitigated_workload_alone_and_brings_what_git_has_by_then_after_the_release() {
    let namespace = TestNamespace::new("frozen").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let git = Git::with(&namespace, &[in_git("web", 2), in_git("other", 2)]).await;
    git.applies(&in_git("web", 0), 2).await;
    let object = json!({"gitops": "FreezeObject"});
    namespace.create(with(scale("stop", "Deployment", "web", 0), object)).await;
    let held = effective(&namespace, "stop").await;
    let words = message(&held, "Applied");
    assert!(words.contains(&format!("Flux Kustomization {}/apps", namespace.name)), "{words}");
    for _ in 0..3 {
        git.runs_again().await;
        let web = present(&namespace, &in_git("web", 0)).await;
        assert_eq!(web.data["spec"]["replicas"], json!(0));
    }
    // A commit reaches the others and not what is held, not even when the operator is away.
    operator.kill();
    git.commit(&[in_git("web", 3), in_git("other", 3)]).await;
    git.applies(&in_git("other", 0), 3).await;
    git.runs_again().await;
    operator.restart().await;
    let held = until(&namespace, "stop", "it", |_| true).await;
    assert_eq!(held.status.as_ref().and_then(|s| s.attempts), Some(1), "nobody had to be overruled");
    assert_eq!(present(&namespace, &in_git("web", 0)).await.data["spec"]["replicas"], json!(0));

    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Released).await;
    git.applies(&in_git("web", 0), 3).await;
    git.runs_again().await;
    let (web, other) =
        (present(&namespace, &in_git("web", 0)).await, present(&namespace, &in_git("other", 0)).await);
    assert_same(&web, &other);
    assert!(marks(&web).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_that_is_only_reported_is_overruled_three_times_and_then_told_what_to_change_in_git() {
    let namespace = TestNamespace::new("fight").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let git = Git::with(&namespace, &[in_git("web", 2), in_git("other", 2)]).await;
    git.applies(&in_git("web", 0), 2).await;
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"gitops": "Report"}))).await;
    let contested = says(&namespace, "stop", "Contested", "ContestedBy").await;
    assert!(is(&contested, "Contested", ConditionStatus::True));
    assert_eq!(contested.status.as_ref().and_then(|s| s.attempts), Some(4), "once, and three times again");
    let words = message(&contested, "Contested");
    assert!(words.contains("kustomize-controller") && words.contains("spec.replicas: 0"), "{words}");
    git.runs_again().await;
    assert_eq!(
        present(&namespace, &in_git("web", 0)).await.data["spec"]["replicas"],
        json!(2),
        "git has won"
    );

    // What was asked for is done in git: that settles it.
    git.commit(&[in_git("web", 0), in_git("other", 2)]).await;
    until(&namespace, "stop", "the end of the contest", |m| {
        is(m, "Contested", ConditionStatus::False) && is(m, "Effective", ConditionStatus::True)
    })
    .await;
    // Git goes back first, then the mitigation: there is nothing left to put back.
    git.commit(&[in_git("web", 2), in_git("other", 2)]).await;
    git.applies(&in_git("web", 0), 2).await;
    delete(&namespace, "stop").await;
    git.runs_again().await;
    let (web, other) =
        (present(&namespace, &in_git("web", 0)).await, present(&namespace, &in_git("other", 0)).await);
    assert_same(&web, &other);
    assert_eq!(web.labels().get("incident-operator.dev/mitigated"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_flux_owns_is_as_it_was_when_a_mitigation_that_nobody_fought_is_released() {
    let namespace = TestNamespace::new("fluxback").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let flags = |name: &str| workload::configmap(name, &[("pricing", "on"), ("cards", "off")]);
    let objects = [in_git("web", 1), in_git("other", 1), flags("flags"), flags("others")];
    let git = Git::with(&namespace, &objects).await;
    git.applies(&in_git("web", 0), 1).await;
    namespace.create(flag("off", "flags", "pricing", "off")).await;
    namespace.create(mitigation_of("pause", "Deployment", "web", json!({"pauseRollout": {}}))).await;
    for name in ["off", "pause"] {
        effective(&namespace, name).await;
    }
    git.runs_again().await;
    assert_eq!(present(&namespace, &flags("flags")).await.data["data"]["pricing"], json!("off"));
    assert_eq!(present(&namespace, &in_git("web", 0)).await.data["spec"]["paused"], json!(true));
    for name in ["off", "pause"] {
        delete(&namespace, name).await;
    }
    // Before Flux comes again and after.
    for _ in 0..2 {
        assert_same(
            &present(&namespace, &flags("flags")).await,
            &present(&namespace, &flags("others")).await,
        );
        let (web, other) =
            (present(&namespace, &in_git("web", 0)).await, present(&namespace, &in_git("other", 0)).await);
        assert_same(&web, &other);
        git.runs_again().await;
    }
}
