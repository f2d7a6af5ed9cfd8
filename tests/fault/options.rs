//! The command line. The make targets set it from SCENARIO, MODE, K and so on.

use super::mode::Mode;
use super::scenario::Scenario;
use super::scenarios;
use clap::{Parser, ValueEnum};

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Command {
    /// Each scenario with each mode at each write.
    Product,
    /// Each seeded bug, which must be caught.
    Mutants,
    /// A random schedule of all of it, for a while.
    Soak,
}

/// Faults between the operator and the API server.
#[derive(Debug, Parser)]
pub struct Options {
    /// What is run.
    #[arg(value_enum, default_value = "product")]
    pub command: Command,
    /// Scenarios by name, separated by commas; all when left out.
    #[arg(long, value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Modes by name, separated by commas; `test` for those of `make fault-test`, `all` for all of them.
    #[arg(long, value_delimiter = ',', default_value = "test")]
    pub mode: Vec<String>,
    /// Only this write, counted from 1.
    #[arg(long)]
    pub k: Option<usize>,
    /// At most so many k of a scenario and a mode, of each kind of write some; what each scenario says when left out.
    #[arg(long)]
    pub most: Option<usize>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 8)]
    pub jobs: usize,
    /// Of the order of the runs and of the soak's schedule; a random one when left out.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Seconds without a write that end each run.
    #[arg(long, default_value_t = 1.0)]
    pub quiet: f64,
    /// Seconds without a write that end each undisturbed run.
    #[arg(long, default_value_t = 5.0)]
    pub quiet_reference: f64,
    /// Only this mutant.
    #[arg(long)]
    pub mutant: Option<String>,
    /// How long the soak takes.
    #[arg(long, default_value_t = 30.0)]
    pub minutes: f64,
    /// Prints the scenarios and ends.
    #[arg(long)]
    pub list: bool,
}

impl Options {
    /// The scenarios that were asked for.
    pub fn scenarios(&self) -> Vec<&'static Scenario> {
        if self.scenario.is_empty() {
            return scenarios::ALL.iter().collect();
        }
        let known = || scenarios::ALL.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
        let named = |name: &String| scenarios::ALL.iter().find(|s| s.name == name);
        self.scenario
            .iter()
            .map(|name| {
                named(name)
                    .unwrap_or_else(|| stop(&format!("no scenario is called {name}; there are: {}", known())))
            })
            .collect()
    }

    /// The modes that were asked for.
    pub fn modes(&self) -> Vec<Mode> {
        let mut modes = Vec::new();
        for name in &self.mode {
            match name.as_str() {
                "all" => modes.extend(Mode::ALL),
                "test" => modes.extend(Mode::TEST),
                "none" => {}
                name => modes.push(name.parse().unwrap_or_else(|words: String| stop(&words))),
            }
        }
        modes
    }

    /// Whether so many runs come that what they leave behind would be in the way.
    pub fn is_long(&self) -> bool {
        self.command == Command::Soak
            || self.command == Command::Product && self.modes().len() > Mode::TEST.len()
    }

    /// Whether one run is looked at closely.
    pub fn verbose(&self) -> bool {
        self.k.is_some()
    }
}

fn stop(words: &str) -> ! {
    eprintln!("error: {words}");
    std::process::exit(2)
}
