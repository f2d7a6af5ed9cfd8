//! `suspend` on real CronJobs and Jobs and their real controllers.

use super::mitigation::*;
use super::support::*;
use incident_operator::api::{Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use std::time::Duration;

/// A schedule that was missed once since this time, and is not due while a test runs.
const YEARLY: &str = "0 0 1 1 *";
const LONG_AGO: &str = "2025-06-01T00:00:00Z";

/// A CronJob whose pods find no node, so that its Jobs go on for ever.
fn cron_job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": {
        "schedule": YEARLY, "jobTemplate": {"spec": endless()}}})
}

fn job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": endless()})
}

fn endless() -> Value {
    json!({"template": {"spec": {"restartPolicy": "Never", "nodeSelector": {"no": "where"},
        "containers": [{"name": "main", "image": "registry.example/main:1"}]}}})
}

fn suspend(name: &str, kind: &str, target: &str, how: Value) -> Value {
    mitigation_of(name, kind, target, json!({"suspend": how}))
}

/// Makes a run due: the last one lies long ago.
#[track_caller]
fn miss_a_run(namespace: &TestNamespace, name: &str) {
    let patch = json!({"status": {"lastScheduleTime": LONG_AGO}}).to_string();
    namespace
        .kubectl(&["patch", "cronjob", name, "--subresource=status", "--type=merge", "-p", &patch])
        .success();
}

async fn jobs_of(namespace: &TestNamespace, cron_job: &str) -> Vec<Job> {
    let all = namespace.api::<Job>().list(&ListParams::default()).await.expect("jobs can be listed").items;
    let is = |job: &Job| job.owner_references().iter().any(|owner| owner.name == cron_job);
    all.into_iter().filter(is).collect()
}

/// Waits until the CronJob has started a Job, and the Job a pod.
async fn started(namespace: &TestNamespace, cron_job: &str) -> Job {
    wait_for(PATIENCE, &format!("a Job of {cron_job}"), async || {
        jobs_of(namespace, cron_job)
            .await
            .into_iter()
            .find(|job| job.status.as_ref().and_then(|s| s.active) == Some(1))
    })
    .await
}

