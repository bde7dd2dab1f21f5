# SPDX-License-Identifier: Apache-2.0
"""New pieces after the old ones, whose ids stay.

Of each kind the new pieces are found and weighed so that they are used in the new languages and change little elsewhere:

- unigram: pieces of a model that SentencePiece trains on the new text, as the old vocabulary normalises it. Their scores, log
  probabilities in that text, are shifted by what the pieces that both models have differ on average; one that would lose
  to the old cut of itself is raised above it, and none is below the worst old one, by which <unk> is scored;
- BPE: the training goes on, from the text as the old merges leave it, and the new merges come after the old ones. (Merges of
  a vocabulary that is trained for itself would find pieces that the old ones have merged otherwise.);
- WordPiece: pieces of a vocabulary trained on the new text, which win where they are the longest.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from mlm_jax import config as cfg
from mlm_jax.adapt.merges import more_merges
from mlm_jax.adapt.pieces import SPACE, Pieces, changed, words
from mlm_jax.errors import UserError
from mlm_jax.prepare.vocabulary import train_sentencepiece, train_word_piece

STEP = 2**-7  # of scores, so that their sums are exact (`prepare.vocabulary.round_scores`)
UNKNOWN = 10.0  # by which a character without a piece scores less than the worst piece


def extend(old: Pieces, sentences: list[str], options: cfg.Vocabulary) -> Pieces:
    """The vocabulary with new pieces.

    Args:
      sentences: of the new languages.
      options: `size` is that of the vocabulary that is trained on them, of whose pieces the new ones are added; of BPE the number of
        merges.

    Raises:
      UserError: no vocabulary of this size can be made of the sentences, or it has no new piece.
    """
    everything = range(len(old.names))
    if old.kind == "BPE":
        characters = [(c, 0.0) for c in _characters(old, sentences, options.character_coverage)]
        base = changed(old, everything, characters) if characters else old
        merges = _merges(base, sentences, options.size)
        made = list(dict.fromkeys(base.merged(*pair) for pair in merges))
        added = [*characters, *((name, 0.0) for name in made if name not in base.ids)]
    else:
        merges = []
        added = (_scored if old.kind == "Unigram" else _longest)(old, sentences, options)
    if not added:
        raise UserError(
            f"vocabulary.size: a vocabulary of {options.size:,} pieces of this text has none that the old one lacks; raise it"
        )
    return changed(old, everything, added, merges)


def _normal(old: Pieces, sentences: list[str]) -> list[str]:
    """Sentences as the old vocabulary normalises them, with spaces."""
    normalizer = old.tokenizer.normalizer
    found = map(normalizer.normalize_str, sentences) if normalizer else iter(sentences)
    return [text for line in found if (text := line.replace(SPACE, " ").strip())]


def _scored(old: Pieces, sentences: list[str], options: cfg.Vocabulary) -> list[tuple[str, float]]:
    """New pieces of a unigram model, with scores on the old one's scale."""
    settings = dataclasses.replace(options, model="unigram", byte_fallback=False, normalization="identity")
    made_of: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    proto = made_of.ModelProto.FromString(train_sentencepiece(settings, _normal(old, sentences)))
    trained = {piece.piece: piece.score for piece in proto.pieces if piece.type == piece.NORMAL}
    scores = np.array([score for _, score in old.model["vocab"]])
    usual = scores[~old.fixed[: len(scores)]]
    worst, best = float(scores.min()), float(usual.max())
    shared = [name for name in trained if name in old.ids and not old.fixed[old.ids[name]]]
    shift = 0.0
    if shared:
        weights = np.exp([trained[name] for name in shared])
        shift = float(weights @ [scores[old.ids[name]] - trained[name] for name in shared] / weights.sum())

    def score(name: str) -> float:
        unknown = old.model["unk_id"]
        whole = sum(worst - UNKNOWN if i == unknown else scores[i] for i in old.cut(name))
        wanted = min(max(trained[name] + shift, worst, whole + STEP), best)
        return float(np.ceil(wanted / STEP) * STEP)

    return [(name, score(name)) for name in trained if name not in old.ids]


def _longest(old: Pieces, sentences: list[str], options: cfg.Vocabulary) -> list[tuple[str, float]]:
    """New pieces of WordPiece; as BERT writes them, and with the old one's mark of a continued word."""
    settings = dataclasses.replace(options, model="wordpiece", lowercase=False, normalization="")
    trained = json.loads(train_word_piece(settings, _normal(old, sentences)))
    special = {token["content"] for token in trained["added_tokens"]}
    names = [name for name in trained["model"]["vocab"] if name not in special]
    marked = [old.prefix + name[2:] if name.startswith("##") and len(name) > 2 else name for name in names]
    return [(name, 0.0) for name in marked if name not in old.ids]


def _characters(old: Pieces, sentences: list[str], coverage: float) -> list[str]:
    """The characters of the text that have no piece, the most frequent first, until this share of all is covered."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        for word in words(old, sentence):
            counts.update(word)
    found, covered = [], sum(n for c, n in counts.items() if c in old.ids)
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if character not in old.ids and covered < coverage * counts.total():
            found.append(character)
            covered += count
    return found


def _merges(base: Pieces, sentences: list[str], number: int) -> list[tuple[str, str]]:
    """The merges that go on from the old ones."""
    whole = Counter(word for sentence in sentences for word in words(base, sentence))
    model = base.tokenizer.model
    cut: Counter[tuple[str, ...]] = Counter()
    for word, count in whole.items():
        cut[tuple(token.value for token in model.tokenize(word))] += count
    barred = {base.names[i] for i in base.roles}
    spelling = base.model.get("byte_fallback")
    return more_merges(
        cut, number, base.merged, lambda name: name in barred or bool(spelling and name.startswith("<0x"))
    )
