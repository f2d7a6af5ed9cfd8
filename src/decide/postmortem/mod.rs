//! The postmortem: what is known when it is drafted, what it still lacks, who reviewed it, when it is due, who is
//! reminded of what.
//!
//! Human text stands in spec and stays as it is; everything here is worked out for status. A postmortem that lacks
//! something is reported as incomplete and never refused.

mod action_items;
mod blameless;
mod bounds;
mod deliveries;
mod lint;
mod news;
mod record;
mod reminders;
mod review;
mod sections;

use super::{
    conditions::{Conditions, clip, one_line, whole_seconds},
    outbox::Outcome,
};
use crate::api::{
    ConditionStatus::{False, True},
    Incident, Postmortem, PostmortemStatus, ReviewRefusal, Stage,
};
use crate::config::{ChannelAudience, PostmortemDeadline, Settings};
use action_items::Deadlines;
use k8s_openapi::jiff::Timestamp;
use review::{Lacks, Verdict};

pub use action_items::{due_date, is_open};
pub(crate) use lint::is_web_address;
pub use lint::{Finding, Level, lint};
pub use news::{EXPORT_REFUSED, News, news};
pub use record::{
    Span, began, draft, durations, expected_uid, in_prose, in_words, is_about, known_durations, snapshot,
    span,
};
pub use sections::{SECTIONS, Section, Written, is_placeholder, written};

/// Most entries of a list in status; the schema's maximum.
const MAX_LISTED: usize = 32;
/// Longest entry of such a list; the schema's maximum.
const MAX_ENTRY: usize = 512;

/// What is seen of a postmortem.
pub struct Observed<'a> {
    /// The postmortem.
    pub postmortem: &'a Postmortem,
    /// Its incident, while that exists.
    pub incident: Option<&'a Incident>,
    /// Whether the incident is there whose record stands in the status.
    pub recorded_is_there: bool,
    /// Names of the postmortems that are about the same incident, this one among them; the incident's own comes first.
    pub namesakes: &'a [String],
    /// Whether the API server vouches for the authors of requests.
    pub signed: bool,
    /// What became of messages to channels since the status was written.
    pub outcomes: &'a [(ChannelAudience, Outcome)],
    /// The configuration.
    pub settings: &'a Settings,
}

/// The status as it should be. The place of the Markdown is added by who writes it.
pub fn decide(seen: &Observed<'_>, now: Timestamp) -> PostmortemStatus {
    let settings = seen.settings;
    let mut status = seen.postmortem.status.clone().unwrap_or_default();
    status.observed_generation = seen.postmortem.metadata.generation;
    status.state = Some(seen.postmortem.spec.state.unwrap_or_default());
    let other = take_over(seen, &mut status, now).into_iter().chain(namesakes(seen)).collect::<Vec<_>>();
    // From here on the postmortem counts with the record that was just taken over.
    let mut postmortem = seen.postmortem.clone();
    postmortem.status = Some(status.clone());
    status.durations = Some(known_durations(&postmortem)).filter(|d| *d != Default::default());
    let severity = status.incident.as_ref().and_then(|i| i.severity);
    let found = lint::findings(&postmortem, severity, settings);
    let (lacking, warnings): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.fails());
    status.missing_count = i32::try_from(lacking.len()).ok();
    status.missing_sections = listed(lacking.iter().map(|f| f.in_status()).collect());
    status.warnings = listed(other.into_iter().chain(warnings.iter().map(|f| f.in_status())).collect());
    let items = &seen.postmortem.spec.action_items;
    let open = items.iter().filter(|i| action_items::is_open(i)).count();
    status.open_action_items = i32::try_from(open).ok();
    let deadlines = Deadlines::new(&seen.postmortem.spec, Some(&status), settings);
    status.overdue_action_items = action_items::overdue(items, &deadlines, settings.calendar.date(now));
    status.overdue_action_items.truncate(100);
    status.reminders = reminders::reminders(items, &deadlines, &status.reminders, settings, now);
    let deadline = settings.severity(severity).postmortem;
    let resolved = status.incident.as_ref().and_then(|i| i.resolved_time.as_ref());
    let due = deadline.zip(resolved).and_then(|(deadline, from)| due(deadline, from.0, settings));
    status.due_time = due.map(whole_seconds);
    let lacks_section = lacking.iter().any(|f| f.rule == "section");
    conditions(seen, &mut status, lacks_section, now);
    status.warnings.extend(review::unnamed_reviewer(&seen.postmortem.spec, &status));
    status.warnings.truncate(MAX_LISTED);
    deliveries::deliveries(seen, &mut status, now);
    status
}

