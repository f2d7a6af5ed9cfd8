#!/usr/bin/env bash
# Installs or upgrades the chart with the real Helm in the cluster of DIR (see cluster.sh), and lets the
# operator change workloads in the namespaces that are named; they are made if they are missing.
#
#   install.sh DIR NAMESPACE...
#
#   CHART_VALUES   a file with further values of the chart
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/lib.sh"
[ $# -ge 2 ] || fail "usage: install.sh DIR NAMESPACE..."
dir=$(cd "$1" && pwd -P)
shift
chart=$root/charts/incident-operator
use_cluster "$dir"

ensure_namespace() {
  kubectl get namespace "$1" >/dev/null 2>&1 || kubectl create namespace "$1" >/dev/null
}
for namespace in incident-operator "$@"; do ensure_namespace "$namespace"; done
# The chart promises to pass Pod Security "restricted"; so the API server here enforces it.
kubectl label namespace incident-operator --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null

names=$(IFS=,; printf '%s' "$*")
log=$dir/helm.log
helm upgrade --install incident-operator "$chart" --namespace incident-operator \
  ${CHART_VALUES:+--values "$CHART_VALUES"} --set "namespaces={$names}" --wait --timeout 90s >"$log" 2>&1 ||
  { tail -n 20 "$log" >&2; fail "helm could not install $chart; the whole output: $log"; }
kubectl wait --for=condition=Established --timeout=30s \
  crd -l app.kubernetes.io/part-of=incident-operator >/dev/null ||
  fail "the CustomResourceDefinitions are not established: kubectl describe crd -l app.kubernetes.io/part-of=incident-operator"

# Admission learns of new definitions a while after they are established, and until then the API server answers 503.
known() {
  local said
  said=$(for example in checkout-errors mitigation-scale timeline-note postmortem; do
    sed 's/namespace: shop/namespace: incident-operator/' "$root/examples/$example.yaml"
    printf '%s\n' '---'
  done | kubectl create --dry-run=server -f - 2>&1) || true
  [[ $said != *ServiceUnavailable* ]]
}
wait_until 120 known ||
  fail "the API server does not take the project's kinds two minutes after their definitions: see the log of kube-apiserver in $dir"
