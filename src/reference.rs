//! Parts of the documentation and of the chart that the code knows best, written by `incident-operator reference`.
//!
//! A page holds them between two comments, `<!-- generated: NAME -->` and `<!-- end -->`; a test fails when they are
//! stale.

use crate::{
    api::{Priority, Severity},
    config::{PostmortemDeadline, Settings, file::File},
    manifests,
    metrics::docs::{DOCS, Kind, scraped},
};
use anyhow::{Context, bail};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::{fmt::Write, fs, path::Path, time::Duration};

/// Where the schema of the configuration goes.
const CHART_SCHEMA: &str = "charts/incident-operator/values.schema.json";
const CHART_PAGE: &str = "charts/incident-operator/README.md";
const ALERTS: &str = "charts/incident-operator/files/alerts.yaml";
const METRICS: &str = "docs/metrics.md";
const CONFIGURATION: &str = "docs/configuration.md";

/// Every file that is partly generated, as it should be: its path below the top of the repository, and its text.
pub fn files(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"));
    let configuration = replaced(&read(CONFIGURATION)?, "fields", &fields())?;
    let configuration = replaced(&configuration, "defaults", &defaults())?;
    let metrics_page = replaced(&read(METRICS)?, "metrics", &metrics())?;
    let metrics_page = replaced(&metrics_page, "alerts", &alerts(&read(ALERTS)?)?)?;
    let chart_page = replaced(&read(CHART_PAGE)?, "rights", &rights())?;
    Ok(vec![
        (CHART_PAGE.to_owned(), chart_page),
        (CHART_SCHEMA.to_owned(), chart_schema(&read(CHART_SCHEMA)?)?),
        (CONFIGURATION.to_owned(), configuration),
        (METRICS.to_owned(), metrics_page),
    ])
}

/// A page with one generated part replaced.
fn replaced(page: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), "<!-- end -->");
    let parts = page.split_once(&begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1)));
    match parts {
        Some((head, tail)) => Ok(format!("{head}{begin}\n{}\n\n{end}{tail}", text.trim())),
        None => bail!("there is no part {begin:?} that ends with {end:?}"),
    }
}

/// The schema of the chart's values, in which the last part is that of the configuration.
fn chart_schema(text: &str) -> anyhow::Result<String> {
    const BEGIN: &str = "\n  \"definitions\": ";
    let Some((head, _)) = text.split_once(BEGIN) else { bail!("{CHART_SCHEMA} has no definitions") };
    let definitions = serde_json::to_string_pretty(&serde_json::json!({"config": schema()}))?;
    Ok(format!("{head}{BEGIN}{}\n}}\n", definitions.replace('\n', "\n  ")))
}

