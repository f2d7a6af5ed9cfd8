use super::*;
use crate::mitigation::{patch::tests::object, scene_tests::Stage};

fn flags(body: Value) -> DynamicObject {
    object(flags_json(body))
}

fn flags_json(body: Value) -> Value {
    let mut base = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flags", "uid": "u"},
        "data": {"new-pricing": "on", "other": "x"}});
    json_patch::merge(&mut base, &body);
    base
}

fn off() -> FeatureFlag {
    FeatureFlag { key: "new-pricing".into(), value: Some("off".into()), ..example() }
}

#[test]
fn only_the_one_key_changes() {
    let target = flags(json!({}));
    let changes = off().changes(&target).unwrap();
    assert_eq!(changes, [Change::set(&target, "/data/new-pricing", json!("off"))]);
    assert_eq!(changes[0].from, Some(json!("on")));
}

#[test]
fn a_missing_key_is_refused_with_the_keys_that_are_there_unless_it_may_be_created() {
    let flag = FeatureFlag { key: "new-prices".into(), ..off() };
    let refusal = flag.changes(&flags(json!({}))).unwrap_err();
    assert_eq!(refusal.reason, "KeyNotFound");
    assert!(refusal.message.contains("new-pricing, other"), "{}", refusal.message);
    let flag = FeatureFlag { create_if_missing: Some(true), ..flag };
    assert_eq!(flag.changes(&flags(json!({}))).unwrap()[0].from, None);
}

#[test]
fn an_immutable_config_map_and_a_value_too_large_to_keep_are_refused() {
    assert_eq!(off().changes(&flags(json!({"immutable": true}))).unwrap_err().reason, "Immutable");
    let large = flags(json!({"data": {"new-pricing": "x".repeat(MAX_PRIOR_BYTES + 1)}}));
    assert_eq!(off().changes(&large).unwrap_err().reason, "PriorTooLarge");
}

const FLAGD: &str = r#"{"flags": {"new-pricing": {"state": "ENABLED", "variants": {"on": true, "off": false},
  "defaultVariant": "on", "targeting": {"if": [true, "on", "off"]}}, "limit": {"state": "DISABLED",
  "variants": {"low": 1}, "defaultVariant": "low"}}, "timeout": 30}"#;

fn flagd() -> DynamicObject {
    flags(
        json!({"data": {"flags.json": FLAGD, "app.properties": "beta=true\n", "app.yaml": "beta: true # x\n"}}),
    )
}

fn inside(key: &str, path: &str, value: Option<&str>, mode: Option<FlagMode>) -> FeatureFlag {
    FeatureFlag {
        key: key.into(),
        path: Some(path.into()),
        value: value.map(str::to_owned),
        mode,
        ..example()
    }
}

/// Path inside the document, value before, value after.
fn told(flag: &FeatureFlag) -> Result<Vec<(String, Value, Value)>, Refusal> {
    let changes = flag.changes(&flagd())?;
    Ok(changes
        .into_iter()
        .map(|change| {
            let field::How::Inside(place) = &change.how else { panic!("it lies in a document") };
            (place.path.join("."), change.from.unwrap_or_default(), change.to.unwrap_or_default())
        })
        .collect())
}

#[test]
fn one_value_in_a_document_is_set_with_the_type_that_it_has() {
    for (key, path, value, from, to) in [
        ("flags.json", "timeout", "5", json!(30), json!(5)),
        ("app.yaml", "beta", "false", json!(true), json!(false)),
        ("app.properties", "beta", "false", json!("true"), json!("false")),
    ] {
        assert_eq!(told(&inside(key, path, Some(value), None)).unwrap(), [(path.to_owned(), from, to)]);
    }
    for (path, value, reason) in [
        ("timeout", "soon", "ValueType"),
        ("flags", "x", "ValueType"),
        ("flags.new-pricing.variants.maybe", "x", "PathNotFound"),
    ] {
        assert_eq!(
            told(&inside("flags.json", path, Some(value), None)).unwrap_err().reason,
            reason,
            "{path}"
        );
    }
}

