# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the launch scripts share: find a Python, make .venv, install what it lacks. Sourced, never run.

set -euo pipefail
checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$checkout/.venv
requirements=("$checkout/setup.py" "$checkout/constraints.txt")

fail() {
    echo "error: $*" >&2
    exit 1
}

suitable() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

# What tells one Python from another, as far as an installation goes.
identity() {
    "$1" -c 'import sys; print(sys.base_prefix, sys.version_info[:2])' 2>/dev/null
}

# Sets `python`: $PYTHON if it is given, else the newest of 3.11 to 3.13.
find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        suitable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13 that runs; name another, or unset PYTHON"
        python=$PYTHON
        return
    fi
    for python in python3.13 python3.12 python3.11 python3; do
        if suitable "$python"; then return; fi
    done
    fail "no Python 3.11, 3.12 or 3.13 in PATH; install one (Debian: apt install python3 python3-venv), or name it: PYTHON=/path/to/python bash ${0##*/}"
}

# Makes .venv, unless one is there that still runs and is of $PYTHON, where that is given.
make_venv() {
    if suitable "$venv/bin/python" && [[ -z ${PYTHON:-} || $(identity "$PYTHON") == "$(identity "$venv/bin/python")" ]]; then
        return
    fi
    local python
    find_python
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments; install its venv module (Debian: apt install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))"
    echo "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail "$python could not make $venv"
}

pip_install() {
    # Compiling what is never imported takes a third of the time: Python compiles at the first import.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
        -c "$checkout/constraints.txt" "$@"
}

# install EXTRAS: mlm_jax with these extras, at the versions of constraints.txt. The stamp holds all that decides what
# is installed, so that a second run needs no pip.
install() {
    make_venv
    local stamp=$venv/installed.$1 wanted
    wanted=$(echo "$checkout"; identity "$venv/bin/python"; cat "${requirements[@]}")
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi
    echo "installing mlm_jax[$1] into $venv (once: about 1 GB to download, 3.5 GB on disk)"
    pip_install -e "${checkout}[$1]" || fail "the installation did not finish (pip's message is above); run the same command again"
    echo "$wanted" >"$stamp"
}
