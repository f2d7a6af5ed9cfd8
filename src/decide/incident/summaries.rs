//! What is recorded of each mitigation: a summary in the status, and what changed in the timeline.

use super::Decision;
use crate::api::{
    ACTOR_ANNOTATION,
    ConditionStatus::{False, True},
    Incident, Mitigation, MitigationPhase as Phase, MitigationSummary, PriorValue, REQUESTER_ANNOTATION,
    Time,
};
use crate::decide::conditions::{clip, find, one_line, status as condition};
use crate::mitigation::field::How;
use k8s_openapi::jiff::Timestamp;

/// Most mitigations that are kept in the status of an incident.
const MAX_SUMMARIES: usize = 64;
/// Most of them that may be Mitigations which stand alone; the incident's own entries always find a place.
const MAX_ALONE: usize = 48;

/// Whether the incident has on record how this mitigation ended, or never will because it has no place left.
pub fn recorded_end(incident: &Incident, mitigation: &Mitigation) -> bool {
    let Some(status) = &incident.status else { return false };
    match status.mitigations.iter().find(|s| s.uid == mitigation.metadata.uid) {
        Some(summary) => summary.phase.is_ended(),
        None => {
            let alone = status.mitigations.iter().filter(|s| s.entry.is_none()).count();
            alone >= MAX_ALONE || status.mitigations.len() >= MAX_SUMMARIES
        }
    }
}

