//! What is done to a write of the operator.

use super::{
    Body, BoxError, Duration, Instant, Mode, PoisonError, Request, Response, Said, Shared, StatusCode,
    Written, broken, header, json, status,
};
use crate::watches::Bent;
use http::HeaderValue;
use hyper::body::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest time that an unanswered request is kept: longer than any client of ours waits.
const HANG: Duration = Duration::from_secs(90);

/// Annotation that somebody else writes.
pub const RACED: &str = "fault.example/raced";

impl Shared {
    pub(super) async fn write(
        self: &Arc<Self>,
        request: Request,
        head: http::request::Parts,
        body: Bytes,
    ) -> Result<Response<Body>, BoxError> {
        self.pass_gate(&request.resource).await?;
        let (k, mode) = self.count(&request);
        let Some(mode) = mode else {
            let said = self.ask(&head, &body).await?;
            self.note(k, &said, "");
            return if self.lock().closed {
                broken("the operator is dead")
            } else {
                Ok(said.into_response())
            };
        };
        let told = mode.name();
        match mode {
            Mode::KillBefore => {
                self.tell(k, told);
                self.kill().await
            }
            Mode::KillAfter | Mode::KillTwice => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                self.kill().await
            }
            Mode::WatchReplay => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                self.replay(k);
                self.kill().await
            }
            Mode::LostReply => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                broken("the answer is lost")
            }
            Mode::LostRequest => {
                self.tell(k, told);
                broken("the request is lost")
            }
            Mode::Twice => {
                let first = self.ask(&head, &body).await?;
                self.note(k, &first, told);
                let second = self.ask(&head, &body).await?;
                if second.head.status.is_success()
                    && let Some(written) = self.lock().written.get_mut(k - 1)
                {
                    written.again = serde_json::from_slice(&second.body).ok().map(Arc::new);
                }
                Ok(second.into_response())
            }
            Mode::Conflict => {
                let (reason, words) = if request.method == http::Method::POST {
                    ("AlreadyExists", "the object already exists")
                } else {
                    (
                        "Conflict",
                        "the object has been modified; please apply your changes to the latest version",
                    )
                };
                self.refuse(k, told, StatusCode::CONFLICT, reason, words)
            }
            Mode::Invalid => {
                let words = "the server rejected our request due to an error in our request";
                self.refuse(k, told, StatusCode::UNPROCESSABLE_ENTITY, "Invalid", words)
            }
            Mode::Throttled => {
                let mut response = self.refuse(
                    k,
                    told,
                    StatusCode::TOO_MANY_REQUESTS,
                    "TooManyRequests",
                    "too many requests",
                )?;
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                Ok(response)
            }
            Mode::Broken => {
                // In other words than a panic of the operator.
                let words = "the server could not do it";
                self.refuse(k, told, StatusCode::INTERNAL_SERVER_ERROR, "InternalError", words)
            }
            Mode::Unavailable => {
                let words = "the server is currently unable to handle the request";
                self.refuse(k, told, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", words)
            }
            Mode::GatewayTimeout => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                let words = "the server was unable to return a response in the time allotted";
                status(StatusCode::GATEWAY_TIMEOUT, "Timeout", words)
            }
            Mode::Hang => {
                self.tell(k, told);
                tokio::time::sleep(HANG).await;
                broken("never answered")
            }
            Mode::HangAfter => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                tokio::time::sleep(HANG).await;
                broken("never answered")
            }
            Mode::Raced => {
                let raced = self.race(&request, k).await;
                self.lock().injected = raced;
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                Ok(said.into_response())
            }
            Mode::WatchDelay | Mode::WatchCoalesce | Mode::WatchCut | Mode::WatchGone => {
                self.bent.send_replace(match mode {
                    Mode::WatchDelay => Bent::delay(),
                    Mode::WatchCoalesce => Bent::coalesce(),
                    Mode::WatchGone => Bent::Gone(k),
                    _ => Bent::Cut(k),
                });
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                Ok(said.into_response())
            }
        }
    }

    /// Takes down a write, and says what is done to it.
    fn count(&self, request: &Request) -> (usize, Option<Mode>) {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut state = self.lock();
        state.count += 1;
        state.moved = Some(Instant::now());
        let k = state.count;
        let kind = request.kind();
        let like = state.like.entry(kind.clone()).or_default();
        *like += 1;
        let like = *like;
        let newest = state.newest_seen;
        state.newest.push(newest);
        state.written.push(Written {
            k,
            request: request.clone(),
            code: 0,
            object: None,
            again: None,
            told: String::new(),
        });
        let Some(fault) = fault else { return (k, None) };
        let strikes = state.struck.is_none()
            && match &fault.write {
                Some((wanted, nth)) => *wanted == kind && *nth == like,
                None => fault.at == k,
            };
        if strikes {
            state.struck = Some((k, Instant::now()));
            // Of a replay it is known later.
            state.injected = fault.mode != Mode::WatchReplay;
            return (k, Some(fault.mode));
        }
        let again = fault.mode == Mode::KillTwice && state.struck.is_some_and(|(at, _)| at + 1 == k);
        (k, again.then_some(Mode::KillAfter))
    }

    /// Waits while the gate is shut for what is written; what a process has asked that is dead now does not pass.
    async fn pass_gate(&self, resource: &str) -> Result<(), BoxError> {
        let (mut gate, mut lives) = (self.gate.subscribe(), self.lives.subscribe());
        if gate.borrow().as_deref() != Some(resource) {
            return Ok(());
        }
        self.at_gate.send_modify(|count| *count += 1);
        let dead = tokio::select! {
            // The sender is ours.
            _ = gate.wait_for(|shut| shut.as_deref() != Some(resource)) => false,
            _ = lives.changed() => true,
        };
        self.at_gate.send_modify(|count| *count -= 1);
        if dead { broken("the operator is dead") } else { Ok(()) }
    }

    fn note(&self, k: usize, said: &Said, told: &str) {
        let mut state = self.lock();
        let Some(written) = state.written.get_mut(k - 1) else { return };
        written.code = said.head.status.as_u16();
        written.object = serde_json::from_slice(&said.body).ok().map(Arc::new);
        written.told = told.to_owned();
        let version = written.version().unwrap_or(0);
        state.newest_seen = state.newest_seen.max(version);
    }

    fn tell(&self, k: usize, told: &str) {
        if let Some(written) = self.lock().written.get_mut(k - 1) {
            written.told = told.to_owned();
        }
    }

    fn refuse(
        &self,
        k: usize,
        told: &str,
        code: StatusCode,
        reason: &str,
        words: &str,
    ) -> Result<Response<Body>, BoxError> {
        self.tell(k, told);
        status(code, reason, words)
    }

    /// Kills the operator. From here on nothing that it asked is carried out, and it learns nothing.
    async fn kill<T>(&self) -> Result<T, BoxError> {
        {
            let mut state = self.lock();
            state.closed = true;
            state.leads = None;
            state.moved = Some(Instant::now());
        }
        self.lives.send_modify(|count| *count += 1);
        let pid = self.pid.load(Ordering::SeqCst).to_string();
        let kill = move || std::process::Command::new("sh").args(["-c", "kill -KILL \"$0\"", &pid]).status();
        let _ = tokio::task::spawn_blocking(kill).await;
        self.killed.notify_one();
        broken("the operator is dead")
    }

    /// Somebody else writes to the object first.
    async fn race(&self, request: &Request, k: usize) -> bool {
        if request.name.is_empty() {
            return false;
        }
        let path = request.uri.split('?').next().unwrap_or_default();
        let path = path.strip_suffix(&format!("/{}", request.subresource)).unwrap_or(path);
        let patch = json!({"metadata": {"annotations": {RACED: k.to_string()}}});
        let request = http::Request::patch(format!("{path}?fieldManager=somebody"))
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .expect("the request is well formed");
        // The object may be gone.
        self.admin.request_text(request).await.is_ok()
    }

    fn replay(&self, k: usize) {
        let mut state = self.lock();
        let before = state.newest[..k].iter().rev().copied().find(|version| *version > 0);
        // Two writes back, where there are two.
        let earlier = before.and_then(|b| state.newest[..k].iter().rev().copied().find(|v| *v > 0 && *v < b));
        state.replay = earlier.or(before).map(|version| (version, Vec::new()));
    }
}
