//! The chart's life in a cluster of its own, since its CustomResourceDefinitions belong to the whole cluster.

use super::support::own_cluster::{OwnCluster, root, run};
use super::support::{Cluster, PATIENCE};
use serde_json::Value;
use std::process::Command;
use std::time::Instant;

#[test]
fn the_chart_is_installed_upgraded_and_removed_and_incidents_outlive_it() {
    let cluster = OwnCluster::start("chart", &[]);
    cluster.kubectl(&["create", "namespace", "incident-operator"]);
    cluster.kubectl(&["create", "namespace", "shop"]);
    // The strictest level that Kubernetes knows, enforced: a pod that asks for more is refused.
    let level = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", "incident-operator", level]);

    let notes = cluster.helm(&["install", "incident-operator"], &["--set", "namespaces={shop}"]);
    assert!(notes.contains("It may change workloads in: shop"), "{notes}");
    let deployment = || -> Value {
        let text = cluster.kubectl(&[
            "get",
            "deployment",
            "incident-operator",
            "-n",
            "incident-operator",
            "-o",
            "json",
        ]);
        serde_json::from_str(&text).expect("JSON")
    };
    assert_eq!(deployment()["status"]["readyReplicas"], 1, "the pod passed Pod Security");
    assert_eq!(cluster.definitions().len(), 5);
    let bindings = |namespace: &str| cluster.kubectl(&["get", "rolebindings", "-n", namespace, "-o", "name"]);
    let actions = incident_operator::mitigation::engines();
    let consented = actions.iter().filter(|action| !action.rules().is_empty()).count();
    // One for each action, and the recorder.
    assert_eq!(bindings("shop").lines().count(), consented + 1, "{}", bindings("shop"));
    assert_eq!(bindings("default"), "", "no right where nobody consented");

    let incident = root().join("target").join("chart-incident.yaml");
    let text = "{apiVersion: incident-operator.dev/v1alpha1, kind: Incident, metadata: {name: kept, namespace: shop}, spec: {title: t}}";
    std::fs::write(&incident, text).expect("target/ is writable");
    // Admission learns of new definitions a while after they are established, and until then the answer is 503.
    let end = Instant::now() + PATIENCE;
    loop {
        let made = cluster.command("kubectl", &["apply", "-f", &incident.display().to_string()]);
        if made.ok {
            break;
        }
        assert!(Instant::now() < end, "{}", made.stderr);
    }

    cluster.helm(
        &["upgrade", "incident-operator"],
        &["--set", "replicas=2", "--set", "podDisruptionBudget.enabled=true"],
    );
    assert_eq!(deployment()["status"]["readyReplicas"], 2);
    assert_eq!(bindings("shop"), "", "consent that is taken back is gone");

    // A second release beside it, for another namespace, brings no definitions of its own.
    cluster.helm(
        &["install", "second"],
        &["--set", "crds.enabled=false", "--set", "watchNamespace=shop", "--set", "admission.enabled=false"],
    );
    let second = cluster.command("helm", &["uninstall", "second", "-n", "incident-operator", "--wait"]);
    assert!(second.ok, "{}", second.stderr);
    assert_eq!(cluster.definitions().len(), 5);

    let gone =
        cluster.command("helm", &["uninstall", "incident-operator", "-n", "incident-operator", "--wait"]);
    assert!(gone.ok, "{}", gone.stderr);
    assert_eq!(cluster.definitions().len(), 5, "the definitions are kept");
    assert!(
        cluster.kubectl(&["get", "incidents", "-n", "shop"]).contains("kept"),
        "and with them the record"
    );
    let left = cluster.kubectl(&[
        "get",
        "clusterroles,clusterrolebindings,validatingadmissionpolicies,mutatingadmissionpolicies",
        "-o",
        "name",
    ]);
    let left: Vec<_> = left.lines().filter(|name| name.contains("incident-operator")).collect();
    assert!(left.is_empty(), "{left:?}");

    // What was kept is taken over by the next installation.
    cluster.helm(&["install", "incident-operator"], &[]);
    assert!(cluster.kubectl(&["get", "incidents", "-n", "shop"]).contains("kept"));
}

#[test]
fn the_chart_is_clean_and_refuses_values_that_it_does_not_know() {
    let helm = |args: &[&str]| {
        let dir = Cluster::dir();
        let chart = root().join("charts/incident-operator");
        run(Command::new(dir.join("bin/helm"))
            .args(args)
            .arg(chart)
            .env("HELM_CACHE_HOME", dir.join("helm/cache")))
    };
    helm(&["lint", "--strict"]).success();
    let refused = helm(&["template", "--set", "replcas=2"]).failure();
    assert!(refused.contains("replcas"), "{refused}");
    let refused = helm(&["template", "--set", "log.format=xml"]).failure();
    assert!(refused.contains("/log/format"), "{refused}");
    let rendered = helm(&["template", "--set", "crds.enabled=false"]).success();
    assert!(!rendered.contains("kind: CustomResourceDefinition"));
}
