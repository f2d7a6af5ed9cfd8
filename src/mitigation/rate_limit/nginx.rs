//! ingress-nginx: annotations of the Ingress.

use super::{Part, RateLimit, RateScope, RateUnit, Scene, Stop, field};
use crate::mitigation::{Change, patch::pointer};
use serde_json::json;

const PER_SECOND: &str = "nginx.ingress.kubernetes.io/limit-rps";
const PER_MINUTE: &str = "nginx.ingress.kubernetes.io/limit-rpm";
const BURST: &str = "nginx.ingress.kubernetes.io/limit-burst-multiplier";

fn path(annotation: &str) -> String {
    pointer(&["metadata", "annotations", annotation])
}

/// What a budget counts for.
pub fn meaning(limit: &RateLimit, scene: &Scene<'_>) -> String {
    let stated = field(scene.target, &path(BURST)).and_then(|v| v.as_str()?.trim().parse::<i64>().ok());
    let burst = match stated {
        // What is no number counts for nothing.
        None => "five times as many".to_owned(),
        Some(1) => "as many".to_owned(),
        Some(times) if times > 1 => format!("{times} times as many"),
        Some(_) => "none".to_owned(),
    };
    format!(
        "each client address may send {} to each replica of ingress-nginx, and {burst} in a burst; more is answered 503",
        limit.rate()
    )
}

/// The annotations. A limit in the other unit would hold beside this one, so it is taken away meanwhile.
pub fn parts(limit: &RateLimit, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
    let counts = "it counts for each client address in each of its replicas";
    limit.check_scope("ingress-nginx", RateScope::PerClient, counts)?;
    let (ours, other) = match limit.per {
        RateUnit::Second => (PER_SECOND, PER_MINUTE),
        RateUnit::Minute => (PER_MINUTE, PER_SECOND),
        RateUnit::Hour => {
            return Err(Stop::refuse(
                "UnitNotSupported",
                "ingress-nginx limits by the second or by the minute: state the rate in one of these",
            ));
        }
    };
    let mut changes = vec![Change::set(scene.target, path(ours), json!(limit.requests.to_string()))];
    if field(scene.target, &path(other)).is_some() {
        changes.push(Change::remove(scene.target, path(other)));
    }
    Ok(vec![Part::change(scene.id, changes)])
}

/// What to know before.
pub fn warnings(scene: &Scene<'_>) -> Vec<String> {
    let mut warnings = vec![
        "ingress-nginx is retired and gets no fixes any more; behind a proxy that hides client addresses, all clients are one".to_owned(),
    ];
    if let Some(whitelist) = field(scene.target, &path("nginx.ingress.kubernetes.io/limit-whitelist"))
        .as_ref()
        .and_then(|v| v.as_str())
    {
        warnings.push(format!("clients in {whitelist} are not limited (limit-whitelist)"));
    }
    warnings
}
