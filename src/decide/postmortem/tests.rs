use super::*;
use crate::api::{
    ACTOR_ANNOTATION, ActionItemReminder, ConditionStatus, IncidentRef, IncidentSnapshot, Severity, Time,
};
use crate::decide::conditions::{find, status as condition};
use proptest::prelude::*;
use serde_json::{Value, json};

mod review;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A postmortem about an incident of this name, whichever that is.
fn about_checkout(spec: Value) -> Postmortem {
    let mut postmortem = Postmortem::new("pm", serde_json::from_value(spec).unwrap());
    let named = IncidentRef { name: "checkout".to_owned(), uid: None };
    postmortem.spec.incident_ref.get_or_insert(named);
    postmortem
}

/// A postmortem of a SEV1 that was resolved on Friday 20 November 2026 at noon.
fn of_a_sev1(spec: Value) -> Postmortem {
    let mut postmortem = about_checkout(spec);
    postmortem.status = Some(PostmortemStatus {
        incident: Some(IncidentSnapshot {
            name: "checkout".to_owned(),
            uid: Some("u1".to_owned()),
            severity: Some(Severity::SEV1),
            resolved_time: Some(Time(at("2026-11-20T12:00:00Z"))),
            ..IncidentSnapshot::default()
        }),
        ..PostmortemStatus::default()
    });
    postmortem
}

fn seen<'a>(postmortem: &'a Postmortem, settings: &'a Settings) -> Observed<'a> {
    Observed {
        postmortem,
        incident: None,
        recorded_is_there: false,
        namesakes: &[],
        signed: false,
        outcomes: &[],
        settings,
    }
}

fn decide_at(spec: Value, now: &str) -> PostmortemStatus {
    decide(&seen(&of_a_sev1(spec), &Settings::default()), at(now))
}

fn complete() -> Value {
    json!({"state": "Reviewed", "summary": "s", "impact": "i", "rootCauses": "r", "detection": "d",
        "wentWell": "w", "wentPoorly": "p", "timeline": [{"time": "2026-11-23T12:00:00Z", "message": "m"}],
        "actionItems": [{"id": "a", "title": "t", "owner": "o", "dueDate": "2026-11-21", "state": "Done"}]})
}

fn with_item(item: Value) -> Value {
    let mut spec = complete();
    spec["actionItems"] = json!([item]);
    spec
}

#[test]
fn how_far_it_is_stands_in_the_status_also_where_the_spec_leaves_it_out() {
    use crate::api::PostmortemState::{Draft, InReview};
    let state = |spec: Value| decide_at(spec, "2026-11-20T12:00:00Z").state;
    assert_eq!(state(json!({})), Some(Draft));
    assert_eq!(state(json!({"state": "InReview"})), Some(InReview));
}

fn reason(status: &PostmortemStatus, type_: &str) -> String {
    find(&status.conditions, type_).unwrap().reason.clone()
}

// ---- completeness ------------------------------------------------------------------------------------------------

#[test]
fn a_draft_lists_what_is_missing_and_placeholders_count_as_missing() {
    let status = decide_at(json!({"summary": "TODO", "impact": "40 % of checkouts"}), "2026-11-21T00:00:00Z");
    assert_eq!(
        status.missing_sections,
        [
            "Summary (spec.summary)",
            "Root cause (spec.rootCauses)",
            "Detection (spec.detection)",
            "What went well (spec.wentWell)",
            "What went poorly (spec.wentPoorly)",
            "Timeline (spec.timeline)",
            "Action items (spec.actionItems)",
        ]
    );
    assert_eq!(status.missing_count, Some(7));
    assert_eq!(condition(&status.conditions, "Reviewed"), ConditionStatus::False);
}

#[test]
fn a_timeline_of_placeholders_is_none() {
    let mut spec = complete();
    spec["timeline"] = json!([{"time": "2026-11-23T12:00:00Z", "message": "TBD"}]);
    assert_eq!(decide_at(spec, "2026-11-21T00:00:00Z").missing_sections, ["Timeline (spec.timeline)"]);
}

