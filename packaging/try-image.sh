#!/bin/sh
# Builds the image of the Dockerfile with buildah, and starts what is in it: packaging/try-image.sh
# An image from scratch needs no registry. Where containers may not be nested, BUILDAH_ISOLATION=chroot and
# STORAGE_DRIVER=vfs make do.
set -eu

cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
if ! command -v buildah >/dev/null; then
    echo "NOT CHECKED: there is no buildah here (Debian: apt install buildah)" >&2
    exit 2
fi
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}" STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"

[ -e "target/$target/release/chinwag" ] ||
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --features push --target "$target"
# The format of Docker, since that of OCI knows no HEALTHCHECK.
buildah build --format docker --tag chinwag-try .
container=$(buildah from chinwag-try)
server=
cleanup() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
    buildah rm "$container" >/dev/null
    buildah rmi chinwag-try >/dev/null
}
trap cleanup EXIT
buildah inspect --type image --format '{{.Docker.Config.Healthcheck.Test}} as {{.Docker.Config.User}}{{"\n"}}' chinwag-try
root=$(buildah mount "$container")
find "$root" -type f -exec du --apparent-size -k {} +

# What every container runtime gives.
mkdir -p "$root/dev"
cp -a /dev/null /dev/random /dev/urandom "$root/dev/"
# In the image's root as the image's user, and not by `buildah run`, which does not pass on signals without a runtime.
run() { env -i PATH="$PATH" CHINWAG_LISTEN=127.0.0.1:0 CHINWAG_DB=/data/chinwag.db chroot --userspec=65532:65532 "$root" /chinwag "$@"; }
run --version
if run health 2>/dev/null; then fail "healthy without a server"; fi
env -i PATH="$PATH" CHINWAG_LISTEN=127.0.0.1:0 CHINWAG_DB=/data/chinwag.db \
    chroot --userspec=65532:65532 "$root" /chinwag serve >/dev/null 2>&1 &
server=$!
tries=0
until run health 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || fail "the server in the container is not healthy"
    sleep 0.2
done
# The directory, too, is the user's: the server has made its database in it.
[ "$(stat --format %u "$root/data/chinwag.db")" = 65532 ] || fail "the server is not the image's user"
echo "the image works"
