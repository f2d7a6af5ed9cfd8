//! A small world in which plans are carried out as the API server would, so that whole lives of mitigations,
//! with other people's edits and lost statuses in between, are tested without a server.

use super::*;
use crate::api::{API_VERSION, Condition, MitigationStatus, TimelineEntry};
use crate::decide::{
    access::Answers,
    conditions::find,
    policy::{InForce, limits::Limits},
};
use crate::mitigation::Found;
use serde_json::json;
use std::{collections::HashSet, sync::Arc};

struct World {
    mitigation: Mitigation,
    target: Option<Value>,
    incident: Incident,
    now: Timestamp,
    version: u64,
    /// What was written to the target.
    writes: Vec<Write>,
    gone: bool,
    read: bool,
    holders: HashSet<String>,
    evidence: Option<Evidence>,
    policies: InForce,
    /// Whether the API server signs requests.
    signed: bool,
    /// Rights that nobody holds, in words.
    lacking: Vec<&'static str>,
    /// Kinds that may not be looked at.
    hidden: HashSet<TargetKind>,
    approvals: Vec<Arc<TimelineEntry>>,
    reservation: Option<Reservation>,
    /// The limits that were asked for.
    reserved: Option<Limits>,
}

fn importer() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "importer", "namespace": "shop", "uid": "target-1", "resourceVersion": "1", "generation": 1,
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1",
                "fieldsV1": {"f:spec": {"f:replicas": {}, "f:selector": {}}}}]},
        "spec": {"replicas": 3}, "status": {"observedGeneration": 1, "replicas": 3, "readyReplicas": 3}})
}

