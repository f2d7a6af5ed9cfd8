//! The tables of a postmortem: facts, timeline, mitigations, action items. In every cell stands plain text.

use super::{Known, NOTHING, Page, escape, has_seconds, in_prose, time_in_table};
use crate::api::{
    ActionItem, ActionItemState, ActionName, Audience, DataRisk, INCIDENT_LABEL, INCIDENT_UID_ANNOTATION,
    Impact, MitigationPhase, MitigationRecord, Role, Time, names,
};
use crate::decide::postmortem::{due_date, in_words, is_placeholder};
use k8s_openapi::jiff::Timestamp;

/// What a cell shows that has nothing to show.
const EMPTY: &str = "–";

/// A table with a heading row. Cells are escaped already.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = format!("| {} |\n|{}", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        out.push_str("\n| ");
        out.push_str(&row.join(" | "));
        out.push_str(" |");
    }
    out
}

// ---- facts -------------------------------------------------------------------------------------------------------

/// What is known at a glance. What is not known has no row.
pub(super) fn facts(page: &mut Page, known: &Known<'_>) -> String {
    let mut rows: Vec<(&str, Option<String>)> = vec![("Incident", page.some(known.incident))];
    if known.drill {
        rows.push(("Drill", Some("This was a drill.".into())));
    }
    rows.push(("Severity", known.severity.map(|s| s.to_string())));
    rows.push(("Service", page.some(known.service)));
    rows.push(("State", Some(state(page, known))));
    rows.push(("Owner", page.some(known.spec.owner.as_deref())));
    let reviewers: Vec<_> = known.spec.reviewers.iter().take(page.limits.rows).map(String::as_str).collect();
    rows.push(("Reviewers", page.some(Some(&reviewers.join(", ")))));
    let from_timeline = if known.span.from_timeline { " (from the timeline)" } else { "" };
    let seconds = has_seconds(known.span.start.into_iter().chain(known.span.end));
    let moment =
        |at: Option<Timestamp>| at.map(|at| format!("{} UTC{from_timeline}", time_in_table(at, seconds)));
    rows.push(("Start", moment(known.span.start)));
    rows.push(("End", moment(known.span.end)));
    let d = &known.durations;
    rows.push(("Time to detect", d.detect_seconds.map(in_words)));
    rows.push(("Time to acknowledge", d.acknowledge_seconds.map(in_words)));
    rows.push(("Time to mitigate", d.mitigate_seconds.map(in_words)));
    let whole = if known.span.from_timeline { "Duration" } else { "Time to resolve" };
    rows.push((whole, d.resolve_seconds.map(|s| format!("{}{from_timeline}", in_words(s)))));
    if let Some(record) = known.record {
        if let Some(impact) = &record.impact {
            rows.extend(impact_rows(page, impact));
        }
        for (role, label) in ROLES {
            let mut holders: Vec<&str> = Vec::new();
            for held in record.roles.iter().filter(|r| r.role == role) {
                if !holders.contains(&held.holder.as_str()) {
                    holders.push(&held.holder);
                }
            }
            if role == Role::IncidentCommander && holders.is_empty() {
                holders.extend(record.commander.as_deref());
            }
            rows.push((label, page.some(Some(&holders.join(", ")))));
        }
    }
    let rows = rows.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?]));
    table(&["Fact", "Value"], rows)
}

const ROLES: [(Role, &str); 5] = [
    (Role::IncidentCommander, "Incident commander"),
    (Role::Deputy, "Deputy"),
    (Role::OperationsLead, "Operations lead"),
    (Role::CommunicationsLead, "Communications lead"),
    (Role::Scribe, "Scribe"),
];

