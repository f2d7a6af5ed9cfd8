//! Dry run: what a take would change, asked of the API server and told in `status.plan`.

use super::{Decision, DynamicObject, Effect, ObjectId, OnRelease, Refusal, Write, clip, on_release};
use crate::api::ConditionStatus::True;
use crate::api::{MitigationPlan, PlannedChange};
use crate::mitigation::{
    Asked, Engine, Part,
    field::{Change, How, dotted, field},
    gitops,
    ownership::writer,
    record::Record,
    revisions::{self, Difference},
};
use std::collections::HashSet;

impl<'a> Decision<'a> {
    /// One answer for each generation of the spec is enough.
    pub(super) fn dry_run_answered(&self) -> bool {
        let before = self.m.status.as_ref();
        self.m.spec.template.dry_run == Some(true)
            && before.is_some_and(|s| s.plan.is_some() && s.observed_generation == self.m.metadata.generation)
    }

    /// The dry run of the first part that has not passed it; `None`: all have.
    pub(super) fn untried(&self, parts: &[Part]) -> Option<Result<Effect, Refusal>> {
        let left = parts.iter().filter(|part| !self.seen.dry_run_passed.contains(&part.id));
        left.filter_map(|part| self.next(part)).next().map(|effect| {
            effect.map(|effect| match effect {
                Effect::Write { object, patch, .. } => Effect::Write { object, what: Write::DryRun, patch },
                Effect::Create { object, manifest, .. } => Effect::Create { object, manifest, dry_run: true },
                other => other,
            })
        })
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.m.spec.template.dry_run == Some(true)
    }

    /// The answer of a dry run where the change cannot be worked out while another mitigation holds the target.
    pub(super) fn nothing_planned(&mut self, id: &ObjectId, holder: &Record, refusal: &Refusal) {
        let held = self.held_by(id, holder, holder.fields.iter().map(|held| held.path.as_str()));
        let summary = format!("wait until mitigation {} is released", holder.mitigation);
        let warning = format!("{held}, and as it is now {}", refusal.message);
        self.tell_plan(&summary, false, Vec::new(), "undoes nothing", &[warning]);
    }

    pub(super) fn dry_run(
        &mut self,
        engine: &'a dyn Engine,
        target: &DynamicObject,
        parts: &[Part],
        mut held: Vec<String>,
    ) {
        // Of several objects that one mitigation holds, this is the same each time.
        let mut known = HashSet::new();
        held.retain(|words| known.insert(words.clone()));
        match self.untried(parts) {
            None => {}
            Some(Err(refusal)) => return self.refuse(&refusal),
            Some(Ok(effect)) => {
                self.plan.effect = Some(effect);
                return;
            }
        }
        let template = &self.m.spec.template;
        let Some(id) = self.id.clone() else { return };
        let mut warnings = match engine.warnings(&self.scene(&id, target)) {
            Ok(warnings) => held.into_iter().chain(warnings).collect::<Vec<_>>(),
            Err(stop) => {
                if let Some(refusal) = self.stopped(stop) {
                    self.refuse(&refusal);
                }
                return;
            }
        };
        for part in parts {
            let Some(object) = self.seen.objects.get(&part.id).and_then(Option::as_ref) else { continue };
            let written = gitops::Written::planned(part, object);
            warnings.extend(gitops::warning(template.gitops, &written, template.action.name()));
        }
        let summary = engine.summary(&template.target_ref, parts);
        let changes = parts.iter().flat_map(|part| self.planned(part)).take(super::MAX_PRIOR).collect();
        self.tell_plan(&summary, true, changes, &engine.release(), &warnings);
    }

    /// The answer of a dry run; `accepted`: the API server was asked, too.
    pub(super) fn tell_plan(
        &mut self,
        summary: &str,
        accepted: bool,
        changes: Vec<PlannedChange>,
        release: &str,
        warnings: &[String],
    ) {
        let accepted = if accepted { "; the API server accepts it" } else { "" };
        self.plan.status.plan = Some(MitigationPlan {
            summary: plan_summary(summary),
            changes,
            release: Some(match on_release(&self.m.spec.template) {
                OnRelease::Restore => clip(release, 1024),
                OnRelease::Keep => "leaves the value".to_owned(),
            }),
            warnings: warnings.iter().take(16).map(|w| clip(w, 1024)).collect(),
        });
        self.wait("DryRun", clip(&format!("dry run: would {summary}{accepted}"), 1024));
        self.conditions().set("Ready", True, "DryRun", "the plan is in status.plan; nothing was changed");
    }

    fn planned(&self, part: &Part) -> Vec<PlannedChange> {
        let object = self.label_of(&part.id);
        let known = self.seen.objects.get(&part.id).and_then(Option::as_ref);
        let changes = match &part.asked {
            Asked::Create(spec) => {
                return vec![PlannedChange {
                    object,
                    path: String::new(),
                    from: "absent".to_owned(),
                    to: clip(&spec.to_string(), 4096),
                    written_by: None,
                }];
            }
            Asked::Change(changes) => changes,
        };
        // What has its value already is no change.
        let told = changes.iter().filter(|change| !change.is_none()).flat_map(|change| {
            let by = known.and_then(|object| writer(object, &change.path)).map(|w| clip(&w.manager, 256));
            let all = known.map_or_else(|| vec![as_a_whole(change)], |object| in_words(change, object));
            all.into_iter().map(move |told| (told, by.clone()))
        });
        told.map(|(told, written_by)| PlannedChange {
            object: object.clone(),
            path: clip(&told.path, 1024),
            from: clip(&told.from, 4096),
            to: clip(&told.to, 4096),
            written_by,
        })
        .collect()
    }
}

/// What a plan says in one line.
pub(super) fn plan_summary(summary: &str) -> String {
    clip(&format!("would {summary}"), 1024)
}

/// What a change does to an object. Of a template that is replaced by another one nobody reads the hashes.
fn in_words(change: &Change, object: &DynamicObject) -> Vec<Difference> {
    if let How::Member(member) = &change.how {
        let list = field(object, &change.path);
        return vec![Difference {
            path: change.path.clone(),
            from: list.map_or_else(|| "absent".to_owned(), |list| list.to_string()),
            to: member.comes(&dotted(&change.path), change.to.is_some()),
        }];
    }
    let (How::Revision(_), Some(to)) = (&change.how, &change.raw) else { return vec![as_a_whole(change)] };
    let differs = revisions::between(&revisions::present(object), to).into_iter();
    differs.map(|d| Difference { path: format!("{} {}", change.path, d.path), ..d }).collect()
}

fn as_a_whole(change: &Change) -> Difference {
    let path = match &change.how {
        How::Inside(place) => format!("{} {}", change.path, place.path.join(".")),
        How::Plain | How::Digest | How::Subset | How::Member(_) | How::Revision(_) | How::Shared => {
            change.path.clone()
        }
    };
    Difference { path, from: change.how.told(change.from.as_ref()), to: change.how.told(change.to.as_ref()) }
}
