# SPDX-License-Identifier: Apache-2.0
"""SentencePiece's character map (`precompiled_charsmap`) as a normaliser of the Hugging Face library, with the same result.

SentencePiece replaces, from left to right, the longest sequence of characters that its map has. The library's own
`Precompiled` takes the shortest, of a whole grapheme, and drops the rest of it: of "e" with two marks it keeps one.
Here the map is asked for single characters only; sequences are Unicode's canonical compositions, which NFC makes. A
barrier, a character that no text has, stands wherever the map joins nothing, so that NFC neither joins nor reorders there.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Regex, normalizers

BARRIER = "\ufff0"  # never assigned, and a control to Unicode's rules of graphemes, so that it ends one
STAND_INS = 0x10F000  # the first of the private characters that stand for a result on its way past the map
MOST_STAND_INS = 1_000
MOST_KEYS = 300_000  # of one length; SentencePiece's own rules have 201,755
LONGEST_RESULT = 1_000  # bytes that one rule makes
# What may join the character before it into a grapheme, or the one after it.
_JOINING = (
    r"\r\p{M}\p{Cf}\p{Sk}\u0E33\u0EB3\uFF9E\uFF9F\u1100-\u11FF\uA960-\uA97F\uD7B0-\uD7FF\U0001F1E6-\U0001F1FF"
    r"\x{16D40}-\x{16D7F}"
)


@cache
def read_map(precompiled: bytes) -> dict[str, str]:
    """Every rule of a compiled map: characters → what replaces them.

    Args:
      precompiled: as SentencePiece stores it: the length of a double-array trie, the trie (darts-clone's, in 4-byte
        units), and the replacements, each ended by a zero byte.

    Raises:
      ValueError: it is damaged.
    """
    if len(precompiled) < 4:
        raise ValueError("a normalisation map that is cut off")
    (length,) = struct.unpack("<I", precompiled[:4])
    if length % 4 or not length <= len(precompiled) - 4:
        raise ValueError("a normalisation map that is cut off")
    units = np.frombuffer(precompiled[4 : 4 + length], "<u4").astype(np.int64)
    replacements = precompiled[4 + length :]
    label = units & 0x800000FF
    offset = (units >> 10) << ((units & (1 << 9)) >> 6)
    rules = {}
    labels = np.arange(1, 256)
    nodes, keys, seen = offset[:1], [b""], 0
    while len(nodes):
        children = nodes[:, None] ^ labels
        children[children >= len(units)] = 0
        parent, byte = np.nonzero(label[children] == labels)
        found = children[parent, byte]
        keys = [keys[p] + bytes((b + 1,)) for p, b in zip(parent.tolist(), byte.tolist(), strict=True)]
        nodes = found ^ offset[found]
        ends = np.flatnonzero((units[found] >> 8) & 1)
        seen += len(found)
        if len(found) > MOST_KEYS or seen > 5 * MOST_KEYS or (nodes[ends] >= len(units)).any():
            raise ValueError("a normalisation map that is damaged")
        for i, start in zip(ends.tolist(), (units[nodes[ends]] & 0x7FFFFFFF).tolist(), strict=True):
            rules[keys[i].decode()] = replacements[
                start : replacements.index(b"\0", start, start + LONGEST_RESULT)
            ].decode()
    return rules


@cache
def map_steps(precompiled: bytes) -> list[Any]:
    """Normalisers that do together what SentencePiece does with a compiled map.

    Raises:
      ValueError: the map has more sequences that are no canonical compositions than can be written.
    """
    rules = read_map(precompiled)
    sequences = {key: value for key, value in rules.items() if len(key) > 1}
    compose = normalizers.NFC().normalize_str
    # Sequences as they are after single characters were mapped.
    mapped = {key: "".join(rules.get(c, c) for c in key) for key in sequences}
    composed = {m for m in mapped.values() if m in sequences and compose(m) == sequences[m] and mapped[m] == m}
    composed -= {key for key in composed if len(key) > 2 and key[:-1] not in composed}
    other: dict[tuple[int, str], list[str]] = defaultdict(list)
    for key, value in sequences.items():
        if mapped[key] not in composed or sequences[mapped[key]] != value:
            other[len(key), value].append(key)
    if len(other) > MOST_STAND_INS:
        raise ValueError(f"{len(other):,} normalisation rules for sequences that are not Unicode's compositions")
    steps: list[Any] = []
    back: list[Any] = []
    for number, ((_, value), keys) in enumerate(sorted(other.items(), reverse=True)):
        pattern = keys[0] if len(keys) == 1 else Regex("|".join(map(re.escape, keys)))
        steps.append(normalizers.Replace(pattern, chr(STAND_INS + number)))
        back.append(normalizers.Replace(chr(STAND_INS + number), value))
    # A second barrier where no single one may be taken away: beside what becomes none or several characters, and between
    # two that are no sequence though what they become is one.
    uneven = _class(key for key, value in rules.items() if len(key) == 1 and len(value) != 1)
    pairs: dict[str, set[str]] = defaultdict(set)
    for key in composed:
        pairs[key[0]].add(key[1])
    apart: dict[frozenset[str], list[str]] = defaultdict(list)
    for key, value in rules.items():
        if len(key) == 1 and (marks := frozenset(m for m in pairs.get(value, ()) if key + m not in sequences)):
            apart[marks].append(key)
    second = [rf"(?<={uneven})(?=[\s\S])|(?<=[\s\S])(?={uneven})"] if uneven else []
    second += [f"(?<={_class(keys)})(?={_class(marks)})" for marks, keys in apart.items()]
    if composed and second:
        steps.append(normalizers.Replace(Regex("|".join(sorted(second))), BARRIER))
    any_joining = rf"(?<=[{_JOINING}])(?=[\s\S])|(?<=[\s\S])(?=[{_JOINING}])"
    steps.append(normalizers.Replace(Regex(any_joining), BARRIER))
    steps.append(normalizers.Precompiled(precompiled))
    if composed:
        steps += [normalizers.Replace(_joins(keys), "") for keys in _by_length(composed)]
        steps.append(normalizers.NFC())
    return [*steps, normalizers.Replace(BARRIER, ""), *back]


def _by_length(keys: Iterable[str]) -> list[list[str]]:
    found = defaultdict(list)
    for key in keys:
        found[len(key)].append(key)
    return [found[length] for length in sorted(found)]


def _joins(keys: list[str]) -> Regex:
    """The barriers before the last characters of sequences of one length."""
    before: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        before[key[-1]].add(key[:-1])
    last: dict[frozenset[str], list[str]] = defaultdict(list)
    for character, prefixes in before.items():
        last[frozenset(prefixes)].append(character)
    parts = []
    for alike_before, characters in last.items():
        alike: dict[str, list[str]] = defaultdict(list)
        for prefix in alike_before:
            alike[prefix[1:]].append(prefix[0])
        behind = "|".join(f"{_class(firsts)}{re.escape(rest)}{BARRIER}" for rest, firsts in sorted(alike.items()))
        parts.append(f"(?={_class(characters)})(?<={behind})")
    return Regex(f"{BARRIER}(?:{'|'.join(sorted(parts))})")


def _class(characters: Iterable[str]) -> str:
    """A regular expression's class of characters, in ranges; "" for none."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    inside = "".join(f"\\x{{{a:X}}}" + (f"-\\x{{{b:X}}}" if b > a else "") for a, b in ranges)
    return f"[{inside}]" if inside else ""
