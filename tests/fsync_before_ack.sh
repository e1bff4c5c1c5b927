#!/bin/sh
# Shows promise 1 at the system calls: between two acks there is a finished fsync, each time.
#
# Runs the test that stores two hundred messages one after another under strace, which follows into the server, and
# reads what it wrote down. Needs strace and Linux; not part of `cargo test`, since it proves an order and not a
# behaviour, but of `.ci/run`.
set -eu
cd "$(dirname "$0")/.."
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT

cargo test --locked --quiet --test messages --no-run
strace --follow-forks --string-limit=200 --output="$trace" \
    --trace=fsync,fdatasync,write,writev,sendto,sendmsg \
    cargo test --locked --quiet --test messages -- --exact a_message_is_on_disk_before_its_ack

awk '
    # A call that another thread interrupts is written in two lines; it is finished at the second.
    /(fsync|fdatasync)[( ].*= 0$/ { synced = 1; syncs++ }
    /(write|writev|sendto|sendmsg)\(.*\\"type\\":\\"ack\\"/ {
        acks++
        if (!synced) { print "an ack without an fsync since the last one: " $0; early++ }
        synced = 0
    }
    END {
        printf "%d acks, %d fsyncs, %d acks too early\n", acks, syncs, early
        exit !(acks == 200 && early == 0)
    }
' "$trace"
