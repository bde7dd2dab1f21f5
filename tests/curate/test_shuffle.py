# SPDX-License-Identifier: Apache-2.0
"""Records come back by partition, whatever the memory, and a damaged file is one line."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.curate.shuffle import partitioned, records_of
from mlm_jax.errors import UserError

RECORDS = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50)), max_size=60)


@settings(max_examples=50, deadline=None)
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
