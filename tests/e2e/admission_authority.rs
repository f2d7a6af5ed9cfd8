//! Declaring an incident grants nobody power: who asks for a mitigation, changes it or releases it needs the right
//! that it uses on its target, and the API server itself says so. No operator runs in these tests.

use super::support::workload::{configmap, deployment, incident, mitigation};
use super::support::*;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

/// A right of one action: who has it alone may ask for the action, and who lacks it is told of it.
struct Line {
    right: String,
    target: Value,
    action: Value,
}

fn scale_of(kind: &str, name: &str) -> Value {
    json!({"reason": "a test", "targetRef": {"kind": kind, "name": name}, "scale": {"replicas": 0}})
}

fn importer() -> Value {
    scale_of("Deployment", "importer")
}

fn with(mut spec: Value, more: Value) -> Value {
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

fn named(spec: Value, name: &str) -> Value {
    with(spec, json!({"name": name}))
}

/// An Incident with these entries.
fn declared(name: &str, entries: &[Value]) -> Value {
    incident(name, json!({"title": "a test", "mitigations": entries}))
}

fn flag_off() -> Value {
    json!({"reason": "a test", "targetRef": {"kind": "ConfigMap", "name": "flags"}, "featureFlag": {"key": "a", "value": "off"}})
}

const SCALES: &str = "patch deployments.apps/scale";

/// The refusal names who, what, on what, and how to get the right.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, String>, parts: &[&str]) {
    let words = answer.expect_err("this should be refused");
    for part in parts {
        assert!(words.contains(part), "the refusal lacks {part:?}: {words}");
    }
}

