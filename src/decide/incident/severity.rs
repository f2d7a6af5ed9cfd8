//! Severity: what it was and became, who changed it, and why.
//!
//! Raising is free. Lowering wants a reason: in `spec.severityReason`, or in an entry of the same minute. It is not
//! refused without one, because at three in the morning nothing may stand in the way; a condition asks for it.

use super::Decision;
use crate::api::{SEVERITY_STAMP, Severity, SeverityChange, TimelineEntryType, TimelineRecord};
use crate::decide::conditions::{clip, whole_seconds};
use k8s_openapi::jiff::SignedDuration;

/// How far apart a change and the entry that explains it may be.
const SAME_MINUTE: SignedDuration = SignedDuration::from_secs(60);
/// Entries that are remembered because they explained a change; an older one is not of the same minute any more.
const MAX_EXPLAINED_BY: usize = 8;

impl Decision<'_> {
    /// Records a change of severity.
    pub(super) fn severity(&mut self) {
        let spec = &self.seen.incident.spec;
        let (from, to) = (self.status.severity, spec.severity);
        let declared_now = self.added.iter().any(|r| r.reason == "Declared");
        if from == to || declared_now {
            self.status.severity = to;
            return self.explain();
        }
        self.status.severity = to;
        let author = self.actor_of(SEVERITY_STAMP);
        let stated = spec.severity_reason.clone();
        let before = self.status.severity_change.take();
        let lowered = counts_as(to) > counts_as(from);
        // A text that explained the change before, or came with one that needs none, explains no other.
        let spent = before.as_ref().and_then(|c| match c.reason == stated {
            true => stated.clone(),
            false => c.earlier_reason.clone(),
        });
        self.status.severity_change = Some(SeverityChange {
            from,
            to,
            time: whole_seconds(self.now),
            author: author.clone(),
            lowered,
            reason: None,
            earlier_reason: if lowered { spent } else { stated.or(spent) },
            explained_by: before.map(|c| c.explained_by).unwrap_or_default(),
        });
        let why = self.find_reason().map(|(reason, _)| format!(": {reason}")).unwrap_or_default();
        let message = format!("{}{why}", change_in_words(from, to));
        self.tell(self.now, "SeverityChanged", author.as_deref(), &message);
    }

    /// Looks for the reason of a change that has none yet, and tells of one that comes after the change was told.
    pub(super) fn explain(&mut self) {
        let Some((reason, author)) = self.find_reason() else { return };
        let Some(change) = &self.status.severity_change else { return };
        let message = format!("{}: {reason}", change_in_words(change.from, change.to));
        self.tell(self.now, "SeverityExplained", author.as_deref(), &message);
    }

    /// The reason of a change that has none yet, if there is one now, and whose words it is.
    fn find_reason(&mut self) -> Option<(String, Option<String>)> {
        let change = self.status.severity_change.as_ref().filter(|c| c.lowered && c.reason.is_none())?;
        let stated = self.seen.incident.spec.severity_reason.clone();
        let stated = stated.filter(|r| change.earlier_reason.as_ref() != Some(r));
        let is_spent = |uid: &String| change.explained_by.contains(uid);
        let same_minute = |r: &&TimelineRecord| {
            is_prose(&r.reason)
                && r.entry_uid.as_ref().is_some_and(|uid| !is_spent(uid))
                && r.time.0.duration_since(change.time.0).abs() <= SAME_MINUTE
        };
        let (reason, author, uid) = match stated {
            Some(reason) => (reason, self.actor_of(SEVERITY_STAMP), None),
            None => {
                let said = self.status.timeline.iter().find(same_minute)?;
                (clip(&said.message, 4096), said.author.clone(), said.entry_uid.clone())
            }
        };
        let change = self.status.severity_change.as_mut()?;
        change.reason = Some(reason.clone());
        match uid {
            Some(uid) => change.explained_by.push(uid),
            None => change.earlier_reason = Some(reason.clone()),
        }
        let excess = change.explained_by.len().saturating_sub(MAX_EXPLAINED_BY);
        change.explained_by.drain(..excess);
        Some((reason, author))
    }
}

fn change_in_words(from: Option<Severity>, to: Option<Severity>) -> String {
    let word = |s: Option<Severity>| s.map_or("not stated".to_owned(), |s| s.to_string());
    format!("severity is {} (was {})", word(to), word(from))
}

/// While no severity is stated, everything runs as for SEV3.
fn counts_as(severity: Option<Severity>) -> Severity {
    severity.unwrap_or(Severity::SEV3)
}

/// Whether an entry of this word says something, rather than confirming or approving.
fn is_prose(reason: &str) -> bool {
    use TimelineEntryType::{Decision, Evidence, Hypothesis, Note, StatusUpdate};
    [Note, Decision, StatusUpdate, Hypothesis, Evidence]
        .into_iter()
        .any(|type_| super::record::reason_of(type_) == reason)
}
