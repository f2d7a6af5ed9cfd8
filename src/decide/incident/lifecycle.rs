//! The lifecycle: Detect → Triage → Mitigate → Resolve → Postmortem → Closed, or Cancelled.
//!
//! The stage is the first whose gate does not hold yet; a resolved incident is past all that came before.

use super::{
    Decision, Original,
    gates::{Rule, gate, is_mitigated},
    mitigations::declared_resolution,
    standing::Standing,
};
use crate::api::{
    ConditionStatus::{self, False, True},
    IMPACT_STAMP, Outcome, RESOLUTION_STAMP, Stage,
};
use crate::decide::conditions::{find, one_line, status as condition, whole_seconds};

impl Decision<'_> {
    /// Conditions, milestones and stage.
    pub(super) fn lifecycle(&mut self, mitigations: &Standing) {
        let before = self.status.stage;
        let cancelled = self.cancelled();
        let acknowledged = self.acknowledged();
        let triaged = self.triaged();
        let resolved = self.resolved(mitigations);
        let mitigated = self.mitigated(mitigations, resolved.0 == True);

        self.milestone_acknowledged(acknowledged.0);
        self.milestone("Triaged", triaged.0, "severity and impact are stated");
        self.milestone_mitigated(mitigations, &mitigated, resolved.0 == True);
        self.milestone_resolved(&resolved);
        let learned = self.learned(resolved.0 == True);

        for (type_, rule) in [
            ("Acknowledged", &acknowledged),
            ("Triaged", &triaged),
            ("Mitigated", &mitigated),
            ("Resolved", &resolved),
            ("PostmortemComplete", &learned),
        ] {
            let (status, reason, message) = rule.clone();
            self.conditions().set(type_, status, reason, message);
        }
        let stage = match cancelled {
            true => Stage::Cancelled,
            false if resolved.0 == True && learned.0 == True => Stage::Closed,
            false if resolved.0 == True => Stage::Postmortem,
            false if acknowledged.0 != True => Stage::Detect,
            false if triaged.0 != True => Stage::Triage,
            false if mitigated.0 != True => Stage::Mitigate,
            false => Stage::Resolve,
        };
        self.status.stage = Some(stage);
        self.status.commander = self.leader();
        self.enter(before, stage, mitigations);
        self.settled(mitigations);
    }

    /// A false alarm is over at once. A duplicate is over when its original is there to go on with: in a circle, or of
    /// nothing, everything would be let go of and nobody would lead. Once cancelled it stays so.
    pub(super) fn cancelled(&self) -> bool {
        let was = self.seen.incident.status.as_ref().and_then(|s| s.stage) == Some(Stage::Cancelled);
        match self.seen.incident.spec.outcome.unwrap_or_default() {
            Outcome::Genuine => false,
            Outcome::FalseAlarm => true,
            Outcome::Duplicate => was || self.seen.original == Some(Original::Found),
        }
    }

    /// Why it is cancelled, in words.
    pub(super) fn why_cancelled(&self) -> String {
        let spec = &self.seen.incident.spec;
        match spec.outcome.unwrap_or_default() {
            Outcome::Duplicate => {
                let other = spec.duplicate_of.as_ref().map_or("another", |r| &r.name);
                format!("it is a duplicate of {other}")
            }
            Outcome::FalseAlarm | Outcome::Genuine => "it was a false alarm".to_owned(),
        }
    }

    fn enter(&mut self, before: Option<Stage>, stage: Stage, mitigations: &Standing) {
        let closed = matches!(stage, Stage::Closed | Stage::Cancelled);
        if closed {
            self.status.milestones.closed_time.get_or_insert(whole_seconds(self.now));
        } else {
            self.status.milestones.closed_time = None;
        }
        if before == Some(stage) {
            return;
        }
        let author = self.actor_of(RESOLUTION_STAMP);
        if before == Some(Stage::Cancelled) {
            self.tell(self.now, "Reopened", author.as_deref(), "reopened: it is not cancelled any more");
        }
        let is_told = self.added.iter().any(|r| r.reason == "Reopened");
        if let Some(before) = before.filter(|before| *before > stage && !is_told) {
            self.went_back(before, stage);
        }
        match stage {
            Stage::Cancelled => {
                let message = format!("incident cancelled: {}", self.why_cancelled());
                self.tell(self.now, "Cancelled", author.as_deref(), &message);
            }
            Stage::Closed => {
                let left = match mitigations.active.is_empty() {
                    true => ": nothing is left to do".to_owned(),
                    false => self.stays(mitigations),
                };
                self.tell(self.now, "Closed", None, &format!("incident closed{left}"));
            }
            _ => {}
        }
    }

    /// A fact that the stage had been left by does not hold any more.
    fn went_back(&mut self, before: Stage, stage: Stage) {
        let gate = gate(stage).and_then(|gate| find(&self.status.conditions, gate));
        let why = gate.map(|c| format!(": {}", c.message)).unwrap_or_default();
        // What else takes a stage back has an entry with its author.
        let author = match stage {
            Stage::Triage if self.status.severity.is_some() => self.actor_of(IMPACT_STAMP),
            _ => None,
        };
        self.tell(
            self.now,
            "WentBack",
            author.as_deref(),
            &format!("stage is {stage} again (was {before}){why}"),
        );
    }

    /// What stays in force although the incident is resolved, and why.
    pub(super) fn stays(&self, m: &Standing) -> String {
        let waivers = self.seen.incident.spec.resolution.iter().flat_map(|r| &r.waivers);
        let waived = m.active.iter().map(|(name, entry)| {
            let shown = entry.as_ref().unwrap_or(name);
            let mut waivers = waivers.clone().filter(|w| w.mitigation == *name || w.mitigation == *shown);
            let why = waivers.next().map(|w| format!(" ({})", one_line(&w.reason, 256)));
            format!("{shown}{}", why.unwrap_or_default())
        });
        let all: Vec<_> = waived.collect();
        if all.is_empty() { String::new() } else { format!("; stays in force: {}", all.join(", ")) }
    }

    fn milestone_acknowledged(&mut self, status: ConditionStatus) {
        if status != True || self.status.milestones.acknowledged_time.is_some() {
            return;
        }
        let Some((who, Some(time))) = self.commander().map(|(who, time)| (who.to_owned(), time)) else {
            return;
        };
        self.status.milestones.acknowledged_time = Some(time.clone());
        self.tell(time.0, "Acknowledged", Some(&who), &format!("{} has command", one_line(&who, 253)));
    }

    fn milestone(&mut self, reason: &str, status: ConditionStatus, message: &str) {
        if status == True && self.status.milestones.triaged_time.is_none() {
            let since = self.since();
            self.status.milestones.triaged_time = Some(whole_seconds(since));
            let author = self.triager();
            self.tell(since, reason, author.as_deref(), message);
        }
    }

    /// That it is resolved makes no mitigation of what was none; and what happens after the resolution is no part of
    /// how long the mitigation took.
    fn milestone_mitigated(&mut self, m: &Standing, rule: &Rule, resolved: bool) {
        let old = find(&self.status.conditions, "Mitigated");
        let was = old.is_some_and(|c| is_mitigated(c.status, &c.reason));
        let is_after = resolved && condition(&self.status.conditions, "Resolved") == True;
        if is_mitigated(rule.0, rule.1) && !is_after {
            // An effect that was known before is not what made the difference.
            let effect_is_news = self.added.iter().any(|r| r.reason == "MitigationEffective");
            let time = m.latest_effect.filter(|_| effect_is_news).unwrap_or(self.now);
            if self.status.milestones.mitigated_time.is_none() {
                self.status.milestones.mitigated_time = Some(whole_seconds(time));
                self.tell(time, "Mitigated", None, &format!("mitigated: {}", rule.2));
            } else if !was {
                self.tell(self.now, "Mitigated", None, &format!("mitigated again: {}", rule.2));
            }
        } else if rule.0 != True && was {
            // What to do about it is said by the condition, as long as it is to be done.
            let why = if m.lacking.is_empty() { rule.2.clone() } else { m.lacking.join("; ") };
            self.tell(self.now, "Reopened", None, &format!("no longer mitigated: {why}"));
        }
    }

    fn milestone_resolved(&mut self, rule: &Rule) {
        let was = condition(&self.status.conditions, "Resolved") == True;
        let author = self.actor_of(RESOLUTION_STAMP);
        if rule.0 == True && self.status.milestones.resolved_time.is_none() {
            self.status.milestones.resolved_time = Some(whole_seconds(self.now));
            self.tell(self.now, "Resolved", author.as_deref(), &format!("resolved: {}", rule.2));
        } else if rule.0 != True && was {
            // The time of resolution is that of the last one; the timeline keeps the others.
            self.status.milestones.resolved_time = None;
            let why = match declared_resolution(self.seen.incident) {
                Some(_) => rule.2.as_str(),
                None => "the resolution was taken back",
            };
            self.tell(self.now, "Reopened", author.as_deref(), &format!("reopened: {why}"));
        }
    }

    /// `Ready`: this generation is observed and every requested effect is in place. Not: the incident is over.
    fn settled(&mut self, m: &Standing) {
        let spec = &self.seen.incident.spec;
        let original = match &self.seen.original {
            Some(Original::Missing) => Some((
                "OriginalNotFound",
                format!(
                    "there is no incident {} in this namespace: correct spec.duplicateOf",
                    one_line(spec.duplicate_of.as_ref().map_or("", |r| &r.name), 253)
                ),
            )),
            Some(Original::Circle(by)) if by.len() < 2 => Some((
                "DuplicateCircle",
                "it is named as a duplicate of itself: correct spec.duplicateOf, or take it and spec.outcome out"
                    .to_owned(),
            )),
            Some(Original::Circle(by)) => Some((
                "DuplicateCircle",
                format!(
                    "each of {} is a duplicate of the next, and the last of the first: take spec.duplicateOf and \
                     spec.outcome out of the one that goes on",
                    one_line(&by.join(", "), 1024)
                ),
            )),
            Some(Original::Found) | None => None,
        };
        let mut c = self.conditions();
        if let Some((reason, message)) = original {
            c.set("Stalled", True, reason, message.clone());
            c.set("Ready", False, reason, message);
        } else if !m.failed.is_empty() {
            c.set("Stalled", True, "MitigationRefused", m.failed.join("; "));
            c.set("Ready", False, "MitigationRefused", m.failed.join("; "));
        } else if m.unsettled.is_empty() {
            c.set("Stalled", False, "Settled", "nothing is in the way");
            match m.ended.is_empty() {
                true => c.set("Ready", True, "Settled", "every requested effect is in place"),
                // It is not as requested, and nobody who waits for this would ever see more.
                false => {
                    let message = format!("{}; nothing further will be done", m.ended.join("; "));
                    c.set("Ready", True, "Ended", message);
                }
            }
        } else {
            c.set("Stalled", False, "Progressing", "nothing is in the way");
            c.set("Ready", False, "Progressing", m.unsettled.join("; "));
        }
    }
}
