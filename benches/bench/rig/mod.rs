//! What the measurements share: clients, observers, the operator as a process, the audit log, samples.

pub mod audit;
pub mod kinds;
pub mod observer;
pub mod process;
pub mod samples;
pub mod seed;

use anyhow::Context as _;
pub use kinds::RAW;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use process::Operator;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

/// Namespace in which everything is done; the chart lets the operator act there.
pub const NAMESPACE: &str = "bench";

/// The cluster and what is wanted.
pub struct Rig {
    /// Folder of the cluster; reports go there, too.
    pub dir: PathBuf,
    /// The admin: makes what people make, and runs the floors.
    pub admin: Client,
    /// The operator.
    pub operator: Operator,
    /// The large sizes, too.
    pub full: bool,
    begun: Instant,
}

impl Rig {
    /// Finds the cluster that `tests/bench.sh` has started.
    pub async fn new() -> anyhow::Result<Rig> {
        let dir: PathBuf =
            std::env::var_os("BENCH_DIR").context("BENCH_DIR is not set: run make bench")?.into();
        Ok(Rig {
            admin: client(&dir.join("kubeconfig")).await?,
            operator: Operator::running(&dir)?,
            full: std::env::var("BENCH").is_ok_and(|wanted| wanted == "full"),
            begun: Instant::now(),
            dir,
        })
    }

    /// Says how far it is.
    pub fn say(&self, text: &str) {
        eprintln!("[{:>4} s] {text}", self.begun.elapsed().as_secs());
    }

    /// Shows that something goes on, on one line of a terminal.
    pub fn tick(&self, what: &str, done: usize, of: usize) {
        use std::io::IsTerminal as _;
        let mut out = std::io::stderr();
        if out.is_terminal() {
            // What cannot be shown is not worth ending for.
            let _ = write!(out, "\r[{:>4} s]   {what}: {done} of {of}\x1b[K", self.begun.elapsed().as_secs());
            if done == of {
                let _ = write!(out, "\r\x1b[K");
            }
            let _ = out.flush();
        }
    }

    /// The pid of a part of the control plane.
    pub fn part(&self, name: &str) -> anyhow::Result<u32> {
        let pids = std::fs::read_dir(self.dir.join("kwok/clusters"))?;
        for cluster in pids {
            let file = cluster?.path().join("pids").join(format!("{name}.pid"));
            if let Ok(text) = std::fs::read_to_string(&file) {
                return text.trim().parse().with_context(|| format!("{} holds no pid", file.display()));
            }
        }
        anyhow::bail!("{name} has no pid file")
    }
}

/// A client as the operator uses it: no retries of its own, so that a slow answer is a slow answer.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
