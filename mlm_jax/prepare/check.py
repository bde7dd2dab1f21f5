# SPDX-License-Identifier: Apache-2.0
"""What is wrong, or odd, with a corpus: refused before it is used, or said."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console, coverage
from mlm_jax.errors import UserError
from mlm_jax.manifest import Stream
from mlm_jax.prepare.slices import Slice
from mlm_jax.prepare.sources import first_texts
from mlm_jax.prepare.tally import Tally, read_back
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.vocabulary import Vocabulary

FIRST_LOOK = 100  # documents of each language
SWAPPED = 0.2  # nats per character, by which both sides of pairs must be nearer to the other's language
SWAPPED_SAMPLE, SWAPPED_MOST = 1_000, 50_000  # characters that are looked at, at least and at most
ADAPT = "give an encoder that is there the pieces for it (mlm-jax adapt)"
NAMED = 10  # languages in a message, the worst first


def refuse_too_small(config: cfg.Config, streams: Sequence[Stream]) -> None:
    """Refuse the streams whose training text does not fill one block, all of them at once.

    Raises:
      UserError: naming each, and what to do.
    """
    length = config.data.sequence_length
    small = [stream for stream in streams if stream.train.tokens < length]
    if not small:
        return
    each = [
        f"language {s.name}: {s.train.documents:,} training documents hold {s.train.tokens:,} tokens"
        f"{f' ({held:,} are held out)' if (held := s.validation.documents + s.train.left_out) else ''}"
        for s in small
    ]
    them = "it" if len(small) == 1 else "them"
    advice = f"give {them} more text, drop {them} from data.sources or data.parallel, or lower data.sequence_length"
    raise UserError(f"{_listed(each)}, fewer than one block of {length}; {advice} (what is prepared is kept)")


def first_look(
    languages: Mapping[str, Sequence[Slice[cfg.Source]]], words: Vocabulary, folder: epath.Path
) -> dict[str, tuple[float, str]]:
    """What share of each language's first documents the vocabulary cannot write, and which characters.

    Args:
      folder: of the vocabulary.
    """
    tokenizer = load_tokenizer(folder)
    found = {}
    for language, slices in languages.items():
        texts = first_texts(slices[0])[:FIRST_LOOK]
        tokens, tally = tokenizer.encode(texts), Tally()
        read_back(tokenizer, words, texts, tokens, tally)
        ids = [token for document in tokens for token in document]
        share = coverage.unknown_share(ids.count(words.unk), len(ids), tally.lost.total(), tally.characters)
        if texts and not ids:  # nothing but what normalisation drops
            share = 1.0
        found[language] = (share, coverage.in_words(tally.lost))
    return found


def refuse_swapped(
    languages: Mapping[str, Sequence[Slice[cfg.Source]]], pairs: Mapping[tuple[str, str], Sequence[Slice[cfg.Parallel]]]
) -> None:
    """Refuse pairs whose sides are each the other's language, by the characters that stand together in the languages' own text.

    Raises:
      UserError: with the order to write.
    """
    profiles: dict[str, Counter[str]] = {}
    for pair, slices in pairs.items():
        if not all(name in languages for name in pair) or cfg.is_named(slices[0].paths[0]):
            continue
        for name in pair:
            if name not in profiles:
                profiles[name] = _together(first_texts(languages[name][0]))
        sample = first_texts(slices[0])
        sides = [_together([sides[i] for sides in sample]) for i in (0, 1)]
        found = [[_likelihood(side, profiles[name]) for name in pair] for side in sides]
        enough = min(side.total() for side in sides) >= SWAPPED_SAMPLE
        if enough and found[0][1] > found[0][0] + SWAPPED and found[1][0] > found[1][1] + SWAPPED:
            first, second = pair
            raise UserError(
                f"data.parallel: {' and '.join(slices[0].paths)}: the sentences of {first} read like the text of {second}, and "
                f'those of {second} like the text of {first}; turn them round: Parallel(("{second}", "{first}"), ...)'
            )


def _together(texts: Sequence[str]) -> Counter[str]:
    """How often which two characters stand together, in the first `SWAPPED_MOST` characters."""
    text = "\n".join(texts[:SWAPPED_MOST])[:SWAPPED_MOST].casefold()
    return Counter(map("".join, itertools.pairwise(text)))


def _likelihood(counts: Counter[str], profile: Counter[str]) -> float:
    """The mean logarithm of the add-one smoothed share that a profile gives to what was counted."""
    total = profile.total() + len(profile | counts)
    return sum(n * math.log((profile[key] + 1) / total) for key, n in counts.items()) / max(counts.total(), 1)


def refuse_unknown(unknown: Mapping[str, tuple[float, str]], most: float) -> None:
    """Refuse languages of which the vocabulary cannot write enough.

    Args:
      unknown: language → share of its text, and characters of it.
      most: `config.Vocabulary.most_unknown`; at 1 none is refused.

    Raises:
      UserError: naming each, and what to do.
    """
    refused = {name: found for name, found in unknown.items() if most < 1 and found[0] >= most}
    if refused:
        raise UserError(
            f"the vocabulary cannot write the text of {_listed(list(_in_words(refused)))}; take one that knows the script, "
            f"{ADAPT}, drop the language from data.sources, or set vocabulary.most_unknown to 1 to train on what is left of it"
        )


def warn(streams: Sequence[Stream]) -> None:
    """Say what of a corpus is odd, a line for each kind."""
    unknown = {s.name: (s.train.unknown, s.train.lost) for s in streams if s.train.unknown >= coverage.UNKNOWN}
    if unknown:
        console.warn(
            f"the vocabulary cannot write all text of {_listed(list(_in_words(unknown)))}; sampling rates, the unigram baseline "
            f"and losses are of what is left, and bits per byte are not given; {ADAPT}"
        )
    left_out = [
        f"{s.name} {s.train.left_out:,} of {s.train.left_out + s.train.documents:,}"
        f"{f' and {s.train.sentences_left_out:,} sentences of others' if s.train.sentences_left_out else ''}"
        for s in streams
        if s.train.left_out or s.train.sentences_left_out
    ]
    if left_out:
        console.say(f"left out of training, because held out elsewhere: {_listed(left_out)}")
    unpaired = [(s.train.unpaired / max(s.train.tokens, 1), s.name) for s in streams if s.train.unpaired]
    if unpaired:
        shares = [f"{name} {100 * share:.1f} %" for share, name in sorted(unpaired, reverse=True)]
        console.say(
            f"next_sentence: of the tokens, in blocks without a pair, because their sentences have no neighbour: {_listed(shares)}"
        )
    cut = [f"{s.name} {s.train.cut:,} of {s.train.documents:,} pairs" for s in streams if s.train.cut]
    if cut:
        console.say(f"texts that lost their end, to fit data.sequence_length with their pair: {_listed(cut)}")
    in_no_block = [f"{s.name} {s.train.in_no_block:,} of {s.train.documents:,}" for s in streams if s.train.in_no_block]
    if in_no_block:
        console.warn(
            f"documents of which the vocabulary leaves no token, so that no block holds them: {_listed(in_no_block)}"
        )
    empty = [s.name for s in streams if not s.validation.documents]
    if empty:
        console.warn(
            f"nothing is held out of {_listed(empty)}, so its loss will not be known: raise data.validation_fraction, or name "
            "a file in Source.validation"
        )


def _in_words(unknown: Mapping[str, tuple[float, str]]) -> Iterator[str]:
    for name, (share, lost) in sorted(unknown.items(), key=lambda item: -item[1][0]):
        yield f"{name} ({100 * share:.1f} %{f': {lost}' if lost else ''})"


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:NAMED]) + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")
