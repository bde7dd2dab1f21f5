# SPDX-License-Identifier: Apache-2.0
"""A mixture of 100 languages: ours against SeqIO's tf.data path over the same files, in one run.

    python benchmarks/input.py

Random blocks of 512 tokens, 200 per language in one shard each; rates at exponent 0.3; batches of 32. SeqIO
shuffles with its default buffers of 1,000 rows. Each side runs in processes of its own; medians of three.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LANGUAGES, BLOCKS, LENGTH, BATCH, BATCHES = 100, 200, 512, 32, 150


def make_corpus(folder: Path) -> None:
    """Write the files both sides read: a SeqIO cache with our index and manifest."""
    from mlm_jax import manifest, records
    from mlm_jax.prepare.run import write_seqio_info

    rng = np.random.default_rng(0)
    streams = []
    names = [f"l{i:02d}" for i in range(LANGUAGES)]
    for language, name in enumerate(names):
        task = f"bench_{name}"
        (folder / task).mkdir()
        path = folder / task / "train.tfrecord-00000-of-00001"
        offsets = [0]
        with path.open("wb") as file:
            for _ in range(BLOCKS):
                block = {
                    "tokens": rng.integers(5, 250_000, LENGTH),
                    "span_lengths": np.array([LENGTH]),
                    "span_segments": np.array([1]),
                    "span_languages": np.array([language]),
                    "span_types": np.array([0]),
                    "span_positions": np.array([0]),
                    "next_sentence": np.array([], int),
                }
                framed = records.frame(records.encode_block(block))
                offsets.append(offsets[-1] + len(framed))
                file.write(framed)
        Path(records.index_path(str(path))).write_bytes(np.array(offsets, "<u8").tobytes())
        shard = manifest.Shard(f"{task}/{path.name}", BLOCKS, offsets[-1])
        split = manifest.Split(BLOCKS, BLOCKS * 2000, BLOCKS * LENGTH * (language + 1) ** 2, BLOCKS, (shard,))
        write_seqio_info(folder / task, "train", split)
        (folder / task / "COMPLETED").touch()
        streams.append(manifest.Stream(name, (name,), task, split, manifest.Split(0, 0, 0, 0, ()), None))
    made = manifest.Manifest(
        manifest.SCHEMA, LENGTH, "concatenate", 250_002, "0" * 64, tuple(names), tuple(streams), {}, {}
    )
    manifest.write_manifest(made, folder)


def ours(folder: str) -> dict[str, float]:
    """Time our mixture; imports are not counted on either side."""
    from mlm_jax import manifest
    from mlm_jax.config import Config, Train
    from mlm_jax.input.mixture import Mixture, Order, training_batches
    from mlm_jax.phases import parts_of
    from mlm_jax.sampling import stage_rates

    config = Config(train=Train(batch_size=BATCH))
    begin = time.perf_counter()
    made = manifest.read_manifest(folder)
    order = Order(stage_rates(config, made.streams), parts_of(config), config.seed)
    mixture = Mixture(order, 0, range(BATCH))
    batches = training_batches(mixture, folder, made, made.streams, 0, 0, 0)
    next(batches)
    ready = time.perf_counter() - begin

    def tokens_per_second(batches: Iterator) -> float:
        # Four times theirs, so that what was read ahead of the clock counts for little.
        begin = time.perf_counter()
        for _ in range(4 * BATCHES):
            next(batches)
        return 4 * BATCHES * BATCH * LENGTH / (time.perf_counter() - begin)

    rate = tokens_per_second(batches)
    # Reading processes, one core each; what they read while the last of them starts is not counted.
    shared = training_batches(mixture, folder, made, made.streams, 0, 0, 0, os.cpu_count() or 1)
    for _ in range(20 * (os.cpu_count() or 1)):
        next(shared)
    by_readers = tokens_per_second(shared)
    shared.close()

    def first_batch(step: int) -> float:
        begin = time.perf_counter()
        next(training_batches(mixture, folder, made, made.streams, 0, 0, step))
        return time.perf_counter() - begin

    starts = [(first_batch(0), first_batch(1_000_000)) for _ in range(7)]
    return {
        "ready": ready,
        "tokens/s": rate,
        "tokens/s by readers": by_readers,
        "state": len(json.dumps(batches.get_state())),
        "first at 0": statistics.median(a for a, _ in starts),
        "first at 1,000,000": statistics.median(b for _, b in starts),
    }


def theirs(folder: str) -> dict[str, float]:
    """Time the same mixture through SeqIO, batched by tf.data."""
    import seqio
    import tensorflow as tf

    from mlm_jax import manifest, sampling
    from mlm_jax.config import Config, Train
    from mlm_jax.prepare.tasks import OUTPUTS, expand_spans

    made = manifest.read_manifest(folder)
    seqio.add_global_cache_dirs([folder])
    numbers = seqio.PassThroughVocabulary(250_002)
    for stream in made.streams:
        seqio.TaskRegistry.add(
            stream.task,
            source=seqio.TFExampleDataSource({"train": ""}, {}),
            preprocessors=[seqio.CacheDatasetPlaceholder(required=True), expand_spans],
            output_features={name: seqio.Feature(numbers, add_eos=False, dtype=tf.int32) for name in OUTPUTS},
        )
    begin = time.perf_counter()
    rates = sampling.stage_rates(Config(train=Train(batch_size=BATCH)), made.streams)[0].rates
    seqio.MixtureRegistry.add("bench", [(s.task, float(r)) for s, r in zip(made.streams, rates, strict=True)])
    dataset = seqio.get_mixture_or_task("bench").get_dataset(
        sequence_length=dict.fromkeys(OUTPUTS, LENGTH), split="train", use_cached=True, num_epochs=None, seed=0
    )
    batches = iter(dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE))
    next(batches)
    ready = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    rate = BATCHES * BATCH * LENGTH / (time.perf_counter() - begin)
    with tempfile.TemporaryDirectory() as state:
        tf.train.Checkpoint(iterator=batches).save(f"{state}/it")
        size = sum(path.stat().st_size for path in Path(state).iterdir())
    return {"ready": ready, "tokens/s": rate, "state": size}


def in_a_process(side: str, folder: str) -> dict[str, float]:
    """Run one side by itself."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, __file__, side, folder], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    if len(sys.argv) == 3:
        print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[1]](sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(Path(folder))
        runs = [(in_a_process("ours", folder), in_a_process("theirs", folder)) for _ in range(3)]
    mine, other = ({k: statistics.median(run[i][k] for run in runs) for k in runs[0][i]} for i in (0, 1))
    print(f"{'':34}{'mlm_jax':>14}{'SeqIO':>14}{'ratio':>10}")
    print(
        f"{'first batch, 100 languages (s)':34}{mine['ready']:14.3f}{other['ready']:14.3f}{other['ready'] / mine['ready']:9.1f}x"
    )
    print(
        f"{'tokens/s at 512':34}{mine['tokens/s']:14,.0f}{other['tokens/s']:14,.0f}{mine['tokens/s'] / other['tokens/s']:9.1f}x"
    )
    name = f"tokens/s, {os.cpu_count()} reading processes"
    print(
        f"{name:34}{mine['tokens/s by readers']:14,.0f}{'':14}{mine['tokens/s by readers'] / mine['tokens/s']:9.2f}x threads"
    )
    print(f"{'state in a checkpoint (bytes)':34}{mine['state']:14,.0f}{other['state']:14,.0f}")
    late, early = mine["first at 1,000,000"], mine["first at 0"]
    print(f"{'first batch at step 1,000,000 (s)':34}{late:14.3f}{'':14}{late / early:9.2f}x step 0")


if __name__ == "__main__":
    main()
