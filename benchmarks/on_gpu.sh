#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The first minutes with one NVIDIA GPU, under 8 of them: what on_gpu.py measures and prints.
#
#     bash benchmarks/on_gpu.sh [--wheels FOLDER] [--out FOLDER] [--budget SECONDS] [--tiny] [--only WORD ...]
#
# --wheels  wheels of the packages that this machine lacks; they are installed into a temporary folder, without a network
# --out     a new folder for results.jsonl, table.txt and two logs; by default $OUT, or on_gpu_results
# --budget  seconds for everything, 450 by default
# --tiny    a tiny shape, on the CPU: the same parts in about three minutes
# --only    the parts whose names have one of these words
#
# It needs jax with its CUDA plugin, flax, optax, orbax-checkpoint, etils, safetensors, sentencepiece, tokenizers, torch and transformers,
# and of mlm_jax's own requirements the nine below, which such a machine may lack: 10 MB. Fetch them where there is a network, for the
# machine's Python (3.12 here):
#
#     python -m pip download -c constraints.txt --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d WHEELS grain array-record portpicker tyro docstring-parser typeguard tensorboardX zstandard google-crc32c
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

wheels="" out="" rest=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            sed -n '/^# [^S]/,/^set/{/^set/d; s/^#$//; s/^# //; p;}' "${BASH_SOURCE[0]}"
            exit
            ;;
        --wheels | --out)
            [ $# -gt 1 ] || { echo "error: $1: name a folder" >&2; exit 2; }
            if [ "$1" = --wheels ]; then wheels="$2"; else out="$2"; fi
            shift
            ;;
        *) rest+=("$1") ;;
    esac
    shift
done
out="${out:-${OUT:-on_gpu_results}}"

site=""
trap '[ -z "$site" ] || rm -rf "$site"' EXIT
if [ -n "$wheels" ]; then
    compgen -G "$wheels/*.whl" >/dev/null || { echo "error: $wheels: no wheels there; see --help" >&2; exit 2; }
    site="$(mktemp -d)"
    python3 -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl ||
        { echo "error: $wheels: not installed, see above; they have to be for $(python3 --version)" >&2; exit 2; }
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi

# Signals are this script's too, and Python prints its table on them.
trap '' TERM INT
(trap - TERM INT; exec python3 "$here/on_gpu.py" --out "$out" ${rest[@]+"${rest[@]}"})
