#!/bin/sh
# Send N records (10000) from C clients (50) to a server that is already running, and print the
# figures. Starts nothing. URL names the server (this installation's own); further options go to
# `manage.py loadtest`, for example:
#   URL=http://127.0.0.1:9000 scripts/load_test.sh 100000 20 --batch 100 --verify
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python="$root/.venv/bin/python"
if [ ! -x "$python" ]; then
    echo "load_test.sh: $python is missing; run \`make setup\` first" >&2
    exit 2
fi
records=10000
clients=50
case "${1-}" in '' | -*) ;; *) records=$1; shift ;; esac
case "${1-}" in '' | -*) ;; *) clients=$1; shift ;; esac

exec "$python" "$root/manage.py" loadtest "$records" "$clients" \
    ${URL:+--url "$URL"} "$@"
