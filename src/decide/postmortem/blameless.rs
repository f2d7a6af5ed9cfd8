//! Help with writing about causes instead of people: what a reviewer might want said otherwise.
//!
//! A finding is a warning and never more. Names are those of the people who are known to the postmortem: holders
//! of roles, its owner. A name that is also an ordinary word ("will", "grant") is taken for a name only where it is
//! written as one.

use super::lint::{Finding, Level};
use crate::api::Postmortem;

/// Turns of phrase that end the search for a cause at a person.
const PHRASES: [&str; 18] = [
    "human error",
    "human mistake",
    "operator error",
    "user error",
    "engineer error",
    "pilot error",
    "careless",
    "negligen",
    "incompeten",
    "sloppy",
    "should have known",
    "should have noticed",
    "should have checked",
    "should have been more careful",
    "forgot to",
    "failed to follow",
    "failed to notice",
    "was at fault",
];
/// Names that are ordinary words, too.
const ORDINARY: [&str; 29] = [
    "admin", "amber", "art", "bill", "chase", "dean", "drew", "faith", "frank", "grace", "grant", "guy",
    "hope", "jack", "joy", "mark", "max", "may", "miles", "page", "pat", "ray", "reed", "rich", "rob",
    "rose", "ruby", "sandy", "will",
];
/// Users that are not people, or not one person.
const NOBODY: [&str; 11] = [
    "root",
    "admin",
    "administrator",
    "system",
    "operator",
    "operations",
    "oncall",
    "on-call",
    "ops",
    "sre",
    "user",
];
/// What a person does in an answer to an incident.
const ANSWERING: [&str; 14] = [
    "acknowledged",
    "acknowledges",
    "alerted",
    "assigned",
    "been called",
    "contacted",
    "informed",
    "joined",
    "notified",
    "paged",
    "takes command",
    "took command",
    "took over",
    "was called",
];
/// Words between a name and what was done.
const LINKING: [&str; 9] = ["is", "was", "are", "were", "has", "had", "been", "got", "gets"];
/// Most findings of one postmortem.
const MAX_FINDINGS: usize = 16;

/// What the causes and the curated timeline say about people.
pub(super) fn findings(postmortem: &Postmortem) -> Vec<Finding> {
    let spec = &postmortem.spec;
    let causes = [("spec.rootCauses", &spec.root_causes), ("spec.trigger", &spec.trigger)];
    let causes = causes.into_iter().filter_map(|(field, text)| Some((field.to_owned(), text.as_deref()?)));
    let entries = spec.timeline.iter().enumerate();
    let entries = entries.map(|(i, entry)| (format!("spec.timeline[{i}].message"), entry.message.as_str()));
    let names = names(postmortem);
    let mut found = Vec::new();
    for (field, text) in causes.chain(entries) {
        let mut warn = |message: String| {
            found.push(Finding { level: Level::Warning, rule: "blameless", field: field.clone(), message });
        };
        // As prose is wrapped, and words are joined.
        let lower = text.to_lowercase().replace('-', " ");
        let lower = lower.split_whitespace().collect::<Vec<_>>().join(" ");
        for phrase in PHRASES.iter().filter(|phrase| lower.contains(*phrase)) {
            warn(format!("says \"{phrase}\": ask what made it possible and likely"));
        }
        for name in names.iter().filter(|name| is_named(text, name)) {
            warn(format!("names {name}: write the role, and what the system let happen"));
        }
    }
    found.truncate(MAX_FINDINGS);
    found
}

/// The people that the postmortem knows, by the names under which prose may speak of them.
fn names(postmortem: &Postmortem) -> Vec<String> {
    let known = postmortem.status.as_ref().and_then(|s| s.incident.as_ref());
    let holders = known.into_iter().flat_map(|i| i.roles.iter().map(|r| &r.holder).chain(&i.commander));
    let short = holders.chain(&postmortem.spec.owner).map(|user| short_name(user));
    let mut names: Vec<String> = short.flat_map(|name| [given_name(&name), Some(name)]).flatten().collect();
    names.retain(|name| {
        name.chars().count() >= min_length(name) && !NOBODY.contains(&name.to_lowercase().as_str())
    });
    names.sort();
    names.dedup();
    names
}

/// `alice` of `oidc:alice@example.com` and of `@alice`.
pub(super) fn short_name(user: &str) -> String {
    let user = user.rsplit([':', '/']).next().unwrap_or(user).trim().trim_start_matches('@');
    user.split('@').next().unwrap_or(user).trim().to_owned()
}

/// `alice` of `alice.smith`: prose writes it in two words. What is joined by a hyphen is as often a team.
fn given_name(name: &str) -> Option<String> {
    let (given, family) = name.split_once(['.', '_'])?;
    (!family.is_empty()).then(|| given.to_owned())
}

/// Two letters of the Latin script are too few to be sure of a name.
fn min_length(name: &str) -> usize {
    if name.is_ascii() { 3 } else { 2 }
}

