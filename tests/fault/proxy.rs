//! `faultproxy`: a TLS reverse proxy between one operator and the real API server.
//!
//! It counts the operator's writes and does something to the k-th of them; everything else passes unchanged, with the
//! operator's own bearer token. It knows of each write what the API server really did with it, which is what the
//! oracle judges by: the operator itself is not asked.

mod strike;

use super::mode::Mode;
use super::request::{Class, Request};
use super::watches::{self, Bent};
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub use strike::RACED;

/// How long an operator that was started must have held its lease before it counts as being at work again.
const AT_WORK: Duration = Duration::from_millis(700);

/// A body that is passed on.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// Why a connection ends without an answer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A fault and the write that it strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub mode: Mode,
    /// To which write, counted from 1 in the undisturbed run.
    pub at: usize,
    /// What that write is and how many like it come before: work that goes on side by side may come in another order.
    /// Without, the number alone counts.
    pub write: Option<(String, usize)>,
}

/// A write of the operator, as the API server saw it.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its number.
    pub k: usize,
    /// What was asked.
    pub request: Request,
    /// What the API server answered; 0 when it was never asked.
    pub code: u16,
    /// The object in the answer, when there was one.
    pub object: Option<Arc<Value>>,
    /// The object in the second answer, where a request was carried out twice.
    pub again: Option<Arc<Value>>,
    /// What the operator was told.
    pub told: String,
}

impl Written {
    /// resourceVersion of the object after the write, when it was done.
    pub fn version(&self) -> Option<u64> {
        version_of(self.object.as_ref().filter(|_| self.is_done())?)
    }

    /// Whether the API server carried it out.
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// The objects that it made, with the resourceVersion of each.
    pub fn objects(&self) -> impl Iterator<Item = (u64, &Arc<Value>)> {
        let first = self.object.as_ref().filter(|_| self.is_done());
        first.into_iter().chain(&self.again).filter_map(|object| Some((version_of(object)?, object)))
    }

    /// One line of a log.
    pub fn line(&self) -> String {
        let version = self.version().map(|version| format!(" @{version}")).unwrap_or_default();
        format!("{:>3} {} -> {}{version} {}", self.k, self.request.brief(), self.code, self.told)
    }
}

