//! What is said in the end: JSON for machines, a table for people, Markdown for the documentation, a picture.

use crate::rig::{Rig, samples::Spread};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Goal {
    /// Nothing was promised.
    None,
    /// The ratio to the floor is at most this.
    Ratio(f64),
    /// The ratio to the floor is at least this.
    RatioAtLeast(f64),
    /// The figure is at most this.
    Most(f64),
    /// The figure is this.
    Exactly(f64),
}

/// One line of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// P1 to P9.
    pub p: String,
    /// What was measured.
    pub what: String,
    /// Unit of floor and figure.
    pub unit: String,
    /// The same done by a raw loop with the same client in the same run.
    pub floor: Option<Spread>,
    /// The figure.
    pub ours: Spread,
    /// Figure by floor, worked out in each repetition.
    pub ratio: Option<Spread>,
    /// What it is to be.
    pub goal: Goal,
}

impl Row {
    /// A figure without a floor.
    pub fn plain(p: &str, what: impl Into<String>, unit: &str, ours: Spread, goal: Goal) -> Row {
        Row { p: p.into(), what: what.into(), unit: unit.into(), floor: None, ours, ratio: None, goal }
    }

    /// A figure with its floor, one pair a repetition.
    pub fn against(p: &str, what: impl Into<String>, unit: &str, pairs: &[(f64, f64)], goal: Goal) -> Row {
        Row {
            p: p.into(),
            what: what.into(),
            unit: unit.into(),
            floor: Some(Spread::of(pairs.iter().map(|(floor, _)| *floor))),
            ours: Spread::of(pairs.iter().map(|(_, ours)| *ours)),
            ratio: Some(Spread::of(pairs.iter().map(|(floor, ours)| ours / floor))),
            goal,
        }
    }

    /// Whether the goal is met; `None` without one.
    pub fn met(&self) -> Option<bool> {
        let ratio = self.ratio.map(|r| r.median);
        match self.goal {
            Goal::None => None,
            Goal::Ratio(most) => ratio.map(|r| r <= most),
            Goal::RatioAtLeast(least) => ratio.map(|r| r >= least),
            Goal::Most(most) => Some(self.ours.median <= most),
            Goal::Exactly(wanted) => Some((self.ours.median - wanted).abs() < 0.005),
        }
    }
}

/// Everything that was found.
#[derive(Default)]
pub struct Report {
    /// Figures.
    pub rows: Vec<Row>,
    /// Tables that stand for themselves, in Markdown.
    pub notes: Vec<String>,
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn spread(s: &Spread) -> String {
    if s.min == s.max {
        number(s.median)
    } else {
        format!("{} ({}–{})", number(s.median), number(s.min), number(s.max))
    }
}

impl Goal {
    fn words(self, unit: &str) -> String {
        match self {
            Goal::None => "–".to_owned(),
            Goal::Ratio(most) => format!("≤ {most} ×"),
            Goal::RatioAtLeast(least) => format!("≥ {least} ×"),
            Goal::Most(most) => format!("≤ {most} {unit}"),
            Goal::Exactly(wanted) => format!("{wanted} {unit}"),
        }
    }
}

/// The figures as a Markdown table.
pub fn markdown(rows: &[Row]) -> String {
    let mut text =
        "| | What | Unit | Floor | Ours | Ratio | Goal | Met |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let met = match row.met() {
            None => "–",
            Some(true) => "yes",
            Some(false) => "**no**",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {met} |",
            row.p,
            row.what,
            row.unit,
            row.floor.as_ref().map_or("–".to_owned(), spread),
            spread(&row.ours),
            row.ratio.as_ref().map_or("–".to_owned(), spread),
            row.goal.words(&row.unit),
        );
    }
    text
}

/// The figures as columns for a terminal.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let head = ["", "what", "unit", "floor", "ours", "ratio", "goal", "met"].map(str::to_owned);
    let mut lines = vec![head];
    for row in rows {
        lines.push([
            row.p.clone(),
            row.what.clone(),
            row.unit.clone(),
            row.floor.as_ref().map_or("–".to_owned(), spread),
            spread(&row.ours),
            row.ratio.as_ref().map_or("–".to_owned(), spread),
            row.goal.words(&row.unit),
            row.met().map_or("–", |met| if met { "yes" } else { "NO" }).to_owned(),
        ]);
    }
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    for line in &lines {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{cell}{}  ", " ".repeat(width - cell.chars().count()));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The machine and the versions.
pub async fn setting(rig: &Rig) -> anyhow::Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("").trim_matches([' ', '\t', ':']);
    let version = rig.admin.apiserver_version().await?;
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    Ok(json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": model,
        "memoryKiB": read("/proc/meminfo").lines().next().and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()),
        "kubernetes": version.git_version,
        "operator": env!("CARGO_PKG_VERSION"),
        "etcdOn": std::env::var("BENCH_MEDIUM").unwrap_or_else(|_| "disk".to_owned()),
        "size": if rig.full { "full" } else { "default" },
        "loadBefore": load,
        "time": k8s_openapi::jiff::Timestamp::now().to_string(),
    }))
}

impl Report {
    /// Writes what was found so far.
    pub fn write(&self, rig: &Rig, setting: &Value, name: &str) -> anyhow::Result<()> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let mut value = serde_json::to_value(row)?;
                value["met"] = json!(row.met());
                Ok(value)
            })
            .collect::<serde_json::Result<_>>()?;
        let json = json!({"setting": setting, "rows": rows, "notes": self.notes});
        std::fs::write(rig.dir.join(format!("{name}.json")), serde_json::to_string_pretty(&json)?)?;
        let text = |key: &str| setting[key].as_str().map_or_else(|| setting[key].to_string(), str::to_owned);
        let mut page = format!(
            "{} cores ({}), Kubernetes {}, etcd on {}, operator {} (release build), {}, load before: {}. Median (least–greatest) of the repetitions.\n\n{}",
            text("cores"),
            text("cpu"),
            text("kubernetes"),
            text("etcdOn"),
            text("operator"),
            text("time"),
            text("loadBefore"),
            markdown(&self.rows),
        );
        for note in &self.notes {
            let _ = write!(page, "\n{note}");
        }
        std::fs::write(rig.dir.join(format!("{name}.md")), page)?;
        crate::plot::draw(&rig.dir.join(format!("{name}.svg")), &self.rows)
    }
}
