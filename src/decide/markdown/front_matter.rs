//! Front matter: what machines read of a postmortem. Every key is there whatever is known; what is not known is
//! `null`. Text stands in double quotes on one line, so none of it can end a value or the front matter.

use super::{Known, Page, escape};
use crate::api::PostmortemSpec;
use k8s_openapi::jiff::Timestamp;
use std::fmt::Display;

/// The front matter with its fences.
pub(super) fn write(page: &mut Page, known: &Known<'_>) -> String {
    let spec = known.spec;
    let durations = &known.durations;
    let mut out = String::from("---\n");
    let mut line = |key: &str, value: String| out.push_str(&format!("{key}: {value}\n"));
    line("title", page.yaml(&known.title));
    line("postmortem", page.yaml_or_null(known.name));
    line("incident", page.yaml_or_null(known.incident));
    line("severity", plain(known.severity));
    line("service", page.yaml_or_null(known.service));
    line("state", format!("{:?}", spec.state.unwrap_or_default()));
    line("drill", known.drill.to_string());
    line("start", moment(known.span.start));
    line("end", moment(known.span.end));
    line("durations", String::new());
    line("  detectSeconds", plain(durations.detect_seconds));
    line("  acknowledgeSeconds", plain(durations.acknowledge_seconds));
    line("  mitigateSeconds", plain(durations.mitigate_seconds));
    line("  resolveSeconds", plain(durations.resolve_seconds));
    let owner: Vec<_> = spec.owner.iter().cloned().collect();
    line("authors", names(page, &owner));
    line("reviewers", names(page, &spec.reviewers));
    line("actionItems", action_items(page, spec));
    let out = out.replace(": \n", ":\n");
    format!("{out}---\n")
}

fn plain(value: Option<impl Display>) -> String {
    value.map_or("null".to_owned(), |v| v.to_string())
}

fn moment(at: Option<Timestamp>) -> String {
    plain(at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ")))
}

fn names(page: &mut Page, names: &[String]) -> String {
    if names.is_empty() {
        return "[]".to_owned();
    }
    names.iter().take(page.limits.rows).map(|name| format!("\n  - {}", page.yaml(name))).collect()
}

fn action_items(page: &mut Page, spec: &PostmortemSpec) -> String {
    if spec.action_items.is_empty() {
        return "[]".to_owned();
    }
    let mut out = String::new();
    for item in spec.action_items.iter().take(page.limits.rows) {
        let mut line =
            |start: &str, key: &str, value: String| out.push_str(&format!("\n{start} {key}: {value}"));
        line("  -", "id", page.yaml(&item.id));
        line("   ", "title", page.yaml(&item.title));
        line("   ", "type", plain(item.type_.map(|t| format!("{t:?}"))));
        line("   ", "priority", plain(item.priority.map(|p| format!("{p:?}"))));
        line("   ", "owner", page.yaml_or_null(item.owner.as_deref()));
        line("   ", "dueDate", page.yaml_or_null(item.due_date.as_deref()));
        line("   ", "state", format!("{:?}", item.state));
        line("   ", "url", page.yaml_or_null(item.url.as_deref()));
    }
    out
}

impl Page {
    fn yaml(&mut self, text: &str) -> String {
        let text = self.clip(text);
        escape::yaml(&text)
    }

    fn yaml_or_null(&mut self, text: Option<&str>) -> String {
        text.map_or("null".to_owned(), |text| self.yaml(text))
    }
}