impl Decision<'_> {
    /// Records what is seen of the mitigations. Answers what could not be recorded: it counts all the same, in place of
    /// what is on record of the same one.
    pub(super) fn summarise(&mut self) -> Vec<MitigationSummary> {
        let mut unrecorded = Vec::new();
        for m in self.seen.mitigations {
            let index = self.status.mitigations.iter().position(|s| s.uid == m.metadata.uid);
            let old = index.map(|i| self.status.mitigations[i].clone());
            let new = self.summary(m, old.as_ref());
            if self.is_crowded() {
                // The timeline takes what it can hold; the rest is told when older entries have moved out.
                self.waits = true;
                unrecorded.push(new);
                continue;
            }
            match index {
                Some(i) => self.status.mitigations[i] = new.clone(),
                None if self.make_room(&new) => self.status.mitigations.push(new.clone()),
                None => {
                    unrecorded.push(new);
                    continue;
                }
            }
            self.tell_of(m, old.as_ref(), &new);
        }
        self.count_the_gone();
        unrecorded
    }

    fn is_there(&self, summary: &MitigationSummary) -> bool {
        // What cannot be read is there all the same.
        self.seen.unreadable.contains(&summary.name)
            || self.seen.mitigations.iter().any(|m| m.metadata.uid == summary.uid)
    }

    /// Makes room for a summary, if need be by forgetting the oldest whose object is gone. Never one whose object
    /// is there: it would be new, and told of again, at the next look.
    fn make_room(&mut self, new: &MitigationSummary) -> bool {
        // An entry that was taken out and put back, or a name that was used again.
        self.status.mitigations.retain(|s| s.name != new.name);
        let alone = |s: &MitigationSummary| s.entry.is_none();
        let forgettable =
            |d: &Self, s: &MitigationSummary| !d.is_there(s) && (alone(s) || s.removed == Some(true));
        let full = self.status.mitigations.len() >= MAX_SUMMARIES
            || alone(new) && self.status.mitigations.iter().filter(|s| alone(s)).count() >= MAX_ALONE;
        if !full {
            return true;
        }
        let oldest =
            self.status.mitigations.iter().position(|s| forgettable(self, s) && (alone(s) || !alone(new)));
        oldest.map(|i| self.status.mitigations.remove(i)).is_some()
    }

    fn summary(&self, m: &Mitigation, old: Option<&MitigationSummary>) -> MitigationSummary {
        let status = m.status.clone().unwrap_or_default();
        let entry = self.entry_of(m).map(str::to_owned);
        // An object that goes because its entry was taken out does not come to stay when the entry is put back.
        let going = m.metadata.deletion_timestamp.is_some() && old.is_some_and(|o| o.removed == Some(true));
        let removed = entry.as_ref().is_some_and(|entry| going || !self.is_stated(entry, m));
        let target = &m.spec.template.target_ref;
        // What was changed stays on record, whatever becomes of the object.
        let change = change(m).or_else(|| old.and_then(|o| o.change.clone()));
        MitigationSummary {
            name: m.metadata.name.clone().unwrap_or_default(),
            entry,
            uid: m.metadata.uid.clone(),
            action: Some(m.spec.template.action.name().as_str().to_owned()),
            target: Some(format!("{}/{}", target.kind, target.name)),
            reason: Some(clip(&m.spec.template.reason, 1024)),
            change,
            phase: status.phase.unwrap_or_default(),
            effective: Some(condition(&status.conditions, "Effective").to_string()),
            message: find(&status.conditions, "Ready").map(|c| clip(&c.message, 1024)),
            removed: removed.then_some(true),
            dry_run: m.spec.template.dry_run.filter(|dry| *dry),
            applied_time: status.applied_time,
            effective_time: status.effective_time,
            released_time: status.released_time,
            undone_by: status.undone_by,
            expired_time: status.expired_time,
        }
    }

    /// What changed about a mitigation goes on record, with the time it happened.
    fn tell_of(&mut self, m: &Mitigation, old: Option<&MitigationSummary>, new: &MitigationSummary) {
        let what = format!(
            "{} {}",
            new.action.as_deref().unwrap_or_default(),
            new.target.as_deref().unwrap_or_default()
        );
        let changed = self.changes(m, old, new);
        let author = who_asked(m, new.entry.is_some());
        for (time, reason, message) in changed {
            let by = (reason == "MitigationApplied").then_some(author.as_deref()).flatten();
            self.tell(time, reason, by, &format!("{what}{message}"));
        }
    }

    fn changes(
        &self,
        m: &Mitigation,
        old: Option<&MitigationSummary>,
        new: &MitigationSummary,
    ) -> Vec<(Timestamp, &'static str, String)> {
        let mut changes = Vec::new();
        let Some(status) = &m.status else { return changes };
        let time = |t: &Option<Time>| t.as_ref().map_or(self.now, |t| t.0);
        // When a condition turned to what it is.
        let turned = |type_| find(&status.conditions, type_).map_or(self.now, |c| c.last_transition_time.0);
        let holds = |type_| find(&status.conditions, type_).filter(|c| c.status == True);
        let says = new.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
        let before = old.map(|o| o.phase);

        if is_past_take(new.phase) && !before.is_some_and(is_past_take) && status.applied_time.is_some() {
            let detail = holds("Applied").map(|c| format!(": {}", c.message)).unwrap_or_default();
            let message = format!("{detail} ({})", m.spec.template.reason);
            changes.push((time(&status.applied_time), "MitigationApplied", message));
        }

        let works = holds("Effective");
        let worked = old.and_then(|o| o.effective.as_deref()) == Some("True");
        if new.effective_time.is_some() && old.is_none_or(|o| o.effective_time.is_none()) {
            // Also when the effect was over before it was looked at.
            let seen = works.map_or(" had its effect".to_owned(), |c| format!(": {}", c.message));
            changes.push((time(&new.effective_time), "MitigationEffective", seen));
        } else if let (Some(again), false) = (works, worked) {
            changes.push((turned("Effective"), "MitigationEffective", format!(": {}", again.message)));
        }
        let fails = condition(&status.conditions, "Effective") == False && new.phase == Phase::Active;
        if fails && old.and_then(|o| o.effective.as_deref()) != Some("False") {
            changes.push((turned("Effective"), "MitigationNotEffective", says.clone()));
        }

        if before != Some(new.phase)
            && let Some(reason) = end_of(new.phase)
        {
            let since = match &status.released_time {
                Some(time) => time.0,
                None if holds("Stalled").is_some() => turned("Stalled"),
                None => turned("Ready"),
            };
            changes.push((since, reason, says));
        }
        if new.expired_time.is_some() && old.is_none_or(|o| o.expired_time.is_none()) && !new.phase.is_ended()
        {
            let message = ": its time is over and it is still in force; release it or give it more time";
            changes.push((time(&new.expired_time), "MitigationExpired", message.to_owned()));
        }
        changes
    }

    /// Objects that are gone: their end was recorded before they went, or they were made to go by force.
    fn count_the_gone(&mut self) {
        let gone: Vec<usize> = (0..self.status.mitigations.len())
            .filter(|&i| !self.is_there(&self.status.mitigations[i]))
            .collect();
        for i in gone {
            if self.is_crowded() {
                self.waits = true;
                return;
            }
            let stated = &self.seen.incident.spec.mitigations;
            let summary = &mut self.status.mitigations[i];
            if summary.entry.as_ref().is_some_and(|entry| !stated.iter().any(|e| e.name == *entry)) {
                summary.removed = Some(true);
            }
            if summary.phase.is_ended() {
                continue;
            }
            summary.phase = Phase::Abandoned;
            summary.effective = Some("Unknown".to_owned());
            summary.message = Some("the Mitigation object is gone without having been released".to_owned());
            let name = summary.name.clone();
            let message =
                format!("Mitigation {name} is gone without having been released: look at its target");
            self.tell(self.now, "MitigationAbandoned", None, &message);
        }
    }
}

