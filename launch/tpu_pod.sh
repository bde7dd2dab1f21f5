#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pretrain on a Cloud TPU pod: bash launch/tpu_pod.sh [--dry-run] ACTION NAME [--option value ...] [CONFIG.py ...]
#
#   run      create, install, start, follow; a preempted pod is asked for again, a pod whose run is done is deleted
#   create   ask for the pod and wait for it, or take the one that is there
#   install  copy this checkout to every worker and install it
#   start    copy, and start the run on every worker, as a service that outlives this connection
#   follow   the log of worker 0 until the run ends; the exit status is the run's, 75 if the pod was preempted
#   status   what the pod and every worker do
#   stop     let the run save and end; start continues it
#   delete   delete the pod, which ends its costs
#
#   --zone ZONE        needed always
#   --type TYPE        the kind and size of pod, as v5litepod-16, v6e-256 or v4-128; needed to create
#   --version VERSION  the image of the workers; by default the one of the type for JAX
#   --project PROJECT  by default gcloud's own
#   --slices N         so many pods of the type in one run; by default 1
#   --spot             cheaper; may be preempted
#   --flex-start       for at most 168 hours, which Google ends itself
#   --hours H          delete the pod so many hours after its start, whatever runs; by default 24; 0: never
#   --queue-hours H    give up the request if there is no pod by then; by default 12
#   --keep             leave the pod where it is when its run is done
#
# run and start: CONFIG.py, or a prepared workdir that was copied into the bucket, and the run's options follow; among them
# --workdir gs://BUCKET/FOLDER.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say() { printf '%s\n' "$1" >&2; }

parse() {
    action="${1:-}" pod="${2:-}"
    case "$action" in
        run | create | install | start | follow | status | stop | delete) ;;
        *) fail "${action:-nothing}: not an action; bash launch/tpu_pod.sh run|create|install|start|follow|status|stop|delete NAME" ;;
    esac
    [[ "$pod" =~ ^[a-z][a-z0-9-]*$ ]] || fail "${pod:-nothing}: not a name for a pod; small letters, digits and -"
    shift 2
    zone="" type="" version="" project="" slices=1 hours="" queue_hours=12 spot="" flex="" keep=""
    while [[ "${1:-}" == -* ]]; do
        case "$1" in
            --spot) spot=true ;;
            --flex-start) flex=true ;;
            --keep) keep=true ;;
            --zone | --type | --version | --project | --slices | --hours | --queue-hours)
                [ $# -gt 1 ] || fail "$1 needs a value"
                local name="${1#--}"
                printf -v "${name//-/_}" %s "$2"
                shift
                ;;
            *) fail "$1: no such option before the config file; they are at the top of launch/tpu_pod.sh" ;;
        esac
        shift
    done
    [ -n "$zone" ] || fail "name the zone: --zone us-central1-a"
    hours_given="$hours" hours="${hours:-24}"
    local number
    for number in "$slices" "$hours" "$queue_hours"; do
        [[ "$number" =~ ^[0-9]+$ ]] || fail "$number: not a whole number"
    done
    [ -z "$flex" ] || ((hours >= 1 && hours <= 168)) || fail "--flex-start is for 1 to 168 hours: --hours 24"
    config="" command=()
    case "$action" in run | start) parse_command "$@" ;; esac
    [ -n "$dry_run" ] || command -v gcloud >/dev/null || fail "gcloud is not installed; see https://cloud.google.com/sdk"
    [ -n "$project" ] || project="${CLOUDSDK_CORE_PROJECT:-$(gcloud config get-value project 2>/dev/null || true)}"
    [ -n "$project" ] || [ -z "$dry_run" ] || project=PROJECT
    [ -n "$project" ] || fail "name the project: --project PROJECT, or gcloud config set project PROJECT"
    resource="projects/$project/locations/$zone/queuedResources/$pod"
    where=(--zone="$zone" --project="$project")
    nodes=("$pod")
    if ((slices > 1)); then
        local i
        nodes=()
        for ((i = 0; i < slices; i++)); do nodes+=("$pod-$i"); done
    fi
}

