//! What does not belong into a text for the public. It warns and refuses nothing: whoever leads may know better.
//!
//! No promise when it will be over, because it is a guess; no name or address of what is inside, because it helps
//! nobody but an attacker; no "outage" while most of it works, because people read nothing but that word.

use crate::api::{ComponentState, Impact};
use std::net::IpAddr;

/// Words by which a sentence promises an end.
const ENDS: [&str; 9] =
    ["fixed", "resolved", "restored", "recovered", "back", "over", "repaired", "available", "working"];
/// Those of them, and names of it, that promise one with no further word: "back in an hour".
const RETURNS: [&str; 9] = [
    "fixed",
    "resolved",
    "restored",
    "recovered",
    "back",
    "repaired",
    "recovery",
    "restoration",
    "resolution",
];
/// Words by which a sentence says that it has happened.
const PAST: [&str; 7] = ["was", "were", "has", "have", "had", "been", "did"];
/// Words by which it says that this lies ahead.
const AHEAD: [&str; 9] =
    ["will", "expect", "expects", "expected", "should", "anticipate", "estimate", "estimated", "hope"];
/// Words that say by when.
const SOON: [&str; 5] = ["shortly", "soon", "momentarily", "tonight", "tomorrow"];
/// Ends of names that exist inside alone.
const INSIDE: [&str; 10] =
    ["local", "internal", "lan", "corp", "intranet", "svc", "localhost", "private", "home", "cluster"];
/// Tools of those inside, as they stand in addresses.
const TOOLS: [&str; 13] = [
    "grafana",
    "kibana",
    "prometheus",
    "alertmanager",
    "jira",
    "confluence",
    "slack",
    "pagerduty",
    "datadoghq",
    "opsgenie",
    "notion",
    "docs.google",
    "atlassian.net",
];
/// What people call machines; a number follows.
const MACHINES: [&str; 20] = [
    "db", "web", "app", "api", "node", "host", "srv", "server", "vm", "redis", "kafka", "mysql", "pg",
    "cache", "worker", "master", "lb", "prod", "stg", "k8s",
];
/// The end of an incident, in Korean.
const KOREAN_ENDS: [&str; 6] = ["복구", "정상화", "해결", "재개", "수정", "완료"];
/// Words by which a Korean sentence says that it lies ahead, or by when.
const KOREAN_AHEAD: [&str; 12] =
    ["예정", "예상", "겠습니다", "것입니다", "곧", "까지", "이내", "안에", "내에", "분 내", "시간 내", " 후"];
/// Words by which it says that it has happened.
const KOREAN_PAST: [&str; 4] = ["되었", "됐", "했습", "하였"];
/// Words by which it tells of the next update.
const KOREAN_UPDATE: [&str; 4] = ["안내", "업데이트", "공지", "소식"];

/// What is wrong with a text, each in words; nothing is an answer, too.
pub fn lint(text: &str, impact: Option<&Impact>) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(
        promise(text)
            .map(|s| format!("\"{s}\" promises an end: say what is known and when the next update comes")),
    );
    for word in text.split(|c: char| c.is_whitespace() || "\"'<>()[]{}|,;`*".contains(c)) {
        let word = word.trim_matches(|c: char| ".:!?_".contains(c));
        if let Some(host) = address(word) {
            let one_label = !host.is_empty() && !host.contains('.');
            if one_label || is_inside(host) || TOOLS.iter().any(|tool| host.contains(tool)) {
                found.push(format!("\"{word}\" is a link that the public cannot or should not open"));
            }
        } else if word.contains('.') && TOOLS.iter().any(|tool| word.to_lowercase().contains(tool)) {
            found.push(format!("\"{word}\" is an address that the public cannot or should not open"));
        } else if is_inside(word) || is_machine(word) {
            found.push(format!("\"{word}\" names a machine"));
        }
    }
    let whole = impact.is_some_and(|i| i.components.iter().any(|c| c.state == ComponentState::MajorOutage));
    let outage = words(text).any(|w| w == "outage" || w == "outages");
    if outage && !whole {
        found.push(
            "\"outage\" says that nothing works, and no component is stated as MajorOutage: say what does not work"
                .to_owned(),
        );
    }
    found.dedup();
    found
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// The sentences of a text, which end with their lines. A dot inside an address, a name or a number ends none.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let ends = |&(at, c): &(usize, char)| {
            let next = rest[at + c.len_utf8()..].chars().next();
            c == '\n' || c == '。' || matches!(c, '.' | '!' | '?') && next.is_none_or(char::is_whitespace)
        };
        let end = rest.char_indices().find(ends).map_or(rest.len(), |(at, c)| at + c.len_utf8());
        let (sentence, after) = rest.split_at(end);
        rest = after;
        (!sentence.is_empty()).then_some(sentence)
    })
}

