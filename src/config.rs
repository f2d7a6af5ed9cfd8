//! What may be configured, with the response playbook's values as defaults.

mod calendar;

use crate::api::{Priority, Severity};
use std::time::Duration;

pub use calendar::Calendar;

/// The operator's configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Business days and time zone, for the deadlines of postmortems and action items.
    pub calendar: Calendar,
}

/// What a severity asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeverityRules {
    /// Time between internal updates; `None` when none are due.
    pub internal_update: Option<Duration>,
    /// Whether a postmortem is required, and by when after resolution.
    pub postmortem: Option<PostmortemDeadline>,
}

/// When a postmortem is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostmortemDeadline {
    /// So many days of the calendar.
    CalendarDays(u8),
    /// So many business days; the calendar says which those are.
    BusinessDays(u8),
}

const MINUTE: u64 = 60;

impl Settings {
    /// The rules of a severity; while none is stated, those of SEV3 hold.
    ///
    /// The playbook's template says "next update in 15m"; PagerDuty's response guide gives the deadlines of
    /// postmortems (3 calendar days for SEV-1, 5 business days for SEV-2).
    pub fn severity(&self, severity: Option<Severity>) -> SeverityRules {
        let every = |minutes: u64| Some(Duration::from_secs(minutes * MINUTE));
        match severity.unwrap_or(Severity::SEV3) {
            Severity::SEV1 => SeverityRules {
                internal_update: every(15),
                postmortem: Some(PostmortemDeadline::CalendarDays(3)),
            },
            Severity::SEV2 => SeverityRules {
                internal_update: every(15),
                postmortem: Some(PostmortemDeadline::BusinessDays(5)),
            },
            Severity::SEV3 => SeverityRules { internal_update: every(60), postmortem: None },
            Severity::SEV4 | Severity::SEV5 => SeverityRules { internal_update: None, postmortem: None },
        }
    }

    /// By how many days after the end of the incident an action item of this priority is to be done; `None` when
    /// it may take as long as it takes.
    pub fn action_item_days(&self, priority: Priority) -> Option<u8> {
        match priority {
            Priority::P0 => Some(7),
            Priority::P1 => Some(30),
            Priority::P2 => Some(90),
            Priority::P3 => None,
        }
    }
}
