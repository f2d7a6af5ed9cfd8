//! The effects on targets: each is counted by action, operation and result, and what the API server refused is kept for
//! the next decision.

use super::{Visit, look};
use crate::{
    controller::{
        Error,
        targets::{How, NotDone},
    },
    decide::mitigation::{Refused, Why, Write},
    mitigation::ObjectId,
};
use serde_json::Value;
use std::sync::Arc;
use tracing::{debug, info};

impl Visit<'_> {
    fn count(&self, operation: &'static str, answer: Result<(), &NotDone>) {
        let result = match answer {
            Ok(()) => "success",
            Err(NotDone::Changed) => "changed",
            Err(NotDone::Forbidden(_)) => "forbidden",
            Err(NotDone::Denied(_)) => "denied",
            Err(NotDone::Failed(_)) => "error",
        };
        let action = self.mitigation.spec.template.action.name().as_str();
        self.ctx.metrics.operation(action, operation, result);
    }

    fn manager(&self) -> String {
        self.mitigation.spec.template.action.name().field_manager()
    }

    pub(super) async fn write(&mut self, id: ObjectId, what: Write, patch: &Value) -> Result<(), Error> {
        let how = match what {
            Write::DryRun => How::Asked,
            Write::Status => How::Status,
            Write::Take
            | Write::Reassert
            | Write::Recapture
            | Write::Step
            | Write::Restore
            | Write::LetGo
            | Write::Disown => How::Done,
        };
        self.watch(&id);
        let answer = self.ctx.targets.write(&self.key.namespace, &id, &self.manager(), patch, how).await;
        self.count(operation(what), answer.as_ref().map(|_| ()));
        match answer {
            Ok(_) if how == How::Asked => {
                self.dry_run_passed.insert(id);
            }
            Ok(object) => {
                info!(mitigation = %self.key, object = %id, operation = operation(what), "object written");
                self.objects.insert(id, Some(Arc::new(object)));
                look::overlay(&mut self.found, &self.objects);
            }
            Err(not_done) => self.not_done(id, not_done, what.releases()).await?,
        }
        Ok(())
    }

    pub(super) async fn create(
        &mut self,
        id: ObjectId,
        manifest: &Value,
        dry_run: bool,
    ) -> Result<(), Error> {
        let answer =
            self.ctx.targets.create(&self.key.namespace, &id, &self.manager(), manifest, dry_run).await;
        self.count(if dry_run { "dry_run" } else { "create" }, answer.as_ref().map(|_| ()));
        match answer {
            Ok(_) if dry_run => {
                self.dry_run_passed.insert(id);
            }
            Ok(object) => {
                info!(mitigation = %self.key, object = %id, operation = "create", "object written");
                self.objects.insert(id, Some(Arc::new(object)));
            }
            Err(not_done) => self.not_done(id, not_done, false).await?,
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self, id: ObjectId, uid: &str, releasing: bool) -> Result<(), Error> {
        let answer = self.ctx.targets.delete(&self.key.namespace, &id, uid).await;
        self.count("delete", answer.as_ref().map(|_| ()));
        match answer {
            Ok(left) => {
                info!(mitigation = %self.key, object = %id, operation = "delete", "object written");
                // Whatever was looked at may be another now.
                self.found.clear();
                self.objects.insert(id, left.map(Arc::new));
            }
            Err(not_done) => self.not_done(id, not_done, releasing).await?,
        }
        Ok(())
    }

    async fn not_done(&mut self, id: ObjectId, not_done: NotDone, releasing: bool) -> Result<(), Error> {
        let (why, words) = match not_done {
            NotDone::Changed => {
                debug!(mitigation = %self.key, object = %id, "object changed meanwhile; reading it again");
                self.found.clear();
                return self.read(&id).await;
            }
            NotDone::Failed(error) => return Err(error),
            NotDone::Forbidden(words) => (Why::Forbidden, words),
            NotDone::Denied(words) => (Why::Denied, words),
        };
        self.refused = Some(Refused { releasing, why, words });
        Ok(())
    }
}

fn operation(what: Write) -> &'static str {
    match what {
        Write::Take => "take",
        Write::DryRun => "dry_run",
        Write::Reassert => "reassert",
        Write::Recapture => "recapture",
        Write::Step => "step",
        Write::Status => "status",
        Write::Restore => "restore",
        Write::LetGo => "let_go",
        Write::Disown => "disown",
    }
}
