//! What `kubectl describe mitigation` tells to somebody who was not there.

use super::mitigation::*;
use super::support::{workload, *};
use incident_operator::api::MitigationPhase as Phase;
use serde_json::json;

/// What kubectl describes, with runs of blanks as one, so that columns need not be counted.
#[track_caller]
fn described(namespace: &TestNamespace, name: &str) -> String {
    let text = namespace.kubectl(&["describe", "mit", name]).success();
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[track_caller]
fn tells(text: &str, lines: &[&str]) {
    let mut rest = text;
    for line in lines {
        let found = rest.find(line);
        let at = found.unwrap_or_else(|| panic!("{line:?} is not told, or not there:\n{text}"));
        rest = &rest[at + line.len()..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_tells_why_what_from_and_to_whether_it_works_and_how_it_ended() {
    let namespace = TestNamespace::new("story").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["importer", "web"] {
        namespace.create_ready(workload::deployment(name, 3)).await;
    }
    let entry = |name: &str, target: &str| {
        json!({"name": name, "reason": format!("{target} floods the database"),
            "targetRef": {"kind": "Deployment", "name": target}, "scale": {"replicas": 0}})
    };
    let spec = json!({"title": "Checkout returns 500", "mitigations": [entry("stop", "importer"), entry("off", "web")]});
    namespace.create(workload::incident("checkout", spec)).await;
    let (stop, off) = ("checkout-stop", "checkout-off");
    effective(&namespace, stop).await;
    effective(&namespace, off).await;
    events_are(&namespace, "Mitigation", stop, &["MitigationApplied", "MitigationEffective"]).await;
    let text = described(&namespace, stop);
    // The newest Event may stand first.
    for event in [
        "Normal MitigationApplied",
        "spec.replicas from 3 to 0: importer floods the database",
        "Normal MitigationEffective",
    ] {
        tells(&text, &["Events:", event]);
    }
    tells(
        &text,
        &[
            "Name: checkout-stop",
            "Kind: Mitigation",
            "Incident Ref:",
            "Name: checkout",
            "Reason: importer floods the database",
            "Scale:",
            "Replicas: 0",
            "Target Ref:",
            "Kind: Deployment",
            "Name: importer",
            "Status:",
            "Action: scale",
            "Applied Time: 20",
            "Conditions:",
            "Message: spec.replicas from 3 to 0",
            "Reason: Changed",
            "Status: True",
            "Type: Applied",
            "Message: no pod is left",
            "Reason: Verified",
            "Status: True",
            "Type: Effective",
            "Effective Time: 20",
            "Phase: Active",
            "Prior:",
            "Applied: 0",
            "Path: /spec/replicas",
            "Value: 3",
            "Target: Deployment/importer",
        ],
    );

    // One ends because somebody else wants it otherwise, the other because it was asked to.
    namespace.kubectl(&["scale", "deployment/web", "--replicas=2"]).success();
    reaches(&namespace, off, Phase::Superseded).await;
    let released =
        json!([{"op": "add", "path": "/spec/mitigations/0/desiredState", "value": "Released"}]).to_string();
    namespace.kubectl(&["patch", "incident", "checkout", "--type=json", "-p", &released]).success();
    reaches(&namespace, stop, Phase::Released).await;
    events_are(
        &namespace,
        "Mitigation",
        stop,
        &["MitigationApplied", "MitigationEffective", "MitigationReleased"],
    )
    .await;
    tells(
        &described(&namespace, stop),
        &[
            "Desired State: Released",
            "the prior value is back; its release was asked for",
            "Phase: Released",
            "Released Time: 20",
            "MitigationReleased",
        ],
    );
    tells(
        &described(&namespace, off),
        &["kubectl changed spec.replicas; that value stands", "Phase: Superseded", "Undone By: kubectl"],
    );
}
