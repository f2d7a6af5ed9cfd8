//! `rollback` on real workloads and their real controllers.

use super::mitigation::*;
use super::support::proxy::{Fate, Proxy};
use super::support::{admission, audit, workload, *};
use incident_operator::api::{ConditionStatus, Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const GOOD: &str = "registry.example/main:1";
pub const BAD: &str = "registry.example/main:2";
const GOOD_AS_WELL: &str = "registry.example/main:1.1";
const FIXED: &str = "registry.example/main:3";

/// A workload with two pods, or one a node.
pub fn workload_of(kind: &str, name: &str) -> Value {
    let mut object = match kind {
        "StatefulSet" => workload::statefulset(name, 2),
        _ => workload::deployment(name, 2),
    };
    if kind == "DaemonSet" {
        object["kind"] = kind.into();
        object["spec"].as_object_mut().expect("a map").remove("replicas");
    }
    object
}

/// Waits as people do until every pod is of the newest version.
#[track_caller]
pub fn rolled_out(namespace: &TestNamespace, kind: &str, name: &str) {
    namespace.kubectl(&["rollout", "status", &format!("{kind}/{name}"), "--timeout=60s"]).success();
}

/// Rolls another image out as people do, and waits until it is.
pub async fn deploy(namespace: &TestNamespace, kind: &str, name: &str, image: &str) {
    next_second().await;
    set_image(namespace, kind, name, image);
    rolled_out(namespace, kind, name);
}

#[track_caller]
pub fn set_image(namespace: &TestNamespace, kind: &str, name: &str, image: &str) {
    namespace.kubectl(&["set", "image", &format!("{kind}/{name}"), &format!("main={image}")]).success();
}

/// The API server notes in whole seconds when a revision was made; nobody deploys twice within one.
async fn next_second() {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs();
    let now = second();
    wait_for(PATIENCE, "the next second", async || (second() > now).then_some(())).await;
}

/// A workload that ran the good version and runs the bad one.
async fn broken(namespace: &TestNamespace, kind: &str, name: &str) -> Value {
    let object = workload_of(kind, name);
    namespace.create(object.clone()).await;
    rolled_out(namespace, kind, name);
    deploy(namespace, kind, name, BAD).await;
    object
}

fn rollback(name: &str, kind: &str, target: &str, how: Value) -> Value {
    mitigation_of(name, kind, target, json!({"rollback": how}))
}

async fn image(namespace: &TestNamespace, object: &Value) -> String {
    let image =
        present(namespace, object).await.data["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    image.as_str().expect("containers have an image").to_owned()
}

async fn images_of_pods(namespace: &TestNamespace, app: &str) -> Vec<String> {
    let pods = namespace.api::<Pod>().list(&ListParams::default().labels(&format!("app={app}"))).await;
    let pods = pods
        .expect("pods can be listed")
        .items
        .into_iter()
        .filter(|p| p.metadata.deletion_timestamp.is_none());
    let mut images: Vec<String> =
        pods.filter_map(|p| p.spec.and_then(|s| s.containers[0].image.clone())).collect();
    images.dedup();
    images
}

/// The same object without the number that its controller counts up.
fn unnumbered(mut object: DynamicObject) -> DynamicObject {
    for counter in ["deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"] {
        object.annotations_mut().remove(counter);
    }
    object
}

async fn there_and_back(kind: &str) {
    let namespace = TestNamespace::new("rollback").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let web = broken(&namespace, kind, "web").await;
    let control = broken(&namespace, kind, "control").await;
    let revisions = if kind == "Deployment" { "replicasets" } else { "controllerrevisions" };

    let back = with(rollback("back", kind, "web", json!({})), json!({"onRelease": "Restore"}));
    namespace.create(back).await;
    let active = effective(&namespace, "back").await;
    assert_eq!(images_of_pods(&namespace, "web").await, [GOOD], "effective means that every pod runs it");
    let held = present(&namespace, &web).await;
    let good = present(&namespace, &control).await.data["spec"]["template"].clone();
    let mut wanted = good.clone();
    wanted["spec"]["containers"][0]["image"] = GOOD.into();
    wanted["metadata"]["labels"]["app"] = "web".into();
    assert_eq!(held.data["spec"]["template"], wanted, "nothing of a revision's own is in the template");
    let applied = message(&active, "Applied");
    assert!(
        applied.contains("from revision 2 (web-") && applied.contains("to revision 1 (web-"),
        "{applied}"
    );
    // It went back to the revision that was there, and made no third one.
    let names = namespace.kubectl(&["get", revisions, "-l", "app=web", "-o", "name"]).success();
    assert_eq!(names.lines().count(), 2, "{names}");

    release(&namespace, "back");
    reaches(&namespace, "back", Phase::Released).await;
    rolled_out(&namespace, kind, "web");
    assert_eq!(images_of_pods(&namespace, "web").await, [BAD]);
    let after = present(&namespace, &web).await;
    assert_eq!(marks(&after), Vec::<String>::new());
    assert_same(&unnumbered(after), &unnumbered(present(&namespace, &control).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_goes_back_to_the_version_before_and_forward_again_as_it_was() {
    there_and_back("Deployment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statefulset_goes_back_to_the_version_before_and_forward_again_as_it_was() {
    there_and_back("StatefulSet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemonset_goes_back_to_the_version_before_and_forward_again_as_it_was() {
    there_and_back("DaemonSet").await;
}

/// A watch may be behind: then the revision of the bad version is made already and not told yet, and with it the one
/// before. Taken as it is told, "previous" would be one too early, and nobody could go forward again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_waits_until_the_revision_it_comes_from_is_told() {
    let namespace = TestNamespace::new("rblate").await;
    let proxy = Proxy::start().await;
    let late = Duration::from_secs(3);
    let of_revisions = |path: &str| path.ends_with("/replicasets") || path.ends_with("/controllerrevisions");
    proxy.rule(move |_, path| if of_revisions(path) { Fate::TellLate(late) } else { Fate::Pass });
    let options = Options { server: Some(proxy.url.clone()), ..Options::default() };
    let _operator = Operator::start(&namespace, options).await;
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        let name = kind.to_lowercase();
        let object = workload_of(kind, &name);
        namespace.create(object.clone()).await;
        rolled_out(&namespace, kind, &name);
        // Since its plan the revisions are watched.
        let plan = format!("plan-{name}");
        namespace.create(with(rollback(&plan, kind, &name, json!({})), json!({"dryRun": true}))).await;
        says(&namespace, &plan, "Ready", "NoOtherRevision").await;
        for image in [GOOD_AS_WELL, BAD] {
            next_second().await;
            set_image(&namespace, kind, &name, image);
        }
        let back = with(rollback(&name, kind, &name, json!({})), json!({"onRelease": "Restore"}));
        namespace.create(back).await;
        says(&namespace, &name, "Ready", "RevisionNotSeen").await;
        let active = effective(&namespace, &name).await;
        let applied = message(&active, "Applied");
        assert!(
            applied.contains("from revision 3 (") && applied.contains("to revision 2 ("),
            "{kind}: {applied}"
        );
        assert_eq!(image(&namespace, &object).await, GOOD_AS_WELL, "{kind}");
        release(&namespace, &name);
        reaches(&namespace, &name, Phase::Released).await;
        assert_eq!(image(&namespace, &object).await, BAD, "{kind}");
    }
}

/// What an engine applied server-side is its own again, leaf by leaf, beside what others had.
#[tokio::test(flavor = "multi_thread")]
async fn each_owner_of_a_part_of_the_template_owns_that_part_again_after_the_way_forward() {
    let namespace = TestNamespace::new("rbowners").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let api: Api<Deployment> = namespace.api();
    for name in ["web", "control"] {
        let mut wanted = workload::deployment(name, 1);
        let params = PatchParams::apply("my-engine").force();
        api.patch(name, &params, &Patch::Apply(&wanted)).await.expect("it can be applied");
        rolled_out(&namespace, "Deployment", name);
        next_second().await;
        wanted["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
        wanted["spec"]["template"]["metadata"]["annotations"] = json!({"note": "bad"});
        api.patch(name, &params, &Patch::Apply(&wanted)).await.expect("it can be applied");
        namespace.kubectl(&["set", "env", &format!("deployment/{name}"), "B=2"]).success();
        rolled_out(&namespace, "Deployment", name);
    }
    let back = rollback("back", "Deployment", "web", json!({"revision": 1}));
    namespace.create(with(back, json!({"onRelease": "Restore"}))).await;
    effective(&namespace, "back").await;
    release(&namespace, "back");
    reaches(&namespace, "back", Phase::Released).await;
    rolled_out(&namespace, "Deployment", "web");
    let (after, control) = (workload::deployment("web", 1), workload::deployment("control", 1));
    assert_same(
        &unnumbered(present(&namespace, &after).await),
        &unnumbered(present(&namespace, &control).await),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rollbacks_to_the_version_before_do_not_end_at_the_bad_one() {
    let namespace = TestNamespace::new("twice").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for kind in ["Deployment", "StatefulSet"] {
        let name = kind.to_lowercase();
        let web = broken(&namespace, kind, &name).await;
        let (first, second) = (format!("first-{name}"), format!("second-{name}"));
        namespace.create(rollback(&first, kind, &name, json!({"to": "Previous"}))).await;
        effective(&namespace, &first).await;
        namespace.create(rollback(&second, kind, &name, json!({"to": "Previous"}))).await;
        says(&namespace, &second, "Ready", "FieldBusy").await;
        release(&namespace, &first);
        let kept = reaches(&namespace, &first, Phase::Kept).await;
        assert!(message(&kept, "Ready").contains("stays"), "a release keeps the good version");
        let refused = reaches(&namespace, &second, Phase::Refused).await;
        assert_eq!(condition(&refused, "Stalled").unwrap().reason, "NoOtherRevision");
        assert!(message(&refused, "Stalled").contains("gone back from"), "{}", message(&refused, "Stalled"));
        assert_eq!(image(&namespace, &web).await, GOOD);
        assert_eq!(marks(&present(&namespace, &web).await), Vec::<String>::new());
        // Who means the bad version names it.
        let number = if kind == "Deployment" { 2 } else { revision_with(&namespace, &name, BAD) };
        let forward = format!("forward-{name}");
        namespace.create(rollback(&forward, kind, &name, json!({"revision": number}))).await;
        effective(&namespace, &forward).await;
        assert_eq!(image(&namespace, &web).await, BAD);
    }
}

/// Number of the ControllerRevision with an image.
fn revision_with(namespace: &TestNamespace, app: &str, image: &str) -> i64 {
    let found = namespace
        .kubectl(&["get", "controllerrevisions", "-l", &format!("app={app}"), "-o", "json"])
        .success();
    let found: Value = serde_json::from_str(&found).expect("kubectl prints JSON");
    let found = found["items"].as_array().expect("a list").iter().find(|r| r.to_string().contains(image));
    found.expect("the image was deployed")["revision"].as_i64().expect("it is numbered")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_between_the_change_and_its_status_changes_nothing_twice() {
    let namespace = TestNamespace::new("rbkill").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let web = broken(&namespace, "Deployment", "web").await;
    let history = History::of(&namespace.api::<Deployment>(), "web").await;
    let mut probe = rollback("probe", "Deployment", "web", json!({}));
    probe["spec"]["desiredState"] = "Released".into();
    let rule = "object.metadata.name == 'probe' || (object.metadata.name == 'back' && request.?subResource.orValue('') == 'status')";
    let denial = admission::Denial::of(&namespace, "incident-operator.dev", "*/*", rule, &probe).await;
    namespace
        .create(with(rollback("back", "Deployment", "web", json!({})), json!({"onRelease": "Restore"})))
        .await;
    let changed = |d: &Deployment| {
        d.spec.as_ref().and_then(|s| s.template.spec.as_ref()).and_then(|s| s.containers[0].image.clone())
    };
    history.first("the change", |r| changed(&r.object).as_deref() == Some(GOOD)).await;
    operator.kill();
    let unknown = namespace.api::<Mitigation>().get("back").await.expect("it exists");
    assert!(unknown.status.as_ref().is_none_or(|s| s.applied_time.is_none()), "its status knows nothing");
    drop(denial);
    operator.restart().await;
    effective(&namespace, "back").await;
    let records: Vec<String> = history
        .revisions()
        .into_iter()
        .flat_map(|r| r.object.annotations().clone())
        .filter(|(key, _)| key.starts_with(CAPTURE))
        .map(|(_, text)| text)
        .collect();
    assert!(records.windows(2).all(|pair| pair[0] == pair[1]), "captured once: {records:?}");
    // And in the middle of the release.
    release(&namespace, "back");
    history
        .first("the way forward", |r| {
            changed(&r.object).as_deref() == Some(BAD)
                && r.object.annotations().keys().any(|k| k.starts_with(CAPTURE))
                && r.object.annotations().values().any(|text| text.contains(r#""restored":true"#))
        })
        .await;
    operator.kill();
    operator.restart().await;
    reaches(&namespace, "back", Phase::Released).await;
    assert_eq!(
        (image(&namespace, &web).await, marks(&present(&namespace, &web).await)),
        (BAD.to_owned(), vec![])
    );
    let mut versions: Vec<_> = history.revisions().iter().filter_map(|r| changed(&r.object)).collect();
    versions.dedup();
    assert_eq!(versions, [BAD, GOOD, BAD]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_a_person_deploys_meanwhile_stands_and_ends_the_rollback() {
    let namespace = TestNamespace::new("rbperson").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let web = broken(&namespace, "Deployment", "web").await;
    namespace
        .create(with(rollback("back", "Deployment", "web", json!({})), json!({"onRelease": "Restore"})))
        .await;
    effective(&namespace, "back").await;
    set_image(&namespace, "Deployment", "web", FIXED);
    let ended = reaches(&namespace, "back", Phase::Superseded).await;
    assert!(message(&ended, "Ready").contains("kubectl-set"), "{}", message(&ended, "Ready"));
    assert_eq!(
        (image(&namespace, &web).await, marks(&present(&namespace, &web).await)),
        (FIXED.to_owned(), vec![])
    );

    // The same while the operator is down, between the request of a release and the release.
    let other = broken(&namespace, "Deployment", "other").await;
    let again = rollback("again", "Deployment", "other", json!({}));
    namespace.create(with(again, json!({"onRelease": "Restore"}))).await;
    effective(&namespace, "again").await;
    operator.kill();
    release(&namespace, "again");
    set_image(&namespace, "Deployment", "other", FIXED);
    operator.restart().await;
    reaches(&namespace, "again", Phase::Superseded).await;
    let after = present(&namespace, &other).await;
    assert_eq!((image(&namespace, &other).await, marks(&after)), (FIXED.to_owned(), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_taken_back_while_it_brings_the_bad_version_and_left_alone_when_it_brings_another() {
    let namespace = TestNamespace::new("rbmachine").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let api: Api<Deployment> = namespace.api();
    let version = |image: &str| {
        let mut wanted = workload::deployment("web", 1);
        wanted["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        wanted
    };
    let web = version(GOOD);
    let params = PatchParams::apply("my-engine").force();
    let apply = async |image: &str| {
        api.patch("web", &params, &Patch::Apply(&version(image))).await.expect("it can be applied");
    };
    apply(GOOD).await;
    rolled_out(&namespace, "Deployment", "web");
    next_second().await;
    apply(BAD).await;
    rolled_out(&namespace, "Deployment", "web");
    namespace.create(rollback("back", "Deployment", "web", json!({}))).await;
    effective(&namespace, "back").await;
    apply(BAD).await;
    let reasserts = [("operation", "reassert"), ("result", "success")];
    operator.metric_is("incident_operator_mitigation_operations_total", &reasserts, 1.0).await;
    assert_eq!(image(&namespace, &web).await, GOOD);
    apply(FIXED).await;
    let ended = reaches(&namespace, "back", Phase::Superseded).await;
    assert_eq!(ended.status.as_ref().unwrap().undone_by.as_deref(), Some("my-engine"));
    assert_eq!(
        (image(&namespace, &web).await, marks(&present(&namespace, &web).await)),
        (FIXED.to_owned(), vec![])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_bad_revision_is_gone_a_release_leaves_the_good_one_and_says_so() {
    let namespace = TestNamespace::new("rbgone").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let web = broken(&namespace, "Deployment", "web").await;
    namespace
        .create(with(rollback("back", "Deployment", "web", json!({})), json!({"onRelease": "Restore"})))
        .await;
    effective(&namespace, "back").await;
    let sets: Api<ReplicaSet> = namespace.api();
    let all = sets.list(&ListParams::default().labels("app=web")).await.unwrap();
    let bad = all
        .items
        .iter()
        .find(|set| serde_json::to_string(set).unwrap().contains(&format!("\"image\":\"{BAD}\"")));
    let bad = bad.expect("it is kept as a revision").name_any();
    sets.delete(&bad, &DeleteParams::default()).await.expect("it can be deleted");
    wait_gone(&sets, &bad).await;
    release(&namespace, "back");
    let kept = reaches(&namespace, "back", Phase::Kept).await;
    assert_eq!(condition(&kept, "Ready").unwrap().reason, "NotRestored");
    assert!(message(&kept, "Ready").contains(&bad), "{}", message(&kept, "Ready"));
    assert_eq!(
        (image(&namespace, &web).await, marks(&present(&namespace, &web).await)),
        (GOOD.to_owned(), vec![])
    );
}

/// The controller waits for a pod of the bad version that will never be ready. It is deleted where that is allowed,
/// and named where it is not.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_broken_version_of_a_statefulset_are_deleted_if_that_is_allowed_and_named_if_not() {
    let namespace = TestNamespace::new("rbset").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let pods: Api<Pod> = namespace.api();
    for name in ["allowed", "asked", "parallel"] {
        let mut set = workload::statefulset(name, 2);
        if name != "parallel" {
            set["spec"]["podManagementPolicy"] = "OrderedReady".into();
        }
        namespace.create_ready(set.clone()).await;
        next_second().await;
        let nowhere = json!({"spec": {"template": {"spec": {"nodeSelector": {"no": "where"}}}}});
        edit(&namespace, &set, "kubectl-edit", nowhere).await;
        wait_status(&pods, &format!("{name}-1"), "a pod of the bad version", |pod| {
            pod.spec.as_ref().is_some_and(|spec| spec.node_selector.is_some())
        })
        .await;
        let how = json!({"allowPodDeletion": name == "allowed"});
        namespace.create(rollback(name, "StatefulSet", name, how)).await;
    }
    for name in ["allowed", "parallel"] {
        effective(&namespace, name).await;
        let pod = pods.get(&format!("{name}-1")).await.expect("it was replaced");
        assert!(pod.spec.unwrap().node_selector.is_none());
    }
    let labels = [("operation", "delete"), ("result", "success")];
    operator.metric_is("incident_operator_mitigation_operations_total", &labels, 1.0).await;
    let asked = says(&namespace, "asked", "Effective", "PodInTheWay").await;
    let words = message(&asked, "Effective");
    assert!(words.contains("Pod/asked-1") && words.contains("allowPodDeletion"), "{words}");
    assert!(is(&asked, "Effective", ConditionStatus::Unknown));
    // And what it says helps.
    namespace.kubectl(&["delete", "pod", "asked-1"]).success();
    effective(&namespace, "asked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rolled_back_is_refused_and_not_written() {
    let namespace = TestNamespace::new("rbrefused").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(workload::deployment("fresh", 1)).await;
    let mut needy = workload::deployment("needy", 1);
    needy["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "settings"}}]);
    namespace.create(workload::configmap("settings", &[("a", "b")])).await;
    namespace.create_ready(needy.clone()).await;
    next_second().await;
    let less = json!([{"op": "remove", "path": "/spec/template/spec/containers/0/envFrom"}]).to_string();
    namespace.kubectl(&["patch", "deployment", "needy", "--type=json", "-p", &less]).success();
    rolled_out(&namespace, "Deployment", "needy");
    namespace.kubectl(&["delete", "configmap", "settings"]).success();
    let paused = broken(&namespace, "Deployment", "paused").await;
    namespace.create(mitigation_of("stand", "Deployment", "paused", json!({"pauseRollout": {}}))).await;
    effective(&namespace, "stand").await;
    for (target, reason, words) in [
        ("fresh", "NoOtherRevision", "deploy"),
        ("needy", "ReferenceGone", "ConfigMap/settings"),
        ("paused", "Paused", "mitigation stand"),
    ] {
        let object = workload::deployment(target, 1);
        let before = present(&namespace, &object).await;
        let name = format!("back-{target}");
        namespace.create(rollback(&name, "Deployment", target, json!({}))).await;
        let refused = reaches(&namespace, &name, Phase::Refused).await;
        assert_eq!(condition(&refused, "Stalled").unwrap().reason, reason);
        assert!(message(&refused, "Stalled").contains(words), "{}", message(&refused, "Stalled"));
        assert_eq!(present(&namespace, &object).await.data["spec"], before.data["spec"]);
    }
    // What was missing is made again, and then it can be done.
    namespace.create(workload::configmap("settings", &[("a", "b")])).await;
    namespace.create(rollback("now", "Deployment", "needy", json!({}))).await;
    effective(&namespace, "now").await;
    delete(&namespace, "stand").await;
    namespace.create(rollback("then", "Deployment", "paused", json!({}))).await;
    effective(&namespace, "then").await;
    assert_eq!(image(&namespace, &paused).await, GOOD);
}

/// A Deployment whose revision before the present one names the Secret "tls".
async fn wanting_a_secret(namespace: &TestNamespace, name: &str) -> Value {
    let mut web = workload::deployment(name, 1);
    web["spec"]["template"]["spec"]["volumes"] = json!([{"name": "x", "secret": {"secretName": "tls"}}]);
    namespace.create_ready(web.clone()).await;
    next_second().await;
    let less = json!([{"op": "remove", "path": "/spec/template/spec/volumes"}]).to_string();
    namespace.kubectl(&["patch", "deployment", name, "--type=json", "-p", &less]).success();
    rolled_out(namespace, "Deployment", name);
    web
}

fn asks_for_secrets() -> Options {
    Options { args: vec!["--secret-names=true".to_owned()], ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_whose_secret_is_gone_is_refused_and_nothing_but_its_existence_is_asked() {
    let namespace = TestNamespace::new("rbsecret").await;
    let mark = audit::mark();
    let operator = Operator::start(&namespace, asks_for_secrets()).await;
    let web = wanting_a_secret(&namespace, "web").await;
    let before = present(&namespace, &web).await;
    namespace.create(rollback("back", "Deployment", "web", json!({}))).await;
    let refused = reaches(&namespace, "back", Phase::Refused).await;
    assert_eq!(condition(&refused, "Stalled").unwrap().reason, "ReferenceGone");
    assert!(message(&refused, "Stalled").contains("Secret/tls"), "{}", message(&refused, "Stalled"));
    assert_eq!(present(&namespace, &web).await.data["spec"], before.data["spec"]);
    namespace
        .create(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"},
            "stringData": {"key": "correct-horse-battery-staple"}}))
        .await;
    namespace.create(rollback("now", "Deployment", "web", json!({}))).await;
    effective(&namespace, "now").await;
    let asked = operator.requests_once_quiet(mark, Duration::from_millis(700)).await;
    let secrets: Vec<_> = asked.iter().filter(|r| r.resource == "secrets").collect();
    // One for each of them, and one more for a visit that had to be made again.
    assert!(secrets.len() >= 2, "{secrets:?}");
    assert!(secrets.iter().all(|r| r.verb == "get" && r.name == "tls"), "{secrets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_ask_for_secrets_rolls_back_and_says_what_was_not_checked() {
    // With the right taken away here, and without the flag: then it is not even tried.
    let namespace = TestNamespace::new("rights-secret").await;
    let bindings: Api<RoleBinding> = namespace.api();
    bindings.delete("incident-operator-secret-names", &DeleteParams::default()).await.expect("it is bound");
    for (name, options, tries) in [("denied", asks_for_secrets(), true), ("off", Options::default(), false)] {
        let mark = audit::mark();
        let operator = Operator::start(&namespace, options).await;
        wanting_a_secret(&namespace, name).await;
        let plan = format!("plan-{name}");
        let dry = with(rollback(&plan, "Deployment", name, json!({})), json!({"dryRun": true}));
        namespace.create(dry).await;
        let planned = says(&namespace, &plan, "Ready", "DryRun").await;
        let warnings = planned.status.unwrap().plan.unwrap().warnings.join("\n");
        namespace.create(rollback(name, "Deployment", name, json!({}))).await;
        effective(&namespace, name).await;
        assert!(warnings.contains("tls") && warnings.contains("secretNames.enabled"), "{warnings}");
        let asked = operator.requests_once_quiet(mark, Duration::from_millis(700)).await;
        assert_eq!(asked.iter().any(|r| r.resource == "secrets"), tries, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_names_both_revisions_and_a_take_lists_nothing() {
    let namespace = TestNamespace::new("rbplan").await;
    let start = audit::mark();
    let operator = Operator::start(&namespace, Options::default()).await;
    let web = broken(&namespace, "Deployment", "web").await;
    let before = present(&namespace, &web).await;
    namespace
        .create(with(rollback("plan", "Deployment", "web", json!({"image": GOOD})), json!({"dryRun": true})))
        .await;
    let planned = says(&namespace, "plan", "Ready", "DryRun").await;
    let plan = planned.status.as_ref().unwrap().plan.clone().unwrap();
    assert!(
        plan.summary.contains("from revision 2 (web-") && plan.summary.contains(GOOD),
        "{}",
        plan.summary
    );
    let images = &plan.changes[0];
    assert_eq!(images.path, "/spec/template spec.containers[main].image");
    assert_eq!(
        (images.from.as_str(), images.to.as_str()),
        (&*json!(BAD).to_string(), &*json!(GOOD).to_string())
    );
    assert!(images.written_by.is_some(), "{images:?}");
    assert_eq!(plan.release.as_deref(), Some("leaves the value"));
    assert_eq!(present(&namespace, &web).await.data["spec"], before.data["spec"]);
    delete(&namespace, "plan").await;

    // A plan that is not true any more is not carried out: it would go back to what was bad.
    let stale = with(rollback("stale", "Deployment", "web", json!({})), json!({"dryRun": true}));
    namespace.create(stale).await;
    says(&namespace, "stale", "Ready", "DryRun").await;
    deploy(&namespace, "Deployment", "web", FIXED).await;
    namespace
        .kubectl(&["patch", "mit", "stale", "--type=merge", "-p", r#"{"spec":{"dryRun":null}}"#])
        .success();
    let refused = says(&namespace, "stale", "Stalled", "PlanOutdated").await;
    assert!(message(&refused, "Stalled").contains("from revision 3"), "{}", message(&refused, "Stalled"));
    assert_eq!(image(&namespace, &web).await, FIXED);
    delete(&namespace, "stale").await;

    // The last of that may come to the log after its answer.
    let so_far = operator.requests_once_quiet(start, Duration::from_millis(700)).await;
    let begun: Vec<&str> =
        so_far.iter().map(|r| r.uri.as_str()).filter(|uri| uri.contains("replicasets")).collect();
    let first = begun.first().expect("the revisions were looked at");
    assert!(
        first.contains("sendInitialEvents=true") && !first.contains("resourceVersion="),
        "as of now: {first}"
    );
    let mark = audit::mark();
    let back = rollback("back", "Deployment", "web", json!({}));
    namespace.create(with(back, json!({"evidence": "None"}))).await;
    effective(&namespace, "back").await;
    let asked = operator.requests_once_quiet(mark, Duration::from_millis(700)).await;
    let asked: Vec<String> = asked
        .iter()
        .filter(|request| {
            !["leases", "events", "localsubjectaccessreviews"].contains(&request.resource.as_str())
                && request.verb != "watch"
        })
        .map(audit::Request::brief)
        .collect();
    let wanted = [
        "get deployments/web 200",
        "patch deployments/web 200",
        "patch mitigations/back/status 200",
        "patch mitigations/back/status 200",
    ];
    assert_eq!(asked, wanted);
}
