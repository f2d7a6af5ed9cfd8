use super::parsed::{dangers, dialects, each, github, headings, tables as tables_of};
use super::*;
use comrak::nodes::NodeValue;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The document of a postmortem whose timeline has no archive.
fn render(postmortem: &Postmortem) -> String {
    super::render(postmortem, &[])
}

const OUTLINE: [&str; 13] = [
    "Summary",
    "Impact",
    "Root cause",
    "Trigger",
    "Detection",
    "Resolution",
    "Mitigations",
    "Timeline",
    "What went well",
    "What went poorly",
    "Where we got lucky",
    "Action items",
    "Links",
];

fn postmortem(value: Value) -> Postmortem {
    let whole = json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Postmortem"});
    let (Value::Object(mut whole), Value::Object(parts)) = (whole, value) else { panic!("objects") };
    whole.extend(parts);
    serde_json::from_value(Value::Object(whole)).unwrap()
}

/// A postmortem as an incident leaves it and people complete it.
fn example() -> Value {
    json!({
        "metadata": {"name": "checkout-errors", "namespace": "shop"},
        "spec": {
            "incidentRef": {"name": "checkout-errors"}, "title": "Checkout returns 500 for 40 % of requests",
            "state": "Reviewed", "owner": "alice", "reviewers": ["bob", "carol"],
            "summary": "The nightly import used up the connections of the database.\nThe checkout could not get one and answered 500.",
            "impact": "40 % of checkouts failed for 38 minutes.\n\n- Affected tenants: 120\n- No order was lost.",
            "rootCauses": "# Pool\n\nImporter and checkout share one pool:\n\n```yaml\npool: {max: 20}\n---\nshared: true\n```\n\n# Limits\n\nNothing limits the importer's part of it.",
            "trigger": "The new pricing doubled the number of queries per imported row.",
            "detection": "The error rate alert fired six minutes after the first failed checkout.",
            "resolution": "The importer was stopped and the new pricing switched off.",
            "wentWell": "- The importer was stopped within a second of the declaration.",
            "wentPoorly": "It took four minutes to learn which tenants were affected.",
            "gotLucky": "The import had not yet reached the tables of the orders.",
            "timeline": [{"time": "2026-11-23T09:58:00Z", "message": "pricing flag switched on for everybody",
                "link": "https://ci.example.com/deploys/1234"}],
            "actionItems": [
                {"id": "pool", "title": "Give the importer a connection pool of its own", "type": "Prevent", "priority": "P0",
                    "owner": "bob", "dueDate": "2026-11-30", "state": "InProgress", "url": "https://git.example.com/shop/issues/77"},
                {"id": "alert", "title": "Alert on the share of connections in use", "type": "Detect", "owner": "erin",
                    "dueDate": "2026-12-08"},
                {"id": "rewrite", "title": "Rewrite the importer", "state": "WontFix", "reason": "it is retired in May"}],
            "links": ["https://alerts.example.com/1"],
        },
        "status": {
            "durations": {"detectSeconds": 360, "acknowledgeSeconds": 420, "mitigateSeconds": 540, "resolveSeconds": 2280},
            "review": {"by": "carol", "authenticated": true, "time": "2026-11-25T09:00:00Z"},
            "incident": {
                "name": "checkout-errors", "uid": "u1", "title": "Checkout returns 500 for 40 % of requests",
                "severity": "SEV1", "service": "checkout", "commander": "alice",
                "roles": [
                    {"role": "IncidentCommander", "holder": "alice", "fromTime": "2026-11-23T10:07:00Z"},
                    {"role": "Scribe", "holder": "erin", "fromTime": "2026-11-23T10:08:00Z"}],
                "impact": {"affectedTenants": 120, "dataAtRisk": "None", "components": [{"name": "checkout", "state": "PartialOutage"}]},
                "startedTime": "2026-11-23T10:00:00Z", "detectedTime": "2026-11-23T10:06:00Z",
                "acknowledgedTime": "2026-11-23T10:07:00Z", "triagedTime": "2026-11-23T10:12:00Z",
                "mitigatedTime": "2026-11-23T10:09:00Z", "resolvedTime": "2026-11-23T10:38:00Z",
                "mitigations": [
                    {"name": "stop-importer", "uid": "m1", "action": "scale", "target": "Deployment/importer",
                        "reason": "importer floods the database", "change": "spec.replicas from 3 to 0",
                        "phase": "Released", "appliedTime": "2026-11-23T10:08:00Z", "effectiveTime": "2026-11-23T10:08:04Z",
                        "releasedTime": "2026-11-23T10:38:00Z"},
                    {"name": "pricing-off", "uid": "m2", "action": "featureFlag", "target": "ConfigMap/flags",
                        "reason": "errors began with the flag", "change": "data.new-pricing from \"on\" to \"off\"",
                        "phase": "Active", "appliedTime": "2026-11-23T10:09:00Z", "effectiveTime": "2026-11-23T10:09:00Z",
                        "waiver": "stays off until the pool is split"}],
            },
            "timeline": [
                {"time": "2026-11-23T10:06:00Z", "recordedTime": "2026-11-23T10:06:00Z", "reason": "Declared",
                    "message": "SEV1 incident declared: Checkout returns 500 for 40 % of requests", "author": "alice", "authenticated": true},
                {"time": "2026-11-23T10:08:00Z", "recordedTime": "2026-11-23T10:08:00Z", "reason": "MitigationApplied",
                    "message": "scale Deployment/importer: 3 to 0 (importer floods the database)", "author": "alice", "authenticated": true},
                {"time": "2026-11-23T10:10:00Z", "recordedTime": "2026-11-23T10:10:30Z", "reason": "Note",
                    "message": "only for us", "author": "bob", "authenticated": true, "audience": "Responders"},
                {"time": "2026-11-23T10:15:00Z", "recordedTime": "2026-11-23T10:15:00Z", "reason": "StatusUpdate",
                    "message": "Checkouts are recovering.\nNext update at 10:30.", "author": "carol", "authenticated": false, "audience": "Internal"},
                {"time": "2026-11-23T10:38:00Z", "recordedTime": "2026-11-23T10:38:00Z", "reason": "Resolved",
                    "message": "resolved: importer rate fixed"}],
        },
    })
}

