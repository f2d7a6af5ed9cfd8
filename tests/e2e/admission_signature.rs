//! Who asked is on record by the name that the API server authenticated, whatever the request says of itself.

use super::support::record::{incident_when, timeline, told};
use super::support::workload::{entry, incident, mitigation, ours};
use super::support::*;
use incident_operator::api::ACTOR_ANNOTATION;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

const SCALES: &str = "patch deployments.apps/scale";
/// Groups of a person without any of their own.
const MINE: &str = r#"["system:authenticated"]"#;

fn stop() -> Value {
    mitigation(
        "stop",
        json!({"reason": "a test", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0}}),
    )
}

fn forged() -> Value {
    json!({
        "incident-operator.dev/requester": "mallory",
        "incident-operator.dev/actor": "mallory",
        "incident-operator.dev/actor-groups": "[\"system:masters\"]",
    })
}

/// Requester, actor and the actor's groups.
fn signature(object: &DynamicObject) -> [&str; 3] {
    ["requester", "actor", "actor-groups"].map(|key| {
        let key = format!("incident-operator.dev/{key}");
        object.annotations().get(&key).map(String::as_str).unwrap_or("nobody")
    })
}

/// The object as it is stored.
async fn stored(namespace: &TestNamespace, object: &Value) -> DynamicObject {
    let api = namespace.cluster.api_of(object, &namespace.name);
    api.get(object["metadata"]["name"].as_str().expect("a name")).await.expect("it exists")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_creation_carries_are_replaced_by_the_true_ones() {
    let namespace = TestNamespace::new("forged").await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let mut carried = stop();
    carried["metadata"]["annotations"] = forged();
    let made = scaler.create(&carried).await.expect("it is taken, and corrected");
    assert_eq!(signature(&made), ["scaler", "scaler", MINE]);
    assert_eq!(made.finalizers(), ["incident-operator.dev/release"], "added in the same breath");
    for mut object in [
        incident("i", json!({"title": "a test"})),
        ours("Postmortem", "p", json!({"title": "a test"})),
        ours(
            "TimelineEntry",
            "e",
            json!({"incidentRef": {"name": "i"}, "type": "Note", "message": "a test"}),
        ),
    ] {
        assert_eq!(signature(&scaler.try_create(&object).await.expect("taken")), ["scaler", "scaler", MINE]);
        object["metadata"]["annotations"] = forged();
        assert_eq!(signature(&scaler.create(&object).await.expect("taken")), ["scaler", "scaler", MINE]);
    }
    let policy = ours("MitigationPolicy", &namespace.name, json!({"actions": ["scale"]}));
    let made = cluster::kubectl_with(&["create", "-o", "json", "-f", "-"], &policy.to_string()).success();
    kubectl(&["delete", "mitigationpolicy", &namespace.name]).success();
    let made: DynamicObject = serde_json::from_str(&made).expect("JSON");
    assert_ne!(signature(&made)[0], "nobody", "a policy has an author, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_leaves_the_spec_alone_changes_no_name() {
    let namespace = TestNamespace::new("annotate").await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let declarer = namespace.person("declarer", &[]).await;
    let stop = stop();
    scaler.create(&stop).await.expect("she may scale");
    let is_true = async |what: &str| {
        assert_eq!(signature(&stored(&namespace, &stop).await), ["scaler", "scaler", MINE], "{what}");
    };
    let said = declarer.kubectl(
        &[
            "annotate",
            "--overwrite",
            "mitigation",
            "stop",
            "incident-operator.dev/requester=mallory",
            "incident-operator.dev/actor=mallory",
        ],
        "",
    );
    said.success();
    is_true("annotating").await;
    let away = [
        "annotate",
        "mitigation",
        "stop",
        "incident-operator.dev/requester-",
        "incident-operator.dev/actor-",
    ];
    declarer.kubectl(&away, "").success();
    is_true("taking annotations away").await;
    namespace.kubectl(&away).success();
    is_true("not even the admin").await;
    declarer.merge(&stop, json!({"metadata": {"annotations": null}})).await.expect("taken");
    is_true("taking all annotations away").await;
    let one = r#"[{"op": "remove", "path": "/metadata/annotations/incident-operator.dev~1actor"}]"#;
    declarer.kubectl(&["patch", "mitigation", "stop", "--type=json", "-p", one], "").success();
    is_true("a JSON Patch").await;
    declarer.put(&stop, |m| m["metadata"]["annotations"] = forged()).await.expect("taken");
    is_true("replacing it with forged names").await;
    declarer
        .put(&stop, |m| drop(m["metadata"].as_object_mut().map(|m| m.remove("annotations"))))
        .await
        .expect("taken");
    is_true("replacing it without names").await;
    let said = namespace.admin().merge_status(&stop, json!({"metadata": {"annotations": forged()}})).await;
    assert!(said.expect_err("status is locked").contains("only the operator does"));
    is_true("patching the status").await;
    // Even the operator changes no name from there.
    let operator = namespace.the_operator().await;
    let both = json!({"metadata": {"annotations": forged()}, "status": {"phase": "Pending"}});
    operator.merge_status(&stop, both).await.expect("taken");
    is_true("patching the status as the operator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_applies_forged_names_owns_nothing_and_fights_nobody() {
    let namespace = TestNamespace::new("apply").await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let declarer = namespace.person("declarer", &[]).await;
    scaler.create(&stop()).await.expect("she may scale");
    let mut annotations = forged();
    annotations["note"] = json!("mine");
    let mut applied = json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Mitigation",
        "metadata": {"name": "stop", "annotations": annotations}});
    let first = declarer.apply(&applied, "gitops").await.expect("taken");
    assert_eq!(signature(&first), ["scaler", "scaler", MINE]);
    assert_eq!(first.annotations()["note"], "mine");
    let second = declarer.apply(&applied, "gitops").await.expect("taken again, without a conflict");
    assert_eq!(second.resource_version(), first.resource_version(), "and nothing is written");
    applied["metadata"]["annotations"] = json!({});
    let third = declarer.apply(&applied, "gitops").await.expect("taken");
    assert_eq!(signature(&third), ["scaler", "scaler", MINE], "what is no longer applied stays");
    // With a change of the spec, the one who applies is the actor.
    let other = namespace.person("other", &[SCALES]).await;
    let mut changed = stop();
    changed["spec"]["reason"] = json!("another");
    changed["metadata"]["annotations"] = forged();
    let made = other.apply(&changed, "gitops").await.expect("she may scale, too");
    assert_eq!(signature(&made), ["scaler", "other", MINE]);
    let own = made.managed_fields().iter().filter(|f| f.manager.as_deref() != Some("gitops"));
    let text = serde_json::to_string(&own.collect::<Vec<_>>()).expect("JSON");
    assert!(!text.contains("incident-operator.dev/actor"), "no manager owns what admission adds: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_spec_is_signed_by_who_makes_it_with_all_groups_and_the_requester_stays() {
    let namespace = TestNamespace::new("actor").await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let other = namespace.person("other", &[SCALES]).await;
    let stop = stop();
    scaler.create(&stop).await.expect("she may scale");
    let change = json!({"metadata": {"annotations": forged()}, "spec": {"reason": "another"}});
    let made = other.merge(&stop, change).await.expect("taken");
    assert_eq!(signature(&made), ["scaler", "other", MINE]);
    let odd = other.in_groups(&["ops", r#"CN=a\,b "c""#]).await;
    let made = odd
        .put(&stop, |m| {
            m["spec"]["reason"] = json!("a third");
            m["metadata"]["annotations"] = forged();
        })
        .await
        .expect("taken");
    assert_eq!(signature(&made)[..2], ["scaler", "other"]);
    let groups: Vec<String> =
        serde_json::from_str(signature(&made)[2]).expect("groups are JSON, whatever is in them");
    assert_eq!(groups, ["ops", r#"CN=a\,b "c""#, "system:authenticated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_names_the_true_author_and_a_forged_acknowledgement_acknowledges_nothing() {
    let namespace = TestNamespace::new("author").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let erin = namespace.person_as("erin", "responder", &[]).await;
    let alice = namespace.person("alice", &[]).await;
    let roles = json!({"title": "Checkout fails", "roles": {"incidentCommander": "alice"}});
    namespace.create(incident("signed", roles)).await;
    let mut note = entry("signed", "Note", "the import is running");
    note["metadata"]["annotations"] = forged();
    erin.create(&note).await.expect("she may write");
    let told_of = incident_when(&namespace, "signed", "note", |i| told(i, "Note").len() == 1).await;
    let note = told(&told_of, "Note")[0];
    assert_eq!((note.author.as_deref(), note.authenticated), (Some("erin"), Some(true)));

    let mut mine = entry("signed", "Acknowledgement", "I am alice");
    mine["metadata"]["annotations"] =
        json!({"incident-operator.dev/requester": "alice", "incident-operator.dev/actor": "alice"});
    erin.create(&mine).await.expect("she may write, under her own name");
    let is = |i: &incident_operator::api::Incident, status: &str| {
        record::incident_says(i, "Acknowledged").starts_with(status)
    };
    let folded =
        incident_when(&namespace, "signed", "entry", |i| told(i, "Acknowledgement").len() == 1).await;
    assert!(is(&folded, "False"), "{:?}", timeline(&folded));
    alice.create(&entry("signed", "Acknowledgement", "I am on it")).await.expect("she may write");
    incident_when(&namespace, "signed", "acknowledgement", |i| is(i, "True")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_for_an_incident_carries_the_names_of_the_incident() {
    let namespace = TestNamespace::new("child").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let both = namespace.person("both", &[SCALES]).await;
    let spec = json!({"title": "a test", "mitigations": [{"name": "stop", "reason": "a test",
        "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0}}]});
    both.create(&incident("i", spec)).await.expect("she may scale");
    let api = namespace.raw("Mitigation");
    let child = wait_status(&api, "i-stop", "mitigation", |_| true).await;
    assert_eq!(signature(&child), ["both", "both", MINE]);
    let other = namespace.person("other", &[SCALES]).await;
    let longer = json!([{"name": "stop", "reason": "a test", "expiresAfter": "1h",
        "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0}}]);
    other
        .merge(&incident("i", json!({})), json!({"spec": {"mitigations": longer}}))
        .await
        .expect("she may scale");
    let by_other = |m: &DynamicObject| m.annotations().get(ACTOR_ANNOTATION).is_some_and(|a| a == "other");
    let child = wait_status(&api, "i-stop", "the new actor", by_other).await;
    assert_eq!(signature(&child)[0], "both");
}

/// Between an entry and the moment in which the operator sees it, somebody who may not scale corrects the title.
#[tokio::test(flavor = "multi_thread")]
async fn who_edits_the_title_asks_for_no_mitigation() {
    let namespace = TestNamespace::new("title").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    operator.kill();
    namespace.create_ready(super::support::workload::deployment("web", 1)).await;
    let alice = namespace.person("alice", &["patch deployments.apps/scale"]).await;
    let carol = namespace.person("carol", &[]).await;
    let entry = json!({"name": "stop", "reason": "a test", "targetRef": {"kind": "Deployment", "name": "web"},
        "scale": {"replicas": 0}, "evidence": "None"});
    let outage = super::support::workload::incident("i", json!({"title": "a", "mitigations": [entry]}));
    alice.create(&outage).await.expect("alice may");
    let named = |object: &kube::api::DynamicObject| {
        let annotations = object.metadata.annotations.clone().unwrap_or_default();
        ["actor", "mitigations-actor"].map(|key| annotations[&format!("incident-operator.dev/{key}")].clone())
    };
    let edited = carol.merge(&outage, json!({"spec": {"title": "b"}})).await.expect("a title is free");
    assert_eq!(named(&edited), ["carol", "alice"]);
    let forged = json!({"metadata": {"annotations": {"incident-operator.dev/mitigations-actor": "mallory"}}});
    let forged = carol.merge(&outage, forged).await.expect("nothing changes");
    assert_eq!(named(&forged), ["carol", "alice"]);
    operator.restart().await;
    let m = super::mitigation::effective(&namespace, "i-stop").await;
    assert_eq!(m.metadata.annotations.expect("signed")["incident-operator.dev/actor"], "alice");
}

/// What the annotations of an incident say of an entry or of another part.
fn stamped(object: &kube::api::DynamicObject, key: &str) -> Option<String> {
    let text = object.metadata.annotations.as_ref()?.get(key)?;
    let stamp: Value = serde_json::from_str(text).expect("JSON");
    assert!(stamp["groups"].is_array(), "{text}");
    Some(stamp["user"].as_str().expect("a name").to_owned())
}

const OF_STOP: &str = "entry.incident-operator.dev/stop";

/// One name for all entries would be that of whoever changed any of them last.
#[tokio::test(flavor = "multi_thread")]
async fn each_entry_is_of_who_changed_it_and_nobody_elses_change_makes_it_theirs() {
    let namespace = TestNamespace::new("entries").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(super::support::workload::deployment("web", 1)).await;
    let approves = "approve mitigations.incident-operator.dev";
    let alice = namespace.person("alice", &["patch deployments.apps/scale", approves]).await;
    let bob = namespace.person("bob", &[]).await;
    let outage = super::support::workload::incident("i", json!({"title": "a"}));
    bob.create(&outage).await.expect("anybody may declare");
    operator.kill();
    let stop = json!({"name": "stop", "reason": "a test", "targetRef": {"kind": "Deployment", "name": "web"},
        "scale": {"replicas": 0}, "evidence": "None"});
    let added = alice.merge(&outage, json!({"spec": {"mitigations": [stop]}})).await.expect("alice may");
    assert_eq!(stamped(&added, OF_STOP).as_deref(), Some("alice"));
    let call = json!({"name": "call", "reason": "a test", "targetRef": {"kind": "Deployment", "name": "web"},
        "manual": {"instructions": "call the bank"}});
    let both = json!({"spec": {"mitigations": [stop, call]}});
    let added = bob.merge(&outage, both).await.expect("a step by hand needs no right");
    assert_eq!(stamped(&added, OF_STOP).as_deref(), Some("alice"));
    assert_eq!(stamped(&added, "entry.incident-operator.dev/call").as_deref(), Some("bob"));
    // Whatever is said of it by hand, the right name is stored, and no name of an entry that is not there.
    let forged = json!({"user": "bob", "groups": []}).to_string();
    let forged = json!({"metadata": {"annotations": {OF_STOP: forged.clone(), "entry.incident-operator.dev/x": forged}}});
    let kept = bob.merge(&outage, forged).await.expect("nothing changes");
    assert_eq!(stamped(&kept, OF_STOP).as_deref(), Some("alice"));
    assert_eq!(stamped(&kept, "entry.incident-operator.dev/x"), None);
    let bare = json!({"metadata": {"annotations": null}});
    let kept = bob.merge(&outage, bare).await.expect("nothing changes");
    assert_eq!(stamped(&kept, OF_STOP).as_deref(), Some("alice"));

    let policy = super::policy::Policy::new(&namespace, json!({"approval": [{"actions": ["scale"]}]})).await;
    operator.restart().await;
    let m = super::mitigation::reaches(
        &namespace,
        "i-stop",
        incident_operator::api::MitigationPhase::AwaitingApproval,
    )
    .await;
    let names = m.metadata.annotations.clone().expect("signed");
    assert_eq!(
        ["actor", "requester"].map(|key| names[&format!("incident-operator.dev/{key}")].as_str()),
        ["alice"; 2]
    );
    // Her own word is worth nothing, whoever wrote to the incident after her.
    let digest = m.status.and_then(|s| s.approval_digest).expect("it tells the digest");
    let own = super::support::workload::ours(
        "TimelineEntry",
        "own",
        json!({"incidentRef": {"name": "i"}, "type": "Approval", "mitigationRef": {"name": "i-stop"},
            "digest": digest, "message": "I looked at it"}),
    );
    alice.create(&own).await.expect("she holds the verb");
    super::mitigation::until(&namespace, "i-stop", "refusal of one's own approval", |m| {
        super::mitigation::condition(m, "Approved")
            .is_some_and(|c| c.message.contains("alice asked for the mitigation"))
    })
    .await;
    policy.delete().await;
    let m = super::mitigation::effective(&namespace, "i-stop").await;
    assert!(super::mitigation::message(&m, "Authorized").contains("alice may"), "{:?}", m.status);
}

/// What is on record about command is said by who named the commander, not by who wrote to the incident last.
#[tokio::test(flavor = "multi_thread")]
async fn who_edits_the_title_confirms_no_command_and_resolves_nothing() {
    let namespace = TestNamespace::new("parts").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let alice = namespace.person("alice", &[]).await;
    let bob = namespace.person("bob", &[]).await;
    let outage = super::support::workload::incident("i", json!({"title": "a", "severity": "SEV2"}));
    alice.create(&outage).await.expect("anybody may declare");
    super::support::record::incident_when(&namespace, "i", "first visit", |i| {
        i.status.as_ref().is_some_and(|s| s.severity.is_some())
    })
    .await;
    operator.kill();
    let impact = json!({"summary": "all"});
    let named =
        json!({"spec": {"roles": {"incidentCommander": "bob"}, "severity": "SEV1", "impact": impact}});
    alice.merge(&outage, named).await.expect("she may");
    let edited = bob.merge(&outage, json!({"spec": {"title": "b"}})).await.expect("a title is free");
    for part in ["roles-actor", "severity-actor", "impact-actor"] {
        assert_eq!(stamped(&edited, &format!("incident-operator.dev/{part}")).as_deref(), Some("alice"));
    }
    let forged =
        json!({"metadata": {"annotations": {"incident-operator.dev/roles-actor": "{\"user\":\"bob\"}"}}});
    let kept = bob.merge(&outage, forged).await.expect("nothing changes");
    assert_eq!(stamped(&kept, "incident-operator.dev/roles-actor").as_deref(), Some("alice"));
    operator.restart().await;
    let i = super::support::record::incident_when(&namespace, "i", "a commander", |i| {
        i.status.as_ref().is_some_and(|s| !s.roles.is_empty())
    })
    .await;
    let status = i.status.expect("a status");
    assert_eq!(status.roles[0].holder, "bob");
    assert_eq!(status.roles[0].acknowledged_time, None, "he has not confirmed it");
    for reason in ["RoleAssigned", "SeverityChanged", "Triaged"] {
        let record = status.timeline.iter().find(|r| r.reason == reason).expect(reason);
        assert_eq!(record.author.as_deref(), Some("alice"), "{reason}");
    }
    // By his own hand he does.
    let own = json!({"spec": {"roles": {"incidentCommander": "bob", "deputy": "carol"}}});
    bob.merge(&outage, own).await.expect("he may");
    let took = super::support::workload::entry("i", "Acknowledgement", "I have it");
    bob.create(&super::support::workload::ours("TimelineEntry", "ack", took["spec"].clone()))
        .await
        .expect("he may");
    super::support::record::incident_when(&namespace, "i", "command of bob", |i| {
        i.status
            .as_ref()
            .is_some_and(|s| s.roles.iter().any(|r| r.holder == "bob" && r.acknowledged_time.is_some()))
    })
    .await;
    bob.merge(&outage, json!({"spec": {"outcome": "FalseAlarm"}})).await.expect("he may");
    let i = super::support::record::incident_when(&namespace, "i", "the end", |i| {
        i.status.as_ref().is_some_and(|s| s.timeline.iter().any(|r| r.reason == "Cancelled"))
    })
    .await;
    let status = i.status.expect("a status");
    let cancelled = status.timeline.iter().find(|r| r.reason == "Cancelled").expect("it is told");
    assert_eq!(cancelled.author.as_deref(), Some("bob"));
}
