//! Verification: whether the change has the effect that it is for, within a deadline, and goes on having it.

use super::{
    DEFAULT_VERIFICATION, Decision, DynamicObject, Effect, Engine, ObjectId, Seen, Stop, Timestamp,
    whole_seconds,
};
use crate::api::ConditionStatus::{False, True, Unknown};
use crate::decide::conditions::find;
use crate::mutants::{Mutant, seeded};

/// How the message begins that an effect has ended.
const NO_LONGER: &str = "no longer in effect";

impl<'a> Decision<'a> {
    pub(super) fn verify(&mut self, engine: &'a dyn Engine, target: &DynamicObject, since: Timestamp) {
        let Some(id) = self.id.clone() else { return };
        let effect = match engine.effect(&self.scene(&id, target)) {
            Ok(effect) => effect,
            Err(Stop::Look(look)) => {
                self.plan.effect = Some(Effect::Look(look));
                return;
            }
            Err(Stop::Refused(refusal) | Stop::NotYet(refusal, _)) => {
                Seen::Unclear { reason: refusal.reason, message: refusal.message }
            }
        };
        let unseen = matches!(effect, Seen::Unseen { .. });
        let effect = match effect {
            Seen::Awaited { what, .. } | Seen::Unseen { what, .. } if seeded(Mutant::StatusBeforeEffect) => {
                Seen::Seen(what)
            }
            effect => effect,
        };
        match effect {
            Seen::Seen(message) => {
                self.plan.follow = engine.watches_over(&self.scene(&id, target));
                self.plan.status.effective_time.get_or_insert(whole_seconds(self.now));
                let mut c = self.conditions();
                c.set("Effective", True, "Verified", message.clone());
                c.set("Ready", True, "Effective", message);
            }
            Seen::Unclear { reason, message } => {
                self.plan.follow = engine.follows(&self.scene(&id, target));
                let mut c = self.conditions();
                c.set("Effective", Unknown, reason, message.clone());
                c.set("Ready", False, reason, message);
            }
            // What was looked at may be from before the deletion.
            Seen::Delete { id: gone, uid } if self.is_going(&gone, &uid) => {
                self.plan.follow = engine.follows(&self.scene(&id, target));
                let message = format!("waiting until {gone} is gone");
                let mut c = self.conditions();
                c.set("Effective", Unknown, "Verifying", message.clone());
                c.set("Ready", False, "Verifying", message);
            }
            Seen::Delete { id, uid } => {
                self.plan.effect = Some(Effect::Delete { object: id, uid, releasing: false });
            }
            Seen::Unseen { what, seen } | Seen::Awaited { what, seen } => {
                self.plan.follow = engine.follows(&self.scene(&id, target));
                let timeout = self.m.spec.template.verification.as_ref().and_then(|v| v.timeout.as_ref());
                let timeout = timeout.and_then(|t| t.get()).unwrap_or(DEFAULT_VERIFICATION);
                let deadline = since.checked_add(timeout).unwrap_or(Timestamp::MAX);
                let looks = self.last_change().and_then(|last| last.checked_add(timeout).ok());
                if let Some(until) = looks.filter(|until| unseen && self.now < *until && self.is_effective())
                {
                    // That somebody changed something else says nothing about the effect, until it is looked at.
                    self.wake_at(until);
                } else if self.now < deadline {
                    self.wake_at(deadline);
                    let mut c = self.conditions();
                    c.set("Effective", Unknown, "Verifying", what.clone());
                    c.set("Ready", False, "Verifying", what);
                } else {
                    let message = match self.was_in_effect() {
                        false => format!("no effect within {} s: {seen}", timeout.as_secs()),
                        true => format!("{NO_LONGER}: {seen}"),
                    };
                    let mut c = self.conditions();
                    c.set("Effective", False, "NotEffective", message.clone());
                    c.set("Ready", False, "NotEffective", message);
                }
            }
        }
    }

    fn is_effective(&self) -> bool {
        find(&self.plan.status.conditions, "Effective").is_some_and(|c| c.status == True)
    }

    /// When somebody last wrote to one of the objects, anything but status.
    fn last_change(&self) -> Option<Timestamp> {
        let objects = self.seen.objects.values().flatten();
        let writes = objects.flat_map(|object| object.metadata.managed_fields.iter().flatten());
        let writes = writes.filter(|entry| entry.subresource.as_deref() != Some("status"));
        writes.filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max()
    }

    /// Whether it had its effect before, as far as that could be seen.
    fn was_in_effect(&self) -> bool {
        let status = &self.plan.status;
        let told = find(&status.conditions, "Effective");
        // All was in place, and nothing in the cluster reports more.
        let unreported = told.is_some_and(|c| c.reason == "NotReported" || c.message.starts_with(NO_LONGER));
        status.effective_time.is_some() || unreported
    }

    /// Whether this visit has deleted it.
    fn is_going(&self, id: &ObjectId, uid: &str) -> bool {
        self.seen.objects.get(id).is_some_and(|object| {
            object.as_ref().is_none_or(|object| {
                object.metadata.uid.as_deref() != Some(uid) || object.metadata.deletion_timestamp.is_some()
            })
        })
    }
}
