# SPDX-License-Identifier: Apache-2.0
"""Documents' tokens → blocks (`records.FEATURES`), with no token lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlm_jax.prepare.tally import Tally

Block = dict[str, np.ndarray]
OPEN_BLOCKS = 1_000  # blocks that best fit chooses among


class Span(NamedTuple):
    """A run of tokens of one language and token type, whose positions count up from `position`."""

    language: int
    tokens: Sequence[int] | np.ndarray
    type: int = 0
    position: int = 0


def concatenate(
    documents: Iterable[list[list[int]]], length: int, bos: int, eos: int, language: int
) -> Iterator[Block]:
    """Running text cut into blocks, as XLM-R (fairseq's full-sentence blocks): `<s>` and `length - 1` tokens.

    Each document ends with `</s>` and the next follows in the same block; a block is one segment. The
    last block is as long as what is left.

    Args:
      documents: batches of documents' token ids.
      length: tokens in a block.
      language: its id.
    """
    stream: list[int] = []
    step = length - 1
    for batch in documents:
        for tokens in batch:
            stream.extend(tokens)
            stream.append(eos)
        whole = len(stream) // step * step
        if whole:
            rows = np.array(stream[:whole], np.int64).reshape(-1, step)
            del stream[:whole]
            for row in rows:
                yield to_block([[Span(language, np.concatenate([[bos], row]))]])
    if stream:
        yield to_block([[Span(language, [bos, *stream])]])


def to_block(segments: list[list[Span]], next_sentence: int | None = None) -> Block:
    """Segments, each a list of spans → one block, `records.FEATURES`."""
    spans = [(number, span) for number, segment in enumerate(segments, 1) for span in segment]
    return {
        "tokens": np.concatenate([span.tokens for _, span in spans]),
        "span_lengths": np.array([len(span.tokens) for _, span in spans]),
        "span_segments": np.array([number for number, _ in spans]),
        "span_languages": np.array([span.language for _, span in spans]),
        "span_types": np.array([span.type for _, span in spans]),
        "span_positions": np.array([span.position for _, span in spans]),
        "next_sentence": np.array([] if next_sentence is None else [next_sentence], np.int64),
    }


def document_segments(
    documents: Iterable[list[list[int]]], length: int, bos: int, eos: int, language: int
) -> Iterator[list[Span]]:
    """Each document as a segment `<s> … </s>` of one span; one that is too long as several."""
    room = length - 2
    for batch in documents:
        for tokens in batch:
            for start in range(0, max(len(tokens), 1), room):
                yield [Span(language, [bos, *tokens[start : start + room], eos])]


def pair_segments(
    pairs: Iterable[list[tuple[list[int], list[int]]]], length: int, bos: int, eos: int, languages: tuple[int, int]
) -> Iterator[list[Span]]:
    """Each sentence pair as a segment of two spans, whose positions both count from 0 (Conneau and Lample 2019).

    A pair that does not fit a block has the ends of its longer side, then of both, cut off.
    """
    room = length - 4
    for batch in pairs:
        for first, second in batch:
            half = room // 2
            long = max(half, room - min(len(first), len(second)))
            sides = (first[:long], second[:long]) if len(first) + len(second) > room else (first, second)
            yield [Span(language, [bos, *side, eos]) for language, side in zip(languages, sides, strict=True)]


def text_pairs(
    pairs: Iterable[list[tuple[list[int], ...]]],
    length: int,
    bos: int,
    eos: int,
    languages: tuple[int, int],
    tally: Tally | None = None,
) -> Iterator[list[Span]]:
    """The texts of each pair, and its hard negatives, as a span `<s> … </s>` each, which all together fit a block.

    Args:
      pairs: batches of pairs' token ids: first and second side, and hard negatives of the second.
      tally: counts the texts whose end had to be cut off, of the longest ones of their pair.
    """
    for batch in pairs:
        for sides in batch:
            most = _even(sorted(map(len, sides)), length - 2 * len(sides))
            if tally is not None:
                tally.cut += sum(len(side) > most for side in sides)
            of = (languages[0], *[languages[1]] * (len(sides) - 1))
            yield [Span(language, [bos, *side[:most], eos]) for language, side in zip(of, sides, strict=True)]


def _even(lengths: list[int], room: int) -> int:
    """To how many tokens each of some texts may be cut so that all fit: the short ones leave their room to the others.

    Args:
      lengths: ascending.
      room: tokens for all of them.
    """
    for i, length in enumerate(lengths):
        share = room // (len(lengths) - i)
        if length > share:
            return share
        room -= length
    return lengths[-1]


def pairs_block(pairs: list[list[Span]], sides: int) -> Block:
    """Pairs of texts → one block, in which each text is a segment: those of pair i are i * sides + 1 and on.

    Args:
      sides: texts that a pair may have.
    """
    block = to_block(pairs)
    numbers = [i * sides + side for i, pair in enumerate(pairs) for side in range(1, len(pair) + 1)]
    return block | {"span_segments": np.array(numbers)}


def best_fit(
    segments: Iterable[list[Span]],
    length: int,
    most: int | None = None,
    close: Callable[[list[list[Span]]], Block] = to_block,
) -> Iterator[Block]:
    """Pack segments into blocks, each into the fullest of the open blocks that has room.

    A block is closed when it is full, or when `OPEN_BLOCKS` others are open and it is the fullest.

    Args:
      segments: each a list of spans, no longer than `length` in all.
      most: segments that a block may have.
      close: makes a block of its segments.
    """
    # Room left → open blocks with it; bit r of `rooms` says that there is one with room r.
    open_blocks: dict[int, list[list[list[Span]]]] = {}
    rooms, number = 0, 0

    def take(room: int) -> list[list[Span]]:
        nonlocal rooms, number
        block = open_blocks[room].pop()
        number -= 1
        if not open_blocks[room]:
            rooms &= ~(1 << room)
        return block

    for segment in segments:
        need = sum(len(span.tokens) for span in segment)
        fitting = rooms >> need
        if fitting:
            room = need + (fitting & -fitting).bit_length() - 1  # the smallest room that is enough
            block = take(room)
        else:
            room, block = length, []
        block.append(segment)
        left = room - need
        if left < 4 or len(block) == most:  # nothing fits in less
            yield close(block)
            continue
        open_blocks.setdefault(left, []).append(block)
        rooms |= 1 << left
        number += 1
        if number > OPEN_BLOCKS:
            yield close(take((rooms & -rooms).bit_length() - 1))
    while rooms:
        yield close(take((rooms & -rooms).bit_length() - 1))
