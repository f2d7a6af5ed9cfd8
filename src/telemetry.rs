//! Logs: text for people, JSON for machines.

use clap::ValueEnum;
use std::backtrace::{Backtrace, BacktraceStatus};
use tracing_subscriber::{EnvFilter, fmt};

/// Format of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text an entry.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. The level is taken from RUST_LOG; `info` when it is not set. A panic is an entry as
/// any other, so that who reads JSON can read all of it; with a backtrace when RUST_BACKTRACE asks for one.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
        let payload = info.payload();
        let words = payload.downcast_ref::<&str>().copied();
        let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let words = words.unwrap_or("a panic without words");
        tracing::error!(backtrace, "panicked at {place}: {words}");
    }));
}
