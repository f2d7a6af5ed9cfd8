//! The benchmarks: how fast the operator is beside a raw loop of the same requests with the same client in the same
//! run, what it asks of the API server, and how that grows.
//!
//! `make bench` starts a cluster of its own, installs the chart, starts a release build of the operator under the
//! chart's ServiceAccount, and runs this. `ONLY=P1,P3` measures these alone, `BENCH=full` the large sizes too,
//! `QUICK=1` a tenth of the samples, to see that it runs.

mod lifecycle;
mod p1;
mod p2;
mod p3;
mod p8;
mod p9;
mod plot;
mod report;
mod rig;
mod sizes;

use futures::future::LocalBoxFuture;
use report::Report;
use rig::Rig;

/// How many samples are taken.
fn count(usual: usize) -> usize {
    if std::env::var_os("QUICK").is_some() { usual.div_ceil(10) } else { usual }
}

type Measure = for<'a> fn(&'a mut Rig, &'a mut Report) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// In this order: what comes later leaves more behind.
const MEASURES: &[(&[&str], Measure)] = &[
    (&["P1"], |rig, report| Box::pin(p1::run(rig, report))),
    (&["P3"], |rig, report| Box::pin(p3::run(rig, report))),
    (&["P2", "CPU"], |rig, report| Box::pin(p2::run(rig, report))),
    (&["P9"], |rig, report| Box::pin(p9::run(rig, report))),
    (&["P8"], |rig, report| Box::pin(p8::run(rig, report))),
    (&["P4", "P5", "P6", "P7"], |rig, report| Box::pin(sizes::run(rig, report))),
];

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let only = std::env::var("ONLY").unwrap_or_default().to_uppercase();
    let only: Vec<&str> = only.split([',', ' ']).filter(|p| !p.is_empty()).collect();
    let known = |p: &&str| MEASURES.iter().any(|(names, _)| names.contains(p));
    if let Some(unknown) = only.iter().find(|p| !known(p)) {
        let all: Vec<&str> = MEASURES.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        anyhow::bail!("ONLY={unknown} is none of {}", all.join(", "));
    }
    let name = std::env::var("BENCH_REPORT").unwrap_or_else(|_| "report".to_owned());
    let mut rig = Rig::new().await?;
    let setting = report::setting(&rig).await?;
    let mut report = Report::default();
    let mut failed = Vec::new();
    for (names, measure) in MEASURES {
        if !only.is_empty() && !names.iter().any(|name| only.contains(name)) {
            continue;
        }
        // One that fails does not cost the others: a run takes minutes, and often nobody watches it.
        if let Err(error) = measure(&mut rig, &mut report).await {
            rig.say(&format!("{} failed: {error:#}", names.join(", ")));
            report.notes.push(format!("{} failed: {error:#}\n", names.join(", ")));
            failed.push(names.join(", "));
        }
        report.write(&rig, &setting, &name)?;
    }
    rig.say("done");
    println!("{}", report::table(&report.rows));
    for note in &report.notes {
        println!("{note}");
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
    Ok(())
}
