//! What docs/gitops.md says to Argo CD and Flux, run by interpreters of Lua and CEL on what the operator writes.

use incident_operator::{
    api::{Postmortem, PostmortemStatus},
    config::Settings,
    decide::postmortem::{Observed, decide},
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::fs;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/argo-cd/incident-operator.dev/Postmortem");
const DOCUMENT: &str = include_str!("../docs/gitops.md");

/// A postmortem as the operator leaves it, and what the two engines are to say of it.
struct Case {
    name: &'static str,
    object: Value,
    argo: (&'static str, String),
    flux: &'static str,
}

fn cases() -> Vec<Case> {
    let complete = json!({
        "incidentRef": {"name": "checkout-errors", "uid": "u1"}, "title": "Checkout returns 500", "owner": "alice", "reviewers": ["bob"],
        "summary": "The import used up all connections.", "impact": "40 % of checkouts failed.", "rootCauses": "One pool for all.",
        "detection": "An alert.", "wentWell": "The import was stopped at once.", "wentPoorly": "Nobody knew who was affected.",
        "timeline": [{"time": "2026-11-23T10:02:00Z", "message": "first error"}],
        "actionItems": [{"id": "pool", "title": "Split the pool", "type": "Prevent", "owner": "bob", "dueDate": "2026-12-01"}],
    });
    let with = |state: &str, items: &str| {
        let mut spec = complete.clone();
        spec["state"] = json!(state);
        spec["actionItems"][0]["state"] = json!(items);
        spec
    };
    let unseen = "the operator has not looked at this generation yet".to_owned();
    let of = |status: &Value, type_: &str| {
        let all = status["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == type_).unwrap()["message"].as_str().unwrap().to_owned()
    };
    let mut cases = vec![Case {
        name: "new",
        object: object(with("Draft", "Open"), json!({"observedGeneration": -1})),
        argo: ("Progressing", unseen.clone()),
        flux: "InProgress",
    }];
    let mut edited = object(with("Draft", "Open"), looked_at(with("Draft", "Open"), "2026-11-24T09:00:00Z"));
    edited["metadata"]["generation"] = json!(3);
    cases.push(Case { name: "edited", object: edited, argo: ("Progressing", unseen), flux: "InProgress" });
    let draft = looked_at(json!({"incidentRef": {"name": "checkout-errors"}}), "2026-11-24T09:00:00Z");
    cases.push(Case {
        name: "draft",
        argo: ("Suspended", of(&draft, "Reviewed")),
        object: object(json!({"incidentRef": {"name": "checkout-errors"}}), draft),
        flux: "Current",
    });
    let overdue = looked_at(with("InReview", "Open"), "2026-12-09T09:00:00Z");
    cases.push(Case {
        name: "overdue",
        argo: ("Degraded", of(&overdue, "Overdue")),
        object: object(with("InReview", "Open"), overdue),
        flux: "Failed",
    });
    let reviewed = looked_at(with("Reviewed", "Open"), "2026-11-24T09:00:00Z");
    cases.push(Case {
        name: "reviewed",
        argo: ("Healthy", format!("{}; {}", of(&reviewed, "Reviewed"), of(&reviewed, "ActionItemsDone"))),
        object: object(with("Reviewed", "Open"), reviewed),
        flux: "Current",
    });
    let done = looked_at(with("Reviewed", "Done"), "2026-12-09T09:00:00Z");
    cases.push(Case {
        name: "done",
        argo: ("Healthy", of(&done, "Reviewed")),
        object: object(with("Reviewed", "Done"), done),
        flux: "Current",
    });
    cases
}

fn object(spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "incident-operator.dev/v1alpha1", "kind": "Postmortem",
        "metadata": {"name": "checkout-errors", "namespace": "shop", "generation": 2, "uid": "0b0f2b9e-0000-4000-8000-000000000000"},
        "spec": spec, "status": status,
    })
}

/// The status that the operator writes, for a SEV1 that was resolved on 23 November.
fn looked_at(spec: Value, now: &str) -> Value {
    let mut postmortem: Postmortem = serde_json::from_value(object(spec, json!({}))).unwrap();
    let incident = json!({"name": "checkout-errors", "uid": "u1", "title": "Checkout returns 500", "severity": "SEV1",
        "startedTime": "2026-11-23T10:02:00Z", "resolvedTime": "2026-11-23T10:40:00Z"});
    postmortem.status = Some(PostmortemStatus {
        incident: Some(serde_json::from_value(incident).unwrap()),
        ..PostmortemStatus::default()
    });
    let settings = Settings::default();
    let seen = Observed {
        postmortem: &postmortem,
        incident: None,
        recorded_is_there: false,
        namesakes: &[],
        signed: false,
        outcomes: &[],
        settings: &settings,
    };
    let now: Timestamp = now.parse().unwrap();
    serde_json::to_value(decide(&seen, now)).unwrap()
}

// ---- Argo CD -----------------------------------------------------------------------------------------------------

fn lua_value(lua: &mlua::Lua, value: &Value) -> mlua::Value {
    match value {
        Value::Null => mlua::Value::Nil,
        Value::Bool(b) => mlua::Value::Boolean(*b),
        // Argo CD hands over every number as a number of Lua 5.1, which has one kind of them.
        Value::Number(n) => mlua::Value::Number(n.as_f64().unwrap()),
        Value::String(s) => mlua::Value::String(lua.create_string(s).unwrap()),
        Value::Array(items) => {
            let items = items.iter().map(|item| lua_value(lua, item));
            mlua::Value::Table(lua.create_sequence_from(items).unwrap())
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| (key.as_str(), lua_value(lua, value)));
            mlua::Value::Table(lua.create_table_from(pairs).unwrap())
        }
    }
}