#[test]
fn reviewed_needs_every_section_and_action_items_need_owner_and_date() {
    let status = decide_at(complete(), "2026-11-21T00:00:00Z");
    assert_eq!(status.missing_sections, Vec::<String>::new());
    assert_eq!(condition(&status.conditions, "Reviewed"), ConditionStatus::True);
    let mut lacking = complete();
    lacking["actionItems"][0].as_object_mut().unwrap().remove("owner");
    let status = decide_at(lacking, "2026-11-21T00:00:00Z");
    assert_eq!(status.missing_sections, ["owner of action item a"]);
    assert_eq!(condition(&status.conditions, "Reviewed"), ConditionStatus::False);
    assert_eq!(reason(&status, "Reviewed"), "Incomplete");
}

#[test]
fn what_is_missing_of_a_hundred_items_fits_the_list_and_is_counted_in_full() {
    let items: Vec<_> = (0..100).map(|n| json!({"id": format!("i{n}"), "title": "t"})).collect();
    let mut spec = complete();
    spec["actionItems"] = json!(items);
    let status = decide_at(spec, "2026-11-21T00:00:00Z");
    assert_eq!((status.missing_sections.len(), status.missing_count), (32, Some(100)));
    assert_eq!(status.missing_sections[0], "owner and dueDate of action item i0");
    assert_eq!(status.missing_sections[31], "and 69 more");
}

#[test]
fn deciding_twice_changes_nothing() {
    let mut postmortem = of_a_sev1(complete());
    let settings = Settings::default();
    postmortem.status = Some(decide(&seen(&postmortem, &settings), at("2026-11-21T00:00:00Z")));
    let again = decide(&seen(&postmortem, &settings), at("2026-11-21T00:05:00Z"));
    assert_eq!(postmortem.status, Some(again));
}

// ---- the record --------------------------------------------------------------------------------------------------

fn incident(uid: &str, resolved: Option<&str>) -> Incident {
    serde_json::from_value(json!({
        "apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident",
        "metadata": {"name": "checkout", "uid": uid},
        "spec": {"title": "Checkout fails", "severity": "SEV2"},
        "status": {"milestones": {"startedTime": "2026-11-24T10:00:00Z", "resolvedTime": resolved}},
    }))
    .unwrap()
}

#[test]
fn the_record_is_taken_over_once_the_incident_is_resolved_and_stays_when_it_is_gone() {
    let settings = Settings::default();
    let mut postmortem = about_checkout(complete());
    let open = incident("u2", None);
    let now = at("2026-11-24T12:00:00Z");
    let status = decide(&Observed { incident: Some(&open), ..seen(&postmortem, &settings) }, now);
    assert_eq!(status.incident, None);
    let resolved = incident("u2", Some("2026-11-24T11:00:00Z"));
    let status = decide(&Observed { incident: Some(&resolved), ..seen(&postmortem, &settings) }, now);
    assert_eq!(status.incident.as_ref().unwrap().severity, Some(Severity::SEV2));
    assert_eq!(status.durations.as_ref().unwrap().resolve_seconds, Some(3600));
    // Five business days.
    assert_eq!(status.due_time, Some(Time(at("2026-12-01T11:00:00Z"))));
    postmortem.status = Some(status.clone());
    assert_eq!(decide(&seen(&postmortem, &settings), now), status);
}

