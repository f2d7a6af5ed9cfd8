//! What an action sees when it plans: the target, and what else it asked to look at.
//!
//! An action that needs to see more than the target asks for it with [`Scene::list`] or [`Scene::one`]. What was
//! not looked at yet stops the plan with [`Stop::Look`]; it is made again when that is known. So the actions stay
//! free of I/O, and what nobody asks for is not read.

use super::{ObjectId, Refusal, TargetKind};
use crate::mitigation::field::Change;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// Something to look at beyond the target, in the mitigation's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    /// The objects of a kind, of all labels or of these ("app=web,tier in (a,b)").
    List {
        /// Their kind.
        kind: TargetKind,
        /// Label selector.
        labels: Option<String>,
    },
    /// One object.
    One(ObjectId),
}

/// What was looked at. A list of a kind that the cluster does not have is empty.
pub type Found = HashMap<Look, Vec<Arc<DynamicObject>>>;

/// What an action sees.
pub struct Scene<'a> {
    /// uid of the Mitigation.
    pub uid: &'a str,
    /// Namespace of the Mitigation and of everything that it touches.
    pub namespace: &'a str,
    /// Name of the Mitigation.
    pub name: &'a str,
    /// Name of the incident, when there is one.
    pub incident: Option<&'a str>,
    /// The incident's commander, when one is named.
    pub commander: Option<&'a str>,
    /// The target's kind and name.
    pub id: &'a ObjectId,
    /// The target as it is.
    pub target: &'a DynamicObject,
    /// What was announced to be touched, when that is more than the target. A choice among objects that was made once
    /// is found here, and not made anew.
    pub touched: &'a [ObjectId],
    /// When the change was made, once it is.
    pub applied: Option<Timestamp>,
    /// The present.
    pub now: Timestamp,
    /// What was looked at.
    pub found: &'a Found,
    /// uids of the mitigations that may hold the target. A record of any other is a leftover.
    pub holders: &'a HashSet<String>,
    /// Kinds that the operator may not look at. What must be known of them is not known: nobody may take it for absent.
    pub hidden: &'a HashSet<TargetKind>,
}

/// How long until it is tried again where the operator may not look: somebody can grant it.
const MAY_NOT_LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Why a plan cannot be made yet, or at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This must be looked at first.
    Look(Look),
    /// What must be known first cannot be told at present, and is not guessed. It is tried again after this long.
    NotYet(Refusal, Duration),
    /// It may not or cannot be done.
    Refused(Refusal),
}

impl Stop {
    /// A refusal.
    pub fn refuse(reason: &'static str, message: impl Into<String>) -> Stop {
        Stop::Refused(Refusal::new(reason, message))
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl<'a> Scene<'a> {
    /// The objects of a kind, of all labels or of these.
    pub fn list(&self, kind: TargetKind, labels: Option<&str>) -> Result<&'a [Arc<DynamicObject>], Stop> {
        self.look(Look::List { kind, labels: labels.map(str::to_owned) })
    }

    /// All objects of a kind of the cluster.
    pub fn everywhere(
        &self,
        kind: TargetKind,
    ) -> Result<impl Iterator<Item = &'a DynamicObject> + use<'a>, Stop> {
        Ok(self.list(kind, None)?.iter().map(Arc::as_ref))
    }

    /// One object, when it exists.
    pub fn one(&self, id: &ObjectId) -> Result<Option<&'a DynamicObject>, Stop> {
        Ok(self.look(Look::One(id.clone()))?.first().map(Arc::as_ref))
    }

    /// Whether an object exists; `None` when the operator may not ask, at all or for this one: then what was found has no
    /// name.
    pub fn exists(&self, id: &ObjectId) -> Result<Option<bool>, Stop> {
        if self.hidden.contains(&id.kind) {
            return Ok(None);
        }
        let found = self.one(id)?;
        let unknown = found.is_some_and(|object| object.metadata.name.is_none());
        Ok((!unknown).then_some(found.is_some()))
    }

    fn look(&self, look: Look) -> Result<&'a [Arc<DynamicObject>], Stop> {
        let kind = match &look {
            Look::List { kind, .. } => kind,
            Look::One(id) => &id.kind,
        };
        if self.hidden.contains(kind) {
            let message = format!(
                "the operator may not get, list and watch {}.{} of the cluster, at which this action must look first: set the chart's value clusterReads.enabled: true",
                kind.plural, kind.group
            );
            return Err(Stop::NotYet(Refusal::new("MayNotLook", message), MAY_NOT_LOOK_AGAIN));
        }
        self.found.get(&look).map(Vec::as_slice).ok_or(Stop::Look(look))
    }

    /// The first eight characters of the mitigation's uid: the end of the names of what it makes.
    pub fn short_uid(&self) -> &'a str {
        self.uid.get(..8).unwrap_or(self.uid)
    }

    /// Name of an object that the mitigation makes.
    pub fn made_name(&self) -> String {
        format!("mit-{}", self.short_uid())
    }
}

