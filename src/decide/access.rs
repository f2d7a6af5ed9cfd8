//! The rights at the moment of acting: who acts through a mitigation, which rights that needs, and what follows from
//! the API server's answers.
//!
//! Admission asked the same when the mitigation was requested; in between, rights may have gone. Whoever asked acts
//! with their own rights, with those of the ServiceAccount that the mitigation names and that they may impersonate,
//! or by the verb `use` on the MitigationPolicy that it names.

use crate::{
    api::{
        ACTOR_ANNOTATION, ACTOR_GROUPS_ANNOTATION, DesiredState, EvidencePolicy, GROUP, MITIGATOR_ANNOTATION,
        MITIGATOR_GROUPS_ANNOTATION, Mitigation, MitigationPhase as Phase, REQUESTER_ANNOTATION,
    },
    authority::{EVIDENCE, Right, wanted},
    decide::mitigation::evidence_policy,
    mitigation::{ObjectId, Refusal},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Who acts, as the API server knows them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl Subject {
    /// Who changed the spec of an object last, as admission stamped it. `None`: nobody is on record.
    pub fn stamped(annotations: Option<&BTreeMap<String, String>>) -> Option<Subject> {
        let user =
            stamp(annotations, ACTOR_ANNOTATION).or_else(|| stamp(annotations, REQUESTER_ANNOTATION))?;
        Some(Subject::with_groups(user, stamp(annotations, ACTOR_GROUPS_ANNOTATION)))
    }

    /// Who changed an incident's mitigations, or its outcome, last.
    pub fn mitigator(annotations: Option<&BTreeMap<String, String>>) -> Option<Subject> {
        match stamp(annotations, MITIGATOR_ANNOTATION) {
            Some(user) => Some(Subject::with_groups(user, stamp(annotations, MITIGATOR_GROUPS_ANNOTATION))),
            // Of one that is older than this stamp.
            None => Subject::stamped(annotations),
        }
    }

    fn with_groups(user: &str, groups: Option<&str>) -> Subject {
        let groups = groups.and_then(|text| serde_json::from_str(text).ok());
        Subject { user: user.to_owned(), groups: groups.unwrap_or_default() }
    }

    /// A ServiceAccount; its groups follow from its name.
    pub fn account(namespace: &str, name: &str) -> Subject {
        Subject {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
        }
    }
}

fn stamp<'a>(annotations: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    annotations?.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// One right that acting needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// The right.
    pub right: Right,
    /// Name of the object; empty for all of that resource.
    pub name: String,
}

impl Need {
    /// What a change of an object, or its making, needs.
    pub fn on(id: &ObjectId, made: bool) -> Need {
        let verb = if made { "create" } else { "patch" };
        let right = Right { verb, group: id.kind.group, resource: id.kind.plural, subresource: "" };
        Need { right, name: if made { String::new() } else { id.name.clone() } }
    }

    /// Whether who holds this one holds the other.
    fn covers(&self, other: &Need) -> bool {
        self.right == other.right && (self.name.is_empty() || self.name == other.name)
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.right)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " \"{}\"", self.name) }
    }
}

/// A question for the API server: whether somebody holds a right in the mitigation's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Who.
    pub subject: Arc<Subject>,
    /// What.
    pub need: Need,
}

/// Its answers.
pub type Answers = HashMap<Question, bool>;

/// What a mitigation needs before the change: the rights on the target, and what evidence reads.
pub fn needs(mitigation: &Mitigation) -> Vec<Need> {
    let template = &mitigation.spec.template;
    let mut needs = wanted(template, true);
    if evidence_policy(template) == EvidencePolicy::Required {
        needs.push(logs());
    }
    needs
}

/// Reading logs.
pub fn logs() -> Need {
    Need { right: EVIDENCE, name: String::new() }
}

/// Adds what the objects besides the target need, unless that is asked for already.
pub fn extend(needs: &mut Vec<Need>, more: impl IntoIterator<Item = Need>) {
    for need in more {
        if !needs.iter().any(|known| known.covers(&need)) {
            needs.push(need);
        }
    }
}

