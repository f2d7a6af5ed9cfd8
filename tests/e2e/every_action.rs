//! What holds for every action alike: the dry run tells all there is to know and writes nothing, the take reads the
//! target once and lists nothing, others edit the target in between and the operator dies in between, and after the
//! release the target is what it would be had it never been mitigated.

use super::action_rollback::{BAD, set_image};
use super::mitigation::{
    assert_same, condition, delete, edit, essence, is, mitigation_of, phase_of, says, until, with,
};
use super::support::{audit, cluster::resource_of, crds, workload, *};
use incident_operator::api::{ConditionStatus, Mitigation, MitigationPhase as Phase};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};
use serde_json::{Value, json};
use std::time::Duration;

/// One action on one kind of target.
struct Case {
    /// Short name of the namespace.
    short: &'static str,
    /// Prefixes of files in `tests/crds`.
    crds: &'static [&'static str],
    /// Makes the target, or its like, under a name.
    target: fn(&str) -> Value,
    /// What else there is.
    others: Vec<Value>,
    /// Whether the target and its like are rolled out to a second version first.
    second_version: bool,
    /// The action block, and what else the spec says.
    spec: Value,
    /// Reasons of `Effective` of which one says that the take is over.
    done: &'static [&'static str],
    /// What a dry run must mention of what suffers and who else writes.
    warned: &'static [&'static str],
    /// What somebody edits on target and like while the mitigation is active.
    edits: Value,
}

fn case(short: &'static str, target: fn(&str) -> Value, spec: Value) -> Case {
    Case {
        short,
        crds: &[],
        target,
        others: Vec::new(),
        second_version: false,
        spec,
        done: &["Verified"],
        warned: &[],
        edits: json!({"metadata": {"annotations": {"team": "checkout"}, "labels": {"tier": "gold"}}}),
    }
}

/// What a controller of its own writes there for each change, and so for two more of the target's.
const COUNTERS: [&str; 2] = ["deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"];

fn uncounted(mut object: DynamicObject) -> DynamicObject {
    for counter in COUNTERS {
        object.annotations_mut().remove(counter);
    }
    if object.types.as_ref().is_some_and(|types| types.kind == "Pod") {
        // Where it runs, and how its token is called, differs between any two.
        object.data.as_object_mut().expect("an object").remove("spec");
    }
    object
}

/// The target as it is; a Namespace lies in none.
async fn present(namespace: &TestNamespace, object: &Value) -> DynamicObject {
    let client = namespace.cluster.client.clone();
    let api = match object["kind"] == "Namespace" {
        true => Api::<DynamicObject>::all_with(client, &resource_of(object)),
        false => Api::namespaced_with(client, &namespace.name, &resource_of(object)),
    };
    api.get(object["metadata"]["name"].as_str().expect("a name")).await.expect("it exists")
}

