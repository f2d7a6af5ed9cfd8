//! The lane of one channel: objects wait in it, each once, and one message after the other is sent. A channel that fails
//! is left alone for a while, and is in nobody's way but its own.

use super::{Subject, done, lock, of_uid};
use crate::{
    config::{Channel, Outgoing},
    controller::Context,
    decide::outbox::{Attempt, GIVE_UP_AFTER, Outcome, message_id, next},
    notify::{Notice, deliver::Error},
};
use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

/// Longest pause of a channel that fails.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Attempts after which a message that the receiver does not take is given up.
const REJECTED: i32 = 3;

/// The objects that have something for one channel, each once.
#[derive(Default)]
pub(super) struct Lane {
    waiting: Mutex<(VecDeque<Subject>, HashSet<Subject>)>,
    changed: Notify,
    /// Whether the channel took nothing of what it was given last.
    fails: AtomicBool,
}

impl Lane {
    pub(super) fn add(&self, subject: Subject) {
        let mut waiting = lock(&self.waiting);
        if waiting.1.insert(subject.clone()) {
            waiting.0.push_back(subject);
            self.changed.notify_one();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        lock(&self.waiting).0.len()
    }

    /// Whether the channel took nothing of what it was given last.
    pub(super) fn fails(&self) -> bool {
        self.fails.load(Ordering::Relaxed)
    }

    /// Waits until there is something. It stays where it is, and is counted, until it is its turn.
    async fn filled(&self) {
        loop {
            let changed = self.changed.notified();
            if !lock(&self.waiting).0.is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn next(&self) -> Option<Subject> {
        let mut waiting = lock(&self.waiting);
        let subject = waiting.0.pop_front()?;
        waiting.1.remove(&subject);
        Some(subject)
    }
}

/// Works through the lane of one channel, until the process ends.
pub(super) async fn run(ctx: Arc<Context>, name: String, lane: Arc<Lane>) {
    let mut failures: u32 = 0;
    let mut not_before = Instant::now();
    loop {
        lane.filled().await;
        sleep_until(not_before).await;
        while !ctx.notifier.leads() {
            sleep(Duration::from_secs(1)).await;
        }
        let Some(subject) = lane.next() else { continue };
        let settings = ctx.settings();
        let Some(channel) = settings.channels.iter().find(|c| c.name == name) else { continue };
        let visit = one(&ctx, channel, &subject, &settings.outgoing);
        let visit = AssertUnwindSafe(visit).catch_unwind().await.unwrap_or_else(|_| {
            error!(channel = name, ?subject, "internal error while a message was delivered");
            Visit::Failed(None)
        });
        let gap = Duration::from_secs(60) / u32::from(channel.per_minute.max(1));
        match visit {
            Visit::Nothing => continue,
            Visit::Delivered => {
                failures = 0;
                not_before = Instant::now() + gap;
                // There may be more for it.
                lane.add(subject);
            }
            Visit::GivenUp => {
                failures = failures.saturating_add(1);
                not_before = Instant::now() + gap;
                lane.add(subject);
            }
            Visit::Failed(wait) => {
                failures = failures.saturating_add(1);
                not_before = Instant::now() + gap.max(wait.unwrap_or_else(|| pause(failures)));
                lane.add(subject);
            }
        }
        lane.fails.store(failures > 0, Ordering::Relaxed);
    }
}

/// How long a channel that fails is left alone: from a second on, doubled each time, with jitter.
fn pause(failures: u32) -> Duration {
    let full = Duration::from_secs(1 << failures.saturating_sub(1).min(9)).min(MAX_PAUSE);
    full.mul_f64(0.75 + fastrand::f64() / 4.0)
}

/// What came of one look at an object.
enum Visit {
    /// There was nothing for this channel.
    Nothing,
    /// One message was delivered.
    Delivered,
    /// One message was given up, which is no sign that the channel works.
    GivenUp,
    /// One message was not delivered; how long the receiver asked to be left alone.
    Failed(Option<Duration>),
}

async fn one(ctx: &Arc<Context>, channel: &Channel, subject: &Subject, outgoing: &Outgoing) -> Visit {
    // In this order: what is dropped between the two is on record in the copy that is read afterwards. The other way
    // round, a message that was just recorded would be known to neither, and go out again.
    let known = ctx.notifier.known(subject);
    let Some((facts, outboxes)) = ctx.mail_of(subject) else { return Visit::Nothing };
    let known = of_uid(known, &facts.uid);
    let audience = channel.audience;
    let done = done(&known, audience, &channel.name);
    let outbox = outboxes.iter().find(|(a, _)| *a == audience).map(|(_, outbox)| outbox);
    let Some((delivery, message)) = outbox.and_then(|o| next(o, &channel.name, done)) else {
        return Visit::Nothing;
    };
    let ours = || known.iter().filter(|(a, o)| *a == audience && o.channel == channel.name).map(|(_, o)| o);
    let before = ours().find(|o| o.number == message.number).map_or(delivery.attempts, |o| o.attempts);
    let attempts = before.saturating_add(1);
    let remote_id = ours().rev().find_map(|o| o.remote_id.as_deref()).or(delivery.remote_id.as_deref());
    let id = message_id(&facts.uid, audience, message.number);
    let notice = Notice { id: format!("{id}-{}", channel.name), audience, facts: &facts, message, remote_id };
    let answer = ctx.notifier.sender.deliver(channel, &notice, outgoing).await;
    let now = Timestamp::now();
    let (result, remote_id, visit) = match &answer {
        Ok(remote_id) => {
            info!(channel = channel.name, id = notice.id, attempts, "message delivered");
            (Attempt::Delivered, remote_id.clone(), Visit::Delivered)
        }
        Err(error) => {
            warn!(channel = channel.name, id = notice.id, attempts, %error, "message not delivered");
            let old = now.duration_since(message.time.0) > GIVE_UP_AFTER;
            let (result, visit) = judge(error, attempts, old);
            (result, None, visit)
        }
    };
    let word = match (&answer, &result) {
        (_, Attempt::GivenUp(_)) => "given_up",
        (Ok(_), _) => "delivered",
        (Err(error), _) => error.category(),
    };
    ctx.metrics.delivery(&channel.name, word);
    let outcome = Outcome {
        channel: channel.name.clone(),
        number: message.number,
        attempts,
        time: now,
        result,
        remote_id,
    };
    ctx.notifier.report(subject, &facts.uid, audience, outcome);
    ctx.wake(subject);
    visit
}

/// Whether a message is tried again.
fn judge(error: &Error, attempts: i32, old: bool) -> (Attempt, Visit) {
    let words = error.to_string();
    if old || error.is_about_the_message() && attempts >= REJECTED {
        // The next message may fare better.
        return (Attempt::GivenUp(words), Visit::GivenUp);
    }
    (Attempt::Failed(words), Visit::Failed(error.wait()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Key;

    #[test]
    fn a_channel_that_fails_is_left_alone_for_longer_each_time_and_never_for_more_than_five_minutes() {
        for failures in 1..100 {
            let pause = pause(failures);
            assert!(pause >= Duration::from_millis(750) && pause <= MAX_PAUSE, "{failures}: {pause:?}");
        }
        assert!(pause(1) <= Duration::from_secs(1) && pause(100) >= MAX_PAUSE.mul_f64(0.74));
    }

    #[test]
    fn what_a_receiver_does_not_take_is_given_up_and_what_it_cannot_take_is_tried_for_a_day() {
        let rejected = Error::Rejected(400, String::new());
        let broken = Error::Answered(500, String::new());
        let given_up =
            |error: &Error, attempts, old| matches!(judge(error, attempts, old).0, Attempt::GivenUp(_));
        assert!(!given_up(&rejected, 1, false) && given_up(&rejected, 3, false));
        assert!(!given_up(&broken, 1000, false) && given_up(&broken, 1, true));
        // Neither is a sign that the channel works.
        for (error, attempts, old) in [(&rejected, 3, false), (&broken, 1, true)] {
            assert!(matches!(judge(error, attempts, old).1, Visit::GivenUp));
        }
    }

    #[tokio::test]
    async fn an_object_waits_in_one_place_of_a_lane_and_lanes_are_in_order() {
        let lane = Lane::default();
        let subject = |n: &str| Subject::Incident(Key::new("shop", n));
        for name in ["a", "b", "a", "c", "b"] {
            lane.add(subject(name));
        }
        for name in ["a", "b", "c"] {
            lane.filled().await;
            assert_eq!(lane.next(), Some(subject(name)));
        }
        assert!(lane.next().is_none() && lane.filled().now_or_never().is_none());
    }
}
