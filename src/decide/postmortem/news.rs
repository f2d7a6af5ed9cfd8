//! What is told about a postmortem as Events: what differs between the status before and after.

use crate::api::{
    ActionItemReminder,
    ConditionStatus::{self, True},
    PostmortemStatus,
};
use crate::decide::conditions::{clip, find, status as condition};

/// Reminders that are told one by one; of what comes at the same time and is more, one sums up.
const TOLD_ALONE: usize = 5;
/// Longest text of an Event, in characters.
const MAX_MESSAGE: usize = 1000;

/// Reason of `Ready` while the Markdown is refused a place.
pub const EXPORT_REFUSED: &str = "ExportRefused";

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// One word.
    pub reason: String,
    /// What happened, in words.
    pub message: String,
    /// Whether somebody should look.
    pub warning: bool,
}

/// What happened between two states.
pub fn news(before: Option<&PostmortemStatus>, after: &PostmortemStatus) -> Vec<News> {
    let was = |type_| before.map_or(ConditionStatus::Unknown, |b| condition(&b.conditions, type_));
    let turned = |type_| find(&after.conditions, type_).filter(|c| c.status == True && was(type_) != True);
    let mut found = Vec::new();
    if let Some(overdue) = turned("Overdue") {
        found.push(News {
            reason: "PostmortemOverdue".into(),
            message: overdue.message.clone(),
            warning: true,
        });
    }
    // One that was interrupted by an action item that lacked something is the same review.
    let is_known = before.is_some_and(|b| b.review.is_some() && b.review == after.review);
    if let Some(reviewed) = turned("Reviewed").filter(|_| !is_known) {
        found.push(News { reason: "Reviewed".into(), message: reviewed.message.clone(), warning: false });
    }
    let refused = |s: &PostmortemStatus| {
        let ready = find(&s.conditions, "Ready").filter(|c| c.reason == EXPORT_REFUSED);
        ready.map(|c| c.message.clone())
    };
    if let Some(message) = refused(after).filter(|_| before.and_then(refused).is_none()) {
        found.push(News {
            reason: EXPORT_REFUSED.into(),
            message: clip(&message, MAX_MESSAGE),
            warning: true,
        });
    }
    let withdrawn = |s: &PostmortemStatus| s.review.as_ref().is_some_and(|r| r.withdrawn_time.is_some());
    if withdrawn(after) && !before.is_some_and(withdrawn) {
        let message = find(&after.conditions, "Reviewed").map(|c| c.message.clone()).unwrap_or_default();
        found.push(News { reason: "ReviewWithdrawn".into(), message, warning: true });
    }
    let known = before.map(|b| b.reminders.as_slice()).unwrap_or_default();
    let mut new: Vec<_> = after.reminders.iter().filter(|r| !known.contains(r)).collect();
    // What is late for the longest time comes first.
    new.sort_by(|a, b| (&a.due_date, &a.id).cmp(&(&b.due_date, &b.id)));
    found.extend(reminders(&new));
    found
}

fn reminders(new: &[&ActionItemReminder]) -> Vec<News> {
    let alone = if new.len() > TOLD_ALONE { TOLD_ALONE - 1 } else { new.len() };
    let (first, rest) = new.split_at(alone);
    let tell = |r: &&ActionItemReminder| News {
        reason: r.reason.clone(),
        message: r.message.clone(),
        warning: r.reason == "ActionItemOverdue",
    };
    let mut told: Vec<News> = first.iter().map(tell).collect();
    if !rest.is_empty() {
        let ids: Vec<_> = rest.iter().map(|r| r.id.as_str()).collect();
        let message = format!("{} more action items are due or overdue: {}", rest.len(), ids.join(", "));
        let warning = rest.iter().any(|r| r.reason == "ActionItemOverdue");
        told.push(News { reason: "ActionItemsDue".into(), message: clip(&message, MAX_MESSAGE), warning });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(value: Value) -> PostmortemStatus {
        serde_json::from_value(value).unwrap()
    }

    fn reminder(n: usize) -> Value {
        json!({"id": format!("i{n:02}"), "reason": "ActionItemOverdue", "dueDate": "2026-11-01",
            "scheduledTime": "2026-11-08T09:00:00Z", "time": "2026-11-08T09:00:00Z", "message": format!("item {n} is late")})
    }

    fn said(before: Option<Value>, after: Value) -> Vec<(String, String)> {
        let found = news(before.map(status).as_ref(), &status(after));
        found.into_iter().map(|n| (n.reason, n.message)).collect()
    }

    fn conditions(type_: &str, is: &str) -> Value {
        json!({"conditions": [{"type": type_, "status": is, "reason": "R", "message": "says so",
            "lastTransitionTime": "2026-11-08T09:00:00Z"}]})
    }

    #[test]
    fn what_turned_is_told_once_and_what_stays_is_not() {
        for (type_, reason) in [("Overdue", "PostmortemOverdue"), ("Reviewed", "Reviewed")] {
            let told = [(reason.to_owned(), "says so".to_owned())];
            assert_eq!(said(None, conditions(type_, "True")), told);
            assert_eq!(said(Some(conditions(type_, "False")), conditions(type_, "True")), told);
            assert_eq!(said(Some(conditions(type_, "True")), conditions(type_, "True")), []);
            assert_eq!(said(Some(conditions(type_, "True")), conditions(type_, "False")), []);
        }
    }

    #[test]
    fn an_export_that_is_refused_is_told_once_however_often_it_is_tried_again() {
        let ready = |reason: &str, message: &str| {
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": "2026-11-08T09:00:00Z"}]})
        };
        let refused = ready("ExportRefused", "no right");
        let told = [("ExportRefused".to_owned(), "no right".to_owned())];
        assert_eq!(said(Some(ready("Settled", "x")), refused.clone()), told);
        assert_eq!(said(Some(refused.clone()), ready("ExportRefused", "other words")), []);
        assert_eq!(said(Some(refused), ready("Settled", "x")), []);
    }

    #[test]
    fn a_review_that_is_taken_back_is_told() {
        let mut reviewed = conditions("Reviewed", "False");
        reviewed["review"] = json!({"authenticated": false, "time": "2026-11-08T09:00:00Z"});
        let mut back = reviewed.clone();
        back["review"]["withdrawnTime"] = json!("2026-11-09T09:00:00Z");
        let told = said(Some(reviewed), back.clone());
        assert_eq!(told, [("ReviewWithdrawn".to_owned(), "says so".to_owned())]);
        assert_eq!(said(Some(back.clone()), back), []);
    }

    #[test]
    fn a_few_reminders_are_told_one_by_one_and_many_are_summed_up() {
        let all = |n: usize| json!({"reminders": (0..n).map(reminder).collect::<Vec<_>>()});
        assert_eq!(said(None, all(5)).len(), 5);
        assert_eq!(
            said(Some(all(5)), all(6)),
            [("ActionItemOverdue".to_owned(), "item 5 is late".to_owned())]
        );
        let many = said(None, all(100));
        assert_eq!(many.len(), 5);
        assert!(many[4].1.starts_with("96 more action items are due or overdue: i04, i05"), "{many:?}");
        assert_eq!(said(Some(all(100)), all(100)), []);
    }
}
