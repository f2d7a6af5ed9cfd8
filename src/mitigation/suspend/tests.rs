use super::*;
use crate::mitigation::{field::How, record::HeldField, scene_tests::Stage};

fn cron_job(more: Value) -> Value {
    let mut base = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "report", "uid": "c", "resourceVersion": "7"}, "spec": {"suspend": false}, "status": {}});
    json_patch::merge(&mut base, &more);
    base
}

fn job(name: &str, more: Value) -> Value {
    let mut base = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "uid": name,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": "c", "controller": true}]},
        "spec": {"suspend": false}, "status": {"active": 1}});
    json_patch::merge(&mut base, &more);
    base
}

fn ended(type_: &str) -> Value {
    json!({"status": {"active": 0, "conditions": [{"type": type_, "status": "True"}]}})
}

fn asked(missed: Option<MissedRuns>, running_jobs: Option<RunningJobs>) -> Suspend {
    Suspend { missed, running_jobs }
}

fn stage() -> Stage {
    Stage::new(cron_job(json!({})))
        .with(job("one", json!({})))
        .with(job("two", json!({})))
        .with(job("done", ended("Complete")))
        .with(job("failed", ended("Failed")))
        .with(job(
            "mine",
            json!({"metadata": {"annotations": {"cronjob.kubernetes.io/instantiate": "manual"}}}),
        ))
        .with(job("other", json!({"metadata": {"ownerReferences": null}})))
}

fn planned(suspend: &Suspend, stage: &Stage) -> Vec<String> {
    stage.ask(|scene| suspend.parts(scene)).unwrap().iter().map(|part| part.id.to_string()).collect()
}

#[test]
fn jobs_that_run_are_suspended_only_when_asked_and_those_that_ended_or_were_started_by_hand_never() {
    assert_eq!(planned(&asked(None, None), &stage()), ["CronJob/report"]);
    assert_eq!(planned(&asked(None, Some(RunningJobs::Delete)), &stage()), ["CronJob/report"]);
    assert_eq!(
        planned(&asked(None, Some(RunningJobs::Suspend)), &stage()),
        ["CronJob/report", "Job/one", "Job/two"]
    );
}

#[test]
fn a_job_is_suspended_unless_it_has_ended_or_another_controller_steers_it() {
    let refused = |more: Value, suspend: &Suspend| {
        let stage = Stage::new(job("one", more));
        stage.ask(|scene| suspend.parts(scene)).err().map(|refusal| refusal.reason)
    };
    assert_eq!(refused(json!({}), &asked(None, None)), None, "its CronJob does not mind");
    assert_eq!(refused(ended("Complete"), &asked(None, None)), Some("JobEnded"));
    assert_eq!(refused(json!({}), &asked(Some(MissedRuns::Run), None)), Some("OnlyForCronJobs"));
    let owner = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "set", "uid": "s", "controller": true}]}});
    assert_eq!(refused(owner, &asked(None, None)), Some("TargetControlled"));
}

#[test]
fn running_jobs_are_told_deleted_one_by_one_or_awaited() {
    let effect = |suspend: &Suspend, stage: &Stage| stage.ask(|scene| suspend.effect(scene)).unwrap();
    let Effect::Seen(words) = effect(&asked(None, None), &stage()) else { panic!("they are left alone") };
    assert!(words.contains("one, two") && !words.contains("mine"), "{words}");
    let delete = asked(None, Some(RunningJobs::Delete));
    let first = Effect::Delete { id: ObjectId::new(JOB, "one"), uid: "one".to_owned() };
    assert_eq!(effect(&delete, &stage()), first);
    assert!(matches!(effect(&delete, &Stage::new(cron_job(json!({})))), Effect::Seen(_)));

    let going = json!({"metadata": {"deletionTimestamp": "2026-11-23T10:00:00Z"}});
    let stage_of_going = Stage::new(cron_job(json!({}))).with(job("one", going));
    let Effect::Awaited { seen, .. } = effect(&delete, &stage_of_going) else { panic!("its pods are there") };
    assert!(seen.contains("one"), "{seen}");

    let suspend = asked(None, Some(RunningJobs::Suspend));
    let Effect::Unclear { reason, message } = effect(&suspend, &stage()) else { panic!("they run") };
    assert!(reason == "JobStarted" && message.contains("one, two"), "{message}");
    let held = |status: Value| {
        let one = job("one", json!({"spec": {"suspend": true}, "status": status}));
        effect(&suspend, &Stage::new(cron_job(json!({}))).with(one))
    };
    let suspended = json!([{"type": "Suspended", "status": "True"}]);
    assert!(matches!(held(json!({"active": 1})), Effect::Awaited { .. }));
    assert!(matches!(
        held(json!({"active": 0, "terminating": 1, "conditions": suspended})),
        Effect::Awaited { .. }
    ));
    assert!(matches!(held(json!({"active": 0, "terminating": 0, "conditions": suspended})), Effect::Seen(_)));
}

