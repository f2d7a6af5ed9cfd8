//! The parts of the control plane as processes: stopped, killed, started again with their own command line. For the
//! tests that disturb everything, which run one after the other.

use super::cluster::{Cluster, kubectl};
use super::poll::wait_for;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A part of the control plane.
pub struct Part {
    name: &'static str,
    pid_file: PathBuf,
}

impl Part {
    /// kube-apiserver, etcd, …
    pub fn named(name: &'static str) -> Part {
        let clusters = Cluster::dir().join("kwok/clusters");
        let found = fs::read_dir(&clusters).expect("the cluster runs").filter_map(Result::ok);
        let mut pids = found.map(|entry| entry.path().join(format!("pids/{name}.pid")));
        Part { name, pid_file: pids.find(|path| path.exists()).expect("it has a pid file") }
    }

    fn pid(&self) -> u32 {
        let text = fs::read_to_string(&self.pid_file).expect("it runs");
        text.trim().parse().expect("a pid")
    }

    /// Its command line.
    pub fn command_line(&self) -> Vec<String> {
        let text = fs::read(format!("/proc/{}/cmdline", self.pid())).expect("it runs");
        let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// Value of a flag of its command line.
    pub fn flag(&self, name: &str) -> Option<String> {
        let prefix = format!("--{name}=");
        self.command_line().iter().find_map(|word| word.strip_prefix(&prefix).map(str::to_owned))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {name} to {}", self.name);
    }

    /// Stops it until the answer goes out of scope.
    pub fn freeze(&self) -> Frozen<'_> {
        self.signal("STOP");
        Frozen(self)
    }

    /// Kills it at once, and starts it again after a while.
    pub async fn kill_and_start(&self, down: Duration) {
        let started = Started::of(self);
        self.signal("KILL");
        wait_for(Duration::from_secs(10), "end of the process", async || (!self.lives()).then_some(())).await;
        tokio::time::sleep(down).await;
        started.again(self);
    }

    /// For another command line, until the answer goes out of scope.
    pub fn changeable(&self) -> Changed<'_> {
        Changed { part: self, before: Started::of(self) }
    }

    fn lives(&self) -> bool {
        // Whoever started it may be gone, so that nobody takes note of its end. Its port is free when its last thread is
        // gone, which may be a moment later.
        let pid = self.pid();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        !state.is_empty() && (threads > 1 || !state.contains(") Z "))
    }
}

/// How a part was started.
#[derive(Clone)]
struct Started {
    words: Vec<String>,
    folder: PathBuf,
    log: Option<PathBuf>,
}

impl Started {
    fn of(part: &Part) -> Started {
        let pid = part.pid();
        Started {
            words: part.command_line(),
            folder: fs::read_link(format!("/proc/{pid}/cwd")).expect("it runs"),
            log: fs::read_link(format!("/proc/{pid}/fd/1")).ok(),
        }
    }

    fn again(&self, part: &Part) {
        let log = self.log.as_ref().and_then(|log| OpenOptions::new().append(true).open(log).ok());
        let output =
            || log.as_ref().map_or(Stdio::null(), |log| Stdio::from(log.try_clone().expect("copied")));
        let mut child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            // It outlives the test, as the rest of the cluster does.
            .process_group(0)
            .spawn()
            .expect("it starts again");
        fs::write(&part.pid_file, child.id().to_string()).expect("its pid can be noted");
        // So that its end is noted, too, as long as we are here.
        std::thread::spawn(move || child.wait());
    }
}

/// All parts as they run now. Those that end because the API server was away for long, as the controllers of
/// Kubernetes do when they lose their lease, are started again, as a kubelet would: when asked, and at the end.
pub struct Parts(Vec<(Part, Started)>);

impl Parts {
    /// Takes note of what runs.
    pub fn note() -> Parts {
        let names =
            ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller"];
        let parts = names.map(Part::named);
        Parts(
            parts
                .into_iter()
                .map(|part| {
                    let started = Started::of(&part);
                    (part, started)
                })
                .collect(),
        )
    }

