//! MitigationPolicies: what may be done in the namespaces that they select. Every policy that selects a namespace
//! must allow a mitigation there.
//!
//! Each rule is one function of a policy and of what is asked for, and answers why not: a reason and a message. A
//! policy that cannot be understood allows nothing where it holds, and holds everywhere when that cannot be told.

pub mod approval;
pub mod limits;
mod status;

pub use status::{problem, status};

use status::selects_who_knows_what;

use crate::{
    api::{
        Action, ActionName, EvidencePolicy, MitigationPolicy, MitigationPolicySpec, MitigationTemplate,
        OnExpire, Selector,
    },
    mitigation::{
        Refusal,
        selector::{Labels, selects},
    },
};
use std::{sync::Arc, time::Duration};

/// The policies that hold in one namespace.
#[derive(Clone, Debug)]
pub enum InForce {
    /// It cannot be told yet, and why.
    Unknown(String),
    /// Policies are not looked at: the operator may not read them.
    NotRead,
    /// These.
    Known(Vec<Arc<MitigationPolicy>>),
}

impl InForce {
    /// The policies, as far as they are known.
    pub fn policies(&self) -> &[Arc<MitigationPolicy>] {
        match self {
            InForce::Known(policies) => policies,
            InForce::Unknown(_) | InForce::NotRead => &[],
        }
    }
}

/// Of all policies those that hold in a namespace with these labels.
pub fn in_force(all: Vec<Arc<MitigationPolicy>>, labels: &Labels) -> Vec<Arc<MitigationPolicy>> {
    let holds = |policy: &Arc<MitigationPolicy>| {
        selects_who_knows_what(&policy.spec) || matches(policy.spec.namespace_selector.as_ref(), labels)
    };
    let mut found: Vec<_> = all.into_iter().filter(holds).collect();
    found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    found
}

/// Whether the labels of the namespace decide about a policy.
pub fn needs_labels(policy: &MitigationPolicySpec) -> bool {
    let selector = policy.namespace_selector.as_ref();
    selector.is_some_and(|s| {
        s.match_labels.as_ref().is_some_and(|labels| !labels.is_empty()) || !s.match_expressions.is_empty()
    })
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The template.
    pub template: &'a MitigationTemplate,
    /// The target's labels, once it was read.
    pub labels: Option<&'a Labels>,
    /// The evidence that will be kept.
    pub evidence: EvidencePolicy,
}

type Rule = fn(&MitigationPolicySpec, &Asked<'_>) -> Option<(&'static str, String)>;

/// The rules, in the order in which they are told.
const RULES: [Rule; 7] = [understood, paused, action, protected, target, duration, evidence];

/// Why a mitigation may not be made, by the first policy that does not allow it.
pub fn refusal(policies: &InForce, asked: &Asked<'_>) -> Option<Refusal> {
    if let Some(refusal) = named(policies, asked.template) {
        return Some(refusal);
    }
    policies.policies().iter().find_map(|policy| {
        let (reason, message) = RULES.iter().find_map(|rule| rule(&policy.spec, asked))?;
        Some(Refusal::new(reason, format!("MitigationPolicy {} {message}", name(policy))))
    })
}

/// Why an object may not be touched, by the first policy that protects it.
pub fn protection(policies: &InForce, kind: &str, object: &str) -> Option<Refusal> {
    policies.policies().iter().find_map(|policy| {
        let (reason, message) = protects(&policy.spec, kind, object)?;
        Some(Refusal::new(reason, format!("MitigationPolicy {} {message}", name(policy))))
    })
}

/// Whether the policy that the mitigation names is in force and allows this action on this target: by its use nobody
/// releases what it does not allow. A pause, and how long and with which evidence something may be made, say nothing
/// of a release.
pub fn covers_release(policies: &InForce, template: &MitigationTemplate, labels: Option<&Labels>) -> bool {
    let Some(wanted) = template.policy_ref.as_ref() else { return false };
    // The evidence is not asked about.
    let asked = Asked { template, labels, evidence: EvidencePolicy::None };
    let rules: [Rule; 4] = [understood, action, protected, target];
    let named = policies.policies().iter().find(|policy| name(policy) == wanted.name);
    named.is_some_and(|policy| {
        let is_known = labels.is_some() || policy.spec.target_selector.is_none();
        is_known && rules.iter().all(|rule| rule(&policy.spec, &asked).is_none())
    })
}

/// The policy that the mitigation names must hold here: whoever may use it may use no other.
fn named(policies: &InForce, template: &MitigationTemplate) -> Option<Refusal> {
    let wanted = &template.policy_ref.as_ref()?.name;
    match policies {
        InForce::Unknown(_) => None,
        InForce::NotRead => Some(Refusal::new(
            "PolicyNotRead",
            format!(
                "the operator may not read MitigationPolicy {wanted} (the chart's value clusterReads.enabled): \
                 leave policyRef out in a new mitigation"
            ),
        )),
        InForce::Known(known) if known.iter().any(|policy| name(policy) == *wanted) => None,
        InForce::Known(_) => Some(Refusal::new(
            "PolicyNotInForce",
            format!(
                "MitigationPolicy {wanted} does not exist or does not select this namespace: name one that does, \
                 or leave policyRef out, in a new mitigation"
            ),
        )),
    }
}

