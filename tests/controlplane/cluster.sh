#!/usr/bin/env bash
# One control plane of its own: etcd, API server, controller manager, scheduler, and kwok for nodes and pods.
#
#   cluster.sh up NAME DIR       starts it, or keeps the one that already runs in DIR; a dead one is made anew
#   cluster.sh down NAME DIR     stops it and removes its state; works on a half-started or broken one, too
#   cluster.sh status NAME DIR   says whether it answers (exit code 0 or 1)
#   cluster.sh status            lists every cluster that runs on this machine
#
# DIR holds after "up":
#   kubeconfig   of the admin; complete in itself
#   audit.log    every request that audit-policy.yaml keeps, one JSON object a line
#   bin/         kubectl, helm, kwokctl, etcd, …
#   kwok/        the state; kwok/clusters/NAME/{logs,pids} has a log and a pid for each part
#
#   CLUSTER_NODES           how many nodes (default 2)
#   CLUSTER_RUNTIME_CONFIG  APIs that the API server turns on or off, as its flag --runtime-config takes them
#   CLUSTER_ETCD_UNSAFE     set: etcd does not wait for the disk; for a cluster that is thrown away
#   CLUSTER_PLUGINS_OFF     admission plugins that it does without, as its flag --disable-admission-plugins takes them
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/lib.sh"

[ -d /proc/self ] || fail "the control plane needs Linux: run it in a Linux machine or container"
command=${1:-} name=${2:-} dir=${3:-}
usage() { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

case $command in
  up | down) [ -n "$dir" ] || usage ;;
  status) [ -z "$name" ] || [ -n "$dir" ] || usage ;;
  *) usage ;;
esac
[[ -z $name || $name =~ ^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$ ]] ||
  fail "'$name' is no cluster name: use lower case letters, digits and dashes"
if [ -n "$dir" ]; then
  [ "$command" != up ] || mkdir -p "$dir"
  if [ -d "$dir" ]; then dir=$(cd "$dir" && pwd -P); fi
fi
work=$dir/kwok/clusters/$name
export KWOK_WORKDIR=$dir/kwok
# kwokctl takes the first kubectl on PATH, whatever its version; it gets ours.
export PATH=$dir/bin:$PATH
# kubectl's discovery cache is keyed by host and port, and ports come back: never the user's own.
export KUBECACHEDIR=$dir/kube-cache

kube() { "$dir/bin/kubectl" --kubeconfig "$dir/kubeconfig" --request-timeout=5s "$@"; }

answers() {
  [ -s "$dir/kubeconfig" ] && [ -x "$dir/bin/kubectl" ] && [ "$(kube get --raw /readyz 2>/dev/null)" = ok ]
}

parts="etcd kube-apiserver kube-controller-manager kube-scheduler kwok-controller"

# A part that died is found at once and named, instead of waiting for the deadline.
all_parts_alive() {
  local part pid
  for part in $parts; do
    if ! pid=$(cat "$work/pids/$part.pid" 2>/dev/null) || ! kill -0 "$pid" 2>/dev/null; then
      dead=$part
      return 1
    fi
  done
}

