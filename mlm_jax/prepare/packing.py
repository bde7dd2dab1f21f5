# SPDX-License-Identifier: Apache-2.0
"""Documents' tokens → blocks (`records.FEATURES`), with no token lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

Block = dict[str, np.ndarray]
OPEN_BLOCKS = 1_000  # blocks that best fit chooses among


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
                yield _one_span(row, bos, language)
    if stream:
        yield _one_span(np.array(stream, np.int64), bos, language)


def _one_span(tokens: np.ndarray, bos: int, language: int) -> Block:
    return {
        "tokens": np.concatenate([[bos], tokens]),
        "span_lengths": np.array([len(tokens) + 1]),
        "span_segments": np.array([1]),
        "span_languages": np.array([language]),
    }


def document_segments(
    documents: Iterable[list[list[int]]], length: int, bos: int, eos: int, language: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """Each document as a segment `<s> … </s>` of one span; one that is too long as several."""
    room = length - 2
    for batch in documents:
        for tokens in batch:
            for start in range(0, max(len(tokens), 1), room):
                yield [(language, [bos, *tokens[start : start + room], eos])]


def pair_segments(
    pairs: Iterable[list[tuple[list[int], list[int]]]], length: int, bos: int, eos: int, languages: tuple[int, int]
) -> Iterator[list[tuple[int, list[int]]]]:
    """Each sentence pair as a segment of two spans, whose positions both count from 0 (Conneau and Lample 2019).

    A pair that does not fit a block has the ends of its longer side, then of both, cut off.
    """
    room = length - 4
    for batch in pairs:
        for first, second in batch:
            half = room // 2
            long = max(half, room - min(len(first), len(second)))
            sides = (first[:long], second[:long]) if len(first) + len(second) > room else (first, second)
            yield [(language, [bos, *side, eos]) for language, side in zip(languages, sides, strict=True)]


def best_fit(segments: Iterable[list[tuple[int, list[int]]]], length: int) -> Iterator[Block]:
    """Pack segments into blocks, each into the fullest of the open blocks that has room.

    A block is closed when it is full, or when `OPEN_BLOCKS` others are open and it is the fullest.

    Args:
      segments: each a list of spans (language id, tokens), no longer than `length` in all.
    """
    # Room left → open blocks with it; bit r of `rooms` says that there is one with room r.
    open_blocks: dict[int, list[list[list[tuple[int, list[int]]]]]] = {}
    rooms, number = 0, 0

    def take(room: int) -> list[list[tuple[int, list[int]]]]:
        nonlocal rooms, number
        block = open_blocks[room].pop()
        number -= 1
        if not open_blocks[room]:
            rooms &= ~(1 << room)
        return block

    for segment in segments:
        need = sum(len(tokens) for _, tokens in segment)
        fitting = rooms >> need
        if fitting:
            room = need + (fitting & -fitting).bit_length() - 1  # the smallest room that is enough
            block = take(room)
        else:
            room, block = length, []
        block.append(segment)
        left = room - need
        if left < 4:  # nothing fits in less
            yield _spans(block)
            continue
        open_blocks.setdefault(left, []).append(block)
        rooms |= 1 << left
        number += 1
        if number > OPEN_BLOCKS:
            yield _spans(take((rooms & -rooms).bit_length() - 1))
    while rooms:
        yield _spans(take((rooms & -rooms).bit_length() - 1))


def _spans(block: list[list[tuple[int, list[int]]]]) -> Block:
    spans = [(number, language, tokens) for number, segment in enumerate(block, 1) for language, tokens in segment]
    return {
        "tokens": np.array([token for _, _, tokens in spans for token in tokens]),
        "span_lengths": np.array([len(tokens) for _, _, tokens in spans]),
        "span_segments": np.array([number for number, _, _ in spans]),
        "span_languages": np.array([language for _, language, _ in spans]),
    }