fn undo(suspend: &Suspend, last: Value) -> Undo {
    let stage =
        Stage::new(cron_job(json!({"spec": {"suspend": true}, "status": {"lastScheduleTime": last}})));
    let held = HeldField {
        path: SUSPEND.to_owned(),
        how: How::Plain,
        prior: Some(json!(false)),
        applied: Some(json!(true)),
        owners: Vec::new(),
    };
    let record = Record {
        v: 1,
        uid: "0123456789".into(),
        mitigation: "m".into(),
        incident: None,
        action: "suspend".into(),
        target: "c".into(),
        fields: vec![held],
        at: stage.now,
        by: None,
        reasserts: 0,
        reasserted: None,
        stepped: None,
        restored: false,
        made: false,
    };
    stage.ask(|scene| suspend.undo(scene, scene.id, scene.target, &record)).unwrap()
}

#[test]
fn before_a_release_that_skips_missed_runs_the_schedule_is_told_that_nothing_was_missed() {
    let back = Undo::Restore(vec![Some(json!(false))]);
    let run = asked(Some(MissedRuns::Run), None);
    assert_eq!(undo(&run, json!("2026-11-23T08:00:00Z")), back);
    let skip = asked(None, None);
    assert_eq!(undo(&skip, json!("2026-11-23T09:59:58Z")), back, "it was told so just now");
    let test_uid = json!({"op": "test", "path": "/metadata/uid", "value": "c"});
    let set = json!({"op": "add", "path": LAST, "value": "2026-11-23T10:00:00Z"});
    let test_last = json!({"op": "test", "path": LAST, "value": "2026-11-23T08:00:00Z"});
    assert_eq!(undo(&skip, json!("2026-11-23T08:00:00Z")), Undo::Status(json!([test_uid, test_last, set])));
    // A run that never was: the whole object must be unchanged instead.
    let test_version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"});
    assert_eq!(undo(&skip, Value::Null), Undo::Status(json!([test_uid, test_version, set])));
}

/// What another mitigation suspended, that one resumes.
#[test]
fn it_is_said_to_stay_suspended_only_when_no_mitigation_did_it() {
    let note = |prior: bool| {
        json!({"v": 1, "uid": "another-1", "mitigation": "first", "action": "suspend", "target": "c",
            "at": "2026-11-23T10:00:00Z", "fields": [{"path": "/spec/suspend", "prior": prior, "applied": true}]})
    };
    for (prior, holds, stays) in [(false, true, false), (true, true, true), (false, false, true)] {
        let annotations = json!({"incident-operator.dev/mit-another-": note(prior).to_string()});
        let mut stage = Stage::new(cron_job(
            json!({"spec": {"suspend": true}, "metadata": {"annotations": annotations}}),
        ));
        stage.holders.extend(holds.then(|| "another-1".to_owned()));
        let warnings = stage.ask(|scene| asked(None, None).warnings(scene)).unwrap();
        let told = warnings.iter().any(|w| w.contains("suspended already"));
        assert_eq!(told, stays, "before: {prior}, held: {holds}: {warnings:?}");
    }
}