fn impact_rows(page: &mut Page, impact: &Impact) -> Vec<(&'static str, Option<String>)> {
    let components: Vec<_> =
        impact.components.iter().map(|c| format!("{} ({})", c.name, prose(c.state).to_lowercase())).collect();
    let risk = impact.data_at_risk.map(|risk| match risk {
        DataRisk::None => "no".to_owned(),
        DataRisk::Suspected => "suspected".to_owned(),
        DataRisk::Confirmed => "confirmed".to_owned(),
    });
    vec![
        ("Affected tenants", impact.affected_tenants.map(|n| n.to_string())),
        ("Affected features", page.some(Some(&impact.affected_features.join(", ")))),
        ("Components", page.some(Some(&components.join(", ")))),
        ("Data at risk", risk),
    ]
}

fn state(page: &mut Page, known: &Known<'_>) -> String {
    let state = prose(known.spec.state.unwrap_or_default());
    match known.review.filter(|r| r.withdrawn_time.is_none()) {
        Some(review) if review.by.is_some() => {
            let by = page.cell(review.by.as_deref().unwrap_or_default());
            let verified = if review.authenticated { "" } else { " (not verified)" };
            format!("{state} by {by}{verified}, {} UTC", time_in_table(review.time.0, false))
        }
        _ => state,
    }
}

// ---- timeline ----------------------------------------------------------------------------------------------------

/// A value of the API in words.
fn prose(value: impl std::fmt::Debug) -> String {
    in_prose(&format!("{value:?}")).into_owned()
}

struct Entry<'a> {
    at: Timestamp,
    kind: &'a str,
    message: &'a str,
    link: Option<&'a str>,
    who: String,
}

/// Recorded and curated entries by time; at the same time the recorded one comes first. `None` without any.
pub(super) fn timeline(page: &mut Page, known: &Known<'_>) -> Option<String> {
    // What was said among those who worked on the incident is not for everybody who reads its postmortem.
    let told = |audience: &Option<Audience>| *audience != Some(Audience::Responders);
    let all = || known.archived.iter().chain(known.timeline);
    let recorded = all().filter(|r| told(&r.audience)).map(|r| Entry {
        at: r.time.0,
        kind: &r.reason,
        message: &r.message,
        link: r.link.as_deref(),
        who: match (&r.author, r.authenticated) {
            (Some(author), Some(false)) => format!("{author} (not verified)"),
            (Some(author), _) => author.clone(),
            // Somebody wrote or did it, and the API server did not say who.
            (None, Some(false)) => "not known".to_owned(),
            (None, _) if r.entry_uid.is_some() => "not known".to_owned(),
            (None, _) => "operator".to_owned(),
        },
    });
    let curated = known.spec.timeline.iter().map(|e| Entry {
        at: e.time.0,
        kind: "Added by hand",
        message: &e.message,
        link: e.link.as_deref(),
        who: EMPTY.to_owned(),
    });
    let mut entries: Vec<_> = recorded.chain(curated).collect();
    entries.sort_by_key(|e| e.at);
    let held_back = all().filter(|r| !told(&r.audience)).count();
    if entries.is_empty() && held_back == 0 {
        return None;
    }
    // A timeline that people wrote alone needs no word on who and what.
    let plain = all().next().is_none();
    let seconds = has_seconds(entries.iter().map(|e| e.at));
    let (first, last) = page.keep("entries of the timeline", entries.len());
    let mut rows = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if index >= first && index < last {
            if index == first {
                let gap = format!("{} entries are left out here", last - first);
                rows.push(if plain {
                    vec!["…".into(), gap]
                } else {
                    vec!["…".into(), EMPTY.into(), gap, EMPTY.into()]
                });
            }
            continue;
        }
        let link = entry.link.map(|l| format!(" {}", page.link("link", l))).unwrap_or_default();
        let (at, what) = (time_in_table(entry.at, seconds), format!("{}{link}", page.cell(entry.message)));
        rows.push(match plain {
            true => vec![at, what],
            false => vec![at, page.cell(&in_prose(entry.kind)), what, page.cell(&entry.who)],
        });
    }
    let head: &[&str] = if plain {
        &["Time (UTC)", "What happened"]
    } else {
        &["Time (UTC)", "Kind", "What happened", "Who"]
    };
    let mut out = table(head, rows);
    if held_back > 0 {
        let entries = if held_back == 1 { "entry" } else { "entries" };
        out.push_str(&format!("\n\n_Not shown: {held_back} {entries} that only responders may read._"));
    }
    out.push_str(&not_read(known));
    let lost = known.record.and_then(|r| r.timeline_archive.as_ref()?.lost);
    if let Some(lost) = lost.filter(|n| *n > 0) {
        out.push_str(&format!("\n\n_Lost: {lost} of the oldest entries, which could not be kept._"));
    }
    Some(out)
}