#[test]
fn a_flagd_flag_is_disabled_or_forced_to_one_variant_whatever_its_targeting_says() {
    let disable = inside("flags.json", "new-pricing", None, Some(FlagMode::Disable));
    assert_eq!(
        told(&disable).unwrap(),
        [("flags.new-pricing.state".to_owned(), json!("ENABLED"), json!("DISABLED"))]
    );
    let force = inside("flags.json", "flags.new-pricing", Some("off"), Some(FlagMode::ForceVariant));
    let changes = told(&force).unwrap();
    assert_eq!(changes[0].0, "flags.new-pricing.defaultVariant");
    assert_eq!(changes[1].0, "flags.new-pricing.targeting");
    assert_eq!(changes[1].2, document::empty_map());
    let enables = told(&inside("flags.json", "limit", Some("low"), Some(FlagMode::ForceVariant))).unwrap();
    assert_eq!(enables[0], ("flags.limit.state".to_owned(), json!("DISABLED"), json!("ENABLED")));
    let wrong = inside("flags.json", "new-pricing", Some("maybe"), Some(FlagMode::ForceVariant));
    assert_eq!(told(&wrong).unwrap_err().reason, "VariantNotFound");
    let wrong = told(&inside("flags.json", "nope", None, Some(FlagMode::Disable))).unwrap_err();
    assert!(wrong.reason == "FlagNotFound" && wrong.message.contains("limit, new-pricing"), "{wrong:?}");
}

fn pod(name: &str, owner: (&str, &str), container: Value, volumes: Value, started: &str) -> Value {
    let mut container = container;
    container["name"] = json!("app");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "uid": name, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": owner.0, "name": owner.1, "uid": "o", "controller": true}]},
        "spec": {"containers": [container], "volumes": volumes},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "app", "state": {"running": {"startedAt": started}}}]}})
}

fn volume() -> Value {
    json!([{"name": "v", "configMap": {"name": "flags"}}])
}

const BEFORE: &str = "2026-11-23T09:00:00Z";
const AFTER: &str = "2026-11-23T09:59:59Z";

fn stage() -> Stage {
    let mut stage = Stage::new(flags_json(json!({})));
    stage.applied = Some("2026-11-23T09:30:00Z".parse().unwrap());
    stage
}

#[test]
fn pods_that_read_the_key_when_they_start_must_be_restarted_and_others_see_it_by_themselves() {
    let env = json!({"envFrom": [{"configMapRef": {"name": "flags"}}]});
    let mounted = json!({"volumeMounts": [{"name": "v", "mountPath": "/f"}]});
    let sub_path = json!({"volumeMounts": [{"name": "v", "mountPath": "/f", "subPath": "new-pricing"}]});
    let other_file = json!({"volumeMounts": [{"name": "v", "mountPath": "/f", "subPath": "other"}]});
    let other_key =
        json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "flags", "key": "other"}}}]});
    for (container, started, says) in [
        (env.clone(), BEFORE, "NeedsRestart"),
        (env, AFTER, "read it"),
        (mounted, BEFORE, "within about a minute"),
        (sub_path, BEFORE, "NeedsRestart"),
        (other_key, BEFORE, "no pod reads it"),
        (other_file, BEFORE, "no pod reads it"),
    ] {
        let stage = stage().with(pod("p", ("StatefulSet", "web"), container.clone(), volume(), started));
        let effect = stage.ask(|scene| off().effect(scene)).unwrap();
        let words = match effect {
            Effect::Seen(message) => message,
            Effect::Unclear { reason, message } => format!("{reason} {message}"),
            other => panic!("{other:?}"),
        };
        assert!(words.contains(says), "{container}: {words}");
    }
}

#[test]
fn only_what_a_volume_shows_of_the_key_and_a_container_mounts_of_it_counts() {
    let whole = json!({"name": "v", "mountPath": "/f"});
    let part = |path: &str| json!({"name": "v", "mountPath": "/f", "subPath": path});
    let items = |key: &str| json!({"name": "flags", "items": [{"key": key, "path": "deep/flag"}]});
    let projected = json!({"sources": [{"secret": {"name": "s"}}, {"configMap": items("new-pricing")}]});
    for (volume, mount, reads) in [
        (json!({"configMap": items("new-pricing")}), whole.clone(), true),
        (json!({"configMap": items("other")}), whole.clone(), false),
        (json!({"configMap": items("new-pricing")}), part("deep/flag"), true),
        (json!({"configMap": items("new-pricing")}), part("deep/"), true),
        (json!({"configMap": items("new-pricing")}), part("dee"), false),
        (json!({"configMap": items("new-pricing")}), part("new-pricing"), false),
        (json!({"projected": projected}), whole, true),
    ] {
        let mut volume = volume;
        volume["name"] = json!("v");
        let container = json!({"volumeMounts": [mount]});
        let stage =
            stage().with(pod("p", ("StatefulSet", "web"), container.clone(), json!([volume]), BEFORE));
        let found = stage.ask(|scene| consumers::of(scene, "new-pricing")).unwrap();
        assert_eq!(!found.is_empty(), reads, "{volume} {container}");
    }
}

