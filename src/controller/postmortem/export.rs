//! The Markdown of a postmortem in its ConfigMap: worked out when something that goes into it has changed, one at a time
//! and beside everything else, and tried again where the API server refuses it.

use super::super::{Context, Error, Key, error::refuses, status::FIELD_MANAGER};
use crate::{
    api::{LocalRef, MANAGED_BY, MANAGED_BY_LABEL, Postmortem, PostmortemExport, names},
    decide::{archive::Archived, markdown},
};
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// Key of the Markdown in the ConfigMap.
const MARKDOWN_KEY: &str = "postmortem.md";
/// Label that names the postmortem of such a ConfigMap.
pub(super) const POSTMORTEM_LABEL: &str = "incident-operator.dev/postmortem";
/// Wait before a refused one is tried again; doubled each time, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(15);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What is known of the Markdown of each postmortem. In memory alone: a process that starts renders each once.
pub struct Exports {
    known: Mutex<HashMap<Key, Known>>,
    /// A long document takes a core for a while.
    rendering: Semaphore,
}

impl Default for Exports {
    fn default() -> Self {
        Exports { known: Mutex::default(), rendering: Semaphore::new(1) }
    }
}

#[derive(Default)]
struct Known {
    /// Hash of what went into the text, and of the text.
    rendered: Option<(String, String)>,
    /// How often it was refused in a row.
    refusals: u32,
    /// The resourceVersion that its ConfigMap got here, and when.
    written: Option<(Option<String>, Instant)>,
    /// Its ConfigMap is not as it was written, or not there any more.
    is_lost: bool,
}

impl Exports {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        // Each entry is whole after each operation.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets one that is gone.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// The hash of the text, when it was worked out of just this.
    fn rendered(&self, key: &Key, input: &str) -> Option<String> {
        let known = self.lock();
        let (of, sha256) = known.get(key)?.rendered.as_ref()?;
        (of == input).then(|| sha256.clone())
    }

    fn remember(&self, key: &Key, input: String, sha256: String) {
        self.lock().entry(key.clone()).or_default().rendered = Some((input, sha256));
    }

    fn wrote(&self, key: &Key, version: Option<String>) {
        let mut known = self.lock();
        let known = known.entry(key.clone()).or_default();
        known.written = Some((version, Instant::now()));
        known.refusals = 0;
        known.is_lost = false;
    }

    /// Takes in the resourceVersion of the ConfigMap, or that there is none. Answers whether it is to be written again.
    pub(super) fn found(&self, key: &Key, version: Option<&str>) -> bool {
        let mut known = self.lock();
        let known = known.entry(key.clone()).or_default();
        // Of what another process wrote it is not known whether somebody changed it.
        let is_changed =
            |version| known.written.as_ref().is_some_and(|(wrote, _)| wrote.as_deref() != Some(version));
        known.is_lost = version.is_none_or(is_changed);
        known.is_lost
    }

    /// Whether it is to be written again, and how long that waits: somebody may change it as fast as we do.
    fn lost(&self, key: &Key) -> Option<Duration> {
        let known = self.lock();
        let known = known.get(key).filter(|known| known.is_lost)?;
        Some(known.written.as_ref().map_or(Duration::ZERO, |(_, at)| FIRST_WAIT.saturating_sub(at.elapsed())))
    }

    /// Counts a refusal and answers how long to wait.
    fn refused(&self, key: &Key) -> Duration {
        let mut known = self.lock();
        let known = known.entry(key.clone()).or_default();
        let wait = FIRST_WAIT.saturating_mul(1 << known.refusals.min(10)).min(LONGEST_WAIT);
        known.refusals += 1;
        wait
    }
}

/// What became of the Markdown.
pub(super) enum Exported {
    /// It is as it was.
    AsBefore,
    /// It was written here.
    Written(PostmortemExport),
    /// Somebody changed or deleted it again a moment ago. When it is written again.
    Waits(Timestamp),
    /// The API server refuses it, for what these words say. When it is tried again.
    Refused(String, Timestamp),
}

