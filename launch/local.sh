#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pretrain, or train the runs of a study, on this machine, on what it has:
#   bash launch/local.sh [--dry-run] [study] CONFIG.py [--option value ...]
# Makes .venv at the first call; runs in the folder it is called from.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

find_command "$@"
[ "$command" = pretrain ] || shift
find_config launch/local.sh "$@"
shift
install "prepare,sample"
name_script
finish "$venv/bin/python" -m mlm_jax "$command" "$config" "$@"
