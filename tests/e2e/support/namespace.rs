//! A namespace per test, in which the operator has exactly the rights that the chart gives it.

use super::cluster::{Cluster, Output, SERVICE_ACCOUNT, kubectl_with};
use super::poll::{PATIENCE, wait_for};
use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// The namespace that the chart was told to act in. Its bindings are the pattern for those of the tests, so
/// that a right which the chart forgets is missing here, too.
const CONSENTED: &str = "consented";

/// A namespace that is deleted when it goes out of scope. Make it before the operator: what is made last is
/// dropped first.
pub struct TestNamespace {
    /// Its name.
    pub name: String,
    /// The control plane it is in.
    pub cluster: Cluster,
}

impl TestNamespace {
    /// Makes a namespace whose name begins with `t-` and the short name of the test.
    pub async fn new(short: &str) -> TestNamespace {
        let cluster = Cluster::get().await;
        let bindings = Bindings::of(&cluster).await;
        Self::within(cluster, short, &bindings).await
    }

    /// The same where the control plane and what the chart binds are known: for those who make hundreds of them.
    pub async fn within(cluster: Cluster, short: &str, bindings: &Bindings) -> TestNamespace {
        let name = format!("t-{short}-{}", random_suffix());
        let namespace: Namespace = named(&name);
        let namespaces = Api::<Namespace>::all(cluster.client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace can be made");
        let this = TestNamespace { name, cluster };
        this.bind_as_the_chart_does(bindings).await;
        this
    }

    /// Leaves it as it is: where the control plane ends soon.
    pub fn leave(mut self) {
        self.name.clear();
    }

    /// Ends it with a few requests of our own, and without a process: for those who make hundreds of them. `own` asks in
    /// the operator's name.
    pub async fn remove_as(mut self, own: &Cluster) {
        if std::env::var_os("E2E_KEEP_NAMESPACES").is_some() {
            return;
        }
        let mitigations = own.raw("Mitigation", &self.name);
        let bare_metadata = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        for left in mitigations.list(&Default::default()).await.into_iter().flatten() {
            let _ = mitigations.patch(&left.name_any(), &PatchParams::default(), &bare_metadata).await;
        }
        let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
        let _ = namespaces.delete(&self.name, &Default::default()).await;
        self.name.clear();
    }

    /// A kind with a Rust type, in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        self.cluster.api(&self.name)
    }

    /// A kind of this project without its Rust type.
    pub fn raw(&self, kind: &str) -> Api<DynamicObject> {
        self.cluster.raw(kind, &self.name)
    }

    /// Creates an object; its `apiVersion` and `kind` say of which kind.
    #[track_caller]
    pub fn create(&self, object: Value) -> impl Future<Output = DynamicObject> {
        let caller = std::panic::Location::caller();
        async move {
            let mut made = self.try_create(object.clone()).await;
            // A connection that broke says nothing about the API server, nor whether the object was made.
            if made.as_ref().is_err_and(|error| !matches!(error, kube::Error::Api(_))) {
                made = match self.try_create(object.clone()).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {
                        let name = object["metadata"]["name"].as_str().unwrap_or_default();
                        self.cluster.api_of(&object, &self.name).get(name).await
                    }
                    again => again,
                };
            }
            made.unwrap_or_else(|error| panic!("{caller}: cannot create {object}: {error}"))
        }
    }

    /// Creates an object that may be refused.
    pub async fn try_create(&self, object: Value) -> Result<DynamicObject, kube::Error> {
        let api = self.cluster.api_of(&object, &self.name);
        let object = serde_json::from_value(object).expect("the object has metadata");
        api.create(&PostParams::default(), &object).await
    }

    /// Creates a workload and waits until all its replicas are ready.
    pub async fn create_ready(&self, workload: Value) {
        let api = self.cluster.api_of(&workload, &self.name);
        let name = workload["metadata"]["name"].as_str().expect("the workload has a name").to_owned();
        let wanted = workload["spec"]["replicas"].clone();
        self.create(workload).await;
        super::wait_status(&api, &name, "readiness of the workload", |object| {
            let ready = &object.data["status"]["readyReplicas"];
            *ready == wanted || (wanted == 0 && ready.is_null())
        })
        .await;
    }

    /// Runs the real kubectl in this namespace.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, "")
    }

    /// `kubectl apply -f -` of a text with one or more documents: what it said, or why it refused.
    pub fn apply(&self, yaml: &str) -> Result<String, String> {
        let output = self.kubectl_with(&["apply", "-f", "-"], yaml);
        if output.ok { Ok(output.stdout) } else { Err(output.stderr) }
    }

    fn kubectl_with(&self, args: &[&str], input: &str) -> Output {
        let args: Vec<&str> = ["--namespace", &self.name].into_iter().chain(args.iter().copied()).collect();
        kubectl_with(&args, input)
    }

    async fn bind_as_the_chart_does(&self, bindings: &Bindings) {
        let roles = bindings.roles.iter().map(|role| self.create_bare(role.clone()));
        let bound = bindings.bindings.iter().map(|binding| self.create_bare(binding.clone()));
        tokio::join!(join_all(roles), join_all(bound));
        self.wait_for_rights().await;
    }

    async fn create_bare<K>(&self, object: K)
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug,
        K: serde::Serialize + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await
            .expect("roles and bindings can be made");
    }

    /// The API server learns of new bindings by a watch of its own: an operator that starts before that
    /// would begin with a refusal.
    async fn wait_for_rights(&self) {
        let review: SubjectAccessReview = serde_json::from_value(json!({
            "spec": {
                "user": format!("system:serviceaccount:{}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1),
                "resourceAttributes": {
                    "namespace": self.name, "verb": "create", "group": "coordination.k8s.io", "resource": "leases",
                },
            },
        }))
        .expect("the review is well formed");
        let reviews: Api<SubjectAccessReview> = Api::all(self.cluster.client.clone());
        wait_for(PATIENCE, "right of the operator to make a lease", async || {
            let answer = reviews.create(&PostParams::default(), &review).await.ok()?.status?;
            answer.allowed.then_some(())
        })
        .await;
    }
}

