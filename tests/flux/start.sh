#!/usr/bin/env bash
# Starts the kustomize-controller of Flux beside the cluster of DIR; it ends with the cluster.
#
#   start.sh DIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/../controlplane/lib.sh"
dir=$(cd "$1" && pwd -P)
built=$("$here/build.sh")
use_cluster "$dir"
kubectl apply --server-side -f "$built/crds" >/dev/null
for crd in "$built"/crds/*.yaml; do
  kubectl wait --for=condition=Established --timeout=30s -f "$crd" >/dev/null
done
kubectl get namespace flux-system >/dev/null 2>&1 || kubectl create namespace flux-system >/dev/null
# What is started by a path in DIR is stopped with the cluster.
ln -sfn "$built/kustomize-controller" "$dir/bin/kustomize-controller"
mkdir -p "$dir/logs"
RUNTIME_NAMESPACE=flux-system setsid "$dir/bin/kustomize-controller" --feature-gates=ExternalArtifact=true \
  --metrics-addr=127.0.0.1:0 --health-addr=127.0.0.1:0 --enable-leader-election=false --events-addr= \
  --concurrent=8 </dev/null >"$dir/logs/kustomize-controller.log" 2>&1 &
step "the kustomize-controller of Flux runs; its log: $dir/logs/kustomize-controller.log"
