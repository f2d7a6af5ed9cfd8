#!/usr/bin/env bash
# The operator as a process beside the cluster of DIR (see cluster.sh). kwok gives nodes and pods without
# containers, so the chart's Deployment there is Ready and runs nothing: this process is the operator, with
# a token of the chart's ServiceAccount and so with the chart's rights and no others.
#
#   operator.sh start DIR BINARY   starts it; keeps one that is healthy and of the same build
#   operator.sh stop DIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/lib.sh"
command=${1:-} binary=${3:-}
[ -d "${2:-}" ] || fail "usage: operator.sh start DIR BINARY | stop DIR"
dir=$(cd "$2" && pwd -P)
log=$dir/operator.log

pid() {
  local pid program=''
  pid=$(cat "$dir/operator.pid" 2>/dev/null) || return 1
  # A pid is used again after its process is gone: it counts only with our program behind it.
  { IFS= read -r -d '' program <"/proc/$pid/cmdline"; } 2>/dev/null
  [ "$program" = "$dir/bin/incident-operator" ] && printf '%s\n' "$pid"
}
gone() { ! pid >/dev/null; }

# The operator says in its log which address it got.
address() {
  sed 's/\x1b\[[0-9;]*m//g' "$log" 2>/dev/null | grep -o 'address="\{0,1\}127\.0\.0\.1:[0-9]*' | tail -n 1 | grep -o '127.*'
}
ready() {
  local address
  address=$(address) && [ "$(http_status "$address" /readyz)" = 200 ]
}
ready_or_gone() { gone || ready; }

stop() {
  local running
  running=$(pid) || { rm -f "$dir/operator.pid"; return 0; }
  kill -TERM "$running"
  wait_until 10 gone || { say "the operator did not stop within 10 s of SIGTERM; killing it"; kill -KILL "$running"; }
  wait_until 5 gone || fail "the operator (pid $running) does not end: stop it by hand"
  rm -f "$dir/operator.pid"
}

# Whether the API server vouches for names, and what else was granted, is the chart's to say: it knows what it installed.
chart_flags() {
  local flags
  flags=$(kubectl get deployment incident-operator --namespace incident-operator \
    -o 'jsonpath={range .spec.template.spec.containers[0].args[*]}{@}{"\n"}{end}' |
    grep -E '^--(signed-requests|secret-names)=') ||
    fail "the chart's Deployment says nothing of --signed-requests: is it installed in this cluster?"
  printf '%s\n' "$flags"
}

# What the chart would mount: the configuration, as it was installed last.
write_config() {
  kubectl get configmap incident-operator-config --namespace incident-operator \
    -o 'jsonpath={.data.config\.yaml}' >"$dir/config.yaml" ||
    fail "the chart's ConfigMap incident-operator-config is missing: is it installed in this cluster?"
}

write_kubeconfig() {
  local token server ca
  token=$(kubectl create token incident-operator --namespace incident-operator --duration=720h)
  server=$(kubectl config view --raw -o 'jsonpath={.clusters[0].cluster.server}')
  ca=$(kubectl config view --raw -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}')
  (umask 077 && cat >"$dir/operator.kubeconfig") <<CONFIG
apiVersion: v1
kind: Config
current-context: operator
clusters:
- {name: operator, cluster: {server: "$server", certificate-authority-data: $ca}}
users:
- {name: operator, user: {token: $token}}
contexts:
- {name: operator, context: {cluster: operator, user: operator, namespace: incident-operator}}
CONFIG
}

start() {
  [ -x "$binary" ] || fail "$binary does not exist: run cargo build"
  use_cluster "$dir"
  local stamp flags list
  flags=$(chart_flags)
  readarray -t list <<<"$flags"
  write_config
  stamp=$({ cat "$binary" "$dir/kubeconfig" && printf '%s' "$flags"; } | sha256sum)
  if ! gone && [ "$stamp" = "$(cat "$dir/operator.stamp" 2>/dev/null)" ] && wait_until 5 ready; then
    say "the operator is running already (pid $(pid))"
    return 0
  fi
  stop
  # A copy: the next build must not change a program that runs.
  cp -f "$binary" "$dir/bin/incident-operator.new"
  mv -f "$dir/bin/incident-operator.new" "$dir/bin/incident-operator"
  write_kubeconfig
  [ ! -e "$log" ] || mv -f "$log" "$log.old"
  KUBECONFIG=$dir/operator.kubeconfig NO_COLOR=1 setsid "$dir/bin/incident-operator" run \
    --lease-namespace incident-operator --listen 127.0.0.1:0 --log-format text "${list[@]}" \
    --config "$dir/config.yaml" \
    </dev/null >"$log" 2>&1 &
  printf '%s\n' "$!" >"$dir/operator.pid"
  # Between fork and exec the process still has the shell's name.
  wait_until 5 pid >/dev/null || true
  wait_until 30 ready_or_gone || { tail -n 10 "$log" >&2; fail "the operator is not ready after 30 s; the whole log: $log"; }
  if gone; then
    tail -n 10 "$log" >&2
    fail "the operator ended while starting; the whole log: $log"
  fi
  printf '%s\n' "$stamp" >"$dir/operator.stamp"
  say "the operator is ready: pid $(pid), http://$(address), log $log"
}

case $command in
  start | stop) "$command" ;;
  *) fail "usage: operator.sh start DIR BINARY | stop DIR" ;;
esac
