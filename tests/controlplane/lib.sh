# shellcheck shell=bash
# What the scripts of the rig share: messages, deadlines, processes. Sourced, never run.
# shellcheck disable=SC2034,SC2317  # variables are used, and functions called, by those who source it

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ -z "${CI:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' dim='' red='' green='' plain=''
fi

say() { printf '%s\n' "$*" >&2; }
step() { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
fail() { printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2; exit 1; }

# need COMMAND HINT: one line that says what to install, instead of "command not found" from somewhere deep.
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is not installed: $2"; }

need_rust() {
  need cargo "install Rust 1.89 or newer (https://rustup.rs) and put ~/.cargo/bin on PATH"
  command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 ||
    fail "no C compiler (cc, gcc or clang): install one, e.g. Debian's build-essential"
}

# Asked before long steps; build.sh asks the same of those who call it alone.
need_go() {
  local wanted have
  wanted=$(awk '$1 == "go" { print $2; exit }' "$root/tests/controlplane/go.mod")
  need go "install Go $wanted or newer (https://go.dev/dl) and put it on PATH"
  have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//; s/[- ].*//')
  [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] ||
    fail "Go $have is too old for the control plane: install Go $wanted or newer (https://go.dev/dl)"
}

# wait_until SECONDS COMMAND...: true as soon as the command is, false when the time is over.
wait_until() {
  local limit=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$limit" ] || return 1
    sleep 0.1
  done
}

# http_status HOST:PORT PATH prints the status code of a GET; bash itself is enough, curl is not assumed.
http_status() {
  local version code
  (
    exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || exit 1
    printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$1" >&3
    read -r -t 5 version code _ <&3 && [[ $version == HTTP/* ]] && printf '%s\n' "${code%$'\r'}"
  ) 2>/dev/null
}

# processes_below FOLDER...: pids of the processes whose program was started by a path inside one of the
# folders. Pid files are not trusted: they are missing after a half-finished start, and pids are used again.
processes_below() {
  local entry program folder
  for entry in /proc/[0-9]*; do
    program=''
    # The first argument, not /proc/PID/exe: that one points through the links into the shared cache.
    { IFS= read -r -d '' program <"$entry/cmdline"; } 2>/dev/null || continue
    for folder in "$@"; do
      case $program in "$folder"/*) printf '%s\n' "${entry#/proc/}" ;; esac
    done
  done
}

# stop_below FOLDER...: ends those processes for good, at once: what they hold is thrown away with them.
stop_below() {
  local pids
  none_left() {
    mapfile -t pids < <(processes_below "$@")
    [ "${#pids[@]}" -gt 0 ] || return 0
    kill -KILL "${pids[@]}" 2>/dev/null || true
    return 1
  }
  wait_until 20 none_left "$@" || fail "processes ${pids[*]} do not end: stop them by hand"
}

# use_cluster DIR: kubectl, helm and the rest of DIR, and none of the user's own settings.
use_cluster() {
  [ -s "$1/kubeconfig" ] || fail "no cluster in $1: run make up"
  export PATH=$1/bin:$PATH KUBECONFIG=$1/kubeconfig KUBECACHEDIR=$1/kube-cache
  export HELM_CACHE_HOME=$1/helm/cache HELM_CONFIG_HOME=$1/helm/config HELM_DATA_HOME=$1/helm/data
}

# reserve DIR WHAT: nobody else runs WHAT in DIR meanwhile. What is started later must not inherit the lock (7>&-).
reserve() {
  mkdir -p "$1"
  exec 7>"$1/lock"
  flock -n 7 || fail "another run of $2 uses $1: wait for it to end"
}

# stop_at_end NAME DIR: however the script ends, the cluster NAME in DIR is stopped; KEEP=1 leaves it running. Calls the
# function also_at_end CODE, where there is one.
stop_at_end() {
  end_name=$1 end_dir=$2
  end_all() {
    local code=$?
    # A second ctrl-C must not leave half of it running.
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "${KEEP:-}" ]; then
      say "the control plane keeps running: KUBECONFIG=$end_dir/kubeconfig; stop it with: tests/controlplane/cluster.sh down $end_name $end_dir"
    elif [ -d "$end_dir" ]; then
      "$root/tests/controlplane/cluster.sh" down "$end_name" "$end_dir" 7>&-
    fi
    ! declare -F also_at_end >/dev/null || also_at_end "$code"
    exit "$code"
  }
  trap end_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  [ -n "${KEEP:-}" ] || [ ! -d "$end_dir" ] || "$root/tests/controlplane/cluster.sh" down "$end_name" "$end_dir" 7>&-
}

# build_operator: builds the operator that "make up" runs, and sets $binary. PROFILE=release takes minutes more, and half
# the memory when it runs.
build_operator() {
  local started=$SECONDS profile=${PROFILE:-dev} folder
  cargo build --locked --profile "$profile" --bin incident-operator || fail "the operator does not build: see above"
  folder=$profile
  [ "$profile" != dev ] || folder=debug
  binary=${CARGO_TARGET_DIR:-$root/target}/$folder/incident-operator
  say "the operator is built after $((SECONDS - started)) s"
}
