//! `featureFlag`: set one value of a ConfigMap that switches a feature: a whole key, or one value in the document
//! under a key.
//!
//! Only that value is captured and written; the rest belongs to other people. Of a flagd document it is known what
//! its parts mean: `Disable` makes applications use their coded default, `ForceVariant` one variant for everybody,
//! which takes the targeting rules out of the way as well.

mod consumers;

use self::consumers::Consumer;
use super::{
    CONFIG_MAP, Change, DAEMON_SET, DEPLOYMENT, Effect, Engine, Look, POD, Part, REPLICA_SET, Refusal, Rule,
    STATEFUL_SET, Scene, Stop, TargetKind,
    document::{self, Format, Place},
    field,
};
use crate::api::{ActionName, FeatureFlag, FlagMode, MANAGED_BY, MANAGED_BY_LABEL, TargetRef};
use crate::authority::{Authority, extra, on, right};
use crate::fence::{FLAG, Fence, RESTART};
use crate::mitigation::patch::pointer;
use kube::core::DynamicObject;
use serde_json::{Value, json};

/// Longest value that is captured. Annotations of an object may hold 256 KiB in all; a flag is short.
const MAX_PRIOR_BYTES: usize = 16 * 1024;
/// State of a flag of flagd that is switched off.
const DISABLED: &str = "DISABLED";
const ENABLED: &str = "ENABLED";

/// An instance, for what is generated from all actions.
pub(super) fn example() -> FeatureFlag {
    FeatureFlag {
        key: "key".to_owned(),
        path: None,
        value: Some(String::new()),
        mode: None,
        create_if_missing: None,
        restart_consumers: None,
    }
}

impl FeatureFlag {
    fn pointer(&self) -> String {
        pointer(&["data", &self.key])
    }

    fn text(&self, target: &DynamicObject) -> Option<String> {
        field(target, &self.pointer()).and_then(|value| value.as_str().map(str::to_owned))
    }

    fn mode(&self) -> FlagMode {
        self.mode.unwrap_or(FlagMode::Set)
    }

