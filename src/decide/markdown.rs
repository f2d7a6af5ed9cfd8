//! A postmortem as a Markdown document, to be published.
//!
//! The same postmortem gives the same bytes: nothing but spec, the record in status and the archive of its timeline
//! goes in, and no clock, locale or order of a map. All times are UTC. Every required section is there; one that is
//! missing says so. What may be left out and was is left out.
//!
//! Text of people cannot leave its place. In front matter, headings, tables and the diagram it is plain text and
//! escaped for that place ([`escape`]); sections are Markdown and stay Markdown, without raw HTML and below the
//! document's own headings ([`body`] has the rules).
//!
//! A document is at most [`MAX_BYTES`] long. What would be longer is cut, and says at the top what was cut.

mod body;
mod escape;
mod front_matter;
mod gantt;
#[cfg(test)]
mod parsed;
mod tables;

use super::postmortem::{SECTIONS, Section, Span, Written, in_prose, known_durations, span, written};
use crate::api::{Durations, IncidentSnapshot, Postmortem, PostmortemSpec, Review, Severity, TimelineRecord};
use k8s_openapi::jiff::Timestamp;
use std::borrow::Cow;

/// Longest document, in bytes. A ConfigMap holds a little more.
pub const MAX_BYTES: usize = 900_000;
/// How often what is kept is halved until the document fits, at most. After that no text is longer than some
/// hundred bytes and no list longer than some entries.
const MAX_STEPS: u32 = 10;
/// What stands for a section that is missing.
const MISSING: &str = "_Missing._";
/// What stands for a list that is empty and may be.
const NOTHING: &str = "_None._";

/// The document. `archived` are the older entries of the incident's timeline, which the status has no room for.
pub fn render(postmortem: &Postmortem, archived: &[TimelineRecord]) -> String {
    let mut text = String::new();
    for step in 0..=MAX_STEPS {
        text = Page::new(step).document(&Known::of(postmortem, archived));
        if text.len() <= MAX_BYTES {
            break;
        }
    }
    text
}

/// What is known, from wherever it stands.
struct Known<'a> {
    spec: &'a PostmortemSpec,
    name: Option<&'a str>,
    title: Cow<'a, str>,
    incident: Option<&'a str>,
    severity: Option<Severity>,
    service: Option<&'a str>,
    drill: bool,
    span: Span,
    durations: Durations,
    record: Option<&'a IncidentSnapshot>,
    /// Older entries of the timeline, and the rest of it.
    archived: &'a [TimelineRecord],
    timeline: &'a [TimelineRecord],
    review: Option<&'a Review>,
}

impl<'a> Known<'a> {
    fn of(postmortem: &'a Postmortem, archived: &'a [TimelineRecord]) -> Self {
        let (spec, status) = (&postmortem.spec, postmortem.status.as_ref());
        let record = status.and_then(|s| s.incident.as_ref());
        let name = postmortem.metadata.name.as_deref().filter(|name| !name.is_empty());
        let recorded = record.map(|r| r.name.as_str()).filter(|name| !name.is_empty());
        let incident = spec.incident_ref.as_ref().map(|r| r.name.as_str()).or(recorded);
        let titles = [spec.title.as_deref(), record.map(|r| r.title.as_str())];
        let title = titles.into_iter().flatten().find(|title| !title.trim().is_empty());
        let fallback = || format!("Postmortem {}", incident.or(name).unwrap_or_default());
        Known {
            spec,
            name,
            title: title.map_or_else(|| Cow::Owned(fallback()), Cow::Borrowed),
            incident,
            severity: record.and_then(|r| r.severity),
            service: record.and_then(|r| r.service.as_deref()),
            drill: record.is_some_and(|r| r.drill == Some(true)),
            span: span(postmortem),
            durations: known_durations(postmortem),
            record,
            archived,
            timeline: status.map(|s| s.timeline.as_slice()).unwrap_or_default(),
            review: status.and_then(|s| s.review.as_ref()),
        }
    }
}

/// How much is kept.
struct Limits {
    /// Longest section, in bytes as written.
    section: usize,
    /// Longest list.
    rows: usize,
    /// Longest other text, in bytes.
    text: usize,
}

/// A document in the making.
struct Page {
    limits: Limits,
    /// What was cut, in words.
    cuts: Vec<String>,
    /// Texts that were cut.
    clipped: usize,
}

