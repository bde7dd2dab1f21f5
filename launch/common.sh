# SPDX-License-Identifier: Apache-2.0
# Shared by the launch scripts: what --dry-run does, the config, and a virtual environment with exactly the versions
# of constraints.txt.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# --dry-run comes first in every script's arguments: the commands are printed, ready for a shell, and not run.
dry_run=""
if [ "${1:-}" = --dry-run ]; then
    dry_run=true
    shift # of the sourcing script's arguments: `source` was given none
fi

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# quoted WORD ...: the words as one line of shell, which any shell reads as the same words.
quoted() {
    local word line=""
    for word in "$@"; do
        [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
        line="$line $word"
    done
    printf '%s\n' "${line# }"
}

# run COMMAND ...: run it, or print it.
run() {
    if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi
}

# finish COMMAND ...: become it, so that signals reach it and the exit status is its own; or print it.
finish() {
    if [ -n "$dry_run" ]; then quoted "$@"; else exec "$@"; fi
}

# find_config SCRIPT [CONFIG]: $config, here or, as one of the checkout's can be named from anywhere, there.
find_config() {
    config="${2:-}"
    case "$config" in -h | --help)
        sed -n '/^# [^S]/{s/^# //p;}; /^set/q' "$root/$1"
        exit
        ;;
    esac
    [ -n "$config" ] || fail "name a config file: bash $1 configs/quickstart.py"
    [ -e "$config" ] || [ ! -e "$root/$config" ] || config="$root/$config"
    # A workdir holds its config.
    [ -f "$config" ] || [ -f "$config/config.json" ] || fail "$config: no such config file, neither here nor in $root"
}

# find_command [study] CONFIG: $command, which is pretrain where nothing stands before the config.
find_command() {
    command=pretrain
    if [ "${1:-}" = study ]; then command=study; fi
}

# Name this script as what goes on with a run that stops; a study goes on with its own.
name_script() {
    [ "$command" = pretrain ] || return 0
    MLM_JAX_COMMAND="bash $(quoted "$0")"
    export MLM_JAX_COMMAND
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

# What tells one installed Python from another.
identity() {
    "$1" -c 'import sys; print(sys.base_prefix, *sys.version_info[:3])' 2>/dev/null
}

# make_venv: make $venv, unless it is there, works, and is of $PYTHON where that is given.
make_venv() {
    local python
    if [ -z "${PYTHON:-}" ] && identity "$venv/bin/python" >/dev/null; then return; fi
    python="$(find_python)" || exit 2
    if [ "$(identity "$python")" = "$(identity "$venv/bin/python")" ]; then return; fi
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian: apt install python3-venv"
    run "$python" -m venv --clear "$venv" || fail "$python could not make $venv; what it says is above"
}

# install EXTRAS [FREE]: make or update .venv; a second call with nothing changed returns at once.
# FREE: packages, a|b|c, whose versions are not those of constraints.txt.
install() {
    local stamp wanted constraints="$root/constraints.txt"
    venv="${VENV:-$root/.venv}"
    stamp="$venv/.installed-$1"
    make_venv
    # The checkout's place counts too: the installation is editable, and points there.
    wanted="$root $(identity "$venv/bin/python") $(cat "$root/setup.py" "$root/constraints.txt" | cksum)${2:+ $2}"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
    [ -n "$dry_run" ] || echo "installing into $venv (a minute or two, once) ..."
    if [ -n "${2:-}" ]; then
        constraints="$venv/constraints.txt"
        run sed -nE "/^($2)==/!w $constraints" "$root/constraints.txt"
    fi
    # Not compiling what may never be imported saves a third of the time; Python compiles at the first import.
    run "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
        -c "$constraints" -e "${root}[$1]" || fail "the installation failed; what pip says is above"
    [ -n "$dry_run" ] || printf '%s' "$wanted" >"$stamp"
}
