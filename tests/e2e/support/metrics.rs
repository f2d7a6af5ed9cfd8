//! An API server of external metrics, as adapters for monitoring systems are: it has one number for every metric.

use super::cluster::{Cluster, kubectl, kubectl_with};
use super::namespace::TestNamespace;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const GROUP_VERSION: &str = "external.metrics.k8s.io/v1beta1";
const API_SERVICE: &str = "v1beta1.external.metrics.k8s.io";

/// Serves until it is dropped. A cluster has room for one.
pub struct ExternalMetrics {
    number: Arc<AtomicI64>,
    task: tokio::task::JoinHandle<()>,
}

impl ExternalMetrics {
    /// Registers it with the API server and waits until that reaches it.
    pub async fn serve(namespace: &TestNamespace) -> ExternalMetrics {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        let number = Arc::new(AtomicI64::new(0));
        let task = tokio::spawn(serve(listener, tls(Cluster::dir()), number.clone()));
        // Nothing runs on the nodes, so the API server is sent here instead of to a pod.
        namespace
            .create(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics"},
                "spec": {"type": "ExternalName", "externalName": "localhost"}}))
            .await;
        let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": API_SERVICE},
            "spec": {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                "versionPriority": 100, "insecureSkipTLSVerify": true,
                "service": {"name": "metrics", "namespace": namespace.name, "port": port}}});
        kubectl_with(&["apply", "-f", "-"], &service.to_string()).success();
        let this = ExternalMetrics { number, task };
        kubectl(&[
            "wait",
            "--for=condition=Available",
            "--timeout=30s",
            &format!("apiservice/{API_SERVICE}"),
        ])
        .success();
        this
    }

    /// Sets the number.
    pub fn say(&self, number: i64) {
        self.number.store(number, Ordering::SeqCst);
    }
}

impl Drop for ExternalMetrics {
    fn drop(&mut self) {
        // A group that cannot be reached would keep every namespace of the cluster from being deleted.
        kubectl(&["delete", "apiservice", API_SERVICE, "--ignore-not-found", "--wait=true"]);
        self.task.abort();
    }
}

fn tls(cluster: &Path) -> TlsAcceptor {
    let clusters =
        std::fs::read_dir(cluster.join("kwok/clusters")).expect("the control plane keeps its state");
    let mut folders = clusters.filter_map(Result::ok).map(|entry| entry.path().join("pki"));
    let pki = folders.find(|path| path.join("admin.crt").is_file()).expect("there is a certificate");
    let chain = CertificateDer::pem_file_iter(pki.join("admin.crt")).and_then(Iterator::collect);
    let key = PrivateKeyDer::from_pem_file(pki.join("admin.key")).expect("it is a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.expect("it is a certificate"), key)
        .expect("key and certificate belong together");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, number: Arc<AtomicI64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, number) = (tls.clone(), number.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(|request| {
                let answer = answer(&request, number.load(Ordering::SeqCst));
                async move {
                    let body = Full::new(Bytes::from(answer.to_string()));
                    let response = http::Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(response.body(body).expect("an answer"))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(request: &http::Request<Incoming>, number: i64) -> Value {
    match request.uri().path().rsplit_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')) {
        Some((_, metric)) => {
            json!({"kind": "ExternalMetricValueList", "apiVersion": GROUP_VERSION, "metadata": {},
            "items": [{"metricName": metric, "metricLabels": {}, "timestamp": k8s_openapi::jiff::Timestamp::now(),
                "value": number.to_string()}]})
        }
        None => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": []})
        }
    }
}