/// When to look again if nothing happens before: the review or an action item becomes overdue, or a reminder is due.
pub fn wake(seen: &Observed<'_>, status: &PostmortemStatus, now: Timestamp) -> Option<Timestamp> {
    let calendar = &seen.settings.calendar;
    let open = seen.postmortem.spec.action_items.iter().filter(|i| action_items::is_open(i));
    let deadlines = Deadlines::new(&seen.postmortem.spec, Some(status), seen.settings);
    let overdue = open.filter_map(|i| calendar.at_hour(deadlines.of(i)?.tomorrow().ok()?, 0));
    let review = status.due_time.as_ref().map(|t| t.0);
    let items = &seen.postmortem.spec.action_items;
    let reminder = reminders::next_reminder(items, &deadlines, seen.settings, now);
    overdue.chain(review).chain(reminder).filter(|at| *at > now).min()
}

/// While the incident exists and is resolved its record is taken over; afterwards the last one stays. Answers what
/// is to be said about a record or an incident that this is not about.
fn take_over(seen: &Observed<'_>, status: &mut PostmortemStatus, now: Timestamp) -> Option<String> {
    let spec = &seen.postmortem.spec;
    if let Some(recorded) = status.incident.as_ref().filter(|recorded| record::is_of_another(recorded, spec))
    {
        // What nobody could get back is not thrown away for a name that may be mistyped.
        if !seen.recorded_is_there && seen.incident.is_none() {
            let uid = recorded.uid.as_deref().unwrap_or("unknown");
            let name = one_line(&recorded.name, 253);
            return Some(format!(
                "spec.incidentRef: the record in the status is that of incident {name} (uid {uid}), which is gone; \
                 it stays until an incident is named that is there"
            ));
        }
        (status.incident, status.durations) = (None, None);
        status.timeline.clear();
        review::withdraw(status, ReviewRefusal::AnotherIncident, now);
    }
    let (incident, record) = seen.incident.and_then(|i| i.status.as_ref().map(|s| (i, s)))?;
    let (name, uid) = (incident.metadata.name.as_deref().unwrap_or_default(), incident.metadata.uid.as_ref());
    if !record::is_about_with(spec, Some(status), name, uid, began(incident)) {
        return Some(format!(
            "spec.incidentRef: the incident of this name is another one, which this is not about; if it is, set \
             spec.incidentRef.uid to {}",
            uid.map_or("its uid", String::as_str)
        ));
    }
    if record.milestones.resolved_time.is_some() {
        status.incident = Some(snapshot(incident, record));
        status.timeline.clone_from(&record.timeline);
        status.durations = Some(durations(&record.milestones));
    }
    // One that knows its postmortem was resolved when that was drafted, or goes on again.
    let reopened = record.milestones.resolved_time.is_none() && record.postmortem_ref.is_some();
    if reopened && let Some(took) = &mut status.durations {
        took.resolve_seconds = None;
    }
    // Of what goes on again, or was no incident, no review is due.
    if (reopened || record.stage == Some(Stage::Cancelled))
        && let Some(known) = &mut status.incident
    {
        known.resolved_time = None;
    }
    None
}

/// What is to be said when several postmortems are about one incident: nothing is refused, and people are told which
/// one counts.
fn namesakes(seen: &Observed<'_>) -> Option<String> {
    let name = seen.postmortem.metadata.name.as_deref()?;
    let (first, others) = seen.namesakes.split_first()?;
    if others.is_empty() || !seen.namesakes.iter().any(|namesake| namesake == name) {
        return None;
    }
    Some(if first == name {
        let others = clip(&others.join(", "), MAX_ENTRY / 2);
        format!(
            "spec.incidentRef: {others} names the same incident, too; this postmortem is the one that counts for it"
        )
    } else {
        format!(
            "spec.incidentRef: the postmortem that counts for this incident is {first}: merge this one into it"
        )
    })
}

/// What fits into a list of the status; the last entry says how many more there are.
fn listed(mut entries: Vec<String>) -> Vec<String> {
    let more = entries.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        entries.truncate(MAX_LISTED - 1);
        entries.push(format!("and {} more", more + 1));
    }
    entries.iter().map(|entry| clip(entry, MAX_ENTRY)).collect()
}

