//! Approvals: who must be asked, what exactly is approved, and which entry counts.
//!
//! An approval is a TimelineEntry. It names the mitigation and the digest in its status, so that it is for this spec
//! on this target and no other; it comes from somebody else than who asked, and is good for a while.

use super::{applies, is_about, name};
use crate::api::{
    ACTOR_ANNOTATION, ActionName, ApprovalNeed, Mitigation, MitigationPolicy, REQUESTER_ANNOTATION, Severity,
    TimelineEntry, TimelineEntryType,
};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long an approval is good for when the policy does not say.
const VALID_FOR: Duration = Duration::from_secs(30 * 60);

/// That an approval is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The policies that ask for it.
    pub policies: Vec<String>,
    /// How long after it was given it is good: the shortest of all.
    pub valid_for: Duration,
}

/// Whether somebody must approve, by the first rule of each policy that matches.
pub fn need(
    policies: &[Arc<MitigationPolicy>],
    severity: Option<Severity>,
    action: ActionName,
) -> Option<Need> {
    let mut found: Option<Need> = None;
    for policy in policies {
        let rule = policy.spec.approval.iter().find(|rule| {
            let required = rule.require != Some(ApprovalNeed::NotRequired);
            is_about(&rule.actions, action)
                && match severity {
                    Some(severity) => applies(&rule.severities, &severity),
                    // What is not known excuses nobody.
                    None => required || rule.severities.is_empty(),
                }
        });
        let Some(rule) = rule.filter(|rule| rule.require != Some(ApprovalNeed::NotRequired)) else {
            continue;
        };
        let valid_for = rule.valid_for.as_ref().and_then(|d| d.get()).unwrap_or(VALID_FOR);
        let need = found.get_or_insert(Need { policies: Vec::new(), valid_for });
        need.policies.push(name(policy).to_owned());
        need.valid_for = need.valid_for.min(valid_for);
    }
    found
}

/// What an approval is for: this mitigation, its spec, and the target as the object that it is.
pub fn digest(mitigation: &Mitigation, target_uid: Option<&str>) -> String {
    let text = serde_json::json!({
        "mitigation": mitigation.metadata.uid,
        "spec": mitigation.spec,
        "target": target_uid,
    });
    // Maps of JSON values are sorted, so equal specs have equal texts.
    let hash = Sha256::digest(text.to_string().as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

/// What an entry says of a mitigation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It approves.
    Approves {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
        /// Until when the change must have begun.
        until: Timestamp,
    },
    /// It rejects.
    Rejects {
        /// Who.
        by: String,
        /// Their words.
        why: String,
    },
    /// It counts for nothing, and why.
    Void(String),
}

/// Judges one entry that names the mitigation. `signed`: the API server vouches for the names.
pub fn judge(
    entry: &TimelineEntry,
    mitigation: &Mitigation,
    digest: &str,
    valid_for: Duration,
    signed: bool,
    now: Timestamp,
) -> Word {
    let of = |annotations: &Option<BTreeMap<String, String>>, key: &str| {
        annotations.as_ref().and_then(|a| a.get(key)).filter(|v| !v.is_empty()).cloned()
    };
    let Some(by) = of(&entry.metadata.annotations, REQUESTER_ANNOTATION).filter(|_| signed) else {
        return Word::Void("the API server does not vouch for its author".to_owned());
    };
    if entry.spec.digest.as_deref() != Some(digest) {
        return Word::Void(format!("{by} names another digest: the spec or the target has changed since"));
    }
    if entry.spec.type_ == TimelineEntryType::Rejection {
        return Word::Rejects { by, why: entry.spec.message.clone() };
    }
    let template = &mitigation.spec.template;
    let namespace = mitigation.metadata.namespace.as_deref().unwrap_or_default();
    let account = template.service_account_name.as_ref();
    let account = account.map(|account| format!("system:serviceaccount:{namespace}:{account}"));
    let asked = [REQUESTER_ANNOTATION, ACTOR_ANNOTATION].map(|key| of(&mitigation.metadata.annotations, key));
    if asked.into_iter().flatten().chain(account).any(|name| name == by) {
        return Word::Void(format!("{by} asked for the mitigation, and somebody else must approve it"));
    }
    let at = entry.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let until = at.checked_add(valid_for).unwrap_or(Timestamp::MAX);
    if until <= now {
        return Word::Void(format!("the approval by {by} was good until {until}"));
    }
    Word::Approves { by, at, until }
}
