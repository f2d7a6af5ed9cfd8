//! Mitigations from the first apply to the last trace removed, and what the tests of mitigations share.

use super::support::{audit, workload, *};
use incident_operator::api::{Condition, ConditionStatus, Mitigation, MitigationPhase as Phase};
use incident_operator::decide::conditions::find;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

// ---- what the tests of mitigations share -------------------------------------------------------------------

/// Prefix of the annotation that keeps the prior value.
pub const CAPTURE: &str = "incident-operator.dev/mit-";

/// A Mitigation that sets the number of replicas.
pub fn scale(name: &str, kind: &str, target: &str, replicas: i64) -> Value {
    mitigation_of(name, kind, target, json!({"scale": {"replicas": replicas}}))
}

/// A Mitigation that sets a key of a ConfigMap.
pub fn flag(name: &str, target: &str, key: &str, value: &str) -> Value {
    mitigation_of(name, "ConfigMap", target, json!({"featureFlag": {"key": key, "value": value}}))
}

/// A Mitigation with what else its spec says.
pub fn mitigation_of(name: &str, kind: &str, target: &str, more: Value) -> Value {
    let spec =
        json!({"reason": format!("{target} makes it worse"), "targetRef": {"kind": kind, "name": target}});
    with(workload::mitigation(name, spec), more)
}

/// The same object with more in its spec.
pub fn with(mut object: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        object["spec"][key] = value.clone();
    }
    object
}

/// Waits until a mitigation is as wanted.
pub async fn until(
    namespace: &TestNamespace,
    name: &str,
    what: &str,
    holds: impl Fn(&Mitigation) -> bool,
) -> Mitigation {
    wait_status(&namespace.api::<Mitigation>(), name, what, holds).await
}

/// Waits until a mitigation is in a phase.
pub async fn reaches(namespace: &TestNamespace, name: &str, phase: Phase) -> Mitigation {
    until(namespace, name, &format!("phase {phase} of {name}"), |m| phase_of(m) == Some(phase)).await
}

/// Waits until a mitigation shows its effect.
pub async fn effective(namespace: &TestNamespace, name: &str) -> Mitigation {
    until(namespace, name, &format!("effect of {name}"), |m| {
        phase_of(m) == Some(Phase::Active) && is(m, "Effective", ConditionStatus::True)
    })
    .await
}

/// Waits until a condition of a mitigation has a reason.
pub async fn says(namespace: &TestNamespace, name: &str, type_: &str, reason: &str) -> Mitigation {
    until(namespace, name, &format!("{type_} of {name} with reason {reason}"), |m| {
        condition(m, type_).is_some_and(|c| c.reason == reason)
    })
    .await
}

/// Phase of a mitigation, once it has one.
pub fn phase_of(mitigation: &Mitigation) -> Option<Phase> {
    mitigation.status.as_ref()?.phase
}

/// A condition of a mitigation.
pub fn condition<'a>(mitigation: &'a Mitigation, type_: &str) -> Option<&'a Condition> {
    find(&mitigation.status.as_ref()?.conditions, type_)
}

/// Message of a condition that must be there.
#[track_caller]
pub fn message<'a>(mitigation: &'a Mitigation, type_: &str) -> &'a str {
    &condition(mitigation, type_).expect("every known condition is there").message
}

/// Whether a condition has a status.
pub fn is(mitigation: &Mitigation, type_: &str, status: ConditionStatus) -> bool {
    condition(mitigation, type_).is_some_and(|c| c.status == status)
}

/// Asks for a release, as people do.
#[track_caller]
pub fn release(namespace: &TestNamespace, name: &str) {
    let patch = r#"{"spec":{"desiredState":"Released"}}"#;
    namespace.kubectl(&["patch", "mitigation", name, "--type=merge", "-p", patch]).success();
}

/// Deletes a mitigation and waits until it is gone, which it is once its effect is undone.
pub async fn delete(namespace: &TestNamespace, name: &str) {
    namespace.api::<Mitigation>().delete(name, &Default::default()).await.expect("it can be deleted");
    wait_gone(&namespace.api::<Mitigation>(), name).await;
}

