//! The chart where the API server lacks a kind of policy, where the operator has one namespace alone, and its roles
//! for people.

use super::support::cluster::kubectl_with;
use super::support::own_cluster::{OwnCluster, root, run};
use super::support::*;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};

/// Without MutatingAdmissionPolicy, as before Kubernetes 1.36.
const UNSIGNED: [(&str, &str); 2] = [
    (
        "CLUSTER_RUNTIME_CONFIG",
        "admissionregistration.k8s.io/v1/mutatingadmissionpolicies=false,admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings=false",
    ),
    ("CLUSTER_PLUGINS_OFF", "MutatingAdmissionPolicy"),
];

/// A process that ends with the test.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl OwnCluster {
    /// The operator under a ServiceAccount of a release, with the arguments that its Deployment states.
    pub fn operator(&self, namespace: &str, name: &str) -> Process {
        let token = self.kubectl(&["create", "token", name, "-n", namespace]);
        let admin = kube::config::Kubeconfig::read_from(self.dir.join("kubeconfig")).expect("readable");
        let upstream = admin.clusters[0].cluster.as_ref().expect("it names a cluster");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "operator",
            "clusters": [{"name": "operator", "cluster": {
                "server": upstream.server, "certificate-authority-data": upstream.certificate_authority_data,
            }}],
            "users": [{"name": "operator", "user": {"token": token.trim()}}],
            "contexts": [{"name": "operator", "context": {"cluster": "operator", "user": "operator"}}],
        });
        let path = self.dir.join("operator.kubeconfig");
        std::fs::write(&path, kubeconfig.to_string()).expect("the folder is writable");
        let args = self.kubectl(&[
            "get",
            "deployment",
            name,
            "-n",
            namespace,
            "-o",
            "jsonpath={.spec.template.spec.containers[0].args}",
        ]);
        let args: Vec<String> = serde_json::from_str(&args).expect("a list");
        let args = args.into_iter().filter(|arg| !arg.starts_with("--listen"));
        // By a link inside the cluster's folder, so that it is stopped with the cluster, whatever happens here.
        let program = self.dir.join("bin/incident-operator");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_incident-operator"), &program).expect("writable");
        let log = std::fs::File::create(self.dir.join("operator.log")).expect("writable");
        let child = Command::new(program)
            .args(args)
            .args(["--listen=127.0.0.1:0", "--lease-namespace", namespace])
            .env("KUBECONFIG", path)
            .stdin(Stdio::null())
            .stderr(Stdio::from(log.try_clone().expect("copied")))
            .stdout(Stdio::from(log))
            .spawn()
            .expect("it starts");
        Process(child)
    }

    fn apply(&self, who: &[&str], object: &Value) -> Output {
        let file = self.dir.join("object.json");
        std::fs::write(&file, object.to_string()).expect("writable");
        let path = file.display().to_string();
        let args: Vec<&str> = ["create", "-f", &path].into_iter().chain(who.iter().copied()).collect();
        self.command("kubectl", &args)
    }
}

fn ours(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let mut object = workload::ours(kind, name, spec);
    object["metadata"]["namespace"] = namespace.into();
    object
}

fn unflag() -> Value {
    json!({"reason": "a test", "targetRef": {"kind": "ConfigMap", "name": "flags"}, "featureFlag": {"key": "a", "value": "off"}})
}

