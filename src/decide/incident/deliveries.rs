//! What goes to channels, and whether the configuration that says where is the one that is meant.
//!
//! Internal channels hear what the timeline tells of the course of the incident, as one message for all that was seen
//! at one time. Those for executives hear the updates for them, and public ones the text of public updates and nothing
//! else, while the incident's visibility is Public; of its end, whichever that is, they hear when they have heard of it
//! at all. A drill tells nobody.

use super::Decision;
use crate::api::{
    Audience, ClockName,
    ConditionStatus::{False, True},
    Outbox, Stage, TimelineRecord, Visibility,
};
use crate::config::ChannelAudience;
use crate::decide::{
    conditions::{clip, find, one_line},
    outbox::{Told, channels, concern, failing, queue, settle, withdraw},
};

/// What the operator records and does not send: what is on the way to something that is sent, and deliveries
/// themselves, which must not beget others.
const QUIET: [&str; 6] = [
    "UpdateSent",
    "DeliveryFailed",
    "MitigationApplied",
    "Closed",
    "NothingToAcknowledge",
    "ChecklistTicked",
];
/// What gives a message its reason when it tells of several things: the first of these, else the last thing told.
const WEIGHT: [&str; 6] =
    ["Declared", "Cancelled", "Resolved", "Reopened", "StatusUpdate", "SeverityChanged"];
/// What the public is told at the end.
pub(super) const PUBLIC_END: &str = "This incident has been resolved.";
/// Longest line of an internal message.
const MAX_LINE: usize = 1024;

impl Decision<'_> {
    /// Records what became of messages and adds those that are due.
    pub(super) fn deliveries(&mut self) {
        let added = self.added.clone();
        for audience in [ChannelAudience::Internal, ChannelAudience::Executives, ChannelAudience::Public] {
            let told = self.audience(audience, &added);
            for told in told {
                // A full timeline has better things to hold.
                if !self.is_crowded() {
                    self.tell_of_delivery(told);
                }
            }
        }
        self.notified();
    }

    fn audience(&mut self, audience: ChannelAudience, added: &[TimelineRecord]) -> Vec<Told> {
        let seen = self.seen;
        let incident = seen.incident;
        let namespace = incident.metadata.namespace.as_deref().unwrap_or_default();
        let uid = incident.metadata.uid.as_deref().unwrap_or_default();
        let is_drill = incident.spec.drill == Some(true);
        let clock = clock_name(audience);
        let none = Outbox::default();
        let known = self.clock(clock).map_or(&none, |c| &c.outbox);
        let is_listened_to = |outbox: &Outbox| {
            let all = channels(seen.settings, audience, namespace, incident.spec.severity, outbox);
            !is_drill && !all.is_empty()
        };
        if *known == none && !is_listened_to(known) {
            return Vec::new();
        }
        let is_public =
            incident.spec.communication.as_ref().and_then(|c| c.visibility) == Some(Visibility::Public);
        let was_over = incident.status.as_ref().is_some_and(|s| is_over(s.stage));
        let ends = !was_over && is_over(self.status.stage);
        let outbox = &mut self.clock_mut(clock).outbox;
        let told = settle(outbox, &seen.outcomes_of(audience), audience, uid);
        // What is on its way stays there while nobody knows whom it concerns.
        if !seen.settings.lacks_channels() {
            let mut listening = channels(seen.settings, audience, namespace, incident.spec.severity, outbox);
            listening.retain(|_| !is_drill);
            concern(outbox, &listening, audience, uid);
        }
        match audience {
            ChannelAudience::Internal => {
                if let Some((reason, time, text)) = internal(added) {
                    queue(outbox, reason, time, &text);
                }
            }
            ChannelAudience::Executives => {
                for update in added.iter().filter(|r| is_update(r, Audience::Executives)) {
                    queue(outbox, &update.reason, update.time.0, &line(update));
                }
                if let Some(end) = end(added).filter(|_| ends && outbox.message_count.is_some()) {
                    queue(outbox, &end.reason, end.time.0, &line(end));
                }
            }
            ChannelAudience::Public if !is_public => withdraw(outbox),
            ChannelAudience::Public => {
                for update in added.iter().filter(|r| is_update(r, Audience::Public)) {
                    queue(outbox, &update.reason, update.time.0, &update.message);
                }
                // For who waits outside, a false alarm has ended, too.
                if let Some(end) = end(added).filter(|_| ends && outbox.message_count.is_some()) {
                    queue(outbox, "Resolved", end.time.0, PUBLIC_END);
                }
            }
        }
        told
    }

    fn tell_of_delivery(&mut self, told: Told) {
        match told {
            Told::Delivered { channel, reason } if reason == "StatusUpdate" => {
                self.tell(self.now, "UpdateSent", None, &format!("status update sent to channel {channel}"));
            }
            Told::Delivered { .. } => {}
            Told::Failed { channel, error } => {
                self.tell(self.now, "DeliveryFailed", None, &format!("channel {channel}: {error}"));
            }
        }
    }

    /// Whether everybody can be told: a channel that fails is nobody's obstacle, and people have to know of it.
    fn notified(&mut self) {
        let failing: Vec<_> = self.status.communication.iter().flat_map(|c| failing(&c.outbox)).collect();
        let listens = self.status.communication.iter().any(|c| !c.outbox.deliveries.is_empty());
        let known = self.status.conditions.iter().any(|c| c.type_ == "Notified");
        let mut c = self.conditions();
        match failing.as_slice() {
            [] if listens => c.set("Notified", True, "Delivered", "no channel fails"),
            [] if known => c.set("Notified", True, "NoChannel", "there is no channel to tell"),
            [] => {}
            failing => {
                let message = format!(
                    "tell people in another way, the texts are in status.communication: {}",
                    failing.join("; ")
                );
                c.set("Notified", False, "ChannelFailing", message);
            }
        }
    }

    /// Whether the configuration is in force as it stands in its file. What is over keeps what it said last.
    pub(super) fn configured(&mut self) {
        let over = matches!(self.status.stage, Some(Stage::Closed | Stage::Cancelled));
        let known = find(&self.status.conditions, "Configured").cloned();
        if let Some(known) = known.filter(|_| over) {
            self.conditions().set("Configured", known.status, &known.reason, known.message);
            return;
        }
        let refused = self.seen.settings.refused.clone();
        let mut c = self.conditions();
        match refused {
            None => c.set("Configured", True, "InForce", "the operator's configuration is in force"),
            Some(words) => {
                c.set(
                    "Configured",
                    False,
                    "Refused",
                    format!("the operator's configuration is refused: {words}"),
                );
            }
        }
    }
}

