#!/bin/bash
# Flame graphs of a node under each kind of load: tools/flames.sh FOLDER [CASE …]. `make flames` installs what it needs.
#
# A case is what `conch-load measure` plays on a node of its own; perf looks at that node for some seconds in the middle, by the
# clock, with call chains from the stack. CASE.svg is the picture, CASE.folded its lines, CASE.txt what the measurement said;
# perf takes a share of the machine meanwhile, so the figure is not one to quote.
set -euo pipefail

folder=$1
shift
mkdir -p "$folder"

declare -A plays=(
    [pairs]="cpu"
    [pairs-wss]="cpu --over wss"
    [pairs-quic]="cpu --over quic"
    [pairs-2000]="ack --rate 2000"
    [pairs-quic-1000]="ack --rate 1000 --over quic"
    [fan-100]="fanout --members 101"
)
[ $# -gt 0 ] || set -- "${!plays[@]}"
seconds=16
look=8

for case in "$@"; do
    play=${plays[$case]:?"no such case: $case; there are: ${!plays[*]}"}
    data=$(mktemp)
    # shellcheck disable=SC2086 — a case is several words.
    target/release/conch-load measure $play --seconds $seconds --folder "$folder" > "$folder/$case.txt" &
    load=$!
    node=
    for _ in $(seq 200); do
        node=$(pgrep -P "$load" -x conch || true)
        [ -n "$node" ] && break
        sleep 0.05
    done
    [ -n "$node" ] || { echo "$case: no node was started" >&2; exit 1; }
    # People are made first, and the load warms up.
    sleep 5
    perf record --quiet --event cpu-clock --freq 499 --call-graph dwarf,8192 --pid "$node" --output "$data" -- sleep $look
    wait "$load"
    perf script --no-inline --input "$data" 2> /dev/null | inferno-collapse-perf > "$folder/$case.folded" 2> /dev/null
    inferno-flamegraph --title "conch: $play" "$folder/$case.folded" > "$folder/$case.svg"
    rm -f "$data"
    echo "$folder/$case.svg: $(awk '{ n += $NF } END { printf "%.1f", n / 1e9 }' "$folder/$case.folded") s of CPU"
done
