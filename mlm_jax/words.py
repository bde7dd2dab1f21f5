# SPDX-License-Identifier: Apache-2.0
"""What a word is, told from the pieces: two classes per id, by which masking finds where words begin.

Where a script puts spaces between words, a piece that carries the tokenizer's mark of one ("▁", "Ġ", no "##") begins a
word, and the pieces up to the next mark go on with it. Where it puts none, a word is

- one piece, in Han (of Chinese and Japanese), Thai, Lao, Khmer, Burmese, Tibetan, and the others of `EACH_PIECE`: there the
  tokenizer has found the only units there are (the unigram model's are the nearest to words);
- a run of pieces in Hiragana, or in Katakana;

and a change from one of these scripts to another, or to or from one with spaces (digits count as that; CJK punctuation stands
alone), begins a word too. No word begins at a combining mark, at the middle bytes of a character, or after half a syllable.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right

# Of a piece's first character: START begins a word wherever it stands, JOIN never does; of its last: END is followed by a
# word's beginning, OPEN never is. Between them, scripts: SPACED, HIRAGANA and KATAKANA go on with their own kind; after a
# JOIN whose script the piece does not tell, all go on but PIECE, of which each piece is a word.
SPACED, HIRAGANA, KATAKANA, PIECE, JOIN, START, END, OPEN = range(8)

# Blocks (The Unicode Standard 16.0, Blocks.txt) of scripts that are written without spaces between words.
EACH_PIECE = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan (Dzongkha)
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x2FDF),  # CJK and Kangxi radicals
    (0x3000, 0x3030),  # CJK punctuation and numerals
    (0x3105, 0x312F),  # Bopomofo
    (0x31A0, 0x31BF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF01, 0xFF0F),  # full-width punctuation
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65),
    (0x11700, 0x1174F),  # Ahom
    (0x17000, 0x18DFF),  # Tangut, Khitan
    (0x1B170, 0x1B2FF),  # Nushu
    (0x20000, 0x323AF),  # Han
)
RUNS = {
    HIRAGANA: ((0x3041, 0x3098), (0x309D, 0x309F), (0x1B001, 0x1B11F), (0x1B150, 0x1B152)),
    KATAKANA: ((0x30A1, 0x30FA), (0x30FD, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D), (0x1B164, 0x1B167)),
}
_RANGES = sorted(
    [(*block, PIECE) for block in EACH_PIECE] + [(*run, script) for script, runs in RUNS.items() for run in runs]
)
_BEGINS = [begin for begin, _, _ in _RANGES]

# Letters by category that never begin a word: the vowels of Thai and Lao after their consonant, repetition and length marks.
JOINING = frozenset(
    "\u0e30\u0e32\u0e33\u0e45\u0e46\u0eb0\u0eb2\u0eb3\u0ec6\u3005\u303b\u30fc\uff70\uff9e\uff9f\u200c\u200d"
)
# Half a syllable: vowels of Thai and Lao before their consonant, and signs that put the next consonant below this one.
OPENING = frozenset("\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4\u1039\u17d2\u1a60")

# The byte-level alphabet (Radford et al. 2019): printable Latin-1 stands for itself, other bytes for what follows U+0100.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE = {chr(b): b for b in _PRINTABLE}
_BYTE |= {chr(0x100 + i): b for i, b in enumerate(b for b in range(256) if b not in set(_PRINTABLE))}


def _block(character: str) -> int:
    """`SPACED`, `HIRAGANA`, `KATAKANA` or `PIECE`."""
    code = ord(character)
    place = bisect_right(_BEGINS, code) - 1
    return _RANGES[place][2] if place >= 0 and code <= _RANGES[place][1] else SPACED


def _joins(character: str) -> bool:
    return character in JOINING or unicodedata.category(character)[0] == "M"


def classes_of_piece(piece: str, marked: bool, byte_level: bool = False) -> tuple[int, int]:
    """The classes of a piece's first and last character.

    Args:
      piece: as the tokenizer spells it: with "▁", "##", "<0xE3>", or in the byte-level alphabet.
      marked: whether it carries the tokenizer's mark of a word's beginning.
      byte_level: whether its characters stand for bytes.
    """
    if byte_level and all(c in _BYTE for c in piece):
        content = bytes(_BYTE[c] for c in piece)
    elif re.fullmatch("<0x[0-9A-F]{2}>", piece):
        content = bytes([int(piece[3:5], 16)])
    else:
        content = (piece[2:] if len(piece) > 2 and piece.startswith("##") else piece).replace("\u2581", " ").encode()
    text = content.decode(errors="ignore")
    if not text:  # part of a character: a lead byte says its script well enough, any other goes on
        first = JOIN if not content or 0x80 <= content[0] < 0xC0 else PIECE if 0xE4 <= content[0] < 0xEA else SPACED
        return (START if marked else first), (JOIN if first != PIECE else PIECE)
    inside = 0x80 <= content[0] < 0xC0  # the end of a character that another piece began
    first = START if marked or text[0].isspace() else JOIN if inside or _joins(text[0]) else _block(text[0])
    if text[-1].isspace() and text.strip():
        return first, END  # a model that marks where words end
    if text[-1].isspace() and text[-1] != " ":
        return first, END  # a line break
    if text[-1] == " " or text[-1] in OPENING:
        return first, OPEN
    # Marks of one script say which; others are in a word of any.
    last = next((_block(c) for c in reversed(text) if _block(c) != SPACED or not _joins(c)), JOIN)
    return first, last
