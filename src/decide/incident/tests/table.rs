//! What must be true whenever nothing is left to do, told without looking at what the rules wrote.

use super::{IncidentStatus, properties::Life, world::difference};
use crate::api::{
    ConditionStatus::True, CriterionState, ENTRY_LABEL, MitigationPhase as Phase, Outcome, ReleaseOn,
    Severity, Stage,
};
use crate::decide::conditions::status as condition;
use std::collections::{BTreeMap, BTreeSet};

impl Life {
    /// The table: what is true now, told from what people and controllers stated.
    fn table(&self) -> (Stage, [bool; 5]) {
        let spec = &self.w.incident.spec;
        let cancelled = spec.outcome == Some(Outcome::FalseAlarm);
        let declared = spec.resolution.as_ref().filter(|r| !r.summary.is_empty());
        let done = spec.exit_criteria.iter().all(|c| c.state == CriterionState::Done);
        let (mut lacking, mut working, mut unwaived) = (0, 0, 0);
        let mut there = Vec::new();
        for m in &self.w.mitigations {
            let name = m.metadata.name.clone().unwrap();
            let entry = m.metadata.labels.as_ref().and_then(|l| l.get(ENTRY_LABEL));
            let status = m.status.clone().unwrap_or_default();
            let phase = status.phase.unwrap_or_default();
            let asked_to_end = m.metadata.deletion_timestamp.is_some()
                || cancelled
                || declared.is_some() && done && m.spec.template.release_on == Some(ReleaseOn::Resolve)
                || entry.is_some_and(|entry| !spec.mitigations.iter().any(|e| e.name == *entry));
            let worked = status.effective_time.is_some() && phase != Phase::Failed;
            let works = phase == Phase::Active && condition(&status.conditions, "Effective") == True;
            // Its entry was put back: another one is made when it is gone.
            let put_back = self.known.taken_out.contains(m.metadata.uid.as_ref().unwrap())
                && !cancelled
                && entry.is_some_and(|entry| spec.mitigations.iter().any(|e| e.name == *entry));
            let worked = worked && !put_back;
            match phase {
                _ if asked_to_end => working += usize::from(worked),
                Phase::Releasing | Phase::Released | Phase::Kept => working += usize::from(worked),
                _ if works => working += 1,
                _ => lacking += 1,
            }
            let over = declared.is_some() && done && m.spec.template.release_on == Some(ReleaseOn::Resolve);
            lacking += usize::from(put_back && !over);
            let waived = declared.is_some_and(|r| {
                r.waivers.iter().any(|w| w.mitigation == name || Some(&w.mitigation) == entry)
            });
            unwaived += usize::from((put_back || !phase.is_ended()) && !waived);
            there.push(name);
        }
        working +=
            self.known.worked.iter().filter(|(name, worked)| **worked && !there.contains(*name)).count();

        let acknowledged = self.known.leader.is_some();
        let triaged = spec.severity.is_some() && spec.impact.is_some();
        let resolved = declared.is_some() && done && unwaived == 0;
        let works = lacking == 0 && (working > 0 || spec.no_mitigation_needed.is_some());
        let mitigated = resolved || works;
        let required = matches!(spec.severity, Some(Severity::SEV1 | Severity::SEV2)) && !cancelled;
        let reviewed = self
            .w
            .postmortem
            .as_ref()
            .and_then(|p| p.status.as_ref())
            .is_some_and(|s| condition(&s.conditions, "Reviewed") == True);
        let stage = match (cancelled, resolved, acknowledged, triaged, mitigated) {
            (true, ..) => Stage::Cancelled,
            (_, true, ..) if required && !reviewed => Stage::Postmortem,
            (_, true, ..) => Stage::Closed,
            (_, _, false, ..) => Stage::Detect,
            (_, _, _, false, _) => Stage::Triage,
            (_, _, _, _, false) => Stage::Mitigate,
            _ => Stage::Resolve,
        };
        (stage, [acknowledged, triaged, mitigated, resolved, works])
    }

    /// What must be true whenever nothing is left to do.
    pub fn settled(&mut self) {
        for m in &self.w.mitigations {
            // A step that was said to be done, and to have failed in the end, has not worked.
            let worked = m
                .status
                .as_ref()
                .is_some_and(|s| s.effective_time.is_some() && s.phase != Some(Phase::Failed));
            self.known.worked.insert(m.metadata.name.clone().unwrap(), worked);
        }
        let now = self.table();
        assert_eq!(self.w.stage(), now.0, "the stage, by the table");
        for (type_, holds) in ["Acknowledged", "Triaged", "Mitigated", "Resolved"].iter().zip(now.1) {
            assert_eq!(self.w.condition(type_).status == True, holds, "{type_}, by the table");
        }
        self.tell_transitions(now);
        self.conditions();
        self.milestones();
        self.record();
        let plan = self.w.plan();
        assert!(Some(&plan.status) == self.w.incident.status.as_ref(), "deciding again changes nothing");
        assert!(plan.effects.is_empty() && plan.added.is_empty() && plan.archive.is_none());
        // Until something is due nothing changes either, and nothing wakes.
        let now = self.w.now;
        if let Some(wake) = plan.wake {
            assert!(wake > now, "it wakes for something that lies ahead: {wake}");
            self.w.now = (wake - std::time::Duration::from_secs(1)).max(now);
        } else {
            self.w.wait(90_000);
        }
        // But for the number of missed deadlines, of which the later ones are written down when something happens.
        let quiet = |status: &IncidentStatus| {
            let mut status = status.clone();
            for clock in &mut status.communication {
                clock.overdue_count = None;
                clock.missed_time = None;
                clock.missed_in_a_row = None;
            }
            status
        };
        let later = self.w.plan().status;
        let changed = difference(&quiet(self.w.status()), &quiet(&later));
        assert!(changed.is_empty(), "time alone changes nothing: {changed}");
        self.w.now = now;
        self.w.wait(3600).run();
    }

