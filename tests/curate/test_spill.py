# SPDX-License-Identifier: Apache-2.0
"""Records sorted on disk are those that were given, in order, in the memory that is allowed."""

import tracemalloc

import numpy as np
import pytest

from mlm_jax.curate import spill
from mlm_jax.curate.groups import RECORD, with_heads


def random_records(count, keys, seed=0):
    draw = np.random.default_rng(seed)
    records = np.empty(count, RECORD)
    for name in RECORD.names:
        records[name] = draw.integers(0, keys, count, dtype=np.uint64) * np.uint64(2**64 // keys - 1)
    return records


@pytest.mark.parametrize("keys", [1, 3, 2**40])
@pytest.mark.parametrize("memory", [1, 200_000, 1 << 30])
def test_a_merge_is_a_sort(tmp_path, keys, memory):
    records = random_records(20_000, keys)
    batches = np.array_split(records, 77)
    runs = spill.write_runs(batches, tmp_path, RECORD, memory)
    merged = np.concatenate(list(spill.merge(runs, RECORD, memory)))
    assert (merged == np.sort(records, order=RECORD.names)).all()
    once = np.concatenate(list(spill.merge_distinct(runs, RECORD, memory)))
    assert (once == np.unique(records)).all()
    spill.write_sorted(spill.merge(runs, RECORD, memory), tmp_path / "all")
    assert (spill.open_sorted(tmp_path / "all", RECORD) == merged).all()


def test_nothing_is_a_file_of_nothing(tmp_path):
    assert spill.write_runs([], tmp_path / "runs", RECORD) == []
    assert list(spill.merge([], RECORD)) == []
    spill.write_sorted([], tmp_path / "all")
    assert len(spill.open_sorted(tmp_path / "all", RECORD)) == 0


def test_memory_stays_within_what_is_allowed(tmp_path):
    memory = 2 << 20

    def peak(count):
        batches = (random_records(10_000, 2**40, seed) for seed in range(count // 10_000))
        tracemalloc.start()
        runs = spill.write_runs(batches, tmp_path / str(count), RECORD, memory)
        for _ in spill.merge(runs, RECORD, memory):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(500_000) < 1.2 * memory  # 12 MB of records


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_each_record_sees_the_first_of_its_group(size):
    records = np.sort(random_records(300, 20), order=RECORD.names)
    chunks = [records[at : at + size] for at in range(0, len(records), size)]
    firsts = {}
    for record in records:
        firsts.setdefault(record["key"], record)
    for chunk, heads, is_head in with_heads(chunks):
        for record, head, is_first in zip(chunk, heads, is_head, strict=True):
            assert head == firsts[record["key"]]
            if is_first:
                assert record == head
    assert sum(is_head.sum() for _, _, is_head in with_heads(chunks)) == len(firsts)