    /// Starts what has ended.
    pub fn revive(&self) {
        for (part, started) in &self.0 {
            if !part.lives() {
                println!("{} has ended and is started again", part.name);
                started.again(part);
            }
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.revive();
    }
}

/// A part that may run with another command line than its own, which it gets back at the end.
pub struct Changed<'a> {
    part: &'a Part,
    before: Started,
}

impl Changed<'_> {
    /// Kills it, and starts it at once with its own command line and this change to it.
    pub async fn restart(&self, change: impl FnOnce(&mut Vec<String>)) {
        let Started { mut words, folder, log } = self.before.clone();
        change(&mut words);
        self.part.signal("KILL");
        wait_for(Duration::from_secs(10), "end of the process", async || (!self.part.lives()).then_some(()))
            .await;
        Started { words, folder, log }.again(self.part);
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        if self.part.lives() {
            self.part.signal("KILL");
        }
        let end = Instant::now() + Duration::from_secs(10);
        while self.part.lives() && Instant::now() < end {
            std::thread::yield_now();
        }
        self.before.again(self.part);
    }
}

/// A part that is stopped.
pub struct Frozen<'a>(&'a Part);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.signal("CONT");
    }
}

/// Waits until the API server answers and says that it is ready.
pub async fn api_server_is_ready() {
    wait_for(Duration::from_secs(90), "readiness of the API server", async || {
        let said = kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"]);
        if said.ok { Ok(()) } else { Err(said.stderr) }
    })
    .await;
}

/// Asks etcd by its HTTP gateway, and returns the answer.
pub fn etcd(path: &str, body: &serde_json::Value) -> serde_json::Value {
    let part = Part::named("etcd");
    let urls = part.flag("listen-client-urls").or_else(|| {
        let words = part.command_line();
        let place = words.iter().position(|word| word == "--listen-client-urls")?;
        words.get(place + 1).cloned()
    });
    let urls = urls.expect("etcd says where it listens");
    let address = urls.split(',').next().and_then(|url| url.strip_prefix("http://")).expect("plain HTTP");
    let address = address.replace("0.0.0.0", "127.0.0.1");
    let mut stream = TcpStream::connect(&address).expect("etcd listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("etcd reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("etcd answers");
    let (head, answer) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    assert!(head.contains(" 200 "), "{text}");
    serde_json::from_str(answer).expect("JSON")
}

/// An object with what the API server gives one that is created, to be stored by [`store`].
pub fn born(mut object: serde_json::Value, namespace: &str) -> serde_json::Value {
    object["metadata"] = serde_json::json!({
        "name": object["metadata"]["name"], "namespace": namespace, "generation": 1,
        "creationTimestamp": "2026-01-05T10:00:00Z",
        "uid": format!("{:08x}-0000-4000-8000-{:012x}", fastrand::u32(..), fastrand::u32(..)),
    });
    object
}

/// Stores an object as it is, past the schema and admission: as another version, or another policy, let it in.
pub fn store(group: &str, plural: &str, object: &serde_json::Value) {
    let text = |bytes: &[u8]| {
        serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).expect("base64 of any bytes")
    };
    let prefix = Part::named("kube-apiserver").flag("etcd-prefix").unwrap_or("/registry".to_owned());
    let meta = &object["metadata"];
    let part = |name: &str| meta[name].as_str().expect("it has a name and a namespace").to_owned();
    // The kinds of Kubernetes itself lie without their group.
    let kind = if group.is_empty() { plural.to_owned() } else { format!("{group}/{plural}") };
    let key = format!("{prefix}/{kind}/{}/{}", part("namespace"), part("name"));
    let value = object.to_string();
    etcd("/v3/kv/put", &serde_json::json!({"key": text(key.as_bytes()), "value": text(value.as_bytes())}));
}
