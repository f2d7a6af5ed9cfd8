//! The control plane that the tests run on, as its admin sees it.

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::config::{Config, Kubeconfig};
use kube::{Client, Resource};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// Namespace and name of the ServiceAccount that the chart makes for the operator.
pub const SERVICE_ACCOUNT: (&str, &str) = ("incident-operator", "incident-operator");

/// The control plane of this run. A client belongs to the runtime of one test, so each test gets its own.
#[derive(Clone)]
pub struct Cluster {
    /// Client with the admin's rights.
    pub client: Client,
}

impl Cluster {
    /// The control plane that E2E_DIR points at.
    pub async fn get() -> Cluster {
        Self::by(&Self::kubeconfig()).await
    }

    /// A control plane, with the credentials of a kubeconfig.
    pub async fn by(kubeconfig: &Path) -> Cluster {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig is readable");
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .expect("the kubeconfig is complete");
        Cluster { client: Client::try_from(config).expect("a client can be made from the kubeconfig") }
    }

    /// The control plane that E2E_DIR points at, for requests alone: an answer that does not come is an error in time.
    /// What a young API server is not ready for (503) is asked again, as by every client of the admin.
    pub async fn impatient() -> Cluster {
        let kubeconfig = Kubeconfig::read_from(Self::kubeconfig()).expect("the kubeconfig is readable");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .expect("the kubeconfig is complete");
        config.read_timeout = Some(Duration::from_secs(30));
        Cluster { client: Client::try_from(config).expect("a client can be made from the kubeconfig") }
    }

    /// The same control plane, as the API server sees it asked by somebody else: who is also in
    /// `system:authenticated`, and in these groups.
    pub async fn impersonating(user: &str, groups: &[&str]) -> Cluster {
        let mut kubeconfig =
            Kubeconfig::read_from(Self::kubeconfig()).expect("the kubeconfig in E2E_DIR is readable");
        for named in &mut kubeconfig.auth_infos {
            let info = named.auth_info.as_mut().expect("the admin has credentials");
            info.impersonate = Some(user.to_owned());
            // An account's own groups are added by the API server, as long as no others are stated.
            if !user.starts_with("system:serviceaccount:") {
                let all = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned);
                info.impersonate_groups = Some(all.collect());
            }
        }
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .expect("the kubeconfig in E2E_DIR is complete");
        Cluster { client: Client::try_from(config).expect("a client can be made from the kubeconfig") }
    }

    /// The operator's own name and rights, for what only it may do. Its requests are told from those of a running
    /// operator by the credential.
    pub async fn as_the_operator() -> Cluster {
        let (namespace, name) = SERVICE_ACCOUNT;
        Self::impersonating(&format!("system:serviceaccount:{namespace}:{name}"), &[]).await
    }

    /// The folder of the control plane: kubeconfig, audit.log, bin/.
    pub fn dir() -> &'static Path {
        static DIR: LazyLock<Option<PathBuf>> =
            LazyLock::new(|| std::env::var_os("E2E_DIR").map(PathBuf::from));
        DIR.as_deref().expect("these tests need a control plane: run `make e2e` (E2E_DIR is not set)")
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig() -> PathBuf {
        Self::dir().join("kubeconfig")
    }

    /// A kind with a Rust type, in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The API that an object of this `apiVersion` and `kind` belongs to, in a namespace.
    pub fn api_of(&self, object: &Value, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource_of(object))
    }

    /// A kind of this project without its Rust type: what is really stored, unknown fields and all.
    pub fn raw(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("incident-operator.dev", "v1alpha1", kind);
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::from_gvk(&gvk))
    }
}

/// Group, version and plural of an object, from its `apiVersion` and `kind`.
pub fn resource_of(object: &Value) -> ApiResource {
    let text =
        |key: &str| object[key].as_str().unwrap_or_else(|| panic!("the object has no {key}: {object}"));
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")))
}

/// What a command said.
#[derive(Debug)]
pub struct Output {
    /// Whether its exit code was 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must succeed.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.ok, "the command failed: {}", self.stderr);
        self.stdout
    }

    /// Standard error of a command that must fail.
    #[track_caller]
    pub fn failure(self) -> String {
        assert!(!self.ok, "the command should have failed, it said: {}", self.stdout);
        self.stderr
    }
}

/// Runs the real kubectl as admin.
pub fn kubectl(args: &[&str]) -> Output {
    kubectl_with(args, "")
}

/// Runs the real kubectl as admin with text on its standard input (`-f -`).
pub fn kubectl_with(args: &[&str], input: &str) -> Output {
    let dir = Cluster::dir();
    let mut child = Command::new(dir.join("bin/kubectl"))
        .args(args)
        .env("KUBECONFIG", dir.join("kubeconfig"))
        .env("KUBECACHEDIR", dir.join("kube-cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl lies in E2E_DIR/bin");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    std::thread::scope(|scope| {
        // Written beside the reading, and allowed to fail: kubectl may end before it has read everything.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("kubectl runs");
        Output {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}
