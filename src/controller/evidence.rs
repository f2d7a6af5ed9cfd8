//! Gathers evidence: manifests, Events, pod status and logs of what a mitigation is about to take away, into an
//! immutable ConfigMap.
//!
//! It runs beside the visit that asked for it and has a deadline of its own; what it could not get in time is recorded
//! as missing. Its ConfigMap is named after the mitigation, so that a process that comes later finds what an earlier
//! one kept.

use super::{
    error::{Retry, backoff, code},
    key::Key,
    queue::Queue,
};
use crate::{
    api::{EvidenceStatus, GROUP},
    decide::conditions::whole_seconds,
    mitigation::{
        ObjectId,
        evidence::{Bundle, MAX_ITEM, manifest, sha256},
        field,
    },
};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Pod},
        events::v1::Event,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, PostParams},
    core::{DynamicObject, ObjectMeta},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tracing::{info, warn};

/// How long gathering may take.
const BUDGET: Duration = Duration::from_secs(10);
/// How long a bundle that nobody asked for again is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Logs that are read at the same time, for all mitigations together.
const READERS: usize = 8;
/// Pods whose logs are read.
const MAX_PODS: usize = 20;
/// Lines of a log, from its end.
const MAX_LINES: i64 = 2000;

/// Why logs are missing.
const NO_LOGS: &str = "who asked for the mitigation may not read them (get pods/log)";

/// What is to be kept of whom.
pub struct Request {
    /// The mitigation.
    pub mitigation: Key,
    /// Its uid.
    pub uid: String,
    /// Its incident.
    pub incident: Option<String>,
    /// The target.
    pub id: ObjectId,
    /// The target as it is.
    pub target: Arc<DynamicObject>,
    /// Whether it may hold logs: not when who asked may not read them.
    pub logs: bool,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Under way since then.
    Running(Timestamp),
    /// Kept.
    Kept(EvidenceStatus),
    /// Nothing could be kept.
    Failed(String),
}

/// Everything that is being gathered, by uid of the mitigation.
pub struct Evidence {
    client: Client,
    queue: Arc<Queue>,
    readers: Arc<tokio::sync::Semaphore>,
    running: Mutex<HashMap<String, (Instant, watch::Receiver<Progress>)>>,
}

impl Evidence {
    /// Nothing is gathered yet.
    pub fn new(client: Client, queue: Arc<Queue>) -> Evidence {
        let readers = Arc::new(tokio::sync::Semaphore::new(READERS));
        Evidence { client, queue, readers, running: Mutex::default() }
    }

