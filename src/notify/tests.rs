use super::*;
use crate::{
    api::{ComponentState, Message, Severity, Stage},
    config::{Channel, ChannelAudience, read},
};
use serde_json::{Value, json};

/// What an alert would like to do to those who read of it.
const HOSTILE: &str = "<!channel> <@U123> @here @channel <https://evil.example|click> [a](https://evil.example) \
                       ![x](https://evil.example/x.png) <script>alert(1)</script> & \u{1b}[31m \u{202e}cod.exe";

fn facts() -> Facts {
    Facts {
        kind: "Incident",
        namespace: "shop".into(),
        name: "checkout-errors".into(),
        uid: "u1".into(),
        title: "Checkout returns 500 <!channel>".into(),
        severity: Some(Severity::SEV2),
        stage: Some(Stage::Mitigate),
        owner: Some("alice".into()),
        impact: Some("40 % of checkouts fail".into()),
        started: Some("2026-11-23T10:02:00Z".parse().unwrap()),
        next_update: Some("2026-11-23T10:20:00Z".parse().unwrap()),
        components: vec![
            ("checkout".into(), ComponentState::PartialOutage),
            ("db-7.internal".into(), ComponentState::MajorOutage),
        ],
    }
}

#[test]
fn the_company_reads_who_has_command_and_when_its_own_next_update_is_due() {
    let incident = serde_json::from_value(json!({
        "apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident", "metadata": {"name": "a"},
        "spec": {"title": "t", "roles": {"incidentCommander": "bob"}, "impact": {"affectedTenants": 1,
            "components": [{"name": "checkout", "state": "MajorOutage"}], "dataAtRisk": "Confirmed"}},
        "status": {"stage": "Mitigate", "commander": "alice", "nextUpdateTime": "2026-11-23T10:05:00Z",
            "communication": [{"audience": "Internal", "nextDueTime": "2026-11-23T10:15:00Z"},
                {"audience": "Public", "nextDueTime": "2026-11-23T10:05:00Z"}]},
    }))
    .unwrap();
    let facts = Facts::of_incident(&incident);
    assert_eq!(facts.owner.as_deref(), Some("alice"));
    assert_eq!(facts.impact.as_deref(), Some("1 tenant; checkout is down; data is lost or damaged"));
    assert_eq!(facts.next_update, Some("2026-11-23T10:15:00Z".parse().unwrap()));
}

fn message(reason: &str, text: &str) -> Message {
    Message {
        number: 3,
        reason: reason.into(),
        time: crate::api::Time("2026-11-23T10:05:00Z".parse().unwrap()),
        text: text.into(),
    }
}

fn notice<'a>(facts: &'a Facts, message: &'a Message, audience: ChannelAudience) -> Notice<'a> {
    Notice { id: "u1-internal-3-incidents".into(), audience, facts, message, remote_id: None }
}

fn channel(fields: &str) -> Channel {
    read(&format!("channels: [{{name: incidents, {fields}}}]\n")).unwrap().channels.remove(0)
}

const SLACK: &str = "type: Slack, audience: Internal, urlFile: /u";
const COMPATIBLE: &str = "type: SlackCompatible, audience: Internal, urlFile: /u";
const PAGE: &str =
    "type: Statuspage, audience: Public, tokenFile: /t, pageId: p1, components: {checkout: c1}";
const HOOK: &str = "type: Webhook, audience: Internal, url: https://example.com/";

fn sent(channel: &Channel, notice: &Notice<'_>) -> (Request, Value) {
    let Step::Send(request) = render(channel, notice) else { panic!("one request is expected") };
    let body = serde_json::from_slice(&request.body).unwrap();
    (request, body)
}

