//! What is recorded of each mitigation: a summary in the status, and what changed in the timeline.

use super::Decision;
use crate::api::{
    ACTOR_ANNOTATION, Action, Condition,
    ConditionStatus::{False, True},
    DesiredState, EvidenceOutcome, Incident, Mitigation, MitigationPhase as Phase, MitigationStatus,
    MitigationSummary, PriorValue, REQUESTER_ANNOTATION, RESOLUTION_STAMP, Time,
};
use crate::decide::conditions::{clip, find, one_line, status as condition};
use crate::mitigation::field::{How, dotted};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// The condition that tells of the evidence of a mitigation.
const CAPTURED: &str = "EvidenceCaptured";
/// The word for what ended before it changed anything.
const WITHDRAWN: &str = "MitigationWithdrawn";
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

/// Whether it is on record that the entry of this mitigation was taken out.
pub fn is_withdrawn(incident: &Incident, mitigation: &Mitigation) -> bool {
    let mut recorded = incident.status.iter().flat_map(|s| &s.mitigations);
    recorded.any(|s| s.uid == mitigation.metadata.uid && s.removed == Some(true))
}

/// Who caused something.
enum By {
    Operator,
    Somebody(Option<String>),
}

/// Who tells whether a mitigation works: the operator, but of a step that a person does it is a person.
fn who_saw(m: &Mitigation) -> By {
    let signed = || signature(m, ACTOR_ANNOTATION).or_else(|| signature(m, REQUESTER_ANNOTATION));
    match &m.spec.template.action {
        Action::Manual(_) => signed().map_or(By::Operator, |who| By::Somebody(Some(who))),
        _ => By::Operator,
    }
}

