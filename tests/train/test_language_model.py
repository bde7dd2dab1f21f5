# SPDX-License-Identifier: Apache-2.0
"""What a validation rests on is said, and bits per byte are given only where the vocabulary writes the text."""

import re

from mlm_jax.manifest import Split, Stream
from mlm_jax.train.language_model import few_targets, writes


def stream(name, tokens, unknown=0.0):
    train = Split(100, 1_000, 400, 4, (), unknown=unknown)
    return Stream(name, (name,), name, train, Split(10, 100, tokens, 1, ()), None)


def test_languages_of_few_targets_are_counted_and_the_fewest_named():
    large = [stream(f"l{i}", 10_000) for i in range(3)]
    assert few_targets(large, 64, 512) == ""
    small = [stream(f"s{i}", 100 + i) for i in range(9)]
    said = few_targets([*large, *small, stream("none", 0)], 64, 512)
    assert "of 9 of 13 languages" in said and "fewest: s0 15, s1 15, s2 15, s3 15, s4 16)" in said
    assert "raise data.validation_documents or data.validation_fraction" in said
    # Where blocks are what limits it, as many as are advised are enough.
    said = few_targets(large, 2, 128)
    advised = int(re.search(r"raise train\.validation_blocks to (\d+)", said)[1])
    assert few_targets(large, advised, 128) == "" and few_targets(large, advised - 1, 128)


def test_bits_per_byte_need_all_of_the_text():
    assert writes(stream("a", 100)) and writes(stream("a", 100, unknown=0.0005))
    assert not writes(stream("a", 100, unknown=0.002))
