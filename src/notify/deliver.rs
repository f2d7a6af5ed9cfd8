//! The way to a receiver.
//!
//! The host of the channel's address and no other one is asked: its name is resolved once, what it resolves to is
//! checked, and the connection goes to the address that was checked. Nothing is followed, the answer is bounded in size
//! and time, proxies of the environment are not used. What is said of a failure never holds the address or the answer,
//! in which a secret may stand.

mod error;

pub use self::error::Error;
use super::{
    address::{self, literal},
    render::{Notice, Request, Step, render},
    sign, statuspage,
};
use crate::config::{Channel, ChannelType, Outgoing};
use http::{StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

/// Largest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;
/// Largest file with a secret.
const MAX_SECRET: u64 = 64 * 1024;
/// Longest wait that a receiver may ask for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// What requests need beside the channel.
pub struct Sender {
    /// Host and port of the API server, which is nobody's receiver.
    pub api_server: Option<(String, u16)>,
}

/// What a channel is, with its secrets; read for each message, and forgotten with it.
struct Access {
    uri: Uri,
    token: Option<String>,
    secret: Option<Vec<u8>>,
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Sender {
    /// Delivers a message; answers what the receiver calls the incident, if it has a name for it.
    pub async fn deliver(
        &self,
        channel: &Channel,
        notice: &Notice<'_>,
        outgoing: &Outgoing,
    ) -> Result<Option<String>, Error> {
        let access = access(channel, outgoing)?;
        let send = |request: Request| self.send(channel, &access, outgoing, notice, request);
        let remote_id = match render(channel, notice) {
            Step::Send(request) => {
                let answer = send(request).await?;
                check(channel.type_, &answer)?;
                notice.remote_id.map(str::to_owned)
            }
            Step::Find { list, uid } => {
                // What is no list, or too long to be read, does not say that there is nothing.
                let there = parsed(&send(list).await?);
                if !there.is_array() {
                    return Err(Error::Answered(200, ", but not with a list of incidents".into()));
                }
                match statuspage::find(&there, &uid) {
                    Some(id) => {
                        send(statuspage::update(channel, notice, &id)).await?;
                        Some(id)
                    }
                    None => {
                        let made = send(statuspage::create(channel, notice)).await?;
                        let id = statuspage::id(&parsed(&made));
                        Some(id.ok_or_else(|| {
                            Error::Answered(200, ", but without the id of what it made".into())
                        })?)
                    }
                }
            }
        };
        Ok(remote_id)
    }

    /// One request, within the time that the channel has.
    async fn send(
        &self,
        channel: &Channel,
        access: &Access,
        outgoing: &Outgoing,
        notice: &Notice<'_>,
        request: Request,
    ) -> Result<Bytes, Error> {
        let exchange = async {
            let stream = self.connect(&access.uri, outgoing).await?;
            exchange(stream, build(channel, access, notice, request)?).await
        };
        timeout(channel.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(Error::NoAnswer(format!("no answer within {:?}", channel.timeout))))
    }

    /// Connects to an address of the host that was checked.
    async fn connect(&self, uri: &Uri, outgoing: &Outgoing) -> Result<Box<dyn Stream>, Error> {
        let host = uri.host().unwrap_or_default();
        let plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let addresses = resolve(host, port).await?;
        let ours = match &self.api_server {
            Some((host, port)) => resolve(host, *port).await.unwrap_or_default(),
            None => Vec::new(),
        };
        for address in &addresses {
            judge(address.ip(), plain, &ours, outgoing)?;
        }
        let mut last = Error::NoAnswer("its name resolves to no address".into());
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) if plain => return Ok(Box::new(stream)),
                Ok(stream) => return tls(host, stream, outgoing.ca_file.as_deref()).await,
                Err(error) => last = Error::NoAnswer(format!("no connection: {}", error.kind())),
            }
        }
        Err(last)
    }
}

/// Whether a request may go to an address.
fn judge(address: IpAddr, plain: bool, api_server: &[SocketAddr], outgoing: &Outgoing) -> Result<(), Error> {
    if outgoing.allows(address) {
        return Ok(());
    }
    if let Some(what) = outgoing.refusal(address) {
        return Err(Error::Refused(what));
    }
    if api_server.iter().any(|a| a.ip().to_canonical() == address.to_canonical()) {
        return Err(Error::Refused("the API server's own"));
    }
    match plain {
        true => Err(Error::Setup("plain http is for receivers in outgoing.allowedNetworks".into())),
        false => Ok(()),
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Some(address) = literal(host) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.take(16).collect()),
        Err(_) => Err(Error::NoAnswer("its name cannot be resolved".into())),
    }
}

async fn tls(host: &str, stream: TcpStream, ca_file: Option<&Path>) -> Result<Box<dyn Stream>, Error> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = ca_file {
        let wrong =
            |e: &dyn std::fmt::Display| Error::Setup(format!("outgoing.caFile {}: {e}", file.display()));
        let text = std::fs::read(file).map_err(|e| wrong(&e))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|e| wrong(&e))?;
            roots.add(certificate).map_err(|e| wrong(&e))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Setup(format!("TLS: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| Error::Setup("its host is no name".into()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        // What rustls says is about certificates, and names no path.
        Err(error) => Err(Error::NoAnswer(format!("no TLS: {error}"))),
    }
}

