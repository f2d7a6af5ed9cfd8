//! Certificates that are rotated while the operator runs: the API server's own, and the authority that issued it.

use super::off;
use crate::support::operator::write_kubeconfig;
use crate::support::own_cluster::run;
use crate::support::parts::{Part, Parts, api_server_is_ready};
use crate::support::record::incident_says;
use crate::support::workload::{configmap, incident};
use crate::support::*;
use incident_operator::api::Incident;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The name by which only the operator of a test asks for the API server: for this name it has another certificate,
/// and everybody else goes on as before.
const NAME: &str = "rotated.test";

/// Runs openssl in a folder; what it printed.
fn openssl(folder: &Path, args: &[&str]) -> String {
    run(Command::new("openssl").args(args).current_dir(folder)).success()
}

/// Whether this machine can make certificates.
fn can_issue() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !found {
        skipped("certificates that are rotated", "openssl is not installed");
    }
    found
}

/// Who issues certificates: a certificate and its key.
struct Authority {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// The one of the control plane.
    fn of_the_cluster() -> Authority {
        let certificate = Part::named("kube-apiserver").flag("client-ca-file").expect("it has an authority");
        let certificate = PathBuf::from(certificate);
        Authority { key: certificate.with_extension("key"), certificate }
    }

    /// A new one.
    fn new(folder: &Path) -> Authority {
        let config = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = authority\n\
            [name]\nCN = another authority\n\
            [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n";
        std::fs::write(folder.join("authority.conf"), config).expect("writable");
        let mut args = vec!["req", "-x509", "-config", "authority.conf", "-days", "2"];
        args.extend(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        args.extend(["-keyout", "authority.key", "-out", "authority.crt"]);
        openssl(folder, &args);
        Authority { certificate: folder.join("authority.crt"), key: folder.join("authority.key") }
    }

    /// Issues a certificate with a key and a serial number of its own. Answers both files and the number.
    fn issue(&self, folder: &Path, short: &str) -> (String, String, String) {
        let [key, request, certificate] = ["key", "csr", "crt"].map(|end| format!("{short}.{end}"));
        let serial = format!("{:016X}", fastrand::u64(1 << 60..1 << 63));
        let names = format!(
            "subjectAltName = IP:127.0.0.1, DNS:localhost, DNS:{NAME}\nextendedKeyUsage = serverAuth\n"
        );
        std::fs::write(folder.join("names"), names).expect("writable");
        let mut args = vec!["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        args.extend(["-nodes", "-subj", "/CN=kube-apiserver", "-keyout", &key, "-out", &request]);
        openssl(folder, &args);
        let [by, with] = [&self.certificate, &self.key].map(|path| path.display().to_string());
        let number = format!("0x{serial}");
        let mut args = vec!["x509", "-req", "-in", &request, "-CA", &by, "-CAkey", &with, "-days", "2"];
        args.extend(["-set_serial", &number, "-extfile", "names", "-out", &certificate]);
        openssl(folder, &args);
        let whole = |name: &str| folder.join(name).display().to_string();
        (whole(&certificate), whole(&key), serial)
    }
}

/// The serial number of the certificate that the API server shows whoever asks for it by this name.
fn shown(folder: &Path, name: &str) -> String {
    let address = Part::named("kube-apiserver").flag("secure-port").expect("it says where it listens");
    let asked = format!(
        "openssl s_client -connect 127.0.0.1:{address} -servername {name} </dev/null 2>&1 | openssl x509 -noout -serial"
    );
    let said = run(Command::new("sh").args(["-c", &asked]).current_dir(folder));
    said.stdout.trim().trim_start_matches("serial=").to_owned()
}

/// Declares an incident that turns a flag off, and waits until it is off.
async fn mitigates(namespace: &TestNamespace, name: &str, within: Duration) {
    let start = Instant::now();
    for object in [
        configmap(name, &[("a", "on")]),
        incident(name, json!({"title": "Checkout fails", "mitigations": [off(name)]})),
    ] {
        wait_for(Duration::from_secs(60), "admission after the restart", async || {
            match namespace.try_create(object.clone()).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other.map(|_| ()).map_err(|error| error.to_string()),
            }
        })
        .await;
    }
    wait_for(within, "effect", async || {
        let found = namespace.api::<Incident>().get(name).await.map_err(|e| e.to_string())?;
        let says = incident_says(&found, "Mitigated");
        if says.starts_with("True") { Ok(()) } else { Err(says) }
    })
    .await;
    println!("{name}: mitigated {:?} after it was asked for", start.elapsed());
}

fn set(words: &mut [String], flag: &str, value: &str) {
    let prefix = format!("--{flag}=");
    let word = words.iter_mut().find(|word| word.starts_with(&prefix));
    *word.unwrap_or_else(|| panic!("the API server has no {flag}")) = format!("{prefix}{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_of_the_api_server_is_taken_by_the_running_operator() {
    if !can_issue() {
        return;
    }
    let namespace = TestNamespace::new("renewed").await;
    let mut operator = Operator::start(&namespace, Options::default()).await;
    mitigates(&namespace, "before", PATIENCE).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key, serial) = Authority::of_the_cluster().issue(folder.path(), "renewed");
    let parts = Parts::note();
    let server = Part::named("kube-apiserver");
    let changed = server.changeable();
    changed
        .restart(|words| {
            set(words, "tls-cert-file", &certificate);
            set(words, "tls-private-key-file", &key);
        })
        .await;
    api_server_is_ready().await;
    parts.revive();
    assert_eq!(shown(folder.path(), "localhost"), serial, "it is another certificate");
    mitigates(&namespace, "after", Duration::from_secs(60)).await;
    assert_eq!(operator.ended(), None, "and it was never started again");
    drop(changed);
    api_server_is_ready().await;
    parts.revive();
}

/// As Kubernetes has it done: first everybody trusts both authorities, then the new one issues what is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_authority_in_the_file_that_the_operator_was_started_with_is_trusted_without_a_restart() {
    if !can_issue() {
        return;
    }
    let namespace = TestNamespace::new("authority").await;
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Authority::of_the_cluster(), Authority::new(folder.path()));
    let parts = Parts::note();
    let server = Part::named("kube-apiserver");
    let changed = server.changeable();
    let serve = async |authority: &Authority, short: &str| {
        let (certificate, key, serial) = authority.issue(folder.path(), short);
        let flag = format!("--tls-sni-cert-key={certificate},{key}:{NAME}");
        changed.restart(|words| words.push(flag)).await;
        api_server_is_ready().await;
        parts.revive();
        assert_eq!(shown(folder.path(), NAME), serial);
    };
    serve(&old, "old").await;

