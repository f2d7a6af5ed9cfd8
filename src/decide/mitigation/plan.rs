//! What the decision sees, and what it plans.

use crate::{
    api::{EvidenceStatus, Mitigation, MitigationStatus, Severity, TimelineEntry},
    decide::{
        access::{Answers, Question, Subject},
        policy::{
            InForce,
            limits::{Limits, Wait},
        },
    },
    mitigation::{Found, Look, ObjectId, TargetKind},
};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// What was seen.
pub struct Observed<'a> {
    /// The mitigation, with the status as far as it is worked out.
    pub mitigation: &'a Mitigation,
    /// The objects that were read; `None` when there is none of that name.
    pub objects: &'a Objects,
    /// What else was looked at.
    pub found: &'a Found,
    /// Kinds that the cluster does not have, and those of the cluster's scope that the operator may not look at.
    pub hidden: &'a HashSet<TargetKind>,
    /// The incident it belongs to.
    pub incident: Incident,
    /// What the API server said to the last effect, when it refused.
    pub refused: Option<&'a Refused>,
    /// The objects of which the API server accepted a dry run of the take.
    pub dry_run_passed: &'a HashSet<ObjectId>,
    /// How far the evidence is, when it is being gathered.
    pub evidence: Option<Evidence>,
    /// The policies that hold in the namespace.
    pub policies: &'a InForce,
    /// Whether the API server vouches for names, so that rights can be asked for them.
    pub signed: bool,
    /// The API server's answers about rights, not older than a few seconds.
    pub answers: &'a Answers,
    /// Entries that approve or reject this mitigation, oldest first.
    pub approvals: &'a [Arc<TimelineEntry>],
    /// What came of the wish to be counted.
    pub reservation: Option<&'a Reservation>,
    /// uids of the mitigations that may hold the target. A record of any other is a leftover: the deployment
    /// controller copies annotations to ReplicaSets, and `kubectl rollout undo` copies them back.
    pub holders: &'a HashSet<String>,
}

/// Objects that were read.
pub type Objects = HashMap<ObjectId, Option<Arc<DynamicObject>>>;

/// What is known of the incident.
#[derive(Clone, Debug, Default)]
pub struct Incident {
    /// Name, when the mitigation names one.
    pub name: Option<String>,
    /// Who commands it, when somebody is named.
    pub commander: Option<String>,
    /// Its severity, when it states one.
    pub severity: Option<Severity>,
    /// The resolution is declared and the exit criteria are done, or the incident is cancelled.
    pub releases: Option<&'static str>,
    /// Who changed its mitigations or its outcome last, as admission stamped it: who cancelled it, if it is cancelled.
    pub canceller: Option<Subject>,
    /// The incident has recorded how this mitigation ended, or will never.
    pub recorded_end: bool,
    /// How the mitigation came to be deleted, if it is.
    pub deletion: Deletion,
}

/// How a mitigation came to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletion {
    /// Somebody deleted the object.
    #[default]
    ByHand,
    /// Its entry was taken out of the incident.
    Withdrawn,
    /// It goes with its incident.
    WithIncident,
}

/// What came of the wish to be counted among the active mitigations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// It is counted from now on.
    Granted,
    /// A limit is reached.
    Wait(Wait),
}

/// How far evidence is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It is being gathered since then.
    Running(Timestamp),
    /// It is kept.
    Kept(EvidenceStatus),
    /// Nothing could be kept.
    Failed(String),
}

/// An effect that the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// True when it was a step of a release.
    pub releasing: bool,
    /// Why.
    pub why: Why,
    /// The API server's words.
    pub words: String,
}

/// Why the API server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The operator lacks the right; somebody can grant it.
    Forbidden,
    /// Admission or validation said no; trying again will not help.
    Denied,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The status as it should be once the effect is done.
    pub status: MitigationStatus,
    /// The one thing to do now.
    pub effect: Option<Effect>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// Look again as soon as the target appears.
    pub await_target: bool,
    /// Look again as soon as one of these changes.
    pub follow: Option<Look>,
}

/// One write, or read, that the plan needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read an object.
    Read(ObjectId),
    /// Look at something else.
    Look(Look),
    /// Add our finalizer.
    AddFinalizer,
    /// Remove our finalizer.
    RemoveFinalizer,
    /// Ask the API server about rights.
    Ask(Vec<Question>),
    /// Be counted among the active mitigations, unless a limit is reached.
    Reserve(Limits),
    /// Begin to gather evidence.
    GatherEvidence {
        /// Logs are read, too.
        logs: bool,
    },
    /// Wait for the evidence, at most until then.
    AwaitEvidence(Timestamp),
    /// Write the status: it says what is about to be touched.
    Announce,
    /// Write to an object.
    Write {
        /// The object.
        object: ObjectId,
        /// What the write is for.
        what: Write,
        /// The JSON Patch.
        patch: Value,
    },
    /// Make an object.
    Create {
        /// The object.
        object: ObjectId,
        /// All of it.
        manifest: Value,
        /// Only ask whether it could be made.
        dry_run: bool,
    },
    /// Delete an object, and no other of its name.
    Delete {
        /// The object.
        object: ObjectId,
        /// Its uid.
        uid: String,
        /// True when it is a step of a release.
        releasing: bool,
    },
}

/// What a write to the target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Capture and change.
    Take,
    /// The same, only asked.
    DryRun,
    /// Take back a machine's change.
    Reassert,
    /// Put record and label back.
    Recapture,
    /// One step of several towards the prior value.
    Step,
    /// Set the object's status, before its prior value goes back.
    Status,
    /// Restore the prior value.
    Restore,
    /// End the hold: remove the record and every other trace.
    LetGo,
    /// Remove what the API server noted of our writes.
    Disown,
}

impl Write {
    /// True for the writes of a release.
    pub fn releases(self) -> bool {
        match self {
            Write::Take | Write::DryRun | Write::Reassert | Write::Recapture => false,
            Write::Step | Write::Status | Write::Restore | Write::LetGo | Write::Disown => true,
        }
    }
}
