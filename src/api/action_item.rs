//! Action items of a postmortem.

use super::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that is done so that it does not happen again.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct ActionItem {
    /// Name of the item within the postmortem.
    #[schemars(length(min = 1, max = 63))]
    pub id: String,
    /// What is to be done.
    #[schemars(length(min = 1, max = 512))]
    pub title: String,
    /// What kind of improvement it is.
    #[serde(rename = "type")]
    pub type_: Option<ActionItemType>,
    /// Who does it.
    #[schemars(length(min = 1, max = 253))]
    pub owner: Option<String>,
    /// By which day (YYYY-MM-DD).
    #[schemars(length(max = 10), regex(pattern = "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"))]
    pub due_date: Option<String>,
    /// How urgent it is.
    pub priority: Option<Priority>,
    /// Open (the default), InProgress, Done or WontFix.
    #[serde(default)]
    pub state: ActionItemState,
    /// Why it is not done, with WontFix.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: Option<String>,
    /// Address of the ticket.
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
}

/// What kind of improvement an action item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ActionItemType {
    /// It cannot happen again.
    Prevent,
    /// It hurts less.
    Mitigate,
    /// It is found earlier.
    Detect,
    /// We work better together.
    Process,
}

/// How urgent an action item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Priority {
    /// At once.
    P0,
    /// Next.
    P1,
    /// Soon.
    P2,
    /// Some time.
    P3,
}

/// How far an action item is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ActionItemState {
    /// Not begun.
    #[default]
    Open,
    /// Begun.
    InProgress,
    /// Done.
    Done,
    /// Will not be done.
    WontFix,
}

/// A reminder of an open action item. The same id, dueDate and scheduledTime are the same reminder.
#[serde_with::skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct ActionItemReminder {
    /// Id of the action item.
    #[schemars(length(min = 1, max = 63))]
    pub id: String,
    /// ActionItemDueSoon, ActionItemDue or ActionItemOverdue.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// The day by which the item was to be done when this was told.
    #[schemars(length(max = 10))]
    pub due_date: String,
    /// Who was to do it.
    #[schemars(length(max = 253))]
    pub owner: Option<String>,
    /// The moment for which the reminder was planned. After a pause it is told later, and once.
    pub scheduled_time: Time,
    /// When it was told.
    pub time: Time,
    /// What was told.
    #[schemars(length(max = 1024))]
    pub message: String,
}
