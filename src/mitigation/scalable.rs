//! Kinds that `scale` works on because the configuration lists them: whatever has a scale subresource.
//!
//! The list is the one thing that actions know and that is not written in the code. It is set when the configuration is
//! read. A kind that was taken from the list is not acted on any more, but stays known while the process lives, so
//! that what is held can still be released.

use super::{ALL, DAEMON_SET, DEPLOYMENT, STATEFUL_SET, TargetKind, patch::pointer};
use std::sync::{PoisonError, RwLock};

/// Most kinds that may be listed.
pub const MAX_KINDS: usize = 32;
/// Where the wanted number is, when nothing else is said.
const USUAL: &str = ".spec.replicas";

/// A kind as the configuration states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Resource name.
    pub plural: &'a str,
    /// Where the wanted number is, in dots (".spec.replicas", which is also the default).
    pub replicas_path: Option<&'a str>,
}

/// A kind that may be scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalable {
    /// The kind.
    pub kind: TargetKind,
    /// Where the wanted number is, in dots.
    pub replicas_path: &'static str,
}

struct Table {
    allowed: Vec<Scalable>,
    /// Every kind that was ever listed.
    known: Vec<TargetKind>,
}

static TABLE: RwLock<Table> = RwLock::new(Table { allowed: Vec::new(), known: Vec::new() });

/// Why an entry of the list cannot stand, beside those before it.
pub fn objection(before: &[Stated<'_>], stated: Stated<'_>) -> Option<String> {
    let Stated { group, version, kind, plural, replicas_path } = stated;
    if before.len() >= MAX_KINDS {
        return Some(format!("at most {MAX_KINDS} kinds can be listed"));
    }
    if [DEPLOYMENT, STATEFUL_SET].iter().any(|own| own.kind == kind) {
        return Some(format!("{kind} is scaled anyway, and a target may be named by its kind alone"));
    }
    if kind == DAEMON_SET.kind {
        return Some("a DaemonSet has no scale: it runs on every node".to_owned());
    }
    // A target may leave its apiVersion out.
    if before.iter().any(|other| other.kind == kind) {
        return Some(format!("{kind} is listed twice, and a target may be named by its kind alone"));
    }
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let named = word(version, "") && (group.is_empty() || word(group, ".-"));
    if !named || !word(kind, "") || !word(plural, "-") {
        return Some(format!("{kind} ({plural}) of {group:?} {version:?} does not name a kind"));
    }
    let path = replicas_path.unwrap_or(USUAL);
    let whole = path.strip_prefix(".spec.").is_some_and(|rest| rest.split('.').all(|part| word(part, "_-")));
    (!whole).then(|| format!("{path} is no path below .spec, such as {USUAL}"))
}

/// Sets the list. An entry that cannot stand is left out; [`objection`] says why.
pub fn allow<'a>(kinds: impl IntoIterator<Item = Stated<'a>>) {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    let (mut taken, mut allowed) = (Vec::new(), Vec::new());
    for stated in kinds {
        if objection(&taken, stated).is_some() {
            continue;
        }
        taken.push(stated);
        let Stated { group, version, .. } = stated;
        let is = |kind: &&TargetKind| {
            (kind.group, kind.version, kind.kind, kind.plural) == (group, version, stated.kind, stated.plural)
        };
        let known = table.known.iter().chain(ALL).find(is).copied();
        // Few, and each but once.
        let kind = known.unwrap_or_else(|| TargetKind {
            group: leak(group),
            version: leak(version),
            kind: leak(stated.kind),
            plural: leak(stated.plural),
        });
        if !table.known.contains(&kind) {
            table.known.push(kind);
        }
        let path = stated.replicas_path.unwrap_or(USUAL);
        let before = table.allowed.iter().map(|s: &Scalable| s.replicas_path).find(|known| *known == path);
        let replicas_path = if path == USUAL { USUAL } else { before.unwrap_or_else(|| leak(path)) };
        allowed.push(Scalable { kind, replicas_path });
    }
    table.allowed = allowed;
}

fn leak(text: &str) -> &'static str {
    text.to_owned().leak()
}

/// The kinds that may be scaled, besides those of the code.
pub fn allowed() -> Vec<Scalable> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).allowed.clone()
}

/// A kind that is or was listed, of this group or of any.
pub fn known(group: Option<&str>, kind: &str) -> Option<TargetKind> {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    let is = |known: &&TargetKind| known.kind == kind && group.is_none_or(|group| known.group == group);
    table.known.iter().find(is).copied()
}

/// A path in dots as a JSON Pointer.
pub fn to_pointer(dots: &str) -> String {
    pointer(&dots.split('.').filter(|part| !part.is_empty()).collect::<Vec<_>>())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The list is the process's own, so all unit tests use the same one.
    pub(crate) fn listed() {
        let stated =
            |kind, plural| Stated { group: "shop.example", version: "v1", kind, plural, replicas_path: None };
        let pools = Stated { replicas_path: Some(".spec.workers.count"), ..stated("Pool", "pools") };
        let own = Stated { group: "apps", kind: "Deployment", plural: "deployments", ..pools };
        let sets = Stated { group: "apps", ..stated("ReplicaSet", "replicasets") };
        allow([stated("Worker", "workers"), pools, stated("Worker", "again"), own, sets]);
    }

    #[test]
    fn listed_kinds_are_known_once_and_never_stand_in_for_those_of_the_code() {
        listed();
        let first = allowed();
        let plurals: Vec<&str> = first.iter().map(|s| s.kind.plural).collect();
        assert_eq!(plurals, ["workers", "pools", "replicasets"]);
        assert_eq!(first[2].kind, super::super::REPLICA_SET);
        listed();
        assert_eq!(allowed(), first);
        assert_eq!(TargetKind::named("shop.example", "Pool"), Some(first[1].kind));
        assert_eq!(TargetKind::named("other.example", "Pool"), None);
    }

    #[test]
    fn what_cannot_stand_in_the_list_is_told_why() {
        let stated = Stated {
            group: "argoproj.io",
            version: "v1alpha1",
            kind: "Rollout",
            plural: "rollouts",
            replicas_path: None,
        };
        assert_eq!(objection(&[], stated), None);
        assert_eq!(objection(&[], Stated { group: "", ..stated }), None);
        for (wrong, words) in [
            (Stated { kind: "StatefulSet", ..stated }, "scaled anyway"),
            (Stated { kind: "DaemonSet", ..stated }, "no scale"),
            (Stated { group: "a/b", ..stated }, "does not name a kind"),
            (Stated { version: "", ..stated }, "does not name a kind"),
            (Stated { plural: "*", ..stated }, "does not name a kind"),
            (Stated { replicas_path: Some(".status.replicas"), ..stated }, "no path below .spec"),
            (Stated { replicas_path: Some(".spec.pools[0]"), ..stated }, "no path below .spec"),
        ] {
            let said = objection(&[], wrong).unwrap();
            assert!(said.contains(words), "{wrong:?}: {said}");
        }
        assert!(objection(&[stated], stated).unwrap().contains("twice"));
        assert!(objection(&[stated; MAX_KINDS], stated).unwrap().contains("at most 32"));
    }

    #[test]
    fn a_path_in_dots_becomes_a_pointer() {
        assert_eq!(to_pointer(".spec.workers.count"), "/spec/workers/count");
        assert_eq!(to_pointer("spec.replicas"), "/spec/replicas");
    }
}
