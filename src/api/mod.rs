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
/// Annotation of a ConfigMap of the record with the uid of the incident whose timeline it holds.
pub const INCIDENT_UID_ANNOTATION: &str = "incident-operator.dev/incident-uid";
/// Label that names the entry of spec.mitigations a Mitigation was expanded from.
pub const ENTRY_LABEL: &str = "incident-operator.dev/entry";
/// Label of what the operator keeps in ConfigMaps; admission keeps everybody else from writing what bears it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "incident-operator";
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
/// Start of the annotation of an incident with who changed one entry of its mitigations last, as a JSON object with
/// `user` and `groups`; the entry's name follows. Admission stamps it, as it does those below.
pub const ENTRY_STAMP_PREFIX: &str = "entry.incident-operator.dev/";
/// The same for the roles of an incident.
pub const ROLES_STAMP: &str = "incident-operator.dev/roles-actor";
/// The same for its severity and the reason of it.
pub const SEVERITY_STAMP: &str = "incident-operator.dev/severity-actor";
/// The same for its resolution, exit criteria and outcome.
pub const RESOLUTION_STAMP: &str = "incident-operator.dev/resolution-actor";
/// The same for its impact.
pub const IMPACT_STAMP: &str = "incident-operator.dev/impact-actor";
/// The same for its checklist.
pub const CHECKLIST_STAMP: &str = "incident-operator.dev/checklist-actor";
/// The same for the state of a postmortem, with its `owner` before that change.
pub const STATE_STAMP: &str = "incident-operator.dev/state-actor";