impl Page {
    fn new(step: u32) -> Self {
        let half = |whole: usize| if step == 0 { usize::MAX } else { whole >> step };
        let limits = Limits { section: half(1 << 20), rows: half(1 << 12), text: half(1 << 16) };
        Page { limits, cuts: Vec::new(), clipped: 0 }
    }

    fn document(mut self, known: &Known<'_>) -> String {
        let front_matter = front_matter::write(&mut self, known);
        let title = self.clip(&known.title);
        let title = escape::heading(&title);
        let mut parts = vec![tables::facts(&mut self, known)];
        let (before, after) = SECTIONS.split_at(6);
        parts.extend(before.iter().filter_map(|section| self.section(section, known.spec)));
        parts.extend(tables::mitigations(&mut self, known).map(|table| part("Mitigations", Some(table))));
        parts.push(self.timeline(known));
        parts.extend(after.iter().filter_map(|section| self.section(section, known.spec)));
        let action_items = tables::action_items(&mut self, known);
        parts.push(part("Action items", action_items));
        parts.extend(self.links(known.spec).map(|links| part("Links", Some(links))));
        let note = self.note(known).map(|note| format!("{note}\n\n")).unwrap_or_default();
        format!("{front_matter}\n# {title}\n\n{note}{}\n", parts.join("\n\n"))
    }

    fn section(&mut self, section: &Section, spec: &PostmortemSpec) -> Option<String> {
        let text = (section.text)(spec).map(String::as_str);
        if written(text, section.hint) == Written::No {
            return section.required.then(|| part(section.title, None));
        }
        let text = text.unwrap_or_default();
        let kept = escape::clip_bytes(text, self.limits.section);
        if kept.len() < text.len() {
            let title = section.title;
            self.cuts.push(format!("section {title} after {} of {} bytes", self.limits.section, text.len()));
        }
        Some(part(section.title, Some(body::section(&kept))))
    }

    fn timeline(&mut self, known: &Known<'_>) -> String {
        let chart = gantt::chart(self, known);
        let table = tables::timeline(self, known).unwrap_or_else(|| MISSING.to_owned());
        let all: Vec<_> = chart.into_iter().chain([table]).collect();
        part("Timeline", Some(all.join("\n\n")))
    }

    fn links(&mut self, spec: &PostmortemSpec) -> Option<String> {
        let (first, last) = self.keep("links", spec.links.len());
        let kept = spec.links.iter().enumerate().filter(|(i, _)| *i < first || *i >= last);
        let lines: Vec<_> = kept
            .map(|(_, link)| {
                let link = self.clip(link);
                format!("- {}", escape::line_start(&link))
            })
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Which entries of a list are left out: from the first number on and before the second.
    fn keep(&mut self, what: &str, entries: usize) -> (usize, usize) {
        let rows = self.limits.rows;
        if entries <= rows {
            return (entries, entries);
        }
        self.cuts.push(format!("{} of {entries} {what}", entries - rows));
        (rows - rows / 2, entries - rows / 2)
    }

    /// A text, cut if it is too long.
    fn clip<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let kept = escape::clip_bytes(text, self.limits.text);
        self.clipped += usize::from(matches!(kept, Cow::Owned(_)));
        kept
    }

    /// What was cut, if anything was.
    fn note(&mut self, known: &Known<'_>) -> Option<String> {
        if self.clipped > 0 {
            self.cuts.push(format!("the ends of {} other texts", self.clipped));
        }
        let name = known.name.map(|name| format!(" {}", escape::inline(name))).unwrap_or_default();
        let archive = if known.archived.is_empty() { "" } else { " and the archive of its timeline" };
        (!self.cuts.is_empty()).then(|| {
            format!(
                "> **This document is cut**, because it would be longer than {} KB. Left out: {}. All of it is in Postmortem{name}{archive}.",
                MAX_BYTES / 1000,
                self.cuts.join("; ")
            )
        })
    }
}

/// A part of the document with its heading.
fn part(title: &str, content: Option<String>) -> String {
    let content = content.filter(|content| !content.is_empty());
    format!("## {title}\n\n{}", content.as_deref().unwrap_or(MISSING))
}

/// A time to the second, as it stands in the diagram.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time as it stands in a table; without seconds where none of the table has any.
fn time_in_table(at: Timestamp, seconds: bool) -> String {
    let format = if seconds { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    at.strftime(format).to_string()
}

/// Whether one of the times is not a whole minute.
fn has_seconds(times: impl IntoIterator<Item = Timestamp>) -> bool {
    times.into_iter().any(|at| at.as_second() % 60 != 0)
}

#[cfg(test)]
mod tests;
