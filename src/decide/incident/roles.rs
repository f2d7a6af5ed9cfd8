//! Roles and severity: who holds what, since when, and when it changed.

use super::Decision;
use crate::api::{Role, RoleRecord, Roles, Time, TimelineEntryType};
use crate::decide::conditions::{one_line, whole_seconds};

/// Most role changes that are kept.
const MAX_ROLE_RECORDS: usize = 64;

impl Decision<'_> {
    /// Records who holds which role, and confirmations of it.
    pub(super) fn roles(&mut self) {
        let none = Roles::default();
        let stated = self.seen.incident.spec.roles.as_ref().unwrap_or(&none);
        for (role, holder) in [
            (Role::IncidentCommander, &stated.incident_commander),
            (Role::CommunicationsLead, &stated.communications_lead),
            (Role::OperationsLead, &stated.operations_lead),
            (Role::Deputy, &stated.deputy),
            (Role::Scribe, &stated.scribe),
        ] {
            self.role(role, holder.as_deref());
        }
        self.confirm();
        let excess = self.status.roles.len().saturating_sub(MAX_ROLE_RECORDS);
        self.status.roles.drain(..excess);
    }

    fn role(&mut self, role: Role, holder: Option<&str>) {
        let present = self.status.roles.iter().position(|r| r.role == role && r.until_time.is_none());
        if present.map(|i| self.status.roles[i].holder.as_str()) == holder {
            return;
        }
        let now = whole_seconds(self.now);
        if let Some(i) = present {
            self.status.roles[i].until_time = Some(now.clone());
        }
        let author = self.actor().map(str::to_owned);
        let Some(holder) = holder else {
            self.tell(
                self.now,
                "RoleLeft",
                author.as_deref(),
                &format!("nobody is {} any more", title(role)),
            );
            return;
        };
        // Who states oneself in a role has taken it.
        let acknowledged_time = (author.as_deref() == Some(holder)).then(|| now.clone());
        self.status.roles.push(RoleRecord {
            role,
            holder: holder.to_owned(),
            from_time: now,
            until_time: None,
            acknowledged_time,
        });
        let message = format!("{} is {}", one_line(holder, 253), title(role));
        self.tell(self.now, "RoleAssigned", author.as_deref(), &message);
    }

    /// Acknowledgements in the timeline entries confirm the author's roles.
    fn confirm(&mut self) {
        for entry in self.seen.entries {
            if entry.spec.type_ != TimelineEntryType::Acknowledgement {
                continue;
            }
            let author =
                entry.metadata.annotations.as_ref().and_then(|a| a.get(crate::api::REQUESTER_ANNOTATION));
            let time = entry.metadata.creation_timestamp.as_ref().map_or(self.now, |t| t.0);
            for record in self.status.roles.iter_mut().filter(|r| r.until_time.is_none()) {
                let theirs = match author {
                    Some(author) => record.holder == *author,
                    // Nobody vouches for authors in this cluster: an acknowledgement is the commander's.
                    None => !self.seen.signed && record.role == Role::IncidentCommander,
                };
                if theirs && record.acknowledged_time.is_none() {
                    record.acknowledged_time = Some(whole_seconds(time));
                }
            }
        }
    }

    /// Who commands, and since when it is confirmed.
    pub(super) fn commander(&self) -> Option<(&str, Option<Time>)> {
        self.status
            .roles
            .iter()
            .find(|r| r.role == Role::IncidentCommander && r.until_time.is_none())
            .map(|r| (r.holder.as_str(), r.acknowledged_time.clone()))
    }

    /// Records changes of severity.
    pub(super) fn severity(&mut self) {
        let stated = self.seen.incident.spec.severity;
        let recorded = self.status.severity;
        if stated == recorded {
            return;
        }
        let declared_now = self.added.iter().any(|r| r.reason == "Declared");
        self.status.severity = stated;
        if declared_now {
            return;
        }
        let author = self.actor().map(str::to_owned);
        let word = |s: Option<crate::api::Severity>| s.map_or("not stated".to_owned(), |s| s.to_string());
        let why = match (&self.seen.incident.spec.severity_reason, stated > recorded) {
            (Some(reason), true) => format!(": {reason}"),
            _ => String::new(),
        };
        let message = format!("severity is {} (was {}){why}", word(stated), word(recorded));
        self.tell(self.now, "SeverityChanged", author.as_deref(), &message);
    }
}

/// The role in words.
pub(super) fn title(role: Role) -> &'static str {
    match role {
        Role::IncidentCommander => "incident commander",
        Role::CommunicationsLead => "communications lead",
        Role::OperationsLead => "operations lead",
        Role::Deputy => "deputy",
        Role::Scribe => "scribe",
    }
}
