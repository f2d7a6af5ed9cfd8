//! P4 to P7: what the number of incidents costs. Requests at rest, memory, the time of a start, and whether a
//! mitigation takes effect later.

use crate::{
    lifecycle::{Life, World},
    p1::{TARGETS, interleaved},
    report::{Goal, Report, Row},
    rig::{
        Rig,
        audit::{Request, counted},
        kinds,
        samples::Spread,
        seed::{self, Templates},
    },
};
use incident_operator::api::Incident;
use kube::{Api, Client, api::ListParams};
use std::time::{Duration, Instant};

/// Starts that are measured: more where they are short, since half a second says little on a shared machine.
fn starts(size: usize) -> usize {
    if size > 1000 { 3 } else { 5 }
}

/// A watch lives for so long, so each is renewed once in this time.
const REST: Duration = Duration::from_secs(55);
/// Parts of P7, each with a median of its own, and lives of each kind in one.
const PARTS: usize = 4;
const ROUNDS: usize = 12;

/// What a mitigation alone and an incident with one take, against the floor of the same moment, in each part.
type Ratios = Vec<(f64, f64)>;

/// Measures.
pub async fn run(rig: &mut Rig, report: &mut Report) -> anyhow::Result<()> {
    let mut sizes = vec![0, 1000, 10_000];
    if rig.full {
        sizes.push(50_000);
    }
    if std::env::var_os("QUICK").is_some() {
        sizes = vec![0, 100];
    }
    // For who measures these alone.
    kinds::make_raw_kinds(&rig.admin).await?;
    kinds::clean(rig).await?;
    let mut there = 0;
    let mut measured = Vec::new();
    let mut templates = None;
    for size in sizes.iter().copied() {
        if size > there {
            // They have to live once, with the operator.
            if templates.is_none() {
                let made = Templates::make(rig).await?;
                report
                    .notes
                    .push(format!("An incident of the background has {} bytes as JSON.\n", made.bytes()));
                templates = Some(made);
            }
            rig.operator.stop().await?;
            rig.say(&format!("making {} incidents for the background", size - there));
            if let Some(templates) = &templates {
                templates.copy(rig, there, size).await?;
            }
            there = size;
        }
        start(rig, report, size).await?;
        let peak = rig.operator.memory()?.peak;
        // What was only needed for the start is given back by the end of it.
        rest(rig, report, size).await?;
        memory(rig, report, size, peak)?;
        if size == 0 || sizes.last() == Some(&size) || size == 10_000 {
            measured.push((size, lives(rig, &size.to_string()).await?));
        }
    }
    // Once more with none: a machine that has become another meanwhile says nothing about the incidents.
    rig.operator.stop().await?;
    seed::remove(rig).await?;
    let begun = rig.operator.start()?;
    rig.operator.caught_up(begun).await?;
    let afterwards = lives(rig, "none-again").await?;
    grown(report, &measured, &afterwards);
    Ok(())
}

async fn lives(rig: &Rig, label: &str) -> anyhow::Result<Ratios> {
    rig.say(&format!("P7: a mitigation among incidents: {label}"));
    let world = World::make(rig, TARGETS).await?;
    let lives = [(Life::Floor(1), 1), (Life::Mitigation, 1), (Life::Incident(1), 1)];
    interleaved(rig, &world, &format!("p7-warm-{label}"), &lives, 5).await?;
    let mut ratios = Vec::new();
    for part in 0..PARTS {
        let samples =
            interleaved(rig, &world, &format!("p7-{label}-{part}"), &lives, crate::count(ROUNDS)).await?;
        let p50 = |i: usize| samples[i].visible().percentile(50.0);
        ratios.push((p50(1) / p50(0), p50(2) / p50(0)));
    }
    Ok(ratios)
}

/// P6.
async fn start(rig: &mut Rig, report: &mut Report, size: usize) -> anyhow::Result<()> {
    let mut pairs = Vec::new();
    let mut writes = 0;
    let starts = starts(size);
    for repetition in 1..=starts {
        rig.say(&format!("P6: start with {size} incidents, {repetition} of {starts}"));
        rig.operator.stop().await?;
        let raw = list(&rig.admin).await?;
        let mark = rig.mark().await?;
        let begun = rig.operator.start()?;
        let took = rig.operator.caught_up(begun).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        writes += rig.requests(mark).await?.iter().filter(|r| is_write(r)).count();
        pairs.push((raw.as_secs_f64() * 1e3, took.as_secs_f64() * 1e3));
    }
    let goal = if size >= 1000 { Goal::Ratio(1.5) } else { Goal::None };
    report.rows.push(Row::against(
        "P6",
        format!("start with {size} incidents, against a LIST"),
        "ms",
        &pairs,
        goal,
    ));
    let writes = Spread::one(writes as f64 / starts as f64);
    report.rows.push(Row::plain(
        "P6",
        format!("writes at a start with {size} incidents"),
        "requests",
        writes,
        Goal::Exactly(0.0),
    ));
    Ok(())
}