async fn pods_of(namespace: &TestNamespace, job: &Job) -> usize {
    let params = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", job.name_any()));
    namespace.api::<Pod>().list(&params).await.expect("pods can be listed").items.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cronjob_is_suspended_and_is_as_it_was_after_the_release() {
    let namespace = TestNamespace::new("suspend").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for name in ["report", "control"] {
        namespace.create(cron_job(name)).await;
    }
    namespace.create(suspend("stop", "CronJob", "report", json!({}))).await;
    effective(&namespace, "stop").await;
    assert_eq!(present(&namespace, &cron_job("report")).await.data["spec"]["suspend"], true);
    release(&namespace, "stop");
    reaches(&namespace, "stop", Phase::Released).await;
    let after = present(&namespace, &cron_job("report")).await;
    assert_eq!(marks(&after), Vec::<String>::new());
    assert_same(&after, &present(&namespace, &cron_job("control")).await);
}

/// What the controller does with the run that was missed is up to the real controller.
#[tokio::test(flavor = "multi_thread")]
async fn a_missed_run_starts_on_release_only_when_that_is_asked_for() {
    let namespace = TestNamespace::new("missed").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    for (name, how) in
        [("left-out", json!({})), ("skip", json!({"missed": "Skip"})), ("run", json!({"missed": "Run"}))]
    {
        namespace.create(cron_job(name)).await;
        namespace.create(suspend(name, "CronJob", name, how)).await;
        effective(&namespace, name).await;
        miss_a_run(&namespace, name);
    }
    // The one whose run starts is the last: by then the controller has come to the others.
    for name in ["left-out", "skip", "run"] {
        release(&namespace, name);
        reaches(&namespace, name, Phase::Released).await;
        let after = present(&namespace, &cron_job(name)).await;
        assert_eq!((after.data["spec"]["suspend"].as_bool(), marks(&after)), (Some(false), vec![]), "{name}");
    }
    started(&namespace, "run").await;
    holds_for(Duration::from_secs(2), "that nothing of the others starts", async || {
        for name in ["left-out", "skip"] {
            let found = jobs_of(&namespace, name).await;
            if !found.is_empty() {
                return Err(format!("{name} started {}", found[0].name_any()));
            }
        }
        Ok(())
    })
    .await;
    // They are not asleep: a run that is missed from now on starts.
    miss_a_run(&namespace, "skip");
    started(&namespace, "skip").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_jobs_go_on_or_are_suspended_or_deleted_as_asked() {
    let namespace = TestNamespace::new("running").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    let mut running = Vec::new();
    for name in ["keep", "suspend", "delete"] {
        namespace.create(cron_job(name)).await;
        miss_a_run(&namespace, name);
        running.push(started(&namespace, name).await);
    }
    let [keep, stopped, deleted] = &running[..] else { panic!("three") };
    // What somebody starts by hand is meant.
    namespace.kubectl(&["create", "job", "by-hand", "--from=cronjob/delete"]).success();
    namespace.kubectl(&["create", "job", "by-hand-too", "--from=cronjob/suspend"]).success();
    let object = job(&stopped.name_any());
    let before = present(&namespace, &object).await;
    for (name, how) in [("keep", "Keep"), ("suspend", "Suspend"), ("delete", "Delete")] {
        namespace.create(suspend(name, "CronJob", name, json!({"runningJobs": how}))).await;
    }
    let kept = effective(&namespace, "keep").await;
    assert!(message(&kept, "Effective").contains(&keep.name_any()), "{}", message(&kept, "Effective"));
    assert_eq!(pods_of(&namespace, keep).await, 1);
    effective(&namespace, "suspend").await;
    assert_eq!(pods_of(&namespace, stopped).await, 0, "effective means that the pods are gone");
    effective(&namespace, "delete").await;
    assert_eq!(pods_of(&namespace, deleted).await, 0, "effective means that the pods are gone");
    let left: Vec<String> = jobs_of(&namespace, "delete").await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, ["by-hand"], "{} is gone", deleted.name_any());
    let labels = [("operation", "delete"), ("result", "success")];
    operator.metric_is("incident_operator_mitigation_operations_total", &labels, 1.0).await;
    let by_hand = namespace.api::<Job>().get("by-hand-too").await.expect("it is left alone");
    assert_eq!(by_hand.spec.unwrap().suspend, Some(false));

    release(&namespace, "suspend");
    reaches(&namespace, "suspend", Phase::Released).await;
    wait_for(PATIENCE, "a new pod of the Job", async || {
        (pods_of(&namespace, stopped).await == 1).then_some(())
    })
    .await;
    assert_same(&present(&namespace, &object).await, &before);
    let after = present(&namespace, &cron_job("suspend")).await;
    assert_eq!((after.data["spec"]["suspend"].as_bool(), marks(&after)), (Some(false), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_suspended_and_is_as_it_was_after_the_release() {
    let namespace = TestNamespace::new("job").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    let object = job("import");
    namespace.create(object.clone()).await;
    let api: Api<Job> = namespace.api();
    let active = |job: &Job| job.status.as_ref().and_then(|s| s.active) == Some(1);
    let running = wait_status(&api, "import", "a pod", active).await;
    let before = present(&namespace, &object).await;
    namespace.create(suspend("stop", "Job", "import", json!({}))).await;
    effective(&namespace, "stop").await;
    assert_eq!(pods_of(&namespace, &running).await, 0);
    operator.restart().await;
    delete(&namespace, "stop").await;
    wait_status(&api, "import", "a pod", active).await;
    let after = present(&namespace, &object).await;
    assert_eq!(marks(&after), Vec::<String>::new());
    assert_same(&after, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_suspended_before_stays_so_and_what_a_person_resumes_stands() {
    let namespace = TestNamespace::new("resumed").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let mut asleep = cron_job("asleep");
    asleep["spec"]["suspend"] = true.into();
    namespace.create(asleep.clone()).await;
    namespace.create(cron_job("resumed")).await;
    let before = present(&namespace, &asleep).await;
    for name in ["asleep", "resumed"] {
        namespace.create(suspend(name, "CronJob", name, json!({}))).await;
        effective(&namespace, name).await;
    }
    says(&namespace, "asleep", "Applied", "AlreadySuspended").await;
    release(&namespace, "asleep");
    reaches(&namespace, "asleep", Phase::Released).await;
    let after = present(&namespace, &asleep).await;
    assert_eq!(
        (after.data["spec"]["suspend"].as_bool(), after.data["status"].clone()),
        (Some(true), json!({}))
    );
    assert_same(&after, &before);

    let patch = r#"{"spec":{"suspend":false}}"#;
    namespace.kubectl(&["patch", "cronjob", "resumed", "--type=merge", "-p", patch]).success();
    reaches(&namespace, "resumed", Phase::Superseded).await;
    let after = present(&namespace, &cron_job("resumed")).await;
    assert_eq!((after.data["spec"]["suspend"].as_bool(), marks(&after)), (Some(false), vec![]));
    assert_eq!(after.data["status"], json!({}), "its schedule is not touched either");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_while_it_suspends_jobs_finishes_and_undoes_all_of_it() {
    let namespace = TestNamespace::new("suspkill").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(cron_job("report")).await;
    miss_a_run(&namespace, "report");
    let running = started(&namespace, "report").await;
    let object = job(&running.name_any());
    let before = present(&namespace, &object).await;
    let history = History::of(&namespace.api::<CronJob>(), "report").await;
    namespace.create(suspend("stop", "CronJob", "report", json!({"runningJobs": "Suspend"}))).await;
    history
        .first("the CronJob suspended", |r| r.object.spec.as_ref().is_some_and(|s| s.suspend == Some(true)))
        .await;
    operator.restart().await;
    effective(&namespace, "stop").await;
    assert_eq!(present(&namespace, &object).await.data["spec"]["suspend"], true);
    namespace.api::<Mitigation>().delete("stop", &DeleteParams::default()).await.expect("it can be deleted");
    history
        .first("the CronJob resumed", |r| {
            r.object.spec.as_ref().is_some_and(|s| s.suspend == Some(false)) && !marks(&r.object).is_empty()
        })
        .await;
    operator.restart().await;
    wait_gone(&namespace.api::<Mitigation>(), "stop").await;
    assert_same(&present(&namespace, &object).await, &before);
    let after = present(&namespace, &cron_job("report")).await;
    assert_eq!((after.data["spec"]["suspend"].as_bool(), marks(&after)), (Some(false), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_what_another_mitigation_suspended_says_who_holds_it_and_not_that_it_stays_so() {
    let namespace = TestNamespace::new("suspheld").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create(cron_job("report")).await;
    miss_a_run(&namespace, "report");
    started(&namespace, "report").await;
    let how = json!({"runningJobs": "Suspend"});
    namespace.create(suspend("first", "CronJob", "report", how.clone())).await;
    effective(&namespace, "first").await;
    namespace.create(with(suspend("plan", "CronJob", "report", how), json!({"dryRun": true}))).await;
    let planned = says(&namespace, "plan", "Ready", "DryRun").await;
    let warnings = planned.status.and_then(|s| s.plan).expect("it is planned").warnings;
    let saying = |words: &str| warnings.iter().filter(|w| w.contains(words)).count();
    // The CronJob, and each Job by its name.
    assert_eq!(saying("/spec/suspend is held by mitigation first"), 1, "{warnings:?}");
    assert!(saying("/spec/suspend of Job/report-") >= 1, "{warnings:?}");
    assert_eq!(saying("suspended already"), 0, "{warnings:?}");
    delete(&namespace, "first").await;
}