down() {
  [ -d "$dir" ] || return 0
  stop_below "$dir/kwok" "$dir/bin"
  (cd "$dir" && rm -rf kwok kube-cache kubeconfig audit.log kwokctl.yaml bin)
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Six free ports in a row from a random place below the range that the kernel hands to outgoing
# connections. Random, because a part may be stopped for a while in a test and must find its port again,
# although other clusters are started meanwhile. A port counts as taken only when its owner listens on it,
# so a choice is also written down for the time that a start can take.
choose_ports() {
  local notes=${XDG_CACHE_HOME:-$HOME/.cache}/incident-operator/ports now attempt port
  mkdir -p "${notes%/*}"
  exec 8>>"$notes"
  flock -w 60 8 || fail "$notes is locked for 60 s: end the process that holds it"
  now=$(date +%s)
  for attempt in {1..50}; do
    base=$((12000 + (RANDOM % 2000) * 10))
    awk -v base="$base" -v now="$now" '$1 == base && now - $2 < 120 { taken = 1 } END { exit taken }' "$notes" ||
      continue
    for port in $(seq "$base" $((base + 5))); do port_is_free "$port" || continue 2; done
    awk -v now="$now" 'now - $2 < 120' "$notes" >"$notes.$$"
    { cat "$notes.$$" && printf '%s %s\n' "$base" "$now"; } >"$notes"
    rm -f "$notes.$$"
    # Closed, so that the cluster does not inherit the lock and keep it.
    exec 8>&-
    return 0
  done
  fail "no six free ports in a row between 12000 and 32000 after $attempt attempts: stop what listens there"
}

ready() {
  all_parts_alive || return 0
  answers && kube get serviceaccount default --namespace default >/dev/null 2>&1
}

up() {
  local started=$SECONDS
  if all_parts_alive && answers; then
    say "cluster $name is running already"
    return 0
  fi
  local cache
  cache=$("$here/build.sh")
  down
  mkdir -p "$dir/bin" "$dir/kwok"
  ln -s "$cache"/* "$dir/bin/"

  choose_ports
  # Loopback only: etcd and kwok ask nobody for a password.
  cat >"$dir/kwokctl.yaml" <<CONFIG
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokctlConfiguration
options:
  runtime: binary
  bindAddress: 127.0.0.1
  etcdBinary: $cache/etcd
  kubeApiserverBinary: $cache/kube-apiserver
  kubeControllerManagerBinary: $cache/kube-controller-manager
  kubeSchedulerBinary: $cache/kube-scheduler
  kwokControllerBinary: $cache/kwok
  kubectlBinary: $cache/kubectl
  etcdPort: $base
  etcdPeerPort: $((base + 1))
  kubeApiserverPort: $((base + 2))
  kubeControllerManagerPort: $((base + 3))
  kubeSchedulerPort: $((base + 4))
  kwokControllerPort: $((base + 5))
  kubeAuditPolicy: $here/audit-policy.yaml
  # Autoscalers that go to zero by themselves are the default from Kubernetes 1.37 on.
  kubeFeatureGates: HPAScaleToZero=true
${CLUSTER_RUNTIME_CONFIG:+  kubeRuntimeConfig: $CLUSTER_RUNTIME_CONFIG}
  # Logs of pods that run nowhere come from files that a test names.
  enableCRDs: [ClusterLogs]
componentsPatches:
# The audit log is never rotated: who looks back must find the beginning.
- name: kube-apiserver
  extraArgs:
  - {key: audit-log-maxsize, value: "100000"}
${CLUSTER_PLUGINS_OFF:+  - {key: disable-admission-plugins, value: '$CLUSTER_PLUGINS_OFF'\}}
${CLUSTER_ETCD_UNSAFE:+- name: etcd
  extraArgs:
  - {key: unsafe-no-fsync, value: 'true'\}}
# With the usual 20 requests a second these two would be what a busy test measures.
- name: kube-controller-manager
  extraArgs:
  - {key: horizontal-pod-autoscaler-sync-period, value: "2s"}
  - {key: kube-api-qps, value: "500"}
  - {key: kube-api-burst, value: "1000"}
- name: kube-scheduler
  extraArgs:
  - {key: kube-api-qps, value: "500"}
  - {key: kube-api-burst, value: "1000"}
CONFIG
  local log=$dir/kwok/kwokctl.log
  "$dir/bin/kwokctl" create cluster --name "$name" --config "$dir/kwokctl.yaml" --kubeconfig "$dir/kwok/admin" \
    >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "kwokctl did not create the cluster; the whole log: $log"; }
  ln -s "kwok/clusters/$name/logs/audit.log" "$dir/audit.log"
  "$dir/bin/kubectl" --kubeconfig "$dir/kwok/admin" config view --raw --flatten >"$dir/kubeconfig"
  chmod 600 "$dir/kubeconfig"

  dead=
  wait_until 60 ready || fail "cluster $name is not ready after 60 s: see the logs in $work/logs"
  if [ -n "$dead" ]; then
    tail -n 5 "$work/logs/$dead.log" >&2 || true
    fail "$dead of cluster $name ended while starting; the whole log: $work/logs/$dead.log"
  fi
  "$dir/bin/kwokctl" --name "$name" scale node --replicas "${CLUSTER_NODES:-2}" --param .allocatable.pods=1000 \
    >>"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "kwokctl did not make the nodes"; }
  nodes_ready() {
    local statuses
    statuses=$(kube get nodes -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)
    [ "$(wc -w <<<"$statuses")" -eq "${CLUSTER_NODES:-2}" ] && [[ $statuses != *[FU]* ]]
  }
  wait_until 30 nodes_ready || fail "the nodes of cluster $name are not ready after 30 s: see $work/logs/kwok-controller.log"
  say "cluster $name is ready after $((SECONDS - started)) s: KUBECONFIG=$dir/kubeconfig"
}

status() {
  if [ -n "$name" ]; then
    if all_parts_alive && answers; then
      say "cluster $name is running: KUBECONFIG=$dir/kubeconfig"
    else
      say "cluster $name does not run in $dir${dead:+ ($dead is not there)}"
      return 1
    fi
    return 0
  fi
  local entry program
  for entry in /proc/[0-9]*; do
    { IFS= read -r -d '' program <"$entry/cmdline"; } 2>/dev/null || continue
    if [[ $program =~ ^(.*)/kwok/clusters/([^/]+)/bin/kube-apiserver$ ]]; then
      printf '%s %s\n' "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}"
    fi
  done
}

dead=
"$command"
