//! Messages to channels: who hears what, and what happens when a channel does not work.

use super::config::Mounted;
use super::support::receiver::{Manner, Received, Receiver};
use super::support::record::{incident_says, incident_when, told};
use super::support::workload::{entry, incident, ours};
use super::support::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use incident_operator::api::{ClockName, Incident, Outbox, Postmortem};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const ALLOWED: &str = "outgoing: {allowedNetworks: [127.0.0.0/8]}\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Secrets in files, as a mounted Secret has them.
struct Secrets(tempfile::TempDir);

impl Secrets {
    fn new() -> Secrets {
        Secrets(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }

    /// The file with the address of a receiver.
    fn url(&self, name: &str, receiver: &Receiver) -> String {
        self.file(name, &format!("http://{}/hook/s3cret-{name}", receiver.address)).display().to_string()
    }
}

fn channel(name: &str, type_: &str, audience: &str, rest: &str) -> String {
    format!("- {{name: {name}, type: {type_}, audience: {audience}, perMinute: 600, timeout: 2s, {rest}}}\n")
}

fn one_channel(secrets: &Secrets, name: &str, receiver: &Receiver) -> String {
    let channel = channel(name, "Webhook", "Internal", &format!("urlFile: {}", secrets.url(name, receiver)));
    format!("{ALLOWED}channels:\n{channel}")
}

async fn patch(namespace: &TestNamespace, name: &str, spec: Value) {
    let incidents: Api<Incident> = namespace.api();
    let patch = Patch::Merge(json!({"spec": spec}));
    incidents.patch(name, &PatchParams::default(), &patch).await.expect("an incident can be edited");
}

fn update(incident: &str, audience: &str, message: &str) -> Value {
    let mut update = entry(incident, "StatusUpdate", message);
    update["spec"]["audience"] = audience.into();
    update
}

fn outbox(incident: &Incident, audience: ClockName) -> Outbox {
    let all = incident.status.iter().flat_map(|s| &s.communication);
    all.into_iter().find(|c| c.audience == audience).map(|c| c.outbox.clone()).unwrap_or_default()
}

/// Waits until nothing is on its way.
async fn all_delivered(namespace: &TestNamespace, name: &str) -> Incident {
    incident_when(namespace, name, "delivery of every message", |i| {
        [ClockName::Internal, ClockName::Public].iter().all(|a| outbox(i, *a).messages.is_empty())
            && !outbox(i, ClockName::Internal).deliveries.is_empty()
    })
    .await
}

fn reasons(received: &[Received]) -> Vec<String> {
    received.iter().map(|r| r.body["data"]["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

fn ids(received: &[Received]) -> Vec<String> {
    received.iter().map(|r| r.headers.get("webhook-id").cloned().unwrap_or_default()).collect()
}

fn declared() -> Value {
    json!({"title": "Checkout fails on db-7.internal <!channel>", "severity": "SEV2",
        "roles": {"incidentCommander": "alice"}, "impact": {"summary": "40 % of checkouts fail",
        "components": [{"name": "checkout", "state": "PartialOutage"}]},
        "noMitigationNeeded": "it heals", "communication": {"visibility": "Public"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_what_is_for_them_once_and_in_order_and_no_secret_is_told() {
    let namespace = TestNamespace::new("notify").await;
    let (slack, hook, page) =
        (Receiver::new(), Receiver::new(), Receiver::with(Manner::Answers(200, "", "oops")));
    let secrets = Secrets::new();
    let channels = [
        channel("chat", "Slack", "Internal", &format!("urlFile: {}", secrets.url("chat", &slack))),
        channel(
            "bus",
            "Webhook",
            "Internal",
            &format!(
                "urlFile: {}, secretFile: {}",
                secrets.url("bus", &hook),
                secrets.file("sign", SECRET).display()
            ),
        ),
        channel(
            "page",
            "Statuspage",
            "Public",
            &format!(
                "url: 'http://{}', tokenFile: {}, pageId: p1, components: {{checkout: c1}}",
                page.address,
                secrets.file("token", "t0p-s3cret").display()
            ),
        ),
    ];
    let file = Mounted::new(&format!("{ALLOWED}channels:\n{}", channels.concat()));
    let mut operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", declared())).await;
    hook.gets("declaration", |r| reasons(r).contains(&"Declared".to_owned())).await;
    assert!(page.received().is_empty(), "the public hears nothing but public updates");
    // What is not on record would go out once more.
    all_delivered(&namespace, "checkout").await;
    operator.restart().await;

    namespace.create(update("checkout", "Responders", "between us")).await;
    namespace.create(update("checkout", "Internal", "we know the cause")).await;
    hook.gets("internal update", |r| r.last().is_some_and(|r| r.text.contains("we know the cause"))).await;

    // The page is asked what it has, then told. What it says first is no list: it may have one of ours.
    namespace.create(update("checkout", "Public", "Some checkouts fail. We are on it.")).await;
    page.gets("question", |r| r.len() >= 2).await;
    assert!(page.received().iter().all(|r| r.line == "GET /v1/pages/p1/incidents/unresolved"));
    page.becomes(Manner::Page("[]", r#"{"id": "r7"}"#));
    let is_question = |r: &&Received| r.line.starts_with("GET ");
    let made = page.gets("creation", |r| r.iter().any(|r| !is_question(&r))).await;
    let asked = made.iter().filter(is_question).count();
    let told_page = &made[asked - 1..];
    assert_eq!(told_page[1].line, "POST /v1/pages/p1/incidents");
    assert_eq!(told_page[1].headers["authorization"], "OAuth t0p-s3cret");
    let body = &told_page[1].body["incident"];
    assert_eq!(
        (&body["name"], &body["components"]["c1"]),
        (&json!("Some checkouts fail"), &json!("partial_outage"))
    );
    let sent =
        incident_when(&namespace, "checkout", "record of the sending", |i| told(i, "UpdateSent").len() >= 5)
            .await;
    assert_eq!(outbox(&sent, ClockName::Public).deliveries[0].remote_id.as_deref(), Some("r7"));

    patch(&namespace, "checkout", json!({"resolution": {"summary": "db-7.internal was restarted"}})).await;
    let told_page = page.gets("resolution", |r| r.len() == asked + 2).await.split_off(asked - 1);
    assert_eq!(told_page[2].line, "PATCH /v1/pages/p1/incidents/r7");
    assert_eq!(told_page[2].body["incident"]["status"], "resolved");
    assert_eq!(told_page[2].body["incident"]["components"]["c1"], "operational");
    hook.gets("resolution", |r| reasons(r).contains(&"Resolved".to_owned())).await;
    let after = all_delivered(&namespace, "checkout").await;

    // To the public: its update and the end, and nothing that is internal.
    for request in page.received() {
        for internal in ["db-7", "alice", "between us", "we know the cause", "40 %", "channel"] {
            assert!(!request.text.contains(internal), "{internal}: {}", request.text);
        }
    }
    let received = hook.received();
    assert!(received.iter().all(|r| !r.text.contains("between us")));
    // Once each, in order, signed, under an id that names message and channel.
    let uid = after.uid().expect("it has one");
    let expected: Vec<_> = (1..=received.len()).map(|n| format!("{uid}-internal-{n}-bus")).collect();
    assert_eq!(ids(&received), expected);
    for request in &received {
        let (id, time) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).expect("it is base64");
        let signed = format!("{id}.{time}.{}", request.text);
        let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key), signed.as_bytes());
        assert_eq!(request.headers["webhook-signature"], format!("v1,{}", STANDARD.encode(mac)));
        assert_eq!(request.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    }
    let chat = slack.received();
    let texts =
        |all: &[Received]| all.iter().map(|r| r.text.chars().take(400).collect()).collect::<Vec<String>>();
    assert_eq!(chat.len(), received.len(), "{:#?} and {:?}", texts(&chat), reasons(&received));
    let whole: String = chat.iter().map(|r| r.text.as_str()).collect();
    assert!(whole.contains("&lt;!channel&gt;") && !whole.contains("<!channel>"), "{whole}");

    // Secrets are in no status, no Event and no log.
    let everything = namespace.kubectl(&["get", "incidents,events,postmortems", "-o", "yaml"]).success();
    for (place, text) in [("the cluster", &everything), ("the log", &operator.log())] {
        for secret in ["s3cret", "MfKQ9r8GKYqr"] {
            assert!(!text.contains(secret), "{secret} is in {place}");
        }
    }
    operator.metric_is("incident_operator_channel_failing", &[], 0.0).await;
    operator.metric_is("incident_operator_deliveries_waiting", &[], 0.0).await;
    let count = outbox(&after, ClockName::Internal).message_count.expect("there are messages") as f64;
    let taken = [("channel", "chat"), ("result", "delivered")];
    let since_restart = operator.metric("incident_operator_deliveries_total", &taken).await.unwrap_or(0.0);
    assert!(since_restart > 0.0 && since_restart < count, "{since_restart} of {count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_takes_nothing_of_what_it_gets_fails_and_one_that_is_not_configured_any_more_does_not()
{
    let namespace = TestNamespace::new("rejects").await;
    let receiver = Receiver::with(Manner::Answers(422, "", "invalid_payload"));
    let secrets = Secrets::new();
    let text = one_channel(&secrets, "bus", &receiver);
    let mut file = Mounted::new(&text);
    let operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", declared())).await;
    let failing = incident_when(&namespace, "checkout", "condition", |i| {
        incident_says(i, "Notified").starts_with("False")
            && outbox(i, ClockName::Internal).deliveries.iter().any(|d| d.given_up.is_some())
    })
    .await;
    assert!(incident_says(&failing, "Notified").contains("bus: given up: the receiver answered 422"));
    let of_bus = [("channel", "bus")];
    operator.metric_is("incident_operator_channel_failing", &of_bus, 1.0).await;
    operator.metric_is("incident_operator_deliveries_total", &[of_bus[0], ("result", "given_up")], 1.0).await;

    receiver.becomes(Manner::Answers(200, "", "ok"));
    namespace.create(update("checkout", "Internal", "still at it")).await;
    receiver.gets("update", |r| r.last().is_some_and(|r| r.text.contains("still at it"))).await;
    incident_when(&namespace, "checkout", "recovery", |i| incident_says(i, "Notified").starts_with("True"))
        .await;
    operator.metric_is("incident_operator_channel_failing", &of_bus, 0.0).await;

    receiver.becomes(Manner::Answers(500, "", "oops"));
    namespace.create(update("checkout", "Internal", "into the void")).await;
    operator.metric_is("incident_operator_channel_failing", &of_bus, 1.0).await;
    operator.metric_is("incident_operator_deliveries_waiting", &of_bus, 1.0).await;
    file.becomes(ALLOWED);
    wait_for(PATIENCE, "end of the channel", async || {
        match operator.metric("incident_operator_channel_failing", &of_bus).await {
            None => Ok(()),
            Some(fails) => Err(format!("{fails}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_hears_of_a_false_alarm_too_and_executives_hear_what_is_for_them() {
    let namespace = TestNamespace::new("alarm").await;
    let (page, board) = (Receiver::with(Manner::Page("[]", r#"{"id": "r8"}"#)), Receiver::new());
    let secrets = Secrets::new();
    let token = secrets.file("token", "t0p-s3cret").display().to_string();
    let channels = [
        channel(
            "page",
            "Statuspage",
            "Public",
            &format!("minSeverity: SEV2, url: 'http://{}', tokenFile: {token}, pageId: p1", page.address),
        ),
        channel("board", "Webhook", "Executives", &format!("urlFile: {}", secrets.url("board", &board))),
    ];
    let file = Mounted::new(&format!("{ALLOWED}channels:\n{}", channels.concat()));
    let _operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", declared())).await;
    namespace.create(update("checkout", "Internal", "we know the cause")).await;
    namespace.create(update("checkout", "Executives", "The shop loses orders.")).await;
    namespace.create(update("checkout", "Public", "Some checkouts fail.")).await;
    incident_when(&namespace, "checkout", "record of the sending", |i| {
        outbox(i, ClockName::Public).deliveries.iter().any(|d| d.delivered_time.is_some())
    })
    .await;
    let lowered = json!({"severity": "SEV4", "severityReason": "it was a probe"});
    patch(&namespace, "checkout", lowered).await;
    patch(&namespace, "checkout", json!({"outcome": "FalseAlarm"})).await;
    let told_page = page.gets("end", |r| r.iter().any(|r| r.line.starts_with("PATCH"))).await;
    let end = told_page.last().expect("it was told");
    assert_eq!(end.line, "PATCH /v1/pages/p1/incidents/r8");
    assert_eq!(end.body["incident"]["status"], "resolved");
    let heard = board.gets("end", |r| r.len() == 2).await;
    assert_eq!(reasons(&heard), ["StatusUpdate", "Cancelled"]);
    assert!(heard[0].body["data"]["text"].as_str().is_some_and(|t| t.starts_with("The shop loses orders.")));
    assert!(heard[0].headers["webhook-id"].contains("-executives-1-board"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_channel_outlives_a_restart_with_a_file_that_is_wrong() {
    let namespace = TestNamespace::new("wrong-file").await;
    let receiver = Receiver::with(Manner::Answers(500, "", "oops"));
    let secrets = Secrets::new();
    let text = one_channel(&secrets, "bus", &receiver);
    let mut file = Mounted::new(&text);
    let mut operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", declared())).await;
    let first = receiver.gets("first attempt", |r| !r.is_empty()).await;
    operator.kill();
    file.becomes("channel: none\n");
    operator.restart().await;
    incident_when(&namespace, "checkout", "refusal of the file", |i| {
        incident_says(i, "Configured").starts_with("False")
    })
    .await;
    receiver.becomes(Manner::Answers(200, "", "ok"));
    let before = receiver.received().len();
    file.becomes(&text);
    let again = receiver.gets("second attempt", |r| r.len() > before).await;
    assert_eq!(ids(&again[before..])[0], ids(&first)[0]);
    all_delivered(&namespace, "checkout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_fails_is_in_nobodys_way_is_told_of_and_gets_everything_when_it_is_back() {
    let namespace = TestNamespace::new("dead").await;
    let (dead, live) = (Receiver::with(Manner::Answers(500, "", "oops")), Receiver::new());
    let secrets = Secrets::new();
    let channels = [
        channel("dead", "Webhook", "Internal", &format!("urlFile: {}", secrets.url("dead", &dead))),
        channel("live", "Webhook", "Internal", &format!("urlFile: {}", secrets.url("live", &live))),
    ];
    let file = Mounted::new(&format!("{ALLOWED}channels:\n{}", channels.concat()));
    let operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", declared())).await;
    live.gets("declaration", |r| reasons(r).contains(&"Declared".to_owned())).await;

    for manner in [
        Manner::HangsUp,
        Manner::Answers(302, "location: http://127.0.0.1:1/\r\n", ""),
        Manner::Endless,
        Manner::Answers(429, "retry-after: 1\r\n", ""),
    ] {
        let before = dead.received().len();
        dead.becomes(manner);
        dead.gets("another attempt", |r| r.len() > before).await;
    }
    let failing = incident_when(&namespace, "checkout", "condition", |i| {
        incident_says(i, "Notified").starts_with("False")
    })
    .await;
    let says = incident_says(&failing, "Notified");
    assert!(
        says.contains("ChannelFailing") && says.contains("dead failed") && !says.contains("live"),
        "{says}"
    );
    operator.metric_is("incident_operator_channel_failing", &[("channel", "dead")], 1.0).await;
    assert_eq!(told(&failing, "DeliveryFailed").len(), 1);
    assert!(
        live.received().iter().all(|r| !r.text.contains("DeliveryFailed")),
        "a failure begets no message"
    );

    // What is declared, updated and resolved meanwhile is not held up.
    namespace.create(update("checkout", "Internal", "still at it")).await;
    live.gets("update", |r| r.last().is_some_and(|r| r.text.contains("still at it"))).await;

    dead.becomes(Manner::Answers(200, "", "ok"));
    let after = all_delivered(&namespace, "checkout").await;
    incident_when(&namespace, "checkout", "end of the failure", |i| {
        incident_says(i, "Notified").starts_with("True")
    })
    .await;
    let delivered = ids(&dead.received());
    let last = outbox(&after, ClockName::Internal).message_count.expect("there are messages");
    let mut once = delivered.clone();
    once.dedup();
    let uid = after.uid().expect("it has one");
    let expected: Vec<_> = (1..=last).map(|n| format!("{uid}-internal-{n}-dead")).collect();
    assert_eq!(once, expected, "in order, each until it was taken: {delivered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_recorded_goes_out_again_under_the_same_id_and_nothing_is_lost() {
    let namespace = TestNamespace::new("again").await;
    let receiver = Receiver::with(Manner::Silent);
    let secrets = Secrets::new();
    let file = Mounted::new(&one_channel(&secrets, "bus", &receiver));
    let mut operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", declared())).await;
    // It has the message, and the operator will never know.
    let first = receiver.gets("first attempt", |r| !r.is_empty()).await;
    operator.kill();
    receiver.becomes(Manner::Answers(200, "", "ok"));
    operator.restart().await;
    let again = receiver.gets("second attempt", |r| r.len() > first.len()).await;
    assert_eq!(ids(&again[first.len()..])[0], ids(&first)[0]);
    all_delivered(&namespace, "checkout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_and_what_is_internal_leave_the_cluster_for_nobody_else() {
    let namespace = TestNamespace::new("drill").await;
    let (inside, outside) = (Receiver::new(), Receiver::new());
    let secrets = Secrets::new();
    let channels = [
        channel("inside", "Webhook", "Internal", &format!("urlFile: {}", secrets.url("inside", &inside))),
        channel(
            "outside",
            "SlackCompatible",
            "Public",
            &format!("urlFile: {}", secrets.url("outside", &outside)),
        ),
        channel(
            "elsewhere",
            "Webhook",
            "Internal",
            &format!("namespaces: [other], urlFile: {}", secrets.url("e", &outside)),
        ),
        channel(
            "worst",
            "Webhook",
            "Internal",
            &format!("minSeverity: SEV1, urlFile: {}", secrets.url("w", &outside)),
        ),
    ];
    let file = Mounted::new(&format!("{ALLOWED}channels:\n{}", channels.concat()));
    let _operator = Operator::start(&namespace, file.options()).await;
    let mut drill = declared();
    drill["drill"] = json!(true);
    namespace.create(incident("drill", drill)).await;
    namespace.create(update("drill", "Public", "only a drill")).await;
    incident_when(&namespace, "drill", "update of the drill", |i| !told(i, "StatusUpdate").is_empty()).await;
    let mut internal = declared();
    internal["communication"]["visibility"] = "Internal".into();
    namespace.create(incident("internal", internal)).await;
    namespace.create(update("internal", "Public", "not for the public yet")).await;
    // The internal channel hears of the public text, which tells that everything before it was looked at.
    inside.gets("public text", |r| r.iter().any(|r| r.text.contains("not for the public yet"))).await;
    all_delivered(&namespace, "internal").await;
    holds_for(Duration::from_secs(2), "silence", async || match outside.received().as_slice() {
        [] => Ok(()),
        received => Err(format!("{received:?}")),
    })
    .await;
    assert!(inside.received().iter().all(|r| r.body["data"]["name"] == "internal"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_inside_that_nobody_allowed_gets_nothing() {
    let namespace = TestNamespace::new("inside").await;
    let receiver = Receiver::new();
    let secrets = Secrets::new();
    let url = secrets.file("url", &format!("https://localhost:{}/", receiver.address.port()));
    let channel = channel("bus", "Webhook", "Internal", &format!("urlFile: {}", url.display()));
    let file = Mounted::new(&format!("channels:\n{channel}"));
    let _operator = Operator::start(&namespace, file.options()).await;
    namespace.create(incident("checkout", declared())).await;
    let refused = incident_when(&namespace, "checkout", "refusal", |i| {
        outbox(i, ClockName::Internal).deliveries.iter().any(|d| d.error.is_some())
    })
    .await;
    let error = outbox(&refused, ClockName::Internal).deliveries[0].error.clone().expect("it is there");
    assert!(error.contains("loopback") && error.contains("allowedNetworks"), "{error}");
    assert!(receiver.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn action_items_are_chased_in_channels_too_once_whatever_restarts() {
    let namespace = TestNamespace::new("chasing").await;
    let receiver = Receiver::new();
    let secrets = Secrets::new();
    let file = Mounted::new(&one_channel(&secrets, "bus", &receiver));
    let mut operator = Operator::start(&namespace, file.options()).await;
    let item =
        json!({"id": "pool", "title": "split the pool <@U1>", "owner": "bob", "dueDate": "2017-03-01"});
    namespace.create(ours("Postmortem", "outage", json!({"title": "Outage", "actionItems": [item]}))).await;
    let received = receiver.gets("reminder", |r| !r.is_empty()).await;
    assert_eq!(received[0].body["data"]["reason"], "ActionItemOverdue");
    assert_eq!(received[0].body["data"]["kind"], "Postmortem");
    let text = received[0].body["data"]["text"].as_str().expect("it has a text");
    assert!(text.starts_with("action item pool of bob was due on 2017-03-01, "), "{text}");
    let done = |p: &Postmortem| {
        let outbox = p.status.as_ref().and_then(|s| s.communication.clone()).unwrap_or_default();
        outbox.messages.is_empty() && outbox.deliveries.iter().any(|d| d.delivered_time.is_some())
    };
    wait_status(&namespace.api::<Postmortem>(), "outage", "record of the delivery", done).await;
    operator.restart().await;
    // Its first visit is over when it has looked at what came after.
    namespace.create(ours("Postmortem", "later", json!({"title": "Later"}))).await;
    wait_status(&namespace.api::<Postmortem>(), "later", "look", |p: &Postmortem| {
        p.status.as_ref().is_some_and(|s| s.export.is_some())
    })
    .await;
    assert_eq!(receiver.received().len(), 1, "{:?}", receiver.received());
}
