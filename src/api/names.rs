//! Names of objects that the operator makes: valid for any name of an incident, and unique.

use sha2::{Digest, Sha256};

/// Longest name of an object.
const MAX_NAME: usize = 253;

/// First `digits` hex digits of the sha256 of a text.
pub fn short_hash(text: &str, digits: usize) -> String {
    let mut hash = sha256_hex(text);
    hash.truncate(digits);
    hash
}

/// sha256 of a text in hex.
pub fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `<base>-<suffix>`, cut and made unique by a hash where it would be too long.
pub fn joined(base: &str, suffix: &str) -> String {
    let whole = format!("{base}-{suffix}");
    if whole.len() <= MAX_NAME { whole } else { hashed(base, suffix, &whole) }
}

/// `<base>-<suffix>-<hash of the seed>`, cut to fit.
pub fn hashed(base: &str, suffix: &str, seed: &str) -> String {
    let hash = short_hash(seed, 8);
    let room = MAX_NAME - hash.len() - suffix.len() - 2;
    let base = base.get(..room.min(base.len())).unwrap_or(base).trim_end_matches(['-', '.']);
    format!("{base}-{suffix}-{hash}")
}

/// A label value from a name: at most 63 characters, ending as labels must.
pub fn label_value(name: &str) -> String {
    let cut = name.get(..63.min(name.len())).unwrap_or(name);
    cut.trim_end_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_joined_as_they_are() {
        assert_eq!(joined("checkout-errors", "stop-importer"), "checkout-errors-stop-importer");
    }

    proptest! {
        #[test]
        fn every_name_that_is_made_is_valid(base in "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", suffix in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?") {
            for name in [joined(&base, &suffix), hashed(&base, &suffix, "seed")] {
                prop_assert!(name.len() <= 253);
                prop_assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()));
                prop_assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()));
            }
            prop_assert!(label_value(&base).len() <= 63 && label_value(&base).ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn long_names_that_differ_only_at_the_end_stay_different() {
        let (a, b) = ("a".repeat(250) + "x", "a".repeat(250) + "y");
        assert_ne!(joined(&a, "stop"), joined(&b, "stop"));
    }
}
