#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Curate or prepare a corpus in an Apache Beam pipeline, here, on Dataflow, Flink or Spark:
#   bash launch/beam.sh [--dry-run] curate|prepare CONFIG.py [--option value ...] --beam_options "--runner=DataflowRunner ..."
# Makes Beam's own environment, .venv-beam-curate or .venv-beam-prepare, at the first call; runs in the folder it is called from.
#   bash launch/beam.sh [--dry-run] install curate|prepare
# makes it and runs nothing: in the image of the workers (beam.Dockerfile).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

action="${1:-}"
case "$action" in
    -h | --help) find_config launch/beam.sh "$action" ;;
    curate | prepare | install) shift ;;
    *) fail "name what is to be done: bash launch/beam.sh curate|prepare CONFIG.py" ;;
esac
command="$action"
if [ "$action" = install ]; then
    command="${1:-}"
else
    [ -n "${1:-}" ] || fail "name a config file: bash launch/beam.sh $action CONFIG.py"
    find_config launch/beam.sh "$@"
    shift
fi

# Of some packages Beam wants older versions than everything else is tested with.
older="numpy|pillow|protobuf|pyarrow|python-dateutil"
VENV="${VENV:-$root/.venv-beam-$command}"
case "$command" in
    curate)
        install "curate,beam" "$older"
        in_beam=(--runner beam)
        ;;
    prepare)
        install "prepare,beam,beam-prepare" "$older|sentencepiece"
        in_beam=(--data.runner beam)
        ;;
    *) fail "name what for: bash launch/beam.sh install curate|prepare" ;;
esac
[ "$action" != install ] || exit 0
finish "$venv/bin/python" -m mlm_jax "$command" "$config" "${in_beam[@]}" "$@"
