//! What the command line does: a file per verb or kind, pure where it can be. Nothing here needs a cluster unless it
//! says so.

pub mod check_config;
pub mod export;
pub mod postmortem;
pub mod release_all;
pub(crate) mod schema;
mod yaml;
