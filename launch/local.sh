#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pretrain on this machine, on what it has: bash launch/local.sh CONFIG.py [--option value ...]
# Makes .venv at the first call; runs in the folder it is called from.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -gt 0 ] || fail "name a config file: bash launch/local.sh configs/quickstart.py"
config="$1"
shift
# A config of the checkout can be named from anywhere.
[ -e "$config" ] || [ ! -e "$root/$config" ] || config="$root/$config"
[ -f "$config" ] || fail "$config: no such config file, neither here nor in $root"

install "prepare,sample"
exec "$venv/bin/python" -m mlm_jax pretrain "$config" "$@"
