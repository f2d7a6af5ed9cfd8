//! The sections that people write, and when one counts as written.
//!
//! A section is missing when nothing in it says anything: it is empty, only punctuation or headings, a marker
//! such as `TODO` or `TBD`, filler text, an HTML comment, or the template's own hint. A section that says
//! something and still holds a marker counts as written; the marker is a warning.

use crate::api::PostmortemSpec;

/// One section of a postmortem.
#[derive(Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// Where it is written.
    pub field: &'static str,
    /// Whether a postmortem without it is incomplete.
    pub required: bool,
    /// What to write; the template's text, which counts as missing.
    pub hint: &'static str,
    /// Takes it out of the spec.
    pub text: fn(&PostmortemSpec) -> Option<&String>,
}

/// The sections in the order in which they are read.
pub const SECTIONS: [Section; 9] = [
    Section {
        title: "Summary",
        field: "spec.summary",
        required: true,
        hint: "What happened, for somebody who was not there.",
        text: |spec| spec.summary.as_ref(),
    },
    Section {
        title: "Impact",
        field: "spec.impact",
        required: true,
        hint: "Who was affected, how, for how long.",
        text: |spec| spec.impact.as_ref(),
    },
    Section {
        title: "Root cause",
        field: "spec.rootCauses",
        required: true,
        hint: "Why it could happen.",
        text: |spec| spec.root_causes.as_ref(),
    },
    Section {
        title: "Trigger",
        field: "spec.trigger",
        required: false,
        hint: "What set it off.",
        text: |spec| spec.trigger.as_ref(),
    },
    Section {
        title: "Detection",
        field: "spec.detection",
        required: true,
        hint: "How it was found, and how it could have been found earlier.",
        text: |spec| spec.detection.as_ref(),
    },
    Section {
        title: "Resolution",
        field: "spec.resolution",
        required: false,
        hint: "What ended it.",
        text: |spec| spec.resolution.as_ref(),
    },
    Section {
        title: "What went well",
        field: "spec.wentWell",
        required: true,
        hint: "What helped, and is to be kept.",
        text: |spec| spec.went_well.as_ref(),
    },
    Section {
        title: "What went poorly",
        field: "spec.wentPoorly",
        required: true,
        hint: "What made it worse or longer.",
        text: |spec| spec.went_poorly.as_ref(),
    },
    Section {
        title: "Where we got lucky",
        field: "spec.gotLucky",
        required: false,
        hint: "What could have been worse, and why it was not.",
        text: |spec| spec.got_lucky.as_ref(),
    },
];

/// How far a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It says nothing yet.
    No,
    /// It says something, and a marker says that more is to come.
    Partly,
    /// It is written.
    Yes,
}

/// Words that stand for text that is still to come.
const MARKERS: [&str; 6] = ["TODO", "TBD", "TBA", "TBC", "FIXME", "XXX"];
/// What else a line may consist of without saying anything.
const FILLERS: [&str; 27] = [
    "to do",
    "to be done",
    "to be added",
    "to be announced",
    "to be confirmed",
    "to be decided",
    "to be defined",
    "to be determined",
    "to be filled",
    "to be filled in",
    "to be written",
    "fill in",
    "fill me in",
    "fill this in",
    "coming soon",
    "placeholder",
    "missing",
    "n/a",
    "wip",
    "work in progress",
    "in progress",
    "pending",
    "tk",
    "미정",
    "추후 작성",
    "待定",
    "未定",
];
/// A text of fewer words that holds a marker says nothing but the marker: "The root cause is TBD."
const FEW_WORDS: usize = 8;

/// How far the text of a section is written. The template's hint counts as nothing.
pub fn written(text: Option<&str>, hint: &str) -> Written {
    let text = without_comments(text.unwrap_or_default()).replace("&nbsp;", " ");
    let (mut words, mut marked, mut filler) = (0, false, false);
    for line in text.lines().map(|line| if is_blank_to_fill(line) { "" } else { bare(line) }) {
        // What begins with lorem is filler up to the next empty line.
        filler = !line.is_empty() && (filler || is_lorem(line));
        if line.starts_with('#') {
            continue;
        }
        if filler || is_nothing(line, hint) {
            marked |= holds_marker(line);
        } else {
            words += count_words(line);
            marked |= holds_marker(line);
        }
    }
    match (words, marked) {
        (0, _) => Written::No,
        (1..FEW_WORDS, true) => Written::No,
        (_, true) => Written::Partly,
        (_, false) => Written::Yes,
    }
}

/// Whether a short text, such as a name or a title, only stands for one that is to come.
pub fn is_placeholder(text: &str) -> bool {
    written(Some(text), "") == Written::No
}

/// The text without HTML comments; one that is not closed lasts until the end.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("<!--") {
        kept.push_str(before);
        rest = comment.split_once("-->").map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

