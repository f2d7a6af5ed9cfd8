//! What a scenario is.

use super::request::Request;
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
    /// At most so many k a mode, of each kind of write some: for stories with hundreds of writes.
    pub most: usize,
    /// The story: what people and the cluster do, and what they wait for.
    pub run: for<'a> fn(&'a World) -> BoxFuture<'a, ()>,
}

impl Scenario {
    /// The writes that a fault strikes: all of them, or as many as allowed. Then of each kind of write the first, the
    /// last and one in the middle come before more of the same.
    pub fn strikes(&self, requests: &[Request], most: usize) -> Vec<usize> {
        if requests.len() <= most {
            return (1..=requests.len()).collect();
        }
        let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
        for (at, request) in (1..).zip(requests) {
            let shape = request.shape();
            match shapes.iter_mut().find(|(known, _)| *known == shape) {
                Some((_, all)) => all.push(at),
                None => shapes.push((shape, vec![at])),
            }
        }
        let places: [fn(usize) -> usize; 5] =
            [|_| 0, |count| count - 1, |count| count / 2, |count| count / 4, |count| count * 3 / 4];
        let mut strikes: Vec<usize> = Vec::new();
        for place in places {
            for (_, all) in &shapes {
                let at = all[place(all.len())];
                if strikes.len() < most && !strikes.contains(&at) {
                    strikes.push(at);
                }
            }
        }
        strikes.sort_unstable();
        strikes
    }
}
