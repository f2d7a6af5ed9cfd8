//! Gathers evidence: manifests, Events, pod status and logs of what a mitigation is about to take away, into an
//! immutable ConfigMap.
//!
//! It runs beside the visit that asked for it and has a deadline of its own; what it could not get in time is recorded
//! as missing. Its ConfigMap is named after the mitigation, so that a process that comes later finds what an earlier
//! one kept.

mod logs;
mod pods;

use super::{
    error::{Retry, backoff},
    key::Key,
    queue::Queue,
};
use crate::{
    api::{EvidenceStatus, GROUP, MANAGED_BY, MANAGED_BY_LABEL, names},
    decide::archive::is_record,
    decide::conditions::whole_seconds,
    mitigation::{
        ObjectId,
        evidence::{Bundle, manifest, sha256},
    },
};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Pod},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::ListMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
    core::{DynamicObject, ObjectMeta},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{info, warn};

/// How long gathering may take.
const BUDGET: Duration = Duration::from_secs(10);
/// How long one try to keep what was gathered may take, and all of them.
const KEEP_TRY: Duration = Duration::from_secs(3);
const KEEP_BUDGET: Duration = Duration::from_secs(25);
/// How long a bundle that nobody asked for again is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Logs that are read at the same time, for all mitigations together.
const READERS: usize = 8;
/// Pods whose logs are read.
const MAX_PODS: usize = 20;
/// Most objects that one list answers.
const MAX_LISTED: u32 = 200;

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
    /// What else is touched, as it is.
    pub touched: Vec<(ObjectId, Arc<DynamicObject>)>,
    /// Whether pods go, so that it must be told when it is not known which.
    pub destroys: bool,
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
            let mitigation = request.mitigation.clone();
            let gathering = tokio::spawn(async move { gather_and_keep(&client, &readers, &request).await });
            // Code that fails must not leave it under way for ever.
            let progress = match gathering.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(kept) => {
                    info!(%mitigation, config_map = kept.config_map, items = kept.items, "evidence kept");
                    Progress::Kept(kept)
                }
                Err(words) => {
                    warn!(%mitigation, error = words, "no evidence kept");
                    Progress::Failed(words)
                }
            };
            tell.send_replace(progress);
            queue.add(mitigation);
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

/// Names of the ConfigMap: the second is for when somebody else has the first.
fn names_of(request: &Request) -> [String; 2] {
    let name: String = request.mitigation.name.chars().take(220).collect();
    let stem = name.trim_end_matches(['-', '.']);
    let other: String =
        Sha256::digest(&request.uid).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let short = request.uid.get(..8).unwrap_or(&request.uid);
    [short, &other].map(|end| format!("{stem}-evidence-{end}"))
}

async fn gather_and_keep(
    client: &Client,
    readers: &tokio::sync::Semaphore,
    request: &Request,
) -> Result<EvidenceStatus, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &request.mitigation.namespace);
    let bundle = gather(client, readers, request).await;
    let missing = bundle.missing().to_vec();
    let items = bundle.len();
    let data = bundle.into_data();
    let mut labels = BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (format!("{GROUP}/evidence"), "true".to_owned()),
        (format!("{GROUP}/mitigation-uid"), request.uid.clone()),
    ]);
    if let Some(incident) = &request.incident {
        labels.insert(format!("{GROUP}/incident"), names::label_value(incident));
    }
    let params =
        PostParams { field_manager: Some(super::status::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let status = |name: String, data: &BTreeMap<String, String>, missing, items: usize| EvidenceStatus {
        config_map: name,
        sha256: sha256(data),
        items: i32::try_from(items).unwrap_or(i32::MAX),
        missing,
        captured_time: Some(whole_seconds(Timestamp::now())),
    };
    let names = names_of(request);
    for name in names.clone() {
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                ..ObjectMeta::default()
            },
            immutable: Some(true),
            data: Some(data.clone()),
            ..ConfigMap::default()
        };
        let Some(there) = create(&api, &params, &object, &name).await? else {
            return Ok(status(name, &data, missing, items));
        };
        // An earlier process kept it, when more was there; or it is somebody else's.
        let ours =
            is_record(&there) && there.labels().get(&format!("{GROUP}/mitigation-uid")) == Some(&request.uid);
        if let Some(data) = there.data.filter(|_| ours) {
            let missing = data.get("MISSING.txt").map(|t| t.lines().map(str::to_owned).collect());
            return Ok(status(name, &data, missing.unwrap_or_default(), data.len()));
        }
    }
    Err(format!("ConfigMaps {} exist and are not of this mitigation", names.join(" and ")))
}

