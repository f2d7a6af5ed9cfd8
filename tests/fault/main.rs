//! Faults between the operator and the API server: each scenario is run undisturbed and then again with a fault at
//! every write that the operator makes, and every revision that was stored meanwhile is judged.
//!
//! `make fault`, `make fault-all`, `make fault-mutants` and `make soak` start a control plane and run this; README.md
//! in this folder tells how to add a scenario, a fault and a mutant.

mod case;
mod mode;
mod mutants;
mod options;
mod oracle;
mod proxy;
mod recorder;
mod report;
mod request;
mod scenario;
mod scenarios;
mod soak;
#[path = "../e2e/support/mod.rs"]
mod support;
mod watchdog;
mod watches;
mod world;

use case::{Case, Harness, Reference};
use clap::Parser;
use options::{Command, Options};
use report::Report;
use std::process::ExitCode;
use std::sync::Arc;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for scenario in scenarios::ALL {
            println!("{:<16} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    case::collect_panics();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed: {seed}");
    let harness = Harness::start(&options, seed).await;
    // The stories run on this thread, the proxies beside it.
    let all = async {
        match options.command {
            Command::Product => product(&harness, &options).await,
            Command::Mutants => mutants::run(&harness, &options).await,
            Command::Soak => soak::run(&harness, &options).await,
        }
    };
    let passed = tokio::task::LocalSet::new().run_until(all).await;
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each scenario with each mode at each k.
async fn product(harness: &Arc<Harness>, options: &Options) -> bool {
    let scenarios = options.scenarios();
    let modes = options.modes();
    let mut report = Report::new(options.verbose());
    let firsts = scenarios.iter().map(|s| Case { scenario: s, fault: None, mutant: None }).collect();
    let mut references: Vec<(&'static str, Arc<Reference>)> = Vec::new();
    harness
        .run_all(firsts, &[], |case, outcome| {
            references.extend(outcome.reference().map(|r| (case.scenario.name, Arc::new(r))));
            report.finished(case, outcome);
        })
        .await;
    let mut cases = Vec::new();
    for (name, reference) in &references {
        let scenario = scenarios.iter().find(|s| s.name == *name).expect("it was run");
        let strikes = match options.k {
            Some(k) => vec![k],
            None => scenario.strikes(&reference.requests, options.most.unwrap_or(scenario.most)),
        };
        report.counted(name, reference.count());
        for mode in &modes {
            let fault = |at: &usize| Some(reference.fault(*mode, *at));
            cases.extend(strikes.iter().map(|at| Case { scenario, fault: fault(at), mutant: None }));
        }
    }
    fastrand::Rng::with_seed(harness.seed).shuffle(&mut cases);
    report.expect(cases.len());
    harness.run_all(cases, &references, |case, outcome| report.finished(case, outcome)).await;
    report.print(&modes)
}
