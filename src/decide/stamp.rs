//! Who changed one part of a spec last, as admission stamps it: somebody who corrects another part later, before the
//! operator has seen the first change, is not taken for its author.

use serde::Deserialize;
use std::collections::BTreeMap;

/// What a stamp says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Stamp {
    /// Name; empty when the stamp cannot be read, so that nobody is taken for the author.
    #[serde(default)]
    pub user: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Of the state of a postmortem: who owned it before that change.
    pub owner: Option<String>,
}

impl Stamp {
    /// The stamp in an annotation. `None`: the object was written before there were any, or nothing signs.
    pub fn of(annotations: Option<&BTreeMap<String, String>>, key: &str) -> Option<Stamp> {
        let text = annotations?.get(key)?;
        Some(serde_json::from_str(text).unwrap_or_default())
    }

    /// The name, unless it cannot be told.
    pub fn user(&self) -> Option<&str> {
        Some(self.user.as_str()).filter(|user| !user.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_that_cannot_be_read_names_nobody() {
        let annotations = BTreeMap::from(
            [("good", r#"{"user":"alice","groups":["a","b"]}"#), ("bad", r#"{"user":"\a"}"#)]
                .map(|(key, text)| (key.to_owned(), text.to_owned())),
        );
        let of = |key| Stamp::of(Some(&annotations), key);
        let good = of("good").expect("it is there");
        assert_eq!((good.user(), good.groups.len(), good.owner.as_ref()), (Some("alice"), 2, None));
        assert_eq!(of("bad").expect("it is there").user(), None);
        assert_eq!(of("none"), None);
    }
}
