//! What the API takes and refuses of a Mitigation, asked of the real API server.

use super::mitigation::{flag, mitigation_of, scale, with};
use super::support::TestNamespace;
use super::support::schema::{accepts, accepts_change, rejects, rejects_change};
use super::support::workload::{incident, mitigation};
use serde_json::{Value, json};

fn stop() -> Value {
    scale("stop", "Deployment", "importer", 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_a_target_and_one_action_are_what_a_mitigation_needs() {
    accepts(stop()).await;
    let target = json!({"kind": "Deployment", "name": "importer"});
    for (spec, part) in [
        (json!({"targetRef": target, "scale": {"replicas": 0}}), "spec.reason"),
        (json!({"reason": "", "targetRef": target, "scale": {"replicas": 0}}), "spec.reason"),
        (json!({"reason": "x", "scale": {"replicas": 0}}), "spec.targetRef"),
        (
            json!({"reason": "x", "targetRef": {"kind": "Deployment"}, "scale": {"replicas": 0}}),
            "targetRef.name",
        ),
        (json!({"reason": "x", "targetRef": {"name": "a"}, "scale": {"replicas": 0}}), "targetRef.kind"),
        (json!({"reason": "x", "targetRef": target, "scale": {}}), "spec.scale.replicas"),
    ] {
        rejects(mitigation("a", spec), part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_action_is_asked_for() {
    let none = mitigation_of("a", "Deployment", "web", json!({}));
    rejects(none, "exactly one action must be set: one of scale, featureFlag").await;
    let two = with(stop(), json!({"pauseRollout": {}}));
    rejects(two, "exactly one action must be set").await;
    let unknown = mitigation_of("a", "Deployment", "web", json!({"explode": {}}));
    rejects(unknown, "spec.explode").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_replicas_is_neither_negative_nor_huge_nor_a_word() {
    for (replicas, part) in [
        (json!(-1), "should be greater than or equal to 0"),
        (json!(10_001), "should be less than or equal to 10000"),
        (json!(99_999_999_999_i64), "spec.scale.replicas"),
        (json!("none"), "must be of type integer"),
        (json!(1.5), "spec.scale.replicas"),
    ] {
        rejects(with(stop(), json!({"scale": {"replicas": replicas}})), part).await;
    }
    accepts(with(stop(), json!({"scale": {"replicas": 10_000}}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_the_action_does_not_work_on_is_refused_with_those_that_it_does() {
    for (kind, action, part) in [
        ("Deployment", json!({"featureFlag": {"key": "a", "value": "b"}}), "featureFlag works on ConfigMap"),
        ("ConfigMap", json!({"rollback": {}}), "rollback works on Deployment, StatefulSet, DaemonSet"),
        ("CronJob", json!({"pauseRollout": {}}), "pauseRollout works on Deployment"),
        ("Deployment", json!({"suspend": {}}), "suspend works on CronJob, Job"),
        ("Deployment", json!({"freeze": {}}), "freeze works on Namespace"),
        (
            "Deployment",
            json!({"rateLimit": {"requests": 1, "per": "Second"}}),
            "rateLimit works on HTTPRoute",
        ),
        ("Secret", json!({"blockWrites": {"level": "Quota"}}), "blockWrites works on ConfigMap, HTTPRoute"),
        ("Deployment", json!({"blockWrites": {"level": "Quota"}}), "level Quota works on a Namespace"),
        ("HTTPRoute", json!({"blockWrites": {"level": "Network"}}), "level Network works on a Deployment"),
        ("Namespace", json!({"blockWrites": {"level": "Routes"}}), "level Routes works on an HTTPRoute"),
        ("ConfigMap", json!({"blockWrites": {"level": "Flag"}}), "state the flag in blockWrites.flag"),
        (
            "HTTPRoute",
            json!({"blockWrites": {"level": "Routes", "flag": {"key": "read-only", "value": "on"}}}),
            "blockWrites.flag is for level Flag",
        ),
        (
            "HTTPRoute",
            json!({"blockWrites": {"level": "Routes", "resources": ["jobs.batch"]}}),
            "blockWrites.resources is for level Quota",
        ),
        (
            "Namespace",
            json!({"blockWrites": {"level": "Quota", "methods": ["POST"]}}),
            "blockWrites.methods is for level Routes",
        ),
        (
            "Namespace",
            json!({"blockWrites": {"level": "Quota", "readReplicaLabels": {"role": "replica"}}}),
            "blockWrites.readReplicaLabels is for level Network",
        ),
        ("deployment", json!({"scale": {"replicas": 0}}), "spec.targetRef.kind"),
    ] {
        rejects(mitigation_of("a", kind, "x", action), part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_flag_is_one_that_a_config_map_can_have() {
    for key in ["", "a b", "a/b", "schlüssel", &"k".repeat(254)] {
        rejects(flag("a", "flags", key, "x"), "spec.featureFlag.key").await;
    }
    accepts(flag("a", "flags", "new-pricing_v2.JSON", "x")).await;
    rejects(flag("a", "flags", "key", &"x".repeat(4097)), "spec.featureFlag.value").await;
    accepts(flag("a", "flags", "key", "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn target_and_action_cannot_be_changed_and_a_release_is_for_good() {
    let namespace = TestNamespace::new("immutable").await;
    for (change, part) in [
        (json!({"spec": {"targetRef": {"name": "other"}}}), "targetRef cannot be changed"),
        (json!({"spec": {"scale": {"replicas": 1}}}), "scale cannot be changed"),
        (json!({"spec": {"scale": null, "pauseRollout": {}}}), "cannot be changed"),
        (json!({"spec": {"pauseRollout": {}}}), "exactly one action must be set"),
    ] {
        rejects_change(&namespace, stop(), change, part).await;
    }
    for change in [
        json!({"spec": {"reason": "another reason"}}),
        json!({"spec": {"expiresAfter": "2h", "onExpire": "Release"}}),
        json!({"spec": {"desiredState": "Released"}}),
    ] {
        accepts_change(&namespace, stop(), change).await;
    }
    let released = with(scale("released", "Deployment", "importer", 0), json!({"desiredState": "Released"}));
    for desired in [json!("Active"), Value::Null] {
        let change = json!({"spec": {"desiredState": desired}});
        rejects_change(&namespace, released.clone(), change, "a released mitigation stays released").await;
    }
    let flags = flag("flag", "flags", "mode", "slow");
    let change = json!({"spec": {"featureFlag": {"value": "fast"}}});
    rejects_change(&namespace, flags, change, "featureFlag cannot be changed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_may_be_in_any_script_and_has_an_end() {
    for reason in [
        "결제 오류율 급증",
        "支付失败率上升",
        "ارتفاع معدل الأخطاء",
        "checkout 🔥🔥",
        "e\u{301}tat",
        "tab\tand\nline",
    ] {
        let stored = accepts(with(stop(), json!({"reason": reason}))).await;
        assert_eq!(stored.data["spec"]["reason"], reason);
    }
    // Characters count, not bytes.
    accepts(with(stop(), json!({"reason": "결".repeat(1024)}))).await;
    rejects(with(stop(), json!({"reason": "결".repeat(1025)})), "spec.reason").await;
    rejects(with(stop(), json!({"reason": "   "})), "reason is blank: say it in words").await;
    for reason in ["a\u{0}", "a\u{1b}[31m", "a\u{9b}31m", "a\u{2066}b"] {
        let said = "reason has characters that control a terminal or turn the direction of text";
        rejects(with(stop(), json!({"reason": reason})), said).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_go_up_to_253_characters() {
    accepts(scale(&"a".repeat(253), "Deployment", &"b".repeat(253), 0)).await;
    rejects(scale(&"a".repeat(254), "Deployment", "b", 0), "metadata.name").await;
    rejects(scale("a", "Deployment", &"b".repeat(254), 0), "spec.targetRef.name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn durations_are_gos_and_choices_are_the_listed_ones() {
    for duration in ["15m", "1h30m", "90s", "500ms"] {
        accepts(with(stop(), json!({"expiresAfter": duration, "verification": {"timeout": duration}}))).await;
    }
    for duration in ["2d", "15", "-5m", "PT15M", "", "1.5h"] {
        rejects(with(stop(), json!({"expiresAfter": duration})), "spec.expiresAfter").await;
    }
    rejects(with(stop(), json!({"onExpire": "Release"})), "onExpire: Release needs a time").await;
    accepts(with(stop(), json!({"onExpire": "Release", "expiresAfter": "1h"}))).await;
    accepts(with(stop(), json!({"onExpire": "Notify"}))).await;
    for (field, value) in [
        ("desiredState", "Off"),
        ("onExpire", "Delete"),
        ("releaseOn", "Never"),
        ("onRelease", "restore"),
        ("evidence", "Maybe"),
        ("gitops", "Fight"),
    ] {
        rejects(with(stop(), json!({field: value})), &format!("spec.{field}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_ten_actions_are_in_the_schema() {
    for (kind, action) in [
        ("StatefulSet", json!({"scale": {"replicas": 3, "restoreStepPercent": 25}})),
        ("ConfigMap", json!({"featureFlag": {"key": "f", "path": "flags.x.state", "mode": "Disable"}})),
        ("Deployment", json!({"rollback": {"to": "Revision", "revision": 4}})),
        ("DaemonSet", json!({"pauseRollout": {}})),
        ("CronJob", json!({"suspend": {"missed": "Skip", "runningJobs": "Keep"}})),
        ("Namespace", json!({"freeze": {}})),
        ("HTTPRoute", json!({"blockWrites": {"level": "Routes", "methods": ["POST"]}})),
        ("Namespace", json!({"blockWrites": {"level": "Quota"}})),
        (
            "StatefulSet",
            json!({"blockWrites": {"level": "Network", "readReplicaLabels": {"role": "replica"}}}),
        ),
        ("ConfigMap", json!({"blockWrites": {"level": "Flag", "flag": {"key": "read-only", "value": "on"}}})),
        ("Ingress", json!({"rateLimit": {"requests": 5, "per": "Second", "adapter": "IngressNginx"}})),
        ("Pod", json!({"isolate": {"method": "StripLabels"}})),
        ("Deployment", json!({"manual": {"instructions": "fail over by hand"}})),
    ] {
        // The only Namespace that may be named is the mitigation's own.
        let name = if kind == "Namespace" { "default" } else { "x" };
        accepts(mitigation_of("a", kind, name, action)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_field_is_refused_by_name() {
    rejects(with(stop(), json!({"expireAfter": "1h"})), "spec.expireAfter").await;
    rejects(with(stop(), json!({"scale": {"replicas": 0, "replica": 1}})), "spec.scale.replica").await;
    rejects(
        with(stop(), json!({"targetRef": {"kind": "Deployment", "name": "a", "namespace": "b"}})),
        "targetRef.namespace",
    )
    .await;
}

/// A change that is in force would stay so, and whoever set dryRun would take it for undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_may_be_carried_out_and_what_was_asked_for_becomes_no_plan() {
    let namespace = TestNamespace::new("nodry").await;
    let plan = with(scale("plan", "Deployment", "importer", 0), json!({"dryRun": true}));
    for change in [json!({"spec": {"dryRun": null}}), json!({"spec": {"dryRun": false}})] {
        accepts_change(&namespace, plan.clone(), change).await;
    }
    accepts_change(&namespace, plan, json!({"spec": {"reason": "still a plan"}})).await;
    let words = "to undo what was done set desiredState: Released";
    for (name, dry) in [("absent", Value::Null), ("false", json!(false))] {
        let asked = with(scale(name, "Deployment", "importer", 0), json!({"dryRun": dry}));
        rejects_change(&namespace, asked.clone(), json!({"spec": {"dryRun": true}}), words).await;
        accepts_change(&namespace, asked, json!({"spec": {"dryRun": false}})).await;
    }
    let entry = |dry: Value| {
        json!([{"name": "stop", "reason": "x", "targetRef": {"kind": "Deployment", "name": "importer"},
            "scale": {"replicas": 0}, "dryRun": dry}])
    };
    let outage =
        |name: &str, dry: bool| incident(name, json!({"title": "t", "mitigations": entry(json!(dry))}));
    let change = |dry: Value| json!({"spec": {"mitigations": entry(dry)}});
    rejects_change(&namespace, outage("done", false), change(json!(true)), words).await;
    accepts_change(&namespace, outage("planned", true), change(Value::Null)).await;
}
