//! Delivers messages to channels, beside everything else: a channel has a lane of its own, in which objects wait that
//! have something for it. What became of an attempt is reported by waking the object, whose next status records it.
//!
//! The status is what counts: it says what is to be delivered, and a process that comes later goes on from there. A
//! message whose delivery was not recorded goes out again, under the same id.

use super::{Context, Key};
use crate::{
    api::{ClockName, Outbox, Visibility},
    config::{Channel, ChannelAudience},
    decide::outbox::{Attempt, GIVE_UP_AFTER, Outcome, next},
    lease::Claim,
    notify::{
        Facts, Notice,
        deliver::{Error, Sender},
    },
};
use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An incident.
    Incident(Key),
    /// A postmortem.
    Postmortem(Key),
}

/// What is not on record yet of one object: its uid, and what became of messages.
type Unrecorded = (String, Vec<(ChannelAudience, Outcome)>);

/// Everything that is on its way.
pub struct Notifier {
    sender: Sender,
    outcomes: Mutex<HashMap<Subject, Unrecorded>>,
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
    /// What is sent is sent while this process leads, and not before.
    claim: Mutex<Option<Claim>>,
}

/// The objects that have something for one channel, each once.
#[derive(Default)]
struct Lane {
    waiting: Mutex<(VecDeque<Subject>, HashSet<Subject>)>,
    changed: Notify,
    /// Whether the channel took nothing of what it was given last.
    fails: AtomicBool,
}

impl Lane {
    fn add(&self, subject: Subject) {
        let mut waiting = lock(&self.waiting);
        if waiting.1.insert(subject.clone()) {
            waiting.0.push_back(subject);
            self.changed.notify_one();
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is consistent after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Notifier {
    /// Nothing is on its way. The API server is nobody's receiver.
    pub fn new(api_server: Option<(String, u16)>) -> Notifier {
        let sender = Sender { api_server };
        Notifier { sender, outcomes: Mutex::default(), lanes: Mutex::default(), claim: Mutex::default() }
    }

    /// From now on messages are sent, while the claim holds.
    pub fn lead(&self, claim: Claim) {
        *lock(&self.claim) = Some(claim);
    }

    fn leads(&self) -> bool {
        lock(&self.claim).as_ref().is_some_and(Claim::holds)
    }

    /// What became of the messages about an object, as far as that is not on record.
    pub fn outcomes(&self, subject: &Subject, uid: Option<&String>) -> Vec<(ChannelAudience, Outcome)> {
        uid.map(|uid| of_uid(self.known(subject), uid)).unwrap_or_default()
    }

    fn known(&self, subject: &Subject) -> Option<Unrecorded> {
        lock(&self.outcomes).get(subject).cloned()
    }

    /// The object is gone.
    pub fn forget(&self, subject: &Subject) {
        lock(&self.outcomes).remove(subject);
    }

    /// How many objects wait for each channel, and whether it fails. Who does not lead sends nothing and knows nothing.
    pub fn channels<'a>(&self, configured: &'a [Channel]) -> Vec<(&'a str, usize, bool)> {
        if !self.leads() {
            return Vec::new();
        }
        let lanes = lock(&self.lanes);
        let of = |channel: &'a Channel| match lanes.get(&channel.name) {
            Some(lane) => (&*channel.name, lock(&lane.waiting).0.len(), lane.fails.load(Ordering::Relaxed)),
            None => (&*channel.name, 0, false),
        };
        configured.iter().map(of).collect()
    }

    fn report(&self, subject: &Subject, uid: &str, audience: ChannelAudience, outcome: Outcome) {
        let mut all = lock(&self.outcomes);
        let of = all.entry(subject.clone()).or_insert_with(|| (uid.to_owned(), Vec::new()));
        if of.0 != uid {
            *of = (uid.to_owned(), Vec::new());
        }
        let same =
            |(_, o): &(ChannelAudience, Outcome)| o.channel == outcome.channel && o.number == outcome.number;
        of.1.retain(|o| !same(o));
        of.1.push((audience, outcome));
    }

    fn drop_recorded(&self, subject: &Subject, uid: &str, outboxes: &[(ChannelAudience, &Outbox)]) {
        let mut all = lock(&self.outcomes);
        let Some((whose, outcomes)) = all.get_mut(subject) else { return };
        let is_open = |(audience, o): &(ChannelAudience, Outcome)| {
            let outbox = outboxes.iter().find(|(a, _)| a == audience).map(|(_, outbox)| *outbox);
            let delivery = outbox.and_then(|b| b.deliveries.iter().find(|d| d.channel == o.channel));
            // One that failed also tells how often it was tried.
            delivery.is_some_and(|d| d.number < o.number)
        };
        outcomes.retain(is_open);
        if outcomes.is_empty() || whose != uid {
            all.remove(subject);
        }
    }
}

impl Context {
    /// Sees to it that what the status of an object says is to be delivered is on its way.
    pub(super) fn deliver(self: &Arc<Self>, subject: &Subject) {
        if self.settings().channels.is_empty() {
            // Nothing can be sent now; what waits stays on record.
            return;
        }
        let Some((facts, outboxes)) = self.mail_of(subject) else { return self.notifier.forget(subject) };
        let listed: Vec<_> = outboxes.iter().map(|(a, o)| (*a, o)).collect();
        self.notifier.drop_recorded(subject, &facts.uid, &listed);
        let known = self.notifier.outcomes(subject, Some(&facts.uid));
        for (audience, outbox) in &outboxes {
            for delivery in &outbox.deliveries {
                let done = done(&known, *audience, &delivery.channel);
                if next(outbox, &delivery.channel, done).is_some() {
                    self.lane(&delivery.channel).add(subject.clone());
                }
            }
        }
    }

