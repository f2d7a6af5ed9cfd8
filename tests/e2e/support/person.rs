//! People and programs other than the admin, with the rights that a test gives them.

use super::cluster::{Cluster, Output, SERVICE_ACCOUNT, kubectl_with, resource_of};
use super::namespace::TestNamespace;
use super::poll::{PATIENCE, wait_for};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Somebody who asks the API server in one namespace.
pub struct Person {
    /// Name, as the API server knows it.
    pub name: String,
    /// The control plane as they reach it.
    pub cluster: Cluster,
    namespace: String,
    manager: Option<String>,
}

impl TestNamespace {
    /// A user with the chart's ClusterRole commander, who may besides do what the rules say: each is
    /// `verb resource.group/subresource`, with a name behind it when it is about one object.
    pub async fn person(&self, name: &str, rules: &[&str]) -> Person {
        self.subject(name, json!({"kind": "User", "name": name}), "commander", rules).await
    }

    /// The same with another of the chart's roles for people.
    pub async fn person_as(&self, name: &str, role: &str, rules: &[&str]) -> Person {
        self.subject(name, json!({"kind": "User", "name": name}), role, rules).await
    }

    /// A user without any right.
    pub async fn stranger(&self, name: &str) -> Person {
        let cluster = Cluster::impersonating(name, &[]).await;
        Person { name: name.to_owned(), cluster, namespace: self.name.clone(), manager: None }
    }

    /// A ServiceAccount of this namespace with the same rights.
    pub async fn account(&self, name: &str, rules: &[&str]) -> Person {
        self.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})).await;
        let user = format!("system:serviceaccount:{}:{name}", self.name);
        let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": self.name});
        self.subject(&user, subject, "commander", rules).await
    }

    /// The operator's own name and rights, without an operator.
    pub async fn the_operator(&self) -> Person {
        let (namespace, name) = SERVICE_ACCOUNT;
        let cluster = Cluster::as_the_operator().await;
        let name = format!("system:serviceaccount:{namespace}:{name}");
        Person { name, cluster, namespace: self.name.clone(), manager: None }
    }

    /// The operator by a token of its ServiceAccount, as a thief of it would come.
    pub async fn operator_by_token(&self) -> Person {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let kubeconfig = folder.path().join("kubeconfig");
        super::operator::write_kubeconfig(&self.cluster, &kubeconfig, None).await;
        let cluster = Cluster::by(&kubeconfig).await;
        Person { name: "operator".to_owned(), cluster, namespace: self.name.clone(), manager: None }
    }

    /// One of the controllers of Kubernetes, with the rights that a cluster gives it from the start.
    pub async fn controller(&self, name: &str) -> Person {
        let name = format!("system:serviceaccount:kube-system:{name}");
        let cluster = Cluster::impersonating(&name, &[]).await;
        Person { name, cluster, namespace: self.name.clone(), manager: None }
    }

    /// The admin, for whom no authorizer is a hindrance.
    pub fn admin(&self) -> Person {
        let cluster = self.cluster.clone();
        Person { name: "admin".to_owned(), cluster, namespace: self.name.clone(), manager: None }
    }

    async fn subject(&self, user: &str, subject: Value, role: &str, rules: &[&str]) -> Person {
        let short = user.rsplit(':').next().unwrap_or(user);
        let bind = |name: String, kind: &str, role: &str| {
            let binding: RoleBinding = serde_json::from_value(json!({
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
                "subjects": [subject],
            }))
            .expect("well formed");
            binding
        };
        let bindings: Api<RoleBinding> = self.api();
        let create = PostParams::default();
        if !rules.is_empty() {
            let rules: Vec<Value> = rules.iter().map(|rule| to_rule(rule)).collect();
            let role: Role = serde_json::from_value(json!({"metadata": {"name": short}, "rules": rules}))
                .expect("well formed");
            self.api::<Role>().create(&create, &role).await.expect("roles can be made");
            bindings.create(&create, &bind(short.to_owned(), "Role", short)).await.expect("a binding");
        }
        // Last, so that all are known when this one is.
        let role = format!("incident-operator-{role}");
        bindings
            .create(&create, &bind(format!("{short}-people"), "ClusterRole", &role))
            .await
            .expect("a binding");
        for rule in rules.iter().copied().chain(["get incidents.incident-operator.dev"]) {
            self.may(user, rule).await;
        }
        let cluster = Cluster::impersonating(user, &[]).await;
        Person { name: user.to_owned(), cluster, namespace: self.name.clone(), manager: None }
    }

    /// Takes the rules of a person away, and waits until the API server has learnt of it.
    pub async fn revoke(&self, person: &Person, rule: &str) {
        let short = person.name.rsplit(':').next().unwrap_or(&person.name);
        self.api::<RoleBinding>().delete(short, &DeleteParams::default()).await.expect("a binding");
        self.wait_whether(&person.name, rule, false).await;
    }

    /// Waits until the API server has learnt of a right.
    async fn may(&self, user: &str, rule: &str) {
        self.wait_whether(user, rule, true).await;
    }

    async fn wait_whether(&self, user: &str, rule: &str, allowed: bool) {
        let rule = to_rule(rule);
        let (resource, subresource) = {
            let text = rule["resources"][0].as_str().unwrap_or_default();
            text.split_once('/').unwrap_or((text, ""))
        };
        let review: SubjectAccessReview = serde_json::from_value(json!({"spec": {
            "user": user,
            "groups": ["system:authenticated"],
            "resourceAttributes": {
                "namespace": self.name, "verb": rule["verbs"][0], "group": rule["apiGroups"][0],
                "resource": resource, "subresource": subresource, "name": rule["resourceNames"][0],
            },
        }}))
        .expect("well formed");
        let reviews: Api<SubjectAccessReview> = Api::all(self.cluster.client.clone());
        wait_for(PATIENCE, "right of a person", async || {
            let answer = reviews.create(&PostParams::default(), &review).await.ok()?.status?;
            (answer.allowed == allowed).then_some(())
        })
        .await;
    }
}

