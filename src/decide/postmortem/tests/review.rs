//! Who reviewed it, and what of.

use super::*;

/// The status after `actor` wrote the spec, where the API server vouches for authors.
fn signed(postmortem: &mut Postmortem, state: &str, actor: Option<&str>, now: &str) -> PostmortemStatus {
    postmortem.spec.state = Some(serde_json::from_value(json!(state)).unwrap());
    postmortem.spec.owner = Some("alice".into());
    let annotation = actor.map(|actor| [(ACTOR_ANNOTATION.to_owned(), actor.to_owned())].into());
    postmortem.metadata.annotations = annotation;
    let settings = Settings::default();
    let status = decide(&Observed { signed: true, ..seen(postmortem, &settings) }, at(now));
    postmortem.status = Some(status.clone());
    status
}

#[test]
fn where_authors_are_vouched_for_the_owner_cannot_review_and_somebody_else_can() {
    let mut postmortem = of_a_sev1(complete());
    for owner in ["alice", "oidc:alice@example.com"] {
        let status = signed(&mut postmortem, "Reviewed", Some(owner), "2026-11-21T00:00:00Z");
        assert_eq!(reason(&status, "Reviewed"), "ReviewedByOwner", "{owner}");
        assert_eq!(status.review, None);
    }
    let status = signed(&mut postmortem, "Reviewed", None, "2026-11-21T00:00:00Z");
    assert_eq!(reason(&status, "Reviewed"), "ReviewerUnknown");
    let status = signed(&mut postmortem, "Reviewed", Some("bob"), "2026-11-21T01:00:00Z");
    assert_eq!(condition(&status.conditions, "Reviewed"), ConditionStatus::True);
    let review = status.review.unwrap();
    assert_eq!((review.by.as_deref(), review.authenticated), (Some("bob"), true));
}

#[test]
fn a_review_survives_later_edits_by_the_owner_and_ends_with_the_state() {
    let mut postmortem = of_a_sev1(complete());
    signed(&mut postmortem, "Reviewed", Some("bob"), "2026-11-21T01:00:00Z");
    let status = signed(&mut postmortem, "Reviewed", Some("alice"), "2026-11-21T02:00:00Z");
    assert_eq!(condition(&status.conditions, "Reviewed"), ConditionStatus::True);
    let status = signed(&mut postmortem, "Draft", Some("alice"), "2026-11-21T03:00:00Z");
    assert_eq!(reason(&status, "Reviewed"), "Withdrawn");
    assert_eq!(status.review.unwrap().withdrawn_time, Some(Time(at("2026-11-21T03:00:00Z"))));
    let status = signed(&mut postmortem, "Reviewed", Some("alice"), "2026-11-21T04:00:00Z");
    assert_eq!(reason(&status, "Reviewed"), "ReviewedByOwner");
    let status = signed(&mut postmortem, "Reviewed", Some("carol"), "2026-11-21T05:00:00Z");
    assert_eq!(status.review.unwrap().by.as_deref(), Some("carol"));
}

#[test]
fn where_nobody_vouches_for_authors_the_state_is_taken_at_its_word() {
    let status = decide_at(complete(), "2026-11-21T00:00:00Z");
    let review = status.review.unwrap();
    assert_eq!((review.by, review.authenticated), (None, false));
}

/// The same with the state that is set by that one.
fn set(postmortem: &mut Postmortem, actor: &str, spec: Value, now: &str) -> PostmortemStatus {
    let mut whole = serde_json::to_value(&postmortem.spec).unwrap();
    let state = spec["state"].clone();
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    postmortem.spec = serde_json::from_value(whole).unwrap();
    let annotations = postmortem.metadata.annotations.get_or_insert_default();
    annotations.insert(ACTOR_ANNOTATION.to_owned(), actor.to_owned());
    if !state.is_null() {
        annotations.insert(crate::api::STATE_STAMP.to_owned(), json!({"user": actor}).to_string());
    }
    let settings = Settings::default();
    let status = decide(&Observed { signed: true, ..seen(postmortem, &settings) }, at(now));
    postmortem.status = Some(status.clone());
    status
}

fn says(status: &PostmortemStatus) -> (ConditionStatus, String) {
    (condition(&status.conditions, "Reviewed"), reason(status, "Reviewed"))
}

#[test]
fn what_was_set_to_reviewed_before_all_was_written_is_reviewed_by_nobody_until_it_is_set_again() {
    let mut pm = of_a_sev1(complete());
    let draft = json!({"state": "Draft", "owner": "alice", "rootCauses": null});
    set(&mut pm, "alice", draft, "2026-11-21T00:00:00Z");
    let status = set(&mut pm, "bob", json!({"state": "Reviewed"}), "2026-11-21T01:00:00Z");
    assert_eq!(says(&status), (ConditionStatus::False, "Incomplete".into()));
    let status = set(&mut pm, "alice", json!({"rootCauses": "bob did it"}), "2026-11-21T02:00:00Z");
    assert_eq!(says(&status), (ConditionStatus::False, "ReviewedIncomplete".into()));
    assert_eq!(status.review, None, "bob never saw it");
    set(&mut pm, "bob", json!({"state": "InReview"}), "2026-11-21T03:00:00Z");
    let status = set(&mut pm, "bob", json!({"state": "Reviewed"}), "2026-11-21T04:00:00Z");
    assert_eq!(says(&status), (ConditionStatus::True, "Reviewed".into()));
}