/// What the chart binds to its ServiceAccount: the rights on workloads in the namespace that it was told to act in, and
/// the right on leases in the one that it lives in.
pub struct Bindings {
    roles: Vec<Role>,
    bindings: Vec<RoleBinding>,
}

impl Bindings {
    /// Looks it up.
    pub async fn of(cluster: &Cluster) -> Bindings {
        let mut all = Bindings { roles: Vec::new(), bindings: Vec::new() };
        for source in [CONSENTED, SERVICE_ACCOUNT.0] {
            let bindings: Api<RoleBinding> = cluster.api(source);
            let found = bindings.list(&Default::default()).await.expect("role bindings can be listed").items;
            let ours: Vec<_> = found.into_iter().filter(is_for_the_operator).collect();
            assert!(
                !ours.is_empty(),
                "the chart binds nothing in namespace {source}: was it installed by `make e2e`?"
            );
            for binding in ours {
                if binding.role_ref.kind == "Role" {
                    let roles: Api<Role> = cluster.api(source);
                    let role = roles.get(&binding.role_ref.name).await.expect("the role of a binding exists");
                    all.roles.push(Role { metadata: bare(&role), rules: role.rules });
                }
                all.bindings.push(RoleBinding { metadata: bare(&binding), ..binding });
            }
        }
        all
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if self.name.is_empty() || std::env::var_os("E2E_KEEP_NAMESPACES").is_some() {
            return;
        }
        // Not waited for. Mitigations whose operator is gone already would hold the namespace for ever, and only
        // the operator may take their finalizer off.
        let script = r#"
            kubectl="$0 --namespace $1"
            for name in $($kubectl get mitigations -o name); do
                $kubectl patch "$name" --as "$2" --type=merge -p '{"metadata":{"finalizers":null}}'
            done
            $kubectl delete namespace "$1" --wait=false
        "#;
        let dir = Cluster::dir();
        let _ = Command::new("sh")
            .args(["-c", script])
            .arg(dir.join("bin/kubectl"))
            .arg(&self.name)
            .arg(format!("system:serviceaccount:{}:{}", SERVICE_ACCOUNT.0, SERVICE_ACCOUNT.1))
            .env("KUBECONFIG", dir.join("kubeconfig"))
            .env("KUBECACHEDIR", dir.join("kube-cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
    }
}

fn is_for_the_operator(binding: &RoleBinding) -> bool {
    binding.subjects.iter().flatten().any(|subject| {
        subject.kind == "ServiceAccount"
            && subject.namespace.as_deref() == Some(SERVICE_ACCOUNT.0)
            && subject.name == SERVICE_ACCOUNT.1
    })
}

fn bare(object: &impl Resource) -> ObjectMeta {
    ObjectMeta { name: Some(object.name_any()), ..Default::default() }
}

fn named<K: Resource + Default>(name: &str) -> K {
    let mut object = K::default();
    object.meta_mut().name = Some(name.to_owned());
    object
}

fn random_suffix() -> String {
    std::iter::repeat_with(|| fastrand::char('a'..='z')).take(5).collect()
}
