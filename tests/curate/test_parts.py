# SPDX-License-Identifier: Apache-2.0
"""Where records go between the steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastwarc")

from mlm_jax.curate.groups import RECORD, make_records
from mlm_jax.curate.parts import apart, gathered, part_of, ranges_of, shard_of


@given(batches=st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20)), groups=st.sampled_from([1, 4, 256]))
def test_records_are_told_apart_by_ranges_of_their_keys(batches, groups):
    made = [make_records(np.array(keys, np.uint64), 7, number) for number, keys in enumerate(batches)]
    found = list(apart(made, lambda records: ranges_of(records, groups), groups))
    assert sum(len(records) for records in gathered((packed for _, packed in found), RECORD)) == sum(map(len, batches))
    for number, packed in found:
        keys = np.frombuffer(packed, RECORD)["key"].tolist()
        assert all(key * groups >> 64 == number for key in keys)


@given(key=st.binary(min_size=16, max_size=16), parts=st.sampled_from([1, 8, 65_536]), shards=st.integers(1, 1000))
def test_parts_and_shards_are_in_the_order_of_keys(key, parts, shards):
    assert part_of(bytes(16), parts) == shard_of(bytes(16), shards) == 0
    assert part_of(b"\xff" * 16, parts) == parts - 1 and shard_of(b"\xff" * 16, shards) == shards - 1
    assert part_of(key, parts) == int.from_bytes(key) * parts >> 128
    assert shard_of(key, shards) == int.from_bytes(key[:8]) * shards >> 64
