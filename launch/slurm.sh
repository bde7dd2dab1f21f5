#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pretrain on many GPU hosts under SLURM, one process a node, which has all the node's GPUs:
#   bash launch/slurm.sh [--dry-run] --nodes=4 --gpus-per-node=8 --time=24:00:00 [--sbatch-option=value ...] \
#       CONFIG.py [--option value ...]
# or curate a corpus by an array of tasks on CPUs, which take its jobs as they come and may be of any number:
#   bash launch/slurm.sh [--dry-run] --array=0-63 --cpus-per-task=16 --mem=32G --time=24:00:00 [--sbatch-option=value ...] \
#       curate CONFIG.py [--option value ...]
# or train a study's runs by an array of tasks, each the run of its number. mlm-jax study CONFIG.py --runner slurm calls
# this for the runs that are not finished, and for the report after them:
#   bash launch/slurm.sh [--dry-run] --array=0-17 --gpus-per-node=1 --time=2:00:00 [--sbatch-option=value ...] \
#       study CONFIG.py [--option value ...]
# Installs here, into .venv, and submits itself; inside a job (sbatch, salloc) it starts the run on the job's nodes.
# The checkout, .venv and the workdir are on a file system that all nodes share. Prepare the corpus before pretraining.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options=()
while [[ "${1:-}" == -* ]]; do
    options+=("$1")
    shift
done
command="" extras="prepare,sample,gpu" runs_on=gpu.sh
case "${1:-}" in curate | study)
    command="$1"
    shift
    ;;
esac
if [ "$command" = curate ]; then extras="curate"; fi
# A study may do without GPUs: asked of the options where it is submitted, of SLURM in the job.
gpus="${SLURM_GPUS_ON_NODE:-${SLURM_JOB_GPUS:+some}}" asks=' (-G|--gpus|--(gres|tres)[^ ]*gpu)'
if [ "$command" = study ] && [ "${gpus:-0}" = 0 ] && ! [[ " ${options[*]-}" =~ $asks ]]; then
    extras="prepare,sample" runs_on=local.sh
fi
[ -f "${1:-}" ] || [ -f "$root/${1:-}" ] || [ ${#options[@]} -eq 0 ] ||
    fail "${1:-nothing}: no config file; options of sbatch come before it and are written --name=value"
find_config launch/slurm.sh "$@"
shift
config="$(realpath "$config")"

if [ -n "${SLURM_JOB_ID:-}" ]; then
    # srun does not take this over from sbatch since SLURM 22.05, and a task would get one core.
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
    # Options of the config come last, so that they win.
    if [ "$command" = curate ]; then
        install "$extras"
        finish srun ${options[@]+"${options[@]}"} --ntasks=1 "$venv/bin/python" -m mlm_jax curate "$config" \
            --shared True --workers "${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}" "$@"
        exit
    fi
    if [ "$command" = study ]; then
        own=(--runner here) # whatever the file says
        [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || own+=(--only runs --run "$SLURM_ARRAY_TASK_ID")
        finish srun ${options[@]+"${options[@]}"} --ntasks=1 bash "$root/launch/$runs_on" study "$config" "$@" "${own[@]}"
        exit
    fi
    # A task that fails ends the others, which would wait for it; srun names it and its node.
    finish srun ${options[@]+"${options[@]}"} --ntasks-per-node=1 --kill-on-bad-exit=1 --label \
        bash "$root/launch/gpu.sh" "$config" "$@" --hosts.start cluster
    exit
fi

[ -n "$dry_run" ] || command -v sbatch >/dev/null ||
    fail "sbatch is not here; call this on a login node of a SLURM cluster"
install "$extras"
script="#!/usr/bin/env bash
exec $(quoted bash "$root/launch/slurm.sh" ${command:+"$command"} "$config" "$@")"
log="mlm_jax-%j.log" logs="log: tail -F mlm_jax-JOB.log"
if [ -n "$command" ] && [[ " ${options[*]-} " == *" --array="* ]]; then
    log="mlm_jax-%A_%a.log" logs="logs, one per task: tail -F mlm_jax-JOB_*.log"
fi
submit=(
    sbatch --parsable --job-name=mlm_jax --output="$log" --open-mode=append --ntasks-per-node=1
    # Time to save before the time limit, which is SIGKILL.
    --signal=TERM@300
    # A job preempted, or whose node died, is queued again, and continues.
    --requeue
    ${options[@]+"${options[@]}"}
)
if [ -n "$dry_run" ]; then
    printf '%s <<"EOF"\n%s\nEOF\n' "$(quoted "${submit[@]}")" "$script"
    exit
fi
job="$("${submit[@]}" <<<"$script")" || fail "sbatch refused the job; what it says is above"
job="${job%%;*}" # with --parsable a cluster's name may follow
echo "job $job; its ${logs//JOB/$job}"
stop="stop it, saved: scancel --signal=TERM $job"
[ "$command" != curate ] || stop="stop it: scancel $job"
echo "$stop; the same command continues it"