impl Case {
    async fn lives(self) {
        crds::install_all(self.crds);
        let namespace = TestNamespace::new(self.short).await;
        let mut operator = Operator::start(&namespace, Options::default()).await;
        for other in &self.others {
            namespace.create(other.clone()).await;
        }
        let own_namespace = (self.target)("x")["kind"] == "Namespace";
        let (target, like) = match own_namespace {
            true => ((self.target)(&namespace.name), None),
            false => ((self.target)("subject"), Some((self.target)("paragon"))),
        };
        if !own_namespace {
            for object in [Some(&target), like.as_ref()].into_iter().flatten() {
                namespace.create(object.clone()).await;
            }
            self.settle(&namespace, &target, like.as_ref()).await;
        }
        let before = present(&namespace, &target).await;
        let (kind, name) = (target["kind"].as_str().expect("a kind"), before.name_any());

        self.is_planned(&namespace, kind, &name, &before).await;

        let mark = audit::mark();
        let spec = with(mitigation_of("act", kind, &name, self.spec.clone()), json!({"evidence": "None"}));
        namespace.create(spec).await;
        let held = until(&namespace, "act", "take", |m| {
            is(m, "Applied", ConditionStatus::True)
                && condition(m, "Effective").is_some_and(|c| self.done.contains(&c.reason.as_str()))
        })
        .await;
        let asked = operator.requests_once_quiet(mark, Duration::from_millis(500)).await;
        let lists: Vec<_> = asked.iter().filter(|r| r.verb == "list").map(audit::Request::brief).collect();
        assert!(lists.is_empty(), "nothing is listed: {lists:?}");
        let resource = resource_of(&target).plural;
        let of_target: Vec<_> = asked.iter().filter(|r| r.resource == resource && r.name == name).collect();
        let reads = of_target.iter().filter(|r| r.verb == "get").count();
        // Somebody else may have written in between: then it is read again.
        let overtaken = of_target.iter().filter(|r| r.verb == "patch" && r.code == 422).count();
        let brief = asked.iter().map(audit::Request::brief).collect::<Vec<_>>();
        assert!(reads <= 1 + overtaken, "the target is read once at most: {brief:?}");

        for object in [Some(&target), like.as_ref()].into_iter().flatten().filter(|_| !own_namespace) {
            edit(&namespace, object, "somebody", self.edits.clone()).await;
        }
        operator.kill();
        let more = json!({"metadata": {"annotations": {"note": "while it was away"}}});
        for object in [Some(&target), like.as_ref()].into_iter().flatten().filter(|_| !own_namespace) {
            edit(&namespace, object, "somebody", more.clone()).await;
        }
        operator.restart().await;
        let mitigations = namespace.api::<Mitigation>();
        let still = mitigations.get("act").await.expect("it is there");
        assert_eq!(phase_of(&still), Some(Phase::Active), "edits of other fields end nothing");

        mitigations.delete("act", &DeleteParams::default()).await.expect("it can be deleted");
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..30_000))).await;
        operator.restart().await;
        wait_gone(&mitigations, "act").await;
        let after = uncounted(present(&namespace, &target).await);
        match &like {
            Some(like) => assert_same(&after, &uncounted(present(&namespace, like).await)),
            None => assert_same(&after, &uncounted(before)),
        }
        self.nothing_is_left(&namespace, &held).await;
    }

    /// Waits until target and like are what they will be.
    async fn settle(&self, namespace: &TestNamespace, target: &Value, like: Option<&Value>) {
        let kind = target["kind"].as_str().expect("a kind").to_lowercase();
        if kind == "pod" {
            // Scheduler and kubelet write into a new one for a while.
            for object in [Some(target), like].into_iter().flatten() {
                let name = object["metadata"]["name"].as_str().expect("a name");
                let ready = ["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"];
                namespace.kubectl(&ready).success();
            }
            return;
        }
        if !["deployment", "statefulset", "daemonset"].contains(&kind.as_str()) {
            return;
        }
        for object in [Some(target), like].into_iter().flatten() {
            let name = object["metadata"]["name"].as_str().expect("a name");
            let rolled = || {
                namespace
                    .kubectl(&["rollout", "status", &format!("{kind}/{name}"), "--timeout=90s"])
                    .success()
            };
            rolled();
            if self.second_version {
                // The API server notes in whole seconds when a revision was made.
                tokio::time::sleep(Duration::from_millis(1100)).await;
                set_image(namespace, &kind, name, BAD);
                rolled();
            }
        }
    }

    async fn is_planned(&self, namespace: &TestNamespace, kind: &str, name: &str, before: &DynamicObject) {
        let asked = with(mitigation_of("what-if", kind, name, self.spec.clone()), json!({"dryRun": true}));
        namespace.create(asked.clone()).await;
        let planned = says(namespace, "what-if", "Ready", "DryRun").await;
        let plan = planned.status.and_then(|s| s.plan).expect("a dry run has a plan");
        assert!(plan.summary.starts_with("would "), "{}", plan.summary);
        assert!(plan.summary.contains(name) || plan.summary.contains(kind), "{}", plan.summary);
        assert!(!plan.changes.is_empty(), "{plan:?}");
        for change in &plan.changes {
            assert!(change.from != change.to, "a change changes something: {change:?}");
            let on_target = change.object.is_none();
            assert!(on_target || change.object.as_ref().is_some_and(|o| o.contains('/')), "{change:?}");
            assert!(!on_target || change.path.starts_with('/'), "{change:?}");
            // What was there was written by somebody, and who that was is told.
            let told = change.written_by.as_ref().is_some_and(|who| !who.is_empty());
            assert!(!on_target || change.from == "absent" || told, "{change:?}");
        }
        assert!(
            plan.release.as_ref().is_some_and(|words| !words.is_empty()),
            "what release will do: {plan:?}"
        );
        let told = plan.warnings.join("; ");
        for words in self.warned {
            assert!(told.contains(words), "{words:?} is not among the warnings: {told}");
        }
        let now = present(
            namespace,
            &json!({"apiVersion": before.types.as_ref().expect("types").api_version,
            "kind": kind, "metadata": {"name": name}}),
        )
        .await;
        assert_eq!(essence(&now), essence(before), "nothing was written");
        delete(namespace, "what-if").await;
    }

    /// Nothing that was made for the mitigation is there any more, and no other object that it touched bears a trace.
    async fn nothing_is_left(&self, namespace: &TestNamespace, held: &Mitigation) {
        for touched in held.status.iter().flat_map(|status| &status.objects) {
            let like = json!({"apiVersion": touched.api_version, "kind": touched.kind});
            let api = namespace.cluster.api_of(&like, &namespace.name);
            let all = api.list(&ListParams::default()).await.expect("it can be listed").items;
            for object in all {
                assert!(!object.name_any().starts_with("mit-"), "{} is left", object.name_any());
                assert!(marks(&object).is_empty(), "{}: {:?}", object.name_any(), marks(&object));
            }
        }
    }
}

