//! What a visit allocates: a gate that is no clock. The numbers are exact for a build, whatever else the machine does.
//!
//! One test alone in its program, because the allocator counts for all threads.

use incident_operator::{
    api::{Incident, Mitigation, TimelineEntry},
    config::Settings,
    controller::{cache::Cache, guard::Guarded},
    decide::{access, incident, mitigation, policy},
    mitigation::{Found, ObjectId, TargetKind},
};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::Arc,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Allocations and bytes that are still there afterwards, as they were when this was last changed. A tenth more fails.
/// Whoever has good reason for more writes the new number here; who needs less does the same, to keep it.
const USUAL: &[(&str, u64, usize)] = &[
    ("a watch tells of an incident of 20 entries", 9, 9893),
    ("it is read", 174, 6574),
    ("a closed incident is kept", 336, 1665),
    ("a visit of a closed incident finds nothing to do", 387, 10446),
    ("the first visit of an incident with a mitigation", 473, 16221),
    ("the first look at a mitigation", 68, 1278),
    ("the take is decided", 379, 6491),
];

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "shop", "uid": format!("uid-of-{name}"), "resourceVersion": "7", "generation": 1,
        "creationTimestamp": "2026-01-01T10:00:00Z", "annotations": {"incident-operator.dev/requester": "alice"},
        "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:title": {}, "f:severity": {}, "f:impact": {"f:summary": {}}}}}]})
}

fn declared(mitigations: Value, resolution: Value) -> Value {
    json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Incident", "metadata": metadata("checkout"),
        "spec": {"title": "Checkout returns 500 for 40 % of requests", "severity": "SEV5", "service": "checkout",
            "roles": {"incidentCommander": "alice"}, "impact": {"summary": "40 % of checkouts fail"},
            "noMitigationNeeded": "it was stopped by hand", "mitigations": mitigations, "resolution": resolution}})
}

fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("well formed")
}

fn visit(incident: &Incident, entries: &[Arc<TimelineEntry>]) -> incident::Plan {
    let (taken_names, settings) = (HashMap::new(), Settings::default());
    let seen = incident::Observed {
        incident,
        mitigations: &[],
        taken_names: &taken_names,
        entries,
        postmortem: None,
        known_postmortem: None,
        original: None,
        way_back: None,
        unreadable: &[],
        signed: true,
        outcomes: &[],
        settings: &settings,
    };
    incident::decide(&seen, now())
}

/// An incident that is over, with 20 entries in its timeline.
fn closed() -> Incident {
    let mut incident: Incident = typed(declared(json!([]), json!({"summary": "the rate is limited"})));
    incident.status = Some(visit(&incident, &[]).status);
    let there = incident.status.as_ref().map_or(0, |status| status.timeline.len());
    let entry = |i: usize| {
        Arc::new(typed(json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "TimelineEntry",
            "metadata": metadata(&format!("note-{i}")), "spec": {"incidentRef": {"name": "checkout"}, "type": "Note",
                "message": format!("looked at dashboard {i}")}})))
    };
    let entries: Vec<_> = (there..20).map(entry).collect();
    incident.status = Some(visit(&incident, &entries).status);
    incident
}

fn look(mitigation: &Mitigation, objects: &mitigation::Objects, found: &Found) -> mitigation::Plan {
    let (dry_run_passed, holders, hidden) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (policies, answers) = (policy::InForce::Known(Vec::new()), access::Answers::new());
    let seen = mitigation::Observed {
        mitigation,
        objects,
        found,
        hidden: &hidden,
        incident: mitigation::Incident::default(),
        refused: None,
        dry_run_passed: &dry_run_passed,
        evidence: None,
        policies: &policies,
        signed: false,
        answers: &answers,
        approvals: &[],
        reservation: None,
        holders: &holders,
    };
    mitigation::decide(&seen, now())
}

