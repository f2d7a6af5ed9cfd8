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
    Place::new(format, path.iter().map(|&p| p.to_owned()).collect())
}

/// Writes, checks that one stretch of text alone differs, and writes back.
fn there_and_back(format: Format, text: &str, path: &[&str], value: &Value, looks: &str) {
    let place = place(format, path);
    let before = place.read(text).unwrap_or_else(|| panic!("{path:?} is there"));
    let written = place.write(text, Some(value)).unwrap();
    assert!(written.contains(looks), "{written}");
    assert_eq!(place.read(&written).as_ref(), Some(value));
    let back = place.as_written(text).write(&written, Some(&before));
    assert_eq!(back.unwrap(), text, "byte by byte as before");
}

/// Whoever reads the file may take `on`, `0644` and `1.50` for something else than `true`, `644.0` and `1.5`.
#[test]
fn a_value_comes_back_as_it_was_written_however_that_was() {
    for written in [
        "on",
        "Yes",
        "TRUE",
        "1.50",
        "0644",
        "0xFF",
        "+5",
        "1e3",
        "~",
        "null",
        "'v1'",
        "v1",
        "\"v1\"",
        "12345678901234567890123",
        "a plain text",
    ] {
        let text = format!("# flags\nflag: {written}   # why\nother: 1\n");
        let place = place(Format::Yaml, &["flag"]);
        let before = place.read(&text).unwrap_or_else(|| panic!("{written}"));
        for ours in [json!("0777"), json!("x: y"), json!(false), json!(7)] {
            let held = place.write(&text, Some(&ours)).unwrap();
            assert_eq!(place.read(&held), Some(ours));
            let back = place.as_written(&text).write(&held, Some(&before)).unwrap();
            assert_eq!(back, text);
        }
    }
    for written in ["12345678901234567890123", "1e3", "-0", "1.50", r#""http:\/\/a\u00e9""#, "null", "\"x\""]
    {
        let text = format!("{{\"flag\": {written} , \"other\": 1}}");
        there_and_back(Format::Json, &text, &["flag"], &json!("ours"), "\"flag\": \"ours\" ,");
    }
    let long = format!("flag: \"{}\"\n", "x".repeat(4096));
    assert_eq!(
        place(Format::Yaml, &["flag"]).as_written(&long).written,
        None,
        "it is kept as the value alone"
    );
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
fn a_value_that_would_not_be_read_as_it_is_meant_is_not_written_into_properties() {
    let text = "a=1,\\\n  b=2\nflag=on\n# c=3 \\\nd=4\n";
    let write = |key: &str, value: &str| place(Format::Properties, &[key]).write(text, Some(&json!(value)));
    for value in [" off", "off ", "off\\"] {
        assert!(write("flag", value).unwrap_err().contains("would not be read"), "{value:?}");
    }
    assert!(write("a", "2").unwrap_err().contains("goes on in the next line"));
    assert!(write("b", "3").unwrap_err().contains("no line with the key"), "it is part of another value");
    assert!(write("d", "5").unwrap().contains("\nd=5\n"), "a comment does not go on");
    assert_eq!(write("flag", "c:\\\\").unwrap(), text.replace("flag=on", "flag=c:\\\\"));
}

#[test]
fn a_key_that_stands_in_several_sections_is_named_with_its_section() {
    let text = "top=1\n[a]\nflag=on\nonly=x\n[ b ]\nflag=on\n";
    let write = |key: &str| place(Format::Properties, &[key]).write(text, Some(&json!("off")));
    assert_eq!(write("a.flag").unwrap(), text.replacen("flag=on", "flag=off", 1));
    assert_eq!(write("b.flag").unwrap(), format!("{}flag=off\n", &text[..text.len() - 8]));
    assert!(write("only").is_ok() && write("top").is_ok());
    assert!(write("flag").is_err(), "which of them is not said");
    assert!(nearest(Format::Properties, text, &["flag".to_owned()]).contains("top, a.flag, only, b.flag"));
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

#[test]
fn a_switch_of_yaml_is_written_with_the_words_that_stand_there() {
    let text = "a: on\nb: Yes # now\nc: true\n";
    let write = |key: &str, on: bool| place(Format::Yaml, &[key]).write(text, Some(&json!(on))).unwrap();
    assert_eq!(write("a", false), text.replace("on\n", "off\n"));
    assert_eq!(write("b", false), text.replace("Yes", "No"));
    assert_eq!(write("c", false), text.replace("true", "false"));
    assert_eq!((truth(Format::Yaml, "off"), truth(Format::Yaml, "Yes")), (Some(false), Some(true)));
    assert_eq!((truth(Format::Json, "off"), truth(Format::Yaml, "oui")), (None, None));
}

#[test]
fn a_text_that_some_read_as_a_date_or_a_time_is_quoted() {
    let text = "flag: v1\n";
    for value in ["2026-01-01", "12:30:45", "1_000", ".5x", "+1 day"] {
        let written = place(Format::Yaml, &["flag"]).write(text, Some(&json!(value))).unwrap();
        assert_eq!(written, format!("flag: \"{value}\"\n"));
    }
    let written = place(Format::Yaml, &["flag"]).write(text, Some(&json!("v2"))).unwrap();
    assert_eq!(written, "flag: v2\n");
}
