//! The resources that incident-operator adds to Kubernetes: types only.
//!
//! The doc comments are what `kubectl explain` prints, so each one says what the field promises, in which
//! unit, and what happens when it is left out. A type that fields refer to has an empty schema description, or
//! it would replace what the field says. `crds.rs` turns these types into the files in `crds/`.

mod action;
mod action_item;
mod common;
mod delivery;
mod incident;
mod incident_status;
mod mitigation;
pub mod names;
mod policy;
mod postmortem;
mod template;
mod timeline;

pub use action::*;
pub use action_item::*;
pub use common::*;
pub use delivery::*;
pub use incident::*;
pub use incident_status::*;
pub use mitigation::*;
pub use policy::*;
pub use postmortem::*;
pub use template::*;
pub use timeline::*;

/// The API group of every resource of this project.
pub const GROUP: &str = "incident-operator.dev";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
/// `group/version` as it stands in manifests.
pub const API_VERSION: &str = "incident-operator.dev/v1alpha1";

/// Finalizer of a Mitigation: the object stays until its effect is undone.
pub const FINALIZER: &str = "incident-operator.dev/release";
/// Label of every object whose field is held by a mitigation; the watches of targets select it.
pub const MITIGATED_LABEL: &str = "incident-operator.dev/mitigated";
/// Start of the annotation that keeps the prior value on the target; the first eight characters of the
/// Mitigation's uid follow.
pub const CAPTURE_PREFIX: &str = "incident-operator.dev/mit-";
/// Label that names the incident an object belongs to (first 63 characters of its name).
pub const INCIDENT_LABEL: &str = "incident-operator.dev/incident";
/// Label that names the entry of spec.mitigations a Mitigation was expanded from.
pub const ENTRY_LABEL: &str = "incident-operator.dev/entry";
/// Annotation with the authenticated name of who created an object; admission stamps it.
pub const REQUESTER_ANNOTATION: &str = "incident-operator.dev/requester";
/// Annotation with the authenticated name of who changed an object's spec last; admission stamps it.
pub const ACTOR_ANNOTATION: &str = "incident-operator.dev/actor";
/// Annotation with the groups of that actor, as a JSON array; admission stamps it.
pub const ACTOR_GROUPS_ANNOTATION: &str = "incident-operator.dev/actor-groups";
/// Annotation of an incident with the authenticated name of who changed its mitigations or its outcome last.
pub const MITIGATOR_ANNOTATION: &str = "incident-operator.dev/mitigations-actor";
/// Annotation with the groups of that one, as a JSON array; admission stamps it.
pub const MITIGATOR_GROUPS_ANNOTATION: &str = "incident-operator.dev/mitigations-actor-groups";