/// A line without what marks it as an item of a list, a quotation or emphasised.
fn bare(line: &str) -> &str {
    let decoration =
        |c: char| c.is_whitespace() || c.is_control() || "*_`~+-[]()".contains(c) || is_invisible(c);
    line.trim_start_matches(|c| decoration(c) || c == '>').trim_end_matches(decoration)
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn is_nothing(line: &str, hint: &str) -> bool {
    if !line.contains(char::is_alphanumeric) {
        return true;
    }
    let plain = |text: &str| text.trim_end_matches(['.', ':', '…', '!', '?']).trim().to_lowercase();
    let said = plain(line);
    let instruction = line.starts_with('<') && line.ends_with('>') && !line.contains("://");
    // The hint of another section was pasted into the wrong place.
    let is_hint =
        || SECTIONS.iter().map(|section| section.hint).chain([hint]).any(|hint| said == plain(hint));
    instruction
        || FILLERS.contains(&said.as_str())
        || said.split_whitespace().all(is_marker)
        || is_hint()
        || starts_with_marker(line)
}

/// `tbd`, `TODO`, `xxxx`.
fn is_marker(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_uppercase();
    MARKERS.contains(&word.as_str()) || ((3..=8).contains(&word.len()) && word.chars().all(|c| c == 'X'))
}

fn is_lorem(line: &str) -> bool {
    let mut words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let is = |word: Option<&str>, said: &str| word.is_some_and(|word| word.eq_ignore_ascii_case(said));
    is(words.next(), "lorem") && words.next().is_none_or(|word| word.eq_ignore_ascii_case("ipsum"))
}

/// Whether a whole line is an instruction of a template: `[Describe the root cause here]`, `{{ root cause }}`. A link
/// that stands alone is none.
fn is_blank_to_fill(line: &str) -> bool {
    let line = line.trim().trim_start_matches(['-', '*', '>', ' ']);
    let within = |open: &str, close: &str| {
        line.strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
            .filter(|inner| !inner.contains(close))
    };
    let described = |inner: &str| {
        let first = inner.split_whitespace().next().unwrap_or_default().to_lowercase();
        ["add", "describe", "enter", "explain", "fill", "insert", "list", "write"].contains(&first.as_str())
    };
    within("{{", "}}").is_some() || within("[", "]").is_some_and(described)
}

/// `TODO`, `TODO ask bob`, `todo: ask bob`; not `todo lists fail`.
fn starts_with_marker(line: &str) -> bool {
    MARKERS.iter().any(|marker| {
        let Some((word, rest)) = line.split_at_checked(marker.len()) else { return false };
        let ends = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let said = word == *marker || rest.trim().is_empty() || rest.starts_with([':', '(', '.', ',']);
        word.eq_ignore_ascii_case(marker) && ends && said
    })
}

fn holds_marker(line: &str) -> bool {
    starts_with_marker(line)
        || line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| MARKERS.contains(&word))
}

/// Words, where two characters of a script that sets no spaces count as one.
fn count_words(line: &str) -> usize {
    let words = line.split_whitespace().filter(|w| w.contains(char::is_alphanumeric)).count();
    words + line.chars().filter(|c| *c >= '\u{2e80}').count() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn far(text: &str) -> Written {
        written(Some(text), "Why it could happen.")
    }

    #[test]
    fn text_that_says_nothing_is_missing() {
        for text in [
            "",
            " \n\t",
            "TODO",
            "todo",
            "- TBD",
            "TBD.",
            "* [ ] TODO(alice): ask the database team why",
            "Todo: later",
            "**TBA**",
            "N/A",
            "n/a.",
            "-",
            "?",
            "…",
            "_Missing._",
            "To be determined",
            "lorem ipsum dolor sit amet",
            "Lorem",
            "Lorem ipsum dolor sit amet,\nconsectetur adipiscing elit,\nsed do eiusmod tempor.",
            "tbd tbd tbd",
            "XXXX",
            "Pending.",
            "Work in progress",
            "미정",
            "추후 작성",
            "待定",
            "[Describe the root cause here]",
            "- [describe it]",
            "{{ root cause }}",
            "&nbsp;",
            "What ended it.",
            "Why it could happen.",
            "why it could happen",
            "> Why it could happen.",
            "<describe the cause>",
            "<!-- what went wrong? -->",
            "<!-- not closed",
            "### Root cause\n\nTODO",
            "# Only a heading",
            "The root cause is TBD.",
            "Cause: FIXME",
            "\u{200b}\u{feff}",
            "\0\u{1}",
            "***\n---",
            "🎉",
            "TODO\n\nTBD\n",
        ] {
            assert_eq!(far(text), Written::No, "{text:?}");
        }
        assert_eq!(written(None, ""), Written::No);
    }

    #[test]
    fn text_that_says_something_is_written() {
        for text in [
            "None.",
            "Importer and checkout share one pool.",
            "The todo service was down for 40 minutes.",
            "todo lists could not be saved",
            "데이터베이스 연결이 부족했다",
            "连接池耗尽",
            "נגמרו החיבורים",
            "`max_connections`",
            "See <https://example.com/rca>",
            "<https://example.com/rca>",
            "42",
            "### Cause\n\nA race.",
            "xxxl shirts sold out",
            "Pending orders were processed twice.",
            "Lorem, our test service, wrote to the live database.",
            "lorem ipsum dolor\n\nThe pool was too small.",
            "[The pool was too small](https://example.com)",
            "[1]",
            "{{ user }} was not replaced in mails.",
            "Work in progress was lost when the pod was killed.",
        ] {
            assert_eq!(far(text), Written::Yes, "{text:?}");
        }
    }

    #[test]
    fn a_marker_in_text_that_says_something_is_noticed_and_the_section_counts() {
        let text = "Importer and checkout share one pool of connections.\n\nTODO: add the graph";
        assert_eq!(far(text), Written::Partly);
        let inline =
            "Importer and checkout share one pool of connections, since version TBD of the importer.";
        assert_eq!(far(inline), Written::Partly);
    }

    #[test]
    fn every_hint_counts_as_missing() {
        for section in &SECTIONS {
            assert_eq!(written(Some(section.hint), section.hint), Written::No, "{}", section.title);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_check_panic(text in "\\PC*|[TODXxtod<>!\\- \n:#é]{0,40}") {
            let _ = far(&text);
        }
    }
}
