//! Incoming webhooks of Slack, and of chats that speak as Slack did before it had blocks.

use super::{
    escape,
    render::{Notice, Request, json},
};
use serde_json::{Value, json as value};

// Limits of Slack: https://docs.slack.dev/reference/block-kit/blocks
const MAX_HEADER: usize = 150;
const MAX_SECTION: usize = 3000;
const MAX_FIELD: usize = 2000;

/// Block Kit.
pub(super) fn blocks(notice: &Notice<'_>) -> Request {
    let heading = escape::slack(&notice.heading(), MAX_HEADER);
    let text = escape::slack(&escape::lines(&notice.message.text, MAX_SECTION), MAX_SECTION);
    // Verbatim: what looks like a channel, a user or an address is not made one.
    let fields: Vec<Value> = notice
        .fields()
        .into_iter()
        .map(|(name, text)| {
            let text = escape::slack(&text, MAX_FIELD - name.len() - 4);
            value!({"type": "mrkdwn", "text": format!("*{name}*\n{text}"), "verbatim": true})
        })
        .collect();
    let mut blocks = vec![
        value!({"type": "header", "text": {"type": "plain_text", "text": heading, "emoji": false}}),
        value!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}}),
    ];
    if !fields.is_empty() {
        blocks.push(value!({"type": "section", "fields": fields}));
    }
    let body = value!({
        // For notifications, and where blocks cannot be shown.
        "text": format!("{heading}\n{text}"),
        "blocks": blocks,
        "unfurl_links": false,
        "unfurl_media": false,
    });
    json(http::Method::POST, String::new(), &body)
}

/// Attachments.
pub(super) fn attachments(notice: &Notice<'_>) -> Request {
    let heading = escape::inert(&notice.heading());
    let text = escape::inert(&escape::lines(&notice.message.text, MAX_SECTION));
    let fields: Vec<Value> = notice
        .fields()
        .into_iter()
        .map(|(name, text)| value!({"title": name, "value": escape::inert(&text), "short": text.len() <= 40}))
        .collect();
    let body = value!({
        "text": heading,
        "attachments": [{
            "fallback": format!("{heading}: {text}"),
            "color": color(notice),
            "text": text,
            "fields": fields,
        }],
    });
    json(http::Method::POST, String::new(), &body)
}

fn color(notice: &Notice<'_>) -> &'static str {
    use crate::api::{Severity, Stage};
    match (notice.facts.stage, notice.facts.severity) {
        (Some(Stage::Postmortem | Stage::Closed | Stage::Cancelled), _) => "#2e7d32",
        (_, Some(Severity::SEV1 | Severity::SEV2)) => "#c62828",
        _ => "#f9a825",
    }
}
