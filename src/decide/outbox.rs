//! Messages and how far channels are with them.
//!
//! What is to be delivered stands in the status, so that no restart loses it: an audience's messages are numbered, and
//! each channel has the number of the last one that it is done with. A channel takes them one by one and in order; what
//! it has taken is told by an [`Outcome`] and recorded with the next write of the status. If the process ends between
//! the two, the message goes out again under the same id.

use super::conditions::{clip, one_line, whole_seconds};
use crate::{
    api::{Delivery, Message, Outbox, Severity},
    config::{Channel, ChannelAudience, Settings},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Most messages that wait; the schema's maximum.
const MAX_WAITING: usize = 16;
/// Longest text; the schema's maximum.
const MAX_TEXT: usize = 4096;
/// Longest time for which a message is tried.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The channel.
    pub channel: String,
    /// Number of the message.
    pub number: i64,
    /// How often it was tried since this process knows of it.
    pub attempts: i32,
    /// When.
    pub time: Timestamp,
    /// Delivered, to be tried again, or given up.
    pub result: Attempt,
    /// What the receiver calls the incident, where it has a name for it.
    pub remote_id: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has it.
    Delivered,
    /// It is tried again; why it failed.
    Failed(String),
    /// It is not tried again; why not.
    GivenUp(String),
}

/// What changed about a channel, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A message was delivered.
    Delivered {
        /// The channel.
        channel: String,
        /// What the message was about.
        reason: String,
    },
    /// A channel fails, or gave a message up.
    Failed {
        /// The channel.
        channel: String,
        /// Why.
        error: String,
    },
}

/// Attempts after which a failing channel is worth an entry in the record.
const WORTH_TELLING: i32 = 3;

/// The channels that messages about something of this namespace and severity go to. One that has heard of it hears of
/// it to the end, also when it is not bad enough any more: what was begun on a status page is to be ended there.
pub fn channels<'a>(
    settings: &'a Settings,
    audience: ChannelAudience,
    namespace: &str,
    severity: Option<Severity>,
    outbox: &Outbox,
) -> Vec<&'a Channel> {
    let has_heard =
        |c: &Channel| outbox.deliveries.iter().any(|d| d.channel == c.name && d.delivered_time.is_some());
    let concerns = |c: &&Channel| {
        c.audience == audience && (c.concerns(namespace, severity) || c.listens_in(namespace) && has_heard(c))
    };
    settings.channels.iter().filter(concerns).collect()
}

/// Id of a message; with the name of the channel it is the id of a delivery.
pub fn message_id(uid: &str, audience: ChannelAudience, number: i64) -> String {
    let audience = match audience {
        ChannelAudience::Internal => "internal",
        ChannelAudience::Executives => "executives",
        ChannelAudience::Public => "public",
    };
    format!("{uid}-{audience}-{number}")
}

/// Brings the list of channels up to date: a channel that is new hears of what happens from now on, one that is not
/// concerned any more hears nothing.
pub fn concern(outbox: &mut Outbox, channels: &[&Channel], audience: ChannelAudience, uid: &str) {
    let count = outbox.message_count.unwrap_or_default();
    outbox.deliveries.retain(|d| channels.iter().any(|c| c.name == d.channel));
    for channel in channels {
        if !outbox.deliveries.iter().any(|d| d.channel == channel.name) {
            outbox.deliveries.push(Delivery {
                channel: channel.name.clone(),
                message_id: message_id(uid, audience, count),
                number: count,
                ..Delivery::default()
            });
        }
    }
    forget_what_is_done(outbox);
}

