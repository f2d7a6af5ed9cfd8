//! Approval: where a policy asks for it, somebody else than who asked approves exactly this before anything is changed.

use super::{Decision, Effect, Phase, Refusal, clip, whole_seconds};
use crate::{
    api::{
        ApprovalStatus,
        ConditionStatus::{False, True},
        REQUESTER_ANNOTATION, TimelineEntry,
    },
    decide::{
        access::{self, Need, Question, Subject},
        policy::approval::{self, Word},
    },
};
use std::sync::Arc;

/// Most entries whose judgement is remembered.
const MAX_JUDGED: usize = 16;

impl Decision<'_> {
    /// Whether it is approved, where somebody must.
    pub(super) fn approved(&mut self, target_uid: Option<&str>) -> bool {
        let action = self.m.spec.template.action.name();
        let Some(need) = approval::need(self.seen.policies.policies(), self.seen.incident.severity, action)
        else {
            (self.plan.status.approval_digest, self.plan.status.void_approval) = (None, None);
            self.conditions().set("Approved", True, "NotRequired", "no approval is needed");
            return true;
        };
        let digest = approval::digest(self.m, target_uid);
        self.plan.status.approval_digest = Some(digest.clone());
        let words: Vec<(&Arc<TimelineEntry>, Word)> = self
            .seen
            .approvals
            .iter()
            .map(|entry| {
                let signed = self.seen.signed;
                (entry, approval::judge(entry, self.m, &digest, need.valid_for, signed, self.now))
            })
            .collect();
        // A rejection counts also after an approval, as long as nothing is changed.
        if let Some((entry, Word::Rejects { by, why })) =
            words.iter().find(|(_, word)| matches!(word, Word::Rejects { .. }))
        {
            self.note_judged(entry);
            let message = format!("{by} rejected it: {}; nothing was changed", clip(why, 512));
            self.conditions().set("Approved", False, "Rejected", message.clone());
            self.refuse(&Refusal::new("Rejected", message));
            return false;
        }
        let given = self.plan.status.approval.as_ref();
        if given.is_some_and(|given| {
            given.digest == digest && given.valid_until.as_ref().is_some_and(|until| until.0 > self.now)
        }) {
            return true;
        }
        self.plan.status.approval = None;
        let mut void = Vec::new();
        for (entry, word) in words {
            let (by, at, until) = match word {
                Word::Approves { by, at, until } => (by, at, until),
                Word::Void(why) => {
                    self.note_judged(entry);
                    void.push(why);
                    continue;
                }
                Word::Rejects { .. } => continue,
            };
            let Some(may) = self.approver_may(entry) else { return false };
            self.note_judged(entry);
            if let Err(why) = may {
                void.push(why);
                continue;
            }
            let message = format!("{by} approved it at {at}; good until {until}");
            self.conditions().set("Approved", True, "Approved", message);
            self.plan.status.approval = Some(ApprovalStatus {
                by: clip(&by, 253),
                time: Some(whole_seconds(at)),
                valid_until: Some(whole_seconds(until)),
                digest,
                entry_uid: entry.metadata.uid.clone(),
            });
            self.plan.status.void_approval = None;
            // On record before anything is done by it.
            self.plan.effect = Some(Effect::Announce);
            return false;
        }
        self.await_approval(&need, &digest, &void);
        false
    }

    fn await_approval(&mut self, need: &approval::Need, digest: &str, void: &[String]) {
        let name = self.m.metadata.name.as_deref().unwrap_or_default();
        let mut message = format!(
            "MitigationPolicy {} asks for the approval of somebody else than who asked: a TimelineEntry of type \
             Approval with mitigationRef.name {name} and digest {digest}",
            need.policies.join(", ")
        );
        if !self.seen.signed {
            message.push_str("; this API server does not sign requests, so nobody can approve");
        }
        // The entry itself is folded into the timeline and gone before anybody comes to look.
        if let Some(why) = void.last() {
            self.plan.status.void_approval = Some(clip(why, 1024));
        }
        if let Some(why) = &self.plan.status.void_approval {
            message = format!("{message}; the last one counted for nothing: {why}");
        }
        if let Some(who) = &self.plan.status.record_changed_by {
            message = format!(
                "{message}; {who} noted a change on the target that was never made: the note was taken off"
            );
        }
        self.wait("AwaitingApproval", message.clone());
        self.plan.status.phase = Some(Phase::AwaitingApproval);
        self.conditions().set("Approved", False, "AwaitingApproval", message);
    }

    /// Whether the author of an approval still holds the verb, and is somebody else than who asked also in the sense that
    /// neither can act in the name of the other; else why not. `None`: that is asked first.
    fn approver_may(&mut self, entry: &TimelineEntry) -> Option<Result<(), String>> {
        let annotations = self.m.metadata.annotations.as_ref();
        let Some(subject) = Subject::stamped(entry.metadata.annotations.as_ref()).map(Arc::new) else {
            return Some(Err("nobody is on record who approved it".to_owned()));
        };
        let by = subject.user.clone();
        let name = self.m.metadata.name.clone().unwrap_or_default();
        let approves = Question { subject: subject.clone(), need: Need { right: access::APPROVE, name } };
        let namespace = self.m.metadata.namespace.as_deref().unwrap_or_default();
        let requester = annotations.and_then(|a| a.get(REQUESTER_ANNOTATION)).filter(|name| !name.is_empty());
        let requester = requester.map(|user| Subject { user: user.clone(), groups: Vec::new() });
        let account = self.m.spec.template.service_account_name.as_ref();
        let account = account.map(|account| Subject::account(namespace, account));
        let mut asked: Vec<Arc<Subject>> = Vec::new();
        for one in Subject::stamped(annotations).into_iter().chain(requester).chain(account).map(Arc::new) {
            if !asked.iter().any(|known| known.user == one.user) {
                asked.push(one);
            }
        }
        let either = |one: &Arc<Subject>| {
            let through = access::acts_as(&subject, namespace, &one.user).into_iter();
            let through = through.map(|q| (q, format!("{by} may act as {}, who asked for it", one.user)));
            let back = access::acts_as(one, namespace, &by).into_iter();
            let back = back.map(|q| (q, format!("{}, who asked for it, may act as {by}", one.user)));
            through.chain(back).collect::<Vec<_>>()
        };
        let same: Vec<(Question, String)> = asked.iter().flat_map(either).collect();
        let all = std::iter::once(&approves).chain(same.iter().map(|(question, _)| question));
        let open: Vec<_> = all.filter(|q| !self.seen.answers.contains_key(*q)).cloned().collect();
        if !open.is_empty() {
            self.plan.effect = Some(Effect::Ask(open));
            return None;
        }
        let yes = |question: &Question| self.seen.answers.get(question) == Some(&true);
        if !yes(&approves) {
            return Some(Err(format!("{by} may not approve it any more")));
        }
        let one = same.into_iter().find(|(question, _)| yes(question));
        Some(one.map_or(Ok(()), |(_, why)| Err(format!("{why}: somebody else must approve it"))))
    }

    fn note_judged(&mut self, entry: &TimelineEntry) {
        let Some(uid) = entry.metadata.uid.clone() else { return };
        let judged = &mut self.plan.status.judged_entries;
        if !judged.contains(&uid) {
            judged.push(uid);
            let excess = judged.len().saturating_sub(MAX_JUDGED);
            judged.drain(..excess);
        }
    }
}
