//! Action items: what each one needs, and which are overdue.

use super::{
    lint::{Finding, Level},
    record::{span, span_of},
    sections::is_placeholder,
};
use crate::api::{
    ActionItem, ActionItemState, ActionItemType, Postmortem, PostmortemSpec, PostmortemStatus, Severity,
};
use crate::config::Settings;
use crate::decide::conditions::one_line;
use k8s_openapi::jiff::{ToSpan, civil::Date};
use std::collections::BTreeMap;

/// Whether something is still to be done.
pub fn is_open(item: &ActionItem) -> bool {
    match item.state {
        ActionItemState::Open | ActionItemState::InProgress => true,
        ActionItemState::Done | ActionItemState::WontFix => false,
    }
}

/// The day by which it is to be done, if that is a day at all.
pub fn due_date(item: &ActionItem) -> Option<Date> {
    let text = item.due_date.as_deref()?;
    // Nothing but the form that the schema asks for: dates can be written in many other ways.
    (text.len() == 10).then(|| text.parse().ok()).flatten()
}

/// By which day items are to be done.
pub(super) struct Deadlines<'a> {
    settings: &'a Settings,
    end: Option<Date>,
}

impl<'a> Deadlines<'a> {
    /// For a postmortem whose status is, or will be, this one.
    pub fn new(spec: &PostmortemSpec, status: Option<&PostmortemStatus>, settings: &'a Settings) -> Self {
        let end = span_of(spec, status).end.map(|end| settings.calendar.date(end));
        Deadlines { settings, end }
    }

    /// The due date, or the day that its priority allows where none is stated.
    pub fn of(&self, item: &ActionItem) -> Option<Date> {
        due_date(item).or_else(|| self.latest(item))
    }

    /// The last day that the priority of an item allows, counted from the end of the incident.
    fn latest(&self, item: &ActionItem) -> Option<Date> {
        let days = self.settings.action_item_days(item.priority?)?;
        self.end?.checked_add(i64::from(days).days()).ok()
    }
}

/// Ids of open items whose day has passed. An item is overdue from the day after its due date on.
pub(super) fn overdue(items: &[ActionItem], deadlines: &Deadlines<'_>, today: Date) -> Vec<String> {
    let late = |item: &&ActionItem| is_open(item) && deadlines.of(item).is_some_and(|due| due < today);
    items.iter().filter(late).map(|item| item.id.clone()).collect()
}

/// Whether an incident of this severity lacks an item that keeps it from happening again.
pub(super) fn lacks_prevention(items: &[ActionItem], severity: Option<Severity>) -> bool {
    let prevents =
        |i: &ActionItem| i.type_ == Some(ActionItemType::Prevent) && i.state != ActionItemState::WontFix;
    severity == Some(Severity::SEV1) && !items.iter().any(prevents)
}

/// What action items lack, and what is odd about them.
pub(super) fn findings(
    postmortem: &Postmortem,
    severity: Option<Severity>,
    settings: &Settings,
) -> Vec<Finding> {
    let items = &postmortem.spec.action_items;
    let mut found = Vec::new();
    if items.is_empty() {
        found.push(missing("section", "spec.actionItems".into(), "Action items".into()));
    }
    for (index, item) in items.iter().enumerate() {
        let path = format!("spec.actionItems[{index}]");
        found.extend(lacking(item, &path));
        found.extend(odd_date(postmortem, item, &path, settings));
    }
    let mut uses = BTreeMap::<&str, usize>::new();
    for item in items {
        *uses.entry(&item.id).or_default() += 1;
    }
    for (id, times) in uses.into_iter().filter(|(_, times)| *times > 1) {
        let message =
            format!("id {} is used {times} times: give each action item one of its own", one_line(id, 63));
        found.push(Finding { level: Level::Invalid, rule: "id", field: "spec.actionItems".into(), message });
    }
    if lacks_prevention(items, severity) {
        let message = "a SEV1 wants at least one action item of type Prevent".into();
        found.push(Finding {
            level: Level::Warning,
            rule: "prevent",
            field: "spec.actionItems".into(),
            message,
        });
    }
    found
}

fn missing(rule: &'static str, field: String, message: String) -> Finding {
    Finding { level: Level::Missing, rule, field, message }
}

fn lacking(item: &ActionItem, path: &str) -> Vec<Finding> {
    let id = one_line(&item.id, 63);
    let said = |text: &Option<String>| text.as_ref().is_some_and(|t| !is_placeholder(t));
    let mut found = Vec::new();
    if is_placeholder(&item.title) {
        found.push(missing("title", format!("{path}.title"), format!("title of action item {id}")));
    }
    if item.state == ActionItemState::WontFix {
        // Nobody does it by any day; why not is what is to be learnt.
        if !said(&item.reason) {
            let message = format!("reason of action item {id}, which is WontFix");
            found.push(missing("reason", format!("{path}.reason"), message));
        }
        return found;
    }
    match (said(&item.owner), said(&item.due_date)) {
        (true, true) => {}
        (false, true) => {
            found.push(missing("owner", format!("{path}.owner"), format!("owner of action item {id}")));
        }
        (true, false) => {
            found.push(missing(
                "due-date",
                format!("{path}.dueDate"),
                format!("dueDate of action item {id}"),
            ));
        }
        (false, false) => {
            found.push(missing("owner", path.to_owned(), format!("owner and dueDate of action item {id}")));
        }
    }
    if said(&item.due_date) && due_date(item).is_none() {
        let text = one_line(item.due_date.as_deref().unwrap_or_default(), 32);
        let message = format!("a dueDate of action item {id} that is a day as YYYY-MM-DD: {text} is none");
        found.push(missing("due-date", format!("{path}.dueDate"), message));
    }
    found
}

fn odd_date(postmortem: &Postmortem, item: &ActionItem, path: &str, settings: &Settings) -> Option<Finding> {
    let due = due_date(item).filter(|_| is_open(item))?;
    let warn = |message| {
        Some(Finding { level: Level::Warning, rule: "due-date", field: format!("{path}.dueDate"), message })
    };
    let end = span(postmortem).end.map(|end| settings.calendar.date(end));
    let created = postmortem.metadata.creation_timestamp.as_ref().map(|t| settings.calendar.date(t.0));
    if let Some(then) = created.or(end)
        && due < then
    {
        let what = if created.is_some() { "the postmortem was created" } else { "the incident ended" };
        return warn(format!("{due} was over when {what} ({then})"));
    }
    let latest = Deadlines { settings, end }.latest(item).filter(|latest| due > *latest)?;
    let (priority, days) = (item.priority?, settings.action_item_days(item.priority?)?);
    warn(format!("{due} is later than {latest}: {priority:?} is to be done within {days} days"))
}