fn stop_importer(extra: Value) -> Mitigation {
    let mut m = json!({"apiVersion": API_VERSION, "kind": "Mitigation",
        "metadata": {"name": "stop", "namespace": "shop", "uid": "aaaaaaaa-1", "generation": 1, "finalizers": [FINALIZER]},
        "spec": {"reason": "floods", "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0}}});
    json_patch::merge(&mut m["spec"], &extra);
    serde_json::from_value(m).unwrap()
}

impl World {
    fn new(spec: Value) -> World {
        World {
            mitigation: stop_importer(spec),
            target: Some(importer()),
            incident: Incident { recorded_end: true, ..Incident::default() },
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
            version: 1,
            writes: Vec::new(),
            gone: false,
            read: true,
            holders: HashSet::new(),
            evidence: Some(Evidence::Failed("no logs".into())),
            policies: InForce::Known(Vec::new()),
            signed: false,
            lacking: Vec::new(),
            hidden: HashSet::new(),
            approvals: Vec::new(),
            reservation: None,
            reserved: None,
        }
    }

    fn plan_with(&self, refused: Option<&Refused>, dry_run_passed: bool) -> Plan {
        let id = target_id(&self.mitigation);
        let object = self.target.clone().map(|t| Arc::new(serde_json::from_value(t).unwrap()));
        let mut objects = Objects::new();
        if let (true, Some(id)) = (self.read, id.clone()) {
            objects.insert(id, object);
        }
        let passed: HashSet<ObjectId> = id.into_iter().filter(|_| dry_run_passed).collect();
        self.plan_among(&objects, refused, &passed)
    }

    fn plan_among(&self, objects: &Objects, refused: Option<&Refused>, passed: &HashSet<ObjectId>) -> Plan {
        // Nothing else is there: no autoscaler, no webhook.
        let mut found = Found::new();
        let mut answers = Answers::new();
        loop {
            let observed = Observed {
                mitigation: &self.mitigation,
                objects,
                found: &found,
                hidden: &self.hidden,
                incident: self.incident.clone(),
                refused,
                dry_run_passed: passed,
                evidence: self.evidence.clone(),
                policies: &self.policies,
                signed: self.signed,
                answers: &answers,
                approvals: &self.approvals,
                reservation: self.reservation.as_ref(),
                holders: &self.holders,
            };
            let plan = decide(&observed, self.now);
            match plan.effect {
                Some(Effect::Look(look)) => {
                    found.insert(look, Vec::new());
                }
                Some(Effect::Ask(questions)) => answers.extend(questions.into_iter().map(|question| {
                    let lacks = self.lacking.contains(&question.need.to_string().as_str());
                    (question, !lacks)
                })),
                _ => return plan,
            }
        }
    }

    fn plan(&self) -> Plan {
        self.plan_with(None, false)
    }

    /// One effect, carried out; `keep_status` says whether the process lived to remember what it worked out.
    fn step(&mut self, keep_status: bool) -> bool {
        let plan = self.plan();
        if keep_status {
            self.mitigation.status = Some(plan.status.clone());
        }
        match plan.effect {
            None => return false,
            Some(Effect::Read(_)) => self.read = true,
            Some(Effect::Announce) => {}
            Some(Effect::Reserve(limits)) => {
                self.reserved = Some(limits);
                self.reservation.get_or_insert(Reservation::Granted);
            }
            Some(Effect::AddFinalizer) => {
                self.mitigation.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
            }
            Some(Effect::RemoveFinalizer) => {
                self.mitigation.metadata.finalizers = None;
                self.gone = true;
            }
            Some(Effect::Write { what, patch, .. }) => self.write(what, &patch),
            Some(other) => panic!("a single target needs no {other:?}"),
        }
        !self.gone
    }

    fn write(&mut self, what: Write, patch: &Value) {
        let target = self.target.as_mut().expect("only an existing target is written");
        json_patch::patch(target, &serde_json::from_value::<json_patch::Patch>(patch.clone()).unwrap())
            .unwrap_or_else(|e| panic!("{what:?} failed: {e}\n{patch:#}\n{target:#}"));
        self.writes.push(what);
        // Who changes a field takes it from its owner; who changes nothing owns nothing.
        let fields = target["metadata"]["managedFields"].as_array_mut().unwrap();
        match what {
            Write::Take | Write::Reassert | Write::Restore => {
                fields.retain(|f| f["manager"] != "incident-operator-scale");
                for entry in fields.iter_mut() {
                    entry["fieldsV1"]["f:spec"].as_object_mut().unwrap().remove("f:replicas");
                }
                fields.push(json!({"manager": "incident-operator-scale", "operation": "Update",
                    "fieldsV1": {"f:spec": {"f:replicas": {}}}}));
            }
            Write::Recapture => {
                if !fields.iter().any(|f| f["manager"] == "incident-operator-scale") {
                    fields.push(json!({"manager": "incident-operator-scale", "operation": "Update"}));
                }
            }
            Write::Step | Write::Status | Write::DryRun | Write::LetGo | Write::Disown => {}
        }
        self.bump();
    }

    fn bump(&mut self) {
        self.version += 1;
        if let Some(target) = self.target.as_mut() {
            target["metadata"]["resourceVersion"] = json!(self.version.to_string());
            for map in ["annotations", "labels"] {
                if target["metadata"][map] == json!({}) {
                    target["metadata"].as_object_mut().unwrap().remove(map);
                }
            }
        }
    }

    fn run(&mut self) -> &mut World {
        for _ in 0..20 {
            if !self.step(true) {
                return self;
            }
        }
        panic!("it never comes to rest: {:?}", self.writes);
    }

    /// The workload's controller does its work.
    fn workload_settles(&mut self) -> &mut World {
        let target = self.target.as_mut().unwrap();
        let n = target["spec"]["replicas"].clone();
        target["status"] = json!({"observedGeneration": 1, "replicas": n, "readyReplicas": n});
        self.bump();
        self
    }

    fn edit(&mut self, manager: &str, operation: &str, replicas: i64) -> &mut World {
        let target = self.target.as_mut().unwrap();
        target["spec"]["replicas"] = json!(replicas);
        let fields = target["metadata"]["managedFields"].as_array_mut().unwrap();
        fields.retain(|f| f["manager"] != manager);
        fields.push(json!({"manager": manager, "operation": operation, "time": "2026-11-23T10:00:30Z",
            "fieldsV1": {"f:spec": {"f:replicas": {}}}}));
        self.bump();
        self
    }

    fn delete(&mut self) -> &mut World {
        self.mitigation.metadata.deletion_timestamp = Some(whole_seconds(self.now));
        self
    }

    fn status(&self) -> &MitigationStatus {
        self.mitigation.status.as_ref().unwrap()
    }

    fn phase(&self) -> Phase {
        self.status().phase.unwrap()
    }

    fn condition(&self, type_: &str) -> &Condition {
        super::super::conditions::find(&self.status().conditions, type_).unwrap()
    }

    fn replicas(&self) -> i64 {
        self.target.as_ref().unwrap()["spec"]["replicas"].as_i64().unwrap()
    }

    /// The target without what the API server counts up.
    fn settled_target(&self) -> Value {
        let mut target = self.target.clone().unwrap();
        target["metadata"]["resourceVersion"] = json!("1");
        target.as_object_mut().unwrap().remove("status");
        target
    }
}

fn refused(why: Why, words: &str, releasing: bool) -> Refused {
    Refused { releasing, why, words: words.to_owned() }
}

fn untouched() -> Value {
    let mut target = importer();
    target.as_object_mut().unwrap().remove("status");
    target
}

#[test]
fn a_mitigation_is_taken_verified_held_and_released_and_leaves_no_trace() {
    let mut w = World::new(json!({}));
    w.run();
    assert_eq!((w.phase(), w.replicas()), (Phase::Active, 0));
    assert_eq!(w.condition("Effective").status, Unknown, "applied is never reported as effective");
    assert_eq!(w.condition("Ready").status, False);
    w.workload_settles().run();
    assert_eq!((w.condition("Effective").status, w.condition("Ready").status), (True, True));
    w.mitigation.spec.template.desired_state = Some(DesiredState::Released);
    w.run();
    assert_eq!(w.phase(), Phase::Released);
    assert_eq!(w.settled_target(), untouched());
    assert_eq!(w.writes, [Write::Take, Write::Restore, Write::LetGo]);
    assert_eq!(w.plan().effect, None, "and then it is at rest");
}

#[test]
fn one_write_takes_and_nothing_is_written_before_it() {
    let mut w = World::new(json!({}));
    assert!(matches!(w.plan().effect, Some(Effect::Write { what: Write::Take, .. })));
    w.run();
    assert_eq!(w.writes, [Write::Take]);
}

/// The status is lost in every pattern over the first steps; the end is the same and the prior value survives.
#[test]
fn losing_the_status_after_any_effect_changes_nothing_in_the_end() {
    for pattern in 0u32..256 {
        let mut w = World::new(json!({}));
        let mut bit = 0;
        let mut kept = |w: &mut World| {
            let keep = pattern >> (bit % 8) & 1 == 1;
            bit += 1;
            w.step(keep)
        };
        for _ in 0..4 {
            kept(&mut w);
        }
        assert_eq!(w.replicas(), 0, "{pattern:b}");
        w.workload_settles();
        kept(&mut w);
        w.delete();
        for _ in 0..8 {
            if !kept(&mut w) {
                break;
            }
        }
        w.run();
        assert_eq!(w.settled_target(), untouched(), "{pattern:b}");
        assert!(w.gone, "{pattern:b}");
        assert_eq!(w.writes.iter().filter(|x| **x == Write::Take).count(), 1, "captured once: {pattern:b}");
    }
}

/// Who waited for the field takes it as soon as it is let go, which may be before our end is recorded.
#[test]
fn what_was_put_back_is_released_also_when_another_mitigation_has_taken_the_field_since() {
    for (found, expected) in [(json!(3), Phase::Released), (json!(2), Phase::Superseded)] {
        let mut w = World::new(json!({}));
        w.run();
        w.workload_settles().run();
        let annotations = w.target.as_ref().unwrap()["metadata"]["annotations"].as_object().unwrap().clone();
        let record = annotations.iter().find(|(key, _)| key.contains("/mit-")).unwrap().1.as_str().unwrap();
        let mut record: Value = serde_json::from_str(record).unwrap();
        w.mitigation.spec.template.desired_state = Some(DesiredState::Released);
        while w.writes.last() != Some(&Write::LetGo) {
            assert!(w.step(false));
        }
        record["uid"] = json!("99999999-0000");
        record["fields"][0]["prior"] = found;
        record["fields"][0]["applied"] = json!(1);
        let target = w.target.as_mut().unwrap();
        target["spec"]["replicas"] = json!(1);
        target["metadata"]["annotations"]["incident-operator.dev/mit-99999999"] = record.to_string().into();
        w.run();
        assert_eq!(w.phase(), expected);
    }
}

#[test]
fn deleting_it_releases_it_and_the_object_goes_only_when_the_incident_has_the_end_on_record() {
    let mut w = World::new(json!({}));
    w.run();
    w.incident.recorded_end = false;
    w.delete().run();
    assert_eq!((w.phase(), w.replicas(), w.gone), (Phase::Released, 3, false));
    w.incident.recorded_end = true;
    w.run();
    assert!(w.gone);
}

/// The API server notes who wrote a field; of one that is gone it notes nobody.
#[test]
fn of_a_field_that_was_removed_nobody_is_named_who_may_not_have_done_it() {
    let mut w = World::new(json!({}));
    w.run();
    let target = w.target.as_mut().unwrap();
    target["spec"].as_object_mut().unwrap().remove("replicas");
    let fields = target["metadata"]["managedFields"].as_array_mut().unwrap();
    fields.retain(|f| f["manager"] != "incident-operator-scale");
    // Somebody else wrote something else meanwhile.
    fields.push(json!({"manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
        "time": "2026-11-23T10:00:30Z", "fieldsV1": {"f:status": {"f:replicas": {}}}}));
    w.bump();
    w.run();
    assert_eq!(w.phase(), Phase::Superseded);
    assert_eq!(w.status().undone_by.as_deref(), Some("somebody who removed it"));
    let told = w.condition("Ready").message.clone();
    assert_eq!(told, "somebody removed spec.replicas, and nothing notes who did; it stays removed");
}

#[test]
fn what_a_person_changes_stands_at_once_and_for_good() {
    let mut w = World::new(json!({}));
    w.run();
    w.edit("kubectl-edit", "Update", 2).run();
    assert_eq!((w.phase(), w.replicas()), (Phase::Superseded, 2));
    assert_eq!(w.status().undone_by.as_deref(), Some("kubectl-edit"));
    assert!(w.condition("Ready").message.contains("kubectl-edit"));
    let text = w.settled_target().to_string();
    assert!(!text.contains("incident-operator"), "no trace of ours: {text}");
    w.edit("kubectl-edit", "Update", 0).run();
    assert_eq!(w.phase(), Phase::Superseded);
}

#[test]
fn losing_the_status_while_a_persons_change_is_accepted_leaves_their_value() {
    for pattern in 0u32..16 {
        let mut w = World::new(json!({}));
        w.run();
        w.edit("kubectl-edit", "Update", 2);
        for bit in 0..4 {
            w.step(pattern >> bit & 1 == 1);
        }
        w.run();
        assert_eq!((w.phase(), w.replicas()), (Phase::Superseded, 2), "{pattern:b}");
    }
}

#[test]
fn a_machines_change_is_taken_back_three_times_and_then_contested_with_its_name() {
    let mut w = World::new(json!({}));
    w.run();
    for _ in 0..6 {
        w.edit("kustomize-controller", "Apply", 3);
        w.now += Duration::from_secs(60);
        w.run();
    }
    assert_eq!(w.writes.iter().filter(|x| **x == Write::Reassert).count(), 3);
    assert_eq!((w.phase(), w.replicas()), (Phase::Active, 3));
    let contested = w.condition("Contested");
    assert_eq!(contested.status, True);
    assert!(
        contested.message.contains("kustomize-controller") && contested.message.contains("/spec/replicas")
    );
    assert_eq!(w.condition("Effective").status, False);
    w.delete().run();
    assert_eq!(w.replicas(), 3, "a release leaves what is not ours");
    assert!(w.gone);
}

#[test]
fn a_machine_is_not_fought_faster_than_the_backoff() {
    let mut w = World::new(json!({}));
    w.run();
    w.edit("argocd-controller", "Apply", 3).run();
    assert_eq!(w.replicas(), 0);
    w.edit("argocd-controller", "Apply", 3).run();
    assert_eq!(w.replicas(), 3, "too soon");
    let wake = w.plan().wake.expect("it looks again later");
    w.now = wake;
    w.run();
    assert_eq!(w.replicas(), 0);
}

#[test]
fn it_waits_for_a_target_that_does_not_exist_and_takes_it_when_it_appears() {
    let mut w = World::new(json!({}));
    w.target = None;
    w.run();
    assert_eq!((w.phase(), w.condition("Applied").reason.as_str()), (Phase::Pending, "TargetNotFound"));
    assert!(w.plan().await_target);
    w.target = Some(importer());
    w.run();
    assert_eq!((w.phase(), w.replicas()), (Phase::Active, 0));
}

#[test]
fn a_target_made_anew_under_the_same_name_is_left_alone() {
    let mut w = World::new(json!({}));
    w.run();
    w.target.as_mut().unwrap()["metadata"]["uid"] = json!("target-2");
    w.target.as_mut().unwrap()["spec"]["replicas"] = json!(5);
    let before = w.target.clone();
    w.run();
    assert_eq!((w.phase(), w.target.clone()), (Phase::Abandoned, before));
    w.delete().run();
    assert!(w.gone);
}

#[test]
fn a_record_copied_to_another_object_counts_for_nothing() {
    let mut w = World::new(json!({}));
    w.run();
    // Somebody restores the workload from a file that was saved while it was mitigated.
    w.target.as_mut().unwrap()["metadata"]["uid"] = json!("target-2");
    w.mitigation.status = None;
    let object: DynamicObject = serde_json::from_value(w.target.clone().unwrap()).unwrap();
    assert_eq!(Record::find(&object, "aaaaaaaa-1"), None);
}

#[test]
fn the_second_mitigation_of_a_field_waits_and_names_the_first() {
    let mut first = World::new(json!({}));
    first.run();
    let mut second = World::new(json!({}));
    second.mitigation.metadata.uid = Some("bbbbbbbb-2".into());
    second.mitigation.metadata.name = Some("second".into());
    second.target = first.target.clone();
    second.holders.insert("aaaaaaaa-1".into());
    second.run();
    let applied = second.condition("Applied");
    assert_eq!((second.phase(), applied.reason.as_str()), (Phase::Pending, "FieldBusy"));
    assert!(applied.message.contains("mitigation stop"), "{}", applied.message);
    first.delete().run();
    second.target = first.target.clone();
    second.run();
    assert_eq!(second.phase(), Phase::Active);
    second.delete().run();
    assert_eq!(second.replicas(), 3, "the value that the second one captured is the first one's prior");
}

#[test]
fn a_removed_annotation_is_put_back_from_status_and_the_prior_value_is_not_lost() {
    let mut w = World::new(json!({}));
    w.run();
    w.target.as_mut().unwrap()["metadata"].as_object_mut().unwrap().remove("annotations");
    w.bump();
    w.run();
    let object: DynamicObject = serde_json::from_value(w.target.clone().unwrap()).unwrap();
    assert_eq!(Record::find(&object, "aaaaaaaa-1").unwrap().fields[0].prior, Some(json!(3)));

    w.target.as_mut().unwrap()["metadata"].as_object_mut().unwrap().remove("annotations");
    w.bump();
    w.delete().run();
    assert_eq!((w.replicas(), w.gone), (3, true));
}

#[test]
fn a_record_that_is_put_back_does_not_begin_a_new_life() {
    let mut w = World::new(json!({"expiresAfter": "10m"}));
    w.run();
    w.workload_settles().run();
    w.edit("argocd-controller", "Apply", 3).run();
    let before = w.status().clone();
    w.now += Duration::from_secs(60);
    w.target.as_mut().unwrap()["metadata"].as_object_mut().unwrap().remove("annotations");
    w.bump();
    w.run();
    let after = w.status();
    assert_eq!((&after.applied_time, &after.expiry_time), (&before.applied_time, &before.expiry_time));
    assert_eq!((after.attempts, before.attempts), (Some(2), Some(2)));
}

#[test]
fn a_crash_between_the_two_writes_of_a_release_loses_neither_the_value_nor_its_owner() {
    for ending in ["released", "deleted", "changed their mind"] {
        let mut w = World::new(json!({"releaseOn": "Resolve"}));
        w.run();
        match ending {
            "released" => w.mitigation.spec.template.desired_state = Some(DesiredState::Released),
            "deleted" => drop(w.delete()),
            _ => w.incident.releases = Some("IncidentResolved"),
        }
        w.step(false);
        assert_eq!((w.replicas(), w.writes.last()), (3, Some(&Write::Restore)), "{ending}");
        if ending == "changed their mind" {
            w.incident.releases = None;
        }
        w.run();
        assert_eq!(w.settled_target(), untouched(), "{ending}");
        assert_eq!(w.writes, [Write::Take, Write::Restore, Write::LetGo], "{ending}");
        assert_eq!(w.phase(), Phase::Released, "{ending}");
    }
}

#[test]
fn a_value_that_somebody_applied_meanwhile_is_left_also_when_the_release_was_killed_before_it_was_on_record()
{
    for kept in [true, false] {
        let mut w = World::new(json!({}));
        w.run();
        w.edit("my-engine", "Apply", 0);
        w.mitigation.spec.template.desired_state = Some(DesiredState::Released);
        w.step(kept);
        assert_eq!((w.replicas(), w.writes.last()), (0, Some(&Write::LetGo)), "{kept}");
        w.run();
        assert_eq!((w.replicas(), w.phase()), (0, Phase::Superseded), "{kept}");
        assert!(w.condition("Ready").message.contains("my-engine"), "{}", w.condition("Ready").message);
    }
}

#[test]
fn a_right_that_was_missing_is_not_missed_any_more_once_the_change_is_made() {
    let mut w = World::new(json!({}));
    let plan = w.plan_with(Some(&refused(Why::Forbidden, "cannot patch", true)), false);
    w.mitigation.status = Some(plan.status);
    assert_eq!(w.condition("Authorized").status, False);
    w.run();
    assert_eq!((w.phase(), w.condition("Authorized").status), (Phase::Active, Unknown));
}

#[test]
fn more_time_after_the_expiry_makes_it_expire_anew() {
    let mut w = World::new(json!({"expiresAfter": "10m"}));
    w.run();
    w.now += Duration::from_secs(600);
    w.run();
    assert!(w.status().expired_time.is_some());
    w.mitigation.spec.template.expires_after = Some("1h".into());
    w.run();
    assert_eq!(w.status().expired_time, None);
}

#[test]
fn more_time_counts_although_the_same_edit_asks_for_the_release_at_its_end() {
    let mut w = World::new(json!({"expiresAfter": "10m"}));
    w.run();
    w.now += Duration::from_secs(660);
    w.run();
    let more = json!({"expiresAfter": "1h", "onExpire": "Release"});
    w.mitigation.spec.template = stop_importer(more).spec.template;
    w.run();
    assert_eq!((w.phase(), w.replicas(), w.status().expired_time.clone()), (Phase::Active, 0, None));
    w.now += Duration::from_secs(3000);
    w.run();
    assert_eq!((w.phase(), w.replicas()), (Phase::Released, 3));
}

#[test]
fn a_time_that_somebody_wrote_into_the_record_ends_nothing() {
    let mut w = World::new(json!({"expiresAfter": "10m", "onExpire": "Release"}));
    w.mitigation.metadata.creation_timestamp = Some(whole_seconds(w.now));
    w.run();
    let (uid, target) = (w.mitigation.metadata.uid.clone().unwrap(), w.target.as_mut().unwrap());
    let annotation = &mut target["metadata"]["annotations"][crate::mitigation::record::key(&uid)];
    let mut record: Value = serde_json::from_str(annotation.as_str().unwrap()).unwrap();
    record["at"] = "2020-01-01T00:00:00Z".into();
    *annotation = record.to_string().into();
    w.bump();
    w.run();
    assert_eq!((w.phase(), w.replicas()), (Phase::Active, 0));
}

#[test]
fn less_time_than_has_passed_already_releases_at_once() {
    let mut w = World::new(json!({"expiresAfter": "10m", "onExpire": "Release"}));
    w.run();
    w.now += Duration::from_secs(300);
    w.mitigation.spec.template.expires_after = Some("1m".into());
    w.run();
    assert_eq!(w.status().phase, Some(Phase::Released));
    assert_eq!(w.target.as_ref().unwrap()["spec"]["replicas"], 3);
}

#[test]
fn a_removed_label_is_put_back() {
    let mut w = World::new(json!({}));
    w.run();
    w.target.as_mut().unwrap()["metadata"].as_object_mut().unwrap().remove("labels");
    w.bump();
    w.run();
    assert_eq!(w.target.as_ref().unwrap()["metadata"]["labels"][MITIGATED_LABEL], "true");
}

#[test]
fn an_effect_that_does_not_come_is_reported_at_the_deadline() {
    let mut w = World::new(json!({"verification": {"timeout": "30s"}}));
    w.run();
    assert_eq!(w.plan().wake, Some(w.now + Duration::from_secs(30)));
    w.now += Duration::from_secs(30);
    w.run();
    assert_eq!(w.condition("Effective").status, False);
    assert!(w.condition("Effective").message.contains("3 pods are there, 0 wanted"));
    w.workload_settles().run();
    assert_eq!(w.condition("Effective").status, True, "late is better than never");
}

#[test]
fn at_expiry_notify_tells_and_release_undoes() {
    for (on_expire, phase, replicas) in [("Notify", Phase::Active, 0), ("Release", Phase::Released, 3)] {
        let mut w = World::new(json!({"expiresAfter": "10m", "onExpire": on_expire}));
        w.run();
        w.workload_settles().run();
        assert_eq!(w.plan().wake, Some(w.now + Duration::from_secs(600)));
        assert_eq!(w.status().expired_time, None);
        w.now += Duration::from_secs(600);
        w.run();
        assert_eq!((w.phase(), w.replicas()), (phase, replicas), "{on_expire}");
        if on_expire == "Notify" {
            assert!(w.status().expired_time.is_some());
            // Once, however often it is looked at.
            w.run();
            let told = w.condition("Ready");
            assert_eq!(
                (told.status, told.message.matches("its time was over").count()),
                (True, 1),
                "{told:?}"
            );
        }
    }
}

#[test]
fn resolving_the_incident_releases_what_says_so_and_cancelling_releases_all() {
    for (reason, release_on, phase) in [
        ("IncidentResolved", "Resolve", Phase::Released),
        ("IncidentResolved", "Manual", Phase::Active),
        ("IncidentCancelled", "Manual", Phase::Released),
    ] {
        let mut w = World::new(json!({"releaseOn": release_on}));
        w.run();
        w.incident.releases = Some(reason);
        w.run();
        assert_eq!(w.phase(), phase, "{reason} {release_on}");
    }
}

#[test]
fn keep_ends_the_hold_and_leaves_the_value_whatever_is_lost_in_between() {
    for pattern in 0u32..16 {
        let mut w = World::new(json!({"onRelease": "Keep"}));
        w.run();
        w.mitigation.spec.template.desired_state = Some(DesiredState::Released);
        for bit in 0..4 {
            w.step(pattern >> bit & 1 == 1);
        }
        w.run();
        assert_eq!((w.phase(), w.replicas()), (Phase::Kept, 0), "{pattern:b}");
        assert!(!w.settled_target().to_string().contains("incident-operator"));
    }
}

#[test]
fn a_value_that_was_there_already_is_held_and_not_restored_to_anything_else() {
    let mut w = World::new(json!({}));
    w.target.as_mut().unwrap()["spec"]["replicas"] = json!(0);
    w.workload_settles().run();
    assert_eq!(w.condition("Applied").reason, "AlreadyZero");
    w.delete().run();
    assert_eq!((w.replicas(), w.gone), (0, true));
}

#[test]
fn a_dry_run_asks_the_api_server_and_says_what_would_change() {
    let mut w = World::new(json!({"dryRun": true}));
    let plan = w.plan();
    assert!(matches!(plan.effect, Some(Effect::Write { what: Write::DryRun, .. })));
    w.mitigation.status = Some(w.plan_with(None, true).status);
    let plan = w.status().plan.clone().unwrap();
    assert_eq!(plan.summary, "would scale Deployment/importer from 3 to 0");
    assert_eq!(plan.changes[0].written_by.as_deref(), Some("kubectl"));
    assert_eq!((w.condition("Ready").status, w.phase()), (True, Phase::Pending));
    assert_eq!(w.target, Some(importer()));
}

#[test]
fn what_the_api_server_denies_is_refused_with_its_words_and_a_missing_right_names_the_fix() {
    let w = World::new(json!({}));
    let denied = w.plan_with(Some(&refused(Why::Denied, "policy 'x' denied request: not now", false)), false);
    assert_eq!((denied.status.phase, denied.effect), (Some(Phase::Refused), None));
    assert!(denied.status.conditions.iter().any(|c| c.type_ == "Stalled" && c.message.contains("not now")));
    let forbidden = w.plan_with(Some(&refused(Why::Forbidden, "cannot patch", false)), false);
    assert_eq!(forbidden.status.phase, Some(Phase::Pending));
    assert!(forbidden.wake.is_some(), "a right may be granted meanwhile");
    let ready = forbidden.status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert!(ready.message.contains("incident-operator-mitigator-scale"), "{}", ready.message);
}

#[test]
fn what_cannot_be_done_is_refused_in_words_and_never_silently() {
    for (spec, reason) in [
        (json!({"targetRef": {"kind": "Node", "name": "n"}}), "KindNotAllowed"),
        (
            json!({"targetRef": {"apiVersion": "apps/v2", "kind": "Deployment", "name": "n"}}),
            "KindNotAllowed",
        ),
        (json!({"evidence": "Required"}), "EvidenceFailed"),
        (json!({"policyRef": {"name": "x"}}), "PolicyNotInForce"),
    ] {
        let mut w = World::new(spec.clone());
        w.run();
        assert_eq!((w.phase(), w.condition("Stalled").status), (Phase::Refused, True), "{spec}");
        assert_eq!(w.condition("Stalled").reason, reason, "{spec}");
        w.delete().run();
        assert!(w.gone, "{spec}");
    }
}

/// What the API server needs is not stopped because nobody could look whether it needs it.
#[test]
fn what_must_be_looked_at_first_and_may_not_be_is_waited_for_with_the_right_that_is_missing() {
    let mut world = World::new(json!({}));
    world.hidden.insert(mitigation::VALIDATING_WEBHOOKS);
    world.run();
    assert_eq!((world.phase(), world.replicas()), (Phase::Pending, 3));
    let told = world.condition("Applied");
    assert_eq!(told.reason, "MayNotLook");
    assert!(told.message.contains("validatingwebhookconfigurations"), "{}", told.message);
    assert!(told.message.contains("clusterReads.enabled"), "{}", told.message);
    world.hidden.clear();
    world.run();
    assert_eq!((world.phase(), world.replicas()), (Phase::Active, 0));
}

#[test]
fn the_finalizer_comes_before_the_take() {
    let mut w = World::new(json!({}));
    w.mitigation.metadata.finalizers = None;
    assert_eq!(w.plan().effect, Some(Effect::AddFinalizer));
    w.run();
    assert_eq!(w.writes, [Write::Take]);
}

#[test]
fn every_known_condition_is_there_from_the_first_visit() {
    let mut w = World::new(json!({}));
    w.target = None;
    w.run();
    let mut types: Vec<&str> = w.status().conditions.iter().map(|c| c.type_.as_str()).collect();
    types.sort_unstable();
    assert_eq!(
        types,
        [
            "Applied",
            "Approved",
            "Authorized",
            "Contested",
            "Effective",
            "EvidenceCaptured",
            "Ready",
            "Stalled"
        ]
    );
}

#[test]
fn deciding_twice_on_the_same_facts_is_the_same_and_writes_nothing_new() {
    let mut w = World::new(json!({}));
    w.run();
    w.workload_settles().run();
    let before = w.status().clone();
    w.now += Duration::from_secs(3600);
    let plan = w.plan();
    assert_eq!((plan.status, plan.effect), (before, None), "time alone changes nothing");
}

#[test]
fn a_record_that_nobody_answers_for_does_not_block_and_is_cleaned_away() {
    let mut old = World::new(json!({}));
    old.run();
    let mut new = World::new(json!({}));
    new.mitigation.metadata.uid = Some("bbbbbbbb-2".into());
    // The first one's object is gone; its annotation came back with a `kubectl rollout undo`.
    new.target = old.target.clone();
    new.target.as_mut().unwrap()["spec"]["replicas"] = json!(4);
    new.run();
    assert_eq!((new.phase(), new.replicas()), (Phase::Active, 0));
    new.delete().run();
    assert_eq!(new.replicas(), 4);
    assert!(!new.settled_target().to_string().contains("incident-operator"));
}

#[test]
fn what_another_version_changed_stays_as_it_is_and_can_be_released() {
    let mut w = World::new(json!({}));
    w.run();
    // This version refuses the template that an earlier one took.
    w.mitigation.spec.template.target_ref.api_version = Some("apps/v9".into());
    w.run();
    assert_eq!((w.phase(), w.condition("Stalled").status, w.replicas()), (Phase::Active, True, 0));
    w.delete().run();
    assert_eq!((w.replicas(), w.gone), (3, true));
}

#[test]
fn a_dry_run_is_asked_once_for_each_generation() {
    let mut w = World::new(json!({"dryRun": true}));
    w.mitigation.status = Some(w.plan_with(None, true).status);
    assert_eq!(w.plan().effect, None);
    w.mitigation.metadata.generation = Some(2);
    assert!(w.plan().effect.is_some());
}

/// A crash after any step, and the same parts in the same order: what is to be made and is not there yet is made, and
/// what was made is deleted in the opposite order.
#[test]
fn of_two_objects_that_are_made_both_are_there_before_the_change_counts_as_made() {
    let mut mitigation = stop_importer(json!({}));
    let asked = json!({"level": "Network", "readReplicaLabels": {"role": "replica", "zone": "b"}});
    mitigation.spec.template.action = crate::api::Action::BlockWrites(serde_json::from_value(asked).unwrap());
    let mut store = importer();
    store["spec"] = json!({"replicas": 2, "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}}});
    let target = target_id(&mitigation).unwrap();
    let mut objects = Objects::new();
    objects.insert(target, Some(Arc::new(serde_json::from_value(store).unwrap())));
    let (mut found, mut done) = (Found::new(), Vec::new());
    for _ in 0..40 {
        let plan = decide(
            &Observed {
                mitigation: &mitigation,
                objects: &objects,
                hidden: &HashSet::new(),
                found: &found,
                incident: Incident { recorded_end: true, ..Incident::default() },
                refused: None,
                dry_run_passed: &HashSet::new(),
                evidence: None,
                policies: &InForce::Known(Vec::new()),
                signed: false,
                answers: &Answers::new(),
                approvals: &[],
                reservation: None,
                holders: &HashSet::new(),
            },
            "2026-11-23T10:00:00Z".parse().unwrap(),
        );
        match plan.effect {
            Some(Effect::Announce) => mitigation.status = Some(plan.status),
            Some(Effect::Read(id)) => drop(objects.insert(id, None)),
            Some(Effect::Look(look)) => drop(found.insert(look, Vec::new())),
            Some(Effect::Create { object, manifest, .. }) => {
                done.push(format!("make {}", object.name));
                let mut manifest = manifest;
                manifest["metadata"]["uid"] = json!(object.name);
                objects.insert(object, Some(Arc::new(serde_json::from_value(manifest).unwrap())));
            }
            Some(Effect::Delete { object, .. }) => {
                done.push(format!("delete {}", object.name));
                objects.insert(object, None);
            }
            Some(other) => panic!("{other:?}"),
            None => {
                // At rest: in force first, and released then.
                mitigation.status = Some(plan.status);
                if mitigation.spec.template.desired_state == Some(DesiredState::Released) {
                    break;
                }
                assert_eq!(mitigation.status.as_ref().unwrap().phase, Some(Phase::Active));
                mitigation.spec.template.desired_state = Some(DesiredState::Released);
            }
        }
    }
    assert_eq!(
        done,
        ["make mit-aaaaaaaa", "make mit-aaaaaaaa-2", "delete mit-aaaaaaaa-2", "delete mit-aaaaaaaa"]
    );
    assert_eq!(mitigation.status.unwrap().phase, Some(Phase::Released));
}

/// Whatever somebody wrote into status: as long as the target carries the record it is held, and it is undone when
/// that is asked for.
#[test]
fn an_end_that_somebody_wrote_into_status_is_no_end_while_the_target_carries_the_record() {
    for end in
        [Phase::Released, Phase::Kept, Phase::Superseded, Phase::Abandoned, Phase::Refused, Phase::Failed]
    {
        let mut w = World::new(json!({}));
        w.run();
        w.workload_settles().run();
        let status = w.mitigation.status.as_mut().unwrap();
        status.phase = Some(end);
        status.undone_by = Some("nobody".into());
        status.left = Some("nonsense".into());
        w.run();
        assert_eq!((w.phase(), w.replicas()), (Phase::Active, 0), "{end:?}");
        w.mitigation.status.as_mut().unwrap().phase = Some(end);
        w.delete().run();
        assert!(w.gone, "{end:?}");
        assert_eq!((w.phase(), w.settled_target()), (Phase::Released, untouched()), "{end:?}");
    }
}

mod gate;

fn names(w: &mut World, requester: &str, actor: &str) {
    let names = [(REQUESTER_ANNOTATION, requester), (ACTOR_ANNOTATION, actor)];
    let annotations = w.mitigation.metadata.annotations.get_or_insert_default();
    annotations.extend(names.map(|(key, name)| (key.to_owned(), name.to_owned())));
}

#[test]
fn who_asked_for_the_change_when_it_was_made_stays_on_record_whoever_edits_it_afterwards() {
    for lost in [false, true] {
        let mut w = World::new(json!({}));
        names(&mut w, "alice", "alice");
        while w.writes.is_empty() {
            w.step(!lost);
        }
        // The edit comes before the status that tells of the change is written.
        names(&mut w, "alice", "bob");
        w.run();
        assert_eq!(w.status().asked_by.as_deref(), Some("alice"));
    }
    // Who edited it before the change answers for it as it was then.
    let mut w = World::new(json!({}));
    names(&mut w, "alice", "bob");
    w.run();
    names(&mut w, "alice", "carol");
    w.run();
    assert_eq!(w.status().asked_by.as_deref(), Some("bob"));
    // What somebody wrote into the record on the target names nobody who did not sign.
    let mut w = World::new(json!({}));
    names(&mut w, "alice", "alice");
    while w.writes.is_empty() {
        w.step(false);
    }
    let text = w.target.as_ref().unwrap().to_string().replace(r#"\"by\":\"alice\""#, r#"\"by\":\"mallory\""#);
    assert!(text.contains("mallory"));
    w.target = Some(serde_json::from_str(&text).unwrap());
    w.run();
    assert_eq!(w.status().asked_by.as_deref(), Some("alice"));
}

#[test]
fn a_deletion_says_what_it_came_of_as_far_as_that_is_known() {
    for (deletion, words) in [
        (Deletion::ByHand, "the mitigation was deleted, by somebody whom the API server does not name"),
        (Deletion::Withdrawn, "its entry was taken out of the incident"),
        (Deletion::WithIncident, "the incident was deleted"),
    ] {
        let mut w = World::new(json!({}));
        w.run();
        w.incident.deletion = deletion;
        w.incident.recorded_end = false;
        w.delete().run();
        assert_eq!(w.condition("Ready").message, format!("the prior value is back; {words}"));
    }
}

#[test]
fn a_dry_run_of_what_another_mitigation_holds_has_a_plan_that_says_so() {
    for (asked, summary) in [
        (json!({"dryRun": true, "scale": {"replicas": 1}}), "would scale Deployment/importer from 0 to 1"),
        (json!({"dryRun": true}), "would scale Deployment/importer from 0 to 0"),
    ] {
        let mut first = World::new(json!({}));
        first.run();
        let mut second = World::new(asked);
        second.mitigation.metadata.uid = Some("bbbbbbbb-2".into());
        second.mitigation.metadata.name = Some("second".into());
        second.target = first.target.clone();
        second.holders.insert("aaaaaaaa-1".into());
        second.mitigation.status = Some(second.plan_with(None, true).status);
        let plan = second.status().plan.clone().expect("a plan");
        assert_eq!(plan.summary, summary);
        assert!(plan.warnings.iter().any(|w| w.contains("held by mitigation stop")), "{:?}", plan.warnings);
        assert_eq!(second.condition("Ready").status, True);
        assert!(!second.condition("Applied").message.contains("this one acts when"));
    }
}

#[test]
fn a_step_that_failed_is_not_ready_and_stalls_until_somebody_did_it_after_all() {
    let step =
        |result: Value| json!({"scale": null, "manual": {"instructions": "fail over", "result": result}});
    let told = |w: &World| ["Effective", "Ready", "Stalled"].map(|type_| w.condition(type_).status);
    let say = |w: &mut World, result: Value| {
        let mut spec = serde_json::to_value(&w.mitigation.spec).unwrap();
        json_patch::merge(&mut spec, &json!({"manual": {"result": result}}));
        w.mitigation.spec = serde_json::from_value(spec).unwrap();
        w.run();
    };
    let mut w = World::new(step(Value::Null));
    w.run();
    assert_eq!(told(&w), [Unknown, False, False], "nobody said anything yet");
    say(&mut w, json!({"state": "Failed", "note": "no answer"}));
    assert_eq!(told(&w), [False, False, True]);
    assert_eq!(w.condition("Ready").reason, "Failed");
    assert!(w.condition("Stalled").message.contains("no answer"));
    let failed = w.condition("Stalled").last_transition_time.clone();
    w.now = w.now.checked_add(Duration::from_secs(60)).unwrap();
    w.run();
    assert_eq!(w.condition("Stalled").last_transition_time, failed, "nothing turned meanwhile");
    let mut ended = World { mitigation: w.mitigation.clone(), ..World::new(step(Value::Null)) };
    ended.mitigation.spec.template.desired_state = Some(DesiredState::Released);
    ended.run();
    assert_eq!(ended.status().phase, Some(Phase::Failed));
    assert_eq!(told(&ended), [False, False, True], "what ended as Failed was never in place");
    say(&mut w, json!({"state": "Done"}));
    assert_eq!(told(&w), [True, True, False]);
    say(&mut w, Value::Null);
    assert_eq!(told(&w), [Unknown, False, False]);
}

#[test]
fn a_note_of_fields_that_the_action_never_touches_is_taken_off() {
    let mut w = World::new(json!({}));
    w.run();
    let text =
        w.target.as_ref().unwrap()["metadata"]["annotations"]["incident-operator.dev/mit-aaaaaaaa"].clone();
    let mut note: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    let image = json!({"path": "/spec/template/spec/containers/0/image", "prior": "evil", "applied": "good"});
    note["fields"].as_array_mut().unwrap().push(image);
    let mut w = World::new(json!({}));
    w.target.as_mut().unwrap()["metadata"]["annotations"] =
        json!({"incident-operator.dev/mit-aaaaaaaa": note.to_string()});
    w.run();
    assert_eq!(w.writes, [Write::LetGo, Write::Take]);
    let prior = &w.mitigation.status.as_ref().unwrap().prior;
    assert_eq!((prior.len(), prior[0].path.as_str()), (1, "/spec/replicas"));
}

/// A mitigation of a ConfigMap, beside another one when that is given.
fn flagged(beside: Option<&World>, uid: &str, flag: Value) -> World {
    let spec =
        json!({"scale": null, "targetRef": {"kind": "ConfigMap", "name": "flags"}, "featureFlag": flag});
    let mut w = World::new(spec);
    w.mitigation.metadata.uid = Some(uid.into());
    w.target = Some(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "flags", "namespace": "shop", "uid": "target-1", "resourceVersion": "1", "managedFields": []},
        "data": {"a": "1", "app.yaml": "x: 1\ny: 1\n"}}));
    if let Some(first) = beside {
        w.target = first.target.clone();
        w.holders.insert(first.mitigation.metadata.uid.clone().unwrap());
        w.mitigation.metadata.name = Some("second".into());
    }
    w
}

#[test]
fn what_would_be_refused_anyway_is_refused_beside_another_mitigation_and_does_not_wait_for_it() {
    let holds = [
        json!({"key": "a", "value": "0"}),
        json!({"key": "app.yaml", "path": "x", "value": "0"}),
        json!({"key": "app.yaml", "value": "gone"}),
    ];
    for held in holds {
        let mut first = flagged(None, "aaaaaaaa-1", held.clone());
        first.run();
        assert_eq!(first.phase(), Phase::Active);
        let wrong = [
            (json!({"key": "nokey", "value": "0"}), "KeyNotFound"),
            (json!({"key": "app.yaml", "path": "zzz", "value": "0"}), "PathNotFound"),
        ];
        for (asked, reason) in wrong {
            for dry in [false, true] {
                let mut second = flagged(Some(&first), "bbbbbbbb-2", asked.clone());
                second.mitigation.spec.template.dry_run = Some(dry);
                second.run();
                let stalled = second.condition("Stalled");
                assert_eq!(
                    (second.phase(), stalled.reason.as_str()),
                    (Phase::Refused, reason),
                    "{held}: {asked}"
                );
            }
        }
    }
}

#[test]
fn what_only_the_other_mitigation_makes_impossible_waits_for_it_and_says_what_is_wrong_now() {
    let mut first = flagged(None, "aaaaaaaa-1", json!({"key": "app.yaml", "value": "gone"}));
    first.run();
    let asked = json!({"key": "app.yaml", "path": "y", "value": "0"});
    let mut second = flagged(Some(&first), "bbbbbbbb-2", asked.clone());
    second.run();
    let applied = second.condition("Applied").clone();
    assert_eq!((second.phase(), applied.reason.as_str()), (Phase::Pending, "FieldBusy"));
    for words in ["/data/app.yaml is held by mitigation stop", "as it is now, the document under key"] {
        assert!(applied.message.contains(words), "{}", applied.message);
    }
    let mut dry = flagged(Some(&first), "bbbbbbbb-2", asked);
    dry.mitigation.spec.template.dry_run = Some(true);
    dry.run();
    let plan = dry.status().plan.clone().expect("a plan");
    assert_eq!(plan.summary, "would wait until mitigation stop is released");
    first.delete().run();
    second.target = first.target.clone();
    second.run();
    assert_eq!(second.phase(), Phase::Active);
    assert_eq!(second.target.as_ref().unwrap()["data"]["app.yaml"], "x: 1\ny: 0\n");
}

#[test]
fn what_worked_once_and_works_no_more_is_not_told_as_what_never_worked() {
    for (settles, words) in [(false, "no effect within 120 s: "), (true, "no longer in effect: ")] {
        let mut w = World::new(json!({}));
        w.run();
        if settles {
            w.workload_settles().run();
            assert_eq!(w.condition("Effective").status, True);
            w.target.as_mut().unwrap()["status"]["replicas"] = json!(1);
            w.bump();
        }
        w.now += Duration::from_secs(600);
        w.run();
        let effective = w.condition("Effective");
        assert_eq!((effective.status, effective.reason.as_str()), (False, "NotEffective"));
        assert!(effective.message.starts_with(words), "{}", effective.message);
    }
    // All was in place, and nothing reported more; it is told so with the next look, too.
    let mut w = World::new(json!({}));
    w.run();
    let conditions = &mut w.mitigation.status.as_mut().unwrap().conditions;
    conditions.iter_mut().find(|c| c.type_ == "Effective").unwrap().reason = "NotReported".to_owned();
    for _ in 0..2 {
        w.now += Duration::from_secs(600);
        w.run();
        assert!(w.condition("Effective").message.starts_with("no longer in effect: "));
    }
}

#[test]
fn an_edit_of_something_else_says_nothing_about_the_effect_until_the_controller_has_looked() {
    let mut w = World::new(json!({}));
    w.run();
    w.workload_settles().run();
    w.now += Duration::from_secs(600);
    let edited = whole_seconds(w.now);
    let target = w.target.as_mut().unwrap();
    target["metadata"]["generation"] = json!(2);
    target["spec"]["progressDeadlineSeconds"] = json!(601);
    let fields = target["metadata"]["managedFields"].as_array_mut().unwrap();
    fields.push(json!({"manager": "edit", "operation": "Update", "time": edited,
        "fieldsV1": {"f:spec": {"f:progressDeadlineSeconds": {}}}}));
    w.bump();
    w.run();
    assert_eq!((w.condition("Effective").status, w.condition("Ready").status), (True, True));
    assert_eq!(w.plan().wake, Some(w.now + DEFAULT_VERIFICATION), "it has as long as at first");
    let mut looked = w.target.clone().unwrap();
    w.now += DEFAULT_VERIFICATION;
    w.run();
    let effective = w.condition("Effective");
    assert_eq!(effective.status, False);
    assert!(effective.message.contains("has not seen the last change"), "{}", effective.message);
    looked["status"]["observedGeneration"] = json!(2);
    looked["metadata"]["resourceVersion"] = json!("99");
    w.target = Some(looked);
    w.run();
    assert_eq!(w.condition("Effective").status, True);
}

// ---- a restarted workload with another template ----------------------------------------------------------------

/// What is planned for a flag that is off while its reader, which was restarted, got another template.
fn plan_beside(reader: Value) -> Plan {
    let mut m = stop_importer(json!({"targetRef": {"kind": "ConfigMap", "name": "flags"}, "scale": null,
        "featureFlag": {"key": "beta", "value": "off", "restartConsumers": true}}));
    let note = "/spec/template/metadata/annotations/restarted-for.incident-operator.dev~1aaaaaaaa";
    m.status = serde_json::from_value(
        json!({"phase": "Active", "targetUid": "flags-1", "appliedTime": "2026-11-23T09:00:00Z",
        "objects": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "flags", "uid": "flags-1"},
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web-1"}],
        "prior": [{"path": "/data/beta", "value": "\"on\"", "applied": "\"off\""},
            {"object": "Deployment/web", "path": note, "applied": "\"true\""}]}),
    )
    .unwrap();
    let record = |target: &str, field: Value| {
        json!({"v": 1, "uid": "aaaaaaaa-1", "mitigation": "stop", "action": "featureFlag", "target": target,
            "fields": [field], "at": "2026-11-23T09:00:00Z"})
        .to_string()
    };
    let key = crate::mitigation::record::key("aaaaaaaa-1");
    let flags = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"beta": "off"},
        "metadata": {"name": "flags", "namespace": "shop", "uid": "flags-1", "resourceVersion": "1",
            "labels": {MITIGATED_LABEL: "true"},
            "annotations": {&key: record("flags-1", json!({"path": "/data/beta", "prior": "on", "applied": "off"}))}}});
    let mut web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1, "template": {"metadata": {}}},
        "metadata": {"name": "web", "namespace": "shop", "uid": "web-1", "resourceVersion": "1",
            "labels": {MITIGATED_LABEL: "true"},
            "annotations": {&key: record("web-1", json!({"path": note, "applied": "true"}))}}});
    json_patch::merge(&mut web, &reader);
    let object = |value: Value| Some(Arc::new(serde_json::from_value(value).unwrap()));
    let ids = [ObjectId::new(TargetKind::named("", "ConfigMap").unwrap(), "flags"), reader_id()];
    let world =
        World { mitigation: m, holders: HashSet::from(["aaaaaaaa-1".to_owned()]), ..World::new(json!({})) };
    let objects = Objects::from_iter(ids.into_iter().zip([object(flags), object(web)]));
    world.plan_among(&objects, None, &HashSet::new())
}

fn reader_id() -> ObjectId {
    ObjectId::new(TargetKind::named("apps", "Deployment").unwrap(), "web")
}

fn lists_the_reader(plan: &Plan) -> bool {
    plan.status.objects.iter().any(|object| object.name == "web")
}

#[test]
fn a_reader_that_is_let_go_stays_on_the_list_until_it_bears_no_marks() {
    let written = |plan: &Plan| match &plan.effect {
        Some(Effect::Write { object, what: Write::LetGo, .. }) => Some(object.clone()),
        _ => None,
    };
    // The write may be refused, so the plan of it forgets nothing.
    let plan = plan_beside(json!({}));
    assert_eq!((written(&plan), lists_the_reader(&plan)), (Some(reader_id()), true));
    // Whoever put another revision in its place took the record with it, and the label stayed.
    let plan = plan_beside(json!({"metadata": {"annotations": null}}));
    assert_eq!((written(&plan), lists_the_reader(&plan)), (Some(reader_id()), true));
    let plan = plan_beside(json!({"metadata": {"annotations": null, "labels": null}}));
    assert_eq!((written(&plan), lists_the_reader(&plan)), (None, false));
}
