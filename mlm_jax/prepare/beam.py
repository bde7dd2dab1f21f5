# SPDX-License-Identifier: Apache-2.0
"""Make shards in an Apache Beam pipeline, for corpora that need a cluster."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from mlm_jax.errors import UserError


def run_all_in_beam(function: Callable[[Any], Any], jobs: Sequence[Any], options: str) -> Iterator[tuple[int, Any]]:
    """Yield (number of the job, what the function returned) once the pipeline is done.

    Args:
      function: of a module; its result is JSON.
      jobs: one argument each.
      options: Beam's pipeline options, as on a command line.

    Raises:
      UserError: Beam is not installed, or the pipeline failed.
    """
    try:
        import apache_beam as beam
    except ImportError as e:
        raise UserError(
            "data.runner: Apache Beam is not installed here; it has an environment of its own: bash launch/beam.sh prepare CONFIG"
        ) from e
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/results"
        try:
            with beam.Pipeline(argv=shlex.split(options)) as pipeline:
                _ = (
                    pipeline
                    | beam.Create(list(enumerate(jobs)))
                    | beam.Reshuffle()
                    | beam.MapTuple(lambda number, job: json.dumps([number, function(job)]))
                    | beam.io.WriteToText(prefix)
                )
        except UserError:
            raise
        except Exception as e:
            raise UserError(f"data.runner: the Beam pipeline failed ({str(e).strip().splitlines()[-1][:300]})") from e
        for path in sorted(x for x in epath.Path(folder).iterdir() if x.name.startswith("results")):
            for line in path.read_text().splitlines():
                number, result = json.loads(line)
                yield number, result