/// What changed about a mitigation: when, what it is called, who caused it, and in words.
type Change = (Timestamp, &'static str, By, String);

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
        let mut summary = MitigationSummary {
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
            ended_by: None,
            undone_by: status.undone_by,
            expired_time: status.expired_time,
            evidence: evidence(old.and_then(|o| o.evidence), &status.conditions),
        };
        summary.ended_by = self.ended_by(m, old, &summary);
        summary
    }

    /// Who asked for its end. Who did first counts, as long as that is asked for.
    fn ended_by(
        &self,
        m: &Mitigation,
        old: Option<&MitigationSummary>,
        new: &MitigationSummary,
    ) -> Option<String> {
        let known = old.and_then(|o| o.ended_by.clone());
        if !self.is_to_end(m, new) {
            return known.filter(|_| new.phase.is_ended() || new.phase == Phase::Releasing);
        }
        let asked = |o: &MitigationSummary| o.phase.is_ended() || o.ended_by.is_some();
        if old.is_some_and(asked) {
            return known;
        }
        let deleted = m.metadata.deletion_timestamp.is_some();
        let by = if deleted {
            // What is deleted because its entry was taken out is marked first.
            None
        } else if new.removed == Some(true) {
            self.mitigator().map(str::to_owned)
        } else if m.spec.template.desired_state == Some(DesiredState::Released) {
            signature(m, ACTOR_ANNOTATION).or_else(|| signature(m, REQUESTER_ANNOTATION))
        } else {
            self.actor_of(RESOLUTION_STAMP)
        };
        by.map(|who| clip(&who, 253))
    }

    /// What changed about a mitigation goes on record, with the time it happened.
    fn tell_of(&mut self, m: &Mitigation, old: Option<&MitigationSummary>, new: &MitigationSummary) {
        let what = format!(
            "{} {}",
            new.action.as_deref().unwrap_or_default(),
            new.target.as_deref().unwrap_or_default()
        );
        for (time, reason, by, message) in self.changes(m, old, new) {
            let message = format!("{what}{message}");
            match by {
                By::Operator => self.tell(time, reason, None, &message),
                By::Somebody(who) => self.tell_of_somebody(time, reason, who.as_deref(), &message),
            }
        }
    }

    /// Who caused the end of a mitigation.
    fn who_ended(&self, m: &Mitigation, new: &MitigationSummary) -> By {
        let expired = m.status.as_ref().and_then(|s| find(&s.conditions, "Ready"));
        match new.phase {
            // A field manager is no person, and who deletes an object is not told.
            Phase::Superseded | Phase::Abandoned => By::Somebody(None),
            Phase::Released | Phase::Kept | Phase::Failed
                if expired.is_none_or(|c| c.reason != "Expired") && self.is_to_end(m, new) =>
            {
                By::Somebody(new.ended_by.clone())
            }
            _ => By::Operator,
        }
    }

    fn changes(
        &self,
        m: &Mitigation,
        old: Option<&MitigationSummary>,
        new: &MitigationSummary,
    ) -> Vec<Change> {
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
            let asked = status.asked_by.clone().or_else(|| signature(m, REQUESTER_ANNOTATION));
            changes.push((time(&status.applied_time), "MitigationApplied", By::Somebody(asked), message));
        }

        let works = holds("Effective");
        let worked = old.and_then(|o| o.effective.as_deref()) == Some("True");
        if new.effective_time.is_some() && old.is_none_or(|o| o.effective_time.is_none()) {
            // Also when the effect was over before it was looked at.
            let seen = works.map_or(" had its effect".to_owned(), |c| format!(": {}", c.message));
            changes.push((time(&new.effective_time), "MitigationEffective", who_saw(m), seen));
        } else if let (Some(again), false) = (works, worked) {
            let message = format!(": {}", again.message);
            changes.push((turned("Effective"), "MitigationEffective", who_saw(m), message));
        }
        if let Some(outcome) = new.evidence
            && old.and_then(|o| o.evidence) != new.evidence
        {
            let words = find(&status.conditions, CAPTURED).map(|c| c.message.as_str()).unwrap_or_default();
            let (reason, message) = match outcome {
                EvidenceOutcome::Kept => {
                    ("EvidenceKept", format!(": evidence was kept, {}", in_short(status, words)))
                }
                EvidenceOutcome::Missing => ("EvidenceMissing", format!(": no evidence, {words}")),
            };
            changes.push((turned(CAPTURED), reason, By::Operator, message));
        }
        let fails = condition(&status.conditions, "Effective") == False && new.phase == Phase::Active;
        if fails && old.and_then(|o| o.effective.as_deref()) != Some("False") {
            changes.push((turned("Effective"), "MitigationNotEffective", who_saw(m), says.clone()));
        }

        if before != Some(new.phase)
            && let Some(reason) = end_of(new)
            // A dry run was not announced: there is nothing to take back.
            && !(reason == WITHDRAWN && new.dry_run == Some(true))
        {
            let since = match &status.released_time {
                Some(time) => time.0,
                None if holds("Stalled").is_some() => turned("Stalled"),
                None => turned("Ready"),
            };
            changes.push((since, reason, self.who_ended(m, new), says));
        }
        if new.expired_time.is_some() && old.is_none_or(|o| o.expired_time.is_none()) && !new.phase.is_ended()
        {
            let message = ": its time is over and it is still in force; release it or give it more time";
            changes.push((time(&new.expired_time), "MitigationExpired", By::Operator, message.to_owned()));
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
            self.tell_of_somebody(self.now, "MitigationAbandoned", None, &message);
        }
    }
}

/// What a mitigation changed, in words: `spec.replicas from 3 to 0`. `None` while nothing is changed.
fn change(m: &Mitigation) -> Option<String> {
    let prior = &m.status.as_ref()?.prior;
    let is_changed = |field: &&PriorValue| field.value != field.applied;
    let nothing = !prior.iter().any(|field| is_changed(&field));
    let fields = prior.iter().filter(|field| nothing || is_changed(field)).map(field_change);
    let fields: Vec<String> = fields.collect();
    (!fields.is_empty()).then(|| one_line(&fields.join("; "), 1024))
}