// ---- rules ---------------------------------------------------------------------------------------------------

fn understood(policy: &MitigationPolicySpec, _: &Asked<'_>) -> Option<(&'static str, String)> {
    let (_, why) = problem(policy)?;
    Some(("PolicyInvalid", format!("cannot be understood, and so allows nothing: {why}")))
}

fn paused(policy: &MitigationPolicySpec, _: &Asked<'_>) -> Option<(&'static str, String)> {
    (policy.paused == Some(true)).then(|| {
        let message = "pauses all new mitigations here: nothing was changed, and nothing will be when the pause is \
                       lifted; make a new mitigation then";
        ("Paused", message.to_owned())
    })
}

fn action(policy: &MitigationPolicySpec, asked: &Asked<'_>) -> Option<(&'static str, String)> {
    let action = asked.template.action.name();
    let allowed = policy.actions.is_empty() || policy.actions.contains(&action);
    (!allowed).then(|| {
        let known: Vec<_> = policy.actions.iter().map(|action| action.as_str()).collect();
        ("ActionNotAllowed", format!("allows {} here, not {}", known.join(", "), action.as_str()))
    })
}

fn protected(policy: &MitigationPolicySpec, asked: &Asked<'_>) -> Option<(&'static str, String)> {
    let target = &asked.template.target_ref;
    protects(policy, &target.kind, &target.name)
}

fn protects(policy: &MitigationPolicySpec, kind: &str, name: &str) -> Option<(&'static str, String)> {
    let hit = policy.protected.iter().find(|protected| {
        protected.kind == kind && protected.name.as_ref().is_none_or(|protected| protected == name)
    })?;
    let what = hit.name.as_ref().map_or(format!("every {}", hit.kind), |name| format!("{}/{name}", hit.kind));
    Some(("TargetProtected", format!("protects {what}")))
}

fn target(policy: &MitigationPolicySpec, asked: &Asked<'_>) -> Option<(&'static str, String)> {
    let labels = asked.labels?;
    (!matches(policy.target_selector.as_ref(), labels)).then(|| {
        let target = &asked.template.target_ref;
        let message =
            format!("does not select {}/{} by its labels (targetSelector)", target.kind, target.name);
        ("TargetNotAllowed", message)
    })
}

fn duration(policy: &MitigationPolicySpec, asked: &Asked<'_>) -> Option<(&'static str, String)> {
    let (text, longest) = policy.max_duration.as_ref().and_then(|d| Some((&d.0, d.get()?)))?;
    let template = asked.template;
    let stated = template.expires_after.as_ref().and_then(|d| d.get());
    let ends = template.on_expire == Some(OnExpire::Release);
    let fits = ends && stated.is_some_and(|stated| stated <= longest);
    (!fits).then(|| {
        let message = format!(
            "allows at most {text}: set expiresAfter to {text} or less, and onExpire to Release, in a new mitigation"
        );
        ("TooLong", message)
    })
}

fn evidence(policy: &MitigationPolicySpec, asked: &Asked<'_>) -> Option<(&'static str, String)> {
    let least = policy.evidence?;
    // Nothing is changed by the operator that could be looked at before.
    let by_hand = matches!(asked.template.action, Action::Manual(_));
    let weight = |evidence| match evidence {
        EvidencePolicy::None => 0,
        EvidencePolicy::BestEffort => 1,
        EvidencePolicy::Required => 2,
    };
    (!by_hand && weight(asked.evidence) < weight(least))
        .then(|| ("EvidenceTooLittle", format!("wants evidence: {least:?}: set it in a new mitigation")))
}

/// The longest time that all policies allow.
pub fn longest(policies: &[Arc<MitigationPolicy>]) -> Option<Duration> {
    policies.iter().filter_map(|policy| policy.spec.max_duration.as_ref()?.get()).min()
}

fn name(policy: &MitigationPolicy) -> &str {
    policy.metadata.name.as_deref().unwrap_or_default()
}

fn matches(selector: Option<&Selector>, labels: &Labels) -> bool {
    // Plain data; what cannot be written as JSON was found to be a problem before.
    selector.is_none_or(|s| serde_json::to_value(s).is_ok_and(|selector| selects(&selector, labels)))
}

fn applies<T: PartialEq>(list: &[T], value: &T) -> bool {
    list.is_empty() || list.contains(value)
}

/// Whether a rule that names actions is about this one.
fn is_about(actions: &[ActionName], action: ActionName) -> bool {
    applies(actions, &action)
}

#[cfg(test)]
mod tests;
