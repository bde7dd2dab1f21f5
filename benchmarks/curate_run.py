# SPDX-License-Identifier: Apache-2.0
"""What `curate` takes of a core, from files to a corpus: on one machine, and in Beam where that is installed.

    python benchmarks/curate_run.py FILE ...

Processor time of one process, which does all the work; the files are gone through twice, and the second time counts, when models are loaded. MB are
10**6 bytes, of the files as they are (packed) and of the records in them (HTML, or text).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from mlm_jax.curate import run
from mlm_jax.curate.config import Curate


def main() -> None:
    """Print the table."""
    paths = tuple(sys.argv[1:])
    packed = sum(map(os.path.getsize, paths)) / 1e6
    runners = ["pool", "beam"] if importlib.util.find_spec("apache_beam") else ["pool"]
    print("runner  seconds   MB/s packed   of records   of text   documents read, left")
    for runner in runners:
        for turn in range(2):
            with tempfile.TemporaryDirectory() as name:
                options = "--runner=FnApiRunner" if runner == "beam" else ""
                config = Curate(workdir=name, inputs=paths, workers=1, runner=runner, beam_options=options)
                begin = time.process_time()
                run.run(config)
                seconds = time.process_time() - begin
                summary = json.loads(Path(name, "curate.json").read_text())
            if turn:
                read, left = summary["steps"][0], summary["steps"][-1]
                text = sum(size for _, size in read["passed"].values()) / 1e6
                records = read["noted"]["bytes"] / 1e6
                documents = (sum(number for number, _ in step["passed"].values()) for step in (read, left))
                speeds = "   ".join(f"{size / seconds:9.2f}" for size in (packed, records, text))
                print(f"{runner:6} {seconds:8.1f}   {speeds}   {', '.join(f'{n:,}' for n in documents)}", flush=True)


if __name__ == "__main__":
    main()
