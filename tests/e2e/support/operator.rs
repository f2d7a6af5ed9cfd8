//! The operator as a process of its own, for one test.

use super::audit::{self, Mark, Request};
use super::cluster::{Cluster, SERVICE_ACCOUNT};
use super::namespace::TestNamespace;
use super::poll::{PATIENCE, wait_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(30);

/// How an operator is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Further arguments of `run`.
    pub args: Vec<String>,
    /// Environment variables, such as RUST_LOG.
    pub env: Vec<(String, String)>,
    /// Address of the API server, when it is not the control plane's own: a proxy in between.
    pub server: Option<String>,
    /// Namespace to look after, when it is not the one that the lease lies in.
    pub watch: Option<String>,
    /// Namespace of the lease, when it is not the one that is looked after: one that is deleted takes its lease along.
    pub lease: Option<String>,
    /// The flag that says whether requests are signed, where it is known already.
    pub signed_requests: Option<String>,
}

/// A running operator that looks after one namespace and keeps its lease there, with a token of the chart's
/// ServiceAccount. It is killed when it goes out of scope; if the test failed, the end of its log is shown.
pub struct Operator {
    child: Child,
    /// Address of /livez, /readyz and /metrics.
    pub address: SocketAddr,
    /// Identity in the lease.
    pub identity: String,
    /// Where it logs.
    pub log_file: PathBuf,
    /// What the audit log calls the token: tells this operator's requests from those of all others.
    pub credential: String,
    command: Vec<String>,
    env: Vec<(String, String)>,
    // Holds the kubeconfig, and removes it at the end.
    _folder: tempfile::TempDir,
}

impl Operator {
    /// Starts an operator for the namespace and waits until it is ready.
    pub async fn start(namespace: &TestNamespace, options: Options) -> Operator {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let identity = format!("{}-{}", namespace.name, COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let kubeconfig = folder.path().join("kubeconfig");
        let credential = write_kubeconfig(&namespace.cluster, &kubeconfig, options.server.as_deref()).await;

        let logs = Cluster::dir().join("logs");
        std::fs::create_dir_all(&logs).expect("E2E_DIR is writable");
        let mut command: Vec<String> =
            ["run", "--listen", "127.0.0.1:0", "--log-format", "text"].map(str::to_owned).to_vec();
        for (flag, value) in [
            ("--watch-namespace", options.watch.as_ref().unwrap_or(&namespace.name)),
            ("--lease-namespace", options.lease.as_ref().unwrap_or(&namespace.name)),
            ("--identity", &identity),
        ] {
            command.extend([flag.to_owned(), value.clone()]);
        }
        command.push(match options.signed_requests {
            Some(flag) => flag,
            None => signed_requests(&namespace.cluster).await,
        });
        command.extend(options.args);
        let mut env = vec![
            ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ];
        env.extend(options.env);

        let log_file = logs.join(format!("{identity}.log"));
        let (child, address) = launch(&command, &env, &log_file).await;
        Operator { child, address, identity, log_file, credential, command, env, _folder: folder }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name: STOP, CONT, TERM.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {name} to the operator");
    }

    /// Asks it to stop, and returns its exit status and how long it took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal("TERM");
        let status = wait_for(Duration::from_secs(15), "end of the operator after SIGTERM", async || {
            self.child.try_wait().expect("the operator is our child")
        })
        .await;
        (status, start.elapsed())
    }

    /// Starts it again, with the same arguments and the same log, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        (self.child, self.address) = launch(&self.command, &self.env, &self.log_file).await;
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the operator is our child")
    }

    /// Starts it again, and does not wait: for a process that may be killed before it is ready. It has no address.
    pub fn respawn(&mut self) {
        self.kill();
        self.child = spawn(&self.command, &self.env, &self.log_file);
    }

    /// Body of /metrics.
    pub async fn metrics(&self) -> String {
        let (status, body) = http_get(self.address, "/metrics").expect("/metrics answers");
        assert_eq!(status, 200, "/metrics says: {body}");
        body
    }

    /// Sum of the series of a metric whose labels contain all of the given pairs; `None` without any.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        sum_of(&self.metrics().await, name, labels)
    }

    /// Waits until the sum of the series is `wanted`. What a watch tells a test, the operator may know a moment
    /// later: the answer to its own request is still on the way.
    pub async fn metric_is(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        wait_for(PATIENCE, &format!("{name} {labels:?} to be {wanted}"), async || {
            let seen = self.metric(name, labels).await;
            seen.filter(|seen| (seen - wanted).abs() < f64::EPSILON)
        })
        .await;
    }

    /// Status code of a GET of a path, `None` if nobody answers.
    pub fn get(&self, path: &str) -> Option<u16> {
        http_get(self.address, path).ok().map(|(status, _)| status)
    }

    /// Memory in use at present, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The part of it that is no page of a file, in KiB: what the code takes depends on how it was built.
    pub fn rss_anon_kib(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// Most memory that was ever in use, in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the operator runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("/proc knows the field");
        line.trim().trim_end_matches(" kB").parse().expect("it is a number of kB")
    }

    /// Its requests since the mark, from the API server's audit log.
    pub fn requests(&self, since: Mark) -> Vec<Request> {
        audit::requests(since, |request| request.credential == self.credential)
    }

    /// Its requests since the mark, once it has asked nothing but for its lease for the given time.
    pub async fn requests_once_quiet(&self, since: Mark, quiet: Duration) -> Vec<Request> {
        audit::settled(since, quiet, |request| {
            request.credential == self.credential && request.resource != "leases"
        })
        .await
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap_or_default()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- end of {}:\n{}\n---", self.log_file.display(), end_of(&self.log()));
        }
    }
}

