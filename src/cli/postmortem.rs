//! Postmortems in files: rendered and checked without a cluster.
//!
//! A file may hold several documents of any kind, and lists as `kubectl get -o yaml` writes them; only Postmortems are
//! looked at, and to render them the ConfigMaps with the older entries of a timeline. `-` is standard input.

use super::schema;
use crate::api::{API_VERSION, GROUP, Postmortem};
use crate::config::words::InWords;
use crate::decide::{
    archive::Archived,
    markdown,
    postmortem::{Finding, Level, lint},
};
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{CustomResourceExt, ResourceExt};
use serde_json::Value;
use std::{collections::BTreeSet, fs, io::Read, path::Path};

/// The Markdown of the one postmortem in a file.
pub fn render_file(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    let mut all = render_each(path)?;
    if all.len() > 1 {
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        bail!("{} holds {} postmortems, where one is expected: {}", shown(path), all.len(), names.join(", "));
    }
    all.pop().map(|(_, text)| text).with_context(|| format!("{} holds no Postmortem", shown(path)))
}

/// Name and Markdown of each postmortem in a file.
pub fn render_each(path: impl AsRef<Path>) -> anyhow::Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let Input { documents, config_maps } = read(path)?;
    let rendered = documents.into_iter().map(|document| {
        let invalid = document.invalid();
        let postmortem = document.typed().map_err(|error| {
            // The schema names the field; the parser only what it stumbled over.
            let said = invalid.iter().map(ToString::to_string).reduce(|a, b| format!("{a}\n{b}"));
            anyhow::anyhow!("{}: {}", shown(path), said.unwrap_or(format!("{}{error}", document.label)))
        })?;
        let incident = postmortem.status.as_ref().and_then(|s| s.incident.as_ref());
        let archived = incident.map(|incident| Archived::among(incident, &config_maps)).unwrap_or_default();
        Ok((postmortem.name_any(), markdown::render(&postmortem, archived.records())))
    });
    rendered.collect()
}

/// Everything that is found out about the postmortems in a file. Where the API server would refuse one, the rules are
/// still applied as far as it can be read.
///
/// An error means that the file cannot be read, is no YAML or holds no Postmortem.
pub fn lint_file(path: impl AsRef<Path>) -> anyhow::Result<Vec<Finding>> {
    let path = path.as_ref();
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for document in read(path)?.documents {
        let mut here = document.invalid();
        let metadata = &document.value["metadata"];
        let name = ["namespace", "name"].map(|key| metadata[key].as_str().unwrap_or_default().to_owned());
        if !name[1].is_empty() && !names.insert(name) {
            let (field, message) =
                ("metadata.name".to_owned(), "another postmortem of the input has this name".to_owned());
            here.push(document.place(Finding { level: Level::Invalid, rule: "schema", field, message }));
        }
        match document.typed() {
            Ok(postmortem) => here.extend(lint(&postmortem).into_iter().map(|f| document.place(f))),
            Err(error) if here.is_empty() => {
                let (field, message) = (format!("{}spec", document.label), error.to_string());
                here.push(Finding { level: Level::Invalid, rule: "schema", field, message });
            }
            Err(_) => {}
        }
        found.extend(here);
    }
    Ok(found)
}

/// Name of each postmortem in a file, and the postmortem as it stands there.
pub(super) fn values(path: &Path) -> anyhow::Result<Vec<(String, Value)>> {
    let named = |d: Document| (d.value["metadata"]["name"].as_str().unwrap_or_default().to_owned(), d.value);
    Ok(read(path)?.documents.into_iter().map(named).collect())
}

/// What a file holds of what is looked at.
struct Input {
    documents: Vec<Document>,
    config_maps: Vec<ConfigMap>,
}

/// One Postmortem of a file.
struct Document {
    value: Value,
    /// Which one it is, to stand before a field; empty when it is the only one.
    label: String,
}