fn version_of(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

#[derive(Default)]
struct State {
    count: usize,
    written: Vec<Written>,
    /// Nothing passes: the operator is dead and not started again yet.
    closed: bool,
    /// Writes of each kind so far.
    like: HashMap<String, usize>,
    /// Which write was struck, and when.
    struck: Option<(usize, Instant)>,
    /// Whether the fault changed anything: nobody can race a creation, and what has no history cannot be replayed.
    injected: bool,
    /// Since when the process that runs has its lease.
    leads: Option<Instant>,
    /// When a write last came or was answered, or a process began or ended.
    moved: Option<Instant>,
    /// Reads and reviews so far.
    reads: usize,
    /// Newest resourceVersion that a write made.
    newest_seen: u64,
    /// The same before each write.
    newest: Vec<u64>,
    /// Resources whose next list is answered as of this resourceVersion.
    replay: Option<(u64, Vec<String>)>,
    /// Resources whose watch was refused with 410.
    refused: Vec<String>,
}

/// What one proxy knows and does.
pub struct Shared {
    upstream: Client,
    admin: Client,
    fault: Mutex<Option<Fault>>,
    pid: AtomicU32,
    state: Mutex<State>,
    killed: Notify,
    bent: watch::Sender<Bent>,
    /// Writes that the operator waits for.
    awaited: AtomicUsize,
    /// The resource whose writes are held at the gate.
    gate: watch::Sender<Option<String>>,
    at_gate: watch::Sender<usize>,
    /// Counts the processes: what one has asked is not let through the gate for the next.
    lives: watch::Sender<usize>,
}

/// A running proxy. It ends when it goes out of scope.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy for one operator. `admin` makes the changes of somebody else.
    pub async fn start(upstream: Client, admin: Client, tls: TlsAcceptor, fault: Option<Fault>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared {
            upstream,
            admin,
            fault: Mutex::new(fault),
            pid: AtomicU32::new(0),
            state: Mutex::default(),
            killed: Notify::new(),
            bent: watch::Sender::new(Bent::No),
            awaited: AtomicUsize::new(0),
            gate: watch::Sender::new(None),
            at_gate: watch::Sender::new(0),
            lives: watch::Sender::new(0),
        });
        let task = tokio::spawn(serve(listener, tls, shared.clone()));
        Proxy { address, shared, task }
    }

    /// The process that is killed, from now on. What it asks passes.
    pub fn protects(&self, pid: u32) {
        self.shared.pid.store(pid, Ordering::SeqCst);
    }

    /// Lets requests pass again, those of a new process.
    pub fn open(&self) {
        let mut state = self.shared.lock();
        state.closed = false;
        state.leads = None;
        state.moved = Some(Instant::now());
        drop(state);
        self.shared.lives.send_modify(|count| *count += 1);
    }

    /// Waits until the operator was killed.
    pub async fn killed(&self) {
        self.shared.killed.notified().await;
    }

    /// The writes so far.
    pub fn written(&self) -> Vec<Written> {
        self.shared.lock().written.clone()
    }

    /// Number of writes so far.
    pub fn count(&self) -> usize {
        self.shared.lock().count
    }

    /// Number of reads so far.
    pub fn reads(&self) -> usize {
        self.shared.lock().reads
    }

    /// Forgets the writes so far, counts anew, and strikes with another fault.
    pub fn begin_anew(&self, fault: Fault) {
        let mut state = self.shared.lock();
        *state = State { leads: state.leads, ..State::default() };
        drop(state);
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        self.shared.bent.send_replace(Bent::No);
    }

    /// Lists are as they are again: an old one is for the start after the kill alone. What happened while the operator
    /// was down on purpose is in every list that an API server answers.
    pub fn end_replay(&self) {
        self.shared.lock().replay = None;
    }

    /// Whether the fault has struck and changed something.
    pub fn struck(&self) -> bool {
        let state = self.shared.lock();
        state.struck.is_some() && state.injected
    }

    /// How long no write came or was answered: not at all while one is waited for.
    pub fn idle(&self) -> Duration {
        match self.shared.awaited.load(Ordering::SeqCst) {
            0 => self.shared.lock().moved.map_or(Duration::MAX, |moved| moved.elapsed()),
            _ => Duration::ZERO,
        }
    }

    /// Whether what the fault brings about can be over: nothing is waited for, the operator is there and leads, and
    /// watches tell again.
    pub fn is_past(&self) -> bool {
        let mode = self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|f| f.mode);
        let aftermath = mode.map_or(Duration::ZERO, Mode::aftermath);
        let state = self.shared.lock();
        self.shared.awaited.load(Ordering::SeqCst) == 0
            && !state.closed
            && state.leads.is_some_and(|since| since.elapsed() >= AT_WORK)
            && state.struck.is_none_or(|(_, at)| at.elapsed() >= aftermath)
    }

    /// Holds writes to a resource at the gate, or none.
    pub fn hold(&self, resource: Option<&str>) {
        self.shared.gate.send_replace(resource.map(str::to_owned));
    }

    /// How many writes wait at the gate.
    pub fn at_gate(&self) -> watch::Receiver<usize> {
        self.shared.at_gate.subscribe()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The proxy's side of TLS: the API server's own certificate, which lies in the control plane's folder.
pub fn tls(cluster: &Path) -> TlsAcceptor {
    let pki = std::fs::read_dir(cluster.join("kwok/clusters"))
        .expect("the control plane keeps its state there")
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("pki"))
        .find(|path| path.join("admin.crt").is_file())
        .expect("the control plane has a certificate");
    let chain: Vec<_> = CertificateDer::pem_file_iter(pki.join("admin.crt"))
        .and_then(Iterator::collect)
        .expect("it is a certificate");
    let key = PrivateKeyDer::from_pem_file(pki.join("admin.key")).expect("it is a key");
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("key and certificate belong together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A client that adds nothing to a request: no credentials, no retries, no limits.
pub fn upstream(admin: &Config) -> Client {
    let mut config = Config::new(admin.cluster_url.clone());
    config.root_cert = admin.root_cert.clone();
    config.default_retry = false;
    (config.connect_timeout, config.read_timeout, config.write_timeout) = (None, None, None);
    Client::try_from(config).expect("a client can be made from an address and a certificate")
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    // Aborted with the proxy, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Such as too many open files, which passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(|request| answer(shared.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Ends the connection without an answer.
fn broken<T>(why: &str) -> Result<T, BoxError> {
    Err(why.into())
}

async fn answer(shared: Arc<Shared>, incoming: http::Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let request = Request::of(incoming.method(), incoming.uri());
    let (head, body) = incoming.into_parts();
    let body = body.collect().await?.to_bytes();
    if shared.lock().closed {
        return broken("the operator is dead");
    }
    match request.class {
        // In a task of its own: what the operator has asked is carried out and noted also when it dies meanwhile.
        Class::Write => {
            // Until the answer is there, or the operator waits for it no longer.
            let _awaited = Awaited::new(&shared);
            tokio::spawn(async move { shared.write(request, head, body).await }).await?
        }
        Class::Watch => shared.watch(request, head).await,
        Class::List => {
            shared.lock().reads += 1;
            let head = shared.replayed(&request, head);
            shared.pass(head, body).await
        }
        Class::Lease => {
            let writes = head.method != http::Method::GET;
            let response = shared.pass(head, body).await?;
            if writes && response.status().is_success() {
                shared.lock().leads.get_or_insert_with(Instant::now);
            }
            Ok(response)
        }
        Class::Event => shared.pass(head, body).await,
        Class::DryRun | Class::Review | Class::Read => {
            shared.lock().reads += 1;
            shared.pass(head, body).await
        }
    }
}

/// A write that the operator waits for.
struct Awaited(Arc<Shared>);

impl Awaited {
    fn new(shared: &Arc<Shared>) -> Awaited {
        shared.awaited.fetch_add(1, Ordering::SeqCst);
        Awaited(shared.clone())
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.lock().moved = Some(Instant::now());
        self.0.awaited.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the API server said, in full.
struct Said {
    head: http::response::Parts,
    body: Bytes,
}

impl Said {
    fn into_response(self) -> Response<Body> {
        Response::from_parts(self.head, whole(self.body))
    }
}

fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a request on, with the answer's body as it comes.
    async fn forward(
        &self,
        mut head: http::request::Parts,
        body: Bytes,
    ) -> Result<Response<kube::client::Body>, BoxError> {
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let request = http::Request::from_parts(head, kube::client::Body::from(body.to_vec()));
        Ok(self.upstream.send(request).await?)
    }

    async fn pass(&self, head: http::request::Parts, body: Bytes) -> Result<Response<Body>, BoxError> {
        let response = self.forward(head, body).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.map_err(Into::into).boxed_unsync()))
    }

    /// Asks the API server, and reads the whole answer.
    async fn ask(&self, head: &http::request::Parts, body: &Bytes) -> Result<Said, BoxError> {
        let mut copy = http::Request::new(());
        *copy.method_mut() = head.method.clone();
        *copy.uri_mut() = head.uri.clone();
        *copy.headers_mut() = head.headers.clone();
        let (head, body) = self.forward(copy.into_parts().0, body.clone()).await?.into_parts();
        Ok(Said { head, body: body.collect().await?.to_bytes() })
    }

    /// The list as of an earlier moment, if that is to be answered: the API server's own history, not an invention.
    fn replayed(&self, request: &Request, mut head: http::request::Parts) -> http::request::Parts {
        let mut state = self.lock();
        let Some((version, done)) = state.replay.as_mut() else { return head };
        let ours = head.uri.path().contains("/apis/incident-operator.dev/");
        // Policies are the cluster's, and their history is not this scenario's.
        if !ours || request.resource == "mitigationpolicies" || done.contains(&request.resource) {
            return head;
        }
        if done.is_empty() {
            // What came later is told a while later, as where a server lags behind.
            self.bent.send_replace(Bent::delay());
        }
        done.push(request.resource.clone());
        let version = *version;
        state.injected = true;
        let kept = head.uri.query().unwrap_or_default().split('&');
        let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("resourceVersion"));
        let query: Vec<String> = kept
            .map(str::to_owned)
            .chain([format!("resourceVersion={version}"), "resourceVersionMatch=Exact".to_owned()])
            .collect();
        if let Ok(uri) = format!("{}?{}", head.uri.path(), query.join("&")).parse() {
            head.uri = uri;
        }
        head
    }

    async fn watch(&self, request: Request, head: http::request::Parts) -> Result<Response<Body>, BoxError> {
        let bent = self.bent.subscribe();
        // One that begins with a list of its own resumes nothing.
        let resumes =
            request.uri.contains("resourceVersion=") && !request.uri.contains("sendInitialEvents=true");
        if matches!(*bent.borrow(), Bent::Gone(_)) && resumes && self.once(&request) {
            return status(StatusCode::GONE, "Expired", "too old resource version");
        }
        let response = self.forward(head, Bytes::new()).await?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Ok(Response::from_parts(head, body.map_err(Into::into).boxed_unsync()));
        }
        Ok(Response::from_parts(head, watches::bend(body, bent)))
    }

    /// True the first time for a resource.
    fn once(&self, request: &Request) -> bool {
        let mut state = self.lock();
        let new = !state.refused.contains(&request.resource);
        if new {
            state.refused.push(request.resource.clone());
        }
        new
    }
}

fn status(code: StatusCode, reason: &str, words: &str) -> Result<Response<Body>, BoxError> {
    let text = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": words, "reason": reason, "code": code.as_u16(),
    });
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(whole(Bytes::from(text.to_string())))?)
}
