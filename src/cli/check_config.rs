//! A configuration file is checked without a cluster.

use crate::{
    config::{self, Settings},
    notify::address,
};
use anyhow::{Context, bail};
use std::{fs, io::Read, path::Path};

/// Checks a file (`-` is standard input); answers what it configures, in words.
///
/// Files that it names and that are there are looked into; those that are not may be where the operator runs.
pub fn check_file(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    let text = match path == Path::new("-") {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
            text
        }
        false => fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
    };
    let settings = match config::read(&text) {
        Ok(settings) => settings,
        Err(mistake) => bail!("{}: {mistake}", path.display()),
    };
    let mut lines = vec![format!("{} is right: {}", path.display(), summary(&settings))];
    for channel in &settings.channels {
        if let Some(file) = channel.url_file.as_ref().filter(|file| file.exists()) {
            let address = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            if let Err(words) = address::parse(&address, &settings.outgoing) {
                bail!("{}: channels, {}: urlFile: {}: {words}", path.display(), channel.name, file.display());
            }
        }
    }
    let away = settings.files().into_iter().filter(|(_, file)| !file.exists());
    lines.extend(
        away.map(|(field, file)| format!("{field}: {} is not here and was not looked into", file.display())),
    );
    Ok(lines.join("\n"))
}

fn summary(settings: &Settings) -> String {
    let count = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    format!(
        "{}, {}, {}",
        count(settings.channels.len(), "channel"),
        count(settings.scalable_kinds.len(), "scalable kind"),
        count(settings.calendar.holidays.len(), "holiday"),
    )
}