/// A merge patch under a field manager, as `kubectl edit` or a script sends it.
pub async fn edit(namespace: &TestNamespace, object: &Value, manager: &str, patch: Value) -> DynamicObject {
    let api = namespace.cluster.api_of(object, &namespace.name);
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..Default::default() };
    let name = object["metadata"]["name"].as_str().expect("the object has a name");
    api.patch(name, &params, &Patch::Merge(patch)).await.expect("the object can be patched")
}

/// The object as it is stored.
pub async fn present(namespace: &TestNamespace, object: &Value) -> DynamicObject {
    let api = namespace.cluster.api_of(object, &namespace.name);
    api.get(object["metadata"]["name"].as_str().expect("the object has a name")).await.expect("it exists")
}

/// An object without what differs between any two: identity, counters, times, and the status with its writers.
/// Its name stands as NAME wherever it is found.
pub fn essence(object: &DynamicObject) -> String {
    let name = object.name_any();
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    value.as_object_mut().expect("an object").remove("status");
    let metadata = value["metadata"].as_object_mut().expect("an object");
    for key in ["uid", "resourceVersion", "generation", "creationTimestamp"] {
        metadata.remove(key);
    }
    if let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
        entries.retain(|entry| entry["subresource"] != "status");
        for entry in entries.iter_mut() {
            entry.as_object_mut().expect("an object").remove("time");
        }
        entries.sort_by_key(Value::to_string);
    }
    let text = serde_json::to_string_pretty(&value).expect("it is JSON");
    text.replace(&name, "NAME")
}

/// Panics with the lines that differ between two objects that should be the same but for their names.
#[track_caller]
pub fn assert_same(after: &DynamicObject, control: &DynamicObject) {
    let (after, control) = (essence(after), essence(control));
    let missing = control.lines().filter(|line| !after.contains(line)).collect::<Vec<_>>();
    let added = after.lines().filter(|line| !control.contains(line)).collect::<Vec<_>>();
    assert!(after == control, "missing: {missing:#?}\nadded: {added:#?}\n{after}\nshould be\n{control}");
}

/// resourceVersion as a number; all objects of a control plane share one count.
pub fn version(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).expect("stored objects have one")
}

/// Reasons of the Events about an object, oldest first.
pub async fn event_reasons(namespace: &TestNamespace, kind: &str, name: &str) -> Vec<String> {
    let fields = format!("regarding.kind={kind},regarding.name={name}");
    let found = namespace.api::<Event>().list(&ListParams::default().fields(&fields)).await;
    let mut events = found.expect("events can be listed").items;
    events.retain(|e| e.reporting_controller.as_deref().is_some_and(|c| c.contains("incident-operator")));
    events.sort_by_key(|e| e.event_time.as_ref().map(|t| t.0));
    events.into_iter().filter_map(|e| e.reason).collect()
}

