use super::*;
use crate::{
    api::{Message, Time},
    config::{ChannelAudience, read as read_config},
    notify::Facts,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream as Connection},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A receiver that answers every request with the same bytes, or with none.
struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    count: Arc<AtomicUsize>,
}

impl Receiver {
    async fn new(answer: impl Into<Vec<u8>>, endless: bool) -> Receiver {
        let (listener, answer) = (TcpListener::bind("127.0.0.1:0").unwrap(), answer.into());
        let address = listener.local_addr().unwrap();
        let (requests, count): (Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) = Default::default();
        let (seen, counted) = (requests.clone(), count.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || answer_one(stream, &seen, &answer, endless));
            }
        });
        Receiver { address, requests, count }
    }

    async fn saying(head: &str, body: &str) -> Receiver {
        let length = body.len();
        Receiver::new(format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}"), false).await
    }
}

fn answer_one(mut stream: Connection, seen: &Mutex<Vec<String>>, answer: &[u8], endless: bool) {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    // What is sent here ends with its JSON.
    while !text.ends_with(b"}") {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    seen.lock().unwrap().push(String::from_utf8(text).unwrap());
    let _ = stream.write_all(answer);
    while endless && stream.write_all(&[b'x'; 8192]).is_ok() {}
    if answer.is_empty() {
        // It never answers; the other side hangs up.
        let _ = stream.read(&mut buffer);
    }
}

const ALLOWED: &str = "outgoing: {allowedNetworks: [127.0.0.0/8, '::1']}\n";

/// What becomes of a message to an address, as the configuration has it.
async fn to(type_: &str, url: &str, rest: &str) -> Result<Option<String>, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), url).unwrap();
    let text = format!(
        "channels: [{{name: a, type: {type_}, audience: Internal, timeout: 2s, urlFile: {}}}]\n{rest}",
        file.path().display()
    );
    let settings = read_config(&text).unwrap();
    let facts = Facts { kind: "Incident", uid: "u1".into(), ..Facts::default() };
    let message = Message {
        number: 1,
        reason: "Declared".into(),
        time: Time(Timestamp::UNIX_EPOCH),
        text: "it burns".into(),
    };
    let notice = Notice {
        id: "u1-internal-1-a".into(),
        audience: ChannelAudience::Internal,
        facts: &facts,
        message: &message,
        remote_id: None,
    };
    let sender = Sender { api_server: Some(("127.0.0.77".into(), 6443)) };
    sender.deliver(&settings.channels[0], &notice, &settings.outgoing).await
}

async fn webhook(receiver: &Receiver) -> Result<Option<String>, Error> {
    to("Webhook", &format!("http://{}/hook/s3cret-path", receiver.address), ALLOWED).await
}

#[tokio::test]
async fn a_success_is_one_and_the_request_is_as_the_receiver_wants_it() {
    let receiver = Receiver::saying("204 No Content", "").await;
    assert_eq!(webhook(&receiver).await, Ok(None));
    let request = receiver.requests.lock().unwrap()[0].to_lowercase();
    assert!(request.starts_with("post /hook/s3cret-path http/1.1\r\n"), "{request}");
    for header in [
        format!("host: {}\r\n", receiver.address),
        "content-type: application/cloudevents+json; charset=utf-8\r\n".to_owned(),
        "webhook-id: u1-internal-1-a\r\n".to_owned(),
        "user-agent: incident-operator/".to_owned(),
    ] {
        assert!(request.contains(&header), "{header} in {request}");
    }
}

#[tokio::test]
async fn slack_has_to_say_ok() {
    let slack = |receiver: &Receiver| format!("http://{}/services/T0/B0/x", receiver.address);
    let good = Receiver::saying("200 OK", "ok").await;
    assert_eq!(to("Slack", &slack(&good), ALLOWED).await, Ok(None));
    let bad = Receiver::saying("200 OK", "invalid_token").await;
    let error = to("Slack", &slack(&bad), ALLOWED).await.unwrap_err();
    assert_eq!(error.to_string(), "the receiver answered 200, but not \"ok\": invalid_token");
}

