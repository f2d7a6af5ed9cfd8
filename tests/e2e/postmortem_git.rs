//! Postmortems that are kept in git: applied again and again, built, exported, gated.

use super::support::cluster::kubectl_with;
use super::support::workload::{incident, ours};
use super::support::*;
use incident_operator::api::Postmortem;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A folder of postmortems as one would have it in git.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/postmortems");
const NAMES: [&str; 2] = ["database-removed-2017-01-31", "split-database-2018-10-21"];

/// Runs the program on the command line, without a cluster.
pub fn program(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_incident-operator"))
        .args(args)
        .env("KUBECONFIG", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("the program runs");
        Output {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}

fn built(folder: &str) -> String {
    kubectl(&["kustomize", folder]).success()
}

/// Waits until the operator has looked at the present generation.
async fn looked_at(namespace: &TestNamespace, name: &str) -> Postmortem {
    wait_status(&namespace.api::<Postmortem>(), name, "look at the postmortem", |p| {
        p.status
            .as_ref()
            .is_some_and(|s| s.observed_generation == p.metadata.generation && s.export.is_some())
    })
    .await
}

async fn markdown(namespace: &TestNamespace, name: &str) -> String {
    let map = namespace.api::<ConfigMap>().get(&format!("{name}-postmortem")).await.expect("it is exported");
    map.data.expect("it has data")["postmortem.md"].clone()
}

async fn events(namespace: &TestNamespace) -> Vec<String> {
    let all =
        namespace.api::<Event>().list(&ListParams::default()).await.expect("events can be listed").items;
    let ours = all
        .into_iter()
        .filter(|e| e.regarding.as_ref().is_some_and(|r| r.kind.as_deref() == Some("Postmortem")));
    let mut told: Vec<_> = ours.map(|e| e.name_any()).collect();
    told.sort();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn two_long_postmortems_that_git_applies_every_two_seconds_cost_no_write_and_no_event_after_the_first_pass()
 {
    let namespace = TestNamespace::new("again").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let text = built(FOLDER);
    let args = [
        "--namespace",
        &namespace.name,
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=gitops",
        "-f",
        "-",
    ];
    let apply = || kubectl_with(&args, &text).success();
    let start = audit::mark();
    apply();
    let mut first = Vec::new();
    for name in NAMES {
        first.push(looked_at(&namespace, name).await);
    }
    operator.requests_once_quiet(start, Duration::from_secs(2)).await;
    let told = events(&namespace).await;
    assert!(!told.is_empty(), "an action item is overdue since 2017");

    let mark = audit::mark();
    // The pace of an impatient GitOps engine; nothing is waited for.
    let mut pace = tokio::time::interval(Duration::from_secs(2));
    for _ in 0..10 {
        pace.tick().await;
        apply();
    }
    let asked = operator.requests_once_quiet(mark, Duration::from_secs(1)).await;
    let asked: Vec<_> = asked.iter().map(audit::Request::brief).collect();
    assert_eq!(asked, Vec::<String>::new(), "the operator has nothing to ask and nothing to write");
    assert_eq!(events(&namespace).await, told);
    for (name, before) in NAMES.iter().zip(&first) {
        let after = namespace.api::<Postmortem>().get(name).await.expect("it is there");
        let seen = looked_at(&namespace, name).await;
        assert_eq!(after.metadata.generation, before.metadata.generation);
        assert_eq!(seen.resource_version(), after.resource_version());
        let mut managers: Vec<_> = after
            .managed_fields()
            .iter()
            .map(|f| {
                format!("{}/{}", f.manager.as_deref().unwrap_or(""), f.subresource.as_deref().unwrap_or(""))
            })
            .collect();
        managers.sort();
        assert_eq!(managers, ["gitops/", "incident-operator/status"], "{name}");
        // The same bytes as without a cluster, from the file in git.
        let file = format!("{FOLDER}/{}.yaml", name.rsplitn(4, '-').last().unwrap_or_default());
        let offline = program(&["render", "postmortem", "-f", &file], "").success();
        assert_eq!(markdown(&namespace, name).await, offline);
    }
}

/// Text in which each reader of YAML may stumble over something else.
fn difficult() -> serde_json::Value {
    json!({
        "owner": "yes", "reviewers": ["null", "0x10", "~", "a: b", "- c", "@d"],
        "summary": "# Heading\n\n- one\n  - two\n\n```yaml\na: [b]\n---\n```\n",
        "impact": "  leading spaces\nand a line with spaces at its end   \n\n\nthree line ends\n\n\n",
        "rootCauses": "tab\there, quote \" and ' and back\\slash, 결제 오류 🔥, bell \u{7}, line separator \u{2028}, no break \u{a0}.",
        "trigger": "one line that is much longer than one would write on the line of its key: it goes on and on and on and on.",
        "detection": "---\ntitle: x\n---\n", "resolution": "%YAML 1.1", "wentWell": "\n", "wentPoorly": "on", "gotLucky": "1e3",
        "timeline": [
            {"time": "2026-11-23T18:58:00+09:00", "message": "'quoted'"},
            {"time": "2026-11-23T10:00:00.500Z", "message": "> folded?\n| literal?", "link": "https://a.b/c?d=e&f#g"}],
        "actionItems": [
            {"id": "1", "title": "2026-01-01", "dueDate": "2027-01-01"},
            {"id": "b", "title": "no", "owner": "!tag", "state": "WontFix", "reason": "{}"}],
        "links": ["https://a.b/c", "*alias", "&anchor", "#comment"],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_committed_built_and_applied_again_and_kubectl_diff_is_empty() {
    let namespace = TestNamespace::new("export-git").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    namespace
        .create(incident(
            "outage",
            json!({"title": "Checkout fails", "severity": "SEV1", "roles": {"incidentCommander": "alice"},
                "impact": {"summary": "40 %"}, "resolution": {"summary": "restarted"}}),
        ))
        .await;
    let drafted = looked_at(&namespace, "outage").await;
    let export = |names: &[&str]| {
        let live = namespace
            .kubectl(&[&["get", "postmortem", "-o", "yaml", "--show-managed-fields"], names].concat());
        program(&["export", "postmortem", "-f", "-"], &live.success()).success()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let diff = |how: &[&str], file: &str| {
        let output = namespace.kubectl(&[&["diff"], how, &["-f", file]].concat());
        assert!(output.ok && output.stdout.is_empty(), "{how:?}: {}{}", output.stdout, output.stderr);
    };
    std::fs::write(path("draft.yaml"), export(&["outage"])).expect("written");
    for how in [&[][..], &["--server-side"]] {
        diff(how, &path("draft.yaml"));
    }
    let api = namespace.api::<Postmortem>();
    let mut revisions = Vec::new();
    for _ in 0..3 {
        let apply =
            ["apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-f"];
        namespace.kubectl(&[&apply[..], &[&path("draft.yaml")]].concat()).success();
        revisions.push(api.get("outage").await.expect("it is there").resource_version());
    }
    assert_eq!(revisions[1], revisions[2], "who applies what is there already writes nothing");

    let patch = json!({"metadata": {"annotations": {"team.example.com/wiki": "1"}}, "spec": difficult()});
    api.patch("outage", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("people may write anything");
    namespace.create(ours("Postmortem", "bare", json!({}))).await;
    let written = looked_at(&namespace, "outage").await;
    looked_at(&namespace, "bare").await;
    let whole = export(&["outage"]);
    assert!(
        whole.contains("2026-11-23T18:58:00+09:00") && whole.contains("team.example.com/wiki"),
        "{whole}"
    );
    for word in
        ["status:", "managedFields", "resourceVersion", "creationTimestamp", "managed-by", "generation:"]
    {
        assert!(!whole.contains(word), "{word} in {whole}");
    }
    std::fs::write(path("outage.yaml"), &whole).expect("written");
    std::fs::write(path("bare.yaml"), export(&["bare"])).expect("written");
    std::fs::write(path("kustomization.yaml"), "resources: [outage.yaml, bare.yaml]\n").expect("written");
    std::fs::write(path("built.yaml"), built(&folder.path().display().to_string())).expect("written");
    std::fs::write(path("all.yaml"), export(&[])).expect("written");
    for file in ["outage.yaml", "bare.yaml", "built.yaml", "all.yaml"] {
        for how in [&[][..], &["--server-side", "--field-manager=gitops"]] {
            diff(how, &path(file));
        }
    }

    operator.requests_once_quiet(audit::mark(), Duration::from_millis(500)).await;
    let mark = audit::mark();
    namespace.kubectl(&["apply", "-f", &path("built.yaml")]).success();
    namespace
        .kubectl(&["apply", "--server-side", "--field-manager=gitops", "-f", &path("built.yaml")])
        .success();
    let asked = operator.requests_once_quiet(mark, Duration::from_millis(500)).await;
    assert_eq!(asked.iter().map(audit::Request::brief).collect::<Vec<_>>(), Vec::<String>::new());
    let after = api.get("outage").await.expect("it is there");
    assert_eq!((&after.spec, after.metadata.generation), (&written.spec, written.metadata.generation));
    diff(&[], &path("built.yaml"));
    assert_eq!(export(&["outage"]), whole, "what is exported again is the same");
    assert_eq!(drafted.spec.incident_ref, after.spec.incident_ref);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_over_a_folder_is_gated_without_a_cluster() {
    let text = built(FOLDER);
    let output = program(&["lint", "-f", "-"], &text);
    assert!(output.ok, "{}{}", output.stdout, output.stderr);
    // What a kustomization changes is looked at as it will be applied.
    let broken = text.replace("rootCauses: ", "rootCause: ");
    assert_ne!(broken, text);
    let output = program(&["lint", "-f", "-"], &broken);
    assert!(!output.ok);
    for said in [
        "database-removed-2017-01-31: spec.rootCause: invalid",
        "split-database-2018-10-21: spec.rootCauses: missing: Root cause",
    ] {
        assert!(output.stdout.contains(said), "{said} in {}", output.stdout);
    }
    for name in ["database-removed", "split-database"] {
        let file = Path::new(FOLDER).join(name).with_extension("yaml").display().to_string();
        assert!(program(&["lint", "-f", &file], "").ok, "{name}");
        let again = || program(&["render", "postmortem", "-f", &file], "").success();
        assert_eq!(again(), again());
    }
}
