#!/usr/bin/env bash
# faketime.sh prints the path of libfaketime, by which a test gives one process a clock of its own. It is fetched
# from Debian's packages once, without root, into the cache. Exit code 1 and one line say why it is not to be had.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/lib.sh"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/incident-operator/faketime

find_library() {
  local found
  for found in /usr/lib/*/faketime/libfaketime.so.1 "$cache"/usr/lib/*/faketime/libfaketime.so.1; do
    [ -e "$found" ] && printf '%s\n' "$found" && return 0
  done
  return 1
}

find_library && exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  fail "libfaketime is not installed, and this is no Debian to fetch it from"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
if ! apt-get download libfaketime >log 2>&1; then
  # The lists of packages may be missing or old; only root may renew them.
  { apt-get update && apt-get download libfaketime; } >>log 2>&1 ||
    fail "libfaketime is not installed and cannot be fetched: $(tail -n 1 log)"
fi
mkdir -p "$cache"
dpkg-deb -x libfaketime_*.deb "$cache"
find_library || fail "the package libfaketime holds no libfaketime.so.1"
