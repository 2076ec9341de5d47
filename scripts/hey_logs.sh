#!/bin/sh
# Post one log record N times from C connections with hey, to a server that is already running.
#   scripts/hey_logs.sh [N (10000)] [C (50)]
# URL names the server (http://127.0.0.1:8000), COLLECTOR_API_KEY the key, if it wants one.
set -eu

if ! command -v hey >/dev/null 2>&1; then
    echo "hey_logs.sh: hey is not installed; on Debian: apt-get install hey" >&2
    exit 127
fi
set -- "${1:-10000}" "${2:-50}"
body='{"level":"INFO","service":"hey","message":"GET /api/cart answered in 12 ms"}'

if [ -n "${COLLECTOR_API_KEY:-}" ]; then
    exec hey -n "$1" -c "$2" -m POST -T application/json -d "$body" \
        -H "Authorization: Bearer $COLLECTOR_API_KEY" "${URL:-http://127.0.0.1:8000}/logs"
fi
exec hey -n "$1" -c "$2" -m POST -T application/json -d "$body" \
    "${URL:-http://127.0.0.1:8000}/logs"
