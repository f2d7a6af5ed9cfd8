//! What a scenario is.

use super::world::World;
use futures::future::BoxFuture;

/// A story that is told to one operator in a namespace of its own: once undisturbed, and again with a fault at every
/// write that the operator makes in it.
pub struct Scenario {
    /// Name on the command line and in reports.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// The fields that the operator may change on objects that are not its own: kind, name, JSON pointer. Any other
    /// change, and any change of these that cannot be undone, is a violation.
    pub fields: &'static [(&'static str, &'static str, &'static str)],
    /// At most so many k a mode, evenly spread, where not all are asked for: for stories with hundreds of writes.
    pub most: usize,
    /// The story: what people and the cluster do, and what they wait for.
    pub run: for<'a> fn(&'a World) -> BoxFuture<'a, ()>,
}

impl Scenario {
    /// The writes that a fault strikes: all of them, or as many as allowed.
    pub fn strikes(&self, count: usize, most: usize) -> Vec<usize> {
        let most = most.min(count);
        // The first and the last are always among them.
        match most {
            0 => Vec::new(),
            1 => vec![1],
            _ => (0..most).map(|i| 1 + i * (count - 1) / (most - 1)).collect(),
        }
    }
}
