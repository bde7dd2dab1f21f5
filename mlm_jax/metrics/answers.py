# SPDX-License-Identifier: Apache-2.0
"""F1 and exact match of answers: SQuAD's rules, and MLQA's, which know languages (Lewis et al. 2020, section 4)."""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence

from mlm_jax.errors import UserError

SQUAD_PUNCTUATION = frozenset(string.punctuation)
ALL_PUNCTUATION = (
    frozenset(chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P")) | SQUAD_PUNCTUATION
)

ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": r"\sال^|ال",
}
CJK = re.compile("[\u4e00-\u9fa5]")


def normalize(text: str, language: str = "", rules: str = "squad") -> list[str]:
    """An answer's words, as they are compared.

    Args:
      language: of the answer.
      rules: squad: English articles and ASCII punctuation go, whatever the language (SQuAD 1.1; XQuAD); mlqa: all of
        Unicode's punctuation and the language's own articles do, and Chinese is compared by character.
    """
    text = text.lower()
    if rules == "squad":
        text = "".join(c for c in text if c not in SQUAD_PUNCTUATION)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()
    text = "".join(c for c in text if c not in ALL_PUNCTUATION)
    if language in ARTICLES:
        text = re.sub(ARTICLES[language], " ", text)
    if language == "zh":
        return [word for part in text.split() for word in _characters(part)]
    return text.split()


def _characters(text: str) -> list[str]:
    """Runs of other writing whole, and each CJK character apart."""
    out, run = [], ""
    for c in text:
        if CJK.match(c):
            if run:
                out.append(run)
            out.append(c)
            run = ""
        else:
            run += c
    return [*out, run] if run else out


def f1(gold: str, found: str, language: str = "", rules: str = "squad", unanswerable: bool = False) -> float:
    """F1 of the words of an answer.

    Args:
      unanswerable: where either has no words, 1 if both have none, as the script of SQuAD 2.0 has it; those of SQuAD 1.1 and
        MLQA give 0, for there is no word in common.
    """
    a, b = normalize(gold, language, rules), normalize(found, language, rules)
    if unanswerable and not (a and b):
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    if not common:
        return 0.0
    precision, recall = common / len(b), common / len(a)
    return 2 * precision * recall / (precision + recall)


def exact(gold: str, found: str, language: str = "", rules: str = "squad", unanswerable: bool = False) -> float:
    """Whether two answers have the same words in the same order; all scripts count two without words as the same."""
    return float(normalize(gold, language, rules) == normalize(found, language, rules))


def answer_scores(
    gold: Sequence[Sequence[str]],
    found: Sequence[str],
    language: str = "",
    rules: str = "squad",
    unanswerable: bool = False,
) -> dict[str, float]:
    """Means over questions of the best over each question's answers.

    Args:
      unanswerable: by the script of SQuAD 2.0: answers without words do not count, and a question that is left without any has
        "" for one. Else by that of SQuAD 1.1 or MLQA: all count.

    Returns:
      f1, exact: 0 to 1.

    Raises:
      UserError: an answer is no text, a question has one text where a list of answers is meant, or it has none.
    """
    for answers in gold:
        if isinstance(answers, str) or not all(isinstance(answer, str) for answer in answers):
            raise UserError(f"gold: {answers!r}, not a list of a question's answers, e.g. ['Denver']")
        if not answers and not unanswerable:
            raise UserError("gold: a question without answers; measure it with unanswerable=True, as SQuAD 2.0")
    if isinstance(found, str) or not all(isinstance(answer, str) for answer in found):
        raise UserError("found: not a list of answers")
    if len(gold) != len(found):
        raise UserError(f"found: {len(found):,} answers for {len(gold):,} questions")
    pairs = [(list(answers), answer) for answers, answer in zip(gold, found, strict=True)]
    if unanswerable:
        pairs = [([a for a in answers if normalize(a, language, rules)] or [""], answer) for answers, answer in pairs]
    n = max(len(pairs), 1)
    return {
        name: sum(max(measure(a, answer, language, rules, unanswerable) for a in answers) for answers, answer in pairs)
        / n
        for name, measure in (("f1", f1), ("exact", exact))
    }
