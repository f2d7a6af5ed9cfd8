//! Text of people in the places where it stands: one line of a table, a heading or a list, front matter, a diagram.
//!
//! What people wrote in those places is plain text, so all of Markdown's marks in it are escaped. Sections are
//! Markdown themselves and are treated in [`super::body`].

use crate::decide::conditions::cut;
use crate::decide::postmortem::is_web_address;
use std::borrow::Cow;

/// Text without what no reader can see or trust: line ends are `\n`; control characters and noncharacters become
/// `U+FFFD`; what overrides the direction of text, and byte order marks, are left out.
pub fn clean(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => kept.push('\n'),
            '\n' | '\t' => kept.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {}
            _ if c.is_control() || (c as u32 & 0xfffe) == 0xfffe => kept.push('\u{fffd}'),
            _ => kept.push(c),
        }
    }
    kept
}

/// Clean text on one line.
pub fn one_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most so many bytes, cut between characters, with an ellipsis where something was cut.
pub fn clip_bytes(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    Cow::Owned(cut(text, max.max('…'.len_utf8())))
}

/// Plain text for a cell of a table or the middle of a line. Addresses stay links.
pub fn inline(text: &str) -> String {
    let text = one_line(text);
    let mut out = String::with_capacity(text.len() + 8);
    let mut before = ' ';
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if let Some(address) = leading_address(rest).filter(|_| !before.is_alphanumeric()) {
            out.push_str(&format!("<{}>", encode(address)));
            at += address.len();
            before = '>';
            continue;
        }
        let next = rest[c.len_utf8()..].chars().next().unwrap_or(' ');
        match c {
            '<' => out.push_str("&lt;"),
            '&' if next.is_ascii_alphanumeric() || next == '#' => out.push_str("&amp;"),
            // Inside a word it emphasises nothing.
            '_' if before.is_alphanumeric() && next.is_alphanumeric() => out.push(c),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => out.extend(['\\', c]),
            _ => out.push(c),
        }
        before = c;
        at += c.len_utf8();
    }
    out
}

/// Plain text after the marks of a heading.
pub fn heading(text: &str) -> String {
    let mut text = inline(text);
    if text.ends_with('#') {
        // Marks at the end would close the heading and vanish.
        text.insert(text.len() - 1, '\\');
    }
    text
}

/// Plain text at the start of a line, as after the mark of a list.
pub fn line_start(text: &str) -> String {
    let text = inline(text);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if text.starts_with(['-', '+', '#', '>', '=']) {
        format!("\\{text}")
    } else if digits > 0 && text[digits..].starts_with(['.', ')']) {
        format!("{}\\{}", &text[..digits], &text[digits..])
    } else {
        text
    }
}

/// A link that shows `label`, or the text of what is no address that a reader can follow.
pub fn link(label: &str, address: &str) -> String {
    let address = clean(address);
    let address = address.trim();
    if is_web_address(address) {
        format!("[{label}](<{}>)", encode(address).replace('&', "&amp;"))
    } else {
        inline(address)
    }
}

/// The address that a text begins with, without the punctuation of the sentence around it.
fn leading_address(text: &str) -> Option<&str> {
    if !text.starts_with("https://") && !text.starts_with("http://") {
        return None;
    }
    let end = text.find(|c: char| c.is_whitespace() || "<>\"`".contains(c)).unwrap_or(text.len());
    let mut address = &text[..end];
    loop {
        let open = address.matches('(').count() >= address.matches(')').count();
        let shorter = match address.chars().last() {
            Some(')') if open => break,
            Some('.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' | '_' | ')' | ']' | '|') => {
                &address[..address.len() - 1]
            }
            _ => break,
        };
        address = shorter;
    }
    is_web_address(address).then_some(address)
}

/// An address without the characters that mean something to Markdown.
fn encode(address: &str) -> String {
    let mut out = String::with_capacity(address.len());
    for c in address.chars() {
        match c {
            '<' | '>' | '|' | '\\' | '`' | '"' | ' ' | '[' | ']' => {
                out.push_str(&format!("%{:02X}", c as u32))
            }
            _ => out.push(c),
        }
    }
    out
}

/// A string of YAML on one line: double quotes, everything escaped that YAML would not take literally, and what would
/// begin a tag or a link where front matter is shown as Markdown.
pub fn yaml(text: &str) -> String {
    let mut out = String::from("\"");
    for c in one_line(text).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '<' => out.push_str("\\x3C"),
            '[' => out.push_str("\\x5B"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A word or two in a diagram: letters, digits and what names are made of.
pub fn mermaid(text: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-_./".contains(c) { c } else { ' ' };
    let words = one_line(text).chars().map(kept).collect::<String>();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_markdown_are_escaped_and_names_stay_readable() {
        assert_eq!(inline("a|b `c` *d* _e_ [f](g) ~h~ $5"), r"a\|b \`c\` \*d\* \_e\_ \[f\](g) \~h\~ \$5");
        assert_eq!(
            inline("stop_importer &lt; <script> R&D & co"),
            "stop_importer &amp;lt; &lt;script> R&amp;D & co"
        );
        assert_eq!(inline("one\r\n two\tthree\u{0}"), "one two three\u{fffd}");
        assert_eq!(heading("Learn C#"), r"Learn C\#");
        assert_eq!(line_start("- not a list"), r"\- not a list");
        assert_eq!(line_start("1. not a list"), r"1\. not a list");
    }

    #[test]
    fn addresses_stay_links_and_what_is_none_is_text() {
        assert_eq!(inline("see https://a.b/c_d?e=f&g=h."), "see <https://a.b/c_d?e=f&g=h>.");
        assert_eq!(inline("(https://a.b/(c))"), "(<https://a.b/(c)>)");
        assert_eq!(inline("https://a.b/x|y"), "<https://a.b/x%7Cy>");
        assert_eq!(inline("https:// nothing"), "https:// nothing");
        assert_eq!(link("graph", "https://a.b/?c&lt;"), "[graph](<https://a.b/?c&amp;lt;>)");
        assert_eq!(link("graph", "javascript:alert(1)"), "javascript:alert(1)");
        assert_eq!(link("graph", "https://a.b>)[x](y"), "[graph](<https://a.b%3E)%5Bx%5D(y>)");
    }

    #[test]
    fn what_no_reader_can_see_or_trust_is_gone() {
        assert_eq!(clean("a\u{202e}b\u{2066}c\u{feff}"), "abc");
        assert_eq!(
            clean("a\0b\u{1b}c\u{7f}d\u{9f}e\u{fffe}\u{1ffff}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}\u{fffd}"
        );
        assert_eq!(clean("a\r\nb\rc\u{2028}d\u{85}e"), "a\nb\nc\nd\ne");
        // Marks and joiners that scripts and emoji need stay.
        assert_eq!(clean("א\u{200f}👩\u{200d}💻"), "א\u{200f}👩\u{200d}💻");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(clip_bytes("결제 오류", 9), "결제…");
        assert_eq!(clip_bytes("short", 9), "short");
        assert_eq!(clip_bytes("결제 오류", 0), "…");
    }

    #[test]
    fn yaml_and_diagrams_cannot_be_left() {
        assert_eq!(yaml("a\"\n---\n\\ud800 # b: c"), r#""a\" --- \\ud800 # b: c""#);
        assert_eq!(yaml("<b> [x](y)"), r#""\x3Cb> \x5Bx](y)""#);
        assert_eq!(mermaid("a:b;c#d\n%%e section 결제/x"), "a b c d e section 결제/x");
    }
}
