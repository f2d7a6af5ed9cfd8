//! What a visit writes to the mitigation itself: its finalizer and its status.

use super::{
    super::{
        Error, Key,
        json_patch::{self, Part},
        news,
        status::{self, FIELD_MANAGER},
    },
    Visit,
};
use crate::{
    api::{FINALIZER, Mitigation, MitigationStatus},
    decide::mitigation::{Effect, Plan, target_id},
};
use kube::{ResourceExt, api::PatchParams};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;

impl Visit<'_> {
    /// Whether a plan changes anything, or records an end that rests on what is known.
    pub(super) fn acts(&self, plan: &Plan) -> bool {
        match &plan.effect {
            Some(
                Effect::Write { .. }
                | Effect::Create { .. }
                | Effect::Delete { .. }
                | Effect::RemoveFinalizer
                | Effect::GatherEvidence { .. },
            ) => true,
            Some(
                Effect::Read(_)
                | Effect::Look(_)
                | Effect::Ask(_)
                | Effect::Reserve(_)
                | Effect::AwaitEvidence(_)
                // Written on the revision that is known, or not at all.
                | Effect::AddFinalizer
                | Effect::Announce,
            ) => false,
            None => self.stored.status.as_ref() != Some(&plan.status),
        }
    }

    /// Reads the mitigation and its incident where they may be from before this process leads. True when it read: it is to be
    /// decided anew.
    pub(super) async fn refresh(&mut self) -> Result<bool, Error> {
        let read = self.ctx.fresh_mitigation(self.key, &self.stored, true).await?;
        let mut any = read.is_some();
        match read {
            None => {}
            Some(None) => {
                self.gone = true;
                return Ok(true);
            }
            Some(Some(there)) => {
                self.mitigation = there.clone();
                self.stored = Arc::new(there);
                // What watches tell of its objects may be as old.
                self.objects.clear();
            }
        }
        if let Some(incident) = &self.mitigation.spec.incident_ref {
            let incident = Key::new(&self.key.namespace, &incident.name);
            // One that is not there went before our eyes, unless this mitigation is from before our time itself.
            if any || self.ctx.incidents.contains(&incident) {
                any |= self.ctx.fresh_incident(&incident).await?;
            }
        }
        Ok(any)
    }

    pub(super) async fn add_finalizer(&mut self) -> Result<(), Error> {
        let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": self.stored.metadata.resource_version});
        let add = if self.stored.metadata.finalizers.is_some() {
            json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})
        } else {
            json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})
        };
        let object = self.patch(json!([version, add]), "adding the finalizer to").await?;
        let Some(object) = object else {
            return Err(Error::Restless(format!("mitigation {}", self.key)));
        };
        let status = self.mitigation.status.take();
        self.mitigation = Mitigation { status, ..object.clone() };
        self.stored = Arc::new(object);
        Ok(())
    }

    pub(super) async fn remove_finalizer(self) -> Result<Option<Instant>, Error> {
        self.ctx.lookouts.follow(self.key, None);
        // The object is gone next, and its end with it. An incident that is there has recorded it from the status by
        // now, and nobody else is left to read one: telling is enough.
        self.tell(self.stored.status.as_ref());
        self.ctx.takes.keep(self.ctx, &self.stored).await;
        let index = self.stored.finalizers().iter().position(|f| f == FINALIZER);
        let Some(index) = index else { return Ok(None) };
        let path = format!("/metadata/finalizers/{index}");
        let patch = json!([
            // Another of the same name still has something to release.
            {"op": "test", "path": "/metadata/uid", "value": self.stored.metadata.uid},
            {"op": "test", "path": path, "value": FINALIZER},
            {"op": "remove", "path": path},
        ]);
        self.patch(patch, "removing the finalizer from").await?;
        Ok(None)
    }

    /// Patches the object's metadata; `None` when it is gone. One that is another by now is looked at anew.
    pub(super) async fn patch(&self, patch: Value, what: &str) -> Result<Option<Mitigation>, Error> {
        let what = format!("{what} mitigation {}", self.key);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match json_patch::send(&self.api, Part::Object, &self.key.name, &params, &patch).await {
            Ok(object) => {
                if object.metadata.deletion_timestamp.is_some() && object.finalizers().is_empty() {
                    // The last finalizer is off: it is gone before the watch tells.
                    if let Some(news) = self.ctx.mitigations.saw_gone(&object) {
                        self.ctx.heard_of_mitigation(&news, true);
                    }
                } else {
                    self.saw(object.clone());
                }
                Ok(Some(object))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 422 => {
                Err(Error::Restless(format!("mitigation {}", self.key)))
            }
            Err(error) => Err(Error::api(what)(error)),
        }
    }

    pub(super) async fn write_status(&mut self) -> Result<(), Error> {
        let Some(new) = self.mitigation.status.clone() else { return Ok(()) };
        let old = self.stored.status.clone();
        let written = status::write(&self.api, self.stored.as_ref(), old.as_ref(), &new).await;
        let written = match written {
            Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => {
                self.gone = true;
                return Ok(());
            }
            other => other?,
        };
        if let Some(object) = written {
            self.tell(old.as_ref());
            self.stored = Arc::new(object.clone());
            self.saw(object);
        }
        Ok(())
    }

    pub(super) fn tell(&self, old: Option<&MitigationStatus>) {
        let target = target_id(&self.mitigation).and_then(|id| self.objects.get(&id).cloned().flatten());
        news::tell(self.ctx, self.key, &self.mitigation, old, target.as_deref());
    }

    pub(super) fn saw(&self, object: Mitigation) {
        if let Some(news) = self.ctx.mitigations.saw(object) {
            self.ctx.heard_of_mitigation(&news, true);
        }
    }
}