#[test]
fn what_goes_on_again_or_was_no_incident_has_no_deadline_for_its_review() {
    let settings = Settings::default();
    let mut postmortem = about_checkout(complete());
    let now = at("2026-11-24T12:00:00Z");
    let resolved = incident("u2", Some("2026-11-24T11:00:00Z"));
    postmortem.status =
        Some(decide(&Observed { incident: Some(&resolved), ..seen(&postmortem, &settings) }, now));
    let look = |incident: &Incident| {
        let status = decide(&Observed { incident: Some(incident), ..seen(&postmortem, &settings) }, now);
        (status.due_time.is_some(), status.durations.and_then(|d| d.resolve_seconds))
    };
    // The draft is there before the incident's own status says that it is resolved.
    let mut open = incident("u2", None);
    assert_eq!(look(&open), (true, Some(3600)));
    open.status.as_mut().unwrap().postmortem_ref = Some(crate::api::LocalRef { name: "pm".into() });
    assert_eq!(look(&open), (false, None));
    let mut cancelled = resolved;
    cancelled.status.as_mut().unwrap().stage = Some(Stage::Cancelled);
    assert_eq!(look(&cancelled), (false, Some(3600)));
}

#[test]
fn a_later_incident_of_the_same_name_does_not_overwrite_the_record_and_is_pointed_out() {
    let settings = Settings::default();
    let postmortem = of_a_sev1(complete());
    let later = incident("u2", Some("2026-11-24T11:00:00Z"));
    let status = decide(
        &Observed { incident: Some(&later), ..seen(&postmortem, &settings) },
        at("2026-11-24T12:00:00Z"),
    );
    assert_eq!(status.incident.unwrap().uid.as_deref(), Some("u1"));
    assert!(status.warnings[0].contains("another one, which this is not about"), "{:?}", status.warnings);
}

#[test]
fn a_corrected_incident_ref_drops_the_wrong_record_and_the_review_that_was_made_of_it() {
    let settings = Settings::default();
    let now = at("2026-11-25T12:00:00Z");
    let d2 = {
        let mut d2 = incident("u2", Some("2026-11-24T11:00:00Z"));
        d2.metadata.name = Some("d2".into());
        d2
    };
    let mut wrong = about_checkout(complete());
    wrong.spec.incident_ref = Some(IncidentRef { name: "d2".into(), uid: None });
    wrong.status = Some(decide(&Observed { incident: Some(&d2), ..seen(&wrong, &settings) }, now));
    assert_eq!(condition(&wrong.status.as_ref().unwrap().conditions, "Reviewed"), ConditionStatus::True);
    let after = |named: Option<IncidentRef>, incident: Option<&Incident>, recorded_is_there: bool| {
        let mut postmortem = wrong.clone();
        postmortem.spec.incident_ref = named;
        decide(&Observed { incident, recorded_is_there, ..seen(&postmortem, &settings) }, now)
    };
    let checkout =
        |uid: Option<&str>| Some(IncidentRef { name: "checkout".into(), uid: uid.map(str::to_owned) });
    let right = incident("u1", Some("2026-11-23T11:00:00Z"));
    for uid in [None, Some("u1")] {
        let status = after(checkout(uid), Some(&right), true);
        assert_eq!(status.incident.as_ref().unwrap().name, "checkout");
        assert_eq!(reason(&status, "Reviewed"), "ReviewedForAnother");
        assert_eq!(status.warnings.iter().find(|w| w.contains("incidentRef")), None);
    }
    // The right one is not resolved yet, or there is none.
    for (named, incident) in
        [(checkout(None), Some(incident("u1", None))), (checkout(None), None), (None, None)]
    {
        let status = after(named, incident.as_ref(), true);
        assert_eq!((status.incident, status.due_time), (None, None));
        assert_eq!(status.timeline, []);
    }
    // Nobody could bring back the record of an incident that is gone.
    let status = after(checkout(None), None, false);
    assert_eq!(status.incident.unwrap().name, "d2");
    assert!(
        status.warnings[0].contains("that of incident d2 (uid u2), which is gone"),
        "{:?}",
        status.warnings
    );
    let status = after(Some(IncidentRef { name: "d2".into(), uid: Some("u3".into()) }), Some(&d2), true);
    assert_eq!(status.incident, None, "the uid is corrected");
}

