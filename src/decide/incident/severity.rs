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
        let earlier = self.status.severity_change.take().and_then(|c| c.reason.or(c.earlier_reason));
        self.status.severity_change = Some(SeverityChange {
            from,
            to,
            time: whole_seconds(self.now),
            author: author.clone(),
            lowered: counts_as(to) > counts_as(from),
            reason: None,
            earlier_reason: earlier,
        });
        self.explain();
        let reason = self.status.severity_change.as_ref().and_then(|c| c.reason.clone());
        let word = |s: Option<Severity>| s.map_or("not stated".to_owned(), |s| s.to_string());
        let why = reason.map(|r| format!(": {r}")).unwrap_or_default();
        let message = format!("severity is {} (was {}){why}", word(to), word(from));
        self.tell(self.now, "SeverityChanged", author.as_deref(), &message);
    }

    /// Looks for the reason of a change that has none yet.
    pub(super) fn explain(&mut self) {
        let Some(change) = self.status.severity_change.as_ref().filter(|c| c.reason.is_none()) else {
            return;
        };
        // A reason explains one change: the text that explained the one before must be written anew.
        let stated = self.seen.incident.spec.severity_reason.clone();
        let stated = stated.filter(|r| change.earlier_reason.as_ref() != Some(r));
        let same_minute = |r: &&TimelineRecord| {
            is_prose(&r.reason)
                && r.entry_uid.is_some()
                && r.time.0.duration_since(change.time.0).abs() <= SAME_MINUTE
        };
        let said = self.status.timeline.iter().filter(|_| change.lowered).find(same_minute);
        let reason = stated.or_else(|| said.map(|r| clip(&r.message, 4096)));
        if let Some(change) = &mut self.status.severity_change {
            change.reason = reason;
        }
    }
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
