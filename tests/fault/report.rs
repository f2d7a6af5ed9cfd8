//! What people see: progress, each failure at once with what is needed to run it again, and a table in the end.

use super::case::{Case, Outcome};
use super::mode::Mode;
use super::proxy::Written;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(15);

/// Counts and prints.
pub struct Report {
    started: Instant,
    printed: Instant,
    expected: usize,
    done: usize,
    failed: usize,
    /// By scenario and mode: passed, of these such where nothing was struck, all.
    cells: BTreeMap<(&'static str, Option<Mode>), (usize, usize, usize)>,
    counts: BTreeMap<&'static str, usize>,
    verbose: bool,
}

impl Report {
    /// With every write of every run, if that is wanted.
    pub fn new(verbose: bool) -> Report {
        Report {
            started: Instant::now(),
            printed: Instant::now(),
            expected: 0,
            done: 0,
            failed: 0,
            cells: BTreeMap::new(),
            counts: BTreeMap::new(),
            verbose,
        }
    }

    /// So many runs are to come.
    pub fn expect(&mut self, cases: usize) {
        self.expected = self.done + cases;
        println!("{cases} runs with a fault to come");
    }

    /// How many writes a scenario has.
    pub fn counted(&mut self, scenario: &'static str, count: usize) {
        self.counts.insert(scenario, count);
        println!("{scenario}: {count} writes");
    }

    /// A run is finished.
    pub fn finished(&mut self, case: &Case, outcome: &Outcome) {
        self.done += 1;
        let mode = case.fault.as_ref().map(|fault| fault.mode);
        let cell = self.cells.entry((case.scenario.name, mode)).or_default();
        cell.2 += 1;
        if outcome.wrong.is_empty() {
            cell.0 += 1;
            cell.1 += usize::from(case.fault.is_some() && !outcome.struck);
        } else {
            self.failed += 1;
        }
        if !outcome.wrong.is_empty() || self.verbose {
            print_run(case, outcome);
        }
        if self.printed.elapsed() >= EVERY {
            self.printed = Instant::now();
            let took = self.started.elapsed().as_secs();
            println!(
                "{took:>5} s  {} of {} runs, {} failed",
                self.done,
                self.expected.max(self.done),
                self.failed
            );
        }
    }

    /// The table. True when all passed.
    pub fn print(&self, modes: &[Mode]) -> bool {
        println!(
            "\nruns that passed, by scenario (with its writes) and mode; after ~ those, counted apart, in which the fault had \
             nothing to strike"
        );
        let names: std::collections::BTreeSet<_> = self.cells.keys().map(|(name, _)| *name).collect();
        print!("{:<18}{:>7}{:>9}", "scenario", "writes", "no fault");
        for mode in modes {
            print!("  {:>9}", mode.name());
        }
        println!();
        for name in names {
            let cell = |mode: Option<Mode>| match self.cells.get(&(name, mode)) {
                Some((passed, 0, all)) => format!("{passed}/{all}"),
                Some((passed, missed, all)) => format!("{}/{}~{missed}", passed - missed, all - missed),
                None => "-".to_owned(),
            };
            print!("{name:<18}{:>7}{:>9}", self.counts.get(name).copied().unwrap_or(0), cell(None));
            for mode in modes {
                print!("  {:>width$}", cell(Some(*mode)), width = mode.name().len().max(9));
            }
            println!();
        }
        let took = self.started.elapsed().as_secs();
        let missed: usize = self.cells.values().map(|(_, missed, _)| missed).sum();
        println!(
            "\n{} runs in {took} s, {} failed; in {missed} the fault had nothing to strike",
            self.done, self.failed
        );
        self.failed == 0
    }
}

/// Everything about one run.
pub fn print_run(case: &Case, outcome: &Outcome) {
    let verdict = if outcome.wrong.is_empty() { "passed" } else { "FAILED" };
    let what = case.what();
    println!("\n{verdict}: {} with {what}, after {:.1} s", case.scenario.name, outcome.took.as_secs_f64());
    for words in &outcome.wrong {
        println!("    {words}");
    }
    println!("  the operator's writes:");
    for line in outcome.written.iter().map(Written::line) {
        println!("    {line}");
    }
    if !outcome.wrong.is_empty() {
        println!("  log: {}\n  again: {}", outcome.log_file, case.command());
    }
}
