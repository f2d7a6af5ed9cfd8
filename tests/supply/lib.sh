# shellcheck shell=bash
# What the checks of the supply chain share. Sourced, never run.

# shellcheck source=tests/controlplane/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../controlplane/lib.sh"

# use_tool NAME VERSION: the cargo subcommand NAME on PATH, in just this version. It is built once and kept in the
# cache beside the control plane's programs.
use_tool() {
  local tools=${XDG_CACHE_HOME:-$HOME/.cache}/incident-operator/tools/$1-$2 log
  if [ ! -x "$tools/bin/$1" ]; then
    log=$(mktemp)
    step "building $1 $2 (once)"
    # Not into target/ of this project, whose profile and lock file are not its own.
    env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$tools" "$1@$2" >"$log" 2>&1 ||
      { tail -n 5 "$log" >&2; fail "$1 $2 cannot be built; without a way to crates.io, put it into $tools/bin. The whole output: $log"; }
    rm -f "$log"
  fi
  export PATH=$tools/bin:$PATH
}
