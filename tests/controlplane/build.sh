#!/usr/bin/env bash
# Builds the control plane that tests, demo and benchmarks run on, from Go modules, and prints the
# folder that holds its binaries. A second call with the same go.sum prints the folder at once.
#
#   CONTROLPLANE_CACHE  where the binaries are kept (default: ~/.cache/incident-operator/controlplane)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CONTROLPLANE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/incident-operator/controlplane}

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

wanted=$(awk '$1 == "go" { print $2; exit }' "$here/go.mod")
command -v go >/dev/null 2>&1 ||
  fail "Go is not installed: install Go $wanted or newer (https://go.dev/dl) and put it on PATH"
have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//; s/[- ].*//')
[ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] ||
  fail "Go $have is too old for the control plane: install Go $wanted or newer (https://go.dev/dl)"

# Everything that shapes the binaries is in the key, so that a change never meets an old build.
key=$(cat "$here/go.mod" "$here/go.sum" "$here/build.sh" | sha256sum | cut -c 1-16)
bin=$cache/$key
binaries="etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kwok kwokctl helm"

complete() {
  for name in $binaries; do [ -x "$bin/$name" ] || return 1; done
}

if ! complete; then
  mkdir -p "$cache"
  # One builder at a time: several test runs may start side by side on an empty cache.
  exec 9>"$cache/.lock"
  if ! flock -n 9; then
    say "another build of the control plane is running; waiting for it"
    flock 9
  fi
fi

if ! complete; then
  version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2; exit }' "$here/go.mod")
  minor=$(printf '%s' "$version" | cut -d . -f 2)
  flags="-s -w"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags="$flags -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    flags="$flags -X $package.gitTreeState=clean"
  done
  say "building the control plane (Kubernetes $version, etcd, kwok, helm) with Go $have;"
  say "the first build downloads about 1.5 GB of modules and takes about 6 minutes on 2 cores"
  staging=$cache/.building-$key
  rm -rf "$staging"
  mkdir -p "$staging"
  started=$(date +%s)
  (cd "$here" && GOTOOLCHAIN=local go mod download 2>&1 | tail -n 5 >&2) || fail "go mod download failed"
  say "[$(($(date +%s) - started)) s] modules are here; compiling"
  count=0
  tools=$(cd "$here" && GOTOOLCHAIN=local go list tool)
  total=$(printf '%s\n' "$tools" | wc -l)
  for tool in $tools; do
    count=$((count + 1))
    say "[$(($(date +%s) - started)) s] ($count of $total) $tool"
    (cd "$here" && GOTOOLCHAIN=local CGO_ENABLED=0 GOBIN=$staging go install -trimpath -ldflags "$flags" "$tool") ||
      fail "$tool did not build"
  done
  # The package go.etcd.io/etcd/server/v3 is named "server"; go install calls it after the last path element that is not a version.
  mv "$staging/server" "$staging/etcd"
  rm -rf "$bin"
  mv "$staging" "$bin"
  complete || fail "the build in $bin lacks one of: $binaries"
  say "[$(($(date +%s) - started)) s] control plane ready in $bin"
fi
printf '%s\n' "$bin"
