//! What the chart grants to the operator is what it uses: compared with the audit log of a whole run of the end-to-end
//! tests, in which every operator acts by a token of the chart's ServiceAccount. `tests/e2e.sh` runs this last, and only
//! after a run without a filter.

use incident_operator::manifests;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

const OPERATOR: &str = "system:serviceaccount:incident-operator:incident-operator";

/// Rights that the tests' operators, each of one namespace, have no use for, and why they are granted.
const ELSEWHERE: &[(&str, &str)] = &[
    ("list gateways.gateway.networking.k8s.io", GATEWAY),
    ("watch gateways.gateway.networking.k8s.io", GATEWAY),
    ("get persistentvolumeclaims", REVISION),
    ("get serviceaccounts", REVISION),
    (
        "get mitigations.incident-operator.dev",
        "a note of a mitigation that is not known, or a name that is taken",
    ),
    ("get mitigationpolicies.incident-operator.dev", WHOLE_CLUSTER),
    ("patch mitigationpolicies.incident-operator.dev/status", WHOLE_CLUSTER),
    ("patch httproutefilters.gateway.envoyproxy.io", PUT_BACK),
    ("patch networkpolicies.networking.k8s.io", PUT_BACK),
    ("patch resourcequotas", PUT_BACK),
];

const GATEWAY: &str = "a rate limit on a Gateway itself follows it";
const REVISION: &str = "a rollback looks whether what the revision names is still there";
const WHOLE_CLUSTER: &str = "an operator of one namespace leaves the status of policies alone";
const PUT_BACK: &str = "the note that somebody took off what was made is put back";

/// Namespaces of tests that take rights away on purpose, or delete the namespace with its roles in it.
const TAKEN_AWAY: &[&str] =
    &["t-rights-", "t-room-", "t-doomed-", "t-going-", "t-leaves-", "t-wedge-", "t-export-unbound-"];

/// `verb resource.group/subresource`.
type Right = String;

fn right(verb: &str, group: &str, resource: &str) -> Right {
    let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    let sub = if sub.is_empty() { String::new() } else { format!("/{sub}") };
    format!("{verb} {plural}{group}{sub}")
}

/// Every right in the files from which the chart renders the operator's roles.
fn granted() -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let roles = [
        "actions.yaml",
        "reader.yaml",
        "reader-cluster.yaml",
        "recorder.yaml",
        "lease.yaml",
        "secret-names.yaml",
    ];
    for (name, text) in manifests::files() {
        if !roles.contains(&name.as_str()) {
            continue;
        }
        let file: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        let actions = file["actions"].as_array().into_iter().flatten().flat_map(|a| a["rules"].as_array());
        let rules = file["rules"].as_array().into_iter().chain(actions).flatten();
        for rule in rules {
            let texts = |field: &str| -> Vec<String> {
                let list = rule[field].as_array().into_iter().flatten();
                list.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            for group in texts("apiGroups") {
                for resource in texts("resources") {
                    rights.extend(texts("verbs").iter().map(|verb| right(verb, &group, &resource)));
                }
            }
        }
    }
    rights
}

/// What the operators of all tests asked: what they were granted, and what they were denied with an example.
fn asked() -> (BTreeSet<Right>, BTreeMap<Right, String>) {
    let folder = std::env::var_os("E2E_DIR").map(PathBuf::from).expect("E2E_DIR: run it by `make e2e`");
    let (mut used, mut denied) = (BTreeSet::new(), BTreeMap::new());
    read(&folder.join("audit.log"), &mut used, &mut denied);
    // In the clusters that tests had for themselves, rights are missing on purpose.
    for other in std::fs::read_dir(folder.join("audit")).into_iter().flatten() {
        read(&other.expect("the folder can be read").path(), &mut used, &mut BTreeMap::new());
    }
    // A watch begins with a list where the API server streams none: who needs the one needs the other.
    let lists: Vec<_> =
        used.iter().filter_map(|right| Some(format!("list {}", right.strip_prefix("watch ")?))).collect();
    used.extend(lists);
    (used, denied)
}

fn read(log: &Path, used: &mut BTreeSet<Right>, denied: &mut BTreeMap<Right, String>) {
    let log = File::open(log).expect("the control plane keeps an audit log");
    for line in BufReader::new(log).lines() {
        let line = line.expect("the audit log is text");
        // What comes after the last line break is still being written.
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if event["user"]["username"] != OPERATOR || !event["impersonatedUser"].is_null() {
            continue;
        }
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let resource = text("/objectRef/resource");
        if resource.is_empty() {
            continue;
        }
        let resource = match text("/objectRef/subresource") {
            "" => resource.to_owned(),
            sub => format!("{resource}/{sub}"),
        };
        let right = right(text("/verb"), text("/objectRef/apiGroup"), &resource);
        let namespace = text("/objectRef/namespace");
        if text("/annotations/authorization.k8s.io~1decision") == "allow" {
            used.insert(right);
        } else if !TAKEN_AWAY.iter().any(|prefix| namespace.starts_with(prefix)) {
            denied.entry(right).or_insert_with(|| format!("{namespace}: {}", text("/requestURI")));
        }
    }
}

#[test]
fn nothing_that_the_operator_asks_for_is_refused() {
    let (_, denied) = asked();
    assert!(denied.is_empty(), "the operator asked for what it may not: {denied:#?}");
}

#[test]
fn every_right_that_is_granted_is_used_and_none_is_missing() {
    let (used, denied) = asked();
    let granted = granted();
    assert!(used.len() > 40, "this is not the log of a whole run: {used:?}");
    let unused: Vec<_> = granted
        .iter()
        .filter(|right| !used.contains(*right) && !ELSEWHERE.iter().any(|(known, _)| known == right))
        .collect();
    let known: Vec<_> = ELSEWHERE.iter().filter(|(right, _)| used.contains(*right)).collect();
    assert!(denied.is_empty(), "the operator asked for what it may not: {denied:#?}");
    assert!(unused.is_empty(), "granted, and never used: {unused:#?}");
    if !known.is_empty() {
        println!("used after all, so it needs no reason in ELSEWHERE: {known:?}");
    }
}
