//! Clients for the API server: one for requests, one for watches.
//!
//! A request is answered within [`REQUEST_TIMEOUT`] or has failed, is counted, and is never repeated by the
//! client: whether it may be repeated is decided where it is known what it does. A request that writes goes out
//! only while this process leads. While the API server has too many, requests wait for each other ([`Throttle`]); those
//! for the lease never do.

use super::{
    throttle::{Pass, Throttle},
    transport::transport,
};
use crate::{lease::Claim, metrics::Metrics};
use futures::future::BoxFuture;
use http::{
    HeaderValue, Method, Request, Response, Uri,
    header::{RETRY_AFTER, USER_AGENT},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::Kubeconfig,
};
use std::{
    cell::Cell,
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::{BoxError, Layer, Service, util::MapRequestLayer};

/// Longest time a request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a watch lives before it is renewed; also how long a dead connection may go unnoticed.
pub const WATCH_SECONDS: u32 = 55;

/// The configuration with a user agent by which the audit log tells one replica from another.
pub fn named(mut config: Config, identity: &str) -> Config {
    let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
    let printable: String = identity.chars().filter(char::is_ascii_graphic).collect();
    if let Ok(value) = HeaderValue::try_from(format!("{agent} ({printable})")) {
        config.headers.push((USER_AGENT, value));
    }
    config
}

/// The configuration with which the file of certificate authorities that a kubeconfig names is read again, at most once a
/// minute, when a connection is made: authorities are rotated while the operator runs. In a pod kube itself follows the
/// file that the kubelet mounts.
pub fn following_authorities(mut config: Config, kubeconfig: Option<&Kubeconfig>) -> Config {
    config.root_cert_file = config.root_cert_file.or_else(|| authorities_of(kubeconfig?));
    config
}

/// The file of certificate authorities of the current context, unless they stand in the kubeconfig itself.
fn authorities_of(kubeconfig: &Kubeconfig) -> Option<PathBuf> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|named| named.name == *current)?.context.as_ref()?;
    let named = kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?;
    let cluster = named.cluster.as_ref().filter(|cluster| cluster.certificate_authority_data.is_none())?;
    cluster.certificate_authority.as_ref().map(PathBuf::from)
}

/// A client for requests. With a claim, what it writes is refused unless this process leads.
pub fn requests(config: &Config, metrics: Arc<Metrics>, claim: Option<Claim>) -> anyhow::Result<Client> {
    let transport = transport(config, REQUEST_TIMEOUT)?;
    Ok(Client::new(Watchful::new(metrics, claim).layer(transport), config.default_namespace.clone()))
}

/// A client for watches.
pub fn watches(config: &Config) -> anyhow::Result<Client> {
    let mut config = config.clone();
    config.default_retry = false;
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapRequestLayer::new(as_of_now)).build())
}

/// A watch that begins with what is there begins with what is there now. kube asks for any state, however old, and an API
/// server that lags behind the others of its cluster would answer with that. Without a resourceVersion none is older than
/// the request.
fn as_of_now(mut request: Request<Body>) -> Request<Body> {
    let now = request.uri().path_and_query().and_then(|asked| {
        let begins = asked.query()?.split('&').any(|pair| pair == "sendInitialEvents=true");
        asked.as_str().strip_suffix("&resourceVersion=0").filter(|_| begins)?.parse().ok()
    });
    if let Some(now) = now {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(now);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Objects of a page when a kind is listed: few requests, and not much memory at a time.
pub const PAGE: usize = 200;

/// The configuration of every watch.
pub fn watch_config() -> kube::runtime::watcher::Config {
    let page = u32::try_from(PAGE).unwrap_or(u32::MAX);
    kube::runtime::watcher::Config::default().timeout(WATCH_SECONDS).page_size(page)
}

/// Counts, bounds and, without leadership, refuses requests.
#[derive(Clone)]
struct Watchful {
    metrics: Arc<Metrics>,
    claim: Option<Claim>,
    throttle: Option<Arc<Throttle>>,
}

impl Watchful {
    /// Without a claim they are the lease's own.
    fn new(metrics: Arc<Metrics>, claim: Option<Claim>) -> Watchful {
        let throttle = claim.is_some().then(Arc::default);
        Watchful { metrics, claim, throttle }
    }
}

impl<S> Layer<S> for Watchful {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, rules: self.clone(), pass: None }
    }
}

/// See [`Watchful`].
struct Watched<S> {
    inner: S,
    rules: Watchful,
    /// For the next request.
    pass: Option<Pass>,
}

impl<S, B> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.pass.is_none()
            && let Some(throttle) = &self.rules.throttle
        {
            self.pass = Some(std::task::ready!(throttle.poll_enter(cx)));
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let pass = self.pass.take();
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let permit = match self.rules.claim.as_ref().filter(|_| writes).map(Claim::to_write) {
            Some(None) => return Box::pin(std::future::ready(Err(NotLeading.into()))),
            Some(Some(permit)) => Some(permit),
            None => None,
        };
        let method = request.method().clone();
        let uri = tracing::enabled!(tracing::Level::DEBUG).then(|| request.uri().clone());
        let Watchful { metrics, throttle, .. } = self.rules.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            // Until the answer is there, or is waited for no longer.
            let (_permit, _pass) = (permit, pass);
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, answer).await;
            let answer = match answer {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(BoxError::from(NoAnswer)),
            };
            if let (Some(throttle), Ok(response)) = (&throttle, &answer)
                && response.status().as_u16() == 429
            {
                throttle.refused();
            }
            if let Some(wait) = answer.as_ref().ok().and_then(asked_to_wait) {
                // Outside of a visit nobody heeds it.
                let _ = ASKED.try_with(|asked| asked.set(asked.get().max(Some(wait))));
            }
            let status = answer.as_ref().map(|r| r.status().as_u16()).unwrap_or(0);
            if let Some(uri) = uri {
                tracing::debug!(%method, %uri, status, "asked the API server");
            }
            metrics.request(method.as_str(), status);
            answer
        })
    }
}

