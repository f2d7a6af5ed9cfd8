//! What is built in: one TLS provider, one HTTP stack, one time library.

#[test]
fn no_second_tls_provider_http_stack_or_time_library_is_built_in() {
    let lock = include_str!("../Cargo.lock");
    let has = |name: &str| lock.contains(&format!("\nname = \"{name}\"\n"));
    for wanted in ["ring", "rustls", "hyper", "jiff"] {
        assert!(has(wanted), "{wanted} is what we build on");
    }
    let others = [
        "aws-lc-rs",
        "aws-lc-sys",
        "openssl",
        "openssl-sys",
        "native-tls",
        "reqwest",
        "ureq",
        "chrono",
        "time",
    ];
    let found: Vec<_> = others.into_iter().filter(|name| has(name)).collect();
    assert!(found.is_empty(), "{found:?}");
}