// ---- action items ------------------------------------------------------------------------------------------------

#[test]
fn open_action_items_are_counted_and_the_late_ones_named() {
    let mut spec = complete();
    spec["actionItems"][0]["state"] = json!("InProgress");
    let status = decide_at(spec.clone(), "2026-11-22T00:00:00Z");
    assert_eq!((status.open_action_items, status.overdue_action_items.join(" ")), (Some(1), "a".to_owned()));
    assert_eq!(reason(&status, "ActionItemsDone"), "Open");
    let on_the_day = decide_at(spec, "2026-11-21T23:59:59Z");
    assert_eq!(on_the_day.overdue_action_items, Vec::<String>::new());
}

#[test]
fn an_item_that_will_not_be_fixed_wants_a_reason_and_nothing_else() {
    let spec = with_item(json!({"id": "a", "title": "Rewrite it", "state": "WontFix"}));
    let status = decide_at(spec, "2026-11-22T00:00:00Z");
    assert_eq!(status.missing_sections, ["reason of action item a, which is WontFix"]);
    let spec = with_item(
        json!({"id": "a", "title": "Rewrite it", "state": "WontFix", "reason": "it is retired in May"}),
    );
    assert_eq!(decide_at(spec, "2026-11-22T00:00:00Z").missing_count, Some(0));
}

#[test]
fn a_sev1_without_prevention_is_reviewed_and_the_condition_of_its_items_says_so() {
    let status = decide_at(complete(), "2026-11-22T00:00:00Z");
    assert_eq!(condition(&status.conditions, "Reviewed"), ConditionStatus::True);
    assert_eq!(reason(&status, "ActionItemsDone"), "NothingPrevents");
    assert!(status.warnings.iter().any(|w| w.contains("type Prevent")), "{:?}", status.warnings);
    let item = json!({"id": "a", "title": "t", "owner": "o", "dueDate": "2026-11-21", "state": "Done", "type": "Prevent"});
    assert_eq!(reason(&decide_at(with_item(item), "2026-11-22T00:00:00Z"), "ActionItemsDone"), "NoneOpen");
}

#[test]
fn a_date_that_is_none_is_missing_and_the_year_9999_is_fine() {
    for (date, missing) in [
        ("2026-02-31", Some(1)),
        ("2026-13-01", Some(1)),
        ("20261121", Some(1)),
        ("soon", Some(1)),
        ("9999-12-31", Some(0)),
        ("2028-02-29", Some(0)),
    ] {
        let spec = with_item(json!({"id": "a", "title": "t", "owner": "o", "dueDate": date}));
        let status = decide_at(spec, "2026-11-22T00:00:00Z");
        assert_eq!(status.missing_count, missing, "{date}: {:?}", status.missing_sections);
        assert_eq!(status.overdue_action_items, Vec::<String>::new(), "{date}");
    }
}

#[test]
fn a_due_date_that_was_over_from_the_start_or_that_the_priority_does_not_allow_is_a_warning() {
    let item = |due: &str, priority: &str| {
        with_item(json!({"id": "a", "title": "t", "owner": "o", "dueDate": due, "priority": priority}))
    };
    let warned = |spec| {
        let warnings = decide_at(spec, "2026-11-22T00:00:00Z").warnings;
        warnings.into_iter().find(|w| w.starts_with("spec.actionItems[0].dueDate"))
    };
    assert!(warned(item("2026-11-19", "P1")).unwrap().contains("was over"));
    assert!(warned(item("2026-11-28", "P0")).unwrap().contains("later than 2026-11-27"));
    assert_eq!(warned(item("2026-11-27", "P0")), None);
    assert_eq!(warned(item("9999-12-31", "P3")), None);
}

