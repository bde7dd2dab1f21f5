# SPDX-License-Identifier: Apache-2.0
# Shared by the launch scripts: a virtual environment with exactly the versions of constraints.txt.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# The python to make the environment with: $PYTHON, or the newest of 3.11 to 3.13 that runs.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        elif [ "$candidate" = "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13"
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3"
}

# install EXTRAS: make or update .venv; a second call with nothing changed returns at once.
install() {
    local python stamp wanted
    venv="${VENV:-$root/.venv}"
    stamp="$venv/.installed-$1"
    if [ -x "$venv/bin/python" ]; then
        python="$venv/bin/python"
    else
        python="$(find_python)" || exit 2
    fi
    wanted="$("$python" -V) $1 $(cat "$root/setup.py" "$root/constraints.txt" | cksum)"
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "installing into $venv (a minute or two, once) ..."
    if [ ! -x "$venv/bin/python" ]; then
        "$python" -m venv "$venv" || fail "no virtual environment could be made; on Debian: apt install python3-venv"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$root/constraints.txt" -e "$root[$1]" || fail "the installation failed; what pip says is above"
    printf '%s' "$wanted" >"$stamp"
}
