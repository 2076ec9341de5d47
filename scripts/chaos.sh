#!/usr/bin/env bash
# Faults under load, judged from outside, on SQLite and on PostgreSQL at once: two cores, two runs.
#   scripts/chaos.sh [ROUNDS of each (50)] [SEED (random)]
# Ends by itself; CHAOS_MINUTES (25) is when it is stopped as failed. Output of failed rounds goes
# to CHAOS_KEEP (build/chaos). Exit status 0: every round of both passed, and the faults were seen.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly rounds="${1:-50}" seed="${2:-$((RANDOM * 32768 + RANDOM))}"
readonly keep="${CHAOS_KEEP:-build/chaos}" minutes="${CHAOS_MINUTES:-25}"
declare -A pids
trap 'kill "${pids[@]}" 2>/dev/null' INT TERM

for database in sqlite postgresql; do
    timeout --kill-after=60 "${minutes}m" .venv/bin/python -m tests.chaos \
        --rounds "$rounds" --seed "$seed" --database "$database" --keep "$keep" &
    pids[$database]=$!
done

failed=()
for database in "${!pids[@]}"; do
    wait "${pids[$database]}" || failed+=("$database (exit status $?)")
done
if ((${#failed[@]})); then
    printf 'FAILED: %s; seed %s\n' "${failed[*]}" "$seed" >&2
    exit 1
fi
printf 'Every round passed; seed %s.\n' "$seed"
