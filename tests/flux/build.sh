#!/usr/bin/env bash
# Builds the kustomize-controller of Flux from its Go module, and prints the folder that holds it and the
# CustomResourceDefinitions that it needs (crds/). A second call prints the folder at once.
#
#   FLUX_CACHE  where it is kept (default: ~/.cache/incident-operator/flux)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/../controlplane/lib.sh"
need_go
need sha256sum "it is part of GNU coreutils"

controller=github.com/fluxcd/kustomize-controller
# Only its CustomResourceDefinitions are of use: the tests play the source.
sources=github.com/fluxcd/source-controller@v1.9.6
sources_sum=h1:nG534/bI6nVpyHra7ONAk6xDB3xPsVT+EOLHZHXPrrc=

cache=${FLUX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/incident-operator/flux}
key=$(cat "$here/go.mod" "$here/go.sum" "$here/build.sh" | sha256sum | cut -c 1-16)
built=$cache/$key
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
if [ ! -x "$built/kustomize-controller" ]; then
  export GOTOOLCHAIN=local
  staging=$cache/.building-$key
  rm -rf "$staging"
  mkdir -p "$staging/crds"
  cd "$here"
  step "building the kustomize-controller of Flux; the first time takes about 5 minutes on 2 cores"
  fetched=$(go mod download -json "$sources") || fail "$sources cannot be had: $fetched"
  [[ $fetched == *"$sources_sum"* ]] || fail "$sources is not what it was: $fetched"
  CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$staging/kustomize-controller" "$controller" ||
    fail "$controller did not build"
  folder() { sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }
  cp "$(go list -m -f '{{.Dir}}' "$controller")"/config/crd/bases/*.yaml "$staging/crds/"
  cp "$(folder <<<"$fetched")"/config/crd/bases/*_{externalartifacts,gitrepositories,ocirepositories,buckets}.yaml "$staging/crds/"
  chmod -R u+w "$staging"
  rm -rf "$built"
  mv "$staging" "$built"
fi
printf '%s\n' "$built"
