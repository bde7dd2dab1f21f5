#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On this machine: make .venv, install, prepare what is missing, pretrain, write the report.
#
#   bash launch/local.sh CONFIG.py [--option value ...]
#
# PYTHON=/path/to/python chooses the interpreter. What happens afterwards is `mlm-jax pretrain`'s: see its --help.

# shellcheck source=launch/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

if [[ $# == 0 || $1 == -h || $1 == --help ]]; then
    sed -n '/^# On this/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
config=$1
shift
if [[ ! -f $config ]]; then
    # A config that comes with mlm_jax, named from another folder.
    [[ $config != /* && -f $checkout/$config ]] || fail "$config: no such config file, neither here nor in $checkout"
    config=$checkout/$config
fi

install prepare,sample
exec "$venv/bin/python" -m mlm_jax pretrain "$config" "$@"
