#!/usr/bin/env bash
# The suite, in parts.
#
#   scripts/test.sh             what every change must pass: all but what is marked `long`
#   scripts/test.sh long        what is marked `long`, on SQLite and on PostgreSQL
#   scripts/test.sh coverage    all of it on SQLite, and what it covers of every room
#
# TEST_PROCESSES is how many tests run at a time. A test that falls runs once more when the others are
# done, by itself: where many processes share two cores it may wait for longer than it has patience.
# If it passes then, it is named at the end, as a fault of it or of the product that is to be found.
# TEST_AGAIN=0 switches that off. Nothing runs again where more than five fell, or where a process
# of the suite died: that is what a deadlock looks like.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Hundreds of processes are started, and each would compile all modules anew.
unset PYTHONDONTWRITEBYTECODE
readonly bin=.venv/bin
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
failed=()
unsteady=()

# part NAME DATABASE MARKERS [--option=…|folder …]
part() {
    local name="$1" database="$2" markers="$3" word options=() folders=() fallen=()
    shift 3
    rm -f "$scratch/fallen"
    for word in "$@"; do
        if [[ $word == --* ]]; then options+=("$word"); else folders+=("$word"); fi
    done
    local pytest=(env COLLECTOR_TEST_DB="$database" "$bin/pytest" -q -p no:cacheprovider
        --durations=10 --fallen="$scratch/fallen" "${options[@]}")
    printf '\n=== %s\n' "$name"
    # Much of the suite waits for servers and clocks of others: four at a time fill two cores, and
    # who has nothing left takes from the others, as some tests take a minute.
    "${pytest[@]}" -n "${TEST_PROCESSES:-4}" --dist worksteal -m "$markers" "${folders[@]}"
    local status=$?
    # 1: tests fell, or something outside of them did, and then none is named. 5, that nothing was
    # collected, is a failure of a part of the suite too.
    if [[ $status == 1 && ${TEST_AGAIN:-1} != 0 && -s $scratch/fallen ]]; then
        mapfile -t fallen <"$scratch/fallen"
        if ((${#fallen[@]} <= 5)); then
            printf '\n=== %s: what fell, by itself\n' "$name"
            mv "$scratch/fallen" "$scratch/again"
            # What was covered before counts too.
            if [[ "${options[*]}" == *--cov* ]]; then pytest+=(--cov-append); fi
            "${pytest[@]}" "@$scratch/again"
            status=$?
            if [[ $status == 0 ]]; then unsteady+=("${fallen[@]/#/$database: }"); fi
        fi
    fi
    if [[ $status != 0 ]]; then failed+=("$name (exit status $status)"); fi
}

short() {
    local elsewhere=(--ignore=tests/pipeline --ignore=tests/browser)
    part "the engine" sqlite "not long" tests/pipeline --cov=pipeline --cov-report=
    "$bin/coverage" report --include='pipeline/*' --fail-under=95 ||
        failed+=("less than 95 % of the engine is covered, branches included")
    part "all else, on SQLite" sqlite "not long" "${elsewhere[@]}"
    # By themselves: a browser's driver keeps an event loop running in its process for good.
    part "in a browser" sqlite browser tests/browser
    part "databases again, on PostgreSQL" postgresql \
        "(database or server) and not once and not long" "${elsewhere[@]}" --ignore=tests/library
    part "races again, switching threads every 10 µs" sqlite \
        "concurrency and not server and not long" --switch-interval=0.00001 --ignore=tests/browser
}

long() {
    part "what takes long, on SQLite" sqlite "long and not browser"
    part "what takes long, on PostgreSQL" postgresql \
        "long and (database or server) and not browser and not once"
}

coverage() {
    part "the suite on SQLite" sqlite "not browser" --cov --cov-report=
    "$bin/coverage" report || failed+=("the coverage cannot be told")
}

case "${1:-short}" in
    short | long | coverage) ;;
    *) printf 'test: unknown argument: %s (none, long, or coverage)\n' "$1" >&2 && exit 2 ;;
esac
rm -f .coverage .coverage.*
"$bin/python" -m compileall -q -j 2 [a-z]*/ || exit 1
"${1:-short}"

if ((${#unsteady[@]})); then
    printf '\nFELL BESIDE OTHERS, PASSED ALONE: faults to be found\n' >&2
    printf '  %s\n' "${unsteady[@]}" >&2
fi
if ((${#failed[@]})); then
    printf '\nFAILED:\n' >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
printf '\nEverything passed%s.\n' "${unsteady:+, some of it at the second try}"