    fn tell_transitions(&mut self, now: (Stage, [bool; 5])) {
        let (stage, [_, _, _, resolved, worked]) = self.known.before.unwrap_or((Stage::Detect, [false; 5]));
        let [_, _, mitigated, is_resolved, works] = now.1;
        // That it is resolved makes nobody's mitigation of it, and what comes after is no part of it.
        let is_first = self.known.milestones.mitigated_time.is_none();
        if works && (is_first || !worked) && !(resolved && is_resolved) {
            self.tell("Mitigated");
        } else if worked && !mitigated {
            self.tell("Reopened");
        }
        for (reason, before, after) in [
            ("Resolved", resolved, is_resolved),
            ("Cancelled", stage == Stage::Cancelled, now.0 == Stage::Cancelled),
        ] {
            match (before, after) {
                (false, true) => self.tell(reason),
                (true, false) => self.tell("Reopened"),
                _ => {}
            }
        }
        if stage != Stage::Closed && now.0 == Stage::Closed {
            self.tell("Closed");
        }
        self.known.before = Some(now);
    }

    fn conditions(&self) {
        let conditions = &self.w.status().conditions;
        let types: BTreeSet<_> = conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!((types.len(), conditions.len()), (17, 17));
        let generation = self.w.incident.metadata.generation;
        assert!(conditions.iter().all(|c| c.observed_generation == generation && !c.message.is_empty()));
        assert_eq!(self.w.status().observed_generation, generation);
    }

    fn milestones(&mut self) {
        let (old, new) = (self.known.milestones.clone(), self.w.status().milestones.clone());
        for (old, new) in [
            (&old.acknowledged_time, &new.acknowledged_time),
            (&old.triaged_time, &new.triaged_time),
            (&old.mitigated_time, &new.mitigated_time),
        ] {
            assert!(old.is_none() || old == new, "a milestone is kept when it was first reached");
        }
        for reached in [&new.acknowledged_time, &new.triaged_time, &new.mitigated_time, &new.resolved_time] {
            let Some(reached) = reached else { continue };
            assert!(reached.0 >= new.detected_time.as_ref().unwrap().0 && reached.0 <= self.w.now);
        }
        let (_, [acknowledged, triaged, _, resolved, works]) = self.known.before.unwrap();
        assert!(!acknowledged || new.acknowledged_time.is_some());
        assert!(!triaged || new.triaged_time.is_some());
        assert!(!works || resolved || new.mitigated_time.is_some());
        assert_eq!(resolved, new.resolved_time.is_some());
        if let Some(time) = &new.resolved_time {
            assert!(new.mitigated_time.as_ref().is_none_or(|mitigated| mitigated.0 <= time.0));
            assert!(old.resolved_time.as_ref().is_none_or(|old| old.0 <= time.0));
        }
        assert_eq!(matches!(self.w.stage(), Stage::Closed | Stage::Cancelled), new.closed_time.is_some());
        self.known.milestones = new;
    }

    fn record(&self) {
        assert!(self.w.status().timeline.is_sorted_by_key(|r| r.time.0));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in self.w.record() {
            *counts.entry(&record.reason).or_default() += 1;
        }
        let count = |reason: &str| counts.get(reason).copied().unwrap_or_default();
        for (reason, times) in &self.known.told {
            assert_eq!(count(reason), *times, "{reason}");
        }
        for reason in ["Reopened", "Closed", "Cancelled", "Resolved", "Mitigated"] {
            assert_eq!(count(reason), self.known.told.get(reason).copied().unwrap_or_default(), "{reason}");
        }
        assert_eq!(count("Declared"), 1);
        assert!(count("Acknowledged") <= 1 && count("Triaged") <= 1);
        assert_eq!(count("MitigationApplied"), self.known.applied.len());
        let released = count("MitigationReleased") + count("MitigationWithdrawn");
        let ended = self.known.ended.values().filter(|p| **p == Phase::Released).count();
        assert_eq!(released, ended, "released, or withdrawn before anything was changed");
        for (reason, phase) in [
            ("MitigationKept", Phase::Kept),
            ("MitigationSuperseded", Phase::Superseded),
            ("MitigationAbandoned", Phase::Abandoned),
            ("MitigationRefused", Phase::Refused),
            ("MitigationFailed", Phase::Failed),
        ] {
            let ended = self.known.ended.values().filter(|p| **p == phase).count();
            assert_eq!(count(reason), ended, "{reason}");
        }
        let uids: BTreeSet<_> = self.w.record().iter().filter_map(|r| r.entry_uid.clone()).collect();
        let folded = self.w.record().iter().filter(|r| r.entry_uid.is_some()).count();
        assert_eq!((folded, uids.len(), self.w.entries.len()), (self.known.notes, self.known.notes, 0));
    }
}
