#!/usr/bin/env bash
# make sbom: everything that the binary is built from, as CycloneDX: target/incident-operator.cdx.json.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/supply/lib.sh
. "$here/lib.sh"
cd "$root"
need_rust
use_tool cargo-cyclonedx 0.5.9

target=${TARGET:-x86_64-unknown-linux-gnu}
name=incident-operator.cdx
# It reads Cargo.lock and would write one that is missing or old.
cargo metadata --locked --format-version 1 >/dev/null || fail "Cargo.lock is not up to date: run cargo check"
cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --override-filename "$name"
mkdir -p target
# Where it was built is nobody's business.
sed "s|path+file://$root|path+file:///$(basename "$name" .cdx)|g" "$name.json" >"target/$name.json"
rm -f "$name.json"
count=$(grep -c '"bom-ref": "registry+' "target/$name.json" || true)
[ "$count" -gt 50 ] || fail "target/$name.json lists $count crates: see whether cargo-cyclonedx has changed its format"
say "$count crates for $target: target/$name.json"
