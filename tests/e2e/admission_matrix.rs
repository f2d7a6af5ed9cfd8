//! Twelve users, all actions, Incident and Mitigation, the own and another namespace, every kind of request: what is
//! not allowed is refused in words, what is allowed passes. No operator runs; nothing is kept of the requests.

use super::support::workload::{incident, mitigation, ours};
use super::support::*;
use futures::{StreamExt, stream};
use incident_operator::{api::MitigationTemplate, authority};
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};

/// What a user brings along.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// Nothing but their role.
    Role,
    /// The rights of the actions, on everything in the namespace.
    Right,
    /// The rights of the actions, in the other namespace alone.
    RightElsewhere,
    /// Rights that look like it.
    Near,
    /// The verb impersonate on an account that holds the rights.
    Account,
    /// The verb impersonate on an account that holds none.
    IdleAccount,
    /// The verb use on the policy.
    Policy,
}

struct User {
    name: &'static str,
    role: Option<&'static str>,
    by: By,
}

const USERS: [User; 12] = [
    User { name: "stranger", role: None, by: By::Role },
    User { name: "viewer", role: Some("view"), by: By::Role },
    User { name: "responder", role: Some("responder"), by: By::Role },
    User { name: "approver", role: Some("approver"), by: By::Role },
    User { name: "commander", role: Some("commander"), by: By::Role },
    User { name: "holder", role: Some("commander"), by: By::Right },
    User { name: "bystander", role: Some("responder"), by: By::Right },
    User { name: "guest", role: Some("commander"), by: By::RightElsewhere },
    User { name: "near", role: Some("commander"), by: By::Near },
    User { name: "deputy", role: Some("commander"), by: By::Account },
    User { name: "impostor", role: Some("commander"), by: By::IdleAccount },
    User { name: "oncall", role: Some("commander"), by: By::Policy },
];

/// How the objects say by whose right they are to be done.
const VARIANTS: [&str; 4] = ["own", "account", "idle", "policy"];

impl By {
    fn variant(self) -> usize {
        match self {
            By::Role | By::Right | By::RightElsewhere | By::Near => 0,
            By::Account => 1,
            By::IdleAccount => 2,
            By::Policy => 3,
        }
    }
}

fn actions() -> Vec<(&'static str, Value)> {
    let on = |kind: &str, name: &str, action: Value| {
        let mut spec = json!({"reason": "a test", "targetRef": {"kind": kind, "name": name}});
        spec.as_object_mut().expect("an object").extend(action.as_object().expect("an object").clone());
        spec
    };
    vec![
        ("scale", on("Deployment", "web", json!({"scale": {"replicas": 0}}))),
        (
            "flag",
            on(
                "ConfigMap",
                "flags",
                json!({"featureFlag": {"key": "a", "value": "off", "restartConsumers": true}}),
            ),
        ),
        ("rollback", on("Deployment", "web", json!({"rollback": {"allowPodDeletion": true}}))),
        ("pause", on("DaemonSet", "agent", json!({"pauseRollout": {}}))),
        ("suspend", on("CronJob", "nightly", json!({"suspend": {"runningJobs": "Delete"}}))),
        ("freeze", on("Namespace", "NAMESPACE", json!({"freeze": {}}))),
        ("block", on("Namespace", "NAMESPACE", json!({"blockWrites": {"level": "Quota"}}))),
        ("limit", on("Ingress", "web", json!({"rateLimit": {"requests": 5, "per": "Second"}}))),
        ("isolate", on("Pod", "web-0", json!({"isolate": {}}))),
        ("manual", on("Deployment", "web", json!({"manual": {"instructions": "look at it"}}))),
    ]
}

/// The action as it stands in a namespace, by a variant.
fn spec_in(namespace: &str, spec: &Value, variant: usize) -> Value {
    let mut spec = spec.clone();
    if spec["targetRef"]["name"] == "NAMESPACE" {
        spec["targetRef"]["name"] = namespace.into();
    }
    match VARIANTS[variant] {
        "account" => spec["serviceAccountName"] = "bot".into(),
        "idle" => spec["serviceAccountName"] = "idle".into(),
        "policy" => spec["policyRef"] = json!({"name": "oncall"}),
        _ => {}
    }
    spec
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    if kind == "Mitigation" {
        return mitigation(name, spec);
    }
    let mut entry = spec;
    entry["name"] = "entry".into();
    incident(name, json!({"title": "a test", "mitigations": [entry]}))
}

