//! The longest name that an object may have, through a whole life: everything that is made for the incident is named
//! after it, and must be found again.

use super::postmortem_git::program;
use super::support::record::{incident_when, stage, timeline};
use super::support::workload::{configmap, entry, incident};
use super::support::*;
use futures::future::join_all;
use incident_operator::api::{Incident, Mitigation, Postmortem};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_of_253_characters_is_mitigated_archived_reviewed_closed_and_outlived_by_its_postmortem()
{
    let namespace = TestNamespace::new("longest").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let long = "x".repeat(253);
    let bob = namespace.person("bob", &[]).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    let off = json!({"name": "n".repeat(63), "reason": "r", "targetRef": {"kind": "ConfigMap", "name": "flags"},
        "featureFlag": {"key": "a", "value": "off"}, "releaseOn": "Resolve"});
    let spec = json!({"title": "Checkout fails", "severity": "SEV2", "roles": {"incidentCommander": "alice"},
        "impact": {"summary": "40 %"}, "mitigations": [off]});
    namespace.create(incident(&long, spec)).await;
    let config_maps = namespace.api::<ConfigMap>();
    let flag_is = |value: &'static str| {
        wait_status(&config_maps, "flags", "value of the flag", move |c| {
            c.data.as_ref().is_some_and(|data| data["a"] == value)
        })
    };
    flag_is("off").await;
    for _ in 0..11 {
        let notes = (0..20).map(|_| {
            let mut note = entry(&long, "Note", "looked again");
            note["metadata"] = json!({"generateName": "note-"});
            namespace.create(note)
        });
        join_all(notes).await;
    }
    let told = incident_when(&namespace, &long, "archive", |i| {
        i.status.as_ref().is_some_and(|s| s.timeline_archive.is_some()) && timeline(i).len() <= 100
    })
    .await;
    let archive = told.status.and_then(|s| s.timeline_archive).expect("it is there");
    assert!(archive.entries >= 20, "{archive:?}");

    let patch = json!({"spec": {"resolution": {"summary": "restarted"}}}).to_string();
    namespace.kubectl(&["patch", "incident", &long, "--type=merge", "-p", &patch]).success();
    flag_is("on").await;
    let resolved = incident_when(&namespace, &long, "draft", |i| {
        stage(i) == "Postmortem" && i.status.as_ref().is_some_and(|s| s.postmortem_ref.is_some())
    })
    .await;
    let name = resolved.status.and_then(|s| s.postmortem_ref).expect("it is named").name;
    let api = namespace.api::<Postmortem>();
    let exported =
        wait_status(&api, &name, "Markdown", |p| p.status.as_ref().is_some_and(|s| s.export.is_some())).await;
    let markdown = exported.status.and_then(|s| s.export).expect("it is there").config_map_ref.name;
    // All of them, the archived ones too; and offline the same bytes, from the objects that bear its label.
    let label = format!("incident-operator.dev/incident={}", &long[..63]);
    wait_for(PATIENCE, "a whole timeline in the Markdown", async || {
        let map = config_maps.get(&markdown).await.map_err(|e| e.to_string())?;
        let text = map.data.unwrap_or_default().remove("postmortem.md").unwrap_or_default();
        let told = text.matches("| looked again |").count();
        if told != 220 || text.contains("Not shown") {
            return Err(format!("{told} of 220 notes"));
        }
        let objects =
            namespace.kubectl(&["get", "postmortem,configmap", "-l", &label, "-o", "yaml"]).success();
        let offline = program(&["render", "postmortem", "-f", "-"], &objects);
        if offline.stdout == text { Ok(()) } else { Err(format!("{}{}", offline.stdout, offline.stderr)) }
    })
    .await;

    let text = "Nobody had written down how many connections there may be.";
    let rest = json!({"spec": {"state": "Reviewed", "summary": text, "impact": text, "rootCauses": text, "trigger": text,
        "detection": text, "resolution": text, "wentWell": text, "wentPoorly": text, "gotLucky": text,
        "actionItems": [{"id": "1", "title": "Write it down", "owner": "alice", "type": "Prevent", "dueDate": "2099-01-01"}]}});
    let said = bob.kubectl(&["patch", "postmortem", &name, "--type=merge", "-p", &rest.to_string()], "");
    assert!(said.ok, "{}", said.stderr);
    incident_when(&namespace, &long, "end", |i| stage(i) == "Closed").await;
    namespace.api::<Incident>().delete(&long, &DeleteParams::default()).await.expect("it can be deleted");
    wait_gone(&namespace.api::<Incident>(), &long).await;
    wait_for(PATIENCE, "end of its mitigation", async || {
        let left =
            namespace.api::<Mitigation>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        if left.items.is_empty() { Ok(()) } else { Err(left.items[0].name_any()) }
    })
    .await;
    assert!(api.get_opt(&name).await.expect("an answer").is_some(), "the record outlives the incident");
}
