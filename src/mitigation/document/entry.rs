//! Which entry of a list is meant. Its number means another one as soon as somebody adds or removes an entry before it, so
//! the entry is told by its name, or by what else is in it.

use super::{at_mut, step};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Keys by which people name the entries of a list.
const NAMES: [&str; 3] = ["name", "id", "key"];

/// What an entry of a list is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The only one in its list with this value under this key.
    Named(String, Value),
    /// By what is in it besides the value that is held, by the other entries, both as a hash, and by the length of the list.
    Like(String, String, usize),
}

impl Entry {
    /// What entry `index` of a list is known by. `rest` leads on from there to the value that is held.
    fn of(list: &[Value], index: usize, rest: &[String]) -> Option<Entry> {
        let entry = list.get(index)?;
        let name =
            NAMES.iter().filter(|key| rest.first().is_some_and(|next| next != **key)).find_map(|key| {
                let value = entry.get(key).filter(|value| value.is_string() || value.is_number())?;
                let alone = list.iter().filter(|other| other.get(key) == Some(value)).count() == 1;
                alone.then(|| Entry::Named((*key).to_owned(), value.clone()))
            });
        name.or_else(|| Some(Entry::Like(besides(entry, rest), others(list, index), list.len())))
    }

    /// Where in the list it is now, when that can be told. `before` is where it was.
    fn find(&self, list: &[Value], before: usize, rest: &[String]) -> Option<usize> {
        let only = |is: &dyn Fn(&Value) -> bool| {
            let mut found = list.iter().enumerate().filter(|(_, entry)| is(entry)).map(|(index, _)| index);
            found.next().filter(|_| found.next().is_none())
        };
        match self {
            Entry::Named(key, value) => only(&|entry| entry.get(key) == Some(value)),
            Entry::Like(hash, around, length) => {
                let alike = list.iter().filter(|entry| besides(entry, rest) == *hash).count();
                let stayed = list.len() == *length && before < *length;
                match alike {
                    1 => only(&|entry| besides(entry, rest) == *hash),
                    // It was edited where it is, or is gone and another one came.
                    0 => (stayed && others(list, before) == *around).then_some(before),
                    _ => stayed.then_some(before),
                }
            }
        }
    }
}

/// The hash of an entry without the value that is held.
fn besides(entry: &Value, rest: &[String]) -> String {
    let mut entry = entry.clone();
    if let Some(held) = at_mut(&mut entry, rest) {
        *held = Value::Null;
    }
    hash(&entry)
}

/// The hash of the other entries of a list.
fn others(list: &[Value], index: usize) -> String {
    let others = list.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, entry)| entry.clone());
    hash(&Value::Array(others.collect()))
}

fn hash(value: &Value) -> String {
    let hash = Sha256::digest(value.to_string());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What the entries of lists on a path are known by, each with its place in the path.
pub fn known_by(document: &Value, path: &[String]) -> Vec<(usize, Entry)> {
    let (mut entries, mut place) = (Vec::new(), document);
    for (depth, key) in path.iter().enumerate() {
        if let Value::Array(list) = place {
            let index = key.parse().ok();
            let entry = index.and_then(|index| Entry::of(list, index, &path[depth + 1..]));
            entries.extend(entry.map(|entry| (depth, entry)));
        }
        let Some(next) = step(place, key) else { break };
        place = next;
    }
    entries
}

/// The path with the numbers that the entries have now. `None`: which entry is meant cannot be told.
pub fn resolve(document: &Value, path: &[String], entries: &[(usize, Entry)]) -> Option<Vec<String>> {
    let (mut place, mut now) = (Some(document), Vec::new());
    for (depth, key) in path.iter().enumerate() {
        let key = match (place, key.parse()) {
            (Some(Value::Array(list)), Ok(before)) => match entries.iter().find(|(at, _)| *at == depth) {
                Some((_, entry)) => entry.find(list, before, &path[depth + 1..])?.to_string(),
                None => key.clone(),
            },
            _ => key.clone(),
        };
        place = place.and_then(|place| step(place, &key));
        now.push(key);
    }
    Some(now)
}