/// The first sentence that says when it will be over. When the next update comes may be promised.
fn promise(text: &str) -> Option<&str> {
    sentences(text).map(str::trim).find(|sentence| {
        let all: Vec<String> = words(sentence).collect();
        let has = |list: &[&str]| all.iter().any(|w| list.contains(&w.as_str()));
        let eta = has(&["eta", "etas"]);
        let is_next = has(&["update", "updates", "updated"]) && !eta;
        let unit = ["minute", "minutes", "min", "mins", "hour", "hours", "hrs", "day", "days"];
        // "in 20 minutes", "within the hour", "by 14:00"
        let after = |i: usize| all.get(i + 1..).unwrap_or_default().iter().take(3);
        let at = all.iter().enumerate().any(|(i, w)| match w.as_str() {
            "in" | "within" => after(i).any(|w| unit.contains(&w.as_str())),
            "by" | "until" | "till" => after(i).any(|w| w.starts_with(|c: char| c.is_ascii_digit())),
            _ => false,
        });
        // "recovery: 30 min", "30min"
        let is_number = |w: &String| w.chars().all(|c| c.is_ascii_digit());
        let long = all.windows(2).any(|w| is_number(&w[0]) && unit.contains(&w[1].as_str()))
            || all.iter().any(|w| {
                let rest = w.trim_start_matches(|c: char| c.is_ascii_digit());
                rest.len() < w.len() && unit.contains(&rest)
            });
        let soon = at || has(&SOON);
        let ahead = has(&AHEAD) && (at || (has(&ENDS) || has(&RETURNS)) && (soon || long));
        let until = all.iter().any(|w| w == "until" || w == "till") && at;
        !is_next && (eta || ahead || !has(&PAST) && (has(&RETURNS) && soon || until))
            || promises_in_korean(sentence)
    })
}

fn promises_in_korean(sentence: &str) -> bool {
    let has = |list: &[&str]| list.iter().any(|word| sentence.contains(word));
    has(&KOREAN_ENDS) && has(&KOREAN_AHEAD) && !has(&KOREAN_PAST) && !has(&KOREAN_UPDATE)
}

/// The host of a web address.
fn address(word: &str) -> Option<&str> {
    let rest = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    let host = host.rsplit('@').next()?;
    Some(host.split_once(':').map_or(host, |(host, _)| host))
}

/// A name or address that exists inside alone.
fn is_inside(name: &str) -> bool {
    if let Ok(ip) = name.parse::<IpAddr>() {
        // Any address is one too many; an unspecified one names nothing.
        return !ip.is_unspecified();
    }
    let name = name.to_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    let is_name = |l: &str| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    name == "localhost"
        || labels.len() > 1
            && labels.iter().all(|l| is_name(l))
            && labels.iter().skip(1).any(|l| INSIDE.contains(l))
}