/// Keeps the Markdown of a postmortem, whose status is the new one.
pub(super) async fn keep(
    ctx: &Context,
    key: &Key,
    postmortem: &Postmortem,
    now: Timestamp,
) -> Result<Exported, Error> {
    let lost = ctx.exports.lost(key);
    if let Some(wait) = lost.filter(|wait| !wait.is_zero()) {
        return Ok(Exported::Waits(now.checked_add(wait).unwrap_or(now)));
    }
    // What somebody changed or deleted is made anew.
    let known = postmortem.status.as_ref().and_then(|s| s.export.as_ref()).filter(|_| lost.is_none());
    let input = input(postmortem);
    if known.is_some_and(|known| ctx.exports.rendered(key, &input).as_ref() == Some(&known.sha256)) {
        return Ok(Exported::AsBefore);
    }
    let text = render(ctx, key, postmortem.clone()).await?;
    let sha256 = names::sha256_hex(&text);
    if known.is_some_and(|known| known.sha256 == sha256) {
        ctx.exports.remember(key, input, sha256);
        return Ok(Exported::AsBefore);
    }
    match write(ctx, key, postmortem, &text).await? {
        Ok(name) => {
            ctx.exports.remember(key, input, sha256.clone());
            Ok(Exported::Written(PostmortemExport { config_map_ref: LocalRef { name }, sha256 }))
        }
        Err(words) => {
            let again = now.checked_add(ctx.exports.refused(key)).unwrap_or(now);
            Ok(Exported::Refused(words, again))
        }
    }
}

/// A hash of all that goes into the text.
fn input(postmortem: &Postmortem) -> String {
    let status = postmortem.status.as_ref();
    let of_status = status.map(|s| json!([s.incident, s.timeline, s.review, s.durations]));
    let metadata = &postmortem.metadata;
    names::sha256_hex(&json!([metadata.uid, metadata.generation, of_status]).to_string())
}

async fn render(ctx: &Context, key: &Key, postmortem: Postmortem) -> Result<String, Error> {
    // Never closed.
    let _turn = ctx.exports.rendering.acquire().await;
    let archived = archived(ctx, key, &postmortem).await?;
    let rendered =
        tokio::task::spawn_blocking(move || markdown::render(&postmortem, archived.records())).await;
    rendered.map_err(|error| Error::Panicked(error.to_string()))
}

/// Reads the older entries of the timeline. It is done when there is something to render, so they are kept nowhere: their
/// ConfigMaps never change, and how many there are is part of what is rendered. One that is gone, or that the API server
/// does not show us, is left out, and the document says how many entries it lacks.
async fn archived(ctx: &Context, key: &Key, postmortem: &Postmortem) -> Result<Archived, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let mut archived = Archived::default();
    let Some(incident) = postmortem.status.as_ref().and_then(|s| s.incident.as_ref()) else {
        return Ok(archived);
    };
    for names in Archived::places(incident) {
        if archived.is_full() {
            break;
        }
        for name in names {
            let what = || format!("reading the archived timeline {}/{name}", key.namespace);
            match api.get_opt(&name).await {
                Ok(Some(map)) if archived.add(incident, &map) => break,
                Ok(_) => {}
                Err(kube::Error::Api(status)) if refuses(status.code) => {}
                Err(error) => return Err(Error::api(what())(error)),
            }
        }
    }
    Ok(archived)
}

/// Writes the Markdown and answers where. The inner error is why it cannot be written, and what to do.
async fn write(
    ctx: &Context,
    key: &Key,
    postmortem: &Postmortem,
    text: &str,
) -> Result<Result<String, String>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let known =
        postmortem.status.as_ref().and_then(|s| s.export.as_ref()).map(|e| e.config_map_ref.name.clone());
    let first = names::joined(&key.name, "postmortem");
    let second =
        names::hashed(&key.name, "postmortem", postmortem.metadata.uid.as_deref().unwrap_or_default());
    let mut taken = Vec::new();
    for name in known.into_iter().chain([first, second]) {
        if taken.contains(&name) {
            continue;
        }
        match apply(&api, key, postmortem, &name, text).await? {
            Ok(version) => {
                ctx.exports.wrote(key, version);
                return Ok(Ok(name));
            }
            Err(words) => {
                // Whoever may not write one may not read one either, where a right is missing.
                let there = api.get_opt(&name).await.ok().flatten();
                let is_ours =
                    |map: &ConfigMap| map.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY);
                if there.as_ref().is_none_or(is_ours) {
                    return Ok(Err(format!(
                        "the Markdown cannot be written to config map {name}: the API server said: {words}. If a right is \
                         missing, add the namespace to the chart's value `namespaces`, or bind ClusterRole \
                         incident-operator-recorder to the operator there"
                    )));
                }
                taken.push(name);
            }
        }
    }
    Ok(Err(format!(
        "the Markdown cannot be written: config maps {} are somebody else's: delete or rename one",
        taken.join(" and ")
    )))
}

