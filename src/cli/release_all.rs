//! `release-all`: before the operator goes, everything that it changed goes back. Needs a cluster, and an operator
//! that runs: this command only asks for the releases and waits for them.

use crate::{
    api::{Mitigation, MitigationPhase},
    controller::client,
    decide::conditions::status as status_of,
    metrics::Metrics,
};
use anyhow::Context as _;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Time between looks at what is left.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Objects in one page of a list.
const PAGE: u32 = 200;

/// What is asked for.
pub struct Options {
    /// Only this namespace; all of them when absent.
    pub namespace: Option<String>,
    /// Only say what is there.
    pub dry_run: bool,
    /// How long the releases may take.
    pub timeout: Duration,
}

/// Says what is in force and, unless that is all that was asked for, deletes every mitigation, which releases it, and
/// waits until they are gone. True when nothing is left in force.
pub async fn run(config: &kube::Config, options: &Options) -> anyhow::Result<bool> {
    let client = client::requests(config, Arc::new(Metrics::default()), None)?;
    let api: Api<Mitigation> = match &options.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let all = list(&api).await?;
    if options.dry_run {
        print!("{}", standing(&all));
        return Ok(!all.iter().any(in_force));
    }
    let end = Instant::now() + options.timeout;
    let mut left = all;
    let mut told = usize::MAX;
    while !left.is_empty() {
        for mitigation in left.iter().filter(|m| m.metadata.deletion_timestamp.is_none()) {
            ask_for_release(&client, mitigation).await?;
        }
        if left.len() != told {
            told = left.len();
            println!("{told} left");
        }
        if Instant::now() >= end {
            print!("{}", unfinished(&left, options.timeout));
            return Ok(false);
        }
        tokio::time::sleep(LOOK_PERIOD).await;
        left = list(&api).await?;
    }
    println!("every mitigation is released and gone");
    Ok(true)
}

async fn ask_for_release(client: &kube::Client, mitigation: &Mitigation) -> anyhow::Result<()> {
    let (namespace, name) = (mitigation.namespace().unwrap_or_default(), mitigation.name_any());
    let api: Api<Mitigation> = Api::namespaced(client.clone(), &namespace);
    let preconditions = Preconditions { uid: mitigation.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&name, &params).await {
        Ok(_) => println!("releasing {}", describe(mitigation)),
        // Gone, or another of the same name, which the next look shows.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot delete mitigation {namespace}/{name}"));
        }
    }
    Ok(())
}

async fn list(api: &Api<Mitigation>) -> anyhow::Result<Vec<Mitigation>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = match api.list(&params).await {
            // The kind is not there, so nothing of it is.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(all),
            other => other.context("cannot list mitigations")?,
        };
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

fn in_force(mitigation: &Mitigation) -> bool {
    !mitigation.status.as_ref().and_then(|status| status.phase).is_some_and(MitigationPhase::is_ended)
}

fn describe(mitigation: &Mitigation) -> String {
    let template = &mitigation.spec.template;
    let phase = mitigation.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
    let incident = mitigation.spec.incident_ref.as_ref();
    format!(
        "{}/{}: {} of {}/{}, {phase}{}",
        mitigation.namespace().unwrap_or_default(),
        mitigation.name_any(),
        template.action.name().as_str(),
        template.target_ref.kind,
        template.target_ref.name,
        incident.map(|i| format!(", incident {}", i.name)).unwrap_or_default(),
    )
}

/// What is in force, and what to do about it before the operator goes.
fn standing(all: &[Mitigation]) -> String {
    let active: Vec<&Mitigation> = all.iter().filter(|m| in_force(m)).collect();
    if active.is_empty() {
        return "no mitigation is in force\n".to_owned();
    }
    let mut text = format!(
        "{} in force. Without the operator they stay as they are and nobody undoes them:\n",
        if active.len() == 1 {
            "1 mitigation is".to_owned()
        } else {
            format!("{} mitigations are", active.len())
        }
    );
    for mitigation in &active {
        text.push_str(&format!("  {}\n", describe(mitigation)));
    }
    text.push_str(
        "Release them while the operator runs, and try again:\n  \
         kubectl delete mitigations --all --all-namespaces\n\
         or leave them as they are: helm uninstall --no-hooks, and see docs/reliability.md for how to undo them by hand\n",
    );
    text
}

/// What did not end in time, each with what it says of itself.
fn unfinished(left: &[Mitigation], limit: Duration) -> String {
    let mut text = format!("not released within {limit:?}; is the operator running?\n");
    for mitigation in left {
        let conditions = mitigation.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let why = conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .filter(|_| status_of(conditions, "Ready") != crate::api::ConditionStatus::True);
        let why = why.map(|c| format!(": {}", c.message)).unwrap_or_default();
        text.push_str(&format!("  {}{why}\n", describe(mitigation)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mitigation(name: &str, phase: &str) -> Mitigation {
        serde_json::from_value(json!({
            "apiVersion": "incident-operator.dev/v1alpha1", "kind": "Mitigation",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "reason": "r", "incidentRef": {"name": "checkout"},
                "targetRef": {"kind": "Deployment", "name": "importer"}, "scale": {"replicas": 0},
            },
            "status": {"phase": phase, "conditions": [{
                "type": "Ready", "status": "False", "reason": "R", "message": "words of its own",
                "lastTransitionTime": "2026-01-05T10:00:00Z",
            }]},
        }))
        .expect("a mitigation")
    }

    #[test]
    fn what_is_in_force_is_named_with_how_to_release_it_and_what_has_ended_is_not() {
        let all = [mitigation("stop", "Active"), mitigation("done", "Released")];
        let text = standing(&all);
        assert!(text.starts_with("1 mitigation is in force"), "{text}");
        assert!(
            text.contains("shop/stop: scale of Deployment/importer, Active, incident checkout"),
            "{text}"
        );
        assert!(!text.contains("done") && text.contains("kubectl delete mitigations --all"), "{text}");
        assert_eq!(standing(&all[1..]), "no mitigation is in force\n");
    }

    #[test]
    fn what_does_not_end_in_time_says_why() {
        let text = unfinished(&[mitigation("stop", "Releasing")], Duration::from_secs(5));
        assert!(text.contains("is the operator running?") && text.contains("words of its own"), "{text}");
    }
}
