//! Kubernetes Events: a mirror of the record for `kubectl describe` and `kubectl events`.
//!
//! They vanish after an hour and may be refused, so nothing depends on them. They are created directly, one for
//! each note: kube's `Recorder` would merge notes of equal reason and keep only the first text. The queue is
//! bounded; what does not fit is dropped and counted.

use crate::{
    api::names,
    decide::conditions::{cut, one_line},
    metrics::Metrics,
};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Client, Resource as _, api::PostParams, core::request::Request};
use serde::de::IgnoredAny;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::debug;

/// Events that may wait to be sent.
const QUEUE: usize = 4096;
/// Events that are sent at the same time.
const SENDERS: usize = 2;
/// Longest note, in bytes; the API server's limit.
const MAX_NOTE: usize = 1024;
/// Name of the controller that reports.
const CONTROLLER: &str = "incident-operator.dev/incident-operator";

/// Something to tell about an object.
#[derive(Clone, Debug)]
pub struct Note {
    /// The object it is about.
    pub regarding: ObjectReference,
    /// uid of the object that brought it, if one did: two of them may say the same.
    pub source: Option<String>,
    /// Another object that it concerns.
    pub related: Option<ObjectReference>,
    /// One word.
    pub reason: String,
    /// What happened, in words.
    pub message: String,
    /// Whether somebody should look.
    pub warning: bool,
    /// When it happened.
    pub time: Timestamp,
}

/// Sends Events, without anybody waiting for it.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Starts the senders.
    pub fn start(client: Client, identity: &str, metrics: Arc<Metrics>) -> Events {
        let (queue, notes) = mpsc::channel(QUEUE);
        let notes = Arc::new(tokio::sync::Mutex::new(notes));
        for _ in 0..SENDERS {
            let (notes, client, metrics, identity) =
                (notes.clone(), client.clone(), metrics.clone(), identity.to_owned());
            tokio::spawn(async move {
                loop {
                    let note = notes.lock().await.recv().await;
                    let Some(note) = note else { return };
                    send(&client, &identity, &metrics, note).await;
                }
            });
        }
        Events { queue, metrics }
    }

    /// Tells something; never waits.
    pub fn tell(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.metrics.event_dropped();
        }
    }
}

async fn send(client: &Client, identity: &str, metrics: &Metrics, note: Note) {
    let namespace = note.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let event = event(note, &namespace, identity);
    match create(client, &namespace, &event).await {
        Ok(_) => {}
        // The same note was sent before: the name says so.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => {
            debug!(%error, "event not sent");
            metrics.event_dropped();
        }
    }
}

/// Nobody reads the answer.
async fn create(client: &Client, namespace: &str, event: &Event) -> Result<(), kube::Error> {
    let body = serde_json::to_vec(event).map_err(kube::Error::SerdeError)?;
    let request = Request::new(Event::url_path(&(), Some(namespace)))
        .create(&PostParams::default(), body)
        .map_err(kube::Error::BuildRequest)?;
    client.request::<IgnoredAny>(request).await.map(|_| ())
}

fn event(note: Note, namespace: &str, identity: &str) -> Event {
    let about = note.regarding.name.clone().unwrap_or_default();
    let seed = format!(
        "{}/{}/{}/{}/{}",
        note.regarding.uid.as_deref().unwrap_or_default(),
        note.source.as_deref().unwrap_or_default(),
        note.reason,
        note.time,
        note.message
    );
    Event {
        metadata: ObjectMeta {
            // In the order of time, which is how `kubectl describe` shows what has no other time than eventTime.
            name: Some(names::hashed(&about, &format!("{:014x}", note.time.as_microsecond()), &seed)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(note.time)),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        action: Some(note.reason.clone()),
        reason: Some(note.reason),
        // What people wrote may stand in it, and terminals show it.
        note: Some(cut(&one_line(&note.message, MAX_NOTE), MAX_NOTE)),
        regarding: Some(note.regarding),
        related: note.related,
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(identity, 128)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_at_1024_bytes_between_characters() {
        let note = cut(&"결".repeat(500), MAX_NOTE);
        assert!(note.len() <= MAX_NOTE && note.len() > MAX_NOTE - 4 && note.ends_with('…'));
        assert_eq!(cut("short", MAX_NOTE), "short");
    }

    #[test]
    fn the_same_note_has_the_same_name_and_another_note_another() {
        let by = |source: &str, message: &str| {
            let note = Note {
                regarding: ObjectReference { name: Some("a".repeat(253)), ..ObjectReference::default() },
                source: Some(source.into()),
                related: None,
                reason: "Note".into(),
                message: message.into(),
                warning: false,
                time: Timestamp::UNIX_EPOCH,
            };
            event(note, "ns", "me").metadata.name.unwrap()
        };
        let note = |message: &str| by("entry-1", message);
        assert_eq!(note("a"), note("a"));
        assert_ne!(note("a"), by("entry-2", "a"), "two people say the same");
        assert_ne!(note("a"), note("b"));
        let at = |time: &str| {
            let time = time.parse().unwrap();
            let (regarding, message) = (ObjectReference::default(), String::new());
            let (source, related, reason, warning) = (None, None, "Note".into(), false);
            let note = Note { regarding, source, related, reason, message, warning, time };
            event(note, "ns", "me").metadata.name.unwrap()
        };
        assert!(at("2026-11-27T09:59:59.999999Z") < at("2026-11-27T10:00:00Z"), "in the order of time");
        assert!(note("a").len() <= 253);
    }
}
