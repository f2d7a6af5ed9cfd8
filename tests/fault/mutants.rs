//! The proof that the harness finds bugs: each seeded bug of `src/mutants.rs` must be caught by some run.
//!
//! Needs an operator that was built with the feature `mutants`; `make fault-mutants` builds one.

use super::case::{Case, Harness, Reference};
use super::mode::Mode;
use super::options::Options;
use super::report::print_run;
use super::scenario::Scenario;
use super::scenarios;
use std::sync::Arc;
use std::time::Instant;

/// A mutant by its name on the command line, and the scenarios and modes in which it is looked for first.
pub const MUTANTS: &[(&str, &[&str], &[Mode])] = &[
    ("capture-after-change", &["expiry"], &[]),
    ("capture-twice", &["expiry"], &[Mode::KillAfter]),
    ("finalizer-too-late", &["finalizer"], &[]),
    ("finalizer-removed-first", &["one-field"], &[]),
    ("release-without-compare", &["human-edit"], &[]),
    ("status-before-effect", &["deletion"], &[]),
    ("double-fold", &["timeline"], &[Mode::KillAfter]),
    ("removed-before-folded", &["timeline"], &[Mode::KillBefore]),
    ("retry-of-post", &["postmortem"], &[Mode::LostReply]),
    ("missing-uid-test", &["replaced"], &[]),
];

/// Runs with each mutant until one is caught. True when all were.
pub async fn run(harness: &Arc<Harness>, options: &Options) -> bool {
    let started = Instant::now();
    let mut references: Vec<(&'static str, Arc<Reference>)> = Vec::new();
    let mut table = Vec::new();
    for (mutant, first, modes) in MUTANTS {
        if options.mutant.as_deref().is_some_and(|only| only != *mutant) {
            continue;
        }
        let hinted = first.iter().filter_map(|name| scenarios::ALL.iter().find(|s| s.name == *name));
        let others = scenarios::ALL.iter().filter(|s| !first.contains(&s.name));
        let mut caught = None;
        for scenario in hinted.chain(others) {
            let Some(reference) = reference(harness, scenario, &mut references).await else { return false };
            let rest = options.modes().into_iter().filter(|mode| !modes.contains(mode));
            let all: Vec<Mode> = modes.iter().copied().chain(rest).collect();
            caught = caught_by(harness, mutant, scenario, &reference, &all).await;
            if caught.is_some() {
                break;
            }
        }
        let words = caught.clone().unwrap_or_else(|| "NOT CAUGHT".to_owned());
        println!("{mutant:<26} {words}");
        table.push((mutant, caught));
    }
    println!("\nmutants and what caught them");
    for (mutant, caught) in &table {
        println!("  {mutant:<26} {}", caught.as_deref().unwrap_or("NOT CAUGHT"));
    }
    let missed = table.iter().filter(|(_, caught)| caught.is_none()).count();
    println!("\n{} mutants in {} s, {missed} not caught", table.len(), started.elapsed().as_secs());
    missed == 0
}

/// The undisturbed run of an operator without a bug.
async fn reference(
    harness: &Arc<Harness>,
    scenario: &'static Scenario,
    known: &mut Vec<(&'static str, Arc<Reference>)>,
) -> Option<Arc<Reference>> {
    if let Some((_, reference)) = known.iter().find(|(name, _)| *name == scenario.name) {
        return Some(reference.clone());
    }
    let case = Case { scenario, fault: None, mutant: None };
    let outcome = harness.run(&case, None).await;
    let Some(reference) = outcome.reference().map(Arc::new) else {
        print_run(&case, &outcome);
        return None;
    };
    known.push((scenario.name, reference.clone()));
    Some(reference)
}

/// The first run of a scenario that catches the mutant, in words: first without a fault, then with each.
async fn caught_by(
    harness: &Arc<Harness>,
    mutant: &'static str,
    scenario: &'static Scenario,
    reference: &Arc<Reference>,
    modes: &[Mode],
) -> Option<String> {
    let mut cases = vec![Case { scenario, fault: None, mutant: Some(mutant) }];
    for mode in modes {
        let strikes = scenario.strikes(&reference.requests, scenario.most).into_iter();
        cases.extend(strikes.map(|at| Case {
            scenario,
            fault: Some(reference.fault(*mode, at)),
            mutant: Some(mutant),
        }));
    }
    let references = [(scenario.name, reference.clone())];
    // A few at a time: one that catches it is enough.
    while !cases.is_empty() {
        let rest = cases.split_off(cases.len().min(harness.jobs));
        let mut caught: Vec<(Case, String)> = Vec::new();
        harness
            .run_all(std::mem::replace(&mut cases, rest), &references, |case, outcome| {
                let Some(words) = outcome.wrong.first() else { return };
                let words: String = words.chars().take(160).collect();
                let words = format!("caught by {}, {}: {words}", scenario.name, case.what());
                caught.push((case.clone(), words));
            })
            .await;
        for (case, words) in caught {
            // It counts only where the operator without the bug passes; without a fault, the reference is that run.
            let control = Case { mutant: None, ..case };
            if control.fault.is_none() {
                return Some(words);
            }
            let outcome = harness.run(&control, Some(reference)).await;
            if outcome.wrong.is_empty() {
                return Some(words);
            }
            println!("{mutant}: does not count, the operator without the bug fails the same run");
            print_run(&control, &outcome);
        }
    }
    None
}