fn field_change(field: &PriorValue) -> String {
    let how = field.how.as_deref().and_then(|how| serde_json::from_str(how).ok()).unwrap_or(How::Plain);
    let object = field.object.as_ref().map(|o| format!(" of {o}")).unwrap_or_default();
    let path = match &how {
        How::Inside(place) => format!("{} in {}{object}", place.path.join("."), dotted(&field.path)),
        How::Plain | How::Subset | How::Digest | How::Member(_) | How::Revision(_) | How::Shared => {
            format!("{}{object}", dotted(&field.path))
        }
    };
    let parsed = |text: &String| serde_json::from_str::<Value>(text).ok();
    let told = |text: &String| parsed(text).map_or_else(|| text.clone(), |value| how.told(Some(&value)));
    let shown = |value: &Option<String>| value.as_ref().map(|v| clip(&told(v), 256));
    if let How::Revision(pin) = &how {
        return format!("{path} {pin}");
    }
    if let How::Member(member) = &how
        && field.value != field.applied
    {
        return member.comes(&path, field.applied.is_some());
    }
    match (shown(&field.value), shown(&field.applied)) {
        (before, after) if before == after => {
            format!("nothing: {path} was {} already", after.as_deref().unwrap_or("absent"))
        }
        // Of a large value only the hash is kept, which tells nobody anything.
        _ if how == How::Digest => format!("{path} replaced as a whole"),
        (Some(before), _) if how.empties(field.applied.as_ref().and_then(parsed).as_ref()) => {
            format!("{path} emptied; it was {before}")
        }
        (None, Some(after)) => format!("{path} set to {after}, where nothing was set"),
        (Some(before), None) => format!("{path} removed; it was {before}"),
        (before, after) => {
            let [before, after] = [before, after].map(Option::unwrap_or_default);
            format!("{path} from {before} to {after}")
        }
    }
}

/// Where the evidence is; what could not be had is counted and not listed, since it may be a line for each pod.
fn in_short(status: &MitigationStatus, words: &str) -> String {
    let Some(kept) = &status.evidence else { return words.to_owned() };
    let missing = match kept.missing.len() {
        0 => String::new(),
        n => format!("; {n} more could not be had, as its status says"),
    };
    format!("{} items are in ConfigMap {}{missing}", kept.items, kept.config_map)
}

/// What a mitigation says of its evidence, after what is on record of it. What was kept once stays.
fn evidence(known: Option<EvidenceOutcome>, conditions: &[Condition]) -> Option<EvidenceOutcome> {
    let says = find(conditions, CAPTURED).map(|c| (c.status, c.reason.as_str()));
    match (known, says) {
        (Some(EvidenceOutcome::Kept), _) | (_, Some((True, _))) => Some(EvidenceOutcome::Kept),
        (_, Some((False, "Failed"))) => Some(EvidenceOutcome::Missing),
        // Not asked for, not begun, or under way.
        (_, Some(_) | None) => known,
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

fn end_of(summary: &MitigationSummary) -> Option<&'static str> {
    match summary.phase {
        Phase::Released if summary.applied_time.is_none() => Some(WITHDRAWN),
        Phase::Released => Some("MitigationReleased"),
        Phase::Kept => Some("MitigationKept"),
        Phase::Superseded => Some("MitigationSuperseded"),
        Phase::Abandoned => Some("MitigationAbandoned"),
        Phase::Refused => Some("MitigationRefused"),
        Phase::Failed => Some("MitigationFailed"),
        Phase::Pending | Phase::AwaitingApproval | Phase::Applying | Phase::Active | Phase::Releasing => None,
    }
}

/// A name that admission stamped on a mitigation.
fn signature(m: &Mitigation, key: &str) -> Option<String> {
    m.metadata.annotations.as_ref()?.get(key).filter(|v| !v.is_empty()).cloned()
}
