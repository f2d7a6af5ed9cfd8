use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;

fn object(name: &str, version: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            resource_version: Some(version.to_string()),
            uid: Some("u".into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn cache() -> Cache<ConfigMap> {
    Cache::new(&[|o| o.metadata.name.iter().map(|n| n[..1].to_owned()).collect()])
}

#[test]
fn our_own_write_is_known_at_once_and_its_echo_is_no_news() {
    let cache = cache();
    assert!(cache.saw(object("a", 5)).is_some());
    assert!(cache.take_in(Event::Apply(object("a", 5))).is_empty());
    assert!(cache.take_in(Event::Apply(object("a", 4))).is_empty(), "nor is what was true before");
    assert_eq!(cache.take_in(Event::Apply(object("a", 6))).len(), 1);
}

#[test]
fn after_a_new_list_what_was_not_listed_is_gone_but_not_what_was_written_meanwhile() {
    let cache = cache();
    cache.saw(object("a", 1));
    cache.saw(object("b", 2));
    cache.take_in(Event::Init);
    cache.take_in(Event::InitApply(object("a", 1)));
    cache.saw(object("c", 9));
    assert!(!*cache.synced.borrow());
    let news = cache.take_in(Event::InitDone);
    assert!(matches!(&news[..], [News::Gone(b)] if b.metadata.name.as_deref() == Some("b")));
    assert!(*cache.synced.borrow() && cache.get(&Key::new("ns", "c")).is_some());
}

/// Copies for a list and a queue go after a start; of thousands the heap would be left in pieces.
#[test]
fn whoever_holds_the_key_of_an_object_holds_the_names_that_the_cache_holds() {
    let cache = cache();
    let same = |a: &Key, b: &Key| Arc::ptr_eq(&a.name, &b.name) && Arc::ptr_eq(&a.namespace, &b.namespace);
    let listed = |name| {
        let state = cache.lock();
        state.listing.iter().flatten().find(|key| &*key.name == name).cloned().expect("it is listed")
    };
    cache.saw(object("b", 1));
    cache.take_in(Event::Init);
    cache.take_in(Event::InitApply(object("a", 1)));
    assert!(cache.has(&Key::new("ns", "b"), 1, true));
    cache.saw(object("c", 2));
    for name in ["a", "b", "c"] {
        let kept = cache.key_of(&object(name, 0));
        assert!(same(&kept, &cache.key_of(&object(name, 9))) && same(&kept, &listed(name)), "{name}");
    }
    assert_eq!(cache.key_of(&object("d", 1)), Key::new("ns", "d"), "one that is not known has one, too");
}

#[test]
fn what_is_known_need_not_be_read_again_and_counts_as_listed_all_the_same() {
    let cache = cache();
    let has = |name: &str, version, listed| cache.has(&Key::new("ns", name), version, listed);
    cache.saw(object("a", 5));
    assert!(has("a", 5, false) && has("a", 4, false));
    assert!(!has("a", 6, false) && !has("b", 1, false));
    for (listed, gone) in [(true, 0), (false, 1)] {
        cache.take_in(Event::Init);
        assert!(has("a", 5, listed));
        assert_eq!(cache.take_in(Event::InitDone).len(), gone);
    }
}

#[test]
fn what_the_watch_tells_late_does_not_bring_back_what_was_dropped() {
    let cache = cache();
    cache.saw(object("a", 5));
    cache.forget(&Key::new("ns", "a"));
    assert!(cache.take_in(Event::Apply(object("a", 4))).is_empty(), "older than what we knew");
    assert!(cache.get(&Key::new("ns", "a")).is_none());
    assert_eq!(cache.take_in(Event::Apply(object("a", 6))).len(), 1);
    assert!(cache.saw_gone(&object("a", 7)).is_some());
    assert!(cache.take_in(Event::Apply(object("a", 7))).is_empty());
    cache.take_in(Event::Delete(object("a", 7)));
    assert_eq!(cache.take_in(Event::Apply(object("a", 9))).len(), 1, "made anew");
}

/// An answer that never came makes what is known doubtful; what is read then is known again.
#[test]
fn what_was_forgotten_is_known_again_once_it_was_read() {
    let cache = cache();
    cache.saw(object("a", 5));
    cache.forget(&Key::new("ns", "a"));
    cache.was_read(object("a", 4));
    assert!(cache.get(&Key::new("ns", "a")).is_none(), "older than what we knew");
    cache.was_read(object("a", 5));
    assert!(cache.get(&Key::new("ns", "a")).is_some());
    assert!(cache.take_in(Event::Apply(object("a", 5))).is_empty(), "its echo is no news");
}

/// The incident was deleted while its status was being written: it would be there for ever, and its mitigations
/// would wait for it to record their end.
#[test]
fn the_answer_to_a_write_does_not_bring_back_what_was_deleted_meanwhile() {
    let cache = cache();
    cache.saw(object("a", 5));
    cache.take_in(Event::Delete(object("a", 7)));
    assert!(cache.saw(object("a", 6)).is_none());
    assert!(!cache.contains(&Key::new("ns", "a")));
    assert!(cache.saw(object("a", 8)).is_some(), "made anew");
    for i in 0..2 * REMEMBERED as u64 {
        cache.take_in(Event::Delete(object(&format!("b{i}"), 10 + i)));
    }
    let state = cache.lock();
    assert_eq!((state.dropped.len(), state.gone.len()), (REMEMBERED, REMEMBERED), "nothing grows for ever");
}

#[test]
fn what_cannot_be_read_counts_as_there_until_it_can_be_read_or_is_gone() {
    let (cache, key) = (cache(), Key::new("ns", "a"));
    cache.saw_unreadable(&key);
    assert!(cache.is_unreadable(&key) && cache.get(&key).is_none());
    cache.take_in(Event::Apply(object("a", 3)));
    assert!(!cache.is_unreadable(&key));
    cache.saw_unreadable(&key);
    cache.take_in(Event::Init);
    cache.take_in(Event::InitDone);
    assert!(!cache.is_unreadable(&key), "a new list did not have it");
}

#[test]
fn what_is_at_rest_is_kept_as_text_and_is_the_same_when_it_is_looked_at() {
    let is_at_rest: fn(&ConfigMap) -> bool = |o| o.metadata.name.as_deref() == Some("at-rest");
    let cache: Cache<ConfigMap> = Cache::of_ours(&[|o| o.metadata.uid.iter().cloned().collect()], is_at_rest);
    let resting = ConfigMap {
        data: Some([("결제".to_owned(), "\u{1b}\"\n".to_owned())].into()),
        ..object("at-rest", 5)
    };
    assert!(cache.saw(resting.clone()).is_some());
    let key = Key::of(&resting);
    assert!(matches!(cache.lock().objects.get(&key), Some(Known::Text(5, _))));
    assert_eq!(cache.get(&key).as_deref(), Some(&resting));
    let mut noted = object("noted", 5);
    noted.metadata.managed_fields = Some(vec![Default::default()]);
    assert!(matches!(cache.saw(noted), Some(News::Changed(o)) if o.metadata.managed_fields.is_none()));
    cache.take_in(Event::Delete(object("noted", 6)));
    assert!(cache.contains(&key) && cache.group(0, "u").len() == 1);
    assert_eq!(cache.sizes(0), [("u".to_owned(), 1)]);
    assert!(cache.take_in(Event::Apply(object("at-rest", 4))).is_empty(), "older than what is known");
    assert_eq!(cache.take_in(Event::Apply(object("at-rest", 6))).len(), 1);
    let last = cache.saw_gone(&object("at-rest", 7));
    assert!(matches!(last, Some(News::Gone(last)) if version(last.as_ref()) == 6));
    assert!(cache.group(0, "u").is_empty());
}

#[test]
fn look_ups_by_group_follow_every_change() {
    let cache = cache();
    cache.saw(object("a1", 1));
    cache.saw(object("a2", 2));
    assert_eq!(cache.group(0, "a").len(), 2);
    cache.take_in(Event::Delete(object("a1", 3)));
    assert_eq!(cache.group(0, "a").len(), 1);
    assert!(cache.group(0, "b").is_empty());
}
