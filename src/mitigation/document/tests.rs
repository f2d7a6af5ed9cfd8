use super::*;

const FLAGD: &str = r#"{
  "$schema": "https://flagd.dev/schema/v0/flags.json",
  "flags": {
    "new-pricing": {
      "state":   "ENABLED",
      "variants": { "on": true, "off": false },
      "defaultVariant": "on",   
      "targeting": {"if": [{"in": ["@corp", {"var": "email"}]}, "on", "off"]}
    }
  }
}
"#;

const YAML: &str = "\
# switches of the shop
flags:
  new.pricing:   # the team's own
    state: ENABLED
    enabled: true
    label: 'it''s on'
    weights: [1, 2,  3]
    targeting:
      if:
      - in: [\"@corp\", {var: email}]
      - \"on\" # beta

  other: {state: \"ENABLED\"}
";

fn place(format: Format, path: &[&str]) -> Place {
    Place { format, path: path.iter().map(|&p| p.to_owned()).collect() }
}

/// Writes, checks that one stretch of text alone differs, and writes back.
fn there_and_back(format: Format, text: &str, path: &[&str], value: &Value, looks: &str) {
    let place = place(format, path);
    let before = place.read(text).unwrap_or_else(|| panic!("{path:?} is there"));
    let written = place.write(text, Some(value)).unwrap();
    assert!(written.contains(looks), "{written}");
    assert_eq!(place.read(&written).as_ref(), Some(value));
    assert_eq!(place.write(&written, Some(&before)).unwrap(), text, "byte by byte as before");
}

#[test]
fn one_value_of_a_json_document_changes_and_comes_back_byte_by_byte() {
    let flag = ["flags", "new-pricing"];
    let at = |last| [flag[0], flag[1], last];
    there_and_back(Format::Json, FLAGD, &at("state"), &json!("DISABLED"), "\"state\":   \"DISABLED\",");
    there_and_back(
        Format::Json,
        FLAGD,
        &at("defaultVariant"),
        &json!("off"),
        "\"defaultVariant\": \"off\",   ",
    );
    there_and_back(Format::Json, FLAGD, &at("targeting"), &empty_map(), "\"targeting\": {}\n");
    there_and_back(
        Format::Json,
        FLAGD,
        &["flags", "new-pricing", "variants", "on"],
        &json!(false),
        "\"on\": false,",
    );
}

#[test]
fn one_value_of_a_yaml_document_changes_and_comments_and_spacing_stay() {
    let at = |last| ["flags", "new.pricing", last];
    there_and_back(Format::Yaml, YAML, &at("state"), &json!("DISABLED"), "    state: DISABLED\n");
    there_and_back(Format::Yaml, YAML, &at("enabled"), &json!(false), "enabled: false\n");
    there_and_back(Format::Yaml, YAML, &at("label"), &json!("it's off"), "label: 'it''s off'\n");
    there_and_back(Format::Yaml, YAML, &at("weights"), &empty_map(), "weights: {}\n");
    there_and_back(Format::Yaml, YAML, &at("targeting"), &empty_map(), "{} # beta\n");
    there_and_back(Format::Yaml, YAML, &["flags", "new.pricing", "weights", "1"], &json!(7), "[1, 7,  3]");
    there_and_back(
        Format::Yaml,
        YAML,
        &["flags", "other", "state"],
        &json!("DISABLED"),
        "{state: \"DISABLED\"}",
    );
}

#[test]
fn a_text_that_yaml_would_read_as_something_else_is_quoted() {
    for value in ["true", "1.5", "null", "a: b", "# x", "", "켜짐 🔥", "two\nlines"] {
        let written =
            place(Format::Yaml, &["flags", "new.pricing", "state"]).write(YAML, Some(&json!(value)));
        assert_eq!(
            place(Format::Yaml, &["flags", "new.pricing", "state"]).read(&written.unwrap()),
            Some(json!(value))
        );
    }
}

#[test]
fn a_shared_value_is_not_edited_for_all_who_share_it() {
    let text = "base: &b\n  state: ENABLED\na: *b\n";
    let error = place(Format::Yaml, &["a", "state"]).write(text, Some(&json!("DISABLED"))).unwrap_err();
    assert!(error.contains("a.state"), "{error}");
}

#[test]
fn a_line_of_properties_changes_alone() {
    let text = "# flag=old\nflag = on  \nother=flag\r\n";
    there_and_back(Format::Properties, text, &["flag"], &json!("off"), "flag = off  \n");
    assert!(place(Format::Properties, &["nope"]).write(text, Some(&json!("x"))).is_err());
    assert!(place(Format::Properties, &["flag"]).write(text, Some(&json!("x\ny"))).is_err());
}

#[test]
fn a_key_with_dots_in_it_can_be_named() {
    let document = parse(Format::Yaml, YAML).unwrap();
    assert_eq!(split(&document, "flags.new.pricing.state"), ["flags", "new.pricing", "state"]);
    assert_eq!(split(&document, "flags.absent.x"), ["flags", "absent", "x"]);
}

#[test]
fn formats_are_told_by_name_and_failing_that_by_text() {
    assert_eq!(Format::of("flags.json", "x"), Format::Json);
    assert_eq!(Format::of("flags", FLAGD), Format::Json);
    assert_eq!(Format::of("flags", YAML), Format::Yaml);
    assert_eq!(Format::of("flags", "a=b\nc=d\n"), Format::Properties);
}