const IMPERSONATE: Right =
    Right { verb: "impersonate", group: "", resource: "serviceaccounts", subresource: "" };
const MAKE_TOKEN: Right =
    Right { verb: "create", group: "", resource: "serviceaccounts", subresource: "token" };
/// What who approves a mitigation must hold on it.
pub const APPROVE: Right = Right { verb: "approve", group: GROUP, resource: "mitigations", subresource: "" };
const USE: Right = Right { verb: "use", group: GROUP, resource: "mitigationpolicies", subresource: "" };

/// Who acts through a mitigation, and by which ways.
struct Ways {
    requester: Arc<Subject>,
    account: Option<(Arc<Subject>, Question)>,
    policy: Option<Question>,
}

impl Ways {
    /// `by_policy`: the policy that the mitigation names allows it, so its use counts.
    fn of(mitigation: &Mitigation, by_policy: bool) -> Option<Ways> {
        let subject = Subject::stamped(mitigation.metadata.annotations.as_ref())?;
        Some(Ways::of_subject(subject, mitigation, by_policy))
    }

    fn of_subject(subject: Subject, mitigation: &Mitigation, by_policy: bool) -> Ways {
        let requester = Arc::new(subject);
        let template = &mitigation.spec.template;
        let namespace = mitigation.metadata.namespace.as_deref().unwrap_or_default();
        let asks = |right: Right, name: &str| Question {
            subject: requester.clone(),
            need: Need { right, name: name.to_owned() },
        };
        let account = template
            .service_account_name
            .as_ref()
            .map(|name| (Arc::new(Subject::account(namespace, name)), asks(IMPERSONATE, name)));
        let policy = template.policy_ref.as_ref().filter(|_| by_policy);
        let policy = policy.map(|policy| asks(USE, &policy.name));
        Ways { requester, account, policy }
    }

    fn questions(&self, needs: &[Need]) -> Vec<Question> {
        let mut questions: Vec<Question> = self.policy.iter().cloned().collect();
        questions.extend(self.account.iter().map(|(_, impersonates)| impersonates.clone()));
        for need in needs {
            let subjects = [Some(&self.requester), self.account.as_ref().map(|(account, _)| account)]
                .into_iter()
                .flatten();
            questions
                .extend(subjects.map(|subject| Question { subject: subject.clone(), need: need.clone() }));
        }
        questions
    }

    /// By whose right one need is met.
    fn met(&self, need: &Need, answers: &Answers) -> Option<String> {
        let yes = |question: &Question| answers.get(question) == Some(&true);
        let holds = |subject: &Arc<Subject>| yes(&Question { subject: subject.clone(), need: need.clone() });
        if holds(&self.requester) {
            return Some(self.requester.user.clone());
        }
        if let Some((account, impersonates)) = &self.account
            && yes(impersonates)
            && holds(account)
        {
            return Some(format!("{}, in whose name {} acts,", account.user, self.requester.user));
        }
        let policy = self.policy.as_ref().filter(|question| yes(question))?;
        Some(format!("{}, by the use of MitigationPolicy {},", self.requester.user, policy.need.name))
    }
}

/// Whether somebody may act in the name of a ServiceAccount of the mitigation's namespace, as who impersonates it or has
/// a token made for it. Nothing is asked about a name that is none of these, or one's own.
pub fn acts_as(subject: &Arc<Subject>, namespace: &str, user: &str) -> Vec<Question> {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
    let Some((_, name)) = account.filter(|(home, _)| *home == namespace && subject.user != user) else {
        return Vec::new();
    };
    let question = |right| Question { subject: subject.clone(), need: Need { right, name: name.to_owned() } };
    [IMPERSONATE, MAKE_TOKEN].map(question).to_vec()
}

