//! CustomResourceDefinitions of other projects, from `tests/crds`.

use super::cluster::kubectl;
use std::path::Path;

/// Installs a file of `tests/crds` and waits until its kind is served. Other tests may do the same at the same time.
pub fn install(file: &str, crd: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crds").join(file);
    let path = path.to_str().expect("a path of this repository is text");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", path]).success();
    kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &format!("crd/{crd}")]).success();
}
