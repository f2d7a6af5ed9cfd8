//! Looks whether there is a way back from an incident, for the checklist: earlier revisions of the service's workloads
//! and flags. Some seconds after the declaration, beside everything else, by watches that are closed soon, a few at a time
//! for all incidents together. Once: a process that finds on record what an earlier one saw does not look again.

use super::{Context, Key};
use crate::{
    api::{ChecklistState, Incident, IncidentStatus, Stage},
    decide::{
        incident::{WAY_BACK, WayBack, flags, is_on_record, labelled, revisions},
        mitigation::target_id,
    },
    mitigation::{CONFIG_MAP, CONTROLLER_REVISION, REPLICA_SET, workload},
};
use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;
use tracing::debug;

/// How long after the declaration it is looked: what is done first must not wait for it.
const AFTER: SignedDuration = SignedDuration::from_secs(3);
/// Most sets of labels that are looked at for one incident.
const MAX_SELECTORS: usize = 6;
/// Looks at the same time, for all incidents together.
const LOOKS: usize = 4;

/// What was found, by the uid of the incident, and for which labels.
pub struct WaysBack {
    looked: Mutex<HashMap<String, Looked>>,
    slots: Semaphore,
}

impl Default for WaysBack {
    fn default() -> Self {
        WaysBack { looked: Mutex::default(), slots: Semaphore::new(LOOKS) }
    }
}

struct Looked {
    selectors: BTreeSet<String>,
    found: Option<Arc<WayBack>>,
}

impl WaysBack {
    /// What was found for an incident.
    pub fn found(&self, uid: Option<&String>) -> Option<Arc<WayBack>> {
        self.lock().get(uid?)?.found.clone()
    }

    /// The incident is gone.
    pub fn forget(&self, uid: Option<&String>) {
        if let Some(uid) = uid {
            self.lock().remove(uid);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Looked>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for whoever looks with these labels first, unless what is on record comes from such a look.
    fn begin(&self, uid: &str, selectors: &BTreeSet<String>, note: Option<&str>) -> bool {
        let mut all = self.lock();
        match all.get_mut(uid) {
            Some(looked) if looked.selectors == *selectors => false,
            Some(looked) => {
                looked.selectors.clone_from(selectors);
                true
            }
            None => {
                all.insert(uid.to_owned(), Looked { selectors: selectors.clone(), found: None });
                !note.is_some_and(|note| is_on_record(note, selectors.iter().map(String::as_str)))
            }
        }
    }

    fn end(&self, uid: &str, found: WayBack) {
        if let Some(looked) = self.lock().get_mut(uid) {
            looked.found = Some(Arc::new(found));
        }
    }
}

/// Looks, if the checklist waits for it. Answers when to come again for that.
pub fn look(
    ctx: &Arc<Context>,
    key: &Key,
    incident: &Incident,
    status: &IncidentStatus,
) -> Option<Timestamp> {
    let item = status.checklist.iter().find(|i| i.name == WAY_BACK && i.state == ChecklistState::Todo);
    let over = matches!(status.stage, Some(Stage::Postmortem | Stage::Closed | Stage::Cancelled));
    let uid = incident.metadata.uid.clone()?;
    if item.is_none() || over || incident.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let due = incident.metadata.creation_timestamp.as_ref()?.0 + AFTER;
    if due > Timestamp::now() {
        return Some(due);
    }
    let selectors = selectors(ctx, key, incident);
    if !ctx.way_back.begin(&uid, &selectors, item.and_then(|item| item.note.as_deref())) {
        return None;
    }
    let (ctx, key) = (ctx.clone(), key.clone());
    tokio::spawn(async move {
        let found = all(&ctx, &key, &selectors).await;
        ctx.way_back.end(&uid, found);
        ctx.queues.incidents.add(key);
    });
    None
}

/// The labels of the service, and of the workloads that are mitigated.
fn selectors(ctx: &Context, key: &Key, incident: &Incident) -> BTreeSet<String> {
    let mut selectors = BTreeSet::new();
    if let Some(service) = incident.spec.service.as_ref().filter(|s| is_label_value(s)) {
        selectors.insert(format!("app.kubernetes.io/name={service}"));
        selectors.insert(format!("app={service}"));
    }
    for mitigation in ctx.mitigations.group(super::indexes::BY_INCIDENT, &key.to_string()) {
        // Those that are held are known; others are not read for this.
        let Some(target) = target_id(&mitigation) else { continue };
        let Some(object) = ctx.targets.known(&key.namespace, &target) else { continue };
        let selector = workload::selector(&object);
        if !selector.is_empty() && selectors.len() < MAX_SELECTORS {
            selectors.insert(selector);
        }
    }
    selectors
}

async fn all(ctx: &Context, key: &Key, selectors: &BTreeSet<String>) -> WayBack {
    let looks = selectors
        .iter()
        .flat_map(|labels| [REPLICA_SET, CONTROLLER_REVISION, CONFIG_MAP].map(|kind| (kind, labels.clone())));
    let seen = join_all(looks.map(|(kind, labels)| async move {
        // The semaphore is never closed.
        let _slot = ctx.way_back.slots.acquire().await;
        let objects = ctx.lookouts.list(kind, &key.namespace, Some(&labels)).await;
        ctx.lookouts.let_go(kind, &key.namespace, Some(&labels));
        (kind, objects)
    }))
    .await;
    let (mut of_workloads, mut maps, mut unseen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (kind, objects) in seen {
        match objects {
            Ok(objects) if kind == CONFIG_MAP => maps.extend(objects),
            Ok(objects) => of_workloads.extend(objects),
            Err(error) => {
                debug!(incident = %key, %error, "not looked at");
                unseen.insert(kind.kind);
            }
        }
    }
    let found = revisions(&of_workloads).into_iter().chain(flags(&maps)).collect();
    let mut looked: Vec<String> = selectors.iter().map(|s| labelled(s)).collect();
    // Nobody may take for absent what could not be read.
    if let Some(last) = looked.last_mut().filter(|_| !unseen.is_empty()) {
        let kinds = unseen.into_iter().collect::<Vec<_>>().join(" and ");
        last.push_str(&format!(" (not every {kinds} could be read: look yourself)"));
    }
    WayBack { found, looked }
}

/// Whether a text can be the value of a label; any other service has no labelled workloads.
fn is_label_value(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inside) && edge(text.chars().next()) && edge(text.chars().last())
}