/// Waits until the Events about an object have these reasons.
pub async fn events_are(namespace: &TestNamespace, kind: &str, name: &str, wanted: &[&str]) {
    wait_for(PATIENCE, &format!("Events {wanted:?} about {kind} {name}"), async || {
        let found = event_reasons(namespace, kind, name).await;
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

// ---- scale -------------------------------------------------------------------------------------------------

fn workload_of(kind: &str, name: &str, replicas: i32) -> Value {
    match kind {
        "Deployment" => workload::deployment(name, replicas),
        _ => workload::statefulset(name, replicas),
    }
}

async fn stopped_and_released(kind: &str, by_deletion: bool) {
    let namespace = TestNamespace::new("scale").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let importer = workload_of(kind, "importer", 3);
    namespace.create_ready(importer.clone()).await;
    namespace.create_ready(workload_of(kind, "control", 3)).await;
    let targets = namespace.cluster.api_of(&importer, &namespace.name);
    let target_history = History::of(&targets, "importer").await;
    let history = History::of(&namespace.api::<Mitigation>(), "stop").await;

    namespace
        .apply(&format!(
            "apiVersion: incident-operator.dev/v1alpha1\nkind: Mitigation\nmetadata: {{name: stop}}\nspec:\n  \
             reason: it floods the database\n  targetRef: {{kind: {kind}, name: importer}}\n  scale: {{replicas: 0}}\n"
        ))
        .expect("it is taken");
    let stopped = effective(&namespace, "stop").await;
    assert!(is(&stopped, "Ready", ConditionStatus::True) && is(&stopped, "Applied", ConditionStatus::True));
    let pods =
        namespace.api::<Pod>().list(&ListParams::default().labels("app=importer")).await.unwrap().items;
    assert_eq!(pods.len(), 0, "Effective means that the pods are gone");

    if by_deletion {
        delete(&namespace, "stop").await;
    } else {
        release(&namespace, "stop");
        let released = reaches(&namespace, "stop", Phase::Released).await;
        assert!(released.status.unwrap().released_time.is_some());
    }
    let after = present(&namespace, &importer).await;
    let control = present(&namespace, &workload_of(kind, "control", 3)).await;
    assert_eq!(marks(&after), Vec::<String>::new());
    assert_same(&after, &control);

    // At no revision was it called effective before the workload's controller had taken the last pod away.
    let first_effective = history.revisions().into_iter().map(|r| r.object);
    let first_effective =
        first_effective.filter(|m| is(m, "Effective", ConditionStatus::True)).map(|m| version(&m));
    let first_effective = first_effective.min().expect("it was effective");
    let at_that_time = target_history.revisions().into_iter().map(|r| r.object);
    let at_that_time = at_that_time.rev().find(|t| version(t) < first_effective).expect("it existed");
    assert_eq!(at_that_time.data["spec"]["replicas"], 0);
    assert!(
        matches!(at_that_time.data["status"]["replicas"].as_i64(), None | Some(0)),
        "{:?}",
        at_that_time.data
    );
    // Applied comes first: effective is told apart from it.
    assert!(history.revisions().iter().any(|r| is(&r.object, "Applied", ConditionStatus::True)
        && !is(&r.object, "Effective", ConditionStatus::True)));

    // Whenever the target had the mitigation's value, the prior one stood beside it.
    let mut held = 0;
    for revision in target_history.revisions().iter().filter(|r| r.object.data["spec"]["replicas"] == 0) {
        held += 1;
        let record = revision.object.annotations().iter().find(|(key, _)| key.starts_with(CAPTURE));
        let (_, record) = record.expect("a target at the mitigated value without its prior value");
        let record: Value = serde_json::from_str(record).expect("the record is JSON");
        let field = &record["fields"][0];
        assert_eq!(
            (&field["path"], &field["prior"], &field["applied"]),
            (&json!("/spec/replicas"), &json!(3), &json!(0))
        );
        assert_eq!(revision.object.labels()["incident-operator.dev/mitigated"], "true");
    }
    assert!(held > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_stopped_and_comes_back_as_it_was_when_the_release_is_asked_for() {
    stopped_and_released("Deployment", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_comes_back_as_it_was_when_the_mitigation_is_deleted() {
    stopped_and_released("Deployment", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statefulset_is_stopped_and_comes_back_as_it_was_when_the_release_is_asked_for() {
    stopped_and_released("StatefulSet", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statefulset_comes_back_as_it_was_when_the_mitigation_is_deleted() {
    stopped_and_released("StatefulSet", true).await;
}

/// Whoever owned the field before owns it again afterwards: a workload that is kept by server-side apply, by
/// `kubectl apply`, and one whose number somebody set by `kubectl scale`.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_owned_the_field_before_owns_it_after_the_release() {
    let namespace = TestNamespace::new("owners").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let api: Api<Deployment> = namespace.api();
    for name in ["importer", "control"] {
        let server_side = workload::deployment(&format!("{name}-ssa"), 2);
        let params = PatchParams::apply("my-engine").force();
        api.patch(&format!("{name}-ssa"), &params, &Patch::Apply(&server_side))
            .await
            .expect("it can be applied");
        namespace.apply(&workload::deployment(&format!("{name}-csa"), 2).to_string()).expect("it is applied");
        namespace
            .apply(&workload::deployment(&format!("{name}-scaled"), 1).to_string())
            .expect("it is applied");
        namespace.kubectl(&["scale", "deployment", &format!("{name}-scaled"), "--replicas=2"]).success();
    }
    for way in ["ssa", "csa", "scaled"] {
        let target = workload::deployment(&format!("importer-{way}"), 2);
        let name = format!("stop-{way}");
        wait_status(&api, &format!("importer-{way}"), "two pods", |d| {
            d.status.as_ref().and_then(|s| s.ready_replicas) == Some(2)
        })
        .await;
        namespace.create(scale(&name, "Deployment", &format!("importer-{way}"), 0)).await;
        effective(&namespace, &name).await;
        release(&namespace, &name);
        reaches(&namespace, &name, Phase::Released).await;
        let control = workload::deployment(&format!("control-{way}"), 2);
        assert_same(&present(&namespace, &target).await, &present(&namespace, &control).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_scaled_up_and_effective_only_when_the_new_pods_are_ready() {
    let namespace = TestNamespace::new("up").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 1);
    namespace.create_ready(web.clone()).await;
    let history = History::of(&namespace.api::<Deployment>(), "web").await;
    namespace.create(scale("headroom", "Deployment", "web", 4)).await;
    let more = effective(&namespace, "headroom").await;
    let mut ready = history.revisions().into_iter().map(|r| r.object).rev();
    assert_eq!(ready.find(|d| version(d) < version(&more)).unwrap().status.unwrap().ready_replicas, Some(4));
    delete(&namespace, "headroom").await;
    assert_eq!(present(&namespace, &web).await.data["spec"]["replicas"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_has_the_value_already_is_held_says_so_and_keeps_it() {
    let namespace = TestNamespace::new("already").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let idle = workload::deployment("idle", 0);
    namespace.create_ready(idle.clone()).await;
    namespace.create_ready(workload::deployment("control", 0)).await;
    namespace.create(scale("stop", "Deployment", "idle", 0)).await;
    let held = effective(&namespace, "stop").await;
    assert_eq!(condition(&held, "Applied").unwrap().reason, "AlreadyZero");
    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Released).await;
    let control = present(&namespace, &workload::deployment("control", 0)).await;
    assert_same(&present(&namespace, &idle).await, &control);
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_ends_the_hold_leaves_the_value_and_removes_every_trace() {
    let namespace = TestNamespace::new("keep").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 1);
    namespace.create_ready(web.clone()).await;
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"onRelease": "Keep"}))).await;
    effective(&namespace, "stop").await;
    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Kept).await;
    let after = present(&namespace, &web).await;
    assert_eq!((after.data["spec"]["replicas"].as_i64(), marks(&after)), (Some(0), vec![]));
}

// ---- featureFlag -------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_is_set_and_released_and_other_peoples_keys_stay_as_they_made_them() {
    let namespace = TestNamespace::new("flag").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let data = [("new-pricing", "on"), ("gift-cards", "off")];
    let flags = workload::configmap("flags", &data);
    namespace.create(flags.clone()).await;
    namespace.create(workload::configmap("control", &data)).await;
    let history = History::of(&namespace.api::<ConfigMap>(), "flags").await;
    namespace.create(flag("pricing-off", "flags", "new-pricing", "off")).await;
    effective(&namespace, "pricing-off").await;

    // Somebody goes on working with the other keys, on both.
    let change = json!({"data": {"gift-cards": "on", "banner": "sorry"}});
    edit(&namespace, &flags, "somebody", change.clone()).await;
    edit(&namespace, &workload::configmap("control", &[]), "somebody", change).await;
    let held = present(&namespace, &flags).await;
    let wanted = json!({"new-pricing": "off", "gift-cards": "on", "banner": "sorry"});
    assert_eq!(held.data["data"], wanted);

    release(&namespace, "pricing-off");
    reaches(&namespace, "pricing-off", Phase::Released).await;
    let control = present(&namespace, &workload::configmap("control", &[])).await;
    assert_same(&present(&namespace, &flags).await, &control);
    for revision in history.revisions() {
        let off = revision.object.data.as_ref().is_some_and(|d| d["new-pricing"] == "off");
        let kept =
            revision.object.annotations().iter().any(|(k, v)| k.starts_with(CAPTURE) && v.contains("\"on\""));
        assert!(!off || kept, "the value is off and nobody knows what it was: {:?}", revision.object);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_missing_is_added_when_that_is_asked_for_and_removed_by_the_release() {
    let namespace = TestNamespace::new("addkey").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    // One has other keys, the other has no data at all.
    for (name, data) in [("flags", &[("other", "x")][..]), ("empty", &[])] {
        let target = workload::configmap(name, data);
        let control = workload::configmap(&format!("{name}-control"), data);
        namespace.create(target.clone()).await;
        namespace.create(control.clone()).await;
        let action = json!({"featureFlag": {"key": "read-only", "value": "true", "createIfMissing": true}});
        let mitigation = format!("read-only-{name}");
        namespace.create(mitigation_of(&mitigation, "ConfigMap", name, action)).await;
        effective(&namespace, &mitigation).await;
        assert_eq!(present(&namespace, &target).await.data["data"]["read-only"], "true");
        delete(&namespace, &mitigation).await;
        let after = present(&namespace, &target).await;
        assert_same(&after, &present(&namespace, &control).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_an_immutable_map_and_a_value_too_large_to_keep_are_refused_in_words() {
    let namespace = TestNamespace::new("refused").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("new-pricing", "on"), ("gift-cards", "off")])).await;
    let mut sealed = workload::configmap("sealed", &[("new-pricing", "on")]);
    sealed["immutable"] = true.into();
    namespace.create(sealed).await;
    namespace.create(workload::configmap("large", &[("new-pricing", &"x".repeat(20_000))])).await;
    let mut crowded = workload::configmap("crowded", &[("new-pricing", "on")]);
    crowded["metadata"]["annotations"] = json!({"notes": "x".repeat(261_500)});
    namespace.create(crowded).await;
    let without_value = json!({"featureFlag": {"key": "new-pricing"}});
    for (mitigation, target, reason, words) in [
        (flag("missing", "flags", "new-prices", "off"), "flags", "KeyNotFound", "gift-cards, new-pricing"),
        (flag("immutable", "sealed", "new-pricing", "off"), "sealed", "Immutable", "immutable"),
        (flag("too-large", "large", "new-pricing", "off"), "large", "PriorTooLarge", "20000 bytes"),
        (
            flag("no-room", "crowded", "new-pricing", "off"),
            "crowded",
            "NoRoomForPrior",
            "639 of 262144 are free",
        ),
        (mitigation_of("no-value", "ConfigMap", "flags", without_value), "flags", "ValueMissing", "value"),
    ] {
        let name = mitigation["metadata"]["name"].as_str().unwrap().to_owned();
        let before = present(&namespace, &workload::configmap(target, &[])).await;
        namespace.create(mitigation).await;
        let refused = reaches(&namespace, &name, Phase::Refused).await;
        assert!(is(&refused, "Stalled", ConditionStatus::True), "{name}");
        assert_eq!(condition(&refused, "Stalled").unwrap().reason, reason);
        assert!(message(&refused, "Stalled").contains(words), "{name}: {}", message(&refused, "Stalled"));
        assert_eq!(present(&namespace, &workload::configmap(target, &[])).await, before, "{name}: untouched");
        events_are(&namespace, "Mitigation", &name, &["MitigationRefused"]).await;
        delete(&namespace, &name).await;
    }
}

// ---- what cannot be done -----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_scale_does_not_work_on_is_refused_with_the_kinds_it_does() {
    let namespace = TestNamespace::new("kinds").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let stop = scale("stop", "DaemonSet", "agent", 0);
    let said =
        namespace.try_create(stop.clone()).await.expect_err("the API server knows it, too").to_string();
    assert!(said.contains("it works on Deployment (apps/v1), StatefulSet (apps/v1)"), "{said}");
    // Where its policies are not installed, it is the operator who says so.
    let unchecked = Cluster::as_the_operator().await.api_of(&stop, &namespace.name);
    let stop = serde_json::from_value(stop).expect("an object");
    unchecked.create(&PostParams::default(), &stop).await.expect("no policy is about the operator");
    let refused = reaches(&namespace, "stop", Phase::Refused).await;
    let stalled = condition(&refused, "Stalled").unwrap();
    assert_eq!(stalled.reason, "KindNotAllowed");
    assert!(stalled.message.contains("Deployment (apps/v1), StatefulSet (apps/v1)"), "{}", stalled.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_denies_is_refused_with_its_own_words() {
    let namespace = TestNamespace::new("denied").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("web", 1)).await;
    let policy = format!("{}-never-zero", namespace.name);
    let text = format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {policy}}}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{{apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [deployments]}}]
  validations: [{{expression: object.spec.replicas > 0, message: this shop never closes}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {policy}}}
spec:
  policyName: {policy}
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {}}}}}}}
",
        namespace.name
    );
    namespace.apply(&text).expect("policies can be made");
    wait_for(PATIENCE, "refusal by the new policy", async || {
        let patch = r#"{"spec":{"replicas":0}}"#;
        let asked = namespace.kubectl(&["patch", "deployment", "web", "--dry-run=server", "-p", patch]);
        (!asked.ok).then_some(())
    })
    .await;
    namespace.create(scale("stop", "Deployment", "web", 0)).await;
    let refused = reaches(&namespace, "stop", Phase::Refused).await;
    assert_eq!(condition(&refused, "Stalled").unwrap().reason, "Denied");
    assert!(
        message(&refused, "Stalled").contains("this shop never closes"),
        "{}",
        message(&refused, "Stalled")
    );
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        kubectl(&["delete", kind, &policy]).success();
    }
    let web = present(&namespace, &workload::deployment("web", 1)).await;
    assert_eq!((web.data["spec"]["replicas"].as_i64(), marks(&web)), (Some(1), vec![]));
}

