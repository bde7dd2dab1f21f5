#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pretrain, or train the runs of a study, on all GPUs of this host:
#   bash launch/gpu.sh [--dry-run] [study] CONFIG.py [--option value ...]
# As local.sh, with JAX's CUDA build, a look whether JAX sees every GPU, and the settings below. What is already set
# in the environment wins. Under SLURM, slurm.sh runs it on each node.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

find_command "$@"
[ "$command" = pretrain ] || shift
find_config launch/gpu.sh "$@"
shift

settings=(
    # JAX takes 75 % of a GPU's memory at the start; this leaves a tenth for what cuDNN and NCCL take beside it.
    XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
    # Gradients are summed over the GPUs while the next layers' are computed, not after all of them.
    XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true${XLA_FLAGS:+ $XLA_FLAGS}"
    # A collective that fails says on which host and why; without it, only that it failed.
    NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
)

# JAX's wheels bring CUDA, cuDNN and NCCL. Others in LD_LIBRARY_PATH, as `module load cuda` puts there, would be loaded
# in their place, so folders that hold them are left out.
libraries=""
IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
for folder in ${folders[@]+"${folders[@]}"}; do
    for library in "$folder"/lib{cudnn,cublas,nccl}*.so*; do
        [ ! -e "$library" ] || continue 2
    done
    libraries="${libraries:+$libraries:}$folder"
done
settings+=(LD_LIBRARY_PATH="$libraries")

# CUDA 12 needs driver 525 or later.
check_driver() {
    local driver
    driver="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader)" ||
        fail "$HOSTNAME: nvidia-smi finds no GPU; without one: bash launch/local.sh"
    [ "${driver%%.*}" -ge 525 ] ||
        fail "$HOSTNAME: NVIDIA driver ${driver%%$'\n'*} is too old for CUDA 12; update it to 525 or later"
}

# JAX goes on with the CPU where it cannot use a GPU, a hundred times as slow, so we look before.
check_gpus() {
    local found wanted
    wanted="$(nvidia-smi --list-gpus | wc -l)"
    [ -z "${CUDA_VISIBLE_DEVICES:-}" ] || wanted="$(tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | wc -l)"
    found="$(env "${settings[@]}" XLA_PYTHON_CLIENT_PREALLOCATE=false "$venv/bin/python" -c \
        'import jax; print(sum(d.platform == "gpu" for d in jax.local_devices()))')" || found=0
    [ "$found" -eq "$wanted" ] || fail "$HOSTNAME: JAX sees $found of $wanted GPUs; what it says is above; free \
them of other processes (nvidia-smi), or choose some: CUDA_VISIBLE_DEVICES=0,1"
}

if [ -z "$dry_run" ]; then check_driver; fi
install "prepare,sample,gpu"
if [ -z "$dry_run" ]; then check_gpus; fi
name_script
finish env "${settings[@]}" "$venv/bin/python" -m mlm_jax "$command" "$config" "$@"
