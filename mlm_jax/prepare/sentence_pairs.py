# SPDX-License-Identifier: Apache-2.0
"""Documents → blocks of two sentences for next-sentence prediction (Devlin et al. 2019, section A.1)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

from mlm_jax.prepare.packing import Block, Span, to_block

SHORT_SHARE = 0.1  # of the blocks are made short, so that the model sees blocks that are not full

# After a full stop of any script that has one; the CJK ones need no space after them.
_END = re.compile(r"(?<=[.!?\u061f\u06d4\u0964\u0965\u1362\u104b])\s+|(?<=[\u3002\uff01\uff1f])\s*")


def sentences(document: str) -> list[str]:
    """A document's lines; of a document of one line, what stands between full stops."""
    lines = [line for line in document.splitlines() if line.strip()]
    return lines if len(lines) > 1 else [part for part in _END.split(document) if part.strip()]


def sentence_pairs(
    batches: Iterable[list[list[list[int]]]], length: int, bos: int, eos: int, language: int, seed: str
) -> Iterator[Block]:
    """`<s> A </s> B </s>`, where B follows A in the text (label 0) or comes from another document (label 1), half each.

    As the original: sentences are gathered until a block is full, or a document ends; A ends after a
    random one of them. A random B begins at a random sentence of a random other document of the
    batch, and the sentences that it displaces are used for the next block. What is too long loses tokens
    from either end of its longer part. Unlike the original, a single sentence at the end of a document,
    which could be followed by a random one only, makes no block: labels stay balanced.

    Args:
      batches: of documents, each a list of sentences of token ids, all of one language.
      length: tokens in a block.
      seed: names the text, so that the pairs are the same whoever makes them.
    """
    rng = random.Random(seed)
    for batch in batches:
        documents = [[s for s in document if s] for document in batch]
        documents = [document for document in documents if document]
        if len(documents) < 2:
            continue  # no other document for a random sentence
        for number, document in enumerate(documents):
            place = 0
            while place < len(document) - 1:
                room = length - 3
                if rng.random() < SHORT_SHARE:
                    room = rng.randint(2, room)
                end, size = place, 0
                while end < len(document) and (size < room or end - place < 2):
                    size += len(document[end])
                    end += 1
                cut = rng.randint(place + 1, end - 1)
                first = _join(document[place:cut])
                is_random = rng.random() < 0.5
                if is_random:
                    other = rng.randrange(len(documents) - 1)
                    source = documents[other + (other >= number)]
                    start = rng.randrange(len(source))
                    second: list[int] = []
                    for sentence in source[start:]:
                        second += sentence
                        if len(first) + len(second) >= room:
                            break
                    place = cut
                else:
                    second = _join(document[cut:end])
                    place = end
                first, second = _truncate(first, second, room, rng)
                spans = [Span(language, [bos, *first, eos])]
                spans.append(Span(language, [*second, eos], type=1, position=len(first) + 2))
                yield to_block([spans], next_sentence=int(is_random))


def _join(parts: list[list[int]]) -> list[int]:
    return [token for part in parts for token in part]


def _truncate(first: list[int], second: list[int], room: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Cut tokens off the longer side, from its front or its end, until both fit."""
    sides = [[0, len(first)], [0, len(second)]]
    while sum(end - start for start, end in sides) > room:
        longer = max(sides, key=lambda side: side[1] - side[0])
        if rng.random() < 0.5:
            longer[0] += 1
        else:
            longer[1] -= 1
    (a, b), (c, d) = sides
    return first[a:b], second[c:d]