const REQUIRED: [&str; 8] = [
    "Summary",
    "Impact",
    "Root cause",
    "Detection",
    "Timeline",
    "What went well",
    "What went poorly",
    "Action items",
];

/// Whether the headings are those of the document and no others: required ones, and optional ones where something
/// is written.
fn is_whole(outline: &[String]) -> bool {
    let known = OUTLINE.iter().filter(|title| outline.iter().any(|o| o == *title));
    REQUIRED.iter().all(|title| outline.iter().any(|o| o == title)) && known.eq(outline.iter())
}

fn outline(document: &str) -> Vec<String> {
    let all = headings(document, &github());
    assert!(all.iter().all(|(level, _, top)| *top || *level > 2), "{all:?}");
    all.into_iter().filter(|(level, _, _)| *level == 2).map(|(_, text, _)| text).collect()
}

fn front_matter(document: &str) -> Value {
    let text = document.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap().0;
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The table below a heading.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let after = document.split_once(&format!("\n## {heading}\n")).unwrap().1;
    tables_of(after.split("\n## ").next().unwrap()).remove(0)
}

// ---- a document that one would publish ---------------------------------------------------------------------------

#[test]
fn the_example_gives_the_document_that_is_kept_beside_it() {
    let document = render(&postmortem(example()));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/decide/markdown/example.md");
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(file, &document).unwrap();
    }
    assert_eq!(document, std::fs::read_to_string(file).unwrap(), "set UPDATE_EXAMPLE=1 to accept");
}

