//! The rules. Everything here is pure: no client, no clock, no randomness, no async. What was observed and the
//! time go in, a plan comes out; `controller` carries it out.

pub mod access;
pub mod archive;
pub mod conditions;
pub mod incident;
pub mod markdown;
pub mod mitigation;
pub mod outbox;
pub mod policy;
pub mod postmortem;
pub mod stamp;
