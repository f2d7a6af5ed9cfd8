//! The driver of an incident: entries become objects and are acted on at once, the record is written in one
//! status write, and what was folded is removed.

mod archive;
mod children;
mod record;

use self::{
    archive::{keep_within_bounds, store},
    children::carry_out,
    record::{record, remove_folded},
};
use super::{
    Context, Error, Key, error::Retry, indexes::BY_INCIDENT, moment, notify::Subject, orphans, postmortem,
    way_back,
};
use crate::mutants::{Mutant, seeded};
use crate::{
    api::{ConditionStatus, Incident, IncidentStatus, Mitigation, names},
    decide::{
        conditions::{Conditions, find},
        incident::{Observed, Original, Plan, decide, drop_archived, without_archive},
        postmortem::began,
    },
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::{collections::HashMap, sync::Arc};
use tokio::time::Instant;
use tracing::warn;

/// Rounds in one visit.
const MAX_ROUNDS: usize = 6;

/// One visit. Answers when to come again.
pub async fn reconcile(ctx: &Arc<Context>, key: &Key) -> Result<Option<Instant>, Error> {
    let mut failed: Option<Error> = None;
    let mut looked = false;
    for round in 1..=MAX_ROUNDS {
        // Entries that name it wait for one of that name; its children are the garbage collector's.
        let Some(incident) = ctx.incidents.get(key) else {
            ctx.notifier.forget(&Subject::Incident(key.clone()));
            return orphans::tell(ctx, key).await;
        };
        let mut plan = plan(ctx, key, &incident);
        // What is done is seen by the next round; the record is written when nothing is left to do.
        if !plan.effects.is_empty() && failed.is_none() {
            if ctx.fresh_incident(key).await? {
                continue;
            }
            match carry_out(ctx, key, std::mem::take(&mut plan.effects)).await {
                Err(error) if error.retry() == Retry::Soon => return Err(error),
                // It is tried again later; what else happened goes on record all the same.
                outcome => failed = outcome.err(),
            }
            continue;
        }
        // What is on record of a mitigation must not be what it was before.
        if incident.status.as_ref() != Some(&plan.status) {
            if ctx.fresh_mitigations(key).await? {
                continue;
            }
            if !looked {
                looked = true;
                if ctx.look_for_missing(key, &incident).await? {
                    continue;
                }
            }
        }
        if let Some(error) = &failed {
            report(&incident, &mut plan.status, error);
        }
        if let Some(archive) = plan.archive.take() {
            let stored = store(ctx, key, &incident, &archive).await?;
            let now = Timestamp::now();
            match stored {
                Ok(stored) => drop_archived(&mut plan.status, &stored, now),
                Err(words) => {
                    let lost = without_archive(&mut plan.status, &archive, &words, now);
                    warn!(incident = %key, error = words, lost, "the timeline cannot be archived");
                    // Where some are lost there is room now.
                    let again = plan.wake.filter(|_| lost > 0);
                    plan.wake = plan.wake_unarchived.into_iter().chain(again).min();
                }
            }
        }
        keep_within_bounds(key, &mut plan.status);
        if seeded(Mutant::RemovedBeforeFolded) {
            remove_folded(ctx, key, &plan.folded).await?;
        }
        record(ctx, key, &incident, &plan).await?;
        ctx.deliver(&Subject::Incident(key.clone()));
        if let Some(soon) = remove_folded(ctx, key, &plan.folded).await? {
            let again = Timestamp::now().checked_add(soon).ok();
            plan.wake = plan.wake.into_iter().chain(again).min();
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if plan.wake.is_none_or(|wake| wake > Timestamp::now()) || round == MAX_ROUNDS {
            let look = way_back::look(ctx, key, &incident, &plan.status);
            return Ok(plan.wake.into_iter().chain(look).min().map(moment));
        }
    }
    Err(Error::Restless(format!("incident {key}")))
}

/// Says what could not be done: the incident is not as it was asked for.
fn report(incident: &Incident, status: &mut IncidentStatus, error: &Error) {
    // As it was before this visit: one that fails again and again is no change each time.
    let known = incident.status.as_ref().and_then(|s| find(&s.conditions, "Ready"));
    if let (Some(known), Some(ready)) = (known, status.conditions.iter_mut().find(|c| c.type_ == "Ready")) {
        ready.clone_from(known);
    }
    let mut c = Conditions::new(&mut status.conditions, incident.metadata.generation, Timestamp::now());
    c.set("Ready", ConditionStatus::False, "NotDone", error.words());
}

fn plan(ctx: &Context, key: &Key, incident: &Incident) -> Plan {
    let settings = ctx.settings();
    let uid = incident.metadata.uid.as_ref();
    let group = key.to_string();
    let mitigations: Vec<Arc<Mitigation>> = ctx
        .mitigations
        .group(BY_INCIDENT, &group)
        .into_iter()
        // The children of an earlier incident of the same name are not ours.
        .filter(|m| controller(m).is_none_or(|owner| Some(owner) == uid))
        .collect();
    let taken_names: HashMap<String, Option<String>> = incident
        .spec
        .mitigations
        .iter()
        .map(|entry| names::joined(&key.name, &entry.name))
        .filter_map(|name| {
            let object = ctx.mitigations.get(&Key::new(&key.namespace, &name))?;
            Some((name, controller(&object).cloned()))
        })
        .collect();
    let postmortem = postmortem::about(ctx, &group, uid, began(incident)).into_iter().next();
    let known = incident.status.as_ref().and_then(|s| s.postmortem_ref.as_ref());
    let known_postmortem =
        known.and_then(|known| ctx.postmortems.get(&Key::new(&key.namespace, &known.name)));
    let original = original(ctx, key, incident);
    let way_back = ctx.way_back.found(uid);
    let known = incident.status.iter().flat_map(|status| &status.mitigations).map(|s| s.name.clone());
    let unreadable: Vec<String> =
        known.filter(|name| ctx.mitigations.is_unreadable(&Key::new(&key.namespace, name))).collect();
    let observed = Observed {
        incident,
        mitigations: &mitigations,
        taken_names: &taken_names,
        entries: &ctx.entries.group(0, &group),
        postmortem: postmortem.as_deref(),
        known_postmortem: known_postmortem.as_deref(),
        original,
        way_back: way_back.as_deref(),
        unreadable: &unreadable,
        signed: ctx.signed,
        outcomes: &ctx.notifier.outcomes(&Subject::Incident(key.clone()), uid),
        settings: &settings,
    };
    decide(&observed, Timestamp::now())
}

/// What the incident is a duplicate of, and whether that leads back to it.
fn original(ctx: &Context, key: &Key, incident: &Incident) -> Option<Original> {
    let mut next = incident.spec.duplicate_of.as_ref()?.name.clone();
    let mut by = vec![key.name.to_string()];
    loop {
        if next == *key.name {
            return Some(Original::Circle(by));
        }
        let Some(other) = ctx.incidents.get(&Key::new(&key.namespace, &next)) else {
            // Only the one that it names itself must be there.
            return Some(if by.len() == 1 { Original::Missing } else { Original::Found });
        };
        if by.contains(&next) {
            // Others go round in a circle; each of them says so.
            return Some(Original::Found);
        }
        by.push(next);
        match &other.spec.duplicate_of {
            Some(further) => next = further.name.clone(),
            None => return Some(Original::Found),
        }
    }
}

fn controller(mitigation: &Mitigation) -> Option<&String> {
    mitigation.owner_references().iter().find(|o| o.controller == Some(true)).map(|o| &o.uid)
}