/// What the script says of an object. As in Argo CD it has the base library and nothing else.
fn health(object: &Value) -> (String, String) {
    let lua = mlua::Lua::new_with(mlua::StdLib::NONE, mlua::LuaOptions::default()).unwrap();
    lua.globals().set("obj", lua_value(&lua, object)).unwrap();
    let script = fs::read_to_string(format!("{FOLDER}/health.lua")).unwrap();
    let answer: mlua::Table = lua.load(script).eval().unwrap();
    (answer.get("status").unwrap(), answer.get("message").unwrap())
}

#[test]
fn argo_cd_tells_what_waits_what_is_late_and_what_is_done() {
    for case in cases() {
        let (status, message) = health(&case.object);
        assert_eq!((status.as_str(), message), (case.argo.0, case.argo.1), "{}", case.name);
    }
}

#[test]
fn an_object_of_which_little_is_known_is_in_progress_and_no_error() {
    for object in [
        json!({"metadata": {"generation": 1}}),
        json!({"metadata": {"generation": 1}, "status": {}}),
        json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}),
        json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": []}}),
    ] {
        assert_eq!(health(&object).0, "Progressing", "{object}");
    }
}

#[test]
fn the_test_data_for_argo_cd_is_what_the_operator_writes() {
    let mut files = Vec::new();
    let mut tests = Vec::new();
    for case in cases() {
        files.push((format!("testdata/{}.yaml", case.name), serde_saphyr::to_string(&case.object).unwrap()));
        tests.push(json!({
            "healthStatus": {"status": case.argo.0, "message": case.argo.1},
            "inputPath": format!("testdata/{}.yaml", case.name),
        }));
    }
    files.push(("health_test.yaml".to_owned(), serde_saphyr::to_string(&json!({"tests": tests})).unwrap()));
    for (name, text) in files {
        let path = format!("{FOLDER}/{name}");
        if std::env::var_os("UPDATE_EXAMPLE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap_or_default(),
            text,
            "{name}: set UPDATE_EXAMPLE=1 to accept"
        );
    }
}

#[test]
fn the_document_shows_the_script_as_it_is() {
    let shown = DOCUMENT.split_once("```lua\n").unwrap().1.split_once("```").unwrap().0;
    assert_eq!(shown, fs::read_to_string(format!("{FOLDER}/health.lua")).unwrap());
}

// ---- Flux --------------------------------------------------------------------------------------------------------

/// One expression of the document on an object. `None`: it cannot be told yet, which Flux takes for progress.
fn holds(expression: &str, object: &Value) -> Option<bool> {
    let program = cel::Program::compile(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let mut context = cel::Context::default();
    for (name, value) in object.as_object().unwrap() {
        context.add_variable(name.as_str(), value.clone()).unwrap();
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(holds)) => Some(holds),
        Ok(other) => panic!("{expression} gives {other:?}"),
        Err(_) => None,
    }
}

/// As Flux evaluates them: what is in progress, then what failed, then what is current.
fn flux(object: &Value) -> &'static str {
    let yaml = DOCUMENT.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let kustomization: Value = serde_saphyr::from_str(yaml).unwrap();
    let checks = &kustomization["spec"]["healthCheckExprs"][0];
    assert_eq!((&checks["apiVersion"], &checks["kind"]), (&object["apiVersion"], &object["kind"]));
    for (key, status) in [("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")] {
        match holds(checks[key].as_str().unwrap(), object) {
            Some(true) => return status,
            Some(false) => {}
            None => return "InProgress",
        }
    }
    "InProgress"
}

#[test]
fn flux_waits_for_the_operator_and_fails_while_a_review_is_overdue() {
    for case in cases() {
        assert_eq!(flux(&case.object), case.flux, "{}", case.name);
    }
    let mut stateless = object(json!({}), json!({}));
    assert_eq!(flux(&stateless), "InProgress");
    stateless.as_object_mut().unwrap().remove("status");
    assert_eq!(flux(&stateless), "InProgress");
}
