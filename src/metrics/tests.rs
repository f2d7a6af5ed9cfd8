use super::*;
use k8s_openapi::jiff::Timestamp;

#[test]
fn every_metric_is_in_the_list_and_what_is_in_the_list_is_registered() {
    let metrics = Metrics::default();
    let text = format!("{:?}", metrics.registry);
    let mut of_incidents = String::new();
    render(&mut of_incidents, "", OpenIncidents::new(Vec::new(), Timestamp::UNIX_EPOCH)).unwrap();
    for doc in docs::DOCS {
        let registered = text.contains(&format!("\"{}\"", doc.name));
        let told = of_incidents.contains(&format!("# HELP {} {}.\n", doc.name, doc.help));
        assert!(registered != told, "{} is not registered, or twice", doc.name);
        assert!(!doc.help.is_empty());
    }
    let registered = text.matches("Descriptor {").count() + of_incidents.matches("# HELP ").count();
    assert_eq!(registered, docs::DOCS.len(), "a metric is registered that src/metrics/docs.rs lacks");
}

#[test]
fn alerts_and_dashboard_name_metrics_and_labels_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/incident-operator/files");
    let name = regex_lite::Regex::new(
        r"\b((?:incident_operator|controller_runtime|rest_client|workqueue|leader_election)_[a-z_]+)(\{[^}]*\})?",
    )
    .unwrap();
    let label = regex_lite::Regex::new(r"([a-z_]+)\s*(?:=~|!~|!=|=)").unwrap();
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap().replace("incident_operator: self", "");
        let mut found = 0;
        for captures in name.captures_iter(&text) {
            let wanted = &captures[1];
            let doc = docs::DOCS.iter().find(|d| docs::scraped(d).iter().any(|s| s == wanted));
            let doc = doc.unwrap_or_else(|| panic!("{file}: there is no metric {wanted}"));
            let selector = captures.get(2).map_or("", |m| m.as_str());
            for stated in label.captures_iter(selector) {
                assert!(doc.labels.contains(&&stated[1]), "{file}: {wanted} has no label {}", &stated[1]);
            }
            found += 1;
        }
        assert!(found > 10, "{file}");
    }
}

#[test]
fn what_is_counted_can_be_read() {
    let metrics = Metrics::default();
    metrics.reconciled("incident", Duration::from_millis(3), false);
    metrics.failed("incident", Duration::from_millis(3), "panic");
    metrics.request("PATCH", 200);
    let text = metrics.counted();
    for line in [
        "controller_runtime_reconcile_total{controller=\"incident\",result=\"success\"} 1",
        "controller_runtime_reconcile_panics_total{controller=\"incident\"} 1",
        "rest_client_requests_total{method=\"PATCH\",code=\"200\"} 1",
        "leader_election_master_status 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
