//! What is done to the watches: they are told late, told less, broken, or ended with 410.
//!
//! Nothing is invented: what is told is what the API server told, later or less of it.

use super::mode::SILENCE;
use super::proxy::{Body, BoxError};
use futures::SinkExt;
use futures::channel::mpsc;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// How watches are bent at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bent {
    /// Not at all.
    No,
    /// Silent until then; after that everything is told.
    Delay(Instant),
    /// Silent until then; after that the last state of each object is told.
    Coalesce(Instant),
    /// Those that are open break.
    Cut(usize),
    /// Those that are open end with 410 Gone.
    Gone(usize),
}

impl Bent {
    /// Silent from now on.
    pub fn delay() -> Bent {
        Bent::Delay(Instant::now() + SILENCE)
    }

    /// Silent from now on, and then brief.
    pub fn coalesce() -> Bent {
        Bent::Coalesce(Instant::now() + SILENCE)
    }
}

/// The body of a watch, bent as is said.
pub fn bend(body: kube::client::Body, bent: watch::Receiver<Bent>) -> Body {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(pump(body, bent, sender));
    StreamBody::new(receiver).boxed_unsync()
}

type Sender = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

async fn pump(mut body: kube::client::Body, mut bent: watch::Receiver<Bent>, mut sender: Sender) {
    // A watch that begins after a break or an end is not touched by it.
    bent.mark_unchanged();
    let mut rest: Vec<u8> = Vec::new();
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        let now = *bent.borrow();
        let silent_until = match now {
            Bent::Delay(until) | Bent::Coalesce(until) if Instant::now() < until => Some(until),
            _ => None,
        };
        if silent_until.is_none() {
            let told = if matches!(now, Bent::Coalesce(_)) { last_states(&held) } else { held.concat() };
            held.clear();
            if !told.is_empty() && sender.send(Ok(Frame::data(Bytes::from(told)))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = bent.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = *bent.borrow_and_update();
                match now {
                    Bent::Cut(_) => {
                        let _ = sender.send(Err("the connection breaks".into())).await;
                        return;
                    }
                    Bent::Gone(_) => {
                        let _ = sender.send(Ok(Frame::data(Bytes::from(gone())))).await;
                        return;
                    }
                    Bent::No | Bent::Delay(_) | Bent::Coalesce(_) => {}
                }
            }
            () = async { tokio::time::sleep_until(silent_until.unwrap_or_else(Instant::now)).await }, if silent_until.is_some() => {}
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    rest.extend_from_slice(&data);
                    let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
                    let later = rest.split_off(end + 1);
                    held.extend(rest.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
                    rest = later;
                }
                Some(Err(error)) => {
                    let _ = sender.send(Err(error.into())).await;
                    return;
                }
                None => {
                    let _ = sender.send(Ok(Frame::data(Bytes::from(held.concat())))).await;
                    return;
                }
            },
            // The operator has closed its side.
            () = closed(&sender) => return,
        }
    }
}

async fn closed(sender: &Sender) {
    while !sender.is_closed() {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// The last state of each object, in the order in which they came about. The list that a watch begins with, where it
/// begins with one, is told in full, and so is each deletion.
fn last_states(lines: &[Vec<u8>]) -> Vec<u8> {
    let ends = |line: &Vec<u8>| String::from_utf8_lossy(line).contains("k8s.io/initial-events-end");
    let (list, rest) = lines.split_at(lines.iter().rposition(ends).map_or(0, |at| at + 1));
    let mut states: Vec<(String, Value)> = Vec::new();
    for line in rest {
        let Ok(mut event) = serde_json::from_slice::<Value>(line) else { continue };
        let uid = event["object"]["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let known = |known: &(String, Value)| !uid.is_empty() && known.0 == uid;
        let earlier = states.iter().position(known).map(|at| states.remove(at).1);
        if earlier.is_some_and(|earlier| earlier["type"] == "ADDED") && event["type"] == "MODIFIED" {
            event["type"] = json!("ADDED");
        }
        states.push((uid, event));
    }
    let told = states.into_iter().flat_map(|(_, event)| format!("{event}\n").into_bytes());
    list.concat().into_iter().chain(told).collect()
}

fn gone() -> String {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    });
    format!("{}\n", json!({"type": "ERROR", "object": status}))
}