/// Makes the ConfigMap; the one that is there, when somebody did before. A connection that breaks or hangs and an API
/// server that is busy are no reason to refuse a mitigation: it is tried again for a while, and one that was made
/// without our learning of it answers 409.
async fn create(
    api: &Api<ConfigMap>,
    params: &PostParams,
    object: &ConfigMap,
    name: &str,
) -> Result<Option<ConfigMap>, String> {
    let deadline = Instant::now() + KEEP_BUDGET;
    let mut attempt = 0;
    loop {
        let words = match timeout(KEEP_TRY, try_create(api, params, object, name)).await {
            Ok(Ok(there)) => return Ok(there),
            Ok(Err(Failed::ForGood(words))) => return Err(words),
            Ok(Err(Failed::ForNow(words))) => words,
            Err(_) => format!("no answer within {} s", KEEP_TRY.as_secs()),
        };
        let wait = backoff(Retry::Backoff, attempt);
        if Instant::now() + wait >= deadline {
            return Err(words);
        }
        attempt += 1;
        sleep(wait).await;
    }
}

/// Why a ConfigMap was not made.
enum Failed {
    /// Another try may be answered otherwise.
    ForNow(String),
    /// It would be answered the same.
    ForGood(String),
}

async fn try_create(
    api: &Api<ConfigMap>,
    params: &PostParams,
    object: &ConfigMap,
    name: &str,
) -> Result<Option<ConfigMap>, Failed> {
    match api.create(params, object).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(said)) if said.code == 409 => match api.get_opt(name).await {
            // One that is gone again is made by the next try.
            Ok(None) => Err(Failed::ForNow(said.message.clone())),
            Ok(there) => Ok(there),
            Err(error) => Err(Failed::ForNow(words(error))),
        },
        Err(error) => {
            let for_now = match &error {
                kube::Error::Api(said) => match said.code {
                    429 | 500.. => true,
                    // Where something is wrong with the object, it is said what.
                    422 => said.details.as_ref().is_none_or(|details| details.causes.is_empty()),
                    _ => false,
                },
                _ => true,
            };
            Err(if for_now { Failed::ForNow(words(error)) } else { Failed::ForGood(words(error)) })
        }
    }
}

async fn gather(client: &Client, readers: &tokio::sync::Semaphore, request: &Request) -> Bundle {
    let deadline = Instant::now() + BUDGET;
    let namespace = &request.mitigation.namespace;
    let mut bundle = Bundle::default();
    bundle
        .add_object(&format!("{}.{}.yaml", request.id.kind.kind, request.id.name), manifest(&request.target));
    let (events, pods) = tokio::join!(
        timeout_at(deadline, events(client, namespace, &request.target)),
        timeout_at(deadline, pods::of(client, request))
    );
    match events {
        Ok(Ok((text, all))) => {
            bundle.add("events.txt", &text);
            if !all {
                bundle.miss("events", &format!("there are more than {MAX_LISTED}"));
            }
        }
        Ok(Err(words)) => bundle.miss("events", &words),
        Err(_) => bundle.miss("events", "no answer in time"),
    }
    let found = pods.unwrap_or_else(|_| pods::Found::nothing("no answer in time"));
    for why in &found.missing {
        bundle.miss("pods", why);
    }
    let pods = found.pods;
    for pod in pods.iter().skip(MAX_PODS) {
        bundle.miss(pod.name_any(), "logs of the first pods only are kept");
    }
    let mut wanted = Vec::new();
    for pod in pods.iter().take(MAX_PODS) {
        let name = pod.name_any();
        let status = serde_json::to_value(&pod.status).unwrap_or_default();
        bundle.add_object(&format!("pod.{name}.status.yaml"), status);
        match request.logs {
            true => wanted.extend(logs::of(pod)),
            false => bundle.miss(format!("logs of {name}"), NO_LOGS),
        }
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let reads = wanted.into_iter().map(|log| {
        let api = api.clone();
        async move {
            // The semaphore is never closed.
            let _slot = readers.acquire().await;
            let answer = logs::read(&api, &log, deadline).await;
            (log, answer)
        }
    });
    let mut reads = stream::iter(reads).buffer_unordered(READERS);
    while let Some((log, answer)) = reads.next().await {
        let name = log.item();
        if let Some(text) = &answer.text {
            bundle.add(&name, text);
        }
        if let Some(why) = &answer.missing {
            bundle.miss(name, why);
        }
    }
    bundle
}

/// The Events of the target, and whether these are all.
async fn events(client: &Client, namespace: &str, target: &DynamicObject) -> Result<(String, bool), String> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let uid = target.metadata.uid.as_deref().unwrap_or_default();
    let params = ListParams::default().fields(&format!("regarding.uid={uid}")).limit(MAX_LISTED);
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
    Ok((lines.join("\n") + "\n", is_complete(&list.metadata)))
}

/// Whether a list answered all there is.
fn is_complete(list: &ListMeta) -> bool {
    list.continue_.as_ref().is_none_or(String::is_empty)
}

fn words(error: kube::Error) -> String {
    match &error {
        kube::Error::Api(status) => status.message.clone(),
        _ => error.to_string(),
    }
}