#[test]
fn a_hundred_items_with_one_id_are_invalid_and_no_panic() {
    let item = json!({"id": "a", "title": "t", "owner": "o", "dueDate": "2026-11-30"});
    let mut spec = complete();
    spec["actionItems"] = json!(vec![item; 100]);
    let status = decide_at(spec.clone(), "2026-12-22T00:00:00Z");
    assert_eq!(status.overdue_action_items.len(), 100);
    assert!(status.missing_sections[0].contains("used 100 times"), "{:?}", status.missing_sections);
    let found = lint(&of_a_sev1(spec));
    assert_eq!((found[0].level, found[0].rule), (Level::Invalid, "id"));
}

// ---- reminders ---------------------------------------------------------------------------------------------------

fn due_on(day: &str) -> Postmortem {
    of_a_sev1(with_item(json!({"id": "a", "title": "t", "owner": "o", "dueDate": day})))
}

fn next_reminder(postmortem: &Postmortem, settings: &Settings, after: Timestamp) -> Option<Timestamp> {
    let deadlines = Deadlines::new(&postmortem.spec, postmortem.status.as_ref(), settings);
    reminders::next_reminder(&postmortem.spec.action_items, &deadlines, settings, after)
}

/// The postmortem after a look at it, and the reminders that are new since the one before.
fn look(postmortem: &mut Postmortem, settings: &Settings, now: Timestamp) -> Vec<ActionItemReminder> {
    let known = postmortem.status.as_ref().map(|s| s.reminders.clone()).unwrap_or_default();
    let status = decide(&seen(postmortem, settings), now);
    let new = status.reminders.iter().filter(|r| !known.contains(r)).cloned().collect();
    postmortem.status = Some(status);
    new
}

#[test]
fn reminders_come_two_days_before_on_the_day_and_every_week_after() {
    let (mut postmortem, settings) = (due_on("2026-12-10"), Settings::default());
    let mut moments = Vec::new();
    let mut now = at("2026-12-01T00:00:00Z");
    assert_eq!(look(&mut postmortem, &settings, now), []);
    while let Some(next) =
        next_reminder(&postmortem, &settings, now).filter(|n| *n < at("2026-12-30T00:00:00Z"))
    {
        assert_eq!(
            look(&mut postmortem, &settings, next.checked_sub(std::time::Duration::from_secs(1)).unwrap()),
            []
        );
        let told = look(&mut postmortem, &settings, next);
        assert_eq!(told.len(), 1);
        moments.push((told[0].scheduled_time.0.to_string(), told[0].reason.clone()));
        now = next;
    }
    let expected = [
        ("2026-12-08T09:00:00Z", "ActionItemDueSoon"),
        ("2026-12-10T09:00:00Z", "ActionItemDue"),
        ("2026-12-17T09:00:00Z", "ActionItemOverdue"),
        ("2026-12-24T09:00:00Z", "ActionItemOverdue"),
    ];
    assert_eq!(moments, expected.map(|(at, reason)| (at.to_owned(), reason.to_owned())));
}

#[test]
fn after_a_long_pause_an_item_is_told_of_once_and_in_the_words_of_that_day() {
    let (mut postmortem, settings) = (due_on("2017-02-10"), Settings::default());
    assert_eq!(
        look(&mut postmortem, &settings, at("2017-02-08T09:00:00Z"))[0].message,
        "action item a of o is due in 2 days, on 2017-02-10: t"
    );
    let told = look(&mut postmortem, &settings, at("2026-12-01T00:00:00Z"));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].message, "action item a of o was due on 2017-02-10, 3581 days ago: t");
    assert_eq!(told[0].time, Time(at("2026-12-01T00:00:00Z")));
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-01T08:00:00Z")), []);
    // A reminder that was planned for the day itself and is told on the next one does not say "today".
    let (mut late, now) = (due_on("2026-12-10"), at("2026-12-11T03:00:00Z"));
    assert_eq!(
        look(&mut late, &settings, now)[0].message,
        "action item a of o was due yesterday, 2026-12-10: t"
    );
}

