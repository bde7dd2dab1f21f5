# SPDX-License-Identifier: Apache-2.0
"""How much of a language's text its vocabulary cannot write: `<unk>`, and what its normalisation drops."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from mlm_jax import console
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary

# That `str.split` does not know: the zero-width space of Khmer, byte order marks.
SPACES = dict.fromkeys((0x200B, 0xFEFF), " ")
UNKNOWN = 0.01  # of a text, from which a warning says so


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


def warn_unknown(what: str, ids: Iterable[Sequence[int] | np.ndarray], unknown: int) -> None:
    """Say where more than `UNKNOWN` of the tokens of texts are <unk>.

    Args:
      what: the texts are, for the message.
      ids: of each text, int [tokens], without specials.
      unknown: the id of <unk>.
    """
    found = tokens = 0
    for text in ids:
        row = np.asarray(text)
        found += int(np.count_nonzero(row == unknown))
        tokens += len(row)
    warn_share(what, found, tokens)


def warn_share(what: str, found: int, tokens: int) -> None:
    """The same of texts whose tokens were counted: `found` of them are <unk>."""
    if found > UNKNOWN * tokens:
        console.warn(
            f"{what}: {100 * found / tokens:.1f} % of the tokens are <unk>: the vocabulary cannot write this text, and what is measured is "
            "of what is left of it; mlm-jax adapt gives an encoder the pieces for it"
        )


def in_words(lost: Counter[str]) -> str:
    """The most frequent of the lost characters, for a message."""
    named = [f"{c!r} U+{ord(c):04X}" if c.isprintable() else f"U+{ord(c):04X}" for c, _ in lost.most_common(3)]
    return ", ".join(named)
