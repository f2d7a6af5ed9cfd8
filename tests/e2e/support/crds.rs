//! CustomResourceDefinitions of other projects, from `tests/crds`.

use super::cluster::kubectl;
use super::namespace::TestNamespace;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::path::Path;

/// Installs a file of `tests/crds` and waits until its kind is served. Other tests may do the same at the same time.
pub fn install(file: &str, crd: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crds").join(file);
    let path = path.to_str().expect("a path of this repository is text");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", path]).success();
    // A definition of this moment has no conditions yet, which kubectl takes for an error.
    let name = format!("crd/{crd}");
    let start = std::time::Instant::now();
    loop {
        let waited = kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &name]);
        if waited.ok || start.elapsed() > super::poll::PATIENCE {
            waited.success();
            return;
        }
    }
}

/// Installs the files of `tests/crds` whose names begin so. Call it before the operator starts: it remembers for a while
/// which kinds a cluster does not have.
pub fn install_all(prefixes: &[&str]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crds");
    for entry in std::fs::read_dir(dir).expect("tests/crds is readable") {
        let file = entry.expect("it is readable").file_name().into_string().expect("names are text");
        if prefixes.iter().any(|prefix| file.starts_with(prefix)) {
            let stem = file.trim_end_matches(".yaml");
            let (group, plural) = stem.split_once('_').expect("files are called GROUP_PLURAL.yaml");
            install(&file, &format!("{plural}.{group}"));
        }
    }
}

/// Writes an object's status, as its controller would.
pub async fn set_status(namespace: &TestNamespace, object: &Value, status: Value) {
    let api = namespace.cluster.api_of(object, &namespace.name);
    let name = object["metadata"]["name"].as_str().expect("the object has a name");
    let params = PatchParams { field_manager: Some("gateway".to_owned()), ..Default::default() };
    let patch = json!({"status": status});
    api.patch_status(name, &params, &Patch::Merge(patch)).await.expect("its status can be written");
}
