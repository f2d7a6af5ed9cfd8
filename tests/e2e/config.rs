//! The configuration file: checked, read again when it changes, and never in the way when it is wrong.

use super::support::record::{incident_says, incident_when};
use super::support::workload::incident;
use super::support::*;
use incident_operator::api::{ClockName, Incident};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::SignedDuration;
use kube::api::Api;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that changes as one in a mounted ConfigMap does: by a swap of links.
pub struct Mounted {
    folder: tempfile::TempDir,
    version: u32,
}

impl Mounted {
    pub fn new(text: &str) -> Mounted {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut this = Mounted { folder, version: 0 };
        this.becomes(text);
        std::os::unix::fs::symlink("..data/config.yaml", this.path()).expect("the folder is writable");
        this
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    pub fn becomes(&mut self, text: &str) {
        self.version += 1;
        let (root, version) = (self.folder.path(), format!("..{}", self.version));
        std::fs::create_dir(root.join(&version)).expect("the folder is writable");
        std::fs::write(root.join(&version).join("config.yaml"), text).expect("the folder is writable");
        std::os::unix::fs::symlink(&version, root.join("..new")).expect("the folder is writable");
        std::fs::rename(root.join("..new"), root.join("..data")).expect("the folder is writable");
    }

    /// The operator's options with this file.
    pub fn options(&self) -> Options {
        Options { args: vec!["--config".into(), self.path().display().to_string()], ..Options::default() }
    }
}

fn every(interval: &str) -> String {
    format!("severities:\n  SEV2:\n    internalUpdate: {interval}\n")
}

/// Minutes from detection to the next internal update.
fn minutes_to_update(incident: &Incident) -> Option<i64> {
    let status = incident.status.as_ref()?;
    let clock = status.communication.iter().find(|c| c.audience == ClockName::Internal)?;
    let due: SignedDuration =
        clock.next_due_time.as_ref()?.0.duration_since(status.milestones.detected_time.as_ref()?.0);
    Some(due.as_mins())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_moves_deadlines_and_a_wrong_one_leaves_the_last_good_one_in_force() {
    let namespace = TestNamespace::new("config").await;
    let mut file = Mounted::new(&every("10m"));
    let mut operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", json!({"title": "Checkout fails", "severity": "SEV2"}))).await;
    let first = incident_when(&namespace, "checkout", "clock", |i| minutes_to_update(i) == Some(10)).await;
    assert_eq!(incident_says(&first, "Configured"), "True InForce: the operator's configuration is in force");
    operator.metric_is("incident_operator_config_valid", &[], 1.0).await;

    file.becomes(&every("45m"));
    incident_when(&namespace, "checkout", "new clock", |i| minutes_to_update(i) == Some(45)).await;

    file.becomes("severities:\n  SEV2:\n    internalUpdates: 5m\n");
    let refused = incident_when(&namespace, "checkout", "refusal", |i| {
        incident_says(i, "Configured").starts_with("False")
    })
    .await;
    let says = incident_says(&refused, "Configured");
    for part in
        ["Refused", "line 3, column 5: severities.SEV2.internalUpdates: unknown field", "stays in force"]
    {
        assert!(says.contains(part), "{part}: {says}");
    }
    assert_eq!(minutes_to_update(&refused), Some(45));
    operator.metric_is("incident_operator_config_valid", &[], 0.0).await;

    // A process that starts with it goes by the defaults, and says so.
    operator.restart().await;
    let by_default =
        incident_when(&namespace, "checkout", "default", |i| minutes_to_update(i) == Some(15)).await;
    assert!(incident_says(&by_default, "Configured").contains("the defaults are in force"));

    file.becomes(&every("20m"));
    incident_when(&namespace, "checkout", "end of the refusal", |i| {
        minutes_to_update(i) == Some(20) && incident_says(i, "Configured").starts_with("True")
    })
    .await;
    operator.metric_is("incident_operator_config_valid", &[], 1.0).await;
}

fn check(path: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_incident-operator")).arg("check-config").arg(path).output();
    let output = output.expect("the program runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("it is text");
    (output.status.success(), text)
}

#[test]
fn check_config_tells_what_is_configured_or_what_is_wrong_and_where() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("config.yaml");
    let url = folder.path().join("url");
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("the folder is writable");
    let channel =
        format!("channels:\n- {{name: a, type: Slack, audience: Internal, urlFile: {}}}\n", url.display());

    write(&file, &channel);
    let (good, text) = check(&file);
    assert!(good && text.contains("is right: 1 channel, 0 scalable kinds, 0 holidays"), "{text}");
    assert!(text.contains("urlFile") && text.contains("is not here"), "{text}");

    write(&url, "https://169.254.169.254/services/T0/B0/s3cret");
    let (good, text) = check(&file);
    assert!(!good && text.contains("its address is link-local") && !text.contains("s3cret"), "{text}");

    write(&file, "calendar:\n  weekend: [Sunday\n");
    let (good, text) = check(&file);
    assert!(!good && text.contains("config.yaml: line "), "{text}");
    let (good, text) = check(&folder.path().join("nothing"));
    assert!(!good && text.contains("No such file"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_gives_the_operator_a_file_that_it_takes() {
    let cluster = Cluster::get().await;
    let maps: Api<ConfigMap> = cluster.api(SERVICE_ACCOUNT.0);
    let map = maps.get("incident-operator-config").await.expect("the chart makes it");
    let text = &map.data.expect("it has data")["config.yaml"];
    incident_operator::config::read(text).expect("the default is right");
}
