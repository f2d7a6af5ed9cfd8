//! MitigationPolicies in force: what they bound, what they pause, what they count.

use super::mitigation::*;
use super::support::parts::store;
use super::support::{audit, workload, *};
use futures::StreamExt;
use incident_operator::api::{ConditionStatus, Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// A policy of one namespace, removed when the test ends.
pub struct Policy {
    name: String,
    api: Api<DynamicObject>,
    namespace: String,
}

impl Policy {
    /// Makes it; it selects the namespace of the test and no other.
    pub async fn new(namespace: &TestNamespace, spec: Value) -> Policy {
        Policy::named(namespace, "main", spec).await
    }

    /// The same with a name of its own.
    pub async fn named(namespace: &TestNamespace, name: &str, spec: Value) -> Policy {
        let name = format!("{}-{name}", namespace.name);
        let mut object = workload::ours("MitigationPolicy", &name, spec);
        object["spec"]["namespaceSelector"] =
            json!({"matchLabels": {"kubernetes.io/metadata.name": namespace.name}});
        let api = Api::all_with(namespace.cluster.client.clone(), &cluster::resource_of(&object));
        let typed = serde_json::from_value(object).expect("it has metadata");
        let made = api.create(&PostParams::default(), &typed).await.expect("a policy can be made");
        let this = Policy { name, api, namespace: namespace.name.clone() };
        this.known(&made).await;
        this
    }

    /// Waits until the operator of the test, if one runs, has heard of it: policies and mitigations come by watches of their
    /// own, and neither waits for the other.
    async fn known(&self, policy: &DynamicObject) {
        let word = format!("policy=\"{}\" generation={}", self.name, policy.metadata.generation.unwrap_or(0));
        let heard = || {
            let logs = std::fs::read_dir(Cluster::dir().join("logs")).expect("operators write logs there");
            let ours = |name: &str| name.starts_with(&format!("{}-", self.namespace));
            let ours = logs.flatten().filter(|file| file.file_name().to_str().is_some_and(ours));
            let texts: Vec<_> = ours.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
            (texts.is_empty() || texts.iter().any(|text| text.contains(&word))).then_some(())
        };
        // One that is down at the moment learns of it when it comes back.
        let _ = tokio::time::timeout(PATIENCE / 6, wait_for(PATIENCE, &word, async || heard())).await;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes its spec.
    pub async fn set(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        let set = self.api.patch(&self.name, &PatchParams::default(), &patch).await;
        self.known(&set.expect("it can be changed")).await;
    }

    /// Takes it away.
    pub async fn delete(&self) {
        self.api.delete(&self.name, &DeleteParams::default()).await.expect("it can be deleted");
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        // Not waited for.
        let _ = std::process::Command::new(Cluster::dir().join("bin/kubectl"))
            .args(["delete", "mitigationpolicy", &self.name, "--ignore-not-found", "--wait=false"])
            .env("KUBECONFIG", Cluster::dir().join("kubeconfig"))
            .env("KUBECACHEDIR", Cluster::dir().join("kube-cache"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
    }
}

async fn flags(namespace: &TestNamespace, names: &[&str]) {
    for name in names {
        namespace.create(workload::configmap(name, &[("mode", "normal")])).await;
    }
}

async fn refused(namespace: &TestNamespace, name: &str, reason: &str, words: &str) {
    let m = reaches(namespace, name, Phase::Refused).await;
    let ready = condition(&m, "Ready").expect("it is there");
    assert!(ready.reason == reason && ready.message.contains(words), "{name}: {ready:?}");
    let stalled = condition(&m, "Stalled").expect("it is there");
    assert_eq!(stalled.reason, reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_does_not_allow_is_refused_in_words_and_nothing_is_changed() {
    let namespace = TestNamespace::new("bounds").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["flags", "other"]).await;
    let policy = Policy::new(
        &namespace,
        json!({"actions": ["featureFlag"], "protected": [{"kind": "ConfigMap", "name": "other"}],
            "maxDuration": "1h", "evidence": "BestEffort"}),
    )
    .await;
    let bounded = json!({"expiresAfter": "1h", "onExpire": "Release", "evidence": "BestEffort"});
    let timed = json!({"expiresAfter": "2h", "onExpire": "Release", "evidence": "BestEffort"});
    let bare = json!({"expiresAfter": "30m", "onExpire": "Release", "evidence": "None"});
    namespace.create(with(scale("wrong-action", "Deployment", "web", 0), bounded.clone())).await;
    refused(&namespace, "wrong-action", "ActionNotAllowed", "allows featureFlag here, not scale").await;
    namespace.create(with(flag("protected", "other", "mode", "slow"), bounded.clone())).await;
    refused(&namespace, "protected", "TargetProtected", "protects ConfigMap/other").await;
    namespace.create(with(flag("long", "flags", "mode", "slow"), timed)).await;
    refused(&namespace, "long", "TooLong", "set expiresAfter to 1h or less").await;
    namespace.create(flag("endless", "flags", "mode", "slow")).await;
    refused(&namespace, "endless", "TooLong", policy.name()).await;
    namespace.create(with(flag("blind", "flags", "mode", "slow"), bare)).await;
    refused(&namespace, "blind", "EvidenceTooLittle", "wants evidence: BestEffort").await;
    // A second policy: all must allow.
    let second =
        Policy::named(&namespace, "second", json!({"targetSelector": {"matchLabels": {"tier": "flags"}}}))
            .await;
    namespace.create(with(flag("unlabelled", "flags", "mode", "slow"), bounded.clone())).await;
    refused(&namespace, "unlabelled", "TargetNotAllowed", second.name()).await;
    for name in ["flags", "other"] {
        let object = namespace.api::<ConfigMap>().get(name).await.expect("it exists");
        assert_eq!(object.data.as_ref().expect("data")["mode"], "normal");
        assert_eq!(marks(&object), Vec::<String>::new());
    }
    second.delete().await;
    namespace.create(with(flag("good", "flags", "mode", "slow"), bounded)).await;
    effective(&namespace, "good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_what_is_new_and_lets_releases_go_on_and_nothing_starts_when_it_is_lifted() {
    let namespace = TestNamespace::new("pause").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["held", "flags"]).await;
    namespace.create(flag("held", "held", "mode", "slow")).await;
    effective(&namespace, "held").await;
    namespace.create(scale("waiting", "Deployment", "nobody", 0)).await;
    says(&namespace, "waiting", "Ready", "TargetNotFound").await;
    let policy = Policy::new(&namespace, json!({"paused": true})).await;
    // What waited meets the pause as well.
    refused(&namespace, "waiting", "Paused", "nothing will be when the pause is lifted").await;
    namespace.create(flag("new", "flags", "mode", "slow")).await;
    refused(&namespace, "new", "Paused", policy.name()).await;
    release(&namespace, "held");
    reaches(&namespace, "held", Phase::Released).await;
    policy.set(json!({"paused": null})).await;
    namespace.create(workload::deployment("nobody", 1)).await;
    holds_for(Duration::from_secs(2), "nothing that was stopped", async || {
        let of = async |name: &str| phase_of(&namespace.api::<Mitigation>().get(name).await.expect("it"));
        match (of("new").await, of("waiting").await) {
            (Some(Phase::Refused), Some(Phase::Refused)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Asked for anew, it is made.
    namespace.create(flag("again", "flags", "mode", "slow")).await;
    effective(&namespace, "again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_follows_the_labels_of_the_namespace() {
    let namespace = TestNamespace::new("label").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["flags"]).await;
    let policy = Policy::new(&namespace, json!({"paused": true})).await;
    let label = format!("{}/guarded", namespace.name);
    policy
        .set(json!({"namespaceSelector": {"matchLabels": {label.clone(): "yes",
        "kubernetes.io/metadata.name": null}}}))
        .await;
    namespace.create(flag("before", "flags", "mode", "slow")).await;
    effective(&namespace, "before").await;
    namespace.create(scale("waiting", "Deployment", "nobody", 0)).await;
    says(&namespace, "waiting", "Ready", "TargetNotFound").await;
    kubectl(&["label", "namespace", &namespace.name, &format!("{label}=yes")]).success();
    refused(&namespace, "waiting", "Paused", policy.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_at_once_never_one_more_is_active_than_allowed_whichever_replica_leads() {
    const MOST: usize = 3;
    let namespace = TestNamespace::new("limit").await;
    let mut first = Operator::start(&namespace, Options::default()).await;
    let _second = Operator::start(&namespace, Options::default()).await;
    let _policy = Policy::new(&namespace, json!({"maxActive": MOST})).await;
    let names: Vec<String> = (0..10).map(|i| format!("f{i}")).collect();
    flags(&namespace, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // Every revision of the targets tells how many are held at that moment.
    let most = tokio::spawn({
        let api = namespace.api::<ConfigMap>();
        async move {
            let config = watcher::Config::default().labels("incident-operator.dev/mitigated=true");
            let mut events = std::pin::pin!(watcher(api, config));
            let (mut held, mut most) = (HashSet::new(), 0);
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        held.insert(object.name_any());
                    }
                    Ok(watcher::Event::Delete(object)) => {
                        held.remove(&object.name_any());
                        if object.name_any() == "f-end" {
                            break;
                        }
                    }
                    _ => {}
                }
                most = most.max(held.len());
            }
            most
        }
    });
    let made = names.iter().map(|name| namespace.create(flag(name, name, "mode", "slow")));
    futures::future::join_all(made).await;
    let active = async || {
        let all = namespace.api::<Mitigation>().list(&Default::default()).await.expect("a list").items;
        let of = |phase| all.iter().filter(|m| phase_of(m) == Some(phase)).count();
        let waiting =
            all.iter().filter(|m| condition(m, "Ready").is_some_and(|c| c.reason == "TooManyActive"));
        (of(Phase::Active), waiting.count(), of(Phase::Released))
    };
    wait_for(PATIENCE, "three active and seven waiting", async || match active().await {
        (MOST, 7, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // The other replica takes over in the middle, and counts what it finds.
    first.kill();
    for round in 1..=4 {
        let all = namespace.api::<Mitigation>().list(&Default::default()).await.expect("a list").items;
        let one = all.iter().find(|m| phase_of(m) == Some(Phase::Active)).expect("one is active").name_any();
        release(&namespace, &one);
        wait_for(PATIENCE * 2, "the next one", async || match active().await {
            (MOST, _, released) if released == round => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
    let mut end = workload::configmap("f-end", &[]);
    end["metadata"]["labels"] = json!({"incident-operator.dev/mitigated": "true"});
    namespace.create(end).await;
    namespace.api::<ConfigMap>().delete("f-end", &DeleteParams::default()).await.expect("it is there");
    // The object that ends the watch counts as one itself.
    let most = most.await.expect("the watch ends");
    assert!(most <= MOST + 1, "{most} at once");
    let before_end = active().await.0;
    assert_eq!(before_end, MOST);
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_mitigations_of_a_target_lies_the_interval_that_a_policy_wants() {
    let namespace = TestNamespace::new("interval").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["flags", "other"]).await;
    let _policy = Policy::new(&namespace, json!({"minInterval": "30s"})).await;
    namespace.create(flag("first", "flags", "mode", "slow")).await;
    let first = effective(&namespace, "first").await;
    release(&namespace, "first");
    reaches(&namespace, "first", Phase::Released).await;
    namespace.create(flag("second", "flags", "mode", "off")).await;
    let second = says(&namespace, "second", "Ready", "TooSoon").await;
    assert!(message(&second, "Ready").contains("30 s between"), "{}", message(&second, "Ready"));
    // Another target is another matter.
    namespace.create(flag("other", "other", "mode", "slow")).await;
    effective(&namespace, "other").await;
    // Neither that it is gone nor a restart makes it forgotten.
    delete(&namespace, "first").await;
    let kept = namespace.api::<ConfigMap>().get("incident-operator-takes").await.expect("it is kept");
    assert_eq!(kept.data.expect("data").len(), 1);
    operator.restart().await;
    namespace.create(flag("third", "flags", "mode", "third")).await;
    says(&namespace, "third", "Ready", "TooSoon").await;
    delete(&namespace, "third").await;
    let second = effective(&namespace, "second").await;
    let at = |m: &Mitigation| {
        m.status.as_ref().and_then(|s| s.applied_time.as_ref()).expect("it was applied").0.as_second()
    };
    assert!(at(&second) - at(&first) >= 30, "{} s", at(&second) - at(&first));
}

/// It may have been there before the operator was, and admission with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_of_somebody_else_where_takes_are_kept_is_not_believed_and_that_is_told() {
    let namespace = TestNamespace::new("foreign").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["flags"]).await;
    let _policy = Policy::new(&namespace, json!({"minInterval": "1h"})).await;
    let forged = json!({"target": format!("{}/ConfigMap/flags", namespace.name), "time": Timestamp::now().to_string(),
        "until": "2099-01-01T00:00:00Z"});
    let mut foreign = workload::configmap("incident-operator-takes", &[("forged", &forged.to_string())]);
    foreign["metadata"]["namespace"] = json!(namespace.name);
    foreign["metadata"]["uid"] = json!("6f0b7a53-0000-4000-8000-000000000001");
    foreign["metadata"]["creationTimestamp"] = json!("2026-01-05T10:00:00Z");
    store("", "configmaps", &foreign);
    let before = namespace.api::<ConfigMap>().get("incident-operator-takes").await.expect("it is there");
    namespace.create(flag("first", "flags", "mode", "slow")).await;
    effective(&namespace, "first").await;
    delete(&namespace, "first").await;
    wait_for(PATIENCE, "an Event that says so", async || {
        let reasons = event_reasons(&namespace, "Mitigation", "first").await;
        if reasons.iter().any(|r| r == "TakeNotKept") { Ok(()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    assert_eq!(operator.metric("incident_operator_takes_not_kept_total", &[]).await, Some(1.0));
    let log = operator.log();
    assert!(log.contains("is not the operator's"), "{log}");
    let after = namespace.api::<ConfigMap>().get("incident-operator-takes").await.expect("it is there");
    assert_eq!(after.data, before.data, "what is somebody else's stays as it is");
    // Once it is away, the operator makes its own.
    namespace.kubectl(&["delete", "configmap", "incident-operator-takes"]).success();
    namespace.create(workload::configmap("other", &[("mode", "normal")])).await;
    namespace.create(flag("second", "other", "mode", "slow")).await;
    effective(&namespace, "second").await;
    delete(&namespace, "second").await;
    let own = namespace.api::<ConfigMap>().get("incident-operator-takes").await.expect("it is kept");
    assert_eq!(own.data.expect("data").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_protects_is_not_changed_beside_the_target_either() {
    let namespace = TestNamespace::new("beside").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut web = workload::deployment("web", 2);
    let container = &mut web["spec"]["template"]["spec"]["containers"][0];
    container["envFrom"] = json!([{"configMapRef": {"name": "flags"}}]);
    flags(&namespace, &["flags"]).await;
    namespace.create_ready(web).await;
    namespace.create_ready(workload::deployment("api", 2)).await;
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "api"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
            "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]}});
    namespace.create(scaler).await;
    let protected = json!([{"kind": "Deployment", "name": "web"}, {"kind": "HorizontalPodAutoscaler"}]);
    let policy = Policy::new(&namespace, json!({"protected": protected})).await;
    namespace.create(with(scale("stop", "Deployment", "web", 0), json!({"evidence": "None"}))).await;
    refused(&namespace, "stop", "TargetProtected", policy.name()).await;
    let mut restart = flag("restart", "flags", "mode", "slow");
    restart["spec"]["featureFlag"]["restartConsumers"] = json!(true);
    namespace.create(with(restart, json!({"evidence": "None"}))).await;
    refused(&namespace, "restart", "TargetProtected", "and this would change Deployment/web").await;
    namespace.create(with(scale("down", "Deployment", "api", 1), json!({"evidence": "None"}))).await;
    refused(&namespace, "down", "TargetProtected", policy.name()).await;
    let object = namespace.api::<ConfigMap>().get("flags").await.expect("it exists");
    assert_eq!(object.data.as_ref().expect("data")["mode"], "normal");
    // Without touching what is protected, it may be done.
    namespace.create(flag("gentle", "flags", "mode", "slow")).await;
    reaches(&namespace, "gentle", Phase::Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_room_gets_it_from_one_that_may_not_act_and_that_one_writes_nothing_for_it() {
    let namespace = TestNamespace::new("room").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["flags"]).await;
    namespace
        .create(
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": {
                "schedule": "0 3 1 1 *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "registry.example/main:1"}]}}}}}}),
        )
        .await;
    let role = "incident-operator-mitigator-suspend";
    let account = format!("--serviceaccount={}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1);
    namespace.kubectl(&["delete", "rolebinding", role]).success();
    let user = format!("system:serviceaccount:{}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1);
    wait_for(PATIENCE, "end of the right", async || {
        let asked = namespace.kubectl(&["auth", "can-i", "patch", "cronjobs.batch", "--as", &user]);
        (asked.stdout.trim() != "yes").then_some(())
    })
    .await;
    let _policy = Policy::new(&namespace, json!({"maxActive": 1})).await;
    namespace.create(mitigation_of("stop", "CronJob", "nightly", json!({"suspend": {}}))).await;
    namespace.create(flag("slow", "flags", "mode", "slow")).await;
    effective(&namespace, "slow").await;
    // The room is taken: this one waits for it, or for its right.
    release(&namespace, "slow");
    reaches(&namespace, "slow", Phase::Released).await;
    let stop = says(&namespace, "stop", "Ready", "OperatorForbidden").await;
    // It is tried again, and nothing is written that says the same.
    let mark = audit::mark();
    wait_for(PATIENCE * 2, "another attempt", async || {
        let asked = operator.requests(mark);
        asked.iter().any(|r| r.verb == "patch" && r.resource == "cronjobs").then_some(())
    })
    .await;
    let now = namespace.api::<Mitigation>().get("stop").await.expect("it exists");
    assert_eq!(now.metadata.resource_version, stop.metadata.resource_version, "{:#?}", now.status);
    namespace.kubectl(&["create", "rolebinding", role, "--clusterrole", role, &account]).success();
    let m = until(&namespace, "stop", "its turn", |m| is(m, "Effective", ConditionStatus::True)).await;
    assert_eq!(condition(&m, "Authorized").expect("it is there").reason, "Allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_time_holds_although_the_spec_is_extended_once_it_is_in_force() {
    let namespace = TestNamespace::new("longest").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    flags(&namespace, &["flags"]).await;
    let _policy = Policy::new(&namespace, json!({"maxDuration": "8s"})).await;
    let timed = json!({"expiresAfter": "8s", "onExpire": "Release"});
    let slow = with(flag("slow", "flags", "mode", "slow"), timed);
    namespace.create(slow.clone()).await;
    let m = until(&namespace, "slow", "the latest end", |m| {
        m.status.as_ref().is_some_and(|s| s.latest_end_time.is_some() && s.applied_time.is_some())
    })
    .await;
    let extended = json!({"spec": {"expiresAfter": "2h", "onExpire": "Notify"}});
    namespace.admin().merge(&slow, extended).await.expect("the spec may be changed");
    let ended = reaches(&namespace, "slow", Phase::Released).await;
    let of = |m: &Mitigation| m.status.as_ref().and_then(|s| s.latest_end_time.clone()).map(|t| t.0);
    assert_eq!(of(&ended), of(&m));
    let object = namespace.api::<ConfigMap>().get("flags").await.expect("it exists");
    assert_eq!(object.data.as_ref().expect("data")["mode"], "normal");
}
