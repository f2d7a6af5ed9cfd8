//! A way to the API server that can be made to fail, for one operator: plain HTTP on this side, TLS on the other.
//! Who asks stays the same, since the token is passed on.

use super::cluster::Cluster;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on.
    Pass,
    /// It is answered with this status, and the API server never sees it.
    Answer(u16),
    /// It is never answered, and the API server never sees it.
    Hang,
    /// It is passed on, and the answer is never given.
    LoseAnswer,
    /// It is passed on, and each part of the answer is told this much later.
    TellLate(Duration),
}

type Rule = Box<dyn Fn(&Method, &str) -> Fate + Send + Sync>;

/// The proxy; it ends when it goes out of scope.
pub struct Proxy {
    /// Its address, for `Options::server`.
    pub url: String,
    rule: Arc<Mutex<Rule>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts it; everything passes.
    pub async fn start() -> Proxy {
        let mut kubeconfig = Kubeconfig::read_from(Cluster::kubeconfig()).expect("readable");
        // Nobody is asked for in the proxy's own name.
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = Some(Default::default());
        }
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("complete");
        config.read_timeout = None;
        config.default_retry = false;
        let upstream = kube::Client::try_from(config).expect("a client can be made");
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_, _| Fate::Pass)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let app = Router::new().fallback({
            let rule = rule.clone();
            move |request: Request| {
                let fate = rule.lock().unwrap()(request.method(), request.uri().path());
                let upstream = upstream.clone();
                async move { handle(upstream, request, fate).await }
            }
        });
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Proxy { url, rule, task }
    }

    /// Says what becomes of requests from now on, by method and path.
    pub fn rule(&self, rule: impl Fn(&Method, &str) -> Fate + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(upstream: kube::Client, request: Request, fate: Fate) -> Response {
    match fate {
        Fate::Pass => pass_on(upstream, request).await,
        Fate::TellLate(late) => pass_on(upstream, request).await.map(|body| told_late(body, late)),
        Fate::Hang => std::future::pending().await,
        Fate::LoseAnswer => {
            pass_on(upstream, request).await;
            std::future::pending().await
        }
        Fate::Answer(code) => {
            let code = StatusCode::from_u16(code).expect("a status code");
            let text = format!(
                r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"by the proxy","reason":"Proxy","code":{}}}"#,
                code.as_u16()
            );
            (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
    }
}

fn told_late(body: Body, late: Duration) -> Body {
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    tokio::spawn(async move {
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            if sender.unbounded_send((Instant::now() + late, part)).is_err() {
                return;
            }
        }
    });
    Body::from_stream(receiver.then(|(when, part)| async move {
        sleep_until(when).await;
        part
    }))
}

async fn pass_on(upstream: kube::Client, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut forwarded = axum::http::Request::new(kube::client::Body::from(body.to_vec()));
    *forwarded.method_mut() = parts.method;
    *forwarded.uri_mut() = parts.uri;
    *forwarded.headers_mut() = end_to_end(parts.headers);
    match upstream.send(forwarded).await {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let mut response = Response::new(Body::new(body));
            *response.status_mut() = parts.status;
            *response.headers_mut() = end_to_end(parts.headers);
            response
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// Without what belongs to one connection.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}
