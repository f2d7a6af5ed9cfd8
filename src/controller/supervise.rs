//! Work that has no end: when it panics or ends it is begun anew, since nobody would miss it otherwise.

use super::{
    error::{Retry, backoff},
    run::words,
};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use tokio::time::{Duration, Instant, sleep};
use tracing::error;

/// What ran so long before it failed is begun anew without a longer wait than at first.
const CALM: Duration = Duration::from_secs(60);

/// Does some work for ever, in a task of its own.
pub fn spawn<F>(what: impl Into<String>, work: impl FnMut() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (what, mut work) = (what.into(), work);
    tokio::spawn(async move {
        let mut attempt = 0;
        loop {
            let began = Instant::now();
            let ended = AssertUnwindSafe(async { work().await }).catch_unwind().await;
            let why = ended.err().map_or("it ended".to_owned(), |panic| words(&*panic));
            attempt = if began.elapsed() >= CALM { 0 } else { attempt + 1 };
            let wait = backoff(Retry::Backoff, attempt);
            error!(what, error = why, begun_anew_in = ?wait, "internal error");
            sleep(wait).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_or_ends_is_begun_anew() {
        let count = Arc::new(AtomicUsize::new(0));
        let (done, mut finished) = tokio::sync::watch::channel(false);
        spawn("test", {
            let count = count.clone();
            move || {
                let (count, done) = (count.clone(), done.clone());
                async move {
                    match count.fetch_add(1, Ordering::SeqCst) {
                        0 => panic!("first"),
                        1 => {}
                        _ => {
                            done.send_replace(true);
                            std::future::pending::<()>().await;
                        }
                    }
                }
            }
        });
        finished.wait_for(|done| *done).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }
}
