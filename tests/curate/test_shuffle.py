# SPDX-License-Identifier: Apache-2.0
"""Records come back by partition, whatever the memory, and a damaged file is one line."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.curate.shuffle import frames, partitioned, records_of, unframed
from mlm_jax.errors import UserError

RECORDS = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50)), max_size=60)


@settings(max_examples=50)
@given(jobs=st.lists(RECORDS, max_size=3), memory=st.integers(1, 3000))
def test_every_record_comes_back_in_its_partition_in_the_order_of_its_job(jobs, memory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shuffle")
    paths = []
    for number, records in enumerate(jobs):
        paths.append(folder / f"{number}.messages")
        with partitioned(paths[-1], 4, memory) as add:
            for partition, record in records:
                add(partition, record)
    for partition in range(4):
        expected = [record for records in jobs for at, record in records if at == partition]
        assert list(records_of(paths, partition)) == expected


def test_a_job_that_fails_leaves_no_file(tmp_path):
    def job():
        with partitioned(tmp_path / "a", 1, 10) as add:
            add(0, b"record")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "a"
    with partitioned(path, 2, 100) as add:
        for number in range(100):
            add(number % 2, b"record" * number)
    whole, expected = path.read_bytes(), [list(records_of([path], partition)) for partition in (0, 1)]
    draw = random.Random(0)
    for _ in range(40):
        content = bytearray(whole)
        if draw.random() < 0.5:
            content = content[: draw.randrange(len(content))]
        else:
            content[draw.randrange(len(content) - 300)] ^= 0xFF
        path.write_bytes(bytes(content))
        try:
            found = [list(records_of([path], partition)) for partition in (0, 1)]
        except UserError as e:
            found, message = expected, str(e)
        else:
            message = f"{path}: damaged"
        assert found == expected and message.startswith(f"{path}: damaged") and "\n" not in message


@given(
    records=st.lists(st.tuples(st.sampled_from(["de", "en", "zh"]), st.binary(max_size=40))), memory=st.integers(1, 500)
)
def test_frames_hold_what_was_put_into_them_in_its_order(records, memory):
    found = [(group, list(unframed(packed))) for group, packed in frames(iter(records), memory)]
    for group in ("de", "en", "zh"):
        assert [r for name, held in found if name == group for r in held] == [r for name, r in records if name == group]
    # No more is held than that, and the record by which it became too much.
    assert all(sum(map(len, held[:-1])) < memory for _, held in found)