#[test]
fn every_required_section_is_there_and_a_missing_one_says_so_and_nothing_else_that_is_missing_is_there() {
    let empty = render(&postmortem(
        json!({"metadata": {"name": "pm"}, "spec": {"summary": "TODO", "trigger": "TBD"}}),
    ));
    assert_eq!(outline(&empty), REQUIRED);
    assert_eq!(empty.matches("\n\n_Missing._").count(), REQUIRED.len(), "{empty}");
    assert!(empty.contains("\n# Postmortem pm\n"));
    assert_eq!(outline(&render(&postmortem(example()))), OUTLINE);
    let mut quiet = example();
    quiet["status"]["incident"]["mitigations"] = json!([]);
    assert!(
        render(&postmortem(quiet)).contains("## Mitigations\n\n_None._\n"),
        "an incident without mitigations says so"
    );
}

#[test]
fn a_step_by_hand_tells_what_was_asked_and_is_done_when_somebody_said_so() {
    let row = |phase: &str, done: bool| {
        let mut value = example();
        let step = json!({"name": "bank", "uid": "m1", "action": "manual", "target": "Service/bank",
            "reason": "payments hang", "change": "bob was asked: Call the bank", "phase": phase,
            "appliedTime": "2026-11-23T10:08:00Z", "effectiveTime": done.then_some("2026-11-23T10:09:00Z")});
        value["status"]["incident"]["mitigations"] = json!([step]);
        let page = render(&postmortem(value));
        let row = page.lines().find(|line| line.starts_with("| M1 | manual Service/bank |")).unwrap();
        assert!(row.contains("| bob was asked: Call the bank |"), "{row}");
        row.rsplit(" | ").next().unwrap().trim_end_matches(" |").to_owned()
    };
    assert_eq!(row("Active", false), "nobody said that it was done; still open");
    assert_eq!(row("Released", false), "nobody said that it was done; ended");
    assert_eq!(row("Active", true), "done; still open");
    assert_eq!(row("Released", true), "done; ended");
    assert_eq!(row("Kept", true), "done; ended, and what was done stays");
}

#[test]
fn times_have_seconds_only_where_seconds_are_known_and_names_of_the_api_are_words() {
    let mut value = example();
    let document = render(&postmortem(value.clone()));
    assert_eq!(table(&document, "Timeline")[3][..2], ["2026-11-23 10:08", "Mitigation applied"]);
    assert_eq!(table(&document, "Mitigations")[1][5], "2026-11-23 10:08:04");
    value["spec"]["timeline"][0]["time"] = json!("2026-11-23T09:58:01Z");
    let document = render(&postmortem(value));
    assert_eq!(table(&document, "Timeline")[1][0], "2026-11-23 09:58:01");
    assert_eq!(table(&document, "Timeline")[3][0], "2026-11-23 10:08:00");
    for (name, words) in
        [("InReview", "In review"), ("SEV1", "SEV1"), ("Added by hand", "Added by hand"), ("a", "a")]
    {
        assert_eq!(in_prose(name), words);
    }
}

#[test]
fn front_matter_has_every_key_whatever_is_known() {
    let full = front_matter(&render(&postmortem(example())));
    let empty = front_matter(&render(&postmortem(json!({"metadata": {}, "spec": {}}))));
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&full), keys(&empty));
    for (key, value) in [
        ("incident", json!("checkout-errors")),
        ("severity", json!("SEV1")),
        ("service", json!("checkout")),
        ("start", json!("2026-11-23T10:00:00Z")),
        ("end", json!("2026-11-23T10:38:00Z")),
        ("authors", json!(["alice"])),
        ("reviewers", json!(["bob", "carol"])),
    ] {
        assert_eq!(full[key], value, "{key}");
    }
    assert_eq!(full["durations"]["resolveSeconds"], 2280);
    assert_eq!(full["actionItems"][0]["dueDate"], "2026-11-30");
    assert_eq!(empty["durations"]["resolveSeconds"], Value::Null);
    assert_eq!(empty["actionItems"], json!([]));
}

