//! A control plane of a test's own, for what belongs to a whole cluster.

use super::cluster::{Cluster, Output};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cluster inside the folder of the tests' cluster: what runs there is stopped with it, whatever happens here.
pub struct OwnCluster {
    /// Its folder: kubeconfig, audit.log, bin/.
    pub dir: PathBuf,
    name: String,
}

impl OwnCluster {
    /// Starts it under a short name, with environment variables for cluster.sh.
    pub fn start(short: &str, env: &[(&str, &str)]) -> OwnCluster {
        let dir = Cluster::dir().join("kwok").join(short);
        let own = OwnCluster { dir, name: format!("e2e-{short}") };
        let said = own.script("up", env);
        assert!(said.ok, "{}", said.stderr);
        own
    }

    fn script(&self, verb: &str, env: &[(&str, &str)]) -> Output {
        run(Command::new(root().join("tests/controlplane/cluster.sh"))
            .args([verb, &self.name])
            .arg(&self.dir)
            .envs(env.iter().copied()))
    }

    /// A program of the cluster's folder, as its admin.
    pub fn command(&self, name: &str, args: &[&str]) -> Output {
        let mut command = Command::new(self.dir.join("bin").join(name));
        command.args(args).env("KUBECONFIG", self.dir.join("kubeconfig"));
        command.env("KUBECACHEDIR", self.dir.join("kube-cache"));
        for (variable, folder) in [("CACHE", "cache"), ("CONFIG", "config"), ("DATA", "data")] {
            command.env(format!("HELM_{variable}_HOME"), self.dir.join("helm").join(folder));
        }
        run(&mut command)
    }

    /// kubectl that must succeed.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.command("kubectl", args).success()
    }

    /// helm with our chart, which must succeed.
    #[track_caller]
    pub fn helm(&self, verb: &[&str], rest: &[&str]) -> String {
        let chart = root().join("charts/incident-operator").display().to_string();
        let args: Vec<&str> = verb
            .iter()
            .copied()
            .chain([chart.as_str(), "--wait", "--timeout", "60s"])
            .chain(rest.iter().copied())
            .chain((!rest.contains(&"--namespace")).then_some("--namespace=incident-operator"))
            .collect();
        self.command("helm", &args).success()
    }

    /// Names of the definitions that are installed.
    pub fn definitions(&self) -> Vec<String> {
        let list =
            self.kubectl(&["get", "crd", "-l", "app.kubernetes.io/part-of=incident-operator", "-o", "name"]);
        list.lines().map(str::to_owned).collect()
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        // Which rights the operator used is told from all logs, after the tests.
        let kept = Cluster::dir().join("audit");
        let copied = std::fs::create_dir_all(&kept).and_then(|()| {
            std::fs::copy(self.dir.join("audit.log"), kept.join(format!("{}.log", self.name)))
        });
        if let Err(error) = copied {
            eprintln!("the audit log of {} is not kept: {error}", self.name);
        }
        self.script("down", &[]);
    }
}

/// The top of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the command can be run");
    Output {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
