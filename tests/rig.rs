//! What a machine lacks is told in one line, before anything long begins.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What `need_go` says on a machine whose Go, if there is one, tells this version.
fn asked_for_go(version: Option<&str>) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for tool in ["awk", "sed", "sort", "head", "dirname", "pwd"] {
        let found =
            Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().expect("a shell runs");
        let found = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        // Some of them are part of the shell itself.
        if Path::new(&found).is_absolute() {
            std::os::unix::fs::symlink(found, folder.path().join(tool)).expect("the folder is writable");
        }
    }
    if let Some(version) = version {
        let program = folder.path().join("go");
        fs::write(&program, format!("#!/bin/sh\necho go{version}\n")).expect("the folder is writable");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let shell =
        ["/bin/bash", "/usr/bin/bash"].into_iter().find(|p| Path::new(p).exists()).expect("bash is there");
    let script = format!(". {}/tests/controlplane/lib.sh; need_go", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(shell)
        .args(["-euc", &script])
        .env_clear()
        .env("PATH", folder.path())
        .output()
        .expect("the script runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[test]
fn a_machine_without_go_or_with_an_old_one_is_told_so_in_one_line() {
    for (version, said) in [(None, "go is not installed"), (Some("1.20"), "Go 1.20 is too old")] {
        let (fine, words) = asked_for_go(version);
        assert!(!fine && words.lines().count() == 1, "{words}");
        assert!(words.contains(said) && words.contains("https://go.dev/dl"), "{words}");
    }
    assert_eq!(asked_for_go(Some("1.99.1")), (true, String::new()));
}