#[test]
fn recorded_and_curated_entries_are_one_timeline_by_time_and_the_responders_own_are_left_out() {
    let document = render(&postmortem(example()));
    let rows = table(&document, "Timeline");
    let said: Vec<_> = rows.iter().map(|r| (r[0].as_str(), r[3].as_str())).collect();
    assert_eq!(
        said,
        [
            ("Time (UTC)", "Who"),
            ("2026-11-23 09:58", "–"),
            ("2026-11-23 10:06", "alice"),
            ("2026-11-23 10:08", "alice"),
            ("2026-11-23 10:15", "carol (not verified)"),
            ("2026-11-23 10:38", "operator"),
        ]
    );
    assert!(document.contains("_Not shown: 1 entry that only responders may read._"));
    // What a person wrote and nobody vouches for was not written by the operator.
    let mut unsigned = example();
    let entry = unsigned["status"]["timeline"][3].as_object_mut().unwrap();
    entry.remove("author");
    entry.insert("entryUid".into(), json!("e1"));
    assert_eq!(table(&render(&postmortem(unsigned)), "Timeline")[4][3], "not known");
}

/// Older entries, as their ConfigMaps have them.
fn archived(count: usize, message: &str) -> Vec<TimelineRecord> {
    let entry = |n: usize| {
        json!({"time": format!("2026-11-23T10:07:{:02}Z", n % 60), "recordedTime": "2026-11-23T10:08:00Z",
            "reason": "Note", "message": format!("{message} {n}"), "author": "bob", "authenticated": true,
            "audience": if n == 1 { "Responders" } else { "Internal" }})
    };
    (0..count).map(|n| serde_json::from_value(entry(n)).unwrap()).collect()
}

#[test]
fn older_entries_stand_at_their_time_in_the_timeline_and_what_is_not_at_hand_is_counted() {
    let mut value = example();
    value["status"]["incident"]["timelineArchive"] = json!({"configMaps": 2, "entries": 3});
    let postmortem = postmortem(value);
    let with = |count| super::render(&postmortem, &archived(count, "old"));
    let rows = table(&with(3), "Timeline");
    let said: Vec<_> = rows.iter().map(|r| r[2].split(' ').next().unwrap()).collect();
    assert_eq!(said, ["What", "pricing", "SEV1", "old", "old", "scale", "Checkouts", "resolved:"]);
    assert!(with(3).contains("_Not shown: 2 entries that only responders may read._"));
    assert!(!with(3).contains("oldest entries"));
    let place = "lie in 2 ConfigMaps checkout-errors-timeline-…, with label incident-operator.dev/incident=checkout-errors";
    assert!(with(0).contains(&format!("_Not shown: the 3 oldest entries. They {place}")), "{}", with(0));
    assert!(with(2).contains(&format!("_Not shown: 1 of the 3 oldest entries. All of these {place}")));
}

#[test]
fn ten_thousand_older_entries_are_cut_in_the_middle_and_the_document_says_where_the_rest_is() {
    let mut value = example();
    value["status"]["incident"]["timelineArchive"] = json!({"configMaps": 100, "entries": 12_000});
    let document = super::render(&postmortem(value), &archived(10_000, &"x".repeat(200)));
    assert!(document.len() <= MAX_BYTES && document.len() > MAX_BYTES / 4, "{}", document.len());
    let note = document.lines().find(|l| l.contains("This document is cut")).unwrap();
    assert!(note.contains("entries of the timeline"), "{note}");
    assert!(note.ends_with("Postmortem checkout-errors and the archive of its timeline."), "{note}");
    assert!(document.contains("_Not shown: 2000 of the 12000 oldest entries."));
    let rows = table(&document, "Timeline");
    assert!(rows.last().unwrap()[2].starts_with("resolved:"), "{:?}", rows.last());
}

#[test]
fn an_outage_before_the_operator_existed_gives_a_document_too() {
    let old = render(&postmortem(json!({
        "metadata": {"name": "db-outage-2018"},
        "spec": {"timeline": [
            {"time": "2018-10-21T23:03:00Z", "message": "all green"},
            {"time": "2018-10-21T22:52:00Z", "message": "43 seconds of partition"}]},
    })));
    assert_eq!(table(&old, "Timeline")[1], ["2018-10-21 22:52", "43 seconds of partition"]);
    assert!(old.contains("| Duration | 11m (from the timeline) |"), "{old}");
    assert!(!old.contains("mermaid"));
    assert_eq!(front_matter(&old)["start"], "2018-10-21T22:52:00Z");
}

