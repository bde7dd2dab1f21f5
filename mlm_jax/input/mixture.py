# SPDX-License-Identifier: Apache-2.0
"""Which block comes at which step and row: a pure function of (seed, step, row).

`Order` turns the rates of `sampling.py` into an order of draws over the whole run; Grain shuffles
each language's blocks anew every epoch, reads ahead and batches. The state of the input is the number
of the next step, whatever the number of processes.
"""

from __future__ import annotations

import bisect
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import grain
import numpy as np
from absl import flags
from etils import epath

from mlm_jax import records, sampling
from mlm_jax.config import with_sections
from mlm_jax.errors import UserError
from mlm_jax.input.blocks import Blocks
from mlm_jax.manifest import Manifest, Stream
from mlm_jax.phases import Part

READ_AHEAD = 16  # batches
THREADS = 4  # that read, in each process


@dataclass(frozen=True)
class Segment:
    """Draws of one part of the run and one stage of its rates.

    Attributes:
      step, draw: the first, of the run.
      part, stage: numbers of them.
      stage_draw: the first draw of the stage.
      earlier: draws of each stream before this segment less those of its stage's order, int64 [streams].
      earlier_of_length: the same of blocks of this segment's length alone.
      earlier_places: the same as places for tokens.
    """

    step: int
    draw: int
    part: int
    stage: int
    stage_draw: int
    earlier: np.ndarray
    earlier_of_length: np.ndarray
    earlier_places: np.ndarray


class Order:
    """Draw number → (stream, which of the stream's draws it is): the order of draws over a whole run.

    Draws are numbered through the run, row by row of one batch after the other, whatever the batches' sizes. Blocks of each length are
    a corpus of their own, so that a stream's draws are counted by length: every block of a length is drawn once per epoch of that length.

    Args:
      stages: rates from a step on, the first from step 0.
      parts: of the run, the first from step 0; the last goes on for ever.
      seed: of the run.
    """

    def __init__(self, stages: Sequence[sampling.StageRates], parts: Sequence[Part], seed: int):
        self.parts = parts
        self._periods = [sampling.arrange(s.rates, seed + i) for i, s in enumerate(stages)]
        self._segments: list[Segment] = []
        streams = len(stages[0].rates)
        of_all, of_places, of_lengths = *np.zeros((2, streams), np.int64), dict[int, np.ndarray]()
        step = draw = stage_draw = 0
        for start in sorted({part.start for part in parts} | {stage.start for stage in stages}):
            if self._segments:
                last = self._segments[-1]
                draw += (start - step) * parts[last.part].config.train.batch_size
                drawn = self._between(last, draw)
                length = parts[last.part].config.data.sequence_length
                of_all, of_places = of_all + drawn, of_places + drawn * length
                of_lengths[length] = of_lengths.get(length, np.zeros(streams, np.int64)) + drawn
            step = start
            part, stage = (sum(x.start <= step for x in found) - 1 for found in (parts, stages))
            stage_draw = draw if stages[stage].start == step else stage_draw
            of_order = self._periods[stage].before(draw - stage_draw)
            length = parts[part].config.data.sequence_length
            of_length = of_lengths.get(length, np.zeros(streams, np.int64))
            earlier = of_all - of_order, of_length - of_order, of_places - of_order * length
            self._segments.append(Segment(step, draw, part, stage, stage_draw, *earlier))
        self._steps, self._draws = ([getattr(s, name) for s in self._segments] for name in ("step", "draw"))

    def draw(self, number: int) -> tuple[int, int]:
        """The stream of a draw, and how often the stream was drawn before from the blocks of this length."""
        segment = self._segments[bisect.bisect_right(self._draws, number) - 1]
        period = self._periods[segment.stage]
        periods, place = divmod(number - segment.stage_draw, len(period.languages))
        stream = int(period.languages[place])
        earlier = int(segment.earlier_of_length[stream]) + periods * int(period.counts[stream])
        return stream, earlier + int(period.ranks[place])

    def first_draw(self, step: int) -> int:
        """The number of a step's first draw."""
        segment = self._at(step)
        return segment.draw + (step - segment.step) * self.parts[segment.part].config.train.batch_size

    def drawn(self, steps: int) -> np.ndarray:
        """Blocks drawn of each stream in the first `steps` steps, of whatever length, int64 [streams]."""
        segment = self._at(steps)
        return segment.earlier + self._periods[segment.stage].before(self.first_draw(steps) - segment.stage_draw)

    def places(self, steps: int) -> np.ndarray:
        """Places for tokens in those blocks, padding included, int64 [streams]."""
        segment = self._at(steps)
        of_order = self._periods[segment.stage].before(self.first_draw(steps) - segment.stage_draw)
        return segment.earlier_places + of_order * self.parts[segment.part].config.data.sequence_length

    def streams_of(self, step: int) -> list[int]:
        """The stream of each row of a step's whole batch."""
        first, batch_size = self.first_draw(step), self.parts[self._at(step).part].config.train.batch_size
        return [self.draw(first + row)[0] for row in range(batch_size)]

    def _at(self, step: int) -> Segment:
        return self._segments[bisect.bisect_right(self._steps, step) - 1]

    def _between(self, segment: Segment, end: int) -> np.ndarray:
        """Draws of each stream from a segment's first on, before draw `end`, int64 [streams]."""
        period = self._periods[segment.stage]
        return period.before(end - segment.stage_draw) - period.before(segment.draw - segment.stage_draw)


