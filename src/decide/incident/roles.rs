//! Roles: who holds what, since when, and who confirmed it.
//!
//! Command is never in the air: until the successor confirms, who had it has it.

use super::Decision;
use crate::api::{ROLES_STAMP, Role, RoleRecord, Roles, Time, TimelineEntryType};
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
            self.role(role, holder.as_deref().filter(|h| !h.trim().is_empty()));
        }
        self.confirm();
        self.handed_over();
        while self.status.roles.len() > MAX_ROLE_RECORDS {
            // The oldest that is over; who holds a role now is never forgotten.
            let Some(i) = self.status.roles.iter().position(|r| r.until_time.is_some()) else { break };
            self.status.roles.remove(i);
        }
    }

    fn role(&mut self, role: Role, holder: Option<&str>) {
        let present = self.status.roles.iter().position(|r| r.role == role && r.until_time.is_none());
        if present.map(|i| self.status.roles[i].holder.as_str()) == holder {
            return;
        }
        let since = self.since();
        // To whom command is handed back before anybody else confirmed it never let go of it.
        let has_it = role == Role::IncidentCommander && holder.is_some() && self.in_command() == holder;
        if let Some(i) = present {
            self.status.roles[i].until_time = Some(whole_seconds(since));
        }
        let author = self.actor_of(ROLES_STAMP);
        let Some(holder) = holder else {
            let message = format!("nobody is {} any more", title(role));
            self.tell(since, "RoleLeft", author.as_deref(), &message);
            return;
        };
        // Who states oneself in a role has taken it.
        let acknowledged_time = (has_it || author.as_deref() == Some(holder)).then(|| whole_seconds(since));
        self.status.roles.push(RoleRecord {
            role,
            holder: holder.to_owned(),
            from_time: whole_seconds(since),
            until_time: None,
            acknowledged_time,
        });
        let message = format!("{} is {}", one_line(holder, 253), title(role));
        self.tell(since, "RoleAssigned", author.as_deref(), &message);
    }

    /// Acknowledgements in the timeline entries confirm the author's roles. One that is on record already has
    /// done so; it does not confirm what the author was given afterwards.
    fn confirm(&mut self) {
        let mut confirming = Vec::new();
        for entry in self.seen.entries {
            if entry.spec.type_ != TimelineEntryType::Acknowledgement || self.is_folded(entry) {
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
                    confirming.extend(entry.metadata.uid.clone());
                }
            }
        }
        self.confirming = confirming;
    }

    /// Who commands, and since when it is confirmed.
    pub(super) fn commander(&self) -> Option<(&str, Option<Time>)> {
        self.status
            .roles
            .iter()
            .find(|r| r.role == Role::IncidentCommander && r.until_time.is_none())
            .map(|r| (r.holder.as_str(), r.acknowledged_time.clone()))
    }

    /// Who has command.
    pub(super) fn in_command(&self) -> Option<&str> {
        in_command(&self.status.roles)
    }

    /// Who has command or is to confirm it, for the column.
    pub(super) fn leader(&self) -> Option<String> {
        match (self.in_command(), self.commander()) {
            (Some(who), _) => Some(one_line(who, 253)),
            (None, Some((who, _))) => Some(format!("{} (not confirmed)", one_line(who, 253))),
            (None, None) => None,
        }
    }

    /// Command that passed from one to another is told; that somebody was named is not that yet.
    fn handed_over(&mut self) {
        let before = self.seen.incident.status.iter().flat_map(|s| in_command(&s.roles)).next();
        let (Some(before), Some(now)) = (before, self.in_command().map(str::to_owned)) else { return };
        if before == now {
            return;
        }
        let confirmed = self.commander().and_then(|(_, time)| time).map_or(self.now, |t| t.0);
        let message =
            format!("{} has command, {} has handed it over", one_line(&now, 253), one_line(before, 253));
        self.tell(confirmed, "CommandHandedOver", Some(&now), &message);
    }
}

/// Who confirmed command last and handed over without a gap to whoever is to confirm now.
fn in_command(roles: &[RoleRecord]) -> Option<&str> {
    let mut leader: Option<&RoleRecord> = None;
    let mut until = None;
    for record in roles.iter().filter(|r| r.role == Role::IncidentCommander) {
        if record.acknowledged_time.is_some() {
            leader = Some(record);
        } else if until != Some(&record.from_time) {
            leader = None;
        }
        until = record.until_time.as_ref();
    }
    leader.filter(|_| until.is_none()).map(|r| r.holder.as_str())
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
