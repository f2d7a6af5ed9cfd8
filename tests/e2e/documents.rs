//! What the examples and the documentation tell people to apply is what the API server takes.

use super::support::workload::incident;
use super::support::*;
use incident_operator::config::read;
use kube::api::PostParams;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The texts between ```yaml and ``` of a page.
fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("\n```yaml\n").skip(1).map(|rest| rest.split_once("```").expect("a block ends").0)
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).expect("the folder is readable").filter_map(Result::ok);
    entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").filter(|part| !part.trim().is_empty());
    parts.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{e}: {part}"))).collect()
}

/// A part of a manifest as the whole that it is a part of; `None` for what is no manifest of ours.
fn whole(part: Value) -> Option<Value> {
    if part["apiVersion"].is_string() {
        let known = ["incident-operator.dev/v1alpha1", "apps/v1", "v1", "rbac.authorization.k8s.io/v1"];
        return known.contains(&part["apiVersion"].as_str()?).then_some(part);
    }
    let (kind, mut spec) = match (&part["spec"], &part["targetRef"]) {
        (spec, _) if spec["checklist"].is_array() => ("Incident", spec.clone()),
        (spec, _) if spec.is_object() => ("Mitigation", spec.clone()),
        (_, target) if target.is_object() => ("Mitigation", part),
        _ => return None,
    };
    let (field, stated) = if kind == "Incident" { ("title", "t") } else { ("reason", "r") };
    if spec[field].is_null() {
        spec[field] = stated.into();
    }
    Some(workload::ours(kind, "example", spec))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_examples_and_documentation_tell_to_apply_is_taken_by_the_api_server() {
    let namespace = TestNamespace::new("shop").await;
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    for path in [files("examples", "yaml"), files("examples/postmortems", "yaml")].concat() {
        texts.push((path.clone(), fs::read_to_string(&path).expect("readable")));
    }
    for path in [files(".", "md"), files("docs", "md"), files("charts/incident-operator", "md")].concat() {
        let page = fs::read_to_string(&path).expect("readable");
        texts.extend(blocks(&page).map(|block| (path.clone(), block.to_owned())));
    }
    let (mut taken, mut configured) = (0, 0);
    for (path, text) in &texts {
        for part in documents(text) {
            if part["config"].is_object() {
                let file = serde_json::to_string(&part["config"]).expect("it was read");
                // Secrets are not here; everything else is judged.
                let refused = read(&file).err().map(|e| e.to_string());
                assert!(refused.is_none(), "{}: {refused:?}: {text}", path.display());
                configured += 1;
                continue;
            }
            let Some(mut object) = whole(part) else { continue };
            object["metadata"]["namespace"] = namespace.name.clone().into();
            if object["spec"]["targetRef"]["kind"] == "Namespace" {
                object["spec"]["targetRef"]["name"] = namespace.name.clone().into();
            }
            let api = namespace.cluster.api_of(&object, &namespace.name);
            let sent = serde_json::from_value(object.clone()).expect("it has metadata");
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            let answer = api.create(&dry, &sent).await;
            assert!(answer.is_ok(), "{}: {}: {text}", path.display(), answer.unwrap_err());
            // Nothing in it is unknown and dropped without a word.
            let kept = serde_json::to_value(answer.unwrap()).expect("an object");
            assert_kept(&format!("{}", path.display()), &object["spec"], &kept["spec"]);
            taken += 1;
        }
    }
    assert!(taken >= 25 && configured >= 2, "{taken} manifests and {configured} configurations were found");
}

/// Output of kubectl by lines and words, without what differs from run to run: the columns' widths, times and ages.
fn told(output: &str) -> Vec<Vec<&str>> {
    let is_time = |word: &str| word.len() == 20 && word.ends_with('Z');
    let is_age = |word: &str| word.strip_suffix('s').is_some_and(|n| n.parse::<u32>().is_ok());
    let steady = move |word| match word {
        time if is_time(time) => "TIME",
        age if is_age(age) => "AGE",
        word => word,
    };
    let lines = output.lines().map(|line| line.split_whitespace().map(steady).collect::<Vec<_>>());
    lines.filter(|words| !words.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_shows_first_is_what_its_commands_answer() {
    let namespace = TestNamespace::new("readme").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("readable");
    let shown =
        readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let folder = tempfile::tempdir().expect("a folder");
    let here = |file: &str| {
        let text = fs::read_to_string(root.join(file)).expect("readable");
        let path = folder.path().join(file.rsplit('/').next().unwrap_or_default());
        let text = text.replace("namespace: shop", &format!("namespace: {}", namespace.name));
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let shop = here("examples/shop.yaml");
    namespace.kubectl(&["apply", "-f", &shop]).success();
    for deployment in ["checkout", "importer"] {
        namespace
            .kubectl(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout=60s"])
            .success();
    }
    let _alice = namespace.person("alice", &["patch deployments.apps/scale", "patch configmaps"]).await;
    let commands: Vec<Vec<&str>> =
        shown.lines().filter_map(|l| l.strip_prefix("$ kubectl ")).map(|l| l.split(' ').collect()).collect();
    let [apply, get] = commands.as_slice() else { panic!("two commands are shown: {commands:?}") };
    let ["apply", "-f", file, "--as", "alice"] = apply.as_slice() else { panic!("{apply:?}") };
    let ["get", kinds, "-n", "shop"] = get.as_slice() else { panic!("{get:?}") };
    let expected = told(shown).into_iter().filter(|words| words[0] != "$").collect::<Vec<_>>();
    let applied = namespace.kubectl(&["apply", "-f", &here(file), "--as", "alice"]).success();
    wait_for(PATIENCE, "what the README shows", async || {
        let output = format!("{applied}\n{}", namespace.kubectl(&["get", kinds]).stdout);
        if told(&output) == expected { Ok(()) } else { Err(output) }
    })
    .await;
}

/// Every field that was sent is there.
fn assert_kept(place: &str, sent: &Value, kept: &Value) {
    match sent {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            assert_kept(&format!("{place}: {name}"), value, &kept[name]);
        }),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| {
            assert_kept(&format!("{place}: {i}"), value, &kept[i]);
        }),
        Value::Null => {}
        _ => assert!(!kept.is_null(), "{place} is not a field of the schema"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn incidents_are_found_by_severity_stage_and_service_and_shown_in_columns() {
    let namespace = TestNamespace::new("columns").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for (name, severity, service) in
        [("one", "SEV1", "checkout"), ("two", "SEV2", "checkout"), ("three", "SEV2", "search")]
    {
        let spec = json!({"title": "결제가 실패합니다", "severity": severity, "service": service,
            "roles": {"incidentCommander": "alice"}});
        namespace.create(incident(name, spec)).await;
        wait_status(&namespace.raw("Incident"), name, "stage", |i| i.data["status"]["stage"] == "Detect")
            .await;
    }
    let found = |selector: &str| {
        let output = namespace.kubectl(&["get", "inc", "--field-selector", selector, "-o", "name"]).success();
        let mut names: Vec<String> =
            output.lines().map(|l| l.rsplit('/').next().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(found("spec.severity=SEV2"), ["three", "two"]);
    assert_eq!(found("spec.service=checkout,spec.severity=SEV2"), ["two"]);
    assert_eq!(found("status.stage=Detect"), ["one", "three", "two"]);
    assert_eq!(found("status.stage=Closed"), [""; 0]);
    let wide = namespace.kubectl(&["get", "inc", "two", "-o", "wide"]).success();
    let mut lines = wide.lines();
    let header = lines.next().expect("a header");
    for column in ["SEVERITY", "STAGE", "COMMANDER", "SERVICE", "TITLE", "AGE"] {
        assert!(header.contains(column), "{wide}");
    }
    let row = lines.next().expect("a row");
    for value in ["SEV2", "Detect", "alice", "결제가 실패합니다"] {
        assert!(row.contains(value), "{wide}");
    }
}
