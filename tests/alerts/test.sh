#!/usr/bin/env bash
# make test-rules: checks the chart's alert rules with the real promtool, and what they say in cases made by hand.
# promtool is built from its Go module into the cache; the first build takes many minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/../controlplane/lib.sh"
need_go
cache=${CONTROLPLANE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/incident-operator/controlplane}
key=$(cat "$here/go.mod" "$here/go.sum" | sha256sum | cut -c 1-16)
bin=$cache/promtool-$key
if [ ! -x "$bin/promtool" ]; then
  say "building promtool; the first build takes up to ten minutes"
  started=$SECONDS
  mkdir -p "$bin"
  # The clouds that Prometheus can discover targets in are most of it, and no rule needs them.
  (cd "$here" && GOTOOLCHAIN=local CGO_ENABLED=0 GOBIN=$bin go install -trimpath -tags remove_all_sd tool) ||
    fail "promtool did not build"
  say "promtool is built after $((SECONDS - started)) s"
fi
"$bin/promtool" check rules "$root/charts/incident-operator/files/alerts.yaml"
"$bin/promtool" test rules "$here/rules_test.yaml"
