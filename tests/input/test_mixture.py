# SPDX-License-Identifier: Apache-2.0
"""The input: a pure function of (seed, step, row), whoever reads it."""

import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import resource
import time

import numpy as np
import pytest

from mlm_jax import records, sampling
from mlm_jax.errors import UserError
from mlm_jax.input.blocks import Blocks
from mlm_jax.input.mixture import BatchOrder, Mixture, Order, in_one_line, training_batches
from mlm_jax.input.validation import validation_batches, validation_sources
from mlm_jax.phases import Part
from tests.corpora import make_corpus, tiny_config

SIZES = {"de": 40, "en": 90, "sw": 7}


def part(batch_size, start=0, length=16, end=10**15):
    config = tiny_config("", data={"sequence_length": length}, train={"batch_size": batch_size})
    return Part(start, end, config, "corpus")


def batches(folder, manifest, rates, rows, steps, start=0, seed=0, batch_size=8, readers=0):
    stages = [sampling.StageRates(0, np.asarray(rates))]
    mixture = Mixture(Order(stages, [part(batch_size)], seed), 0, rows)
    iterator = training_batches(mixture, folder, manifest, manifest.streams, 0, seed, start, readers)
    try:
        return list(itertools.islice(in_one_line(iterator), steps))
    finally:
        iterator.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, make_corpus(folder, SIZES)


RATES = [0.3, 0.5, 0.2]


def test_any_number_of_processes_reads_the_same_batches(corpus):
    whole = batches(*corpus, RATES, range(8), 6)
    for processes in (2, 4, 8):
        size = 8 // processes
        parts = [batches(*corpus, RATES, range(p * size, (p + 1) * size), 6) for p in range(processes)]
        for step in range(6):
            for name in whole[step]:
                joined = np.concatenate([part[step][name] for part in parts])
                np.testing.assert_array_equal(joined, whole[step][name])


def test_resuming_is_one_integer(corpus):
    whole = batches(*corpus, RATES, range(8), 9)
    late = batches(*corpus, RATES, range(8), 4, start=5)
    for a, b in zip(whole[5:], late, strict=True):
        np.testing.assert_array_equal(a["tokens"], b["tokens"])