// ---- dry run -----------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_puts_the_plan_into_status_and_writes_nothing_to_the_target() {
    let namespace = TestNamespace::new("dryrun").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let web = workload::deployment("web", 2);
    namespace.create_ready(web.clone()).await;
    let before = essence(&present(&namespace, &web).await);
    let mark = audit::mark();
    namespace.create(with(scale("what-if", "Deployment", "web", 0), json!({"dryRun": true}))).await;
    let planned = says(&namespace, "what-if", "Ready", "DryRun").await;
    assert!(is(&planned, "Ready", ConditionStatus::True) && is(&planned, "Applied", ConditionStatus::False));
    assert_eq!(phase_of(&planned), Some(Phase::Pending));
    let plan = planned.status.unwrap().plan.expect("a dry run has a plan");
    assert_eq!(plan.summary, "would scale Deployment/web from 2 to 0");
    assert_eq!((plan.changes[0].path.as_str(), plan.changes[0].from.as_str()), ("/spec/replicas", "2"));
    assert_eq!(plan.changes[0].to, "0");
    delete(&namespace, "what-if").await;

    let quiet = std::time::Duration::from_millis(500);
    let asked = operator.requests_once_quiet(mark, quiet).await;
    let writes: Vec<_> = asked.iter().filter(|r| r.resource == "deployments" && r.writes()).collect();
    assert_eq!(writes.len(), 1, "{:?}", writes.iter().map(|r| &r.uri).collect::<Vec<_>>());
    assert!(writes[0].uri.contains("dryRun=All") && writes[0].code == 200, "{}", writes[0].uri);
    assert_eq!(essence(&present(&namespace, &web).await), before);
}