fn conditions(seen: &Observed<'_>, status: &mut PostmortemStatus, lacks_section: bool, now: Timestamp) {
    let missing = status.missing_sections.join("; ");
    let complete = status.missing_sections.is_empty();
    let lacks = match (complete, lacks_section) {
        (true, _) => Lacks::Nothing,
        (false, false) => Lacks::Details,
        (false, true) => Lacks::Sections,
    };
    let verdict = review::review(seen, status, lacks, now);
    let overdue = verdict != Verdict::Reviewed && status.due_time.as_ref().is_some_and(|due| due.0 <= now);
    let due = status.due_time.as_ref().map(|t| t.0.to_string());
    let (reviewed, reviewed_reason, reviewed_message) = reviewed(verdict, status, &missing);
    let (done, done_reason, done_message) = action_items_done(seen, status);
    let mut c = Conditions::new(&mut status.conditions, seen.postmortem.metadata.generation, now);
    match complete {
        true => c.set("Complete", True, "Complete", "every required section is there"),
        false => c.set("Complete", False, "SectionsMissing", format!("missing: {missing}")),
    }
    c.set("Reviewed", if reviewed { True } else { False }, reviewed_reason, reviewed_message);
    c.set("ActionItemsDone", if done { True } else { False }, done_reason, done_message);
    match (overdue, due) {
        (true, Some(due)) => c.set("Overdue", True, "Overdue", format!("the review was due at {due}")),
        (false, Some(due)) => c.set("Overdue", False, "InTime", format!("the review is due at {due}")),
        (_, None) => c.set("Overdue", False, "NoDeadline", "there is no deadline"),
    }
    c.set("Stalled", False, "Settled", "nothing is in the way");
    c.set("Ready", True, "Settled", "this generation is observed");
}

fn reviewed(verdict: Verdict, status: &PostmortemStatus, missing: &str) -> (bool, &'static str, String) {
    let last = status.review.as_ref();
    let by = last.and_then(|r| r.by.as_ref()).map(|by| format!(" by {by}")).unwrap_or_default();
    match verdict {
        Verdict::Reviewed => (true, "Reviewed", format!("it is complete and was reviewed{by}")),
        Verdict::NotStated => match last {
            Some(review) => {
                let message = format!(
                    "it was reviewed{by} at {}, and its state is another one now: set spec.state to Reviewed when it is reviewed again",
                    review.time.0
                );
                (false, "Withdrawn", message)
            }
            None => (false, "NotReviewed", "set spec.state to Reviewed when it is reviewed".into()),
        },
        Verdict::Incomplete => {
            let again = match status.review_refused {
                Some(_) => {
                    "; once it is complete, set its state to InReview and back: nobody can have reviewed what is still to be written"
                }
                None => "",
            };
            (false, "Incomplete", format!("its state is Reviewed, but it lacks: {missing}{again}"))
        }
        Verdict::Refused(refusal) => {
            let (reason, why) = match refusal {
                ReviewRefusal::Incomplete => {
                    ("ReviewedIncomplete", "its state was set to Reviewed before all of it was written")
                }
                ReviewRefusal::OwnerMissing => {
                    ("OwnerMissing", "its state was set to Reviewed while nobody owned it")
                }
                ReviewRefusal::BeforeResolution => {
                    ("ReviewedBefore", "it was reviewed before the incident was resolved")
                }
                ReviewRefusal::AnotherIncident => {
                    ("ReviewedForAnother", "it was reviewed when it was about another incident")
                }
            };
            (false, reason, format!("{why}: set it to InReview, and to Reviewed when it is reviewed again"))
        }
        Verdict::WithoutOwner => {
            let message = "it has no owner, so nobody is somebody else: set spec.owner, then its state to InReview and back";
            (false, "OwnerMissing", message.into())
        }
        Verdict::ByOwner(owner) => {
            let message = format!(
                "{owner} owns it and set its state to Reviewed: somebody else must review it and set spec.state to Reviewed (set it to InReview first)"
            );
            (false, "ReviewedByOwner", message)
        }
        Verdict::ByNobody => {
            let message =
                "the API server does not say who set spec.state to Reviewed: set it to InReview and back";
            (false, "ReviewerUnknown", message.into())
        }
    }
}

fn action_items_done(seen: &Observed<'_>, status: &PostmortemStatus) -> (bool, &'static str, String) {
    let severity = status.incident.as_ref().and_then(|i| i.severity);
    let lacks = action_items::lacks_prevention(&seen.postmortem.spec.action_items, severity);
    let prevent = "no action item is of type Prevent, and a SEV1 wants at least one";
    match status.open_action_items.unwrap_or_default() {
        0 if lacks => (false, "NothingPrevents", prevent.into()),
        0 if seen.postmortem.spec.action_items.is_empty() => {
            (true, "NoneRecorded", "no action item is recorded".into())
        }
        0 => (true, "NoneOpen", "no action item is open".into()),
        open => {
            let mut message = if open == 1 {
                "1 action item is open".to_owned()
            } else {
                format!("{open} action items are open")
            };
            if !status.overdue_action_items.is_empty() {
                message += &format!("; overdue: {}", status.overdue_action_items.join(", "));
            }
            if lacks {
                message += &format!("; {prevent}");
            }
            (false, "Open", message)
        }
    }
}

/// When a review is due that is counted from `from`.
fn due(deadline: PostmortemDeadline, from: Timestamp, settings: &Settings) -> Option<Timestamp> {
    match deadline {
        PostmortemDeadline::CalendarDays(days) => settings.calendar.after_days(from, days),
        PostmortemDeadline::BusinessDays(days) => settings.calendar.after_business_days(from, days),
    }
}

#[cfg(test)]
mod tests;