impl Document {
    /// What the API server would refuse.
    fn invalid(&self) -> Vec<Finding> {
        let crd = serde_json::to_value(Postmortem::crd()).unwrap_or_default();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let empty = Value::Object(serde_json::Map::new());
        let spec = self.value.get("spec").filter(|spec| !spec.is_null()).unwrap_or(&empty);
        let mut found = schema::check(schema, spec, "spec");
        let mut invalid = |field: &str, message: String| {
            found.push(Finding { level: Level::Invalid, rule: "schema", field: field.to_owned(), message });
        };
        match self.value["metadata"]["name"].as_str() {
            None | Some("") => invalid("metadata.name", "the field is required".to_owned()),
            Some(name) if !is_object_name(name) => {
                let message = "a name consists of lower case letters, digits, - and ., and begins and ends with a letter or digit";
                invalid("metadata.name", message.to_owned());
            }
            Some(_) => {}
        }
        if self.value["apiVersion"] != API_VERSION {
            invalid("apiVersion", format!("{API_VERSION} is expected"));
        }
        let known =
            [("", &["apiVersion", "kind", "metadata", "spec", "status"][..]), ("metadata", &METADATA[..])];
        for (parent, known) in known {
            let object = if parent.is_empty() { &self.value } else { &self.value[parent] };
            for key in
                object.as_object().into_iter().flat_map(|o| o.keys()).filter(|k| !known.contains(&k.as_str()))
            {
                let field = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
                invalid(&field, "there is no such field".to_owned());
            }
        }
        for field in ["labels", "annotations"] {
            let pairs = self.value["metadata"][field].as_object().into_iter().flatten();
            for (key, _) in pairs.filter(|(_, value)| !value.is_string()) {
                let message = "text is expected; quotes make a number one".to_owned();
                invalid(&format!("metadata.{field}.{key}"), message);
            }
        }
        found.into_iter().map(|f| self.place(f)).collect()
    }

    fn typed(&self) -> Result<Postmortem, serde_json::Error> {
        let mut value = self.value.clone();
        // A file that says nothing yet is a postmortem that lacks everything.
        if value["spec"].is_null() {
            value["spec"] = Value::Object(serde_json::Map::new());
        }
        if value["metadata"].is_null() {
            value["metadata"] = Value::Object(serde_json::Map::new());
        }
        serde_json::from_value(value)
    }

    fn place(&self, mut finding: Finding) -> Finding {
        finding.field.insert_str(0, &self.label);
        finding
    }
}

