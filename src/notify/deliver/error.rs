//! Why a message was not delivered, in words that hold neither the address nor the answer.

use std::time::Duration;

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The channel's own files or address are wrong.
    #[error("{0}")]
    Setup(String),
    /// The receiver lies where no request may go.
    #[error(
        "the receiver's address is {0}: it is refused; add its network to outgoing.allowedNetworks if that is meant"
    )]
    Refused(&'static str),
    /// No answer.
    #[error("{0}")]
    NoAnswer(String),
    /// The receiver wants to be left alone for a while.
    #[error("the receiver answered {status}: too many requests")]
    Throttled {
        /// Status code.
        status: u16,
        /// For how long.
        wait: Option<Duration>,
    },
    /// The receiver points elsewhere.
    #[error("the receiver answered {0}, a redirect, which is not followed")]
    Redirect(u16),
    /// The receiver does not take this message; the same one would not be taken later, either.
    #[error("the receiver answered {0}{1}")]
    Rejected(u16, String),
    /// The receiver does not work, or does not want us.
    #[error("the receiver answered {0}{1}")]
    Answered(u16, String),
}

impl Error {
    /// Whether another message may fare better: this one is not tried for long.
    pub fn is_about_the_message(&self) -> bool {
        matches!(self, Error::Rejected(..))
    }

    /// How long the receiver asked to be left alone.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Error::Throttled { wait, .. } => *wait,
            _ => None,
        }
    }

    /// One word, for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Error::Setup(_) => "setup",
            Error::Refused(_) => "refused",
            Error::NoAnswer(_) => "no_answer",
            Error::Throttled { .. } => "throttled",
            Error::Redirect(_) => "redirect",
            Error::Rejected(..) => "rejected",
            Error::Answered(..) => "error",
        }
    }
}
