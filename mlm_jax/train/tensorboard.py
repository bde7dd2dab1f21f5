# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's log of a run: scalars by tensorboardX, which is imported when the first log is opened."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlm_jax import console

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

# What tensorboardX imports where it is installed, for tensors and buckets that nobody logs here: PyTorch alone takes three seconds.
UNUSED = ("torch", "google.cloud.storage", "boto3")


def open_board(folder: str, step: int) -> SummaryWriter:
    """A log in this folder, in which what a run logged after `step` no longer counts.

    Where it cannot be written a run goes on without it, since metrics.jsonl has all of it. Otherwise its thread would end with a traceback, and the
    run would wait for that thread for ever.
    """
    with _absent(UNUSED):
        from tensorboardX import SummaryWriter

    try:
        board = SummaryWriter(folder, purge_step=step + 1)
    except OSError as e:
        _warn_of_board(folder, e)
        return SummaryWriter(folder, write_to_disk=False)
    records = board.file_writer.event_writer._ev_writer._py_recordio_writer
    failed = False

    def tolerant(call: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            nonlocal failed
            if failed:
                return
            try:
                call(*arguments)
            except OSError as e:
                failed = True
                _warn_of_board(folder, e)

        return run

    for name in ("write", "flush", "close"):
        setattr(records, name, tolerant(getattr(records, name)))
    return board


@contextmanager
def _absent(modules: tuple[str, ...]) -> Iterator[None]:
    """Inside, importing these fails as if they were not installed; those that are imported already stay."""
    imported: dict[str, Any] = sys.modules
    hidden = [name for name in modules if name not in imported]
    imported.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            imported.pop(name, None)


def _warn_of_board(folder: str, error: OSError) -> None:
    console.warn(f"{folder}: {error.strerror or error}; the run goes on without TensorBoard's log from here")
