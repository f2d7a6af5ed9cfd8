//! Which names speak of a secret, and which only of something about one.

/// What kind of secret a name speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// People choose it, and it may look like any word.
    Chosen,
    /// People choose it, of several words.
    Phrase,
    /// Machines make it, and it does not look like a word.
    Made,
    /// The header, with a scheme before the secret.
    Authorization,
    /// The header, of names and values.
    Cookie,
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub kind: Kind,
    /// It speaks of several, so that a number may be how many.
    pub plural: bool,
}

/// Longest part of a name that is looked at, from its end.
const MAX_NAME: usize = 128;
/// What every name of a secret has in it.
const HINTS: &[&str] = &["pass", "pwd", "secret", "token", "key", "cred", "authorization", "cookie"];

/// Words after that of the secret, with which the name is of something about it: `secretName`, `token_count`,
/// `passwordSecretRef`.
const ABOUT: &[&str] = &[
    "name",
    "names",
    "ref",
    "refs",
    "type",
    "types",
    "count",
    "counts",
    "length",
    "len",
    "size",
    "limit",
    "limits",
    "max",
    "min",
    "bits",
    "file",
    "files",
    "path",
    "paths",
    "dir",
    "url",
    "uri",
    "endpoint",
    "endpoints",
    "ttl",
    "expiry",
    "expires",
    "expiration",
    "expired",
    "at",
    "age",
    "policy",
    "version",
    "versions",
    "usage",
    "used",
    "issuer",
    "provider",
    "providers",
    "store",
    "manager",
    "class",
    "namespace",
    "format",
    "algorithm",
    "alg",
    "status",
    "state",
    "valid",
    "invalid",
    "required",
    "enabled",
    "disabled",
    "optional",
    "rotation",
    "rotated",
    "review",
    "reviews",
    "request",
    "requests",
    "controller",
    "operator",
    "informer",
    "lister",
    "mount",
    "mounts",
    "volume",
    "volumes",
    "kind",
    "space",
    "rate",
    "through",
    "stdin",
    "prompt",
    "mode",
    "error",
    "errors",
    "bucket",
    "audiences",
    "audience",
    "seconds",
    "reset",
];

/// Words before `key`, with which it is none that opens anything: `cacheKey`, `partition-key`.
const ORDINARY_KEYS: &[&str] = &[
    "cache",
    "partition",
    "primary",
    "foreign",
    "sort",
    "public",
    "pub",
    "routing",
    "route",
    "idempotency",
    "index",
    "row",
    "column",
    "map",
    "object",
    "group",
    "grouping",
    "dedup",
    "deduplication",
    "unique",
    "lookup",
    "message",
    "record",
    "shard",
    "sharding",
    "composite",
    "translation",
    "item",
    "queue",
    "workqueue",
    "topology",
    "label",
    "annotation",
    "taint",
    "config",
    "configmap",
    "metric",
    "log",
    "field",
    "property",
    "attribute",
    "tag",
    "resource",
    "kind",
    "type",
    "name",
    "namespace",
    "entity",
    "document",
    "event",
    "lock",
    "lease",
    "setting",
    "modifier",
    "context",
    "json",
    "yaml",
    "param",
    "parameter",
    "header",
    "metadata",
    "feature",
    "flag",
    "order",
    "product",
    "issue",
    "ticket",
    "search",
    "join",
    "range",
    "start",
    "end",
    "last",
    "first",
    "next",
    "previous",
    "natural",
    "blob",
    "missing",
    "invalid",
    "unknown",
    "duplicate",
    "expected",
    "required",
    "per",
    "by",
    "for",
    "no",
    "the",
    "a",
    "of",
    "s3",
    "selector",
    "match",
    "labels",
];

/// Words before `key` in names that are written as one: `apikey`.
const KEYS_IN_ONE: &[&str] = &[
    "api",
    "access",
    "secretaccess",
    "private",
    "secret",
    "signing",
    "encryption",
    "master",
    "auth",
    "account",
    "shared",
    "ssh",
    "app",
    "session",
    "license",
];

/// Words that end as one for a secret does, and are none.
const NO_PASSWORDS: &[&str] =
    &["bypass", "compass", "encompass", "surpass", "trespass", "overpass", "underpass"];

/// The kind of secret that a name speaks of, if it does.
pub(super) fn of(name: &str) -> Option<Name> {
    let mut start = name.len().saturating_sub(MAX_NAME);
    while !name.is_char_boundary(start) {
        start += 1;
    }
    let name = &name[start..];
    if !HINTS.iter().any(|hint| contains(name, hint)) {
        return None;
    }
    let words = words(name);
    // What comes last counts: the token of SECRET_PATH_TOKEN is one.
    let (i, found) =
        words.iter().enumerate().rev().find_map(|(i, word)| Some((i, kind(&words[..i], word)?)))?;
    let after = &words[i + 1..];
    let alone = !matches!(found.kind, Kind::Authorization | Kind::Cookie) || after.is_empty();
    (alone && !after.iter().any(|word| ABOUT.contains(&word.as_str()))).then_some(found)
}

/// The kind of secret that the word "key" speaks of after another one, as in "API key".
pub(super) fn of_key(name: &str, before: &[u8]) -> Option<Name> {
    let known = || KEYS_IN_ONE.iter().any(|known| before.eq_ignore_ascii_case(known.as_bytes()));
    (name.eq_ignore_ascii_case("key") && known()).then_some(Name { kind: Kind::Made, plural: false })
}

/// Whether a text has a word in it, in whatever case.
fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// The words of a name, in lower case: of `DB_PASS`, `dbPass`, `db-pass` and `DBPass` they are the same.
fn words(name: &str) -> Vec<String> {
    let bytes = name.as_bytes();
    let mut words = vec![String::new()];
    for (i, byte) in bytes.iter().enumerate() {
        let next_is_small = bytes.get(i + 1).is_some_and(u8::is_ascii_lowercase);
        let begins = byte.is_ascii_uppercase()
            && i > 0
            && (!bytes[i - 1].is_ascii_uppercase() || next_is_small && bytes[i - 1].is_ascii_uppercase());
        if (begins || !byte.is_ascii_alphanumeric()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (byte.is_ascii_alphanumeric(), words.last_mut()) {
            word.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What a word speaks of, after those before it.
fn kind(before: &[String], word: &str) -> Option<Name> {
    let counted = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let one = counted.strip_suffix('s').filter(|one| !one.ends_with('s')).unwrap_or(counted);
    let name = |kind| Some(Name { kind, plural: one.len() < counted.len() });
    let is_password = one.contains("password")
        || one.contains("passwd")
        || one.ends_with("pwd")
        || one.ends_with("passcode")
        || (counted.ends_with("pass") && !NO_PASSWORDS.contains(&counted));
    if one.ends_with("passphrase") {
        return name(Kind::Phrase);
    }
    if is_password || one.ends_with("secret") {
        return name(Kind::Chosen);
    }
    if one.ends_with("token") || one.ends_with("credential") || matches!(one, "cred" | "creds") {
        return name(Kind::Made);
    }
    let is_key = match one.strip_suffix("key") {
        Some("") => before.last().is_some_and(|word| !ORDINARY_KEYS.contains(&word.as_str())),
        Some(of) => KEYS_IN_ONE.iter().any(|known| of.ends_with(known)),
        None => false,
    };
    match one {
        _ if is_key => name(Kind::Made),
        "authorization" => name(Kind::Authorization),
        "cookie" | "setcookie" => name(Kind::Cookie),
        _ => None,
    }
}
