# SPDX-License-Identifier: Apache-2.0
"""Which block comes at which step and row: a pure function of (seed, step, row).

`Mixture` turns the rates of `sampling.py` into an order of draws over the whole run; Grain shuffles
each language's blocks anew every epoch, reads ahead and batches. The state of the input is the number
of the next step, whatever the number of processes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import grain
import numpy as np
from absl import flags
from etils import epath

from mlm_jax import records, sampling
from mlm_jax.config import Config
from mlm_jax.errors import UserError
from mlm_jax.input.blocks import Blocks
from mlm_jax.manifest import Manifest, Stream

READ_AHEAD = 16  # batches
THREADS = 4  # that read, in each process


class Mixture(grain.transforms.DatasetSelectionMap):
    """Draw number → (stream, which of the stream's draws it is).

    Draws are numbered `step * batch_size + row` over the whole batch; a process sees its own rows only
    (`rows`), so its n-th example is row `rows[n % len(rows)]` of step `n // len(rows)`.

    Args:
      stages: rates from a step on, the first from step 0.
      batch_size: blocks per step, over all processes.
      rows: this process's rows of every batch, [rows].
      seed: of the run.
    """

    def __init__(self, stages: Sequence[sampling.StageRates], batch_size: int, rows: Sequence[int], seed: int):
        self._batch_size = batch_size
        self._rows = np.asarray(rows, np.int64)
        self._starts = [s.start * batch_size for s in stages]
        self._periods = [sampling.arrange(s.rates, seed + i) for i, s in enumerate(stages)]
        # Draws of each stream before each stage, int64 [stages, streams].
        drawn = [np.zeros(len(stages[0].rates), np.int64)]
        for i in range(len(stages) - 1):
            drawn.append(drawn[-1] + self._periods[i].before(self._starts[i + 1] - self._starts[i]))
        self._drawn = drawn

    def __len__(self) -> int:
        return np.iinfo(np.int64).max // 2  # for ever

    def __getitem__(self, index: int) -> tuple[int, int]:
        # Grain counts this process's draws; the order is of all processes'.
        step, row = divmod(index, len(self._rows))
        return self.draw(step * self._batch_size + int(self._rows[row]))

    def draw(self, number: int) -> tuple[int, int]:
        """The stream of a draw, and how often the stream was drawn before."""
        stage = self._stage(number)
        period = self._periods[stage]
        periods, place = divmod(number - self._starts[stage], len(period.languages))
        stream = int(period.languages[place])
        earlier = int(self._drawn[stage][stream]) + periods * int(period.counts[stream])
        return stream, earlier + int(period.ranks[place])

    def drawn(self, steps: int) -> np.ndarray:
        """Blocks drawn of each stream in the first `steps` steps, int64 [streams]."""
        number = steps * self._batch_size
        stage = self._stage(number)
        return self._drawn[stage] + self._periods[stage].before(number - self._starts[stage])

    def streams_of(self, step: int) -> list[int]:
        """The stream of each row of a step's whole batch."""
        return [self.draw(step * self._batch_size + row)[0] for row in range(self._batch_size)]

    def _stage(self, number: int) -> int:
        return sum(start <= number for start in self._starts) - 1


def training_mixture(config: Config, streams: Sequence[Stream], rows: Sequence[int]) -> Mixture:
    """The run's order of draws, seen from a process that holds `rows` of each batch."""
    stages = sampling.stage_rates(config, streams)
    return Mixture(stages, config.train.batch_size, rows, config.seed)


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
    """This process's rows of the batch of `start_step` and of every later step.

    Args:
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
    batches = grain.MapDataset.select_from_datasets(sources, mixture).batch(len(mixture._rows))[start_step:]
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