/// What a mitigation changed, in words: `spec.replicas from 3 to 0`. `None` while nothing is changed.
fn change(m: &Mitigation) -> Option<String> {
    let fields: Vec<String> = m.status.as_ref()?.prior.iter().map(field_change).collect();
    (!fields.is_empty()).then(|| one_line(&fields.join("; "), 1024))
}

fn field_change(field: &PriorValue) -> String {
    // A JSON Pointer, in the notation of `kubectl explain`.
    let dotted =
        |path: &str| path.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~");
    let how = field.how.as_deref().and_then(|how| serde_json::from_str(how).ok()).unwrap_or(How::Plain);
    let object = field.object.as_ref().map(|o| format!(" of {o}")).unwrap_or_default();
    let path = match &how {
        How::Inside(place) => format!("{} in {}{object}", place.path.join("."), dotted(&field.path)),
        How::Plain | How::Subset | How::Digest | How::Member(_) | How::Revision(_) | How::Shared => {
            format!("{}{object}", dotted(&field.path))
        }
    };
    let shown = |value: &Option<String>| value.as_ref().map(|v| clip(v, 256));
    if let How::Revision(pin) = &how {
        return format!("{path} {pin}");
    }
    match (shown(&field.value), shown(&field.applied)) {
        (before, after) if before == after => {
            format!("nothing: {path} was {} already", after.as_deref().unwrap_or("absent"))
        }
        // Of a large value only the hash is kept, which tells nobody anything.
        _ if how == How::Digest => format!("{path} replaced as a whole"),
        (None, Some(after)) => format!("{path} set to {after}, where nothing was set"),
        (Some(before), None) => format!("{path} removed; it was {before}"),
        (before, after) => {
            let [before, after] = [before, after].map(Option::unwrap_or_default);
            format!("{path} from {before} to {after}")
        }
    }
}

/// Whether a mitigation in this phase may have changed its target.
fn is_past_take(phase: Phase) -> bool {
    match phase {
        Phase::Pending | Phase::AwaitingApproval | Phase::Applying | Phase::Refused => false,
        Phase::Active
        | Phase::Releasing
        | Phase::Released
        | Phase::Kept
        | Phase::Superseded
        | Phase::Abandoned
        | Phase::Failed => true,
    }
}

fn end_of(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Released => Some("MitigationReleased"),
        Phase::Kept => Some("MitigationKept"),
        Phase::Superseded => Some("MitigationSuperseded"),
        Phase::Abandoned => Some("MitigationAbandoned"),
        Phase::Refused => Some("MitigationRefused"),
        Phase::Failed => Some("MitigationFailed"),
        Phase::Pending | Phase::AwaitingApproval | Phase::Applying | Phase::Active | Phase::Releasing => None,
    }
}

/// Who asked for a mitigation. The object of an entry carries the signatures that the incident had when it was
/// made: who changed the incident last before that asked for it.
fn who_asked(m: &Mitigation, is_entry: bool) -> Option<String> {
    let signature = |key| m.metadata.annotations.as_ref()?.get(key).filter(|v| !v.is_empty()).cloned();
    let actor = is_entry.then(|| signature(ACTOR_ANNOTATION)).flatten();
    actor.or_else(|| signature(REQUESTER_ANNOTATION))
}
