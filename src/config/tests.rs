use super::*;
use k8s_openapi::jiff::Timestamp;

fn wrong(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const WHOLE: &str = r#"
severities:
  SEV1:
    internalUpdate: 10m
    publicUpdateFor: never
  SEV3:
    requiredRoles: [IncidentCommander, Scribe]
    postmortem: {required: true, days: 10}
  SEV2:
    postmortem: {required: false}
calendar:
  weekend: [Friday, Saturday]
  holidays: [2026-12-25]
  timeZone: Europe/Berlin
actionItems: {P0: 3, P3: 200, P1: never}
channels:
- name: incidents
  type: Slack
  audience: Internal
  minSeverity: SEV2
  namespaces: [shop]
  urlFile: /secrets/slack/url
- name: page
  type: Statuspage
  audience: Public
  tokenFile: /secrets/statuspage/token
  pageId: kctbh9vrtdwd
  components: {checkout: 8kbf7d35c070}
  timeout: 5s
  perMinute: 6
- name: bus
  type: Webhook
  audience: Internal
  url: http://10.1.2.3:8080/hook
  secretFile: /secrets/bus/secret
scalableKinds:
- {apiVersion: argoproj.io/v1alpha1, kind: Rollout, plural: rollouts}
outgoing:
  allowedNetworks: [10.1.0.0/16]
"#;

#[test]
fn a_file_without_words_and_no_file_are_the_playbook() {
    let settings = Settings::default();
    for text in ["", "\n", "# nothing\n---\n", "{}", "severities: {}\n", "severities: {SEV1: {}}"] {
        let read = read(text).unwrap();
        for severity in [None, Some(Severity::SEV1), Some(Severity::SEV2), Some(Severity::SEV5)] {
            assert_eq!(read.severity(severity), settings.severity(severity), "{text:?}");
        }
        assert_eq!(read.action_item_days(Priority::P1), Some(30));
    }
    let minutes = |m: u64| Some(Duration::from_secs(60 * m));
    let sev2 = settings.severity(Some(Severity::SEV2));
    assert_eq!(sev2.internal_update, minutes(15));
    assert_eq!(
        (sev2.public_first_post, sev2.public_scope, sev2.public_update),
        (minutes(5), minutes(5), minutes(20))
    );
    assert_eq!((sev2.public_update_for, sev2.executives_update), (minutes(120), minutes(30)));
    assert_eq!(sev2.document_refresh, minutes(240));
    assert_eq!(sev2.postmortem, Some(PostmortemDeadline::BusinessDays(5)));
    assert_eq!(settings.severity(Some(Severity::SEV1)).postmortem, Some(PostmortemDeadline::CalendarDays(3)));
    assert_eq!(settings.severity(None).internal_update, minutes(60));
}

#[test]
fn what_is_stated_counts_and_what_is_left_out_keeps_its_default() {
    let settings = read(WHOLE).unwrap();
    let sev1 = settings.severity(Some(Severity::SEV1));
    assert_eq!(sev1.internal_update, Some(Duration::from_secs(600)));
    assert_eq!((sev1.public_update_for, sev1.public_update), (None, Some(Duration::from_secs(1200))));
    assert_eq!(settings.severity(Some(Severity::SEV2)).postmortem, None);
    let sev3 = settings.severity(None);
    assert_eq!(sev3.required_roles, [Role::IncidentCommander, Role::Scribe]);
    assert_eq!(sev3.postmortem, Some(PostmortemDeadline::BusinessDays(10)));
    let days = [Priority::P0, Priority::P1, Priority::P2, Priority::P3].map(|p| settings.action_item_days(p));
    assert_eq!(days, [Some(3), None, Some(90), Some(200)]);
    // Berlin, where 23:30 UTC is the day after; Friday and Saturday are the weekend.
    let thursday = at("2026-11-18T23:30:00Z");
    assert_eq!(settings.calendar.date(thursday), "2026-11-19".parse().unwrap());
    assert_eq!(settings.calendar.after_business_days(thursday, 1), Some(at("2026-11-21T23:30:00Z")));
    let [slack, page, bus] = settings.channels.as_slice() else { panic!("{:?}", settings.channels) };
    assert!(slack.concerns("shop", Some(Severity::SEV1)) && slack.concerns("shop", Some(Severity::SEV2)));
    assert!(!slack.concerns("shop", None) && !slack.concerns("billing", Some(Severity::SEV1)));
    assert_eq!(
        (page.per_minute, page.timeout, slack.timeout),
        (6, Duration::from_secs(5), Duration::from_secs(10))
    );
    assert!(bus.concerns("anywhere", Some(Severity::SEV5)));
    let kind = &settings.scalable_kinds[0];
    assert_eq!(
        (kind.group.as_str(), kind.version.as_str(), kind.plural.as_str()),
        ("argoproj.io", "v1alpha1", "rollouts")
    );
}

#[test]
fn what_is_wrong_is_named_with_line_column_and_field() {
    let channel = |fields: &str| format!("channels:\n- name: a\n  audience: Internal\n{fields}");
    let table = [
        (
            "severities:\n  SEV1:\n    internalUpdates: 5m\n",
            "line 3, column 5: severities.SEV1.internalUpdates: unknown field",
        ),
        ("severitys: {}\n", "line 1, column 1: severitys: unknown field"),
        ("severities:\n  SEV6: {}\n", "line 2, column 3: severities.SEV6: unknown field"),
        (
            "severities:\n  SEV1: {internalUpdate: -5m}\n",
            "line 2, column 26: severities.SEV1.internalUpdate: \"-5m\" is no length of time",
        ),
        (
            "severities:\n  SEV1: {internalUpdate: 0s}\n",
            "line 2, column 26: severities.SEV1.internalUpdate: \"0s\" is no length",
        ),
        (
            "severities:\n  SEV1: {internalUpdate: 15}\n",
            "line 2, column 26: severities.SEV1.internalUpdate: \"15\" is no length",
        ),
        (
            "severities:\n  SEV1: {internalUpdate: 1m, internalUpdate: 2m}\n",
            "line 2, column 30: severities.SEV1: internalUpdate is there twice",
        ),
        ("severities: {}\nseverities: {}\n", "line 2, column 1: severities is there twice"),
        (
            "severities: {}\n---\nseverities: {}\n",
            "line 3, column 1: a second document begins here, and one is expected",
        ),
        (
            "severities: &a\n  SEV1: *a\n",
            "line 2, column 9: an alias stands inside of what it repeats: write out what is meant",
        ),
        (
            "severities:\n  SEV1: {postmortem: {required: \"yes\"}}\n",
            "severities.SEV1.postmortem.required: \"yes\" is text: write true or false, without quotes",
        ),
        (
            "severities:\n  SEV1: {postmortem: {required: 1}}\n",
            "severities.SEV1.postmortem.required: invalid type: integer `1`, expected true or false",
        ),
        (
            "severities:\n  SEV1: {requiredRoles: [Boss]}\n",
            "line 2, column 26: severities.SEV1.requiredRoles[0]: unknown variant `Boss`",
        ),
        (
            "severities:\n  SEV1: {postmortem: {required: true, days: 300}}\n",
            "severities.SEV1.postmortem.days: write a whole number from 0 to 255",
        ),
        (
            "calendar: {timeZone: Mars/Olympus}\n",
            "line 1, column 22: calendar.timeZone: \"Mars/Olympus\" is no time zone",
        ),
        ("calendar: {holidays: [2026-02-30]}\n", "line 1, column 23: calendar.holidays[0]: "),
        ("calendar: {weekend: [Caturday]}\n", "calendar.weekend[0]: unknown variant `Caturday`"),
        ("actionItems: {P0: 0}\n", "line 1, column 19: actionItems.P0: \"0\" is no number of days"),
        ("actionItems: {P0: -3}\n", "actionItems.P0: \"-3\" is no number of days"),
        ("channels: [{name: a}]\n", "channels[0]: missing field `type`"),
        (
            &channel("  type: Slack\n"),
            "line 2, column 3: channels[0].urlFile: a channel of type Slack needs it",
        ),
        (&channel("  type: Carrier\n"), "channels[0].type: unknown variant `Carrier`"),
        (&channel("  type: Slack\n  urlFile: url\n"), "channels[0].urlFile: \"url\" is no absolute path"),
        (
            &channel("  type: Slack\n  urlFile: /u\n  pageId: x\n"),
            "channels[0].pageId: a channel of type Slack has no such field",
        ),
        (
            &channel("  type: Statuspage\n  tokenFile: /t\n"),
            "channels[0].pageId: a channel of type Statuspage needs it",
        ),
        (
            "channels: [{name: a, type: Statuspage, audience: Internal, tokenFile: /t, pageId: p}]\n",
            "channels[0].audience: a channel of type Statuspage is read by the public: write Public",
        ),
        (
            &channel("  type: Webhook\n"),
            "channels[0].url: a channel of type Webhook has either url or urlFile",
        ),
        (&channel("  type: Webhook\n  url: https://a\n  urlFile: /u\n"), "has either url or urlFile"),
        (&channel("  type: Webhook\n  url: ftp://a/b\n"), "channels[0].url: it does not begin with https://"),
        (
            &channel("  type: Webhook\n  url: http://example.com/\n"),
            "channels[0].url: it begins with http://",
        ),
        (
            &channel("  type: Webhook\n  url: https://169.254.169.254/latest\n"),
            "channels[0].url: its address is link-local",
        ),
        (
            &channel("  type: Webhook\n  url: https://localhost./\n"),
            "channels[0].url: its address is loopback",
        ),
        (&channel("  type: Webhook\n  url: https://127.1/\n"), "channels[0].url: its address is loopback"),
        (
            &channel("  type: Webhook\n  url: https://2130706433/\n"),
            "channels[0].url: its address is loopback",
        ),
        (
            &channel("  type: Webhook\n  url: https://0x0a.1.2.3/\n"),
            "channels[0].url: its address is private",
        ),
        (
            &channel("  type: Webhook\n  url: https://[::ffff:127.0.0.1]/\n"),
            "channels[0].url: its address is loopback",
        ),
        (
            &channel("  type: Webhook\n  url: https://me:word@example.com/\n"),
            "channels[0].url: it holds a user name",
        ),
        (
            &channel("  type: Slack\n  urlFile: /u\n  timeout: 10m\n"),
            "channels[0].timeout: write at most 30s",
        ),
        (
            &channel(
                "  type: Slack\n  urlFile: /u\n- name: a\n  audience: Public\n  type: Slack\n  urlFile: /u\n",
            ),
            "line 6, column 3: channels[1].name: \"a\" is there twice",
        ),
        (
            "channels: [{name: A_b, type: Slack, audience: Public, urlFile: /u}]\n",
            "channels[0].name: \"A_b\"",
        ),
        (
            "scalableKinds: [{apiVersion: a/b/c, kind: Rollout, plural: rollouts}]\n",
            "scalableKinds[0].apiVersion: \"a/b/c\" is not group/version",
        ),
        ("scalableKinds: [{apiVersion: a/b, kind: rollout, plural: rollouts}]\n", "scalableKinds[0].kind: "),
        (
            "scalableKinds: [{apiVersion: apps/v1, kind: Deployment, plural: deployments}]\n",
            "scalableKinds[0].kind: Deployment is scaled anyway",
        ),
        (
            "scalableKinds: [{apiVersion: a/b, kind: C, plural: cs, replicasPath: .status.n}]\n",
            "scalableKinds[0].kind: .status.n is no path below .spec",
        ),
        ("outgoing: {allowedNetworks: [10.0.0.0/99]}\n", "line 1, column 30: outgoing.allowedNetworks[0]: "),
        ("outgoing: {caFile: ca.pem}\n", "outgoing.caFile: "),
        ("a: [\n", "line 1, column 4: unclosed bracket '['"),
        ("severities: 3\n", "severities: fields are expected here, each as name: value"),
        ("channels: 3\n", "channels: a list is expected here"),
        ("--- {}\n--- {}\n", "line "),
        ("- a\n", "line 1, column 1"),
        ("text\n", "line 1, column 1"),
    ];
    for (text, expected) in table {
        let said = wrong(text);
        assert!(said.contains(expected), "{text}\n  said: {said}\n  not:  {expected}");
        assert!(
            said.starts_with("line ") || expected.starts_with("outgoing.caFile"),
            "{text}\n  said: {said}"
        );
    }
}

#[test]
fn no_secret_is_in_what_is_said_of_a_wrong_address() {
    let said = wrong(
        "channels: [{name: a, type: Webhook, audience: Public, url: \"https://me:hunter2@example.com/T0/B0/secret\"}]\n",
    );
    assert!(!said.contains("hunter2") && !said.contains("T0"), "{said}");
}

#[test]
fn what_the_charts_schema_refuses_is_refused_by_the_program_too() {
    let networks: Vec<_> = (0..65).map(|n| format!("10.{n}.0.0/16")).collect();
    let namespaces: Vec<_> = (0..257).map(|n| format!("n{n}")).collect();
    let channel = "{name: a, type: Slack, audience: Internal, urlFile: /u, namespaces: [";
    for (text, says) in [
        (
            "severities: {SEV1: {postmortem: {required: true, days: 0}}}".to_owned(),
            "severities.SEV1.postmortem.days: write a number of days from 1 to 255",
        ),
        (
            format!("outgoing: {{allowedNetworks: [{}]}}", networks.join(", ")),
            "outgoing.allowedNetworks: there are 65, and at most 64 are taken",
        ),
        (
            format!("channels: [{channel}{}]}}]", namespaces.join(", ")),
            "channels[0].namespaces: there are 257, and at most 256 are taken",
        ),
    ] {
        assert_eq!(wrong(&text), says);
    }
}
