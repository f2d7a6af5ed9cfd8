//! Logs: text for people, JSON for machines.

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt};

/// Format of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text an entry.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. The level is taken from RUST_LOG; `info` when it is not set.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
