//! Text of people and alerts in other people's markup: it is shown, and never obeyed.

use crate::decide::conditions::{clip, one_line};

/// Text of several lines without control characters and direction overrides, at most `max` characters long.
pub fn lines(text: &str, max: usize) -> String {
    let text = text.replace("\r\n", "\n");
    let kept: Vec<_> = text.split('\n').map(|line| one_line(line, usize::MAX)).collect();
    clip(kept.join("\n").trim(), max)
}

/// For Slack: its three characters as it wants them, so that nothing becomes a mention, a link or a command. What is
/// cut is cut before, so that no entity is.
pub fn slack(text: &str, max: usize) -> String {
    let mut escaped = String::new();
    let (mut length, full) = (0, max.saturating_sub(1));
    for c in text.chars() {
        let piece = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => {
                if length == full {
                    return escaped + "…";
                }
                escaped.push(c);
                length += 1;
                continue;
            }
        };
        if length + piece.len() > full {
            return escaped + "…";
        }
        escaped += piece;
        length += piece.len();
    }
    escaped
}

/// For chats that read Markdown or old Slack markup, each in its own way: an invisible space inside whatever would be
/// a mention, a command, a tag, or a link or image with a text of its own.
pub fn inert(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        safe.push(c);
        let breaks = match c {
            '<' | '@' => true,
            ']' => matches!(chars.peek(), Some('(' | '[' | ':')),
            _ => false,
        };
        if breaks {
            safe.push('\u{200b}');
        }
    }
    safe
}
