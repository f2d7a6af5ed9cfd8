#!/usr/bin/env bash
# Builds the final stage of the Dockerfile around a static binary that is compiled here, runs it in
# the image and checks what the image promises. Needs no container daemon and, with buildah in place
# and the crates downloaded, no network. The build stage of the Dockerfile is not run, because its base
# image would have to be pulled; the compiler's flags are compared instead.
#
#   IMAGE_BINARY  a static binary to put into the image; without it the release binary is built
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

[ "$(id -u)" = 0 ] ||
  fail "the image check needs root, since it enters the image by chroot; run it as root, or try the image with 'docker build .'"

if ! command -v buildah >/dev/null 2>&1; then
  command -v apt-get >/dev/null 2>&1 || fail "buildah is not installed and there is no apt-get: install buildah and crun"
  say "installing buildah"
  log=$(mktemp)
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends buildah crun; } >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; rm -f "$log"; fail "buildah could not be installed from the system's packages"; }
  rm -f "$log"
fi

flags="-C target-feature=+crt-static"
grep -qF -- "RUSTFLAGS=\"$flags\"" Dockerfile || fail "the Dockerfile does not link as this check does ($flags)"
version=$(sed -n '/^\[package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)

if [ -n "${IMAGE_BINARY:-}" ]; then
  binary=$IMAGE_BINARY
  [ -f "$binary" ] || fail "IMAGE_BINARY=$binary: no such file"
else
  target=$(rustc -vV | sed -n 's/^host: //p')
  say "building the static release binary for $target"
  RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }$flags" \
    cargo build --release --locked --bin incident-operator --target "$target" >&2
  binary=${CARGO_TARGET_DIR:-target}/$target/release/incident-operator
fi
# An interpreter is what an empty image lacks; ldd names it for every dynamic binary.
if linked=$(ldd "$binary" 2>&1) && ! grep -q 'statically linked' <<<"$linked"; then
  fail "$binary is not static; it needs: $(tr -s '\n\t ' ' ' <<<"$linked")"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/image-check.XXXXXX")
store=(--storage-driver vfs --root "$work/root" --runroot "$work/runroot")
cleanup() {
  buildah "${store[@]}" rm --all >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

mkdir "$work/context"
install -m 0755 "$binary" "$work/context/incident-operator"
{
  printf 'FROM scratch AS build\nCOPY incident-operator /out/incident-operator\n'
  sed -n '/^FROM scratch AS final$/,$p' Dockerfile
} >"$work/context/Dockerfile"
grep -q '^FROM scratch AS final$' "$work/context/Dockerfile" || fail "the Dockerfile has no stage 'FROM scratch AS final'"

image=localhost/incident-operator:check
buildah "${store[@]}" build --isolation chroot -t "$image" "$work/context" >"$work/build.log" 2>&1 ||
  { tail -n 20 "$work/build.log" >&2; fail "the final stage of the Dockerfile does not build"; }

config() { buildah "${store[@]}" inspect --type image --format "$1" "$image"; }
expect() {
  [ "$2" = "$3" ] || fail "the image's $1 is '$2', expected '$3'"
  printf '%-11s %s\n' "$1" "$2"
}
expect user "$(config '{{.OCIv1.Config.User}}')" 65532:65532
expect entrypoint "$(config '{{range .OCIv1.Config.Entrypoint}}{{.}}{{end}}')" /incident-operator
expect command "$(config '{{range .OCIv1.Config.Cmd}}{{.}}{{end}}')" run
expect label "$(config '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}')" "$version"

container=$(buildah "${store[@]}" from "$image")
root=$(buildah "${store[@]}" mount "$container")
expect files "$(cd "$root" && find . -type f | sed 's/^\.//' | sort | tr '\n' ' ' | sed 's/ $//')" /incident-operator
size=$(stat -c %s "$root/incident-operator")
buildah "${store[@]}" umount "$container" >/dev/null

printed=$(buildah "${store[@]}" run --isolation chroot "$container" -- /incident-operator --version 2>&1) ||
  fail "the binary does not run in the image: $printed"
expect version "$printed" "incident-operator $version"
printf '%-11s %s bytes (%s MiB)\n' size "$size" "$(awk -v n="$size" 'BEGIN { printf "%.1f", n / 1048576 }')"
say "the image is sound"