/// `verb resource.group/subresource name` as a rule of RBAC.
fn to_rule(text: &str) -> Value {
    let mut words = text.split(' ');
    let verb = words.next().unwrap_or_default();
    let (resource, subresource) =
        words.next().map(|what| what.split_once('/').unwrap_or((what, ""))).expect("a rule names a resource");
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let full = if subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{subresource}") };
    let mut rule = json!({"apiGroups": [group], "resources": [full], "verbs": [verb]});
    if let Some(name) = words.next() {
        rule["resourceNames"] = json!([name]);
    }
    rule
}

/// What the API server said to a request.
pub type Answer = Result<DynamicObject, String>;

impl Person {
    /// The same person with groups.
    pub async fn in_groups(&self, groups: &[&str]) -> Person {
        let cluster = Cluster::impersonating(&self.name, groups).await;
        Person { name: self.name.clone(), cluster, namespace: self.namespace.clone(), manager: None }
    }

    /// The same, under a field manager.
    pub fn manager(&self, manager: &str) -> Person {
        let cluster = self.cluster.clone();
        let (name, namespace) = (self.name.clone(), self.namespace.clone());
        Person { name, cluster, namespace, manager: Some(manager.to_owned()) }
    }

    /// The kind of an object.
    pub fn api(&self, object: &Value) -> Api<DynamicObject> {
        if object["kind"] == "Namespace" {
            return Api::all_with(self.cluster.client.clone(), &resource_of(object));
        }
        self.cluster.api_of(object, &self.namespace)
    }

    fn creating(&self) -> PostParams {
        PostParams { field_manager: self.manager.clone(), ..PostParams::default() }
    }

    fn patching(&self) -> PatchParams {
        PatchParams { field_manager: self.manager.clone(), ..PatchParams::default() }
    }

