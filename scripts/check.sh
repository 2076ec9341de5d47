#!/usr/bin/env bash
# Format, lint, types, imports, migrations: everything that can be known without running a test.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly bin=.venv/bin
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
# The checks load the settings: on defaults, and away from this installation's data.
export COLLECTOR_ENV_FILE=/dev/null COLLECTOR_DATA_DIR="$scratch/data"
unset COLLECTOR_CONFIG COLLECTOR_DATABASE_URL COLLECTOR_RECORDS_DATABASE_URL
failed=()

part() {
    local name="$1"
    shift
    printf '=== %s\n' "$name"
    "$@" || failed+=("$name")
}

part "format" "$bin/ruff" format --check .
part "lint" "$bin/ruff" check .
part "types" "$bin/mypy" .
part "imports" "$bin/lint-imports" --no-cache
part "system checks" "$bin/python" manage.py check --fail-level WARNING
part "migrations" "$bin/python" manage.py makemigrations --check --dry-run

if ((${#failed[@]})); then
    printf 'FAILED: %s\n' "${failed[*]}" >&2
    exit 1
fi