/// Records what became of attempts. Answers what is worth telling.
pub fn settle(outbox: &mut Outbox, outcomes: &[Outcome], audience: ChannelAudience, uid: &str) -> Vec<Told> {
    let mut told = Vec::new();
    let Outbox { messages, deliveries, .. } = outbox;
    for outcome in outcomes {
        let Some(delivery) = deliveries.iter_mut().find(|d| d.channel == outcome.channel) else { continue };
        if delivery.number >= outcome.number {
            // It is on record already.
            continue;
        }
        let reason = messages.iter().find(|m| m.number == outcome.number).map(|m| m.reason.clone());
        delivery.message_id = message_id(uid, audience, outcome.number);
        if outcome.remote_id.is_some() {
            delivery.remote_id.clone_from(&outcome.remote_id);
        }
        let channel = outcome.channel.clone();
        match &outcome.result {
            Attempt::Delivered => {
                delivery.number = outcome.number;
                delivery.delivered_time = Some(whole_seconds(outcome.time));
                delivery.attempts = 0;
                delivery.error = None;
                delivery.failing_since_time = None;
                told.push(Told::Delivered { channel, reason: reason.unwrap_or_default() });
            }
            Attempt::Failed(error) => {
                let error = one_line(error, 512);
                if delivery.attempts < WORTH_TELLING && outcome.attempts >= WORTH_TELLING {
                    told.push(Told::Failed { channel, error: error.clone() });
                }
                delivery.attempts = outcome.attempts;
                delivery.error = Some(error);
                if outcome.attempts >= WORTH_TELLING {
                    delivery.failing_since_time.get_or_insert(whole_seconds(outcome.time));
                }
            }
            Attempt::GivenUp(error) => {
                let error = one_line(&format!("given up: {error}"), 512);
                told.push(Told::Failed { channel, error: error.clone() });
                delivery.number = outcome.number;
                delivery.attempts = 0;
                delivery.error = Some(error);
                delivery.failing_since_time.get_or_insert(whole_seconds(outcome.time));
                delivery.given_up = Some(delivery.given_up.unwrap_or_default() + 1);
            }
        }
    }
    forget_what_is_done(outbox);
    told
}

/// Adds a message, if there is a channel that takes it.
pub fn queue(outbox: &mut Outbox, reason: &str, time: Timestamp, text: &str) {
    if outbox.deliveries.is_empty() {
        return;
    }
    let number = outbox.message_count.unwrap_or_default() + 1;
    outbox.message_count = Some(number);
    outbox.messages.push(Message {
        number,
        reason: clip(reason, 128),
        time: whole_seconds(time),
        text: clip(text, MAX_TEXT),
    });
    // What a dead channel leaves is bounded: the oldest ones go.
    while outbox.messages.len() > MAX_WAITING {
        let oldest = outbox.messages.remove(0).number;
        for delivery in outbox.deliveries.iter_mut().filter(|d| d.number < oldest) {
            delivery.number = oldest;
            delivery.attempts = 0;
            delivery.error.get_or_insert_with(|| "given up: too many messages wait".to_owned());
            delivery.failing_since_time.get_or_insert(whole_seconds(time));
            delivery.given_up = Some(delivery.given_up.unwrap_or_default() + 1);
        }
    }
}

/// Takes back what was not delivered yet.
pub fn withdraw(outbox: &mut Outbox) {
    let count = outbox.message_count.unwrap_or_default();
    for delivery in &mut outbox.deliveries {
        delivery.number = count;
        delivery.attempts = 0;
    }
    outbox.messages.clear();
}

/// The next message for a channel, given what this process has delivered since the status was written.
pub fn next<'a>(outbox: &'a Outbox, channel: &str, delivered: i64) -> Option<(&'a Delivery, &'a Message)> {
    let delivery = outbox.deliveries.iter().find(|d| d.channel == channel)?;
    let after = delivery.number.max(delivered);
    outbox.messages.iter().find(|m| m.number > after).map(|message| (delivery, message))
}

/// The channels that fail, each with why. One that took nothing of what it was given last fails, whether or not that
/// is tried again.
pub fn failing(outbox: &Outbox) -> Vec<String> {
    let fails = |d: &&Delivery| d.failing_since_time.is_some();
    let words = |d: &Delivery| {
        let error = d.error.as_deref().unwrap_or_default();
        match d.attempts {
            0 => format!("{}: {error}", d.channel),
            attempts => format!("{} failed {attempts} times: {error}", d.channel),
        }
    };
    outbox.deliveries.iter().filter(fails).map(words).collect()
}

