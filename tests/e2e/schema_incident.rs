//! What the API takes and refuses of incidents, entries, postmortems and policies, and what it says then.

use super::support::TestNamespace;
use super::support::cluster::Cluster;
use super::support::parts::{born, store};
use super::support::schema::{accepts, accepts_change, rejects, rejects_change};
use super::support::workload::{incident, ours};
use serde_json::{Value, json};

/// An incident that states this beside its title.
fn with(field: &str, value: Value) -> Value {
    let mut object = incident("a", json!({"title": "Checkout fails"}));
    object["spec"][field] = value;
    object
}

fn entry(spec: Value) -> Value {
    let mut object =
        ours("TimelineEntry", "a", json!({"incidentRef": {"name": "a"}, "type": "Note", "message": "m"}));
    for (key, value) in spec.as_object().expect("an object") {
        object["spec"][key] = value.clone();
    }
    object
}

fn stop(name: &str) -> Value {
    json!({"name": name, "reason": "r", "targetRef": {"kind": "Deployment", "name": "d"}, "scale": {"replicas": 0}})
}

/// What the check of files says of the same texts is in src/cli/schema.rs.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_the_operator_could_not_read_is_refused_wherever_people_write_one() {
    let moment = |time: &str| {
        [
            with("startTime", json!(time)),
            with("detection", json!({"time": time})),
            entry(json!({"occurredTime": time})),
            ours("Postmortem", "a", json!({"timeline": [{"time": time, "message": "m"}]})),
        ]
    };
    for time in [
        "2026-11-20T10:00:00Z",
        "2026-11-20T10:00:00.123456789+09:00",
        "0001-01-01T00:00:00Z",
        "9998-12-31T23:59:59Z",
    ] {
        for object in moment(time) {
            accepts(object).await;
        }
    }
    for (time, part) in [
        ("9999-01-01T00:00:00Z", "write a time before the year 9999"),
        ("9999-12-31T23:59:59Z", "write a time before the year 9999"),
        ("2026-11-20T10:00:00.1234567890Z", "should match"),
        ("2026-11-20T10:00:00+99:99", "should match"),
        ("2026-11-20t10:00:00z", "should match"),
        ("2026-11-20 10:00:00Z", "date-time"),
        ("2026-11-20T10:00Z", "date-time"),
        ("2026-11-20T10:00:00+09", "date-time"),
        ("2026-11-20T23:59:60Z", "date-time"),
    ] {
        for object in moment(time) {
            rejects(object, part).await;
        }
    }
}

