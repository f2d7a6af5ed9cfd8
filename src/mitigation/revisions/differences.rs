//! What differs between two templates of pods, as it is told to people: images with their values, everything else by
//! its place. A command or a variable may hold what is nobody's business.

use serde_json::Value;

/// Most places that are told.
const MAX_TOLD: usize = 24;
/// What is told of a value that is not shown.
const HIDDEN: (&str, &str) = ("not shown", "another value, not shown");

/// One place that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where in the template, in dots; members of lists by their names.
    pub path: String,
    /// What is there before.
    pub from: String,
    /// What is there after.
    pub to: String,
}

/// What differs, images first.
pub fn between(from: &Value, to: &Value) -> Vec<Difference> {
    let mut all = Vec::new();
    walk("", "", Some(from), Some(to), &mut all);
    // Of equal rank they stay in the order of the template.
    all.sort_by_key(|difference| !is_image(&difference.path));
    if let Some(more) = all.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
        all.truncate(MAX_TOLD);
        let path = format!("({more} more places)");
        all.push(Difference { path, from: HIDDEN.0.to_owned(), to: HIDDEN.1.to_owned() });
    }
    all
}

fn is_image(path: &str) -> bool {
    path.ends_with("].image")
}

/// `key` is the last key of the path.
fn walk(path: &str, key: &str, from: Option<&Value>, to: Option<&Value>, told: &mut Vec<Difference>) {
    if from == to {
        return;
    }
    let before = told.len();
    match (from, to) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                walk(&below(path, key), key, a.get(key), b.get(key), told);
            }
        }
        (from, to) if has_names(from) && has_names(to) => {
            let (a, b) = (named(from), named(to));
            let came = b.iter().filter(|(name, _)| !a.iter().any(|(known, _)| known == name));
            for (name, _) in a.iter().chain(came) {
                let of = |list: &[(&str, &'_ Value)]| {
                    list.iter().find(|(known, _)| known == name).map(|(_, value)| (*value).clone())
                };
                let (a, b) = (of(&a), of(&b));
                member(&format!("{path}[{name}]"), key, a.as_ref(), b.as_ref(), told);
            }
        }
        _ => {}
    }
    // Nothing within it differs by itself: a single value, or the order of a list.
    if told.len() == before {
        told.push(one(path, from, to));
    }
}

/// One member of a list whose members have names.
fn member(path: &str, list: &str, from: Option<&Value>, to: Option<&Value>, told: &mut Vec<Difference>) {
    let image = |member: Option<&Value>| member.and_then(|member| member.get("image")).cloned();
    match list {
        _ if from == to => {}
        // The value of a variable stands below its name, or where it comes from.
        "env" => told.push(one(path, from, to)),
        // A container that comes or goes is told by its image.
        "containers" | "initContainers" if from.is_none() || to.is_none() => {
            told.push(one(&below(path, "image"), image(from).as_ref(), image(to).as_ref()));
        }
        _ => walk(path, "", from, to, told),
    }
}

fn one(path: &str, from: Option<&Value>, to: Option<&Value>) -> Difference {
    let text = |value: Option<&Value>, hidden: &str| match value {
        None => "absent".to_owned(),
        Some(value) if is_image(path) => value.to_string(),
        Some(_) => hidden.to_owned(),
    };
    let after = if from.is_some() { HIDDEN.1 } else { HIDDEN.0 };
    Difference { path: path.to_owned(), from: text(from, HIDDEN.0), to: text(to, after) }
}

fn below(path: &str, key: &str) -> String {
    match (path, key.contains(['.', '/'])) {
        (_, true) => format!("{path}[{key}]"),
        ("", false) => key.to_owned(),
        (_, false) => format!("{path}.{key}"),
    }
}

/// The members of a list by their names.
fn named(list: Option<&Value>) -> Vec<(&str, &Value)> {
    let members = list.and_then(Value::as_array).into_iter().flatten();
    members.filter_map(|member| Some((member.get("name")?.as_str()?, member))).collect()
}

/// Whether every member of a list, if there is one, has a name of its own.
fn has_names(list: Option<&Value>) -> bool {
    let all = list.map_or(Some(0), |list| list.as_array().map(Vec::len));
    let mut names: Vec<&str> = named(list).into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    all == Some(names.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(image: &str, password: &str) -> Value {
        json!({"metadata": {"annotations": {"a.b/c": image}}, "spec": {"containers": [
            {"name": "web", "image": image, "args": [password], "env": [
                {"name": "LOG", "value": "info"}, {"name": "PASSWORD", "value": password}],
                "resources": {"limits": {"cpu": password.len()}}},
            {"name": "side", "image": "side:1"}]}})
    }

    fn told(from: &Value, to: &Value) -> Vec<(String, String, String)> {
        between(from, to).into_iter().map(|d| (d.path, d.from, d.to)).collect()
    }

    #[test]
    fn images_are_told_with_their_values_and_whatever_else_differs_by_its_place_alone() {
        let all = told(&template("web:2", "hunter2"), &template("web:1", "secret"));
        let text = |path: &str, from: &str, to: &str| (path.to_owned(), from.to_owned(), to.to_owned());
        let hidden = |path: &str| text(path, "not shown", "another value, not shown");
        assert_eq!(
            all,
            [
                text("spec.containers[web].image", "\"web:2\"", "\"web:1\""),
                hidden("metadata.annotations[a.b/c]"),
                hidden("spec.containers[web].args"),
                hidden("spec.containers[web].env[PASSWORD]"),
                hidden("spec.containers[web].resources.limits.cpu"),
            ]
        );
    }

    #[test]
    fn what_comes_or_goes_is_absent_on_one_side_and_a_container_is_told_by_its_image() {
        let with = template("web:1", "x");
        let mut without = with.clone();
        without["spec"]["containers"].as_array_mut().unwrap().pop();
        without["spec"]["containers"][0].as_object_mut().unwrap().remove("env");
        let text = |path: &str, from: &str, to: &str| (path.to_owned(), from.to_owned(), to.to_owned());
        assert_eq!(
            told(&without, &with),
            [
                text("spec.containers[side].image", "absent", "\"side:1\""),
                text("spec.containers[web].env[LOG]", "absent", "not shown"),
                text("spec.containers[web].env[PASSWORD]", "absent", "not shown"),
            ]
        );
        assert_eq!(told(&with, &without)[0], text("spec.containers[side].image", "\"side:1\"", "absent"));
    }

    #[test]
    fn another_order_is_a_difference_too_and_no_more_is_told_than_fits() {
        let mut turned = template("web:1", "x");
        turned["spec"]["containers"].as_array_mut().unwrap().reverse();
        assert_eq!(told(&template("web:1", "x"), &turned)[0].0, "spec.containers");
        let labels = |value: &str| {
            let all = (0..100).map(|n| (format!("l{n}"), json!(value))).collect::<serde_json::Map<_, _>>();
            json!({"metadata": {"labels": all}})
        };
        let all = told(&labels("a"), &labels("b"));
        assert_eq!(all.len(), MAX_TOLD + 1);
        assert_eq!(all[MAX_TOLD].0, "(76 more places)");
    }
}
