//! When a watch that was interrupted is asked for again: soon at first, then less and less often, and never more than
//! [`LONGEST`] later, so that an outage of an hour costs seconds more and not minutes.

use kube::runtime::{utils::Backoff, watcher::DefaultBackoff};
use std::time::Duration;

/// The longest wait. kube's own goes to 30 s and up to twice that by jitter; with the time until a dead connection is
/// noticed, that is more than the minute in which every watch is to be there again.
const LONGEST: Duration = Duration::from_secs(20);
/// As much of [`LONGEST`] is random, so that watches that fail together do not come back together.
const SPREAD: f32 = 0.5;

/// The waits of one watch: kube's, with an end to their growth.
#[derive(Default)]
pub struct Renewal(DefaultBackoff);

impl Iterator for Renewal {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let longest = LONGEST.mul_f32(1.0 - SPREAD * fastrand::f32());
        self.0.next().map(|wait| wait.min(longest))
    }
}

impl Backoff for Renewal {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_asked_for_again_within_20_s_however_often_it_failed_and_soon_after_it_worked() {
        let mut renewal = Renewal::default();
        let waits: Vec<Duration> = renewal.by_ref().take(200).collect();
        assert!(waits[0] < Duration::from_secs(2), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        let late = &waits[20..];
        assert!(late.iter().all(|wait| *wait >= LONGEST / 2), "no storm while it fails: {late:?}");
        assert!(late.iter().any(|wait| wait != &late[0]), "they do not come back together: {late:?}");
        renewal.reset();
        assert!(renewal.next().is_some_and(|wait| wait < Duration::from_secs(2)));
    }
}