#[test]
fn an_item_that_is_written_on_its_day_before_the_hour_is_told_of_once_that_day() {
    let (mut postmortem, settings) = (due_on("2026-12-10"), Settings::default());
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-10T07:00:00Z"))[0].reason, "ActionItemDue");
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-10T09:30:00Z")), []);
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-17T09:30:00Z"))[0].reason, "ActionItemOverdue");
}

#[test]
fn a_due_date_that_moves_is_reminded_of_anew_and_an_item_that_is_done_no_more() {
    let (mut postmortem, settings) = (due_on("2026-12-10"), Settings::default());
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-10T10:00:00Z")).len(), 1);
    postmortem.spec.action_items[0].due_date = Some("2027-01-10".into());
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-10T11:00:00Z")), []);
    assert_eq!(postmortem.status.as_ref().unwrap().reminders, []);
    postmortem.spec.action_items[0].due_date = Some("2026-12-11".into());
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-10T11:00:00Z"))[0].reason, "ActionItemDueSoon");
    postmortem.spec.action_items[0].state = crate::api::ActionItemState::Done;
    assert_eq!(look(&mut postmortem, &settings, at("2026-12-12T11:00:00Z")), []);
    assert_eq!(postmortem.status.unwrap().reminders, []);
}

#[test]
fn nobody_is_reminded_of_what_is_done_or_of_what_is_due_at_the_end_of_time() {
    let settings = Settings::default();
    let end = at("2026-12-31T00:00:00Z");
    assert_eq!(look(&mut of_a_sev1(complete()), &settings, end), []);
    assert_eq!(look(&mut due_on("9999-12-31"), &settings, end), []);
    assert_eq!(look(&mut due_on("9999-12-31"), &settings, Timestamp::MAX).len(), 1);
    assert_eq!(look(&mut due_on("2026-02-31"), &settings, end), []);
    assert_eq!(look(&mut due_on("0001-01-01"), &settings, end).len(), 1);
    assert_eq!(
        next_reminder(&due_on("0001-01-01"), &settings, Timestamp::MIN),
        Some(at("0000-12-30T09:00:00Z"))
    );
}

#[test]
fn reminders_and_overdue_follow_the_time_zone_of_the_calendar() {
    let mut settings = Settings::default();
    settings.calendar.time_zone = k8s_openapi::jiff::tz::TimeZone::posix("JST-9").unwrap();
    let postmortem = due_on("2026-12-10");
    assert_eq!(
        next_reminder(&postmortem, &settings, at("2026-12-09T00:00:00Z")),
        Some(at("2026-12-10T00:00:00Z"))
    );
    let status = decide(&seen(&postmortem, &settings), at("2026-12-10T15:00:00Z"));
    assert_eq!(status.overdue_action_items, ["a"]);
}

proptest! {
    #[test]
    fn whenever_it_is_looked_at_each_reminder_is_told_at_most_once_and_the_last_one_always(
        mut cuts in proptest::collection::vec(0i64..100 * 86_400, 1..40),
    ) {
        let (mut postmortem, settings) = (due_on("2026-12-10"), Settings::default());
        let start = at("2026-11-01T00:00:00Z").as_second();
        cuts.push(100 * 86_400);
        cuts.sort_unstable();
        let mut told = Vec::new();
        for cut in cuts {
            let now = Timestamp::from_second(start + cut).unwrap();
            told.extend(look(&mut postmortem, &settings, now).into_iter().map(|r| r.scheduled_time.0));
        }
        let mut once = told.clone();
        once.dedup();
        prop_assert_eq!(&once, &told, "in order and none twice");
        prop_assert!(told.len() <= 11);
        prop_assert_eq!(told.last().map(|t| t.to_string()), Some("2027-02-04T09:00:00Z".to_owned()));
    }
}

