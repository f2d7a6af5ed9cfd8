//! What the API takes and refuses, asked of the real API server.

use super::support::schema::{accepts, rejects};
use super::support::workload::incident;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_title_is_all_that_an_incident_needs() {
    accepts(incident("a", json!({"title": "Checkout fails"}))).await;
    rejects(incident("a", json!({})), "spec.title").await;
    rejects(incident("a", json!({"title": ""})), "spec.title").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_field_is_refused_by_name() {
    rejects(incident("a", json!({"title": "x", "severty": "SEV1"})), "spec.severty").await;
}