/// All incidents, page by page, decoded into the operator's own types.
async fn list(client: &Client) -> anyhow::Result<Duration> {
    let api: Api<Incident> = Api::all(client.clone());
    let mut begun = Instant::now();
    let mut behind = 0;
    let mut params = ListParams::default().limit(500);
    loop {
        let page = match api.list(&params).await {
            // What was put into etcd a moment ago has not reached the API server: it is measured from anew.
            Err(kube::Error::Api(status)) if status.code == 504 && behind < 30 => {
                behind += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
                (begun, params) = (Instant::now(), ListParams::default().limit(500));
                continue;
            }
            page => page?,
        };
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(begun.elapsed()),
        }
    }
}

fn is_write(request: &Request) -> bool {
    !matches!(request.verb.as_str(), "get" | "list" | "watch")
        && !["leases", "events"].contains(&request.resource.as_str())
}

/// P5.
fn memory(rig: &mut Rig, report: &mut Report, size: usize, peak: f64) -> anyhow::Result<()> {
    let memory = rig.operator.memory()?;
    let goal = match size {
        0 => Goal::Most(15.0),
        1000 => Goal::Most(30.0),
        10_000 => Goal::Most(70.0),
        50_000 => Goal::Most(250.0),
        _ => Goal::None,
    };
    rig.say(&format!(
        "P5: {:.1} MiB with {size} incidents, {:.1} of its own, peak {peak:.1}",
        memory.rss, memory.own
    ));
    report.rows.push(Row::plain(
        "P5",
        format!("RSS with {size} incidents"),
        "MiB",
        Spread::one(memory.rss),
        goal,
    ));
    report.rows.push(Row::plain(
        "P5",
        format!("of it not the program's file, {size} incidents"),
        "MiB",
        Spread::one(memory.own),
        Goal::None,
    ));
    report.rows.push(Row::against(
        "P5",
        format!("peak at start with {size} incidents, against what stays"),
        "MiB",
        &[(memory.rss, peak)],
        Goal::Ratio(2.0),
    ));
    Ok(())
}

/// P4.
async fn rest(rig: &mut Rig, report: &mut Report, size: usize) -> anyhow::Result<()> {
    rig.say(&format!("P4: {} s of rest with {size} incidents", REST.as_secs()));
    let mark = rig.mark().await?;
    tokio::time::sleep(REST).await;
    let requests = rig.requests(mark).await?;
    let minute = |count: usize| Spread::one(count as f64 * 60.0 / REST.as_secs_f64());
    let count = |wanted: &dyn Fn(&Request) -> bool| minute(requests.iter().filter(|r| wanted(r)).count());
    report.rows.push(Row::plain(
        "P4",
        format!("watches renewed in a minute of rest, {size} incidents"),
        "requests",
        count(&|r| r.verb == "watch"),
        Goal::None,
    ));
    report.rows.push(Row::plain(
        "P4",
        format!("renewals of the lease in a minute of rest, {size} incidents"),
        "requests",
        count(&|r| r.resource == "leases"),
        Goal::None,
    ));
    let others: Vec<_> = requests.iter().filter(|r| r.verb != "watch" && r.resource != "leases").collect();
    report.rows.push(Row::plain(
        "P4",
        format!("all else in a minute of rest, {size} incidents"),
        "requests",
        minute(others.len()),
        Goal::Exactly(0.0),
    ));
    if !others.is_empty() {
        report.notes.push(format!(
            "At rest with {size} incidents: {:?}, the first {}\n",
            counted(others.iter().copied()),
            others[0].uri
        ));
    }
    Ok(())
}

/// P7: by how much the ratio to the floor has grown, so that a slower API server counts against itself. What it was without
/// incidents is the mean of before and after.
fn grown(report: &mut Report, measured: &[(usize, Ratios)], afterwards: &Ratios) {
    let Some(((_, before), among)) = measured.split_first() else { return };
    for (what, pick) in
        [("Mitigation alone", (|r| r.0) as fn(&(f64, f64)) -> f64), ("Incident with one", |r| r.1)]
    {
        let pairs = |now: &Ratios, none: &dyn Fn(f64, f64) -> f64| -> Vec<(f64, f64)> {
            let none = before.iter().zip(afterwards).map(|(b, a)| none(pick(b), pick(a)));
            none.zip(now.iter().map(pick)).collect()
        };
        for (size, now) in among {
            let what = format!("{what} among {size} incidents, p50 by floor, against none");
            report.rows.push(Row::against(
                "P7",
                what,
                "× F1",
                &pairs(now, &|b, a| (b + a) / 2.0),
                Goal::Ratio(1.05),
            ));
        }
        let what = format!("{what} without any, at the end against the beginning: what chance does");
        report.rows.push(Row::against("P7", what, "× F1", &pairs(afterwards, &|b, _| b), Goal::None));
    }
}
