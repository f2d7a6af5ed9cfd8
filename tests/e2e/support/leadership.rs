//! Several replicas, and the oracle that at most one of them wrote at every moment.

use super::audit::{self, Mark, Request};
use super::namespace::TestNamespace;
use super::operator::{Operator, Options};
use super::poll::wait_for;
use super::record::{incident_says, incident_when, told};
use super::workload::{configmap, incident};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// The times of an election, and how long a leader is stopped: the real ones take minutes, so `make test` has
/// shorter ones, which the flags of the operator set.
pub struct Pace {
    /// How long a lease is good for.
    pub lease: Duration,
    /// How long a leader is stopped.
    pub stop: Duration,
    /// Arguments of `run`.
    pub args: Vec<String>,
}

/// True in `make test-trouble`, which takes its time.
pub fn in_full() -> bool {
    std::env::var("TROUBLE").is_ok_and(|value| value == "full")
}

impl Pace {
    /// The pace of this run.
    pub fn get() -> Pace {
        if in_full() {
            let (lease, stop) = (Duration::from_secs(15), Duration::from_secs(60));
            return Pace { lease, stop, args: Vec::new() };
        }
        let args = ["--lease-duration=6s", "--renew-deadline=4s", "--retry-period=1s"];
        let (lease, stop) = (Duration::from_secs(6), Duration::from_secs(15));
        Pace { lease, stop, args: args.map(str::to_owned).to_vec() }
    }

    /// Options of one replica.
    pub fn options(&self) -> Options {
        Options { args: self.args.clone(), ..Options::default() }
    }
}

/// Who holds the lease; empty when nobody does.
pub async fn holder(namespace: &TestNamespace) -> String {
    let lease = namespace.api::<Lease>().get_opt("incident-operator").await.expect("it answers");
    lease.and_then(|l| l.spec).and_then(|s| s.holder_identity).unwrap_or_default()
}

/// Waits until one of the replicas leads that is wanted, and returns its place and how long that took.
pub async fn leader_among(
    namespace: &TestNamespace,
    replicas: &[Operator],
    limit: Duration,
    wanted: impl Fn(usize) -> bool,
) -> (usize, Duration) {
    let start = Instant::now();
    let found = wait_for(limit, "leader", async || {
        let now = holder(namespace).await;
        let place = replicas.iter().position(|r| r.identity == now).filter(|place| wanted(*place));
        place.ok_or(format!("{now:?} leads"))
    })
    .await;
    (found, start.elapsed())
}