    /// How far the evidence of a mitigation is; `None` when nobody asked for it.
    pub fn progress(&self, uid: &str) -> Option<Progress> {
        self.lock().get(uid).map(|(_, progress)| progress.borrow().clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, watch::Receiver<Progress>)>> {
        // Nothing below panics between two statements that belong together.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to gather, once for each mitigation.
    pub fn start(&self, request: Request) {
        let mut running = self.lock();
        if running.contains_key(&request.uid) {
            return;
        }
        running.retain(|_, (since, progress)| {
            since.elapsed() < REMEMBERED || matches!(*progress.borrow(), Progress::Running(_))
        });
        let (tell, progress) = watch::channel(Progress::Running(Timestamp::now()));
        running.insert(request.uid.clone(), (Instant::now(), progress));
        drop(running);
        let (client, queue, readers) = (self.client.clone(), self.queue.clone(), self.readers.clone());
        tokio::spawn(async move {
            let outcome = gather_and_keep(&client, &readers, &request).await;
            let progress = match outcome {
                Ok(kept) => {
                    info!(mitigation = %request.mitigation, config_map = kept.config_map, items = kept.items, "evidence kept");
                    Progress::Kept(kept)
                }
                Err(words) => {
                    warn!(mitigation = %request.mitigation, error = words, "no evidence kept");
                    Progress::Failed(words)
                }
            };
            tell.send_replace(progress);
            queue.add(request.mitigation);
        });
    }

    /// Waits until it is done, at most until then.
    pub async fn wait(&self, uid: &str, until: Instant) {
        let progress = self.lock().get(uid).map(|(_, progress)| progress.clone());
        if let Some(mut progress) = progress {
            let done = progress.wait_for(|progress| !matches!(progress, Progress::Running(_)));
            // Late or not, what is known then is what counts.
            let _ = timeout_at(until, done).await;
        }
    }
}

/// Name of the ConfigMap.
fn name_of(request: &Request) -> String {
    let short = request.uid.get(..8).unwrap_or(&request.uid);
    let name: String = request.mitigation.name.chars().take(220).collect();
    format!("{}-evidence-{short}", name.trim_end_matches(['-', '.']))
}

async fn gather_and_keep(
    client: &Client,
    readers: &tokio::sync::Semaphore,
    request: &Request,
) -> Result<EvidenceStatus, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &request.mitigation.namespace);
    let name = name_of(request);
    let bundle = gather(client, readers, request).await;
    let missing = bundle.missing().to_vec();
    let items = bundle.len();
    let data = bundle.into_data();
    let mut labels = BTreeMap::from([
        // Admission keeps what bears this label from everybody else.
        ("app.kubernetes.io/managed-by".to_owned(), "incident-operator".to_owned()),
        (format!("{GROUP}/evidence"), "true".to_owned()),
        (format!("{GROUP}/mitigation-uid"), request.uid.clone()),
    ]);
    if let Some(incident) = request.incident.as_ref().filter(|name| name.len() <= 63) {
        labels.insert(format!("{GROUP}/incident"), incident.clone());
    }
    let object = ConfigMap {
        metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        immutable: Some(true),
        data: Some(data.clone()),
        ..ConfigMap::default()
    };
    let params =
        PostParams { field_manager: Some(super::status::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let status = |data: &BTreeMap<String, String>, missing: Vec<String>, items: usize| EvidenceStatus {
        config_map: name.clone(),
        sha256: sha256(data),
        items: i32::try_from(items).unwrap_or(i32::MAX),
        missing,
        captured_time: Some(whole_seconds(Timestamp::now())),
    };
    match create(&api, &params, &object).await {
        Ok(_) => Ok(status(&data, missing, items)),
        // An earlier process kept it, when more was there.
        Err(kube::Error::Api(said)) if said.code == 409 => {
            let there = api.get(&name).await.map_err(|e| e.to_string())?;
            let ours = there.labels().get(&format!("{GROUP}/mitigation-uid")) == Some(&request.uid);
            match (ours && there.immutable == Some(true), there.data) {
                (true, Some(data)) => {
                    let missing = data.get("MISSING.txt").map(|t| t.lines().map(str::to_owned).collect());
                    Ok(status(&data, missing.unwrap_or_default(), data.len()))
                }
                _ => Err(format!("ConfigMap {name} exists and is not of this mitigation")),
            }
        }
        Err(kube::Error::Api(said)) => Err(said.message.clone()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the ConfigMap. A connection that breaks and an API server that is busy are no reason to refuse a mitigation:
/// it is tried again for a while, and one that was made without our learning of it answers 409.
async fn create(
    api: &Api<ConfigMap>,
    params: &PostParams,
    object: &ConfigMap,
) -> Result<ConfigMap, kube::Error> {
    let deadline = Instant::now() + BUDGET;
    let mut attempt = 0;
    loop {
        let answer = api.create(params, object).await;
        let again = match &answer {
            Ok(_) => false,
            Err(error) => code(error).is_none_or(|code| code == 429 || code >= 500),
        };
        let wait = backoff(Retry::Backoff, attempt);
        if !again || Instant::now() + wait >= deadline {
            return answer;
        }
        attempt += 1;
        sleep(wait).await;
    }
}

async fn gather(client: &Client, readers: &tokio::sync::Semaphore, request: &Request) -> Bundle {
    let deadline = Instant::now() + BUDGET;
    let namespace = &request.mitigation.namespace;
    let mut bundle = Bundle::default();
    bundle.add(&format!("{}.{}.yaml", request.id.kind.kind, request.id.name), &manifest(&request.target));
    let (events, pods) = tokio::join!(
        timeout_at(deadline, events(client, namespace, &request.target)),
        timeout_at(deadline, pods(client, namespace, &request.id, &request.target))
    );
    match events {
        Ok(Ok(text)) => bundle.add("events.txt", &text),
        Ok(Err(words)) => bundle.miss("events", &words),
        Err(_) => bundle.miss("events", "no answer in time"),
    }
    let pods = match pods {
        Ok(Ok(pods)) => pods,
        Ok(Err(words)) => {
            bundle.miss("pods", &words);
            return bundle;
        }
        Err(_) => {
            bundle.miss("pods", "no answer in time");
            return bundle;
        }
    };
    for pod in pods.iter().skip(MAX_PODS) {
        bundle.miss(pod.name_any(), "logs of the first pods only are kept");
    }
    let mut wanted = Vec::new();
    for pod in pods.iter().take(MAX_PODS) {
        let name = pod.name_any();
        let status = serde_json::to_value(&pod.status).unwrap_or_default();
        let text = serde_saphyr::to_string(&status).unwrap_or_else(|_| status.to_string());
        bundle.add(&format!("pod.{name}.status.yaml"), &text);
        match request.logs {
            true => wanted.extend(logs_of(pod)),
            false => bundle.miss(format!("logs of {name}"), NO_LOGS),
        }
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let reads = wanted.into_iter().map(|log| {
        let api = api.clone();
        async move {
            // The semaphore is never closed.
            let _slot = readers.acquire().await;
            let answer = timeout_at(deadline, read_log(&api, &log)).await;
            (log, answer)
        }
    });
    let mut reads = stream::iter(reads).buffer_unordered(READERS);
    while let Some((log, answer)) = reads.next().await {
        let name = log.item();
        match answer {
            Ok(Ok(text)) => bundle.add(&name, &text),
            Ok(Err(words)) => bundle.miss(name, &words),
            Err(_) => bundle.miss(name, "no answer in time"),
        }
    }
    bundle
}

/// One log of one container.
struct Log {
    pod: String,
    container: String,
    previous: bool,
}

impl Log {
    fn item(&self) -> String {
        let which = if self.previous { ".previous" } else { "" };
        format!("pod.{}.{}{which}.log", self.pod, self.container)
    }
}

/// The logs that a pod has: the previous one only of a container that was restarted.
fn logs_of(pod: &Pod) -> Vec<Log> {
    let status = pod.status.as_ref();
    let statuses = status.into_iter().flat_map(|s| {
        s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten())
    });
    statuses
        .flat_map(|status| {
            let log = |previous| Log { pod: pod.name_any(), container: status.name.clone(), previous };
            let previous = (status.restart_count > 0).then(|| log(true));
            previous.into_iter().chain([log(false)])
        })
        .collect()
}

async fn read_log(api: &Api<Pod>, log: &Log) -> Result<String, String> {
    let params = LogParams {
        container: Some(log.container.clone()),
        previous: log.previous,
        timestamps: true,
        tail_lines: Some(MAX_LINES),
        limit_bytes: i64::try_from(MAX_ITEM).ok(),
        ..LogParams::default()
    };
    api.logs(&log.pod, &params).await.map_err(words)
}

async fn events(client: &Client, namespace: &str, target: &DynamicObject) -> Result<String, String> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let uid = target.metadata.uid.as_deref().unwrap_or_default();
    let params = ListParams::default().fields(&format!("regarding.uid={uid}")).limit(200);
    let list = api.list(&params).await.map_err(words)?;
    let mut lines: Vec<String> = list
        .items
        .iter()
        .map(|event| {
            let time = event
                .event_time
                .as_ref()
                .map(|t| t.0)
                .or_else(|| event.deprecated_last_timestamp.as_ref().map(|t| t.0));
            format!(
                "{} {} {} {}",
                time.map(|t| t.to_string()).unwrap_or_default(),
                event.type_.as_deref().unwrap_or_default(),
                event.reason.as_deref().unwrap_or_default(),
                event.note.as_deref().unwrap_or_default()
            )
        })
        .collect();
    lines.sort_unstable();
    Ok(lines.join("\n") + "\n")
}

/// The pods behind the target.
async fn pods(
    client: &Client,
    namespace: &str,
    id: &ObjectId,
    target: &DynamicObject,
) -> Result<Vec<Pod>, String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    if id.kind == crate::mitigation::POD {
        return api.get_opt(&id.name).await.map(|pod| pod.into_iter().collect()).map_err(words);
    }
    let selector = field(target, "/spec/selector/matchLabels");
    let labels = selector.as_ref().and_then(serde_json::Value::as_object);
    let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { return Ok(Vec::new()) };
    let labels: Vec<String> =
        labels.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect();
    let params = ListParams::default().labels(&labels.join(",")).limit(200);
    let mut pods = api.list(&params).await.map_err(words)?.items;
    // Those that are in trouble tell most.
    let ready = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    pods.sort_by_cached_key(|pod| (ready(pod), pod.name_any()));
    Ok(pods)
}

fn words(error: kube::Error) -> String {
    match &error {
        kube::Error::Api(status) if code(&error).is_some() => status.message.clone(),
        _ => error.to_string(),
    }
}
