#!/usr/bin/env bash
# make bench: a release build of the operator on a cluster of its own, measured beside a raw loop of the same requests.
#
#   ONLY=P1,P3   these alone           BENCH=full   the large sizes, and etcd on tmpfs for comparison
#   KEEP=1       leaves the cluster running in target/bench, and uses it again
#   DOCS=1       writes the report into docs/performance.md
#
# Leaves target/bench/report.json, report.md (the table as in docs/performance.md) and report.svg.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/controlplane/lib.sh"
dir=$root/target/bench memory=''
cd "$root"
need_rust
need_go

reserve "$dir" "the benchmarks"

target=${CARGO_TARGET_DIR:-$root/target}
step "building the operator and the benchmarks, optimised: this takes some minutes the first time"
cargo build --release --locked --bin incident-operator 7>&-
# Built by itself: what tests need must not find its way into the operator that is measured.
bench=$(cargo build --release --locked --bench bench --message-format json-render-diagnostics 7>&- |
  sed -n 's/.*"name":"bench".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$bench" ] || fail "cargo did not say where it built the benchmarks"

also_at_end() {
  [ -n "$memory" ] || return 0
  "$here/controlplane/cluster.sh" down bench-tmpfs "$memory" 7>&-
  rm -rf "$memory"
}

# measure DIR CLUSTER: brings a cluster up in the folder and runs the benchmarks there.
measure() {
  step "starting a control plane in $1"
  "$here/controlplane/cluster.sh" up "$2" "$1" 7>&-
  "$here/controlplane/install.sh" "$1" bench 7>&-
  "$here/controlplane/operator.sh" start "$1" "$target/release/incident-operator" 7>&-
  step "measuring"
  BENCH_DIR=$1 "$bench" 7>&-
}

stop_at_end bench "$dir"
rm -f "$dir"/report*
code=0
if [ "${BENCH:-}" = full ] && [ -z "${ONLY:-}" ]; then
  memory=$(mktemp -d /dev/shm/incident-operator-bench.XXXXXX)
  ONLY=P1,P2 BENCH_MEDIUM=tmpfs BENCH_REPORT=report-tmpfs measure "$memory" bench-tmpfs || code=$?
  cp "$memory"/report-tmpfs* "$dir"/ || true
  also_at_end
  memory=''
fi
measure "$dir" bench || code=$?
if [ -n "${DOCS:-}" ] && [ -s "$dir/report.md" ]; then
  awk -v report="$dir/report.md" '
    /<!-- end report -->/ { skip = 0 }
    !skip { print }
    /<!-- begin report -->/ { skip = 1; while ((getline line < report) > 0) print line }
  ' docs/performance.md >"$dir/performance.md"
  mv "$dir/performance.md" docs/performance.md
fi
say "the report: $dir/report.md, report.json, report.svg"
exit "$code"
