//! A small world in which plans are carried out as the API server would, whole or in part. The status of a
//! mitigation is set by the test, as the controller of mitigations would set it.

use super::*;
use crate::api::{
    ACTOR_ANNOTATION, API_VERSION, CHECKLIST_STAMP, Condition,
    ConditionStatus::{self, False, True, Unknown},
    ENTRY_STAMP_PREFIX, IMPACT_STAMP, MITIGATOR_ANNOTATION, MitigationPhase as Phase, MitigationSummary,
    PriorValue, REQUESTER_ANNOTATION, RESOLUTION_STAMP, ROLES_STAMP, SEVERITY_STAMP, Stage,
};
use crate::decide::{
    conditions::{Conditions, find, whole_seconds},
    postmortem::{began, is_about},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// One part of carrying out a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Older entries are written to their ConfigMap.
    Archive,
    /// The status is written, without what is in the archive now.
    Status,
    /// Objects are made, changed and deleted.
    Effects,
    /// Folded entries are deleted.
    Folded,
}

/// A plan that is carried out to the end.
pub const ALL: [Part; 4] = [Part::Archive, Part::Status, Part::Effects, Part::Folded];

pub struct World {
    pub incident: Incident,
    /// Every Mitigation of the namespace.
    pub mitigations: Vec<Mitigation>,
    pub entries: Vec<TimelineEntry>,
    pub postmortem: Option<Postmortem>,
    pub archives: BTreeMap<String, Vec<TimelineRecord>>,
    pub original: Option<Original>,
    pub way_back: Option<WayBack>,
    pub unreadable: Vec<String>,
    pub signed: bool,
    pub settings: Settings,
    pub outcomes: Vec<(ChannelAudience, Outcome)>,
    /// What the API server says to an archive, when it takes none.
    pub refused: Option<&'static str>,
    /// Whether the API server lets folded entries be deleted.
    pub deletes: bool,
    pub now: Timestamp,
    /// Names of the Mitigations that were made, in order.
    pub made: Vec<String>,
    uids: u32,
}

/// A time of the day on which everything happens.
pub fn time(text: &str) -> Timestamp {
    format!("2026-11-23T{text}Z").parse().unwrap()
}

pub fn scale(name: &str) -> Value {
    json!({"name": name, "reason": "floods", "targetRef": {"kind": "Deployment", "name": name}, "scale": {"replicas": 0}})
}

/// Commanded, triaged, one mitigation in force, at the given severity.
pub fn mitigated(severity: &str) -> World {
    let spec = json!({"severity": severity, "impact": {"affectedTenants": 0}, "mitigations": [scale("stop")],
        "roles": {"incidentCommander": "alice"}});
    let mut w = World::declared(spec);
    w.run().works("checkout-stop");
    assert_eq!(w.stage(), Stage::Resolve);
    w
}

/// Stamps who made the spec what it is, as admission does.
fn stamp(by: &str, before: &Value, incident: &mut Incident) {
    let after = serde_json::to_value(&incident.spec).unwrap();
    let annotations = incident.metadata.annotations.get_or_insert_default();
    annotations.insert(ACTOR_ANNOTATION.to_owned(), by.to_owned());
    let stamp = json!({"user": by, "groups": []}).to_string();
    let parts: [(&str, &[&str]); 5] = [
        (ROLES_STAMP, &["roles"]),
        (SEVERITY_STAMP, &["severity", "severityReason"]),
        (IMPACT_STAMP, &["impact"]),
        (CHECKLIST_STAMP, &["checklist"]),
        (RESOLUTION_STAMP, &["resolution", "exitCriteria", "outcome", "duplicateOf"]),
    ];
    for (key, fields) in parts {
        if fields.iter().any(|field| before[field] != after[field]) {
            annotations.insert(key.to_owned(), stamp.clone());
        }
    }
    if before["mitigations"] != after["mitigations"] || before["outcome"] != after["outcome"] {
        annotations.insert(MITIGATOR_ANNOTATION.to_owned(), by.to_owned());
    }
    let entries = |spec: &Value| spec["mitigations"].as_array().cloned().unwrap_or_default();
    let (old, new) = (entries(before), entries(&after));
    let key = |entry: &Value| format!("{ENTRY_STAMP_PREFIX}{}", entry["name"].as_str().unwrap());
    for entry in &old {
        if !new.iter().any(|other| other["name"] == entry["name"]) {
            annotations.remove(&key(entry));
        }
    }
    for entry in new.iter().filter(|entry| !old.contains(entry)) {
        annotations.insert(key(entry), stamp.clone());
    }
}

