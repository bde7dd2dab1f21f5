# SPDX-License-Identifier: Apache-2.0
"""Documents → blocks of two sentences for next-sentence prediction (Devlin et al. 2019, section A.1)."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator

from mlm_jax.prepare.packing import Block, Span, best_fit, to_block
from mlm_jax.prepare.tally import Tally

SHORT_SHARE = 0.1  # of the blocks are made short, so that the model sees blocks that are not full
MOST_LEAD = 8  # random pairs that there may be more than real ones
PACKED = 1_000  # blocks' tokens of sentences without a pair that are packed together

# Characters with the property Sentence_Terminal (The Unicode Standard 17.0, PropList.txt), in two parts: those that end a
# sentence where white space follows, because abbreviations, numbers or names have them too, and those that always do.
_BEFORE_SPACE = (
    "!.?\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u2024\u203c\u203d\u2047-\u2049\u2e2e\u2e3c"
    "\u2e53\u2e54\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ufe52\ufe56\ufe57\uff0e"
)
_ALWAYS = (
    "\u0964\u0965\u104a\u104b\u1362\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u1803\u1809\u1944\u1945\u1aa8-\u1aab"
    "\u1b4e\u1b4f\u1b5a\u1b5b\u1b5e\u1b5f\u1b7d-\u1b7f\u1c3b\u1c3c\u1c7e\u1c7f\u2cf9-\u2cfb\u2e60\u2e61\u3002\ua876\ua877"
    "\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb\ufe12\ufe15\ufe16\uff01\uff1f\uff61"
    "\U00010a56\U00010a57\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047\U00011048\U000110be-\U000110c1"
    "\U00011141-\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df\U00011238\U00011239\U0001123b\U0001123c"
    "\U000112a9\U000113d4\U000113d5\U0001144b\U0001144c\U000115c2\U000115c3\U000115c9-\U000115d7\U00011641\U00011642"
    "\U0001173c-\U0001173e\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42\U00011ef7"
    "\U00011ef8\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U00016d6e\U00016d6f"
    "\U00016e98\U0001bc9f\U0001da88"
    # Without the property: Tibetan shads, Thai, Sinhala and Khmer signs at the end of a passage, Hebrew sof pasuq, and a
    # Bengali numerator that is typed for a danda.
    "\u0f0d-\u0f12\u0e5a\u0e5b\u0df4\u17da\u05c3\u09f7"
)
_CLOSING = "\"'\u2019\u201d\u201c\u00bb\u00ab\u203a)\\]}\u300d\u300f\uff09\u3011\u300b\u3009\u3015"
_END = re.compile(
    f"[{_BEFORE_SPACE}]+[{_CLOSING}]*(?:[\u00a0\u202f][\u00bb\u203a\u201d])?(?=\\s)"
    f"|[!?]+[{_CLOSING}]*(?=[^\\W\\d_A-Za-z])"  # and a letter of another script, without a space
    f"|[{_ALWAYS}](?:\\s*[{_ALWAYS}])*[{_CLOSING}]*"
)
# Typed for what a keyboard lacks: bars for dandas, Ethiopic two word spaces or colons, the Armenian colon, the Greek question
# mark. Apart, because a pattern that begins with a set of characters is searched for five times as fast.
_TYPED = re.compile(
    "(?<=[\u0900-\u0d7f])\\s?[|]+(?=\\s)"
    "|(?<=[\u1200-\u137f])(?:\u1361\\s?\u1361|::)|(?<=[\u0531-\u0587]):(?=\\s)|(?<=[\u0370-\u03ff\u1f00-\u1fff])[;\u037e](?=\\s)"
)
_MAYBE_TYPED = re.compile("[|:;\u1361\u037e]")
# Thai and Lao put a space after a sentence, and after some phrases; not around repetition and abbreviation marks or numbers.
_SPACE = re.compile(
    "(?<=[\u0e01-\u0e2e\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u0e81-\u0eae\u0eb0-\u0ebd\u0ec8-\u0ece])"
    " +(?=[\u0e01-\u0e2e\u0e40-\u0e44\u0e81-\u0eae\u0ec0-\u0ec4\u0edc-\u0edf])"
)


def sentences(document: str, spaces: bool = True) -> list[str]:
    """A document's lines; of a document of one line, what stands between the marks that end sentences, in any script.

    Args:
      spaces: Thai and Lao are cut at spaces, their only marks, though some stand within a sentence.
    """
    lines = [line for line in document.splitlines() if line.strip()]
    if len(lines) > 1:
        return lines
    ends = [found.end() for found in _END.finditer(document)]
    if not document.isascii():
        ends += [found.end() for found in _TYPED.finditer(document)] if _MAYBE_TYPED.search(document) else []
    if spaces and not document.isascii():
        ends += [found.start() for found in _SPACE.finditer(document)]
    cuts = [0, *sorted(ends), len(document)]
    parts = (document[a:b].strip() for a, b in itertools.pairwise(cuts))
    return [part for part in parts if part]


def sentence_pairs(
    batches: Iterable[list[list[list[int]]]],
    length: int,
    bos: int,
    eos: int,
    language: int,
    seed: str,
    tally: Tally | None = None,
) -> Iterator[Block]:
    """`<s> A </s> B </s>`, where B follows A in the text (label 0) or comes from another document (label 1), half each.

    Sentences are gathered while they fit a block; A ends after a random one of them. A random B begins at a random
    sentence of a random other document of the batch, and the sentences that it displaces are used for the next block.

    Unlike the original, which gathers one sentence more and cuts off what is too much, no token is lost: a sentence of over
    half a block is cut into parts. Its lone sentences, the only one of a document or the last, are A's of a random B; that
    keeps all, and makes nearly all pairs random ones where documents are short. Here that holds while random pairs do
    not outnumber the others, which are drawn to keep the balance; after that lone sentences are packed as documents
    are (`packing.best_fit`), without a label.

    Args:
      batches: of documents, each a list of sentences of token ids, all of one language.
      length: tokens in a block.
      seed: names the text, so that the pairs are the same whoever makes them.
      tally: gets documents without a token, and the tokens of sentences without a pair.
    """
    rng, tally = random.Random(seed), tally or Tally()
    room = length - 3
    lead = 0  # how many more pairs are random than real
    alone: list[list[Span]] = []
    others: list[list[list[int]]] = []
    for batch in batches:
        cut_up = [[part for sentence in document for part in _parts(sentence, room // 2)] for document in batch]
        documents = [document for document in cut_up if document]
        tally.in_no_block += len(batch) - len(documents)
        for number, document in enumerate(documents):
            place = 0
            while place < len(document):
                target = rng.randint(2, room) if rng.random() < SHORT_SHARE else room
                end, size = place, 0
                while end < len(document) and (size + len(document[end]) <= target or end - place < 2):
                    size += len(document[end])
                    end += 1
                is_lone = end - place < 2
                source = _another(documents, number, others, rng)
                if is_lone and (source is None or lead >= MOST_LEAD):
                    alone.append([Span(language, [bos, *document[place], eos])])
                    tally.unpaired += len(document[place])
                    place = end
                    continue
                is_random = is_lone or (source is not None and rng.random() < 0.5 - lead / (2 * MOST_LEAD))
                cut = end if is_lone else rng.randint(place + 1, end - 1)
                first = _join(document[place:cut])
                if is_random:
                    assert source is not None
                    second = _from_random_place(source, target - len(first), room - len(first), rng)
                    place = cut
                else:
                    second = _join(document[cut:end])
                    place = end
                lead += 1 if is_random else -1
                spans = [Span(language, [bos, *first, eos])]
                spans.append(Span(language, [*second, eos], type=1, position=len(first) + 2))
                yield to_block([spans], next_sentence=int(is_random))
        others = documents or others
        if sum(len(span.tokens) for segment in alone for span in segment) > PACKED * length:
            yield from best_fit(alone, length)
            alone = []
    yield from best_fit(alone, length)


def _join(parts: list[list[int]]) -> list[int]:
    return [token for part in parts for token in part]


def _parts(sentence: list[int], most: int) -> list[list[int]]:
    """A sentence of token ids in parts of at most `most`, as even as can be."""
    number = -(-len(sentence) // most)
    cuts = [len(sentence) * i // number for i in range(number + 1)] if number else []
    return [sentence[a:b] for a, b in itertools.pairwise(cuts)]


def _another(
    documents: list[list[list[int]]], number: int, others: list[list[list[int]]], rng: random.Random
) -> list[list[int]] | None:
    """Another document than the `number`th: of this batch, or where it has no other, of the last."""
    if len(documents) > 1:
        other = rng.randrange(len(documents) - 1)
        return documents[other + (other >= number)]
    return others[rng.randrange(len(others))] if others else None


def _from_random_place(document: list[list[int]], target: int, most: int, rng: random.Random) -> list[int]:
    """Sentences from a random one on, as many as fit `target` tokens, at least one; no more than `most` of its tokens."""
    start = rng.randrange(len(document))
    found: list[int] = []
    for sentence in document[start:]:
        if found and len(found) + len(sentence) > target:
            break
        found += sentence
    return found[:most]
