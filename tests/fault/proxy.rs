//! `faultproxy`: a TLS reverse proxy between one operator and the real API server.
//!
//! It counts the operator's writes and does something to the k-th of them; everything else passes unchanged, with the
//! operator's own bearer token. It knows of each write what the API server really did with it, which is what the
//! oracle judges by: the operator itself is not asked.

use super::mode::Mode;
use super::request::{Class, Request};
use super::watches::{self, Bent};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Longest time that an unanswered request is kept: longer than any client of ours waits.
const HANG: Duration = Duration::from_secs(90);

/// A body that is passed on.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// Why a connection ends without an answer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A fault and the write that it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub mode: Mode,
    /// To which write, counted from 1.
    pub at: usize,
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
    pub object: Option<Value>,
    /// What the operator was told.
    pub told: String,
}

impl Written {
    /// resourceVersion of the object after the write, when it was done.
    pub fn version(&self) -> Option<u64> {
        let object = self.object.as_ref().filter(|_| (200..300).contains(&self.code))?;
        object["metadata"]["resourceVersion"].as_str()?.parse().ok()
    }

    /// One line of a log.
    pub fn line(&self) -> String {
        let version = self.version().map(|version| format!(" @{version}")).unwrap_or_default();
        format!("{:>3} {} -> {}{version} {}", self.k, self.request.brief(), self.code, self.told)
    }
}

#[derive(Default)]
struct State {
    count: usize,
    written: Vec<Written>,
    /// Nothing passes: the operator is dead and not started again yet.
    closed: bool,
    struck: bool,
    /// Newest resourceVersion seen before each write.
    newest: Vec<u64>,
    /// Resources whose next list is answered as of this resourceVersion.
    replay: Option<(u64, Vec<String>)>,
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
        self.shared.lock().closed = false;
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

    /// Forgets the writes so far, counts anew, and strikes with another fault.
    pub fn begin_anew(&self, fault: Fault) {
        *self.shared.lock() = State::default();
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        self.shared.bent.send_replace(Bent::No);
    }

