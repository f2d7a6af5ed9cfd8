//! What can go wrong while plans are carried out, and whether trying again helps.

use std::time::Duration;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("{what}: {source}")]
    Api {
        /// What the request was for, with the object.
        what: String,
        /// What the client said.
        #[source]
        source: kube::Error,
    },
    /// Something did not come to rest within one visit.
    #[error("{0} keeps changing; it is looked at again")]
    Restless(String),
    /// Something could not be looked at in time.
    #[error("{0} took too long")]
    NotSeen(String),
    /// Something may not be looked at, and so is not known.
    #[error("the operator may not list and watch {0}, which must be looked at first")]
    MayNotLook(String),
    /// The visit took too long.
    #[error("the visit took longer than {0:?}")]
    TimedOut(Duration),
    /// The code failed.
    #[error("internal error: {0}")]
    Panicked(String),
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once: somebody else was faster.
    Soon,
    /// After a while, longer each time.
    Backoff,
}

impl Error {
    /// Wraps what the client said.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
        let what = what.into();
        move |source| Error::Api { what, source }
    }

    /// What went wrong, for the people who read a condition.
    pub fn words(&self) -> String {
        match self {
            Error::Api { what, source: kube::Error::Api(status) } => {
                format!("{what} failed, the API server said: {}", status.message)
            }
            other => other.to_string(),
        }
    }

    /// One word of a closed set, for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Error::Api { source, .. } => match code(source) {
                Some(409) => "conflict",
                Some(403) => "forbidden",
                Some(404) => "not_found",
                Some(429) => "throttled",
                Some(400..=499) => "rejected",
                Some(_) => "server",
                None => "connection",
            },
            Error::MayNotLook(_) => "forbidden",
            Error::Restless(_) => "restless",
            Error::TimedOut(_) | Error::NotSeen(_) => "timeout",
            Error::Panicked(_) => "panic",
        }
    }

    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Error::Api { source, .. } if code(source) == Some(409) => Retry::Soon,
            Error::Api { .. }
            | Error::Restless(_)
            | Error::NotSeen(_)
            | Error::MayNotLook(_)
            | Error::TimedOut(_)
            | Error::Panicked(_) => Retry::Backoff,
        }
    }
}

/// The status code of the API server's answer, when it answered.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Whether the API server's answer is a refusal for good reason, such as a policy or a quota: the same request would be
/// refused again until somebody changes that, and what does not depend on it goes on.
pub fn refuses(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 404 | 408 | 409 | 429)
}

/// Wait before the `attempt`th try: doubled each time up to a minute, with jitter so that many do not come at once.
pub fn backoff(retry: Retry, attempt: u32) -> Duration {
    let first = match retry {
        Retry::Soon => Duration::from_millis(10),
        Retry::Backoff => Duration::from_millis(250),
    };
    let wait = first.saturating_mul(1 << attempt.min(16)).min(Duration::from_secs(60));
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_never_exceed_a_minute() {
        for attempt in 0..100 {
            let wait = backoff(Retry::Backoff, attempt);
            assert!(wait <= Duration::from_secs(60), "{attempt}: {wait:?}");
            assert!(wait >= Duration::from_millis(125), "{attempt}: {wait:?}");
        }
    }
}
