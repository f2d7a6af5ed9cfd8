#!/usr/bin/env bash
# make up: a control plane, the chart in it, and the operator beside it. Whatever runs already is kept.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/lib.sh"
dir=$root/target/up
cd "$root"
need_rust
need_go

# One at a time. What is started below must not inherit the lock (7>&-), it lives longer than this script.
mkdir -p "$dir"
exec 7>"$root/target/up.lock"
flock -n 7 || { say "another make up is at work; waiting for it"; flock 7; }

started=$SECONDS
step "building the operator"
build_operator
step "starting the control plane"
"$here/cluster.sh" up up "$dir" 7>&-
step "installing the chart"
"$here/install.sh" "$dir" shop
step "starting the operator"
"$here/operator.sh" start "$dir" "$binary" 7>&-
cat <<TEXT
${green}ready after $((SECONDS - started)) s.${plain} To use it from this shell, paste:

  export KUBECONFIG=$dir/kubeconfig PATH=$dir/bin:\$PATH

Log of the operator: $dir/operator.log
All requests to the API server: $dir/audit.log
"make demo" tells the story of an incident; "make down" stops everything.
TEXT
