//! How many requests are under way at a time, when the API server has too many.
//!
//! API Priority and Fairness gives an account a number of seats, which nobody tells it. Whoever asks for more than that
//! is answered 429 and told to come back later, all at the same time; so a crowd of visits that each wait and try again
//! keeps each other from the seats. After a 429 one request is under way at a time. That needs one seat, and is some two
//! hundred requests a second. For each [`STEP`] without another 429 the number is doubled, until there is no limit.

use futures::task::AtomicWaker;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;

/// How long nothing must be refused before more is tried.
const STEP: Duration = Duration::from_secs(5);
/// From this many on there is no limit: no more visits than that are made at a time.
const ALL: usize = 64;

/// Shared by all requests of one client. One task at a time waits in [`Throttle::poll_enter`].
#[derive(Default)]
pub struct Throttle {
    state: Mutex<State>,
    waiting: AtomicWaker,
}

#[derive(Default)]
struct State {
    under_way: usize,
    /// When the API server last had too many.
    refused: Option<Instant>,
}

impl State {
    fn limit(&self, now: Instant) -> usize {
        let Some(refused) = self.refused else { return usize::MAX };
        let steps = now.duration_since(refused).as_secs() / STEP.as_secs();
        match u32::try_from(steps).ok().and_then(|steps| 1_usize.checked_shl(steps)) {
            Some(limit) if limit < ALL => limit,
            _ => usize::MAX,
        }
    }
}

/// One request under way, until it is dropped.
pub struct Pass(Arc<Throttle>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.waiting.wake();
    }
}

impl Throttle {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Two numbers; each is right whatever panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when another request may be sent.
    pub fn poll_enter(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Pass> {
        // Before the look: what ends in between wakes.
        self.waiting.register(cx.waker());
        let mut state = self.lock();
        // Whatever waits is looked at again when one of those under way ends, so no timer is needed.
        if state.under_way >= state.limit(Instant::now()) {
            return Poll::Pending;
        }
        state.under_way += 1;
        Poll::Ready(Pass(self.clone()))
    }

    /// The API server had too many requests.
    pub fn refused(&self) {
        self.lock().refused = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, future::poll_fn};

    fn enter(throttle: &Arc<Throttle>) -> Option<Pass> {
        poll_fn(|cx| throttle.poll_enter(cx)).now_or_never()
    }

    /// How many get in at once.
    fn room(throttle: &Arc<Throttle>) -> usize {
        let all: Vec<_> = std::iter::from_fn(|| enter(throttle)).take(1000).collect();
        all.len()
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_one_goes_at_a_time_and_more_and_more_as_long_as_none_is_refused() {
        let throttle = Arc::new(Throttle::default());
        assert_eq!(room(&throttle), 1000);
        throttle.refused();
        let mut rooms = Vec::new();
        for _ in 0..7 {
            rooms.push(room(&throttle));
            tokio::time::advance(STEP).await;
        }
        assert_eq!(rooms, [1, 2, 4, 8, 16, 32, 1000]);
        throttle.refused();
        assert_eq!(room(&throttle), 1);
    }

    #[tokio::test]
    async fn whoever_waits_gets_in_when_another_is_done() {
        let throttle = Arc::new(Throttle::default());
        let first = enter(&throttle);
        throttle.refused();
        let waiting = tokio::spawn({
            let throttle = throttle.clone();
            async move { poll_fn(|cx| throttle.poll_enter(cx)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("it gets in");
    }
}
