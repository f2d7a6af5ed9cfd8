#!/usr/bin/env bash
# Runs the fault scenarios on a control plane of their own that is always stopped afterwards.
#
#   tests/fault.sh [ARGUMENTS]   passed on to the harness; --help lists them
#
#   KEEP=1     leaves the control plane running in target/fault, and uses it again
#   FEATURES   of the build, e.g. mutants
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/controlplane/lib.sh"
dir=$root/target/fault
cd "$root"
need_rust
need_go

reserve "$dir" "the fault scenarios"

build=(cargo test --locked --test fault ${FEATURES:+--features "$FEATURES"})
step "building operator and fault harness"
"${build[@]}" --no-run 7>&-

case " $* " in *" --list "* | *" --help "*)
  "${build[@]}" -- "$@" 7>&-
  exit
  ;;
esac

step "starting a control plane for the fault scenarios"
stop_at_end fault "$dir"
# Thousands of pods come and go; and what would be lost with the machine is thrown away anyway.
export CLUSTER_NODES=4 CLUSTER_ETCD_UNSAFE=1
rm -rf "$dir/logs"
"$here/controlplane/cluster.sh" up fault "$dir" 7>&-
"$here/controlplane/install.sh" "$dir" consented 7>&-

step "running the fault scenarios"
E2E_DIR=$dir "${build[@]}" -- "$@" 7>&-