#[test]
fn where_the_api_server_cannot_sign_the_chart_says_so_and_refuses_forged_names() {
    let cluster = OwnCluster::start("unsigned", &UNSIGNED);
    for namespace in ["incident-operator", "shop"] {
        cluster.kubectl(&["create", "namespace", namespace]);
    }
    let notes = cluster.helm(&["install", "incident-operator"], &["--set", "namespaces={shop}"]);
    assert!(
        notes.contains("WARNING: requests are not signed, because this API server does not serve"),
        "{notes}"
    );
    let args = cluster.kubectl(&[
        "get",
        "deployment",
        "incident-operator",
        "-n",
        "incident-operator",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].args}",
    ]);
    assert!(args.contains("--signed-requests=false"), "{args}");
    let policies = cluster.kubectl(&["get", "validatingadmissionpolicies", "-o", "name"]);
    assert!(policies.contains("incident-operator-mitigation-authority"), "the rest is in force: {policies}");

    cluster.kubectl(&["create", "configmap", "flags", "-n", "shop", "--from-literal=a=on"]);
    cluster.kubectl(&["create", "role", "flagger", "-n", "shop", "--verb=patch", "--resource=configmaps"]);
    for user in ["flagger", "declarer"] {
        cluster.kubectl(&[
            "create",
            "rolebinding",
            user,
            "-n",
            "shop",
            "--clusterrole=incident-operator-commander",
            &format!("--user={user}"),
        ]);
    }
    cluster.kubectl(&["create", "rolebinding", "flags", "-n", "shop", "--role=flagger", "--user=flagger"]);
    let flagger = ["--as=flagger", "--as-group=system:authenticated"];
    let signed = |name: &str, annotations: Value| {
        let mut object = ours("Mitigation", "shop", name, unflag());
        object["metadata"]["annotations"] = annotations;
        object
    };
    let key = |key: &str| format!("incident-operator.dev/{key}");
    // New policies and bindings are in force within a second or so, one by one.
    let forged = signed("forged", json!({key("requester"): "mallory"}));
    let end = std::time::Instant::now() + PATIENCE;
    let words = loop {
        let answer = cluster.apply(&flagger, &forged);
        if answer.stderr.contains("name who makes the request") || std::time::Instant::now() > end {
            break answer.failure();
        }
        // It passed before the policy was in force.
        cluster.command(
            "kubectl",
            &["delete", "mitigation", "forged", "-n", "shop", "--ignore-not-found", "--wait=false"],
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert!(words.contains("leave them out, or set the names to \"flagger\""), "{words}");
    for annotations in [
        json!({key("requester"): "flagger", key("actor"): "mallory"}),
        json!({key("actor"): "flagger", key("actor-groups"): "[\"system:masters\"]"}),
    ] {
        let words = cluster.apply(&flagger, &signed("forged", annotations)).failure();
        assert!(words.contains("name who makes the request"), "{words}");
    }
    let declarer = ["--as=declarer", "--as-group=system:authenticated"];
    let words = cluster.apply(&declarer, &signed("bare", json!({}))).failure();
    assert!(words.contains("may not ask for mitigation \"bare\""), "{words}");

    // With no name or with one's own, it works; the operator adds the finalizer.
    let _operator = cluster.operator("incident-operator", "incident-operator");
    cluster.apply(&flagger, &signed("bare", json!({}))).success();
    cluster.kubectl(&[
        "wait",
        "mitigation/bare",
        "-n",
        "shop",
        "--for=jsonpath={.status.phase}=Active",
        "--timeout=30s",
    ]);
    let finalizers = cluster.kubectl(&[
        "get",
        "mitigation",
        "bare",
        "-n",
        "shop",
        "-o",
        "jsonpath={.metadata.finalizers}",
    ]);
    assert_eq!(finalizers, "[\"incident-operator.dev/release\"]");
    cluster.kubectl(&["delete", "mitigation", "bare", "-n", "shop"]);
    let own = json!({key("requester"): "flagger", key("actor"): "flagger", key("actor-groups"): "[\"system:authenticated\"]"});
    cluster.apply(&flagger, &signed("named", own)).success();
    cluster.kubectl(&[
        "wait",
        "mitigation/named",
        "-n",
        "shop",
        "--for=jsonpath={.status.phase}=Active",
        "--timeout=30s",
    ]);
    // What is stored stays.
    let change = |args: &[&str]| {
        let all: Vec<&str> = ["-n", "shop"].into_iter().chain(args.iter().copied()).collect();
        cluster.command("kubectl", &all).failure()
    };
    let requester = key("requester");
    let words = change(&["annotate", "--overwrite", "mitigation", "named", &format!("{requester}=declarer")]);
    assert!(words.contains("leave it as it is"), "{words}");
    let words = change(&["annotate", "mitigation", "named", &format!("{}-", key("actor"))]);
    assert!(words.contains("leave it as it is"), "{words}");
    let words =
        change(&["patch", "mitigation", "named", "--type=merge", "-p", r#"{"spec":{"reason":"another"}}"#]);
    assert!(words.contains("take it out"), "a change under the name of who changed it before: {words}");

    // An incident says that its names are as they were stated.
    let mut incident = ours("Incident", "shop", "unsigned", json!({"title": "names nobody vouches for"}));
    incident["metadata"]["annotations"] = json!({});
    let stamp = json!({"user": "mallory", "groups": []}).to_string();
    for forged in [key("roles-actor"), "entry.incident-operator.dev/x".to_owned()] {
        let mut incident = incident.clone();
        incident["metadata"]["annotations"] = json!({forged: stamp});
        let words = cluster.apply(&flagger, &incident).failure();
        assert!(words.contains("name who changed that part of the spec last"), "{words}");
    }
    cluster.apply(&flagger, &incident).success();
    cluster.kubectl(&[
        "wait",
        "incident/unsigned",
        "-n",
        "shop",
        "--for=condition=AuthorsVerified=False",
        "--timeout=30s",
    ]);

    // An operator of the whole cluster says of each policy whether it can be understood.
    let policy = |name: &str, key: &str| {
        let selector = json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
        workload::ours("MitigationPolicy", name, json!({"namespaceSelector": selector, "actions": ["scale"]}))
    };
    for (name, key, condition) in [
        ("good", "team", "Ready=True"),
        ("odd", "no key", "Ready=False"),
        ("odd-too", "no key", "Stalled=True"),
    ] {
        cluster.apply(&[], &policy(name, key)).success();
        let (name, condition) = (format!("mitigationpolicy/{name}"), format!("--for=condition={condition}"));
        cluster.kubectl(&["wait", &name, &condition, "--timeout=30s"]);
    }
    let reason = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
    assert_eq!(cluster.kubectl(&["get", "mitigationpolicy", "odd", "-o", reason]), "InvalidSelector");
}

#[test]
fn an_operator_of_one_namespace_has_no_right_in_any_other() {
    let cluster = OwnCluster::start("one", &[]);
    for namespace in ["shop", "bank"] {
        cluster.kubectl(&["create", "namespace", namespace]);
    }
    let scope = ["--namespace", "shop", "--set", "watchNamespace=shop", "--set", "namespaces={shop}"];
    cluster.helm(&["install", "incident-operator"], &scope);
    let bindings = cluster.kubectl(&["get", "clusterrolebindings", "-o", "name"]);
    let found: Vec<_> = bindings.lines().filter(|name| name.contains("incident-operator")).collect();
    assert_eq!(found, ["clusterrolebinding.rbac.authorization.k8s.io/incident-operator-cluster-reader"]);
    let account = "--as=system:serviceaccount:shop:incident-operator";
    let may = |verb: &str, what: &str, namespace: &str| {
        cluster.command("kubectl", &["auth", "can-i", verb, what, "-n", namespace, account]).ok
    };
    for (verb, what) in
        [("list", "incidents.incident-operator.dev"), ("patch", "deployments.apps"), ("list", "configmaps")]
    {
        assert!(may(verb, what, "shop"), "{verb} {what}");
        assert!(!may(verb, what, "bank"), "{verb} {what} in another namespace");
    }

    let _operator = cluster.operator("shop", "incident-operator");
    for namespace in ["shop", "bank"] {
        cluster.kubectl(&["create", "configmap", "flags", "-n", namespace, "--from-literal=a=on"]);
        cluster.apply(&[], &ours("Mitigation", namespace, "unflag", unflag())).success();
    }
    cluster.kubectl(&[
        "wait",
        "mitigation/unflag",
        "-n",
        "shop",
        "--for=jsonpath={.status.phase}=Active",
        "--timeout=30s",
    ]);
    cluster.kubectl(&["delete", "mitigation/unflag", "-n", "shop", "--timeout=30s"]);
    assert_eq!(
        cluster.kubectl(&["get", "configmap", "flags", "-n", "shop", "-o", "jsonpath={.data.a}"]),
        "on"
    );
    // Elsewhere its policies do not hold either: what nobody looks after goes at once.
    assert_eq!(
        cluster.kubectl(&[
            "get",
            "mitigation",
            "unflag",
            "-n",
            "bank",
            "-o",
            "jsonpath={.metadata.finalizers}{.status.phase}"
        ]),
        ""
    );
    cluster.kubectl(&["delete", "mitigation/unflag", "-n", "bank", "--timeout=10s"]);
    let log = std::fs::read_to_string(cluster.dir.join("audit.log")).expect("an audit log");
    let refused = log.lines().filter(|line| {
        line.contains("\"username\":\"system:serviceaccount:shop:incident-operator\"")
            && line.contains("\"code\":403")
    });
    assert_eq!(refused.collect::<Vec<_>>(), Vec::<&str>::new(), "it asks for nothing that it may not have");
}

fn template(args: &[&str]) -> Output {
    let dir = Cluster::dir();
    run(Command::new(dir.join("bin/helm"))
        .args(["template", "incident-operator"])
        .arg(root().join("charts/incident-operator"))
        .args(["--namespace", "lone"])
        .args(args)
        .env("HELM_CACHE_HOME", dir.join("helm/cache")))
}

#[test]
fn the_chart_can_be_rendered_without_any_object_of_the_clusters_scope() {
    let off = [
        "crds.enabled=false",
        "admission.enabled=false",
        "roles.enabled=false",
        "clusterReads.enabled=false",
        "freeze.enabled=false",
        "watchNamespace=lone",
        "namespaces={lone}",
    ];
    let args: Vec<&str> = off.iter().flat_map(|value| ["--set", value]).collect();
    let text = template(&args).success();
    for line in text.lines().filter(|line| line.starts_with("kind:")) {
        let wide = ["Cluster", "CustomResource", "Policy"].iter().any(|word| line.contains(word));
        assert!(!wide, "{line}");
    }
    let beyond = template(&["--set", "watchNamespace=lone", "--set", "namespaces={lone,shop}"]).failure();
    assert!(
        beyond.contains("nothing can be changed in [shop]")
            || beyond.contains("nothing can be changed in shop"),
        "{beyond}"
    );
}

#[test]
fn each_concern_can_be_turned_off_and_the_operator_is_told_what_it_may_trust() {
    let with = ["--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"];
    let rendered = |more: &[&str]| {
        let args: Vec<&str> = with.iter().chain(more).copied().collect();
        template(&args).success()
    };
    let all = rendered(&[]);
    assert!(all.contains("--signed-requests=true") && all.contains("kind: MutatingAdmissionPolicy\n"));
    for (concern, policy) in [
        ("signatures", "incident-operator-signature"),
        ("authority", "incident-operator-mitigation-authority"),
        ("locks", "incident-operator-status-lock"),
        ("fence", "incident-operator-fence"),
    ] {
        let name = format!("name: {policy}\n");
        assert!(all.contains(&name), "{policy}");
        let off = rendered(&["--set", &format!("admission.{concern}.enabled=false")]);
        assert!(!off.contains(&name), "{policy}");
        assert_eq!(off.contains("--signed-requests=true"), concern != "signatures");
    }
    assert!(template(&[]).success().contains("--signed-requests=false"), "where nothing signs");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_for_people_give_what_their_names_say_and_no_right_on_a_workload() {
    let namespace = TestNamespace::new("roles").await;
    let ours = "incident-operator.dev";
    let all = ["view", "responder", "commander", "approver", "policy-admin"];
    let allowed = [
        ("get incidents", "view responder commander approver policy-admin"),
        ("create timelineentries", "responder commander approver"),
        ("patch postmortems", "responder commander"),
        ("create incidents", "commander"),
        ("delete mitigations", "commander"),
        ("create mitigations", "commander"),
        ("approve mitigations", "approver"),
        ("patch incidents/status", ""),
        ("use mitigationpolicies", ""),
    ];
    for role in all {
        let person = namespace.person_as(role, role, &[]).await;
        let may = |verb: &str, what: &str, part: &str| {
            person.kubectl(&["auth", "can-i", verb, what, "--subresource", part], "").ok
        };
        for (right, roles) in allowed {
            let (verb, what) = right.split_once(' ').expect("a verb and a resource");
            let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
            let full = format!("{resource}.{ours}");
            assert_eq!(may(verb, &full, subresource), roles.split(' ').any(|r| r == role), "{role}: {right}");
        }
        for (verb, what) in
            [("patch", "deployments.apps"), ("patch", "configmaps"), ("get", "secrets"), ("get", "pods")]
        {
            assert!(!may(verb, what, ""), "{role}: {verb} {what}");
        }
    }
    // Those who have a role of the cluster have the one that goes with it.
    for (role, verb, what, has) in [
        ("view", "get", "incidents", true),
        ("view", "create", "timelineentries", false),
        ("edit", "create", "timelineentries", true),
        ("edit", "create", "mitigations", false),
        ("admin", "create", "mitigations", true),
        ("admin", "approve", "mitigations", false),
    ] {
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": format!("of-{role}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("of-{role}")}]});
        let _ = namespace.try_create(binding).await;
        let user = format!("--as=of-{role}");
        let ask = |verb: &str, what: &str| {
            let what = format!("{what}.{ours}");
            kubectl_with(&["auth", "can-i", verb, &what, "-n", &namespace.name, &user], "").ok
        };
        wait_for(PATIENCE, "the binding", async || ask("get", "incidents").then_some(())).await;
        assert_eq!(ask(verb, what), has, "{role}: {verb} {what}");
    }
}