/// What is said of older entries that nobody read from their ConfigMaps, and of how they are found.
fn not_read(known: &Known<'_>) -> String {
    let Some((record, archive)) = known.record.and_then(|r| Some((r, r.timeline_archive.as_ref()?))) else {
        return String::new();
    };
    let read = i64::try_from(known.archived.len()).unwrap_or(i64::MAX);
    let missing = archive.entries.saturating_sub(read);
    if missing <= 0 {
        return String::new();
    }
    let which = match read {
        0 => format!("the {missing}"),
        _ => format!("{missing} of the {}", archive.entries),
    };
    let maps = match archive.config_maps {
        1 => "one ConfigMap".to_owned(),
        maps => format!("{maps} ConfigMaps"),
    };
    let lie = if read > 0 { "All of these lie" } else { "They lie" };
    format!(
        "\n\n_Not shown: {which} oldest entries. {lie} in {maps} {}-timeline-…, with label {}={} and annotation {}={}._",
        escape::inline(&record.name),
        escape::inline(INCIDENT_LABEL),
        escape::inline(&names::label_value(&record.name)),
        escape::inline(INCIDENT_UID_ANNOTATION),
        escape::inline(record.uid.as_deref().unwrap_or("unknown")),
    )
}

// ---- mitigations -------------------------------------------------------------------------------------------------

/// What was done to stop the bleeding; `None` when nothing is known of an incident.
pub(super) fn mitigations(page: &mut Page, known: &Known<'_>) -> Option<String> {
    let all = &known.record?.mitigations;
    if all.is_empty() {
        return Some(NOTHING.to_owned());
    }
    let times = all.iter().flat_map(|m| [&m.applied_time, &m.effective_time, &m.released_time]);
    let seconds = has_seconds(times.flatten().map(|t| t.0));
    let (first, last) = page.keep("mitigations", all.len());
    let mut rows = Vec::new();
    for (index, m) in all.iter().enumerate().filter(|(i, _)| *i < first || *i >= last) {
        let when = |t: &Option<Time>| t.as_ref().map_or(EMPTY.to_owned(), |t| time_in_table(t.0, seconds));
        let what = format!(
            "{} {}",
            m.action.as_deref().unwrap_or_default(),
            m.target.as_deref().unwrap_or_default()
        );
        rows.push(vec![
            format!("M{}", index + 1),
            page.some(Some(what.trim())).unwrap_or_else(|| page.cell(&m.name)),
            page.or_empty(m.reason.as_deref()),
            page.or_empty(m.change.as_deref()),
            when(&m.applied_time),
            when(&m.effective_time),
            when(&m.released_time),
            outcome(page, m),
        ]);
    }
    let head = [
        "",
        "Mitigation",
        "Why",
        "What changed",
        "Applied (UTC)",
        "Effective (UTC)",
        "Ended (UTC)",
        "Outcome",
    ];
    Some(table(&head, rows))
}

