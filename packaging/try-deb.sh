#!/bin/sh
# Builds the Debian package and takes it through its life on this machine: installed, upgraded, removed, purged.
# It needs root, and belongs on a machine that can be thrown away: packaging/try-deb.sh [RUST-TARGET]
# Where systemd runs, it is what starts the service; where not (most containers), the script does, as the unit would.
set -eu

cd "$(dirname "$0")/.."
target=${1:-x86_64-unknown-linux-gnu}
say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
systemd_runs() { [ -d /run/systemd/system ]; }
account='{"username":"ada","password":"correct horse battery"}'
# `ask register|login`: what the service says to ada.
ask() {
    curl --fail --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 --output "$out/answer" \
        --header 'Content-Type: application/json' --data "$account" "http://127.0.0.1:8080/$1"
}
server=
start() {
    if systemd_runs; then
        systemctl is-active --quiet chinwag || fail "the service does not run"
        return
    fi
    install --directory --owner chinwag --group chinwag --mode 700 /var/lib/chinwag
    (
        set -a
        . /etc/default/chinwag
        CHINWAG_DB=/var/lib/chinwag/chinwag.db
        exec setpriv --reuid chinwag --regid chinwag --clear-groups chinwag serve
    ) >"$out/log" 2>&1 &
    server=$!
}
stop() {
    [ -z "$server" ] || { kill "$server" && wait "$server" || fail "the service does not stop well"; }
    server=
}

command -v cargo-deb >/dev/null || fail "there is no cargo-deb here (cargo install cargo-deb)"
[ "$(id -u)" = 0 ] || fail "only root can install packages"
! getent passwd chinwag >/dev/null || fail "there is a user chinwag already: this is no machine for a test"

say "build: static, so that the package depends on no library"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --features push --target "$target"
out=$(mktemp -d)
trap '[ -z "$server" ] || kill "$server"; rm -r "$out"' EXIT
# A version below, for the upgrade, of the same binary.
cargo deb --no-build --no-strip --target "$target" --deb-version 0.0.1 --output "$out/old.deb" >/dev/null
cargo deb --no-build --no-strip --target "$target" --output "$out/new.deb" >/dev/null
dpkg --info "$out/new.deb"
dpkg --contents "$out/new.deb"
dpkg --info "$out/new.deb" | grep -q ' Depends:.*libc6' && fail "a static binary depends on libc6"

say "install"
dpkg --install "$out/old.deb"
getent passwd chinwag >/dev/null || fail "the service has no user"
[ "$(dpkg-query --show --showformat '${Version}' chinwag)" = 0.0.1 ] || fail "not the old version"
chinwag --version
for file in /man1/chinwag.1 /bash-completion/completions/chinwag /_chinwag /chinwag.fish; do
    dpkg --listfiles chinwag | grep -qF "$file" || fail "there is no $file"
done
systemd_runs || say "NOT CHECKED: systemd does not run here, so that this script starts the service"
start
ask register || fail "the service cannot be used"
stop
if command -v systemd-analyze >/dev/null; then
    systemd-analyze verify "$(dpkg --listfiles chinwag | grep '/chinwag\.service$')"
    systemd-analyze security --offline=yes chinwag.service | tail -n 1
fi

[ "$(dpkg --listfiles chinwag | grep -c 'systemd/system/.*\.')" = 1 ] || fail "there is a unit besides the service"

say "upgrade: what the administrator changed stays"
echo 'CHINWAG_REGISTRATION=closed' >>/etc/default/chinwag
dpkg --install --force-confdef --force-confold "$out/new.deb"
grep -q '^CHINWAG_REGISTRATION=closed' /etc/default/chinwag || fail "the configuration was overwritten"
start
ask login || fail "the account did not outlive the upgrade"
curl --fail --silent --show-error http://127.0.0.1:8080/about | grep -q '"registration":"closed"' ||
    fail "the service does not read its configuration"
stop

say "remove, and purge: the conversations stay"
dpkg --remove chinwag
[ ! -e /usr/bin/chinwag ] || fail "the binary is still there"
! pgrep --euid chinwag >/dev/null || fail "the service still runs"
[ -e /etc/default/chinwag ] || fail "removing is not purging"
dpkg --purge chinwag
[ ! -e /etc/default/chinwag ] || fail "the configuration outlived the purge"
[ -e /var/lib/chinwag/chinwag.db ] || fail "the database is gone"
rm -r /var/lib/chinwag
deluser --system --quiet chinwag
say "done"