#[test]
fn a_section_that_goes_missing_ends_the_review_and_what_an_action_item_lacks_interrupts_it() {
    let mut pm = of_a_sev1(complete());
    let mut told = Vec::new();
    let mut step = |spec: Value, hour: u32, expected: &str| {
        let before = pm.status.clone();
        let now = format!("2026-11-21T{hour:02}:00:00Z");
        let status = set(&mut pm, if hour == 1 { "bob" } else { "alice" }, spec, &now);
        assert_eq!(reason(&status, "Reviewed"), expected, "{hour}");
        told.extend(news(before.as_ref(), &status).into_iter().map(|n| n.reason));
    };
    step(json!({"state": "Reviewed", "owner": "alice"}), 1, "Reviewed");
    let items = |second: Value| json!({"actionItems": [complete()["actionItems"][0], second]});
    let mut late = json!({"id": "b", "title": "t", "owner": "o", "state": "Done"});
    step(items(late.clone()), 2, "Incomplete");
    late["dueDate"] = json!("2026-11-25");
    step(items(late), 3, "Reviewed");
    step(json!({"impact": "TODO"}), 4, "Incomplete");
    step(json!({"impact": "nobody was affected"}), 5, "ReviewedIncomplete");
    assert_eq!(told, ["Reviewed", "ReviewWithdrawn"]);
}

#[test]
fn a_review_counts_for_what_had_happened_by_then() {
    let settings = Settings::default();
    let mut pm = about_checkout(complete());
    pm.spec.incident_ref.as_mut().unwrap().uid = Some("u1".into());
    let mut look = |resolved: Option<&str>, state: &str, now: &str| {
        let mut incident = incident("u1", resolved);
        incident.status.as_mut().unwrap().postmortem_ref = Some(crate::api::LocalRef { name: "pm".into() });
        pm.spec.state = Some(serde_json::from_value(json!(state)).unwrap());
        let status = decide(&Observed { incident: Some(&incident), ..seen(&pm, &settings) }, at(now));
        pm.status = Some(status.clone());
        reason(&status, "Reviewed")
    };
    let (first, second) = (Some("2026-11-24T11:00:00Z"), Some("2026-11-24T15:00:00Z"));
    assert_eq!(look(first, "Reviewed", "2026-11-24T12:00:00Z"), "Reviewed");
    assert_eq!(look(None, "Reviewed", "2026-11-24T13:00:00Z"), "Reviewed", "it goes on again");
    assert_eq!(look(second, "Reviewed", "2026-11-24T15:00:00Z"), "ReviewedBefore");
    assert_eq!(look(second, "Reviewed", "2026-11-24T15:00:01Z"), "ReviewedBefore");
    assert_eq!(look(second, "InReview", "2026-11-24T16:00:00Z"), "Withdrawn");
    assert_eq!(look(second, "Reviewed", "2026-11-24T17:00:00Z"), "Reviewed");
}

#[test]
fn a_postmortem_of_an_earlier_outage_is_not_taken_for_one_of_the_incident_that_has_its_name_now() {
    let settings = Settings::default();
    let mut spec = complete();
    spec["timeline"][0]["time"] = json!("2024-03-01T10:00:00Z");
    let pm = about_checkout(spec);
    let now_ = incident("u1", Some("2026-11-24T11:00:00Z"));
    let look = |pm: &Postmortem| {
        decide(&Observed { incident: Some(&now_), ..seen(pm, &settings) }, at("2026-11-24T12:00:00Z"))
    };
    let status = look(&pm);
    assert_eq!((status.incident.is_none(), status.due_time), (true, None));
    assert!(
        status.warnings.iter().any(|w| w.contains("set spec.incidentRef.uid to u1")),
        "{:?}",
        status.warnings
    );
    let mut named = pm;
    named.spec.incident_ref.as_mut().unwrap().uid = Some("u1".into());
    assert_eq!(look(&named).incident.unwrap().uid.as_deref(), Some("u1"));
}

#[test]
fn no_spelling_of_the_owner_reviews_and_without_an_owner_nobody_does() {
    for (owner, actor) in [("@alice", "alice"), ("alice", "@Alice"), ("@alice", "oidc:alice@example.com")] {
        let mut pm = of_a_sev1(complete());
        let status =
            set(&mut pm, actor, json!({"state": "Reviewed", "owner": owner}), "2026-11-21T00:00:00Z");
        assert_eq!(reason(&status, "Reviewed"), "ReviewedByOwner", "{owner} {actor}");
    }
    for owner in [json!(null), json!("TBD")] {
        let mut pm = of_a_sev1(complete());
        let stated = json!({"state": "Reviewed", "owner": owner});
        assert_eq!(
            reason(&set(&mut pm, "alice", stated, "2026-11-21T00:00:00Z"), "Reviewed"),
            "OwnerMissing"
        );
        let status = set(&mut pm, "alice", json!({"owner": "bob"}), "2026-11-21T01:00:00Z");
        assert_eq!(says(&status), (ConditionStatus::False, "OwnerMissing".into()));
        set(&mut pm, "erin", json!({"state": "InReview"}), "2026-11-21T02:00:00Z");
        let status = set(&mut pm, "erin", json!({"state": "Reviewed"}), "2026-11-21T03:00:00Z");
        assert_eq!(says(&status), (ConditionStatus::True, "Reviewed".into()));
    }
}

#[test]
fn a_review_by_somebody_who_was_not_asked_counts_and_is_a_warning() {
    let warned = |reviewers: Value| {
        let mut pm = of_a_sev1(complete());
        let stated = json!({"state": "Reviewed", "owner": "alice", "reviewers": reviewers});
        let status = set(&mut pm, "oidc:erin@example.com", stated, "2026-11-21T00:00:00Z");
        assert_eq!(condition(&status.conditions, "Reviewed"), ConditionStatus::True);
        status.warnings.iter().any(|w| w.contains("oidc:erin@example.com reviewed it, who is none of them"))
    };
    assert!(warned(json!(["bob"])));
    assert!(!warned(json!(["bob", "@erin"])) && !warned(json!([])));
}