#[test]
fn what_reads_the_key_before_the_pod_starts_or_by_a_path_of_its_own_must_be_restarted() {
    let mounted = json!({"volumeMounts": [{"name": "v", "mountPath": "/f"}]});
    let by_expression = json!({"volumeMounts": [{"name": "v", "mountPath": "/f", "subPathExpr": "$(KEY)"}]});
    let idle = json!({});
    let early = |restarts: Value| {
        let mut pod = pod("p", ("StatefulSet", "web"), idle.clone(), volume(), BEFORE);
        let mut container = mounted.clone();
        container["name"] = json!("early");
        container["restartPolicy"] = restarts;
        pod["spec"]["initContainers"] = json!([container]);
        pod["status"]["initContainerStatuses"] =
            json!([{"name": "early", "state": {"terminated": {"startedAt": BEFORE, "exitCode": 0}}}]);
        pod
    };
    let expression = pod("p", ("StatefulSet", "web"), by_expression, volume(), BEFORE);
    for (pod, live) in [(expression, false), (early(Value::Null), false), (early(json!("Always")), true)] {
        let effect = stage().with(pod.clone()).ask(|scene| off().effect(scene)).unwrap();
        assert_eq!(matches!(effect, Effect::Seen(_)), live, "{pod}: {effect:?}");
        assert_eq!(matches!(effect, Effect::Unclear { reason: "NeedsRestart", .. }), !live);
    }
}

#[test]
fn a_pod_that_was_restarted_for_this_mitigation_is_new_in_the_very_second_of_the_change() {
    let env = json!({"envFrom": [{"configMapRef": {"name": "flags"}}]});
    for (restarted_for, new) in [("01234567", true), ("another", false)] {
        let mut pod = pod("p", ("StatefulSet", "web"), env.clone(), volume(), "2026-11-23T09:30:00Z");
        pod["metadata"]["annotations"] = json!({consumers::restarted_for(restarted_for): "true"});
        let effect = stage().with(pod).ask(|scene| off().effect(scene)).unwrap();
        assert_eq!(matches!(effect, Effect::Seen(_)), new, "{effect:?}");
    }
}

#[test]
fn the_workloads_that_read_it_when_they_start_are_restarted_when_that_is_asked_for() {
    let env = json!({"envFrom": [{"configMapRef": {"name": "flags"}}]});
    let workload = |kind: &str, name: &str| {
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "uid": name},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}})
    };
    let mut set = workload("ReplicaSet", "web-1");
    set["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "w", "controller": true}]);
    let stage = stage()
        .with(pod("p", ("ReplicaSet", "web-1"), env.clone(), volume(), BEFORE))
        .with(pod("q", ("DaemonSet", "agent"), env, volume(), BEFORE))
        .with(set)
        .with(workload("Deployment", "web"))
        .with(workload("DaemonSet", "agent"));
    let flag = FeatureFlag { restart_consumers: Some(true), ..off() };
    let parts = stage.ask(|scene| flag.parts(scene)).unwrap();
    let ids: Vec<String> = parts.iter().map(|part| part.id.to_string()).collect();
    assert_eq!(ids, ["ConfigMap/flags", "DaemonSet/agent", "Deployment/web"]);
    assert_eq!(parts[1].changes()[0].path, "/spec/template/metadata/annotations");
}

#[test]
fn names_that_a_deployment_generates_are_told() {
    assert!(has_hash_suffix("flags-8h2bt9g7fk"));
    assert!(!has_hash_suffix("flags") && !has_hash_suffix("flags-production"));
}

#[test]
fn who_misspells_a_path_is_told_what_there_is_as_deep_as_it_leads() {
    let many: serde_json::Map<_, _> = (0..12).map(|n| (format!("k{n:02}"), json!(n))).collect();
    let target =
        flags(json!({"data": {"flags.json": FLAGD, "app.properties": "# a=1\nbeta=true\nbeta=no\nx: 1\n",
        "many.json": json!(many).to_string(), "list.yaml": "a: [1, 2]\n"}}));
    for (key, path, words) in [
        ("flags.json", "flags.new-prices.state", "(flags has limit, new-pricing)"),
        ("flags.json", "flags.limit.variants.high", "(flags.limit.variants has low)"),
        ("flags.json", "flag", "(it has flags, timeout)"),
        ("flags.json", "timeout.seconds", "(timeout is a single value)"),
        ("list.yaml", "a.2", "(a is a list of 2, counted from 0)"),
        ("app.properties", "gamma", "(it has beta, x)"),
        ("many.json", "x", "k08, k09 and 2 more)"),
    ] {
        let refusal = inside(key, path, Some("1"), None).changes(&target).unwrap_err();
        assert_eq!(refusal.reason, "PathNotFound", "{path}");
        assert!(refusal.message.contains(words), "{path}: {}", refusal.message);
    }
}

