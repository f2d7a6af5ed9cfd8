//! A receiver of messages, as bad as a test wants it.

use super::poll::{PATIENCE, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it does with a request.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Answers with status, further header lines and body.
    Answers(u16, &'static str, &'static str),
    /// Is a status page: answers what it has to a GET, and what it made to anything else.
    Page(&'static str, &'static str),
    /// Takes the request and never answers.
    Silent,
    /// Hangs up.
    HangsUp,
    /// Answers without end.
    Endless,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method and path.
    pub line: String,
    /// Headers, in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body as it came.
    pub text: String,
    /// The same as JSON, null when it is none.
    pub body: Value,
}

/// Listens on an address of its own until the test ends.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    manner: Arc<Mutex<Manner>>,
}

impl Receiver {
    /// One that answers as Slack does when all is well.
    pub fn new() -> Receiver {
        Receiver::with(Manner::Answers(200, "", "ok"))
    }

    /// One that behaves in this manner.
    pub fn with(manner: Manner) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let this = Receiver { address, received: Arc::default(), manner: Arc::new(Mutex::new(manner)) };
        let (received, manner) = (this.received.clone(), this.manner.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, manner) = (received.clone(), manner.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &received, &manner);
                });
            }
        });
        this
    }

    /// Changes its manner.
    pub fn becomes(&self, manner: Manner) {
        *self.manner.lock().expect("nobody panics with it") = manner;
    }

    /// What it has received.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("nobody panics with it").clone()
    }

    /// Waits until what it has received is as wanted.
    #[track_caller]
    pub fn gets(
        &self,
        what: &str,
        holds: impl Fn(&[Received]) -> bool,
    ) -> impl Future<Output = Vec<Received>> {
        wait_for(PATIENCE * 2, what, async move || {
            let received = self.received();
            if holds(&received) { Ok(received) } else { Err(format!("{received:#?}")) }
        })
    }
}

fn serve(
    mut stream: TcpStream,
    received: &Mutex<Vec<Received>>,
    manner: &Mutex<Manner>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = read(&mut stream)?;
    let lists = request.line.starts_with("GET ");
    let manner = manner.lock().expect("nobody panics with it").clone();
    received.lock().expect("nobody panics with it").push(request);
    match manner {
        Manner::Answers(status, headers, body) => {
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}")
        }
        Manner::Page(list, made) => {
            let body = if lists { list } else { made };
            write!(stream, "HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        }
        Manner::Silent => {
            // Until the other side has had enough.
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.read(&mut [0]).map(|_| ())
        }
        Manner::HangsUp => Ok(()),
        Manner::Endless => {
            write!(stream, "HTTP/1.1 500 X\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 65536])?;
            }
        }
    }
}

fn read(stream: &mut TcpStream) -> std::io::Result<Received> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let n = stream.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
            let headers: BTreeMap<String, String> = lines
                .filter_map(|l| l.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let parsed = serde_json::from_str(body).unwrap_or(Value::Null);
                return Ok(Received { line, headers, text: body.to_owned(), body: parsed });
            }
        }
        if n == 0 {
            return Err(std::io::Error::other("the request ended too early"));
        }
    }
}