fn forget_what_is_done(outbox: &mut Outbox) {
    let Outbox { messages, deliveries, .. } = outbox;
    messages.retain(|m| deliveries.iter().any(|d| d.number < m.number));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    const UID: &str = "u1";
    const INTERNAL: ChannelAudience = ChannelAudience::Internal;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn settings(names: &[&str]) -> Settings {
        let one = |n: &&str| format!("- {{name: {n}, type: Slack, audience: Internal, urlFile: /u}}\n");
        read(&format!("channels:\n{}", names.iter().map(one).collect::<String>())).unwrap()
    }

    fn with(names: &[&str]) -> Outbox {
        let (settings, mut outbox) = (settings(names), Outbox::default());
        concern(&mut outbox, &settings.channels.iter().collect::<Vec<_>>(), INTERNAL, UID);
        outbox
    }

    fn outcome(channel: &str, number: i64, attempts: i32, result: Attempt) -> Outcome {
        Outcome { channel: channel.into(), number, attempts, time: at(100), result, remote_id: None }
    }

    fn failed() -> Attempt {
        Attempt::Failed("answered 500".into())
    }

    fn waiting(outbox: &Outbox) -> Vec<i64> {
        outbox.messages.iter().map(|m| m.number).collect()
    }

    #[test]
    fn without_a_channel_nothing_is_kept() {
        let mut outbox = Outbox::default();
        queue(&mut outbox, "Declared", at(1), "it burns");
        assert_eq!(outbox, Outbox::default());
    }

    #[test]
    fn a_message_waits_until_every_channel_has_it_and_each_takes_them_in_order() {
        let mut outbox = with(&["a", "b"]);
        queue(&mut outbox, "Declared", at(1), "one");
        queue(&mut outbox, "Resolved", at(2), "two");
        let text = |o: &Outbox, c: &str, delivered| next(o, c, delivered).map(|(_, m)| m.text.clone());
        assert_eq!(text(&outbox, "a", 0).as_deref(), Some("one"));
        assert_eq!(text(&outbox, "a", 1).as_deref(), Some("two"));
        settle(&mut outbox, &[outcome("a", 1, 1, Attempt::Delivered)], INTERNAL, UID);
        assert_eq!((waiting(&outbox), text(&outbox, "a", 0).as_deref()), (vec![1, 2], Some("two")));
        assert_eq!(text(&outbox, "b", 0).as_deref(), Some("one"));
        let all = [("a", 2), ("b", 1), ("b", 2)].map(|(c, n)| outcome(c, n, 1, Attempt::Delivered));
        settle(&mut outbox, &all, INTERNAL, UID);
        assert_eq!((waiting(&outbox), text(&outbox, "b", 0)), (vec![], None));
        assert_eq!(outbox.deliveries[1].message_id, "u1-internal-2");
        // What is settled twice is settled once.
        let before = outbox.clone();
        assert_eq!(settle(&mut outbox, &all, INTERNAL, UID), []);
        assert_eq!(outbox, before);
    }

    #[test]
    fn a_channel_that_fails_is_told_of_once_and_comes_back() {
        let mut outbox = with(&["a"]);
        queue(&mut outbox, "Declared", at(1), "one");
        let mut told = Vec::new();
        for attempts in 1..10 {
            told.extend(settle(&mut outbox, &[outcome("a", 1, attempts, failed())], INTERNAL, UID));
        }
        assert_eq!(told, [Told::Failed { channel: "a".into(), error: "answered 500".into() }]);
        assert_eq!(failing(&outbox), ["a failed 9 times: answered 500"]);
        settle(&mut outbox, &[outcome("a", 1, 10, Attempt::Delivered)], INTERNAL, UID);
        assert_eq!((failing(&outbox), outbox.deliveries[0].error.as_deref()), (vec![], None));
    }

    #[test]
    fn what_is_given_up_makes_way_for_the_next_and_is_counted() {
        let mut outbox = with(&["a"]);
        queue(&mut outbox, "Declared", at(1), "one");
        queue(&mut outbox, "Resolved", at(2), "two");
        let told = settle(
            &mut outbox,
            &[outcome("a", 1, 3, Attempt::GivenUp("answered 400".into()))],
            INTERNAL,
            UID,
        );
        assert_eq!(told, [Told::Failed { channel: "a".into(), error: "given up: answered 400".into() }]);
        assert_eq!((waiting(&outbox), outbox.deliveries[0].given_up), (vec![2], Some(1)));
        // Until it takes something it fails, however often something else is tried.
        assert_eq!(failing(&outbox), ["a: given up: answered 400"]);
        settle(&mut outbox, &[outcome("a", 2, 1, failed())], INTERNAL, UID);
        assert_eq!(failing(&outbox), ["a failed 1 times: answered 500"]);
        settle(&mut outbox, &[outcome("a", 2, 2, Attempt::Delivered)], INTERNAL, UID);
        assert_eq!(failing(&outbox), [] as [String; 0]);
    }

    #[test]
    fn what_a_dead_channel_leaves_is_bounded_and_the_others_miss_nothing() {
        let mut outbox = with(&["dead", "live"]);
        for n in 1..=100 {
            queue(&mut outbox, "StatusUpdate", at(n), "x");
            settle(&mut outbox, &[outcome("live", n, 1, Attempt::Delivered)], INTERNAL, UID);
        }
        assert_eq!(waiting(&outbox), (85..=100).collect::<Vec<_>>());
        let dead = &outbox.deliveries[0];
        assert_eq!((dead.number, dead.given_up, dead.attempts), (84, Some(84), 0));
        assert_eq!(failing(&outbox), ["dead: given up: too many messages wait"]);
        assert_eq!((outbox.deliveries[1].number, outbox.deliveries[1].given_up), (100, None));
    }

    #[test]
    fn a_channel_that_has_heard_of_something_hears_of_it_to_the_end() {
        let text = "channels:\n- {name: page, type: Slack, audience: Public, urlFile: /u, minSeverity: SEV2, namespaces: [shop]}\n";
        let settings = read(text).unwrap();
        let listens = |namespace, severity, outbox: &Outbox| {
            !channels(&settings, ChannelAudience::Public, namespace, Some(severity), outbox).is_empty()
        };
        let mut outbox = Outbox::default();
        assert!(listens("shop", Severity::SEV2, &outbox) && !listens("shop", Severity::SEV3, &outbox));
        let concerned: Vec<_> = settings.channels.iter().collect();
        concern(&mut outbox, &concerned, ChannelAudience::Public, UID);
        queue(&mut outbox, "StatusUpdate", at(1), "one");
        assert!(!listens("shop", Severity::SEV3, &outbox), "it has heard nothing yet");
        let heard = outcome("page", 1, 1, Attempt::Delivered);
        settle(&mut outbox, &[heard], ChannelAudience::Public, UID);
        assert!(listens("shop", Severity::SEV3, &outbox) && !listens("bank", Severity::SEV3, &outbox));
    }

    #[test]
    fn a_channel_that_is_new_hears_of_what_comes_and_one_that_is_gone_is_not_waited_for() {
        let mut outbox = with(&["a"]);
        queue(&mut outbox, "Declared", at(1), "one");
        let later = settings(&["b"]);
        concern(&mut outbox, &later.channels.iter().collect::<Vec<_>>(), INTERNAL, UID);
        assert_eq!((waiting(&outbox), next(&outbox, "b", 0)), (vec![], None));
        queue(&mut outbox, "Resolved", at(2), "two");
        assert_eq!(next(&outbox, "b", 0).map(|(_, m)| m.number), Some(2));
    }
}
