//! incident-operator makes an incident a Kubernetes resource: it starts the clocks, stops the bleeding, keeps
//! the record and yields a postmortem.
//!
//! `decide` and `mitigation` hold the rules and are pure; `controller` is the only module that talks to the
//! API server for reconciles.

#![forbid(unsafe_code)]

pub mod api;
pub mod authority;
pub mod cli;
pub mod config;
pub mod controller;
pub mod crds;
pub mod decide;
pub mod fence;
mod health;
pub mod lease;
pub mod manifests;
pub mod metrics;
pub mod mitigation;
pub mod mutants;
pub mod notify;
pub mod reference;
pub mod telemetry;
