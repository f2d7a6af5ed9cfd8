//! What is changed, in words.

use super::{DynamicObject, HeldField, Record, Value, clip};
use crate::mitigation::field::{How, dotted, field};

fn text(value: Option<&Value>, most: usize) -> String {
    clip(&value.map_or("absent".to_owned(), Value::to_string), most)
}

/// What is done to a field, or that it has the value already.
pub(super) fn change(held: &HeldField) -> String {
    let path = dotted(&held.path);
    let inside = match &held.how {
        How::Revision(pin) => return format!("{path} {pin}"),
        How::Member(member) if held.is_unchanged() => return member.is_there(&path),
        How::Member(member) => return member.comes(&path, held.applied.is_some()),
        How::Inside(place) => format!(" {}", place.path.join(".")),
        How::Plain | How::Digest | How::Subset | How::Shared => String::new(),
    };
    let told = |value: Option<&Value>| clip(&held.how.told(value), 256);
    let (prior, applied) = (told(held.prior.as_ref()), told(held.applied.as_ref()));
    match held.is_unchanged() {
        true => format!("{path}{inside} is {applied}"),
        false if held.how.empties(held.applied.as_ref()) => {
            format!("{path}{inside} is emptied, it was {prior}")
        }
        false => format!("{path}{inside} from {prior} to {applied}"),
    }
}

/// What the fields are instead of what they should be.
pub(super) fn drift(object: &DynamicObject, record: &Record) -> String {
    let changed = record.fields.iter().filter(|held| !held.is_in_place(object));
    let told = changed.map(|held| {
        let has = match &held.how {
            How::Member(member) => return member.is_missing(&held.path),
            How::Revision(pin) => return format!("{} is not that of {} any more", held.path, pin.to),
            How::Digest => "another value".to_owned(),
            How::Plain | How::Subset | How::Shared => text(field(object, &held.path).as_ref(), 128),
            How::Inside(_) => text(held.seen(object).as_ref(), 128),
        };
        format!("{} is {has} instead of {}", held.path, text(held.applied.as_ref(), 128))
    });
    clip(&told.collect::<Vec<_>>().join("; "), 1024)
}
