//! Seeded bugs, with which the fault harness proves that it finds bugs (`make fault-mutants`).
//!
//! They exist only in builds with the feature `mutants`, which no build for use has; in all others [`seeded`] is
//! `false` at compile time. A build with it has the hidden flag `--mutant`, and without the flag behaves as any other.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` is for tests and belongs in no release build");

/// A seeded bug.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "mutants", derive(Debug, clap::ValueEnum))]
pub enum Mutant {
    /// The prior value is captured after the change instead of with it.
    CaptureAfterChange,
    /// Whether a target is taken is judged by status, which is written later than the target.
    CaptureTwice,
    /// The finalizer is added after the take.
    FinalizerTooLate,
    /// The finalizer is removed before the release.
    FinalizerRemovedFirst,
    /// What somebody else wrote meanwhile is overwritten on release.
    ReleaseWithoutCompare,
    /// Effective is reported while the effect is still awaited.
    StatusBeforeEffect,
    /// An entry that is on record already is folded again.
    DoubleFold,
    /// An entry is removed before it is on record.
    RemovedBeforeFolded,
    /// A creation without an answer is tried again under another name.
    RetryOfPost,
    /// A record and an object count for each other although the object was made anew.
    MissingUidTest,
}

#[cfg(feature = "mutants")]
static CHOSEN: std::sync::OnceLock<Mutant> = std::sync::OnceLock::new();

/// Makes this process behave as the mutant.
#[cfg(feature = "mutants")]
pub fn become_mutant(mutant: Mutant) {
    // Once a process.
    let _ = CHOSEN.set(mutant);
}

/// Whether this process has the bug.
#[cfg(feature = "mutants")]
pub fn seeded(mutant: Mutant) -> bool {
    CHOSEN.get() == Some(&mutant)
}

/// Whether this process has the bug: no.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn seeded(_: Mutant) -> bool {
    false
}