/// One object that the mitigation changes or makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The object.
    pub id: ObjectId,
    /// What is done to it.
    pub asked: Asked,
}

/// What is done to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// Fields of it change.
    Change(Vec<Change>),
    /// It is made, with this `spec`. It is deleted on release.
    Create(Value),
}

impl Part {
    /// The fields that change.
    pub fn changes(&self) -> &[Change] {
        match &self.asked {
            Asked::Change(changes) => changes,
            Asked::Create(_) => &[],
        }
    }

    /// Fields of an object change.
    pub fn change(id: &ObjectId, changes: Vec<Change>) -> Part {
        Part { id: id.clone(), asked: Asked::Change(changes) }
    }

    /// An object is made.
    pub fn create(id: ObjectId, spec: Value) -> Part {
        Part { id, asked: Asked::Create(spec) }
    }
}

/// How an object goes back on release.
#[derive(Clone, Debug, PartialEq)]
pub enum Undo {
    /// These values, one for each held field, are written; `None` removes the field. Usually the prior ones.
    Restore(Vec<Option<Value>>),
    /// These values first, as one step of several; it is asked again when they are reached.
    Step(Vec<Option<Value>>),
    /// Nothing yet.
    Wait {
        /// When to look again at the latest.
        until: Timestamp,
        /// What is awaited.
        what: String,
    },
    /// This first: a JSON Patch of the object's status.
    Status(Value),
    /// The object is deleted.
    Delete,
    /// It cannot go back; the value stays.
    Leave(String),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::mitigation::{ALL, patch::tests::object, scalable};

    /// A namespace as a test sees it: a target, and the other objects that are there.
    pub(crate) struct Stage {
        pub(crate) target: DynamicObject,
        id: ObjectId,
        others: Vec<DynamicObject>,
        pub(crate) touched: Vec<ObjectId>,
        pub(crate) applied: Option<Timestamp>,
        pub(crate) now: Timestamp,
        pub(crate) incident: Option<&'static str>,
        pub(crate) commander: Option<&'static str>,
        pub(crate) holders: HashSet<String>,
        pub(crate) hidden: HashSet<TargetKind>,
    }

    fn kind_of(object: &DynamicObject) -> TargetKind {
        let kind = &object.types.as_ref().expect("objects of tests say what they are").kind;
        ALL.iter()
            .find(|known| known.kind == kind)
            .copied()
            .or_else(|| scalable::known(None, kind))
            .unwrap_or_else(|| panic!("{kind} is no known kind"))
    }

    fn has_labels(object: &DynamicObject, selector: &str) -> bool {
        let labels = object.metadata.labels.clone().unwrap_or_default();
        selector.split(',').all(|term| {
            term.split_once('=').is_some_and(|(key, value)| labels.get(key).is_some_and(|v| v == value))
        })
    }

    impl Stage {
        pub(crate) fn new(target: Value) -> Stage {
            let target = object(target);
            let id = ObjectId::of(kind_of(&target), &target);
            let now = "2026-11-23T10:00:00Z".parse().unwrap();
            let others = Vec::new();
            let touched = Vec::new();
            Stage {
                target,
                id,
                others,
                touched,
                applied: None,
                now,
                incident: None,
                commander: None,
                holders: HashSet::new(),
                hidden: HashSet::new(),
            }
        }

        pub(crate) fn with(mut self, other: Value) -> Stage {
            self.others.push(object(other));
            self
        }

        /// Asks until everything that is asked for was looked at.
        pub(crate) fn ask<T>(&self, asked: impl Fn(&Scene<'_>) -> Result<T, Stop>) -> Result<T, Refusal> {
            let mut found = Found::new();
            loop {
                let scene = Scene {
                    uid: "0123456789",
                    namespace: "shop",
                    name: "mitigation",
                    incident: self.incident,
                    commander: self.commander,
                    id: &self.id,
                    target: &self.target,
                    touched: &self.touched,
                    applied: self.applied,
                    now: self.now,
                    found: &found,
                    holders: &self.holders,
                    hidden: &self.hidden,
                };
                match asked(&scene) {
                    Ok(answer) => return Ok(answer),
                    Err(Stop::Refused(refusal) | Stop::NotYet(refusal, _)) => return Err(refusal),
                    Err(Stop::Look(look)) => {
                        let seen = self.others.iter().filter(|other| match &look {
                            Look::One(id) => ObjectId::of(kind_of(other), other) == *id,
                            Look::List { kind, labels } => {
                                kind_of(other) == *kind
                                    && labels.as_ref().is_none_or(|labels| has_labels(other, labels))
                            }
                        });
                        let seen = seen.cloned().map(Arc::new).collect();
                        assert!(found.insert(look, seen).is_none(), "asked twice");
                    }
                }
            }
        }
    }
}
