//! Receivers of CloudEvents 1.0 in structured JSON.

use super::render::{Notice, Request};
use crate::{api::GROUP, config::ChannelAudience};
use serde_json::json;

/// Type of every event; a change that breaks receivers gives another one.
const TYPE: &str = "dev.incident-operator.message.v1";

pub(super) fn event(notice: &Notice<'_>) -> Request {
    let (facts, message) = (notice.facts, notice.message);
    let internal = notice.audience != ChannelAudience::Public;
    let mut data = json!({
        "uid": facts.uid,
        "audience": format!("{:?}", notice.audience),
        "reason": message.reason,
        "text": message.text,
        "status": notice.progress(),
    });
    // What is said to the public is public, and nothing else is: no name of a namespace, no title.
    let mut source = format!("/apis/{GROUP}");
    if internal {
        let plural = format!("{}s", facts.kind.to_lowercase());
        source += &format!("/namespaces/{}/{plural}/{}", facts.namespace, facts.name);
        json_patch::merge(
            &mut data,
            &json!({
                "kind": facts.kind,
                "namespace": facts.namespace,
                "name": facts.name,
                "title": facts.title,
                "severity": facts.severity,
                "stage": facts.stage,
                "owner": facts.owner,
                "impact": facts.impact,
                "startTime": facts.started,
                "nextUpdateTime": facts.next_update,
            }),
        );
    }
    let event = json!({
        "specversion": "1.0",
        "id": notice.id,
        "source": source,
        "type": TYPE,
        "subject": if internal { &facts.name } else { &facts.uid },
        "time": message.time,
        "datacontenttype": "application/json",
        "data": data,
    });
    Request {
        method: http::Method::POST,
        path: String::new(),
        content_type: "application/cloudevents+json; charset=utf-8",
        body: event.to_string().into_bytes(),
        signed: true,
    }
}