# The run's command: the config's path on the workers, and a workdir that all of them reach and that outlives them.
parse_command() {
    find_config "launch/tpu_pod.sh $action $pod --zone $zone" "$@"
    shift
    local previous="" word workdir=""
    for word in "$@"; do
        if [ "$previous" = --workdir ]; then workdir="$word"; fi
        case "$word" in --workdir=*) workdir="${word#--workdir=}" ;; esac
        previous="$word"
    done
    case "$workdir" in
        gs://* | /*) ;;
        *) fail "${workdir:-no workdir}: the workers' disks go with the pod; use --workdir gs://BUCKET/FOLDER" ;;
    esac
    config="$(realpath "$config")"
    case "$config" in
        "$root"/configs/*) command=(pretrain "${config#"$root"/}" "$@") ;;
        *) command=(pretrain "$(basename "$config")" "$@") ;;
    esac
    command+=(--hosts.start cluster)
}

# ask COMMAND ...: gcloud's answer; nothing where what is asked for does not exist.
ask() {
    local answer
    if answer="$(gcloud compute tpus "$@" "${where[@]}" 2>"$scratch/errors")"; then
        printf '%s\n' "$answer"
    elif ! grep -q NOT_FOUND "$scratch/errors"; then
        cat "$scratch/errors" >&2
        fail "gcloud could not tell about $pod; what it says is above"
    fi
}

# $state: ready, waiting, ended (preempted, expired or failed), absent; and $made: true if a queued resource made it.
look() {
    local queue node
    queue="$(ask queued-resources describe "$pod" --format="value(state.state)")" || exit 2
    node="$(ask tpu-vm describe "${nodes[0]}" --format="value(state)")" || exit 2
    made="${queue:+true}"
    case "$queue/$node" in
        FAILED/* | SUSPENDED/* | */PREEMPTED | */TERMINATED) state=ended ;;
        */STOPP*) fail "$pod is stopped: gcloud compute tpus tpu-vm start $pod $(quoted "${where[@]}")" ;;
        ACTIVE/READY | /READY) state=ready ;;
        /) state=absent ;;
        *) state=waiting ;;
    esac
}

# request: ask Google for the pod. The workers' startup script deletes it after --hours, come what may.
request() {
    [ -n "$type" ] || fail "$pod is not there yet; to create it, name its type: --type v5litepod-16"
    if [ -z "$version" ]; then
        case "$type" in
            v6e-*) version=v2-alpha-tpuv6e ;;
            v5p-*) version=v2-alpha-tpuv5 ;;
            v5litepod-* | v5e-*) version=v2-alpha-tpuv5-lite ;;
            *) version=tpu-ubuntu2204-base ;;
        esac
    fi
    local track=() options=()
    if ((slices > 1)); then options+=(--node-count="$slices" --node-prefix="$pod"); else options+=(--node-id="$pod"); fi
    if [ -n "$spot" ]; then options+=(--spot); fi
    if [ -n "$flex" ]; then
        track=(alpha)
        options+=(--provisioning-model=flex-start --max-run-duration="${hours}h")
    elif [ "$hours" != 0 ]; then
        options+=(--metadata="mlm-jax-pod=$resource,mlm-jax-time=${hours}h"
            --metadata-from-file="startup-script=$root/launch/tpu_end.sh")
    fi
    run gcloud ${track[@]+"${track[@]}"} compute tpus queued-resources create "$pod" "${where[@]}" \
        --accelerator-type="$type" --runtime-version="$version" --valid-until-duration="${queue_hours}h" --async \
        "${options[@]}" || fail "the request for $pod failed; what gcloud says is above"
}

create() {
    local requested="" told=""
    if [ -n "$dry_run" ]; then
        request
        return
    fi
    while :; do
        look
        case "$state" in
            ready) break ;;
            absent)
                request
                requested=true
                ;;
            ended)
                [ -z "$requested" ] || fail "$pod could not be had: $(ask queued-resources describe "$pod" \
                    --format="value(state.failedData.error.message)"); ask again later, or for another type or zone"
                say "$pod has ended (preempted, or not to be had in time); asking for another"
                delete
                ;;
            waiting) [ "$told" = "$state" ] || say "waiting for $pod, up to $queue_hours h; Ctrl-C leaves the request in the queue" ;;
        esac
        told="$state"
        sleep "${POLL:-20}"
    done
    if [ -z "$made" ]; then
        say "$pod was made by other means: it has no time-out, and stays when the run is done"
    elif [ -n "$requested" ] && [ "$hours" != 0 ]; then
        say "$pod is there; it will be deleted in $hours h"
    fi
}