#[test]
fn the_chart_has_one_bar_a_stage_whatever_the_order_of_facts() {
    let document = render(&postmortem(example()));
    let chart = document.split_once("```mermaid\n").unwrap().1.split_once("\n```").unwrap().0;
    let lines: Vec<_> = chart.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "gantt",
            "dateFormat YYYY-MM-DD HH:mm:ss",
            "axisFormat %H:%M",
            "section Impact",
            "Impact :crit, 2026-11-23 10:00:00, 2026-11-23 10:38:00",
            "section Stages",
            "Detected :milestone, 2026-11-23 10:06:00, 0s",
            "Detect :2026-11-23 10:00:00, 2026-11-23 10:07:00",
            "Triage :2026-11-23 10:07:00, 2026-11-23 10:12:00",
            "Mitigate :milestone, 2026-11-23 10:09:00, 0s",
            "Resolve :2026-11-23 10:12:00, 2026-11-23 10:38:00",
            "section Mitigations",
            "M1 scale Deployment/importer :done, 2026-11-23 10:08:00, 2026-11-23 10:38:00",
            "M2 featureFlag ConfigMap/flags :active, 2026-11-23 10:09:00, 2026-11-23 10:38:00",
        ]
    );
}

// ---- the same bytes ----------------------------------------------------------------------------------------------

#[test]
fn what_does_not_belong_to_the_text_does_not_change_it() {
    let mut other = example();
    other["metadata"]["labels"] = json!({"b": "1", "a": "2"});
    other["metadata"]["annotations"] = json!({"z": "1", "y": "2"});
    other["metadata"]["namespace"] = json!("elsewhere");
    other["metadata"]["resourceVersion"] = json!("99");
    other["status"]["observedGeneration"] = json!(7);
    other["status"]["dueTime"] = json!("2026-11-26T10:38:00Z");
    other["status"]["overdueActionItems"] = json!(["pool"]);
    other["status"]["warnings"] = json!(["x"]);
    assert_eq!(render(&postmortem(other)), render(&postmortem(example())));
}

#[test]
fn entries_of_the_same_second_keep_their_order() {
    let mut value = example();
    let entry = |n: usize| json!({"time": "2026-11-23T10:06:00Z", "message": format!("entry {n}")});
    value["spec"]["timeline"] = (0..50).map(entry).collect();
    let document = render(&postmortem(value));
    let rows: Vec<_> = table(&document, "Timeline").into_iter().map(|r| r[2].clone()).collect();
    assert!(rows[1].starts_with("SEV1 incident declared"), "{rows:?}");
    assert_eq!(rows[2..52], (0..50).map(|n| format!("entry {n}")).collect::<Vec<_>>());
}

// ---- hostile text ------------------------------------------------------------------------------------------------

/// The example with this text in every place in which people write.
fn everywhere(text: &str) -> Value {
    let mut value = example();
    for field in [
        "title",
        "summary",
        "impact",
        "rootCauses",
        "trigger",
        "detection",
        "resolution",
        "wentWell",
        "wentPoorly",
        "gotLucky",
        "owner",
    ] {
        value["spec"][field] = json!(text);
    }
    value["spec"]["reviewers"] = json!([text]);
    value["spec"]["links"] = json!([text, format!("https://{text}")]);
    value["spec"]["incidentRef"]["name"] = json!(text);
    value["spec"]["timeline"][0]["message"] = json!(text);
    value["spec"]["timeline"][0]["link"] = json!(text);
    for field in ["id", "title", "owner", "dueDate", "url"] {
        value["spec"]["actionItems"][0][field] = json!(text);
    }
    value["spec"]["actionItems"][2]["reason"] = json!(text);
    value["spec"]["actionItems"][2]["url"] = json!(format!("https://a.b/{text}"));
    value["status"]["review"]["by"] = json!(text);
    let incident = &mut value["status"]["incident"];
    incident["service"] = json!(text);
    incident["roles"][0]["holder"] = json!(text);
    incident["impact"]["affectedFeatures"] = json!([text]);
    incident["impact"]["components"][0]["name"] = json!(text);
    for field in ["action", "target", "reason", "change", "waiver"] {
        incident["mitigations"][1][field] = json!(text);
    }
    incident["mitigations"][0]["phase"] = json!("Superseded");
    incident["mitigations"][0]["undoneBy"] = json!(text);
    let entry = &mut value["status"]["timeline"][3];
    for field in ["reason", "message", "author", "link"] {
        entry[field] = json!(text);
    }
    value
}