/// What is asked side by side with the reading of the target, before anything is decided.
pub fn foreseen(mitigation: &Mitigation) -> Vec<Question> {
    let status = mitigation.status.as_ref();
    let phase = status.and_then(|s| s.phase).unwrap_or_default();
    let Some(ways) = Ways::of(mitigation, true) else { return Vec::new() };
    if phase.is_ended() || mitigation.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let applied = status.is_some_and(|s| s.applied_time.is_some());
    let template = &mitigation.spec.template;
    match (applied, template.desired_state) {
        (false, Some(DesiredState::Released)) => Vec::new(),
        (false, Some(DesiredState::Active) | None) => {
            let mut needs = needs(mitigation);
            if evidence_policy(template) == EvidencePolicy::BestEffort {
                extend(&mut needs, [logs()]);
            }
            ways.questions(&needs)
        }
        (true, Some(DesiredState::Released)) if phase != Phase::Releasing => {
            ways.questions(&wanted(template, false))
        }
        (true, _) => Vec::new(),
    }
}

/// What follows from the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done; the words say by whose right.
    Allowed(String),
    /// These must be answered first.
    Ask(Vec<Question>),
    /// It may not be done.
    Denied(Refusal),
}

/// Whether who asked may act now. `does` says what: "make" or "release". `by_policy`: the policy that the mitigation
/// names allows that.
pub fn judge(
    mitigation: &Mitigation,
    needs: &[Need],
    answers: &Answers,
    does: &str,
    by_policy: bool,
) -> Verdict {
    let subject = Subject::stamped(mitigation.metadata.annotations.as_ref());
    judge_of(subject, mitigation, needs, answers, does, by_policy)
}

/// The same of somebody who asked elsewhere. `None`: nobody is on record.
pub fn judge_of(
    subject: Option<Subject>,
    mitigation: &Mitigation,
    needs: &[Need],
    answers: &Answers,
    does: &str,
    by_policy: bool,
) -> Verdict {
    let ways = subject.map(|subject| Ways::of_subject(subject, mitigation, by_policy));
    let Some(ways) = ways else {
        let message = format!(
            "nobody is on record who asked to {does} this, so nobody's rights can be checked: the object was made \
             while admission did not sign; make a new one"
        );
        return Verdict::Denied(Refusal::new("NotSigned", message));
    };
    if needs.is_empty() {
        return Verdict::Allowed("no right is needed".to_owned());
    }
    let open: Vec<_> =
        ways.questions(needs).into_iter().filter(|question| !answers.contains_key(question)).collect();
    if !open.is_empty() {
        return Verdict::Ask(open);
    }
    let (mut held, mut lacking): (BTreeMap<String, Vec<String>>, Vec<String>) = Default::default();
    for need in needs {
        match ways.met(need, answers) {
            Some(by) => held.entry(by).or_default().push(need.to_string()),
            None => lacking.push(need.to_string()),
        }
    }
    if lacking.is_empty() {
        let said: Vec<_> = held.iter().map(|(who, what)| format!("{who} may {}", what.join(", "))).collect();
        return Verdict::Allowed(said.join("; "));
    }
    let namespace = mitigation.metadata.namespace.as_deref().unwrap_or_default();
    let message = format!(
        "{} may not {does} this now: it needs {} in namespace {namespace}",
        ways.requester.user,
        lacking.join(", ")
    );
    Verdict::Denied(Refusal::new("RequesterForbidden", message))
}

/// Whether evidence may hold logs: `Err` with what must be asked first.
pub fn may_read_logs(mitigation: &Mitigation, answers: &Answers) -> Result<bool, Vec<Question>> {
    let Some(ways) = Ways::of(mitigation, true) else { return Ok(false) };
    let need = logs();
    let asked = ways.questions(std::slice::from_ref(&need)).into_iter();
    let open: Vec<_> = asked.filter(|question| !answers.contains_key(question)).collect();
    if open.is_empty() { Ok(ways.met(&need, answers).is_some()) } else { Err(open) }
}
