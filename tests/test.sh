#!/usr/bin/env bash
# make test: everything that must hold before a change is merged, what fails fast first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/controlplane/lib.sh"
cd "$root"
need_rust
need_go
[ -z "${CI:-}" ] || export CARGO_TERM_COLOR=never NO_COLOR=1

total=$SECONDS passed=0 report=''
stage() {
  local started=$SECONDS
  step "$1"
  shift
  if ! make --no-print-directory "$@"; then
    printf '\n%sfailed: make %s%s\n%s passed, 1 failed\n' "$red" "$*" "$plain" "$passed"
    exit 1
  fi
  passed=$((passed + 1))
  report+=$(printf '%6s s  make %s' "$((SECONDS - started))" "$*")$'\n'
}

stage "format" fmt-check
stage "lint" lint
stage "unit tests and others without a cluster" unit
stage "chart" helm-check
stage "schema and end-to-end tests on a control plane of their own" e2e
stage "every scenario, killed before and after each write and with each answer lost" fault-test

printf '\n%s%6s s  in all\n%s%s passed, 0 failed%s\n' "$report" "$((SECONDS - total))" "$green" "$passed" "$plain"