/// What holds of every document, whatever was written.
fn check(value: Value) -> Result<(), TestCaseError> {
    let title = value["spec"]["title"].as_str().map(escape::one_line).unwrap_or_default();
    let document = render(&postmortem(value));
    prop_assert!(document.len() <= MAX_BYTES);
    for options in dialects() {
        let dangers = dangers(&document, &options);
        prop_assert!(dangers.is_empty(), "{dangers:?} in\n{document}");
    }
    prop_assert!(is_whole(&outline(&document)), "\n{}", document);
    let matter = front_matter(&document);
    prop_assert_eq!(matter.as_object().map(serde_json::Map::len), Some(13));
    if !title.is_empty() && title.len() < 1000 {
        prop_assert_eq!(&matter["title"], &json!(title));
    }
    // Each table of ours is whole: nothing ended a cell, a row or the table.
    for (heading, columns, rows) in [("Timeline", 4, 6), ("Mitigations", 8, 3), ("Action items", 7, 4)] {
        let table = table(&document, heading);
        prop_assert_eq!(table.len(), rows, "{} in\n{}", heading, document);
        prop_assert!(table.iter().all(|row| row.len() == columns), "{table:?}");
    }
    let (mut charts, mut matters) = (0, 0);
    each(&document, &github(), &mut |node, top| match node {
        NodeValue::CodeBlock(code)
            if top && code.info == "mermaid" && code.literal.starts_with("gantt\n    dateFormat") =>
        {
            charts += usize::from(code.literal.lines().skip(3).all(|line| {
                let line = line.trim();
                let task = line.split_once(" :").is_some_and(|(name, data)| {
                    !name.contains([':', ';', '#', '%'])
                        && data.chars().all(|c| c.is_ascii_alphanumeric() || " ,-:".contains(c))
                });
                task || line.starts_with("axisFormat ")
                    || ["section Impact", "section Stages", "section Mitigations"].contains(&line)
            }));
        }
        NodeValue::FrontMatter(_) => matters += 1,
        _ => {}
    });
    prop_assert_eq!((charts, matters), (1, 1), "\n{}", document);
    Ok(())
}

#[test]
fn hostile_text_stays_where_it_stands_in_every_field() {
    for text in [
        "a | b || c \\| d \\\\| e",
        "`a` ``b`` ```c\n```\nd",
        "---\ntitle: owned\n---\n# x",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "<!-- hidden\n\n--> <details><summary>x",
        "line one\nline two\r\nline three\rline four\u{2028}five\u{85}six",
        "## Action items\n\n| a | b |\n|---|---|\n| c | d |",
        "결제 오류 支付失败 決済エラー",
        "שגיאה בתשלום \u{202e}txt.exe\u{202c} \u{2066}x\u{2069} خطأ",
        "🔥 👩\u{200d}💻 🏴\u{e0067}\u{e0062}\u{e007f}",
        "\0 \u{1} \u{1b}[31m \u{7f} \u{9b} \u{fffe} \\ud800 \\x00 &#xD800; &#0;",
        "[x](javascript:alert(1)) [[y]] ![z](data:text/html,x) <javascript:alert(1)>",
        "\": [}, {*&!%@ |-\n  'q' #c",
        "section x\nclick y call z()\n%%{init: {}}%%\n:done, 2026-01-01, 1d; #x",
        "```mermaid\ngantt\n```\n```\nopen",
        "$a$ *b* _c_ ~~d~~ ==e== ^f^ {g} {{< h >}} {% i %}",
        "https://a.b/c|d`e\"f<g>h https://x\\<b> www.a.b`<b>`",
        "- [ ] x\n  - y\n\n        z\n1. w",
        "#",
        "\\",
        "trailing \\",
        "|",
        "=",
        "null",
        "2026-02-31",
    ] {
        check(everywhere(text)).unwrap();
    }
}

