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
    Place::new(format, path.iter().map(|&p| p.to_owned()).collect(), "", &Value::Null)
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
    assert_eq!(Format::of("flags.json", "x"), Ok(Format::Json));
    assert_eq!(Format::of("flags", FLAGD), Ok(Format::Json));
    assert_eq!(Format::of("flags", YAML), Ok(Format::Yaml));
    assert_eq!(Format::of("flags", "a=b\nc=d\n"), Ok(Format::Properties));
    // They have lines that look like properties, and would be broken.
    for (key, text) in [("app.toml", "mode = \"rw\"\n"), ("app.XML", "<a b=\"1\"/>"), ("app", "<a b=\"1\"/>")]
    {
        let words = Format::of(key, text).unwrap_err();
        assert!(words.contains("JSON, YAML and lines of key=value are known"), "{words}");
    }
}

fn known(format: Format, text: &str, path: &[&str]) -> Place {
    let path = path.iter().map(|&key| key.to_owned()).collect();
    Place::new(format, path, text, &parse(format, text).unwrap())
}

/// `before` with the value at `path`, then as somebody changed it meanwhile: where our value is then, or that it cannot be
/// told.
fn moved(before: &str, path: &[&str], after: &str) -> Result<Option<Value>, String> {
    let place = known(Format::Json, before, path);
    // It is kept as text with the record.
    let place: Place = serde_json::from_str(&serde_json::to_string(&place).unwrap()).unwrap();
    match place.unclear(after) {
        Some(words) => Err(words),
        None => Ok(place.read(after)),
    }
}

#[test]
fn an_entry_of_a_list_is_followed_wherever_it_goes_and_no_other_is_taken_for_it() {
    let named = r#"[{"name":"a","on":1},{"name":"b","on":2}]"#;
    for (after, seen) in [
        (r#"[{"name":"new","on":9},{"name":"a","on":1},{"name":"b","on":2}]"#, Some(json!(2))),
        (r#"[{"name":"b","on":2}]"#, Some(json!(2))),
        (r#"[{"name":"a","on":1},{"name":"b","on":2,"more":true}]"#, Some(json!(2))),
        (r#"[{"name":"a","on":1},{"name":"b"}]"#, None),
    ] {
        assert_eq!(moved(named, &["1", "on"], after), Ok(seen), "{after}");
    }
    for after in [r#"[{"name":"a","on":1}]"#, r#"[{"name":"b","on":1},{"name":"b","on":2}]"#] {
        assert!(moved(named, &["1", "on"], after).unwrap_err().contains("which entry"), "{after}");
    }
    let unnamed = r#"[{"for":"x","on":1},{"for":"y","on":2}]"#;
    for (after, seen) in [
        (r#"[{"for":"z","on":9},{"for":"x","on":1},{"for":"y","on":2}]"#, 2),
        (r#"[{"for":"x","on":1},{"for":"y","on":3}]"#, 3),
        // Edited in its place.
        (r#"[{"for":"x","on":1},{"for":"y","on":2,"more":true}]"#, 2),
    ] {
        assert_eq!(moved(unnamed, &["1", "on"], after), Ok(Some(json!(seen))), "{after}");
    }
    // It is gone, and another one came.
    assert!(moved(unnamed, &["1", "on"], r#"[{"for":"x!","on":1},{"for":"z","on":2}]"#).is_err());
    assert!(moved(unnamed, &["1", "on"], r#"[{"for":"n","on":1},{"for":"x","on":2}]"#).is_err());
    let reshaped = r#"[{"for":"z","on":9},{"for":"x","on":1},{"for":"y!","on":2}]"#;
    assert!(moved(unnamed, &["1", "on"], reshaped).is_err());
    assert_eq!(moved("[1,2]", &["1"], "[1,3]"), Ok(Some(json!(3))));
    assert!(moved("[1,2]", &["1"], "[9,1,2]").is_err(), "numbers have no names");
    // Two mitigations of two entries do not disturb each other, wherever those are by now.
    let (a, b) = (known(Format::Json, named, &["0", "on"]), known(Format::Json, named, &["1", "on"]));
    let later = known(Format::Json, r#"[{"name":"new","on":9},{"name":"a","on":1}]"#, &["1", "on"]);
    assert!(!a.overlaps(&b) && a.overlaps(&later) && !b.overlaps(&later));
    let text = r#"{"rules": [{"name":"new","on":9}, {"name":"b","on":2}]}"#;
    let place = known(Format::Json, r#"{"rules": [{"name":"b","on":1}]}"#, &["rules", "0", "on"]);
    assert_eq!(place.write(text, Some(&json!(1))).unwrap(), text.replace("\"on\":2", "\"on\":1"));
}

#[test]
fn a_document_that_cannot_be_read_for_a_moment_is_told_from_a_value_that_is_gone() {
    assert!(moved(r#"{"a":1}"#, &["a"], r#"{"a":1,}"#).unwrap_err().contains("no JSON"));
    assert_eq!(moved(r#"{"a":1}"#, &["a"], r#"{"b":1}"#), Ok(None));
    let ini = "top = 0\n[x]\nz = 1\n";
    let with_another = format!("{ini}[n]\nz = 7\ntop = 9\n");
    assert_eq!(known(Format::Properties, ini, &["z"]).read(&with_another), Some(json!("1")));
    let top = known(Format::Properties, ini, &["top"]);
    assert!(top.unclear(&with_another).unwrap().contains("several sections"));
    assert_eq!((top.unclear(ini), top.unclear("[x]\nz = 1\n")), (None, None));
}

#[test]
fn what_is_wrong_with_a_yaml_is_said_without_advice_to_programmers() {
    for (text, words) in [("a: 1\n---\nb: 2\n", "several documents"), ("a: 1\na: 2\n", "uplicate")] {
        let said = parse(Format::Yaml, text).unwrap_err();
        assert!(said.contains(words) && !said.contains("from_str") && !said.contains("Policy"), "{said}");
    }
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