fn is_named(text: &str, name: &str) -> bool {
    if !name.is_ascii() {
        // Scripts without spaces, or with endings on names.
        return text.contains(name);
    }
    let ordinary = ORDINARY.contains(&name.to_lowercase().as_str());
    let mut sentence_begins = true;
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let whole = word.trim_matches(|c: char| !c.is_alphanumeric());
        let bare = whole.strip_suffix("'s").or_else(|| whole.strip_suffix("’s"));
        if bare.unwrap_or(whole).eq_ignore_ascii_case(name) {
            let capital = whole.starts_with(char::is_uppercase) && !sentence_begins;
            let answers = bare.is_none() && is_answering(words.clone());
            if !answers && (!ordinary || capital || word.starts_with('@')) {
                return true;
            }
        }
        sentence_begins = word.ends_with(['.', '!', '?', ':']);
    }
    false
}

/// Whether what follows a name says that somebody was called or took part, which is no cause.
fn is_answering<'a>(words: impl Iterator<Item = &'a str>) -> bool {
    let words = words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase());
    let words: Vec<String> = words.take(4).collect();
    let linking = words.iter().take_while(|word| LINKING.contains(&word.as_str())).count();
    let said = |from: usize, to: usize| {
        ANSWERING.contains(&words.get(from..to).unwrap_or_default().join(" ").as_str())
    };
    said(linking, linking + 1) || said(linking, linking + 2) || linking > 0 && said(linking - 1, linking + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{IncidentSnapshot, PostmortemStatus};
    use serde_json::{Value, json};

    fn said(spec: Value, commander: &str) -> Vec<String> {
        let mut postmortem = Postmortem::new("pm", serde_json::from_value(spec).unwrap());
        let incident = IncidentSnapshot { commander: Some(commander.into()), ..IncidentSnapshot::default() };
        postmortem.status =
            Some(PostmortemStatus { incident: Some(incident), ..PostmortemStatus::default() });
        findings(&postmortem).into_iter().map(|f| format!("{} {}", f.field, f.message)).collect()
    }

    #[test]
    fn a_role_holder_who_is_named_as_a_cause_and_human_error_are_warnings() {
        let said = said(
            json!({"rootCauses": "Human error: Alice deleted the primary.", "trigger": "a deploy",
                "timeline": [{"time": "2026-11-23T10:00:00Z", "message": "bob's command ran on the wrong host"}],
                "owner": "bob"}),
            "oidc:alice@example.com",
        );
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(said[0].starts_with("spec.rootCauses says \"human error\""));
        assert!(said[1].starts_with("spec.rootCauses names alice"));
        assert!(said[2].starts_with("spec.timeline[0].message names bob"));
    }

    #[test]
    fn causes_without_people_and_names_inside_other_words_are_no_findings() {
        let spec = json!({"rootCauses": "The bobbin service and malice detection share one pool. root cause: a race.",
            "owner": "bob", "wentPoorly": "human error"});
        assert_eq!(said(spec, "root"), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_is_a_word_counts_only_where_it_is_written_as_a_name() {
        let spec = |text: &str| json!({"rootCauses": text, "owner": "will"});
        assert_eq!(said(spec("This will happen again. Will it be noticed?"), "x").len(), 0);
        assert_eq!(said(spec("The change by Will was not reviewed."), "x").len(), 1);
        assert_eq!(said(spec("reviewed by @will only"), "x").len(), 1);
    }

    #[test]
    fn wrapped_and_joined_words_are_found_and_names_that_are_written_in_two() {
        assert_eq!(said(json!({"rootCauses": "It was human\nerror."}), "x").len(), 1);
        assert_eq!(said(json!({"rootCauses": "A human-error, once more"}), "x").len(), 1);
        let spec = json!({"rootCauses": "Alice Smith deleted the primary"});
        assert_eq!(
            said(spec.clone(), "oidc:alice.smith@example.com"),
            ["spec.rootCauses names alice: write the role, and what the system let happen"]
        );
        assert_eq!(said(spec, "alice-smith").len(), 0, "it may be a team");
    }

    #[test]
    fn who_is_called_and_takes_part_is_not_named_as_a_cause() {
        let entry = |text: &str| json!({"owner": "alice", "timeline": [{"time": "2026-11-23T10:00:00Z", "message": text}]});
        for fine in
            ["alice is paged", "Alice has been called.", "alice took command", "on-call: alice, joined"]
        {
            assert_eq!(said(entry(fine), "x"), Vec::<String>::new(), "{fine}");
        }
        for cause in [
            "alice's deploy is paged for",
            "alice deployed it",
            "alice was careful",
            "paged after alice",
            "alice took the primary down",
            "alice called delete",
        ] {
            assert_eq!(said(entry(cause), "x").len(), 1, "{cause}");
        }
    }

    #[test]
    fn names_in_scripts_without_spaces_are_found() {
        let spec = json!({"rootCauses": "김철수가 스위치를 껐다"});
        assert_eq!(said(spec, "김철수").len(), 1);
    }

    #[test]
    fn a_thousand_entries_give_a_bounded_number_of_findings() {
        let entry = json!({"time": "2026-11-23T10:00:00Z", "message": "human error"});
        assert_eq!(said(json!({"timeline": vec![entry; 1000]}), "x").len(), MAX_FINDINGS);
    }
}
