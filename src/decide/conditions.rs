//! Conditions as Kubernetes defines them: one an observation, with the time of its last change of status.

use crate::api::{Condition, ConditionStatus, Time};
use k8s_openapi::jiff::Timestamp;

/// Longest message; the schema's maximum.
const MAX_MESSAGE_CHARS: usize = 2048;

/// Writes conditions of one object for one generation, at one time.
pub struct Conditions<'a> {
    list: &'a mut Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl<'a> Conditions<'a> {
    /// Writes into `list`.
    pub fn new(list: &'a mut Vec<Condition>, generation: Option<i64>, now: Timestamp) -> Self {
        Conditions { list, generation, now }
    }

    /// States one condition. The time of transition changes only with the status.
    pub fn set(&mut self, type_: &str, status: ConditionStatus, reason: &str, message: impl Into<String>) {
        // What people wrote may stand in it.
        let message = one_line(&message.into(), MAX_MESSAGE_CHARS);
        let generation = self.generation;
        match self.list.iter_mut().find(|c| c.type_ == type_) {
            Some(condition) => {
                if condition.status != status {
                    condition.last_transition_time = whole_seconds(self.now);
                }
                condition.status = status;
                condition.observed_generation = generation;
                condition.reason = reason.to_owned();
                condition.message = message;
            }
            None => self.list.push(Condition {
                type_: type_.to_owned(),
                status,
                observed_generation: generation,
                last_transition_time: whole_seconds(self.now),
                reason: reason.to_owned(),
                message,
            }),
        }
    }
}

/// The status of a condition, Unknown when it is not there.
pub fn status(list: &[Condition], type_: &str) -> ConditionStatus {
    find(list, type_).map_or(ConditionStatus::Unknown, |c| c.status)
}

/// A condition by its type.
pub fn find<'a>(list: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    list.iter().find(|c| c.type_ == type_)
}

/// A time without fractions of a second, which is what the API keeps; anything finer would differ from what
/// is read back.
pub fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// At most `max` characters, with an ellipsis where something was cut.
pub fn clip(text: &str, max: usize) -> String {
    if text.len() <= max || text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// At most `max` bytes, cut between characters, with an ellipsis where something was cut.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Text for one line of a person's terminal: no control characters, no direction overrides.
pub fn one_line(text: &str, max: usize) -> String {
    let safe: String =
        text.chars().map(|c| if c.is_control() || is_direction_override(c) { ' ' } else { c }).collect();
    clip(safe.trim(), max)
}

fn is_direction_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_transition_changes_only_with_the_status() {
        let mut list = Vec::new();
        let at = |second| Timestamp::from_second(second).unwrap();
        Conditions::new(&mut list, Some(1), at(10)).set("Ready", ConditionStatus::False, "Waiting", "a");
        Conditions::new(&mut list, Some(2), at(20)).set("Ready", ConditionStatus::False, "Other", "b");
        assert_eq!(list[0].last_transition_time.0, at(10));
        assert_eq!((list[0].observed_generation, list[0].message.as_str()), (Some(2), "b"));
        Conditions::new(&mut list, Some(2), at(30)).set("Ready", ConditionStatus::True, "Done", "c");
        assert_eq!(list[0].last_transition_time.0, at(30));
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn text_is_cut_between_characters_and_cannot_drive_a_terminal() {
        assert_eq!(clip("결제 오류", 3), "결제…");
        assert_eq!(one_line("a\u{1b}[31mb\n\u{202e}c", 99), "a [31mb  c");
    }
}