impl World {
    /// Alice declares an incident at ten and it is looked at five seconds later.
    pub fn declared(spec: Value) -> World {
        World::named("checkout", spec)
    }

    pub fn named(name: &str, spec: Value) -> World {
        let mut incident = json!({"apiVersion": API_VERSION, "kind": "Incident",
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-11-23T10:00:00Z",
                "annotations": {REQUESTER_ANNOTATION: "alice", ACTOR_ANNOTATION: "alice"}},
            "spec": {"title": "Checkout fails"},
            // As the API server stores what nobody has looked at.
            "status": {"observedGeneration": -1}});
        json_patch::merge(&mut incident["spec"], &spec);
        let mut incident: Incident = serde_json::from_value(incident).unwrap();
        stamp("alice", &json!({}), &mut incident);
        World {
            incident,
            mitigations: Vec::new(),
            entries: Vec::new(),
            postmortem: None,
            archives: BTreeMap::new(),
            original: None,
            way_back: None,
            unreadable: Vec::new(),
            signed: true,
            settings: Settings::default(),
            outcomes: Vec::new(),
            refused: None,
            deletes: true,
            now: time("10:00:05"),
            made: Vec::new(),
            uids: 0,
        }
    }

    pub fn plan(&self) -> Plan {
        let uid = &self.incident.metadata.uid;
        let controller = |m: &Mitigation| {
            m.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true)).cloned()
        };
        let ours = |m: &&Mitigation| match controller(m) {
            Some(owner) => Some(owner.uid) == *uid,
            None => m.spec.incident_ref.as_ref().map(|r| &r.name) == self.incident.metadata.name.as_ref(),
        };
        let mitigations: Vec<_> = self.mitigations.iter().filter(ours).cloned().map(Arc::new).collect();
        let entries: Vec<_> = self.entries.iter().cloned().map(Arc::new).collect();
        let taken_names = self
            .mitigations
            .iter()
            .map(|m| (m.metadata.name.clone().unwrap(), controller(m).map(|o| o.uid)))
            .collect();
        let known = self.incident.status.iter().find_map(|s| Some(s.postmortem_ref.as_ref()?.name.as_str()));
        let seen = Observed {
            incident: &self.incident,
            mitigations: &mitigations,
            taken_names: &taken_names,
            entries: &entries,
            postmortem: self.postmortem.as_ref().filter(|p| {
                is_about(
                    p,
                    self.incident.metadata.name.as_deref().unwrap(),
                    uid.as_ref(),
                    began(&self.incident),
                )
            }),
            known_postmortem: self.postmortem.as_ref().filter(|p| p.metadata.name.as_deref() == known),
            original: self.original.clone(),
            way_back: self.way_back.as_ref(),
            unreadable: &self.unreadable,
            signed: self.signed,
            outcomes: &self.outcomes,
            settings: &self.settings,
        };
        decide(&seen, self.now)
    }

    /// Carries out some parts of the present plan, as far as one does not need another that is left out.
    /// Answers whether anything was left to do.
    pub fn step(&mut self, parts: &[Part]) -> bool {
        let mut plan = self.plan();
        if let Some(archive) = plan.archive.take_if(|_| self.refused.is_some()) {
            without_archive(&mut plan.status, &archive, self.refused.unwrap(), self.now);
        }
        let busy = Some(&plan.status) != self.incident.status.as_ref()
            || !plan.effects.is_empty()
            || plan.archive.is_some()
            || !plan.folded.is_empty() && self.deletes;
        let mut archived = true;
        if let Some(archive) = plan.archive.take() {
            archived = parts.contains(&Part::Archive);
            if archived {
                self.move_out(&mut plan, archive);
            }
        }
        let written = archived && parts.contains(&Part::Status);
        if written {
            self.write_status(plan.status);
        }
        if parts.contains(&Part::Effects) {
            for effect in plan.effects {
                self.carry_out(effect);
            }
        }
        if written && parts.contains(&Part::Folded) && self.deletes {
            let uids: Vec<_> = plan.folded.iter().map(|e| e.metadata.uid.clone()).collect();
            self.entries.retain(|e| !uids.contains(&e.metadata.uid));
        }
        self.finalize();
        busy
    }

    pub fn run(&mut self) -> &mut World {
        for _ in 0..1000 {
            if !self.step(&ALL) {
                return self;
            }
        }
        panic!("it never comes to rest: {:#?}", self.plan());
    }

    fn move_out(&mut self, plan: &mut Plan, archive: Archive) {
        let bytes = serde_json::to_string(&archive.records).unwrap().len();
        assert!(bytes < 1024 * 1024, "a ConfigMap holds 1 MiB, not {bytes} bytes");
        let stored = self.archives.entry(archive.name).or_insert(archive.records);
        drop_archived(&mut plan.status, stored, self.now);
    }

    /// As the API server would, it refuses what is too long for the schema or for etcd.
    fn write_status(&mut self, status: IncidentStatus) {
        assert!(status.timeline.len() <= 256, "{} entries in status.timeline", status.timeline.len());
        assert!(status.roles.len() <= 64, "{} roles", status.roles.len());
        assert!(status.mitigations.len() <= 64, "{} mitigations", status.mitigations.len());
        let mut names: Vec<_> = status.mitigations.iter().map(|m| &m.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), status.mitigations.len(), "names are the keys of the list");
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.len() < 1024 * 1024, "{} bytes of status", text.len());
        assert_eq!(serde_json::from_str::<IncidentStatus>(&text).unwrap(), status, "read back as written");
        self.incident.status = Some(status);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::CreateMitigation(child) => {
                let name = child.metadata.name.clone().unwrap();
                if !self.mitigations.iter().any(|m| m.metadata.name.as_ref() == Some(&name)) {
                    self.made.push(name);
                    self.add(*child);
                }
            }
            Effect::UpdateMitigation { object, spec, signatures } => {
                let Some(m) = self.mitigations.iter_mut().find(|m| m.metadata.uid == object.metadata.uid)
                else {
                    return;
                };
                assert_eq!(m.spec.template.target_ref, spec.template.target_ref, "the target is immutable");
                assert_eq!(m.spec.template.action, spec.template.action, "the action is immutable");
                m.spec = *spec;
                m.metadata.annotations.get_or_insert_default().extend(signatures);
                *m.metadata.generation.get_or_insert(0) += 1;
            }
            Effect::DeleteMitigation(object) => self.delete(&object.metadata.name.clone().unwrap()),
            Effect::CreatePostmortem(draft) => {
                self.postmortem.get_or_insert(*draft);
            }
        }
    }

    /// Objects that are deleted go once they have ended and the incident has that on record.
    fn finalize(&mut self) {
        let incident = &self.incident;
        self.mitigations.retain(|m| {
            let ended = m.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_ended);
            !(m.metadata.deletion_timestamp.is_some() && ended && recorded_end(incident, m))
        });
    }

    // ---- what people do ------------------------------------------------------------------------------------

    /// Somebody changes the spec, and the incident is looked at until nothing is left to do.
    pub fn edit(&mut self, by: &str, patch: Value) -> &mut World {
        self.change(by, patch).run()
    }

    /// Somebody changes the spec.
    pub fn change(&mut self, by: &str, patch: Value) -> &mut World {
        let before = serde_json::to_value(&self.incident.spec).unwrap();
        let mut spec = before.clone();
        json_patch::merge(&mut spec, &patch);
        let spec = serde_json::from_value(spec).unwrap();
        if spec != self.incident.spec {
            self.incident.spec = spec;
            *self.incident.metadata.generation.get_or_insert(0) += 1;
            stamp(by, &before, &mut self.incident);
        }
        self
    }

    pub fn entry(&mut self, by: &str, spec: Value) -> &mut World {
        self.uids += 1;
        let mut entry = json!({"apiVersion": API_VERSION, "kind": "TimelineEntry",
            "metadata": {"name": format!("entry-{}", self.uids), "uid": format!("entry-{}", self.uids),
                "creationTimestamp": whole_seconds(self.now), "annotations": {REQUESTER_ANNOTATION: by}},
            "spec": {"incidentRef": {"name": self.incident.metadata.name}, "type": "Note", "message": "m"}});
        json_patch::merge(&mut entry["spec"], &spec);
        self.entries.push(serde_json::from_value(entry).unwrap());
        self
    }

    pub fn acknowledge(&mut self, by: &str) -> &mut World {
        self.entry(by, json!({"type": "Acknowledgement"})).run()
    }

    /// A Mitigation that only names the incident.
    pub fn alone(&mut self, by: &str, name: &str) -> &mut World {
        let mut spec = scale(name);
        spec.as_object_mut().unwrap().remove("name");
        spec["incidentRef"] = json!({"name": self.incident.metadata.name});
        let m = json!({"apiVersion": API_VERSION, "kind": "Mitigation", "spec": spec,
            "metadata": {"name": name, "annotations": {REQUESTER_ANNOTATION: by}}});
        self.add(serde_json::from_value(m).unwrap());
        self
    }

    fn add(&mut self, mut m: Mitigation) {
        self.uids += 1;
        m.metadata.uid = Some(format!("mitigation-{}", self.uids));
        m.metadata.generation = Some(1);
        self.mitigations.push(m);
    }

    /// Somebody deletes a Mitigation; the finalizer holds it.
    pub fn delete(&mut self, name: &str) {
        let now = whole_seconds(self.now);
        self.object(name).metadata.deletion_timestamp.get_or_insert(now);
        self.finalize();
    }

    pub fn wait(&mut self, seconds: u64) -> &mut World {
        self.now += Duration::from_secs(seconds);
        self
    }

    /// Looks at every time at which the operator asked to be woken, until an end. Answers how often.
    pub fn sleep_until(&mut self, end: Timestamp) -> usize {
        let mut looks = 0;
        while let Some(wake) = self.plan().wake.filter(|wake| *wake < end) {
            assert!(wake > self.now, "it wakes for what lies ahead: {wake}");
            self.now = wake;
            self.run();
            looks += 1;
        }
        self.now = end;
        looks
    }

    pub fn reviewed(&mut self) -> &mut World {
        let now = self.now;
        let status = self.postmortem.as_mut().unwrap().status.get_or_insert_default();
        Conditions::new(&mut status.conditions, None, now).set("Reviewed", True, "Reviewed", "reviewed");
        self
    }

    // ---- what the controller of mitigations does ------------------------------------------------------------

    pub fn object(&mut self, name: &str) -> &mut Mitigation {
        let found = self.mitigations.iter_mut().find(|m| m.metadata.name.as_deref() == Some(name));
        found.unwrap_or_else(|| panic!("there is no Mitigation {name}"))
    }

    /// A mitigation reaches a phase, and the incident is looked at until nothing is left to do.
    pub fn reaches(&mut self, name: &str, phase: Phase) -> &mut World {
        self.gets_to(name, phase, Unknown).run()
    }

    /// A mitigation is in force and works.
    pub fn works(&mut self, name: &str) -> &mut World {
        self.gets_to(name, Phase::Active, True).run()
    }

    /// A mitigation is in force and does not work.
    pub fn fails(&mut self, name: &str) -> &mut World {
        self.gets_to(name, Phase::Active, False).run()
    }

    /// A mitigation reaches a phase.
    pub fn gets_to(&mut self, name: &str, phase: Phase, effective: ConditionStatus) -> &mut World {
        let now = self.now;
        let m = self.object(name);
        let generation = m.metadata.generation;
        let status = m.status.get_or_insert_default();
        status.observed_generation = generation;
        status.phase = Some(phase);
        if matches!(phase, Phase::Active | Phase::Releasing) {
            if status.applied_time.is_none() {
                let annotations = m.metadata.annotations.as_ref();
                let signed = |key| annotations.and_then(|all| all.get(key)).cloned();
                status.asked_by = signed(ACTOR_ANNOTATION).or_else(|| signed(REQUESTER_ANNOTATION));
                status.applied_time = Some(whole_seconds(now));
            }
            status.prior = vec![PriorValue {
                path: "/spec/replicas".to_owned(),
                value: Some("3".to_owned()),
                applied: Some("0".to_owned()),
                ..PriorValue::default()
            }];
        }
        if phase == Phase::Active && effective == True {
            status.effective_time.get_or_insert(whole_seconds(now));
        }
        if phase.is_ended() && status.applied_time.is_some() {
            status.released_time = Some(whole_seconds(now));
        }
        let refused = matches!(phase, Phase::Refused | Phase::Failed);
        let applied = matches!(phase, Phase::Active | Phase::Releasing);
        let effective = match phase {
            Phase::Active => effective,
            Phase::Releasing => find(&status.conditions, "Effective").map_or(Unknown, |c| c.status),
            phase if phase.is_ended() => False,
            _ => Unknown,
        };
        let is = |holds| if holds { True } else { False };
        let ready = is(phase.is_ended() && !refused || phase == Phase::Active && effective == True);
        let mut c = Conditions::new(&mut status.conditions, generation, now);
        c.set("Applied", is(applied), "Reason", "replicas from 3 to 0");
        c.set("Effective", effective, "Reason", "the pods are gone");
        c.set("Stalled", is(refused), "Reason", "");
        c.set("Ready", ready, "Reason", format!("says {phase}"));
        self
    }

    // ---- what is seen ----------------------------------------------------------------------------------------

    pub fn status(&self) -> &IncidentStatus {
        self.incident.status.as_ref().expect("it was looked at")
    }

    pub fn stage(&self) -> Stage {
        self.status().stage.unwrap()
    }

    pub fn condition(&self, type_: &str) -> &Condition {
        find(&self.status().conditions, type_).unwrap_or_else(|| panic!("there is no condition {type_}"))
    }

    /// Status and reason of a condition.
    pub fn says(&self, type_: &str) -> (ConditionStatus, &str) {
        let condition = self.condition(type_);
        (condition.status, &condition.reason)
    }

    pub fn summary(&self, name: &str) -> &MitigationSummary {
        self.status().mitigations.iter().find(|m| m.name == name).expect("it is summed up")
    }

    /// Everything on record, what has moved out first.
    pub fn record(&self) -> Vec<&TimelineRecord> {
        self.archives.values().flatten().chain(&self.status().timeline).collect()
    }

    /// Everything on record under a word.
    pub fn told(&self, reason: &str) -> Vec<&TimelineRecord> {
        self.record().into_iter().filter(|r| r.reason == reason).collect()
    }
}

pub fn is_sorted(records: &[TimelineRecord]) -> bool {
    records.is_sorted_by_key(|r| r.time.0)
}

/// What differs between two states, one operation a line; nothing when they are equal.
pub fn difference(a: &IncidentStatus, b: &IncidentStatus) -> String {
    if a == b {
        return String::new();
    }
    let [a, b] = [a, b].map(|status| serde_json::to_value(status).unwrap());
    let lines: Vec<_> = json_patch::diff(&a, &b).0.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
