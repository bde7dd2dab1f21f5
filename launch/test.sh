#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run the tests on JAX's CPU backend: bash launch/test.sh [--parity] [pytest options ...]
# --parity, or CI=true on Python 3.11: also install PyTorch and transformers, and compare with them.
# CI=true: the slow tests too.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

extras="prepare,sample,test"
if [ "${1:-}" = "--parity" ]; then
    shift
    extras="$extras,parity"
elif [ "${CI:-}" = true ]; then
    extras="$extras,parity"
fi
install "$extras"

[ "${CI:-}" = true ] && marker="slow or not slow" || marker="not slow"
cd "$root"
JAX_PLATFORMS=cpu exec "$venv/bin/python" -m pytest -m "$marker" "$@"