    /// The changes of the ConfigMap.
    pub(super) fn changes(&self, target: &DynamicObject) -> Result<Vec<Change>, Refusal> {
        let labels = target.metadata.labels.as_ref();
        if labels.and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == MANAGED_BY) {
            return Err(Refusal::new(
                "RecordLocked",
                format!(
                    "the ConfigMap is part of the record of incidents (label {MANAGED_BY_LABEL}={MANAGED_BY}), which \
                     no mitigation changes: name another one"
                ),
            ));
        }
        if field(target, "/immutable").and_then(|v| v.as_bool()) == Some(true) {
            return Err(Refusal::new(
                "Immutable",
                "the ConfigMap is immutable: it can only be replaced by another one that the workload names",
            ));
        }
        let Some(text) = self.text(target) else { return self.missing_key(target) };
        if self.mode() == FlagMode::Set && self.path.is_none() {
            if text.len() > MAX_PRIOR_BYTES {
                return Err(Refusal::new(
                    "PriorTooLarge",
                    format!(
                        "the present value of key {:?} has {} bytes; at most {MAX_PRIOR_BYTES} can be kept safely on the ConfigMap: name one value in it with path",
                        self.key,
                        text.len()
                    ),
                ));
            }
            return Ok(vec![Change::set(target, self.pointer(), json!(self.value()?))]);
        }
        self.inside(target, &text)
    }

    fn value(&self) -> Result<&String, Refusal> {
        let missing = "value is missing: state what the flag is set to";
        self.value.as_ref().ok_or_else(|| Refusal::new("ValueMissing", missing))
    }

    fn missing_key(&self, target: &DynamicObject) -> Result<Vec<Change>, Refusal> {
        if self.create_if_missing == Some(true) && self.path.is_none() && self.mode() == FlagMode::Set {
            return Ok(vec![Change::set(target, self.pointer(), json!(self.value()?))]);
        }
        if field(target, &pointer(&["binaryData", &self.key])).is_some() {
            let message =
                format!("key {:?} is in binaryData, which is not edited: name a key of data", self.key);
            return Err(Refusal::new("KeyIsBinary", message));
        }
        let known = field(target, "/data");
        let keys = known.as_ref().and_then(Value::as_object);
        let keys = keys.map(|m| m.keys().take(8).cloned().collect::<Vec<_>>().join(", "));
        Err(Refusal::new(
            "KeyNotFound",
            format!(
                "the ConfigMap has no key {:?} (it has: {}): correct the key, or set createIfMissing: true",
                self.key,
                keys.filter(|k| !k.is_empty()).unwrap_or_else(|| "none".to_owned())
            ),
        ))
    }

    /// The changes inside the document under the key.
    fn inside(&self, target: &DynamicObject, text: &str) -> Result<Vec<Change>, Refusal> {
        let format = Format::of(&self.key, text)
            .map_err(|e| Refusal::new("NotADocument", format!("key {:?}: {e}", self.key)))?;
        let document = document::parse(format, text)
            .map_err(|e| Refusal::new("NotADocument", format!("key {:?} cannot be read: {e}", self.key)))?;
        let Some(path) = &self.path else {
            let message = "path is missing: name the flag in the document, for example flags.new-pricing";
            return Err(Refusal::new("PathMissing", message));
        };
        let place = |path: Vec<String>| Place::new(format, path, text, &document);
        let set =
            |path: Vec<String>, to: Value| Change::inside(target, self.pointer(), place(path), Some(to));
        let changes = match self.mode() {
            FlagMode::Set => {
                let path = match format {
                    Format::Properties => vec![path.clone()],
                    Format::Json | Format::Yaml => document::split(&document, path),
                };
                let Some(present) = place(path.clone()).read(text) else {
                    let (at, nearest) = (path.join("."), document::nearest(format, text, &path));
                    let message = format!(
                        "the document under key {:?} has no value at {at} ({nearest}): correct path",
                        self.key
                    );
                    return Err(Refusal::new("PathNotFound", message));
                };
                let to = self.typed(&present, &path.join("."), format)?;
                vec![set(path, to)]
            }
            FlagMode::Disable => {
                let (flag, _) = self.flagd(&document, path)?;
                vec![set([flag, vec!["state".to_owned()]].concat(), json!(DISABLED))]
            }
            FlagMode::ForceVariant => {
                let (flag, body) = self.flagd(&document, path)?;
                let variant = self.value()?;
                let variants = body.get("variants").and_then(Value::as_object);
                if !variants.is_some_and(|variants| variants.contains_key(variant)) {
                    let known: Vec<&str> = variants.into_iter().flatten().map(|(k, _)| k.as_str()).collect();
                    return Err(Refusal::new(
                        "VariantNotFound",
                        format!(
                            "flag {} has no variant {variant:?} (it has: {})",
                            flag.join("."),
                            known.join(", ")
                        ),
                    ));
                }
                let at = |last: &str| [flag.clone(), vec![last.to_owned()]].concat();
                let mut changes = Vec::new();
                if body.get("state").and_then(Value::as_str) == Some(DISABLED) {
                    changes.push(set(at("state"), json!(ENABLED)));
                }
                changes.push(set(at("defaultVariant"), json!(variant)));
                let rules = body.get("targeting").and_then(Value::as_object);
                if rules.is_some_and(|rules| !rules.is_empty()) {
                    changes.push(set(at("targeting"), document::empty_map()));
                }
                changes
            }
        };
        let size: usize = changes.iter().filter_map(|c| c.from.as_ref()).map(|v| v.to_string().len()).sum();
        if size > MAX_PRIOR_BYTES {
            let message =
                format!("the present value has {size} bytes; at most {MAX_PRIOR_BYTES} can be kept");
            return Err(Refusal::new("PriorTooLarge", message));
        }
        for change in &changes {
            let field::How::Inside(place) = &change.how else { continue };
            place.write(text, change.to.as_ref()).map_err(|words| Refusal::new("CannotEdit", words))?;
        }
        Ok(changes)
    }

    /// A flag of a flagd document: where it lies, and what it says.
    fn flagd<'d>(&self, document: &'d Value, path: &str) -> Result<(Vec<String>, &'d Value), Refusal> {
        let candidates = [path.to_owned(), format!("flags.{path}")];
        for candidate in &candidates {
            let flag = document::split(document, candidate);
            let body = document::at(document, &flag);
            if let Some(body) = body.filter(|body| body.get("state").is_some_and(Value::is_string)) {
                return Ok((flag, body));
            }
        }
        let known = document.get("flags").and_then(Value::as_object);
        let known: Vec<&str> = known.into_iter().flatten().map(|(k, _)| k.as_str()).take(8).collect();
        Err(Refusal::new(
            "FlagNotFound",
            format!("key {:?} holds no flagd flag {path:?} (it has: {})", self.key, known.join(", ")),
        ))
    }

    /// The value with the type of the one that is there: an application that reads a bool is not given a text.
    fn typed(&self, present: &Value, path: &str, format: Format) -> Result<Value, Refusal> {
        let value = self.value()?;
        let wrong = |kind: &str| {
            Err(Refusal::new("ValueType", format!("{path} is a {kind} and {value:?} is none: correct value")))
        };
        match present {
            Value::Bool(_) => {
                document::truth(format, value).map_or_else(|| wrong("bool"), |on| Ok(json!(on)))
            }
            Value::Number(_) => match serde_json::from_str::<serde_json::Number>(value) {
                // It would be written rounded.
                Ok(number) if number.is_f64() && !value.contains(['.', 'e', 'E']) => Err(Refusal::new(
                    "ValueType",
                    format!("{value} is too large for {path}: a whole number has at most 64 bits"),
                )),
                Ok(number) => Ok(Value::Number(number)),
                Err(_) => wrong("number"),
            },
            // It says nothing of its type, and "false" as a text would be true to many who read it.
            Value::Null => Ok(match serde_json::from_str(value) {
                Ok(single @ (Value::Bool(_) | Value::Number(_))) => single,
                _ => json!(value),
            }),
            Value::String(_) => Ok(json!(value)),
            Value::Object(_) | Value::Array(_) => Err(Refusal::new(
                "ValueType",
                format!("{path} is a map or list: name one value in it, or use mode for a flagd flag"),
            )),
        }
    }
}

