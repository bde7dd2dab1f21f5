# SPDX-License-Identifier: Apache-2.0
"""What a person sees: progress, tables, warnings. A bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mlm_jax.streams import silence

LINE_EVERY = 10.0  # seconds between lines where there is no terminal


class Advance(Protocol):
    def __call__(self, amount: int = 1, note: str = "") -> None: ...


def say(text: str) -> None:
    """Print a line to standard output at once, above any bar; where that is full, go on without it.

    Raises:
      BrokenPipeError: whoever read it has gone.
    """
    try:
        print(text, flush=True)
    except OSError as e:
        go_on_without_output(e)


def go_on_without_output(error: OSError) -> None:
    """Say that standard output cannot be written to, and print nothing there any more.

    Raises:
      BrokenPipeError: whoever read it has gone.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    silence(sys.stdout)
    warn(f"standard output: {error.strerror or error}; going on without it")


def say_aside(text: str) -> None:
    """Print a line to standard error at once, if that can be written to."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def warn(text: str) -> None:
    """Print a `warning:` line to standard error."""
    say_aside(f"warning: {text}")


@contextmanager
def progress(title: str, total: int, start: int = 0, unit: str = "") -> Iterator[Advance]:
    """Report progress: a bar on a terminal, a line every `LINE_EVERY` seconds elsewhere.

    Args:
      title: what is being done.
      total: amount of work; `start` of it is done already.
      unit: of the amount, for plain lines.

    Yields:
      advance(amount=1, note=""): the note stands behind the bar or ends the line.
    """
    if sys.stdout.isatty():
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, TextColumn("{task.fields[note]}", markup=False), console=Console()) as bar:
            task = bar.add_task(title, total=total, completed=start, note="")

            def advance(amount: int = 1, note: str = "") -> None:
                bar.advance(task, amount)
                if note:
                    bar.update(task, note=note)

            yield advance
        return

    done = start
    begin = last = time.monotonic()

    def plain(amount: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= LINE_EVERY or done == total:
            last, since = now, now - begin
            left = since / max(done - start, 1) * (total - done)
            times = f"  {_time(since)}{f', {_time(left)} left' if left else ''}" if since >= 1 else ""
            say(f"{title}: {done:,} of {total:,}{' ' + unit if unit else ''}{'  ' + note if note else ''}{times}")

    yield plain


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text: the first column to the left, the others to the right."""
    widths = [max(len(r[i]) for r in [headings, *rows]) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([line(headings), "  ".join("-" * w for w in widths), *map(line, rows)])


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
