//! What is kept and what is not, by tables of texts as they are found in logs, Events and manifests.

use super::*;
use crate::mitigation::patch::tests::object;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;

/// Each with what it becomes.
const SECRETS: &[(&str, &str)] = &[
    // Names and values.
    ("db_password=hunter22 user=x", "db_password=[REDACTED] user=x"),
    ("DB_PASS=hunter2 MODE=fast", "DB_PASS=[REDACTED] MODE=fast"),
    ("DB_PASS=123456", "DB_PASS=[REDACTED]"),
    ("login with password=abc", "login with password=[REDACTED]"),
    ("login with password=hun,ter2 user=x", "login with password=[REDACTED] user=x"),
    ("password => hunter2", "password => [REDACTED]"),
    ("'password' => 'it''s', 'user' => 'x'", "'password' => '[REDACTED]', 'user' => 'x'"),
    ("encryption_key=0123abcd", "encryption_key=[REDACTED]"),
    ("using signing-key: 0123abcd now", "using signing-key: [REDACTED] now"),
    ("API key: 0123abcd", "API key: [REDACTED]"),
    ("clientSecret=abc dbPassword2=abc", "clientSecret=[REDACTED] dbPassword2=[REDACTED]"),
    ("Server=db;Pwd=abc;User=x", "Server=db;Pwd=[REDACTED];User=x"),
    ("GET /x?token=abc&page=2", "GET /x?token=[REDACTED]&page=2"),
    ("map[password:hunter2 user:x]", "map[password:[REDACTED] user:x]"),
    ("<password>hunter2</password>", "<password>[REDACTED]</password>"),
    // Several words.
    ("INFO passphrase: correct horse battery", "INFO passphrase: [REDACTED]"),
    ("spring.datasource.password=correct horse", "spring.datasource.password=[REDACTED]"),
    ("2026-11-23T10:00:00Z   password: correct horse", "2026-11-23T10:00:00Z   password: [REDACTED]"),
    ("password: |\n  correct\n  horse\nuser: x", "password: |\n  [REDACTED]\nuser: x"),
    // JSON, and JSON inside JSON.
    (r#"{"apiKey":"0123456789","n":1}"#, r#"{"apiKey":"[REDACTED]","n":1}"#),
    (r#"{"pass": "hunter2"}"#, r#"{"pass": "[REDACTED]"}"#),
    (r#"{"password":"a\"b, c","n":1}"#, r#"{"password":"[REDACTED]","n":1}"#),
    (r#"{"password":12345,"n":1}"#, r#"{"password":[REDACTED],"n":1}"#),
    (r#"{"password":"[REDACTED] with spaces hunter2tail"}"#, r#"{"password":"[REDACTED]"}"#),
    (r#"{"msg":"{\"password\":\"hunter2\"}","n":1}"#, r#"{"msg":"{\"password\":\"[REDACTED]\"}","n":1}"#),
    (r#"{"m":"{\"password\":\"a\\\"b\"}","n":1}"#, r#"{"m":"{\"password\":\"[REDACTED]\"}","n":1}"#),
    (r#"msg="login password=\"a b\"" user=bob"#, r#"msg="login password=\"[REDACTED]\"" user=bob"#),
    (
        r#"{"name":"DB_PASSWORD","value":"hunter2"},{"name":"MODE","value":"fast"}"#,
        r#"{"name":"DB_PASSWORD","value":"[REDACTED]"},{"name":"MODE","value":"fast"}"#,
    ),
    // Arguments.
    ("run --password hunter2 --verbose", "run --password [REDACTED] --verbose"),
    ("run --password=hunter2 --verbose", "run --password=[REDACTED] --verbose"),
    (r#"["--db-password","hunter2","--verbose"]"#, r#"["--db-password","[REDACTED]","--verbose"]"#),
    // Headers.
    ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [REDACTED]"),
    ("Authorization: Token abcdefgh", "Authorization: Token [REDACTED]"),
    ("Authorization: abcdefgh", "Authorization: [REDACTED]"),
    (r#"{"authorization":"Basic YTpi","n":1}"#, r#"{"authorization":"Basic [REDACTED]","n":1}"#),
    (r#"Authorization: Digest u="b", response="0a""#, "Authorization: Digest [REDACTED]"),
    ("map[Authorization:[Bearer abc] Accept:[*/*]]", "map[Authorization:[[REDACTED]] Accept:[*/*]]"),
    ("Set-Cookie: session=abc; Path=/; HttpOnly", "Set-Cookie: [REDACTED]"),
    ("curl -H 'Cookie: a=b; c=d' https://x", "curl -H 'Cookie: [REDACTED]' https://x"),
    // Tokens by how they begin, and passwords of URLs.
    ("id AKIAABCDEFGHIJKLMNOP end", "id [REDACTED] end"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc end", "jwt [REDACTED] end"),
    ("with github_pat_11ABCDEFG0123456789abcdef.", "with [REDACTED]."),
    ("with glpat-abcdefghij0123456789", "with [REDACTED]"),
    ("with AIzaSyA0123456789abcdefghijklmnopqrstuv", "with [REDACTED]"),
    ("with sk_live_0123456789abcdef", "with [REDACTED]"),
    ("postgres://app:s3cr3t@db:5432/x", "postgres://app:[REDACTED]@db:5432/x"),
    ("postgres://app:a/b@db", "postgres://app:[REDACTED]@db"),
    ("postgres://app:a@b@db/x?mail=a@b", "postgres://app:[REDACTED]@db/x?mail=a@b"),
];

#[test]
fn what_looks_like_a_secret_is_replaced_and_the_rest_stays() {
    for (text, wanted) in SECRETS {
        assert_eq!(redact(text), *wanted, "{text}");
        assert_eq!(redact(wanted), *wanted, "what was redacted once stays as it is");
    }
}

#[test]
fn ordinary_lines_stay_as_they_are() {
    for text in [
        "결제 실패: timeout after 30s",
        "2026-11-23T10:00:00Z INFO GET /checkout 500 12ms trace=4bf92f3577b34da6a3ce929d0e0e4736",
        "token bucket is full",
        "failed to get token: context deadline exceeded",
        "invalid credentials: user not found",
        "open /var/run/secrets/kubernetes.io/serviceaccount/token: no such file or directory",
        "open /run/secrets/db_password: permission denied",
        r#"MountVolume.SetUp failed for volume "kube-api-access": secret "web-tls" not found"#,
        r#"secrets "foo" is forbidden: User "x" cannot get resource "secrets""#,
        "token is malformed: token contains an invalid number of segments",
        "max_tokens=4096 tokens: 512 token_type=bearer token_count=7",
        "cache_key=user:42 partition-key: orders primary_key: id",
        r#"queue.go:12] "sync failed" key="default/web" err="conflict""#,
        r#"duplicate key value violates unique constraint "users_pkey""#,
        "user authenticated with password",
        "author: bob, monkey=george, keyboard: de, compass=north, bypass=on",
        "passed: 12, failed: 0",
        r#"{"usePassword":false,"token":null,"secret":""}"#,
        "password=$(DB_PASSWORD) token=${TOKEN}",
        "--token is required: use --password to set one, or --password-file",
        "authorization: user bob may not read orders",
        "kube-apiserver --authorization-mode=Node,RBAC",
        "cookie consent: true, cookie: not sent",
        "GET http://web:8080/users/bob@example.com 200",
        "sk-is-no-token ghost_writer task-12 Token::new",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "secretKeyRef:\n  key: k\n  name: sec",
        "secretName: web-tls\nautomountServiceAccountToken: false\nserviceAccountToken:\n  path: token",
        "topologyKey: kubernetes.io/hostname\nimagePullSecrets:\n- name: registry",
        "passwordSecretRef:\n  name: x",
    ] {
        assert_eq!(redact(text), text);
    }
}

/// 50 lines as of a key of 3072 bits, each with what a kubelet or a program writes before it.
fn key(before: &str) -> Vec<String> {
    let body = (0..50).map(|n| format!("{before}{}{n:02}", "MIIEvQ+/".repeat(7)));
    let begin = format!("{before}-----BEGIN RSA PRIVATE KEY-----");
    [begin].into_iter().chain(body).chain([format!("{before}-----END RSA PRIVATE KEY-----")]).collect()
}

#[test]
fn a_private_key_goes_whole_or_cut_and_what_is_around_it_stays() {
    assert_eq!(
        redact("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b"),
        "a [REDACTED] b"
    );
    let one_line = r#"{"key":"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n","n":1}"#;
    assert_eq!(redact(one_line), r#"{"key":"[REDACTED]\n","n":1}"#);
    for before in ["", "2026-11-23T10:00:00.123456789Z ", "2026-11-23T10:00:00Z INFO "] {
        let lines = key(before);
        for part in [&lines[..], &lines[11..], &lines[..20]] {
            let text = format!("{before}it began\n{}\n{before}it went on\n", part.join("\n"));
            let kept = redact(&text);
            assert!(!kept.contains("MIIE"), "{kept}");
            assert!(kept.contains("it began") && kept.contains("it went on"), "{kept}");
        }
    }
}

#[test]
fn a_line_that_looks_like_the_end_of_a_key_hides_no_other_lines() {
    let log = "GET /orders 500 in 12 ms\n".repeat(100);
    assert_eq!(redact(&format!("{log}-----END PRIVATE KEY-----\n")), format!("{log}[REDACTED]\n"));
    let kept = redact(&format!("-----BEGIN PRIVATE KEY-----\n{log}"));
    assert_eq!(kept, format!("[REDACTED]\n{log}"));
}

/// With time that grows with the square of the length, each of these takes hours and not milliseconds.
#[test]
fn whatever_is_in_a_long_text_it_is_looked_at_once() {
    for part in [
        "password",
        "password ",
        "password=\"",
        "password=\\\"",
        "token: abc ",
        "--token ",
        "authorization: a ",
        "cookie: a=\"",
        "api_key=[",
        "://u:",
        "a://u:x@",
        "-eyJaaaaaaaa",
        "hvs.",
        "-",
        "\\",
        "/a",
        "-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----",
        "password: |\n",
    ] {
        let text = part.repeat(2 * MAX_ITEM / part.len());
        assert!(redact(&text).len() <= 2 * text.len());
    }
}

proptest! {
    #[test]
    fn no_text_is_too_odd_to_be_kept(
        parts in vec(select(vec![
            "password", "token", "authorization", "Basic", "cookie", "api_key", "name", "value", "hunter2", "=", ":", "://",
            "=>", "@", "/", ",", " ", "\t", "\n", "\"", "'", "\\", "[", "]", "{", "<", ">", "--", "$(", ")", "|", "AKIA",
            "ABCDEFGHIJ123456", "eyJaaaaaaaa.", "hvs.", "2026-11-23T10:00:00Z ", "결", "é", "PRIVATE KEY",
            "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----",
        ]), 0..24)
    ) {
        let text = parts.concat();
        prop_assert_eq!(redact(&text).lines().count() <= text.lines().count() + parts.len(), true);
        let mut bundle = Bundle::default();
        bundle.add_object("it", json!({"annotations": {"a": text}}));
        let kept = serde_saphyr::from_str::<Value>(&bundle.into_data()["it"]);
        prop_assert!(kept.is_ok(), "{kept:?}");
    }
}

#[test]
fn a_manifest_is_yaml_still_and_names_its_secrets_without_their_values() {
    let pod = json!({
        "automountServiceAccountToken": false,
        "imagePullSecrets": [{"name": "registry"}],
        "containers": [{
            "name": "main",
            "args": ["--db-password", "hunter2", "--token=hunter2", "--verbose"],
            "command": ["sh", "-c", "mysql --password hunter2"],
            "env": [
                {"name": "DB_PASSWORD", "value": "hunter2"},
                {"name": "MODE", "value": "fast"},
                {"name": "URL", "value": "postgres://app:hunter2@db"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
            ],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80, "httpHeaders": [
                {"name": "Cookie", "value": "a=hunter2"}]}},
        }],
        "affinity": {"podAntiAffinity": {"topologyKey": "kubernetes.io/hostname"}},
        "volumes": [
            {"name": "tls", "secret": {"secretName": "web-tls"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]}},
        ],
    });
    let kept_as = |mut object: Value| {
        object["metadata"]["managedFields"] = json!([{"manager": "m"}]);
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!("{}");
        let mut bundle = Bundle::default();
        bundle.add_object("it", manifest(&crate::mitigation::patch::tests::object(object)));
        let text = bundle.into_data()["it"].clone();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("managedFields") && !text.contains("last-applied"), "{text}");
        serde_saphyr::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    let kept = kept_as(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"example.com/api-key": "hunter2", "note": "password=hunter2"}},
        "spec": {"template": {"spec": pod}}}));
    let mut wanted = pod;
    let main = &mut wanted["containers"][0];
    main["args"] = json!(["--db-password", "[REDACTED]", "--token=[REDACTED]", "--verbose"]);
    main["command"][2] = json!("mysql --password [REDACTED]");
    main["env"][0]["value"] = json!("[REDACTED]");
    main["env"][2]["value"] = json!("postgres://app:[REDACTED]@db");
    main["livenessProbe"]["httpGet"]["httpHeaders"][0]["value"] = json!("[REDACTED]");
    assert_eq!(kept["spec"]["template"]["spec"], wanted);
    let config = kept_as(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"},
        "data": {"DB_PASS": "hunter2", "pin_password": "1", "app.yaml": "db:\n  password: hunter2\n  host: db\n"}}));
    assert_eq!(
        config["data"],
        json!({"DB_PASS": "[REDACTED]", "pin_password": "[REDACTED]",
            "app.yaml": "db:\n  password: [REDACTED]\n  host: db\n"})
    );
    let resource = object(json!({"apiVersion": "example.com/v1", "kind": "Db", "metadata": {"name": "db"},
        "spec": {"password": 1234, "tokens": 3, "credentials": ["a", {"name": "b"}]}}));
    let mut value = manifest(&resource);
    manifest::hide(&mut value);
    assert_eq!(
        value["spec"],
        json!({"password": "[REDACTED]", "tokens": 3, "credentials": ["[REDACTED]", {"name": "b"}]})
    );
}

#[test]
fn of_an_object_that_is_too_large_texts_are_cut_and_it_is_told() {
    let mut bundle = Bundle::default();
    let large = "방".repeat(MAX_ITEM);
    bundle.add_object("it", json!({"kind": "ConfigMap", "data": {"large": large, "small": "x"}}));
    assert!(bundle.missing()[0].contains("too large: texts"), "{:?}", bundle.missing());
    let kept: Value = serde_saphyr::from_str(&bundle.into_data()["it"]).expect("it is YAML still");
    assert_eq!(kept["data"]["small"], "x");
    assert!(kept["data"]["large"].as_str().is_some_and(|text| text.ends_with("방[CUT]")));
}

#[test]
fn a_text_that_is_cut_begins_with_a_whole_line() {
    assert_eq!(newest_lines("a\nbc\nd\n", 7), "a\nbc\nd\n");
    assert_eq!(newest_lines("a\nbc\nd\n", 5), "bc\nd\n", "it was cut between two lines");
    assert_eq!(newest_lines("a\nbc\nd\n", 4), "d\n", "half a line may be half a secret");
    assert_eq!(newest_lines("결결 결\n", 6), "결\n", "one long line is cut between words");
    assert_eq!(newest_lines("abcdef", 3), "def");
}

#[test]
fn a_bundle_keeps_the_end_of_logs_has_a_limit_and_says_what_is_missing() {
    let mut bundle = Bundle::default();
    bundle.add("a/log", &format!("{}끝", "x".repeat(MAX_ITEM)));
    // What stands for a secret is longer than it.
    bundle.add("secrets", &"pwd=a\n".repeat(MAX_ITEM / 6));
    for n in 0..20 {
        bundle.add(&format!("{n}"), &"y".repeat(MAX_ITEM));
    }
    assert!(bundle.items.values().all(|item| item.len() <= MAX_ITEM));
    assert!(bundle.bytes <= MAX_BUNDLE);
    let missing = bundle.missing().to_vec();
    assert!(missing.iter().all(|m| m.contains("no room")), "{missing:?}");
    let data = bundle.into_data();
    assert!(data["a_log"].ends_with('끝') && data["a_log"].len() <= MAX_ITEM);
    assert!(data["MISSING.txt"].contains("no room"));
    assert_eq!(sha256(&data), sha256(&data.clone().into_iter().rev().collect()));
}