/// What was stored before the rules on times can still be edited elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_from_before_the_rule_stands_in_the_way_of_no_other_edit() {
    let namespace = TestNamespace::new("late").await;
    let late = "9999-12-31T23:59:59Z";
    let stored = [
        ("incidents", with("startTime", json!(late)), json!({"spec": {"title": "b"}})),
        (
            "postmortems",
            ours("Postmortem", "a", json!({"timeline": [{"time": late, "message": "m"}]})),
            json!({"spec": {"title": "b"}}),
        ),
    ];
    for (plural, object, change) in stored {
        let old = born(object.clone(), &namespace.name);
        store("incident-operator.dev", plural, &old);
        accepts_change(&namespace, object, change).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_takes_what_its_fields_allow_and_nothing_beyond() {
    for (field, value) in [
        ("title", json!("결".repeat(256))),
        ("title", json!("🔥 支付失败 👩🏽‍🚒 שלום")),
        ("severity", json!("SEV5")),
        ("startTime", json!("2026-01-05T10:02:00Z")),
        ("detection", json!({"source": "Customer", "reference": "x", "time": "2026-01-05T10:02:00+09:00"})),
        ("roles", json!({"incidentCommander": "system:serviceaccount:ns:name"})),
        ("impact", json!({"affectedTenants": 0, "dataAtRisk": "None"})),
        ("communication", json!({"visibility": "Public", "updateInterval": "1h30m"})),
        ("communication", json!({"updateInterval": "99999h99999h99999h99999h"})),
        ("resolution", json!({})),
        ("drill", json!(true)),
        ("mitigations", json!([])),
    ] {
        accepts(with(field, value)).await;
    }
    for (field, value, part) in [
        ("title", json!("결".repeat(257)), "spec.title: Too long: may not be more than 256"),
        ("title", json!(""), "spec.title"),
        ("title", json!(" \t\u{a0}\u{200b}"), "title is blank: say it in words"),
        ("title", json!("a\u{7}"), "title has characters that control a terminal"),
        ("title", json!("a\u{202e}b"), "turn the direction of text: take them out"),
        ("severity", json!("SEV0"), "spec.severity: Unsupported value: \"SEV0\": supported values: \"SEV1\""),
        ("severity", json!("sev1"), "spec.severity: Unsupported value"),
        ("startTime", json!("yesterday"), "spec.startTime"),
        ("detection", json!({"source": "Alarm"}), "spec.detection.source: Unsupported value"),
        ("roles", json!({"incidentCommander": ""}), "spec.roles.incidentCommander"),
        ("impact", json!({"affectedTenants": -1}), "should be greater than or equal to 0"),
        (
            "impact",
            json!({"components": [{"name": "a", "state": "Down"}]}),
            "spec.impact.components[0].state",
        ),
        ("impact", json!({"affectedFeatures": vec!["f"; 65]}), "spec.impact.affectedFeatures: Too many: 65"),
        ("communication", json!({"updateInterval": "2d"}), "spec.communication.updateInterval"),
        ("communication", json!({"updateInterval": "-5m"}), "spec.communication.updateInterval"),
        ("communication", json!({"updateInterval": "0s"}), "write a length of time from 1s on"),
        ("communication", json!({"updateInterval": "999ms"}), "write a length of time from 1s on"),
        ("resolution", json!({"summary": "x".repeat(4097)}), "spec.resolution.summary: Too long"),
        (
            "resolution",
            json!({"waivers": [{"mitigation": "a"}]}),
            "spec.resolution.waivers[0].reason: Required",
        ),
        ("outcome", json!("Cancelled"), "spec.outcome: Unsupported value"),
        (
            "outcome",
            json!("Duplicate"),
            "outcome Duplicate needs duplicateOf: the name of the other incident",
        ),
        ("duplicateOf", json!({"name": "b"}), "duplicateOf goes with outcome: Duplicate"),
        ("exitCriteria", json!([{"description": "a"}, {"description": "a"}]), "Duplicate value"),
        ("exitCriteria", json!([{"description": "a", "state": "done"}]), "spec.exitCriteria[0].state"),
        ("mitigations", json!([stop("a"), stop("a")]), "Duplicate value"),
        ("mitigations", json!([stop("A_")]), "spec.mitigations[0].name"),
        ("mitigations", json!([stop(&"a".repeat(64))]), "spec.mitigations[0].name: Too long"),
    ] {
        rejects(with(field, value), part).await;
    }
    let mut other_namespace = with("duplicateOf", json!({"name": "b", "namespace": "elsewhere"}));
    other_namespace["spec"]["outcome"] = "Duplicate".into();
    rejects(other_namespace, "spec.duplicateOf.namespace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_mitigations_has_one_action_that_stays() {
    let mut none = stop("a");
    none.as_object_mut().expect("one").remove("scale");
    rejects(with("mitigations", json!([none])), "exactly one action must be set: one of scale, featureFlag")
        .await;
    let mut two = stop("a");
    two["suspend"] = json!({});
    rejects(with("mitigations", json!([two])), "exactly one action must be set").await;
    let namespace = TestNamespace::new("inline").await;
    let object = with("mitigations", json!([stop("a"), stop("b")]));
    let changed = |field: &str, value: Value| {
        let mut one = stop("a");
        one[field] = value;
        json!({"spec": {"mitigations": [one, stop("b")]}})
    };
    let other = json!({"kind": "Deployment", "name": "other"});
    rejects_change(
        &namespace,
        object.clone(),
        changed("targetRef", other),
        "targetRef cannot be changed: release this mitigation",
    )
    .await;
    rejects_change(
        &namespace,
        object.clone(),
        changed("scale", json!({"replicas": 1})),
        "scale cannot be changed",
    )
    .await;
    accepts_change(&namespace, object.clone(), changed("reason", json!("another"))).await;
    accepts_change(&namespace, object.clone(), changed("expiresAfter", json!("1h"))).await;
    rejects_change(
        &namespace,
        object.clone(),
        changed("onExpire", json!("Release")),
        "onExpire: Release needs a time: state in expiresAfter how long the change may last",
    )
    .await;
    accepts_change(&namespace, object, json!({"spec": {"mitigations": [stop("b"), stop("c")]}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_entry_is_written_once_and_never_changed() {
    for spec in [
        json!({}),
        json!({"type": "StatusUpdate", "audience": "Public"}),
        json!({"message": "결".repeat(4096)}),
        json!({"message": "lines\r\nof a\ttable"}),
        json!({"type": "Approval", "mitigationRef": {"name": "m"}, "digest": "sha256:0"}),
    ] {
        accepts(entry(spec)).await;
    }
    for (spec, part) in [
        (json!({"type": "Remark"}), "spec.type: Unsupported value: \"Remark\""),
        (json!({"message": ""}), "spec.message"),
        (json!({"message": " \n "}), "message is blank: say it in words"),
        (json!({"message": "a\u{1b}[31m"}), "message has characters that control a terminal"),
        (json!({"message": "x".repeat(4097)}), "spec.message: Too long: may not be more than 4096"),
        (json!({"audience": "Everybody"}), "spec.audience: Unsupported value"),
        (json!({"occurredTime": "now"}), "spec.occurredTime"),
        (json!({"incidentRef": {"name": "a", "namespace": "b"}}), "spec.incidentRef.namespace"),
        (json!({"incidentRef": {}}), "spec.incidentRef.name: Required value"),
        (
            json!({"type": "Approval"}),
            "an Approval or Rejection names the mitigation (mitigationRef) and the digest",
        ),
        (json!({"type": "Rejection", "mitigationRef": {"name": "m"}}), "an Approval or Rejection names"),
    ] {
        rejects(entry(spec), part).await;
    }
    let namespace = TestNamespace::new("entry").await;
    let change = json!({"spec": {"message": "another"}});
    rejects_change(
        &namespace,
        entry(json!({})),
        change,
        "a timeline entry cannot be changed: create another one",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postmortem_may_be_unfinished_but_not_malformed() {
    let postmortem = |spec: Value| ours("Postmortem", "a", spec);
    let item = |extra: Value| {
        let mut item = json!({"id": "a", "title": "t"});
        for (key, value) in extra.as_object().expect("an object") {
            item[key] = value.clone();
        }
        json!({"actionItems": [item]})
    };
    for spec in [
        json!({}),
        json!({"state": "Reviewed"}),
        json!({"summary": "결".repeat(65536)}),
        item(json!({"dueDate": "2026-12-15"})),
        json!({"timeline": [{"time": "2026-01-05T10:02:00Z", "message": "m"}]}),
    ] {
        accepts(postmortem(spec)).await;
    }
    for (spec, part) in [
        (json!({"state": "Done"}), "spec.state: Unsupported value"),
        (json!({"summary": "x".repeat(65537)}), "spec.summary: Too long"),
        (item(json!({"dueDate": "15.12.2026"})), "spec.actionItems[0].dueDate"),
        (item(json!({"dueDate": "2026-13-01"})), "spec.actionItems[0].dueDate"),
        (item(json!({"state": "Closed"})), "spec.actionItems[0].state: Unsupported value"),
        (item(json!({"priority": "P9"})), "spec.actionItems[0].priority"),
        (item(json!({"type": "Fix"})), "spec.actionItems[0].type"),
        (json!({"actionItems": [{"id": "a", "title": "t"}, {"id": "a", "title": "u"}]}), "Duplicate value"),
        (json!({"reviewers": ["bob", "bob"]}), "Duplicate value"),
        (json!({"timeline": [{"message": "m"}]}), "spec.timeline[0].time: Required value"),
        (json!({"actionItem": []}), "spec.actionItem"),
    ] {
        rejects(postmortem(spec), part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_names_what_exists() {
    let policy = |spec: Value| ours("MitigationPolicy", "a", spec);
    for spec in [
        json!({}),
        json!({"paused": true}),
        json!({"actions": ["scale", "featureFlag"], "maxActive": 0, "maxDuration": "2h", "evidence": "Required"}),
        json!({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["shop"]}]}}),
        json!({"approval": [{"severities": ["SEV1"], "actions": ["rollback"], "require": "Required", "validFor": "30m"}]}),
        json!({"protected": [{"kind": "Deployment"}]}),
    ] {
        accepts(policy(spec)).await;
    }
    for (spec, part) in [
        (json!({"actions": ["scale", "scale"]}), "Duplicate value"),
        (json!({"actions": ["reboot"]}), "spec.actions[0]: Unsupported value: \"reboot\""),
        (json!({"maxActive": -1}), "should be greater than or equal to 0"),
        (json!({"maxDuration": "two hours"}), "spec.maxDuration"),
        (json!({"approval": [{"require": "Maybe"}]}), "spec.approval[0].require"),
        (json!({"protected": [{"name": "a"}]}), "spec.protected[0].kind: Required value"),
        (json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}), "operator"),
    ] {
        rejects(policy(spec), part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explain_has_prose_for_every_field() {
    let client = Cluster::get().await.client;
    let request = http::Request::get("/openapi/v3/apis/incident-operator.dev/v1alpha1")
        .body(Vec::new())
        .expect("well formed");
    let document: Value = client.request(request).await.expect("the API server publishes the schema");
    let schemas = document["components"]["schemas"].as_object().expect("a map");
    let mut fields = 0;
    for kind in ["Incident", "Mitigation", "TimelineEntry", "Postmortem", "MitigationPolicy"] {
        let schema = &schemas[&format!("dev.incident-operator.v1alpha1.{kind}")];
        assert!(schema["description"].as_str().is_some_and(|d| d.len() > 40), "{kind}");
        for part in ["spec", "status"] {
            explained(&format!("{kind}.{part}"), &schema["properties"][part], &mut fields);
        }
    }
    assert!(fields > 300, "{fields}");
    let said = super::support::kubectl(&["explain", "incident.spec.mitigations.releaseOn"]).success();
    assert!(said.contains("only a person or controller releases it"), "{said}");
}

fn explained(path: &str, schema: &Value, fields: &mut usize) {
    assert!(schema["description"].as_str().is_some_and(|d| d.trim().len() > 3), "{path} has no prose");
    *fields += 1;
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        explained(&format!("{path}.{name}"), child, fields);
    }
    for (name, child) in schema["items"]["properties"].as_object().into_iter().flatten() {
        explained(&format!("{path}[].{name}"), child, fields);
    }
}