impl Engine for FeatureFlag {
    fn name(&self) -> ActionName {
        ActionName::FeatureFlag
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[CONFIG_MAP]
    }

    fn touches(&self) -> &'static [TargetKind] {
        &[DEPLOYMENT, STATEFUL_SET, DAEMON_SET]
    }

    fn looks_at(&self) -> &'static [TargetKind] {
        &[POD, REPLICA_SET]
    }

    fn parts(&self, scene: &Scene<'_>) -> Result<Vec<Part>, Stop> {
        let mut parts = vec![Part::change(scene.id, self.changes(scene.target)?)];
        if self.restart_consumers == Some(true) {
            for (id, workload) in consumers::workloads(scene, &self.key)? {
                let key = consumers::restarted_for(scene.short_uid());
                let path = pointer(&["spec", "template", "metadata", "annotations", &key]);
                let restart = Change::set_deep(workload, &path, json!("true"));
                parts.push(Part::change(&id, vec![restart]));
            }
        }
        Ok(parts)
    }

    fn effect(&self, scene: &Scene<'_>) -> Result<Effect, Stop> {
        let consumers = consumers::of(scene, &self.key)?;
        if consumers.is_empty() {
            return Ok(Effect::Seen("the ConfigMap holds the value; no pod reads it from there".to_owned()));
        }
        let stale = consumers::not_restarted(&consumers, scene.applied, scene.short_uid());
        let seen = |stale: &[Consumer], fix: &str| {
            let names = consumers::names(stale);
            format!("the ConfigMap holds the value; {names} read it when they start and started before{fix}")
        };
        if !stale.is_empty() && self.restart_consumers != Some(true) {
            let reached = stale.iter().any(Consumer::may_be_restarted);
            let fix =
                if reached { ": restart them, or set restartConsumers" } else { ": restart them by hand" };
            return Ok(Effect::Unclear { reason: "NeedsRestart", message: seen(&stale, fix) });
        }
        // Nothing is awaited of what nobody restarts.
        let left = consumers::not_among(scene, &stale, scene.touched)?;
        if !left.is_empty() {
            let others: Vec<Consumer> = stale.into_iter().filter(|c| !left.contains(c)).collect();
            let others = match others.is_empty() {
                true => String::new(),
                false => format!("; {} are still being restarted", consumers::names(&others)),
            };
            let fix = ", and are not restarted by restartConsumers: restart them by hand";
            return Ok(Effect::Unclear { reason: "NeedsRestart", message: seen(&left, fix) + &others });
        }
        let held_up = if stale.is_empty() { Vec::new() } else { consumers::held_up(scene, scene.touched)? };
        if !held_up.is_empty() {
            let message = format!("{}; {}", seen(&stale, ""), held_up.join("; "));
            return Ok(Effect::Unclear { reason: "NeedsRestart", message });
        }
        if !stale.is_empty() {
            return Ok(Effect::Awaited {
                what: "waiting until the workloads that read it are restarted".to_owned(),
                seen: seen(&stale, ""),
            });
        }
        Ok(Effect::Seen(format!(
            "the ConfigMap holds the value; {} read it{}",
            consumers::names(&consumers),
            if consumers.iter().any(|c| c.live) { ", from a volume within about a minute" } else { "" }
        )))
    }

    fn destroys(&self) -> bool {
        self.restart_consumers == Some(true)
    }

    fn follows(&self, _scene: &Scene<'_>) -> Option<Look> {
        Some(Look::List { kind: POD, labels: None })
    }

    fn summary(&self, target: &TargetRef, parts: &[Part]) -> String {
        let changes = parts.first().map(Part::changes).unwrap_or_default();
        let nothing = changes.iter().all(Change::is_none);
        let told = changes.iter().filter(|change| nothing || !change.is_none()).map(|change| {
            let inside = match &change.how {
                field::How::Inside(place) => format!(" {}", place.path.join(".")),
                _ => String::new(),
            };
            if change.how.empties(change.to.as_ref()) {
                return format!("{} is emptied", inside.trim());
            }
            let text = |v: &Option<Value>| change.how.told(v.as_ref());
            format!(
                "set key {}{inside} of {}/{} from {} to {}",
                self.key,
                target.kind,
                target.name,
                text(&change.from),
                text(&change.to)
            )
        });
        let mut told = told.collect::<Vec<_>>().join(", and ");
        let restarted = parts.iter().skip(1).map(|part| part.id.to_string()).collect::<Vec<_>>();
        if !restarted.is_empty() {
            told = format!("{told}, and restart {}", restarted.join(", "));
        }
        told
    }

    fn warnings(&self, scene: &Scene<'_>) -> Result<Vec<String>, Stop> {
        let mut warnings = Vec::new();
        let consumers = consumers::of(scene, &self.key)?;
        let fixed: Vec<_> = consumers.iter().filter(|c| !c.live).cloned().collect();
        if consumers.is_empty() {
            warnings.push("no pod in this namespace reads the key from the ConfigMap".to_owned());
        }
        if !fixed.is_empty() && self.restart_consumers != Some(true) {
            warnings.push(format!("{} see it only after a restart", consumers::names(&fixed)));
        }
        if self.restart_consumers == Some(true) {
            warnings.extend(consumers::not_restartable(scene, &self.key, &fixed)?);
            let workloads = consumers::workloads(scene, &self.key)?;
            let workloads: Vec<_> = workloads.into_iter().map(|(id, _)| id).collect();
            warnings.extend(consumers::held_up(scene, &workloads)?);
        }
        if self.changes(scene.target)?.iter().all(Change::is_none) {
            warnings.push("the key has this value already: nothing will change".to_owned());
        }
        if has_hash_suffix(&scene.id.name) {
            warnings.push(format!(
                "{} looks like a generated name: the next deployment reads another ConfigMap",
                scene.id.name
            ));
        }
        if self.mode() == FlagMode::Disable {
            warnings.push(
                "a disabled flag makes the application use its coded default, which need not be off"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }

    fn release(&self) -> String {
        let restart = match self.restart_consumers {
            Some(true) => ", and restarts the same workloads",
            Some(false) | None => {
                "; pods that read it when they start keep what they read until they are restarted"
            }
        };
        format!("puts the value back, unless somebody changed it meanwhile{restart}")
    }

    fn rules(&self) -> Vec<Rule> {
        vec![
            Rule { groups: &[""], resources: &["configmaps"], verbs: &["patch"] },
            Rule {
                groups: &["apps"],
                resources: &["deployments", "statefulsets", "daemonsets"],
                verbs: &["patch"],
            },
        ]
    }

    fn authority(&self) -> Authority {
        Authority {
            rights: vec![on("ConfigMap", "v1", right("patch", "", "configmaps"))],
            extras: vec![
                extra("restartConsumers", false, true, right("patch", "apps", "deployments"))
                    .also_on_release(),
            ],
            ..Authority::default()
        }
    }

    fn fence(&self) -> Fence {
        Fence { updates: &[FLAG, RESTART], makes: &[], deletes: &[] }
    }
}

/// Names that kustomize makes end in ten of these characters, with at least one digit among them.
fn has_hash_suffix(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, end)| {
        end.len() == 10
            && end.chars().all(|c| "bcdfghkmt2456789".contains(c))
            && end.chars().any(|c| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests;