/// A file as it is called in messages.
fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// The fields of metadata.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Whether the API server takes it as the name of an object (RFC 1123).
fn is_object_name(name: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(is_end) && part.ends_with(is_end) && part.chars().all(|c| is_end(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn read(path: &Path) -> anyhow::Result<Input> {
    let file = shown(path);
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("reading standard input")?;
        bytes
    } else {
        fs::read(path).with_context(|| format!("reading {file}"))?
    };
    let text = String::from_utf8(bytes).with_context(|| format!("{file} is not UTF-8"))?;
    let values: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| anyhow::anyhow!("{file}: {}", error.render_with_formatter(&InWords)))?;
    let mut found = Vec::new();
    for value in values {
        match value.get("items").and_then(Value::as_array) {
            Some(items) if value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                found.extend(items.iter().cloned());
            }
            _ => found.push(value),
        }
    }
    let ours = |value: &Value| {
        let group = value["apiVersion"].as_str().and_then(|v| v.split('/').next());
        value["kind"] == "Postmortem" && group == Some(GROUP)
    };
    let is_config_map = |value: &&Value| value["kind"] == "ConfigMap" && value["apiVersion"] == "v1";
    let config_maps = found.iter().filter(is_config_map);
    // What is none, whatever it says of itself, is left alone as other kinds are.
    let config_maps = config_maps.filter_map(|value| serde_json::from_value(value.clone()).ok()).collect();
    found.retain(ours);
    if found.is_empty() {
        bail!("{file} holds no Postmortem of {API_VERSION}");
    }
    let several = found.len() > 1;
    let label = |value: &Value, index: usize| match value["metadata"]["name"].as_str() {
        Some(name) => format!("{name}: "),
        None => format!("Postmortem {}: ", index + 1),
    };
    let documents = found.into_iter().enumerate().map(|(index, value)| {
        let label = if several { label(&value, index) } else { String::new() };
        Document { value, label }
    });
    Ok(Input { documents: documents.collect(), config_maps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tempfile::NamedTempFile;

    fn file(text: impl AsRef<[u8]>) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    fn said(text: &str) -> Vec<String> {
        lint_file(file(text).path()).unwrap().iter().map(|f| f.to_string()).collect()
    }

    const COMPLETE: &str = r#"
apiVersion: incident-operator.dev/v1alpha1
kind: Postmortem
metadata: {name: checkout-errors, namespace: shop}
spec:
  owner: alice
  reviewers: [bob]
  summary: The checkout was down.
  impact: 40 % of checkouts failed.
  rootCauses: One pool for all.
  detection: An alert.
  wentWell: The rollback.
  wentPoorly: The search for the cause.
  timeline: [{time: 2026-11-23T10:00:00Z, message: first error}]
  actionItems:
  - {id: pool, title: Split the pool, owner: bob, dueDate: 2026-12-15}
"#;

    #[test]
    fn a_complete_postmortem_passes() {
        assert_eq!(said(COMPLETE), Vec::<String>::new());
    }

    #[test]
    fn the_example_of_this_repository_passes_and_its_timeline_is_that_of_the_incident() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/postmortem.yaml");
        let said: Vec<_> = lint_file(path).unwrap().iter().map(|f| f.to_string()).collect();
        assert_eq!(
            said,
            ["spec.timeline: warning: the timeline is that of incident checkout-errors [timeline]"]
        );
        assert!(render_file(path).unwrap().contains("## Timeline\n\n_Missing._"));
    }

    #[test]
    fn what_the_api_server_would_refuse_is_named_with_its_field() {
        let text = COMPLETE
            .replace("rootCauses", "rootCause")
            .replace("reviewers: [bob]", "reviewers: [bob, bob]")
            .replace("owner: alice", "owner: 7")
            .replace("time: 2026-11-23T10:00:00Z", "time: yesterday")
            .replace("id: pool, title: Split the pool", "title: Split the pool, state: Later");
        let said = said(&text);
        for expected in [
            "spec.rootCause: invalid: there is no such field; rootCauses is meant? [schema]",
            "spec.reviewers[1]: invalid: the entry is given twice [schema]",
            "spec.owner: invalid: a value of type string is expected, a number (quotes make it text) is given [schema]",
            "spec.timeline[0].time: invalid: a time such as 2026-11-23T10:02:00Z is expected [schema]",
            "spec.actionItems[0].state: invalid: one of Open, InProgress, Done, WontFix is expected [schema]",
            "spec.actionItems[0].id: invalid: the field is required [schema]",
        ] {
            assert!(said.iter().any(|s| s == expected), "{expected} in {said:#?}");
        }
        let error = render_file(file(&text).path()).unwrap_err().to_string();
        assert!(error.contains("spec.actionItems[0].state"), "{error}");
    }

    #[test]
    fn a_name_or_a_field_beside_the_spec_that_the_api_server_would_refuse_is_named() {
        let text = COMPLETE.replace(
            "{name: checkout-errors, namespace: shop}",
            "{name: Checkout Errors, lables: {}, labels: {a: 1}}",
        ) + "sepc: {}\n";
        let found = said(&text);
        for expected in [
            "metadata.name: invalid: a name consists of lower case letters",
            "metadata.lables: invalid: there is no such field [schema]",
            "metadata.labels.a: invalid: text is expected",
            "sepc: invalid: there is no such field [schema]",
        ] {
            assert!(found.iter().any(|s| s.starts_with(expected)), "{expected} in {found:#?}");
        }
        let twice = format!("{COMPLETE}---\n{COMPLETE}");
        let expected =
            "checkout-errors: metadata.name: invalid: another postmortem of the input has this name [schema]";
        assert_eq!(said(&twice), [expected]);
        for (name, fits) in [("a.b-c", true), ("a..b", false), ("-a", false), ("a_b", false), ("결제", false)]
        {
            assert_eq!(is_object_name(name), fits, "{name}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_and_one_of_64_kb_is_not() {
        let with = |n: usize| COMPLETE.replace("One pool for all.", &"x".repeat(n));
        assert_eq!(said(&with(65_536)), Vec::<String>::new());
        assert_eq!(
            said(&with(65_537)),
            ["spec.rootCauses: invalid: 65537 characters are given, 65536 are allowed [schema]"]
        );
    }

    #[test]
    fn every_postmortem_of_a_file_is_checked_and_other_kinds_are_left_alone() {
        let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
        let text = format!(
            "{other}---\n{COMPLETE}---\n{}",
            COMPLETE.replace("checkout-errors", "second").replace("impact:", "trigger:")
        );
        assert_eq!(said(&text), ["second: spec.impact: missing: Impact [section]"]);
        let error = render_file(file(&text).path()).unwrap_err().to_string();
        assert!(
            error.ends_with("holds 2 postmortems, where one is expected: checkout-errors, second"),
            "{error}"
        );
        assert_eq!(render_each(file(&text).path()).unwrap().len(), 2);
    }

    #[test]
    fn a_list_as_kubectl_writes_it_is_read() {
        let item = COMPLETE.trim().replace('\n', "\n  ");
        let text = format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n");
        assert_eq!(said(&text), Vec::<String>::new());
        assert!(render_file(file(&text).path()).unwrap().contains("\n# Postmortem checkout-errors\n"));
    }

    #[test]
    fn the_archive_of_the_timeline_is_rendered_from_the_config_maps_of_the_same_input() {
        let entry = |minute: u32, message: &str| {
            let time = format!("2026-11-23T10:{minute:02}:00Z");
            json!([{"time": time, "recordedTime": time, "reason": "Note", "message": message}]).to_string()
        };
        let archive = r#"{"configMaps": 1, "entries": 1}"#;
        let postmortem = format!(
            "{COMPLETE}status:\n  incident: {{name: outage, uid: u1, title: t, timelineArchive: {archive}}}\n  timeline: {}\n",
            entry(2, "newer")
        );
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "immutable": true,
            "metadata": {"name": "outage-timeline-0", "labels": {"app.kubernetes.io/managed-by": "incident-operator"},
                "annotations": {"incident-operator.dev/incident-uid": "u1"}},
            "data": {"timeline.json": entry(1, "older")},
        })
        .to_string()
            + "\n";
        let alone = render_file(file(&postmortem).path()).unwrap();
        assert!(alone.contains("| newer |") && alone.contains("Not shown: the 1 oldest"), "{alone}");
        // In whatever order they come, and whatever else is there.
        let broken = "apiVersion: v1\nkind: ConfigMap\nmetadata: []\n";
        for input in [format!("{postmortem}---\n{map}"), format!("{broken}---\n{map}---\n{postmortem}")] {
            let whole = render_file(file(&input).path()).unwrap();
            let places = ["| first error |", "| older |", "| newer |"].map(|text| whole.find(text));
            assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{whole}");
            assert!(!whole.contains("Not shown"), "{whole}");
            assert_eq!(said(&input), Vec::<String>::new());
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
        let error = |text: &[u8]| {
            let file = file(text);
            let error = format!("{:#}", lint_file(file.path()).unwrap_err());
            assert!(error.contains(&file.path().display().to_string()), "{error}");
            error
        };
        assert!(error(b"spec: [").contains("line 1"));
        assert!(error(b"title: \"\\ud800\"").contains("line 1"));
        assert!(
            error(b"spec: {summary: one, summary: two}")
                .contains("line 1 column 22: summary is there twice\n")
        );
        assert!(error(b"spec: &a {links: *a}").contains("an alias stands inside of what it repeats"));
        let bomb = (b'b'..=b'i').fold("a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, c| {
            let (name, last) = (char::from(c), char::from(c - 1));
            format!("{text}{name}: &{name} [{}]\n", vec![format!("*{last}"); 9].join(","))
        });
        assert!(error(bomb.as_bytes()).contains("there is too much of it, or it is nested too deeply"));
        assert!(error(b"\xff\xfe").contains("UTF-8"));
        assert!(error(b"").contains("holds no Postmortem"));
        assert!(error(b"kind: Postmortem\napiVersion: other.dev/v1").contains("holds no Postmortem"));
        assert!(format!("{:#}", lint_file("/nonexistent.yaml").unwrap_err()).contains("/nonexistent.yaml"));
    }

    #[test]
    fn a_postmortem_that_says_nothing_lacks_everything_and_is_rendered() {
        let text = "apiVersion: incident-operator.dev/v1alpha1\nkind: Postmortem\nmetadata: {name: empty}\n";
        assert_eq!(said(text).iter().filter(|s| s.contains("missing:")).count(), 8);
        assert!(render_file(file(text).path()).unwrap().contains("## Summary\n\n_Missing._"));
    }
}