#[test]
fn an_item_without_a_date_is_chased_by_the_day_that_its_priority_allows() {
    // The incident ended on 20 November; P0 allows 7 days and P3 any time.
    let spec =
        |priority: &str| with_item(json!({"id": "a", "title": "t", "owner": "o", "priority": priority}));
    let status = decide_at(spec("P0"), "2026-11-28T10:00:00Z");
    assert_eq!(status.missing_sections, ["dueDate of action item a"], "a date is wanted all the same");
    assert_eq!(status.overdue_action_items, ["a"]);
    assert_eq!(status.reminders[0].message, "action item a of o was due yesterday, 2026-11-27: t");
    let (p0, settings) = (of_a_sev1(spec("P0")), Settings::default());
    let woken = wake(&seen(&p0, &settings), p0.status.as_ref().unwrap(), at("2026-11-25T10:00:00Z"));
    assert_eq!(woken, Some(at("2026-11-27T09:00:00Z")));
    let status = decide_at(spec("P3"), "2036-11-28T10:00:00Z");
    assert_eq!((status.overdue_action_items.len(), status.reminders.len()), (0, 0));
}

// ---- two postmortems for one incident ---------------------------------------------------------------------------

#[test]
fn of_two_postmortems_about_one_incident_each_says_which_one_counts() {
    let warned = |name: &str, namesakes: &[&str]| {
        let mut postmortem = of_a_sev1(complete());
        postmortem.metadata.name = Some(name.to_owned());
        let namesakes: Vec<String> = namesakes.iter().map(|n| n.to_string()).collect();
        let settings = Settings::default();
        let observed = Observed { namesakes: &namesakes, ..seen(&postmortem, &settings) };
        decide(&observed, at("2026-11-21T00:00:00Z")).warnings.into_iter().find(|w| w.contains("incidentRef"))
    };
    assert_eq!(warned("a", &["a"]), None);
    assert!(warned("a", &["a", "b"]).unwrap().contains("b names the same incident"));
    assert!(warned("b", &["a", "b"]).unwrap().contains("is a: merge this one into it"));
}

// ---- deadlines ---------------------------------------------------------------------------------------------------

#[test]
fn sev1_is_due_in_three_calendar_days_and_sev2_in_five_business_days() {
    let settings = Settings::default();
    let friday = at("2026-11-20T12:00:00Z");
    let due = |deadline| due(deadline, friday, &settings);
    assert_eq!(due(PostmortemDeadline::CalendarDays(3)), Some(at("2026-11-23T12:00:00Z")));
    assert_eq!(due(PostmortemDeadline::BusinessDays(5)), Some(at("2026-11-27T12:00:00Z")));
}

#[test]
fn a_review_that_is_late_is_overdue_until_it_is_done() {
    let status = decide_at(json!({}), "2026-11-23T12:00:00Z");
    assert_eq!(condition(&status.conditions, "Overdue"), ConditionStatus::True);
    let status = decide_at(complete(), "2026-11-23T12:00:00Z");
    assert_eq!(condition(&status.conditions, "Overdue"), ConditionStatus::False);
}

#[test]
fn a_review_that_is_late_is_told_in_the_internal_channels_once() {
    let channel = "channels:\n- {name: chat, type: Slack, audience: Internal, urlFile: /u}\n";
    let settings = crate::config::read(channel).unwrap();
    let mut postmortem = of_a_sev1(json!({}));
    let mut told = Vec::new();
    for now in ["2026-11-23T11:59:00Z", "2026-11-23T12:00:00Z", "2026-11-24T12:00:00Z"] {
        let status = decide(&seen(&postmortem, &settings), at(now));
        let messages = status.communication.iter().flat_map(|outbox| &outbox.messages);
        told = messages.map(|m| (m.reason.clone(), m.text.clone())).collect();
        postmortem.status = Some(status);
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "PostmortemOverdue");
    assert!(told[0].1.contains("2026-11-23T12:00:00Z"), "{told:?}");
}

