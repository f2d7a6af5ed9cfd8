#!/usr/bin/env bash
# Runs the tests that need a control plane, on one of their own that is always stopped afterwards.
#
#   tests/e2e.sh [FILTER] [-- ARGUMENTS]   passed on to the test program, e.g. "schema::" or "scale_"
#
# Without a filter the demo is told first, as `make demo` tells it.
#
# The tests in trouble.rs disturb the whole control plane, so they run by themselves after all others, those that take
# seconds; all of them with the filter "trouble". So does the one that measures how long a handover takes, which the
# others would lengthen. TROUBLE=full takes the times that things take by themselves, which is minutes.
#
#   FLUX=1   runs the tests that need the real Flux, and no others (make test-gitops)
#   KEEP=1   leaves the control plane running in target/test, and uses it again: for one's own quick runs
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/controlplane/lib.sh"
dir=$root/target/test
cd "$root"
need_rust
need_go

reserve "$dir" "these tests"

# Built first: what does not compile should not cost a control plane.
step "building the end-to-end tests"
cargo test --locked --test e2e --no-run 7>&-

# run_tests ARGUMENT...: the test program; what fails is told once more at the end, below the logs of the operators.
run_tests() {
  rm -f "$dir/output.log"
  cargo test --locked --test e2e -- "$@" 2>&1 7>&- | tee "$dir/output.log"
}

also_at_end() {
  [ "$1" = 0 ] || [ ! -s "$dir/output.log" ] || grep -a -A 4 "^thread .* panicked at" "$dir/output.log" || true
  [ "$1" = 0 ] || [ ! -d "$dir/logs" ] || say "logs of the operators: $dir/logs"
}

step "starting a control plane for the tests"
stop_at_end test "$dir"
rm -rf "$dir/logs" "$dir/audit" "$dir/output.log"
"$here/controlplane/cluster.sh" up test "$dir" 7>&-
# Nothing runs in "consented": the tests read there which roles the chart binds, and bind the same in the
# namespaces that they make.
CHART_VALUES=$here/e2e/values.yaml "$here/controlplane/install.sh" "$dir" consented 7>&-

if [ -n "${FLUX:-}" ]; then
  "$here/flux/start.sh" "$dir" 7>&-
  [ $# -gt 0 ] && only=() || only=(flux::)
else
  only=(--skip flux::)
fi

if [ $# = 0 ] && [ -z "${FLUX:-}" ]; then
  step "telling the story of the demo"
  CHART_VALUES=$here/e2e/values.yaml "$here/controlplane/install.sh" "$dir" consented shop 7>&-
  "$here/controlplane/operator.sh" start "$dir" "$root/target/debug/incident-operator" 7>&-
  DEMO_DIR=$dir examples/demo.sh >"$dir/demo.log" 7>&- || { tail -n 60 "$dir/demo.log" >&2; fail "the demo's story is not true"; }
  "$here/controlplane/operator.sh" stop "$dir"
fi

step "running the end-to-end tests"
# The tests wait more than they compute, so there are more of them at a time than cores.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} E2E_DIR=$dir
rm -f "$dir/skipped"
timed=lease::of_three_replicas
alone=(trouble::when_etcd trouble::an_action trouble::fairness trouble::certificates::a_renewed "$timed")
known=$(cargo test --locked --test e2e -- --list 2>/dev/null 7>&-)
for name in "${alone[@]}"; do
  # A test that was renamed would run beside the others, or not at all.
  [[ $known == *"$name"* ]] || fail "tests/e2e.sh: no test is called $name"
done
case ${1:-} in
  trouble*) RUST_TEST_THREADS=1 run_tests "${only[@]}" "$@" ;;
  "") run_tests "${only[@]}" --skip trouble:: --skip "$timed" ;;
  *) run_tests "${only[@]}" --skip trouble:: "$@" ;;
esac

# The audit log of all tests tells which rights the operator used.
if [ $# = 0 ] && [ -z "${FLUX:-}" ]; then
  step "comparing the operator's rights with what it used"
  cargo test --locked --test rbac nothing_that_the_operator_asks_for_is_refused 7>&-
  cargo test --locked --test rbac every_right 7>&-
  step "running the tests that disturb or time the control plane, one after the other"
  RUST_TEST_THREADS=1 run_tests "${alone[@]}"
fi
if [ -s "$dir/skipped" ]; then
  say "$(wc -l <"$dir/skipped") skipped, for what this machine lacks:"
  sed 's/^/  /' "$dir/skipped"
fi
