//! What goes to channels: what is told as an Event is sent to the internal channels, too, as one message.

use super::{Observed, news};
use crate::{
    api::{Outbox, PostmortemStatus},
    config::ChannelAudience,
    decide::outbox::{channels, concern, queue, settle},
};
use k8s_openapi::jiff::Timestamp;

/// Records what became of messages and adds the one that is due.
pub(super) fn deliveries(seen: &Observed<'_>, status: &mut PostmortemStatus, now: Timestamp) {
    let metadata = &seen.postmortem.metadata;
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let incident = status.incident.as_ref();
    let (severity, is_drill) =
        (incident.and_then(|i| i.severity), incident.and_then(|i| i.drill) == Some(true));
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let audience = ChannelAudience::Internal;
    let mut outbox = status.communication.take().unwrap_or_default();
    let outcomes: Vec<_> = seen.outcomes.iter().map(|(_, outcome)| outcome.clone()).collect();
    settle(&mut outbox, &outcomes, audience, uid);
    // What is on its way stays there while nobody knows whom it concerns.
    if !seen.settings.lacks_channels() {
        let mut listening = channels(seen.settings, audience, namespace, severity, &outbox);
        listening.retain(|_| !is_drill);
        concern(&mut outbox, &listening, audience, uid);
    }
    let news = news(seen.postmortem.status.as_ref(), status);
    if let Some(first) = news.first() {
        let lines: Vec<_> = news.iter().map(|n| n.message.as_str()).collect();
        queue(&mut outbox, &first.reason, now, &lines.join("\n"));
    }
    status.communication = Some(outbox).filter(|o| *o != Outbox::default());
}