    /// Whether the fault has struck.
    pub fn struck(&self) -> bool {
        self.shared.lock().struck
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
        let Ok((stream, _)) = listener.accept().await else { return };
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
        Class::Write => tokio::spawn(async move { shared.write(request, head, body).await }).await?,
        Class::Watch => shared.watch(request, head).await,
        Class::List => {
            let head = shared.replayed(&request, head);
            shared.pass(head, body).await
        }
        Class::DryRun | Class::Lease | Class::Event | Class::Review | Class::Read => {
            shared.pass(head, body).await
        }
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

    async fn write(
        self: &Arc<Self>,
        request: Request,
        head: http::request::Parts,
        body: Bytes,
    ) -> Result<Response<Body>, BoxError> {
        let (k, mode) = {
            let mut state = self.lock();
            state.count += 1;
            let k = state.count;
            let newest = state.written.iter().filter_map(Written::version).max().unwrap_or(0);
            state.newest.push(newest);
            state.written.push(Written {
                k,
                request: request.clone(),
                code: 0,
                object: None,
                told: String::new(),
            });
            let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            let mode = fault.filter(|fault| fault.at == k).map(|fault| fault.mode);
            let again = fault.is_some_and(|f| f.mode == Mode::KillTwice && f.at + 1 == k);
            state.struck |= mode.is_some();
            (k, mode.or(again.then_some(Mode::KillAfter)))
        };
        let Some(mode) = mode else {
            let said = self.ask(&head, &body).await?;
            self.note(k, &said, "");
            return if self.lock().closed {
                broken("the operator is dead")
            } else {
                Ok(said.into_response())
            };
        };
        let told = mode.name();
        match mode {
            Mode::KillBefore => {
                self.tell(k, told);
                self.kill().await
            }
            Mode::KillAfter | Mode::KillTwice => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                self.kill().await
            }
            Mode::WatchReplay => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                self.replay(k);
                self.kill().await
            }
            Mode::LostReply => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                broken("the answer is lost")
            }
            Mode::LostRequest => {
                self.tell(k, told);
                broken("the request is lost")
            }
            Mode::Twice => {
                let first = self.ask(&head, &body).await?;
                self.note(k, &first, told);
                Ok(self.ask(&head, &body).await?.into_response())
            }
            Mode::Conflict => {
                let (reason, words) = if request.method == http::Method::POST {
                    ("AlreadyExists", "the object already exists")
                } else {
                    (
                        "Conflict",
                        "the object has been modified; please apply your changes to the latest version",
                    )
                };
                self.refuse(k, told, StatusCode::CONFLICT, reason, words)
            }
            Mode::Invalid => {
                let words = "the server rejected our request due to an error in our request";
                self.refuse(k, told, StatusCode::UNPROCESSABLE_ENTITY, "Invalid", words)
            }
            Mode::Throttled => {
                let mut response = self.refuse(
                    k,
                    told,
                    StatusCode::TOO_MANY_REQUESTS,
                    "TooManyRequests",
                    "too many requests",
                )?;
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                Ok(response)
            }
            Mode::Broken => {
                self.refuse(k, told, StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "an internal error")
            }
            Mode::Unavailable => {
                let words = "the server is currently unable to handle the request";
                self.refuse(k, told, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", words)
            }
            Mode::GatewayTimeout => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                let words = "the server was unable to return a response in the time allotted";
                status(StatusCode::GATEWAY_TIMEOUT, "Timeout", words)
            }
            Mode::Hang => {
                self.tell(k, told);
                tokio::time::sleep(HANG).await;
                broken("never answered")
            }
            Mode::HangAfter => {
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                tokio::time::sleep(HANG).await;
                broken("never answered")
            }
            Mode::Raced => {
                self.race(&request, k).await;
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                Ok(said.into_response())
            }
            Mode::WatchDelay | Mode::WatchCoalesce | Mode::WatchCut | Mode::WatchGone => {
                self.bent.send_replace(match mode {
                    Mode::WatchDelay => Bent::delay(),
                    Mode::WatchCoalesce => Bent::coalesce(),
                    Mode::WatchGone => Bent::Gone(k),
                    _ => Bent::Cut(k),
                });
                let said = self.ask(&head, &body).await?;
                self.note(k, &said, told);
                Ok(said.into_response())
            }
        }
    }

    fn note(&self, k: usize, said: &Said, told: &str) {
        let mut state = self.lock();
        let Some(written) = state.written.get_mut(k - 1) else { return };
        written.code = said.head.status.as_u16();
        written.object = serde_json::from_slice(&said.body).ok();
        written.told = told.to_owned();
    }

    fn tell(&self, k: usize, told: &str) {
        if let Some(written) = self.lock().written.get_mut(k - 1) {
            written.told = told.to_owned();
        }
    }

    fn refuse(
        &self,
        k: usize,
        told: &str,
        code: StatusCode,
        reason: &str,
        words: &str,
    ) -> Result<Response<Body>, BoxError> {
        self.tell(k, told);
        status(code, reason, words)
    }

    /// Kills the operator. From here on nothing that it asked is carried out, and it learns nothing.
    async fn kill<T>(&self) -> Result<T, BoxError> {
        self.lock().closed = true;
        let pid = self.pid.load(Ordering::SeqCst).to_string();
        let kill = move || std::process::Command::new("sh").args(["-c", "kill -KILL \"$0\"", &pid]).status();
        let _ = tokio::task::spawn_blocking(kill).await;
        self.killed.notify_one();
        broken("the operator is dead")
    }

    /// Somebody else writes to the object first.
    async fn race(&self, request: &Request, k: usize) {
        if request.name.is_empty() {
            return;
        }
        let path = request.uri.split('?').next().unwrap_or_default();
        let path = path.strip_suffix(&format!("/{}", request.subresource)).unwrap_or(path);
        let patch = json!({"metadata": {"annotations": {RACED: k.to_string()}}});
        let request = http::Request::patch(format!("{path}?fieldManager=somebody"))
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .expect("the request is well formed");
        // The object may be gone.
        let _ = self.admin.request_text(request).await;
    }

    fn replay(&self, k: usize) {
        let mut state = self.lock();
        let before = state.newest[..k].iter().rev().copied().find(|version| *version > 0);
        // Two writes back, where there are two.
        let earlier = before.and_then(|b| state.newest[..k].iter().rev().copied().find(|v| *v > 0 && *v < b));
        state.replay = earlier.or(before).map(|version| (version, Vec::new()));
    }

    /// The list as of an earlier moment, if that is to be answered: the API server's own history, not an invention.
    fn replayed(&self, request: &Request, mut head: http::request::Parts) -> http::request::Parts {
        let mut state = self.lock();
        let Some((version, done)) = state.replay.as_mut() else { return head };
        let ours = head.uri.path().contains("/apis/incident-operator.dev/");
        if !ours || done.contains(&request.resource) {
            return head;
        }
        done.push(request.resource.clone());
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
        let refused = matches!(*bent.borrow(), Bent::Gone(_)) && request.uri.contains("resourceVersion=");
        if refused && self.once(&request) {
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
        let (_, done) = state.replay.get_or_insert_with(|| (0, Vec::new()));
        let new = !done.contains(&request.resource);
        done.push(request.resource.clone());
        new
    }
}

/// Annotation that somebody else writes.
pub const RACED: &str = "fault.example/raced";

fn status(code: StatusCode, reason: &str, words: &str) -> Result<Response<Body>, BoxError> {
    let text = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": words, "reason": reason, "code": code.as_u16(),
    });
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(whole(Bytes::from(text.to_string())))?)
}