    let [file, path] = ["ca.crt", "kubeconfig"].map(|name| folder.path().join(name));
    let bundle = std::fs::read_to_string(&old.certificate).expect("readable");
    std::fs::write(&file, &bundle).expect("writable");
    write_kubeconfig(&namespace.cluster, &path, None).await;
    let text = std::fs::read_to_string(&path).expect("readable");
    let mut kubeconfig: Value = serde_json::from_str(&text).expect("JSON");
    let cluster = kubeconfig["clusters"][0]["cluster"].as_object_mut().expect("it names a cluster");
    cluster.remove("certificate-authority-data");
    cluster.insert("certificate-authority".to_owned(), json!(file));
    cluster.insert("tls-server-name".to_owned(), json!(NAME));
    std::fs::write(&path, kubeconfig.to_string()).expect("writable");
    let env = vec![("KUBECONFIG".to_owned(), path.display().to_string())];
    let mut operator = Operator::start(&namespace, Options { env, ..Options::default() }).await;
    mitigates(&namespace, "before", PATIENCE).await;

    // At once, as a kubelet changes it.
    let both = bundle + &std::fs::read_to_string(&new.certificate).expect("readable");
    let beside = folder.path().join("ca.crt.new");
    std::fs::write(&beside, both).expect("writable");
    std::fs::rename(&beside, &file).expect("renamed");
    // The file is read at most once a minute, so nobody serves what the new one issued before that is over.
    tokio::time::sleep(Duration::from_secs(61)).await;
    serve(&new, "new").await;
    mitigates(&namespace, "after", Duration::from_secs(60)).await;
    assert_eq!(operator.ended(), None, "and it was never started again");
    drop(changed);
    api_server_is_ready().await;
    parts.revive();
}