/// Incidents with a mitigation each, declared one after the other until it is stopped.
pub struct Load {
    prefix: String,
    stop: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Load {
    /// Begins to declare.
    pub async fn start(namespace: &TestNamespace) -> Load {
        Load::start_as(namespace, "i").await
    }

    /// Begins to declare, under names that begin so.
    pub async fn start_as(namespace: &TestNamespace, prefix: &str) -> Load {
        let prefix = prefix.to_owned();
        let names = prefix.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, cluster, name) = (stop.clone(), namespace.cluster.clone(), namespace.name.clone());
        let task = tokio::spawn(async move {
            let create = async |object: serde_json::Value| {
                let api = cluster.api_of(&object, &name);
                let object = serde_json::from_value(object).expect("well formed");
                // The API server may be in trouble at the moment: the person asks again.
                while let Err(error) = api.create(&Default::default(), &object).await {
                    if matches!(&error, kube::Error::Api(status) if status.code == 409) {
                        return;
                    }
                    // An API server that has just begun may know no roles and no kinds yet.
                    let final_ =
                        matches!(&error, kube::Error::Api(s) if s.code < 429 && !matches!(s.code, 403 | 404));
                    assert!(!final_, "{error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            for n in 0.. {
                if stopping.load(Ordering::Relaxed) {
                    return n;
                }
                create(configmap(&format!("{names}-flags-{n}"), &[("a", "on")])).await;
                create(incident(&format!("{names}-{n}"), json!({"title": "Checkout fails", "mitigations": [{
                    "name": "off", "reason": "r", "targetRef": {"kind": "ConfigMap", "name": format!("{names}-flags-{n}")},
                    "featureFlag": {"key": "a", "value": "off"},
                }]})))
                .await;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            0
        });
        Load { prefix, stop, task }
    }

    /// Ends it, waits until everything that was declared is done, and checks that nothing was done twice.
    pub async fn end(self, namespace: &TestNamespace) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.task.await.expect("the load ended well");
        for n in 0..count {
            let name = format!("{}-{n}", self.prefix);
            let done = wait_for(Duration::from_secs(90), &format!("effect of {name}"), async || {
                let api = namespace.api::<incident_operator::api::Incident>();
                let found = api.get(&name).await.map_err(|e| e.to_string())?;
                let says = incident_says(&found, "Mitigated");
                if says.starts_with("True") { Ok(found) } else { Err(says) }
            })
            .await;
            assert_eq!(told(&done, "Declared").len(), 1, "{name}");
            assert_eq!(told(&done, "MitigationApplied").len(), 1, "{name}");
        }
        count
    }
}

/// Waits until an incident that is declared now is looked at.
pub async fn works(namespace: &TestNamespace, name: &str) {
    namespace.create(incident(name, json!({"title": "Checkout fails"}))).await;
    incident_when(namespace, name, "look", |i| told(i, "Declared").len() == 1).await;
}

/// What the audit log says of who led, and how much each replica wrote.
#[derive(Debug)]
pub struct Terms {
    /// Identity, and from when until when nobody else held the lease.
    pub terms: Vec<(String, String, String)>,
    /// Successful writes of each replica, the lease apart.
    pub writes: BTreeMap<String, usize>,
}

/// The identity of the replica that made a request, by its user agent.
pub fn identity(request: &Request) -> &str {
    let inside = request.user_agent.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or_default()
}

/// The writes of the operators in a namespace that the API server carried out, in their order.
pub fn writes(namespace: &TestNamespace, since: Mark) -> Vec<Request> {
    let mut found = audit::requests(since, |r| {
        r.namespace == namespace.name
            && r.user_agent.starts_with("incident-operator/")
            && r.writes()
            && (200..300).contains(&r.code)
    });
    found.sort_by(|a, b| a.time.cmp(&b.time));
    found
}

/// Checks that every write of a replica lies between its taking of the lease and the taking by somebody else, or its
/// giving back: so that at no revision there were two who wrote.
pub fn one_writer(namespace: &TestNamespace, since: Mark) -> Terms {
    const OPEN: &str = "9999";
    let all = writes(namespace, since);
    let mut terms: Vec<(String, String, String)> = Vec::new();
    for lease in all.iter().filter(|r| r.resource == "leases") {
        let body = lease.body.as_ref().expect("the audit log keeps what is written to leases");
        let now = body["spec"]["holderIdentity"].as_str().unwrap_or_default();
        assert!(now.is_empty() || now == identity(lease), "{lease:?}");
        let current = terms.last_mut().filter(|(_, _, until)| until == OPEN);
        match current {
            Some((who, _, _)) if who == now => continue,
            Some((_, _, until)) => *until = lease.time.clone(),
            None => {}
        }
        if !now.is_empty() {
            terms.push((now.to_owned(), lease.received.clone(), OPEN.to_owned()));
        }
    }
    let mut counts = BTreeMap::new();
    for write in all.iter().filter(|r| r.resource != "leases") {
        let who = identity(write);
        let within = terms
            .iter()
            .any(|(holder, from, until)| holder == who && *from <= write.received && write.time <= *until);
        assert!(
            within,
            "{who} wrote when it did not lead: {} at {}; terms: {terms:#?}",
            write.brief(),
            write.time
        );
        *counts.entry(who.to_owned()).or_insert(0) += 1;
    }
    Terms { terms, writes: counts }
}