/// The last lines of a log: enough to see what happened, not so many that the failure itself scrolls away.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The program, by a link inside E2E_DIR: what runs from there is stopped together with the control plane,
/// even when this process is killed and can stop nothing.
fn program() -> PathBuf {
    static LINK: Once = Once::new();
    let link = Cluster::dir().join("bin/incident-operator");
    LINK.call_once(|| {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_incident-operator"), &link)
            .expect("E2E_DIR/bin is writable");
    });
    link
}

fn spawn(command: &[String], env: &[(String, String)], log_file: &Path) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(log_file).expect("the log can be written");
    let output = |file: &File| Stdio::from(file.try_clone().expect("a file handle can be copied"));
    Command::new(program())
        .args(command)
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(output(&log))
        .stderr(output(&log))
        .spawn()
        .expect("the operator can be started")
}

async fn launch(command: &[String], env: &[(String, String)], log_file: &Path) -> (Child, SocketAddr) {
    let before = std::fs::metadata(log_file).map(|meta| meta.len()).unwrap_or(0) as usize;
    let mut child = spawn(command, env, log_file);
    let read = || std::fs::read_to_string(log_file).unwrap_or_default().split_off(before);
    let address = wait_for(START, "readiness of the operator", async || {
        if let Ok(Some(status)) = child.try_wait() {
            panic!("the operator ended while starting, {status}:\n{}", end_of(&read()));
        }
        let text = read();
        let address =
            serving_address(&text).ok_or_else(|| format!("no address in its log:\n{}", end_of(&text)))?;
        match http_get(address, "/readyz") {
            Ok((200, _)) => Ok(address),
            other => Err(format!("/readyz says {other:?}; its log:\n{}", end_of(&text))),
        }
    })
    .await;
    (child, address)
}

fn serving_address(log: &str) -> Option<SocketAddr> {
    let line = log.lines().rev().find(|line| line.contains("serving"))?;
    let rest = line.split("address=").nth(1)?.trim_start_matches('"');
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Whether the API server vouches for names, as the chart's Deployment tells the operator.
pub async fn signed_requests(cluster: &Cluster) -> String {
    let deployments: Api<Deployment> = cluster.api(SERVICE_ACCOUNT.0);
    let chart = deployments.get("incident-operator").await.expect("the chart is installed");
    let pod = chart.spec.and_then(|spec| spec.template.spec).expect("it has pods");
    let mut args = pod.containers.into_iter().flat_map(|container| container.args.unwrap_or_default());
    args.find(|arg| arg.starts_with("--signed-requests="))
        .expect("the chart says whether requests are signed")
}

/// Writes a kubeconfig with a fresh token of the chart's ServiceAccount, and returns what the audit log will
/// call that token.
pub async fn write_kubeconfig(cluster: &Cluster, path: &Path, server: Option<&str>) -> String {
    let accounts: Api<ServiceAccount> = cluster.api(SERVICE_ACCOUNT.0);
    let wanted: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 7200}}))
            .expect("well formed");
    let answer = accounts
        .create_token_request(SERVICE_ACCOUNT.1, &PostParams::default(), &wanted)
        .await
        .expect("the chart's ServiceAccount exists");
    let token = answer.status.expect("a token was issued").token;

    let review = TokenReview {
        spec: TokenReviewSpec { token: Some(token.clone()), audiences: None },
        ..Default::default()
    };
    let reviews: Api<TokenReview> = Api::all(cluster.client.clone());
    let review = reviews.create(&PostParams::default(), &review).await.expect("tokens can be reviewed");
    let user = review.status.and_then(|status| status.user).expect("the token is valid");
    let credential = user.extra.unwrap_or_default()["authentication.kubernetes.io/credential-id"][0].clone();

    let admin = Kubeconfig::read_from(Cluster::kubeconfig()).expect("the kubeconfig in E2E_DIR is readable");
    let upstream = admin.clusters[0].cluster.as_ref().expect("it names a cluster");
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "operator",
        "clusters": [{"name": "operator", "cluster": {
            "server": server.or(upstream.server.as_deref()),
            "certificate-authority-data": upstream.certificate_authority_data,
        }}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "operator", "context": {"cluster": "operator", "user": "operator"}}],
    });
    std::fs::write(path, text.to_string()).expect("the temporary folder is writable");
    credential
}

/// A GET without any client library: status code and body.
pub fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {text}")))
}

fn sum_of(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut sum = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
        let has = |(key, value): &(&str, &str)| found_labels.contains(&format!("{key}=\"{value}\""));
        if found == name && labels.iter().all(has) {
            *sum.get_or_insert(0.0) += value.parse::<f64>().unwrap_or(f64::NAN);
        }
    }
    sum
}

#[test]
fn series_are_summed_by_name_and_labels() {
    let text = "# HELP a b\na_total{k=\"x\",l=\"1\"} 2\na_total{k=\"y\"} 3\na 7\n";
    assert_eq!(sum_of(text, "a_total", &[]), Some(5.0));
    assert_eq!(sum_of(text, "a_total", &[("k", "x")]), Some(2.0));
    assert_eq!(sum_of(text, "a", &[]), Some(7.0));
    assert_eq!(sum_of(text, "b", &[]), None);
}

#[test]
fn the_address_is_read_from_the_last_start() {
    let log =
        "INFO serving address=127.0.0.1:1\nINFO x\nINFO serving address=127.0.0.1:41234 tls=false\nINFO y\n";
    assert_eq!(serving_address(log), Some("127.0.0.1:41234".parse().expect("valid")));
    assert_eq!(serving_address("INFO starting"), None);
}