/// A name as machines and pods have: words and numbers joined by hyphens, the last with a digit (db-01,
/// checkout-7d4b9c6f5-x2x9k), or one of the words that machines are called by and a number (DB01). Regions of clouds, which the public knows, are written alike.
fn is_machine(word: &str) -> bool {
    let lower = word.to_lowercase();
    let name = lower.trim_end_matches(|c: char| c.is_ascii_digit());
    if name.len() < lower.len() && MACHINES.contains(&name.trim_end_matches('-')) {
        return true;
    }
    let parts: Vec<&str> = word.split('-').collect();
    let plain = |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let begins = word.starts_with(|c: char| c.is_ascii_lowercase());
    let last = parts.last().copied().unwrap_or_default();
    let region = parts.len() >= 3
        && parts[0].len() <= 3
        && last.len() <= 2
        && last.starts_with(|c: char| c.is_ascii_digit());
    parts.len() > 1
        && begins
        && parts.iter().all(|p| plain(p))
        && last.chars().any(|c| c.is_ascii_digit())
        && !region
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn impact(state: &str) -> Impact {
        serde_json::from_value(json!({"components": [{"name": "checkout", "state": state}]})).unwrap()
    }

    #[test]
    fn a_promise_of_the_end_is_found_and_the_time_of_the_next_update_is_none() {
        for text in [
            "We expect this to be fixed in 20 minutes.",
            "ETA 14:00",
            "Service should be restored by 15:30 UTC.",
            "It will be back shortly!",
            "All is well.\nWe should recover within the hour",
            "Expected recovery: 30 min",
            "Expected recovery 30min",
            "Back in an hour",
            "Logins are off until 15:00",
            "10분 내 복구 예정입니다.",
            "15시까지 정상화될 것으로 보입니다.",
            "곧 해결하겠습니다.",
        ] {
            assert_eq!(lint(text, None).len(), 1, "{text}");
        }
        for text in [
            "Some checkouts fail. We are investigating. Next update by 10:30 UTC.",
            "The next update will follow within 20 minutes.",
            "Checkout was restored at 10:40 UTC; it failed for 38 minutes.",
            "We expect more errors.",
            "결제가 실패하고 있습니다.",
            "복구 작업을 진행하고 있습니다. 다음 안내는 10:30까지 드리겠습니다.",
            "10:40에 복구되었습니다. 38분 동안 결제가 실패했습니다.",
            "Logins were off until 15:00.",
            "We are working on it.",
        ] {
            assert_eq!(lint(text, None), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_sentence_that_promises_an_end_is_quoted_whole_whatever_dots_are_in_it() {
        for sentence in [
            "We expect full recovery by 18:00 UTC; see https://status.example.com/incidents/1.",
            "Version 2.5 will be back within 1.5 hours!",
            "ETA 14.30",
        ] {
            let found = lint(&format!("Cards fail. {sentence}\nWe are sorry."), None);
            assert_eq!(
                found,
                [format!("\"{sentence}\" promises an end: say what is known and when the next update comes")]
            );
        }
    }

    #[test]
    fn names_and_links_of_the_inside_are_found() {
        for text in [
            "db-01 is slow",
            "pod checkout-7d4b9c6f5-x2x9k restarts",
            "see checkout.shop.svc.cluster.local",
            "10.2.3.4 does not answer",
            "https://grafana.example.com/d/1",
            "http://status/errors",
            "https://wiki.corp/incident",
            "http://[ of db-2",
            "DB01 is slow",
            "see acme.atlassian.net",
            "https://acme.atlassian.net/browse/X-1",
        ] {
            let found = lint(text, None);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
        }
        for text in [
            "Customers in us-east-1 and eu-central-1 are affected",
            "see https://status.example.com/incidents/1",
            "UTF-8, HTTP2, iOS17 and COVID-19",
            "version 1.2.3, error 500, well-known, e.g. cards",
        ] {
            assert_eq!(lint(text, None), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn outage_is_said_of_what_is_down() {
        let text = "There is an outage of checkout.";
        assert_eq!(lint(text, None).len(), 1);
        assert_eq!(lint(text, Some(&impact("PartialOutage"))).len(), 1);
        assert_eq!(lint(text, Some(&impact("MajorOutage"))), Vec::<String>::new());
    }
}
