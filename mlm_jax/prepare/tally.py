# SPDX-License-Identifier: Apache-2.0
"""What is counted of a text while its blocks are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlm_jax.coverage import characters, lost_characters
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary

FIRST, EVERY = 200, 100  # of a slice's texts the first, and then one in so many, are read back


@dataclass
class Tally:
    """Counts of one split of a slice, to which whoever reads, divides or encodes its text adds.

    Attributes:
      documents, bytes: of its text: documents (or sentence pairs), UTF-8 bytes.
      left_out: documents (or pairs) that training leaves out because they, or a side, are held out elsewhere.
      sentences_left_out: sentences that training documents lose for the same reason.
      in_no_block: documents of which no block holds a token.
      unpaired: tokens of sentences that stand in no pair (`sentence_pairs`), but in a block of their own kind.
      cut: texts of pairs that lost their end, to fit a block (`packing.text_pairs`).
      encoded: texts that were encoded.
      characters: of those of them that were read back.
      lost: characters that their tokens did not give back, and how often.
    """

    documents: int = 0
    bytes: int = 0
    left_out: int = 0
    sentences_left_out: int = 0
    in_no_block: int = 0
    unpaired: int = 0
    cut: int = 0
    encoded: int = 0
    characters: int = 0
    lost: Counter[str] = field(default_factory=Counter)


def read_back(
    tokenizer: Tokenizer, vocabulary: Vocabulary, texts: Sequence[str], tokens: Sequence[Sequence[int]], tally: Tally
) -> None:
    """Decode the tokens of some of the texts, and count what they lost."""
    for text, ids in zip(texts, tokens, strict=True):
        if tally.encoded < FIRST or tally.encoded % EVERY == 0:
            tally.characters += characters(text).total()
            tally.lost += lost_characters(tokenizer, vocabulary, text, ids)
        tally.encoded += 1
