//! The configuration that is in force, and the file that it comes from.
//!
//! The file is looked at every few seconds (a ConfigMap that is mounted changes by a swap of links, which no watch of
//! a single file tells) and read when it is another one. One that is wrong changes nothing: the last good one stays in
//! force, and a metric and a condition of every open incident say so.

use super::Context;
use crate::{
    config::{ScalableKind, Settings, read},
    mitigation::scalable,
};
use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tracing::{error, info};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The configuration in force.
pub struct Live {
    current: watch::Sender<Arc<Settings>>,
    file: Option<PathBuf>,
    /// What the file was before it was first read.
    first: State,
}

/// What tells one state of a file from another; `None`: it is not there.
type State = Option<(u64, u64, i64, i64, u64)>;

impl Live {
    /// Reads the file. Without one, or when it is wrong, the defaults are in force: what burns does not wait for a
    /// comma in a file.
    pub fn new(file: Option<PathBuf>) -> Live {
        let first = file.as_deref().and_then(state);
        let settings = file.as_deref().map_or_else(Settings::default, |file| match load(file) {
            Ok(settings) => {
                info!(file = %file.display(), channels = settings.channels.len(), "configuration read");
                settings
            }
            Err(words) => {
                let refused = format!("{words}; the defaults are in force");
                error!(error = refused, "the configuration is refused");
                Settings::default().but_refused(refused)
            }
        });
        scalable::allow(settings.scalable_kinds.iter().map(ScalableKind::stated));
        Live { current: watch::Sender::new(Arc::new(settings)), file, first }
    }

    /// The configuration in force now.
    pub fn get(&self) -> Arc<Settings> {
        self.current.borrow().clone()
    }

    /// What the file says now, if it is another file than before: true when something changes with that.
    fn reload(&self, file: &Path) -> bool {
        let before = self.get();
        let now = match load(file) {
            Ok(settings) => {
                info!(file = %file.display(), channels = settings.channels.len(), "configuration read again");
                settings
            }
            Err(words) => {
                let refused = format!("{words}; {} in force", before.origin());
                error!(error = refused, "the configuration is refused");
                Settings::clone(&before).but_refused(refused)
            }
        };
        let changed = *before != now;
        scalable::allow(now.scalable_kinds.iter().map(ScalableKind::stated));
        self.current.send_replace(Arc::new(now));
        changed
    }
}

fn load(file: &Path) -> Result<Settings, String> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| format!("{name} cannot be read: {e}"))?;
    read(&text).map_err(|mistake| format!("{name}: {mistake}"))
}

/// One look costs microseconds, so that it needs no thread of its own.
fn state(file: &Path) -> State {
    let of = |m: Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len());
    std::fs::metadata(file).ok().map(of)
}

/// Keeps the configuration as the file is, until the process ends.
pub fn follow(ctx: &Arc<Context>) {
    let valid = ctx.settings().refused.is_none();
    ctx.metrics.config_read(valid);
    let Some(file) = ctx.live.file.clone() else { return };
    let ctx = ctx.clone();
    tokio::spawn(async move {
        let mut known = ctx.live.first;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = state(&file);
            if known == now {
                continue;
            }
            known = now;
            let changed = ctx.live.reload(&file);
            ctx.metrics.config_read(ctx.settings().refused.is_none());
            if changed {
                ctx.look_at_everything();
            }
        }
    });
}

impl Context {
    /// The configuration in force now.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.live.get()
    }

    /// Looks at what the configuration bears upon: deadlines are worked out anew from recorded facts.
    fn look_at_everything(&self) {
        for incident in self.incidents.not_at_rest() {
            self.queues.incidents.add(super::Key::of(incident.as_ref()));
        }
        for mitigation in self.mitigations.not_at_rest() {
            self.queues.mitigations.add(super::Key::of(mitigation.as_ref()));
        }
        for postmortem in self.postmortems.all() {
            self.queues.postmortems.add(super::Key::of(postmortem.as_ref()));
        }
    }
}