#[test]
fn the_next_look_is_at_the_next_deadline_reminder_or_overdue_item() {
    let settings = Settings::default();
    let postmortem = due_on("2026-11-24");
    let observed = seen(&postmortem, &settings);
    let mut now = at("2026-11-21T00:00:00Z");
    let mut looks = Vec::new();
    for _ in 0..4 {
        now = wake(&observed, &decide(&observed, now), now).unwrap();
        looks.push(now.to_string());
    }
    let expected =
        ["2026-11-22T09:00:00Z", "2026-11-23T12:00:00Z", "2026-11-24T09:00:00Z", "2026-11-25T00:00:00Z"];
    assert_eq!(looks, expected);
}

// ---- lint --------------------------------------------------------------------------------------------------------

#[test]
fn lint_says_what_is_missing_where_and_warnings_do_not_fail() {
    let mut spec = complete();
    spec["rootCauses"] = json!("TBD");
    spec["links"] = json!(["javascript:alert(1)", "https://example.com"]);
    spec["owner"] = json!("alice");
    let found = lint(&Postmortem::new("pm", serde_json::from_value(spec).unwrap()));
    let said: Vec<_> = found.iter().map(|f| f.to_string()).collect();
    let expected = [
        "spec.rootCauses: missing: Root cause [section]",
        "spec.reviewers: warning: no reviewer other than the owner is named [people]",
        "spec.links[0]: warning: is no http or https address: it is shown as text [link]",
    ];
    assert_eq!(said, expected);
    assert_eq!(found.iter().filter(|f| f.fails()).count(), 1);
}

#[test]
fn a_file_that_names_an_incident_need_not_repeat_its_timeline_and_a_postmortem_in_the_cluster_needs_one() {
    let mut spec = complete();
    spec["timeline"] = json!([]);
    spec["incidentRef"] = json!({"name": "checkout"});
    let postmortem = Postmortem::new("pm", serde_json::from_value(spec).unwrap());
    assert!(!lint(&postmortem).iter().any(Finding::fails), "{:?}", lint(&postmortem));
    let status = decide(&seen(&postmortem, &Settings::default()), at("2026-11-22T00:00:00Z"));
    assert_eq!(status.missing_sections, ["Timeline (spec.timeline)"]);
}

const DOCUMENTED: &str = include_str!("../../../docs/postmortem.md");

#[test]
fn every_rule_is_documented_and_every_documented_rule_exists() {
    let spec = json!({
        "incidentRef": {"name": "x"}, "links": ["x"], "rootCauses": "It was human error, and a lot of other things; TODO: list them",
        "actionItems": [
            {"id": "a", "title": "TODO"}, {"id": "a", "title": "t", "owner": "o"},
            {"id": "b", "title": "t", "state": "WontFix"}]});
    let mut found = lint(&Postmortem::new("pm", serde_json::from_value(spec.clone()).unwrap()));
    found.extend(lint(&of_a_sev1(spec)));
    let mut rules: Vec<_> = found.iter().map(|f| f.rule).chain(["schema"]).collect();
    rules.sort_unstable();
    rules.dedup();
    let table = DOCUMENTED.split_once("| Rule | Level |").unwrap().1.split_once("\n\n").unwrap().0;
    let rows = table.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
    let mut documented: Vec<_> = rows.collect();
    documented.sort_unstable();
    assert_eq!(documented, rules);
}

#[test]
fn the_documented_template_holds_the_hints_and_lacks_every_required_section() {
    let yaml = DOCUMENTED.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let template: Postmortem = serde_saphyr::from_str(yaml).unwrap();
    for section in &SECTIONS {
        assert_eq!(
            (section.text)(&template.spec).map(String::as_str),
            Some(section.hint),
            "{}",
            section.title
        );
    }
    let missing: Vec<_> = lint(&template).iter().filter(|f| f.fails()).map(|f| f.message.clone()).collect();
    let required: Vec<_> = SECTIONS.iter().filter(|s| s.required).map(|s| s.title).collect();
    assert_eq!(missing, required);
}
