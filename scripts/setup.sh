#!/usr/bin/env bash
# Make the virtual environment and install what is needed; does nothing when nothing changed.
#
#   scripts/setup.sh        what the server needs
#   scripts/setup.sh dev    also what tests and checks need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly wanted="${1:-run}"
readonly venv=.venv

say() { printf '%s\n' "$*" >&2; }
die() { say "setup: $*"; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [[ -n $candidate ]] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    die "Python 3.11 or later is needed (set PYTHON=/path/to/python3 if it has another name)"
}

make_venv() {
    local python
    python="$(find_python)"
    say "Making the virtual environment ($("$python" --version)) …"
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >"$log" 2>&1; then
        cat "$log" >&2
        rm -rf "$venv"
        die "the venv module does not work; on Debian and Ubuntu: apt-get install python3-venv"
    fi
}

# What an installation is made of: change any of it and the installation is brought up to date.
fingerprint() {
    local files=(requirements.txt)
    [[ $wanted == dev ]] && files+=(requirements-dev.txt)
    { cat "${files[@]}"; "$venv/bin/python" -VV; pwd; } | sha256sum | cut -d' ' -f1
}

install_packages() {
    local stamp="$venv/.installed-$wanted" file=requirements.txt now
    [[ $wanted == dev ]] && file=requirements-dev.txt
    now="$(fingerprint)"
    if [[ -f $stamp && $(<"$stamp") == "$now" ]]; then
        return
    fi
    say "Installing the packages of $file …"
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet \
        -r "$file" >"$log" 2>&1; then
        cat "$log" >&2
        die "the packages could not be installed; see the message above"
    fi
    printf '%s\n' "$now" >"$stamp"
}

find_browser() {
    command -v chromium || command -v chromium-browser || command -v google-chrome || return 1
}

# The browser tests drive Debian's Chromium, so that no browser is downloaded from elsewhere.
install_browser() {
    find_browser >/dev/null && return
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "Installing chromium for the browser tests …"
        if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends chromium fonts-dejavu-core; } >"$log" 2>&1; then
            return
        fi
        tail -n 5 "$log" >&2
    fi
    say "setup: no Chromium was found, and the browser tests will fail without it."
    say "       On Debian: apt-get install chromium (as root), then run this again."
}

# One test looks at the system calls of the real server.
install_tracer() {
    command -v strace >/dev/null && return
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "Installing strace for the test that sees records synced before they are acknowledged …"
        if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends strace; } >"$log" 2>&1; then
            return
        fi
        tail -n 5 "$log" >&2
    fi
    say "setup: no strace was found, and one test will fail without it."
    say "       On Debian: apt-get install strace (as root), then run this again."
}

case $wanted in
    run | dev) ;;
    *) die "unknown argument: $wanted (none, or dev)" ;;
esac

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
# Two runs at once would install over each other.
exec 9>.setup.lock
if command -v flock >/dev/null; then flock 9; fi

"$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || make_venv
install_packages
if [[ $wanted == dev ]]; then
    install_browser
    install_tracer
fi
