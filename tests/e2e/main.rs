//! End-to-end tests on a real control plane. `make e2e` starts one, installs the chart in it and runs these;
//! without one they fail at once and say so.
//!
//! Every test has a namespace and an operator process of its own, so that they run side by side.

mod action_block_writes;
mod action_feature_flag;
mod action_freeze;
mod action_isolate;
mod action_manual;
mod action_pause_rollout;
mod action_rate_limit;
mod action_rollback;
mod action_scale;
mod action_scale_listed;
mod action_suspend;
mod admission_authority;
mod admission_install;
mod admission_locks;
mod admission_matrix;
mod admission_signature;
mod chart;
mod config;
mod every_action;
mod evidence;
mod flux;
mod gitops;
mod harness;
mod incident;
mod incident_edits;
mod incident_input;
mod mitigation;
mod mitigation_cost;
mod mitigation_crash;
mod mitigation_others;
mod mitigation_story;
mod notify;
mod policy;
mod policy_approval;
mod policy_rights;
mod postmortem;
mod postmortem_chase;
mod postmortem_git;
mod runtime;
mod schema;
mod schema_incident;
mod schema_mitigation;
mod support;
mod timeline;