/// The address and secrets of a channel, from their files.
fn access(channel: &Channel, outgoing: &Outgoing) -> Result<Access, Error> {
    let text = match (&channel.url, &channel.url_file) {
        (Some(url), _) => url.clone(),
        (None, Some(file)) => read("urlFile", file)?,
        (None, None) => crate::config::defaults::STATUSPAGE_URL.to_owned(),
    };
    let uri =
        address::parse(&text, outgoing).map_err(|words| Error::Setup(format!("the address: {words}")))?;
    let token = channel.token_file.as_deref().map(|file| read("tokenFile", file)).transpose()?;
    let secret = channel.secret_file.as_deref().map(|file| read("secretFile", file)).transpose()?;
    let secret = secret.map(|text| sign::secret(&text)).transpose();
    Ok(Access { uri, token, secret: secret.map_err(|words| Error::Setup(format!("secretFile: {words}")))? })
}

fn read(field: &str, file: &Path) -> Result<String, Error> {
    let wrong = |words: String| Error::Setup(format!("{field} {}: {words}", file.display()));
    let size = std::fs::metadata(file).map_err(|e| wrong(e.kind().to_string()))?.len();
    if size > MAX_SECRET {
        return Err(wrong("it is too large".into()));
    }
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.kind().to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".into())),
        text => Ok(text.to_owned()),
    }
}

fn build(
    channel: &Channel,
    access: &Access,
    notice: &Notice<'_>,
    request: Request,
) -> Result<http::Request<Full<Bytes>>, Error> {
    let base = access.uri.path_and_query().map_or("/", |p| p.as_str());
    let path = match request.path.as_str() {
        "" => base.to_owned(),
        below => format!("{}{below}", base.trim_end_matches('/')),
    };
    let host = access.uri.authority().map_or("", |a| a.as_str());
    let mut building = http::Request::builder()
        .method(request.method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("incident-operator/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, request.content_type)
        .header(header::CONNECTION, "close");
    if let Some(token) = &access.token {
        let scheme = if channel.type_ == ChannelType::Statuspage { "OAuth" } else { "Bearer" };
        building = building.header(header::AUTHORIZATION, format!("{scheme} {token}"));
    }
    if request.signed {
        let timestamp = Timestamp::now().as_second();
        building = building.header("webhook-id", &notice.id).header("webhook-timestamp", timestamp);
        if let Some(secret) = &access.secret {
            let signature = sign::signature(secret, &notice.id, timestamp, &request.body);
            building = building.header("webhook-signature", signature);
        }
    }
    // The only parts that are not ours are the address and the token.
    building
        .body(Full::new(Bytes::from(request.body)))
        .map_err(|_| Error::Setup("the address or the token holds characters that no request can".into()))
}

async fn exchange(stream: Box<dyn Stream>, request: http::Request<Full<Bytes>>) -> Result<Bytes, Error> {
    let no_answer = |what: &str| Error::NoAnswer(format!("{what} before the answer was complete"));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| no_answer("the connection broke"))?;
    // It ends with the answer, or with the task that waits for it.
    let connection = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    let answer = async {
        let answer =
            sender.send_request(request).await.map_err(|_| no_answer("the connection was closed"))?;
        judged(answer).await
    };
    tokio::select! {
        answer = answer => answer,
        () = connection => Err(no_answer("the connection was closed")),
    }
}

async fn judged(answer: http::Response<Incoming>) -> Result<Bytes, Error> {
    let status = answer.status();
    let code = status.as_u16();
    let asked = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(retry_after);
    if status.is_redirection() {
        return Err(Error::Redirect(code));
    }
    // 420 is what Statuspage says for 429.
    if matches!(code, 420 | 429) || (status == StatusCode::SERVICE_UNAVAILABLE && asked.is_some()) {
        return Err(Error::Throttled { status: code, wait: asked });
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = match body {
        Ok(body) => body.to_bytes(),
        // What was asked for is done; how much is said about it does not matter.
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Bytes::new(),
        Err(_) if status.is_success() => Bytes::new(),
        Err(_) => {
            return Err(Error::NoAnswer("the connection was closed before the answer was complete".into()));
        }
    };
    match code {
        200..=299 => Ok(body),
        400 | 405..=407 | 409..=424 | 426..=428 => Err(Error::Rejected(code, word(&body))),
        _ => Err(Error::Answered(code, word(&body))),
    }
}

/// Whether a success is one: Slack says "ok".
fn check(type_: ChannelType, answer: &Bytes) -> Result<(), Error> {
    match type_ {
        ChannelType::Slack if answer.trim_ascii() != b"ok" => {
            Err(Error::Answered(200, format!(", but not \"ok\"{}", word(answer))))
        }
        _ => Ok(()),
    }
}

/// What a receiver says, if that is one word as Slack's errors are. Anything else might repeat a secret.
fn word(body: &[u8]) -> String {
    let is_word = |text: &&str| {
        (1..=40).contains(&text.len()) && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let text = std::str::from_utf8(body).ok().map(str::trim).filter(is_word);
    text.map(|text| format!(": {text}")).unwrap_or_default()
}

fn parsed(answer: &Bytes) -> serde_json::Value {
    serde_json::from_slice(answer).unwrap_or_default()
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = rfc2822::parse(text.trim()).ok()?.timestamp();
            Duration::try_from(date.duration_since(Timestamp::now())).ok()?
        }
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests;
