//! Who is reminded of which action item, and when: two days before an open item is due, on the day, and every week
//! from then on, at nine in the morning in the time zone of the calendar.
//!
//! The last reminder of each item is kept in status. That makes every one of them told once, whatever restarts, and
//! after a long pause one an item and not one a week. Whoever delivers them elsewhere finds them there, too.

use super::action_items::{Deadlines, is_open};
use crate::api::{ActionItem, ActionItemReminder};
use crate::config::Settings;
use crate::decide::conditions::{clip, one_line, whole_seconds};
use k8s_openapi::jiff::{Timestamp, ToSpan, civil::Date};
use std::collections::BTreeSet;

/// Days before the due date on which the first reminder is told.
const DAYS_BEFORE: i32 = 2;
/// Days between the reminders of an item that is overdue.
const DAYS_BETWEEN: i32 = 7;
/// Hour of the day, in the time zone of the calendar, at which reminders are told.
const HOUR: i8 = 9;
/// Most reminders in status; the schema's maximum, and that of action items.
const MAX_REMINDERS: usize = 100;

/// The last reminder of each open item that is due by now: the one that is known, or a new one.
pub(super) fn reminders(
    items: &[ActionItem],
    deadlines: &Deadlines<'_>,
    known: &[ActionItemReminder],
    settings: &Settings,
    now: Timestamp,
) -> Vec<ActionItemReminder> {
    let mut ids = BTreeSet::new();
    let open = items.iter().filter(|item| is_open(item) && ids.insert(item.id.as_str()));
    let all = open.filter_map(|item| {
        let due = deadlines.of(item)?;
        let due_date = due.to_string();
        let scheduled = whole_seconds(last_moment(due, settings, now)?);
        let days_left = days_between(settings.calendar.date(now), due);
        let same = |r: &&ActionItemReminder| {
            // An item that was written on the day, before the hour, was told of with these words already.
            let is_told = r.scheduled_time >= scheduled || days_left == 0 && r.reason == reason(0);
            r.id == item.id && r.due_date == due_date && is_told
        };
        Some(known.iter().find(same).cloned().unwrap_or_else(|| ActionItemReminder {
            id: item.id.clone(),
            reason: reason(days_left).to_owned(),
            due_date: due_date.clone(),
            owner: item.owner.clone(),
            scheduled_time: scheduled,
            time: whole_seconds(now),
            message: message(item, due, days_left),
        }))
    });
    all.take(MAX_REMINDERS).collect()
}

/// When the next reminder is due.
pub(super) fn next_reminder(
    items: &[ActionItem],
    deadlines: &Deadlines<'_>,
    settings: &Settings,
    after: Timestamp,
) -> Option<Timestamp> {
    let open = items.iter().filter(|item| is_open(item));
    open.filter_map(|item| {
        let due = deadlines.of(item)?;
        let weeks = weeks_since(due, settings.calendar.date(after));
        let days = [-DAYS_BEFORE, 0].into_iter().chain((weeks..weeks + 2).map(|n| n * DAYS_BETWEEN));
        days.filter_map(|days| moment(due, days, settings)).filter(|at| *at > after).min()
    })
    .min()
}

/// The last moment by then at which a reminder is due.
fn last_moment(due: Date, settings: &Settings, until: Timestamp) -> Option<Timestamp> {
    let weeks = weeks_since(due, settings.calendar.date(until));
    let days = [weeks * DAYS_BETWEEN, (weeks - 1).max(0) * DAYS_BETWEEN, 0, -DAYS_BEFORE];
    days.into_iter().filter_map(|days| moment(due, days, settings)).find(|at| *at <= until)
}

/// Whole weeks from the due date on; none before it.
fn weeks_since(due: Date, today: Date) -> i32 {
    (days_between(due, today) / DAYS_BETWEEN).max(0)
}

fn days_between(from: Date, to: Date) -> i32 {
    to.since(from).map_or(0, |passed| passed.get_days())
}

fn moment(due: Date, days: i32, settings: &Settings) -> Option<Timestamp> {
    settings.calendar.at_hour(due.checked_add(days.days()).ok()?, HOUR)
}

fn reason(days_left: i32) -> &'static str {
    match days_left {
        1.. => "ActionItemDueSoon",
        0 => "ActionItemDue",
        _ => "ActionItemOverdue",
    }
}

fn message(item: &ActionItem, due: Date, days_left: i32) -> String {
    let id = one_line(&item.id, 63);
    let whose = match item.owner.as_deref().map(|owner| one_line(owner, 253)).filter(|o| !o.is_empty()) {
        Some(owner) => format!("action item {id} of {owner}"),
        None => format!("action item {id}, which nobody owns,"),
    };
    let when = match days_left {
        2.. => format!("is due in {days_left} days, on {due}"),
        1 => format!("is due tomorrow, {due}"),
        0 => format!("is due today, {due}"),
        -1 => format!("was due yesterday, {due}"),
        _ => format!("was due on {due}, {} days ago", -days_left),
    };
    clip(&format!("{whose} {when}: {}", one_line(&item.title, 512)), 1024)
}
