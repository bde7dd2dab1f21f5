# SPDX-License-Identifier: Apache-2.0
"""Whether an exported tokenizer cuts text as the vocabulary did that the encoder was trained with."""

from __future__ import annotations

import contextlib
import itertools
import unicodedata
from collections.abc import Iterable, Iterator

import tokenizers
from etils import epath

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.input.blocks import Blocks
from mlm_jax.manifest import read_manifest
from mlm_jax.tokenizers import from_library, load_json, load_pieces, load_tokenizer
from mlm_jax.vocabulary import Vocabulary

LINES = 4_000
LONGEST = 400  # characters of a line that is shown
# What tokenizers are known to disagree on, and a sentence in each of many scripts.
ODD = (
    "", " ", "  two  spaces ", "a\tb\nc\r\nd", "\u3000wide\u3000", "no\u00a0break", "zero\u200bwidth", "soft\u00adhyphen", "\ufeffmark",
    "\u2581", "\u2581\u2581 a \u2581", "<0x41>", "<s> a </s><mask><unk><pad>", "[CLS] a [SEP][MASK][UNK][PAD]", "\x01a\x7fb",
    "a" * 300, "ababababab bababa aaaa aaa", "lllll ssss ...... ----", "12345 6,789.10 1\u00bd \u2460\u2461 \uff11\uff12",
    "\ufb01 \ufb03 \u01c6 \u0130i I\u0131 \u1e9e\u00df \u03c3\u03c2", "E\u0301 e\u0302\u0301 \u1ecd\u0301 o\u0323\u0301 q\u0307\u0323 a\u0303\u0300b",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd \u2764\ufe0f", "\U0010ffff\ue000",
    "All human beings are born free.", "Tous les êtres humains naissent libres; ça va, Noël ?", "Größe, Übermut und Straße", "Zażółć gęślą jaźń",
    "Tất cả mọi người sinh ra đều được tự do", "Ọ̀kàn lára àwọn ènìyàn ní ẹ̀tọ́", "İstanbul'da ışık", "Všichni lidé rodí se svobodní",
    "Все люди рождаются свободными; ё й", "Усі люди народжуються вільними її", "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι ᾳ ᾧ",
    "Բոլոր մարդիկ ծնվում են ազատ", "ყველა ადამიანი იბადება თავისუფალი", "כָּל בְּנֵי אָדָם נוֹלְדוּ", "يولد جميع الناس أحرارًا عدِّل ﷺ", "می‌خواهم آزاد باشم",
    "सभी मनुष्य जन्म से स्वतंत्र हैं क़ ज़", "সব মানুষ মোট স্বাধীন হয়ে জন্মায়", "ਸਾਰੇ ਮਨੁੱਖ ਅਜ਼ਾਦ", "બધા મનુષ્યો", "ସମସ୍ତ ମଣିଷ", "மனிதர்கள் சுதந்திரமாகவே பிறக்கின்றனர் கொ",
    "మానవులందరు స్వేచ్ఛగా", "ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿ", "മനുഷ്യരെല്ലാവരും സ്വതന്ത്രരായി", "සියලු මනුෂ්‍යයෝ නිදහස්ව ශ්‍රී ලංකාව", "มนุษย์ทั้งหลายเกิดมามีอิสระ น้ำ",
    "ມະນຸດທຸກຄົນເກີດມາມີສິດ ນ້ຳ", "လူတိုင်းသည် တူညီလွတ်လပ်သော", "មនុស្សទាំងអស់កើតមកមានសេរីភាព", "འགྲོ་བ་མི་རིགས་ཡོངས་ལ་", "የሰው ልጅ ሁሉ ሲወለድ ነጻ ነው",
    "人人生而自由，在尊严和权利上一律平等。", "すべての人間は、生まれながらにして自由である。ｶﾞｷﾞ ガ", "모든 인간은 태어날 때부터 자유로우며 ㄱㄴ ᄀᆞᆨ", "Бүх хүн эрх чөлөөтэй төрнө",
)  # fmt: skip


def check_agreement(
    vocabulary: epath.Path,
    exported: tokenizers.Tokenizer,
    lines: Iterable[str],
    where: str,
    why: str = "",
    most: int = 0,
) -> int:
    """Encode lines with a `vocabulary/` folder's tokenizer and with an exported one, without specials.

    Args:
      most: lines that may differ, which is then said.
      where, why: for the message: what was exported, and a reason that is known beforehand.

    Returns:
      How many lines were compared: these, those of `ODD`, and all of them with their characters taken apart (NFD).

    Raises:
      UserError: they differ; shows the first line that does.
    """
    texts = [*ODD, *lines]
    texts += [apart for text in texts if (apart := unicodedata.normalize("NFD", text)) != text]
    ours, theirs = load_tokenizer(vocabulary), from_library(exported)
    said, count = "", 0
    for begin in range(0, len(texts), 500):
        batch = texts[begin : begin + 500]
        for text, a, b in zip(batch, ours.encode(batch), theirs.encode(batch), strict=True):
            if a == b:
                continue
            count += 1
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            said = said or (
                f"{where}: cuts the line {text[:LONGEST]!r} otherwise than the vocabulary that was trained with, from its token "
                f"{at} on: {_names(b[at : at + 3], theirs.pieces)}, not {_names(a[at : at + 3], ours.pieces)}{why}; "
            )
    said += f"{count:,} of {len(texts):,} lines differ"
    if count > most:
        raise UserError(
            f"{said}; nothing was exported, because the encoder would read other tokens than it learned; use the workdir itself "
            f"(predict, evaluate, finetune), a vocabulary of another kind, or, if so few do not matter, --differing {count}"
        )
    if count:
        console.warn(said)
    return len(texts)


def _names(ids: list[int], pieces: tuple[str, ...]) -> str:
    return " ".join(pieces[i] for i in ids) or "the end"


def corpus_lines(workdir: epath.Path, vocabulary: Vocabulary, most: int = LINES) -> list[str]:
    """Lines of a run's corpus, as its blocks have them, alike many of every stream; none of what is not there."""
    corpus = workdir / "corpus"
    if not (corpus / "manifest.json").exists():
        return []
    prepared = read_manifest(corpus)
    path = workdir / "vocabulary" / vocabulary.file
    decode = load_pieces(path).decode if path.suffix == ".model" else load_json(path).decode_batch
    each = -(-most // max(1, len(prepared.streams)))
    found: list[str] = []
    for stream in prepared.streams:
        runs: list[list[int]] = []
        # A corpus may have been removed when the training was over.
        with contextlib.suppress(UserError):
            blocks = Blocks(corpus, stream.name, stream.train.shards, prepared.sequence_length, vocabulary.pad)
            runs = list(itertools.islice(_runs(blocks, frozenset(vocabulary.special_ids)), each))
        texts: list[str] = decode(runs) if runs else []
        found += [line for text in texts for line in text.split("\n") if line]
    return found


def _runs(blocks: Blocks, special: frozenset[int]) -> Iterator[list[int]]:
    """The tokens between specials, of blocks from all over a stream."""
    step = max(1, len(blocks) // 64)
    for start in range(step):
        for number in range(start, len(blocks), step):
            tokens = blocks[number]["tokens"].tolist()
            for is_special, run in itertools.groupby(tokens, special.__contains__):
                if not is_special:
                    yield list(run)
