//! What a request of the operator is, from its method and path alone.

use http::Method;
use regex_lite::Regex;
use std::sync::LazyLock;

/// What is made of a uid ends the names of some objects.
static HASHES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"-[0-9a-f]{8}\b").expect("it is a pattern"));

/// The kinds of requests that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Changes an object: counted, and where faults strike.
    Write,
    /// A write that is only tried (`dryRun=All`).
    DryRun,
    /// The lease, whose faults have tests of their own.
    Lease,
    /// A Kubernetes Event: a mirror that nothing depends on.
    Event,
    /// A question to the API server that is asked by POST.
    Review,
    /// A watch.
    Watch,
    /// A list of objects.
    List,
    /// Any other read.
    Read,
}

/// A request, taken apart.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its kind.
    pub class: Class,
    /// HTTP method.
    pub method: Method,
    /// Plural of the kind of the object.
    pub resource: String,
    /// Name of the object; empty where the request names none.
    pub name: String,
    /// `status`, `scale`, … or empty.
    pub subresource: String,
    /// Path and query.
    pub uri: String,
}

impl Request {
    /// Takes a request apart.
    pub fn of(method: &Method, uri: &http::Uri) -> Request {
        let path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        // /api/v1/… or /apis/GROUP/VERSION/…, then namespaces/NAME/…
        let skip = if path.first() == Some(&"api") { 2 } else { 3 };
        let mut rest = path.get(skip..).unwrap_or_default();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 && rest[2] != "status" {
            rest = &rest[2..];
        }
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        let (resource, name, subresource) = (part(0), part(1), part(2));
        let query = uri.query().unwrap_or_default();
        let asks = |text: &str| query.split('&').any(|pair| pair == text);
        let class = match *method {
            Method::GET | Method::HEAD if asks("watch=true") || asks("watch=1") => Class::Watch,
            Method::GET | Method::HEAD if name.is_empty() => Class::List,
            Method::GET | Method::HEAD => Class::Read,
            _ if resource == "leases" => Class::Lease,
            _ if resource == "events" => Class::Event,
            _ if resource.ends_with("reviews") => Class::Review,
            _ if asks("dryRun=All") => Class::DryRun,
            _ => Class::Write,
        };
        Request { class, method: method.clone(), resource, name, subresource, uri: uri.to_string() }
    }

    /// The same in each run: in short, without what differs between any two.
    pub fn kind(&self) -> String {
        // People's entries bear names that the API server makes up.
        match self.resource.as_str() {
            "timelineentries" => self.shape(),
            _ => HASHES.replace_all(&self.brief(), "-<hash>").into_owned(),
        }
    }

    /// What it does to objects of which kind, such as `PATCH mitigations/status`.
    pub fn shape(&self) -> String {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{}", self.method, self.resource, self.subresource)
    }

    /// In short, such as `PATCH mitigations/stop/status`.
    pub fn brief(&self) -> String {
        let mut text = format!("{} {}", self.method, self.resource);
        for part in [&self.name, &self.subresource] {
            if !part.is_empty() {
                text = format!("{text}/{part}");
            }
        }
        text
    }
}