#[test]
fn a_cell_shows_what_was_written() {
    let text = "a|b `c` *d* _e_ <f> [g](h) &lt; \\| ~i~ $j$ #k 결제 🔥";
    let document = render(&postmortem(everywhere(text)));
    assert_eq!(table(&document, "Timeline")[4][2], format!("{text} {text}"));
    assert_eq!(table(&document, "Action items")[1][4], text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_written_stays_where_it_stands(text in "[a-c \\n|`<>/!\\-#*_\\[\\]()\\\\:\"'&;{}$~=.\u{0}\u{2028}\u{202e}한א🔥]{0,60}") {
        check(everywhere(&text))?;
    }
}

// ---- size --------------------------------------------------------------------------------------------------------

#[test]
fn what_fits_is_whole() {
    let mut value = example();
    value["spec"]["rootCauses"] = json!("word ".repeat(13_000));
    let document = render(&postmortem(value));
    assert!(document.len() > 65_000 && !document.contains("This document is cut"));
}

#[test]
fn what_does_not_fit_is_cut_and_says_what_was_cut() {
    let mut value = example();
    for field in ["summary", "impact", "rootCauses"] {
        value["spec"][field] = json!("결제 오류 ".repeat(14_000));
    }
    let entry =
        |n: usize| json!({"time": "2026-11-23T10:20:00Z", "message": format!("{n} {}", "<".repeat(4000))});
    value["spec"]["timeline"] = (0..150).map(entry).collect();
    let document = render(&postmortem(value));
    assert!(document.len() <= MAX_BYTES && document.len() > MAX_BYTES / 10, "{}", document.len());
    let note = document.lines().find(|l| l.contains("This document is cut")).unwrap();
    for said in ["section Summary after ", " of 196000 bytes", "the ends of ", "Postmortem checkout-errors."]
    {
        assert!(note.contains(said), "{said} in {note}");
    }
    assert_eq!(outline(&document), OUTLINE);
}

#[test]
fn a_list_that_is_cut_keeps_its_beginning_and_its_end_and_counts_the_rest() {
    let mut value = example();
    let entry =
        |n: usize| json!({"time": "2026-11-23T10:20:00Z", "message": format!("n{n} {}", "x".repeat(500))});
    value["spec"]["timeline"] = (0..3000).map(entry).collect();
    value["status"]["timeline"] = json!([]);
    let document = render(&postmortem(value));
    let rows = table(&document, "Timeline");
    assert!(rows[1][1].starts_with("n0 ") && rows.last().unwrap()[1].starts_with("n2999 "));
    let gap = rows.iter().find(|r| r[0] == "…").unwrap();
    assert_eq!(gap[1], format!("{} entries are left out here", 3000 - (rows.len() - 2)));
    assert!(document.contains("entries of the timeline"), "{}", &document[..2000]);
}

#[test]
fn the_worst_there_can_be_fits() {
    let long = "<`|".repeat(400);
    let mut value = everywhere(&long);
    let item = value["spec"]["actionItems"][0].clone();
    value["spec"]["actionItems"] = json!(vec![item; 100]);
    let entry = value["status"]["timeline"][3].clone();
    value["status"]["timeline"] = json!(vec![entry; 256]);
    let document = render(&postmortem(value));
    assert!(document.len() <= MAX_BYTES, "{}", document.len());
    assert!(is_whole(&outline(&document)), "{:?}", outline(&document));
    front_matter(&document);
}
