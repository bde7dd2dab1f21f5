# SPDX-License-Identifier: Apache-2.0
"""How well an encoder predicts masked tokens of plain text: loss, perplexity and bits per byte."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from mlm_jax import console, coverage
from mlm_jax.encode.rows import Arrays, Batch, Shape, pack
from mlm_jax.encode.run import frame, items_of, make_run
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Text
from mlm_jax.formats import data_files, read_texts
from mlm_jax.pretrained import Pretrained
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.train.language_model import LOST, validation_sums

TOKENS = 4_096  # of the batches that texts are packed into, whatever the devices: masks depend on what shares a block

# text, texts read at most → what `measure` returns
Measure = Callable[[Text, int], tuple[dict[str, float], int]]


def make_measure(pretrained: Pretrained, tokenizer: Tokenizer, mesh: jax.sharding.Mesh, max_length: int) -> Measure:
    """Build the function that scores the first texts of a language.

    15 % of each block's tokens are masked, chosen by the block's tokens alone, so that encoders with one vocabulary are asked
    the same; a causal encoder predicts every token. Bits per byte is the loss per token times the text's tokens per byte,
    and lets vocabularies be compared.

    Args:
      pretrained: its parameters on the mesh.
      max_length: tokens of a text that are read, specials included.

    Returns:
      measure(text, texts read at most) → loss (nats per masked token), accuracy, perplexity, targets (tokens scored), and bits_per_byte
      where the vocabulary can write the text; and texts read.

    Raises:
      UserError: the encoder has no output layer; on a call, there is no text.
    """
    words, model = pretrained.vocabulary, pretrained.model
    if model.head == "none":
        raise UserError("the encoder has no output layer, so it has no language model's loss; leave language_model out")
    length = max(-(-max_length // 16) * 16, 256)
    run = make_run(
        validation_sums(pretrained.encoder(), words, length),
        mesh,
        words.pad,
        model.token_types,
        lambda lengths: blocks(lengths, length, mesh.shape["data"] * mesh.shape["fsdp"]),
        block_keys,
    )

    def measure(text: Text, most: int) -> tuple[dict[str, float], int]:
        paths = data_files(text.path)
        lines = (
            line for path in paths for _, line in read_texts(path, text.field, naming="Text.field") if line.strip()
        )
        found = list(itertools.islice(lines, most))
        if not found:
            raise UserError(f"{text.path}: no text there ({text.language})")
        tokens = tokenizer.encode(found)
        ids = [frame(document, words, max_length) for document in tokens]
        items = items_of(ids, text.language, pretrained.languages, embedded=False)
        sums = np.zeros(3)
        for _, out in run(items, pretrained.params):
            sums += [out[name].sum() for name in ("loss", "correct", "targets")]
        lost, read = Counter[str](), 0
        for line, document in zip(found, tokens, strict=True):
            lost += coverage.lost_characters(tokenizer, words, line, document)
            read += coverage.characters(line).total()
        pieces = [piece for document in tokens for piece in document]
        unknown = coverage.unknown_share(pieces.count(words.unk), len(pieces), lost.total(), read)
        loss = sums[0] / sums[2]
        size = sum(len(line.encode()) for line in found)
        scores = {
            "loss": loss,
            "accuracy": sums[1] / sums[2],
            "perplexity": math.exp(min(loss, 700)),
            "targets": float(sums[2]),
        }
        # What the vocabulary cannot write costs nothing: the bits would be those of another text.
        if unknown >= LOST:
            console.warn(
                f"{text.language}: the vocabulary cannot write {100 * unknown:.1f} % of the text ({coverage.in_words(lost)}), so "
                "bits per byte are not given"
            )
            return scores, len(found)
        scores["bits_per_byte"] = loss / math.log(2) * len(pieces) / size
        return scores, len(found)

    return measure


def blocks(lengths: Sequence[int], length: int, multiple: int) -> Iterator[tuple[Batch, Shape]]:
    """Texts packed into blocks in an order that is the same on all devices, and the blocks cut into batches for these."""
    packed = pack(lengths, range(len(lengths)), Shape(max(1, TOKENS // length), length, length // 8), 256)
    rows = [row for batch in packed for row in batch if row]
    count = -(-(TOKENS // length) // multiple) * multiple
    for begin in range(0, len(rows), count):
        yield rows[begin : begin + count], Shape(count, length, length // 8)


def block_keys(arrays: Arrays) -> Arrays:
    """What masking reads of a batch besides its tokens: a key per block, from its tokens."""
    rows = len(arrays["tokens"])
    return {
        "block_key": np.array([zlib.crc32(row.tobytes()) for row in arrays["tokens"]], np.uint32),
        "next_sentence": np.full(rows, -1, np.int32),
    }
