use super::super::parsed::{dangers, dialects, headings, tables};
use super::*;
use comrak::{Options, markdown_to_html};
use proptest::prelude::*;

/// A document in which the section stands.
fn document(text: &str) -> String {
    format!("# Title\n\n## Before\n\n{}\n\n## After\n\nend\n", section(text))
}

/// What may never happen, whatever is written.
fn check(text: &str) -> Result<(), TestCaseError> {
    let document = document(text);
    for options in dialects() {
        let dangers = dangers(&document, &options);
        prop_assert!(dangers.is_empty(), "{text:?} becomes\n{document}\nwith {dangers:?}");
        let headings = headings(&document, &options);
        let ours: Vec<_> =
            headings.iter().filter(|(_, _, top)| *top).filter(|h| h.0 < 3).map(|h| h.1.as_str()).collect();
        prop_assert_eq!(&ours, &["Title", "Before", "After"], "{:?} becomes\n{}", text, document);
        prop_assert!(headings.iter().filter(|h| h.0 < 3).count() == 3, "{text:?} becomes\n{document}");
    }
    Ok(())
}

fn html(text: &str) -> String {
    markdown_to_html(&section(text), &Options::default())
}

/// What must look the same before and after.
fn kept(text: &str) {
    assert_eq!(html(text), markdown_to_html(text, &Options::default()), "{text:?} became\n{}", section(text));
}

#[test]
fn ordinary_markdown_looks_as_it_did() {
    for text in [
        "One paragraph\nof two lines.\n\nAnother one with *emphasis*, **more**, `code <b>` and [a link](https://a.b/c?d=e&f=g).",
        "- one\n- two\n  - two a\n  - two b\n\n    still two b\n- three",
        "1. first\n2. second:\n   ```sh\n   kubectl get pods <name> | grep -v Running\n\n     echo\n   ```\n3. third",
        "> quoted\n> more\n\n> > deeper\n\nafter",
        "```yaml\na: 1\n---\nb: <none>\n```\n\ntext",
        "~~~\n```\n~~~",
        "p99 < 100 ms, a <= b, 3 <4",
        "* a\n\n  para\n\n      code\n* b",
        "- lazy\ncontinuation\n- next",
        "> lazy\nquotation\n\ntext",
        "See <https://example.com/a?b=c> or <mailto:sre@example.com>.",
        "a\\\nb  \nc\\* \\< \\`",
        "***\n\n___",
        "![graph](https://example.com/g.png \"title\")",
        "- [ ] open\n- [x] done",
        "`` a ` b `` and ` `` `",
        "1. a\n\n2. b\n\n   > quoted\n   > more",
        "AT&T &amp; co &lt;b&gt; &copy;",
        "### Sub\n\ntext\n\n#### Subsub",
        "    indented code",
        "+ a\n\n      code in a",
        "한국어 עברית 👩\u{200d}💻",
    ] {
        kept(text);
    }
}

#[test]
fn a_table_stays_a_table() {
    let text = "| a | b |\n|---|:-:|\n| `x` | 1 \\| 2 |\n| y | **z** |";
    assert_eq!(tables(&section(text)), tables(text));
    assert_eq!(tables(&section(text))[0].len(), 3);
}

#[test]
fn raw_html_is_shown_and_code_is_not_touched() {
    assert_eq!(section("<script>alert(1)</script>"), "&lt;script>alert(1)&lt;/script>");
    assert_eq!(
        section("a <!-- b --> <?php ?> <![CDATA[ x ]]>"),
        "a &lt;!-- b --> &lt;?php ?> &lt;![CDATA[ x ]]>"
    );
    assert_eq!(section("`<b>` <b>"), "`<b>` &lt;b>");
    assert_eq!(section("    <b>"), "    &lt;b>");
}

#[test]
fn headings_keep_their_distance_below_the_headings_of_the_document() {
    assert_eq!(section("# A\n## B\n##### C"), "### A\n#### B\n###### C");
    assert_eq!(section("### A\n#### B"), "### A\n#### B");
    assert_eq!(section("Title\n===\n\nSub\n---\ntext"), "### Title\n\n#### Sub\ntext");
    assert_eq!(section("- # A"), "- ### A");
    assert_eq!(section("C #\n==="), "### C # #");
    assert_eq!(section("#tag and #1"), "#tag and #1");
}

#[test]
fn an_underline_below_several_lines_is_a_rule_or_text() {
    assert_eq!(section("a\nb\n---\nc"), "a\nb\n\n***\nc");
    assert_eq!(section("a\nb\n===\nc"), "a\nb\n\\===\nc");
    assert_eq!(section("---\na"), "***\na");
}

#[test]
fn nothing_stays_open_at_the_end() {
    assert_eq!(section("```\ncode"), "```\ncode\n```");
    assert_eq!(section("- a\n  ~~~~\n  code"), "- a\n  ~~~~\n  code\n  ~~~~");
    assert_eq!(section("- ```\nfoo\n```"), "- ```\n  ```\nfoo\n```\n```");
    assert_eq!(section("a ` b"), "a \\` b");
    assert_eq!(section("one ``` two\n`<b>` three ```"), "one \\`\\`\\` two\n`<b>` three \\`\\`\\`");
}

