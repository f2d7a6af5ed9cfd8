//! Waiting for conditions, each with a deadline and a message that says what was seen last.

use kube::api::Api;
use kube::{Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How long a state may take that should come at once: long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(25);

/// What a probe found: `Some`/`Ok` ends the waiting, `None`/`Err(what was seen)` goes on.
pub trait Finding {
    /// What is waited for.
    type Value;
    /// The value, or what was seen instead.
    fn settle(self) -> Result<Self::Value, Option<String>>;
}

impl<T> Finding for Option<T> {
    type Value = T;
    fn settle(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T> Finding for Result<T, String> {
    type Value = T;
    fn settle(self) -> Result<T, Option<String>> {
        self.map_err(Some)
    }
}

/// Asks the probe until it has an answer, and panics with the description and what was seen last when the
/// time is over.
#[track_caller]
pub fn wait_for<F: Finding>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> F,
) -> impl Future<Output = F::Value> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + limit;
        loop {
            let seen = match probe().await.settle() {
                Ok(value) => return value,
                Err(seen) => seen.unwrap_or_else(|| "nothing".to_owned()),
            };
            assert!(Instant::now() < end, "{caller}: no {what} within {limit:?}; seen last: {seen}");
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Waits until an object exists and is as wanted, and returns it.
#[track_caller]
pub fn wait_status<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    holds: impl Fn(&K) -> bool,
) -> impl Future<Output = K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    wait_for(PATIENCE, what, async move || match api.get_opt(name).await {
        Ok(Some(object)) if holds(&object) => Ok(object),
        Ok(Some(object)) => Err(readable(object)),
        Ok(None) => Err(format!("{name} does not exist")),
        Err(error) => Err(error.to_string()),
    })
}

/// Waits until an object is gone.
#[track_caller]
pub fn wait_gone<K>(api: &Api<K>, name: &str) -> impl Future<Output = ()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    wait_for(PATIENCE, "end of the object", async move || match api.get_opt(name).await {
        Ok(None) => Ok(()),
        Ok(Some(object)) => Err(readable(object)),
        Err(error) => Err(error.to_string()),
    })
}

/// Panics if something does not stay true for the whole time.
#[track_caller]
pub fn holds_for(
    time: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<(), String>,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let start = Instant::now();
        while start.elapsed() < time {
            if let Err(seen) = probe().await {
                panic!("{caller}: {what} did not hold after {:?}: {seen}", start.elapsed());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn readable<K: Resource + Serialize>(mut object: K) -> String {
    // They are long and hide the rest.
    object.managed_fields_mut().clear();
    serde_json::to_string_pretty(&object).unwrap_or_else(|error| error.to_string())
}

/// Says that something is not tested here and why; `make e2e` counts these at the end.
pub fn skipped(what: &str, why: &str) {
    use std::io::Write;
    let line = format!("{what}: {}", why.trim());
    println!("SKIPPED {line}");
    let path = super::cluster::Cluster::dir().join("skipped");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).expect("E2E_DIR is writable");
}
