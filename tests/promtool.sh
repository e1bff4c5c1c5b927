#!/bin/sh
# Has Prometheus's own checker read what chinwag exposes: tests/promtool.sh [BINARY]
# promtool is in Debian's package prometheus; $PROMTOOL names another.
set -eu

promtool=${PROMTOOL:-promtool}
if ! command -v "$promtool" >/dev/null; then
    echo "NOT CHECKED: there is no promtool here (Debian: apt install prometheus)" >&2
    exit 2
fi
binary=${1:-target/debug/chinwag}
scratch=$(mktemp -d)
"$binary" --listen 127.0.0.1:0 --db "$scratch/chinwag.db" --metrics-listen 127.0.0.1:0 --log-format json \
    >"$scratch/out" 2>"$scratch/log" &
server=$!
trap 'kill $server; wait $server || true; rm -r "$scratch"' EXIT

until grep -q '"serving metrics"' "$scratch/log"; do
    kill -0 $server
    sleep 0.1
done
address() { sed -n "s/.*\"$1\".*\"address\":\"\([^\"]*\)\".*/\1/p; s/.*\"address\":\"\([^\"]*\)\".*\"$1\".*/\1/p" "$scratch/log" | head -n 1; }
# Something to count.
curl -fsS -o /dev/null --json '{"username":"ada","password":"correct horse"}' "$(address listening)/register"
curl -sS -o /dev/null "$(address listening)/nowhere"

curl -fsS "http://$(address 'serving metrics')/metrics" >"$scratch/metrics"
"$promtool" check metrics <"$scratch/metrics"

# The rules and the board: well-formed, and of series that there are.
rules=packaging/examples/alerts.yaml board=packaging/examples/grafana.json
"$promtool" check rules "$rules" packaging/examples/cluster/alerts.yaml
for name in $(grep -oh 'chinwag_[a-z_]*\|process_[a-z_]*' "$rules" "$board" | sort -u); do
    grep -q "^$name\b" "$scratch/metrics" || { echo "there is no series $name" >&2; exit 1; }
done
echo "$(grep -c '^chinwag_\|^process_' "$scratch/metrics") series in $(wc -c <"$scratch/metrics") bytes: promtool has nothing to say"
