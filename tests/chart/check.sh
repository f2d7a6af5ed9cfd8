#!/usr/bin/env bash
# make helm-check: lints the chart and renders it in the ways that differ; no cluster is needed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/../controlplane/lib.sh"
cd "$root"
chart=charts/incident-operator
controlplane=$(tests/controlplane/build.sh)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HELM_CACHE_HOME=$scratch/cache HELM_CONFIG_HOME=$scratch/config HELM_DATA_HOME=$scratch/data
helm() { "$controlplane/helm" "$@"; }

helm lint --strict "$chart" >"$scratch/lint" 2>&1 || { cat "$scratch/lint" >&2; fail "helm lint finds fault with $chart"; }

render() {
  helm template incident-operator "$chart" --namespace incident-operator "$@" >"$scratch/out" 2>"$scratch/err" ||
    { tail -n 5 "$scratch/err" >&2; fail "the chart does not render with: ${*:-the default values}"; }
}
render
render --set 'namespaces={shop,billing}'
! grep -q -e '- secrets$' "$scratch/out" || fail "the operator may read Secrets that nobody asked it to look at"
render --set 'namespaces={shop,billing}' --set secretNames.enabled=true
[ "$(grep -c -e '- secrets$' "$scratch/out")" = 1 ] || fail "secretNames.enabled=true grants no right on Secrets"
grep -q -e '--secret-names=true' "$scratch/out" || fail "the operator is not told that it may ask for Secrets"
render --set crds.enabled=false --set replicas=3 --set podDisruptionBudget.enabled=true
! grep -q 'helm.sh/resource-policy' "$scratch/out" || fail "crds.enabled=false leaves definitions behind"
render
[ "$(grep -c 'helm.sh/resource-policy: keep' "$scratch/out")" = 5 ] || fail "the five definitions are not kept"
render --set crds.keep=false
! grep -q 'helm.sh/resource-policy' "$scratch/out" || fail "crds.keep=false keeps the definitions all the same"
render --values tests/e2e/values.yaml
render --set uninstall.activeMitigations=Release
grep -q 'helm.sh/hook: pre-delete' "$scratch/out" || fail "helm uninstall does not look at mitigations first"
render --set uninstall.activeMitigations=Ignore
! grep -q 'helm.sh/hook' "$scratch/out" || fail "uninstall.activeMitigations=Ignore looks at mitigations all the same"
render --set watchNamespace=shop --set metrics.serviceMonitor.enabled=true
render --set metrics.prometheusRule.enabled=true --set metrics.dashboard.enabled=true
grep -q 'humanizeDuration' "$scratch/out" || fail "the chart's PrometheusRule lost the templates of Prometheus"
render --set config.severities.SEV3.internalUpdate=30m --set 'secretMounts[0].name=slack'

for wrong in config.severitys.SEV1.internalUpdate=5m config.severities.SEV1.internalUpdate=-5m 'config.channels[0].name=a'; do
  if helm template incident-operator "$chart" --set "$wrong" >/dev/null 2>"$scratch/err"; then
    fail "the chart takes a wrong configuration ($wrong): see $chart/values.schema.json"
  fi
done

if helm template incident-operator "$chart" --set replcas=2 >/dev/null 2>"$scratch/err"; then
  fail "the chart takes a misspelt value (replcas): see $chart/values.schema.json"
fi
twice='config.scalableKinds=[{"apiVersion":"apps/v1","kind":"Deployment","plural":"deployments"}]'
if helm template incident-operator "$chart" --set-json "$twice" >/dev/null 2>"$scratch/err"; then
  fail "the chart lists a kind that scale works on anyway: see $chart/templates/_scalable.tpl"
fi
say "the chart is clean and renders"
