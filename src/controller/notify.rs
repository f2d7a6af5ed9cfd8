//! Delivers messages to channels, beside everything else: a channel has a lane of its own, in which objects wait that
//! have something for it. What became of an attempt is reported by waking the object, whose next status records it.
//!
//! The status is what counts: it says what is to be delivered, and a process that comes later goes on from there. A
//! message whose delivery was not recorded goes out again, under the same id.

mod lane;

use self::lane::Lane;
use super::{Context, Key};
use crate::{
    api::{ClockName, Outbox, Visibility},
    config::{Channel, ChannelAudience},
    decide::outbox::{Attempt, Outcome, next},
    lease::Claim,
    notify::{Facts, deliver::Sender},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
            Some(lane) => (&*channel.name, lane.len(), lane.fails()),
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
            tokio::spawn(lane::run(self.clone(), channel.to_owned(), lane.clone()));
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