fn clock_name(audience: ChannelAudience) -> ClockName {
    match audience {
        ChannelAudience::Internal => ClockName::Internal,
        ChannelAudience::Executives => ClockName::Executives,
        ChannelAudience::Public => ClockName::Public,
    }
}

/// Whether an incident in this stage is over for those who wait for it.
pub(super) fn is_over(stage: Option<Stage>) -> bool {
    matches!(stage, Some(Stage::Postmortem | Stage::Closed | Stage::Cancelled))
}

/// What was recorded of the end.
fn end(added: &[TimelineRecord]) -> Option<&TimelineRecord> {
    let ends = |r: &&TimelineRecord| matches!(r.reason.as_str(), "Resolved" | "Cancelled");
    added.iter().filter(ends).find(|r| r.entry_uid.is_none())
}

/// Reason, time and text of the message for internal channels; `None` when nothing is worth one.
fn internal(added: &[TimelineRecord]) -> Option<(&str, k8s_openapi::jiff::Timestamp, String)> {
    let worth: Vec<_> = added.iter().filter(|r| is_for_internal(r)).collect();
    let last = worth.last()?;
    let main = WEIGHT.iter().find_map(|w| worth.iter().find(|r| r.reason == *w)).unwrap_or(last);
    let lines: Vec<_> = worth.iter().map(|r| line(r)).collect();
    Some((&main.reason, last.time.0, lines.join("\n")))
}

fn is_for_internal(record: &TimelineRecord) -> bool {
    match record.entry_uid {
        None => !QUIET.contains(&record.reason.as_str()),
        Some(_) => is_update(record, Audience::Internal) || is_update(record, Audience::Public),
    }
}

fn is_update(record: &TimelineRecord, audience: Audience) -> bool {
    record.entry_uid.is_some() && record.reason == "StatusUpdate" && record.audience == Some(audience)
}

fn line(record: &TimelineRecord) -> String {
    let by = record.author.as_ref().map(|a| format!(" (by {})", one_line(a, 253))).unwrap_or_default();
    if record.entry_uid.is_some() {
        // What people write keeps its lines.
        return format!("{}{by}", clip(&record.message, 3000));
    }
    format!("{}{by}", one_line(&record.message, MAX_LINE))
}