// ---- expiry ------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn at_expiry_notify_tells_and_keeps_and_release_undoes_even_if_the_operator_was_down() {
    let namespace = TestNamespace::new("expiry").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    for name in ["notify", "release", "late"] {
        namespace.create(workload::configmap(name, &[("flag", "on")])).await;
    }
    let expiring = |name: &str, after: &str, what: &str| {
        with(flag(name, name, "flag", "off"), json!({"expiresAfter": after, "onExpire": what}))
    };
    namespace.create(expiring("notify", "2s", "Notify")).await;
    namespace.create(expiring("release", "2s", "Release")).await;
    // Long enough to be still held when the operator goes down.
    namespace.create(expiring("late", "7s", "Release")).await;
    let value = async |name: &str| {
        present(&namespace, &workload::configmap(name, &[])).await.data["data"]["flag"].clone()
    };

    let held = effective(&namespace, "late").await.status.unwrap();
    let expiry = held.expiry_time.clone().expect("the time is absolute and in status");
    assert_eq!(expiry.0.duration_since(held.applied_time.clone().unwrap().0).as_secs(), 7);

    reaches(&namespace, "release", Phase::Released).await;
    assert_eq!(value("release").await, "on");
    let told = until(&namespace, "notify", "notice of expiry", |m| {
        m.status.as_ref().is_some_and(|s| s.expired_time.is_some())
    })
    .await;
    assert_eq!(phase_of(&told), Some(Phase::Active));
    assert_eq!(value("notify").await, "off");
    let wanted = ["MitigationApplied", "MitigationExpired"];
    wait_for(PATIENCE, "Event about the expiry", async || {
        let found = event_reasons(&namespace, "Mitigation", "notify").await;
        if wanted.iter().all(|w| found.iter().any(|f| f == w)) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;

    operator.kill();
    wait_for(PATIENCE, "expiry while the operator is down", async || {
        (k8s_openapi::jiff::Timestamp::now() > expiry.0).then_some(())
    })
    .await;
    assert_eq!(value("late").await, "off");
    operator.restart().await;
    let released = reaches(&namespace, "late", Phase::Released).await.status.unwrap();
    assert_eq!((released.expiry_time, released.applied_time), (Some(expiry), held.applied_time));
    assert_eq!(value("late").await, "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_shortened_below_what_has_passed_releases_at_once() {
    let namespace = TestNamespace::new("shortened").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(workload::configmap("flags", &[("flag", "on")])).await;
    let long = json!({"expiresAfter": "1h", "onExpire": "Release"});
    namespace.create(with(flag("slow", "flags", "flag", "off"), long)).await;
    let held = effective(&namespace, "slow").await.status.unwrap();
    let since = held.applied_time.expect("it is applied").0;
    wait_for(PATIENCE, "a second and more", async || {
        (k8s_openapi::jiff::Timestamp::now().duration_since(since).as_secs() >= 2).then_some(())
    })
    .await;
    let shorter = kube::api::Patch::Merge(json!({"spec": {"expiresAfter": "1s"}}));
    namespace
        .api::<Mitigation>()
        .patch("slow", &Default::default(), &shorter)
        .await
        .expect("it may be edited");
    reaches(&namespace, "slow", Phase::Released).await;
    let flags = present(&namespace, &workload::configmap("flags", &[])).await;
    assert_eq!(flags.data["data"]["flag"], "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn statefulsets_and_deployments_of_one_name_are_told_apart() {
    let namespace = TestNamespace::new("twins").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut set = workload::statefulset("web", 1);
    set["spec"]["selector"]["matchLabels"]["app"] = "web-set".into();
    set["spec"]["template"]["metadata"]["labels"]["app"] = "web-set".into();
    namespace.create_ready(workload::deployment("web", 1)).await;
    namespace.create_ready(set).await;
    namespace.create(scale("stop-set", "StatefulSet", "web", 0)).await;
    effective(&namespace, "stop-set").await;
    let deployment = namespace.api::<Deployment>().get("web").await.unwrap();
    assert_eq!((deployment.spec.as_ref().unwrap().replicas, marks(&deployment)), (Some(1), vec![]));
    assert_eq!(namespace.api::<StatefulSet>().get("web").await.unwrap().spec.unwrap().replicas, Some(0));
}
