#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make .venv with the test extras and run the tests on JAX's CPU backend (eight virtual devices).
#
#   bash launch/test.sh [--parity] [pytest arguments]
#
# Tests marked slow run with CI=true, or with `-m slow`. --parity, or CI=true, also installs PyTorch and transformers for
# the tests that compare with them; without them these tests skip. PYTHON=/path/to/python chooses the interpreter.

# shellcheck source=launch/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

extras=prepare,sample,test

# PyTorch as its CPU build: asked for by its exact name, so that nothing else is ever downloaded unasked, as a plain
# `torch` on Linux brings gigabytes of CUDA. Who asks with --parity gets that one where pip is offered no other.
install_parity() {
    local torch
    torch=$(grep '^torch==' "$checkout/constraints.txt")
    if ! "$venv/bin/python" -c 'import torch' 2>/dev/null && ! pip_install "$torch+cpu" 2>/dev/null && [[ -z $1 ]]; then
        echo "pip is offered no CPU build of $torch for this Python: the parity tests will skip (--parity installs the full one)"
        return
    fi
    install "$extras,parity"
}

parity=
if [[ ${1:-} == --parity ]]; then
    parity=asked
    shift
fi
slow=(-m "not slow")
if [[ ${CI:-} == true ]]; then slow=(); fi

install "$extras"
if [[ -n $parity || ${CI:-} == true ]]; then install_parity "$parity"; fi

cd -- "$checkout"
export JAX_PLATFORMS=cpu
exec "$venv/bin/python" -m pytest ${slow[@]+"${slow[@]}"} "$@"
