//! What may be configured, with the response playbook's values as defaults.
//!
//! [`file`] holds the types of the file, whose doc comments are its documentation; [`read`] checks a file and names
//! line, column and field of what is wrong with it. What the rules work with is [`Settings`], in which everything has
//! a value.

mod calendar;
mod channel;
pub mod defaults;
pub mod file;
mod networks;
mod read;
pub(crate) mod words;

use crate::api::{Priority, Role, Severity};
use crate::mitigation::scalable::Stated;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub use calendar::Calendar;
pub use channel::{Channel, ChannelAudience, ChannelType};
pub use networks::{Network, Outgoing};
pub use read::{Mistake, read};

/// The operator's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What each severity asks for.
    severities: BTreeMap<Severity, SeverityRules>,
    /// Days within which an action item of each priority is to be done.
    action_items: BTreeMap<Priority, Option<u8>>,
    /// Business days and time zone, for the deadlines of postmortems and action items.
    pub calendar: Calendar,
    /// Where messages go.
    pub channels: Vec<Channel>,
    /// Kinds that `scale` may change beside those that it knows.
    pub scalable_kinds: Vec<ScalableKind>,
    /// Where requests to channels may go.
    pub outgoing: Outgoing,
    /// Why the file that is there now is not in force, in words; `None` while it is.
    pub refused: Option<String>,
}

/// What a severity asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeverityRules {
    /// Time between internal updates; `None` when none are due.
    pub internal_update: Option<Duration>,
    /// By when after the declaration the public hears of it.
    pub public_first_post: Option<Duration>,
    /// How much later the public hears who and what is affected.
    pub public_scope: Option<Duration>,
    /// Time between updates for the public after that.
    pub public_update: Option<Duration>,
    /// For how long, from the first post, they are due; `None`: until the end.
    pub public_update_for: Option<Duration>,
    /// Time between updates for executives.
    pub executives_update: Option<Duration>,
    /// Longest time between refreshes of the incident document.
    pub document_refresh: Option<Duration>,
    /// Roles that somebody must hold.
    pub required_roles: Vec<Role>,
    /// By when after resolution a postmortem is due; `None` when none is required.
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

/// A kind with a scale subresource that `scale` may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalableKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural name, as in the address of the resource.
    pub plural: String,
    /// Where its number of replicas is, in dots, when that is not .spec.replicas.
    pub replicas_path: Option<String>,
}

impl ScalableKind {
    /// As the action scale takes it.
    pub fn stated(&self) -> Stated<'_> {
        Stated {
            group: &self.group,
            version: &self.version,
            kind: &self.kind,
            plural: &self.plural,
            replicas_path: self.replicas_path.as_deref(),
        }
    }
}

impl Settings {
    /// The rules of a severity; while none is stated, those of SEV3 hold.
    pub fn severity(&self, severity: Option<Severity>) -> &SeverityRules {
        let severity = severity.unwrap_or(Severity::SEV3);
        self.severities.get(&severity).unwrap_or_else(|| defaults::severity(severity))
    }

    /// By how many days after the end of the incident an action item of this priority is to be done; `None` when
    /// it may take as long as it takes.
    pub fn action_item_days(&self, priority: Priority) -> Option<u8> {
        self.action_items.get(&priority).copied().unwrap_or_else(|| defaults::action_item_days(priority))
    }

    /// The same, in force although the file that is there now is refused.
    pub fn but_refused(self, why: String) -> Settings {
        Settings { refused: Some(why), ..self }
    }

    /// Whether nobody knows which channels there are: the file is refused, and no other one was read before.
    pub fn lacks_channels(&self) -> bool {
        self.refused.is_some() && self.channels.is_empty()
    }

    /// Where this comes from, in words.
    pub fn origin(&self) -> &'static str {
        let plain = Settings { refused: None, ..self.clone() };
        if plain == Settings::default() { "the defaults are" } else { "what was read before stays" }
    }

    /// Every file that the configuration names, with the field that names it.
    pub fn files(&self) -> Vec<(String, &PathBuf)> {
        self.channels.iter().flat_map(Channel::files).collect()
    }
}

impl Default for Settings {
    /// The response playbook's.
    fn default() -> Self {
        Settings {
            severities: BTreeMap::new(),
            action_items: BTreeMap::new(),
            calendar: Calendar::default(),
            channels: Vec::new(),
            scalable_kinds: Vec::new(),
            outgoing: Outgoing::default(),
            refused: None,
        }
    }
}

#[cfg(test)]
mod tests;