    fn lane(self: &Arc<Self>, channel: &str) -> Arc<Lane> {
        let mut lanes = lock(&self.notifier.lanes);
        let lane = lanes.entry(channel.to_owned()).or_insert_with(|| {
            let lane = Arc::new(Lane::default());
            tokio::spawn(run(self.clone(), channel.to_owned(), lane.clone()));
            lane
        });
        lane.clone()
    }

    /// What is known of an object, and its messages by audience; `None` when it is gone.
    fn mail_of(&self, subject: &Subject) -> Option<(Facts, Vec<(ChannelAudience, Outbox)>)> {
        match subject {
            Subject::Incident(key) => {
                let incident = self.incidents.get(key)?;
                let is_drill = incident.spec.drill == Some(true);
                let visibility = incident.spec.communication.as_ref().and_then(|c| c.visibility);
                let audiences = incident.status.iter().flat_map(|s| &s.communication).filter_map(|c| {
                    let audience = match c.audience {
                        ClockName::Internal => ChannelAudience::Internal,
                        ClockName::Executives => ChannelAudience::Executives,
                        ClockName::Public if visibility == Some(Visibility::Public) => {
                            ChannelAudience::Public
                        }
                        ClockName::Public | ClockName::Document => return None,
                    };
                    Some((audience, c.outbox.clone()))
                });
                let mail = if is_drill { Vec::new() } else { audiences.collect() };
                Some((Facts::of_incident(&incident), mail))
            }
            Subject::Postmortem(key) => {
                let postmortem = self.postmortems.get(key)?;
                let outbox = postmortem.status.as_ref().and_then(|s| s.communication.clone());
                let mail = outbox.map(|outbox| (ChannelAudience::Internal, outbox));
                Some((Facts::of_postmortem(&postmortem), mail.into_iter().collect()))
            }
        }
    }

    fn wake(&self, subject: &Subject) {
        match subject {
            Subject::Incident(key) => self.queues.incidents.add(key.clone()),
            Subject::Postmortem(key) => self.queues.postmortems.add(key.clone()),
        }
    }
}

/// What is known of the object of this uid, and not of an earlier one of its name.
fn of_uid(known: Option<Unrecorded>, uid: &str) -> Vec<(ChannelAudience, Outcome)> {
    known.filter(|(whose, _)| whose == uid).map(|(_, outcomes)| outcomes).unwrap_or_default()
}

/// Number of the last message that a channel is done with, as far as this process knows.
fn done(known: &[(ChannelAudience, Outcome)], audience: ChannelAudience, channel: &str) -> i64 {
    let of = known.iter().filter(|(a, o)| *a == audience && o.channel == channel);
    let ended = of.filter(|(_, o)| !matches!(o.result, Attempt::Failed(_)));
    ended.map(|(_, o)| o.number).max().unwrap_or_default()
}

/// Works through the lane of one channel, until the process ends.
async fn run(ctx: Arc<Context>, name: String, lane: Arc<Lane>) {
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

async fn one(
    ctx: &Arc<Context>,
    channel: &Channel,
    subject: &Subject,
    outgoing: &crate::config::Outgoing,
) -> Visit {
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
    let id = crate::decide::outbox::message_id(&facts.uid, audience, message.number);
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