#[tokio::test]
async fn each_refusal_is_what_it_is_and_never_repeats_the_address_or_the_answer() {
    let table = [
        ("500 Internal Server Error", "error", false),
        ("503 Service Unavailable", "error", false),
        ("401 Unauthorized", "error", false),
        ("404 Not Found", "error", false),
        ("400 Bad Request", "rejected", true),
        ("413 Content Too Large", "rejected", true),
        ("429 Too Many Requests", "throttled", false),
        ("420 Enhance Your Calm", "throttled", false),
        ("204 No Content", "delivered", false),
    ];
    for (head, category, about_the_message) in table {
        let receiver = Receiver::saying(head, "no handler for /hook/s3cret-path").await;
        match webhook(&receiver).await {
            Ok(_) => assert_eq!(category, "delivered", "{head}"),
            Err(error) => {
                assert_eq!(
                    (error.category(), error.is_about_the_message()),
                    (category, about_the_message),
                    "{head}"
                );
                let words = error.to_string();
                assert!(!words.contains("s3cret") && words.contains(&head[..3]), "{words}");
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::saying("200 OK", "ok").await;
    let head = format!("307 Temporary Redirect\r\nlocation: http://{}/", elsewhere.address);
    let receiver = Receiver::saying(&head, "").await;
    assert_eq!(webhook(&receiver).await, Err(Error::Redirect(307)));
    assert_eq!(elsewhere.count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_asks_to_be_left_alone_says_for_how_long_in_seconds_or_as_a_date() {
    for (after, least, most) in
        [("7", 7, 7), ("999999", 3600, 3600), ("Wed, 21 Oct 2099 07:28:00 GMT", 3600, 3600)]
    {
        let receiver = Receiver::saying(&format!("429 Too Many Requests\r\nretry-after: {after}"), "").await;
        let wait = webhook(&receiver).await.unwrap_err().wait().unwrap().as_secs();
        assert!((least..=most).contains(&wait), "{after}: {wait}");
    }
    for after in ["soon", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"] {
        let receiver = Receiver::saying(&format!("429 Too Many Requests\r\nretry-after: {after}"), "").await;
        assert_eq!(webhook(&receiver).await.unwrap_err().wait(), None, "{after}");
    }
}

#[tokio::test]
async fn an_answer_without_end_costs_no_more_than_its_bound() {
    let success = Receiver::new("HTTP/1.1 200 OK\r\n\r\n", true).await;
    assert_eq!(webhook(&success).await, Ok(None));
    let failure = Receiver::new("HTTP/1.1 500 Oops\r\n\r\n", true).await;
    assert_eq!(webhook(&failure).await.unwrap_err().category(), "error");
    let header = Receiver::new("HTTP/1.1 200 OK\r\nx: ", true).await;
    assert_eq!(webhook(&header).await.unwrap_err().category(), "no_answer");
}

#[tokio::test]
async fn who_does_not_answer_and_who_hangs_up_cost_the_time_of_the_channel_and_no_more() {
    let silent = Receiver::new("", false).await;
    assert_eq!(webhook(&silent).await, Err(Error::NoAnswer("no answer within 2s".into())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || while listener.accept().is_ok() {});
    let error = to("Webhook", &format!("http://{address}/"), ALLOWED).await.unwrap_err();
    assert_eq!(error.category(), "no_answer");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = to("Webhook", &format!("http://{gone}/"), ALLOWED).await.unwrap_err();
    assert_eq!(error.to_string(), "no connection: connection refused");
}

#[tokio::test]
async fn a_name_or_address_that_lies_inside_is_refused_before_anything_is_sent() {
    let receiver = Receiver::saying("200 OK", "ok").await;
    let port = receiver.address.port();
    let other = "outgoing: {allowedNetworks: [10.0.0.0/8]}\n";
    for (url, outgoing) in [
        (format!("https://localhost:{port}/"), ""),
        (format!("http://localhost:{port}/"), other),
        (format!("https://127.0.0.1:{port}/"), other),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), other),
        (format!("https://2130706433:{port}/"), other),
        (format!("https://0x7f000001:{port}/"), other),
        (format!("https://127.1:{port}/"), other),
        (format!("https://0.0.0.0:{port}/"), other),
    ] {
        let error = to("Webhook", &url, outgoing).await.unwrap_err();
        assert!(matches!(error.category(), "refused" | "setup" | "no_answer"), "{url}: {error}");
    }
    assert_eq!(receiver.count.load(Ordering::Relaxed), 0);
}

#[test]
fn the_api_server_is_nobodys_receiver_and_plain_http_is_for_what_is_allowed() {
    let server: Vec<SocketAddr> = vec!["1.2.3.4:6443".parse().unwrap()];
    let outgoing = |text: &str| read_config(text).unwrap().outgoing;
    let judged =
        |address: &str, plain, text: &str| judge(address.parse().unwrap(), plain, &server, &outgoing(text));
    assert_eq!(judged("1.2.3.4", false, ""), Err(Error::Refused("the API server's own")));
    assert_eq!(judged("::ffff:1.2.3.4", false, ""), Err(Error::Refused("the API server's own")));
    assert_eq!(judged("1.2.3.4", false, "outgoing: {allowedNetworks: [1.2.3.4]}\n"), Ok(()));
    assert_eq!(judged("1.2.3.5", false, ""), Ok(()));
    assert_eq!(judged("1.2.3.5", true, "").unwrap_err().category(), "setup");
    assert_eq!(judged("1.2.3.5", true, "outgoing: {allowedNetworks: [1.2.3.0/24]}\n"), Ok(()));
    assert_eq!(judged("10.0.0.1", false, ""), Err(Error::Refused("private")));
}

#[tokio::test]
async fn what_speaks_no_tls_gets_no_request() {
    let receiver = Receiver::saying("200 OK", "ok").await;
    let error =
        to("Webhook", &format!("https://127.0.0.1:{}/", receiver.address.port()), ALLOWED).await.unwrap_err();
    assert_eq!(error.category(), "no_answer");
    assert!(receiver.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_is_missing_empty_or_no_address_is_told_by_its_field() {
    for (text, expected) in [("", "urlFile"), ("no address", "the address: "), ("ftp://x/", "the address: ")]
    {
        let error = to("Webhook", text, ALLOWED).await.unwrap_err();
        assert_eq!(error.category(), "setup", "{text}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
