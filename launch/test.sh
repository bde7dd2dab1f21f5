#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run the tests on JAX's CPU backend: bash launch/test.sh [--dry-run] [--parity] [pytest options ...]
# --parity, or CI=true on Python 3.11: also install PyTorch and transformers, and compare with them.
# CI=true: the slow tests too, and the compilers for those that compile for TPUs and for GPUs, and Hugging Face's datasets.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

extras="prepare,sample,test"
if [ "${1:-}" = "--parity" ]; then
    shift
    extras="$extras,parity"
elif [ "${CI:-}" = true ]; then
    extras="$extras,parity,plan,plan-gpu,hf,curate"
fi
install "$extras"
# seqeval, which entity F1 is compared with, comes as source only, and pip's isolated build of it fails.
if [[ "$extras" == *parity* ]] && ! compgen -G "$venv/lib/python*/site-packages/seqeval" >/dev/null; then
    pip_install() { run "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$@"; }
    pip_install setuptools wheel "setuptools_scm<9" || fail "what seqeval needs could not be installed; see above"
    pip_install --no-build-isolation --no-deps seqeval==1.2.2 || fail "seqeval could not be installed; see above"
fi

# All of it: two files at a time, in conftest.py's order, and which tests took longest. A few of one's own: as pytest has them.
[ $# -eq 0 ] && set -- -n 2 --dist loadfile --no-loadscope-reorder ${CI:+--durations=100}
[ "${CI:-}" = true ] && marker="slow or not slow" || marker="not slow"
cd "$root"
finish env JAX_PLATFORMS=cpu "$venv/bin/python" -m pytest -m "$marker" "$@"
