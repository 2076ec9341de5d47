#!/bin/sh
# Post log records with wrk, one a request, to a server that is already running.
#   scripts/wrk_logs.sh [SECONDS (10)] [CONNECTIONS (50)]
# URL names the server (http://127.0.0.1:8000), BATCH the records a request (1),
# COLLECTOR_API_KEY the key, if the server wants one.
set -eu

if ! command -v wrk >/dev/null 2>&1; then
    echo "wrk_logs.sh: wrk is not installed; on Debian: apt-get install wrk" >&2
    exit 127
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
seconds=${1:-10}
connections=${2:-50}
threads=2
[ "$connections" -ge "$threads" ] || threads=$connections

exec wrk --threads "$threads" --connections "$connections" --duration "${seconds}s" --latency \
    --script "$here/wrk_logs.lua" "${URL:-http://127.0.0.1:8000}/logs"
