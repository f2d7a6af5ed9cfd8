//! What must be so before a change and before a release.

use super::*;
use crate::api::{
    ACTOR_ANNOTATION, ACTOR_GROUPS_ANNOTATION, ConditionStatus, MitigationPolicy, REQUESTER_ANNOTATION,
    Severity,
};

fn policy(spec: Value) -> Arc<MitigationPolicy> {
    let object = json!({"apiVersion": API_VERSION, "kind": "MitigationPolicy", "metadata": {"name": "p"}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn under(spec: Value, policies: &[Value]) -> World {
    let mut world = signed(World::new(spec), "alice");
    world.policies = InForce::Known(policies.iter().cloned().map(policy).collect());
    world
}

fn signed(mut world: World, who: &str) -> World {
    world.signed = true;
    let names = [
        (REQUESTER_ANNOTATION, who.to_owned()),
        (ACTOR_ANNOTATION, who.to_owned()),
        (ACTOR_GROUPS_ANNOTATION, r#"["ops","system:authenticated"]"#.to_owned()),
    ];
    world.mitigation.metadata.annotations =
        Some(names.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    world
}

impl World {
    fn settle(&mut self) -> (Phase, String, String) {
        for _ in 0..20 {
            if !self.step(true) {
                break;
            }
        }
        let status = self.mitigation.status.clone().unwrap();
        let ready = find(&status.conditions, "Ready").unwrap();
        (status.phase.unwrap(), ready.reason.clone(), ready.message.clone())
    }

    fn entry(&mut self, type_: &str, by: &str, digest: &str, at: &str) {
        let entry = json!({"apiVersion": API_VERSION, "kind": "TimelineEntry",
            "metadata": {"name": "e", "namespace": "shop", "uid": format!("entry-{}", self.approvals.len()),
                "creationTimestamp": at, "annotations": {REQUESTER_ANNOTATION: by}},
            "spec": {"incidentRef": {"name": "i"}, "type": type_, "mitigationRef": {"name": "stop"}, "digest": digest,
                "message": "because"}});
        self.approvals.push(Arc::new(serde_json::from_value(entry).unwrap()));
    }

    fn digest(&self) -> String {
        self.mitigation.status.as_ref().unwrap().approval_digest.clone().unwrap()
    }
}

#[test]
fn what_a_policy_does_not_allow_is_refused_and_nothing_is_written() {
    let table = [
        (json!({"paused": true}), json!({}), "Paused"),
        (json!({"actions": ["rollback"]}), json!({}), "ActionNotAllowed"),
        (json!({"protected": [{"kind": "Deployment", "name": "importer"}]}), json!({}), "TargetProtected"),
        (json!({"targetSelector": {"matchLabels": {"tier": "batch"}}}), json!({}), "TargetNotAllowed"),
        (json!({"maxDuration": "1h"}), json!({"expiresAfter": "2h", "onExpire": "Release"}), "TooLong"),
        (json!({"evidence": "Required"}), json!({"evidence": "BestEffort"}), "EvidenceTooLittle"),
    ];
    for (policy, spec, reason) in table {
        let mut world = under(spec, &[json!({}), policy]);
        let (phase, said, message) = world.settle();
        assert_eq!((phase, said.as_str()), (Phase::Refused, reason), "{message}");
        assert!(world.writes.is_empty() && message.starts_with("MitigationPolicy p "), "{message}");
    }
}

#[test]
fn a_target_that_is_not_there_does_not_hide_that_a_policy_refuses() {
    let mut world = under(json!({}), &[json!({"paused": true})]);
    world.target = None;
    assert_eq!(world.settle().1, "Paused");
}

#[test]
fn by_whose_right_it_was_changed_is_told_also_when_the_status_was_lost() {
    let mut world = under(json!({}), &[]);
    let fresh = world.mitigation.status.clone();
    assert_eq!(world.settle().0, Phase::Active);
    let authorized = |world: &World| {
        let conditions = &world.mitigation.status.as_ref().unwrap().conditions;
        find(conditions, "Authorized").map(|c| (c.status, c.reason.clone(), c.message.clone())).unwrap()
    };
    let told = authorized(&world);
    assert_eq!((told.0, told.1.as_str()), (ConditionStatus::True, "Allowed"), "{told:?}");
    world.mitigation.status = fresh;
    assert_eq!(world.settle().0, Phase::Active);
    assert_eq!(authorized(&world), told);
}

#[test]
fn what_met_a_pause_does_not_start_when_the_pause_is_lifted() {
    let mut world = under(json!({}), &[json!({"paused": true})]);
    world.settle();
    world.policies = InForce::Known(vec![policy(json!({}))]);
    assert_eq!(world.settle().0, Phase::Refused);
    assert!(world.writes.is_empty());
}

#[test]
fn a_pause_stops_no_release_and_lets_go_of_nothing_that_is_held() {
    let mut world = under(json!({}), &[]);
    assert_eq!(world.settle().0, Phase::Active);
    world.policies = InForce::Known(vec![policy(json!({"paused": true}))]);
    assert_eq!(world.settle().0, Phase::Active);
    world.mitigation.spec.template.desired_state = Some(DesiredState::Released);
    assert_eq!(world.settle().0, Phase::Released);
}

#[test]
fn while_policies_are_not_known_nothing_is_done() {
    let mut world = under(json!({}), &[]);
    world.policies = InForce::Unknown("not yet".into());
    let (phase, reason, _) = world.settle();
    assert_eq!((phase, reason.as_str()), (Phase::Pending, "PolicyUnknown"));
}

#[test]
fn who_lost_the_right_meanwhile_is_refused_in_words() {
    let mut world = under(json!({}), &[]);
    world.lacking = vec!["patch deployments.apps/scale \"importer\""];
    let (phase, reason, message) = world.settle();
    assert_eq!((phase, reason.as_str()), (Phase::Refused, "RequesterForbidden"));
    let parts =
        ["alice may not make this now", "patch deployments.apps/scale \"importer\"", "namespace shop"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(world.writes.is_empty());
}

#[test]
fn whoever_nobody_signed_for_is_nobody() {
    let mut world = under(json!({}), &[]);
    world.mitigation.metadata.annotations = None;
    assert_eq!(world.settle().1, "NotSigned");
}

#[test]
fn a_release_that_was_asked_for_needs_the_right_and_a_deletion_was_judged_before() {
    let mut world = under(json!({}), &[]);
    world.settle();
    world.lacking = vec!["patch deployments.apps/scale \"importer\""];
    world.mitigation.spec.template.desired_state = Some(DesiredState::Released);
    let (phase, reason, message) = world.settle();
    assert_eq!((phase, reason.as_str()), (Phase::Active, "RequesterForbidden"), "{message}");
    world.mitigation.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-11-23T10:00:00Z")).unwrap();
    world.settle();
    assert!(world.gone && world.writes.contains(&Write::Restore));
}

#[test]
fn what_ends_by_itself_asks_for_nobodys_right() {
    let mut world = under(json!({"expiresAfter": "1h", "onExpire": "Release"}), &[]);
    world.settle();
    world.lacking = vec!["patch deployments.apps/scale \"importer\""];
    world.now += Duration::from_secs(3601);
    assert_eq!(world.settle().0, Phase::Released);
}

#[test]
fn an_account_that_is_named_stands_in_and_needs_the_right_and_somebody_who_may_impersonate_it() {
    let mut world = under(json!({"serviceAccountName": "bot"}), &[]);
    assert_eq!(world.settle().0, Phase::Active);
    let mut world = under(json!({"serviceAccountName": "bot"}), &[]);
    world.lacking = vec!["patch deployments.apps/scale \"importer\""];
    assert_eq!(world.settle().1, "RequesterForbidden");
}

#[test]
fn the_time_that_policies_allow_holds_whatever_the_spec_says_later() {
    let spec = json!({"expiresAfter": "1h", "onExpire": "Release"});
    let mut world = under(spec, &[json!({"maxDuration": "1h"})]);
    assert_eq!(world.settle().0, Phase::Active);
    let template = &mut world.mitigation.spec.template;
    (template.expires_after, template.on_expire) = (Some("9h".into()), None);
    world.policies = InForce::Known(Vec::new());
    assert_eq!(world.settle().0, Phase::Active);
    world.now += Duration::from_secs(3601);
    assert_eq!(world.settle().0, Phase::Released);
}

#[test]
fn an_approval_of_somebody_else_lets_it_be_made_once_and_is_on_record_before() {
    let mut world = under(json!({}), &[json!({"approval": [{"severities": ["SEV1"]}]})]);
    world.incident.severity = Some(Severity::SEV1);
    let (phase, _, message) = world.settle();
    assert_eq!(phase, Phase::AwaitingApproval);
    let digest = world.digest();
    assert!(message.contains(&digest) && message.contains("mitigationRef.name stop"), "{message}");
    world.entry("Approval", "alice", &digest, "2026-11-23T10:00:00Z");
    assert_eq!(world.settle().0, Phase::AwaitingApproval, "not by who asked");
    world.entry("Approval", "bob", "sha256:other", "2026-11-23T10:00:00Z");
    assert_eq!(world.settle().0, Phase::AwaitingApproval, "not of something else");
    world.entry("Approval", "bob", &digest, "2026-11-23T09:00:00Z");
    assert_eq!(world.settle().0, Phase::AwaitingApproval, "not for ever");
    world.entry("Approval", "bob", &digest, "2026-11-23T10:00:00Z");
    assert_eq!(world.settle().0, Phase::Active);
    let status = world.mitigation.status.unwrap();
    assert_eq!(status.approval.unwrap().by, "bob");
    assert_eq!(status.judged_entries.len(), 4);
}

#[test]
fn an_approval_is_void_once_the_spec_or_the_target_is_another() {
    let mut world = under(json!({}), &[json!({"approval": [{}]})]);
    world.settle();
    let digest = world.digest();
    world.mitigation.spec.template.reason = "something else".into();
    world.entry("Approval", "bob", &digest, "2026-11-23T10:00:00Z");
    assert_eq!(world.settle().0, Phase::AwaitingApproval);
    assert_ne!(world.digest(), digest);
    let digest = world.digest();
    world.target.as_mut().unwrap()["metadata"]["uid"] = json!("target-2");
    world.entry("Approval", "bob", &digest, "2026-11-23T10:00:00Z");
    assert_eq!(world.settle().0, Phase::AwaitingApproval);
}

/// The entry is folded into the timeline a moment later, and whoever wrote it comes to look after that.
#[test]
fn why_an_approval_was_void_stays_told_until_it_is_approved() {
    let mut world = under(json!({}), &[json!({"approval": [{}]})]);
    world.settle();
    let digest = world.digest();
    world.entry("Approval", "alice", &digest, "2026-11-23T10:00:00Z");
    let words = "counted for nothing: alice asked for the mitigation, and somebody else must approve it";
    assert!(world.settle().2.contains(words));
    world.approvals.clear();
    world.settle();
    assert!(world.condition("Approved").message.contains(words), "{}", world.condition("Approved").message);
    assert!(world.status().void_approval.is_some());
    world.entry("Approval", "bob", &digest, "2026-11-23T10:00:00Z");
    assert_eq!(world.settle().0, Phase::Active);
    assert_eq!(world.status().void_approval, None);
    assert!(!world.condition("Approved").message.contains("alice"));
}

#[test]
fn a_rejection_refuses() {
    let mut world = under(json!({}), &[json!({"approval": [{}]})]);
    world.settle();
    let digest = world.digest();
    world.entry("Rejection", "bob", &digest, "2026-11-23T10:00:00Z");
    let (phase, reason, message) = world.settle();
    assert_eq!((phase, reason.as_str()), (Phase::Refused, "Rejected"));
    assert!(message.contains("bob") && message.contains("because"), "{message}");
}

#[test]
fn an_approver_who_lost_the_verb_approves_nothing() {
    let mut world = under(json!({}), &[json!({"approval": [{}]})]);
    world.settle();
    let digest = world.digest();
    world.lacking = vec!["approve mitigations.incident-operator.dev \"stop\""];
    world.entry("Approval", "bob", &digest, "2026-11-23T10:00:00Z");
    let (phase, _, message) = world.settle();
    assert_eq!(phase, Phase::AwaitingApproval);
    assert!(message.contains("bob may not approve it any more"), "{message}");
}

#[test]
fn nobody_can_approve_where_names_are_not_vouched_for() {
    let mut world = under(json!({}), &[json!({"approval": [{}]})]);
    world.signed = false;
    world.settle();
    let digest = world.digest();
    world.entry("Approval", "bob", &digest, "2026-11-23T10:00:00Z");
    assert_eq!(world.settle().0, Phase::AwaitingApproval);
}

#[test]
fn what_a_limit_counts_is_on_record_before_it_is_made() {
    let mut world = under(json!({}), &[json!({"maxActive": 1})]);
    let mut announced = false;
    while world.writes.is_empty() {
        announced |= world.plan().effect == Some(Effect::Announce);
        assert!(world.step(true));
    }
    assert!(announced && world.reserved.is_some());
}

#[test]
fn what_a_limit_holds_back_waits_and_says_for_what() {
    let mut world = under(json!({}), &[json!({"maxActive": 0})]);
    let wait = crate::decide::policy::limits::Wait {
        reason: "TooManyActive",
        message: "one of one".into(),
        until: None,
    };
    world.reservation = Some(Reservation::Wait(wait));
    let (phase, reason, _) = world.settle();
    assert_eq!((phase, reason.as_str()), (Phase::Pending, "TooManyActive"));
    assert!(world.writes.is_empty());
}

#[test]
fn by_the_use_of_a_policy_only_what_it_allows_is_released() {
    let scales = json!({"actions": ["scale"]});
    let mut world = under(json!({"policyRef": {"name": "p"}}), std::slice::from_ref(&scales));
    world.lacking = vec!["patch deployments.apps/scale \"importer\""];
    assert_eq!(world.settle().0, Phase::Active, "by the use of the policy");
    world.mitigation.spec.template.desired_state = Some(DesiredState::Released);
    let other = |spec: Value| InForce::Known(vec![policy(spec)]);
    for policies in [
        InForce::Known(Vec::new()),
        InForce::Unknown("not yet".into()),
        InForce::NotRead,
        other(json!({"actions": ["rollback"]})),
        other(json!({"targetSelector": {"matchLabels": {"tier": "batch"}}})),
        other(json!({"protected": [{"kind": "Deployment"}]})),
    ] {
        world.policies = policies;
        let (phase, reason, message) = world.settle();
        assert_eq!((phase, reason.as_str()), (Phase::Active, "RequesterForbidden"), "{message}");
    }
    // A pause, and what is asked of something new, say nothing of a release.
    world.policies =
        other(json!({"actions": ["scale"], "paused": true, "maxDuration": "1m", "evidence": "Required"}));
    assert_eq!(world.settle().0, Phase::Released);
}

#[test]
fn what_the_operator_may_not_do_is_tried_before_it_is_announced_again_and_less_often_the_longer_it_lasts() {
    let mut world = under(json!({}), &[json!({"maxActive": 1})]);
    let forbidden = refused(Why::Forbidden, "cannot patch", false);
    world.reservation = Some(Reservation::Granted);
    let plan = world.plan_with(Some(&forbidden), false);
    let waits = |plan: &Plan, now: Timestamp| plan.wake.unwrap().duration_since(now).as_secs();
    assert_eq!(waits(&plan, world.now), 15);
    world.mitigation.status = Some(plan.status);
    for (later, wait) in [(15, 15), (30, 30), (600, 60)] {
        let before = world.mitigation.status.clone();
        world.now = "2026-11-23T10:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(later);
        let plan = world.plan();
        assert!(matches!(plan.effect, Some(Effect::Write { what: Write::DryRun, .. })), "{:?}", plan.effect);
        world.mitigation.status = Some(plan.status);
        let plan = world.plan_with(Some(&forbidden), false);
        assert_eq!(waits(&plan, world.now), wait);
        world.mitigation.status = Some(plan.status);
        assert!(later == 15 || world.mitigation.status == before, "nothing to write");
    }
    // Once it may, it is announced and made.
    let plan = world.plan_with(None, true);
    assert_eq!((plan.effect, plan.status.phase), (Some(Effect::Announce), Some(Phase::Applying)));
    world.mitigation.status = Some(plan.status);
    assert_eq!(world.settle().0, Phase::Active);
    assert_eq!(world.condition("Authorized").reason, "Allowed");
}

#[test]
fn while_it_is_told_that_policies_are_not_known_nothing_is_read() {
    let mut world = under(json!({}), &[]);
    world.policies = InForce::Unknown("not yet".into());
    world.read = false;
    assert!(matches!(world.plan().effect, Some(Effect::Read(_))), "it may have been begun");
    world.settle();
    world.read = false;
    let plan = world.plan();
    assert_eq!((plan.effect, plan.wake.is_some()), (None, true));
}
