//! What is told of a mitigation: Events on it and on its target, once its status says so.

use super::{Context, Key, events::Note};
use crate::{
    api::{Condition, ConditionStatus, Mitigation, MitigationPhase as Phase, MitigationStatus},
    decide::{
        conditions::{clip, find},
        mitigation::TAKEN_BACK,
    },
};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{Resource, core::DynamicObject};

/// Most characters of a reason in an Event, so that what follows it has room.
const MAX_REASON: usize = 512;

/// Tells what changed, on the mitigation and on the target. Only after it is so.
pub fn tell(
    ctx: &Context,
    key: &Key,
    mitigation: &Mitigation,
    old: Option<&MitigationStatus>,
    target: Option<&DynamicObject>,
) {
    let Some(new) = &mitigation.status else { return };
    let told = |status: Option<&MitigationStatus>| {
        status.map(|s| {
            let forged = s.record_changed_by.clone();
            let contested = find_true(s, "Contested");
            (s.phase, effective(s), contested, s.attempts, s.expired_time.is_some(), forged)
        })
    };
    if told(old) == told(Some(new)) {
        return;
    }
    let Some((reason, warning)) = news(old, new) else { return };
    let says = find(&new.conditions, "Ready").map(|c| c.message.clone()).unwrap_or_default();
    let applied = find(&new.conditions, "Applied").map(|c| c.message.clone()).unwrap_or_default();
    let message = match reason {
        "MitigationApplied" => {
            format!("{applied}: {}", clip(&mitigation.spec.template.reason, MAX_REASON))
        }
        "MitigationExpired" => "its time is over and it is still in force: release it, or give it more time \
                                with spec.expiresAfter"
            .to_owned(),
        "MitigationRecordChanged" | "MitigationTakenBack" => {
            find(&new.conditions, "Contested").map(|c| c.message.clone()).unwrap_or_default()
        }
        _ => says,
    };
    let time = Timestamp::now();
    let subject = reference(mitigation);
    let target = target.map(target_reference);
    if let Some(target) = &target {
        let by = match &mitigation.spec.incident_ref {
            Some(incident) => format!(" (mitigation {}, incident {})", key.name, incident.name),
            None => format!(" (mitigation {})", key.name),
        };
        ctx.events.tell(Note {
            regarding: target.clone(),
            source: None,
            related: Some(subject.clone()),
            reason: reason.to_owned(),
            message: format!("{message}{by}"),
            warning,
            time,
        });
    }
    ctx.events.tell(Note {
        regarding: subject,
        source: None,
        related: target,
        reason: reason.to_owned(),
        message,
        warning,
        time,
    });
}

/// What a change of status is called, and whether somebody should look.
fn news(old: Option<&MitigationStatus>, new: &MitigationStatus) -> Option<(&'static str, bool)> {
    let before = old.and_then(|s| s.phase);
    let phase = new.phase?;
    if before != Some(phase) {
        let word = match phase {
            Phase::Pending => return pending(new),
            Phase::AwaitingApproval => ("MitigationAwaitingApproval", false),
            Phase::Active => ("MitigationApplied", false),
            Phase::Applying | Phase::Releasing => return None,
            Phase::Released if new.applied_time.is_none() => ("MitigationWithdrawn", false),
            Phase::Released => ("MitigationReleased", false),
            Phase::Kept => ("MitigationKept", false),
            Phase::Superseded => ("MitigationSuperseded", true),
            Phase::Abandoned => ("MitigationAbandoned", true),
            Phase::Refused => ("MitigationRefused", true),
            Phase::Failed => ("MitigationFailed", true),
        };
        return Some(word);
    }
    if phase != Phase::Active {
        return None;
    }
    if new.record_changed_by.is_some() && old.is_none_or(|s| s.record_changed_by != new.record_changed_by) {
        return Some(("MitigationRecordChanged", true));
    }
    if new.expired_time.is_some() && old.is_none_or(|s| s.expired_time.is_none()) {
        return Some(("MitigationExpired", true));
    }
    if find_true(new, "Contested") {
        return Some(("MitigationContested", true));
    }
    if new.attempts > old.and_then(|s| s.attempts) && find(&new.conditions, "Contested")?.reason == TAKEN_BACK
    {
        return Some(("MitigationTakenBack", true));
    }
    match effective(new) {
        // That it was looked at again is no news.
        Some(ConditionStatus::True)
            if old.is_some_and(|old| {
                old.effective_time.is_some() && effective(old) != Some(ConditionStatus::False)
            }) =>
        {
            None
        }
        Some(ConditionStatus::True) => Some(("MitigationEffective", false)),
        Some(ConditionStatus::False) => Some(("MitigationNotEffective", true)),
        Some(ConditionStatus::Unknown) | None => None,
    }
}

/// A mitigation that waits says for what.
fn pending(new: &MitigationStatus) -> Option<(&'static str, bool)> {
    match find(&new.conditions, "Ready")?.reason.as_str() {
        "TargetNotFound" => Some(("TargetNotFound", true)),
        "FieldBusy" => Some(("FieldBusy", true)),
        "OperatorForbidden" => Some(("OperatorForbidden", true)),
        "DryRun" => Some(("DryRun", false)),
        _ => None,
    }
}

fn effective(status: &MitigationStatus) -> Option<ConditionStatus> {
    find(&status.conditions, "Effective").map(|c: &Condition| c.status)
}

fn find_true(status: &MitigationStatus, type_: &str) -> bool {
    find(&status.conditions, type_).is_some_and(|c| c.status == ConditionStatus::True)
}

/// Refers to an object of ours, as Events do.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        ..ObjectReference::default()
    }
}

fn target_reference(object: &DynamicObject) -> ObjectReference {
    ObjectReference {
        api_version: object.types.as_ref().map(|t| t.api_version.clone()),
        kind: object.types.as_ref().map(|t| t.kind.clone()),
        name: object.metadata.name.clone(),
        namespace: object.metadata.namespace.clone(),
        uid: object.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