    /// Creates an object.
    pub async fn create(&self, object: &Value) -> Answer {
        let typed = serde_json::from_value(object.clone()).expect("the object has metadata");
        self.api(object).create(&self.creating(), &typed).await.map_err(reason)
    }

    /// Creates an object, and nothing is kept.
    pub async fn try_create(&self, object: &Value) -> Answer {
        let typed = serde_json::from_value(object.clone()).expect("the object has metadata");
        let dry = PostParams { dry_run: true, ..self.creating() };
        self.api(object).create(&dry, &typed).await.map_err(reason)
    }

    /// A merge patch; `object` says of which kind and name.
    pub async fn merge(&self, object: &Value, change: Value) -> Answer {
        self.api(object).patch(&name(object), &self.patching(), &Patch::Merge(change)).await.map_err(reason)
    }

    /// A merge patch of which nothing is kept.
    pub async fn try_merge(&self, object: &Value, change: Value) -> Answer {
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        self.api(object).patch(&name(object), &dry, &Patch::Merge(change)).await.map_err(reason)
    }

    /// A merge patch of the status.
    pub async fn merge_status(&self, object: &Value, change: Value) -> Answer {
        let params = self.patching();
        self.api(object).patch_status(&name(object), &params, &Patch::Merge(change)).await.map_err(reason)
    }

    /// Server-side apply under a field manager.
    pub async fn apply(&self, object: &Value, manager: &str) -> Answer {
        let params = PatchParams::apply(manager).force();
        self.api(object).patch(&name(object), &params, &Patch::Apply(object)).await.map_err(reason)
    }

    /// Server-side apply of which nothing is kept.
    pub async fn try_apply(&self, object: &Value) -> Answer {
        let params = PatchParams { dry_run: true, ..PatchParams::apply("somebody").force() };
        self.api(object).patch(&name(object), &params, &Patch::Apply(object)).await.map_err(reason)
    }

    /// Replaces an object (PUT) by what is made of it, and nothing is kept.
    pub async fn try_put(&self, present: &DynamicObject, change: impl FnOnce(&mut Value)) -> Answer {
        let mut object = serde_json::to_value(present).expect("JSON");
        change(&mut object);
        let typed = serde_json::from_value(object.clone()).expect("still an object");
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        self.api(&object).replace(&name(&object), &dry, &typed).await.map_err(reason)
    }

    /// Replaces an object by what is made of it as it is now (PUT).
    pub async fn put(&self, object: &Value, change: impl Fn(&mut Value)) -> Answer {
        let api = self.api(object);
        // What the controllers write meanwhile is no answer to the question.
        loop {
            let mut present =
                serde_json::to_value(api.get(&name(object)).await.expect("it exists")).expect("JSON");
            change(&mut present);
            let typed = serde_json::from_value(present).expect("still an object");
            match api.replace(&name(object), &PostParams::default(), &typed).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map_err(reason),
            }
        }
    }

    /// Deletes an object; `Ok` also while it is only marked.
    pub async fn delete(&self, object: &Value) -> Result<(), String> {
        self.api(object).delete(&name(object), &DeleteParams::default()).await.map(drop).map_err(reason)
    }

    /// Asks for a deletion, and nothing is deleted.
    pub async fn try_delete(&self, object: &Value) -> Result<(), String> {
        let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
        self.api(object).delete(&name(object), &dry).await.map(drop).map_err(reason)
    }

    /// The real kubectl, in the name of this person.
    pub fn kubectl(&self, args: &[&str], input: &str) -> Output {
        let who = ["--namespace", &self.namespace, "--as", &self.name];
        let group = ["--as-group", "system:authenticated"];
        let all: Vec<&str> = who.into_iter().chain(group).chain(args.iter().copied()).collect();
        kubectl_with(&all, input)
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("the object has a name").to_owned()
}

fn reason(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => panic!("no answer from the API server: {other}"),
    }
}