class BatchOrder(Order):
    """The order of draws of a run each of whose batches is of one stream: streams are drawn by the rates, a batch at a time.

    Args:
      parts: with batches of one size.
    """

    def __init__(self, stages: Sequence[sampling.StageRates], parts: Sequence[Part], seed: int):
        self.parts = parts
        self._size = parts[0].config.train.batch_size
        ones = [replace(part, config=with_sections(part.config, train={"batch_size": 1})) for part in parts]
        self._batches = Order(stages, ones, seed)

    def draw(self, number: int) -> tuple[int, int]:
        """As `Order.draw`."""
        batch, row = divmod(number, self._size)
        stream, earlier = self._batches.draw(batch)
        return stream, earlier * self._size + row

    def first_draw(self, step: int) -> int:
        """As `Order.first_draw`."""
        return step * self._size

    def drawn(self, steps: int) -> np.ndarray:
        """As `Order.drawn`, int64 [streams]."""
        return self._batches.drawn(steps) * self._size

    def places(self, steps: int) -> np.ndarray:
        """As `Order.places`, int64 [streams]."""
        return self._batches.places(steps) * self._size

    def streams_of(self, step: int) -> list[int]:
        """As `Order.streams_of`."""
        return [self._batches.draw(step)[0]] * self._size


class Mixture(grain.transforms.DatasetSelectionMap):
    """Example number → (stream, which of the stream's draws it is), for a process that reads one part of a run.

    A process sees its own rows only, so its n-th example is row `rows[n % len(rows)]` of step `part.start + n // len(rows)`.

    Args:
      order: of the run.
      part: number of the part.
      rows: this process's rows of every batch of it, [rows].
    """

    def __init__(self, order: Order, part: int, rows: Sequence[int]):
        self._order = order
        self.part = order.parts[part]
        self.rows = np.asarray(rows, np.int64)
        self._first = order.first_draw(self.part.start)

    def __len__(self) -> int:
        return np.iinfo(np.int64).max // 2  # for ever

    def __getitem__(self, index: int) -> tuple[int, int]:
        # Grain counts this process's draws; the order is of all processes'.
        step, row = divmod(index, len(self.rows))
        return self._order.draw(self._first + step * self.part.config.train.batch_size + int(self.rows[row]))


def training_batches(
    mixture: Mixture,
    corpus: epath.PathLike,
    manifest: Manifest,
    streams: Sequence[Stream],
    pad: int,
    seed: int,
    start_step: int,
    readers: int = 0,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """This process's rows of the batch of `start_step` and of every later step of the mixture's part.

    Args:
      corpus, manifest, streams: of the part's length.
      readers: processes that read for this one; `close` ends them. 0: threads of this one read.

    Yields:
      Feature → [rows of this process, ...], of the dtype and otherwise of the shape in `batch_shapes`.

    Raises:
      UserError: a shard is missing or truncated, or its index is damaged; on reading, a record is.
    """
    sources = [
        # The seed depends on the name, so that a language's order stays when others are added.
        grain.MapDataset.source(Blocks(corpus, s.name, s.train.shards, manifest.sequence_length, pad))
        .seed(_stream_seed(seed, s.name))
        .shuffle()
        .repeat()
        .map_with_index(partial(_count_repeats, s.train.blocks))
        for s in streams
    ]
    # Nothing is read yet: a data set is a function of an index, so that starting at a step costs nothing.
    examples = grain.MapDataset.select_from_datasets(sources, mixture)
    batches = examples.batch(len(mixture.rows))[start_step - mixture.part.start :]
    ahead = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=READ_AHEAD)
    read = batches.to_iter_dataset(ahead)
    if not readers:
        return iter(read)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain asks for its own, which have their defaults
    # What is read ahead through shared memory is left there when a run ends; pipes are fast enough.
    piped = grain.experimental.WithOptionsIterDataset(read, grain.experimental.DatasetOptions(min_shm_size=2**62))
    options = grain.multiprocessing.MultiprocessingOptions(readers, per_worker_buffer_size=2)
    return iter(piped.mp_prefetch(options, _live_with_the_run))


def in_one_line(read: grain.DatasetIterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """The batches of an iterator, whose errors are ours alone: Grain adds lines on its pipeline to them.

    Yields:
      Feature → [rows of this process, ...], of the dtype and otherwise of the shape in `batch_shapes`.

    Raises:
      UserError: what cannot be read.
    """
    try:
        yield from read
    except UserError as e:
        raise UserError(str(e).split("\n")[0]) from e
    finally:
        read.close()


def _live_with_the_run(reader: int, readers: int) -> None:
    """Leave Ctrl-C to the run, which finishes its step, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = multiprocessing.parent_process()
    assert run is not None

    def follow() -> None:
        run.join()
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()


def _count_repeats(blocks: int, draw: int, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add how often a block was drawn before: each epoch of a stream draws each of its blocks once."""
    return block | {"repeat": np.asarray(draw // blocks % 2**31, np.int32)}


def batch_shapes(batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Feature → shape and dtype of a batch over all processes.

    Returns:
      tokens, segment_ids, positions, token_types and language_ids (`records.expand_block`): int32 [batch, length]; next_sentence:
      0 if the block's second part follows its first, 1 if it is a random one, -1 if there is none, int32 [batch]; block_key:
      names the block, uint32 [batch]; repeat: how often it was drawn before, int32 [batch].
    """
    shapes: dict[str, tuple[tuple[int, ...], type]] = dict.fromkeys(
        records.TOKEN_FEATURES, ((batch_size, length), np.int32)
    )
    blocks = {"next_sentence": np.int32, "block_key": np.uint32, "repeat": np.int32}
    return shapes | {name: ((batch_size,), kind) for name, kind in blocks.items()}


def _stream_seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