/// The schema of a configuration, in which nothing refers to another place.
fn schema() -> Value {
    let generator = SchemaSettings::draft07().with(|s| s.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<File>().to_value();
    tidy(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.remove("$schema");
    }
    schema
}

/// Takes out what says nothing to those who read a schema: names of types and defaults of every field.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for key in ["title", "default", "format"] {
                if !map.get(key).is_some_and(Value::is_object) || key == "default" {
                    map.remove(key);
                }
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// A table of the fields of each object.
fn fields() -> String {
    let mut text = String::new();
    section(&mut text, "", &schema());
    text
}

fn section(text: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let heading = if path.is_empty() { "The file".to_owned() } else { format!("`{path}`") };
    let _ = writeln!(text, "\n### {heading}\n");
    let about = prose(schema);
    // What stands for five of them has the words of the first.
    if !path.is_empty() && !about.is_empty() && !path.ends_with("SEV5") {
        let _ = writeln!(text, "{about}\n");
    }
    text.push_str("| Field | Is | Meaning |\n|---|---|---|\n");
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in properties {
        let is =
            format!("{}{}", kind(field), if required.contains(&name.as_str()) { ", required" } else { "" });
        let _ = writeln!(text, "| `{name}` | {is} | {} |", prose(field).replace('|', "\\|"));
    }
    let mut same: Vec<&Map<String, Value>> = Vec::new();
    for (name, field) in properties {
        let inner = plain(field);
        let (inner, mark) =
            if inner["items"].is_object() { (plain(&inner["items"]), "[]") } else { (inner, "") };
        let Some(object) = inner["properties"].as_object() else { continue };
        // The five severities have the same fields.
        if !same.contains(&object) {
            same.push(object);
            let path = if path.is_empty() { format!("{name}{mark}") } else { format!("{path}.{name}{mark}") };
            let path = if name == "SEV1" { format!("{path}…SEV5") } else { path };
            section(text, &path, inner);
        }
    }
}

/// A schema without the choice of null, which stands for a field that is left out.
fn plain(schema: &Value) -> &Value {
    let choices = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    let others = choices.map(|c| c.iter().filter(|s| s["type"] != "null").collect::<Vec<_>>());
    match others.as_deref() {
        Some([one]) => one,
        _ => schema,
    }
}

/// The words of a schema, on one line.
fn prose(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a field holds, in words.
fn kind(schema: &Value) -> String {
    let schema = plain(schema);
    let names = names(schema);
    if !names.is_empty() {
        return names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    }
    if schema["pattern"].as_str().is_some_and(|p| p.starts_with("^(never|")) {
        return "length of time or `never`".into();
    }
    if schema["anyOf"].is_array() {
        return "number or `never`".into();
    }
    let type_ = match &schema["type"] {
        Value::Array(types) => {
            types.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or_default()
        }
        other => other.as_str().unwrap_or_default(),
    };
    match type_ {
        "array" => format!("list of {}", plural(&kind(&schema["items"]))),
        "object" if schema["properties"].is_object() => "object".into(),
        "object" => "map of text to text".into(),
        "boolean" => "`true`, `false`".into(),
        "integer" => "number".into(),
        "string" if schema["pattern"].as_str().is_some_and(|p| p.starts_with("^[0-9]{4}-")) => "day".into(),
        "string" => "text".into(),
        other => other.into(),
    }
}

fn plural(kind: &str) -> String {
    match kind {
        "object" | "day" => format!("{kind}s"),
        other => other.into(),
    }
}

/// The names of an enumeration, those of which each has a description included.
fn names(schema: &Value) -> Vec<&str> {
    let listed = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let described = schema["oneOf"].as_array().into_iter().flatten();
    let described = described.flat_map(|s| s["enum"].as_array().into_iter().flatten().chain(s.get("const")));
    listed.chain(described.filter_map(Value::as_str)).collect()
}

/// The defaults by severity and priority.
fn defaults() -> String {
    let settings = Settings::default();
    let severities = [Severity::SEV1, Severity::SEV2, Severity::SEV3, Severity::SEV4, Severity::SEV5];
    let rules = severities.map(|s| settings.severity(Some(s)));
    let mut text = format!("| Field | {} |\n", severities.map(|s| s.to_string()).join(" | "));
    text += &format!("|---|{}\n", "---|".repeat(severities.len()));
    let mut row = |name: &str, of: &dyn Fn(usize) -> String| {
        let cells: Vec<_> = (0..rules.len()).map(of).collect();
        let _ = writeln!(text, "| `{name}` | {} |", cells.join(" | "));
    };
    row("internalUpdate", &|i| interval(rules[i].internal_update));
    row("publicFirstPost", &|i| interval(rules[i].public_first_post));
    row("publicScope", &|i| interval(rules[i].public_scope));
    row("publicUpdate", &|i| interval(rules[i].public_update));
    row("publicUpdateFor", &|i| interval(rules[i].public_update_for));
    row("executivesUpdate", &|i| interval(rules[i].executives_update));
    row("documentRefresh", &|i| interval(rules[i].document_refresh));
    row("requiredRoles", &|i| {
        rules[i].required_roles.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>().join(", ")
    });
    row("postmortem", &|i| match rules[i].postmortem {
        None => "not required".into(),
        Some(PostmortemDeadline::BusinessDays(days)) => format!("{days} business days"),
        Some(PostmortemDeadline::CalendarDays(days)) => format!("{days} calendar days"),
    });
    text += "\n| Field | P0 | P1 | P2 | P3 |\n|---|---|---|---|---|\n";
    let days = [Priority::P0, Priority::P1, Priority::P2, Priority::P3]
        .map(|p| settings.action_item_days(p).map_or("never".to_owned(), |days| days.to_string()));
    text + &format!("| `actionItems` | {} |\n", days.join(" | "))
}

/// A table of the operator's own roles.
fn rights() -> String {
    let mut text = "| Role | In force | Rights |\n|---|---|---|\n".to_owned();
    for (name, place, rules) in manifests::roles() {
        // What is granted alike is told once.
        let mut by_verbs: Vec<(String, Vec<String>)> = Vec::new();
        for rule in rules {
            let list = |key: &str| rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            let group = list("apiGroups").next().unwrap_or_default();
            let only: Vec<_> = list("resourceNames").collect();
            let what = list("resources").map(|resource| {
                let (kind, below) = resource.split_once('/').map_or((resource, None), |(k, s)| (k, Some(s)));
                let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                let below = below.map(|below| format!("/{below}")).unwrap_or_default();
                let named =
                    if only.is_empty() { String::new() } else { format!(" named `{}`", only.join(", ")) };
                format!("`{kind}{group}{below}`{named}")
            });
            let verbs = list("verbs").collect::<Vec<_>>().join(", ");
            let place = by_verbs.iter().position(|(known, _)| *known == verbs).unwrap_or(by_verbs.len());
            if place == by_verbs.len() {
                by_verbs.push((verbs, Vec::new()));
            }
            by_verbs[place].1.extend(what);
        }
        let rights = by_verbs.iter().map(|(verbs, what)| format!("{verbs}: {}", what.join(", ")));
        let rights = rights.collect::<Vec<_>>().join("; ");
        let _ = writeln!(text, "| `incident-operator{name}` | {place} | {rights} |");
    }
    text
}

/// A table of the metrics.
fn metrics() -> String {
    let mut text = "| Metric | Is | Labels | Tells |\n|---|---|---|---|\n".to_owned();
    for doc in DOCS {
        let names = match doc.kind {
            Kind::Histogram => format!("`{}`", doc.name),
            Kind::Counter | Kind::Gauge => format!("`{}`", scraped(doc).concat()),
        };
        let labels: Vec<_> = doc.labels.iter().map(|l| format!("`{l}`")).collect();
        let kind = format!("{:?}", doc.kind).to_lowercase();
        let _ = writeln!(text, "| {names} | {kind} | {} | {} |", labels.join(", "), doc.help);
    }
    text
}

/// A table of the alerts in a file of rules.
fn alerts(text: &str) -> anyhow::Result<String> {
    let rules: Value = serde_saphyr::from_str(text).with_context(|| format!("reading {ALERTS}"))?;
    let mut table = "| Alert | Severity | After | Says |\n|---|---|---|---|\n".to_owned();
    let groups = rules["groups"].as_array().into_iter().flatten();
    for rule in groups.flat_map(|g| g["rules"].as_array().into_iter().flatten()) {
        let text = |value: &Value| value.as_str().unwrap_or("at once").to_owned();
        let summary =
            text(&rule["annotations"]["summary"]).replace("{{ $labels.", "<").replace("{{ $value", "<n");
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            text(&rule["alert"]),
            text(&rule["labels"]["severity"]),
            text(&rule["for"]),
            summary.replace(" }}", ">").replace(['<', '>'], "*"),
        );
    }
    Ok(table)
}

fn interval(length: Option<Duration>) -> String {
    let Some(length) = length else { return "never".into() };
    let minutes = length.as_secs() / 60;
    match minutes % 60 {
        0 => format!("{}h", minutes / 60),
        _ => format!("{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_what_the_code_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (path, text) in files(root).unwrap() {
            let there = fs::read_to_string(root.join(&path)).unwrap();
            assert!(there == text, "{path} is stale: run `make crds`");
        }
    }
}
