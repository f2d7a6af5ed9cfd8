//! The seeded bugs of the fault harness are in no build but the harness's own.
#![cfg(not(feature = "mutants"))]

use std::process::Command;

const OPERATOR: &str = env!("CARGO_BIN_EXE_incident-operator");

#[test]
fn the_operator_knows_no_flag_for_a_seeded_bug() {
    let output = Command::new(OPERATOR).args(["run", "--mutant", "capture-twice"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("unexpected argument '--mutant'"), "{said}");
}

#[test]
fn no_seeded_bug_is_compiled_into_the_operator() {
    let binary = std::fs::read(OPERATOR).expect("it is readable");
    let contains = |text: &str| binary.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains("watch-namespace"), "what is searched for can be found");
    for name in ["capture-after-change", "CaptureAfterChange", "retry-of-post", "RetryOfPost"] {
        assert!(!contains(name), "{name}");
    }
}

#[test]
fn no_feature_of_the_package_is_on_by_itself() {
    let manifest = include_str!("../Cargo.toml");
    assert!(
        !manifest.lines().any(|line| line.starts_with("default =")),
        "a default feature could bring mutants"
    );
    assert!(!include_str!("../Dockerfile").contains("mutants"));
}
