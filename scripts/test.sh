#!/usr/bin/env bash
# The whole suite: on SQLite, what touches databases again on PostgreSQL, races again with a tiny
# switch interval; then coverage over all three.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly bin=.venv/bin
failed=()
rm -f .coverage .coverage.*

part() {
    local name="$1"
    shift
    printf '\n=== %s\n' "$name"
    "$@"
    local status=$?
    # 5: nothing was collected, which for a part of the suite is a failure too.
    if [[ $status != 0 ]]; then failed+=("$name (exit status $status)"); fi
}

# Much of the suite waits for servers and clocks of others: four at a time fill two cores, and who
# has nothing left takes from the others, as some tests take a minute.
readonly suite=("$bin/pytest" -n "${TEST_PROCESSES:-4}" --dist worksteal --cov --cov-report= --cov-append
    -p no:cacheprovider -q --durations=10)

part "the suite on SQLite" env COLLECTOR_TEST_DB=sqlite "${suite[@]}" -m "not browser" "$@"
# By themselves: a browser's driver keeps an event loop running in its process for good.
part "in a browser" env COLLECTOR_TEST_DB=sqlite "${suite[@]}" -m browser "$@"
part "databases again, on PostgreSQL" \
    env COLLECTOR_TEST_DB=postgresql "${suite[@]}" -m "(database or server) and not browser and not once" "$@"
part "races again, switching threads every 10 µs" \
    env COLLECTOR_TEST_DB=sqlite "${suite[@]}" -m "concurrency and not server" --switch-interval=0.00001 "$@"

printf '\n=== coverage\n'
"$bin/coverage" combine --quiet --append 2>/dev/null || true
"$bin/coverage" report
part "pipeline/ covered to 95 % or more, branches included" \
    "$bin/coverage" report --include='pipeline/*' --fail-under=95

if ((${#failed[@]})); then
    printf '\nFAILED:\n' >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
printf '\nEverything passed.\n'