#[test]
fn slack_gets_blocks_in_which_nothing_is_a_mention() {
    let (facts, message) = (facts(), message("Declared", HOSTILE));
    let (request, body) = sent(&channel(SLACK), &notice(&facts, &message, ChannelAudience::Internal));
    assert_eq!((request.method, request.path.as_str()), (http::Method::POST, ""));
    assert_eq!(body["blocks"][0]["text"]["text"], "SEV2 Incident: Checkout returns 500 &lt;!channel&gt;");
    let text = body["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(text.starts_with("&lt;!channel&gt; &lt;@U123&gt;"), "{text}");
    assert_eq!(body["blocks"][1]["text"]["verbatim"], true);
    let whole = body.to_string();
    assert!(!whole.contains('<') && !whole.contains("\\u001b") && !whole.contains('\u{202e}'), "{whole}");
    let fields: Vec<_> =
        body["blocks"][2]["fields"].as_array().unwrap().iter().map(|f| f["text"].clone()).collect();
    assert_eq!(
        fields,
        [
            "*Impact*\n40 % of checkouts fail",
            "*Stage*\nMitigate",
            "*Owner*\nalice",
            "*Start*\n2026-11-23 10:02 UTC",
            "*Next update*\n2026-11-23 10:20 UTC",
            "*Incident*\nshop/checkout-errors"
        ]
    );
}

#[test]
fn what_is_too_long_for_slack_is_cut_and_never_inside_an_entity() {
    let mut facts = facts();
    facts.title = "&".repeat(256);
    facts.impact = Some("<".repeat(5000));
    let message = message("StatusUpdate", &"장애 & ".repeat(1000));
    let (_, body) = sent(&channel(SLACK), &notice(&facts, &message, ChannelAudience::Internal));
    let length = |v: &Value| v.as_str().unwrap().chars().count();
    assert!(length(&body["blocks"][0]["text"]["text"]) <= 150);
    assert!(length(&body["blocks"][1]["text"]["text"]) <= 3000);
    for field in body["blocks"][2]["fields"].as_array().unwrap() {
        assert!(length(&field["text"]) <= 2000);
    }
    for text in [&body["blocks"][0]["text"]["text"], &body["blocks"][1]["text"]["text"]] {
        let text = text.as_str().unwrap().trim_end_matches('…');
        let entities = text.matches("&amp;").count() + text.matches("&lt;").count();
        assert_eq!(text.matches('&').count(), entities, "{text}");
    }
    assert!(body.to_string().len() < 13_000);
}

#[test]
fn compatible_chats_get_attachments_in_which_nothing_is_a_mention_a_link_or_an_image() {
    let (facts, message) = (facts(), message("Declared", HOSTILE));
    let (_, body) = sent(&channel(COMPATIBLE), &notice(&facts, &message, ChannelAudience::Internal));
    assert_eq!(body["attachments"][0]["color"], "#c62828");
    assert!(body.get("blocks").is_none());
    let whole = body.to_string();
    for bad in ["<!", "<@", "@here", "@channel", "](", "<script", "<https"] {
        assert!(!whole.contains(bad), "{bad} in {whole}");
    }
}

#[test]
fn a_status_page_hears_of_components_that_it_knows_and_of_nothing_internal() {
    let (facts, message) =
        (facts(), message("StatusUpdate", "Some checkouts fail. We are on it.\nNext update at 10:20 UTC."));
    let page = channel(PAGE);
    let mut notice = notice(&facts, &message, ChannelAudience::Public);
    let Step::Find { list, uid } = render(&page, &notice) else { panic!("it looks first") };
    assert_eq!(
        (list.method.as_str(), list.path.as_str(), uid.as_str()),
        ("GET", "/v1/pages/p1/incidents/unresolved", "u1")
    );
    let create = statuspage::create(&page, &notice);
    assert_eq!((create.method.as_str(), create.path.as_str()), ("POST", "/v1/pages/p1/incidents"));
    let body: Value = serde_json::from_slice(&create.body).unwrap();
    assert_eq!(
        body,
        json!({"incident": {
            "name": "Some checkouts fail",
            "status": "identified",
            "impact_override": "major",
            "body": "Some checkouts fail. We are on it.\nNext update at 10:20 UTC.",
            "component_ids": ["c1"],
            "components": {"c1": "partial_outage"},
            "metadata": {"incident-operator": {"uid": "u1"}},
        }})
    );
    notice.remote_id = Some("r7");
    let (update, body) = sent(&page, &notice);
    assert_eq!((update.method.as_str(), update.path.as_str()), ("PATCH", "/v1/pages/p1/incidents/r7"));
    assert_eq!(body["incident"].get("name"), None);
}

#[test]
fn the_name_on_the_page_is_the_first_sentence_and_nothing_is_longer_than_the_page_takes() {
    let facts = facts();
    let name = |text: &str| {
        let message = message("StatusUpdate", text);
        let notice = notice(&facts, &message, ChannelAudience::Public);
        let body: Value = serde_json::from_slice(&statuspage::create(&channel(PAGE), &notice).body).unwrap();
        let of = |key: &str| body["incident"][key].as_str().unwrap().to_owned();
        (of("name"), of("body"))
    };
    for (text, expected) in [
        ("About 2.5 % of checkouts fail. We are on it.", "About 2.5 % of checkouts fail"),
        ("Logins at example.com fail! Sorry.", "Logins at example.com fail!"),
        ("<!channel> checkouts fail", "<\u{200b}!channel> checkouts fail"),
        ("결제가 실패합니다. 확인 중입니다.", "결제가 실패합니다"),
        ("支付失败。正在处理。", "支付失败。"),
        ("No stop\nand more", "No stop"),
    ] {
        assert_eq!(name(text).0, expected, "{text}");
    }
    let (name, body) = name(&"@<".repeat(2048));
    assert_eq!((name.chars().count(), body.chars().count()), (120, 4096));
}

#[test]
fn a_resolved_incident_is_resolved_on_the_page_and_its_components_work() {
    let mut facts = facts();
    facts.stage = Some(Stage::Postmortem);
    let message = message("Resolved", "This incident has been resolved.");
    let notice = Notice { remote_id: Some("r7"), ..notice(&facts, &message, ChannelAudience::Public) };
    let (_, body) = sent(&channel(PAGE), &notice);
    assert_eq!(
        (&body["incident"]["status"], &body["incident"]["components"]["c1"]),
        (&json!("resolved"), &json!("operational"))
    );
}

#[test]
fn the_stage_gives_the_status_of_the_page() {
    let message = message("StatusUpdate", "x");
    for (stage, status) in [
        (None, "investigating"),
        (Some(Stage::Detect), "investigating"),
        (Some(Stage::Triage), "investigating"),
        (Some(Stage::Mitigate), "identified"),
        (Some(Stage::Resolve), "monitoring"),
        (Some(Stage::Postmortem), "resolved"),
        (Some(Stage::Closed), "resolved"),
    ] {
        let facts = Facts { stage, ..facts() };
        assert_eq!(notice(&facts, &message, ChannelAudience::Public).progress(), status);
    }
}

#[test]
fn what_we_made_is_found_again_and_an_id_that_is_none_is_not_taken() {
    let list =
        json!([{"id": "a", "metadata": {}}, {"id": "b", "metadata": {"incident-operator": {"uid": "u1"}}}]);
    assert_eq!(statuspage::find(&list, "u1").as_deref(), Some("b"));
    assert_eq!(statuspage::find(&list, "u2"), None);
    assert_eq!(statuspage::find(&json!({"error": "x"}), "u1"), None);
    for id in [json!("../../pages"), json!(""), json!(7), json!("a b"), json!("x".repeat(65))] {
        assert_eq!(statuspage::id(&json!({"id": id})), None, "{id}");
    }
}

#[test]
fn a_webhook_gets_a_cloud_event_and_the_public_one_holds_nothing_but_the_text() {
    let (facts, message) = (facts(), message("StatusUpdate", "We are on it."));
    let (request, body) = sent(&channel(HOOK), &notice(&facts, &message, ChannelAudience::Internal));
    assert_eq!(request.content_type, "application/cloudevents+json; charset=utf-8");
    assert!(request.signed);
    for (key, value) in [
        ("specversion", "1.0"),
        ("id", "u1-internal-3-incidents"),
        ("source", "/apis/incident-operator.dev/namespaces/shop/incidents/checkout-errors"),
        ("type", "dev.incident-operator.message.v1"),
        ("subject", "checkout-errors"),
        ("time", "2026-11-23T10:05:00Z"),
        ("datacontenttype", "application/json"),
    ] {
        assert_eq!(body[key], value, "{key}");
    }
    assert_eq!(body["data"]["title"], "Checkout returns 500 <!channel>");
    assert_eq!(body["data"]["stage"], "Mitigate");
    let (_, body) = sent(
        &channel(&HOOK.replace("Internal", "Public")),
        &notice(&facts, &message, ChannelAudience::Public),
    );
    assert_eq!(
        body["data"],
        json!({"uid": "u1", "audience": "Public", "reason": "StatusUpdate", "text": "We are on it.", "status": "identified"})
    );
    let whole = body.to_string();
    for internal in ["shop", "checkout", "alice", "500"] {
        assert!(!whole.contains(internal), "{internal} in {whole}");
    }
}

#[test]
fn a_public_chat_sees_the_text_of_the_update_and_nothing_else() {
    let (facts, message) = (facts(), message("StatusUpdate", "We are on it."));
    for fields in [SLACK, COMPATIBLE] {
        let fields = fields.replace("Internal", "Public");
        let (_, body) = sent(&channel(&fields), &notice(&facts, &message, ChannelAudience::Public));
        let whole = body.to_string();
        assert!(whole.contains("We are on it.") && whole.contains("Service update"), "{whole}");
        for internal in ["shop", "checkout", "alice", "SEV2", "500"] {
            assert!(!whole.contains(internal), "{internal} in {whole}");
        }
    }
}

#[test]
fn a_signature_is_the_one_of_standard_webhooks() {
    // The example of the specification.
    let secret = sign::secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let signature =
        sign::signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    for wrong in ["", "whsec_", "whsec_!!!", "whsec_YWJj", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
        let words = sign::secret(wrong).unwrap_err();
        assert!(!words.contains("MfKQ"), "{words}");
    }
}
