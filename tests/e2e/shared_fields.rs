//! Fields that are not ours alone: documents and lists of which a mitigation holds one value or entry, while others edit
//! the rest. Afterwards such a field belongs to whom it would belong to without the mitigation.

use super::mitigation::*;
use super::support::{crds, workload, *};
use incident_operator::api::{Mitigation, MitigationPhase as Phase};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

const DOCUMENT: &str = "one: 1\ntwo: 1\nother: 1\n";
const MIDDLEWARES: &str = "traefik.ingress.kubernetes.io/router.middlewares";

/// A ConfigMap with a document, its text as stated.
fn document(name: &str, text: &str) -> Value {
    workload::configmap(name, &[("app.yaml", text)])
}

/// A mitigation that sets one value of the document of a ConfigMap to 0.
fn stop(name: &str, map: &str, value: &str) -> Value {
    let flag = json!({"key": "app.yaml", "path": value, "value": "0"});
    mitigation_of(name, "ConfigMap", map, json!({"featureFlag": flag}))
}

async fn text_of(namespace: &TestNamespace, map: &str) -> String {
    let map = present(namespace, &document(map, "")).await;
    map.data["data"]["app.yaml"].as_str().expect("it is text").to_owned()
}

/// Somebody changes another value of the document, by hand.
async fn edit_other(namespace: &TestNamespace, map: &str, from: usize, manager: &str) {
    let text = text_of(namespace, map).await;
    let edited = text.replace(&format!("other: {from}"), &format!("other: {}", from + 1));
    assert_ne!(edited, text);
    edit(namespace, &document(map, ""), manager, json!({"data": {"app.yaml": edited}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_others_edit_meanwhile_is_theirs_whatever_mitigations_of_it_come_and_go() {
    let namespace = TestNamespace::new("sharedoc").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let namespace = &namespace;
    // A take or a release of one of two mitigations, or an edit.
    let stories: [&[&str]; 10] = [
        &["take one", "edit", "release one"],
        &["take one", "take two", "release one", "release two"],
        &["take one", "take two", "release two", "release one"],
        &["take one", "take two", "edit", "release one", "release two"],
        &["take one", "take two", "edit", "release two", "release one"],
        &["take one", "edit", "take two", "release one", "release two"],
        &["take one", "edit", "take two", "release two", "release one"],
        &["take one", "take two", "release one", "edit", "release two"],
        &["take one", "take two", "release two", "edit", "release one"],
        &["take one", "edit", "take two", "edit", "release one", "edit", "release two"],
    ];
    let told = stories.iter().enumerate().map(async |(index, story)| {
        let (map, control) = (format!("flags-{index}"), format!("control-{index}"));
        namespace.create(document(&map, DOCUMENT)).await;
        namespace.create(document(&control, DOCUMENT)).await;
        let mut edits = 0;
        for step in *story {
            match step.split_once(' ') {
                Some(("take", value)) => {
                    let name = format!("{value}-{index}");
                    namespace.create(stop(&name, &map, value)).await;
                    effective(namespace, &name).await;
                }
                Some(("release", value)) => {
                    let name = format!("{value}-{index}");
                    release(namespace, &name);
                    reaches(namespace, &name, Phase::Released).await;
                }
                _ => {
                    edits += 1;
                    for each in [&map, &control] {
                        edit_other(namespace, each, edits, &format!("editor-{edits}")).await;
                    }
                }
            }
        }
        println!("{story:?}");
        let after = present(namespace, &document(&map, "")).await;
        assert_same(&after, &present(namespace, &document(&control, "")).await);
    });
    futures::future::join_all(told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_applied_meanwhile_belongs_to_who_applies_it() {
    let namespace = TestNamespace::new("applydoc").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let api: Api<ConfigMap> = namespace.api();
    let params = PatchParams::apply("my-engine").force();
    // With the mitigation's value in it, the engine leaves it alone; with the prior one it is taken back; and who applies
    // what is there owns it along with whom it belonged to.
    let cases = [
        ("left", "one: 0\ntwo: 1\nother: 2\n", "one: 1\ntwo: 1\nother: 2\n", 1),
        ("taken-back", "one: 1\ntwo: 1\nother: 2\n", "one: 1\ntwo: 1\nother: 2\n", 2),
        ("same", "one: 0\ntwo: 1\nother: 1\n", DOCUMENT, 1),
        ("as-before", DOCUMENT, DOCUMENT, 2),
    ];
    for (name, applied, without, attempts) in cases {
        let control = format!("{name}-control");
        for each in [name, &control] {
            namespace.create(document(each, DOCUMENT)).await;
        }
        let mitigation = format!("{name}-one");
        namespace.create(stop(&mitigation, name, "one")).await;
        effective(&namespace, &mitigation).await;
        for (each, text) in [(name, applied), (&control, without)] {
            api.patch(each, &params, &Patch::Apply(document(each, text))).await.expect("it can be applied");
        }
        wait_status(&namespace.api::<Mitigation>(), &mitigation, "attempts", |m| {
            m.status.as_ref().is_some_and(|status| status.attempts == Some(attempts))
        })
        .await;
        effective(&namespace, &mitigation).await;
        release(&namespace, &mitigation);
        reaches(&namespace, &mitigation, Phase::Released).await;
        println!("{name}");
        let after = present(&namespace, &document(name, "")).await;
        assert_same(&after, &present(&namespace, &document(&control, "")).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_others_add_to_meanwhile_is_theirs_after_the_release() {
    crds::install_all(&["traefik"]);
    let namespace = TestNamespace::new("sharelist").await;
    let _operator = Operator::start(&namespace, Options::default()).await;
    let classes: Api<IngressClass> = Api::all(namespace.cluster.client.clone());
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "traefik"},
        "spec": {"controller": "traefik.io/ingress-controller"}});
    let params = PatchParams::apply("tests").force();
    classes.patch("traefik", &params, &Patch::Apply(&class)).await.expect("a class");
    let ingress = |name: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "annotations": {MIDDLEWARES: "auth@file"}},
            "spec": {"ingressClassName": "traefik", "defaultBackend": {"service": {"name": "api", "port": {"number": 80}}}}})
    };
    let route = |name: &str| {
        json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": name},
            "spec": {"routes": [{"kind": "Rule", "match": "Path(`/a`)", "services": [{"name": "api", "port": 80}]}]}})
    };
    for kind in ["Ingress", "IngressRoute"] {
        let object = |name: &str| if kind == "Ingress" { ingress(name) } else { route(name) };
        let (target, control) = (format!("{kind}-web").to_lowercase(), format!("{kind}-bare").to_lowercase());
        for name in [&target, &control] {
            namespace.create(object(name)).await;
        }
        let limit = json!({"rateLimit": {"requests": 7, "per": "Minute"}});
        let mitigation = format!("slow-{target}");
        namespace.create(mitigation_of(&mitigation, kind, &target, limit)).await;
        says(&namespace, &mitigation, "Effective", "NotReported").await;
        for name in [&target, &control] {
            let there = present(&namespace, &object(name)).await;
            let patch = match kind {
                "Ingress" => {
                    let list = format!("{},more@file", there.annotations()[MIDDLEWARES]);
                    json!({"metadata": {"annotations": {MIDDLEWARES: list}}})
                }
                _ => {
                    let mut routes = there.data["spec"]["routes"].clone();
                    routes[0]["priority"] = json!(7);
                    json!({"spec": {"routes": routes}})
                }
            };
            edit(&namespace, &object(name), "bob", patch).await;
        }
        release(&namespace, &mitigation);
        reaches(&namespace, &mitigation, Phase::Released).await;
        let after = present(&namespace, &object(&target)).await;
        assert_same(&after, &present(&namespace, &object(&control)).await);
    }
}
