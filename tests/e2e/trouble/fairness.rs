//! API Priority and Fairness: the operator gets one seat at the API server, and no queue. What has no seat is answered
//! 429 at once, the requests for the lease among it.

use super::{all_is_well, everything_is_released, in_force, off};
use crate::support::record::incident_says;
use crate::support::workload::{configmap, incident};
use crate::support::*;
use incident_operator::api::Incident;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// One seat for the operator's account, until it goes out of scope.
struct OneSeat;

impl OneSeat {
    fn install(through: &TestNamespace) -> OneSeat {
        let level = |name: &str, spec: Value| {
            json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
                "metadata": {"name": name}, "spec": {"type": "Limited", "limited": spec}})
        };
        let (namespace, name) = SERVICE_ACCOUNT;
        // Seats go by shares, and each level has one at least. Whatever else runs here is exempt.
        let all = [
            level(
                "other-seats",
                json!({"nominalConcurrencyShares": 1_000_000, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}}),
            ),
            level(
                "one-seat",
                json!({"nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"}}),
            ),
            json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "one-seat"},
                "spec": {"matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "one-seat"}, "rules": [{
                    "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}}],
                    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                        "clusterScope": true, "namespaces": ["*"]}]}]}}),
        ];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": all});
        through.apply(&list.to_string()).expect("they can be made");
        OneSeat
    }
}

impl Drop for OneSeat {
    fn drop(&mut self) {
        kubectl(&[
            "delete",
            "flowschema/one-seat",
            "prioritylevelconfiguration/one-seat",
            "prioritylevelconfiguration/other-seats",
            "--ignore-not-found",
        ]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_single_seat_at_the_api_server_everything_is_done_and_no_request_becomes_a_storm() {
    let namespace = TestNamespace::new("one-seat").await;
    let operator = Operator::start(&namespace, Options::default()).await;
    in_force(&namespace).await;
    let seat = OneSeat::install(&namespace);
    let mark = audit::mark();
    for n in 0..30 {
        namespace.create(configmap(&format!("crowd-{n}"), &[("a", "on")])).await;
        let spec = json!({"title": "t", "mitigations": [off(&format!("crowd-{n}"))]});
        namespace.create(incident(&format!("crowd-{n}"), spec)).await;
    }
    for n in 0..30 {
        let name = format!("crowd-{n}");
        // One after the other, on a machine that may be busy.
        wait_for(Duration::from_secs(120), "effect", async || {
            let incident = namespace.api::<Incident>().get(&name).await.map_err(|e| e.to_string())?;
            let says = incident_says(&incident, "Mitigated");
            if says.starts_with("True") { Ok(()) } else { Err(says) }
        })
        .await;
    }
    let asked = operator.requests(mark);
    let refused = asked.iter().filter(|r| r.code == 429).count();
    println!("{} requests, {refused} of them without a seat", asked.len());
    assert!(refused > 0, "it was never crowded, so this shows nothing");
    // Where each visit waits and tries again by itself, most requests find the seat taken.
    assert!(refused * 4 < asked.len(), "{refused} of {} requests were made in vain", asked.len());
    drop(seat);
    all_is_well(&namespace, &operator, Instant::now(), "after-the-crowd").await;
    everything_is_released(&namespace).await;
}