#[test]
fn links_that_run_something_lead_nowhere() {
    for text in [
        "[x](javascript:alert(1))",
        "[x]( <JavaScript:alert(1)> )",
        "[x](&#106;avascript:alert(1))",
        "[x](javascript&colon;alert(1))",
        "[x](java&Tab;script:alert(1))",
        "[x](javascript\\:alert(1))",
        "[x][y]\n\n[y]: javascript:alert(1)",
        "[x][y]\n\n[y]:\n  <vbscript:x>",
        "<javascript:alert(1)>",
        "![x](data:text/html;base64,xx)",
        "[x](<java\tscript:alert(1)>)",
    ] {
        check(text).unwrap();
    }
    assert_eq!(section("metadata:name and data: 300 GB"), "metadata:name and data: 300 GB");
}

#[test]
fn what_was_made_to_break_out_does_not() {
    for text in [
        "| ` | <script>alert(1)</script> ` |\n|---|---|\n| `a | b` `<img>` |",
        "foo ` bar\nbaz `<script>`",
        "https://a.b/\\<script>",
        "https://a.b`<script>`",
        "www.a.b\\`c`<script>`",
        "https://a.b<b>```<script>```",
        "https://a.b\u{a0}``<b>``",
        "- foo\n  ```\n<script>",
        "> ```\n<script>",
        "> foo\n---\n<div>\n\n</div>",
        "- | a |\n  |---|\nfoo\n  ```\n<script>",
        ":-:\n|---\n2) ## After",
        "[^1]: ```\n<script>\n\n```",
        "[^1]: a\n\n    ```\n    <script>\n\nx[^1]",
        "a\n-\n\n-\n\n<b>",
        "-\n\n  ```\n<b>",
        "1.\n   <b>",
        "foo\n- \u{a0}",
        "foo\n-\u{a0}\n-",
        "\u{feff}---\na: b\n---",
        "+++\na = 1\n+++",
        "<!--\n\n## Fake\n\n-->",
        "<details>\n<summary>x</summary>\n\n# y\n</details>",
        "```{=html}\n<script>\n```",
        "\\`<b>`",
        "\\\\`<b>` `",
        "`<b>\\` <b> `",
        "[a](<b>`) `<i>`",
        "``` ` ```\n<b>",
        "~~~ `\n<b>\n~~~",
        "\t<b>",
        "- a\n\n\t```\n\t<b>\n```",
        "> > > > > > > > > > > a\n<b>",
        "- - - - - - - - - - - a\n# b",
        "1. 1. 1. 1. 1. 1. 1. 1. 1. a\n===",
        "> a\n===\n> b\n---",
        "> a\n    - b\n    ===",
        "a\n\0---",
        "## After",
        "After\n---",
        "After\n--",
        "* After\n--",
    ] {
        check(text).unwrap();
    }
}

#[test]
fn a_text_of_nothing_but_containers_stays_small() {
    let text = format!("{}\n{}", ">".repeat(40_000), "a\n".repeat(30_000));
    let out = section(&text);
    assert!(out.len() < 2_000_000, "{}", out.len());
    check(&text).unwrap();
}

/// Pieces of which Markdown that breaks out would be made.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\n",
        "\n",
        "\n",
        "\n\n",
        " ",
        "  ",
        "   ",
        "    ",
        "\t",
        "a",
        "b c",
        "`",
        "``",
        "```",
        "~~~",
        "````",
        ">",
        "> ",
        "- ",
        "* ",
        "+ ",
        "-",
        "1. ",
        "2) ",
        "10. ",
        "#",
        "# ",
        "## ",
        "###### ",
        "===",
        "---",
        "***",
        "--",
        "=",
        "|",
        "| ",
        "|---|",
        "---|---",
        ":-:",
        "<b>",
        "</b>",
        "<script>",
        "<!--",
        "-->",
        "<?x",
        "<![CDATA[",
        "]]>",
        "<div>",
        "<pre>",
        "<a href=\"",
        "\">",
        "<",
        "&",
        "&lt;",
        "&#60;",
        "&colon;",
        "\\",
        "\\\\",
        "[",
        "](",
        ")",
        "[a]: ",
        "[^1]",
        "[^1]: ",
        "javascript:x",
        "<javascript:x>",
        "<https://a.b>",
        "<https://",
        "https://a.b",
        "www.a.b",
        "\"",
        "'",
        "\u{a0}",
        "\r",
        "\u{0}",
        "\u{2028}",
        "!",
        "_",
        "*",
        "$",
        "::",
        "[ ] ",
        "> [!NOTE]\n",
        "After",
        "## After\n",
        "\u{3000}",
        "\u{202e}",
        "한",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_is_written_there_is_no_html_no_other_outline_and_nothing_left_open(text in hostile()) {
        check(&text)?;
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        check(&text)?;
    }
}
