//! Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`.

use axum::{Router, http::StatusCode, routing::get};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};
use tokio::net::TcpListener;

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

/// Whether this process can do its work. A standby whose caches are complete can.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    /// Not ready yet.
    pub fn new() -> Health {
        Health::default()
    }

    /// The caches are complete.
    pub fn set_ready(&self) {
        let _ = self.0.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The process is about to end.
    pub fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::Relaxed);
    }

    fn answer(&self) -> (StatusCode, &'static str) {
        match self.0.load(Ordering::Relaxed) {
            READY => (StatusCode::OK, "ready\n"),
            STOPPING => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "caches are not complete yet\n"),
        }
    }
}

/// Serves until the process ends; answers the address, which tells the port when 0 was asked for.
pub async fn serve(
    listen: SocketAddr,
    health: Health,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let text = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { health.answer() }))
        .route("/metrics", get(move || async move { (text, metrics()) }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(address)
}
