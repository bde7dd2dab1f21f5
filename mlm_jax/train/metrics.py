# SPDX-License-Identifier: Apache-2.0
"""Where metrics go: `metrics.jsonl`, TensorBoard and the screen."""

from __future__ import annotations

import json
import time
from typing import Any, TypedDict

import jax
from etils import epath

from mlm_jax import console, lock
from mlm_jax.files import in_bucket, make_folder, naming, sync, write_whole
from mlm_jax.stored import parse_stored
from mlm_jax.train.tensorboard import open_board

Record = dict[str, Any]  # a line of metrics.jsonl: kind, step, seconds, and what its kind has


class Logged(TypedDict):
    """What every line of metrics.jsonl has."""

    kind: str
    step: int
    seconds: float


UPLOAD_EVERY = 60.0  # seconds: a bucket's files cannot be appended to, so metrics.jsonl is written whole there

# Fields that say how fast the machine was; all others are the same in a run that was interrupted.
TIMES = ("seconds", "tokens_per_second", "model_flops_per_second", "mfu", "input_wait")


class MetricsWriter:
    """Appends records to a workdir's metrics.jsonl and TensorBoard log.

    Records after `step` — of a run that went on past the checkpoint it is continued from — are removed
    first, so that the file holds every step once. Of several processes the first writes, the others do nothing.

    Args:
      workdir: folder of the run.
      step: the step that the run continues from.

    Attributes:
      kept: the records that were there already, up to `step`.
      seconds: training time that they account for.
      lines: records there are by now.
    """

    def __init__(self, workdir: epath.PathLike, step: int):
        # Every process reads them; the file is replaced whole, so that it does not matter who comes first.
        self.kept: list[Record] = [record for record in read_metrics(workdir) if record["step"] <= step]
        self.seconds = max((record["seconds"] for record in self.kept), default=0.0)
        self.lines = len(self.kept)
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        path = epath.Path(workdir) / "metrics.jsonl"
        make_folder(path.parent)
        self._path = path
        self._lines = list(map(_line, self.kept))
        self._write_all()
        self._file = None if in_bucket(path) else path.open("a")
        self._board = open_board(str(epath.Path(workdir) / "tensorboard"), step)

    def write(self, record: Record) -> None:
        """Append a record with `kind` and `step`; its numbers go to TensorBoard too."""
        self.lines += 1
        if not self._writes:
            return
        if self._file is not None:
            lock.check()
            with naming(self._path):
                self._file.write(_line(record))
                self._file.flush()
        else:
            self._lines.append(_line(record))
            if time.monotonic() - self._written > UPLOAD_EVERY:
                try:
                    self._write_all()
                except Exception as e:  # of whatever kind the store's library has; the next record tries again
                    console.warn(f"{self._path}: cannot be written ({e}); trying again")
        step, kind = record["step"], record["kind"]
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                self._board.add_scalar(f"{kind}/{name}", value, step)
        for language, values in record.get("languages", {}).items():
            name = record.get("metric", "loss")
            self._board.add_scalar(f"{kind}_{name}/{language}", values[name], step)

    def flush(self) -> None:
        """Bring all records to disk. Called before each checkpoint, because a resumed run reads the records up to it."""
        if self._writes and self._file is None:
            self._write_all()
        elif self._writes:
            sync(self._path)

    def close(self) -> None:
        if not self._writes:
            return
        try:
            self.flush()
        finally:
            if self._file is not None:
                with naming(self._path):
                    self._file.close()
            self._board.close()

    def _write_all(self) -> None:
        write_whole(self._path, "".join(self._lines))
        self._written = time.monotonic()


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_metrics(workdir: epath.PathLike) -> list[Record]:
    """The records of a workdir's metrics.jsonl, without a last line that was cut off by a kill.

    Raises:
      UserError: another line is damaged.
    """
    path = epath.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [parse_stored(line, f"{path}:{number}", Logged, "remove the line") for number, line in enumerate(lines, 1)]