/// Longest wait that the API server can ask for (`Retry-After`).
const LONGEST_WAIT: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// How long the API server asked to wait during a visit.
    static ASKED: Cell<Option<Duration>>;
}

/// Does some work, and says how long the API server asked to wait meanwhile before anything is tried again.
pub async fn heeding<T>(work: impl Future<Output = T>) -> (T, Option<Duration>) {
    let both = async {
        let outcome = work.await;
        (outcome, ASKED.with(Cell::get))
    };
    ASKED.scope(Cell::new(None), both).await
}

fn asked_to_wait<B>(response: &Response<B>) -> Option<Duration> {
    if !matches!(response.status().as_u16(), 429 | 503) {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Whether a write was held back because this process does not lead.
pub fn is_held_back(error: &kube::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<NotLeading>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A write was held back.
#[derive(Debug, thiserror::Error)]
#[error("this process does not lead: the write is left to the one that does")]
struct NotLeading;

/// The API server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {REQUEST_TIMEOUT:?}")]
struct NoAnswer;

#[cfg(test)]
mod tests {
    use super::*;
    use tower::{ServiceExt, service_fn};

    fn watched<F>(
        answer: fn() -> F,
    ) -> (impl Service<Request<Body>, Response = Response<()>, Error = BoxError>, Arc<Metrics>)
    where
        F: Future<Output = Result<Response<()>, BoxError>> + Send + 'static,
    {
        let metrics = Arc::new(Metrics::default());
        let rules = Watchful::new(metrics.clone(), None);
        (rules.layer(service_fn(move |_: Request<Body>| answer())), metrics)
    }

    fn get() -> Request<Body> {
        Request::get("/api").body(Body::empty()).unwrap()
    }

    #[test]
    fn a_watch_that_begins_with_what_is_there_begins_with_no_older_state_and_no_other_request_changes() {
        let sent = |uri: &str| as_of_now(Request::get(uri).body(Body::empty()).unwrap()).uri().to_string();
        let begin = "/apis/apps/v1/replicasets?&watch=true&sendInitialEvents=true";
        assert_eq!(sent(&format!("{begin}&resourceVersion=0")), begin);
        let goes_on = "/apis/apps/v1/replicasets?&watch=true&resourceVersion=0".to_owned();
        for same in [format!("{begin}&resourceVersion=10"), goes_on] {
            assert_eq!(sent(&same), same);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_answered_fails_after_ten_seconds_and_is_counted() {
        let (service, metrics) = watched(std::future::pending::<Result<Response<()>, BoxError>>);
        let started = tokio::time::Instant::now();
        let error = service.oneshot(get()).await.unwrap_err();
        assert_eq!(started.elapsed().as_secs(), 10);
        assert!(error.is::<NoAnswer>(), "{error}");
        let text = metrics.counted();
        let counted = |line: &&str| line.starts_with("rest_client_requests_total{");
        let line = text.lines().find(counted).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("\"GET\"") && line.ends_with(" 1"), "{line}");
    }

    #[test]
    fn the_authorities_of_a_file_are_followed_and_those_that_stand_in_the_kubeconfig_or_in_a_pod_are_left_alone()
     {
        let followed = |cluster: serde_json::Value, known: Option<&str>| {
            let kubeconfig = serde_json::from_value(serde_json::json!({
                "current-context": "here", "users": [],
                "contexts": [{"name": "there", "context": {"cluster": "other", "user": "u"}},
                    {"name": "here", "context": {"cluster": "ours", "user": "u"}}],
                "clusters": [{"name": "other", "cluster": {"certificate-authority": "/other.crt"}},
                    {"name": "ours", "cluster": cluster}],
            }));
            let mut config = Config::new(http::Uri::from_static("https://127.0.0.1"));
            config.root_cert_file = known.map(PathBuf::from);
            following_authorities(config, Some(&kubeconfig.unwrap())).root_cert_file
        };
        let file = || serde_json::json!({"certificate-authority": "/ours.crt"});
        assert_eq!(followed(file(), None), Some(PathBuf::from("/ours.crt")));
        assert_eq!(followed(file(), Some("/mounted.crt")), Some(PathBuf::from("/mounted.crt")));
        let mut both = file();
        both["certificate-authority-data"] = "AAAA".into();
        assert_eq!(followed(both, None), None, "what stands in it counts, and cannot change");
        assert_eq!(followed(serde_json::json!({}), None), None);
    }

    #[tokio::test]
    async fn what_the_api_server_asks_to_wait_is_heeded_within_bounds() {
        async fn busy(status: u16, after: &str) -> Option<Duration> {
            let response = Response::builder().status(status).header(RETRY_AFTER, after).body(()).unwrap();
            let rules = Watchful::new(Arc::new(Metrics::default()), None);
            let response = std::sync::Mutex::new(Some(response));
            let service = rules.layer(service_fn(move |_: Request<Body>| {
                let response = response.lock().unwrap().take().unwrap();
                async { Ok::<_, BoxError>(response) }
            }));
            heeding(service.oneshot(get())).await.1
        }
        assert_eq!(busy(429, "7").await, Some(Duration::from_secs(7)));
        assert_eq!(busy(503, "3600").await, Some(LONGEST_WAIT));
        assert_eq!(busy(429, "soon").await, None);
        assert_eq!(busy(200, "7").await, None);
    }
}