#[track_caller]
fn allowed<T>(answer: Result<T, String>) -> T {
    answer.unwrap_or_else(|words| panic!("this should be allowed: {words}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_scale_may_not_do_it_through_a_mitigation_and_is_told_how_to_get_the_right() {
    let namespace = TestNamespace::new("direct").await;
    let stop = mitigation("stop", importer());
    let declarer = namespace.person("declarer", &[]).await;
    let here = format!("in namespace \"{}\"", namespace.name);
    let words = [
        "user \"declarer\" may not ask for mitigation \"stop\" (scale Deployment/importer)",
        "it needs patch deployments.apps/scale \"importer\"",
        &here,
        "ask for a Role that grants it",
        "serviceAccountName",
        "policyRef",
    ];
    refused(declarer.create(&stop).await, &words);
    refused(declarer.apply(&stop, "x").await, &words);
    refused(declarer.create(&mitigation("stop", with(importer(), json!({"dryRun": true})))).await, &words);
    let said = declarer.kubectl(&["create", "-f", "-"], &stop.to_string()).failure();
    refused::<()>(Err(said), &words);

    allowed(namespace.person("scaler", &[SCALES]).await.try_create(&stop).await);
    let one = namespace.person("one", &["patch deployments.apps/scale importer"]).await;
    allowed(one.try_create(&stop).await);
    let other = mitigation("stop", scale_of("Deployment", "checkout"));
    refused(one.try_create(&other).await, &["patch deployments.apps/scale \"checkout\""]);
    // Near rights are not the right.
    let near = namespace.person("near", &["patch deployments.apps", "update deployments.apps/scale"]).await;
    refused(near.try_create(&stop).await, &["patch deployments.apps/scale"]);
    // A program, by its own name.
    let pipeline = namespace.account("pipeline", &[SCALES]).await;
    allowed(pipeline.try_create(&stop).await);
    let idle = namespace.account("idle", &[]).await;
    refused(idle.try_create(&stop).await, &[&format!("user \"{}\"", idle.name), "may not ask for"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_in_another_namespace_is_no_right_here() {
    let (here, there) = (TestNamespace::new("here").await, TestNamespace::new("there").await);
    there.person("guest", &[SCALES]).await;
    let guest = here.person("guest", &[]).await;
    refused(guest.create(&mitigation("stop", importer())).await, &["patch deployments.apps/scale"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_of_a_group_counts() {
    let namespace = TestNamespace::new("group").await;
    let person = namespace.person("member", &[]).await;
    let stop = mitigation("stop", importer());
    refused(person.try_create(&stop).await, &["may not ask for"]);
    namespace.person("scaler", &[SCALES]).await;
    let group = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "group"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "scaler"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "responders"}]});
    namespace.create(group).await;
    let member = person.in_groups(&["responders"]).await;
    wait_for(PATIENCE, "right of the group", async || member.try_create(&stop).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_stands_in_only_for_who_may_impersonate_it() {
    let namespace = TestNamespace::new("deputy").await;
    namespace.account("releaser", &[SCALES]).await;
    namespace.account("idle", &[]).await;
    let by = |account: &str| mitigation("stop", with(importer(), json!({"serviceAccountName": account})));
    let deputy = namespace.person("deputy", &["impersonate serviceaccounts releaser"]).await;
    allowed(deputy.try_create(&by("releaser")).await);
    refused(deputy.try_create(&mitigation("stop", importer())).await, &["may not ask for"]);
    let declarer = namespace.person("declarer", &[]).await;
    refused(declarer.try_create(&by("releaser")).await, &["you may impersonate"]);
    // Neither an account without the right, nor one that may not be impersonated.
    let impostor = namespace.person("impostor", &["impersonate serviceaccounts idle"]).await;
    refused(impostor.try_create(&by("idle")).await, &["may not ask for"]);
    refused(impostor.try_create(&by("releaser")).await, &["may not ask for"]);
    refused(declarer.try_create(&by("not a name")).await, &["spec.serviceAccountName"]);
    // The same inside an incident.
    let entry = |account: &str| {
        declared("i", &[named(with(importer(), json!({"serviceAccountName": account})), "stop")])
    };
    allowed(deputy.try_create(&entry("releaser")).await);
    refused(impostor.try_create(&entry("releaser")).await, &["may not ask for mitigation \"stop\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mitigation_policy_stands_in_only_for_who_may_use_it() {
    let namespace = TestNamespace::new("policy").await;
    let rule = "use mitigationpolicies.incident-operator.dev night-shift";
    let on_call = namespace.person("on-call", &[rule]).await;
    let under = |policy: &str| mitigation("stop", with(importer(), json!({"policyRef": {"name": policy}})));
    allowed(on_call.try_create(&under("night-shift")).await);
    refused(on_call.try_create(&under("day-shift")).await, &["hold the verb \"use\""]);
    refused(on_call.try_create(&mitigation("stop", importer())).await, &["may not ask for"]);
    let declarer = namespace.person("declarer", &[]).await;
    refused(declarer.try_create(&under("night-shift")).await, &["may not ask for"]);
    let inline = with(importer(), json!({"policyRef": {"name": "night-shift"}}));
    allowed(on_call.try_create(&declared("i", &[named(inline.clone(), "stop")])).await);
    refused(declarer.try_create(&declared("i", &[named(inline, "stop")])).await, &["may not ask for"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_asks_for_its_own_right_alone_and_inside_an_incident() {
    let namespace = TestNamespace::new("actions").await;
    let here = namespace.name.as_str();
    let line = |right: &str, kind: &str, name: &str, action: Value| Line {
        right: right.to_owned(),
        target: json!({"kind": kind, "name": name}),
        action,
    };
    let relabel = json!({"isolate": {"releasePods": "Relabel"}});
    let flag = json!({"level": "Flag", "flag": {"key": "read-only", "value": "on"}});
    let deny = json!({"isolate": {"method": "DenyPolicy", "releasePods": "Relabel"}});
    let rate = || json!({"rateLimit": {"requests": 10, "per": "Second"}});
    let lines = [
        line(
            "patch deployments.apps/scale importer",
            "Deployment",
            "importer",
            json!({"scale": {"replicas": 0}}),
        ),
        line("patch statefulsets.apps/scale db", "StatefulSet", "db", json!({"scale": {"replicas": 0}})),
        line(
            "patch configmaps flags",
            "ConfigMap",
            "flags",
            json!({"featureFlag": {"key": "a", "value": "off"}}),
        ),
        line("patch deployments.apps importer", "Deployment", "importer", json!({"rollback": {}})),
        line("patch statefulsets.apps db", "StatefulSet", "db", json!({"rollback": {}})),
        line("patch daemonsets.apps agent", "DaemonSet", "agent", json!({"rollback": {}})),
        line("patch deployments.apps importer", "Deployment", "importer", json!({"pauseRollout": {}})),
        line("patch cronjobs.batch nightly", "CronJob", "nightly", json!({"suspend": {}})),
        line("patch jobs.batch import", "Job", "import", json!({"suspend": {}})),
        line(&format!("freeze namespaces {here}"), "Namespace", here, json!({"freeze": {}})),
        line("patch configmaps flags", "ConfigMap", "flags", json!({"blockWrites": flag})),
        line(
            "patch httproutes.gateway.networking.k8s.io shop",
            "HTTPRoute",
            "shop",
            json!({"blockWrites": {"level": "Routes"}}),
        ),
        line("create resourcequotas", "Namespace", here, json!({"blockWrites": {"level": "Quota"}})),
        line(
            "create networkpolicies.networking.k8s.io",
            "StatefulSet",
            "db",
            json!({"blockWrites": {"level": "Network"}}),
        ),
        line("create backendtrafficpolicies.gateway.envoyproxy.io", "HTTPRoute", "shop", rate()),
        line("patch ingressroutes.traefik.io shop", "IngressRoute", "shop", rate()),
        line("patch ingresses.networking.k8s.io shop", "Ingress", "shop", rate()),
        line("patch pods web-1", "Pod", "web-1", relabel.clone()),
        line("patch pods", "Deployment", "importer", relabel),
        line("patch pods web-1", "Pod", "web-1", deny.clone()),
        line("create networkpolicies.networking.k8s.io", "Deployment", "importer", deny),
    ];
    let declarer = namespace.person("declarer", &[]).await;
    for (number, line) in lines.iter().enumerate() {
        let person = namespace.person(&format!("person-{number}"), &[&line.right]).await;
        let spec = with(json!({"reason": "a test", "targetRef": line.target}), line.action.clone());
        let mut words = line.right.split(' ');
        let (verb, resource) = (words.next().expect("a verb"), words.next().expect("a resource"));
        let needs = match words.next() {
            Some(name) => format!("it needs {verb} {resource} \"{name}\""),
            None => format!("it needs {verb} {resource} "),
        };
        for object in [mitigation("m", spec.clone()), declared("i", &[named(spec, "m")])] {
            let answer = person.try_create(&object).await;
            assert!(answer.is_ok(), "{} should be enough for {object}: {answer:?}", line.right);
            refused(declarer.try_create(&object).await, &[&needs, "may not ask for mitigation \"m\""]);
        }
    }
    // Whoever does it by hand needs the rights then.
    let by_hand = json!({"reason": "a test", "targetRef": {"kind": "Deployment", "name": "importer"}, "manual": {"instructions": "call the bank"}});
    allowed(declarer.try_create(&mitigation("m", by_hand)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_evidence_ask_for_rights_of_their_own() {
    let namespace = TestNamespace::new("extras").await;
    let rollback = |block: Value| with(importer_target(), json!({"rollback": block}));
    let harsh = mitigation("m", rollback(json!({"allowPodDeletion": true})));
    let gentle = namespace.person("gentle", &["patch deployments.apps"]).await;
    refused(gentle.try_create(&harsh).await, &["for rollback.allowPodDeletion: true delete pods"]);
    let harsher = namespace.person("harsher", &["patch deployments.apps", "delete pods"]).await;
    allowed(harsher.try_create(&harsh).await);

    let evidence = with(importer(), json!({"evidence": "Required"}));
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let reader = namespace.person("reader", &[SCALES, "get pods/log"]).await;
    for object in [mitigation("m", evidence.clone()), declared("i", &[named(evidence, "m")])] {
        refused(scaler.try_create(&object).await, &["for evidence: Required get pods/log"]);
        allowed(reader.try_create(&object).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_deletes_or_restarts_needs_the_right_of_whoever_releases() {
    let namespace = TestNamespace::new("undone").await;
    let spec = |target: Value, action: Value| with(json!({"reason": "a test", "targetRef": target}), action);
    let pod = json!({"kind": "Pod", "name": "web-1"});
    let flags = json!({"kind": "ConfigMap", "name": "flags"});
    let restarting = json!({"featureFlag": {"key": "a", "value": "off", "restartConsumers": true}});
    let undo = json!({"spec": {"desiredState": "Released"}});
    for (number, (right, more, needs, spec)) in [
        (
            "patch pods",
            "delete pods",
            "for isolate.releasePods: Delete delete pods",
            spec(pod, json!({"isolate": {}})),
        ),
        (
            "patch configmaps",
            "patch deployments.apps",
            "for featureFlag.restartConsumers: true patch deployments.apps",
            spec(flags, restarting),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let one = namespace.person(&format!("one-{number}"), &[right]).await;
        let both = namespace.person(&format!("both-{number}"), &[right, more]).await;
        // Evidence is of the take alone.
        let logs = namespace.person(&format!("logs-{number}"), &[right, more, "get pods/log"]).await;
        let held = mitigation(&format!("m-{number}"), with(spec.clone(), json!({"evidence": "Required"})));
        let incident = declared(&format!("i-{number}"), &[named(spec, "m")]);
        allowed(logs.create(&held).await);
        allowed(both.create(&incident).await);
        let words = [needs, "may not release mitigation"];
        refused(one.delete(&held).await, &words);
        refused(one.merge(&held, undo.clone()).await, &words);
        refused(one.delete(&incident).await, &words);
        refused(one.merge(&incident, json!({"spec": {"mitigations": []}})).await, &words);
        refused(one.merge(&incident, json!({"spec": {"outcome": "FalseAlarm"}})).await, &words);
        allowed(both.merge(&held, undo.clone()).await);
        allowed(both.delete(&held).await);
        allowed(both.delete(&incident).await);
    }
    // By a policy no pod is deleted.
    let denier = namespace.person("denier", &["create networkpolicies.networking.k8s.io"]).await;
    let deny = json!({"isolate": {"method": "DenyPolicy"}});
    let deny = mitigation("deny", spec(json!({"kind": "Deployment", "name": "importer"}), deny));
    allowed(denier.create(&deny).await);
    allowed(denier.delete(&deny).await);
}

fn importer_target() -> Value {
    json!({"reason": "a test", "targetRef": {"kind": "Deployment", "name": "importer"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_and_names_that_an_action_does_not_work_on_are_refused_in_words() {
    let namespace = TestNamespace::new("words").await;
    let admin = namespace.person("nearly", &[SCALES]).await;
    for (target, part) in [
        (
            json!({"kind": "Canary", "name": "importer"}),
            "scale does not work on Canary; it works on Deployment (apps/v1)",
        ),
        (
            json!({"kind": "Deployment", "name": "importer", "apiVersion": "extensions/v1beta1"}),
            "scale does not work on Deployment (extensions/v1beta1)",
        ),
    ] {
        let spec = with(importer(), json!({"targetRef": target}));
        refused(admin.try_create(&mitigation("m", spec.clone())).await, &[part]);
        refused(admin.try_create(&declared("i", &[named(spec, "m")])).await, &["mitigation \"m\"", part]);
    }
    let elsewhere =
        json!({"reason": "a test", "targetRef": {"kind": "Namespace", "name": "default"}, "freeze": {}});
    let own = format!("set targetRef.name to \"{}\"", namespace.name);
    refused(namespace.try_create(mitigation("m", elsewhere)).await.map_err(|e| e.to_string()), &[&own]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_needs_the_right_by_whichever_request_it_comes() {
    let namespace = TestNamespace::new("release").await;
    let held = mitigation("held", importer());
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let declarer = namespace.person("declarer", &[]).await;
    allowed(scaler.create(&held).await);
    let words =
        ["mitigation \"held\" (scale Deployment/importer)", "patch deployments.apps/scale \"importer\""];
    let undo = json!({"spec": {"desiredState": "Released"}});
    refused(declarer.merge(&held, undo.clone()).await, &words);
    refused(
        declarer.apply(&mitigation("held", with(importer(), json!({"desiredState": "Released"}))), "x").await,
        &words,
    );
    refused(declarer.put(&held, |m| m["spec"]["desiredState"] = json!("Released")).await, &words);
    refused(declarer.delete(&held).await, &words);
    let all = format!("/apis/incident-operator.dev/v1alpha1/namespaces/{}/mitigations", namespace.name);
    refused::<()>(Err(declarer.kubectl(&["delete", "--raw", &all], "").failure()), &words);
    // Nor whose right it is, nor how long it lasts.
    refused(declarer.merge(&held, json!({"spec": {"serviceAccountName": "x"}})).await, &words);
    refused(
        declarer.merge(&held, json!({"spec": {"expiresAfter": "1s", "onExpire": "Release"}})).await,
        &words,
    );
    // The use of some policy is no right on what was not taken under it.
    let by_use = namespace.person("by-use", &["use mitigationpolicies.incident-operator.dev any"]).await;
    let named_later = json!({"spec": {"policyRef": {"name": "any"}}});
    let fixed = "policyRef can only be taken out";
    refused(by_use.merge(&held, named_later.clone()).await, &[fixed]);
    let with_release = json!({"spec": {"policyRef": {"name": "any"}, "desiredState": "Released"}});
    refused(by_use.merge(&held, with_release).await, &[fixed]);
    refused(by_use.try_delete(&held).await, &words);
    let outage = declared("outage", &[named(importer(), "stop")]);
    allowed(scaler.create(&outage).await);
    let under = |policy: &str| named(with(importer(), json!({"policyRef": {"name": policy}})), "stop");
    refused(by_use.merge(&outage, json!({"spec": {"mitigations": [under("any")]}})).await, &[fixed]);
    // In a new entry it may stand, and be taken out again, but not become another.
    let added = |policy: &str| {
        let entry = with(under(policy), json!({"name": "more"}));
        json!({"spec": {"mitigations": [named(importer(), "stop"), entry]}})
    };
    allowed(by_use.merge(&outage, added("any")).await);
    refused(scaler.merge(&outage, added("other")).await, &[fixed]);
    let without = json!({"spec": {"mitigations": [named(importer(), "stop"), named(importer(), "more")]}});
    allowed(scaler.merge(&outage, without).await);
    // What is not its spec is free.
    allowed(declarer.merge(&held, json!({"metadata": {"labels": {"team": "data"}}})).await);
    allowed(scaler.try_merge(&held, undo).await);
    allowed(scaler.try_delete(&held).await);
    // What has ended holds nothing, and anybody may tidy it away.
    let operator = namespace.the_operator().await;
    allowed(operator.merge_status(&held, json!({"status": {"phase": "Released"}})).await);
    allowed(declarer.try_delete(&held).await);
    allowed(operator.merge_status(&held, json!({"status": {"phase": "Active"}})).await);
    refused(declarer.try_delete(&held).await, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_mitigations_none_is_overlooked() {
    let namespace = TestNamespace::new("eight").await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let eight = || -> Vec<Value> {
        (0..8).map(|i| named(scale_of("Deployment", &format!("w{i}")), &format!("e{i}"))).collect()
    };
    allowed(scaler.try_create(&declared("all", &eight())).await);
    for count in 1..=8 {
        // The last one of so many is another action.
        let mut entries = eight()[..count].to_vec();
        entries[count - 1] = named(flag_off(), "unflag");
        refused(
            scaler.try_create(&declared("all", &entries)).await,
            &["may not ask for mitigation \"unflag\""],
        );
    }
    // Of eight that are there, none is released by who may not.
    allowed(scaler.create(&declared("all", &eight())).await);
    let declarer = namespace.person("declarer", &[]).await;
    for out in 0..8 {
        let mut entries = eight();
        entries.remove(out);
        let change = json!({"spec": {"mitigations": entries}});
        refused(
            declarer.try_merge(&declared("all", &[]), change).await,
            &[&format!("may not release mitigation \"e{out}\"")],
        );
    }
    // The most that one request can ask for: eight out, eight in, each by an account, with all that a parameter adds.
    namespace.account("everything", &["patch deployments.apps", "delete pods", "get pods/log"]).await;
    let director = namespace.person("director", &["impersonate serviceaccounts everything"]).await;
    let costly = |prefix: &str| -> Vec<Value> {
        (0..8)
            .map(|i| {
                let entry = json!({"rollback": {"allowPodDeletion": true}, "evidence": "Required", "serviceAccountName": "everything"});
                let target = json!({"kind": "Deployment", "name": format!("w{i}")});
                with(json!({"name": format!("{prefix}{i}"), "reason": "a test", "targetRef": target}), entry)
            })
            .collect()
    };
    let many = declared("many", &costly("a"));
    allowed(director.create(&many).await);
    allowed(director.try_merge(&many, json!({"spec": {"mitigations": costly("b")}})).await);
    allowed(director.try_delete(&many).await);
    refused(
        declarer.try_merge(&many, json!({"spec": {"mitigations": costly("b")}})).await,
        &["user \"declarer\" may not"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_an_incident_needs_the_rights_of_what_it_touches_and_no_others() {
    let namespace = TestNamespace::new("edits").await;
    let (stop, unflag) = (named(importer(), "stop"), named(flag_off(), "unflag"));
    let two = declared("two", &[stop.clone(), unflag.clone()]);
    let declarer = namespace.person("declarer", &[]).await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let flagger = namespace.person("flagger", &["patch configmaps"]).await;
    let both = namespace.person("both", &[SCALES, "patch configmaps"]).await;
    allowed(declarer.try_create(&declared("none", &[])).await);
    refused(declarer.create(&two).await, &["may not ask for mitigation"]);
    refused(scaler.create(&two).await, &["\"unflag\"", "patch configmaps \"flags\""]);
    refused(flagger.create(&two).await, &["\"stop\""]);
    allowed(both.create(&two).await);

    // A communications lead edits the title, whichever way the request is made.
    allowed(declarer.merge(&two, json!({"spec": {"title": "a better title"}})).await);
    allowed(declarer.put(&two, |i| i["spec"]["title"] = json!("a still better title")).await);
    allowed(declarer.apply(&two, "gitops").await);
    let entries = |entries: &[&Value]| json!({"spec": {"mitigations": entries}});
    allowed(declarer.try_merge(&two, entries(&[&unflag, &stop])).await);

    let third = named(importer(), "third");
    refused(
        flagger.try_merge(&two, entries(&[&stop, &unflag, &third])).await,
        &["may not ask for mitigation \"third\""],
    );
    let edited = with(stop.clone(), json!({"expiresAfter": "1h"}));
    refused(
        flagger.try_merge(&two, entries(&[&edited, &unflag])).await,
        &["may not ask for mitigation \"stop\""],
    );
    allowed(scaler.try_merge(&two, entries(&[&edited, &unflag])).await);
    refused(flagger.try_merge(&two, entries(&[&unflag])).await, &["may not release mitigation \"stop\""]);
    allowed(scaler.try_merge(&two, entries(&[&unflag])).await);
    refused(declarer.try_merge(&two, json!({"spec": {"mitigations": null}})).await, &["may not release"]);
    let renamed = with(stop.clone(), json!({"name": "halt"}));
    refused(flagger.try_merge(&two, entries(&[&renamed, &unflag])).await, &["may not"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_or_cancelling_an_incident_releases_and_needs_the_rights() {
    let namespace = TestNamespace::new("ends").await;
    let two = declared("two", &[named(importer(), "stop"), named(flag_off(), "unflag")]);
    let declarer = namespace.person("declarer", &[]).await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let flagger = namespace.person("flagger", &["patch configmaps"]).await;
    let both = namespace.person("both", &[SCALES, "patch configmaps"]).await;
    allowed(both.create(&two).await);
    refused(declarer.delete(&two).await, &["may not release mitigation"]);
    refused(scaler.delete(&two).await, &["may not release mitigation \"unflag\""]);
    allowed(both.try_delete(&two).await);
    for outcome in
        [json!({"outcome": "FalseAlarm"}), json!({"outcome": "Duplicate", "duplicateOf": {"name": "x"}})]
    {
        refused(declarer.try_merge(&two, json!({"spec": outcome})).await, &["may not release mitigation"]);
        allowed(both.try_merge(&two, json!({"spec": outcome})).await);
    }
    // What has ended already needs no right; an entry that was put back has not ended.
    let operator = namespace.the_operator().await;
    let said = |stop: Value, unflag: &str| {
        let stop = with(json!({"name": "two-stop", "entry": "stop"}), stop);
        json!({"status": {"mitigations": [stop, {"name": "two-unflag", "entry": "unflag", "phase": unflag}]}})
    };
    let status = async |status: Value| allowed(operator.merge_status(&two, status).await);
    status(said(json!({"phase": "Released"}), "Active")).await;
    refused(declarer.try_delete(&two).await, &["may not release mitigation \"unflag\""]);
    allowed(flagger.try_delete(&two).await);
    status(said(json!({"phase": "Released", "removed": true}), "Released")).await;
    refused(flagger.try_delete(&two).await, &["may not release mitigation \"stop\""]);
    status(said(json!({"phase": "Superseded"}), "Released")).await;
    allowed(declarer.try_delete(&two).await);
}

/// A mitigation that only names an incident is none of its entries, so admission cannot judge who cancels that.
#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_an_incident_releases_no_mitigation_without_the_right() {
    let namespace = TestNamespace::new("cancels").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 2)).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    let both = namespace.person("both", &[SCALES, "patch configmaps"]).await;
    let declarer = namespace.person("declarer", &[]).await;
    let manual = json!({"incidentRef": {"name": "i"}});
    let with_it = json!({"incidentRef": {"name": "i"}, "releaseOn": "Resolve"});
    allowed(declarer.create(&declared("i", &[])).await);
    allowed(both.create(&mitigation("stop", with(importer(), manual))).await);
    allowed(both.create(&mitigation("unflag", with(flag_off(), with_it))).await);
    let api = namespace.raw("Mitigation");
    for name in ["stop", "unflag"] {
        wait_status(&api, name, "effect", |m| m.data["status"]["phase"] == "Active").await;
    }
    let incident = declared("i", &[]);
    allowed(declarer.merge(&incident, json!({"spec": {"outcome": "FalseAlarm"}})).await);
    wait_status(&api, "stop", "refusal", |m| {
        let text = m.data["status"]["conditions"].to_string();
        text.contains("the incident was cancelled, but declarer may not release this now: it needs patch deployments.apps/scale")
    })
    .await;
    // Who asked for this one agreed to the end of the incident.
    wait_status(&api, "unflag", "release", |m| m.data["status"]["phase"] == "Released").await;
    assert_eq!(api.get("stop").await.expect("it is there").data["status"]["phase"], "Active");
    // Somebody who may says so again.
    allowed(both.merge(&incident, json!({"spec": {"outcome": "Genuine"}})).await);
    allowed(both.merge(&incident, json!({"spec": {"outcome": "FalseAlarm"}})).await);
    wait_status(&api, "stop", "release", |m| m.data["status"]["phase"] == "Released").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_needs_the_verb_approve_on_that_mitigation() {
    let namespace = TestNamespace::new("approve").await;
    let entry = |type_: &str, name: &str| {
        json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "TimelineEntry", "metadata": {"generateName": "a-"},
            "spec": {"incidentRef": {"name": "i"}, "type": type_, "message": "a test", "mitigationRef": {"name": name}, "digest": "abc"}})
    };
    let note = json!({"apiVersion": "incident-operator.dev/v1alpha1", "kind": "TimelineEntry", "metadata": {"generateName": "a-"},
        "spec": {"incidentRef": {"name": "i"}, "type": "Note", "message": "a test"}});
    let responder = namespace.person_as("responder", "responder", &[]).await;
    let approver = namespace.person_as("approver", "approver", &[]).await;
    let one = namespace.person("one", &["approve mitigations.incident-operator.dev held"]).await;
    for type_ in ["Approval", "Rejection"] {
        let words = [
            "it needs the verb \"approve\" on mitigations.incident-operator.dev \"held\"",
            "responder",
            type_,
        ];
        refused(responder.try_create(&entry(type_, "held")).await, &words);
        allowed(approver.try_create(&entry(type_, "held")).await);
        allowed(one.try_create(&entry(type_, "held")).await);
        refused(one.try_create(&entry(type_, "other")).await, &["\"other\""]);
    }
    allowed(responder.try_create(&note).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_not_there_and_what_was_allowed_is_done_by_the_operator() {
    let namespace = TestNamespace::new("really").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 2)).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    let flagger = namespace.person("flagger", &["patch configmaps"]).await;
    refused(flagger.create(&mitigation("stop", importer())).await, &["may not ask for"]);
    allowed(flagger.create(&mitigation("unflag", flag_off())).await);
    let api = namespace.raw("Mitigation");
    wait_status(&api, "unflag", "effect", |m| m.data["status"]["phase"] == "Active").await;
    assert!(api.get_opt("stop").await.expect("an answer").is_none());
    let untouched: Api<k8s_openapi::api::apps::v1::Deployment> = namespace.api();
    let untouched = untouched.get("importer").await.expect("it is there");
    assert_eq!(untouched.spec.and_then(|spec| spec.replicas), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_everything_in_it_for_who_may_delete_nothing_but_namespaces() {
    let (home, namespace) = (TestNamespace::new("home").await, TestNamespace::new("wedge").await);
    let lease = Some(home.name.clone());
    let _operator = Operator::start(&namespace, Options { lease, ..Options::default() }).await;
    namespace.create_ready(deployment("importer", 1)).await;
    namespace.create(configmap("flags", &[("a", "on")])).await;
    namespace.create(declared("i", &[named(importer(), "stop")])).await;
    namespace.create(mitigation("alone", flag_off())).await;
    let api = namespace.raw("Mitigation");
    wait_status(&api, "i-stop", "effect", |m| m.data["status"]["phase"] == "Active").await;
    wait_status(&api, "alone", "effect", |m| m.data["status"]["phase"] == "Active").await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": format!("{}-janitor", namespace.name)},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["delete"], "resourceNames": [namespace.name]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": format!("{}-janitor", namespace.name)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("{}-janitor", namespace.name)},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "janitor"}]});
    for object in [role, binding] {
        cluster::kubectl_with(&["create", "-f", "-"], &object.to_string()).success();
    }
    let janitor = Cluster::impersonating("janitor", &[]).await;
    let namespaces: Api<Namespace> = Api::all(janitor.client);
    wait_for(PATIENCE, "right of the janitor", async || {
        namespaces
            .delete(&namespace.name, &DeleteParams::default())
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await;
    // Its controller comes again after 15 s where something was left the first time.
    kubectl(&["wait", &format!("namespace/{}", namespace.name), "--for=delete", "--timeout=90s"]).success();
    for kind in ["clusterrole", "clusterrolebinding"] {
        kubectl(&["delete", kind, &format!("{}-janitor", namespace.name)]).success();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_that_is_deleted_takes_its_mitigations_along_and_the_collector_needs_no_right() {
    let namespace = TestNamespace::new("collect").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    namespace.create_ready(deployment("importer", 1)).await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let one = declared("one", &[named(importer(), "stop")]);
    allowed(scaler.create(&one).await);
    let api = namespace.raw("Mitigation");
    wait_status(&api, "one-stop", "effect", |m| m.data["status"]["phase"] == "Active").await;
    allowed(scaler.delete(&one).await);
    wait_gone(&api, "one-stop").await;
    wait_gone(&namespace.raw("Incident"), "one").await;
    let importer: Api<k8s_openapi::api::apps::v1::Deployment> = namespace.api();
    wait_status(&importer, "importer", "release", |d| d.spec.as_ref().and_then(|s| s.replicas) == Some(1))
        .await;
}

/// The control plane of the tests runs all controllers under one name that may do everything; most others give each
/// its own, which may delete and no more.
#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_that_clean_up_need_no_right_on_what_a_mitigation_acts_on() {
    let namespace = TestNamespace::new("cleaners").await;
    let scaler = namespace.person("scaler", &[SCALES]).await;
    let held = mitigation("held", importer());
    let one = declared("one", &[named(importer(), "stop")]);
    allowed(scaler.create(&held).await);
    allowed(scaler.create(&one).await);
    for name in ["namespace-controller", "generic-garbage-collector"] {
        let controller = namespace.controller(name).await;
        allowed(controller.try_delete(&held).await);
        allowed(controller.try_delete(&one).await);
    }
}
