//! The defaults: the response playbook's.
//!
//! The playbook's template says "next update in 15m"; its rules for the public are a first post within 5 minutes, the
//! scope within 5 more, then an update at least every 20 minutes for 2 hours. PagerDuty's response guide gives the
//! deadlines of postmortems (3 calendar days for SEV-1, 5 business days for SEV-2).

use super::{PostmortemDeadline, SeverityRules};
use crate::api::{Priority, Role, Severity};
use std::{sync::LazyLock, time::Duration};

const fn minutes(minutes: u64) -> Option<Duration> {
    Some(Duration::from_secs(minutes * 60))
}

static SERIOUS: LazyLock<SeverityRules> = LazyLock::new(|| SeverityRules {
    internal_update: minutes(15),
    public_first_post: minutes(5),
    public_scope: minutes(5),
    public_update: minutes(20),
    public_update_for: minutes(120),
    executives_update: minutes(30),
    document_refresh: minutes(240),
    required_roles: vec![Role::IncidentCommander, Role::CommunicationsLead, Role::OperationsLead],
    postmortem: Some(PostmortemDeadline::CalendarDays(3)),
});

static SEV2: LazyLock<SeverityRules> = LazyLock::new(|| SeverityRules {
    postmortem: Some(PostmortemDeadline::BusinessDays(5)),
    ..SERIOUS.clone()
});

static SEV3: LazyLock<SeverityRules> = LazyLock::new(|| SeverityRules {
    internal_update: minutes(60),
    executives_update: None,
    required_roles: vec![Role::IncidentCommander],
    postmortem: None,
    ..SERIOUS.clone()
});

static MINOR: LazyLock<SeverityRules> = LazyLock::new(|| SeverityRules {
    internal_update: None,
    public_first_post: None,
    public_scope: None,
    public_update: None,
    public_update_for: None,
    executives_update: None,
    document_refresh: None,
    required_roles: vec![Role::IncidentCommander],
    postmortem: None,
});

/// What a severity asks for.
pub fn severity(severity: Severity) -> &'static SeverityRules {
    match severity {
        Severity::SEV1 => &SERIOUS,
        Severity::SEV2 => &SEV2,
        Severity::SEV3 => &SEV3,
        Severity::SEV4 | Severity::SEV5 => &MINOR,
    }
}

/// Days within which an action item is to be done.
pub fn action_item_days(priority: Priority) -> Option<u8> {
    match priority {
        Priority::P0 => Some(7),
        Priority::P1 => Some(30),
        Priority::P2 => Some(90),
        Priority::P3 => None,
    }
}

/// Requests that a channel takes in a minute.
pub const CHANNEL_PER_MINUTE: u16 = 30;
/// Longest time that a channel has for its answer.
pub const CHANNEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Address of Statuspage's API.
pub const STATUSPAGE_URL: &str = "https://api.statuspage.io";