// ---- targets -----------------------------------------------------------------------------------------------

// The API server writes some characters in a way of its own, and compares values as it writes them.
const ODD: &str = "a && b > c < d";

fn deployment(name: &str) -> Value {
    let mut object = workload::deployment(name, 2);
    object["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["-c", ODD]);
    object
}

/// It states how it is rolled out, and leaves the rest of that to the API server's defaults.
fn statefulset(name: &str) -> Value {
    let mut object = workload::statefulset(name, 2);
    object["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"});
    object["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["-c", ODD]);
    object
}

fn daemonset(name: &str) -> Value {
    let mut object = workload::deployment(name, 1);
    object["kind"] = "DaemonSet".into();
    object["spec"].as_object_mut().expect("a map").remove("replicas");
    object
}

fn flags(name: &str) -> Value {
    let document = "# kept\nfeatures:\n  pricing: new   # the new one: a < b && c > d\n  cards: true\n";
    workload::configmap(name, &[("pricing", ODD), ("cards", "off"), ("flags.yaml", document)])
}

fn endless() -> Value {
    json!({"template": {"spec": {"restartPolicy": "Never", "nodeSelector": {"no": "where"},
        "containers": [{"name": "main", "image": "registry.example/main:1"}]}}})
}

fn cron_job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": endless()}}})
}

fn job(name: &str) -> Value {
    // A selector of its own has the uid of the Job in it.
    let mut spec = endless();
    spec["manualSelector"] = true.into();
    spec["selector"] = json!({"matchLabels": {"job": name}});
    spec["template"]["metadata"] = json!({"labels": {"job": name}});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
}

fn own_namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn route(name: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [{"name": "api", "port": 80}]}]}})
}

fn ingress(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "annotations": {"nginx.ingress.kubernetes.io/limit-rps": "500"}},
        "spec": {"defaultBackend": {"service": {"name": "api", "port": {"number": 80}}}}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web", "team": "a"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/main:1"}]}})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
}

// ---- the table ---------------------------------------------------------------------------------------------

macro_rules! every {
    ($($name:ident: $case:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            $case.lives().await;
        })*
    };
}

