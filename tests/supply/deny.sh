#!/usr/bin/env bash
# make deny: licences, bans and sources of everything we build on, as deny.toml says; and known vulnerabilities,
# where the database can be fetched.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/supply/lib.sh
. "$here/lib.sh"
cd "$root"
need_rust
use_tool cargo-deny 0.20.2

cargo deny --locked --log-level error check bans licenses sources
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if cargo deny --locked fetch db >"$log" 2>&1; then
  cargo deny --locked --log-level error check --disable-fetch advisories
else
  tail -n 2 "$log" >&2
  say "the database of advisories cannot be fetched: vulnerabilities were NOT checked"
fi
