//! The end of an installation: what is in force is told and released first, and nothing wedges when the operator is gone
//! all the same.

use super::mitigation::{effective, flag, scale};
use super::support::own_cluster::{OwnCluster, root, run};
use super::support::record::{incident_says, incident_when, told};
use super::support::workload::{configmap, deployment, incident};
use super::support::*;
use incident_operator::api::{Incident, Mitigation};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// `incident-operator release-all` as the chart's Job runs it: under the chart's ServiceAccount.
async fn release_all(namespace: &TestNamespace, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    operator::write_kubeconfig(&namespace.cluster, &kubeconfig, None).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_incident-operator"));
    command.args(["release-all", "--namespace", &namespace.name]).args(args).env("KUBECONFIG", &kubeconfig);
    tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran")
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_operator_goes_it_is_told_what_is_in_force_and_one_command_releases_everything() {
    let namespace = TestNamespace::new("goodbye").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    assert_eq!(release_all(&namespace, &["--dry-run"]).await.success(), "no mitigation is in force\n");
    namespace.create_ready(deployment("importer", 3)).await;
    namespace.create(configmap("flags", &[("a", "on"), ("b", "on")])).await;
    namespace.create(scale("stop", "Deployment", "importer", 0)).await;
    let off = json!({
        "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "a", "value": "off"},
    });
    namespace.create(incident("checkout", json!({"title": "t", "mitigations": [off]}))).await;
    namespace.create(scale("waiting", "Deployment", "nobody", 0)).await;
    namespace.create(flag("done", "flags", "b", "off")).await;
    effective(&namespace, "stop").await;
    effective(&namespace, "done").await;
    super::mitigation::release(&namespace, "done");
    super::mitigation::reaches(&namespace, "done", incident_operator::api::MitigationPhase::Released).await;
    incident_when(&namespace, "checkout", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
        .await;

    let told_so = release_all(&namespace, &["--dry-run"]).await;
    assert!(!told_so.ok, "{}", told_so.stdout);
    let text = told_so.stdout;
    assert!(text.starts_with("3 mitigations are in force"), "{text}");
    assert!(text.contains("stop: scale of Deployment/importer, Active"), "{text}");
    assert!(
        text.contains("checkout-off: featureFlag of ConfigMap/flags, Active, incident checkout"),
        "{text}"
    );
    assert!(text.contains("kubectl delete mitigations --all"), "{text}");
    let web = namespace.api::<Deployment>().get("importer").await.expect("it exists");
    assert_eq!(web.spec.and_then(|s| s.replicas), Some(0), "a dry run releases nothing");

    let said = release_all(&namespace, &[]).await.success();
    assert!(said.ends_with("every mitigation is released and gone\n"), "{said}");
    let web = namespace.api::<Deployment>().get("importer").await.expect("it exists");
    assert_eq!((web.spec.as_ref().and_then(|s| s.replicas), marks(&web)), (Some(3), vec![]));
    let flags = namespace.api::<ConfigMap>().get("flags").await.expect("it exists");
    assert_eq!((flags.data.as_ref().unwrap()["a"].as_str(), marks(&flags)), ("on", vec![]));
    // The incident stays, tells what became of its mitigation, and does not make it anew.
    let kept =
        incident_when(&namespace, "checkout", "record", |i| told(i, "MitigationReleased").len() == 1).await;
    assert_eq!(told(&kept, "MitigationApplied").len(), 1);
    assert_eq!(
        namespace.api::<Mitigation>().list(&ListParams::default()).await.expect("listed").items.len(),
        0
    );

    // Without an operator it says that nobody releases, and does not wait for ever.
    drop(operator);
    namespace.create(flag("orphan", "flags", "b", "off")).await;
    let start = Instant::now();
    let said = release_all(&namespace, &["--timeout", "3s"]).await;
    assert!(!said.ok && said.stdout.contains("is the operator running?"), "{said:?}");
    assert!(said.stdout.contains("orphan") && start.elapsed() < Duration::from_secs(30), "{said:?}");
}

/// The lines of a fenced block of docs/reliability.md below a heading.
fn documented(heading: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/reliability.md")).expect("the page is there");
    let below =
        page.split(&format!("## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let blocks = below.split("\n## ").next().unwrap_or_default();
    let mut commands = String::new();
    for block in blocks.split("```sh\n").skip(1) {
        commands.push_str(block.split("```").next().unwrap_or_default());
    }
    assert!(!commands.is_empty(), "no commands below {heading}");
    commands
}

#[test]
fn when_the_operator_is_gone_nothing_wedges_and_prior_values_are_still_on_their_targets() {
    let cluster = OwnCluster::start("gone", &[]);
    for namespace in ["incident-operator", "shop", "billing"] {
        cluster.kubectl(&["create", "namespace", namespace]);
    }
    let notes = cluster.helm(&["install", "incident-operator"], &["--set", "namespaces={shop,billing}"]);
    assert!(notes.contains("`helm uninstall` refuses while some are in force"), "{notes}");
    let hooks =
        cluster.command("helm", &["get", "hooks", "incident-operator", "-n", "incident-operator"]).success();
    assert!(hooks.contains("helm.sh/hook: pre-delete") && hooks.contains("- --dry-run"), "{hooks}");
    let process = cluster.operator("incident-operator", "incident-operator");
    let apply = |object: &Value| {
        let file = cluster.dir.join("object.json");
        std::fs::write(&file, object.to_string()).expect("writable");
        let end = std::time::Instant::now() + PATIENCE;
        // A definition that is established is served a moment later.
        loop {
            let answer = cluster.command("kubectl", &["apply", "-f", &file.display().to_string()]);
            if answer.ok || !answer.stderr.contains("There can be a delay") || std::time::Instant::now() > end
            {
                break answer.success();
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    };
    for namespace in ["shop", "billing"] {
        for mut object in [
            deployment("importer", 3),
            configmap("flags", &[("a", "on")]),
            scale("stop", "Deployment", "importer", 0),
            flag("slow", "flags", "a", "off"),
        ] {
            object["metadata"]["namespace"] = namespace.into();
            apply(&object);
        }
        for name in ["stop", "slow"] {
            let mitigation = format!("mitigation/{name}");
            cluster.kubectl(&[
                "wait",
                &mitigation,
                "-n",
                namespace,
                "--for=condition=Applied",
                "--timeout=60s",
            ]);
        }
    }
    // A kind that this cluster does not have is named, and what waits for one can go.
    let mut routes = super::mitigation::mitigation_of(
        "routes",
        "HTTPRoute",
        "web",
        json!({"blockWrites": {"level": "Routes"}}),
    );
    routes["metadata"]["namespace"] = "shop".into();
    apply(&routes);
    let missing = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=TargetNotFound";
    cluster.kubectl(&[
        "wait",
        "mitigation/routes",
        "-n",
        "shop",
        &format!("--for={missing}"),
        "--timeout=60s",
    ]);
    let told = cluster.kubectl(&["describe", "mitigation/routes", "-n", "shop"]);
    assert!(told.contains("this cluster has no httproutes.gateway.networking.k8s.io"), "{told}");
    cluster.kubectl(&["delete", "mitigation/routes", "-n", "shop", "--timeout=60s"]);

    // Gone in the middle of it, and the release with it.
    drop(process);
    let gone = ["uninstall", "incident-operator", "-n", "incident-operator", "--no-hooks", "--wait"];
    cluster.command("helm", &gone).success();
    cluster.kubectl(&["delete", "namespace", "billing", "--wait=false"]);

    let script = documented("When the operator is gone");
    println!("{script}");
    let path = format!("{}:{}", cluster.dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let shell = |script: &str| {
        run(Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", &path)
            .env("KUBECONFIG", cluster.dir.join("kubeconfig"))
            .env("KUBECACHEDIR", cluster.dir.join("kube-cache")))
    };
    // A policy that was deleted is in force for a moment longer.
    let end = Instant::now() + PATIENCE;
    let said = loop {
        let answer = shell(&script);
        if answer.ok || !answer.stderr.contains("denied request") || Instant::now() > end {
            break answer.success();
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    println!("{said}");
    // What was changed is listed with what it was before.
    assert!(said.contains(r#"\"prior\":3"#) || said.contains(r#""prior":3"#), "{said}");
    assert!(said.contains(r#"\"prior\":\"on\""#) || said.contains(r#""prior":"on""#), "{said}");
    let end = Instant::now() + Duration::from_secs(60);
    let left = |what: &[&str]| cluster.command("kubectl", what).stdout;
    while !left(&["get", "namespace", "billing", "--ignore-not-found", "-o", "name"]).is_empty() {
        assert!(
            Instant::now() < end,
            "the namespace wedges: {}",
            left(&["get", "ns", "billing", "-o", "yaml"])
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.kubectl(&["delete", "crd", "-l", "app.kubernetes.io/part-of=incident-operator", "--timeout=60s"]);
    assert_eq!(cluster.definitions(), Vec::<String>::new());
    let web: Value = serde_json::from_str(&cluster.kubectl(&[
        "get",
        "deployment",
        "importer",
        "-n",
        "shop",
        "-o",
        "json",
    ]))
    .expect("JSON");
    assert_eq!(web["spec"]["replicas"], 0, "and what nobody released is as the mitigation left it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_incidents_and_mitigations_along_while_the_operator_runs() {
    let (home, namespace) = (TestNamespace::new("stays").await, TestNamespace::new("leaves").await);
    let lease = Some(home.name.clone());
    let _operator = Operator::start(&namespace, Options { lease, ..Options::default() }).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    let off = json!({
        "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "a", "value": "off"},
    });
    namespace.create(incident("checkout", json!({"title": "t", "mitigations": [off]}))).await;
    incident_when(&namespace, "checkout", "effect", |i| incident_says(i, "Mitigated").starts_with("True"))
        .await;
    kubectl(&["delete", "namespace", &namespace.name, "--timeout=90s"]).success();
    let left = namespace.api::<Incident>().list(&ListParams::default()).await.expect("it answers").items;
    assert!(left.is_empty(), "{left:?}");
}
