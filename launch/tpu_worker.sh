#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One worker's side of tpu_pod.sh, which copies the checkout to the workers and calls this there:
#   tpu_worker.sh install POD TIME        Python, .venv and the training half; POD, if not empty, has its time-out
#   tpu_worker.sh start POD TIME KEEP COMMAND ...  as a systemd service: a lost connection ends nothing
#   tpu_worker.sh follow                  the run's output until it ends
#   tpu_worker.sh status                  running, none, or the exit status of the run that ended
#   tpu_worker.sh stop                    SIGTERM, and wait for the run to save
#   tpu_worker.sh last                    fail as the run did, with its last words
#   tpu_worker.sh service POD COMMAND ...  what the service runs
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
action="$1"
shift
end="$root/launch/tpu_end.sh"

status() {
    if systemctl is-active --quiet mlm-jax; then
        echo running
    else
        cat exit_status 2>/dev/null || echo none
    fi
}

case "$action" in
    install)
        [ -z "$1" ] || sudo bash "$end" may "$1" || fail "the pod could not delete itself: its service account may \
not delete TPUs; give it the role roles/tpu.admin in ${1%%/locations*}, or go without a time-out: --hours 0. \
Until then it costs"
        # The startup script has armed it, unless something kept it from running.
        [ -z "$1" ] || systemctl is-active --quiet mlm-jax-end.timer || sudo bash "$end" arm "$1" "$2"
        # The images of TPU VMs come with Python 3.10.
        if ! PYTHON="$(find_python 2>/dev/null)"; then
            uv() { python3 -m uv --quiet "$@"; }
            python3 -m pip install --quiet --user uv || fail "uv, which brings Python, could not be installed; see above"
            uv python install 3.12 || fail "Python 3.12 could not be installed; what uv says is above"
            PYTHON="$(uv python find 3.12)"
        fi
        install "tpu"
        ;;
    start)
        pod="$1" time="$2" keep="$3"
        shift 3
        [ "$(status)" != running ] || fail "a run is going on here; follow it, or stop it first"
        case "$pod/$time" in
            /* | */) ;;
            */0h) sudo bash "$end" never ;;
            *) sudo bash "$end" arm "$pod" "$time" ;;
        esac
        # Of the workers the first one ends the pod, ten minutes after its run has come to its end.
        if [ -n "$keep" ] || [[ "$(hostname)" != *-w-0 ]]; then pod=""; fi
        # What stands here if the service is killed.
        echo 137 >exit_status
        : >log
        # In a file, since systemd would expand the $ and % of a command line.
        printf 'exec bash %s service %s\n' "$(quoted "$root/launch/tpu_worker.sh")" "$(quoted "$pod" "$@")" >service.sh
        sudo systemd-run --quiet --collect --unit=mlm-jax --uid="$(id -u)" --gid="$(id -g)" \
            --working-directory="$root" --property=KillMode=mixed --property=TimeoutStopSec=15min \
            --property=LimitMEMLOCK=infinity --property=LimitNOFILE=1048576 \
            bash "$root/service.sh"
        ;;
    service)
        pod="$1"
        shift
        "$root/.venv/bin/python" -m mlm_jax "$@" >log 2>&1 &
        child=$!
        trap 'kill -TERM "$child"' TERM
        ended=0
        wait "$child" || ended=$?
        # A signal that is passed on cuts the first wait short.
        while kill -0 "$child" 2>/dev/null; do
            ended=0
            wait "$child" || ended=$?
        done
        echo "$ended" >exit_status
        if [ "$ended" = 0 ] && [ -n "$pod" ]; then sudo bash "$end" arm "$pod" 10min; fi
        exit "$ended"
        ;;
    follow)
        [ "$(status)" != none ] || fail "no run was started here"
        pid="$(systemctl show --property=MainPID --value mlm-jax)"
        # 0 where nothing runs, which tail would take for a process that never ends.
        if [ "$pid" != 0 ]; then tail --lines=100 --follow --pid="$pid" log; else tail --lines=100 log; fi
        ;;
    status) status ;;
    stop) sudo systemctl stop mlm-jax ;;
    last)
        ended="$(status)"
        [ "$ended" != 0 ] || exit 0
        tail --lines=5 log
        exit "$ended"
        ;;
esac