every! {
    scale_leaves_a_deployment_as_if_it_had_never_been: Case {
        warned: &["PodDisruptionBudget"],
        ..case("e-scale", deployment, json!({"scale": {"replicas": 0}}))
    };
    scale_leaves_a_statefulset_as_if_it_had_never_been: Case {
        warned: &["PodDisruptionBudget"],
        ..case("e-scaleset", statefulset, json!({"scale": {"replicas": 1}}))
    };
    feature_flag_leaves_a_key_as_if_it_had_never_been: Case {
        edits: json!({"data": {"cards": "on", "more": "x"}}),
        ..case("e-flag", flags, json!({"featureFlag": {"key": "pricing", "value": "<off> & out"}}))
    };
    feature_flag_leaves_a_document_as_if_it_had_never_been: case("e-document", flags,
        json!({"featureFlag": {"key": "flags.yaml", "path": "features.pricing", "value": "old"}}));
    rollback_that_is_taken_back_leaves_a_deployment_as_if_it_had_never_been: Case {
        second_version: true,
        ..case("e-back", deployment, json!({"rollback": {}, "onRelease": "Restore"}))
    };
    rollback_that_is_taken_back_leaves_a_daemonset_as_if_it_had_never_been: Case {
        second_version: true,
        ..case("e-backset", daemonset, json!({"rollback": {}, "onRelease": "Restore"}))
    };
    pause_rollout_leaves_a_deployment_as_if_it_had_never_been:
        case("e-pause", deployment, json!({"pauseRollout": {}}));
    pause_rollout_leaves_a_statefulset_as_if_it_had_never_been:
        case("e-pauseset", statefulset, json!({"pauseRollout": {}}));
    pause_rollout_leaves_a_daemonset_as_if_it_had_never_been:
        case("e-pauseds", daemonset, json!({"pauseRollout": {}}));
    suspend_leaves_a_cronjob_as_if_it_had_never_been: case("e-cron", cron_job, json!({"suspend": {}}));
    suspend_leaves_a_job_as_if_it_had_never_been: case("e-job", job, json!({"suspend": {}}));
    freeze_leaves_a_namespace_as_if_it_had_never_been: case("e-freeze", own_namespace, json!({"freeze": {}}));
    block_writes_by_a_flag_leaves_a_config_map_as_if_it_had_never_been: case("e-readonly", flags,
        json!({"blockWrites": {"level": "Flag", "flag": {"key": "pricing", "value": "read-only"}}}));
    block_writes_by_a_route_leaves_a_route_as_if_it_had_never_been: Case {
        crds: &["gateway"],
        done: &["Verifying"],
        warned: &["POST"],
        ..case("e-routes", route, json!({"blockWrites": {"level": "Routes"}}))
    };
    block_writes_by_a_quota_leaves_a_namespace_as_if_it_had_never_been:
        case("e-quota", own_namespace, json!({"blockWrites": {"level": "Quota"}}));
    block_writes_by_the_network_leaves_a_statefulset_as_if_it_had_never_been: Case {
        done: &["NotReported"],
        warned: &["read"],
        ..case("e-network", statefulset, json!({"blockWrites": {"level": "Network"}}))
    };
    rate_limit_of_envoy_gateway_leaves_a_route_as_if_it_had_never_been: Case {
        crds: &["gateway"],
        done: &["Verifying"],
        ..case("e-envoy", route, json!({"rateLimit": {"requests": 100, "per": "Second"}}))
    };
    rate_limit_of_traefik_leaves_an_ingress_as_if_it_had_never_been: Case {
        crds: &["traefik"],
        done: &["NotReported"],
        ..case("e-traefik", ingress, json!({"rateLimit": {"requests": 100, "per": "Second", "adapter": "Traefik"}}))
    };
    rate_limit_of_ingress_nginx_leaves_an_ingress_as_if_it_had_never_been: Case {
        done: &["NotReported"],
        ..case("e-nginx", ingress,
            json!({"rateLimit": {"requests": 100, "per": "Second", "adapter": "IngressNginx"}}))
    };
    isolate_that_gives_labels_back_leaves_a_pod_as_if_it_had_never_been: Case {
        others: vec![service()],
        ..case("e-isolate", pod, json!({"isolate": {"releasePods": "Relabel"}}))
    };
    isolate_by_a_policy_leaves_a_deployment_as_if_it_had_never_been: Case {
        done: &["NotReported"],
        ..case("e-deny", deployment, json!({"isolate": {"method": "DenyPolicy", "maxPods": 2}}))
    };
    isolate_by_a_policy_leaves_a_pod_as_if_it_had_never_been: Case {
        done: &["NotReported"],
        ..case("e-denypod", pod, json!({"isolate": {"method": "DenyPolicy"}}))
    };
}
