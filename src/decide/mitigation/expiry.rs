//! Expiry: when a mitigation ends by itself, worked out anew from what is asked for now.

use super::{Decision, Record, Timestamp, clip, whole_seconds};
use crate::decide::conditions::find;

impl Decision<'_> {
    /// The time that was asked for may be another by now, and it is the present one that counts.
    pub(super) fn renew_expiry(&mut self) {
        let Some(applied) = self.plan.status.applied_time.as_ref().map(|t| t.0) else { return };
        let records = self.seen.objects.values().flatten();
        let records = records.filter_map(|object| Some(Record::find(object, self.uid())?.at));
        let since = match self.is_by_hand() {
            true => Some(applied),
            // Before the objects were read it is not known; then nothing is undone yet, either.
            false => records.max().map(|last| self.in_its_life(last)),
        };
        let Some(since) = since else { return };
        self.expires_from(since);
    }

    /// The end, from when the change was made: as asked for, or earlier where a policy says so.
    pub(super) fn expires_from(&mut self, since: Timestamp) {
        let asked = self.m.spec.template.expires_after.as_ref().and_then(|d| d.get());
        let expires = asked.and_then(|d| since.checked_add(d).ok()).map(whole_seconds);
        let status = &mut self.plan.status;
        status.expiry_time = expires.into_iter().chain(status.latest_end_time.clone()).min_by_key(|t| t.0);
    }

    /// A time that a record tells. Whoever may write to the object may have written another into it, and is not to end the
    /// mitigation by that: nothing was changed before it was asked for.
    pub(super) fn in_its_life(&self, time: Timestamp) -> Timestamp {
        self.m.metadata.creation_timestamp.as_ref().map_or(time, |created| time.max(created.0))
    }

    pub(super) fn expired(&self) -> bool {
        self.plan.status.expiry_time.as_ref().is_some_and(|t| t.0 <= self.now)
    }

    pub(super) fn expire(&mut self) {
        let Some(expiry) = self.plan.status.expiry_time.clone() else { return };
        if self.expired() {
            // The time may have become known only now, and be over already: nothing else would come to look.
            if let Some(end) = self.end() {
                return self.release(&end);
            }
            let over = self.plan.status.expired_time.get_or_insert(whole_seconds(self.now)).0;
            if let Some(ready) = find(&self.plan.status.conditions, "Ready").cloned() {
                let message = format!(
                    "{}; its time was over at {over}, and it stays as asked (onExpire: Notify)",
                    ready.message
                );
                self.conditions().set("Ready", ready.status, &ready.reason, clip(&message, 2048));
            }
        } else {
            // It may have been given more time after it was told.
            self.plan.status.expired_time = None;
            self.wake_at(expiry.0);
        }
    }
}