fn change(kind: &str, object: &mut Value) {
    let spec = if kind == "Mitigation" { &mut object["spec"] } else { &mut object["spec"]["mitigations"][0] };
    spec["reason"] = "another reason".into();
}

fn rules() -> Vec<String> {
    let mut rules: Vec<String> = actions()
        .into_iter()
        .flat_map(|(_, spec)| {
            let template: MitigationTemplate =
                serde_json::from_value(spec).expect("the action is well formed");
            authority::wanted(&template, true).into_iter().map(|need| need.right.to_string())
        })
        .collect();
    rules.sort();
    rules.dedup();
    rules
}

struct Case {
    user: usize,
    home: bool,
    action: usize,
    kind: &'static str,
    request: &'static str,
}

const REQUESTS: [&str; 6] = ["create", "update", "apply", "put", "status", "delete"];

#[tokio::test(flavor = "multi_thread")]
async fn every_user_may_do_with_every_request_what_their_rights_say_and_nothing_else() {
    let (home, away) = (TestNamespace::new("matrix").await, TestNamespace::new("away").await);
    let rules = rules();
    let all: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert!(all.len() > 8, "{all:?}");
    let near: Vec<String> =
        all.iter().map(|rule| rule.replace("patch ", "update ").replace("freeze ", "get ")).collect();
    let near: Vec<&str> = near.iter().map(String::as_str).filter(|rule| !all.contains(rule)).collect();
    for namespace in [&home, &away] {
        // The accounts are of no use in the other namespace.
        let rights: &[&str] = if namespace.name == home.name { &all } else { &[] };
        namespace.account("bot", rights).await;
        namespace.account("idle", &[]).await;
    }
    let mut people: Vec<[Person; 2]> = Vec::new();
    for user in &USERS {
        let (here, there): (Vec<&str>, Vec<&str>) = match user.by {
            By::Role => (Vec::new(), Vec::new()),
            By::Right => (all.clone(), Vec::new()),
            By::RightElsewhere => (Vec::new(), all.clone()),
            By::Near => (near.clone(), near.clone()),
            By::Account => (vec!["impersonate serviceaccounts bot"], vec!["impersonate serviceaccounts bot"]),
            By::IdleAccount => {
                (vec!["impersonate serviceaccounts idle"], vec!["impersonate serviceaccounts idle"])
            }
            By::Policy => (vec!["use mitigationpolicies.incident-operator.dev oncall"], Vec::new()),
        };
        let mut both = Vec::new();
        for (namespace, rules) in [(&home, here), (&away, there)] {
            both.push(match user.role {
                Some(role) => namespace.person_as(user.name, role, &rules).await,
                None => namespace.stranger(user.name).await,
            });
        }
        people.push(both.try_into().ok().expect("two namespaces"));
    }
    let actions = actions();
    let mut present = Vec::new();
    for namespace in [&home, &away] {
        for (name, spec) in &actions {
            for (variant, by) in VARIANTS.iter().enumerate() {
                for kind in ["Mitigation", "Incident"] {
                    let name = format!("{name}-{by}");
                    present.push((namespace, object(kind, &name, spec_in(&namespace.name, spec, variant))));
                }
            }
        }
    }
    let stored: Vec<DynamicObject> =
        stream::iter(present).map(|(namespace, object)| namespace.create(object)).buffered(8).collect().await;
    let found = |namespace: &str, kind: &str, name: &str| -> DynamicObject {
        let is = |o: &&DynamicObject| {
            o.metadata.namespace.as_deref() == Some(namespace)
                && o.metadata.name.as_deref() == Some(name)
                && o.types.as_ref().is_some_and(|types| types.kind == kind)
        };
        stored.iter().find(is).expect("it was made").clone()
    };

    let mut cases = Vec::new();
    for user in 0..USERS.len() {
        for home in [true, false] {
            for action in 0..actions.len() {
                for kind in ["Mitigation", "Incident"] {
                    cases.extend(REQUESTS.map(|request| Case { user, home, action, kind, request }));
                }
            }
        }
    }
    assert_eq!(cases.len(), 12 * 2 * 10 * 2 * 6);
    let wrong: Vec<String> = stream::iter(&cases)
        .map(async |case| {
            let user = &USERS[case.user];
            let person = &people[case.user][usize::from(!case.home)];
            let namespace = if case.home { &home } else { &away };
            let (action, spec) = &actions[case.action];
            let variant = user.by.variant();
            let name = format!("{action}-{}", VARIANTS[variant]);
            let spec = spec_in(&namespace.name, spec, variant);
            let mut changed = object(case.kind, &name, spec.clone());
            change(case.kind, &mut changed);
            let answer = match case.request {
                "create" => person.try_create(&object(case.kind, "new", spec)).await.map(drop),
                "update" => person.try_merge(&changed, json!({"spec": changed["spec"]})).await.map(drop),
                "apply" => person.try_apply(&changed).await.map(drop),
                "put" => {
                    let present = found(&namespace.name, case.kind, &name);
                    person.try_put(&present, |object| change(case.kind, object)).await.map(drop)
                }
                "status" => person
                    .merge_status(&changed, json!({"status": {"observedGeneration": 7}}))
                    .await
                    .map(drop),
                _ => person.try_delete(&changed).await,
            };
            let writes = user.role == Some("commander") && case.request != "status";
            let holds = match user.by {
                By::Right | By::Account | By::Policy => case.home,
                By::RightElsewhere => !case.home,
                By::Role | By::Near | By::IdleAccount => false,
            };
            let expected = writes && (holds || *action == "manual");
            let place = if case.home { "at home" } else { "away" };
            let what = format!("{} {place}: {} {} {name}", user.name, case.request, case.kind);
            match answer {
                Ok(()) if expected => None,
                Ok(()) => Some(format!("{what}: allowed")),
                Err(words) if expected => Some(format!("{what}: refused: {words}")),
                // Who and what is named, by RBAC or by us.
                Err(words)
                    if words.contains(&format!("ser \"{}\"", person.name)) && words.contains("not") =>
                {
                    None
                }
                Err(words) => Some(format!("{what}: no help in {words}")),
            }
        })
        .buffer_unordered(8)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Names of other namespaces have no place in any reference: a field that could hold one does not exist, and a name
/// is a name in the namespace of the object.
#[tokio::test(flavor = "multi_thread")]
async fn no_field_leads_into_another_namespace() {
    let (here, there) = (TestNamespace::new("cross").await, TestNamespace::new("target").await);
    let admin = here.admin();
    let scale = json!({"reason": "a test", "targetRef": {"kind": "Deployment", "name": "web"}, "scale": {"replicas": 0}});
    for path in ["targetRef", "incidentRef", "policyRef"] {
        let mut spec = scale.clone();
        if path != "targetRef" {
            spec[path] = json!({"name": "x"});
        }
        spec[path]["namespace"] = there.name.clone().into();
        let api: Api<DynamicObject> = admin.api(&mitigation("m", spec.clone()));
        let strict = serde_json::from_value(mitigation("m", spec)).expect("it has metadata");
        let stored = api.create(&PostParams { dry_run: true, ..PostParams::default() }, &strict).await;
        match stored {
            // What is not in the schema is dropped, or refused where the client asks for that.
            Ok(object) => assert!(object.data["spec"][path]["namespace"].is_null(), "{path}"),
            Err(error) => assert!(error.to_string().contains("namespace"), "{path}: {error}"),
        }
    }
    // Nor does a name that is a path.
    for name in [format!("{}/web", there.name), format!("../{}/web", there.name), "web/scale".to_owned()] {
        let entry = json!({"incidentRef": {"name": name}, "type": "Note", "message": "x"});
        let mut target = scale.clone();
        target["targetRef"]["name"] = name.clone().into();
        let mut incident = scale.clone();
        incident["incidentRef"] = json!({"name": name});
        for object in [ours("TimelineEntry", "e", entry), mitigation("m", target), mitigation("m", incident)]
        {
            let said = admin.try_create(&object).await.expect_err("a name has no slash");
            assert!(said.contains("should match"), "{said}");
        }
    }
}
