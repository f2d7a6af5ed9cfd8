//! The faults.

use std::fmt;
use std::time::Duration;

/// What goes wrong at the k-th write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// The operator is killed and the request never arrives.
    KillBefore,
    /// The request is carried out and the operator is killed before it learns so.
    KillAfter,
    /// The request is carried out and the connection breaks instead of an answer.
    LostReply,
    /// The connection breaks before the request arrives.
    LostRequest,
    /// The request is carried out twice, and the second answer is given.
    Twice,
    /// Refused: 409 Conflict, or AlreadyExists for a creation.
    Conflict,
    /// Refused: 422, as a failed test of a JSON Patch is.
    Invalid,
    /// Refused: 429 with `Retry-After: 1`.
    Throttled,
    /// Failed: 500.
    Broken,
    /// Failed: 503.
    Unavailable,
    /// Carried out, but the answer is 504.
    GatewayTimeout,
    /// Never answered, not carried out.
    Hang,
    /// Never answered, but carried out.
    HangAfter,
    /// Carried out and killed, and killed again at the next write.
    KillTwice,
    /// Somebody else writes to the object right before.
    Raced,
    /// From this write on, no watch tells anything for a while.
    WatchDelay,
    /// From this write on, what watches tell is held back for a while, and then only the last state of each object.
    WatchCoalesce,
    /// All watches break.
    WatchCut,
    /// All watches end with 410 Gone.
    WatchGone,
    /// The operator is killed, and what is listed at its next start is what was true before its last writes.
    WatchReplay,
}

/// How long watches are silent.
pub const SILENCE: Duration = Duration::from_millis(1500);

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 20] = [
        Mode::KillBefore,
        Mode::KillAfter,
        Mode::LostReply,
        Mode::LostRequest,
        Mode::Twice,
        Mode::Conflict,
        Mode::Invalid,
        Mode::Throttled,
        Mode::Broken,
        Mode::Unavailable,
        Mode::GatewayTimeout,
        Mode::Hang,
        Mode::HangAfter,
        Mode::KillTwice,
        Mode::Raced,
        Mode::WatchDelay,
        Mode::WatchCoalesce,
        Mode::WatchCut,
        Mode::WatchGone,
        Mode::WatchReplay,
    ];
    /// Those of `make fault-test`.
    pub const TEST: [Mode; 3] = [Mode::KillBefore, Mode::KillAfter, Mode::LostReply];

    /// How long after it the operator may still be at what it brings about: watches are silent, or begin anew.
    pub fn aftermath(self) -> Duration {
        match self {
            Mode::WatchDelay | Mode::WatchCoalesce | Mode::WatchReplay => Duration::from_millis(2500),
            Mode::WatchCut => Duration::from_secs(3),
            Mode::WatchGone => Duration::from_secs(7),
            _ => Duration::ZERO,
        }
    }

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::KillBefore => "kill-before",
            Mode::KillAfter => "kill-after",
            Mode::LostReply => "lost-reply",
            Mode::LostRequest => "lost-request",
            Mode::Twice => "twice",
            Mode::Conflict => "409",
            Mode::Invalid => "422",
            Mode::Throttled => "429",
            Mode::Broken => "500",
            Mode::Unavailable => "503",
            Mode::GatewayTimeout => "504",
            Mode::Hang => "hang",
            Mode::HangAfter => "hang-after",
            Mode::KillTwice => "kill-twice",
            Mode::Raced => "raced",
            Mode::WatchDelay => "watch-delay",
            Mode::WatchCoalesce => "watch-coalesce",
            Mode::WatchCut => "watch-cut",
            Mode::WatchGone => "watch-410",
            Mode::WatchReplay => "watch-replay",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        let known = || Mode::ALL.map(Mode::name).join(", ");
        Mode::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| format!("no mode is called {text}; there are: {}", known()))
    }
}
