//! The operator as a process, and what /proc says of processes.

use anyhow::Context as _;
use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The operator that `operator.sh` started, or one that was started again in its place with the same arguments.
pub struct Operator {
    pid: u32,
    child: Option<Child>,
    command: Vec<String>,
    kubeconfig: PathBuf,
    dir: PathBuf,
    log: PathBuf,
}

impl Operator {
    /// The one that runs.
    pub fn running(dir: &Path) -> anyhow::Result<Operator> {
        let pid = std::fs::read_to_string(dir.join("operator.pid")).context("no operator was started")?;
        let pid: u32 = pid.trim().parse()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        let command = command.split_terminator('\0').map(str::to_owned).collect();
        Ok(Operator {
            pid,
            child: None,
            command,
            kubeconfig: dir.join("operator.kubeconfig"),
            dir: dir.to_owned(),
            log: dir.join("operator.log"),
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.pid.to_string();
        Command::new("sh").args(["-c", "kill -s TERM \"$0\" 2>/dev/null || true", &pid]).status()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => !Path::new("/proc").join(&pid).join("exe").exists(),
            };
            if ended {
                self.child = None;
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the operator does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it, with the same arguments. Answers when it was started.
    pub fn start(&mut self) -> anyhow::Result<Instant> {
        let log = OpenOptions::new().create(true).write(true).truncate(true).open(&self.log)?;
        let [program, arguments @ ..] = self.command.as_slice() else { anyhow::bail!("no command line") };
        let begun = Instant::now();
        let child = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()?;
        self.pid = child.id();
        self.child = Some(child);
        std::fs::write(self.dir.join("operator.pid"), self.pid.to_string())?;
        Ok(begun)
    }

    /// How long after `begun` it was caught up.
    pub async fn caught_up(&mut self, begun: Instant) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            // To answer takes the operator time, too, and more so the more incidents are open: each has metrics of its own.
            let pause = begun.elapsed() / 50;
            tokio::time::sleep(pause.clamp(Duration::from_millis(10), Duration::from_secs(1))).await;
            if let Some(child) = &mut self.child {
                anyhow::ensure!(
                    child.try_wait()?.is_none(),
                    "the operator ended: see {}",
                    self.log.display()
                );
            }
            if let Some(address) = self.address()
                && get(address, "/readyz").is_ok_and(|(code, _)| code == 200)
                && let Ok((200, metrics)) = get(address, "/metrics")
                && value(&metrics, "leader_election_master_status") == Some(1.0)
                && value(&metrics, "workqueue_depth") == Some(0.0)
            {
                return Ok(begun.elapsed());
            }
            anyhow::ensure!(Instant::now() < deadline, "the operator is not caught up after 300 s");
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        let log = std::fs::read_to_string(&self.log).ok()?;
        let line = log.lines().rev().find(|line| line.contains("serving"))?;
        let rest = line.split("address=").nth(1)?.trim_start_matches('"');
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(rest.len());
        rest[..end].parse().ok()
    }

    /// What it holds in memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let mib = |field: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Memory { rss: mib("VmRSS:")?, peak: mib("VmHWM:")?, own: mib("RssAnon:")? })
    }
}

/// Memory of a process in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All that is resident.
    pub rss: f64,
    /// The most that ever was.
    pub peak: f64,
    /// Without what is mapped from the program's file.
    pub own: f64,
}

/// CPU time that a process has used, in steps of 10 ms (the kernel counts in hundredths of a second for everybody).
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("no such process")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.zip(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()))
        .ok_or_else(|| std::io::Error::other("no HTTP answer"))
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    let values: Vec<f64> = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