/// What one piece of work allocates, and what of it is still there while its result is.
fn measure<T>(work: impl FnOnce() -> T) -> (u64, usize, T) {
    let before = dhat::HeapStats::get();
    let result = work();
    let after = dhat::HeapStats::get();
    (after.total_blocks - before.total_blocks, after.curr_bytes.saturating_sub(before.curr_bytes), result)
}

#[test]
fn what_a_visit_allocates_has_not_grown() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut seen = Vec::new();

    let closed = closed();
    let mut stored = serde_json::to_value(&closed).expect("plain data");
    stored["metadata"] = metadata("checkout");
    let text = stored.to_string();
    let (blocks, bytes, told) =
        measure(|| serde_json::from_str::<Guarded<Incident>>(&text).expect("well formed"));
    seen.push((blocks, bytes));
    let (blocks, bytes, incident) = measure(|| told.read().expect("it can be read"));
    seen.push((blocks, bytes));
    let cache = Cache::of_ours(&[], |_| true);
    let (blocks, bytes, ()) = measure(|| drop(cache.saw(incident.clone())));
    seen.push((blocks, bytes));
    let (blocks, bytes, plan) = measure(|| visit(&incident, &[]));
    assert_eq!(Some(&plan.status), incident.status.as_ref(), "it is over: nothing is left to do");
    seen.push((blocks, bytes));

    let entry = json!({"name": "stop", "reason": "it floods the database", "targetRef": {"kind": "Deployment", "name": "importer"},
        "scale": {"replicas": 0}, "evidence": "None"});
    let fresh: Incident = typed(declared(json!([entry]), Value::Null));
    let (blocks, bytes, plan) = measure(|| visit(&fresh, &[]));
    assert!(matches!(plan.effects[..], [incident::Effect::CreateMitigation(_)]), "{:?}", plan.effects);
    seen.push((blocks, bytes));

    let mut value = json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "Mitigation", "metadata": metadata("stop"),
        "spec": {"reason": "it floods the database", "targetRef": {"kind": "Deployment", "name": "importer"},
            "scale": {"replicas": 0}, "evidence": "None"}});
    value["metadata"]["finalizers"] = json!([incident_operator::api::FINALIZER]);
    let stop: Mitigation = typed(value);
    let mut objects = mitigation::Objects::new();
    let (blocks, bytes, plan) = measure(|| look(&stop, &objects, &Found::new()));
    let Some(mitigation::Effect::Read(id)) = plan.effect else { panic!("{:?}", plan.effect) };
    seen.push((blocks, bytes));
    assert_eq!(id, ObjectId::new(TargetKind::named("apps", "Deployment").expect("it is known"), "importer"));
    let target: DynamicObject = typed(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata("importer"), "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "importer"}},
            "template": {"metadata": {"labels": {"app": "importer"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
    objects.insert(id, Some(Arc::new(target)));
    let mut found = Found::new();
    let (blocks, bytes) = loop {
        let (blocks, bytes, plan) = measure(|| look(&stop, &objects, &found));
        match plan.effect {
            // Nothing else is there that matters.
            Some(mitigation::Effect::Look(look)) => drop(found.insert(look, Vec::new())),
            Some(mitigation::Effect::Write { what: mitigation::Write::Take, .. }) => break (blocks, bytes),
            other => panic!("{other:?}"),
        }
    };
    seen.push((blocks, bytes));

    let mut report = String::new();
    let mut grown = seen.len() != USUAL.len();
    for ((what, usual_blocks, usual_bytes), (blocks, bytes)) in USUAL.iter().zip(&seen) {
        let more = *blocks * 10 > usual_blocks * 11 || *bytes * 10 > usual_bytes * 11;
        grown |= more;
        let mark = if more { " <-- more than a tenth over" } else { "" };
        writeln!(report, "    (\"{what}\", {blocks}, {bytes}), was ({usual_blocks}, {usual_bytes}){mark}")
            .unwrap();
    }
    println!("{report}");
    assert!(
        !grown,
        "allocations and bytes kept; where there is good reason, write the new numbers into USUAL:\n{report}"
    );
}