@pytest.mark.parametrize("start", [0, 5])
def test_readers_read_the_same_batches_and_end(corpus, start):
    alone, read = (batches(*corpus, RATES, range(8), 7, start, readers=readers) for readers in (0, 3))
    for a, b in zip(alone, read, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert not multiprocessing.active_children()


def test_what_a_reader_cannot_read_is_the_same_line(tmp_path):
    manifest = make_corpus(tmp_path, SIZES)
    for index in tmp_path.rglob("*.index"):
        index.unlink()
    with pytest.raises(UserError, match=r"missing; delete .* and run: mlm-jax prepare CONFIG"):
        batches(tmp_path, manifest, RATES, range(8), 1, readers=2)


def test_another_seed_is_another_order(corpus):
    a, b = (batches(*corpus, RATES, range(8), 4, seed=s) for s in (0, 1))
    assert any((x["tokens"] != y["tokens"]).any() for x, y in zip(a, b, strict=True))


def test_each_epoch_of_a_language_is_its_own_permutation(corpus):
    folder, manifest = corpus
    rows = 10
    out = batches(folder, manifest, [1.0, 0.0, 0.0], range(rows), 12, batch_size=rows)  # 120 draws: 3 epochs of 40
    drawn = np.concatenate([b["tokens"][:, 1] for b in out]) - 5
    epochs = drawn.reshape(3, 40)
    for epoch in epochs:
        assert sorted(epoch) == list(range(40))
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_adding_a_language_keeps_the_others_order(corpus, tmp_path):
    folder, manifest = corpus
    more = make_corpus(tmp_path, SIZES | {"zz": 20})
    few = batches(folder, manifest, [1.0, 0.0, 0.0], range(8), 3)
    many = batches(tmp_path, more, [1.0, 0.0, 0.0, 0.0], range(8), 3)
    np.testing.assert_array_equal([b["tokens"][:, 1] for b in few], [b["tokens"][:, 1] for b in many])


def test_stages_go_on_where_a_language_was(corpus):
    stages = [sampling.StageRates(s, np.array(r)) for s, r in [(0, [0.5, 0.5, 0.0]), (7, [0.1, 0.2, 0.7]), (20, RATES)]]
    mixture = Order(stages, [part(8)], 0)
    seen = np.zeros(3, int)
    for number in range(40 * 8):
        if number % 8 == 0:
            np.testing.assert_array_equal(mixture.drawn(number // 8), seen)
        stream, draw = mixture.draw(number)
        assert draw == seen[stream]
        seen[stream] += 1
    assert mixture.streams_of(3) == [mixture.draw(24 + row)[0] for row in range(8)]


def test_batches_and_lengths_that_change_draw_each_block_once_per_epoch_of_its_length():
    stages = [sampling.StageRates(s, np.array(r)) for s, r in [(0, [0.5, 0.5, 0.0]), (7, [0.1, 0.2, 0.7]), (20, RATES)]]
    parts = [part(8), part(6, 5), part(6, 9, 32), part(3, 20, 32), part(4, 25, 16)]
    order = Order(stages, parts, 0)
    total, seen, number = np.zeros(3, int), {16: np.zeros(3, int), 32: np.zeros(3, int)}, 0
    for step in range(40):
        mine = [p for p in parts if p.start <= step][-1]
        np.testing.assert_array_equal(order.drawn(step), total)
        assert order.first_draw(step) == number
        streams = []
        for _ in range(mine.config.train.batch_size):
            stream, draw = order.draw(number)
            streams.append(stream)
            # The draws of a length count up from 0 without a gap, so that Grain's permutation holds for each length by itself.
            assert draw == seen[mine.config.data.sequence_length][stream]
            seen[mine.config.data.sequence_length][stream] += 1
            total[stream] += 1
            number += 1
        np.testing.assert_array_equal(order.places(step + 1), sum(length * n for length, n in seen.items()))
        assert streams == order.streams_of(step)


def test_a_run_without_phases_draws_what_it_did_before_there_were_any(corpus):
    """Recorded with the version before phases (dbe19d4): the order of draws, Grain's permutations and the blocks' keys."""
    folder, manifest = corpus
    stages = [sampling.StageRates(s, np.array(r)) for s, r in [(0, [0.5, 0.5, 0.0]), (7, [0.1, 0.2, 0.7]), (20, RATES)]]
    mixture = Mixture(Order(stages, [part(8)], 5), 0, range(8))
    found = hashlib.sha256()
    for batch in itertools.islice(training_batches(mixture, folder, manifest, manifest.streams, 0, 5, 0), 40):
        for name in sorted(batch):
            found.update(np.ascontiguousarray(batch[name]).tobytes())
    assert found.hexdigest() == "e0d39aa46673d856e2460a673302305c367306ec4ee6993a331ce81abbd7c633"


def test_other_batch_sizes_are_the_same_order_of_draws():
    stages = [sampling.StageRates(0, np.array(RATES))]
    grown, even = Order(stages, [part(2), part(6, 5), part(8, 11)], 3), Order(stages, [part(8)], 3)
    assert [grown.draw(n) for n in range(500)] == [even.draw(n) for n in range(500)]


def test_a_part_is_read_from_its_own_first_step(corpus):
    folder, manifest = corpus
    order = Order([sampling.StageRates(0, np.array(RATES))], [part(8), part(4, 3)], 0)

    def read(rows, number, step, steps):
        iterator = training_batches(Mixture(order, number, rows), folder, manifest, manifest.streams, 0, 0, step)
        return [b["tokens"] for b in itertools.islice(iterator, steps)]

    whole = batches(*corpus, RATES, range(8), 6)
    drawn = np.concatenate([*read(range(8), 0, 0, 3), *read(range(4), 1, 3, 6)])
    np.testing.assert_array_equal(drawn, np.concatenate([b["tokens"] for b in whole]))
    np.testing.assert_array_equal(read(range(2, 4), 1, 5, 2), [drawn[34:36], drawn[38:40]])


def test_whole_batches_of_one_stream_draw_its_blocks_in_their_order_at_its_rate():
    rates, rows, steps = np.array([0.5, 0.3, 0.2]), 4, 10_000
    parts = (part(rows), part(rows, 70))
    order = BatchOrder([sampling.StageRates(0, rates), sampling.StageRates(50, rates[::-1])], parts, 0)
    seen = np.zeros(3, int)
    for step in range(100):
        assert order.first_draw(step) == step * rows
        np.testing.assert_array_equal(order.drawn(step), seen)
        drawn = [order.draw(step * rows + row) for row in range(rows)]
        (stream,) = {stream for stream, _ in drawn}
        assert [earlier for _, earlier in drawn] == list(range(seen[stream], seen[stream] + rows))
        assert order.streams_of(step) == [stream] * rows
        seen[stream] += rows
    np.testing.assert_array_equal(order.places(100), seen * 16)
    assert np.abs((order.drawn(steps + 50) - order.drawn(50)) / (rows * steps) - rates[::-1]).max() < 1e-3


def test_realised_shares(corpus):
    mixture = Order([sampling.StageRates(0, np.array(RATES))], [part(8)], 0)
    counts = np.bincount([mixture.draw(n)[0] for n in range(100_000)], minlength=3)
    np.testing.assert_allclose(counts, np.array(RATES) * 100_000, atol=1)


def test_the_state_of_the_input_is_small_and_a_far_step_is_at_hand(corpus):
    folder, manifest = corpus
    mixture = Mixture(Order([sampling.StageRates(0, np.array(RATES))], [part(8)], 0), 0, range(8))
    iterator = training_batches(mixture, folder, manifest, manifest.streams, 0, 0, 10**6)
    next(iterator)
    assert len(json.dumps(iterator.get_state())) < 1000
    begin = time.perf_counter()
    next(training_batches(mixture, folder, manifest, manifest.streams, 0, 0, 10**12))
    assert time.perf_counter() - begin < 5  # not a benchmark: reading up to there would take days


def test_blocks_are_what_was_written(corpus):
    folder, manifest = corpus
    source = Blocks(folder, "bb", manifest.streams[1].train.shards, 20, pad=0)
    assert len(source) == 90
    for index in (0, 44, 45, 89):
        block = source[index]
        assert block["tokens"][1] == 5 + index
        np.testing.assert_array_equal(block["segment_ids"], [1] * 16 + [0] * 4)
        np.testing.assert_array_equal(block["positions"][:16], np.arange(16))
        np.testing.assert_array_equal(block["language_ids"][:16], 1)
        np.testing.assert_array_equal(block["tokens"][16:], 0)


def test_a_truncated_shard_is_refused(tmp_path):
    manifest = make_corpus(tmp_path, SIZES)
    victim = tmp_path / manifest.streams[0].train.shards[1].file
    victim.write_bytes(victim.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"00001-of-00002: truncated or changed: .* bytes, the manifest says"):
        Blocks(tmp_path, "aa", manifest.streams[0].train.shards, 16, 0)
    victim.unlink()
    with pytest.raises(UserError, match="missing"):
        Blocks(tmp_path, "aa", manifest.streams[0].train.shards, 16, 0)


def read_all(folder, manifest, stream=1):
    source = Blocks(folder, "bb", manifest.streams[stream].train.shards, 16, 0)
    return [source[i]["tokens"].tolist() for i in range(len(source))]


@pytest.fixture
def one_stream(tmp_path):
    return tmp_path, make_corpus(tmp_path, {"aa": 4, "bb": 20})


@pytest.mark.parametrize("what", ["payload", "framing", "index"])
def test_flipped_bits_are_one_line_or_change_nothing(one_stream, what):
    folder, manifest = one_stream
    whole = read_all(folder, manifest)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        shard = folder / manifest.streams[1].train.shards[rng.integers(2)].file
        index = shard.parent / records.index_path(shard.name)
        offsets = np.frombuffer(index.read_bytes(), "<u8").astype(int)
        start, end = offsets[(row := rng.integers(len(offsets) - 1)) : row + 2]
        framing = [*range(start, start + 12), *range(end - 4, end)]
        place = {
            "payload": lambda s=start, e=end: rng.integers(s + 12, e - 4),
            "framing": lambda f=framing: rng.choice(f),
            "index": lambda i=index: rng.integers(i.stat().st_size),
        }[what]()
        victim = index if what == "index" else shard
        content = victim.read_bytes()
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        victim.write_bytes(flipped)
        with pytest.raises(UserError, match=r"delete it and .*manifest.json, and run: mlm-jax prepare CONFIG") as e:
            read_all(folder, manifest)
        assert victim.name in str(e.value) or shard.name in str(e.value)
        refused += 1
        victim.write_bytes(content)
    assert refused == 200 and read_all(folder, manifest) == whole


@pytest.mark.parametrize("index", [b"", b"\0" * 8, "random", "shifted", "reversed"])
def test_a_wrong_index_is_refused_at_the_start(one_stream, index):
    folder, manifest = one_stream
    shard = manifest.streams[1].train.shards[0]
    path = folder / records.index_path(shard.file)
    offsets = np.frombuffer(path.read_bytes(), "<u8")
    others = {
        "random": np.random.default_rng(0).integers(0, 2**63, len(offsets)).astype("<u8"),
        "shifted": np.append(offsets[1:], offsets[-1] + 1),
        "reversed": offsets[::-1],
    }
    path.write_bytes(index if isinstance(index, bytes) else others[index].tobytes())
    with pytest.raises(UserError, match=r"\.index: .*; delete it and .* and run: mlm-jax prepare CONFIG"):
        Blocks(folder, "bb", [shard], 16, 0)


@pytest.mark.parametrize("readers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_record_that_changed_ends_the_run_with_one_line(one_stream, readers):
    folder, manifest = one_stream
    for shard in manifest.streams[1].train.shards:
        path = folder / shard.file
        content = bytearray(path.read_bytes())
        content[20::40] = bytes(len(content[20::40]))
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"bb/train.tfrecord-0000\d-of-00002: damaged: record \d+ is [^\n]*$"):
        batches(folder, manifest, [0.0, 1.0], range(8), 1, readers=readers)


def test_a_shard_cut_off_while_it_is_read_is_one_line(one_stream):
    folder, manifest = one_stream
    source = Blocks(folder, "bb", manifest.streams[1].train.shards, 16, 0)
    assert source[0]["tokens"][1] == 5
    (folder / manifest.streams[1].train.shards[0].file).write_bytes(b"")
    with pytest.raises(UserError, match=r"00000-of-00002: damaged: record 1 is"):
        source[1]


def test_what_cannot_be_read_is_one_line(one_stream, monkeypatch):
    folder, manifest = one_stream
    source = Blocks(folder, "bb", manifest.streams[1].train.shards, 16, 0)

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(UserError, match=r"00000-of-00002: cannot be read \(Input/output error\); mend"):
        source[1]


def test_more_shards_than_files_may_be_open_are_read_too(one_stream, monkeypatch):
    folder, manifest = one_stream
    whole = read_all(folder, manifest)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4, 4))  # none is kept open
    monkeypatch.delattr(os, "pread")
    assert read_all(folder, manifest) == whole


def test_validation_batches_do_not_depend_on_the_batch_size(corpus):
    folder, manifest = corpus

    def collect(batch_size):
        found = {}
        for batch, owners in validation_batches(
            validation_sources(folder, manifest, manifest.streams, 0),
            manifest.sequence_length,
            0,
            2,
            batch_size,
            range(batch_size),
        ):
            for row, owner in enumerate(owners):
                if owner >= 0:
                    found[int(batch["block_key"][row])] = (int(owner), batch["tokens"][row].tolist())
        return found

    assert collect(4) == collect(7)
    assert len(collect(4)) == 6
