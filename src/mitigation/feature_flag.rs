//! `featureFlag`: set one value of a ConfigMap that switches a feature.
//!
//! Only the one key is captured and written; other keys belong to other people.

use super::{CONFIG_MAP, Change, Effect, Engine, Refusal, Rule, TargetKind, field};
use crate::api::{ActionName, FeatureFlag, FlagMode, TargetRef};
use crate::mitigation::patch::pointer;
use kube::core::DynamicObject;
use serde_json::{Value, json};

/// Longest value that is captured. Annotations of an object may hold 256 KiB in all; a flag is short.
const MAX_PRIOR_BYTES: usize = 16 * 1024;

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
}

impl Engine for FeatureFlag {
    fn name(&self) -> ActionName {
        ActionName::FeatureFlag
    }

    fn kinds(&self) -> &'static [TargetKind] {
        &[CONFIG_MAP]
    }

    fn changes(&self, target: &DynamicObject) -> Result<Vec<Change>, Refusal> {
        let later = |field: &str| {
            Refusal::new(
                "NotImplemented",
                format!("{field} is not available in this version: set the whole key with key and value"),
            )
        };
        if self.path.is_some() {
            return Err(later("path"));
        }
        if matches!(self.mode, Some(FlagMode::Disable | FlagMode::ForceVariant)) {
            return Err(later("mode"));
        }
        if self.restart_consumers == Some(true) {
            return Err(later("restartConsumers"));
        }
        let value = self
            .value
            .as_ref()
            .ok_or_else(|| Refusal::new("ValueMissing", "value is missing: state what the key is set to"))?;
        if field(target, "/immutable").and_then(Value::as_bool) == Some(true) {
            return Err(Refusal::new(
                "Immutable",
                "the ConfigMap is immutable: it can only be replaced by another one that the workload names",
            ));
        }
        let present = field(target, &self.pointer()).cloned();
        match &present {
            None if self.create_if_missing != Some(true) => {
                let known = field(target, "/data").and_then(Value::as_object);
                let keys = known.map(|m| m.keys().take(8).cloned().collect::<Vec<_>>().join(", "));
                return Err(Refusal::new(
                    "KeyNotFound",
                    format!(
                        "the ConfigMap has no key {:?} (it has: {}): correct the key, or set createIfMissing: true",
                        self.key,
                        keys.filter(|k| !k.is_empty()).unwrap_or_else(|| "none".to_owned())
                    ),
                ));
            }
            Some(Value::String(text)) if text.len() > MAX_PRIOR_BYTES => {
                return Err(Refusal::new(
                    "PriorTooLarge",
                    format!(
                        "the present value of key {:?} has {} bytes; at most {MAX_PRIOR_BYTES} can be kept safely on the ConfigMap",
                        self.key,
                        text.len()
                    ),
                ));
            }
            _ => {}
        }
        Ok(vec![Change { path: self.pointer(), from: present, to: json!(value) }])
    }

    fn effect(&self, _target: &DynamicObject) -> Effect {
        // Asked only while the field has our value.
        Effect::Seen(
            "the ConfigMap holds the value; workloads that read it through env or subPath see it after a restart"
                .to_owned(),
        )
    }

    fn summary(&self, target: &TargetRef, changes: &[Change]) -> String {
        let from = changes.first().and_then(|c| c.from.as_ref()).map_or("absent".into(), Value::to_string);
        let to = changes.first().map(|c| c.to.to_string()).unwrap_or_default();
        format!("set key {} of {}/{} from {from} to {to}", self.key, target.kind, target.name)
    }

    fn warnings(&self, target: &DynamicObject) -> Vec<String> {
        let mut warnings =
            vec!["workloads that read the key through env or subPath see it after a restart".to_owned()];
        if self.value.as_deref() == field(target, &self.pointer()).and_then(Value::as_str) {
            warnings.push("the key has this value already: nothing will change".to_owned());
        }
        warnings
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule { groups: &[""], resources: &["configmaps"], verbs: &["patch"] }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mitigation::patch::tests::object;

    fn flags(body: Value) -> DynamicObject {
        let mut base = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flags", "uid": "u"},
            "data": {"new-pricing": "on", "other": "x"}});
        json_patch::merge(&mut base, &body);
        object(base)
    }

    fn off() -> FeatureFlag {
        FeatureFlag { key: "new-pricing".into(), value: Some("off".into()), ..example() }
    }

    #[test]
    fn only_the_one_key_changes() {
        let changes = off().changes(&flags(json!({}))).unwrap();
        assert_eq!(
            changes,
            [Change { path: "/data/new-pricing".into(), from: Some(json!("on")), to: json!("off") }]
        );
    }

    #[test]
    fn a_missing_key_is_refused_with_the_keys_that_are_there_unless_it_may_be_created() {
        let flag = FeatureFlag { key: "new-prices".into(), ..off() };
        let refusal = flag.changes(&flags(json!({}))).unwrap_err();
        assert_eq!(refusal.reason, "KeyNotFound");
        assert!(refusal.message.contains("new-pricing, other"), "{}", refusal.message);
        let flag = FeatureFlag { create_if_missing: Some(true), ..flag };
        assert_eq!(flag.changes(&flags(json!({}))).unwrap()[0].from, None);
    }

    #[test]
    fn an_immutable_config_map_and_a_value_too_large_to_keep_are_refused() {
        assert_eq!(off().changes(&flags(json!({"immutable": true}))).unwrap_err().reason, "Immutable");
        let large = flags(json!({"data": {"new-pricing": "x".repeat(MAX_PRIOR_BYTES + 1)}}));
        assert_eq!(off().changes(&large).unwrap_err().reason, "PriorTooLarge");
    }

    #[test]
    fn what_this_version_cannot_do_is_refused_and_never_left_out_silently() {
        for flag in [
            FeatureFlag { path: Some("a.b".into()), ..off() },
            FeatureFlag { mode: Some(FlagMode::Disable), ..off() },
            FeatureFlag { restart_consumers: Some(true), ..off() },
        ] {
            assert_eq!(flag.changes(&flags(json!({}))).unwrap_err().reason, "NotImplemented", "{flag:?}");
        }
    }
}
