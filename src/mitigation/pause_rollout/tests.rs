use super::*;
use crate::mitigation::{Refusal, scene_tests::Stage};
use serde_json::Value;

fn stage(kind: &str, more: Value) -> Stage {
    let mut base = json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": "web", "uid": "u", "generation": 2}, "spec": {},
        "status": {"observedGeneration": 2, "updatedReplicas": 1, "replicas": 3,
            "updatedNumberScheduled": 1, "desiredNumberScheduled": 3}});
    json_patch::merge(&mut base, &more);
    Stage::new(base)
}

/// The field that changes: its path, and its value before and after.
fn planned(stage: &Stage) -> Result<(String, Option<Value>, Option<Value>), Refusal> {
    let parts = stage.ask(|scene| PauseRollout::default().parts(scene))?;
    let [change] = parts[0].changes() else { panic!("one field changes") };
    Ok((change.path.clone(), change.from.clone(), change.to.clone()))
}

#[test]
fn each_kind_is_stopped_by_its_own_field() {
    let rolling =
        |of: Value| json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": of}}});
    let absent = planned(&stage("Deployment", json!({}))).unwrap();
    assert_eq!(absent, (PAUSED.to_owned(), None, Some(json!(true))));
    let set = planned(&stage("StatefulSet", rolling(json!({"partition": 1})))).unwrap();
    assert_eq!(set, (PARTITION.to_owned(), Some(json!(1)), Some(json!(2_147_483_647))));
    let daemons = planned(&stage("DaemonSet", rolling(json!({"maxUnavailable": 1})))).unwrap();
    assert_eq!(daemons, (STRATEGY.to_owned(), Some(json!("RollingUpdate")), Some(json!("OnDelete"))));
    let still =
        planned(&stage("StatefulSet", json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}))).unwrap();
    assert_eq!(
        still,
        (STRATEGY.to_owned(), Some(json!("OnDelete")), Some(json!("OnDelete"))),
        "it stands already"
    );
}

#[test]
fn it_is_effective_once_the_controller_has_seen_it() {
    for (more, seen) in [(json!({}), true), (json!({"metadata": {"generation": 3}}), false)] {
        for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
            let effect =
                stage(kind, more.clone()).ask(|scene| PauseRollout::default().effect(scene)).unwrap();
            match effect {
                Effect::Seen(words) => assert!(seen && words.contains("1 of 3"), "{words}"),
                other => assert!(!seen, "{other:?}"),
            }
        }
    }
}

#[test]
fn a_rollout_that_another_controller_steers_is_refused() {
    let owner = json!([{"apiVersion": "flagger.app/v1", "kind": "Canary", "name": "web", "uid": "c", "controller": true}]);
    let owned = stage("Deployment", json!({"metadata": {"ownerReferences": owner}}));
    assert_eq!(planned(&owned).unwrap_err().reason, "TargetControlled");
}
