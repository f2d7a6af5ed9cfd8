//! Secrets that are known by how they begin, wherever they are.

use super::value::{is_name, skip_blanks};

/// How known tokens begin, and the fewest characters that follow.
const PREFIXES: &[(&[u8], usize)] = &[
    (b"ghp_", 20),
    (b"gho_", 20),
    (b"ghu_", 20),
    (b"ghs_", 20),
    (b"ghr_", 20),
    (b"github_pat_", 20),
    (b"glpat-", 16),
    (b"gldt-", 16),
    (b"glrt-", 16),
    (b"glptt-", 16),
    (b"glcbt-", 16),
    (b"xoxa-", 10),
    (b"xoxb-", 10),
    (b"xoxe-", 10),
    (b"xoxp-", 10),
    (b"xoxr-", 10),
    (b"xoxs-", 10),
    (b"xapp-", 10),
    (b"AIza", 30),
    (b"sk_live_", 10),
    (b"sk_test_", 10),
    (b"rk_live_", 10),
    (b"rk_test_", 10),
    (b"whsec_", 16),
    (b"sk-ant-", 16),
    (b"sk-proj-", 16),
    (b"npm_", 30),
    (b"pypi-", 40),
    (b"dop_v1_", 32),
    (b"dckr_pat_", 16),
    (b"shpat_", 16),
    (b"SG.", 30),
    (b"hvs.", 20),
    (b"hvb.", 20),
    (b"AGE-SECRET-KEY-1", 30),
];

/// A token that begins in this run of characters of names, at its beginning or after a dash.
pub(super) fn find(bytes: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
    (start..end).filter(|at| *at == start || bytes[at - 1] == b'-').find_map(|at| {
        let to = match bytes[at] {
            // Only the first, for it looks beyond the run.
            b'e' if at == start => jwt(bytes, at, end),
            b'A' => aws(bytes, at, end).or_else(|| known(bytes, at, end)),
            _ => known(bytes, at, end),
        }?;
        Some((at, to))
    })
}

fn known(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let (prefix, fewest) = PREFIXES.iter().find(|(prefix, _)| bytes[at..].starts_with(prefix))?;
    let to = match prefix.ends_with(b".") {
        true => at + bytes[at..].iter().take_while(|b| is_name(**b) || **b == b'.').count(),
        false => end,
    };
    (to >= at + prefix.len() + fewest).then_some(to)
}

/// A signed token: three parts, of which the first is JSON and so begins in one way.
fn jwt(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let part = |from: usize| from + bytes[from..].iter().take_while(|b| is_name(**b)).count();
    let dot = |at: usize| (bytes.get(at) == Some(&b'.')).then_some(at + 1);
    if !bytes[at..].starts_with(b"eyJ") || end < at + 11 {
        return None;
    }
    let body = dot(end)?;
    let signature = dot(part(body)).filter(|signature| *signature > body + 8)?;
    Some(part(signature))
}

/// The id of an access key of AWS.
fn aws(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let is_id = end - at >= 20
        && (bytes[at..].starts_with(b"AKIA") || bytes[at..].starts_with(b"ASIA"))
        && bytes[at..at + 20].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    (is_id && (end == at + 20 || bytes[at + 20] == b'-')).then_some(at + 20)
}

/// What follows the word "bearer", when it is long enough for a token.
pub(super) fn bearer(bytes: &[u8], end: usize) -> Option<(usize, usize)> {
    let from = skip_blanks(bytes, end);
    let length = bytes[from..]
        .iter()
        .take_while(|b| is_name(**b) || matches!(b, b'+' | b'/' | b'=' | b'.' | b'~'))
        .count();
    (from > end && length >= 16).then_some((from, from + length))
}
