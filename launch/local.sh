#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pretrain on this machine, on what it has: bash launch/local.sh [--dry-run] CONFIG.py [--option value ...]
# Makes .venv at the first call; runs in the folder it is called from.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

find_config launch/local.sh "$@"
shift
install "prepare,sample"
MLM_JAX_COMMAND="bash $(quoted "$0")" # for what is said of how to go on
export MLM_JAX_COMMAND
finish "$venv/bin/python" -m mlm_jax pretrain "$config" "$@"