fn outcome(page: &mut Page, m: &MitigationRecord) -> String {
    let by_hand = m.action.as_deref() == Some(ActionName::Manual.as_str());
    let worked = match (m.effective_time.is_some(), by_hand) {
        (true, true) => "done",
        (true, false) => "worked",
        (false, true) => "nobody said that it was done",
        (false, false) => "never took effect",
    };
    let by = |page: &mut Page| {
        m.undone_by.as_deref().map(|by| format!(" by {}", page.cell(by))).unwrap_or_default()
    };
    match m.phase {
        MitigationPhase::Pending | MitigationPhase::AwaitingApproval | MitigationPhase::Applying => {
            format!("not applied ({})", prose(m.phase).to_lowercase())
        }
        MitigationPhase::Active => {
            let stands = if by_hand { "still open" } else { "still in force" };
            let waiver =
                m.waiver.as_deref().map(|w| format!("; may stay: {}", page.cell(w))).unwrap_or_default();
            format!("{worked}; {stands}{waiver}")
        }
        MitigationPhase::Releasing => format!("{worked}; being released"),
        MitigationPhase::Released if by_hand => format!("{worked}; ended"),
        MitigationPhase::Released => format!("{worked}; released"),
        MitigationPhase::Kept if by_hand => format!("{worked}; ended, and what was done stays"),
        MitigationPhase::Kept => format!("{worked}; the value was kept"),
        MitigationPhase::Superseded => format!("{worked}; superseded{}", by(page)),
        MitigationPhase::Abandoned => format!("{worked}; its target is gone"),
        MitigationPhase::Refused => "refused".to_owned(),
        MitigationPhase::Failed => "failed".to_owned(),
    }
}

// ---- action items ------------------------------------------------------------------------------------------------

/// What is done so that it does not happen again; `None` without any.
pub(super) fn action_items(page: &mut Page, known: &Known<'_>) -> Option<String> {
    let all = &known.spec.action_items;
    let (first, last) = page.keep("action items", all.len());
    let kept = all.iter().enumerate().filter(|(i, _)| *i < first || *i >= last);
    let rows: Vec<_> = kept.map(|(_, item)| action_item(page, item)).collect();
    let head = ["Id", "What", "Type", "Priority", "Owner", "Due", "State"];
    (!all.is_empty()).then(|| table(&head, rows))
}

fn action_item(page: &mut Page, item: &ActionItem) -> Vec<String> {
    let link = item.url.as_deref().map(|url| format!(" {}", page.link("ticket", url))).unwrap_or_default();
    // Nobody owes an owner or a date to what will not be done.
    let lacking = if item.state == ActionItemState::WontFix { EMPTY } else { super::MISSING };
    let said = |text: &Option<String>| text.clone().filter(|text| !is_placeholder(text));
    let due = match (said(&item.due_date), due_date(item)) {
        (Some(text), None) => format!("{} (no such day)", page.cell(&text)),
        (Some(text), Some(_)) => page.cell(&text),
        (None, _) => lacking.to_owned(),
    };
    let reason = item.reason.as_deref().map(|r| format!(": {}", page.cell(r))).unwrap_or_default();
    vec![
        page.cell(&item.id),
        format!("{}{link}", page.cell(&item.title)),
        item.type_.map_or(EMPTY.to_owned(), |t| format!("{t:?}")),
        item.priority.map_or(EMPTY.to_owned(), |p| format!("{p:?}")),
        said(&item.owner).map_or(lacking.to_owned(), |owner| page.cell(&owner)),
        due,
        match item.state {
            ActionItemState::WontFix => format!("Will not be done{reason}"),
            state => format!("{}{reason}", prose(state)),
        },
    ]
}

impl Page {
    /// Plain text for a cell.
    fn cell(&mut self, text: &str) -> String {
        let text = self.clip(text);
        let text = escape::inline(&text);
        if text.is_empty() { EMPTY.to_owned() } else { text }
    }

    fn some(&mut self, text: Option<&str>) -> Option<String> {
        text.filter(|text| !text.trim().is_empty()).map(|text| self.cell(text))
    }

    fn or_empty(&mut self, text: Option<&str>) -> String {
        self.some(text).unwrap_or_else(|| EMPTY.to_owned())
    }

    pub(super) fn link(&mut self, label: &str, address: &str) -> String {
        let address = self.clip(address);
        escape::link(label, &address)
    }
}
