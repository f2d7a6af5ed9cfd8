//! Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`.
//!
//! Metrics are told piece by piece and beside everything else: with thousands of open incidents they are megabytes, and a
//! reader may be slow.

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{StreamExt, stream};
use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

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
///
/// `metrics` writes the text that a scraper reads. It may take its time: it runs on a thread of its own.
pub async fn serve(
    listen: SocketAddr,
    health: Health,
    metrics: impl Fn(&mut dyn fmt::Write) -> fmt::Result + Clone + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    serve_within(PATIENCE, listen, health, metrics).await
}

async fn serve_within(
    patience: Duration,
    listen: SocketAddr,
    health: Health,
    metrics: impl Fn(&mut dyn fmt::Write) -> fmt::Result + Clone + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let readers = Arc::new(Semaphore::new(READERS));
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { health.answer() }))
        .route("/metrics", get(move || async move { tell(readers, patience, metrics) }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(address)
}

/// So many may read the metrics at the same time; each costs a thread while it does.
const READERS: usize = 4;
/// Bytes that are told at a time.
const PIECE: usize = 32 * 1024;
/// A reader that has not got everything by then is left. What it has does not end as it should.
const PATIENCE: Duration = Duration::from_secs(30);

fn tell(
    readers: Arc<Semaphore>,
    patience: Duration,
    metrics: impl Fn(&mut dyn fmt::Write) -> fmt::Result + Send + 'static,
) -> Response {
    let Ok(place) = readers.try_acquire_owned() else {
        let busy = format!("{READERS} others are reading the metrics: try again\n");
        return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
    };
    let (to, mut pieces) = mpsc::channel(1);
    let (runtime, until) = (Handle::current(), Instant::now() + patience);
    tokio::task::spawn_blocking(move || {
        let mut told = Told { to, runtime, until, text: String::new() };
        let whole = metrics(&mut told).and_then(|()| told.send());
        if whole.is_err() {
            tracing::debug!("a reader of the metrics left before their end, or was too slow");
        }
        drop(place);
    });
    let text = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let body = stream::poll_fn(move |cx| pieces.poll_recv(cx)).map(Ok::<String, Infallible>);
    (text, Body::from_stream(body)).into_response()
}

/// Passes on what is written, piece by piece, as fast as it is read.
struct Told {
    to: mpsc::Sender<String>,
    runtime: Handle,
    until: Instant,
    text: String,
}

impl Told {
    fn send(&mut self) -> fmt::Result {
        let piece = std::mem::take(&mut self.text);
        let sent = self.runtime.block_on(async { timeout_at(self.until, self.to.send(piece)).await });
        sent.map_err(|_late| fmt::Error)?.map_err(|_gone| fmt::Error)
    }
}

impl fmt::Write for Told {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        if self.text.len() < PIECE { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::atomic::AtomicUsize,
    };

    /// Asks and reads how the answer begins, and no more.
    fn ask(address: SocketAddr) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        (stream, String::from_utf8(begin.into()).unwrap())
    }

    const LINES: usize = 4_000_000;

    /// Writes more than fits into anything between us and a reader, and counts the lines.
    fn endless(
        told: &Arc<AtomicUsize>,
    ) -> impl Fn(&mut dyn fmt::Write) -> fmt::Result + Clone + Send + Sync + 'static {
        let told = told.clone();
        move |out| {
            (0..LINES).try_for_each(|_| {
                told.fetch_add(1, Ordering::Relaxed);
                out.write_str("some_metric{a=\"b\"} 1\n")
            })
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_does_not_hold_up_the_end_of_the_process() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (local, patience) = (([127, 0, 0, 1], 0).into(), Duration::from_secs(3600));
        let metrics = endless(&Arc::default());
        let address = runtime.block_on(serve_within(patience, local, Health::new(), metrics)).unwrap();
        let (_slow, begin) = ask(address);
        assert_eq!(begin, "HTTP/1.0 200");
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(runtime);
            ended.send(())
        });
        end.recv_timeout(Duration::from_secs(20)).expect("the process ends while somebody reads");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_is_too_slow_is_left_and_its_place_is_free() {
        let (local, patience) = (([127, 0, 0, 1], 0).into(), Duration::from_millis(50));
        let metrics = endless(&Arc::default());
        let address = serve_within(patience, local, Health::new(), metrics).await.unwrap();
        let slow: Vec<_> = (0..READERS).map(|_| ask(address)).collect();
        assert!(slow.iter().all(|(_, begin)| begin == "HTTP/1.0 200"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while ask(address).1 != "HTTP/1.0 200" {
            assert!(Instant::now() < deadline, "readers that take nothing keep their places");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_that_take_nothing_hold_a_bounded_piece_and_are_bounded_in_number() {
        let told = Arc::new(AtomicUsize::new(0));
        let local = ([127, 0, 0, 1], 0).into();
        let address = serve(local, Health::new(), endless(&told)).await.unwrap();
        let mut idle = Vec::new();
        for _ in 1..READERS {
            let (stream, begin) = ask(address);
            assert_eq!(begin, "HTTP/1.0 200");
            idle.push(stream);
        }
        let (mut last, mut one) = ask(address);
        last.read_to_string(&mut one).unwrap();
        assert_eq!(one.lines().filter(|line| line.starts_with("some_metric")).count(), LINES);
        let by_others = told.load(Ordering::Relaxed) - LINES;
        assert!(by_others < (READERS - 1) * LINES / 2, "{by_others} lines wait for readers that take none");
        // The place of who was served is free in a moment; then it is taken, too.
        loop {
            let (stream, begin) = ask(address);
            idle.push(stream);
            if begin == "HTTP/1.0 503" {
                break;
            }
        }
        assert!(idle.len() <= READERS + 1, "{} read at the same time", idle.len());
    }
}
