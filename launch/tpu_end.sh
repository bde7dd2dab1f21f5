#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The end of a TPU pod, which costs money until it is deleted: every worker has a timer that deletes the whole pod.
# Runs on the workers, as root:
#   tpu_end.sh               what the pod was created with: tpu_pod.sh makes this its startup script
#   tpu_end.sh arm POD TIME  (re)set the timer of this worker: 24h, 10min
#   tpu_end.sh never         disarm it
#   tpu_end.sh now POD       delete the pod
#   tpu_end.sh may POD       fail unless this worker's service account may delete it
# POD is projects/PROJECT/locations/ZONE/queuedResources/NAME.
set -euo pipefail

metadata() {
    curl --silent --fail --header "Metadata-Flavor: Google" "http://metadata.google.internal/computeMetadata/v1/$1"
}

# call METHOD URL [BODY]: a request of Google's API, as this worker's service account.
call() {
    local token
    token="$(metadata instance/service-accounts/default/token | sed 's/.*"access_token": *"\([^"]*\)".*/\1/')"
    curl --silent --show-error --request "$1" --header "Authorization: Bearer $token" \
        --header "Content-Type: application/json" ${3:+--data "$3"} "$2"
}

disarm() {
    systemctl stop mlm-jax-end.timer mlm-jax-end.service 2>/dev/null || true
}

case "${1:-boot}" in
    boot)
        # The guest agent deletes the file it runs; the timer needs one that stays.
        script="${HOME:-/root}/.mlm_jax_end.sh"
        cp "${BASH_SOURCE[0]}" "$script"
        exec bash "$script" arm "$(metadata instance/attributes/mlm-jax-pod)" "$(metadata instance/attributes/mlm-jax-time)"
        ;;
    never) disarm ;;
    arm)
        disarm
        # Until the pod is gone, and this machine with it, it is tried again every five minutes.
        systemd-run --quiet --collect --unit=mlm-jax-end --on-active="$3" --timer-property=OnUnitInactiveSec=5min \
            bash "$(realpath "${BASH_SOURCE[0]}")" now "$2"
        ;;
    now) call DELETE "https://tpu.googleapis.com/v2/$2?force=true" ;;
    may)
        project="${2#projects/}"
        call POST "https://cloudresourcemanager.googleapis.com/v1/projects/${project%%/*}:testIamPermissions" \
            '{"permissions": ["tpu.nodes.delete"]}' | grep -q tpu.nodes.delete
        ;;
esac
