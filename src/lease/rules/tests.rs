use super::*;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};

fn lease(holder: &str, version: u64) -> Lease {
    Lease {
        metadata: ObjectMeta { resource_version: Some(version.to_string()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(at(0)),
            ..LeaseSpec::default()
        }),
    }
}

fn at(second: i64) -> MicroTime {
    MicroTime(Timestamp::from_second(1_000_000 + second).expect("valid"))
}

fn view() -> (View, Instant) {
    (View::new("me", Times::default()), Instant::now())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn somebody_elses_lease_is_taken_once_it_has_not_changed_for_as_long_as_it_says() {
    let (mut view, start) = view();
    view.observe(Some(lease("other", 1)), start);
    assert_eq!(view.next_move(false, start + 14 * SECOND), Move::Wait);
    view.observe(Some(lease("other", 1)), start + 14 * SECOND);
    assert_eq!(view.next_move(false, start + 15 * SECOND), Move::TakeOver, "an unchanged one counts on");
    view.observe(Some(lease("other", 2)), start + 15 * SECOND);
    assert_eq!(
        view.next_move(false, start + 29 * SECOND),
        Move::Wait,
        "a renewal counts from when it was seen"
    );
    assert_eq!(view.next_move(true, start + 29 * SECOND), Move::Wait, "whoever led gives way to it");
    // Its own clock plays no part: what it wrote as the time is not even read.
    let mut odd = lease("other", 3);
    odd.spec.as_mut().unwrap().renew_time = Some(at(-3_600));
    view.observe(Some(odd), start + 30 * SECOND);
    assert_eq!(view.next_move(false, start + 44 * SECOND), Move::Wait);
}

#[test]
fn a_lease_that_was_given_back_is_taken_at_once_and_one_that_was_emptied_by_hand_is_not() {
    let (mut holder, start) = view();
    holder.observe(None, start);
    let mut written = holder.wanted(at(1));
    written.metadata.resource_version = Some("1".to_owned());
    holder.observe(Some(written), start);
    let mut given = holder.given_back().expect("it is ours");
    given.metadata.resource_version = Some("2".to_owned());

    let mut other = View::new("other", Times::default());
    other.observe(Some(lease("me", 1)), start);
    other.observe(Some(given), start);
    assert_eq!(other.next_move(false, start), Move::TakeOver);
    let taken = other.wanted(at(2));
    assert!(!taken.metadata.annotations.unwrap_or_default().contains_key(GIVEN_BACK_ANNOTATION));

    other.observe(Some(lease("", 3)), start);
    assert_eq!(other.next_move(false, start + 14 * SECOND), Move::Wait);
    assert_eq!(other.next_move(false, start + 15 * SECOND), Move::TakeOver);
    assert_eq!(other.next_move(true, start), Move::TakeOver, "the holder puts it right at once");
}

#[test]
fn a_lease_that_is_deleted_is_made_anew_by_its_holder_and_by_others_only_after_its_duration() {
    let (mut view, start) = view();
    view.observe(None, start);
    assert_eq!(view.next_move(false, start), Move::Create, "nobody has led yet");
    view.observe(Some(lease("other", 1)), start);
    view.observe(None, start + SECOND);
    view.observe(None, start + 2 * SECOND);
    assert_eq!(view.next_move(false, start + 15 * SECOND), Move::Wait);
    assert_eq!(view.next_move(false, start + 16 * SECOND), Move::Create);
    assert_eq!(view.next_move(true, start + 2 * SECOND), Move::Create);
}

#[test]
fn a_lease_that_names_us_is_ours_only_if_we_wrote_it_or_it_did_when_we_began() {
    let (mut started_again, start) = view();
    started_again.observe(Some(lease("me", 1)), start);
    assert_eq!(started_again.next_move(false, start), Move::Renew);

    let (mut standby, _) = view();
    standby.observe(Some(lease("other", 1)), start);
    standby.observe(Some(lease("me", 2)), start);
    assert_eq!(standby.next_move(false, start + 14 * SECOND), Move::Wait, "a person wrote our name into it");
    assert_eq!(standby.next_move(false, start + 15 * SECOND), Move::TakeOver);

    // The answers to some writes were lost, and still the one that arrived is known as ours.
    let mut written = standby.wanted(at(7));
    standby.wanted(at(8));
    written.metadata.resource_version = Some("3".to_owned());
    standby.observe(Some(written), start + 16 * SECOND);
    assert_eq!(standby.next_move(false, start + 16 * SECOND), Move::Renew);
}

#[test]
fn what_somebody_wrote_into_a_lease_holds_nobody_up_for_long() {
    let (mut view, start) = view();
    let mut odd = lease("nobody", 1);
    odd.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
    odd.spec.as_mut().unwrap().lease_transitions = Some(i32::MAX);
    view.observe(Some(odd), start);
    assert_eq!(view.next_move(false, start + LONGEST - SECOND), Move::Wait);
    assert_eq!(view.next_move(false, start + LONGEST), Move::TakeOver);
    assert_eq!(view.wanted(at(1)).spec.unwrap().lease_transitions, Some(i32::MAX));
    let mut negative = lease("nobody", 2);
    negative.spec.as_mut().unwrap().lease_duration_seconds = Some(-1);
    view.observe(Some(negative), start);
    assert_eq!(view.next_move(false, start + 14 * SECOND), Move::Wait);
    view.observe(Some(Lease { spec: None, ..lease("", 4) }), start);
    assert_eq!(view.next_move(false, start + 15 * SECOND), Move::TakeOver);
}

#[test]
fn a_renewal_keeps_what_others_wrote_beside_the_holder() {
    let (mut view, start) = view();
    let mut theirs = lease("me", 1);
    theirs.metadata.labels = Some([("team".to_owned(), "sre".to_owned())].into());
    view.observe(Some(theirs), start);
    let renewed = view.wanted(at(3));
    assert_eq!(renewed.metadata.labels.unwrap()["team"], "sre");
    assert_eq!(renewed.metadata.resource_version.as_deref(), Some("1"), "it is written on what was seen");
}

#[test]
fn times_that_would_let_two_lead_are_refused() {
    let times = |lease, renew, retry| {
        let millis = Duration::from_millis;
        Times { lease_duration: millis(lease), renew_deadline: millis(renew), retry_period: millis(retry) }
            .checked()
    };
    assert!(Times::default().checked().is_ok() && times(3000, 2000, 500).is_ok());
    assert!(times(10_000, 10_000, 2000).unwrap_err().contains("must not be longer"));
    assert!(times(1500, 1000, 200).unwrap_err().contains("whole seconds"));
    assert!(times(0, 0, 0).unwrap_err().contains("whole seconds"));
    assert!(times(301_000, 10_000, 2000).unwrap_err().contains("at most"));
    assert!(times(15_000, 3000, 2000).unwrap_err().contains("half"));
    assert!(times(15_000, 10_000, 50).unwrap_err().contains("100ms"));
}