# $workers: NODE:NUMBER, of all workers.
find_workers() {
    local node count i
    workers=()
    for node in "${nodes[@]}"; do
        if [ -n "$dry_run" ]; then
            workers+=("$node:0")
            continue
        fi
        count="$(ask tpu-vm describe "$node" --format="value(networkEndpoints.len())")" || exit 2
        [ -n "$count" ] || fail "$node is not there; bash launch/tpu_pod.sh delete $pod --zone $zone, and ask for it anew"
        for ((i = 0; i < count; i++)); do workers+=("$node:$i"); done
    done
    if [ -n "$dry_run" ]; then echo "# for worker 0; what copies, installs, starts or stops is for all workers, at once"; fi
}

# on_worker NODE:NUMBER WORD ...: tpu_worker.sh there.
on_worker() {
    local worker="$1"
    shift
    connect "$worker" "bash mlm_jax/launch/tpu_worker.sh $(quoted "$@")"
}

# connect NODE:NUMBER COMMAND: run it there, without what gcloud says of every connection.
connect() {
    {
        run gcloud compute tpus tpu-vm ssh "${1%:*}" --worker="${1##*:}" "${where[@]}" --command="$2" 2>&1 1>&3 |
            sed -e '/^Using s[a-z]* batch size/d' -e '/: Attempting to connect to worker/d' >&2
    } 3>&1
}

# copy_to NODE:NUMBER: this checkout, as the folder mlm_jax.
copy_to() {
    run gcloud compute tpus tpu-vm scp "$scratch/mlm_jax.tar.gz" "${1%:*}:mlm_jax.tar.gz" --worker="${1##*:}" \
        "${where[@]}" && connect "$1" "mkdir -p mlm_jax && tar -xzf mlm_jax.tar.gz -C mlm_jax"
}

