#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pretrain, or train the runs of a study, on this machine, on what it has:
#   bash launch/local.sh [--dry-run] [study] CONFIG.py [--option value ...]
# Makes .venv at the first call; runs in the folder it is called from.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

command=pretrain
if [ "${1:-}" = study ]; then
    command=study
    shift
fi
find_config launch/local.sh "$@"
shift
install "prepare,sample"
if [ "$command" = pretrain ]; then # a study's runs are not gone on with by this script
    MLM_JAX_COMMAND="bash $(quoted "$0")" # for what is said of how to go on
    export MLM_JAX_COMMAND
fi
finish "$venv/bin/python" -m mlm_jax "$command" "$config" "$@"
