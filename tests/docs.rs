//! What the documentation says of the code is there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is readable").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of tests are sentences: nothing else between backticks has so many words, but for some metrics.
fn named_tests(page: &str) -> Vec<&str> {
    let is_test = |word: &&str| {
        word.matches('_').count() >= 4 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_metric = |word: &&str| word.ends_with("_total");
    page.split('`').filter(|word| is_test(word) && !is_metric(word)).collect()
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    let code: String =
        files.iter().map(|path| fs::read_to_string(path).expect("sources are readable")).collect();
    for (page, least) in [("docs/security.md", 25), ("docs/reliability.md", 25)] {
        let text = fs::read_to_string(root().join(page)).expect("the page is there");
        let named = named_tests(&text);
        assert!(named.len() > least, "{page} names the tests that hold its lines: {named:?}");
        let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:?}");
    }
}