# on_all COMMAND [WORD ...]: COMMAND NODE:NUMBER WORD ... for all workers, 64 at once; those that fail are named.
on_all() {
    local task="$1" i started=() failed=()
    shift
    for i in "${!workers[@]}"; do
        if [ -n "$dry_run" ]; then
            "$task" "${workers[i]}" "$@"
            continue
        fi
        ("$task" "${workers[i]}" "$@" </dev/null 2>&1 | sed "s/^/[${workers[i]}] /") &
        started[i]=$!
        if ((${#started[@]} == 64)); then gather; fi
    done
    gather
    [ ${#failed[@]} -eq 0 ] && return
    say "error: $action failed on ${#failed[@]} of ${#workers[@]} workers of $pod: ${failed[*]}; what they say is \
above. The pod stays, and costs: bash launch/tpu_pod.sh delete $pod --zone $zone"
    return 2
}

# gather: wait for the $started of on_all.
gather() {
    local i
    for i in ${started[@]+"${!started[@]}"}; do
        wait "${started[i]}" || failed+=("${workers[i]}")
    done
    started=()
}

# $doing: running, none, or how the last run on worker 0 ended. The first connection also makes and spreads the key.
reach() {
    local node
    for node in "${nodes[@]}"; do
        doing="$(connect "$node:0" "bash mlm_jax/launch/tpu_worker.sh status 2>/dev/null || echo none")" ||
            fail "$node:0 cannot be reached; what gcloud says is above"
        if [ -n "$dry_run" ]; then printf '%s\n' "$doing"; fi
    done
}

copy() {
    local extra=()
    if [ -n "$config" ] && [[ "$config" != "$root"/configs/* ]]; then
        local file
        file="$(basename "$config")"
        # Of a workdir what says what it is: the rest lies in the bucket.
        if [ -d "$config" ]; then file+=/config.json; fi
        extra=(-C "$(dirname "$config")" "$file")
    fi
    run tar -czf "$scratch/mlm_jax.tar.gz" --exclude=__pycache__ -C "$root" README.md setup.py constraints.txt configs \
        launch mlm_jax ${extra[@]+"${extra[@]}"} && on_all copy_to
}

install_all() {
    # What others made, Google deletes, or is to stay, the workers need not be able to delete.
    local ends="$resource"
    if [ -z "$made" ] || [ -n "$flex" ] || [ "$hours" = 0 ]; then ends=""; fi
    on_all on_worker install "$ends" "${hours}h"
}

start_all() {
    on_all on_worker start "${made:+$resource}" "${hours_given:+${hours}h}" "$keep" "${command[@]}"
}

# follow: until the run ends; through lost connections.
follow() {
    local ended
    trap 'say "the run goes on; see it again: bash launch/tpu_pod.sh follow $pod --zone $zone"; exit 130' INT
    while :; do
        on_worker "${workers[0]}" follow || true
        [ -z "$dry_run" ] || return 0
        if ended="$(on_worker "${workers[0]}" status)"; then
            case "$ended" in
                running) say "the connection was lost; the run goes on" ;;
                none) fail "no run was started on $pod; bash launch/tpu_pod.sh start $pod --zone $zone CONFIG.py ..." ;;
                0) return 0 ;;
                143)
                    say "the run was stopped, and has saved; start continues it"
                    return 143
                    ;;
                *)
                    # A run whose other workers went may be the first to know that the pod is being preempted.
                    sleep "${POLL:-20}"
                    look
                    if [ "$state" = ended ]; then
                        preempted
                        return 75
                    fi
                    (on_all on_worker last) || true
                    return "$ended"
                    ;;
            esac
        else
            look
            case "$state" in
                ended)
                    preempted
                    return 75
                    ;;
                absent) fail "$pod is gone: deleted by hand, by its time-out, or since its run is done; see the workdir" ;;
                *) say "$pod cannot be reached; trying again" ;;
            esac
        fi
        sleep "${POLL:-20}"
    done
}

preempted() {
    say "$pod was preempted; the same command continues the run on another"
}

delete() {
    if [ -n "$dry_run" ] || [ -n "$made" ]; then
        run gcloud compute tpus queued-resources delete "$pod" "${where[@]}" --force --quiet
    elif [ "$state" != absent ]; then
        run gcloud compute tpus tpu-vm delete "$pod" "${where[@]}" --quiet
    else
        say "$pod is not there"
    fi || fail "$pod could not be deleted, and costs; what gcloud says is above"
}

run_all() {
    local ended
    while :; do
        create
        find_workers
        reach
        ended=0
        if [ "$doing" = running ]; then
            say "a run is going on; this follows it"
            follow || ended=$?
        elif copy && install_all && start_all; then
            follow || ended=$?
        else
            look
            [ "$state" = ended ] || exit 2
            ended=75
        fi
        # 75 is also how a run ends that lost a worker; only a pod that is gone is asked for again.
        if [ "$ended" != 75 ] || [ "$state" != ended ]; then break; fi
    done
    if [ "$ended" = 0 ] && [ -z "$keep" ] && [ -n "$made" ]; then delete; fi
    return "$ended"
}

idle() {
    reach
    [ "$doing" != running ] || fail "a run is going on on $pod; follow it, or stop it first"
}

parse "$@"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
state="" made="$dry_run"
if [ -z "$dry_run" ]; then look; fi
case "$action" in run | create | delete) ;; *)
    case "$state" in
        ended) fail "$pod was preempted, or never came; run or create asks for another" ;;
        absent) fail "$pod is not there; run or create asks for it" ;;
        waiting) fail "$pod is not ready yet; run or create waits for it" ;;
    esac
    find_workers
    ;;
esac
case "$action" in
    run) run_all ;;
    create) create ;;
    install) idle && copy && install_all ;;
    start) idle && copy && start_all ;;
    follow) follow ;;
    status) on_all on_worker status ;;
    stop)
        on_all on_worker stop
        [ -n "$dry_run" ] || say "the run has saved; start continues it. The pod stays, and costs: bash launch/tpu_pod.sh delete $pod --zone $zone"
        ;;
    delete) delete ;;
esac