/// Answers the resourceVersion. The inner error is the API server's refusal, in its words.
async fn apply(
    api: &Api<ConfigMap>,
    key: &Key,
    postmortem: &Postmortem,
    name: &str,
    text: &str,
) -> Result<Result<Option<String>, String>, Error> {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": {
                MANAGED_BY_LABEL: MANAGED_BY,
                POSTMORTEM_LABEL: names::label_value(&postmortem.name_any()),
            },
        },
        "data": {MARKDOWN_KEY: text},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(name, &params, &Patch::Apply(object)).await {
        Ok(map) => Ok(Ok(map.metadata.resource_version)),
        Err(kube::Error::Api(status)) if refuses(status.code) => Ok(Err(status.message.clone())),
        Err(error) => Err(Error::api(format!("writing the Markdown of postmortem {key}"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PostmortemSpec, PostmortemStatus};

    #[test]
    fn a_refused_one_is_tried_again_at_first_soon_and_then_every_ten_minutes() {
        let (exports, key) = (Exports::default(), Key::new("shop", "pm"));
        let waits: Vec<_> = (0..8).map(|_| exports.refused(&key).as_secs()).collect();
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 600, 600]);
        exports.wrote(&key, Some("1".into()));
        assert_eq!(exports.refused(&key), FIRST_WAIT, "it was written in between");
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_changes_or_deletes_is_written_again_and_not_as_often_as_they_like() {
        let (exports, key) = (Exports::default(), Key::new("shop", "pm"));
        assert!(!exports.found(&key, Some("1")), "nobody knows who wrote it");
        assert!(exports.found(&key, None));
        assert_eq!(exports.lost(&key), Some(Duration::ZERO));
        exports.wrote(&key, Some("2".into()));
        assert!(!exports.found(&key, Some("2")), "our own");
        assert_eq!(exports.lost(&key), None);
        assert!(exports.found(&key, Some("3")));
        assert_eq!(exports.lost(&key), Some(FIRST_WAIT));
        tokio::time::advance(FIRST_WAIT).await;
        assert_eq!(exports.lost(&key), Some(Duration::ZERO));
    }

    #[test]
    fn what_does_not_go_into_the_text_does_not_make_it_worth_rendering() {
        let mut pm = Postmortem::new("pm", PostmortemSpec::default());
        let status = |json| -> PostmortemStatus { serde_json::from_value(json).unwrap() };
        pm.metadata.generation = Some(1);
        pm.status = Some(status(json!({"missingCount": 3})));
        let before = input(&pm);
        pm.status = Some(status(json!({"missingCount": 2, "warnings": ["x"], "observedGeneration": 1})));
        assert_eq!(input(&pm), before);
        let review = json!({"authenticated": false, "time": "2026-11-20T10:00:00Z"});
        let entry = json!({"time": "2026-11-20T10:00:00Z", "recordedTime": "2026-11-20T10:00:00Z", "reason": "Note", "message": "m"});
        for changed in
            [json!({"review": review}), json!({"timeline": [entry]}), json!({"incident": {"title": "t"}})]
        {
            pm.status = Some(status(changed.clone()));
            assert_ne!(input(&pm), before, "{changed}");
        }
        pm.status = Some(status(json!({})));
        pm.metadata.generation = Some(2);
        assert_ne!(input(&pm), before);
    }
}
