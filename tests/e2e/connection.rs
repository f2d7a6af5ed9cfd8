//! The way to the API server: credentials that are renewed while the operator runs.

use super::support::leadership::{holder, identity, works};
use super::support::*;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;
use std::time::{Duration, Instant};

/// A token of the chart's ServiceAccount that is good for as long as a Secret of this name exists.
async fn token_bound_to(cluster: &Cluster, name: &str) -> String {
    let secrets: Api<Secret> = cluster.api(SERVICE_ACCOUNT.0);
    let secret = serde_json::from_value(json!({"metadata": {"name": name}})).expect("well formed");
    let secret = secrets.create(&PostParams::default(), &secret).await.expect("a Secret can be made");
    let wanted: TokenRequest = serde_json::from_value(json!({"spec": {
        "audiences": [], "expirationSeconds": 3600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret.metadata.uid},
    }}))
    .expect("well formed");
    let accounts: Api<ServiceAccount> = cluster.api(SERVICE_ACCOUNT.0);
    let answer = accounts.create_token_request(SERVICE_ACCOUNT.1, &PostParams::default(), &wanted).await;
    answer.expect("a token is issued").status.expect("it has one").token
}

/// As a kubelet does it: the file that the token lies in is written anew before the old one ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_renewed_in_its_file_is_used_and_the_old_one_is_not_missed() {
    let namespace = TestNamespace::new("token").await;
    let cluster = &namespace.cluster;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, path) = (folder.path().join("token"), folder.path().join("kubeconfig"));
    let names = [format!("{}-old", namespace.name), format!("{}-new", namespace.name)];
    std::fs::write(&file, token_bound_to(cluster, &names[0]).await).expect("writable");
    let admin = Kubeconfig::read_from(Cluster::kubeconfig()).expect("readable");
    let upstream = admin.clusters[0].cluster.as_ref().expect("it names a cluster");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "operator",
        "clusters": [{"name": "operator", "cluster": {
            "server": upstream.server, "certificate-authority-data": upstream.certificate_authority_data,
        }}],
        "users": [{"name": "operator", "user": {"tokenFile": file}}],
        "contexts": [{"name": "operator", "context": {"cluster": "operator", "user": "operator"}}],
    });
    std::fs::write(&path, kubeconfig.to_string()).expect("writable");
    let env = vec![("KUBECONFIG".to_owned(), path.display().to_string())];
    let mark = audit::mark();
    let operator = Operator::start(&namespace, Options { env, ..Options::default() }).await;
    works(&namespace, "before").await;
    let credentials = || {
        let asked = audit::requests(mark, |r| identity(r) == operator.identity && r.code < 400);
        let mut found: Vec<String> = asked.into_iter().map(|r| r.credential).collect();
        found.dedup();
        found
    };
    assert_eq!(credentials().len(), 1);

    std::fs::write(&file, token_bound_to(cluster, &names[1]).await).expect("writable");
    let start = Instant::now();
    let secrets: Api<Secret> = cluster.api(SERVICE_ACCOUNT.0);
    // The file is read again within a minute; a kubelet renews it long before the old token ends.
    wait_for(Duration::from_secs(75), "use of the new token", async || {
        let seen = credentials();
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    println!("the new token is used {:?} after it was written", start.elapsed());
    secrets.delete(&names[0], &DeleteParams::default()).await.expect("it can be deleted");
    works(&namespace, "after").await;
    assert!(!operator.log().contains("Unauthorized"), "nothing was refused in between");
    assert_eq!(holder(&namespace).await, operator.identity, "and it led all the time");
    secrets.delete(&names[1], &DeleteParams::default()).await.expect("it can be deleted");
}
