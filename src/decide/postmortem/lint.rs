//! What keeps a postmortem from being complete, and what a reviewer should look at.
//!
//! One list of findings serves both the status of the object and a check without a cluster.

use super::{
    action_items, blameless,
    sections::{SECTIONS, Written, is_placeholder, written},
};
use crate::api::{Postmortem, Severity};
use crate::config::Settings;
use crate::decide::conditions::one_line;
use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The API server would refuse it.
    Invalid,
    /// The postmortem is not complete without it.
    Missing,
    /// Worth a look; nothing waits for it.
    Warning,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The rule, in one word.
    pub rule: &'static str,
    /// Where, as a path such as `spec.actionItems[2].dueDate`.
    pub field: String,
    /// What, in words. With `Missing`: what is missing.
    pub message: String,
}

impl Finding {
    /// Whether a check fails for it.
    pub fn fails(&self) -> bool {
        self.level != Level::Warning
    }

    /// The finding in the words of the status.
    pub(super) fn in_status(&self) -> String {
        match (self.level, self.rule) {
            (Level::Missing, "section") => format!("{} ({})", self.message, self.field),
            (Level::Missing, _) => self.message.clone(),
            (Level::Invalid | Level::Warning, _) => format!("{}: {}", self.field, self.message),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Invalid => "invalid",
            Level::Missing => "missing",
            Level::Warning => "warning",
        };
        write!(f, "{}: {level}: {} [{}]", self.field, self.message, self.rule)
    }
}

/// Everything that can be found out about a postmortem without a cluster and without a clock, worst first.
pub fn lint(postmortem: &Postmortem) -> Vec<Finding> {
    let severity = postmortem.status.as_ref().and_then(|s| s.incident.as_ref()).and_then(|i| i.severity);
    findings(postmortem, severity, &Settings::default())
}

/// The findings, with the severity and the configuration that count.
pub(super) fn findings(
    postmortem: &Postmortem,
    severity: Option<Severity>,
    settings: &Settings,
) -> Vec<Finding> {
    let mut found = sections(postmortem);
    found.extend(action_items::findings(postmortem, severity, settings));
    found.extend(people(postmortem));
    found.extend(links(postmortem));
    found.extend(blameless::findings(postmortem));
    found.sort_by_key(|finding| finding.level);
    found
}

fn sections(postmortem: &Postmortem) -> Vec<Finding> {
    let spec = &postmortem.spec;
    let mut found = Vec::new();
    for section in &SECTIONS {
        let field = section.field.to_owned();
        match written((section.text)(spec).map(String::as_str), section.hint) {
            Written::No if section.required => {
                let message = section.title.to_owned();
                found.push(Finding { level: Level::Missing, rule: "section", field, message });
            }
            Written::Partly => {
                let message = format!("{} still holds a marker such as TODO", section.title);
                found.push(Finding { level: Level::Warning, rule: "marker", field, message });
            }
            Written::No | Written::Yes => {}
        }
    }
    let recorded = postmortem.status.as_ref().is_some_and(|s| !s.timeline.is_empty());
    if spec.timeline.iter().all(|entry| is_placeholder(&entry.message)) && !recorded {
        let (field, message) = ("spec.timeline".to_owned(), "Timeline".to_owned());
        found.push(match (&spec.incident_ref, &postmortem.status) {
            // As in a file in git: the record is kept in the cluster.
            (Some(incident), None) => {
                let message = format!("the timeline is that of incident {}", one_line(&incident.name, 253));
                Finding { level: Level::Warning, rule: "timeline", field, message }
            }
            _ => Finding { level: Level::Missing, rule: "section", field, message },
        });
    }
    found
}

fn people(postmortem: &Postmortem) -> Option<Finding> {
    let spec = &postmortem.spec;
    let (field, message) = match &spec.owner {
        None => ("spec.owner", "nobody is named as its owner"),
        Some(owner) if spec.reviewers.iter().all(|reviewer| reviewer == owner) => {
            ("spec.reviewers", "no reviewer other than the owner is named")
        }
        Some(_) => return None,
    };
    Some(Finding { level: Level::Warning, rule: "people", field: field.into(), message: message.into() })
}

fn links(postmortem: &Postmortem) -> Vec<Finding> {
    let spec = &postmortem.spec;
    let links = spec.links.iter().enumerate().map(|(i, link)| (format!("spec.links[{i}]"), link));
    let entries = spec.timeline.iter().enumerate();
    let entries = entries.filter_map(|(i, e)| Some((format!("spec.timeline[{i}].link"), e.link.as_ref()?)));
    let items = spec.action_items.iter().enumerate();
    let items = items.filter_map(|(i, a)| Some((format!("spec.actionItems[{i}].url"), a.url.as_ref()?)));
    let found = links.chain(entries).chain(items).filter(|(_, link)| !is_web_address(link));
    found
        .map(|(field, _)| {
            let message = "is no http or https address: it is shown as text".to_owned();
            Finding { level: Level::Warning, rule: "link", field, message }
        })
        .collect()
}

/// Whether a text is an address that a reader can follow.
pub(crate) fn is_web_address(text: &str) -> bool {
    let rest = ["https://", "http://"].iter().find_map(|scheme| {
        text.split_at_checked(scheme.len()).filter(|(start, _)| start.eq_ignore_ascii_case(scheme))
    });
    rest.is_some_and(|(_, rest)| {
        rest.starts_with(|c: char| c.is_alphanumeric() || c == '[')
            && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}
