//! What is wrong with a YAML file, in words for who wrote it: the library speaks to those who program with it.

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};
use std::borrow::Cow;

/// Puts what the library says into words.
pub(crate) struct InWords;

impl MessageFormatter for InWords {
    fn format_message<'a>(&self, error: &'a Error) -> Cow<'a, str> {
        let words = match error {
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                return format!("{key} is there twice").into();
            }
            Error::DuplicateMappingKey { key: None, .. } => "a field is there twice",
            Error::MultipleDocuments { .. } => "a second document begins here, and one is expected",
            Error::RecursiveReferencesRequireWeakTypes { .. } => {
                "an alias stands inside of what it repeats: write out what is meant"
            }
            Error::UnknownAnchor { .. } => "an alias repeats what is nowhere marked with its name",
            Error::Budget { .. }
            | Error::AliasReplayCounterOverflow { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. } => {
                "there is too much of it, or it is nested too deeply, once its aliases are written out"
            }
            Error::InvalidScalar { ty: "u8", .. } => "write a whole number from 0 to 255",
            Error::InvalidScalar { ty: "u16", .. } => "write a whole number from 0 to 65535",
            Error::InvalidScalar { ty: "boolean", .. } => "write true or false",
            Error::Unexpected { expected: "mapping start", .. } => {
                "fields are expected here, each as name: value"
            }
            Error::Unexpected { expected: "sequence start", .. } => "a list is expected here",
            _ => return UserMessageFormatter.format_message(error),
        };
        words.into()
    }
}
