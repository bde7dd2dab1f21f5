# SPDX-License-Identifier: Apache-2.0
"""How much of a language's text its vocabulary cannot write: `<unk>`, and what its normalisation drops."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary

SPACES = dict.fromkeys(
    (0x200B, 0xFEFF), " "
)  # that `str.split` does not know: the zero-width space of Khmer, byte order marks


def characters(text: str) -> Counter[str]:
    """A text's characters but white space, in one Unicode form and case: what normalisation may change without a loss."""
    return Counter("".join(unicodedata.normalize("NFKC", text.translate(SPACES)).casefold().split()))


def lost_characters(tokenizer: Tokenizer, vocabulary: Vocabulary, text: str, tokens: Sequence[int]) -> Counter[str]:
    """The characters of a text that its tokens do not give back."""
    written = tokenizer.decode([token for token in tokens if token != vocabulary.unk])
    return characters(text) - characters(written)


def unknown_share(unknown: int, tokens: int, lost: int, read: int) -> float:
    """The share of a text that the vocabulary cannot write.

    It is the greater of two: of its tokens those that are <unk>, and of its characters (as far as they were read back) those that
    no token gives back. One <unk> may stand for one character, or for a whole line of a script without spaces.

    Args:
      unknown, tokens: how many tokens are <unk>, and how many there are but for specials.
      lost, read: characters.
    """
    return max(unknown / max(tokens, 1), lost / max(read, 1))


def in_words(lost: Counter[str]) -> str:
    """The most frequent of the lost characters, for a message."""
    named = [f"{c!r} U+{ord(c):04X}" if c.isprintable() else f"U+{ord(c):04X}" for c, _ in lost.most_common(3)]
    return ", ".join(named)
