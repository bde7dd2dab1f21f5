# SPDX-License-Identifier: Apache-2.0
"""Map a function over jobs in a pool of processes, with progress, and an error instead of a hang when a process dies."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mlm_jax import console
from mlm_jax.children import end_with
from mlm_jax.errors import UserError


def run_all(
    function: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    title: str,
    describe: Callable[[tuple[Any, ...]], str],
    less: str = "data.workers",
) -> Iterator[tuple[int, Any]]:
    """Yield (number of the job, what `function(*job)` returned) as jobs are done.

    Args:
      function: of a module, with arguments and results that pickle.
      workers: processes; 1 works here.
      title: for the progress.
      describe: a job in words, for the message when a process dies.
      less: the option to lower where memory is short.

    Raises:
      UserError: a job raised it, or a process died.
    """
    with console.progress(title, len(jobs), unit="jobs") as advance:
        if workers == 1 or len(jobs) == 1:
            for number, job in enumerate(jobs):
                yield number, function(*job)
                advance()
            return
        # Spawn, because a fork would copy locks that other threads hold.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin_worker)
        try:
            futures = {pool.submit(function, *job): number for number, job in enumerate(jobs)}
            for future in as_completed(futures):
                yield futures[future], future.result()
                advance()
        except BrokenProcessPool as e:
            unfinished = [describe(jobs[n]) for f, n in futures.items() if not f.done() or f.exception() is not None]
            raise UserError(
                f"a process died ({title}), working on one of {', '.join(unfinished[:3])}"
                f"{f' and {len(unfinished) - 3} more' if len(unfinished) > 3 else ''}; often memory is short: "
                f"lower {less}, and run again (what is finished is kept)"
            ) from e
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Ignore Ctrl-C, which the parent handles; end when the parent does, whatever ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid)
