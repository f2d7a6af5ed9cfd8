//! How requests travel: a pool of connections, each used for one request at a time.
//!
//! kube would bound the time in which something must be read on each connection. Its timer (hyper-timeout) is set to
//! "now" whenever something was read, which wakes the connection once more after each answer; so what bounds the time
//! stands here. A connection that nobody used for [`IDLE`] is not used again: it may be dead without anybody knowing.

use futures::FutureExt as _;
use http::Response;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::{
    client::legacy::{Builder, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt as _},
};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Sleep;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, util::BoxService};

/// How long a connection may have been idle to be used again.
const IDLE: Duration = Duration::from_secs(10);

/// What sends requests, and answers as soon as an answer begins.
pub type Transport = BoxService<http::Request<Body>, Response<Timely<Incoming>>, BoxError>;

/// The way to the API server of a configuration. No request is repeated. An answer that has begun fails when nothing
/// more of it comes within `patience`; so does a connection that is not made by then.
pub fn transport(config: &Config, patience: Duration) -> anyhow::Result<Transport> {
    anyhow::ensure!(
        config.proxy_url.is_none(),
        "a proxy on the way to the API server is not supported: take proxy-url out of the kubeconfig"
    );
    let mut connector = HttpConnector::new();
    // TLS is made above it.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    // The handshake is in it, which a server that is frozen begins and never ends.
    let connector = ServiceBuilder::new().map_future(Box::pin).timeout(patience).service(connector);
    // With a timer what is idle is closed, too, and does not wait for a server that may be frozen.
    let pool = Builder::new(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(pool)
        .map_response(move |answer: Response<Incoming>| answer.map(|body| Timely::new(body, patience)));
    Ok(BoxService::new(service))
}

/// A body of which something comes within a time, or that fails.
pub struct Timely<B> {
    body: B,
    patience: Duration,
    /// Runs while nothing comes.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> Timely<B> {
    fn new(body: B, patience: Duration) -> Self {
        Timely { body, patience, waiting: None }
    }
}

impl<B> HttpBody for Timely<B>
where
    B: HttpBody + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = this.patience;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        waiting.poll_unpin(cx).map(|()| Some(Err(Stalled(patience).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer began and did not go on.
#[derive(Debug, thiserror::Error)]
#[error("nothing more of the API server's answer came within {0:?}")]
struct Stalled(Duration);

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::mpsc;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };
    use tokio::net::TcpListener;
    use tower::Service as _;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stalls_fails_after_its_time_and_one_that_is_slow_does_not() {
        let patience = Duration::from_secs(10);
        let (parts, told) = mpsc::unbounded::<Result<Frame<&'static [u8]>, Infallible>>();
        let mut body = Timely::new(StreamBody::new(told), patience);
        for _ in 0..3 {
            let later = parts.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(9)).await;
                later.unbounded_send(Ok(Frame::data(b"slow".as_slice()))).unwrap();
            });
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), b"slow");
        }
        let before = tokio::time::Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.is::<Stalled>(), "{error}");
        assert_eq!(before.elapsed(), patience);
    }

    /// Answers every request on each connection, and counts the connections.
    async fn served(listener: TcpListener, connections: Arc<AtomicUsize>) {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new("{}".to_owned())) });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    }

    #[tokio::test]
    async fn a_connection_is_used_again_unless_it_was_idle_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        tokio::spawn(served(listener, connections.clone()));
        let mut transport = transport(&Config::new(server), Duration::from_secs(10)).unwrap();
        for (idle, made) in [(Duration::ZERO, 1), (Duration::from_secs(5), 1), (IDLE * 2, 2)] {
            tokio::time::pause();
            tokio::time::advance(idle).await;
            tokio::time::resume();
            let request = http::Request::get("/version").body(Body::empty()).unwrap();
            let answer = transport.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().as_ref(), b"{}");
            assert_eq!(connections.load(Ordering::SeqCst), made, "after {idle:?}");
        }
    }

    #[tokio::test]
    async fn a_proxy_is_refused_with_what_to_do() {
        let mut config = Config::new(http::Uri::from_static("https://127.0.0.1"));
        config.proxy_url = Some(http::Uri::from_static("http://proxy.example.com"));
        let error = transport(&config, Duration::from_secs(1)).err().unwrap().to_string();
        assert!(error.contains("proxy-url"), "{error}");
    }
}