#[test]
fn of_a_forced_variant_the_targeting_is_told_to_be_emptied_and_no_encoding_of_ours_is_shown() {
    let force = inside("flags.json", "new-pricing", Some("off"), Some(FlagMode::ForceVariant));
    let changes = force.changes(&flagd()).unwrap();
    let told = changes[1].how.told(changes[1].from.as_ref());
    assert_eq!(told, r#"{"if": [true, "on", "off"]}"#);
    let target: TargetRef = serde_json::from_value(json!({"kind": "ConfigMap", "name": "flags"})).unwrap();
    let id = crate::mitigation::ObjectId::new(CONFIG_MAP, "flags");
    assert_eq!(
        force.summary(&target, &[Part::change(&id, changes)]),
        "set key flags.json flags.new-pricing.defaultVariant of ConfigMap/flags from \"on\" to \"off\", and \
         flags.new-pricing.targeting is emptied"
    );
}

/// Nothing makes a bare pod anew, whatever is asked for.
#[test]
fn what_no_restart_reaches_is_named_before_and_after_and_nothing_is_awaited_of_it() {
    let env = json!({"envFrom": [{"configMapRef": {"name": "flags"}}]});
    let mut bare = pod("bare", ("X", "x"), env.clone(), volume(), BEFORE);
    bare["metadata"]["ownerReferences"] = json!([]);
    let flag = FeatureFlag { restart_consumers: Some(true), ..off() };
    let alone = stage().with(bare.clone());
    let warnings = alone.ask(|scene| flag.warnings(scene)).unwrap();
    assert_eq!(warnings, ["Pod/bare is not restarted: nothing would make a pod without a controller anew"]);
    let words = |flag: &FeatureFlag, stage: &Stage| match stage.ask(|scene| flag.effect(scene)).unwrap() {
        Effect::Unclear { reason: "NeedsRestart", message } => message,
        other => panic!("{other:?}"),
    };
    let told = words(&flag, &alone);
    assert!(told.contains("Pod/bare") && !told.contains("or set restartConsumers"), "{told}");
    assert!(!words(&off(), &alone).contains("restartConsumers"), "it would not help");

    let mut with_web = alone.with(pod("p", ("StatefulSet", "web"), env.clone(), volume(), BEFORE)).with(
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "uid": "web"}}),
    );
    assert_eq!(with_web.ask(|scene| flag.warnings(scene)).unwrap(), warnings, "web is restarted");
    with_web.touched = vec![crate::mitigation::ObjectId::new(STATEFUL_SET, "web")];
    let told = words(&flag, &with_web);
    assert!(told.contains("; Pod/bare read it"), "{told}");
    assert!(told.ends_with("by hand; StatefulSet/web are still being restarted"), "{told}");
    assert!(words(&off(), &with_web).contains("or set restartConsumers"));
    let mut web = stage().with(pod("p", ("StatefulSet", "web"), env, volume(), BEFORE));
    web.touched = with_web.touched.clone();
    let effect = web.ask(|scene| flag.effect(scene)).unwrap();
    assert!(
        matches!(&effect, Effect::Awaited { seen, .. } if !seen.contains("restartConsumers")),
        "{effect:?}"
    );
}

#[test]
fn a_deployment_is_named_and_not_its_replicaset_where_the_names_tell_it() {
    let env = json!({"envFrom": [{"configMapRef": {"name": "flags"}}]});
    for (set, hash, named) in [
        ("web-5c8978c997", Some("5c8978c997"), "Deployment/web read"),
        ("web-5c8978c997", None, "ReplicaSet/web-5c8978c997 read"),
        ("adopted", Some("5c8978c997"), "ReplicaSet/adopted read"),
    ] {
        let mut pod = pod("p", ("ReplicaSet", set), env.clone(), volume(), BEFORE);
        if let Some(hash) = hash {
            pod["metadata"]["labels"] = json!({"pod-template-hash": hash});
        }
        let Effect::Unclear { message, .. } = stage().with(pod).ask(|scene| off().effect(scene)).unwrap()
        else {
            panic!("it must be restarted")
        };
        assert!(message.contains(named), "{message}");
    }
}
