use super::*;
use crate::mitigation::{CONFIG_MAP, SCALED_OBJECT, SECRET};
use futures::FutureExt;
use http::{Request, Response};
use kube::client::Body;
use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

/// An API server that has one ConfigMap, says that this is all, and has no news.
async fn has_one(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    if !request.uri().query().is_some_and(|query| query.contains("sendInitialEvents=true")) {
        std::future::pending::<()>().await;
    }
    let map = r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"flags","namespace":"shop","resourceVersion":"7"}}}"#;
    let end = r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"8","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
    Ok(Response::new(Body::from(format!("{map}\n{end}\n").into_bytes())))
}

fn one_config_map() -> Client {
    Client::new(tower::service_fn(has_one), "shop")
}

/// An API server that says no, a number of times.
fn forbidding(times: usize) -> Client {
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = move |request: Request<Body>| {
        let no = asked.fetch_add(1, Ordering::SeqCst) < times;
        async move {
            if !no {
                return has_one(request).await;
            }
            let said = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no","code":403}"#;
            Ok(Response::builder().status(403).body(Body::from(said.as_bytes().to_vec())).expect("an answer"))
        }
    };
    Client::new(tower::service_fn(answer), "shop")
}

#[tokio::test(start_paused = true)]
async fn one_that_looked_and_lets_go_does_not_close_the_watch_that_another_waits_for() {
    let lookouts = Arc::new(Lookouts::new(one_config_map(), Arc::new(Queue::default())));
    let mut waits = Box::pin(lookouts.list(CONFIG_MAP, "shop", Some("app=x")));
    assert!((&mut waits).now_or_never().is_none(), "the watch was only begun");
    lookouts.let_go(CONFIG_MAP, "shop", Some("app=x"));
    let seen = timeout(Duration::from_secs(1), waits).await.expect("no wait for what never comes");
    assert_eq!(seen.expect("it was looked").len(), 1);
    assert!(!lock(&lookouts.open).is_empty());
    lookouts.let_go(CONFIG_MAP, "shop", Some("app=x"));
    assert!(lock(&lookouts.open).is_empty(), "nobody waits any more");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_looked_at_does_not_count_as_absent() {
    let lookouts = Arc::new(Lookouts::new(forbidding(usize::MAX), Arc::new(Queue::default())));
    for _ in 0..2 {
        let seen = lookouts.list(CONFIG_MAP, "shop", None).await;
        assert!(matches!(&seen, Err(Error::MayNotLook(what)) if what == "configmaps"), "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_stays_open_comes_back_once_the_operator_may_look() {
    let lookouts = Arc::new(Lookouts::new(forbidding(1), Arc::new(Queue::default())));
    lookouts.keep(CONFIG_MAP, Some("shop"));
    let seen = lookouts.list(CONFIG_MAP, "shop", None).await;
    assert!(matches!(seen, Err(Error::MayNotLook(_))), "{seen:?}");
    sleep(ANEW + Duration::from_secs(1)).await;
    assert_eq!(lookouts.list(CONFIG_MAP, "shop", None).await.expect("it may look now").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_followed_is_not_closed_for_another_and_who_finds_no_room_is_told() {
    let queue = Arc::new(Queue::default());
    let lookouts = Arc::new(Lookouts::new(one_config_map(), queue));
    let look = |n: usize| Look::List { kind: CONFIG_MAP, labels: Some(format!("n={n}")) };
    let key = |n: usize| Key::new("shop", &format!("m{n}"));
    for n in 0..MAX_OPEN {
        assert!(lookouts.follow(&key(n), Some(&look(n))), "{n}");
    }
    assert!(!lookouts.follow(&key(MAX_OPEN), Some(&look(MAX_OPEN))), "no room");
    // It can be looked at once all the same, and is not kept.
    let seen = lookouts.list(CONFIG_MAP, "shop", Some("once=yes")).await;
    assert_eq!(seen.expect("it was looked").len(), 1);
    assert_eq!(lock(&lookouts.open).len(), MAX_OPEN);
    assert!((0..MAX_OPEN).all(|n| lookouts.followed_by(&key(n), CONFIG_MAP).is_some()));
    let flags = lookouts.followed(&key(1), &ObjectId::new(CONFIG_MAP, "flags"));
    assert_eq!(flags.and_then(|flags| flags.metadata.resource_version.clone()).as_deref(), Some("7"));
    lookouts.follow(&key(0), None);
    assert!(lookouts.follow(&key(MAX_OPEN), Some(&look(MAX_OPEN))), "one made room");
}

#[tokio::test(start_paused = true)]
async fn who_looks_at_a_kind_that_is_watched_all_the_time_is_told_of_the_others_as_well() {
    let lookouts = Arc::new(Lookouts::new(one_config_map(), Arc::new(Queue::default())));
    lookouts.keep(CONFIG_MAP, None);
    lookouts.keep(SCALED_OBJECT, Some("shop"));
    assert!(lookouts.kept_with(CONFIG_MAP, "shop").is_empty(), "nothing is complete yet");
    for kind in [CONFIG_MAP, SCALED_OBJECT] {
        lookouts.list(kind, "shop", None).await.expect("it was looked");
    }
    lookouts.list(SECRET, "shop", None).await.expect("it was looked");
    let told = |kind, namespace| {
        let told = lookouts.kept_with(kind, namespace).into_iter();
        told.map(|(kind, objects)| (kind, objects.len())).collect::<HashMap<_, _>>()
    };
    assert_eq!(told(CONFIG_MAP, "shop"), HashMap::from([(CONFIG_MAP, 1), (SCALED_OBJECT, 1)]));
    assert_eq!(told(CONFIG_MAP, "other"), HashMap::from([(CONFIG_MAP, 0)]), "the other one sees shop alone");
    assert!(told(SCALED_OBJECT, "other").is_empty());
    assert!(told(SECRET, "shop").is_empty(), "somebody looked at it once");
}

/// Whether the queue has something to be looked at, which it then forgets.
async fn is_woken(queue: &Arc<Queue>) -> bool {
    timeout(Duration::from_secs(1), queue.next()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn who_begins_to_follow_is_looked_at_once_for_what_was_told_before() {
    let queue = Arc::new(Queue::default());
    let lookouts = Arc::new(Lookouts::new(one_config_map(), queue.clone()));
    let look = Look::List { kind: CONFIG_MAP, labels: None };
    let (first, second) = (Key::new("shop", "first"), Key::new("shop", "second"));
    lookouts.follow(&first, Some(&look));
    assert!(is_woken(&queue).await, "what is there is told to who followed before");
    assert!(!is_woken(&queue).await);
    lookouts.follow(&second, Some(&look));
    assert!(is_woken(&queue).await, "it was told before the second one followed");
    lookouts.follow(&second, Some(&look));
    assert!(!is_woken(&queue).await, "it follows already");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_had_to_make_room_still_serves_those_who_wait_for_it() {
    let lookouts = Arc::new(Lookouts::new(one_config_map(), Arc::new(Queue::default())));
    let mut waits = Box::pin(lookouts.list(CONFIG_MAP, "shop", None));
    assert!((&mut waits).now_or_never().is_none(), "the watch was only begun");
    lock(&lookouts.open).clear();
    let seen = timeout(Duration::from_secs(1), waits).await.expect("no wait for what never comes");
    assert_eq!(seen.expect("it was looked").len(), 1);
}

/// An API server that lists these CustomResourceDefinitions, has no other kind, and counts who asks for one.
fn without_kinds(defined: Arc<Mutex<Vec<String>>>, asked: Arc<AtomicUsize>) -> Client {
    let answer = move |request: Request<Body>| {
        let (defined, asked) = (defined.clone(), asked.clone());
        async move {
            if request.uri().path().contains("customresourcedefinitions") {
                if !request.uri().query().is_some_and(|query| query.contains("sendInitialEvents=true")) {
                    std::future::pending::<()>().await;
                }
                let mut body = String::new();
                for name in lock(&defined).iter() {
                    body.push_str(&format!(
                        r#"{{"type":"ADDED","object":{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"{name}","resourceVersion":"7"}}}}}}"#
                    ));
                    body.push('\n');
                }
                body.push_str(r#"{"type":"BOOKMARK","object":{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"resourceVersion":"8","annotations":{"k8s.io/initial-events-end":"true"}}}}"#);
                body.push('\n');
                return Ok::<_, Infallible>(Response::new(Body::from(body.into_bytes())));
            }
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(Response::builder()
                .status(404)
                .body(Body::from(b"404 page not found".to_vec()))
                .expect("an answer"))
        }
    };
    Client::new(tower::service_fn(answer), "shop")
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_no_definition_names_is_asked_for_every_few_minutes_and_at_once_when_one_does() {
    for (name, soon) in [("others.example.com", 1), ("scaledobjects.keda.sh", 2)] {
        let (defined, asked) = (Arc::new(Mutex::new(vec![name.to_owned()])), Arc::new(AtomicUsize::new(0)));
        let client = without_kinds(defined, asked.clone());
        let lookouts = Arc::new(Lookouts::new(client, Arc::new(Queue::default())));
        lookouts.keep(CUSTOM_RESOURCE_DEFINITION, None);
        let look = async || lookouts.list(SCALED_OBJECT, "shop", None).await.expect("nothing is there").len();
        assert_eq!((look().await, asked.load(Ordering::SeqCst)), (0, 1));
        sleep(NOT_YET + Duration::from_secs(1)).await;
        assert_eq!((look().await, asked.load(Ordering::SeqCst)), (0, soon), "{name}");
        sleep(MISSING + Duration::from_secs(1)).await;
        assert_eq!((look().await, asked.load(Ordering::SeqCst)), (0, soon + 1), "{name}");
    }
}
